package seq

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tideline/pkg/chat"
)

// Config is what a machine is told once.
type Config struct {
	Partition int32
	Hasher    *chat.Hasher
	// NextID gives the next message id. An error ends the owner, before anything was written.
	NextID func() (int64, error)
	// WindowIDs is how many client ids are remembered beyond those that the store may not have yet.
	WindowIDs int
	// CacheEntries is how many conversations and memberships stay in memory beyond those that must.
	CacheEntries int
	// MaxMembers is how many members a group may have.
	MaxMembers int
	// ClientProducer is the producer's name on commands that clients gave over HTTP and the socket. RejoinAfter holds for
	// those only; what backends produce is exempt.
	ClientProducer string
}

// Defaults of Config, with what they cost.
const (
	DefaultWindowIDs    = 50_000 // about 130 bytes each
	DefaultCacheEntries = 50_000 // about 200 bytes each
)

// RejoinAfter is how long a person who left a group cannot be put back by the member who had added them, so that leaving
// has an effect; others may add them at once.
const RejoinAfter = 24 * time.Hour

// Machine is the state of one partition: what it must know to judge the next record. It has one owner and is not safe
// for concurrent use. It does no I/O: an owner replays the log's tail into it, and then, batch by batch, asks what is
// missing (Begin), lets it decide (Decide), writes the outcomes, and settles them (Settle). When a write fails the machine
// is dropped: its state is ahead of the log, and the next owner begins from what is there.
type Machine struct {
	config        Config
	conversations map[chat.ConversationID]*conversation
	pending       []pendingFact // facts that are written, in order of offset
	unsettled     int           // facts of the batch that is being written
	window        *window
	entries       int

	inboundNext  int64
	rejectedNext int64
	// found are rejections that a predecessor wrote for records behind its last event, by inbound offset.
	found map[int64]chat.Rejection
	// stretches are those of them that are of several offsets. A reader with another bound may read records among them.
	stretches []chat.Rejection
}

type pendingFact struct {
	offset int64
	c      *conversation
	id     idKey
}

// New makes the machine of a partition as of a checkpoint. What follows the checkpoint in the log must be replayed before
// the first batch.
func New(config Config, cp Checkpoint) *Machine {
	return &Machine{
		config: config, conversations: map[chat.ConversationID]*conversation{}, window: newWindow(config.WindowIDs, cp.HighestStamp),
		inboundNext: cp.InboundNext, rejectedNext: cp.RejectedNext, found: map[int64]chat.Rejection{},
	}
}

// Replay takes one event of the log's tail, in order. The error is ErrUnknownKind for one that this version does not know.
func (m *Machine) Replay(offset int64, e *chat.Event) error {
	if !e.Kind.IsKnown() {
		return fmt.Errorf("%w: kind %d of %s/%d", ErrUnknownKind, e.Kind, e.Conversation, e.Seq)
	}
	m.inboundNext = max(m.inboundNext, e.InboundOffset+1)
	m.rejectedNext = max(m.rejectedNext, e.RejectedNext)
	if e.Kind == chat.KindProgress {
		return nil
	}
	c := m.conversation(e.Conversation)
	f := factOf(e)
	f.offset = offset
	m.supersede(c, e.Seq)
	if err := c.remember(f); err != nil {
		return err
	}
	m.window.add(f.id, idEntry{first: firstOf(e), hash: e.BodyHash, stamp: chat.Stamp(e.ClientMsgID)})
	// Ids of the tail may have been numbered by a predecessor whose floor was higher than the checkpoint's.
	m.window.floor = max(m.window.floor, m.window.highest)
	m.pending = append(m.pending, pendingFact{offset, c, f.id})
	return nil
}

// ReplayUnreadable takes the place of a record of the log's tail whose value cannot be read, in order. Its number counts as
// used; where it is used already, the record changes nothing.
func (m *Machine) ReplayUnreadable(offset int64, id chat.ConversationID, seq int64) error {
	c := m.conversation(id)
	if n := len(c.facts); n > 0 && seq <= c.facts[n-1].seq {
		return nil
	}
	if err := c.remember(fact{seq: seq, offset: offset, unreadable: true}); err != nil {
		return err
	}
	m.pending = append(m.pending, pendingFact{offset: offset, c: c})
	return nil
}

