package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"tideline/pkg/timeline"
)

// Store is the store on one database. It is safe for concurrent use.
type Store struct {
	db      *sql.DB // for reading, and on MySQL for everything
	writer  *sql.DB // SQLite has one writer; the same as db on MySQL
	dialect *dialect
	timeout time.Duration
	now     func() time.Time
	guard   *guard        // nil for those who wait themselves; see Guarded
	crowds  *crowds       // the same
	dsn     *mysql.Config // of MySQL
	asked   *atomic.Pointer[func(what string)]
}

// Open connects to the database. It does not look at the schema: see Migrate and CheckSchema.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{timeout: cfg.Timeout, now: time.Now, asked: new(atomic.Pointer[func(string)])}
	switch cfg.Driver {
	case "mysql":
		if err := s.openMySQL(cfg); err != nil {
			return nil, err
		}
	case "sqlite":
		if err := s.openSQLite(cfg); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("opening the store: unknown driver %q", cfg.Driver)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := s.db.PingContext(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("connecting to the store: %w", err)
	}
	return s, nil
}

func (s *Store) openMySQL(cfg Config) error {
	dsn, err := mysql.ParseDSN(cfg.DSN.Reveal())
	if err != nil {
		return fmt.Errorf("reading store.dsn: %w", errors.New("it is not of the form user:password@tcp(host:port)/database"))
	}
	dsn.InterpolateParams = true // one round trip a statement instead of three
	dsn.Collation = "utf8mb4_bin"
	dsn.MultiStatements = false
	dsn.Timeout, dsn.ReadTimeout, dsn.WriteTimeout = connectTimeout, 2*cfg.Timeout, 2*cfg.Timeout
	dsn.ClientFoundRows = true // an UPDATE tells the rows that it matched: compare-and-set rests on that
	if dsn.Params == nil {
		dsn.Params = map[string]string{}
	}
	dsn.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
	connector, err := mysql.NewConnector(dsn)
	if err != nil {
		return fmt.Errorf("reading store.dsn: %w", err)
	}
	s.dsn = dsn
	s.db = sql.OpenDB(readCommitted{connector})
	s.db.SetMaxOpenConns(cfg.MaxOpen)
	s.db.SetMaxIdleConns(cfg.MaxOpen)
	s.db.SetConnMaxLifetime(10 * time.Minute) // so that a moved or restarted server is found again
	s.writer, s.dialect = s.db, &mysqlDialect
	return nil
}

// readCommitted sets the isolation of every new connection: gap locks of the default level make writers of different
// partitions wait for each other. The variable has other names in MySQL and MariaDB, the statement is the same.
type readCommitted struct{ driver.Connector }

// Connect makes a connection. Its time is bounded here as well: the pool makes connections for those who wait in a
// goroutine without a deadline, one after the other, and a server that takes a connection and says nothing would hold it.
func (c readCommitted) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx, sessionIsolation, nil)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("setting the isolation of a connection: %w", err)
	}
	return conn, nil
}

// connectTimeout bounds a connection's making, greetings included.
const connectTimeout = 3 * time.Second

const sessionIsolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"

func (s *Store) openSQLite(cfg Config) error {
	open := func(more string) (*sql.DB, error) {
		// WAL lets readers go on beside the writer; FULL makes a commit durable before it is told.
		q := "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_pragma=foreign_keys(0)&_pragma=cache_size(-16000)" + more
		db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: cfg.Path}).EscapedPath()+"?"+q)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", cfg.Path, err)
		}
		return db, nil
	}
	var err error
	if s.writer, err = open("&_txlock=immediate"); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1) // SQLite has one writer: waiting here costs less than waiting for its lock
	if err := s.writer.Ping(); err != nil {
		return fmt.Errorf("opening %s: %w", cfg.Path, err)
	}
	if s.db, err = open("&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(min(cfg.MaxOpen, 8))
	s.db.SetMaxIdleConns(4)
	s.dialect = &sqliteDialect
	return nil
}

// Close lets go of the connections.
func (s *Store) Close() error {
	var faults []error
	if s.db != nil {
		faults = append(faults, s.db.Close())
	}
	if s.writer != nil && s.writer != s.db {
		faults = append(faults, s.writer.Close())
	}
	return errors.Join(faults...)
}

// Ping tells whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("asking the store: %w", err)
	}
	return nil
}

// OnQuery sets what is called before every SELECT outside a transaction, with what it is for; nil for nothing. It is called by many at once.
// Tests count with it: what a refusal says of a conversation may lie in the statements that it took.
func (s *Store) OnQuery(call func(what string)) {
	if call == nil {
		s.asked.Store(nil)
		return
	}
	s.asked.Store(&call)
}

// query runs a SELECT and gives its rows one by one.
func (s *Store) query(ctx context.Context, what, text string, args []any, each func(*sql.Rows) error) error {
	if s.asked != nil {
		if call := s.asked.Load(); call != nil {
			(*call)(what)
		}
	}
	return s.run(ctx, func(ctx context.Context) error { return queryOn(ctx, s.db, what, text, args, each) })
}

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func queryOn(ctx context.Context, q queryer, what, text string, args []any, each func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := each(rows); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// inTx runs do in one transaction, within the statement's time-out.
func (s *Store) inTx(ctx context.Context, what string, do func(ctx context.Context, tx *sql.Tx) error) error {
	return s.run(ctx, func(ctx context.Context) error { return s.transact(ctx, what, do) })
}

func (s *Store) transact(ctx context.Context, what string, do func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: beginning: %w", what, err)
	}
	if err := do(ctx, tx); err != nil {
		_ = tx.Rollback() // the cause is in err; a transaction that is gone anyway needs none
		if s.dialect.hopeless(err) {
			return fmt.Errorf("%s: %w: %w", what, timeline.ErrUnstorable, err)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: committing: %w", what, err)
	}
	return nil
}

func (s *Store) exec(ctx context.Context, what, text string, args ...any) (sql.Result, error) {
	var r sql.Result
	err := s.run(ctx, func(ctx context.Context) (err error) {
		r, err = s.writer.ExecContext(ctx, text, args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return r, nil
}

func execTx(ctx context.Context, tx *sql.Tx, what, text string, args ...any) (int64, error) {
	r, err := tx.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}
