package fsck_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // to break a store
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite" // to break a store

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tideline/internal/archive"
	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/fsck"
	"tideline/internal/kafka"
	"tideline/internal/marks"
	"tideline/internal/servers"
	"tideline/internal/sqlstore"
	"tideline/internal/wire"
	"tideline/internal/wiring"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

var quiet = slog.New(slog.DiscardHandler)

// world is a small sound community that lived through the real services, which have ended.
type world struct {
	t     *testing.T
	s     *wiring.Settings
	store *sqlstore.Store // of fsck
	logs  *fsck.KafkaLogs
	sets  *marks.Sets
	db    *sql.DB // to break things with
	redis redis.UniversalClient
	kafka *kgo.Client
	click driver.Conn // nil where there is no archive

	engine *archive.ClickHouse
}

const partitions = 2

var (
	group   = chat.GroupConversation(101)
	home    = chat.Partition(group.String(), partitions)
	private = chat.PrivateConversation(1, 2)
)

// embeddedSettings are of servers inside this process: kfake, SQLite and miniredis.
func embeddedSettings(t *testing.T) *wiring.Settings {
	t.Helper()
	s := wiring.Defaults()
	broker, err := embedded.StartBroker(t.TempDir(), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, quiet)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := embedded.StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = broker.Run(ctx); _ = cache.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	broker.Join(&s.Kafka)
	s.Redis.Addrs, s.Redis.Password = []string{cache.Addr()}, cache.Password()
	s.Store.Driver, s.Store.Path = "sqlite", filepath.Join(t.TempDir(), "store.db")
	s.Ingest.Fenced = false
	return s
}

// realSettings are of real servers.
func realSettings(t *testing.T) *wiring.Settings {
	t.Helper()
	s := wiring.Defaults()
	s.Kafka.Brokers, s.Redis.Addrs = []string{servers.StartKafka(t).Addr}, []string{servers.Redis(t).Addr}
	s.Store.DSN = config.Secret(servers.MySQL(t))
	s.Archive.Addr = config.Secret(servers.ClickHouse(t))
	return s
}

