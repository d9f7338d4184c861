package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"tideline/pkg/timeline"
)

// LeaseMachine gives a machine number to a holder until a time (ms): one that nobody had, or the one whose lease ended
// longest ago, if that was before freeBefore. It tries until no other holder is faster.
func (s *Store) LeaseMachine(ctx context.Context, holder string, until, freeBefore int64, limit int) (int, error) {
	for range 20 {
		var next, free int
		free = -1
		err := s.query(ctx, "looking for a machine number", "SELECT COALESCE(MAX(machine_id) + 1, 0) FROM machine_leases", nil, func(r *sql.Rows) error { return r.Scan(&next) })
		if err != nil {
			return 0, err
		}
		err = s.query(ctx, "looking for a free machine number", "SELECT machine_id FROM machine_leases WHERE expires_at < ? ORDER BY expires_at LIMIT 1", []any{freeBefore},
			func(r *sql.Rows) error { return r.Scan(&free) })
		if err != nil {
			return 0, err
		}
		if free >= 0 {
			r, err := s.exec(ctx, "leasing a machine number", "UPDATE machine_leases SET holder = ?, expires_at = ? WHERE machine_id = ? AND expires_at < ?", holder, until, free, freeBefore)
			if err != nil {
				return 0, err
			}
			if n, err := r.RowsAffected(); err == nil && n == 1 {
				return free, nil
			}
			continue
		}
		if next >= limit {
			return 0, fmt.Errorf("leasing a machine number: all %d are taken", limit)
		}
		_, err = s.exec(ctx, "leasing a machine number", "INSERT INTO machine_leases (machine_id, holder, expires_at) VALUES (?, ?, ?)", next, holder, until)
		if err == nil {
			return next, nil
		}
		if !s.dialect.duplicate(err) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("leasing a machine number: others were always faster")
}

// RenewMachine extends a lease that is still the holder's; false where it is not.
func (s *Store) RenewMachine(ctx context.Context, machine int, holder string, until int64) (bool, error) {
	r, err := s.exec(ctx, "renewing a machine number", "UPDATE machine_leases SET expires_at = ? WHERE machine_id = ? AND holder = ?", until, machine, holder)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// Parked is a record that a store could never take.
type Parked struct {
	Topic     string
	Partition int32
	Offset    int64
	Reason    string
	Key       []byte
	Record    []byte
	ParkedAt  int64
}

// Park keeps a record and its reason; parking it again changes nothing.
func (s *Store) Park(ctx context.Context, p Parked) error {
	_, err := s.exec(ctx, "parking a record", "INSERT INTO parked (topic, partition_id, record_offset, reason, record_key, record, parked_at) VALUES "+rowsOf(1, 7),
		p.Topic, p.Partition, p.Offset, cut(p.Reason, 1024), p.Key, p.Record, p.ParkedAt)
	if s.dialect.duplicate(err) {
		return nil
	}
	return err
}

// ListParked gives parked records in the order of their places, beginning after one.
func (s *Store) ListParked(ctx context.Context, topic string, afterPartition int32, afterOffset int64, limit int) ([]Parked, error) {
	var out []Parked
	err := s.query(ctx, "listing parked records",
		"SELECT topic, partition_id, record_offset, reason, record_key, record, parked_at FROM parked WHERE topic = ? AND (partition_id > ? OR (partition_id = ? AND record_offset > ?)) ORDER BY partition_id, record_offset LIMIT ?",
		[]any{topic, afterPartition, afterPartition, afterOffset, limit}, func(r *sql.Rows) error {
			var p Parked
			err := r.Scan(&p.Topic, &p.Partition, &p.Offset, &p.Reason, &p.Key, &p.Record, &p.ParkedAt)
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
