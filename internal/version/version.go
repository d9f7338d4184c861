// Package version names the build of the running program.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// described is set by the linker (scripts/build): what `git describe --tags --always --dirty` prints.
var described string

// revisionLength is what git shows of a commit by default; more helps no reader.
const revisionLength = 12

// String returns the version of this build: the nearest tag and the commit where scripts/build has set them, otherwise the
// commit that the Go tool has stamped, otherwise "unknown".
func String() string {
	if described != "" {
		return described
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	return fromStamp(info.Settings)
}

const unknown = "unknown"

// fromStamp returns the commit among the settings of a build.
func fromStamp(settings []debug.BuildSetting) string {
	revision, dirty := "", ""
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), revisionLength)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if revision == "" {
		return unknown
	}
	return revision + dirty
}

// Line returns the line that -version prints, without its end: the program, its version, Go's, and the platform.
func Line(program string) string {
	return fmt.Sprintf("%s %s (%s %s/%s)", program, String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
