{{/*
A component's tidegate.toml: what the chart makes of its values, then "config", then the component's own "config" over it.
Takes a dict: "root", "component" (stream, control, notifier, history, topics), "settings".
*/}}
{{- define "tidegate.config" -}}
{{- $values := .root.Values -}}
{{- $config := dict
      "log" (fromJson (include "tidegate.config.log" .root))
      "ops" (dict "listen" (printf "%s:7780" $values.listenAddress))
      "telemetry" (dict "format" $values.telemetry.format "filter" $values.telemetry.filter) -}}
{{- if $values.traces.endpoint }}{{ $_ := set $config "traces" (fromJson (include "tidegate.config.traces" .root)) }}{{ end -}}
{{- if eq .component "stream" -}}
{{- $_ := set $config "stream" (fromJson (include "tidegate.config.stream" .)) -}}
{{- else if eq .component "control" -}}
{{- $_ := set $config "control" (fromJson (include "tidegate.config.control" .)) -}}
{{- $access := fromJson (include "tidegate.config.access" .root) -}}
{{- if $values.access.enrolment.enabled }}{{ $_ := set $access "enrolment" (fromJson (include "tidegate.config.enrolment" .root)) }}{{ end -}}
{{- $_ := set $config "access" $access -}}
{{- if .settings.console.enabled -}}
{{- $_ := set $config "console" (fromJson (include "tidegate.config.console" .)) -}}
{{- end -}}
{{- else if eq .component "notifier" -}}
{{- $_ := set $config "notify" (fromJson (include "tidegate.config.notify" .)) -}}
{{- else if eq .component "history" -}}
{{- $_ := set $config "history" (fromJson (include "tidegate.config.history" .)) -}}
{{- $_ := set $config "access" (fromJson (include "tidegate.config.access" .root)) -}}
{{- end -}}
{{- /* The job that makes topics has no service. */ -}}
{{- $shared := ternary (pick $values.config "log" "telemetry") $values.config (eq .component "topics") -}}
{{- include "tidegate.override" (dict "into" $config "with" (deepCopy $shared)) -}}
{{- include "tidegate.override" (dict "into" $config "with" (deepCopy (default dict .settings.config))) -}}
# Made by the Helm chart; change its values instead.
{{- include "tidegate.toml" (dict "table" $config "path" "") }}
{{ end -}}

{{/* [traces] as JSON. */}}
{{- define "tidegate.config.traces" -}}
{{- with .Values.traces -}}
{{- dict "endpoint" .endpoint "sample_ratio" (float64 .sampleRatio) "accounts" .accounts | toJson -}}
{{- end -}}
{{- end -}}

{{/* [log] as JSON. */}}
{{- define "tidegate.config.log" -}}
{{- $kafka := .Values.kafka -}}
{{- $log := dict
      "kind" "kafka"
      "bootstrap_servers" $kafka.bootstrapServers
      "topic_prefix" $kafka.topicPrefix
      "partitions" $kafka.partitions
      "create_topics" false
      "replication_factor" $kafka.replicationFactor
      "min_insync_replicas" $kafka.minInsyncReplicas
      "events_max_age_s" $kafka.retention.eventsSeconds
      "commands_max_age_s" $kafka.retention.commandsSeconds
      "audit_max_age_s" $kafka.retention.auditSeconds -}}
{{- include "tidegate.override" (dict "into" $log "with" (fromJson (include "tidegate.config.kafkaProperties" $kafka))) -}}
{{- toJson $log -}}
{{- end -}}

{{/* librdkafka's properties, and those that are read from files, as JSON. Takes values of the form of "kafka". */}}
{{- define "tidegate.config.kafkaProperties" -}}
{{- $properties := dict -}}
{{- $files := dict -}}
{{- if ne .security.protocol "plaintext" -}}
{{- $_ := set $properties "security.protocol" .security.protocol -}}
{{- end -}}
{{- if hasSuffix "ssl" .security.protocol -}}
{{- if .security.tls.caSecret.name -}}
{{- $_ := set $properties "ssl.ca.location" "/etc/tidegate/kafka/ca.pem" -}}
{{- end -}}
{{- if .security.tls.clientCertificateSecret.name -}}
{{- $_ := set $properties "ssl.certificate.location" "/etc/tidegate/kafka/client.pem" -}}
{{- $_ := set $properties "ssl.key.location" "/etc/tidegate/kafka/client.key" -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "sasl" .security.protocol -}}
{{- $sasl := .security.sasl -}}
{{- $_ := set $properties "sasl.mechanism" $sasl.mechanism -}}
{{- if $sasl.username -}}
{{- $_ := set $properties "sasl.username" $sasl.username -}}
{{- else -}}
{{- $_ := set $files "sasl.username" "/etc/tidegate/kafka/username" -}}
{{- end -}}
{{- $_ := set $files "sasl.password" "/etc/tidegate/kafka/password" -}}
{{- end -}}
{{- include "tidegate.override" (dict "into" $properties "with" (deepCopy .properties)) -}}
{{- $made := dict -}}
{{- if $properties }}{{ $_ := set $made "properties" $properties }}{{ end -}}
{{- if $files }}{{ $_ := set $made "property_files" $files }}{{ end -}}
{{- toJson $made -}}
{{- end -}}

