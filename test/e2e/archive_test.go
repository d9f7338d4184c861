package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// archive is the archive as an analyst sees it.
type archive struct {
	t    *testing.T
	conn driver.Conn
}

func (pf *platform) archive(t *testing.T) *archive {
	t.Helper()
	o, err := clickhouse.ParseDSN(pf.clickhouse())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &archive{t, conn}
}

func (a *archive) try(text string, args ...any) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	err = a.conn.QueryRow(ctx, text, args...).Scan(&n)
	return n, err
}

func (a *archive) count(text string, args ...any) uint64 {
	a.t.Helper()
	n, err := a.try(text, args...)
	if err != nil {
		a.t.Fatalf("%s: %v", text, err)
	}
	return n
}

// archived waits until the archive has come to a number of a conversation, and checks that it has each number up to there
// once: by plain counts.
func (pf *platform) archived(t *testing.T, conversation string, seq int64) *archive {
	t.Helper()
	a := pf.archive(t)
	deadline := time.Now().Add(90 * time.Second)
	for {
		last, err := a.try("SELECT toUInt64(max(seq)) FROM messages WHERE conversation_id = ?", conversation)
		if err == nil && last >= uint64(seq) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the archive stands at %d of %d: %v", last, seq, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	rows := a.count("SELECT count() FROM messages WHERE conversation_id = ? AND seq <= ?", conversation, seq)
	numbers := a.count("SELECT uniqExact(seq) FROM messages WHERE conversation_id = ? AND seq <= ?", conversation, seq)
	if rows != uint64(seq) || numbers != uint64(seq) {
		t.Fatalf("the archive has %d rows with %d numbers up to %d", rows, numbers, seq)
	}
	return a
}
