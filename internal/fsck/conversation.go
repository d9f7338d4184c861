package fsck

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// scan is one look at one conversation.
type scan struct {
	*Checker
	f    *found
	id   chat.ConversationID
	head timeline.Conversation // as it was before the rows were read

	highest int64 // ms: sent_at of the rows so far
	ordinal int64 // of the last row; only where it is known
	known   bool
	holes   bool  // a number up to the head has no row
	changes int64 // that rows say have reached them
	aiming  int64 // edits and recalls
	// Edits that their target does not carry (yet): a later edit may have come over them. By target, the last edit.
	unseen map[int64]int64
	spoke  map[chat.UserID]int64 // the last number of everybody who said something
	// The highest numbers that corrections have to reach.
	recalled, addressed, mentioned int64
}

// conversation looks at everything that the store has of a conversation.
func (c *Checker) conversation(ctx context.Context, id chat.ConversationID, f *found) error {
	first, last, err := c.store.Ends(ctx, id)
	if err != nil {
		return err
	}
	head, err := c.headOf(ctx, id)
	if err != nil {
		return err
	}
	f.count(checkHome, 1)
	if home := chat.Partition(id.String(), int32(c.options.Partitions)); head.Partition != home {
		f.breach(checkHome, inConversation(id), "the head says partition %d, its key belongs in %d", head.Partition, home)
	}
	if first < 1 && last != 0 {
		f.breach(checkRows, atSeq(id, first), "there is a row with this number")
	}
	if last > head.MaxSeq {
		f.breach(checkRows, atSeq(id, last), "there is a row behind max_seq, which is %d", head.MaxSeq)
	}
	s := &scan{Checker: c, f: f, id: id, head: head, known: true, unseen: map[int64]int64{}, spoke: map[chat.UserID]int64{}}
	for from := int64(1); from <= head.MaxSeq; from += pageRows {
		if err := s.page(ctx, from, min(from+pageRows-1, head.MaxSeq)); err != nil {
			return err
		}
	}
	for target, edit := range s.unseen {
		f.breach(checkTargets, atSeq(id, edit), "the edit aims at number %d, which does not carry it", target)
	}
	f.count(checkTimes, 1)
	if head.HighAt != s.highest && !s.holes {
		f.breach(checkTimes, inConversation(id), "the highest time of the head is %d, of the rows %d", head.HighAt, s.highest)
	}
	if s.known && head.Ordinal != s.ordinal {
		f.breach(checkOrdinals, inConversation(id), "the head's ordinal is %d, that of the last row %d", head.Ordinal, s.ordinal)
	}
	now, err := c.headOf(ctx, id)
	if err != nil {
		return err
	}
	if err := s.whole(ctx, now); err != nil {
		return err
	}
	if err := s.clientIDs(ctx); err != nil {
		return err
	}
	return s.members(ctx)
}

func (c *Checker) headOf(ctx context.Context, id chat.ConversationID) (timeline.Conversation, error) {
	heads, err := c.store.Conversations(ctx, []chat.ConversationID{id})
	if err != nil || len(heads) == 0 {
		return timeline.Conversation{ID: id}, err
	}
	return heads[0], nil
}

// page looks at the rows of a range.
func (s *scan) page(ctx context.Context, first, last int64) error {
	rows, err := s.store.Rows(ctx, s.id, first, last)
	if err != nil {
		return err
	}
	listed, err := s.store.RecalledIn(ctx, s.id, first, last)
	if err != nil {
		return err
	}
	highs, err := s.store.HighTimes(ctx, s.id, first, last)
	if err != nil {
		return err
	}
	inTable := make(map[int64]bool, len(listed))
	for _, n := range listed {
		inTable[n] = true
	}
	s.f.count(checkRows, len(rows))
	s.f.count(checkOrdinals, len(rows))
	s.f.count(checkTimes, len(rows))
	s.f.count(checkRecalled, len(rows))
	s.f.count(checkContent, len(rows))
	s.f.count(checkCorrections, len(rows))
	next := first
	for i := range rows {
		r := &rows[i]
		s.missing(next, r.Seq-1)
		switch {
		case r.Seq < next:
			s.f.breach(checkRows, atSeq(s.id, r.Seq), "the number stands there twice")
		default:
			s.time(r, highs)
			s.row(r, inTable)
		}
		next = r.Seq + 1
	}
	s.missing(next, last)
	for n := range inTable {
		s.f.breach(checkCorrections, Place{Table: "recalled", Conversation: s.id.String(), Seq: n}, "it is noted as recalled, and the row is none of a message that was")
	}
	if err := s.targets(ctx, rows); err != nil {
		return err
	}
	if err := s.joined(ctx, rows); err != nil {
		return err
	}
	return s.meantBy(ctx, rows)
}

