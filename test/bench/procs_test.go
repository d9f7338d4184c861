package bench

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tick is the unit of times in /proc/<pid>/stat: USER_HZ, which is 100 on every platform that we run on.
const tick = time.Second / 100

// roleOf names the processes of this binary by pid, as the kernel calls them all the same.
var roleOf sync.Map

// used is CPU time by name of process: this one (load, the generator), and every one below it.
type used map[string]time.Duration

// process is one of ours.
type process struct {
	name   string
	parent int
	took   time.Duration
}

// processes gives this process and every one below it, by pid.
func processes() map[int]process {
	all := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		if open < 0 || end < open {
			continue
		}
		// Behind the name: state, parent, and eleven more up to utime and stime.
		fields := strings.Fields(string(text[end+1:]))
		if len(fields) < 13 {
			continue
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:open])))
		parent, _ := strconv.Atoi(fields[1])
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		all[pid] = process{string(text[open+1 : end]), parent, time.Duration(user+system) * tick}
	}
	self := os.Getpid()
	ours := map[int]process{}
	for pid, p := range all {
		below := pid
		for below != self && below > 1 {
			below = all[below].parent
		}
		if below != self {
			continue
		}
		if pid == self {
			p.name = "load"
		} else if role, known := roleOf.Load(pid); known {
			p.name = role.(string)
		}
		ours[pid] = p
	}
	return ours
}

// cpu gives what every process has used so far, by name.
func cpu() used {
	out := used{}
	for _, p := range processes() {
		out[p.name] += p.took
	}
	return out
}

// watch looks once a second how much of the machine we use, also by processes that end meanwhile, and gives what tells
// how many cores others used.
func watch() (others func() float64) {
	began, before := time.Now(), machine()
	stop, done := make(chan struct{}), make(chan struct{})
	var ours time.Duration
	go func() {
		defer close(done)
		last := processes()
		for on := true; on; {
			select {
			case <-time.After(time.Second):
			case <-stop:
				on = false
			}
			now := processes()
			for pid, p := range now {
				ours += p.took - last[pid].took // what began since has used all of it since
			}
			last = now
		}
	}()
	return func() float64 {
		close(stop)
		<-done
		return max(0, (machine()-before-ours).Seconds()/time.Since(began).Seconds())
	}
}

// since gives what was used after an earlier look.
func (u used) since(before used) used {
	out := used{}
	for name, took := range u {
		if d := took - before[name]; d > 0 {
			out[name] = d
		}
	}
	return out
}

// of gives CPU seconds of some processes.
func (u used) of(names ...string) float64 {
	var sum time.Duration
	for _, n := range names {
		sum += u[n]
	}
	return sum.Seconds()
}

// text lists the processes, in CPU seconds.
func (u used) text() string {
	return u.list(5*tick, func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) })
}

// each lists the processes, in microseconds of CPU for each of n.
func (u used) each(n int) string {
	one := used{}
	for name, took := range u {
		one[name] = took / time.Duration(max(n, 1))
	}
	return one.list(one.sum()/50, func(d time.Duration) string { return short(float64(d) / float64(time.Microsecond)) })
}

// list names the processes that used at least so much, the largest first.
func (u used) list(least time.Duration, text func(time.Duration) string) string {
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(u), func(a, b string) int { return int(u[b] - u[a]) }) {
		if u[name] >= least && u[name] > 0 {
			parts = append(parts, name+" "+text(u[name]))
		}
	}
	return strings.Join(parts, ", ")
}

// add adds up.
func (u used) add(other used) {
	for name, d := range other {
		u[name] += d
	}
}

// sum gives what all of them used.
func (u used) sum() (all time.Duration) {
	for _, took := range u {
		all += took
	}
	return all
}

// machine gives what everything on this machine has used so far, ours or not, and what its host took away.
func machine() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var busy int64
	for i, field := range strings.Fields(line)[1:] {
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 3 && i != 4 && i < 8 { // without idle, iowait, and guests, which are counted already
			busy += n
		}
	}
	return time.Duration(busy) * tick
}

// resident gives the memory of a process, in bytes.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages float64
	_, _ = fmt.Sscan(string(text), &size, &pages)
	return pages * float64(os.Getpagesize())
}
