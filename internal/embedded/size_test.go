package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFolderBytes_SumsFilesInAllFolders(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"one": 10, "a/two": 200, "a/b/three": 3000} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := FolderBytes(dir); n != 3210 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
