package handlers

import (
	"context"
	"slices"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// summary is a conversation as one of its members sees it.
type summary struct {
	c      timeline.Conversation
	m      timeline.Member
	mark   timeline.Mark
	unread int64
	meant  int64
}

// summaries gives the conversations of a user with exact unread counts, in no order.
func (s *Service) summaries(ctx context.Context, u chat.UserID, past bool) ([]summary, error) {
	fast, ready, err := s.marks.OfUser(ctx, u)
	if err != nil {
		ready = false // the store knows
	}
	// The store is read after the marks: what a mark passes is then in what is read.
	list, err := s.store.Memberships(ctx, u, past)
	if err != nil {
		return nil, err
	}
	s.views.sawAll(list)
	out := make([]summary, len(list))
	for i := range list {
		m := &list[i].Member
		out[i] = summary{c: list[i].Conversation, m: *m, mark: timeline.Mark{Seq: m.ReadSeq, Ordinal: m.ReadOrdinal}}
		if f, there := fast[m.Conversation]; ready && there && f.Seq > m.ReadSeq && m.Present() {
			out[i].mark = f
		}
		if m.Present() {
			out[i].mark = s.raised.atLeast(out[i].mark, m.Conversation, u, out[i].c.MaxSeq)
		}
	}
	return out, s.count(ctx, u, out)
}

// count computes what is unread.
func (s *Service) count(ctx context.Context, u chat.UserID, list []summary) error {
	at := make([]timeline.MarkAt, 0, len(list))
	for i := range list {
		if list[i].m.Present() {
			at = append(at, timeline.MarkAt{Conversation: &list[i].c, Seq: list[i].mark.Seq})
		}
	}
	corrections, err := s.store.Corrections(ctx, u, at)
	if err != nil {
		return err
	}
	for i := range list {
		v := &list[i]
		if v.m.Present() {
			correction := corrections[v.c.ID]
			v.unread, v.meant = timeline.Unread(v.c.Ordinal, v.mark.Ordinal, correction), correction.Mentions
		}
	}
	return nil
}

// Conversation is a conversation as one of its members sees it.
type Conversation struct {
	ID          chat.ConversationID `json:"conversation_id"`
	Type        string              `json:"type"`
	Name        string              `json:"name"`
	AvatarURL   string              `json:"avatar_url,omitempty"`
	Peer        chat.UserID         `json:"peer_id,omitempty"`
	MaxSeq      int64               `json:"max_seq"`
	MinSeq      int64               `json:"min_seq"`
	ReadSeq     int64               `json:"read_seq"`
	PeerReadSeq *int64              `json:"peer_read_seq,omitempty"`
	Unread      int64               `json:"unread"`
	Mentions    int64               `json:"mentions"`
	MemberCount int                 `json:"member_count"`
	Role        chat.Role           `json:"role,omitempty"`
	MutedUntil  int64               `json:"muted_until,omitempty"`
	Dissolved   bool                `json:"dissolved,omitempty"`
	LastAt      int64               `json:"last_at"`
	Newest      []rawJSON           `json:"newest,omitempty"`
}

// shown gives summaries as their reader sees them. How far the others of private conversations have read is asked in one go.
func (s *Service) shown(ctx context.Context, u chat.UserID, list []placed) ([]Conversation, error) {
	out := make([]Conversation, len(list))
	var peers []timeline.MemberKey
	for i, v := range list {
		first, last := v.m.Visible(&v.c)
		out[i] = Conversation{
			ID: v.c.ID, Type: v.c.ID.Kind.Type(), Name: v.c.Name, AvatarURL: v.c.AvatarURL, MaxSeq: last, MinSeq: first, ReadSeq: v.mark.Seq,
			Unread: v.unread, Mentions: v.meant, MemberCount: v.c.MemberCount, Role: v.m.Role, MutedUntil: v.m.MutedUntil,
			Dissolved: v.c.DissolvedSeq > 0, LastAt: v.c.LastAt,
		}
		if low, high, private := v.c.ID.Peers(); private {
			out[i].Role = ""
			if out[i].Peer = low; low == u {
				out[i].Peer = high
			}
			peers = append(peers, timeline.MemberKey{Conversation: v.c.ID, User: out[i].Peer})
		}
	}
	if len(peers) == 0 {
		return out, nil
	}
	read, err := s.peerMarks(ctx, u, peers)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if seq, found := read[out[i].ID]; found {
			out[i].PeerReadSeq = &seq
		}
	}
	return out, nil
}

