package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"

	mysqlschema "tideline/schemas/mysql"
	sqliteschema "tideline/schemas/sqlite"
)

func (s *Store) provider(db *sql.DB) (*goose.Provider, error) {
	dialect, files := goose.DialectMySQL, fs.FS(mysqlschema.Files)
	if s.dialect == &sqliteDialect {
		dialect, files = goose.DialectSQLite3, sqliteschema.Files
	}
	p, err := goose.NewProvider(dialect, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("reading the schema's steps: %w", err)
	}
	return p, nil
}

// Migrate brings the schema to what this binary knows; it takes the steps that are missing and never goes back. Of
// several that migrate at once, one does and the others wait for it. Usernames of older versions are brought to their
// normal form each time: a process of such a version may have registered some since.
func (s *Store) Migrate(ctx context.Context) error {
	db, done, err := s.migrating(ctx)
	if err != nil {
		return err
	}
	defer done()
	p, err := s.provider(db)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the store: %w", err)
	}
	if err := s.normalizeUsernames(ctx, db); err != nil { // which SQL cannot
		return fmt.Errorf("migrating the store: %w", err)
	}
	return nil
}

// migrating gives the database to migrate, for as long as nobody else does; done lets go of it. SQLite has one writer
// anyway. MySQL is connected to anew: a step over a large table takes longer than any statement of a service may.
//
// The lock is held around all that goose does. Its own lockers are taken after it has looked for its table, and made it
// where there was none: of two that begin at once one then finds the table without its first row, and gives up.
func (s *Store) migrating(ctx context.Context) (db *sql.DB, done func(), err error) {
	if s.dialect == &sqliteDialect {
		return s.writer, func() {}, nil
	}
	patient := s.dsn.Clone()
	patient.ReadTimeout, patient.WriteTimeout = 0, 0
	connector, err := mysql.NewConnector(patient)
	if err != nil {
		return nil, nil, fmt.Errorf("reading store.dsn: %w", err)
	}
	db = sql.OpenDB(readCommitted{connector})
	locked, err := db.Conn(ctx)
	if err == nil {
		err = lockMigrations(ctx, locked)
	}
	if err != nil {
		_ = db.Close()
		return nil, nil, err
	}
	return db, func() {
		_ = locked.Close() // the lock belongs to the connection, which goes with the pool
		_ = db.Close()
	}, nil
}

// migrationWait is how long a migration waits for another, in seconds.
const migrationWait = 300

// lockMigrations lets one migrate at a time. The lock belongs to the connection, so that a migration that was killed
// leaves none. Its name has the database in it: several may live on one server.
func lockMigrations(ctx context.Context, conn *sql.Conn) error {
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(CONCAT('tideline migrate ', DATABASE()), ?)", migrationWait).Scan(&got); err != nil {
		return fmt.Errorf("waiting for other migrations: %w", err)
	}
	if got.Int64 != 1 {
		return fmt.Errorf("waiting for other migrations: one has not ended for %d s", migrationWait)
	}
	return nil
}

// ErrSchema means that the schema of the store is older than what this binary knows.
var ErrSchema = errors.New("the store's schema is older than this binary: run `tideline migrate` first")

// CheckSchema refuses a schema that is older than this binary knows, with ErrSchema. A newer one is fine: steps only add.
// It only reads, so that services need no right to change tables.
func (s *Store) CheckSchema(ctx context.Context) error {
	p, err := s.provider(s.writer)
	if err != nil {
		return err
	}
	known := p.ListSources()
	var version int64
	err = s.query(ctx, "reading the schema's version", "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1", nil,
		func(r *sql.Rows) error { return r.Scan(&version) })
	switch {
	case err != nil && s.dialect.noTable(err):
		return fmt.Errorf("%w (it has none yet)", ErrSchema)
	case err != nil:
		return err
	case version < known[len(known)-1].Version:
		return fmt.Errorf("%w (it has step %d, the binary knows %d)", ErrSchema, version, known[len(known)-1].Version)
	}
	return nil
}
