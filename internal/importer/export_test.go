package importer

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tideline/pkg/chat"
)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func good(minute string, sender string) string {
	return `{"day":"2011-03-04","minute":` + minute + `,"kind":"message","sender":"` + sender + `","text":"x"}`
}

func TestScan_NamesEveryBadLineAndRefusesTheFile(t *testing.T) {
	for raw, word := range broken {
		path := write(t, "e.jsonl", []byte(good("1", "a")+"\n\n"+raw+"\n"+good("2", "b")+"\n"))
		cfg := DefaultConfig()
		_, err := scanExport(t.Context(), cfg, path, 0)
		if err == nil || !strings.Contains(err.Error(), "line 3 ") || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "line 4") {
			t.Errorf("%.80q: %v; it should name line 3 and %q", raw, err, word)
		}
		cfg.SkipBad = true
		s, err := scanExport(t.Context(), cfg, path, 0)
		if err != nil || s.bad != 1 || s.lines != 4 || len(s.people) != 2 || s.told[0].Number != 3 {
			t.Errorf("%.80q, left out: %+v, %v", raw, s, err)
		}
	}
}

func TestScan_SkipsAByteOrderMarkAtTheStartAlone(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	content := []byte(mark + good("1", "a") + "\n" + good("2", "b") + "\n")
	for name, raw := range map[string][]byte{"plain": content, "gzip": compressed(t, content)} {
		s, err := scanExport(t.Context(), DefaultConfig(), write(t, "e.jsonl", raw), 0)
		if err != nil || s.bad != 0 || s.lines != 2 || len(s.people) != 2 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for name, raw := range map[string]string{"twice": mark + string(content), "later": good("1", "a") + "\n" + string(content)} {
		if _, err := scanExport(t.Context(), DefaultConfig(), write(t, "e.jsonl", []byte(raw)), 0); err == nil {
			t.Errorf("%s: a mark within the export was taken", name)
		}
	}
}

func TestScan_RefusesWhatHoldsNothing(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "blank": "\n\n \n", "names only": `{"day":"2011-03-04","minute":0,"kind":"renamed","sender":"a","to":"b"}`,
	} {
		if _, err := scanExport(t.Context(), DefaultConfig(), write(t, "e", []byte(content)), 0); err == nil || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := openExport(t.TempDir()); err == nil {
		t.Error("a folder is an export")
	}
}

func TestExport_ReadsTheSameCompressedAndNot(t *testing.T) {
	content := []byte(good("1", "a") + "\r\n" + good("2", "b")) // no line feed behind the last
	plain, err1 := scanExport(t.Context(), DefaultConfig(), write(t, "e", content), 2)
	packed, err2 := scanExport(t.Context(), DefaultConfig(), write(t, "e.gz", compressed(t, content)), 2)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if plain.sum == "" || plain.sum != packed.sum || plain.lines != 2 || packed.lines != 2 {
		t.Errorf("%+v and %+v", plain, packed)
	}
	cut := compressed(t, bytes.Repeat(content, 100))
	if _, err := scanExport(t.Context(), DefaultConfig(), write(t, "cut.gz", cut[:len(cut)-9]), 0); err == nil || !strings.Contains(err.Error(), "reading the export behind line") {
		t.Errorf("a file that was cut off: %v", err)
	}
}

func TestExport_TheSumIsOfEverythingUpToALine(t *testing.T) {
	sum := func(content string, at int) string {
		s, err := scanExport(t.Context(), DefaultConfig(), write(t, "e", []byte(content)), at)
		if err != nil {
			t.Fatal(err)
		}
		return s.sum
	}
	a, b, c := good("1", "a")+"\n", good("2", "b")+"\n", good("3", "c")+"\n"
	if sum(a+b, 0) != sumOfNothing || sum(a, 1) != sum(a+b, 1) || sum(a+b, 2) == sum(b+a, 2) || sum(a+b, 2) != sum(a+b+c, 2) {
		t.Error("an export that has grown, or one that has changed, is not known for what it is")
	}
	if sum(a, 2) != "" {
		t.Error("an export that is shorter than the checkpoint has a sum")
	}
}

// endless is a line without an end.
type endless struct{ left int }

func (e *endless) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(e.left, len(b))
	for i := range n {
		b[i] = 'x'
	}
	e.left -= n
	return n, nil
}

func TestExport_ALineWithoutEndTakesNoMemory(t *testing.T) {
	const size = 256 << 20
	path := filepath.Join(t.TempDir(), "e.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z, _ := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if _, err := io.Copy(z, &endless{size}); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(z, "\n"+good("1", "a")+"\n")
	if err := errors.Join(err, z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	e, err := openExport(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := e.next(); !errors.Is(err, errLineTooLong) {
		t.Fatalf("a line of %d bytes: %v", size, err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8*maxLineBytes {
		t.Errorf("it took %d bytes", took)
	}
	if raw, err := e.next(); err != nil || e.number != 2 || string(raw) != good("1", "a") {
		t.Errorf("behind it stands %q, %v", raw, err)
	}
}

func TestCheckpoint_OfAnotherImportOrVersionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	c := &checkpoint{Version: checkpointVersion, Source: "a", Conversation: chat.GroupConversation(7), Line: 7, Last: -1}
	if err := c.save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := loadCheckpoint(path, "a"); err != nil || *got != *c {
		t.Errorf("it comes back as %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"source":"a","conversation_id":"g-7","line":7,"last":-1,"finished":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := loadCheckpoint(path, "a"); err != nil || *got != *c {
		t.Errorf("version 1, which did not note whether its run failed, comes back as %+v, %v", got, err)
	}
	if _, err := loadCheckpoint(path, "b"); err == nil || !strings.Contains(err.Error(), "import.checkpoint") {
		t.Errorf("another import's: %v", err)
	}
	for _, content := range []string{`{"version":3,"source":"a"}`, `{"version":2,"source":"a"}`, `{"version":1,"sour`, ""} {
		if _, err := loadCheckpoint(write(t, "c", []byte(content)), "a"); err == nil {
			t.Errorf("%q is taken", content)
		}
	}
	if got, err := loadCheckpoint(filepath.Join(t.TempDir(), "none"), "a"); got != nil || err != nil {
		t.Errorf("none: %+v, %v", got, err)
	}
}
