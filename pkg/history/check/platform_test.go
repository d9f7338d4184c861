package check

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/history"
)

// platform is a platform in a few lines and in its own time: one partition that is numbered in batches, a store that
// follows, hints after it, pulls out of a cache that is late, marks that others see late. Everything takes a random time, so
// that operations overlap in every way; seed and nothing else decides what happens.
type platform struct {
	rng     *rand.Rand
	now     int64
	agenda  agenda
	turn    int64
	records []history.Record
	ops     history.Op
	conns   history.Conn
	ids     int64

	rooms   []*room
	people  []*person
	inbound []*command
	next    int64           // inbound offset
	offset  int64           // of im.messages
	away    map[string]bool // what is broken
	closing bool
	refused []history.Record
	unsaid  int // fresh client ids
}

// room is a conversation: its log, and how much of it the store has.
type room struct {
	id      chat.ConversationID
	log     []*entry
	applied int
	byKey   map[string]*entry
	members map[chat.UserID]bool    // as the log has them
	marks   map[chat.UserID][]step  // when a mark came to stand where
	asked   map[chat.UserID][]int64 // numbers of their own that people know, to aim at
}

type entry struct {
	history.Event
	at      int64 // when the store had it
	waiters []func(history.End)
}

type command struct {
	room    *room
	sender  chat.UserID
	begin   history.Begin
	inbound int64
	reply   func(history.End)
}

// person is a client with one connection at a time.
type person struct {
	id     chat.UserID
	who    history.Conn
	told   map[*room]int64
	hinted map[*room]int64
	flying map[history.Op]func() // to be cut off
	lost   []lost
	sent   []lost
}

type lost struct {
	room  *room
	begin history.Begin
}

type moment struct {
	at, turn int64
	do       func()
}

type agenda []moment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].turn < a[j].turn
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(moment)) }
func (a *agenda) Pop() any     { old := *a; m := old[len(old)-1]; *a = old[:len(old)-1]; return m }

const ms = int64(1_000_000)

func (p *platform) after(d int64, do func()) {
	p.turn++
	heap.Push(&p.agenda, moment{p.now + d, p.turn, do})
}

func (p *platform) between(from, to int64) int64 { return from + p.rng.Int64N(to-from+1) }

func (p *platform) write(r history.Record) {
	r.At = p.now
	p.records = append(p.records, r)
}

// play gives the history of one run: a minute of people who talk while things break.
func play(seed uint64) []history.Record {
	p := &platform{rng: rand.New(rand.NewPCG(seed, 3)), now: 1, away: map[string]bool{}}
	p.rooms = []*room{newRoom(chat.GroupConversation(7)), newRoom(chat.GroupConversation(8)), newRoom(chat.PrivateConversation(1, 2))}
	p.rooms[2].members = map[chat.UserID]bool{1: true, 2: true}
	for i := range 6 {
		u := &person{id: chat.UserID(i + 1), told: map[*room]int64{}, flying: map[history.Op]func(){}}
		p.people = append(p.people, u)
		p.after(p.between(0, 5*ms), func() { p.open(u) })
	}
	p.after(6*ms, func() {
		for _, r := range p.rooms[:2] {
			b := history.Begin{Call: history.CallCreate, Door: history.DoorHTTP, ClientMsgID: p.fresh(), Users: []chat.UserID{2, 3, 4, 5}}
			p.command(p.people[0], r, b)
		}
	})
	p.after(10*ms, p.number)
	p.after(10*ms, p.store)
	for _, u := range p.people {
		p.after(p.between(200*ms, 400*ms), func() { p.live(u) })
	}
	p.after(p.between(5000*ms, 8000*ms), func() { p.breakIt("numbering") })
	p.after(p.between(15000*ms, 20000*ms), func() { p.breakIt("connections") })
	p.after(p.between(25000*ms, 30000*ms), func() { p.breakIt("store") })
	p.after(36000*ms, p.whisper)
	p.after(45000*ms, func() { p.closing = true })
	p.after(60000*ms, p.finish)
	for len(p.agenda) > 0 {
		m := heap.Pop(&p.agenda).(moment)
		p.now = m.at
		m.do()
	}
	for i := range p.records {
		p.records[i].Line = i + 2
	}
	return p.records
}

