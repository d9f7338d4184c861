// Package sqlite holds the steps of the schema for SQLite, forward only, one file a step.
package sqlite

import "embed"

// Files are the steps, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
