package version

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
)

func TestFromStamp_ShortensTheCommitAndMarksChanges(t *testing.T) {
	stamp := func(keysAndValues ...string) (s []debug.BuildSetting) {
		for kv := range slices.Chunk(keysAndValues, 2) {
			s = append(s, debug.BuildSetting{Key: kv[0], Value: kv[1]})
		}
		return s
	}
	for want, settings := range map[string][]debug.BuildSetting{
		"unknown":            stamp("-tags", "nomsgpack"),
		"0123456789ab":       stamp("vcs.revision", "0123456789abcdef", "vcs.modified", "false"),
		"0123456789ab-dirty": stamp("vcs.modified", "true", "vcs.revision", "0123456789abcdef"),
		"01":                 stamp("vcs.revision", "01"),
	} {
		if got := fromStamp(settings); got != want {
			t.Errorf("%v: %q, want %q", settings, got, want)
		}
	}
}

func TestLine_NamesProgramVersionGoAndPlatform(t *testing.T) {
	defer func(was string) { described = was }(described)
	described = "v1.2.3"
	if got, want := Line("tideline"), "tideline v1.2.3 ("+runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH+")"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
