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
	// upsert begins what follows the VALUES of an INSERT that updates on conflict; %s are the key's columns.
	onConflict string
	// incoming names the value that was to be inserted into a column.
	incoming func(column string) string
	greatest string
	// forUpdate locks the rows of a SELECT inside a transaction; SQLite's writer is alone anyway.
	forUpdate string
	duplicate func(err error) bool
	// hopeless tells whether the same statement can never succeed: the data is at fault, not the moment.
	hopeless func(err error) bool
}

var mysqlDialect = dialect{
	name:       "mysql",
	onConflict: " ON DUPLICATE KEY UPDATE ",
	incoming:   func(column string) string { return "VALUES(" + column + ")" },
	greatest:   "GREATEST",
	forUpdate:  " FOR UPDATE",
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
}

var sqliteDialect = dialect{
	name:       "sqlite",
	onConflict: " ON CONFLICT (%s) DO UPDATE SET ",
	incoming:   func(column string) string { return "excluded." + column },
	greatest:   "MAX",
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
		case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.SQLITE_CONSTRAINT_DATATYPE:
			return true
		}
		return false
	},
}

// upsert completes an INSERT: on a conflict of the key, the given columns take the incoming value, and the raised ones
// the greater of both.
func (d *dialect) upsert(key string, set, raise []string) string {
	var parts []string
	for _, c := range set {
		parts = append(parts, c+" = "+d.incoming(c))
	}
	for _, c := range raise {
		parts = append(parts, c+" = "+d.greatest+"("+d.own(c)+", "+d.incoming(c)+")")
	}
	return strings.Replace(d.onConflict, "%s", key, 1) + strings.Join(parts, ", ")
}

func (d *dialect) own(column string) string { return column }

// rowsOf gives "(?,?),(?,?)" for n rows of some columns. Only numbers make its text.
func rowsOf(n, columns int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	return strings.TrimSuffix(strings.Repeat(row+",", n), ",")
}

// marks gives "?,?,?" for n values.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

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

// null turns 0 into NULL.
func null(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: n != 0} }
