{{/*
All objects of a component: ConfigMap, ServiceAccount, Deployment, Service for operators, PodDisruptionBudget. Takes the
dict of tidegate.podTemplate, and "replicas" (none: an autoscaler's), "strategy".
*/}}
{{- define "tidegate.workload" -}}
{{- $name := dict "root" .root "component" .component "name" .component -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "tidegate.metadata" $name | nindent 2 }}
data:
  tidegate.toml: |
    {{- include "tidegate.config" . | nindent 4 }}
---
{{- if .settings.serviceAccount.create }}
{{ include "tidegate.serviceAccount" . }}
---
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tidegate.metadata" $name | nindent 2 }}
spec:
  {{- if not (kindIs "invalid" .replicas) }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: {{ .settings.revisionHistoryLimit }}
  strategy:
    {{- toYaml .strategy | nindent 4 }}
  selector:
    matchLabels:
      {{- include "tidegate.selectorLabels" . | nindent 6 }}
  template:
    {{- include "tidegate.podTemplate" . | nindent 4 }}
---
{{ include "tidegate.opsService" (merge (dict "port" 7780) .) }}
{{- if .settings.podDisruptionBudget.enabled }}
---
{{ include "tidegate.podDisruptionBudget" . }}
{{- end }}
{{- end -}}

{{- define "tidegate.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "tidegate.metadata" (dict "root" .root "component" .component "fullname" (include "tidegate.serviceAccountName" .) "annotations" .settings.serviceAccount.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{/* Where Prometheus finds the pods, ready or not. */}}
{{- define "tidegate.opsService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "tidegate.metadata" (dict "root" .root "component" .component "name" (printf "%s-ops" .component)) | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "tidegate.selectorLabels" . | nindent 4 }}
  ports:
    - name: ops
      port: {{ .port }}
      targetPort: ops
      protocol: TCP
{{- end -}}

{{- define "tidegate.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "tidegate.metadata" (dict "root" .root "component" .component "name" .component) | nindent 2 }}
spec:
  maxUnavailable: {{ .settings.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready protects nothing: it may always go.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tidegate.selectorLabels" . | nindent 6 }}
{{- end -}}
