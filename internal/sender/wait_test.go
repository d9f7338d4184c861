package sender

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// pending is a command on its way to a Kafka and a Redis that the test plays itself.
func pending(t *testing.T, store *fakeStore) *Pending {
	s := &Sender{
		cfg: DefaultConfig(), store: store, hasher: hasher(t), log: quiet, metrics: NewMetrics(prometheus.NewRegistry()), waiting: map[uint64]*Pending{},
	}
	p := &Pending{
		s: s, command: command("a"), request: 1, outcome: make(chan wire.Outcome, 1), written: make(chan error, 1), begun: time.Now(),
		span: trace.SpanFromContext(context.Background()),
	}
	s.waiting[1] = p
	return p
}

func TestWait_AcceptsAfterTwoSecondsAndAsksEvery300ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		p := pending(t, store)
		p.written <- nil
		o, err := p.Wait(t.Context())
		if err != nil || o != (Outcome{}) {
			t.Errorf("it is not accepted: %+v, %v", o, err)
		}
		if took := time.Since(p.begun); took != 2*time.Second || store.times() != 6 {
			t.Errorf("it took %s and asked %d times", took, store.times())
		}
		if len(p.s.waiting) != 0 {
			t.Error("the waiter is remembered")
		}
	})
}

func TestWait_NeverCallsAcceptedWhatKafkaHasNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := pending(t, &fakeStore{}).Wait(t.Context())
		if refusal := mustBe(t, err, chat.CodeTimeout); refusal.RetryAfter <= 0 {
			t.Error("it does not say when to come back")
		}
	})
}

func TestWait_AStoreThatHangsDoesNotHoldTheAnswerBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{outcome: func(ctx context.Context, _ int) (*seq.Numbered, *chat.Rejection, error) {
			<-ctx.Done()
			return nil, nil, ctx.Err()
		}}
		p := pending(t, store)
		p.written <- nil
		if o, err := p.Wait(t.Context()); err != nil || o != (Outcome{}) {
			t.Errorf("%+v, %v", o, err)
		}
		if took := time.Since(p.begun); took != 2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestWait_EndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := pending(t, &fakeStore{})
		p.written <- nil
		_, err := p.Wait(ctx)
		mustBe(t, err, chat.CodeTimeout)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(p.begun) != time.Second {
			t.Errorf("%v after %s", err, time.Since(p.begun))
		}
	})
}

func TestWait_ReadsWhatTheStoreSays(t *testing.T) {
	for name, c := range map[string]struct {
		numbered *seq.Numbered
		rejected *chat.Rejection
		body     string // of the first one; empty for the same
		want     Outcome
		code     chat.Code
	}{
		"numbered now":                         {numbered: &seq.Numbered{FirstEvent: chat.FirstEvent{Seq: 4, SentAt: 100}}, want: Outcome{Numbered: true, First: chat.FirstEvent{Seq: 4, SentAt: 100}}},
		"numbered by an older try":             {numbered: &seq.Numbered{FirstEvent: chat.FirstEvent{Seq: 4, SentAt: -100}}, want: Outcome{Numbered: true, Duplicate: true, First: chat.FirstEvent{Seq: 4, SentAt: -100}}},
		"another body":                         {numbered: &seq.Numbered{FirstEvent: chat.FirstEvent{Seq: 4, SentAt: -100}}, body: `{"text":"other"}`, want: Outcome{First: chat.FirstEvent{Seq: 4, SentAt: -100}}, code: chat.CodeConflict},
		"rejected now":                         {rejected: &chat.Rejection{Code: chat.CodeMuted, Inbound: chat.Position{Partition: 3, Offset: 70}, RejectedAt: 100}, code: chat.CodeMuted},
		"rejected now by a clock behind ours":  {rejected: &chat.Rejection{Code: chat.CodeMuted, Inbound: chat.Position{Partition: 3, Offset: 70}, RejectedAt: -9e6}, code: chat.CodeMuted},
		"an older try by a clock ahead of us":  {rejected: &chat.Rejection{Code: chat.CodeMuted, Inbound: chat.Position{Partition: 3, Offset: 69}, RejectedAt: 9e6}, want: Outcome{}},
		"a try of before positions were noted": {rejected: &chat.Rejection{Code: chat.CodeMuted, Inbound: chat.Position{Partition: -1, Offset: -1}, RejectedAt: 100}, want: Outcome{}},
		"a later try":                          {rejected: &chat.Rejection{Code: chat.CodeMuted, Inbound: chat.Position{Partition: 3, Offset: 71}, RejectedAt: 100}, want: Outcome{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &fakeStore{}
				p := pending(t, store)
				p.at = chat.Position{Partition: 3, Offset: 70}
				begun := p.begun.UnixMilli()
				if n := c.numbered; n != nil { // times are told as a distance from the beginning
					first := command("a")
					if c.body != "" {
						first.Message.Content = []byte(c.body)
					}
					n.Hash = p.s.hasher.Hash(first)
					n.SentAt += begun
					c.want.First.SentAt = n.SentAt
				}
				if c.rejected != nil {
					c.rejected.RejectedAt += begun
				}
				store.outcome = func(context.Context, int) (*seq.Numbered, *chat.Rejection, error) { return c.numbered, c.rejected, nil }
				p.written <- nil
				o, err := p.Wait(t.Context())
				if o != c.want || (c.code == "") != (err == nil) || (err != nil && chat.CodeOf(err) != c.code) {
					t.Errorf("%+v, %v", o, err)
				}
			})
		})
	}
}

func TestTell_TakesOnlyTheOutcomeOfWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pending(t, &fakeStore{})
		p.key = wire.CommandKey(wire.EncodeCommand(p.command))
		p.written <- nil
		// Somebody produces a copy of the record with another body: it names the same request.
		other := wire.CommandKey(wire.EncodeCommand(command("b")))
		p.s.tell([]wire.Outcome{
			{Request: 1, Command: other, First: chat.FirstEvent{Seq: 9}},
			{Request: 1, Command: p.key, First: chat.FirstEvent{Seq: 4}},
		})
		if o, err := p.Wait(t.Context()); err != nil || o.First.Seq != 4 {
			t.Errorf("it was told %+v, %v", o, err)
		}
	})
}

func TestTell_TakesTheOutcomeOfAnOlderIngest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pending(t, &fakeStore{})
		p.key = 7
		p.s.tell([]wire.Outcome{{Request: 1, First: chat.FirstEvent{Seq: 4}}})
		if o, err := p.Wait(t.Context()); err != nil || o.First.Seq != 4 {
			t.Errorf("it was told %+v, %v", o, err)
		}
	})
}

func TestWait_BelievesNoRejectionBeforeItKnowsWhereItsRecordStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The zero position is one that a record can have.
		p := pending(t, &fakeStore{outcome: func(context.Context, int) (*seq.Numbered, *chat.Rejection, error) {
			return nil, &chat.Rejection{Code: chat.CodeMuted}, nil
		}})
		_, err := p.Wait(t.Context())
		mustBe(t, err, chat.CodeTimeout)
	})
}
