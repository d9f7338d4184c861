package seqtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/seq"
)

// Plan is how one history is made.
type Plan struct {
	Seed     uint64
	Commands int
	// Lives is how many owners die before one may finish.
	Lives int
	// Partition and Groups name what the commands are about; every group must belong to the partition.
	Partition int32
	Groups    []chat.ConversationID
}

var people = []chat.UserID{11, 12, 13, 14, 15}

// Run makes a history and checks it.
func Run(t *testing.T, w World, p Plan) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Logf("seed %d", p.Seed)
	rng := rand.New(rand.NewPCG(p.Seed, 1))
	store := NewStore(people...)
	commands := makeCommands(rng, p)
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	var lastID int64
	life := func(last bool, until int64) {
		deaths := []seq.Point{seq.PointFenced, seq.PointReplayed, seq.PointDecided, seq.PointAsideWritten, seq.PointEventsWritten, seq.PointTold}
		dieAt, after := deaths[rng.IntN(len(deaths))], rng.IntN(6)
		living, stop := context.WithCancel(ctx)
		defer stop()
		o := seq.Owner{
			Config: seq.Config{
				Partition: p.Partition, Hasher: hasher, WindowIDs: 1 + rng.IntN(40), CacheEntries: 1 + rng.IntN(20), MaxMembers: 4,
				NextID: func() (int64, error) { lastID++; return lastID, nil },
			},
			Log: w.Own(), Store: store, Now: func() time.Time { return time.UnixMilli(now) },
			Tell: func([]seq.Outcome) {
				// The writer follows at its own pace, and sometimes not at all.
				if log, err := w.Messages(ctx); err == nil && rng.IntN(3) > 0 && len(log) > 0 {
					store.CatchUp(log, log[rng.IntN(len(log))].Offset+1)
				}
			},
			Confirmed: func() seq.Checkpoint { cp, _ := store.Checkpoint(ctx, 0); return cp },
			MaxBatch:  1 + rng.IntN(20), MaxUnconfirmed: 1 << 20, Waiting: func(bool) {},
			Moved: func(next int64) {
				if next >= until {
					stop()
				}
			},
			At: func(at seq.Point) error {
				if !last && at == dieAt {
					if after--; after < 0 {
						return errDied
					}
				}
				return nil
			},
		}
		err := o.Run(living)
		if !errors.Is(err, errDied) && !errors.Is(err, ErrKilled) && !errors.Is(err, context.Canceled) {
			t.Fatalf("an owner ended with %v", err)
		}
	}
	appended := 0
	for i := range p.Lives {
		upTo := len(commands) * (i + 1) / p.Lives
		if err := w.Append(ctx, commands[appended:upTo]); err != nil {
			t.Fatal(err)
		}
		appended = upTo
		life(false, int64(upTo))
	}
	for !settled(ctx, t, w, int64(len(commands))) {
		life(true, int64(len(commands)))
	}
	check(ctx, t, w, commands)
}

var errDied = errors.New("the owner died here")

// now is the time at which everything is numbered; expires_at lies around it.
const now = 1_700_000_000_000

