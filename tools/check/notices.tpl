| package | version | licence |
|---|---|---|
{{- range . }}
| {{ .Name }} | {{ .Version }} | {{ .LicenseName }} |
{{- end }}
{{ $last := "" }}
{{- range . }}
{{- if ne .LicensePath $last }}{{ $last = .LicensePath }}
{{ "#" }}# {{ .Name }}

```
{{ .LicenseText }}
```
{{ end }}
{{- end }}
