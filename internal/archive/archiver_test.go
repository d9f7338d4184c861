package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

var errKilled = fmt.Errorf("%w: killed", kafka.ErrGiveUp) // ends an archiver without another try

// disk is a store and an engine that outlive archivers. The call of number dieAt fails: before it is done, or after.
type disk struct {
	calls, dieAt int
	after        bool
	at           sqlstore.ArchivePosition
	tokens       map[string]bool
	rows         map[int64]Message
	inserted     int
}

func (d *disk) do(what func()) error {
	d.calls++
	if d.calls == d.dieAt && !d.after {
		return errKilled
	}
	what()
	if d.calls == d.dieAt {
		return errKilled
	}
	return nil
}

func (d *disk) ArchivePosition(context.Context, string, int32) (sqlstore.ArchivePosition, error) {
	return d.at, nil
}

func (d *disk) MoveArchive(_ context.Context, old sqlstore.ArchivePosition, next, intentTo int64) (sqlstore.ArchivePosition, error) {
	if old.Version != d.at.Version {
		return old, timeline.ErrFenced
	}
	err := d.do(func() { d.at.Next, d.at.IntentTo, d.at.Version = next, intentTo, old.Version+1 })
	return d.at, err
}

func (d *disk) Insert(_ context.Context, token string, b Block) error {
	return d.do(func() {
		if d.tokens[token] {
			return
		}
		d.tokens[token] = true
		for _, m := range b.Messages {
			d.rows[m.Seq] = m
			d.inserted++
		}
	})
}

func (d *disk) Has(_ context.Context, _ string, _ int32, from, to int64) (bool, error) {
	for _, m := range d.rows {
		if m.Offset >= from && m.Offset < to {
			return true, nil
		}
	}
	return false, nil
}

func (d *disk) Change(_ context.Context, c Changes) error {
	return d.do(func() {
		for _, e := range c.Edits {
			if m := d.rows[e.Seq]; !m.Recalled && m.EditSeq < e.EditSeq {
				m.Content, m.Text, m.EditSeq = e.Content, e.Text, e.EditSeq
				d.rows[e.Seq] = m
			}
		}
		for _, p := range c.Recalls {
			m := d.rows[p.Seq]
			m.recall()
			d.rows[p.Seq] = m
		}
	})
}

// log is what was numbered: messages, edits and recalls of them, within a range and across ranges.
func log() []*kgo.Record {
	group := chat.GroupConversation(5)
	var out []*kgo.Record
	add := func(kind chat.Kind, fill func(*chat.Event)) {
		e := chat.Event{Conversation: group, Seq: int64(len(out) + 1), Kind: kind, Sender: 1, ClientMsgID: fmt.Sprint(len(out)), MessageID: 1, SentAt: 1}
		fill(&e)
		out = append(out, &kgo.Record{Topic: kafka.TopicMessages, Offset: int64(len(out)), Value: wire.EncodeEvent(&e)})
	}
	say := func() {
		add(chat.KindMessage, func(e *chat.Event) {
			e.Message = &chat.Message{Type: chat.TypeText, Content: json.RawMessage(`{"text":"secret"}`)}
		})
	}
	edit := func(seq int64, said string) {
		add(chat.KindEdit, func(e *chat.Event) {
			e.Edit = &chat.Edit{TargetSeq: seq, Content: json.RawMessage(`{"text":"` + said + `"}`)}
		})
	}
	recall := func(seq int64) {
		add(chat.KindRecall, func(e *chat.Event) { e.Recall = &chat.Recall{TargetSeq: seq} })
	}
	say()            // 1
	say()            // 2
	edit(1, "one")   // 3, same range
	recall(2)        // 4, same range
	say()            // 5
	edit(1, "two")   // 6, another range
	edit(1, "three") // 7
	recall(5)        // 8, another range
	edit(5, "back")  // 9: after a recall
	say()            // 10
	return out
}

// run archives ranges of four records from wherever the disk says, as owners do.
func run(d *disk, records []*kgo.Record) error { return runOn(d, d, records) }

func runOn(d *disk, engine Engine, records []*kgo.Record) error {
	a := New(DefaultConfig(), kafka.Config{}, d, engine, slog.New(slog.NewTextHandler(io.Discard, nil)), NewMetrics(prometheus.NewRegistry()), "t")
	o := &partition{Archiver: a, topic: kafka.TopicMessages, at: d.at}
	if o.at.IntentTo > o.at.Next {
		if err := o.finish(context.Background(), records[o.at.Next:o.at.IntentTo], true); err != nil {
			return err
		}
	}
	for o.at.Next < int64(len(records)) {
		to := min(o.at.Next+4, int64(len(records)))
		if err := o.take(context.Background(), records[o.at.Next:to], to); err != nil {
			return err
		}
	}
	return nil
}

// An archiver that is killed before or after anything that it does leaves each event exactly once, in its present form;
// also where ClickHouse has forgotten the token.
func TestArchiver_EachEventOnceWhereverItIsKilled(t *testing.T) {
	records := log()
	for _, forgets := range []bool{false, true} {
		for kill := 1; ; kill++ {
			finished := false
			for _, after := range []bool{false, true} {
				d := &disk{dieAt: kill, after: after, tokens: map[string]bool{}, rows: map[int64]Message{}}
				if err := run(d, records); err == nil {
					finished = true
				} else if !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				d.dieAt = 0
				if forgets {
					clear(d.tokens)
				}
				if err := run(d, records); err != nil {
					t.Fatal(err)
				}
				if d.inserted != len(records) || len(d.rows) != len(records) {
					t.Fatalf("killed at %d (after: %v): %d rows of %d events", kill, after, d.inserted, len(records))
				}
				for seq, want := range map[int64]string{1: "three", 2: "", 5: "", 10: "secret"} {
					if m := d.rows[seq]; m.Text != want || m.Recalled != (want == "") || (m.Content == "") != (want == "") {
						t.Fatalf("killed at %d (after: %v): row %d is %+v", kill, after, seq, m)
					}
				}
			}
			if finished {
				break
			}
		}
	}
}

// What was recalled within a range is blank before it leaves for ClickHouse.
func TestRows_OfARecallInTheSameRangeAreBlank(t *testing.T) {
	d := &disk{tokens: map[string]bool{}, rows: map[int64]Message{}, dieAt: 3}
	if err := run(d, log()); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if m := d.rows[2]; m.Text != "" || m.Content != "" || !m.Recalled {
		t.Fatalf("before any change the row is %+v", m)
	}
}
