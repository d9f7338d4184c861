package e2e

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tideline/test/platform"
)

// The second oracle: what a community has left behind is sound, by the stores themselves.
func TestCluster_IsFoundSound(t *testing.T) {
	c := platform.StartCluster(t)
	converse(t, &c.Platform)
	if out := c.Tideline("fsck", "-at-rest"); strings.Contains(out, "not looked at") {
		t.Errorf("something was not looked at:\n%s", out)
	}
}

// Nobody stops talking for it.
func TestCluster_IsFoundSoundWhilePeopleTalk(t *testing.T) {
	c := platform.StartCluster(t)
	survive(t, &c.Platform, 3, func(i int) {
		c.Parts[i].Kill()
		c.Parts[i].Start()
		c.Tideline("fsck")
	})
	c.Tideline("fsck", "-at-rest")
}

func TestStandalone_IsFoundSound(t *testing.T) {
	pf := platform.Standalone(t)
	converse(t, pf)
	_, file := pf.SQL()
	look := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(platform.Built(t, "tideline"), slices.Concat([]string{"fsck", "-store.driver", "sqlite", "-store.path", file}, args)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("fsck %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := look("-at-rest", "-kafka.brokers", pf.Kafka, "-kafka.partitions", "8", "-archive.addr", pf.ClickHouse(), "-skip", "redis"); !strings.Contains(out, "not looked at: redis") {
		t.Errorf("it is not said that Redis was left out:\n%s", out)
	}
	pf.Parts[0].Terminate()
	look("-skip", "log,archive,redis", "-kafka.partitions", "8")
}
