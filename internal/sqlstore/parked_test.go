package sqlstore

import (
	"bytes"
	"strings"
	"testing"

	"tideline/pkg/chat"
)

func eachStore(t *testing.T, run func(t *testing.T, s *Store)) {
	t.Run("SQLite", func(t *testing.T) { run(t, newSQLite(t)) })
	t.Run("MySQL", func(t *testing.T) { run(t, newMySQL(t)) })
}

func TestPark_TakesAnyRecord(t *testing.T) {
	values := map[string][]byte{
		"null": nil, "empty": {}, "short": []byte("g-1"), "over 128 bytes": bytes.Repeat([]byte("k"), 129), "not UTF-8": {0, 0xff, '\'', '"'}, "a mebibyte": bytes.Repeat([]byte{0xfe}, 1<<20),
	}
	eachStore(t, func(t *testing.T, s *Store) {
		offset := int64(0)
		want := map[int64][2][]byte{}
		for _, key := range values {
			for _, record := range values {
				offset++
				want[offset] = [2][]byte{key, record}
				p := Parked{Topic: "im.messages", Partition: 3, Offset: offset, Reason: "why \xff" + strings.Repeat("ä", 2000), Key: key, Record: record, ParkedAt: 5}
				if offset%2 == 0 {
					p.Conversation, p.Seq, p.Kind = chat.PrivateConversation(1<<62, 1<<62+1), 1<<60, 255
				}
				for range 2 { // the second time changes nothing
					if err := s.Park(t.Context(), p); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		list, err := s.ListParked(t.Context(), "im.messages", 2, 1<<40, 100)
		if err != nil || len(list) != len(want) {
			t.Fatalf("%d are listed, %v", len(list), err)
		}
		for _, p := range list {
			w := want[p.Offset]
			if (p.Key == nil) != (w[0] == nil) || (p.Record == nil) != (w[1] == nil) || !bytes.Equal(p.Key, w[0]) || !bytes.Equal(p.Record, w[1]) {
				t.Errorf("%d comes back as %.40v and %.40v", p.Offset, p.Key, p.Record)
			}
			if noted := p.Seq == 1<<60 && p.Kind == 255 && p.Conversation == chat.PrivateConversation(1<<62, 1<<62+1); noted != (p.Offset%2 == 0) {
				t.Errorf("%d is of %s/%d, kind %d", p.Offset, p.Conversation, p.Seq, p.Kind)
			}
		}
		unknown, err := s.UnknownKinds(t.Context(), 3, 2, 100)
		if err != nil || len(unknown) != len(want)/2-1 || unknown[0].Offset != 4 {
			t.Errorf("%d are of an unknown kind behind the first, %v", len(unknown), err)
		}
		if none, err := s.UnknownKinds(t.Context(), 2, -1, 100); err != nil || len(none) > 0 {
			t.Errorf("%d are of another partition, %v", len(none), err)
		}
	})
}

// What an older version has parked is there after the step.
func TestMigrate_KeepsWhatIsParked(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		p, err := s.provider(s.writer)
		if err != nil {
			t.Fatal(err)
		}
		before := map[bool]string{
			true:  "DROP TABLE parked; CREATE TABLE parked (topic TEXT NOT NULL, partition_id INTEGER NOT NULL, record_offset INTEGER NOT NULL, reason TEXT NOT NULL, record_key BLOB NOT NULL, record BLOB NOT NULL, parked_at INTEGER NOT NULL, PRIMARY KEY (topic, partition_id, record_offset)) STRICT",
			false: "ALTER TABLE parked DROP COLUMN conversation_id, DROP COLUMN seq, DROP COLUMN kind, MODIFY COLUMN record_key VARBINARY(128) NOT NULL, MODIFY COLUMN record LONGBLOB NOT NULL",
		}[s.dialect == &sqliteDialect]
		for _, text := range append(strings.Split(before, "; "),
			"DELETE FROM goose_db_version WHERE version_id = 5",
			"INSERT INTO parked (topic, partition_id, record_offset, reason, record_key, record, parked_at) VALUES ('im.messages', 1, 2, 'why', x'672d31', x'6279746573', 3)") {
			if _, err := s.writer.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		if _, err := p.ApplyVersion(t.Context(), 5, true); err != nil {
			t.Fatal(err)
		}
		list, err := s.ListParked(t.Context(), "im.messages", -1, -1, 10)
		if err != nil || len(list) != 1 || string(list[0].Key) != "g-1" || string(list[0].Record) != "bytes" || list[0].ParkedAt != 3 || list[0].Kind != 0 || list[0].Seq != 0 {
			t.Fatalf("%+v, %v", list, err)
		}
	})
}
