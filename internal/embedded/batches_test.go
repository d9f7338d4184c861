package embedded

import (
	"errors"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/kafka/kafkatest"
	"tideline/internal/servers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// Every kind of damage with every codec is refused on a connection of ours and of others, with the error of a real broker,
// and the log has none of it. What unpacks to more than our bound is in order for a real broker.
func TestGuard_RefusesBatchesAsARealBrokerDoes(t *testing.T) {
	broker, cfg := startGuarded(t)
	ours, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs := stranger(t, broker)
	there := kafka.DefaultConfig()
	there.Brokers, there.Partitions, there.Replication, there.MinInSync = []string{servers.StartKafka(t).Addr}, 1, 1, 1
	other, err := there.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := kafka.EnsureTopics(t.Context(), other, there); err != nil {
		t.Fatal(err)
	}
	for _, bad := range append(kafkatest.BadBatches(t), kafkatest.BadHeaders()...) {
		for name, cl := range map[string]*kgo.Client{"ours": ours, "theirs": theirs} {
			if _, err := kafkatest.Produce(t.Context(), cl, kafka.TopicInbound, 0, bad.Raw); !errors.Is(err, bad.Code) {
				t.Errorf("%s, a connection of %s: %v, want %v", bad.Name, name, err, bad.Code)
			}
		}
		// A real broker has no error of its own for what it cannot unpack.
		_, err := kafkatest.Produce(t.Context(), other, kafka.TopicInbound, 0, bad.Raw)
		if bad.Sound && err != nil || !bad.Sound && !errors.Is(err, bad.Code) && !errors.Is(err, kerr.UnknownServerError) {
			t.Errorf("%s: a real broker answers %v, want %v", bad.Name, err, bad.Code)
		}
	}
	first, err := kafkatest.Produce(t.Context(), theirs, kafka.TopicInbound, 0, kafkatest.Batch(kgo.CodecNone, 1, kafkatest.Records([]byte("a"))))
	if err != nil || first != 0 {
		t.Errorf("the first batch in order came to offset %d: %v", first, err)
	}
}