// supersede drops an unreadable last fact of a conversation whose number an event has: the owner was at work when something
// else wrote the record, and gave the number without having seen it.
func (m *Machine) supersede(c *conversation, seq int64) {
	n := len(c.facts)
	if n == 0 || !c.facts[n-1].unreadable || c.facts[n-1].seq != seq {
		return
	}
	offset := c.facts[n-1].offset
	c.facts = c.facts[:n-1]
	m.pending = slices.DeleteFunc(m.pending, func(p pendingFact) bool { return p.offset == offset })
}

// ReplayRejection takes one record of im.rejected from RejectedNext on. Those behind the last event are kept: their
// inbound records get no second outcome.
func (m *Machine) ReplayRejection(r chat.Rejection) {
	if r.Inbound.Partition == m.config.Partition && r.Inbound.Offset >= m.inboundNext {
		m.found[r.Inbound.Offset] = r
		if r.InboundLast > r.Inbound.Offset {
			m.stretches = append(m.stretches, r)
		}
	}
}

// rejected returns the rejection that a predecessor wrote for an offset.
func (m *Machine) rejected(offset int64) (chat.Rejection, bool) {
	if r, ok := m.found[offset]; ok {
		return r, true
	}
	for _, r := range m.stretches {
		if r.Inbound.Offset <= offset && offset <= r.InboundLast {
			return r, true
		}
	}
	return chat.Rejection{}, false
}

// Resume gives the offset of im.inbound to go on from, once everything is replayed.
func (m *Machine) Resume() int64 { return m.inboundNext }

// RejectedNext gives the offset of im.rejected to replay from.
func (m *Machine) RejectedNext() int64 { return m.rejectedNext }

// Unconfirmed counts the events that the store is not known to have.
func (m *Machine) Unconfirmed() int { return len(m.pending) + m.unsettled }

// Confirm says how far the store has come; what it has may leave memory.
func (m *Machine) Confirm(cp Checkpoint) {
	n := 0
	for n < len(m.pending) && m.pending[n].offset < cp.MessagesNext {
		p := m.pending[n]
		p.c.forget()
		m.window.confirm(p.id)
		if !p.c.loaded && len(p.c.facts) == 0 {
			m.evict(p.c)
		}
		n++
	}
	m.pending = m.pending[n:]
	if len(m.pending) == 0 {
		m.pending = nil // lets go of the array
	}
	if m.entries <= m.config.CacheEntries {
		return
	}
	// Which of the clean ones leave does not matter much, and the order of a map is as good as any.
	for _, c := range m.conversations {
		if len(c.facts) == 0 {
			m.evict(c)
			if m.entries <= m.config.CacheEntries*9/10 {
				return
			}
		}
	}
}

func (m *Machine) conversation(id chat.ConversationID) *conversation {
	c := m.conversations[id]
	if c == nil {
		c = newConversation(id)
		m.conversations[id] = c
		m.entries++
	}
	return c
}

func (m *Machine) evict(c *conversation) {
	if m.conversations[c.ID] == c {
		delete(m.conversations, c.ID)
		m.entries -= 1 + len(c.members)
	}
}

// Batch is what becomes of some records.
type Batch struct {
	machine *Machine
	now     int64
	next    int64 // of im.inbound, behind the records and whatever else was read
	records []Record
	need    Need

	ready   []readyRecord
	known   map[idKey]idEntry // found in the store
	users   map[chat.UserID]bool
	targets map[TargetKey]Target

	// Outcomes has one outcome for each record of the batch that was decided, in order.
	Outcomes []Outcome
	// Rest is what was not decided: a record that depends on an event of this batch, and all behind it. It begins the
	// next batch.
	Rest []Record

	events []*chat.Event
	facts  []*conversation // of the events, without progress
}

type readyRecord struct {
	refusal *chat.Error
	// unreadable refuses content that some clients cannot read. A duplicate is answered as one all the same.
	unreadable *chat.Error
	id         idKey
	hash       chat.BodyHash
	stamp      int64
}

