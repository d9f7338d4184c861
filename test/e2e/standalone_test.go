// Package e2e runs the programs themselves and talks to them as clients and backends do.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/servers"
)

// built gives the path of a command's binary, built once per run of the tests.
var built = func() func(t *testing.T, name string) string {
	var mu sync.Mutex
	dir := ""
	return func(t *testing.T, name string) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if dir == "" {
			var err error
			if dir, err = os.MkdirTemp("", "tideline-e2e-"); err != nil {
				t.Fatal(err)
			}
			binDir = dir
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if out, err := exec.Command("go", "build", "-o", path, "tideline/cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
		return path
	}
}()

var binDir string

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	if binDir != "" {
		_ = os.RemoveAll(binDir)
	}
	os.Exit(code)
}

// process is one of our programs.
type process struct {
	t    *testing.T
	path string
	env  []string
	cmd  *exec.Cmd
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, name string, env ...string) *process {
	t.Helper()
	p := &process{t: t, path: built(t, name), env: env, log: &lockedBuffer{}}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			lines := strings.Split(p.log.String(), "\n")
			t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.path)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the test
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the process as a power cut does.
func (p *process) kill() {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
	p.cmd = nil
}

// terminate asks the process to end, and fails where it does not in time.
func (p *process) terminate() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			p.t.Errorf("%s ended with %v", p.path, err)
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s did not end within 30 s of SIGTERM", p.path)
		_ = p.cmd.Process.Kill()
	}
	p.cmd = nil
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// platform is a running Tideline: one process or many.
type platform struct {
	http  string // base address of the api
	ws    string // base address of the sockets
	kafka string
	// admin gives the administrators' token, and sql the driver and the address of the store.
	admin func() string
	sql   func() (driver, dsn string)
	// clickhouse gives the address of the archive's database.
	clickhouse func() string
	// restart ends everything as a power cut does, and starts it again.
	restart func()
	parts   []*process
}

func standalone(t *testing.T) *platform {
	t.Helper()
	addr, kafkaAddr, clickhouseAddr, dir := freePort(t), freePort(t), freePort(t), t.TempDir()
	built(t, "chdb") // standalone looks for it beside itself
	p := start(t, "standalone", "TIDELINE_HTTP_ADDR="+addr, "TIDELINE_KAFKA_ADDR="+kafkaAddr, "TIDELINE_OPS_ADDR=127.0.0.1:0", "TIDELINE_DATA_DIR="+dir,
		"TIDELINE_CLICKHOUSE_ADDR="+clickhouseAddr, "TIDELINE_CLICKHOUSE_LIBRARY="+servers.ClickHouseLibrary(t))
	secret := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	return &platform{
		admin: func() string { return secret("admin-token") },
		sql:   func() (string, string) { return "sqlite", filepath.Join(dir, "tideline.db") },
		clickhouse: func() string {
			return "http://default:" + secret("clickhouse-password") + "@" + clickhouseAddr + "/tideline"
		},
		http: "http://" + addr, ws: "http://" + addr, kafka: kafkaAddr, parts: []*process{p},
		restart: func() { p.kill(); p.start() },
	}
}

