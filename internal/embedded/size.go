package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// maxFolderFiles bounds the files that FolderBytes looks at: it is called by scrapes of metrics, and an archive of any use
// has some thousands.
const maxFolderFiles = 200_000

// FolderBytes returns the size of all files of a folder. Files that are removed meanwhile do not count.
func FolderBytes(dir string) (int64, error) {
	var total int64
	files := 0
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				total += info.Size()
			}
			if files++; files > maxFolderFiles {
				return fmt.Errorf("more than %d files", maxFolderFiles)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading the size of the data folder: %w", err)
	}
	return total, nil
}
