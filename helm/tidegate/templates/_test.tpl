{{/* Whether `helm test` has something to do: it needs control, and a way to prove who it is. */}}
{{- define "tidegate.test.runs" -}}
{{- and .Values.tests.canary.enabled .Values.control.enabled (or .Values.tls.certManager.enabled (not (empty .Values.tests.canary.credentialsSecret))) -}}
{{- end -}}

{{/* Whether the chart makes the test's certificate. */}}
{{- define "tidegate.test.makesCertificate" -}}
{{- and (eq (include "tidegate.test.runs" .) "true") (empty .Values.tests.canary.credentialsSecret) -}}
{{- end -}}

{{/* A container of the test. Takes a dict: "root", "settings", "name", "arguments". */}}
{{- define "tidegate.test.container" -}}
{{- $canary := .root.Values.tests.canary -}}
- name: {{ .name }}
  {{- include "tidegate.serverContainer" (dict "root" .root "settings" (dict "securityContext" .settings.securityContext)) | nindent 2 }}
  args:
    {{- toYaml .arguments | nindent 4 }}
  env:
    - name: TIDEGATE_SERVER
      value: https://{{ include "tidegate.fullname" .root }}-control.{{ .root.Release.Namespace }}.svc:7710
    - name: TIDEGATE_CA
      value: /etc/tidegate/tls/ca.crt
    {{- if $canary.usesToken }}
    - name: TIDEGATE_TOKEN_FILE
      value: /etc/tidegate/tls/token
    {{- else }}
    - name: TIDEGATE_CERTIFICATE
      value: /etc/tidegate/tls/tls.crt
    - name: TIDEGATE_KEY
      value: /etc/tidegate/tls/tls.key
    {{- end }}
  resources:
    requests: { cpu: 10m, memory: 32Mi }
    limits: { memory: 128Mi }
  volumeMounts:
    - { name: tls, mountPath: /etc/tidegate/tls, readOnly: true }
{{- end -}}
