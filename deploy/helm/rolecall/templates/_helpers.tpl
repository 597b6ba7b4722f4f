{{- define "rolecall.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "rolecall.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rolecall.selector" -}}
app.kubernetes.io/name: {{ include "rolecall.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rolecall.labels" -}}
{{ include "rolecall.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rolecall.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "rolecall.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "rolecall.image" -}}
{{- $repository := required "image.repository is empty: set it to the registry and name under which you have pushed the image" .Values.image.repository -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (.Values.image.tag | default (.Chart.AppVersion | replace "+" "_")) }}
{{- end }}
{{- end }}

{{- /* The port of the API in the container, its name, and that of the Service. */ -}}
{{- define "rolecall.port" -}}{{ if .Values.tls.existingSecret }}8443{{ else }}8080{{ end }}{{- end }}
{{- define "rolecall.portName" -}}{{ if .Values.tls.existingSecret }}https{{ else }}http{{ end }}{{- end }}
{{- define "rolecall.servicePort" -}}
{{- if .Values.service.port }}{{ .Values.service.port }}{{ else if .Values.tls.existingSecret }}443{{ else }}80{{ end }}
{{- end }}

{{- /* The configuration file of serve. The schema refuses keys of config that are set here. */ -}}
{{- define "rolecall.config" -}}
{{- $own := dict
      "public-url" (required "publicURL is empty: set it to the URL under which clients reach Rolecall" .Values.publicURL)
      "listen" (printf ":%s" (include "rolecall.port" .))
      "metrics-listen" ":9180"
      "drain-delay" (printf "%ds" (int .Values.drainDelaySeconds))
      "database-url-file" (printf "/etc/rolecall/database/%s" .Values.controlDatabase.key)
      "master-key-file" (printf "/etc/rolecall/master-key/%s" .Values.masterKey.key) -}}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $own "tls-cert" "/etc/rolecall/tls/tls.crt" }}
{{- $_ := set $own "tls-key" "/etc/rolecall/tls/tls.key" }}
{{- end }}
{{- if .Values.tls.clientCASecret }}
{{- $_ := set $own "tls-client-ca" "/etc/rolecall/client-ca/ca.crt" }}
{{- end }}
{{- if .Values.trustedProxies }}
{{- $_ := set $own "trusted-proxies" .Values.trustedProxies }}
{{- end }}
{{- if .Values.oidc.existingSecret }}
{{- $_ := set $own "oidc-file" "/etc/rolecall/oidc/issuers.yaml" }}
{{- end }}
{{- toYaml (merge $own .Values.config) }}
{{- end }}

{{- define "rolecall.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rolecall.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* What every process needs: the control database and the master key. Files of Secrets are readable by the group only. */ -}}
{{- define "rolecall.controlVolumes" -}}
- name: database
  secret:
    secretName: {{ required "controlDatabase.existingSecret is empty: create a Secret with the URL of the control database" .Values.controlDatabase.existingSecret }}
    defaultMode: 0440
- name: master-key
  secret:
    secretName: {{ required "masterKey.existingSecret is empty: create a Secret with the master key" .Values.masterKey.existingSecret }}
    defaultMode: 0440
{{- with .Values.controlDatabase.caSecret }}
- name: database-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "rolecall.controlMounts" -}}
- name: database
  mountPath: /etc/rolecall/database
  readOnly: true
- name: master-key
  mountPath: /etc/rolecall/master-key
  readOnly: true
{{- if .Values.controlDatabase.caSecret }}
- name: database-ca
  mountPath: /etc/rolecall/database-ca
  readOnly: true
{{- end }}
{{- end }}
