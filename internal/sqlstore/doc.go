// Package sqlstore is the durable store: timeline, conversations, members, read marks, people, sessions and positions, on
// MySQL (and what speaks its protocol) or SQLite. The statements that differ between the two stand side by side in
// dialect.go; every other statement is valid on both.
package sqlstore
