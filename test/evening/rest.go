package evening

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tideline/internal/client"
	"tideline/internal/config"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
)

// restTime bounds how long everything may take to come to rest once nothing new comes.
const restTime = 3 * time.Minute

// Rest waits until everything has come to rest, asks everybody what they see then, and writes down what each store has. It
// ends the history.
func (e *Evening) Rest() {
	e.t.Helper()
	store := e.openStore()
	defer func() { _ = store.Close() }()
	e.awaitRest(store)
	e.For(time.Until(e.until) + time.Second) // those who listen listen until then
	e.w.Rest()
	e.lastQuestions()
	e.deafen()
	e.ears.Wait()
	// Nothing of the evening waits for the test's own time any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.t.Context()), restTime)
	defer cancel()
	f := finder{e: e, ctx: ctx, store: store, ours: map[chat.ConversationID]bool{}}
	for _, r := range e.rooms {
		f.ours[r.id] = true
	}
	f.log()
	f.rejected()
	f.timeline()
	f.members()
	f.archive()
	if err := e.w.Close(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *Evening) openStore() *sqlstore.Store {
	e.t.Helper()
	cfg := sqlstore.DefaultConfig()
	driver, dsn := e.pf.SQL()
	cfg.Driver, cfg.Timeout = driver, 20*time.Second
	if driver == "mysql" {
		cfg.DSN = config.Secret(dsn)
	} else {
		cfg.Path = dsn
	}
	store, err := sqlstore.Open(e.t.Context(), cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return store
}

// kafkaConfig reads the log as any consumer of it does.
func (e *Evening) kafkaConfig() kafka.Config {
	cfg := kafka.DefaultConfig()
	e.pf.Inside(e.t, &cfg)
	return cfg
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// awaitRest compares the ends of all logs with the positions of all who read them.
func (e *Evening) awaitRest(store *sqlstore.Store) {
	e.t.Helper()
	cfg := e.kafkaConfig()
	cl, err := cfg.NewAdmin("evening", quiet())
	if err != nil {
		e.t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	began := time.Now()
	for {
		behind := e.behind(adm, store)
		if behind == "" {
			e.t.Logf("all came to rest within %s", time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > restTime {
			e.t.Fatalf("it has not come to rest: %s", behind)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// behind tells who has not read what yet; empty where all have read everything.
func (e *Evening) behind(adm *kadm.Client, store *sqlstore.Store) string {
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	ends, err := adm.ListCommittedOffsets(ctx, kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected, kafka.TopicReceipts)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err.Error()
	}
	var partitions []int32
	for p := range ends[kafka.TopicMessages] {
		partitions = append(partitions, p)
	}
	positions, err := store.Positions(ctx, partitions)
	if err != nil {
		return err.Error()
	}
	marks, err := store.MarkPositions(ctx, partitions)
	if err != nil {
		return err.Error()
	}
	rejections, err := store.RejectionPositions(ctx, partitions)
	if err != nil {
		return err.Error()
	}
	behind := ""
	must := func(who, topic string, partition int32, next int64) {
		end, _ := ends.Lookup(topic, partition)
		last, all := e.log.last(place{topic, partition}, end.Offset)
		if behind == "" && (!all || next < last) {
			behind = fmt.Sprintf("%s of %s/%d is at %d of %d", who, topic, partition, next, end.Offset)
		}
	}
	for _, at := range positions {
		must("the numbering", kafka.TopicInbound, at.Partition, at.InboundNext)
		must("the timeline", kafka.TopicMessages, at.Partition, at.MessagesNext)
		must("the record of rejections", kafka.TopicRejected, at.Partition, rejections[at.Partition])
		must("the record of marks", kafka.TopicReceipts, at.Partition, marks[at.Partition])
		for _, topic := range []string{kafka.TopicMessages, kafka.TopicReceipts} {
			archived, err := store.ArchivePosition(ctx, topic, at.Partition)
			if err != nil {
				return err.Error()
			}
			if archived.IntentTo > archived.Next {
				return fmt.Sprintf("the archive of %s/%d is at work", topic, at.Partition)
			}
			must("the archive", topic, at.Partition, archived.Next)
		}
	}
	return behind
}

// lastQuestions asks when nothing moves any more: what everybody has unread, who has read what, and the whole of each room.
func (e *Evening) lastQuestions() {
	e.t.Helper()
	people := append(append([]*person{}, e.speakers...), e.online...)
	next := make(chan func())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for do := range next {
				do()
			}
		})
	}
	for _, p := range people {
		next <- func() { e.syncAll(p) }
	}
	for _, r := range e.rooms {
		next <- func() { e.pullAll(r.id, r.owner) }
		for _, p := range r.talkers[:min(len(r.talkers), 5)] {
			p.mu.Lock()
			seqs := append([]int64{}, p.said[r.id]...)
			p.mu.Unlock()
			if len(seqs) > 0 {
				next <- func() { e.receipts(r.id, p, seqs) }
			}
		}
	}
	close(next)
	wg.Wait()
}

func (e *Evening) pullAll(at chat.ConversationID, who *person) {
	for after := int64(0); ; {
		page, err := e.pullOnce(at, who, client.PullRequest{After: &after, Limit: 200}, false)
		if err != nil {
			e.t.Errorf("%s cannot be pulled at the end: %v", at, err)
			return
		}
		if n := len(page.Messages); n > 0 {
			after = page.Messages[n-1].Last()
		}
		if !page.HasMore || len(page.Messages) == 0 {
			return
		}
	}
}