func settled(ctx context.Context, t *testing.T, w World, n int64) bool {
	t.Helper()
	log, err := w.Messages(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return len(log) > 0 && log[len(log)-1].Event.InboundOffset == n-1
}

// makeCommands makes commands of every kind, some senseless, and retries of all of them, with the same body and another.
func makeCommands(rng *rand.Rand, p Plan) []chat.Command {
	var list []chat.Command
	for i := range p.Commands {
		if len(list) > 0 && rng.IntN(4) == 0 {
			c := list[rng.IntN(len(list))]
			if rng.IntN(3) == 0 && c.Type == chat.KindMessage {
				c.Message = text(rng, "another body")
			}
			list = append(list, c)
			continue
		}
		list = append(list, command(rng, p, i))
	}
	return list
}

func command(rng *rand.Rand, p Plan, i int) chat.Command {
	who := func() chat.UserID { return people[rng.IntN(len(people))] }
	c := chat.Command{Conversation: p.Groups[rng.IntN(len(p.Groups))], Sender: who(), ClientMsgID: clientID(rng, i)}
	if c.Conversation.Kind == chat.KindPrivate {
		c.Type, c.Message = chat.KindMessage, text(rng, fmt.Sprintf("private %d", i))
		return c
	}
	switch k := rng.IntN(30); {
	case k < 3 || i < 3:
		c.Sender = people[0]
		c.Type, c.Create = chat.KindCreate, &chat.Create{Name: "a group", Members: []chat.UserID{who()}, HistoryVisible: rng.IntN(2) == 0}
	case k < 6:
		c.Sender = people[0]
		c.Type, c.Join = chat.KindJoin, &chat.Join{Users: []chat.UserID{who(), who()}}
	case k < 8:
		c.Type, c.Leave = chat.KindLeave, &chat.Leave{Users: []chat.UserID{who()}}
		if rng.IntN(2) == 0 {
			c.Leave.Users = []chat.UserID{c.Sender}
		}
	case k < 10:
		c.Sender = people[0]
		c.Type, c.Mute = chat.KindMute, &chat.Mute{User: who(), Until: int64(rng.IntN(2)) * (now + 1000)}
	case k < 11:
		c.Type, c.Role = chat.KindRole, &chat.SetRole{User: who(), Role: chat.RoleAdmin}
	case k < 13:
		c.Type, c.Recall = chat.KindRecall, &chat.Recall{TargetSeq: 1 + rng.Int64N(20)}
	case k < 15:
		c.Type, c.Edit = chat.KindEdit, &chat.Edit{TargetSeq: 1 + rng.Int64N(20), Content: json.RawMessage(`{"text":"edited"}`)}
	case k < 16:
		visible := rng.IntN(2) == 0
		c.Type, c.Update = chat.KindUpdate, &chat.Update{HistoryVisible: &visible}
	default:
		c.Type, c.Message = chat.KindMessage, text(rng, fmt.Sprintf("message %d", i))
		if rng.IntN(8) == 0 {
			c.ExpiresAt = now - 500 + rng.Int64N(1000)
		}
		if rng.IntN(8) == 0 {
			c.Message.Recipients = []chat.UserID{who()}
		}
		if rng.IntN(6) == 0 {
			c.Message.Mentions = &chat.Mentions{UserIDs: []chat.UserID{who(), 99}, All: rng.IntN(4) == 0}
		}
	}
	return c
}

func text(rng *rand.Rand, s string) *chat.Message {
	content, _ := json.Marshal(map[string]string{"text": fmt.Sprintf("%s %d", s, rng.IntN(1000))})
	return &chat.Message{Type: chat.TypeText, Content: content}
}

// clientID gives names with a stamp of the past, of the future, and without one.
func clientID(rng *rand.Rand, i int) string {
	switch rng.IntN(5) {
	case 0:
		return fmt.Sprintf("plain-%d", i)
	case 1:
		return uuid7(rng, now+int64(i)*1000)
	}
	return uuid7(rng, now-1_000_000+rng.Int64N(900_000))
}

func uuid7(rng *rand.Rand, stamp int64) string {
	return fmt.Sprintf("%08x-%04x-7%03x-8%03x-%012x", stamp>>16, stamp&0xffff, rng.IntN(1<<12), rng.IntN(1<<12), rng.Int64N(1<<48))
}

// checkNamed compares the users that an event names with the members at the time it was numbered.
func checkNamed(t *testing.T, m *model, e *chat.Event, c *chat.Command) {
	t.Helper()
	member := func(u chat.UserID) seq.Member { return m.members[seq.MemberKey{Conversation: e.Conversation, User: u}] }
	present := func(u chat.UserID) bool {
		return e.Conversation.HasPeer(u) || member(u).User != 0 && !member(u).Left
	}
	switch e.Kind {
	case chat.KindMessage:
		for _, u := range e.Message.Recipients {
			if !present(u) {
				t.Errorf("%s/%d is addressed to %s, which is no member", e.Conversation, e.Seq, u)
			}
		}
		var want, got []chat.UserID
		if c.Message.Mentions != nil {
			for _, u := range c.Message.Mentions.UserIDs {
				if present(u) && !slices.Contains(want, u) {
					want = append(want, u)
				}
			}
		}
		if e.Message.Mentions != nil {
			got = e.Message.Mentions.UserIDs
		}
		slices.Sort(want)
		if !slices.Equal(got, want) || (e.Message.Mentions != nil && e.Message.Mentions.All) != (c.Message.Mentions != nil && c.Message.Mentions.All) {
			t.Errorf("%s/%d mentions %v, and the members among those of the command are %v", e.Conversation, e.Seq, got, want)
		}
	case chat.KindJoin:
		if e.Producer != "" { // of a backend, as far as the owners of this suite know
			return
		}
		for _, u := range e.Join.Users {
			if v := member(u); v.Left && v.AddedBy == e.Sender && v.LeftBy == u {
				t.Errorf("%s/%d puts %s back, who left %s", e.Conversation, e.Seq, u, e.Sender)
			}
		}
	}
}

// check reads the log and compares it with the promises.
func check(ctx context.Context, t *testing.T, w World, commands []chat.Command) {
	t.Helper()
	log, err := w.Messages(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rejected, err := w.Rejected(ctx)
	if err != nil {
		t.Fatal(err)
	}
	outcome := map[int64]string{}
	settle := func(offset int64, what string) {
		if before, there := outcome[offset]; there {
			t.Errorf("inbound record %d has two outcomes: %s and %s", offset, before, what)
		}
		outcome[offset] = what
	}
	m := newModel()
	byPlace := map[chat.ConversationID]map[int64]*chat.Event{}
	lastInbound := int64(-1)
	for i := range log {
		e := &log[i].Event
		if e.InboundOffset <= lastInbound && e.Kind != chat.KindProgress {
			t.Errorf("event at %d comes from inbound %d, behind one from %d", log[i].Offset, e.InboundOffset, lastInbound)
		}
		lastInbound = max(lastInbound, e.InboundOffset)
		if e.Kind == chat.KindProgress {
			continue
		}
		settle(e.InboundOffset, fmt.Sprintf("event %d", e.Seq))
		before := m.conversations[e.Conversation]
		if before == nil {
			before = &seq.Conversation{}
		}
		if e.Seq != before.MaxSeq+1 {
			t.Errorf("%s: number %d follows %d", e.Conversation, e.Seq, before.MaxSeq)
		}
		want := before.Ordinal
		if e.Countable() {
			want++
		}
		if e.Ordinal != want {
			t.Errorf("%s/%d has ordinal %d, want %d", e.Conversation, e.Seq, e.Ordinal, want)
		}
		id := seq.ClientID{Conversation: e.Conversation, Sender: e.Sender, ID: e.ClientMsgID}
		if first, there := m.ids[id]; there {
			t.Errorf("%s: client id %s was numbered %d and %d", e.Conversation, e.ClientMsgID, first.Seq, e.Seq)
		}
		sender := m.members[seq.MemberKey{Conversation: e.Conversation, User: e.Sender}]
		if e.Conversation.Kind == chat.KindGroup && e.Kind != chat.KindCreate && (sender.User == 0 || sender.Left) {
			t.Errorf("%s/%d: %s acted and was no member", e.Conversation, e.Seq, e.Sender)
		}
		if e.Kind == chat.KindMessage && sender.MutedUntil > now {
			t.Errorf("%s/%d: %s spoke and was muted", e.Conversation, e.Seq, e.Sender)
		}
		if c := &commands[e.InboundOffset]; c.ClientMsgID != e.ClientMsgID || c.Sender != e.Sender || c.Type != e.Kind {
			t.Errorf("event %d is not the command that it came from", e.Seq)
		}
		if e.Kind == chat.KindRecall && m.targets[seq.TargetKey{Conversation: e.Conversation, Seq: e.TargetSeq()}].Recalled {
			t.Errorf("%s/%d recalls %d a second time", e.Conversation, e.Seq, e.TargetSeq())
		}
		if e.Kind == chat.KindUpdate && e.Update.HistoryVisible != nil && sender.Role != chat.RoleOwner {
			t.Errorf("%s/%d: %s changed history_visible as %s", e.Conversation, e.Seq, e.Sender, sender.Role)
		}
		if n := e.TargetSeq(); n > 0 {
			target := m.targets[seq.TargetKey{Conversation: e.Conversation, Seq: n}]
			addressed := len(target.Recipients) == 0 || target.Sender == e.Sender || slices.Contains(target.Recipients, e.Sender)
			if !addressed || e.Conversation.Kind == chat.KindGroup && n < sender.JoinSeq && !before.HistoryVisible {
				t.Errorf("%s/%d: %s aims at %d, which it may not see", e.Conversation, e.Seq, e.Sender, n)
			}
		}
		checkNamed(t, &m, e, &commands[e.InboundOffset])
		m.apply(e)
		if byPlace[e.Conversation] == nil {
			byPlace[e.Conversation] = map[int64]*chat.Event{}
		}
		byPlace[e.Conversation][e.Seq] = e
	}
	codes := map[chat.Code]int{}
	for i := range rejected {
		r := &rejected[i].Rejection
		settle(r.Inbound.Offset, "rejection "+string(r.Code))
		codes[r.Code]++
		if r.Code != chat.CodeDuplicate && r.Code != chat.CodeConflict {
			continue
		}
		first := byPlace[r.Conversation][r.First.Seq]
		if first == nil || first.ClientMsgID != r.ClientMsgID || first.Sender != r.Sender || first.MessageID != r.First.MessageID {
			t.Errorf("inbound %d is told to repeat %s/%d, which is not so", r.Inbound.Offset, r.Conversation, r.First.Seq)
			continue
		}
		if first.InboundOffset > r.Inbound.Offset {
			t.Errorf("inbound %d is told to repeat a later record, %d", r.Inbound.Offset, first.InboundOffset)
		}
	}
	for i := range commands {
		if outcome[int64(i)] == "" {
			t.Errorf("inbound record %d has no outcome", i)
		}
	}
	t.Logf("%d records in the log, rejections %v", len(log), codes)
}
