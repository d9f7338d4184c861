package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	mysqlschema "tideline/schemas/mysql"
	sqliteschema "tideline/schemas/sqlite"
)

func (s *Store) provider() (*goose.Provider, error) {
	dialect, files := goose.DialectMySQL, fs.FS(mysqlschema.Files)
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if s.dialect == &sqliteDialect {
		dialect, files = goose.DialectSQLite3, sqliteschema.Files // it has one writer anyway
	} else {
		options = append(options, goose.WithSessionLocker(namedLock{}))
	}
	p, err := goose.NewProvider(dialect, s.writer, files, options...)
	if err != nil {
		return nil, fmt.Errorf("reading the schema's steps: %w", err)
	}
	return p, nil
}

// Migrate brings the schema to what this binary knows; it takes the steps that are missing and never goes back. Of
// several that migrate at once, one does and the others wait for it.
func (s *Store) Migrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the store: %w", err)
	}
	return nil
}

// ErrSchema means that the schema of the store is older than what this binary knows.
var ErrSchema = errors.New("the store's schema is older than this binary: run `tideline migrate` first")

// CheckSchema refuses a schema that is older than this binary knows, with ErrSchema. A newer one is fine: steps only add.
// It only reads, so that services need no right to change tables.
func (s *Store) CheckSchema(ctx context.Context) error {
	p, err := s.provider()
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

// namedLock lets one migrate at a time. It belongs to the connection, so that a migration that was killed leaves none.
type namedLock struct{}

var _ lock.SessionLocker = namedLock{}

// lockWait is how long a migration waits for another, in seconds.
const lockWait = 300

// The name has the database in it: several may live on one server.
const lockName = "CONCAT('tideline migrate ', DATABASE())"

// SessionLock waits for the lock.
func (namedLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+lockName+", ?)", lockWait).Scan(&got); err != nil {
		return fmt.Errorf("waiting for other migrations: %w", err)
	}
	if got.Int64 != 1 {
		return fmt.Errorf("waiting for other migrations: one has not ended for %d s", lockWait)
	}
	return nil
}

// SessionUnlock lets go of it.
func (namedLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "DO RELEASE_LOCK("+lockName+")"); err != nil {
		return fmt.Errorf("letting other migrations go on: %w", err)
	}
	return nil
}
