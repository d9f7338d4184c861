package pusher

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestRun_LeavesNoGoroutineBehind looks for goroutines of this package after a pusher with a past has ended.
func TestRun_LeavesNoGoroutineBehind(t *testing.T) {
	t.Run("a pusher with a past", func(t *testing.T) {
		r := newRig(t, nil)
		for i := range 20 {
			c := r.login(fmt.Sprint(i + 1))
			r.store.join(1, group(1), 1, 0)
			c.request("pull", map[string]any{"conversation_id": "g-1"})
			switch i % 4 {
			case 0:
				_ = c.ws.Close()
			case 1:
				_ = c.ws.NetConn().Close()
			case 2:
				c.send("garbage")
			}
		}
		r.dial() // says nothing
	})
	left := ""
	defer func() {
		if t.Failed() {
			t.Log(left)
		}
	}()
	eventually(t, "no goroutine is left", func() bool {
		b := make([]byte, 1<<20)
		for _, g := range strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n") {
			if strings.Contains(g, "internal/pusher.") && !strings.Contains(g, "testing.(*") { // the tests themselves
				left = g
				return false
			}
		}
		return true
	})
}