// fewPeers is up to how many marks of peers are asked by name; more come with those of all private conversations.
const fewPeers = 20

func (s *Service) peerMarks(ctx context.Context, u chat.UserID, peers []timeline.MemberKey) (map[chat.ConversationID]int64, error) {
	if len(peers) > fewPeers {
		return s.store.PeerMarks(ctx, u)
	}
	members, err := s.store.Members(ctx, peers)
	read := make(map[chat.ConversationID]int64, len(members))
	for i := range members {
		read[members[i].Conversation] = members[i].ReadSeq
	}
	return read, err
}

// Conversation gives one conversation to a member.
func (s *Service) Conversation(ctx context.Context, u chat.UserID, id chat.ConversationID) (Conversation, error) {
	c, m, err := s.seenBy(ctx, u, id)
	if err != nil {
		return Conversation{}, err
	}
	// The counts need the store's own rows; the remembered ones are for pulls.
	members, err := s.store.Members(ctx, []timeline.MemberKey{{Conversation: id, User: u}})
	if err != nil {
		return Conversation{}, err
	}
	head, found, err := s.views.head(ctx, id)
	if err != nil {
		return Conversation{}, err
	}
	if len(members) > 0 && found {
		c, m = head, members[0]
	}
	if !m.Present() {
		if c, err = s.asLeft(ctx, c, &m); err != nil {
			return Conversation{}, err
		}
	}
	list := []summary{{c: c, m: m, mark: timeline.Mark{Seq: m.ReadSeq, Ordinal: m.ReadOrdinal}}}
	v := &list[0]
	if fast, ready, err := s.marks.OfUser(ctx, u); err == nil && ready && fast[id].Seq > m.ReadSeq && m.Present() && fast[id].Seq <= c.MaxSeq {
		v.mark = fast[id]
	}
	if m.Present() {
		v.mark = s.raised.atLeast(v.mark, id, u, c.MaxSeq)
	}
	if err := s.count(ctx, u, list); err != nil {
		return Conversation{}, err
	}
	shown, err := s.shown(ctx, u, []placed{{summary: v}})
	if err != nil {
		return Conversation{}, err
	}
	return shown[0], nil
}

// asLeft gives the head of a conversation, and the membership, as they are for somebody who has left: what may still be read ends
// with the leave, and what became of the conversation since, its name among others, is not theirs to know.
func (s *Service) asLeft(ctx context.Context, c timeline.Conversation, m *timeline.Member) (timeline.Conversation, error) {
	rows, err := s.store.Rows(ctx, c.ID, m.LeftSeq, m.LeftSeq)
	if err != nil {
		return c, err
	}
	c.Name, c.AvatarURL, c.MemberCount, c.LastAt = "", "", 0, 0
	if len(rows) > 0 { // a leave that was parked has none
		c.LastAt = rows[0].SentAt
	}
	if c.DissolvedSeq > m.LeftSeq {
		c.DissolvedSeq = 0
	}
	m.Role, m.MutedUntil = "", 0
	return c, nil
}

// OpenPrivate gives the conversation with another person; it need not have a message yet.
func (s *Service) OpenPrivate(ctx context.Context, u, peer chat.UserID) (Conversation, error) {
	if peer == u || peer <= 0 {
		return Conversation{}, chat.RefuseField(chat.CodeInvalidField, "user_id", "is not another person")
	}
	if err := s.mustExist(ctx, "user_id", []chat.UserID{peer}); err != nil {
		return Conversation{}, err
	}
	id := chat.PrivateConversation(u, peer)
	v, err := s.Conversation(ctx, u, id)
	if chat.CodeOf(err) == chat.CodeConversationUnknown {
		return Conversation{ID: id, Type: id.Kind.Type(), Peer: peer, MinSeq: 1, MemberCount: 2}, nil
	}
	return v, err
}

// SyncRequest asks for the caller's conversations: all of them, or what moved since a cursor.
type SyncRequest struct {
	Cursor string `json:"cursor,omitempty"`
	Limit  int    `json:"limit,omitempty"`
	Newest int    `json:"newest,omitempty"` // how many of the newest messages of each are wanted
}

// SyncAnswer is a page of conversations. Its cursor goes into the next request, whether there is more or not.
type SyncAnswer struct {
	Conversations []Conversation        `json:"conversations"`
	Removed       []chat.ConversationID `json:"removed"`
	Users         map[string]rawJSON    `json:"users"`
	UnreadTotal   int64                 `json:"unread_total"`
	Cursor        string                `json:"cursor"`
	HasMore       bool                  `json:"has_more"`
}

