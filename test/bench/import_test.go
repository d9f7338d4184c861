package bench

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	_ "github.com/go-sql-driver/mysql" // to count in the store, beside the product
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite" // the same

	"tideline/pkg/chat"
	"tideline/test/platform"
)

// days is how long ago the imported history begins.
const days = 30

// absent is somebody who said the first thing in it, and then nothing.
const absent = "absent"

// imported is a group with a history.
type imported struct {
	conversation string
	messages     int
	last         int64
}

// exportOf writes a chat export: so many lines of textBytes each, over the last days.
func (b *bench) exportOf(n int) string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "export.jsonl")
	f, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	begin := time.Now().UTC().AddDate(0, 0, -days)
	for i := range n {
		sender := fmt.Sprintf("nick%d", i*7919%200)
		if i == 0 {
			sender = absent
		}
		at := begin.Add(time.Duration(float64(days*24*time.Hour) * float64(i) / float64(n)))
		_, _ = fmt.Fprintf(w, `{"day":"%s","minute":%d,"kind":"message","sender":"%s","text":"%08d %s"}`+"\n",
			at.Format("2006-01-02"), at.Hour()*60+at.Minute(), sender, i, words[9:])
	}
	if err := w.Flush(); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// runImport runs the importer until everything can be read, and looks that the store has each number once.
