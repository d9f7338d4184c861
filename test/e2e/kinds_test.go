package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/wire"
	"tideline/pkg/chat"
	"tideline/test/platform"
)

// nextVersion builds a version of the commands that knows one kind more.
const nextVersion = "failpoints,testkind"

// Kind 200 is what the build with the tag testkind knows and the other does not.
const laterKind chat.Kind = 200

// An event of a later version is kept by those that do not know it, and applied once by the first that does, also when that is
// killed in the middle of it. Its number is accounted for all the time, and its row reaches the archive once.
func TestCluster_KeepsAnEventOfALaterVersionUntilThatStarts(t *testing.T) {
	c := platform.StartCluster(t)
	ada := c.Join(t, "ada")
	var made struct {
		ID string `json:"conversation_id"`
	}
	ada.Must(201, "POST", "/groups", map[string]any{"name": "Harbour"}, &made)
	cid := made.ID
	ada.Send(cid, "one", "before")
	c.Archived(t, cid, 2)
	for _, p := range []*platform.Process{c.Ingest[0], c.Ingest[1], c.Timeline} {
		p.Kill()
	}

	// The later version numbered one event, and all of it is gone again.
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	id, err := chat.ParseConversationID(cid)
	if err != nil {
		t.Fatal(err)
	}
	partition := chat.Partition(cid, 8)
	inbound := &kgo.Record{Topic: "im.inbound", Partition: partition, Key: []byte(cid), Value: []byte("what only the later version could read")}
	if err := cl.ProduceSync(t.Context(), inbound).FirstErr(); err != nil {
		t.Fatal(err)
	}
	sender, err := chat.ParseUserID(ada.ID)
	if err != nil {
		t.Fatal(err)
	}
	e := chat.Event{
		Conversation: id, Seq: 3, Ordinal: 1, Kind: laterKind, MessageID: 77, Sender: sender, ClientMsgID: "later", SentAt: time.Now().UnixMilli(), InboundOffset: inbound.Offset,
	}
	record := &kgo.Record{Topic: "im.messages", Partition: partition, Key: []byte(cid), Value: wire.EncodeEvent(&e), Headers: []kgo.RecordHeader{
		{Key: "kind", Value: []byte("test")}, {Key: "seq", Value: []byte("3")}, {Key: "producer"}, {Key: "client_msg_id", Value: []byte("later")}, {Key: "kinds", Value: []byte("2")},
	}}
	if err := cl.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}

	// Numbering does not go on behind it while it lies in the tail.
	c.Ingest[0].Start()
	awaitLog(t, c.Ingest[0], "NUMBERING NEEDS A NEWER VERSION", "a release with version 2 or later of the list of kinds is needed, and this one has 1")

	// The writer keeps it, and its number is used; the archive waits before it.
	c.Timeline.Start()
	awaitLog(t, c.Timeline, "AN EVENT of an unknown kind was parked", "version 2 or later")
	awaitLog(t, c.Timeline, "THE ARCHIVE NEEDS A NEWER VERSION", "version 2 or later")
	if s := ada.Send(cid, "two", "behind"); s.Seq != 4 {
		t.Errorf("the next message is number %d", s.Seq)
	}
	shows := func(want ...string) {
		t.Helper()
		eventually(t, strings.Join(want, ", ")+" is shown", func() bool { return slices.Equal(types(ada, cid), want) })
	}
	shows("notice", "text", "void", "text")
	if out := c.Tideline("parked", "list"); !strings.Contains(out, "event kind 200") || strings.Count(out, "\n") != 1 {
		t.Fatalf("parked: %s", out)
	}

	// The next version is killed between storing the event and forgetting that it was parked.
	c.Timeline.Kill()
	c.Timeline.Rebuild(nextVersion)
	c.Timeline.Start("FAILPOINT=timeline/restored:1:kill")
	c.Timeline.AwaitEnd(time.Minute)
	if out := c.Tideline("parked", "list"); !strings.Contains(out, "event kind 200") {
		t.Fatalf("it was forgotten before it was done: %s", out)
	}
	c.Timeline.Start()
	eventually(t, "nothing is parked", func() bool { return c.Tideline("parked", "list") == "" })
	shows("notice", "text", "void", "text") // the api is still of the old version
	c.API.Kill()
	c.API.Rebuild(nextVersion)
	c.API.Start()
	ada.HTTP = http.DefaultClient // the contract of this version does not know what comes
	shows("notice", "text", "test", "text")
	c.Ingest[0].Kill()
	for _, p := range c.Ingest {
		p.Rebuild(nextVersion)
		p.Start()
	}
	if s := ada.Send(cid, "three", "after"); s.Seq != 5 {
		t.Errorf("the next message is number %d", s.Seq)
	}
	archive := c.Archived(t, cid, 5)
	if n := archive.Count("SELECT count() FROM messages WHERE conversation_id = ?", cid); n != 5 {
		t.Errorf("the archive has %d rows", n)
	}
	if n := archive.Count("SELECT count() FROM messages WHERE conversation_id = ? AND kind = 'test' AND seq = 3", cid); n != 1 {
		t.Errorf("the archive has the event %d times", n)
	}
	c.TidelineOf(nextVersion, "fsck", "-at-rest")
}

func awaitLog(t *testing.T, p *platform.Process, texts ...string) {
	t.Helper()
	eventually(t, p.Name+" says: "+texts[0], func() bool {
		log := p.Log()
		return !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(log, s) })
	})
}

// eventually waits for something that the processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute it does not hold that %s", what)
		}
	}
}

func types(p *platform.Person, cid string) (list []string) {
	for _, m := range p.History(cid) {
		list = append(list, m.Type)
	}
	return list
}