// whisper addresses a message to one person and edits it later: what people do by chance may have no such edit.
func (p *platform) whisper() {
	u, r := p.people[1], p.rooms[1]
	p.command(u, r, history.Begin{Call: history.CallSend, Door: history.DoorHTTP, ClientMsgID: "few", Body: p.words(), Recipients: []chat.UserID{1}})
	p.after(4000*ms, func() {
		if e := r.byKey[fmt.Sprint(u.id, "few")]; e != nil {
			p.command(u, r, history.Begin{Call: history.CallEdit, Door: history.DoorHTTP, ClientMsgID: "few-edit", Body: p.words(), TargetSeq: e.Seq})
		}
	})
}

func newRoom(id chat.ConversationID) *room {
	return &room{id: id, byKey: map[string]*entry{}, members: map[chat.UserID]bool{}, marks: map[chat.UserID][]step{}, asked: map[chat.UserID][]int64{}}
}

func (p *platform) fresh() string { p.unsaid++; return fmt.Sprintf("id-%d", p.unsaid) }

func (p *platform) open(u *person) {
	p.conns++
	u.who, u.hinted = p.conns, map[*room]int64{}
	p.write(history.Record{Client: u.id, Conn: u.who, Open: &history.Open{Door: history.DoorSocket}})
	for _, l := range u.lost {
		if p.rng.IntN(4) > 0 {
			p.command(u, l.room, l.begin)
		}
	}
	u.lost = nil
}

func (p *platform) breakIt(what string) {
	id := history.FaultID(len(p.records))
	p.write(history.Record{Fault: &history.Fault{ID: id, Name: what}})
	p.away[what] = true
	if what == "connections" {
		for _, u := range p.people {
			if p.rng.IntN(2) == 0 {
				p.cut(u)
			}
		}
	}
	p.after(p.between(1500*ms, 4000*ms), func() {
		p.away[what] = false
		p.write(history.Record{FaultEnd: &history.FaultEnd{ID: id, Allowed: 3000 * ms}})
	})
}

// cut ends a connection: what is under way has no answer.
func (p *platform) cut(u *person) {
	ops := make([]history.Op, 0, len(u.flying))
	for op := range u.flying {
		ops = append(ops, op)
	}
	slices.Sort(ops)
	for _, op := range ops {
		u.flying[op]()
		if p.rng.IntN(2) == 0 {
			p.write(history.Record{Op: op, End: &history.End{Outcome: history.OutcomeUnknown}})
		}
	}
	clear(u.flying)
	p.write(history.Record{Client: u.id, Conn: u.who, Close: &history.Close{Code: 1006}})
	u.who = 0
	p.after(p.between(50*ms, 900*ms), func() { p.open(u) })
}

// ask sends a request, and records its answer where the connection still stands when it comes.
func (p *platform) ask(u *person, c chat.ConversationID, b history.Begin, serve func(reply func(history.End)), then func(history.End)) {
	p.ops++
	op := p.ops
	r := history.Record{Op: op, Client: u.id, Conversation: c, Begin: &b}
	cut := false
	if b.Call == history.CallCreate {
		r.Conversation = chat.ConversationID{}
	}
	if b.Door != history.DoorKafka {
		r.Conn = u.who
		u.flying[op] = func() {
			cut = true
			if b.Call.IsCommand() && b.Call != history.CallCreate {
				for _, room := range p.rooms {
					if room.id == c {
						u.lost = append(u.lost, lost{room, b})
					}
				}
			}
		}
	}
	p.write(r)
	p.after(p.between(ms/10, 15*ms), func() {
		done := false
		serve(func(e history.End) {
			if done {
				return
			}
			done = true
			p.after(p.between(ms/10, 15*ms), func() {
				if cut {
					return
				}
				delete(u.flying, op)
				end := history.Record{Op: op, End: &e}
				if b.Call == history.CallCreate {
					end.Conversation = c
				}
				p.write(end)
				if then != nil {
					then(e)
				}
			})
		})
	})
}

