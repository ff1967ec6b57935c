{{/*
The one pod template of stream, control, notifier and history. Takes a dict:
  "root", "component", "settings" (of the component, see tidegate.component)
  "ports"    list of {name, containerPort} besides "ops"
  "volumes", "mounts"   lists that only this component has
  "environment"         list for envFrom
  "annotations"         dict; with it a change rolls the pods
*/}}
{{- define "tidegate.podTemplate" -}}
{{- $settings := .settings -}}
metadata:
  annotations:
    # What the process reads only when it starts. A change rolls these pods, and no others.
    checksum/config: {{ include "tidegate.config" . | sha256sum }}
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- range $name, $value := .annotations }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
    {{- with $settings.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "tidegate.podLabels" . | nindent 4 }}
    {{- with $settings.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "tidegate.podSpec" . | nindent 2 }}
  containers:
    - name: {{ .component }}
      {{- include "tidegate.serverContainer" . | nindent 6 }}
      args: [{{ .component }}, --config, /etc/tidegate/config/tidegate.toml]
      ports:
        - name: ops
          containerPort: 7780
          protocol: TCP
        {{- range .ports }}
        - name: {{ .name }}
          containerPort: {{ .containerPort }}
          protocol: TCP
        {{- end }}
      startupProbe:
        httpGet: { path: /healthz, port: ops }
        {{- toYaml $settings.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: { path: /healthz, port: ops }
        {{- toYaml $settings.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: { path: /readyz, port: ops }
        {{- toYaml $settings.probes.readiness | nindent 8 }}
      {{- if gt (int $settings.preStopSleepSeconds) 0 }}
      lifecycle:
        preStop:
          # Others stop sending new connections here before this one stops taking them.
          sleep: { seconds: {{ $settings.preStopSleepSeconds }} }
      {{- end }}
      {{- with $settings.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - { name: config, mountPath: /etc/tidegate/config, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        {{- include "tidegate.kafkaMount" .root | nindent 8 }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $settings.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $settings.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "tidegate.fullname" .root }}-{{ .component }}
    - name: tmp
      emptyDir: { sizeLimit: 64Mi }
    {{- include "tidegate.kafkaVolume" (dict "kafka" .root.Values.kafka) | nindent 4 }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $settings.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What all pods of this chart have, also jobs and tests. */}}
{{- define "tidegate.podSpec" -}}
{{- $settings := .settings -}}
serviceAccountName: {{ include "tidegate.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml $settings.podSecurityContext | nindent 2 }}
{{- with $settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .single }}
terminationGracePeriodSeconds: {{ $settings.terminationGracePeriodSeconds }}
{{- with $settings.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "tidegate.selectorLabels" $ | nindent 8 }}
    # So that an upgrade does not count the pods of the version before.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Image, rights and environment of a container that runs "tidegate". */}}
{{- define "tidegate.serverContainer" -}}
image: {{ include "tidegate.image" (dict "root" .root "image" .root.Values.image.server) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .settings.securityContext | nindent 2 }}
{{- with .settings.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (default list .environment) (default list .settings.extraEnvFrom) }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The Secrets with which Kafka is reached, as files in one folder; nothing when there are none. */}}
{{- define "tidegate.kafkaVolume" -}}
{{- $sources := fromJsonArray (include "tidegate.kafkaSecrets" .kafka) -}}
{{- if $sources -}}
- name: {{ default "kafka" .name }}
  projected:
    defaultMode: 0440
    sources:
      {{- toYaml $sources | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "tidegate.kafkaMount" -}}
{{- if fromJsonArray (include "tidegate.kafkaSecrets" .Values.kafka) -}}
- { name: kafka, mountPath: /etc/tidegate/kafka, readOnly: true }
{{- end -}}
{{- end -}}

{{/* Sources of a projected volume, as JSON. Takes values of the form of "kafka". */}}
{{- define "tidegate.kafkaSecrets" -}}
{{- $sources := list -}}
{{- $security := .security -}}
{{- if hasSuffix "ssl" $security.protocol -}}
{{- with $security.tls.caSecret -}}
{{- if .name }}{{ $sources = append $sources (dict "secret" (dict "name" .name "items" (list (dict "key" .key "path" "ca.pem")))) }}{{ end -}}
{{- end -}}
{{- with $security.tls.clientCertificateSecret -}}
{{- if .name -}}
{{- $items := list (dict "key" .certificateKey "path" "client.pem") (dict "key" .privateKeyKey "path" "client.key") -}}
{{- $sources = append $sources (dict "secret" (dict "name" .name "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "sasl" $security.protocol -}}
{{- with $security.sasl -}}
{{- $items := list (dict "key" .secret.passwordKey "path" "password") -}}
{{- if not .username }}{{ $items = append $items (dict "key" .secret.usernameKey "path" "username") }}{{ end -}}
{{- $sources = append $sources (dict "secret" (dict "name" .secret.name "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}
