// Package mysql holds the steps of the schema for MySQL 8, MariaDB and TiDB, forward only, one file a step.
package mysql

import "embed"

// Files are the steps, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
