package ops

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, ", ")
}

// worker runs until it is told to stop, and takes its time to end.
func (j *journal) worker(name string, ends time.Duration) Named {
	return Named{name, ServiceFunc(func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(ends)
		j.note(name)
		return nil
	})}
}

func group(j *journal, drain time.Duration, services ...Named) *Group {
	return &Group{Log: slog.New(slog.DiscardHandler), Services: services, Drain: drain, Draining: func() { j.note("draining") }}
}

func TestGroup_StopsInTheOrderOfTheDataEachAfterTheFormerHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- group(j, time.Minute, j.worker("door", 3*time.Second), j.worker("writer", 2*time.Second), j.worker("log", 0)).Run(ctx)
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || j.String() != "draining, door, writer, log" {
			t.Fatalf("%s; %v", j, err)
		}
	})
}

// Whoever asks for readiness hears of the stop while the doors are still open.
func TestGroup_LingersBeforeTheDoorsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		g := group(j, time.Minute, j.worker("door", 0))
		g.Linger = 3 * time.Second
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		cancel()
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		if j.String() != "draining" {
			t.Fatalf("before the linger is over: %s", j)
		}
		if err := <-done; err != nil || j.String() != "draining, door" {
			t.Fatalf("%s; %v", j, err)
		}
	})
}

func TestGroup_StopsAllWhenOneEndsByItself(t *testing.T) {
	fault := errors.New("the disk is full")
	for name, c := range map[string]struct {
		end  error
		want string
	}{
		"with an error":    {fault, "writer ended: the disk is full"},
		"without an error": {nil, "writer ended: " + errEnded.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				writer := Named{"writer", ServiceFunc(func(context.Context) error { time.Sleep(time.Hour); return c.end })}
				err := group(j, time.Minute, j.worker("door", 0), writer, j.worker("log", 0)).Run(t.Context())
				if err == nil || err.Error() != c.want || j.String() != "draining, door, log" {
					t.Fatalf("%s; %v", j, err)
				}
			})
		})
	}
}

func TestGroup_AbandonsWhatDoesNotEndInTimeAndNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		err := group(j, 5*time.Second, j.worker("door", 0), j.worker("writer", time.Hour), j.worker("log", 0)).Run(ctx)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "writer") || took != 5*time.Second {
			t.Fatalf("after %s: %v", took, err)
		}
		time.Sleep(2 * time.Hour) // a process would be gone; here what was abandoned has to end
	})
}

func TestGroup_TellsOfAnErrorThatComesWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := errors.New("the last batch was not written")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		writer := Named{"writer", ServiceFunc(func(ctx context.Context) error { <-ctx.Done(); return fault })}
		if err := group(&journal{}, time.Minute, writer).Run(ctx); !errors.Is(err, fault) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestServer_IsReadyFromTheFirstTimeUntilTheDrainBeginsAndNamesWhatIsNot(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "tideline_test_total"})
	registry.MustRegister(counter)
	s, err := Listen("127.0.0.1:0", registry)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Body.Close() }()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(text)
	}
	expect := func(path string, status int, part string) {
		t.Helper()
		if got, text := get(path); got != status || !strings.Contains(text, part) {
			t.Fatalf("%s: %d %s, want %d with %q", path, got, text, status, part)
		}
	}
	var mu sync.Mutex
	var fault error
	s.Check("store", func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a check may take for ever")
		}
		mu.Lock()
		defer mu.Unlock()
		return fault
	})
	mu.Lock()
	fault = errors.New("not yet")
	mu.Unlock()
	expect("/healthz", 200, "ok")
	expect("/", 200, "private listener")
	for _, p := range pages {
		expect("/", 200, "\n"+p.path+" ")
		if status, _ := get(p.path); status == 404 {
			t.Errorf("%s is listed and not served", p.path)
		}
	}
	if status, _ := get("/nothing"); status != 404 {
		t.Errorf("/nothing is answered %d", status)
	}
	expect("/readyz", 503, `"store":"not yet"`)
	mu.Lock()
	fault = nil
	mu.Unlock()
	expect("/readyz", 200, `"store":"ok"`)
	expect("/metrics", 200, "tideline_test_total 0")
	expect("/debug/pprof/goroutine?debug=1", 200, "goroutine profile")
	mu.Lock()
	fault = errors.New("away")
	mu.Unlock()
	expect("/readyz", 200, `"store":"away"`) // and no reason to send nobody here any more: it is away for all
	expect("/healthz", 200, "ok")            // a store that is away is no reason to restart the process
	mu.Lock()
	fault = nil
	mu.Unlock()
	s.SetDraining()
	expect("/readyz", 503, `"draining":"yes"`)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRegistry_NamesTheBuild(t *testing.T) {
	families, err := NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "tideline_build_info" {
			continue
		}
		m, labels := f.GetMetric()[0], map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if m.GetGauge().GetValue() != 1 || labels["version"] == "" || labels["goversion"] != runtime.Version() {
			t.Fatalf("got %v", m)
		}
		return
	}
	t.Fatal("there is no tideline_build_info")
}

func TestListen_NamesTheSettingWhenItsPortIsInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if _, err := Listen(taken.Addr().String(), NewRegistry()); err == nil || !strings.HasPrefix(err.Error(), "ops.addr: ") {
		t.Fatalf("got %v", err)
	}
}

func TestConfig_ListsEveryFault(t *testing.T) {
	err := (&Config{LogLevel: "loud", Drain: time.Millisecond, Linger: time.Second}).Validate()
	if err == nil || !strings.Contains(err.Error(), "log-level") || !strings.Contains(err.Error(), "drain is") || !strings.Contains(err.Error(), "linger is") {
		t.Fatalf("got %v", err)
	}
}

// A web page whose name was pointed at 127.0.0.1 must not read metrics and profiles.
func TestServer_OnLoopbackAnswersLoopbackHostNamesOnly(t *testing.T) {
	s, err := Listen("127.0.0.1:0", NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/pprof/cmdline"} {
		for host, want := range map[string]int{"": 200, "localhost": 200, "localhost:9090": 200, "[::1]:9090": 200, "attacker.example": 421, "attacker.example:9090": 421, "10.0.0.1": 421} {
			r, err := http.NewRequest(http.MethodGet, "http://"+s.Addr()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host // "" is the address itself
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s for Host %q is answered %d, want %d", path, host, res.StatusCode, want)
			}
		}
	}
}
