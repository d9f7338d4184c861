package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// bench is what the cells share.
type bench struct {
	t      *testing.T
	size   size
	parent *bench // of a cell: whoever the platforms belong to
	sites  map[string]*site
	floor  *child
}

// site is a running platform.
type site struct {
	t    testing.TB // what its processes end with
	name string     // standalone or cluster
	*platform.Platform
	cluster  *platform.Cluster // nil for standalone
	api, ws  string            // host:port
	prefixes int
	mu       sync.Mutex // guards prefixes
}

// atAPI are settings of both servers: all clients come from one address, and one speaker may own and be in all groups.
var atAPI = []string{
	"TIDELINE_HTTP_RATE_PER_ADDRESS=0", "TIDELINE_HTTP_RATE_PER_USER=0", "TIDELINE_GROUPS_CREATED_PER_HOUR=100000", "TIDELINE_GROUPS_MAX_MEMBERSHIPS=100000",
}

// open are those of standalone and the pusher: connections stay for as long as they like.
var open = append(slices.Clone(atAPI),
	"TIDELINE_PUSH_MAX_UNAUTHENTICATED=20000",
	"TIDELINE_PUSH_MAX_UNAUTHENTICATED_PER_ADDRESS=20000", "TIDELINE_PUSH_HEARTBEAT=10m", "TIDELINE_PUSH_IDLE_TIMEOUT=30m",
)

// site starts a platform where it does not run yet.
func (b *bench) site(name string) *site {
	b.t.Helper()
	top := b.parent
	if s := top.sites[name]; s != nil {
		return s
	}
	s := &site{t: top.t, name: name}
	if name == "standalone" {
		s.Platform = platform.Standalone(top.t, open...)
	} else {
		s.cluster = platform.Setup{Kafka: servers.StartSteadyKafka(top.t), OwnServers: true, As: func(process string) []string {
			switch process {
			case "api":
				return append([]string{"TIDELINE_AUTH_ACCESS_TTL=12h"}, atAPI...)
			case "pusher":
				return append([]string{"TIDELINE_AUTH_ACCESS_TTL=12h"}, open...)
			}
			return nil
		}}.Start(top.t)
		s.Platform = &s.cluster.Platform
	}
	s.api, s.ws = strings.TrimPrefix(s.HTTP, "http://"), strings.TrimPrefix(s.WS, "http://")
	if top.sites == nil {
		top.sites = map[string]*site{}
	}
	top.sites[name] = s
	for _, p := range s.Parts {
		await(b.t, p.Name+" is ready", time.Minute, func() bool { return strings.Contains(p.Log(), `"ops":"`) })
	}
	await(b.t, "people can be made", time.Minute, func() bool {
		_, err := s.try("POST", "/v1/admin/users", s.Admin(), people("first", 0, 1))
		return err == nil
	})
	return s
}

