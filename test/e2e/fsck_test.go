package e2e

import (
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
	pf := platform.Standalone(t, platform.ManyPartitions)
	converse(t, pf)
	if out := pf.Fsck(); strings.Contains(out, "not looked at") {
		t.Errorf("something was not looked at:\n%s", out)
	}
}
