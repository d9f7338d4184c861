package fsck_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/kafka/kafkatest"
	"tideline/internal/wire"
	"tideline/internal/wiring"
	"tideline/pkg/chat"
)

// A batch that cannot be read has its outcome once it was rejected; before, it is a record without one.
func TestRun_TakesARejectedBatchThatCannotBeReadForNoBreach(t *testing.T) {
	s := embeddedSettings(t)
	// Without its guard the broker takes what an older version of ours took.
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s.Kafka.Brokers, s.Kafka.User, s.Kafka.Password = cluster.ListenAddrs(), "", ""
	w := newWorld(t, s)
	raw := kafkatest.Batch(kgo.CodecGzip, 3, kafkatest.Records([]byte("a"), []byte("b"), []byte("c")))
	first, err := kafkatest.Produce(t.Context(), w.kafka, kafka.TopicInbound, home, raw)
	w.must(err)
	at := offsetAt(kafka.TopicInbound, home, first)
	w.breaks(t, "before it was rejected", nil, nil, func() {}, nil, breach("outcomes", at), breach("rest", at))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	content, err := json.Marshal(map[string]string{"text": "behind it"})
	w.must(err)
	w.produce(kafka.TopicInbound, home, group.String(), wire.EncodeCommand(&chat.Command{
		Type: chat.KindMessage, Conversation: group, Sender: 1, ClientMsgID: "behind", Message: &chat.Message{Type: chat.TypeText, Content: content},
	}))
	p, err := wiring.NewParts(ctx, w.s, "test", quiet)
	w.must(err)
	defer p.Close()
	services, err := p.Ingest()
	w.must(err)
	storing, err := p.Timeline()
	w.must(err)
	before := w.headOf(ctx, p.Store, group)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running, append(services, storing...)...) }()
	defer func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	for w.headOf(ctx, p.Store, group) == before {
		w.wait(ctx)
	}
	w.breaks(t, "after it was rejected", nil, func(o *fsck.Options) { o.Patience = time.Minute }, func() {}, nil)
}