// missing notes the numbers of a range that have no row, but for those whose event is parked.
func (s *scan) missing(first, last int64) {
	for n := first; n <= last; n++ {
		s.known, s.holes = false, true // what it counted for is not known
		if s.parked[sqlstore.Place{Conversation: s.id, Seq: n}] {
			continue
		}
		run := n
		for run < last && !s.parked[sqlstore.Place{Conversation: s.id, Seq: run + 1}] {
			run++
		}
		if run == n {
			s.f.breach(checkRows, atSeq(s.id, n), "it has no row")
		} else {
			s.f.breach(checkRows, atSeq(s.id, n), "it has no row, nor have the others up to %d", run)
		}
		n = run
	}
}

// time compares the highest time up to a row with what the row says: its own time, or the one in highs.
func (s *scan) time(r *timeline.Row, highs map[int64]int64) {
	s.highest = max(s.highest, r.SentAt)
	said, apart := highs[r.Seq]
	if !apart {
		said = r.SentAt
	}
	if said != s.highest && !s.holes {
		s.f.breach(checkTimes, atSeq(s.id, r.Seq), "the highest time up to it is %d, the row says %d", s.highest, said)
	}
}

// row looks at what a row says by itself and after the one before it. Numbers that are rightly noted as recalled are
// taken out of inTable.
func (s *scan) row(r *timeline.Row, inTable map[int64]bool) {
	message, recalled := r.Kind == chat.KindMessage, r.RecalledAt > 0
	at := atSeq(s.id, r.Seq)
	step := r.Ordinal - s.ordinal
	counted := message && len(r.Recipients) == 0 // of a tombstone nobody knows, because its recipients are gone
	switch {
	case !s.known && step < 0, s.known && r.Tombstone && (step < 0 || step > 1), s.known && !r.Tombstone && step != one(counted):
		s.f.breach(checkOrdinals, at, "its ordinal is %d after %d", r.Ordinal, s.ordinal)
	}
	if r.Tombstone {
		counted = message && s.known && step == 1
	}

	if recalled && (r.Content != nil || r.Mentions != nil) {
		s.f.breach(checkRecalled, at, "it was recalled, and content or mentions are still there")
	}
	if !r.Readable() {
		s.f.breach(checkContent, at, "readers see a void: %v", chat.CheckContent("content", r.Content))
	}
	if recalled && !message {
		s.f.breach(checkRecalled, at, "a %s was recalled", r.Kind)
	}
	if !recalled && !r.Tombstone && r.Kind.IsShown() && r.Content == nil {
		s.f.breach(checkRecalled, at, "its content is gone, and it was not recalled")
	}

	want := counted && (recalled || r.Tombstone)
	if r.Tombstone && !s.known {
		want = inTable[r.Seq]
	}
	if want && !inTable[r.Seq] {
		s.f.breach(checkCorrections, Place{Table: "recalled", Conversation: s.id.String(), Seq: r.Seq}, "it was recalled, and is not noted")
	}
	if want {
		delete(inTable, r.Seq)
	}
	s.ordinal, s.known = r.Ordinal, true

	if message && !r.Tombstone {
		s.spoke[r.Sender] = r.Seq
		if len(r.Recipients) > 0 {
			s.addressed = r.Seq
		}
		if r.Mentions != nil {
			s.mentioned = r.Seq
		}
	}
	if recalled {
		s.recalled = r.Seq
	}
	if r.ClientMsgID == "" && !r.Tombstone {
		s.f.breach(checkClientIDs, at, "it has no client id, and is no tombstone")
	}
	s.changes += int64(r.Changes)
	if r.Kind.HasTarget() { // tombstones have done what they did
		s.aiming++
	}
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// targets looks at what edits and recalls of a page aim at, and at what tombstones point at.
func (s *scan) targets(ctx context.Context, rows []timeline.Row) error {
	var places []sqlstore.Place
	for i := range rows {
		if r := &rows[i]; r.Kind.HasTarget() || r.Tombstone {
			places = append(places, sqlstore.Place{Conversation: s.id, Seq: r.TargetSeq})
		}
	}
	there, err := s.store.RowsAt(ctx, places)
	if err != nil {
		return err
	}
	for i := range rows {
		r := &rows[i]
		target, found := there[sqlstore.Place{Conversation: s.id, Seq: r.TargetSeq}]
		at := atSeq(s.id, r.Seq)
		switch {
		case r.Tombstone:
			s.f.count(checkClientIDs, 1)
			if !found || r.TargetSeq >= r.Seq || target.Tombstone || target.Sender != r.Sender {
				s.f.breach(checkClientIDs, at, "the tombstone points at %d, which is no first one of its sender", r.TargetSeq)
			}
		case !r.Kind.HasTarget():
		case s.parked[sqlstore.Place{Conversation: s.id, Seq: r.TargetSeq}]:
			s.aiming-- // it has reached nothing
		default:
			s.f.count(checkTargets, 1)
			switch {
			case !found || target.Kind != chat.KindMessage || r.TargetSeq >= r.Seq:
				s.f.breach(checkTargets, at, "the %s aims at %d, which is no message before it", r.Kind, r.TargetSeq)
			case r.Kind == chat.KindRecall && (target.RecalledAt != r.SentAt || target.RecalledBy != r.Sender):
				s.f.breach(checkTargets, at, "the recall aims at number %d, which does not carry it", r.TargetSeq)
			case r.Kind == chat.KindEdit && target.RecalledAt == 0 && target.EditedAt != r.SentAt:
				s.unseen[r.TargetSeq] = r.Seq
			case r.Kind == chat.KindEdit:
				delete(s.unseen, r.TargetSeq)
			}
		}
	}
	return nil
}

// whole looks at what is true of all rows together. The head is as it is now: it bounds what was read before.
func (s *scan) whole(ctx context.Context, now timeline.Conversation) error {
	for _, v := range []struct {
		what      string
		head, row int64
	}{
		{"max_recalled_seq", now.MaxRecalledSeq, s.recalled}, {"max_addressed_seq", now.MaxAddressedSeq, s.addressed}, {"max_mention_seq", now.MaxMentionSeq, s.mentioned},
	} {
		if v.head < v.row {
			s.f.breach(checkCorrections, inConversation(s.id), "%s is %d, and there is such a row at %d", v.what, v.head, v.row)
		}
	}
	stray, err := s.store.RecalledIn(ctx, s.id, now.MaxSeq+1, 1<<62)
	if err != nil {
		return err
	}
	for _, n := range stray {
		s.f.breach(checkCorrections, Place{Table: "recalled", Conversation: s.id.String(), Seq: n}, "it is noted as recalled, and there is no such number")
	}
	// Rows that were read early may have been changed since by events that were not there yet.
	aiming := s.aiming
	for from := s.head.MaxSeq + 1; from <= now.MaxSeq; from += pageRows {
		rows, err := s.store.Rows(ctx, s.id, from, min(from+pageRows-1, now.MaxSeq))
		if err != nil {
			return err
		}
		for i := range rows {
			aiming += one(rows[i].Kind.HasTarget())
		}
	}
	if s.changes > aiming {
		s.f.breach(checkTargets, inConversation(s.id), "rows were changed %d times, and there are %d edits and recalls", s.changes, aiming)
	}
	return nil
}

// clientIDs walks the index, so that twins stand beside each other.
func (s *scan) clientIDs(ctx context.Context) error {
	var last sqlstore.ClientID
	for {
		page, err := s.store.ClientIDsFrom(ctx, s.id, last, pageRows)
		if err != nil {
			return err
		}
		full := len(page) == pageRows
		if len(page) > 0 && page[0] == last {
			page = page[1:]
		}
		for _, v := range page {
			s.f.count(checkClientIDs, 1)
			if v.ID == last.ID && v.Sender == last.Sender && v.Seq != last.Seq {
				s.f.breach(checkClientIDs, atSeq(s.id, max(v.Seq, last.Seq)), "its client id %q of user %s is that of %d", v.ID, v.Sender, min(v.Seq, last.Seq))
			}
			last = v
		}
		if !full || len(page) == 0 {
			return nil
		}
	}
}

// noticed gives the users that a notice of the store names.
func noticed(r *timeline.Row) []chat.UserID {
	var n timeline.Notice
	if r.Content == nil || json.NewDecoder(bytes.NewReader(r.Content)).Decode(&n) != nil {
		return nil
	}
	if r.Kind == chat.KindCreate {
		return append(slices.Clone(n.UserIDs), r.Sender)
	}
	return n.UserIDs
}
