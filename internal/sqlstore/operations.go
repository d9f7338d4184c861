package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// leases are the statements about machine numbers. All of them go by the database's clock: those of the processes may be
// hours apart, and one that is ahead must not take what another one holds.
type leases struct{ free, take, fresh, renew string }

func (d *dialect) leases() leases {
	return leases{
		free:  "SELECT machine_id FROM machine_leases WHERE expires_at < " + d.now + " - ? ORDER BY expires_at LIMIT 1",
		take:  "UPDATE machine_leases SET holder = ?, expires_at = " + d.now + " + ? WHERE machine_id = ? AND expires_at < " + d.now + " - ?",
		fresh: "INSERT INTO machine_leases (machine_id, holder, expires_at) VALUES (?, ?, " + d.now + " + ?)",
		renew: "UPDATE machine_leases SET expires_at = " + d.greatest + "(" + d.now + ", ?) + ? WHERE machine_id = ? AND holder = ?",
	}
}

// LeaseMachine gives a machine number to a holder for some time: one that nobody had, or the one whose lease ended longest
// ago, if that was longer ago than rest. It tries until no other holder is faster. The time (ms) at which the lease ends is
// the database's.
func (s *Store) LeaseMachine(ctx context.Context, holder string, lease, rest time.Duration, limit int) (machine int, until int64, err error) {
	text := s.dialect.leases()
	for range 20 {
		var next, free int
		free = -1
		err := s.query(ctx, "looking for a machine number", "SELECT COALESCE(MAX(machine_id) + 1, 0) FROM machine_leases", nil, func(r *sql.Rows) error { return r.Scan(&next) })
		if err != nil {
			return 0, 0, err
		}
		err = s.query(ctx, "looking for a free machine number", text.free, []any{rest.Milliseconds()}, func(r *sql.Rows) error { return r.Scan(&free) })
		if err != nil {
			return 0, 0, err
		}
		if free >= 0 {
			r, err := s.exec(ctx, "leasing a machine number", text.take, holder, lease.Milliseconds(), free, rest.Milliseconds())
			if err != nil {
				return 0, 0, err
			}
			if n, err := r.RowsAffected(); err != nil || n != 1 {
				continue
			}
			next = free
		} else {
			if next >= limit {
				return 0, 0, fmt.Errorf("leasing a machine number: all %d are taken", limit)
			}
			if _, err = s.exec(ctx, "leasing a machine number", text.fresh, next, holder, lease.Milliseconds()); s.dialect.duplicate(err) {
				continue
			}
			if err != nil {
				return 0, 0, err
			}
		}
		until, ours, err := s.leaseEnd(ctx, next, holder)
		if err != nil || ours {
			return next, until, err
		}
	}
	return 0, 0, fmt.Errorf("leasing a machine number: others were always faster")
}

// RenewMachine extends a lease that is still the holder's, from now on or from the time (ms) up to which it has been used
// where the database's clock was set back behind that; ours is false where it is somebody else's.
func (s *Store) RenewMachine(ctx context.Context, machine int, holder string, lease time.Duration, used int64) (until int64, ours bool, err error) {
	r, err := s.exec(ctx, "renewing a machine number", s.dialect.leases().renew, used, lease.Milliseconds(), machine, holder)
	if err != nil {
		return 0, false, err
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return 0, false, err
	}
	return s.leaseEnd(ctx, machine, holder)
}

func (s *Store) leaseEnd(ctx context.Context, machine int, holder string) (until int64, ours bool, err error) {
	err = s.query(ctx, "reading the lease of a machine number", "SELECT expires_at FROM machine_leases WHERE machine_id = ? AND holder = ?", []any{machine, holder},
		func(r *sql.Rows) error { ours = true; return r.Scan(&until) })
	return until, ours, err
}

