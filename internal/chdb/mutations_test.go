package chdb_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"tideline/internal/servers"
)

// What a full disk leaves of a mutation does not keep the engine from opening the table; a mutation that is whole stays.
func TestListen_OpensATableWhoseMutationWasCutOff(t *testing.T) {
	dir := t.TempDir()
	p := servers.StartClickHouseIn(t, dir)
	o, err := clickhouse.ParseDSN("http://" + p.Addr + "/default")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, q := range []string{
		"CREATE DATABASE d", "CREATE TABLE d.t (n Int64, text String) ENGINE = MergeTree ORDER BY n", "INSERT INTO d.t VALUES (1, 'a'), (2, 'b')",
		"ALTER TABLE d.t UPDATE text = 'line\\nfeed' WHERE n = 1 SETTINGS mutations_sync = 2",
	} {
		if err := conn.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	p.Kill()
	files, err := filepath.Glob(filepath.Join(dir, "data", "store", "*", "*", "mutation_*.txt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("there are the mutations %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string]int{"mutation_901.txt": 0, "mutation_902.txt": 20, "mutation_903.txt": len(text) - 1} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(files[0]), name), text[:left], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.Restart()
	var first string
	if err := conn.QueryRow(t.Context(), "SELECT text FROM d.t WHERE n = 1").Scan(&first); err != nil || first != "line\nfeed" {
		t.Fatalf("after the restart there is %q, %v", first, err)
	}
	if now, err := filepath.Glob(filepath.Join(dir, "data", "store", "*", "*", "mutation_*.txt")); err != nil || len(now) != 1 || now[0] != files[0] {
		t.Fatalf("the mutations are %v, %v; only %s is whole", now, err, files[0])
	}
}