// newWorld lets people live, and ends the services.
func newWorld(t *testing.T, s *wiring.Settings) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.Kafka.Partitions, s.Kafka.Replication, s.Kafka.MinInSync = partitions, 1, 1
	s.Ops.Addr = "127.0.0.1:0"
	s.Ingest.HashKey = "a hash key of the tests"
	s.Archive.Linger = 10 * time.Millisecond
	w := &world{t: t, s: s}

	admin, err := s.Kafka.NewAdmin("test", quiet)
	w.must(err)
	defer admin.Close()
	w.must(kafka.EnsureTopics(ctx, admin, s.Kafka))
	owner, err := sqlstore.Open(ctx, s.Store)
	w.must(err)
	w.must(owner.Migrate(ctx))
	for u := chat.UserID(1); u <= 5; u++ {
		w.must(owner.CreateUser(ctx, sqlstore.User{ID: u, Username: "u" + u.String(), Nickname: u.String(), CreatedAt: 1}))
	}
	w.must(owner.Close())
	if addr := s.Archive.Addr.Reveal(); addr != "" {
		w.must(archive.Migrate(ctx, addr))
		w.engine, err = archive.Open(addr)
		w.must(err)
		t.Cleanup(func() { _ = w.engine.Close() })
		o, err := clickhouse.ParseDSN(addr)
		w.must(err)
		w.click, err = clickhouse.Open(o)
		w.must(err)
		t.Cleanup(func() { _ = w.click.Close() })
	}
	w.redis = s.Redis.Connect()
	t.Cleanup(func() { _ = w.redis.Close() })
	w.sets = marks.NewSets(w.redis)
	w.logs, err = fsck.NewKafkaLogs(s.Kafka, "test", quiet)
	w.must(err)
	t.Cleanup(w.logs.Close)
	w.kafka, err = kgo.NewClient(append(s.Kafka.Common("tests", quiet), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	w.must(err)
	t.Cleanup(w.kafka.Close)
	name, dsn := "mysql", s.Store.DSN.Reveal()
	if s.Store.Driver == "sqlite" {
		name, dsn = "sqlite", "file:"+s.Store.Path+"?_pragma=busy_timeout(5000)"
	}
	w.db, err = sql.Open(name, dsn)
	w.must(err)
	t.Cleanup(func() { _ = w.db.Close() })

	w.live(ctx)
	w.store, err = sqlstore.OpenReader(ctx, s.Store)
	w.must(err)
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// live runs the services, lets people speak, and waits until all of it has arrived.
func (w *world) live(ctx context.Context) {
	w.t.Helper()
	p, err := wiring.NewParts(ctx, w.s, "test", quiet)
	w.must(err)
	defer p.Close()
	services, err := p.Ingest()
	w.must(err)
	storing, err := p.Timeline()
	w.must(err)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running, append(services, storing...)...) }()
	defer func() { stop(); w.must(<-ended) }()

	w.speak(ctx)
	read := chat.ReadMark{User: 4, Conversation: group, Seq: 13, Ordinal: 4, At: time.Now().UnixMilli()}
	for w.headOf(ctx, p.Store, group) < 14 || w.headOf(ctx, p.Store, private) < 2 {
		w.wait(ctx)
	}
	w.produce(kafka.TopicReceipts, chat.Partition(read.User.String(), partitions), read.User.String(), wire.EncodeReadMark(&read))
	w.must(p.Marks.Raise(ctx, []chat.ReadMark{read}))
	for u := chat.UserID(1); u <= 4; u++ {
		for {
			_, complete, err := p.Marks.OfUser(ctx, u)
			w.must(err)
			if complete {
				break
			}
			w.wait(ctx)
		}
	}
	for {
		_, err := p.Marks.ReadCounts(ctx, group, []timeline.ReceiptQuestion{{Seq: 2, Sender: 1}})
		w.must(err)
		set, err := w.sets.Read(ctx, marks.KeyOf(group))
		w.must(err)
		if set.Ready {
			break
		}
		w.wait(ctx)
	}
	// What comes last is waited for by a run itself; see Options.AtRest.
	report, err := fsck.New(p.Store, w.logs, w.archive(), w.sets, fsck.Options{Partitions: partitions, AtRest: true}).Run(ctx)
	w.must(err)
	if n := report.Breaches(); n != 0 || report.Blind() {
		w.t.Fatalf("a sound world has %d breaches:\n%s", n, text(report))
	}
}

func (w *world) wait(ctx context.Context) {
	w.t.Helper()
	select {
	case <-ctx.Done():
		w.t.Fatal("the services have not come so far in time")
	case <-time.After(20 * time.Millisecond):
	}
}

func (w *world) headOf(ctx context.Context, s *sqlstore.Store, c chat.ConversationID) int64 {
	w.t.Helper()
	heads, err := s.Conversations(ctx, []chat.ConversationID{c})
	w.must(err)
	if len(heads) == 0 {
		return 0
	}
	return heads[0].MaxSeq
}

