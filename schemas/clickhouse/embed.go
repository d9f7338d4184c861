// Package clickhouse holds the steps of the archive's schema, forward only, one file a step. Tables stand in the database
// that the connection names, which is tideline unless settings say otherwise.
package clickhouse

import "embed"

// Files are the steps, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