{{- define "tidegate.config.stream" -}}
{{- $values := .root.Values -}}
{{- $stream := dict "mode" (default nil $values.rules.mode) -}}
{{- if or $values.rules.content $values.rules.existingConfigMap -}}
{{- $_ := set $stream "rules" "/etc/tidegate/rules/rules.toml" -}}
{{- end -}}
{{- if or $values.statistics.content $values.statistics.existingConfigMap -}}
{{- $_ := set $stream "statistics" "/etc/tidegate/statistics/statistics.sql" -}}
{{- end -}}
{{- $checkpoints := .settings.checkpoints -}}
{{- $table := dict "interval_ms" $checkpoints.intervalMs -}}
{{- if $checkpoints.persistence.enabled -}}
{{- $_ := set $table "url" "/var/lib/tidegate/checkpoints" -}}
{{- else if $checkpoints.url -}}
{{- $_ := set $table "url" $checkpoints.url -}}
{{- with $checkpoints.options }}{{ $_ := set $table "options" . }}{{ end -}}
{{- else -}}
{{- $_ := set $table "enabled" false -}}
{{- end -}}
{{- $_ := set $stream "checkpoints" $table -}}
{{- toJson $stream -}}
{{- end -}}

{{- define "tidegate.config.control" -}}
{{- $control := dict
      "listen" (printf "%s:7710" .root.Values.listenAddress)
      "default_realm" (default nil .root.Values.accounts.defaultRealm)
      "lower_case_local_part" .root.Values.accounts.lowerCaseLocalPart
      "tls" (fromJson (include "tidegate.config.serverTls" (dict "root" .root "directory" "tls"))) -}}
{{- toJson $control -}}
{{- end -}}

{{- define "tidegate.config.console" -}}
{{- $console := .settings.console -}}
{{- $directory := ternary "console-tls" "tls" (not (empty $console.tlsSecret)) -}}
{{- toJson (dict
      "listen" (printf "%s:7712" .root.Values.listenAddress)
      "host_names" $console.hostNames
      "tls" (dict "certificate" (printf "/etc/tidegate/%s/tls.crt" $directory) "key" (printf "/etc/tidegate/%s/tls.key" $directory))) -}}
{{- end -}}

{{/* A listener's certificate, and whose clients' it takes. */}}
{{- define "tidegate.config.serverTls" -}}
{{- $ca := ternary "/etc/tidegate/client-ca/ca.crt" "/etc/tidegate/tls/ca.crt" (not (empty .root.Values.tls.clientCaSecret.name)) -}}
{{- toJson (dict
      "certificate" (printf "/etc/tidegate/%s/tls.crt" .directory)
      "key" (printf "/etc/tidegate/%s/tls.key" .directory)
      "client_ca" $ca) -}}
{{- end -}}

{{- define "tidegate.config.access" -}}
{{- $access := dict "trust_domain" .Values.tls.trustDomain "people" "/etc/tidegate/access/people.toml" -}}
{{- if .Values.access.tokensSecret.name -}}
{{- $_ := set $access "tokens" "/etc/tidegate/tokens/tokens.toml" -}}
{{- else if .Values.access.tokensVolume.enabled -}}
{{- $_ := set $access "tokens" "/var/lib/tidegate/tokens/tokens.toml" -}}
{{- end -}}
{{- with .Values.access.jwt }}{{ $_ := set $access "jwt" . }}{{ end -}}
{{- toJson $access -}}
{{- end -}}

{{/* Control signs certificates, history does not. */}}
{{- define "tidegate.config.enrolment" -}}
{{- toJson (dict
      "certificate" "/etc/tidegate/edge-authority/tls.crt"
      "key" "/etc/tidegate/edge-authority/tls.key"
      "lifetime_days" .Values.access.enrolment.lifetimeDays) -}}
{{- end -}}

{{- define "tidegate.config.notify" -}}
{{- $notify := dict -}}
{{- with .settings.smtp -}}
{{- if .host -}}
{{- $smtp := dict "host" .host "port" .port "tls" .tls "from" .from -}}
{{- if .username -}}
{{- $_ := set $smtp "username" .username -}}
{{- $_ := set $smtp "password_file" "/etc/tidegate/smtp/password" -}}
{{- end -}}
{{- if .caSecret.name }}{{ $_ := set $smtp "ca" "/etc/tidegate/smtp/ca.pem" }}{{ end -}}
{{- $_ := set $notify "smtp" $smtp -}}
{{- end -}}
{{- end -}}
{{- $hooks := list -}}
{{- range .settings.webhooks -}}
{{- $hook := deepCopy (omit . "urlSecret" "signingSecret" "config") -}}
{{- if .urlSecret }}{{ $_ := set $hook "url_file" (printf "/etc/tidegate/webhooks/%s.url" .name) }}{{ end -}}
{{- if .signingSecret }}{{ $_ := set $hook "secret_file" (printf "/etc/tidegate/webhooks/%s.secret" .name) }}{{ end -}}
{{- include "tidegate.override" (dict "into" $hook "with" (default dict .config)) -}}
{{- $hooks = append $hooks $hook -}}
{{- end -}}
{{- if $hooks }}{{ $_ := set $notify "webhook" $hooks }}{{ end -}}
{{- toJson $notify -}}
{{- end -}}

