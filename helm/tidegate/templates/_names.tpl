{{/* What the release's objects are called, at most 40 characters, so that there is room for what follows. */}}
{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. Takes a dict: "root", "component" (may be empty). */}}
{{- define "tidegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tidegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: tidegate
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: what changes with each version of the chart would roll them for nothing. The same dict. */}}
{{- define "tidegate.podLabels" -}}
{{ include "tidegate.selectorLabels" . }}
app.kubernetes.io/part-of: tidegate
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels by which Services and policies find pods; they never change. The same dict. */}}
{{- define "tidegate.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/*
metadata of an object. Takes a dict: "root", "component", "name" (what follows the release's name) or "fullname";
"annotations" and "extraLabels" are optional.
*/}}
{{- define "tidegate.metadata" -}}
{{- $short := include "tidegate.fullname" .root -}}
name: {{ default (ternary $short (printf "%s-%s" $short (default "" .name)) (empty .name)) .fullname }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "tidegate.labels" . | nindent 2 }}
  {{- with .extraLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's whole name. Takes a dict: "root", "image" (image.server or image.edge). A digest counts before a tag. */}}
{{- define "tidegate.image" -}}
{{- $registry := .root.Values.image.registry -}}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A component's settings: its own over those of "defaults", as JSON. Takes a dict: "root", "component". */}}
{{- define "tidegate.component" -}}
{{- $settings := deepCopy .root.Values.defaults -}}
{{- include "tidegate.override" (dict "into" $settings "with" (deepCopy (get .root.Values .component))) -}}
{{- toJson $settings -}}
{{- end -}}

{{/* The name of a component's ServiceAccount. The same dict, and "settings". */}}
{{- define "tidegate.serviceAccountName" -}}
{{- $own := printf "%s-%s" (include "tidegate.fullname" .root) .component -}}
{{- default (ternary $own "default" .settings.serviceAccount.create) .settings.serviceAccount.name -}}
{{- end -}}

{{/* The ports of the brokers, as a JSON list of texts. */}}
{{- define "tidegate.kafkaPorts" -}}
{{- $ports := dict -}}
{{- range splitList "," .Values.kafka.bootstrapServers -}}
{{- $_ := set $ports (last (splitList ":" (trim .))) true -}}
{{- end -}}
{{- keys $ports | sortAlpha | toJson -}}
{{- end -}}
