// Package asyncapi holds the machine-readable contract of the socket.
package asyncapi

import _ "embed"

// Document is the AsyncAPI 3.0 document, as YAML.
//
//go:embed asyncapi.yaml
var Document []byte
