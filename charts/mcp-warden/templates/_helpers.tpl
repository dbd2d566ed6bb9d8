{{/* The reference of the image: by digest where there is one. */}}
{{- define "mcp-warden.image" -}}
{{- with .Values.image -}}
{{- .repository -}}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object of the chart, beside app.kubernetes.io/name, which each has already. */}}
{{- define "mcp-warden.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{/* What every pod of the chart has in its spec, where values say so. */}}
{{- define "mcp-warden.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if .Values.userNamespaces }}
hostUsers: false
{{- end }}
{{- end -}}

{{/* The namespaces that the install is limited to, sorted, as the operator gets them; empty for all. */}}
{{- define "mcp-warden.namespaces" -}}
{{- .Values.namespaces | uniq | sortAlpha | join "," -}}
{{- end -}}

{{/* Fails where the release's namespace cannot be the operator's own. */}}
{{- define "mcp-warden.checkNamespace" -}}
{{- if or (eq .Release.Namespace "default") (hasPrefix "kube-" .Release.Namespace) -}}
{{- fail (printf "--namespace %s: give the operator a namespace of its own, such as mcp-warden-system: its admission rules leave out the namespace that it runs in" .Release.Namespace) -}}
{{- end -}}
{{- if has .Release.Namespace .Values.namespaces -}}
{{- fail (printf "namespaces: %s is the operator's own namespace, where nothing is guarded: keep MCPServers in others" .Release.Namespace) -}}
{{- end -}}
{{- $dns := splitList "/" .Values.cluster.dnsService -}}
{{- if and .Values.namespaces (eq (first $dns) "default") (not (has "default" .Values.namespaces)) -}}
{{- fail (printf "cluster.dnsService: %s lies beside the Service of the API server: list the namespace default under namespaces too" .Values.cluster.dnsService) -}}
{{- end -}}
{{- end -}}

{{/* Tells the Roles of one list of namespaces from those of another, as scope.Mark does. */}}
{{- define "mcp-warden.limitedMark" -}}
list-{{ include "mcp-warden.namespaces" . | sha256sum | trunc 16 }}
{{- end -}}