func (p *platform) command(u *person, r *room, b history.Begin) {
	if b.Call == history.CallSend {
		u.sent = append(u.sent, lost{r, b})
	}
	p.ask(u, r.id, b, func(reply func(history.End)) {
		p.inbound = append(p.inbound, &command{r, u.id, b, p.next, reply})
		p.next++
		if b.Door == history.DoorKafka {
			reply(history.End{Outcome: history.OutcomeAccepted})
			return
		}
		p.after(2000*ms, func() {
			if b.Call == history.CallSend {
				reply(history.End{Outcome: history.OutcomeAccepted})
			} else {
				reply(history.End{Outcome: history.OutcomeRefused, Code: chat.CodeTimeout, Retryable: true})
			}
		})
	}, func(e history.End) {
		if e.Outcome == history.OutcomeOK {
			u.told[r] = max(u.told[r], e.Seq)
			if b.Call == history.CallSend {
				r.asked[u.id] = append(r.asked[u.id], e.Seq)
			}
		}
		if e.Retryable || e.Outcome == history.OutcomeAccepted && p.rng.IntN(2) == 0 {
			p.after(p.between(100*ms, 2000*ms), func() {
				if u.who != 0 && b.Door != history.DoorKafka {
					p.command(u, r, b)
				}
			})
		}
	})
}

// number is ingest.
func (p *platform) number() {
	p.after(p.between(ms, 12*ms), p.number)
	if p.away["numbering"] || p.agenda.Len() < 3 {
		return
	}
	batch := p.inbound
	p.inbound = nil
	for _, c := range batch {
		p.decide(c)
	}
}

func (p *platform) reject(c *command, code chat.Code, first int64) {
	p.refused = append(p.refused, history.Record{Conversation: c.room.id, Rejected: &history.Rejected{
		Sender: c.sender, ClientMsgID: c.begin.ClientMsgID, Code: code, FirstSeq: first, InboundOffset: c.inbound,
	}})
	if code != chat.CodeDuplicate {
		c.reply(history.End{Outcome: history.OutcomeRefused, Code: code})
	}
}