// Begin looks at the shape of some records (in the order of the log, from where the machine stands) and finds out what
// has to be loaded to judge them. Next is the offset behind everything that was read; there may be no records, if it has
// moved. The time is in ms.
func (m *Machine) Begin(records []Record, next, now int64) *Batch {
	b := &Batch{
		machine: m, now: now, next: next, records: records, ready: make([]readyRecord, len(records)),
		known: map[idKey]idEntry{}, users: map[chat.UserID]bool{}, targets: map[TargetKey]Target{},
	}
	asked := newAsked(&b.need)
	for i := range records {
		r, p := &records[i], &b.ready[i]
		if _, done := m.rejected(r.Offset); done {
			continue
		}
		if r.Command != nil {
			p.unreadable = r.Command.CheckContent() // of the content as it came: judging the shape makes it canonical
		}
		if p.refusal = m.judgeShape(r); p.refusal != nil {
			continue
		}
		cmd := r.Command
		p.id, p.hash, p.stamp = keyOf(cmd.Conversation, cmd.Sender, cmd.ClientMsgID), m.config.Hasher.Hash(cmd), chat.Stamp(cmd.ClientMsgID)
		if _, there := m.window.find(p.id); !there && m.window.mustLookUp(p.stamp, now) {
			asked.clientID(p.id, ClientID{cmd.Conversation, cmd.Sender, cmd.ClientMsgID})
		}
		asked.command(m.conversation(cmd.Conversation), cmd)
	}
	return b
}

// judgeShape judges what can be judged of a record alone, and whether it is in its partition.
func (m *Machine) judgeShape(r *Record) *chat.Error {
	if r.Fault != nil {
		return r.Fault
	}
	if err := r.Command.Validate(); err != nil {
		return asRefusal(err)
	}
	if r.Home == m.config.Partition {
		return nil
	}
	if r.MovedFrom != nil {
		return chat.Refuse(chat.CodeMisrouted, "the record was moved here from partition %d, but its key belongs in %d", r.MovedFrom.Partition, r.Home)
	}
	return chat.Refuse(chat.CodeMoved, "the record belongs in partition %d and was moved there", r.Home)
}

func asRefusal(err error) *chat.Error {
	var refusal *chat.Error
	if errors.As(err, &refusal) {
		return refusal
	}
	return chat.Refuse(chat.CodeInternal, "the record could not be judged").Because(err)
}

// Need names what has to be loaded before Decide.
func (b *Batch) Need() Need { return b.need }

// Decide gives every record of the batch its outcome and moves the machine's state past it. What comes back from the
// store is what Need named.
func (b *Batch) Decide(loaded Loaded) error {
	if err := b.learn(loaded); err != nil {
		return err
	}
	m := b.machine
	inThisBatch := map[idKey]bool{}
	for i := range b.records {
		r, p := &b.records[i], &b.ready[i]
		if known, done := m.rejected(r.Offset); done {
			b.Outcomes = append(b.Outcomes, Outcome{Record: r, Rejection: &known, Known: true})
			continue
		}
		if p.refusal == nil && inThisBatch[p.id] {
			// Rejections are written before events: one that names an event of the same batch could outlive it.
			b.Rest = b.records[i:]
			break
		}
		event, rejection, err := b.decide(r, p)
		if err != nil {
			return err
		}
		if event != nil {
			inThisBatch[p.id] = true
			b.events = append(b.events, event)
		}
		b.Outcomes = append(b.Outcomes, Outcome{Record: r, Event: event, Rejection: rejection})
	}
	m.inboundNext = b.next
	if len(b.Rest) > 0 {
		m.inboundNext = b.Rest[0].Offset
	}
	// Whoever takes over goes on behind the last event: where that is not the end of what was dealt with (a rejection, or
	// the marker of a transaction), a record says so.
	if n := len(b.events); n == 0 || b.events[n-1].InboundOffset+1 < m.inboundNext {
		b.events = append(b.events, &chat.Event{
			Kind: chat.KindProgress, InboundOffset: m.inboundNext - 1, RejectedNext: m.rejectedNext, SentAt: b.now,
		})
	}
	b.forgetStrangers()
	for offset := range m.found {
		if offset < m.inboundNext {
			delete(m.found, offset)
		}
	}
	m.stretches = slices.DeleteFunc(m.stretches, func(r chat.Rejection) bool { return r.InboundLast < m.inboundNext })
	return nil
}