// produce writes a backend's JSON command to a partition that is not its own, as a producer with another hash does.
func (pf *platform) produce(t *testing.T, key, value string, partition int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(pf.kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r := &kgo.Record{Topic: "im.inbound", Partition: partition, Key: []byte(key), Value: []byte(value), Headers: []kgo.RecordHeader{
		{Key: "content-type", Value: []byte("application/json")}, {Key: "producer", Value: []byte("crm")},
	}}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestStandalone_CarriesAConversation(t *testing.T) { converse(t, standalone(t)) }

func TestStandalone_LosesNothingThatWasAnsweredWhenItIsKilled(t *testing.T) {
	pf := standalone(t)
	survive(t, pf, 3, func(int) { pf.restart() })
}

func TestStandalone_StopsInOrder(t *testing.T) {
	pf := standalone(t)
	join(t, pf.http, pf.ws, "ada").listen()
	pf.parts[0].terminate()
}

// converse is the life of a small group: sends, hints, pulls, receipts, a backend, retries, an edit and a recall.
func converse(t *testing.T, pf *platform) {
	ada, bob := join(t, pf.http, pf.ws, "ada"), join(t, pf.http, pf.ws, "bob")
	var g struct {
		ID  string `json:"conversation_id"`
		Seq int64  `json:"seq"`
	}
	ada.eventually(201, "POST", "/groups", map[string]any{"name": "Harbour", "member_ids": []string{bob.id}, "client_msg_id": "group-1"}, &g)
	bobs := bob.listen()

	first := ada.send(g.ID, "hello-1", "hello")
	told := bobs.waitFor(g.ID, first.Seq)
	var page pulled
	bob.must(200, "GET", fmt.Sprintf("/conversations/%s/messages?told=%d", g.ID, told), nil, &page)
	if last := page.Messages[len(page.Messages)-1]; last.Seq != first.Seq || last.Key != "hello-1" {
		t.Fatalf("bob was told %d and pulled %+v", told, last)
	}

	// A backend, with a partitioner of its own: the record is moved, numbered, and seen by both.
	for partition := range int32(2) {
		key := fmt.Sprintf("crm-%d", partition)
		pf.produce(t, g.ID, fmt.Sprintf(`{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":%q,"message":{"type":"text","content":{"text":"from the crm"}}}`, g.ID, ada.id, key), partition)
		bobs.waitFor(g.ID, first.Seq+1+int64(partition))
	}

	var read struct {
		ReadSeq int64 `json:"read_seq"`
		Unread  int64 `json:"unread"`
	}
	bob.must(200, "PUT", "/conversations/"+g.ID+"/read", map[string]int64{"seq": first.Seq}, &read)
	if read.ReadSeq != first.Seq || read.Unread != 2 {
		t.Fatalf("bob's mark: %+v", read)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		var receipts struct {
			Receipts []struct {
				Read int64 `json:"read_count"`
			} `json:"receipts"`
		}
		ada.must(200, "GET", fmt.Sprintf("/conversations/%s/receipts?seq=%d", g.ID, first.Seq), nil, &receipts)
		if len(receipts.Receipts) == 1 && receipts.Receipts[0].Read == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("bob's mark is not in ada's receipts: %+v", receipts)
		}
		time.Sleep(20 * time.Millisecond)
	}

	retries := func(when string) {
		t.Helper()
		if again := ada.send(g.ID, "hello-1", "hello"); again.Seq != first.Seq || !again.Duplicate {
			t.Fatalf("%s: the retry of %d was answered %+v", when, first.Seq, again)
		}
		body := text("something else")
		body["client_msg_id"] = "hello-1"
		ada.must(409, "POST", "/conversations/"+g.ID+"/messages", body, nil)
	}
	retries("at once")

	second := bob.send(g.ID, "bob-1", "hi")
	body := map[string]any{"content": map[string]string{"text": "hi!"}}
	bob.must(200, "PATCH", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, second.Seq), body, nil)
	ada.must(200, "DELETE", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, first.Seq), nil, nil)
	for _, m := range bob.history(g.ID) {
		if m.Seq == first.Seq && (!m.Recalled || m.Content != nil) {
			t.Fatalf("what was recalled can be read: %+v", m)
		}
		if m.Seq == second.Seq && !strings.Contains(string(m.Content), "hi!") {
			t.Fatalf("what was edited reads %s", m.Content)
		}
	}

	bob.must(200, "DELETE", "/groups/"+g.ID+"/members/me", nil, nil)
	if again := bob.send(g.ID, "bob-1", "hi"); again.Seq != second.Seq {
		t.Fatalf("after leaving, the retry of %d was answered %+v", second.Seq, again)
	}
	bob.must(403, "POST", "/conversations/"+g.ID+"/messages", map[string]any{"client_msg_id": "bob-2", "type": "text", "content": map[string]string{"text": "late"}}, nil)

	pf.restart()
	ada.login()
	bob.login()
	retries("after a restart of everything")
	if again := bob.send(g.ID, "bob-1", "hi"); again.Seq != second.Seq {
		t.Fatalf("after a restart, the retry of %d was answered %+v", second.Seq, again)
	}
	before := int64(len(ada.history(g.ID)))
	next := ada.send(g.ID, "after", "still here")
	if next.Seq != before+1 {
		t.Fatalf("%d numbers were there, and the next one is %d", before, next.Seq)
	}
	a := pf.archived(t, g.ID, next.Seq)
	if left := a.count("SELECT countIf(text != '' OR content != '' OR NOT recalled) FROM messages WHERE conversation_id = ? AND seq = ?", g.ID, first.Seq); left != 0 {
		t.Fatal("what was recalled stands in the archive")
	}
	if hi := a.count("SELECT countIf(text = 'hi!') FROM messages WHERE conversation_id = ? AND seq = ?", g.ID, second.Seq); hi != 1 {
		t.Fatal("what was edited stands in the archive as it was")
	}
}

// survive sends while parts are killed, and then checks that every answered message stands once, at its number.
func survive(t *testing.T, pf *platform, kills int, kill func(i int)) {
	ada := join(t, pf.http, pf.ws, "ada")
	bob := join(t, pf.http, pf.ws, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.eventually(201, "POST", "/groups", map[string]any{"name": "Storm", "member_ids": []string{bob.id}, "client_msg_id": "storm"}, &g)
	answered := make([]map[string]int64, 4)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range answered {
		answered[w] = map[string]int64{}
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				for {
					select {
					case <-stop:
						return
					default:
					}
					body := text(key)
					body["client_msg_id"] = key
					var s sent
					if status := ada.call("POST", "/conversations/"+g.ID+"/messages", body, &s); status == 200 {
						answered[w][key] = s.Seq
						break
					}
					time.Sleep(20 * time.Millisecond) // the same id again, as a client does
				}
			}
		})
	}
	for i := range kills {
		time.Sleep(700 * time.Millisecond) // some are answered before the next kill; how many does not matter
		kill(i)
	}
	time.Sleep(time.Second)
	close(stop)
	wg.Wait()
	// Everything before the last message is numbered; it can be read when the writer has come so far.
	end := ada.send(g.ID, "the-end", "the end")
	bob.eventually(200, "GET", fmt.Sprintf("/conversations/%s/messages?limit=1&told=%d", g.ID, end.Seq), nil, nil)
	at := map[string]int64{}
	for _, m := range bob.history(g.ID) {
		if m.Key == "" {
			continue
		}
		if first, twice := at[m.Key]; twice {
			t.Errorf("%s stands at %d and at %d", m.Key, first, m.Seq)
		}
		at[m.Key] = m.Seq
	}
	pf.archived(t, g.ID, end.Seq)
	total := 0
	for _, list := range answered {
		total += len(list)
		for key, seq := range list {
			if at[key] != seq {
				t.Errorf("%s was answered with %d and stands at %d", key, seq, at[key])
			}
		}
	}
	if total == 0 {
		t.Error("nothing was answered")
	}
	t.Logf("%d messages were answered over %d kills", total, kills)
}