// Parked is a record that a store could never take, or of a kind that no process knew that came to it.
type Parked struct {
	Topic     string
	Partition int32
	Offset    int64
	Reason    string
	Key       []byte // nil is kept apart from empty
	Record    []byte // the same
	ParkedAt  int64
	// Conversation and Seq are what the record says of itself inside or outside its value, or zero.
	Conversation chat.ConversationID
	Seq          int64
	// Kind is the kind that was not known, or 0: the record is parked for another reason.
	Kind chat.Kind
}

const parkedColumns = "topic, partition_id, record_offset, reason, record_key, record, parked_at, conversation_id, seq, kind"

// Park keeps a record and its reason; parking it again changes nothing.
func (s *Store) Park(ctx context.Context, p Parked) error {
	var key, record, conversation any // NULL where there is none
	if p.Key != nil {
		key = p.Key
	}
	if p.Record != nil {
		record = p.Record
	}
	if !p.Conversation.IsZero() {
		conversation = p.Conversation.Bytes()
	}
	_, err := s.exec(ctx, "parking a record", "INSERT INTO parked ("+parkedColumns+") VALUES "+rowsOf(1, 10),
		p.Topic, p.Partition, p.Offset, cut(strings.ToValidUTF8(p.Reason, "\uFFFD"), 1024), key, record, p.ParkedAt, conversation, p.Seq, int(p.Kind))
	if s.dialect.duplicate(err) {
		return nil
	}
	return err
}

// ListParked gives parked records in the order of their places, beginning after one.
func (s *Store) ListParked(ctx context.Context, topic string, afterPartition int32, afterOffset int64, limit int) ([]Parked, error) {
	return s.listParked(ctx,
		"topic = ? AND (partition_id > ? OR (partition_id = ? AND record_offset > ?)) ORDER BY partition_id, record_offset LIMIT ?",
		topic, afterPartition, afterPartition, afterOffset, limit)
}

// UnknownKinds lists the records of a partition of im.messages that are parked because their kind was not known, in the order
// of their offsets, beginning after one. The primary key.
func (s *Store) UnknownKinds(ctx context.Context, partition int32, afterOffset int64, limit int) ([]Parked, error) {
	return s.listParked(ctx, "topic = 'im.messages' AND partition_id = ? AND record_offset > ? AND kind <> 0 ORDER BY record_offset LIMIT ?", partition, afterOffset, limit)
}

func (s *Store) listParked(ctx context.Context, where string, args ...any) ([]Parked, error) {
	var out []Parked
	err := s.query(ctx, "listing parked records", "SELECT "+parkedColumns+", record_key IS NULL, record IS NULL FROM parked WHERE "+where, args, func(r *sql.Rows) error {
		var p Parked
		var conversation []byte
		var noKey, noRecord bool
		err := r.Scan(&p.Topic, &p.Partition, &p.Offset, &p.Reason, &p.Key, &p.Record, &p.ParkedAt, &conversation, &p.Seq, &p.Kind, &noKey, &noRecord)
		if !noKey && p.Key == nil { // drivers differ in what they make of what is empty
			p.Key = []byte{}
		}
		if !noRecord && p.Record == nil {
			p.Record = []byte{}
		}
		if err == nil && conversation != nil {
			p.Conversation, err = chat.ConversationIDFromBytes(conversation)
		}
		out = append(out, p)
		return err
	})
	return out, err
}

// Unpark removes a parked record once it was put back.
func (s *Store) Unpark(ctx context.Context, topic string, partition int32, offset int64) error {
	_, err := s.exec(ctx, "removing a parked record", "DELETE FROM parked WHERE topic = ? AND partition_id = ? AND record_offset = ?", topic, partition, offset)
	return err
}

// ArchivePosition is how far the archive of one partition of a topic has come. Where IntentTo is above Next, a block with
// exactly the records Next up to IntentTo (which does not belong to it) may be there or not: it is inserted again.
type ArchivePosition struct {
	Topic     string
	Partition int32
	Next      int64
	IntentTo  int64
	Version   int64 // changes with every move: the compare-and-set
}