func (p *platform) decide(c *command) {
	r, b := c.room, &c.begin
	if e := r.byKey[fmt.Sprint(c.sender, b.ClientMsgID)]; e != nil {
		if e.Body != b.Body || e.TargetSeq != b.TargetSeq || (e.Kind == chat.KindMessage) != (b.Call == history.CallSend) {
			p.reject(c, chat.CodeConflict, e.Seq)
			return
		}
		p.reject(c, chat.CodeDuplicate, e.Seq)
		p.tell(e, c, true)
		return
	}
	e := &entry{Event: history.Event{
		Source: history.SourceLog, Seq: int64(len(r.log)) + 1, MessageID: p.ids, Sender: c.sender, ClientMsgID: b.ClientMsgID,
		Body: b.Body, TargetSeq: b.TargetSeq, Recipients: b.Recipients, InboundOffset: &c.inbound,
	}}
	if others := slices.DeleteFunc(slices.Clone(b.Recipients), func(u chat.UserID) bool { return u == c.sender }); len(others) > 0 {
		e.Recipients = others
	}
	if !r.members[c.sender] && b.Call != history.CallCreate {
		p.reject(c, chat.CodeNotAMember, 0)
		return
	}
	switch b.Call {
	case history.CallSend:
		e.Kind = chat.KindMessage
		if slices.ContainsFunc(b.Recipients, func(u chat.UserID) bool { return !r.members[u] }) {
			p.reject(c, chat.CodeRecipient, 0)
			return
		}
	case history.CallEdit, history.CallRecall:
		e.Kind = map[history.Call]chat.Kind{history.CallEdit: chat.KindEdit, history.CallRecall: chat.KindRecall}[b.Call]
		if r.recalled(b.TargetSeq, never) {
			p.reject(c, chat.CodeRecalled, 0)
			return
		}
	case history.CallCreate:
		hidden := r.id.A == 7
		visible := !hidden
		e.Kind, e.Users, e.HistoryVisible = chat.KindCreate, b.Users, &visible
		r.members[c.sender] = true
	case history.CallJoin, history.CallLeave:
		e.Kind, e.Users = chat.KindJoin, b.Users
		if b.Call == history.CallLeave {
			e.Kind = chat.KindLeave
		}
		if r.members[b.Users[0]] == (b.Call == history.CallJoin) {
			p.reject(c, chat.CodeNothingToDo, 0)
			return
		}
	}
	for _, u := range e.Users {
		r.members[u] = b.Call != history.CallLeave
	}
	p.ids += 3
	p.offset += p.between(1, 3)
	e.Offset, e.at = p.offset, never
	r.log = append(r.log, e)
	r.byKey[fmt.Sprint(c.sender, b.ClientMsgID)] = e
	p.tell(e, c, false)
}

// tell answers a message when it is numbered, everything else when it is applied.
func (p *platform) tell(e *entry, c *command, duplicate bool) {
	end := history.End{Outcome: history.OutcomeOK, Seq: e.Seq, MessageID: e.MessageID, Duplicate: duplicate}
	if e.Kind == chat.KindMessage || e.at != never {
		c.reply(end)
		return
	}
	e.waiters = append(e.waiters, func(history.End) { c.reply(end) })
}

// store is the timeline's writer, and the pusher behind it.
func (p *platform) store() {
	p.after(p.between(2*ms, 30*ms), p.store)
	if p.away["store"] {
		return
	}
	for _, r := range p.rooms {
		for r.applied < len(r.log) {
			e := r.log[r.applied]
			e.at = p.now
			r.applied++
			for _, u := range e.Users {
				if e.Kind != chat.KindLeave {
					r.raise(u, p.now, e.Seq)
				}
			}
			if e.Kind == chat.KindMessage || e.Kind == chat.KindCreate {
				r.raise(e.Sender, p.now, e.Seq)
			}
			for _, w := range e.waiters {
				w(history.End{})
			}
		}
		for _, u := range p.people {
			conn, n := u.who, int64(r.applied)
			if conn == 0 || n == 0 || !r.members[u.id] || p.away["connections"] {
				continue
			}
			p.after(p.between(ms/10, 80*ms), func() {
				if u.who == conn && u.hinted[r] < n {
					u.hinted[r] = n
					u.told[r] = max(u.told[r], n)
					p.write(history.Record{Client: u.id, Conn: conn, Conversation: r.id, Hint: &history.Hint{Seq: n}})
				}
			})
		}
	}
	if p.closing && len(p.agenda) < 3 {
		p.agenda = nil
	}
}

func (r *room) raise(u chat.UserID, at, seq int64) {
	if r.mark(u, at) < seq {
		r.marks[u] = append(r.marks[u], step{at, seq})
	}
}

func (r *room) mark(u chat.UserID, at int64) (seq int64) {
	for _, s := range r.marks[u] {
		if s.at <= at {
			seq = max(seq, s.seq)
		}
	}
	return seq
}

func (r *room) recalled(seq, at int64) bool {
	return slices.ContainsFunc(r.log, func(e *entry) bool {
		return e.Kind == chat.KindRecall && e.TargetSeq == seq && e.at <= at
	})
}
