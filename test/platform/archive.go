package platform

import (
	"context"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Archive is the archive as an analyst sees it.
type Archive struct {
	t    testing.TB
	Conn driver.Conn
}

// Archive connects to it.
func (pf *Platform) Archive(t testing.TB) *Archive {
	t.Helper()
	o, err := clickhouse.ParseDSN(pf.ClickHouse())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Archive{t, conn}
}

// Try asks for one number.
func (a *Archive) Try(text string, args ...any) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	err = a.Conn.QueryRow(ctx, text, args...).Scan(&n)
	return n, err
}

// Count asks for one number that must be there.
func (a *Archive) Count(text string, args ...any) uint64 {
	a.t.Helper()
	n, err := a.Try(text, args...)
	if err != nil {
		a.t.Fatalf("%s: %v", text, err)
	}
	return n
}

// Archived waits until the archive has come to a number of a conversation, and checks that it has each number up to there
// once: by plain counts.
func (pf *Platform) Archived(t testing.TB, conversation string, seq int64) *Archive {
	t.Helper()
	a := pf.Archive(t)
	deadline := time.Now().Add(90 * time.Second)
	for {
		last, err := a.Try("SELECT toUInt64(max(seq)) FROM messages WHERE conversation_id = ?", conversation)
		if err == nil && last >= uint64(seq) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the archive stands at %d of %d: %v", last, seq, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	rows := a.Count("SELECT count() FROM messages WHERE conversation_id = ? AND seq <= ?", conversation, seq)
	numbers := a.Count("SELECT uniqExact(seq) FROM messages WHERE conversation_id = ? AND seq <= ?", conversation, seq)
	if rows != uint64(seq) || numbers != uint64(seq) {
		t.Fatalf("the archive has %d rows with %d numbers up to %d", rows, numbers, seq)
	}
	return a
}