// speak produces what people and a clumsy backend say.
func (w *world) speak(ctx context.Context) {
	n := 0
	say := func(c chat.ConversationID, sender chat.UserID, kind chat.Kind, set func(*chat.Command)) {
		n++
		cmd := chat.Command{Type: kind, Conversation: c, Sender: sender, ClientMsgID: fmt.Sprintf("c-%d", n)}
		set(&cmd)
		w.produce(kafka.TopicInbound, chat.Partition(c.String(), partitions), c.String(), wire.EncodeCommand(&cmd))
	}
	text := func(words string) *chat.Message {
		raw, _ := json.Marshal(map[string]string{"text": words})
		return &chat.Message{Type: chat.TypeText, Content: raw}
	}
	message := func(sender chat.UserID, m *chat.Message) {
		say(group, sender, chat.KindMessage, func(c *chat.Command) { c.Message = m })
	}
	say(group, 1, chat.KindCreate, func(c *chat.Command) { c.Create = &chat.Create{Name: "Harbour", Members: []chat.UserID{2, 3}} }) // 1
	message(1, text("one"))                                                                                                          // 2
	mention := text("two")
	mention.Mentions = &chat.Mentions{UserIDs: []chat.UserID{3}}
	message(2, mention) // 3
	secret := text("for you")
	secret.Recipients = []chat.UserID{1}
	message(3, secret) // 4
	all := text("gone")
	all.Mentions = &chat.Mentions{All: true}
	message(1, all)                                                                                 // 5
	say(group, 1, chat.KindRecall, func(c *chat.Command) { c.Recall = &chat.Recall{TargetSeq: 5} }) // 6
	edit := func(target int64, words string) *chat.Edit {
		return &chat.Edit{TargetSeq: target, Content: text(words).Content}
	}
	say(group, 2, chat.KindEdit, func(c *chat.Command) { c.Edit = edit(3, "two, edited") })                 // 7
	say(group, 2, chat.KindEdit, func(c *chat.Command) { c.Edit = edit(3, "two, again") })                  // 8
	say(group, 1, chat.KindJoin, func(c *chat.Command) { c.Join = &chat.Join{Users: []chat.UserID{4}} })    // 9
	say(group, 3, chat.KindLeave, func(c *chat.Command) { c.Leave = &chat.Leave{Users: []chat.UserID{3}} }) // 10
	message(4, text("hello"))                                                                               // 11
	whisper := text("and gone")
	whisper.Recipients = []chat.UserID{2}
	message(1, whisper)                                                                              // 12
	say(group, 1, chat.KindRecall, func(c *chat.Command) { c.Recall = &chat.Recall{TargetSeq: 12} }) // 13
	say(private, 1, chat.KindMessage, func(c *chat.Command) { c.Message = text("psst") })
	say(private, 2, chat.KindMessage, func(c *chat.Command) { c.Message = text("yes?") })
	say(group, 1, chat.KindMessage, func(c *chat.Command) { c.ClientMsgID, c.Message = "c-2", text("one") }) // a retry
	say(group, 1, chat.KindMessage, func(c *chat.Command) { c.ClientMsgID, c.Message = "c-2", text("uno") }) // a conflict
	say(group, 5, chat.KindMessage, func(c *chat.Command) { c.Message = text("who am I?") })                 // of nobody
	w.produce(kafka.TopicInbound, home, group.String(), []byte("what is this?"))                             // of no use
	moved := chat.Command{Type: chat.KindMessage, Conversation: group, Sender: 2, ClientMsgID: "moved", Message: text("from elsewhere")}
	w.produce(kafka.TopicInbound, 1-home, group.String(), wire.EncodeCommand(&moved)) // 14
}

// produce writes a record, and gives its offset.
func (w *world) produce(topic string, partition int32, key string, value []byte, headers ...kgo.RecordHeader) int64 {
	w.t.Helper()
	r := &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: value, Headers: headers}
	w.must(w.kafka.ProduceSync(w.t.Context(), r).FirstErr())
	return r.Offset
}

func (w *world) archive() fsck.Archive {
	if w.engine == nil {
		return nil
	}
	return w.engine
}

// run looks at everything.
func (w *world) run(change func(*fsck.Options)) *fsck.Report {
	w.t.Helper()
	o := fsck.Options{Partitions: partitions, AtRest: true, Patience: time.Millisecond}
	if change != nil {
		change(&o)
	}
	report, err := fsck.New(w.store, w.logs, w.archive(), w.sets, o).Run(w.t.Context())
	w.must(err)
	if report.Blind() {
		w.t.Fatalf("not everything was looked at:\n%s", text(report))
	}
	return report
}

// found gives what a report says, as "check: place", sorted.
func foundIn(r *fsck.Report) []string {
	var out []string
	for i := range r.Checks {
		for _, b := range r.Checks[i].Breaches {
			out = append(out, b.Check+": "+b.Place.String())
		}
	}
	slices.Sort(out)
	return out
}

func text(r *fsck.Report) string {
	var b writerOf
	_ = r.Text(&b)
	return string(b)
}

type writerOf []byte

func (w *writerOf) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }

// exec changes the store behind everybody's back.
func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}
