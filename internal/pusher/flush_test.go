//go:build unix

package pusher

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/tracing"
	"tideline/pkg/chat"
)

// tap is a socket that takes everything and says so.
type tap struct {
	fd    uintptr
	wrote func()
}

func (t *tap) Control(f func(uintptr)) error       { f(t.fd); return nil }
func (t *tap) Read(func(uintptr) bool) error       { return os.ErrInvalid }
func (t *tap) Write(f func(fd uintptr) bool) error { f(t.fd); t.wrote(); return nil }

// Without a window everybody may be written to at once. While a crowd is told of one message the next one comes: nobody is
// told of that before everybody was told of something.
func TestFlusher_WithoutAWindowNobodyIsToldTwiceBeforeAllWereToldOnce(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	cfg := testConfig()
	cfg.Window = 0
	p := newPusher(cfg, nil, nil, nil, &live{online: map[chat.UserID]map[int64]bool{}}, tracing.None(), slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), "test")
	f := newFlusher(p)
	const crowd = 300
	var conns [crowd]*conn
	told := make([]int, crowd)
	done := make(chan struct{})
	for i := range conns {
		c, theirs := pipe(p, group(1))
		defer func() { _, _ = theirs.Close(), c.net.Close() }()
		c.f = f
		c.raw = &tap{null.Fd(), func() {
			told[i]++
			if told[i] == 2 {
				for j, n := range told {
					if n == 0 {
						t.Errorf("number %d was told twice before number %d was told once", i, j)
						break
					}
				}
			}
			if told[i] == 1 && i > 0 {
				conns[i-1].hint(conns[i-1].subs[0], 2, p.clock()) // the next message
			}
			if i == crowd-2 && told[i] == 2 {
				close(done)
			}
		}}
		conns[i] = c
	}
	for _, c := range conns {
		c.hint(c.subs[0], 1, p.clock())
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { f.run(stop); close(ended) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("not everybody was told twice")
	}
	close(stop)
	<-ended
}
