package chdb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	chproto "github.com/ClickHouse/ch-go/proto"
)

// Ordinary clients connect with their default settings as both users, list the tables, pass parameters and read 10,000 rows.
func TestServer_ClientsOfOtherLanguages(t *testing.T) {
	w := newWorld(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(w.addr)
	if err != nil {
		t.Fatal(err)
	}
	const (
		views      = "active_senders, messages, messages_per_hour, read_marks, read_marks_per_hour, read_through"
		parameters = "parameters 17 hello harbour"
		rows       = "rows 10000 50005000 2026-03-08T06:40:00"
	)
	python := []string{"tables " + strings.ReplaceAll(views, ", ", ","), parameters, rows, "error True"}
	python = append(python, python...) // with parameters in the address, and in a form
	java := []string{
		"product ClickHouse true", "schemas [tideline_analysis]", "tables [tideline_analysis." + strings.ReplaceAll(views, ", ", ", tideline_analysis.") + "]",
		"columns [tideline_analysis.conversation_id, ", "shown [" + views + "]", parameters, rows, "error true",
	}
	javaOwner := append([]string{java[0], "schemas [", "tables [", "columns [tideline."}, java[4:]...)
	for name, client := range map[string]struct {
		files string // in .tools
		args  func(files string) []string
		want  []string
	}{
		"jdbc reader": {"clickhouse-jdbc-*", func(dir string) []string {
			return []string{"java", "-Xmx256m", "-cp", filepath.Join(dir, "*"), "clients/Client.java", "http://" + w.addr, "x", readerPassword}
		}, java},
		"jdbc owner": {"clickhouse-jdbc-*", func(dir string) []string {
			return []string{"java", "-Xmx256m", "-cp", filepath.Join(dir, "*"), "clients/Client.java", "http://" + w.addr, "x", ownerPassword, "database=tideline_analysis", "compress=false"}
		}, javaOwner},
		"clickhouse-connect reader": {"clickhouse-connect-*", func(dir string) []string {
			return []string{"env", "PYTHONPATH=" + dir, "python3", "clients/client.py", host, port, "x", readerPassword, "-"}
		}, python},
		"clickhouse-connect owner": {"clickhouse-connect-*", func(dir string) []string {
			return []string{"env", "PYTHONPATH=" + dir, "python3", "clients/client.py", host, port, "x", ownerPassword, "tideline_analysis"}
		}, python},
	} {
		t.Run(name, func(t *testing.T) {
			found, _ := filepath.Glob(filepath.Join(root, ".tools", client.files))
			if len(found) == 0 {
				if os.Getenv("TIDELINE_REQUIRE_SERVERS") != "" {
					t.Fatalf("%s is required and not there (scripts/install-clients installs it)", client.files)
				}
				t.Skipf("%s is not here (scripts/install-clients installs it)", client.files)
			}
			args := client.args(found[len(found)-1])
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, errs.String())
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) != len(client.want) {
				t.Fatalf("%q, want %q\n%s", lines, client.want, errs.String())
			}
			for i, want := range client.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}

// What drivers put around a statement works for both users: each way to give a password, a format, compressed answers, and
// forms.
func TestServer_TakesWhatDriversSend(t *testing.T) {
	w := newWorld(t)
	type sent struct {
		params url.Values
		header http.Header
		body   string
	}
	send := func(s sent) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/?"+s.params.Encode(), strings.NewReader(s.body))
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range s.header {
			r.Header[http.CanonicalHeaderKey(name)] = values
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer, body
	}
	form := func(fields ...string) (contentType, body string) {
		var b strings.Builder
		f := multipart.NewWriter(&b)
		for pair := range slices.Chunk(fields, 2) {
			_ = f.WriteField(pair[0], pair[1])
		}
		_ = f.Close()
		return f.FormDataContentType(), b.String()
	}
	for _, password := range []string{ownerPassword, readerPassword} {
		key := http.Header{"X-ClickHouse-User": {"x"}, "X-ClickHouse-Key": {password}, "X-ClickHouse-Database": {"tideline_analysis"}, "Accept-Encoding": {"identity"}}
		with := func(name, value string) http.Header {
			h := key.Clone()
			h.Set(name, value)
			return h
		}
		contentType, fields := form("query", "SELECT {a:Int64} + 1, {s:String}", "param_a", "41", "param_s", "it's")
		_, wide := form("query", "SELECT 1")
		for name, s := range map[string]struct {
			sent
			status int
			want   string
		}{
			"password in the address": {sent{url.Values{"user": {"x"}, "password": {password}}, nil, "SELECT 42"}, 200, "42\n"},
			"wrong password":          {sent{url.Values{"user": {"x"}, "password": {password + "!"}}, nil, "SELECT 42"}, 401, "516"},
			"key":                     {sent{nil, key, "SELECT 42, currentDatabase()"}, 200, "42\ttideline_analysis\n"},
			"format in a header":      {sent{nil, with("X-ClickHouse-Format", "JSONEachRow"), "SELECT 42 AS a"}, 200, "{\"a\":42}\n"},
			"format of both":          {sent{url.Values{"default_format": {"CSV"}}, with("X-ClickHouse-Format", "JSONEachRow"), "SELECT 42 AS a"}, 200, "{\"a\":42}\n"},
			"session":                 {sent{url.Values{"session_id": {"a"}, "session_timeout": {"60"}, "session_check": {"0"}}, key, "SELECT 42"}, 200, "42\n"},
			"form":                    {sent{nil, with("Content-Type", contentType), fields}, 200, "42\tit\\'s\n"},
			"form without a boundary": {sent{nil, with("Content-Type", "multipart/form-data"), wide}, 400, "no boundary"},
			"form that is cut off":    {sent{nil, with("Content-Type", contentType), fields[:len(fields)-20]}, 400, "reading the form"},
		} {
			answer, body := send(s.sent)
			if answer.StatusCode != s.status || s.status == 200 && string(body) != s.want || !strings.Contains(string(body), s.want) {
				t.Errorf("%s: %d %q, want %d %q", name, answer.StatusCode, body, s.status, s.want)
			}
		}
		var file bytes.Buffer
		f := multipart.NewWriter(&file)
		_, _ = f.CreateFormFile("rows", "rows.tsv")
		_ = f.Close()
		if answer, body := send(sent{url.Values{"query": {"SELECT 1"}}, with("Content-Type", f.FormDataContentType()), file.String()}); answer.StatusCode != 400 || !strings.Contains(string(body), "has a file") {
			t.Errorf("form with a file: %d %s", answer.StatusCode, body)
		}
		contentType, many := form(make([]string, 2*(maxFields+1))...)
		if answer, body := send(sent{nil, with("Content-Type", contentType), many}); answer.StatusCode != 400 {
			t.Errorf("form with nameless fields: %d %s", answer.StatusCode, body)
		}

		// Several blocks of compression, in a format that is text.
		const text = "SELECT repeat(toString(number), 30) FROM numbers(20000) FORMAT TSV"
		_, plain := send(sent{nil, key, text})
		if len(plain) < 2*squeezeBytes {
			t.Fatalf("%d bytes", len(plain))
		}
		for _, method := range []string{"", "LZ4", "ZSTD"} {
			answer, packed := send(sent{url.Values{"compress": {"1"}, "network_compression_method": {method}}, key, text})
			blocks := chproto.NewReader(bytes.NewReader(packed))
			blocks.EnableCompression()
			if got, err := io.ReadAll(plainEOF{blocks}); err != nil || !bytes.Equal(got, plain) || len(packed) > len(plain)/2 || answer.Header.Get("X-ClickHouse-Format") != "TSV" {
				t.Errorf("compressed with %q: %d bytes of %d, %v", method, len(got), len(plain), err)
			}
		}
		for accepted, zipped := range map[string]bool{"lz4,br,zstd,gzip, deflate": true, "gzip;q=0.5": true, "gzip;q=0": false, "br": false} {
			answer, packed := send(sent{url.Values{"enable_http_compression": {"1"}}, with("Accept-Encoding", accepted), text})
			if zipped != (answer.Header.Get("Content-Encoding") == "gzip") {
				t.Errorf("Accept-Encoding %s: Content-Encoding %q", accepted, answer.Header.Get("Content-Encoding"))
			}
			if zipped {
				z, err := gzip.NewReader(bytes.NewReader(packed))
				if err != nil {
					t.Fatal(err)
				}
				if packed, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(packed, plain) {
				t.Errorf("Accept-Encoding %s: %d bytes of %d", accepted, len(packed), len(plain))
			}
		}
		answer, _ := send(sent{nil, key, "SELECT number FROM numbers(12)"})
		if got := answer.Header.Get("X-ClickHouse-Summary"); got != fmt.Sprintf(`{"result_rows":"%d"}`, 12) {
			t.Errorf("summary %s", got)
		}
	}
}
