package archive

import (
	"os"
	"testing"

	"tideline/internal/servers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

func TestMigrate_MakesTheDatabaseOnce(t *testing.T) {
	addr := servers.ClickHouse(t)
	for range 2 {
		if err := Migrate(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
	}
	engine, err := Open(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	messages, changes := rows(0, nil)
	if len(messages) != 0 || !changes.empty() {
		t.Fatal("nothing became something")
	}
	has, err := engine.Has(t.Context(), "messages", 0, 0, 10)
	if err != nil || has {
		t.Fatalf("an empty archive has something: %t, %v", has, err)
	}
}
