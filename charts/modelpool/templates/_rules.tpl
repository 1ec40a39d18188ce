{{/*
What the operator may do, verb by verb. Free of values: the same rules make the ClusterRole and the Roles.
A worker's pod, Service and Secret live in the namespace of its ModelWorker, so these are bound there.
*/}}
{{- define "modelpool.rules.operator" -}}
# its own resources: read them, and keep the finalizers that guard the ledger
- apiGroups: [modelpool.dev]
  resources: [modelpools, modelworkers]
  verbs: [get, list, watch, patch]
# a Model's workers: made when they are wanted, removed when they have ended
- apiGroups: [modelpool.dev]
  resources: [modelworkers]
  verbs: [create, delete]
- apiGroups: [modelpool.dev]
  resources: [models]
  verbs: [get, list, watch]
# what it knows of them: states, ledger, sizes, conditions
- apiGroups: [modelpool.dev]
  resources: [modelpools/status, modelworkers/status, models/status]
  verbs: [patch]
# what requests want of the Models: gateways say it by Leases
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch]
# a worker's pod: make it gated, lift the gate, watch it, remove it
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# a worker's own address; its owner reference removes it
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
# the pool's bearer token: made once, read by name; other Secrets cannot be listed
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# the story of a worker, for kubectl describe
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* What the uninstall hook may do: let Models make no more, ask every worker to shut down, clear the finalizers. */}}
{{- define "modelpool.rules.drain" -}}
- apiGroups: [modelpool.dev]
  resources: [modelpools, modelworkers, models]
  verbs: [list, patch]
{{- end -}}

{{/*
A role and its binding, once for the cluster or once per watched namespace, from
(dict "root" $ "name" NAME "account" NAME "rules" NAME-OF-RULES "annotations" DICT).
*/}}
{{- define "modelpool.grant" -}}
{{- $grant := . -}}
{{- $role := ternary "Role" "ClusterRole" (not (empty .root.Values.watchNamespaces)) -}}
{{- range (default (list "") .root.Values.watchNamespaces) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $role }}
metadata:
  name: {{ $grant.name }}
  {{- with . }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "modelpool.labels" $grant.root | nindent 4 }}
  {{- with $grant.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
rules:
  {{- include $grant.rules $grant.root | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $role }}Binding
metadata:
  name: {{ $grant.name }}
  {{- with . }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "modelpool.labels" $grant.root | nindent 4 }}
  {{- with $grant.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $role }}
  name: {{ $grant.name }}
subjects:
  - kind: ServiceAccount
    name: {{ $grant.account }}
    namespace: {{ $grant.root.Release.Namespace }}
{{- end }}
{{- end -}}
