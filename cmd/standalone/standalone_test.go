package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/config"
	"tideline/internal/embedded"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// output is what a process writes, for several goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	up   chan string  // the address, once it is printed
}

var address = regexp.MustCompile(`listens on (http://[0-9.:]+)`)

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	if m := address.FindStringSubmatch(string(b)); m != nil {
		o.up <- m[1]
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs standalone in a folder; base is empty where it ends by itself. stop ends it and returns its code and its log.
func start(t *testing.T, dir string, args ...string) (base string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, log := &output{up: make(chan string, 1)}, &output{}
	code := make(chan int, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		code <- Main(ctx, append([]string{"-data.dir=" + dir, "-http.addr=127.0.0.1:0", "-kafka.addr=127.0.0.1:0", "-ops.addr=127.0.0.1:0", "-clickhouse.addr=127.0.0.1:0"}, args...), nil, out, log)
	}()
	stop = sync.OnceValues(func() (int, string) {
		cancel()
		select {
		case c := <-code:
			return c, log.String()
		case <-time.After(time.Minute):
			t.Fatal("standalone does not end")
			return 0, ""
		}
	})
	t.Cleanup(func() { stop() })
	select {
	case base = <-out.up:
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatalf("standalone does not come up: %s", log)
	}
	return base + "/v1", stop
}

func post(t *testing.T, base, path, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for deadline := time.Now().Add(30 * time.Second); ; { // its listener is open before it serves
		res, err := http.DefaultClient.Do(r.Clone(t.Context()))
		if err == nil {
			defer func() { _ = res.Body.Close() }()
			var text bytes.Buffer
			_, _ = text.ReadFrom(res.Body)
			return res.StatusCode, text.String()
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err == nil && i.Mode().Perm()&0o077 != 0 {
			list = append(list, path+" "+i.Mode().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStandalone_ClosesItsDataToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // an open folder is what is tested
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // whatever the umask is
		t.Fatal(err)
	}
	_, stop := start(t, dir)
	for _, file := range []string{"tideline.db", "tideline.db-wal", "kafka", "token-key", "admin-token", "hash-key"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if list := open(t, dir); len(list) > 0 {
		t.Errorf("open to others: %v", list)
	}
	stop()

	// As an older version left it.
	for _, file := range []string{"tideline.db", "kafka", "kafka/topics.json", "."} {
		if err := os.Chmod(filepath.Join(dir, file), 0o755); err != nil { //nolint:gosec // the same
			t.Fatal(err)
		}
	}
	_, stop = start(t, dir)
	if list := open(t, dir); len(list) > 0 {
		t.Errorf("open to others: %v", list)
	}
	if code, log := stop(); code != 0 || !strings.Contains(log, "the data directory was open to others") {
		t.Errorf("ended with %d: %s", code, log)
	}
}

func TestStandalone_LeavesAnOpenFolderOfOthersAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // an open folder is what is tested
		t.Fatal(err)
	}
	_, stop := start(t, dir)
	if code, log := stop(); code != 1 || !strings.Contains(log, "open to others") {
		t.Errorf("ended with %d: %s", code, log)
	}
	if list := open(t, dir); len(list) != 1 {
		t.Errorf("the folder was changed: %v", list)
	}
}

func TestStandalone_RefusesKeysThatAreCutShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, stop := start(t, dir)
	stop()
	for _, name := range []string{"token-key", "admin-token", "hash-key", "clickhouse-password"} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 5, 15, len(whole) - 2} {
			if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			_, stop := start(t, dir)
			if code, log := stop(); code != 1 || !strings.Contains(log, name+" is cut short") || n > 4 && strings.Contains(log, string(whole[:n])) {
				t.Errorf("%s with %d bytes: ended with %d: %s", name, n, code, log)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, stop = start(t, dir)
	if code, log := stop(); code != 0 {
		t.Errorf("with whole keys it ended with %d: %s", code, log)
	}
}

func TestKeep_AcceptsOnlyWholePrintableSecrets(t *testing.T) {
	whole := strings.Repeat("0123456789abcdef", 4)
	words := "a passphrase of thirty-two chars"
	for _, c := range []struct {
		name, content string
		digits        int
		fault         string
	}{
		{"made here", whole + "\n", 64, ""},
		{"made here, edited on Windows", whole + "\r\n", 64, ""},
		{"shorter, made here", whole[:32], 32, ""},
		{"longer than made here", whole + whole, 64, ""},
		{"a passphrase", words + "\n", 64, ""},
		{"empty", "", 64, "cut short"},
		{"white space", strings.Repeat(" ", 64), 64, "cut short"},
		{"hex cut short", whole[:63], 64, "cut short"},
		{"shorter hex cut short", whole[:31], 32, "cut short"},
		{"a short passphrase", words[:31], 64, "cut short"},
		{"a short passphrase where fewer digits are made", words[:31], 32, "cut short"},
		{"NUL bytes", strings.Repeat("\x00", 64), 64, "damaged"},
		{"NUL bytes and an end of line", strings.Repeat("\x00", 64) + "\n", 64, "damaged"},
		{"NUL bytes at the end", whole[:40] + strings.Repeat("\x00", 25), 64, "damaged"},
		{"a key and NUL bytes", whole + "\n" + strings.Repeat("\x00", 25), 64, "damaged"},
		{"two lines", whole + "\n" + whole, 64, "damaged"},
		{"a control character", whole + "\x7f", 64, "damaged"},
		{"not ASCII", words + "é", 64, "damaged"},
		{"raw bytes", strings.Repeat("\xff\xfe", 32), 64, "damaged"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "hash-key"), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := keep(dir, "hash-key", c.digits/2)
		switch {
		case c.fault == "" && (err != nil || key.Reveal() != strings.TrimSpace(c.content)):
			t.Errorf("%s: %q, %v", c.name, key.Reveal(), err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), "hash-key is "+c.fault)):
			t.Errorf("%s is accepted, or refused with %v", c.name, err)
		}
	}
}

func TestStandalone_MakesNoHashKeyWhileThereAreMessages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	hashKey := filepath.Join(dir, "hash-key")
	_, stop := start(t, dir)
	stop()
	if err := os.Remove(hashKey); err != nil {
		t.Fatal(err)
	}
	base, stop := start(t, dir) // nothing was said
	if status, body := post(t, base, "/users", "", `{"username":"ada","password":"correct horse"}`); status != 201 {
		t.Fatal(body)
	}
	_, body := post(t, base, "/sessions", "", `{"username":"ada","password":"correct horse","platform":"bot"}`)
	token := regexp.MustCompile(`"access_token":"([^"]*)"`).FindStringSubmatch(body)
	if token == nil {
		t.Fatal(body)
	}
	if status, body := post(t, base, "/groups", token[1], `{"name":"Harbour"}`); status != 201 {
		t.Fatal(body)
	}
	stop()
	key, err := os.ReadFile(hashKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(hashKey); err != nil {
		t.Fatal(err)
	}
	_, stop = start(t, dir)
	if code, log := stop(); code != 1 || !strings.Contains(log, "hash-key is missing while messages exist") {
		t.Errorf("ended with %d: %s", code, log)
	}
	if _, err := os.Stat(hashKey); err == nil {
		t.Error("the key was made all the same")
	}
	if err := os.WriteFile(hashKey, key, 0o600); err != nil {
		t.Fatal(err)
	}
	_, stop = start(t, dir)
	if code, log := stop(); code != 0 {
		t.Errorf("with its key it ended with %d: %s", code, log)
	}
}

func TestStandalone_HasTheSettingsOfAccounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	const admin = "an administrators' token"
	base, stop := start(t, dir, "-auth.registration=false", "-auth.admin-token="+admin)
	if status, body := post(t, base, "/users", "", `{"username":"ada","password":"correct horse"}`); status != 403 || !strings.Contains(body, "forbidden") {
		t.Errorf("registration is closed and answers %d: %s", status, body)
	}
	if status, body := post(t, base, "/admin/users", admin, `{"users":[{"external_id":"a","nickname":"A"}]}`); status != 200 {
		t.Errorf("the administrators' token is refused: %d %s", status, body)
	}
	if _, err := os.Stat(filepath.Join(dir, "admin-token")); err == nil {
		t.Error("a token was kept although one was set")
	}
	stop()
	for _, bad := range []string{"-auth.admin-token=short", "-auth.token-key=short", "-auth.logins-per-minute=0", "-auth.access-ttl=1ms"} {
		_, stop := start(t, dir, bad)
		if code, log := stop(); code != 2 || !strings.Contains(log, "auth.") {
			t.Errorf("%s: ended with %d: %s", bad, code, log)
		}
	}
}

