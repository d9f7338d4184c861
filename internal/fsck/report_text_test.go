package fsck

import (
	"strings"
	"testing"
)

func TestReport_EndsWithItsResult(t *testing.T) {
	sound := Result{Check: Checks()[0], Looked: 3}
	broken := sound
	broken.Found, broken.Breaches = 2, []Breach{{What: "gone"}}
	for want, r := range map[string]Report{
		"result: everything that was checked holds":                       {Checks: []Result{sound}, Unlooked: []Unlooked{{Part: PartRedis, Wanted: true}}},
		"result: what was checked holds, and a part could not be checked": {Checks: []Result{sound}, Unlooked: []Unlooked{{Part: PartLog, Why: "it is away"}}},
		"result: 2 breaches": {Checks: []Result{broken}, Unlooked: []Unlooked{{Part: PartLog, Why: "it is away"}}},
	} {
		var b strings.Builder
		if err := r.Text(&b); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Split(strings.TrimSpace(b.String()), "\n"); lines[len(lines)-1] != want {
			t.Errorf("the report ends with %q, want %q", lines[len(lines)-1], want)
		}
	}
}
