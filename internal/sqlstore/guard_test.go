package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tideline/internal/config"
	"tideline/internal/servers"
	"tideline/pkg/chat"
)

// newHanging gives a guarded store on the real server, behind a proxy that can be told to hang.
func newHanging(t *testing.T, timeout time.Duration) (*Store, *servers.Proxy, *prometheus.Registry) {
	t.Helper()
	dsn, err := mysql.ParseDSN(servers.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := servers.NewProxy(t, dsn.Addr)
	dsn.Addr = proxy.Addr
	s := openStore(t, Config{Driver: "mysql", DSN: config.Secret(dsn.FormatDSN()), MaxOpen: 8, Timeout: 10 * time.Second})
	s.timeout = timeout
	registry := prometheus.NewRegistry()
	return s.Guarded(slog.New(slog.NewTextHandler(io.Discard, nil)), registry), proxy, registry
}

// together asks n at once, and gives the longest that one waited and the errors by code.
func together(s *Store, n int) (longest time.Duration, codes map[chat.Code]int, goroutines int) {
	codes = map[chat.Code]int{}
	var mu sync.Mutex // guards what is returned
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			began := time.Now()
			_, err := s.Users(context.Background(), []chat.UserID{1})
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(began))
			codes[chat.CodeOf(err)]++
			goroutines = max(goroutines, runtime.NumGoroutine())
		})
	}
	wg.Wait()
	return longest, codes, goroutines
}

func TestGuard_AStoreThatHangsCostsABoundedTimeAndThenNone(t *testing.T) {
	const timeout = time.Second
	s, proxy, registry := newHanging(t, timeout)
	if _, codes, _ := together(s, 200); codes[""] != 200 {
		t.Fatalf("while the store answers: %v", codes)
	}
	before := runtime.NumGoroutine()
	proxy.Hang()
	longest, codes, most := together(s, 200)
	if bound := seatWait + timeout + 500*time.Millisecond; longest > bound {
		t.Errorf("of 200 at once one waited %s, at most %s are right", longest, bound)
	}
	if codes[""] > 0 || codes[chat.CodeUnavailable]+codes[chat.CodeOverloaded] != 200 {
		t.Errorf("200 at once were answered %v", codes)
	}
	// Left alone now: nobody waits but the one that tries, and nothing piles up however many come.
	for range 10 {
		if longest, codes, n := together(s, 200); longest > probeTimeout+500*time.Millisecond || codes[chat.CodeUnavailable] != 200 {
			t.Errorf("after that one waited %s; the answers: %v", longest, codes)
		} else {
			most = max(most, n)
		}
	}
	if most > before+200+100 {
		t.Errorf("there were %d goroutines, %d before a crowd of 200 came", most, before)
	}
	if v, err := testutil.GatherAndCount(registry, "tideline_store_refused_total"); err != nil || v == 0 {
		t.Errorf("nothing of it is counted: %v", err)
	}
	if circuit(t, registry) == 0 {
		t.Error("the circuit is told to be closed")
	}

	proxy.Go()
	recovered := time.Now()
	for {
		if _, err := s.Users(t.Context(), []chat.UserID{1}); err == nil {
			break
		} else if time.Since(recovered) > 20*time.Second {
			t.Fatalf("the store answers again, and after %s the guard says %v", time.Since(recovered), err)
		}
		time.Sleep(10 * time.Millisecond) // between looks
	}
	if took := time.Since(recovered); took > openFor+connectTimeout+2*time.Second {
		t.Errorf("it recovered after %s", took)
	}
	if _, codes, _ := together(s, 200); codes[""] != 200 {
		t.Errorf("after it recovered: %v", codes)
	}
	if circuit(t, registry) != 0 {
		t.Error("the circuit is told to be open")
	}
}

func circuit(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tideline_store_circuit" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no metric of the circuit")
	return 0
}

func TestGuard_AStoreThatIsAwayIsUnavailableAndNotAFaultOfOurs(t *testing.T) {
	s, proxy, _ := newHanging(t, time.Second)
	proxy.Refuse()
	for range 20 {
		_, err := s.Users(t.Context(), []chat.UserID{1})
		var refused *chat.Error
		if !errors.As(err, &refused) || refused.Code != chat.CodeUnavailable || refused.RetryAfter <= 0 {
			t.Fatalf("got %v", err)
		}
	}
}

