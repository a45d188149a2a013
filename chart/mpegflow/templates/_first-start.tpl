{{/* The pod of the first start; its text decides the Job's name. */}}
{{- define "mpegflow.firstStartTemplate" -}}
{{- $name := printf "%s-first-start" (include "mpegflow.fullname" .) }}
metadata:
  labels: {{- include "mpegflow.labels" (list . "first-start") | nindent 4 }}
spec:
  {{- include "mpegflow.pod" (list . $name) | nindent 2 }}
  restartPolicy: OnFailure
  containers:
    - name: first-start
      image: {{ include "mpegflow.image" (list . "cli") }}
      imagePullPolicy: {{ .Values.images.pullPolicy }}
      args:
        - first-start
        - --namespace={{ .Release.Namespace }}
        - --identity={{ include "mpegflow.identitySecret" . }}
        - --api-key={{ include "mpegflow.apiKeySecret" . }}
        - --tenant={{ .Values.firstStart.tenant }}
        - --broker=mpegflow-broker:{{ .Values.broker.service.workerPort }}
        {{- if not .Values.operator.enabled }}
        {{- range .Values.pools }}
        - --join={{ .name }}={{ include "mpegflow.joinSecret" (list $ .) }}
        {{- end }}
        {{- end }}
        - --data=/tmp/first-start
        {{- include "mpegflow.databaseArgs" . | nindent 8 }}
      resources: {{- toYaml .Values.firstStart.resources | nindent 8 }}
      securityContext: {{- include "mpegflow.containerSecurity" . | nindent 8 }}
      volumeMounts:
        # In memory: keys are written here for a moment.
        - {name: tmp, mountPath: /tmp}
        - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- include "mpegflow.databaseMounts" . | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    - name: account
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 600}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- include "mpegflow.databaseVolumes" . | nindent 4 }}
{{- end }}