// theFloor starts the floor where it does not run yet.
func (b *bench) theFloor() *child {
	b.t.Helper()
	if b.parent.floor == nil {
		b.parent.floor = startChild(b.parent.t, "floor")
		if err := b.parent.floor.out.Decode(&b.parent.floor.addr); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.parent.floor
}

// await waits until something holds that nothing else tells of.
func await(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// ops gives the address of the operators' listener of a process.
func ops(p *platform.Process) string {
	log := p.Log()
	i := strings.LastIndex(log, `"ops":"`)
	if i < 0 {
		return ""
	}
	addr, _, _ := strings.Cut(log[i+len(`"ops":"`):], `"`)
	return addr
}

// metric sums what a process says of a metric, over all labels.
func metric(p *platform.Process, name string) (sum float64, err error) {
	answer, err := http.Get("http://" + ops(p) + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// metric is metric of a process that runs.
func (b *bench) metric(p *platform.Process, name string) float64 {
	b.t.Helper()
	v, err := metric(p, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// atRest bounds what the processes say waits when nothing does: the end of a partition is behind the marker of its last
// transaction, which nobody is given.
const atRest = 3 * 8 * 3

// settle waits until nothing waits to be numbered, stored or archived: what one run leaves is not to be paid by the next.
func (b *bench) settle(s *site) {
	b.t.Helper()
	before, same := -1.0, 0
	for deadline := time.Now().Add(3 * time.Minute); same < 3; time.Sleep(100 * time.Millisecond) {
		var lag float64
		for _, p := range s.Parts {
			for _, name := range []string{"tideline_ingest_lag_records", "tideline_timeline_lag_records", "tideline_archive_lag_records"} {
				v, err := metric(p, name)
				if err != nil {
					v = -2 // it is not there yet
				}
				lag += v
			}
		}
		if same++; lag != before || lag > atRest {
			same = 0
		}
		before = lag
		if time.Now().After(deadline) {
			b.t.Fatalf("%s does not come to rest: %v records wait", s.name, lag)
		}
	}
}

// try asks at a door of its own.
func (s *site) try(method, path, token string, body any) ([]byte, error) {
	d, err := openDoor(s.api)
	if err != nil {
		return nil, err
	}
	defer d.close()
	return d.try(method, path, token, body)
}

// try asks until the answer is more than that the platform is busy.
func (d *door) try(method, path, token string, body any) ([]byte, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	// What prepares a cell is repeated where the machine is too busy for it; what is measured is not.
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		status, body, err := d.ask(request(method, path, token, text))
		if err != nil {
			return nil, err
		}
		busy := status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout || status == http.StatusTooManyRequests
		if status < 300 {
			return body, nil
		}
		if !busy || time.Now().After(deadline) {
			return nil, fmt.Errorf("answered %d: %.200s", status, body)
		}
	}
}

// must asks and reads the answer.
func (b *bench) must(s *site, method, path, token string, body, into any) {
	b.t.Helper()
	text, err := s.try(method, path, token, body)
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// person is somebody with a session.
type person struct{ id, token string }

type object = map[string]any

func people(prefix string, from, to int) object {
	var list []object
	for i := from; i < to; i++ {
		name := fmt.Sprintf("%s-%d", prefix, i)
		list = append(list, object{"external_id": name, "nickname": name})
	}
	return object{"users": list}
}

// people makes people without passwords, with a session each.
func (b *bench) people(s *site, n int) []person {
	b.t.Helper()
	s.mu.Lock()
	s.prefixes++
	prefix := fmt.Sprintf("bench-%d", s.prefixes)
	s.mu.Unlock()
	out := make([]person, 0, n)
	for len(out) < n {
		var made struct {
			Users []struct {
				ID string `json:"user_id"`
			} `json:"users"`
		}
		b.must(s, "POST", "/v1/admin/users", s.Admin(), people(prefix, len(out), min(n, len(out)+500)), &made)
		for _, u := range made.Users {
			out = append(out, person{id: u.ID})
		}
	}
	b.sessions(s.api, s.Admin(), out)
	return out
}

// sessions begins a session for each.
func (b *bench) sessions(addr, admin string, list []person) {
	b.t.Helper()
	b.each(addr, len(list), 16, func(d *door, i int) error {
		text, err := d.try("POST", "/v1/admin/sessions", admin, object{"user_id": list[i].id, "platform": "bot"})
		if err != nil {
			return err
		}
		var v struct {
			Token string `json:"access_token"`
		}
		err = json.Unmarshal(text, &v)
		list[i].token = v.Token
		return err
	})
}

// each does something for each of n, at several doors at a time.
func (b *bench) each(addr string, n, doors int, do func(d *door, i int) error) {
	b.t.Helper()
	next := make(chan int)
	var failed atomic.Bool // what was void before has failed the test already, and the next cells are to be measured
	var wg sync.WaitGroup
	for range min(doors, n) {
		wg.Go(func() {
			d, err := openDoor(addr)
			if err == nil {
				defer d.close()
			}
			for i := range next {
				if err == nil {
					err = do(d, i)
				}
			}
			if err != nil {
				failed.Store(true)
				b.t.Error(err)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if failed.Load() {
		b.t.FailNow()
	}
}

func newKey() string { return uuid.Must(uuid.NewV7()).String() }

// group makes a group of some people, the first of whom owns it, and gives its last number.
func (d *door) group(members []person) (conversation string, seq int64, err error) {
	ids := make([]string, 0, len(members))
	for _, p := range members[1:] {
		ids = append(ids, p.id)
	}
	text, err := d.try("POST", "/v1/groups", members[0].token, object{"name": "Harbour", "member_ids": ids, "client_msg_id": newKey()})
	if err != nil {
		return "", 0, err
	}
	var g struct {
		ID  string `json:"conversation_id"`
		Seq int64  `json:"seq"`
	}
	err = json.Unmarshal(text, &g)
	return g.ID, g.Seq, err
}

// history looks whether a pull gives every number from one up to another in order.
func (b *bench) history(s *site, token, conversation string, from, to int64) []string {
	b.t.Helper()
	d, err := openDoor(s.api)
	if err != nil {
		return []string{err.Error()}
	}
	defer d.close()
	for after := from; after < to; {
		text, err := d.get(request("GET", fmt.Sprintf("/v1/conversations/%s/messages?after=%d&limit=200&told=%d", conversation, after, to), token, nil))
		if err != nil {
			return []string{fmt.Sprintf("pulling %s after %d: %v", conversation, after, err)}
		}
		var page struct {
			Messages []struct {
				Seq   int64 `json:"seq"`
				ToSeq int64 `json:"to_seq"`
			} `json:"messages"`
		}
		if err := json.Unmarshal(text, &page); err != nil {
			return []string{err.Error()}
		}
		if len(page.Messages) == 0 {
			return []string{fmt.Sprintf("gap: a pull of %s ends at %d of %d", conversation, after, to)}
		}
		for _, m := range page.Messages {
			if m.Seq != after+1 {
				return []string{fmt.Sprintf("gap: in a pull of %s number %d follows %d", conversation, m.Seq, after)}
			}
			after = max(m.Seq, m.ToSeq)
		}
	}
	return nil
}
