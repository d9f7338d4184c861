// Package openapi holds the machine-readable contract of the HTTP door.
package openapi

import _ "embed"

// Document is the OpenAPI 3.1 document, as YAML.
//
//go:embed openapi.yaml
var Document []byte