// What the store answers is an answer, also where it is no.
func TestGuard_AnAnswerOfNoIsNoFailure(t *testing.T) {
	plain := newSQLite(t)
	s := plain.Guarded(slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	u := User{ID: 5, Username: "ada", Nickname: "Ada"}
	if err := s.CreateUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := s.CreateUser(t.Context(), u); !errors.Is(err, ErrTaken) {
			t.Fatalf("got %v", err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if _, err := s.Users(gone, []chat.UserID{5}); !errors.Is(err, context.Canceled) {
			t.Fatalf("whoever went away is told %v", err)
		}
	}
	if list, err := s.Users(t.Context(), []chat.UserID{5}); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestUnanswered_TellsLackOfAnAnswerFromAnAnswer(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("reading: %w", err) }
	for _, err := range []error{
		context.DeadlineExceeded, mysql.ErrInvalidConn, io.EOF, &net.OpError{Op: "dial", Err: errors.New("refused")}, sql.ErrConnDone,
		&mysql.MySQLError{Number: 1040}, &mysql.MySQLError{Number: 1053},
	} {
		if !unanswered(wrapped(err)) {
			t.Errorf("%v passes for an answer", err)
		}
	}
	for _, err := range []error{sql.ErrNoRows, &mysql.MySQLError{Number: 1062}, &mysql.MySQLError{Number: 1213}, &mysql.MySQLError{Number: 1406}, errors.New("ours")} {
		if unanswered(wrapped(err)) {
			t.Errorf("%v does not pass for an answer", err)
		}
	}
	if !contended(wrapped(&mysql.MySQLError{Number: 1213})) || contended(wrapped(&mysql.MySQLError{Number: 1062})) {
		t.Error("a deadlock is contention, a duplicate is none")
	}
}

// Two who bring the same people in opposite order must not be each other's victims: the index entries are locked in one
// order whatever the callers' is.
func TestUpsertExternal_OfTheSamePeopleAtOnceNeverDeadlocks(t *testing.T) {
	for name, s := range map[string]*Store{"SQLite": newSQLite(t), "MySQL": newMySQL(t)} {
		t.Run(name, func(t *testing.T) {
			for round := range 15 {
				const crews, people = 6, 120
				var wg sync.WaitGroup
				got := make([]map[string]chat.UserID, crews)
				for w := range crews {
					wg.Go(func() {
						var list []ExternalUser
						for i := range people {
							n := i
							if w%2 == 1 {
								n = people - 1 - i
							}
							list = append(list, ExternalUser{ExternalID: fmt.Sprintf("%d-%03d", round, n), Nickname: "x", ID: chat.UserID(1 + int64(round)*1_000_000 + int64(w)*1000 + int64(n))})
						}
						var err error
						if got[w], err = s.UpsertExternal(t.Context(), list, 1); err != nil {
							t.Errorf("crew %d: %v", w, err)
						}
					})
				}
				wg.Wait()
				for w := range crews {
					if len(got[w]) != people {
						t.Fatalf("crew %d has %d people", w, len(got[w]))
					}
					for id, u := range got[w] {
						if got[0][id] != u {
							t.Fatalf("%s is %d to one and %d to another", id, got[0][id], u)
						}
					}
				}
			}
		})
	}
}

func TestUpsertExternal_ComparesByteForByte(t *testing.T) {
	for name, s := range map[string]*Store{"SQLite": newSQLite(t), "MySQL": newMySQL(t)} {
		t.Run(name, func(t *testing.T) {
			ids := []string{"crm:Ada", "crm:ada", "crm:ada ", "crm:ad\u0061\u0301", "crm:ad\u00e1", "crm:ß", "crm:ss", "\x00", "\x00\x00", strings.Repeat("a", 255), strings.Repeat("a", 254)}
			var list []ExternalUser
			for i, id := range ids {
				list = append(list, ExternalUser{ExternalID: id, Nickname: "x", ID: chat.UserID(i + 1)})
			}
			first, err := s.UpsertExternal(t.Context(), list, 1)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[chat.UserID]bool{}
			for i, id := range ids {
				if first[id] != chat.UserID(i+1) || seen[first[id]] {
					t.Errorf("%q is %d", id, first[id])
				}
				seen[first[id]] = true
				list[i].ID += 100
			}
			again, err := s.UpsertExternal(t.Context(), append(list, list...), 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if again[id] != first[id] {
					t.Errorf("%q was %d and is %d", id, first[id], again[id])
				}
			}
		})
	}
}

func TestUsers_NamesAreComparedWithoutCase(t *testing.T) {
	for name, s := range map[string]*Store{"SQLite": newSQLite(t), "MySQL": newMySQL(t)} {
		t.Run(name, func(t *testing.T) {
			if err := s.CreateUser(t.Context(), User{ID: 1, Username: "Ada.L", Nickname: "x"}); err != nil {
				t.Fatal(err)
			}
			for i, same := range []string{"ada.l", "ADA.L", "Ada.L"} {
				if err := s.CreateUser(t.Context(), User{ID: chat.UserID(2 + i), Username: same, Nickname: "x"}); !errors.Is(err, ErrTaken) {
					t.Errorf("%s: %v", same, err)
				}
				if u, found, err := s.UserByName(t.Context(), same); err != nil || !found || u.Username != "Ada.L" {
					t.Errorf("%s is %+v, %v", same, u, err)
				}
			}
			if err := s.CreateUser(t.Context(), User{ID: 9, Username: "ada_l", Nickname: "x"}); err != nil {
				t.Errorf("another name: %v", err)
			}
			if list, err := s.SearchUsers(t.Context(), "ADA_", 10); err != nil || len(list) != 1 || list[0].ID != 9 {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}
