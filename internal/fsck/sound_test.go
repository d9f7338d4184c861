package fsck_test

import (
	"testing"

	"tideline/internal/fsck"
)

func TestRun_FindsNothingInASoundWorld(t *testing.T) {
	w := newWorld(t, embeddedSettings(t))
	for name, change := range map[string]func(*fsck.Options){
		"at rest":          nil,
		"running":          func(o *fsck.Options) { o.AtRest = false },
		"one conversation": func(o *fsck.Options) { o.Conversation = group },
	} {
		if report := w.run(change); report.Breaches() != 0 {
			t.Errorf("%s:\n%s", name, text(report))
		}
	}
	report := w.run(nil)
	for _, c := range report.Checks {
		// A check that has looked at nothing has proved nothing.
		if c.Looked == 0 && c.Name != "parked" && c.Part != fsck.PartArchive {
			t.Errorf("%s has looked at nothing", c.Name)
		}
	}
	t.Logf("\n%s", text(report))
}