// Limits of a sync.
const (
	defaultSync = 100
	maxSync     = 500
	maxNewest   = 20
	// maxSyncBytes of messages end a page: it has at most as much again from its last conversation, for which the limits of a
	// pull hold.
	maxSyncBytes = 1 << 20
)

// Sync gives a reconnecting client everything in one round trip.
func (s *Service) Sync(ctx context.Context, u chat.UserID, r SyncRequest) (SyncAnswer, error) {
	if r.Limit == 0 {
		r.Limit = defaultSync
	}
	if r.Limit < 1 || r.Limit > maxSync {
		return SyncAnswer{}, chat.RefuseField(chat.CodeInvalidField, "limit", "is not 1 to %d", maxSync)
	}
	if r.Newest < 0 || r.Newest > maxNewest {
		return SyncAnswer{}, chat.RefuseField(chat.CodeInvalidField, "newest", "is not 0 to %d", maxNewest)
	}
	var from syncCursor
	if r.Cursor != "" {
		var err error
		if from, err = parseSyncCursor(r.Cursor, s.kafka.Partitions); err != nil {
			return SyncAnswer{}, chat.RefuseField(chat.CodeInvalidField, "cursor", "is not one of ours")
		}
	}
	// Where the writers stand is read before the rows: what moves in between comes again, and nothing is missed.
	now, err := s.clock(ctx, u)
	if err != nil {
		return SyncAnswer{}, err
	}
	next := syncCursor{since: from.since, until: from.until}
	if !from.paging {
		next.until = now
	}
	all, err := s.summaries(ctx, u, true)
	if err != nil {
		return SyncAnswer{}, err
	}
	answer := SyncAnswer{Conversations: []Conversation{}, Removed: []chat.ConversationID{}}
	var moved []placed
	for i := range all {
		v := &all[i]
		answer.UnreadTotal += v.unread
		switch {
		case v.m.Present() && from.movedSince(v):
			moved = append(moved, placed{keyOf(v, from.since != nil), v})
		case !v.m.Present() && !from.paging && from.since != nil && v.m.ChangedOffset >= from.since.at(v.c.Partition):
			answer.Removed = append(answer.Removed, v.c.ID)
		}
	}
	// The order does not change while somebody pages: by id where only what moved is given; otherwise the newest first,
	// and what moves to the front meanwhile comes again as moved.
	slices.SortFunc(moved, func(a, b placed) int { return compareKeys(a.key, b.key) })
	start := 0
	if from.paging {
		start, _ = slices.BinarySearchFunc(moved, from.key, func(v placed, k pageKey) int {
			if compareKeys(v.key, k) <= 0 {
				return -1
			}
			return 1
		})
	}
	end := min(start+r.Limit, len(moved))
	if answer.Conversations, err = s.shown(ctx, u, moved[start:end]); err != nil {
		return SyncAnswer{}, err
	}
	senders := map[chat.UserID]bool{}
	bytes := 0
	for i := range answer.Conversations {
		v := &answer.Conversations[i]
		if v.Peer > 0 {
			senders[v.Peer] = true
		}
		if r.Newest == 0 {
			continue
		}
		if v.Newest, err = s.newest(ctx, u, moved[start+i].summary, r.Newest, senders); err != nil {
			return SyncAnswer{}, err
		}
		for _, entry := range v.Newest {
			bytes += len(entry)
		}
		if bytes >= maxSyncBytes { // the page ends here; there is always one conversation in it
			end = start + i + 1
			answer.Conversations = answer.Conversations[:i+1]
			break
		}
	}
	if answer.HasMore = end < len(moved); answer.HasMore {
		next.paging, next.key = true, moved[end-1].key
	} else {
		next = syncCursor{since: next.until}
	}
	answer.Cursor = next.encode()
	answer.Users, err = s.users(ctx, senders)
	return answer, err
}

func (s *Service) newest(ctx context.Context, u chat.UserID, v *summary, n int, senders map[chat.UserID]bool) ([]rawJSON, error) {
	p := newPage(s, v.c, u, n)
	defer p.free()
	p.first, p.last = v.m.Visible(&v.c)
	if err := p.backward(ctx, p.last); err != nil {
		return nil, err
	}
	var out []rawJSON
	for _, it := range p.items {
		if it.entry == nil {
			out = append(out, appendVoid(nil, it.from, it.to))
			continue
		}
		out = append(out, it.entry.JSON)
		senders[it.entry.Sender] = true
	}
	return out, nil
}
