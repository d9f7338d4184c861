package fault

import (
	"bytes"
	"database/sql"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // to get in the way of the product
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// long gives how long something stays broken: the time that the fault is about, or less in a selection.
func long(whole, selection time.Duration) time.Duration {
	if full() {
		return whole
	}
	return selection
}

// throughProxy puts a proxy before one of the servers.
func throughProxy(t *testing.T, server string, proxy **servers.Proxy) func(string, string) string {
	return func(name, addr string) string {
		if name != server {
			return addr
		}
		*proxy = servers.NewProxy(t, addr)
		return (*proxy).Addr
	}
}

func TestFault_MySQLGoesAwayHangsAndLosesAnswers(t *testing.T) {
	var proxy *servers.Proxy
	c := begin(t, platform.Setup{Through: throughProxy(t, "mysql", &proxy)})
	c.For(time.Second)

	f := c.Break("MySQL is killed")
	c.MySQLServer.Kill()
	c.For(long(30*time.Second, 6*time.Second))
	c.MySQLServer.Restart()
	c.Mended(f, allowed)
	c.For(2 * time.Second)

	f = c.Break("MySQL hangs")
	proxy.Hang()
	c.For(long(30*time.Second, 8*time.Second))
	proxy.Go()
	c.Mended(f, allowed)
	c.For(2 * time.Second)

	f = c.Break("answers to commits are lost")
	var lost, commits atomic.Int64
	proxy.Meddle(func(said []byte) servers.Answer {
		if !bytes.Contains(said, []byte("\x03COMMIT")) { // COM_QUERY
			return servers.Answer{}
		}
		commits.Add(1)
		if rand.IntN(5) > 0 {
			return servers.Answer{}
		}
		lost.Add(1)
		return servers.Answer{Lost: true}
	})
	c.For(long(20*time.Second, 6*time.Second))
	proxy.Meddle(nil)
	c.Mended(f, allowed)
	t.Logf("the answers to %d of %d commits were lost", lost.Load(), commits.Load())
	if lost.Load() == 0 {
		t.Error("no answer to a commit was lost")
	}
	c.For(time.Second)
	c.end()
	if !strings.Contains(c.Timeline.Log(), "a commit whose answer was lost had happened") {
		t.Error("the timeline's writer never met a commit whose answer was lost")
	}
}

func TestFault_TransactionsLoseTheirConnectionsAndMeetDeadlocks(t *testing.T) {
	c := begin(t, platform.Setup{})
	db, err := sql.Open("mysql", c.MySQL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	f := c.Break("connections are killed, and rows are locked in the wrong order")
	killed, locked := 0, 0
	for end := time.Now().Add(long(30*time.Second, 10*time.Second)); time.Now().Before(end); c.For(c.moment(20*time.Millisecond, 150*time.Millisecond)) {
		if c.rng.IntN(2) == 0 {
			killed += killOne(t, db, c.rng)
			continue
		}
		locked += lockBackwards(db)
	}
	c.Mended(f, allowed)
	t.Logf("%d connections were killed, %d transactions stood in the way", killed, locked)
	if killed == 0 || locked == 0 {
		t.Error("nothing stood in the way")
	}
	c.For(time.Second)
	c.end()
}

// killOne kills a connection that is at work, or any.
func killOne(t *testing.T, db *sql.DB, rng *rand.Rand) int {
	rows, err := db.Query("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() ORDER BY command = 'Sleep', id")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(ids) == 0 {
		return 0
	}
	if _, err := db.Exec("KILL CONNECTION ?", ids[rng.IntN(min(len(ids), 3))]); err != nil {
		return 0 // it ended by itself
	}
	return 1
}

// lockBackwards takes rows that the writer takes, in the other order, for a moment: one of the two is sent away.
func lockBackwards(db *sql.DB) int {
	tx, err := db.Begin()
	if err != nil {
		return 0
	}
	defer func() { _ = tx.Rollback() }()
	for _, take := range []string{
		"SELECT user_id FROM members LIMIT 200 FOR UPDATE",
		"SELECT max_seq FROM conversations LIMIT 200 FOR UPDATE",
		"SELECT messages_next FROM timeline_positions LIMIT 200 FOR UPDATE",
	} {
		if _, err := tx.Exec(take); err != nil {
			return 1 // a deadlock, and this side of it gave way
		}
		time.Sleep(20 * time.Millisecond) // long enough for the writer to take what is missing here
	}
	return 1
}

// Records that nobody can read stand in the public log: they are parked with their reason, and everything else goes on.
func TestFault_TheLogHasARecordThatNobodyCanRead(t *testing.T) {
	c := begin(t, platform.Setup{})
	c.For(time.Second)
	f := c.Break("im.messages has records that are none")
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for p := range int32(8) {
		r := &kgo.Record{Topic: "im.messages", Partition: p, Key: []byte("g-1"), Value: []byte("\xff\xffnot an event")}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		c.Poisoned(p, r.Offset)
	}
	c.Mended(f, allowed)
	c.For(2 * time.Second)
	c.Stop()
	c.Rest()
	judge(t, c.Path)
	if out := c.Tideline("parked", "list"); strings.Count(out, "im.messages") != 8 {
		t.Errorf("eight records cannot be read, and these are parked:\n%s", out)
	}
}
