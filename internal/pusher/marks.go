package pusher

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// markFollower reads im.receipts from its end. What was said while nobody followed is not made up for: whoever was not
// told of a read mark learns it with the next sync.
type markFollower struct {
	cfg  kafka.Config
	log  *slog.Logger
	id   string
	tell func(chat.ReadMark)
}

// marksRest is how long read marks gather while they are many: an answer of the broker for each of them costs both sides more
// than the mark does.
const marksRest = 20 * time.Millisecond

// Pauses between tries.
const (
	leastPause = 250 * time.Millisecond
	mostPause  = 5 * time.Second
)

// Run follows until the context ends. While Kafka does not answer it goes on trying.
func (f *markFollower) Run(ctx context.Context) error {
	for pause := leastPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		began := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			pause = leastPause
		}
		f.log.Warn("following im.receipts was interrupted; it begins again from the end", "err", err, "pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (f *markFollower) follow(ctx context.Context) error {
	from, err := f.ends(ctx)
	if err != nil {
		return err
	}
	reader, err := f.cfg.NewReader(f.id, f.log, map[string]map[int32]kgo.Offset{kafka.TopicReceipts: from})
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rest := time.After(marksRest)
		for _, e := range fetches.Errors() {
			return fmt.Errorf("reading im.receipts: %w", e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			m, err := wire.DecodeReadMark(r.Value)
			if err != nil {
				f.log.Error("a read mark is not readable and is skipped", "partition", r.Partition, "offset", r.Offset, "err", err)
				return
			}
			f.tell(m)
		})
		select { // what comes meanwhile is fetched together; what came alone has been told
		case <-ctx.Done():
		case <-rest:
		}
	}
}

func (f *markFollower) ends(ctx context.Context) (map[int32]kgo.Offset, error) {
	admin, err := f.cfg.NewAdmin(f.id, f.log)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	list, err := kadm.NewClient(admin).ListEndOffsets(ctx, kafka.TopicReceipts)
	if err == nil {
		err = list.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the end of im.receipts: %w", err)
	}
	from := map[int32]kgo.Offset{}
	list.Each(func(o kadm.ListedOffset) { from[o.Partition] = kgo.NewOffset().At(o.Offset) })
	return from, nil
}
