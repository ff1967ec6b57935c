{{/* Folders with certificates. They are mounted whole, so that renewed ones reach the process, which takes them as they are. */}}
{{- define "tidegate.tlsVolumes" -}}
{{- $tls := .root.Values.tls -}}
{{- $own := printf "%s-%s-tls" (include "tidegate.fullname" .root) .component -}}
{{- $name := ternary $own (get $tls.existingSecrets .component) $tls.certManager.enabled -}}
{{- $volumes := list (dict "name" "tls" "secret" (dict "secretName" $name "defaultMode" 0440)) -}}
{{- with $tls.clientCaSecret -}}
{{- if .name -}}
{{- $items := list (dict "key" .key "path" "ca.crt") -}}
{{- $volumes = append $volumes (dict "name" "client-ca" "secret" (dict "secretName" .name "items" $items "defaultMode" 0440)) -}}
{{- end -}}
{{- end -}}
{{- toJson $volumes -}}
{{- end -}}

{{- define "tidegate.tlsMounts" -}}
{{- $mounts := list (dict "name" "tls" "mountPath" "/etc/tidegate/tls" "readOnly" true) -}}
{{- if .Values.tls.clientCaSecret.name -}}
{{- $mounts = append $mounts (dict "name" "client-ca" "mountPath" "/etc/tidegate/client-ca" "readOnly" true) -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{/* Who may do what: people, and the hashes of tokens. Both files are watched by the process. */}}
{{- define "tidegate.accessVolumes" -}}
{{- $volumes := list (dict "name" "access" "configMap" (dict "name" (printf "%s-access" (include "tidegate.fullname" .)))) -}}
{{- with .Values.access.tokensSecret -}}
{{- if .name -}}
{{- $items := list (dict "key" .key "path" "tokens.toml") -}}
{{- $volumes = append $volumes (dict "name" "tokens" "secret" (dict "secretName" .name "items" $items "defaultMode" 0440)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.access.tokensVolume -}}
{{- if .enabled -}}
{{- $claim := default (printf "%s-tokens" (include "tidegate.fullname" $)) .existingClaim -}}
{{- $volumes = append $volumes (dict "name" "tokens" "persistentVolumeClaim" (dict "claimName" $claim)) -}}
{{- end -}}
{{- end -}}
{{- toJson $volumes -}}
{{- end -}}

{{/* Takes a dict: "root", "component". Who enrols changes the file of tokens. */}}
{{- define "tidegate.accessMounts" -}}
{{- $access := .root.Values.access -}}
{{- $mounts := list (dict "name" "access" "mountPath" "/etc/tidegate/access" "readOnly" true) -}}
{{- if $access.tokensSecret.name -}}
{{- $mounts = append $mounts (dict "name" "tokens" "mountPath" "/etc/tidegate/tokens" "readOnly" true) -}}
{{- else if $access.tokensVolume.enabled -}}
{{- $mounts = append $mounts (dict "name" "tokens" "mountPath" "/var/lib/tidegate/tokens" "readOnly" (ne .component "control")) -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{/* The authority that signs the certificates of mail hosts that enrol. */}}
{{- define "tidegate.edgeAuthorityVolume" -}}
{{- $name := default (printf "%s-authority" (include "tidegate.fullname" .)) .Values.access.enrolment.authoritySecret -}}
{{- toJson (dict "name" "edge-authority" "secret" (dict "secretName" $name "defaultMode" 0440)) -}}
{{- end -}}

{{/* How pods are replaced: a volume that only one node can have is let go before the next pod takes it. */}}
{{- define "tidegate.strategy" -}}
{{- $alone := and .persistence.enabled (not (has "ReadWriteMany" .persistence.accessModes)) -}}
{{- toJson (ternary (dict "type" "Recreate") .settings.strategy $alone) -}}
{{- end -}}

{{/* A PersistentVolumeClaim, which stays when the release is uninstalled. */}}
{{- define "tidegate.volumeClaim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "tidegate.metadata" (dict "root" .root "component" .component "name" .name "annotations" (dict "helm.sh/resource-policy" "keep")) | nindent 2 }}
spec:
  accessModes:
    {{- toYaml .persistence.accessModes | nindent 4 }}
  {{- with .persistence.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .persistence.size }}
{{- end -}}

{{- define "tidegate.rulesConfigMap" -}}
{{- default (printf "%s-rules" (include "tidegate.fullname" .)) .Values.rules.existingConfigMap -}}
{{- end -}}

{{- define "tidegate.statisticsConfigMap" -}}
{{- default (printf "%s-statistics" (include "tidegate.fullname" .)) .Values.statistics.existingConfigMap -}}
{{- end -}}
