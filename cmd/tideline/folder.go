package main

import (
	"fmt"

	"tideline/internal/embedded"
)

// dataFolder is the folder of a standalone, in which the settings of the other sections are found.
type dataFolder struct {
	Dir string `conf:"data.dir" help:"data folder of a standalone on this machine: everything that is not set is found there"`

	// stoppedToo means that the command has something to do while standalone is not running.
	stoppedToo bool
	// found is nil where no folder is named.
	found *embedded.Folder
}

// Find finds what the folder says.
func (d *dataFolder) Find() (source string, values map[string]string, err error) {
	if d.Dir == "" {
		return "", nil, nil
	}
	if d.found, err = embedded.OpenFolder(d.Dir); err != nil {
		return "", nil, err
	}
	if !d.found.Running && !d.stoppedToo {
		return "", nil, fmt.Errorf("data.dir: %s: %w", d.found.Dir, embedded.ErrNotRunning)
	}
	return "data folder " + d.found.Dir, d.found.Settings, nil
}

// stopped reports whether the folder is that of a standalone that is not running.
func (d *dataFolder) stopped() bool { return d.found != nil && !d.found.Running }