{{- define "tidegate.config.history" -}}
{{- $store := .settings.store -}}
{{- $history := dict
      "url" (ternary "/var/lib/tidegate/history" $store.url $store.persistence.enabled)
      "retention_days" .settings.retentionDays
      "listen" (printf "%s:7730" .root.Values.listenAddress)
      "spill_directory" "/var/lib/tidegate/spill"
      "tls" (fromJson (include "tidegate.config.serverTls" (dict "root" .root "directory" "tls"))) -}}
{{- if and $store.options (not $store.persistence.enabled) }}{{ $_ := set $history "options" $store.options }}{{ end -}}
{{- toJson $history -}}
{{- end -}}

{{/* people.toml, with whoever plays the canary test. */}}
{{- define "tidegate.people" -}}
{{- $people := list -}}
{{- range .Values.access.people -}}
{{- $person := dict "name" .name "role" .role -}}
{{- if hasKey . "domains" }}{{ $_ := set $person "domains" .domains }}{{ end -}}
{{- $people = append $people $person -}}
{{- end -}}
{{- if eq (include "tidegate.test.makesCertificate" .) "true" -}}
{{- $people = append $people (dict "name" "helm-test" "role" "operator" "domains" (list (last (splitList "@" .Values.tests.canary.account)))) -}}
{{- end -}}
# Made by the Helm chart; change its values instead.
{{ if .Values.access.revoked }}revoked = {{ include "tidegate.toml.inline" .Values.access.revoked }}
{{ end -}}
{{- range $people }}
[[person]]
{{- include "tidegate.toml" (dict "table" . "path" "") }}
{{ end -}}
{{- end -}}

{{/* edge.toml. Takes a dict: "root", "settings". The node's name comes from the environment. */}}
{{- define "tidegate.config.edge" -}}
{{- $values := .root.Values -}}
{{- $edge := .settings -}}
{{- $config := dict
      "site" $edge.site
      "state_directory" "/var/lib/tidegate-edge"
      "internal_domains" $edge.internalDomains
      "admin_addresses" $edge.adminAddresses
      "milter" (dict "listen" $edge.milter.listen)
      "policy" (dict "listen" $edge.policy.listen)
      "session" (dict "lower_case_local_part" $values.accounts.lowerCaseLocalPart)
      "control" (dict
        "endpoint" (default (printf "https://%s-control.%s.svc:7710" (include "tidegate.fullname" .root) .root.Release.Namespace) $edge.control.endpoint)
        "tls" (dict "certificate" "/etc/tidegate/tls/tls.crt" "key" "/etc/tidegate/tls/tls.key" "ca" "/etc/tidegate/tls/ca.crt"))
      "publish" (dict "kind" $edge.publish)
      "ops" (dict "listen" (printf "%s:7790" $values.listenAddress))
      "telemetry" (dict "format" $values.telemetry.format "filter" $values.telemetry.filter) -}}
{{- if $values.traces.endpoint }}{{ $_ := set $config "traces" (fromJson (include "tidegate.config.traces" .root)) }}{{ end -}}
{{- with $edge.milter.socketMode }}{{ $_ := set $config.milter "connections" (dict "socket_mode" .) }}{{ end -}}
{{- with $edge.policy.socketMode }}{{ $_ := set $config.policy "connections" (dict "socket_mode" .) }}{{ end -}}
{{- with $values.accounts.defaultRealm }}{{ $_ := set $config.session "default_realm" . }}{{ end -}}
{{- if $edge.hashKeySecret.name }}{{ $_ := set $config "hash_key_file" "/etc/tidegate/hash-key/hash.key" }}{{ end -}}
{{- if eq $edge.publish "kafka" -}}
{{- $kafka := dict
      "bootstrap_servers" $values.kafka.bootstrapServers
      "topic_prefix" $values.kafka.topicPrefix
      "partitions" $values.kafka.partitions -}}
{{- include "tidegate.override" (dict "into" $kafka "with" (fromJson (include "tidegate.config.kafkaProperties" (include "tidegate.edge.kafka" .root | fromJson)))) -}}
{{- $_ := set $config.publish "kafka" $kafka -}}
{{- end -}}
{{- include "tidegate.override" (dict "into" $config "with" (deepCopy (default dict $edge.config))) -}}
# Made by the Helm chart; change its values instead. The node's name is in TIDEGATE_EDGE_NODE.
{{- include "tidegate.toml" (dict "table" $config "path" "") }}
{{ end -}}
