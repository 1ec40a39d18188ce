{{/* Name prefix of all objects: "modelpool" for a release of that name, else RELEASE-modelpool. */}}
{{- define "modelpool.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "modelpool.operator" -}}
{{ include "modelpool.fullname" . }}-operator
{{- end -}}

{{- define "modelpool.gateway" -}}
{{ include "modelpool.fullname" . }}-gateway
{{- end -}}

{{/* What a gateway's Deployment and Service select its pods by; never changes in a release. */}}
{{- define "modelpool.gatewaySelector" -}}
app.kubernetes.io/name: modelpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* The gateways' accounts, as a CEL list. */}}
{{- define "modelpool.gatewayUsers" -}}
{{- $name := include "modelpool.gateway" . -}}
{{- $users := list -}}
{{- range .Values.gateway.namespaces -}}
{{- $users = append $users (printf "'system:serviceaccount:%s:%s'" . $name) -}}
{{- end -}}
[{{ join ", " $users }}]
{{- end -}}

{{- define "modelpool.drain" -}}
{{ include "modelpool.fullname" . }}-drain
{{- end -}}

{{- define "modelpool.serviceAccount" -}}
{{ default (include "modelpool.operator" .) .Values.serviceAccount.name }}
{{- end -}}

{{/* What the Deployment, the Service and the policies select the operator's pods by; never changes in a release. */}}
{{- define "modelpool.selector" -}}
app.kubernetes.io/name: modelpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object but those selected by "modelpool.selector". */}}
{{- define "modelpool.labels" -}}
app.kubernetes.io/name: modelpool
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: modelpool
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image reference from (dict "image" VALUES "root" $): the digest wins over the tag, the tag over appVersion. */}}
{{- define "modelpool.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{/* Settings that the operator and its drain command share. */}}
{{- define "modelpool.env" -}}
- name: MODELPOOL_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: MODELPOOL_OPERATOR_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: MODELPOOL_OPERATOR_LEASE_NAME
  value: {{ include "modelpool.operator" . | quote }}
- name: MODELPOOL_OPERATOR_WATCH_NAMESPACES
  value: {{ .Values.watchNamespaces | toJson | quote }}
- name: MODELPOOL_OPERATOR_LOG_LEVEL
  value: {{ .Values.operator.logLevel | quote }}
- name: MODELPOOL_OPERATOR_LOG_FORMAT
  value: {{ .Values.operator.logFormat | quote }}
{{- end -}}

{{/* The `restricted` Pod Security Standard, and a root file system that nobody writes to. */}}
{{- define "modelpool.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "modelpool.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