// Each address that other machines may reach needs its setting, and no other setting does for it.
func TestStandalone_RefusesAnAddressOfOtherMachinesUnlessItIsMeant(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	names := []string{"kafka", "ops", "clickhouse"}
	for _, name := range names {
		var others []string
		for _, other := range names {
			if other != name {
				others = append(others, "-"+other+".remote")
			}
		}
		for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"} {
			_, stop := start(t, dir, append(others, "-"+name+".addr="+addr)...)
			if code, log := stop(); code != 2 || !strings.Contains(log, name+".addr "+addr+" can be reached by other machines: set "+name+".remote") {
				t.Errorf("%s on %s ended with %d: %s", name, addr, code, log)
			}
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused start made the data directory")
	}
	_, stop := start(t, dir, "-kafka.addr=0.0.0.0:0", "-kafka.remote", "-ops.addr=0.0.0.0:0", "-ops.remote", "-clickhouse.addr=0.0.0.0:0", "-clickhouse.remote")
	if code, log := stop(); code != 0 {
		t.Errorf("with the settings it ended with %d: %s", code, log)
	}
}

// inside returns a client of the broker that may do everything.
func inside(t *testing.T, found *embedded.Folder, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.User, cfg.Password = []string{found.Settings["kafka.brokers"]}, found.Settings["kafka.user"], config.Secret(found.Settings["kafka.password"])
	client, err := kgo.NewClient(append(cfg.Common("tests", slog.New(slog.DiscardHandler)), more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// settled repeats a call that has a client_msg_id until its outcome is known, as clients do on a busy machine.
func settled(t *testing.T, base, path, token, body string) (status int, answer string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		status, answer = post(t, base, path, token, body)
		if unknown := status == 202 || status == 503 || status == 504; !unknown || time.Now().After(until) {
			return status, answer
		}
	}
}

// group makes ada and a group of hers.
func group(t *testing.T, base string) (token, id string) {
	t.Helper()
	if status, body := post(t, base, "/users", "", `{"username":"ada","password":"correct horse"}`); status != 201 {
		t.Fatal(body)
	}
	_, body := post(t, base, "/sessions", "", `{"username":"ada","password":"correct horse","platform":"bot"}`)
	tokens := regexp.MustCompile(`"access_token":"([^"]*)"`).FindStringSubmatch(body)
	if tokens == nil {
		t.Fatal(body)
	}
	_, body = settled(t, base, "/groups", tokens[1], `{"client_msg_id":"harbour","name":"Harbour"}`)
	ids := regexp.MustCompile(`"conversation_id":"([^"]*)"`).FindStringSubmatch(body)
	if ids == nil {
		t.Fatal(body)
	}
	return tokens[1], ids[1]
}

// partitionsOf returns the partition count of each topic of a running standalone, and checks how much a partition keeps.
func partitionsOf(t *testing.T, dir string) (n int) {
	t.Helper()
	found, err := embedded.OpenFolder(dir)
	if err != nil || !found.Running {
		t.Fatalf("the folder is not that of a running standalone: %+v, %v", found, err)
	}
	admin := kadm.NewClient(inside(t, found))
	details, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n = len(details[kafka.TopicInbound].Partitions)
	if kept := found.Settings["kafka.partitions"]; kept != strconv.Itoa(n) {
		t.Errorf("commands find kafka.partitions %s in the folder, im.inbound has %d", kept, n)
	}
	retention, segment := embedded.PartitionBytes(n)
	for _, topic := range kafka.Topics() {
		if got := len(details[topic.Name].Partitions); got != n {
			t.Errorf("%s has %d partitions, im.inbound %d", topic.Name, got, n)
		}
		configs, err := admin.DescribeTopicConfigs(t.Context(), topic.Name)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"retention.bytes": "-1", "segment.bytes": strconv.FormatInt(segment, 10)} // -1: see embedded.Retention
		if topic.Name == kafka.TopicNotify {
			want["retention.bytes"] = strconv.FormatInt(retention, 10)
		}
		for _, c := range configs[0].Configs {
			if is, fixed := want[c.Key]; fixed && c.MaybeValue() != is {
				t.Errorf("%s of %s is %s, want %s", c.Key, topic.Name, c.MaybeValue(), is)
			}
		}
	}
	return n
}

// speak sends a message, and returns the number that it takes.
func speak(t *testing.T, base, token, group, id string) (seq int) {
	t.Helper()
	status, body := settled(t, base, "/conversations/"+group+"/messages", token, `{"client_msg_id":"`+id+`","type":"text","content":{"text":"`+strings.Repeat("hello ", 200)+`"}}`)
	var answer struct {
		Seq int `json:"seq"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 201 && status != 200 {
		t.Fatalf("a message is answered %d: %s", status, body)
	}
	return answer.Seq
}

func TestStandalone_KeepsThePartitionsThatItWasMadeWith(t *testing.T) {
	for _, c := range []struct {
		name           string
		first, another []string
		want           int
	}{
		{"new installations have one", nil, []string{"-kafka.partitions=8"}, 1},
		{"one made with eight keeps eight", []string{"-kafka.partitions=8"}, nil, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			base, stop := start(t, dir, c.first...)
			token, id := group(t, base)
			seq := speak(t, base, token, id, "1")
			if n := partitionsOf(t, dir); n != c.want {
				t.Errorf("it has %d partitions", n)
			}
			stop()
			if found, err := embedded.OpenFolder(dir); err != nil || found.Settings["kafka.partitions"] != strconv.Itoa(c.want) {
				t.Errorf("the folder of a stopped one says %v, %v", found, err)
			}

			base, stop = start(t, dir, c.another...)
			if n := partitionsOf(t, dir); n != c.want {
				t.Errorf("after a restart with %q it has %d partitions", c.another, n)
			}
			if again := speak(t, base, token, id, "1"); again != seq {
				t.Errorf("the retry of %d is answered %d", seq, again)
			}
			if next := speak(t, base, token, id, "2"); next != seq+1 {
				t.Errorf("the message behind %d has number %d", seq, next)
			}
			if code, log := stop(); code != 0 || !strings.Contains(log, "topics keep the partitions that they were created with") {
				t.Errorf("ended with %d: %s", code, log)
			}
		})
	}
}

func TestStandalone_RefusesSettingsOfTopicsThatCannotBe(t *testing.T) {
	for _, bad := range []string{"-kafka.partitions=0", "-kafka.partitions=17", "-kafka.compression=brotli", "-kafka.compression="} {
		_, stop := start(t, filepath.Join(t.TempDir(), "data"), bad)
		key, _, _ := strings.Cut(bad[1:], "=")
		if code, log := stop(); code != 2 || !strings.Contains(log, key+" is ") {
			t.Errorf("%s: ended with %d: %s", bad, code, log)
		}
	}
}

// Readers in other languages know gzip; what only our processes read stays cheap.
func TestStandalone_CompressesPublicTopicsAsTheSettingSays(t *testing.T) {
	for _, c := range []struct {
		args []string
		want kgo.CompressionCodecType
	}{{nil, kgo.CodecGzip}, {[]string{"-kafka.compression=zstd"}, kgo.CodecZstd}} {
		dir := filepath.Join(t.TempDir(), "data")
		base, stop := start(t, dir, c.args...)
		token, id := group(t, base)
		speak(t, base, token, id, "1")
		found, err := embedded.OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("hello ", 200)
		client := inside(t, found, kgo.ConsumeTopics(kafka.TopicInbound, kafka.TopicMessages, kafka.TopicRejected), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		// A backend forgets the header; its record is refused, and comes back with the refusal.
		forgot := &kgo.Record{Topic: kafka.TopicInbound, Key: []byte(id), Value: []byte(`{"type":"message","conversation_id":"` + id + `","client_msg_id":"crm-1","message":{"type":"text","content":{"text":"` + long + `"}}}`)}
		if err := client.ProduceSync(t.Context(), forgot).FirstErr(); err != nil {
			t.Fatal(err)
		}
		waiting := map[string]kgo.CompressionCodecType{kafka.TopicInbound: kgo.CodecSnappy, kafka.TopicMessages: c.want, kafka.TopicRejected: c.want}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for len(waiting) > 0 && ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				want, waits := waiting[r.Topic]
				if !waits || len(r.Value) < len(long) {
					return
				}
				delete(waiting, r.Topic)
				if got := kgo.CompressionCodecType(r.Attrs.CompressionType()); got != want {
					t.Errorf("with %q %s has codec %d, want %d", c.args, r.Topic, got, want)
				}
				if r.Topic == kafka.TopicRejected {
					refused, err := wire.DecodeRejection(r.Value)
					if err != nil || refused.Code != chat.CodeMalformed || refused.ClientMsgID != "crm-1" || !strings.Contains(refused.Message, "no content-type header") {
						t.Errorf("without its header a record is refused with %+v, %v", refused, err)
					}
				}
			})
		}
		cancel()
		if len(waiting) > 0 {
			t.Errorf("with %q nothing came to %v", c.args, waiting)
		}
		stop()
	}
}