func (b *Batch) decide(r *Record, p *readyRecord) (*chat.Event, *chat.Rejection, error) {
	m := b.machine
	if p.refusal != nil {
		return nil, b.reject(r, p.refusal, nil), nil
	}
	cmd := r.Command
	entry, repeated := m.window.find(p.id)
	if !repeated {
		entry, repeated = b.known[p.id]
	}
	if repeated {
		first := entry.first
		if entry.hash != p.hash {
			return nil, b.reject(r, chat.RefuseField(chat.CodeConflict, "client_msg_id", "was used before for number %d with another body", first.Seq), &first), nil
		}
		return nil, b.reject(r, chat.Refuse(chat.CodeDuplicate, "was numbered %d before", first.Seq), &first), nil
	}
	if p.unreadable != nil {
		return nil, b.reject(r, p.unreadable, nil), nil
	}
	c := m.conversation(cmd.Conversation)
	event, refusal := b.judge(c, r, b.now)
	if refusal != nil {
		return nil, b.reject(r, refusal, nil), nil
	}
	id, err := m.config.NextID()
	if err != nil {
		return nil, nil, fmt.Errorf("taking a message id: %w", err)
	}
	event.Conversation, event.Kind, event.MessageID = c.ID, cmd.Type, id
	event.Sender, event.ClientMsgID, event.BodyHash = cmd.Sender, cmd.ClientMsgID, p.hash
	event.Producer, event.InboundOffset, event.MovedFrom, event.RejectedNext = r.Producer, r.Offset, r.MovedFrom, m.rejectedNext
	if event.SentAt = b.now; cmd.OriginalAt > 0 {
		event.SentAt, event.NumberedAt = cmd.OriginalAt, b.now
	}
	event.Seq, event.Ordinal = c.MaxSeq+1, c.Ordinal
	if event.Countable() {
		event.Ordinal++
	}
	f := factOf(event)
	if err := c.remember(f); err != nil {
		return nil, nil, err
	}
	c.apply(&f)
	m.window.add(p.id, idEntry{first: firstOf(event), hash: p.hash, stamp: p.stamp})
	m.unsettled++
	b.facts = append(b.facts, c)
	return event, nil, nil
}

func (b *Batch) reject(r *Record, refusal *chat.Error, first *chat.FirstEvent) *chat.Rejection {
	rejection := &chat.Rejection{
		Code: refusal.Code, Message: refusal.Message, Field: refusal.Field, First: first,
		Inbound: chat.Position{Partition: b.machine.config.Partition, Offset: r.Offset}, InboundLast: r.Last, RejectedAt: b.now,
		Producer: r.Producer, ContentType: r.ContentType, Record: r.Value,
	}
	if refusal.Code == chat.CodeMoved {
		rejection.MovedTo = r.Home
	}
	if c := r.Command; c != nil {
		rejection.Conversation, rejection.Sender, rejection.ClientMsgID = c.Conversation, c.Sender, c.ClientMsgID
	}
	rejection.Bound()
	return rejection
}

// Asides gives the outcomes that are written before the events: rejections and moves that no predecessor wrote.
func (b *Batch) Asides() []Outcome {
	var asides []Outcome
	for _, o := range b.Outcomes {
		if o.Rejection != nil && !o.Known {
			asides = append(asides, o)
		}
	}
	return asides
}

// Events gives what is written to im.messages, in order. It is never empty: a batch that ends without an event, or
// before offsets that are no records, ends with a progress record.
func (b *Batch) Events() []*chat.Event { return b.events }

// Settle says that everything is written: the offset behind the last rejection (or the former one, where there was
// none), and the offsets of the events.
func (b *Batch) Settle(rejectedNext int64, offsets []int64) {
	m := b.machine
	m.rejectedNext = max(m.rejectedNext, rejectedNext)
	m.unsettled = 0
	n := 0
	for i, e := range b.events {
		if e.Kind == chat.KindProgress {
			continue
		}
		c := b.facts[n]
		n++
		at := int(e.Seq - c.facts[0].seq)
		c.facts[at].offset = offsets[i]
		m.pending = append(m.pending, pendingFact{offsets[i], c, c.facts[at].id})
	}
}

func factOf(e *chat.Event) fact {
	f := fact{
		seq: e.Seq, offset: -1, ordinal: e.Ordinal, kind: e.Kind, sender: e.Sender, target: e.TargetSeq(),
		id: keyOf(e.Conversation, e.Sender, e.ClientMsgID),
	}
	switch e.Kind {
	case chat.KindMessage:
		if e.Message != nil {
			f.msgType, f.recipients = e.Message.Type, e.Message.Recipients
		}
	case chat.KindEdit, chat.KindRecall:
	default:
		f.event = e
	}
	return f
}

func firstOf(e *chat.Event) chat.FirstEvent {
	return chat.FirstEvent{Seq: e.Seq, MessageID: e.MessageID, SentAt: e.SentAt}
}
