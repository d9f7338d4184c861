package bench

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// weight is what the stores keep of messages, in bytes.
type weight struct{ store, archive, log int64 }

const sizeOfArchive = "SELECT toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND table = 'messages' AND database = currentDatabase()"

// weigh asks the stores: the timeline's table with its indexes, the archive's parts, and the logs on disk.
func (b *bench) weigh(s *site) (w weight) {
	b.t.Helper()
	db := b.store(s)
	defer func() { _ = db.Close() }()
	if s.cluster != nil {
		// Every connection to MySQL is of the same database.
		if err := db.QueryRow("SELECT FILE_SIZE FROM information_schema.INNODB_SYS_TABLESPACES WHERE NAME = CONCAT(DATABASE(), '/timeline')").Scan(&w.store); err != nil {
			b.t.Fatal(err)
		}
	} else {
		_, path := s.SQL()
		if _, err := db.Exec("PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
			b.t.Fatal(err)
		}
		w.store = sizeOf(b, path)
	}
	var archived uint64
	var err error
	archive := s.Archive(b.t)
	await(b.t, "the archive is there", time.Minute, func() bool {
		archived, err = archive.Try(sizeOfArchive)
		return err == nil
	})
	w.archive = int64(archived)
	if s.cluster == nil {
		_, path := s.SQL()
		w.log = sizeOf(b, filepath.Join(filepath.Dir(path), "kafka"))
		return w
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Kafka))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	dirs, err := kadm.NewClient(cl).DescribeAllLogDirs(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		for _, topic := range []string{kafka.TopicInbound, kafka.TopicMessages} {
			for _, p := range d.Topics[topic] {
				w.log += p.Size
			}
		}
	})
	return w
}

// sizeOf adds up a file or a folder.
func sizeOf(b *bench, path string) (sum int64) {
	b.t.Helper()
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if os.IsNotExist(err) {
			return nil // a segment that was removed meanwhile
		}
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return sum
}