// ArchivePosition gives the position of the archive of a partition; the zero one where nothing was archived.
func (s *Store) ArchivePosition(ctx context.Context, topic string, partition int32) (ArchivePosition, error) {
	p := ArchivePosition{Topic: topic, Partition: partition}
	err := s.query(ctx, "reading the archive's position", "SELECT next_offset, intent_to, version FROM archive_positions WHERE topic = ? AND partition_id = ?", []any{topic, partition},
		func(r *sql.Rows) error { return r.Scan(&p.Next, &p.IntentTo, &p.Version) })
	return p, err
}

// MoveArchive replaces a position by compare-and-set on its version, and gives the new one; timeline.ErrFenced where
// another archiver has moved it.
func (s *Store) MoveArchive(ctx context.Context, old ArchivePosition, next, intentTo int64) (ArchivePosition, error) {
	fresh := old
	fresh.Next, fresh.IntentTo, fresh.Version = next, intentTo, old.Version+1
	r, err := s.exec(ctx, "moving the archive's position", "UPDATE archive_positions SET next_offset = ?, intent_to = ?, version = ? WHERE topic = ? AND partition_id = ? AND version = ?",
		next, intentTo, fresh.Version, old.Topic, old.Partition, old.Version)
	if err != nil {
		return old, err
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return fresh, err
	}
	if old.Version != 0 {
		return old, timeline.ErrFenced
	}
	_, err = s.exec(ctx, "making the archive's position", "INSERT INTO archive_positions (topic, partition_id, next_offset, intent_to, version) VALUES (?, ?, ?, ?, ?)",
		old.Topic, old.Partition, next, intentTo, fresh.Version)
	if s.dialect.duplicate(err) {
		return old, timeline.ErrFenced
	}
	return fresh, err
}

// PartitionEvents counts the numbers that were given in a partition of im.messages, less the parked records, which may be
// missing elsewhere for the same reason. It reads all conversations: it is for a start, not for a request.
func (s *Store) PartitionEvents(ctx context.Context, topic string, partition int32) (int64, error) {
	var events, parked int64
	err := s.query(ctx, "counting the events of a partition", "SELECT COALESCE(SUM(max_seq), 0) FROM conversations WHERE partition_id = ?", []any{partition},
		func(r *sql.Rows) error { return r.Scan(&events) })
	if err == nil {
		err = s.query(ctx, "counting parked records", "SELECT COUNT(*) FROM parked WHERE topic = ? AND partition_id = ?", []any{topic, partition},
			func(r *sql.Rows) error { return r.Scan(&parked) })
	}
	return max(0, events-parked), err
}

// StoredMark is the last read mark of a member, and where in im.receipts it came from.
type StoredMark struct {
	timeline.MemberKey
	Seq, Offset int64
}

// StoredMarks lists the marks that came by im.receipts in the order of the primary key, beginning after one; the zero key for
// the first page.
func (s *Store) StoredMarks(ctx context.Context, after timeline.MemberKey, limit int) ([]StoredMark, error) {
	from := []byte{}
	if !after.Conversation.IsZero() {
		from = after.Conversation.Bytes()
	}
	var out []StoredMark
	err := s.query(ctx, "listing the stored read marks",
		"SELECT conversation_id, user_id, read_seq, read_offset FROM members WHERE conversation_id >= ? AND (conversation_id > ? OR user_id > ?) AND read_offset >= 0 ORDER BY conversation_id, user_id LIMIT ?",
		[]any{from, from, int64(after.User), limit},
		func(r *sql.Rows) error {
			var m StoredMark
			var id []byte
			var user int64
			if err := r.Scan(&id, &user, &m.Seq, &m.Offset); err != nil {
				return err
			}
			m.User = chat.UserID(user)
			var err error
			m.Conversation, err = chat.ConversationIDFromBytes(id)
			out = append(out, m)
			return err
		})
	return out, err
}
