{{/* What the schema cannot say, each with a sentence. Included once, by the Deployment. */}}
{{- define "modelpool.checks" -}}
{{- if and .Values.worker.networkPolicy.enabled (empty .Values.worker.networkPolicy.namespaces) (empty .Values.watchNamespaces) -}}
{{- fail "worker.networkPolicy.enabled needs to know where the workers live: expected worker.networkPolicy.namespaces or watchNamespaces with at least one name, for example --set 'worker.networkPolicy.namespaces={default}'" -}}
{{- end -}}
{{- if and .Values.operator.podDisruptionBudget.enabled (lt (int .Values.operator.replicas) 2) -}}
{{- fail (printf "operator.podDisruptionBudget.enabled is for two or more operators: expected operator.replicas of at least 2, for example --set operator.replicas=2, got %d" (int .Values.operator.replicas)) -}}
{{- end -}}
{{- end -}}
