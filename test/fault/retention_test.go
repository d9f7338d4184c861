package fault

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/test/platform"
)

// groups makes two groups of which the second is in another partition than the first.
func groups(p *platform.Person) (first, other string) {
	var g struct {
		ID string `json:"conversation_id"`
	}
	p.Eventually(201, "POST", "/groups", map[string]any{"name": "First", "client_msg_id": "first"}, &g)
	first = g.ID
	for i := 0; ; i++ {
		p.Eventually(201, "POST", "/groups", map[string]any{"name": "Other", "client_msg_id": fmt.Sprint("other-", i)}, &g)
		if chat.Partition(g.ID, 8) != chat.Partition(first, 8) {
			return first, g.ID
		}
	}
}

// Retention removes from im.messages what the store does not have yet. Nobody can number on from there without guessing:
// it is said loudly, nothing is numbered twice, and the other partitions go on.
func TestFault_RetentionRemovesWhatIsStillNeeded(t *testing.T) {
	c := platform.StartCluster(t)
	ada := c.Join(t, "ada")
	first, other := groups(ada)
	for i := range 5 {
		ada.Send(first, fmt.Sprint("stored-", i), "stored")
	}
	ada.Eventually(200, "GET", "/conversations/"+first+"/messages?limit=1&told=6", nil, nil)
	c.Timeline.Kill()
	var last platform.Sent
	for i := range 5 {
		last = ada.Send(first, fmt.Sprint("numbered-", i), "numbered, and not stored")
	}
	if last.Seq != 11 {
		t.Fatalf("the last number is %d, want 11", last.Seq)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	partition := chat.Partition(first, 8)
	ends, err := adm.ListEndOffsets(t.Context(), "im.messages")
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup("im.messages", partition)
	var gone kadm.Offsets
	gone.AddOffset("im.messages", partition, end.Offset, -1)
	if _, err := adm.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Ingest {
		p.Kill()
		p.Start()
	}
	c.Timeline.Start()
	says(t, "NUMBERING STOPPED", c.Ingest[:]...)
	says(t, "THE TIMELINE STOPPED", c.Timeline)
	// A send is taken, and has no number; a retry of one that had a number before gets no other.
	for _, key := range []string{"new", "numbered-4"} {
		body := platform.Text("who knows")
		body["client_msg_id"] = key
		if status, text := ada.Raw("POST", "/conversations/"+first+"/messages", body); status != 202 {
			t.Errorf("a send into a partition that is not numbered was answered %d: %s", status, text)
		}
	}
	if s := ada.Send(other, "other", "others go on"); s.Seq != 2 {
		t.Errorf("the next number of the other group is %d", s.Seq)
	}
	after, err := adm.ListEndOffsets(t.Context(), "im.messages")
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := after.Lookup("im.messages", partition); now.Offset != end.Offset {
		t.Errorf("something was written behind %d, up to %d", end.Offset, now.Offset)
	}
}

// says waits until one of some processes says something in its log.
func says(t *testing.T, text string, processes ...*platform.Process) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, p := range processes {
			if strings.Contains(p.Log(), text) {
				return
			}
		}
	}
	t.Errorf("nobody says %q", text)
}

// A backlog in one partition is worked off without a pause for the others.
func TestFault_ABacklogInOnePartitionHoldsUpNobodyElse(t *testing.T) {
	c := platform.StartCluster(t)
	ada := c.Join(t, "ada")
	first, other := groups(ada)
	n := int64(30_000)
	if full() {
		n = 1_000_000
	}
	for _, p := range c.Ingest {
		p.Terminate()
	}
	produceMany(t, c, ada.ID, first, n)
	for _, p := range c.Ingest {
		p.Start()
	}
	began := time.Now()
	ada.Eventually(200, "POST", "/conversations/"+other+"/messages", map[string]any{"client_msg_id": "up", "type": "text", "content": map[string]string{"text": "up"}}, nil)
	slowest, sends := time.Duration(0), 0
	var at struct {
		Max int64 `json:"max_seq"`
	}
	for at.Max < n+1 {
		if time.Since(began) > 10*time.Minute {
			t.Fatalf("of %d records %d are worked off", n, at.Max)
		}
		started := time.Now()
		ada.Send(other, fmt.Sprint("beside-", sends), "beside")
		slowest, sends = max(slowest, time.Since(started)), sends+1
		ada.Must(200, "GET", "/conversations/"+first, nil, &at)
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%d records were worked off in %s; beside them %d sends were answered, the slowest after %s", n, time.Since(began).Round(time.Millisecond), sends, slowest)
	if sends < 3 {
		t.Error("nobody sent beside the backlog")
	}
	if slowest > 2*time.Second { // behind it the answer would be 202, and Send would have asked again
		t.Errorf("the slowest send beside the backlog took %s", slowest)
	}
	c.Fsck()
}

func produceMany(t *testing.T, c *platform.Cluster, sender, cid string, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(50_000), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	id, err := chat.ParseConversationID(cid)
	if err != nil {
		t.Fatal(err)
	}
	user, err := chat.ParseUserID(sender)
	if err != nil {
		t.Fatal(err)
	}
	var failed atomic.Int64
	for i := range n {
		value := wire.EncodeCommand(&chat.Command{
			Type: chat.KindMessage, Conversation: id, Sender: user, ClientMsgID: fmt.Sprint("backlog-", i),
			Message: &chat.Message{Type: chat.TypeText, Content: fmt.Appendf(nil, `{"text":"number %d of a long queue"}`, i)},
		})
		r := &kgo.Record{Topic: "im.inbound", Partition: chat.Partition(cid, 8), Key: []byte(cid), Value: value, Headers: []kgo.RecordHeader{
			{Key: "content-type", Value: []byte(wire.ContentTypeProtobuf)}, {Key: "producer", Value: []byte("backlog")},
		}}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil || failed.Load() > 0 {
		t.Fatalf("%d records were not taken: %v", failed.Load(), err)
	}
}
