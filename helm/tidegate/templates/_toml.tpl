{{/*
A table as TOML, the form of every configuration file. Helm's own toToml writes whole numbers as fractions, which a strict
reader refuses. Takes a dict: "table", and "path", the table's name (empty at the top). Null is left out.
*/}}
{{- define "tidegate.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "tidegate.toml.key" $key }} = {{ include "tidegate.toml.inline" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if kindIs "map" $value -}}
{{- $name := include "tidegate.toml.key" $key -}}
{{- $below := ternary $name (printf "%s.%s" $path $name) (empty $path) }}

[{{ $below }}]
{{- include "tidegate.toml" (dict "table" $value "path" $below) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A value on one line. JSON's strings, numbers and truth values are TOML's, too. */}}
{{- define "tidegate.toml.inline" -}}
{{- if kindIs "map" . -}}
{ {{- $comma := " " -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{ $comma }}{{ include "tidegate.toml.key" $key }} = {{ include "tidegate.toml.inline" $value }}
{{- $comma = ", " -}}
{{- end -}}
{{- end }} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $value := . -}}{{ if $index }}, {{ end }}{{ include "tidegate.toml.inline" $value }}{{- end -}}]
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- end -}}

{{- define "tidegate.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end -}}

{{/*
Puts the values of "with" over those of "into", table by table, also those that are false, 0 or empty (which Helm's merge
passes over). Null takes a key away. "into" is changed.
*/}}
{{- define "tidegate.override" -}}
{{- $into := .into -}}
{{- range $key, $value := .with -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $into $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "tidegate.override" (dict "into" (get $into $key) "with" $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
