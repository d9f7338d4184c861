package sqlstore

import (
	"context"
	"database/sql"
)

// Sizes is how much a store has.
type Sizes struct {
	Users, Sessions, Conversations int64
	Bytes                          int64 // of tables and indexes, or of the database file
}

// Sizes returns how much the store has. MySQL's counts are the estimates of its statistics, which cost nothing and can be
// off by some tens of per cent. SQLite counts an index of each table, so the caller keeps the result for a while.
func (s *Store) Sizes(ctx context.Context) (Sizes, error) {
	var out Sizes
	fields := map[string]*int64{"users": &out.Users, "sessions": &out.Sessions, "conversations": &out.Conversations}
	err := s.query(ctx, "reading the sizes of tables", s.dialect.sizes, nil, func(r *sql.Rows) error {
		var table string
		var rows, bytes int64
		if err := r.Scan(&table, &rows, &bytes); err != nil {
			return err //nolint:wrapcheck // query wraps it
		}
		if into := fields[table]; into != nil {
			*into = rows
		}
		out.Bytes += bytes
		return nil
	})
	return out, err
}

const (
	mysqlSizes = `SELECT table_name, COALESCE(table_rows, 0), COALESCE(data_length, 0) + COALESCE(index_length, 0)
FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'`
	sqliteSizes = `SELECT 'users', COUNT(*), 0 FROM users
UNION ALL SELECT 'sessions', COUNT(*), 0 FROM sessions
UNION ALL SELECT 'conversations', COUNT(*), 0 FROM conversations
UNION ALL SELECT '', 0, (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)`
)
