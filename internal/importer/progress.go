package importer

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells people how far the import is: on a terminal one line that is written over every second, elsewhere a
// line every ten seconds.
type progress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	mu      sync.Mutex // guards the fields below
	stage   string
	done    int
	total   int
	waiting behind
	since   time.Time // when the stage began
	first   int       // what was done then
}

func (p *progress) every() time.Duration {
	if p.terminal {
		return time.Second
	}
	return 10 * time.Second
}

// begin starts a stage.
func (p *progress) begin(stage string, done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage, p.done, p.total, p.since, p.first, p.waiting = stage, done, total, p.now(), done, behind{}
}

func (p *progress) set(done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = done
}

func (p *progress) waits(b behind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = b
}

// line gives the present state: what, how many of how many, how many a second, and how long still.
func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == "" {
		return ""
	}
	s := fmt.Sprintf("%s: %d of %d", p.stage, p.done, p.total)
	if took := p.now().Sub(p.since).Seconds(); took > 0 && p.done > p.first {
		rate := float64(p.done-p.first) / took
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
		s += fmt.Sprintf(", %.0f/s, %s left", rate, left)
	}
	if p.waiting.n > 0 {
		s += fmt.Sprintf("; waiting: %s is %d behind", p.waiting.what, p.waiting.n)
	}
	return s
}

// run writes until done is closed.
func (p *progress) run(done <-chan struct{}) {
	tick := time.NewTicker(p.every())
	defer tick.Stop()
	for {
		select {
		case <-done:
			if p.terminal {
				_, _ = fmt.Fprint(p.out, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
		switch s := p.line(); {
		case s == "":
		case p.terminal:
			_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", s)
		default:
			_, _ = fmt.Fprintln(p.out, s)
		}
	}
}
