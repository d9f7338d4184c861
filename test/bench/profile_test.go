package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profile takes CPU profiles of a platform's processes for a while, where BENCH_PROFILE names a folder for them, and gives
// what waits until they are written. What is measured meanwhile pays for it.
func (b *bench) profile(s *site, name string, d time.Duration) (wait func()) {
	dir := os.Getenv("BENCH_PROFILE")
	if dir == "" {
		return func() {}
	}
	var wg sync.WaitGroup
	for i, p := range s.Parts {
		path := filepath.Join(dir, fmt.Sprintf("%s-%s-%s%d.pprof", name, s.name, p.Name, i))
		wg.Go(func() {
			answer, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", ops(p), max(1, int(d.Seconds()))))
			if err != nil {
				b.t.Error(err)
				return
			}
			defer func() { _ = answer.Body.Close() }()
			text, err := io.ReadAll(answer.Body)
			if err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
			if err != nil {
				b.t.Error(err)
			}
		})
	}
	return wg.Wait
}
