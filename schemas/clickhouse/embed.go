// Package clickhouse holds the steps of the archive's schema, forward only, one file a step. Tables stand in the database
// that the connection names, which is tideline unless settings say otherwise. Beside them are the analysts' views.
package clickhouse

import "embed"

// Files are the steps, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS

// Views are the statements that make the analysts' views, with {archive} and {analysis} in place of the databases.
//
//go:embed analysis/views.sql
var Views string

// Grants are the statements that make the analysts' user on a server.
//
//go:embed analysis/grants.sql
var Grants string
