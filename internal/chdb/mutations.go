package chdb

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// sweepMutations removes the files of mutations that were cut off as they were written, which is what a full disk leaves: often
// an empty mutation_44.txt. Whoever asked for such a mutation was told that it failed, and the archiver asks again; but the engine does
// not open a table that has one (seen with chDB 26.5.3). Complete ones are left alone.
func sweepMutations(dataDir string, log *slog.Logger) error {
	files, err := fs.Glob(os.DirFS(dataDir), "store/*/*/mutation_*.txt")
	if err != nil {
		return fmt.Errorf("looking for mutations: %w", err)
	}
	for _, file := range files {
		path := filepath.Join(dataDir, file)
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("looking at a mutation: %w", err)
		}
		if whole(text) {
			continue
		}
		log.Warn("the file of a mutation is incomplete, as a full disk leaves it, and is removed; what it was to change is asked for again", "file", path, "bytes", len(text))
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing a mutation that was cut off: %w", err)
		}
	}
	return nil
}

// whole tells whether the file of a mutation has all its lines: a version, a time, and one of commands, whose own line ends
// are escaped.
func whole(text []byte) bool {
	return bytes.HasPrefix(text, []byte("format version: ")) && bytes.Contains(text, []byte("\ncommands: ")) && bytes.HasSuffix(text, []byte("\n"))
}
