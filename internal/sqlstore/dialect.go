package sqlstore

import (
	"database/sql"
	"errors"
	"strings"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// dialect is what differs between MySQL and SQLite.
type dialect struct {
	name string
	// onConflict begins what follows the VALUES of an INSERT that updates on conflict; %s are the key's columns.
	onConflict string
	// incoming names the value that was to be inserted into a column.
	incoming func(column string) string
	greatest string // of two values
	// now is the database's own clock in ms. On MySQL it does not go through a time zone, which repeats an hour in autumn.
	now string
	// duplicate tells whether a unique key is taken.
	duplicate func(err error) bool
	// hopeless tells whether the same statement can never succeed: the data is at fault, not the moment.
	hopeless func(err error) bool
	// noTable tells whether a table is missing.
	noTable func(err error) bool
	// unusual is the condition that a text column has other characters than those of usernames that are registered here.
	unusual func(column string) string
	// sizes selects the name, the rows and the bytes of tables.
	sizes string
}

var mysqlDialect = dialect{
	name:       "mysql",
	sizes:      mysqlSizes,
	onConflict: " ON DUPLICATE KEY UPDATE ",
	incoming:   func(column string) string { return "VALUES(" + column + ")" },
	greatest:   "GREATEST",
	now:        "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(3)) DIV 1000",
	duplicate: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && e.Number == 1062
	},
	hopeless: func(err error) bool {
		var e *mysql.MySQLError
		if !errors.As(err, &e) {
			return false
		}
		switch e.Number {
		case 1406, // data too long for a column
			1264, // out of range
			1366, // incorrect string value
			1048, // null
			1292, // truncated
			1153: // packet too large
			return true
		}
		return false
	},
	noTable: func(err error) bool {
		var e *mysql.MySQLError
		return errors.As(err, &e) && e.Number == 1146
	},
	unusual: func(column string) string { return column + " REGEXP '[^A-Za-z0-9._-]'" },
}

var sqliteDialect = dialect{
	name:       "sqlite",
	sizes:      sqliteSizes,
	onConflict: " ON CONFLICT (%s) DO UPDATE SET ",
	incoming:   func(column string) string { return "excluded." + column },
	greatest:   "MAX",
	now:        "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
	duplicate: func(err error) bool {
		var e *sqlite.Error
		return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
	},
	hopeless: func(err error) bool {
		var e *sqlite.Error
		if !errors.As(err, &e) {
			return false
		}
		switch e.Code() {
		case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.SQLITE_CONSTRAINT_DATATYPE, sqlite3.SQLITE_CONSTRAINT_CHECK:
			return true
		}
		return false
	},
	noTable: func(err error) bool { // it has no code of its own
		var e *sqlite.Error
		return errors.As(err, &e) && strings.Contains(e.Error(), "no such table")
	},
	unusual: func(column string) string { return column + " GLOB '*[^A-Za-z0-9._-]*'" },
}

// upsert completes an INSERT: on a conflict of the key, the given columns take the incoming value.
func (d *dialect) upsert(key string, set ...string) string {
	parts := make([]string, len(set))
	for i, c := range set {
		parts[i] = c + " = " + d.incoming(c)
	}
	return d.onDuplicate(key, parts...)
}

// onDuplicate completes an INSERT with what happens on a conflict of the key. MySQL evaluates the assignments from left to
// right, and a later one sees what an earlier one did: columns that others look at come last.
func (d *dialect) onDuplicate(key string, assignments ...string) string {
	return strings.Replace(d.onConflict, "%s", key, 1) + strings.Join(assignments, ", ")
}

// raised gives the assignment that lets a column only grow.
func (d *dialect) raised(column string) string {
	return column + " = " + d.greatest + "(" + column + ", " + d.incoming(column) + ")"
}

// rowsOf gives "(?,?),(?,?)" for n rows of some columns. Only numbers make its text.
func rowsOf(n, columns int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	return strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}

// placeholders gives "?,?,?" for n values.
func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// maxTerms bounds the terms of a list in one statement: longer lists are cut. It keeps packets small, and below
// SQLite's depth of expressions.
const maxTerms = 400

// chunks calls each with pieces of at most size.
func chunks[T any](list []T, size int, each func([]T) error) error {
	for len(list) > 0 {
		n := min(size, len(list))
		if err := each(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// maxStatementBytes bounds what the values of one statement weigh. Written out, a quote or a backslash takes two bytes, so
// that a packet has at most twice that and one row: a quarter of what MariaDB takes by default, and less than a MySQL
// that was set to the least that is documented (max_allowed_packet of 4 MiB).
const maxStatementBytes = 1 << 20

// heavyChunks calls each with pieces of at most size that weigh at most maxStatementBytes, or are one.
func heavyChunks[T any](list []T, size int, weigh func(*T) int, each func([]T) error) error {
	for len(list) > 0 {
		n, bytes := 1, weigh(&list[0])
		for n < len(list) && n < size {
			if bytes += weigh(&list[n]); bytes > maxStatementBytes {
				break
			}
			n++
		}
		if err := each(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// null turns 0 into NULL.
func null(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: n != 0} }
