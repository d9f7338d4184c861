package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrNotPrivate means that a data directory is open to others and cannot be closed to them.
var ErrNotPrivate = errors.New("the data directory is open to others")

const othersMay = 0o077 // what a mode lets the group and all others do

// makePrivate makes a data directory that only this user can enter, or closes one that exists, with the files in it:
// the store, its write-ahead log, the log of messages and the keys are for this process alone. From then on what this
// process and its children make is private. It refuses a directory of another user, and one that is open and holds
// files of others: -data.dir=/tmp must not close /tmp to everyone.
//
// It reports whether anything was closed.
func makePrivate(dir string) (closed bool, err error) {
	syscall.Umask(othersMay) // of the whole process; nothing of it writes for others
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("making the data directory: %w", err)
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, fmt.Errorf("finding the data directory: %w", err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return false, fmt.Errorf("looking at the data directory: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return false, fmt.Errorf("%w: %s belongs to user %d, and this process is user %d", ErrNotPrivate, dir, owner.Uid, os.Geteuid())
	}
	if info.Mode()&othersMay != 0 {
		ours, err := isOurs(root)
		if err != nil {
			return false, err
		}
		if !ours {
			return false, fmt.Errorf("%w: %s has mode %04o and files that are not ours; name a folder of its own, or close it with chmod 700", ErrNotPrivate, dir, info.Mode().Perm())
		}
	}
	inside, err := os.OpenRoot(root) // whatever is moved meanwhile, nothing outside is touched
	if err != nil {
		return false, fmt.Errorf("opening the data directory: %w", err)
	}
	defer func() { _ = inside.Close() }()
	err = fs.WalkDir(inside.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil // a link's mode is that of what it points at
		}
		i, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if i.Mode()&othersMay != 0 {
			closed = true
			return inside.Chmod(path, i.Mode()&^othersMay)
		}
		return nil
	})
	if err != nil {
		return closed, fmt.Errorf("closing the data directory to others: %w", err)
	}
	return closed, nil
}

// isOurs reports whether a directory is empty or was locked by an earlier start.
func isOurs(dir string) (bool, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("looking into the data directory: %w", err)
	}
	for _, e := range list {
		if e.Name() == lockFile {
			return true, nil
		}
	}
	return len(list) == 0, nil
}
