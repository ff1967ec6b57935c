{{/*
The edge as a native sidecar, for this chart and for charts that have it as a dependency: an entry of initContainers, with
the volumes of tidegate.edge.volumes and one called "state". Takes a dict: "root", "settings" (of the edge).
*/}}
{{- define "tidegate.edge.container" -}}
{{- $settings := .settings -}}
{{- $kafka := include "tidegate.edge.kafka" .root | fromJson -}}
- name: edge
  image: {{ include "tidegate.image" (dict "root" .root "image" .root.Values.image.edge) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  # It starts before the mail server does, and ends after it.
  restartPolicy: Always
  args: [--config, /etc/tidegate/config/edge.toml]
  securityContext:
    {{- toYaml $settings.securityContext | nindent 4 }}
  env:
    # Which node it is: the one that its certificate names.
    - name: TIDEGATE_EDGE_NODE
      valueFrom:
        fieldRef:
          fieldPath: {{ ternary "metadata.name" "spec.nodeName" (eq $settings.kind "StatefulSet") }}
    {{- with $settings.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $settings.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: ops
      containerPort: 7790
      protocol: TCP
  # The mail server is started when this has succeeded, and its sockets are there.
  startupProbe:
    httpGet: { path: /healthz, port: ops }
    {{- toYaml $settings.probes.startup | nindent 4 }}
  livenessProbe:
    httpGet: { path: /healthz, port: ops }
    {{- toYaml $settings.probes.liveness | nindent 4 }}
  # No readiness probe: an edge that is cut off from control still does its work, and so does the mail server.
  {{- with $settings.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - { name: edge-config, mountPath: /etc/tidegate/config, readOnly: true }
    - { name: edge-tls, mountPath: /etc/tidegate/tls, readOnly: true }
    - { name: edge-sockets, mountPath: /run/tidegate }
    - { name: state, mountPath: /var/lib/tidegate-edge }
    {{- if $settings.hashKeySecret.name }}
    - { name: edge-hash-key, mountPath: /etc/tidegate/hash-key, readOnly: true }
    {{- end }}
    {{- if and (eq $settings.publish "kafka") (fromJsonArray (include "tidegate.kafkaSecrets" $kafka)) }}
    - { name: edge-kafka, mountPath: /etc/tidegate/kafka, readOnly: true }
    {{- end }}
    {{- with $settings.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "tidegate.edge.volumes" -}}
{{- $settings := .settings -}}
- name: edge-config
  configMap:
    name: {{ include "tidegate.fullname" .root }}-edge
# Milter and policy sockets, for the mail server's container; they live in memory.
- name: edge-sockets
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
- name: edge-tls
  {{- if $settings.tls.csi.enabled }}
  # cert-manager's driver makes a certificate for this very pod, and it ends with the pod.
  csi:
    driver: csi.cert-manager.io
    readOnly: true
    volumeAttributes:
      {{- with $settings.tls.csi.issuerRef }}
      csi.cert-manager.io/issuer-name: {{ .name | quote }}
      csi.cert-manager.io/issuer-kind: {{ .kind | quote }}
      csi.cert-manager.io/issuer-group: {{ .group | quote }}
      {{- end }}
      csi.cert-manager.io/uri-sans: {{ printf "spiffe://%s/edge/%s/${POD_NAME}" .root.Values.tls.trustDomain $settings.site | quote }}
      csi.cert-manager.io/key-usages: "digital signature,client auth"
      csi.cert-manager.io/key-algorithm: ECDSA
      csi.cert-manager.io/key-size: "256"
      csi.cert-manager.io/duration: {{ .root.Values.tls.certManager.duration | quote }}
      csi.cert-manager.io/fs-group: "65532"
  {{- else if $settings.tls.hostPath }}
  hostPath: { path: {{ $settings.tls.hostPath }}, type: Directory }
  {{- else }}
  secret:
    secretName: {{ $settings.tls.secret }}
    defaultMode: 0440
  {{- end }}
{{- if $settings.hashKeySecret.name }}
- name: edge-hash-key
  secret:
    secretName: {{ $settings.hashKeySecret.name }}
    defaultMode: 0440
    items:
      - { key: {{ $settings.hashKeySecret.key }}, path: hash.key }
{{- end }}
{{- if eq $settings.publish "kafka" }}
{{ include "tidegate.kafkaVolume" (dict "name" "edge-kafka" "kafka" (include "tidegate.edge.kafka" .root | fromJson)) }}
{{- end }}
{{- end -}}

{{/* The edges' way to Kafka: that of the services, unless edge.kafka has credentials of its own. As JSON. */}}
{{- define "tidegate.edge.kafka" -}}
{{- $kafka := deepCopy .Values.kafka -}}
{{- include "tidegate.override" (dict "into" $kafka "with" (deepCopy .Values.edge.kafka)) -}}
{{- toJson $kafka -}}
{{- end -}}
