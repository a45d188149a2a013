{{- define "mpegflow.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{/* What selects the pods of a part: (list $ "broker"). */}}
{{- define "mpegflow.selector" -}}
{{- $root := index . 0 }}
app.kubernetes.io/name: mpegflow-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end }}

{{/* Labels of an object of a part: (list $ "broker"). */}}
{{- define "mpegflow.labels" -}}
{{- $root := index . 0 }}
{{- include "mpegflow.selector" . }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/part-of: mpegflow
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image, by digest where there is one: (list $ "broker"). */}}
{{- define "mpegflow.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.images (index . 1) }}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else }}{{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) }}{{ end }}
{{- end }}

{{/* Neither root nor anybody whom an image or a node may know. */}}
{{- define "mpegflow.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mpegflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "mpegflow.identitySecret" -}}
{{- default (printf "%s-identity" (include "mpegflow.fullname" .)) .Values.broker.identity.existingSecret }}
{{- end }}

{{- define "mpegflow.apiKeySecret" -}}
{{- printf "%s-api-key" (include "mpegflow.fullname" .) }}
{{- end }}

{{/* The Secret with a pool's join file: (list $ pool). */}}
{{- define "mpegflow.joinSecret" -}}
{{- $root := index . 0 }}{{ $pool := index . 1 }}
{{- default (printf "%s-join-%s" (include "mpegflow.fullname" $root) $pool.name) $pool.existingSecret }}
{{- end }}

{{- define "mpegflow.databaseUrl" -}}
{{- if .Values.postgresql.enabled }}
{{- /* Inside the namespace, and by policy between these two pods alone. */}}
{{- printf "postgres://mpegflow@%s-postgresql:5432/mpegflow?sslmode=disable" (include "mpegflow.fullname" .) }}
{{- else }}{{ .Values.database.url }}{{ end }}
{{- end }}

{{/* Options that say which database, for every program of ours that opens it. */}}
{{- define "mpegflow.databaseArgs" -}}
{{- if and .Values.database.urlKey (not .Values.postgresql.enabled) }}
- --database-url-file=/run/secrets/database/url
{{- else }}
- --database-url={{ include "mpegflow.databaseUrl" . }}
- --database-password-file=/run/secrets/database/password
{{- end }}
- --database-connections={{ .Values.database.connections }}
{{- end }}

{{- define "mpegflow.databaseMounts" -}}
- {name: database, mountPath: /run/secrets/database, readOnly: true}
{{- if .Values.database.caConfigMap }}
- {name: database-ca, mountPath: /etc/mpegflow/database, readOnly: true}
{{- end }}
{{- end }}

{{- define "mpegflow.databaseVolumes" -}}
- name: database
  secret:
    {{- if .Values.postgresql.enabled }}
    secretName: {{ .Values.postgresql.existingSecret }}
    {{- else }}
    secretName: {{ .Values.database.existingSecret }}
    {{- end }}
    defaultMode: 0440
    items:
      {{- if .Values.postgresql.enabled }}
      - {key: {{ .Values.postgresql.passwordKey }}, path: password}
      {{- else if .Values.database.urlKey }}
      - {key: {{ .Values.database.urlKey }}, path: url}
      {{- else }}
      - {key: {{ .Values.database.passwordKey }}, path: password}
      {{- end }}
{{- if .Values.database.caConfigMap }}
- name: database-ca
  configMap: {name: {{ .Values.database.caConfigMap }}}
{{- end }}
{{- end }}

{{/* Egress rules of pods that open the database. */}}
{{- define "mpegflow.databaseEgress" -}}
{{- if .Values.postgresql.enabled }}
- to:
    - podSelector: {matchLabels: {{ include "mpegflow.selector" (list . "postgresql") | fromYaml | toJson }}}
  ports: [{protocol: TCP, port: 5432}]
{{- end }}
{{- range .Values.database.addresses }}
- to: [{ipBlock: {cidr: {{ .cidr }}}}]
  ports: [{protocol: TCP, port: {{ .port }}}]
{{- end }}
{{- end }}

{{- define "mpegflow.dnsEgress" -}}
{{- with .Values.networkPolicy.dns }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
      podSelector: {matchLabels: {{ toJson .podLabels }}}
  ports: [{protocol: UDP, port: {{ .port }}}, {protocol: TCP, port: {{ .port }}}]
{{- end }}
{{- end }}

{{/* What `restricted` and every one of our pods have in common: (list $ account). */}}
{{- define "mpegflow.pod" -}}
{{- $root := index . 0 }}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "mpegflow.podSecurity" $root | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where pods may run: a part of the values. */}}
{{- define "mpegflow.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Whether brokers share an index, so that there may be several: "true" or nothing. */}}
{{- define "mpegflow.shared" -}}
{{- if or .Values.redis.enabled .Values.dispatch.url }}true{{ end }}
{{- end }}

{{/* Options that say which Redis. */}}
{{- define "mpegflow.dispatchArgs" -}}
{{- if .Values.redis.enabled }}
{{- /* Inside the namespace, and by policy between these two pods alone. */}}
- --redis-url=redis://mpegflow-broker@{{ include "mpegflow.fullname" . }}-redis:6379
- --redis-password-file=/run/secrets/redis/password
- --redis-prefix={{ .Values.dispatch.prefix }}
{{- else if .Values.dispatch.url }}
- --redis-url={{ .Values.dispatch.url }}
- --redis-prefix={{ .Values.dispatch.prefix }}
{{- if .Values.dispatch.existingSecret }}
- --redis-password-file=/run/secrets/redis/password
{{- end }}
{{- if .Values.dispatch.sentinelPasswordKey }}
- --redis-sentinel-password-file=/run/secrets/redis/sentinel-password
{{- end }}
{{- if .Values.dispatch.caConfigMap }}
- --redis-ca-file=/etc/mpegflow/redis/ca.pem
{{- end }}
{{- end }}
{{- end }}

{{- define "mpegflow.dispatchMounts" -}}
{{- if or .Values.redis.enabled .Values.dispatch.existingSecret }}
- {name: redis, mountPath: /run/secrets/redis, readOnly: true}
{{- end }}
{{- if .Values.dispatch.caConfigMap }}
- {name: redis-ca, mountPath: /etc/mpegflow/redis, readOnly: true}
{{- end }}
{{- end }}

{{- define "mpegflow.dispatchVolumes" -}}
{{- if or .Values.redis.enabled .Values.dispatch.existingSecret }}
- name: redis
  secret:
    defaultMode: 0440
    {{- if .Values.redis.enabled }}
    secretName: {{ .Values.redis.existingSecret }}
    items: [{key: {{ .Values.redis.passwordKey }}, path: password}]
    {{- else }}
    secretName: {{ .Values.dispatch.existingSecret }}
    items:
      - {key: {{ .Values.dispatch.passwordKey }}, path: password}
      {{- with .Values.dispatch.sentinelPasswordKey }}
      - {key: {{ . }}, path: sentinel-password}
      {{- end }}
    {{- end }}
{{- end }}
{{- with .Values.dispatch.caConfigMap }}
- name: redis-ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Egress rules of pods that ask Redis. */}}
{{- define "mpegflow.dispatchEgress" -}}
{{- if .Values.redis.enabled }}
- to:
    - podSelector: {matchLabels: {{ include "mpegflow.selector" (list . "redis") | fromYaml | toJson }}}
  ports: [{protocol: TCP, port: 6379}]
{{- end }}
{{- range .Values.dispatch.addresses }}
- to: [{ipBlock: {cidr: {{ .cidr }}}}]
  ports: [{protocol: TCP, port: {{ .port }}}]
{{- end }}
{{- end }}