func (b *bench) runImport(s *site, n int) (imported, time.Duration, used, []string) {
	b.t.Helper()
	path := b.exportOf(n)
	name := fmt.Sprintf("Moved in %d-%d", n, time.Now().UnixNano())
	cmd := exec.Command(platform.Built(b.t, "tideline"), slices.Concat([]string{"import", "-import.api", s.HTTP, "-import.group", name, "-import.source", name}, s.KafkaFlags(), []string{path})...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TIDELINE_IMPORT_ADMIN_TOKEN=" + s.Admin()}
	before, began := cpu(), time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	use := cpu().since(before)
	use["import"] = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() // it has ended before the second look
	if err != nil {
		b.t.Fatalf("the import: %v\n%s", err, out)
	}
	im := imported{messages: n}
	db := b.store(s)
	defer func() { _ = db.Close() }()
	var raw []byte
	if err := db.QueryRow("SELECT conversation_id FROM conversations WHERE name = ?", name).Scan(&raw); err != nil {
		b.t.Fatal(err)
	}
	id, err := chat.ConversationIDFromBytes(raw)
	if err != nil {
		b.t.Fatal(err)
	}
	im.conversation = id.String()
	var void []string
	var rows, first, messages int64
	if err := db.QueryRow("SELECT COUNT(*), MIN(seq), MAX(seq), SUM(msg_type = 1) FROM timeline WHERE conversation_id = ?", raw).Scan(&rows, &first, &im.last, &messages); err != nil {
		b.t.Fatal(err)
	}
	if first != 1 || rows != im.last || messages != int64(n) {
		void = append(void, fmt.Sprintf("gap: %d rows from %d to %d, %d messages of %d", rows, first, im.last, messages, n))
	}
	// The order of what was said is that of the file.
	var inversions int64
	err = db.QueryRow("SELECT COUNT(*) FROM timeline a JOIN timeline b ON b.conversation_id = a.conversation_id AND b.seq = a.seq + 1 WHERE a.conversation_id = ? AND a.msg_type = 1 AND b.msg_type = 1 AND a.content > b.content", raw).Scan(&inversions)
	if err != nil {
		b.t.Fatal(err)
	}
	if inversions > 0 {
		void = append(void, fmt.Sprintf("inversion: %d messages stand before the one that was said before them", inversions))
	}
	return im, took, use, void
}

func (b *bench) store(s *site) *sql.DB {
	b.t.Helper()
	driver, dsn := s.SQL()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	return db
}

// produceAll is the floor of an import: as many records of the same size, as fast as a producer gives them away.
func (l *bareLog) produceAll(n int) (float64, error) {
	var failed atomic.Value
	began := time.Now()
	for range n {
		l.cl.Produce(context.Background(), &kgo.Record{Topic: "bench.floor", Key: []byte("g-1"), Value: l.value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(err)
			}
		})
	}
	if err := l.cl.Flush(context.Background()); err != nil {
		return 0, err
	}
	if err := failed.Load(); err != nil {
		return 0, err.(error)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// imports is cell 9, and cells 6 and 7, which need its history.
func (b *bench) imports() {
	tab := b.table("9. Import through Kafka until readable", "on", "messages", "messages/s", "floor: produced/s", "÷ floor", "CPU-s of the last", "verdict")
	bytesTab := b.table(fmt.Sprintf("7. Bytes of a message with a text of %d bytes", textBytes), "on", "messages", "the store", "÷ text", "ClickHouse", "Kafka im.inbound + im.messages", "verdict")
	var long imported
	for _, name := range b.size.sites {
		s := b.site(name)
		log := b.newLog(s)
		sizes := b.size.imports
		if name == "standalone" {
			sizes = sizes[:len(sizes)-1]
		}
		var rates, floors []float64
		var void []string
		var last used
		total := 0
		for i, n := range sizes {
			f, err := log.produceAll(min(n, 200_000))
			if err != nil {
				b.t.Fatal(err)
			}
			floors = append(floors, f)
			var before weight
			if i == len(sizes)-1 {
				b.settle(s)
				before = b.weigh(s)
			}
			im, took, use, faults := b.runImport(s, n)
			void = append(void, faults...)
			rates = append(rates, float64(n)/took.Seconds())
			total += n
			last, long = use, im
			if i == len(sizes)-1 {
				b.settle(s)
				after := b.weigh(s)
				each := func(a, b int64) float64 { return float64(a-b) / float64(im.last) }
				store := each(after.store, before.store)
				verdict := ""
				if name == "cluster" {
					verdict = atMost(store, 350, " bytes")
				}
				bytesTab.row(faults, name, n, short(store), short(store/textBytes), short(each(after.archive, before.archive)), short(each(after.log, before.log)), verdict)
			}
		}
		r, f := spreadOf(rates), spreadOf(floors)
		tab.row(void, name, total, r, f, short(r.median/f.median), last.text(), atLeast(r.median, 10_000, "/s"))
	}
	tab.print()
	bytesTab.print()
	s := b.site("cluster")
	b.afterAMonth(s, long)
	b.takeover(s, long)
}

// external gives somebody who came with an import a session.
func (b *bench) external(s *site, name string) person {
	b.t.Helper()
	var made struct {
		Users []struct {
			ID string `json:"user_id"`
		} `json:"users"`
	}
	b.must(s, "POST", "/v1/admin/users", s.Admin(), object{"users": []object{{"external_id": name, "nickname": name}}}, &made)
	one := []person{{id: made.Users[0].ID}}
	b.sessions(s.api, s.Admin(), one)
	return one[0]
}

// afterAMonth is cell 6: somebody who was a member from the beginning comes back and asks for the summary and the newest
// messages of the long group, of an api that remembers nothing and of one that does.
func (b *bench) afterAMonth(s *site, long imported) {
	floor := b.theFloor()
	tab := b.table(fmt.Sprintf("6. Coming back after %d days with %d messages missed", days, long.messages), "api", "summary ms", "first screen ms", "both ms", "KB", "floor ms", "÷ floor", "verdict")
	p := b.external(s, "import:"+absent)
	type visit struct{ summary, screen time.Duration }
	var cold, warm []visit
	var void []string
	var floors []float64
	size := 0
	for range b.size.runs {
		b.restart(s.cluster.API)
		var d *door
		await(b.t, "the door is open", time.Minute, func() (open bool) {
			var err error
			d, err = openDoor(s.api)
			return err == nil
		})
		for _, list := range []*[]visit{&cold, &warm} {
			began := time.Now()
			text, err := d.get(request("POST", "/v1/sync", p.token, []byte(`{"limit":20,"newest":1}`)))
			if err != nil {
				b.t.Fatal(err)
			}
			first := time.Since(began)
			size = len(text)
			var v struct {
				Conversations []struct {
					ID     string `json:"conversation_id"`
					Max    int64  `json:"max_seq"`
					Unread int64  `json:"unread"`
				} `json:"conversations"`
			}
			if err := json.Unmarshal(text, &v); err != nil {
				b.t.Fatal(err)
			}
			found := false
			for _, c := range v.Conversations {
				if c.ID == long.conversation {
					found = true
					if c.Max != long.last || c.Unread != int64(long.messages-1) {
						void = voided(void, "wrong: the summary tells %d unread up to %d, and it is %d up to %d", c.Unread, c.Max, long.messages-1, long.last)
					}
				}
			}
			if !found {
				void = voided(void, "wrong: the group is not in the summary")
			}
			began = time.Now()
			text, err = d.get(request("GET", fmt.Sprintf("/v1/conversations/%s/messages?before=%d&limit=50&told=%d", long.conversation, long.last+1, long.last), p.token, nil))
			if err != nil {
				b.t.Fatal(err)
			}
			*list = append(*list, visit{first, time.Since(began)})
			size += len(text)
			floor.call(b.t, floorAsk{Bytes: map[string]string{"screen": string(text)}}, nil)
		}
		d.close()
		f, err := openDoor(floor.addr)
		if err != nil {
			b.t.Fatal(err)
		}
		began := time.Now()
		for range 2 {
			if _, err := f.get(request("GET", "/floor/screen", p.token, nil)); err != nil {
				b.t.Fatal(err)
			}
		}
		floors = append(floors, ms(time.Since(began)))
		f.close()
	}
	for _, list := range []struct {
		name   string
		visits []visit
	}{{"just started", cold}, {"warm", warm}} {
		var summary, screen, both []float64
		for _, v := range list.visits {
			summary, screen, both = append(summary, ms(v.summary)), append(screen, ms(v.screen)), append(both, ms(v.summary+v.screen))
		}
		sum, f := spreadOf(both), spreadOf(floors)
		tab.row(void, list.name, spreadOf(summary), spreadOf(screen), sum, short(float64(size)/1024), f, short(sum.median/f.median), atMost(sum.median, 100, " ms")+"; "+atMost(float64(size)/1024, 100, " KB"))
	}
	tab.print()
}
