package fsck

import (
	"context"
	"slices"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// membersPage is smaller than a page of rows: each member may name two events of its own.
const membersPage = 200

// joined looks whether everybody whom the events of a page put in or out has a membership that knows of it.
func (s *scan) joined(ctx context.Context, rows []timeline.Row) error {
	since := map[chat.UserID]int64{}
	for i := range rows {
		r := &rows[i]
		switch r.Kind {
		case chat.KindCreate, chat.KindJoin, chat.KindLeave:
			for _, u := range noticed(r) {
				since[u] = r.Seq
			}
		}
		if low, high, private := s.id.Peers(); private && r.Seq == 1 {
			since[low], since[high] = 1, 1
		}
	}
	keys := make([]timeline.MemberKey, 0, len(since))
	for u := range since {
		keys = append(keys, timeline.MemberKey{Conversation: s.id, User: u})
	}
	list, err := s.store.Members(ctx, keys)
	if err != nil {
		return err
	}
	s.f.count(checkMembers, len(keys))
	there := make(map[chat.UserID]*timeline.Member, len(list))
	for i := range list {
		there[list[i].User] = &list[i]
	}
	for u, seq := range since {
		switch m := there[u]; {
		case m == nil:
			s.f.breach(checkMembers, ofMember(s.id, u), "number %d names the user, who has no row", seq)
		case m.ChangedSeq < seq:
			s.f.breach(checkMembers, ofMember(s.id, u), "number %d changed the membership, which stands at %d", seq, m.ChangedSeq)
		}
	}
	return nil
}

// members looks at every membership. The rows of the timeline were read before, so that whoever spoke there has a mark
// that is at least as far.
func (s *scan) members(ctx context.Context) error {
	counted, present, err := s.store.CountMembers(ctx, s.id)
	if err != nil {
		return err
	}
	s.f.count(checkMembers, 1)
	if counted != present {
		s.f.breach(checkMembers, inConversation(s.id), "the head counts %d members, %d are in", counted, present)
	}
	after := chat.UserID(0)
	for {
		page, err := s.store.MembersAfter(ctx, s.id, after, membersPage)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := s.membersOf(ctx, page); err != nil {
			return err
		}
		if len(page) < membersPage {
			return nil
		}
		after = page[len(page)-1].User
	}
}

func (s *scan) membersOf(ctx context.Context, page []timeline.Member) error {
	head, err := s.headOf(ctx, s.id)
	if err != nil {
		return err
	}
	var events []sqlstore.Place
	var marks []int64
	for i := range page {
		m := &page[i]
		for _, n := range []int64{m.JoinSeq, m.LeftSeq} {
			if n > 0 {
				events = append(events, sqlstore.Place{Conversation: s.id, Seq: n})
			}
		}
		if m.ReadSeq > 0 {
			marks = append(marks, m.ReadSeq)
		}
	}
	slices.SortFunc(events, func(a, b sqlstore.Place) int { return int(a.Seq - b.Seq) })
	there, err := s.store.RowsAt(ctx, slices.Compact(events))
	if err != nil {
		return err
	}
	slices.Sort(marks)
	ordinals, err := s.store.OrdinalsAt(ctx, s.id, slices.Compact(marks))
	if err != nil {
		return err
	}
	named := map[int64]map[chat.UserID]bool{}
	names := func(n int64, u chat.UserID, kinds ...chat.Kind) bool {
		r, found := there[sqlstore.Place{Conversation: s.id, Seq: n}]
		if !found || !slices.Contains(kinds, r.Kind) {
			return false
		}
		if r.Tombstone { // it has done what it did, and its content is gone
			return true
		}
		if named[n] == nil {
			named[n] = map[chat.UserID]bool{}
			for _, u := range noticed(&r) {
				named[n][u] = true
			}
		}
		return named[n][u]
	}
	s.f.count(checkMembers, len(page))
	s.f.count(checkMarks, len(page))
	for i := range page {
		m := &page[i]
		at := ofMember(s.id, m.User)
		private := s.id.Kind == chat.KindPrivate
		switch {
		case private && (m.JoinSeq != 0 || !s.id.HasPeer(m.User)):
			s.f.breach(checkMembers, at, "a private conversation has this member, since number %d", m.JoinSeq)
		case !private && !names(m.JoinSeq, m.User, chat.KindCreate, chat.KindJoin):
			s.f.breach(checkMembers, at, "join_seq is %d, which is no join of this user", m.JoinSeq)
		case m.LeftSeq > 0 && (m.LeftSeq <= m.JoinSeq || !names(m.LeftSeq, m.User, chat.KindLeave)):
			s.f.breach(checkMembers, at, "left_seq is %d, which is no leave of this user after number %d", m.LeftSeq, m.JoinSeq)
		case m.ChangedSeq < max(m.JoinSeq, m.LeftSeq) || m.ChangedSeq > head.MaxSeq:
			s.f.breach(checkMembers, at, "changed_seq is %d: joined at %d, left at %d, and the conversation ends at %d", m.ChangedSeq, m.JoinSeq, m.LeftSeq, head.MaxSeq)
		}
		ordinal, known := ordinals[m.ReadSeq]
		switch {
		case m.ReadSeq > head.MaxSeq:
			s.f.breach(checkMarks, at, "read_seq is %d, and the conversation ends at %d", m.ReadSeq, head.MaxSeq)
		case m.ReadSeq < m.JoinSeq:
			s.f.breach(checkMarks, at, "read_seq is %d, before the join at %d", m.ReadSeq, m.JoinSeq)
		case m.ReadSeq < s.spoke[m.User]:
			s.f.breach(checkMarks, at, "read_seq is %d, and the user said number %d", m.ReadSeq, s.spoke[m.User])
		case known && m.ReadOrdinal != ordinal, m.ReadSeq == 0 && m.ReadOrdinal != 0:
			s.f.breach(checkMarks, at, "read_ordinal is %d, and the ordinal at number %d is %d", m.ReadOrdinal, m.ReadSeq, ordinal)
		}
	}
	return nil
}
