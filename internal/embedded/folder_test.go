package embedded

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tideline/internal/kafka"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// installation is a data folder that has everything but a process.
func installation(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{StoreFile, lockFile, ClickHouseFolder + "/some"} {
		write(t, filepath.Join(dir, name), "")
	}
	write(t, filepath.Join(dir, AdminToken), "admin/secret\n")
	write(t, filepath.Join(dir, ClickHouseOwnerPassword), "p@ss word\n")
	write(t, filepath.Join(dir, SecretFile), "log/secret\n")
	write(t, filepath.Join(dir, RedisPassword), "hush\n")
	r := Reach{Topics: map[string]string{"kafka.partitions": "3"}, Addresses: map[string]string{"kafka.brokers": "127.0.0.1:1", "archive.addr": "http://127.0.0.1:2/tideline"}}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenFolder_HasAddressesAndSecretsOfARunningStandaloneOnly(t *testing.T) {
	dir := installation(t)
	f, err := OpenFolder(dir)
	if err != nil || f.Running || !f.Archived || f.Settings["kafka.partitions"] != "3" || f.Settings["store.path"] != filepath.Join(dir, StoreFile) || len(f.Settings) != 3 {
		t.Fatalf("stopped: %+v, %v", f, err)
	}

	lock, err := Lock(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f, err = OpenFolder(dir)
	if err != nil || !f.Running || f.Settings["kafka.brokers"] != "127.0.0.1:1" || f.Settings["import.admin-token"] != "admin/secret" ||
		f.Settings["kafka.password"] != "log/secret" || f.Settings["redis.password"] != "hush" ||
		f.Settings["archive.addr"] != "http://default:p%40ss%20word@127.0.0.1:2/tideline" {
		t.Fatalf("running: %+v, %v", f, err)
	}

	// A process that has not opened its listeners has the folder, and what is written there is of the one before.
	if err := ForgetAddresses(dir); err != nil {
		t.Fatal(err)
	}
	if f, err = OpenFolder(dir); err != nil || f.Running || f.Settings["kafka.partitions"] != "3" || f.Settings["kafka.brokers"] != "" {
		t.Fatalf("starting: %+v, %v", f, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, reachFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file is readable by others: %v, %v", info.Mode(), err)
	}
}

func TestOpenFolder_RefusesWhatIsNoInstallation(t *testing.T) {
	empty, old, broken := t.TempDir(), t.TempDir(), installation(t)
	write(t, filepath.Join(old, StoreFile), "")
	write(t, filepath.Join(broken, reachFile), "{")
	for dir, want := range map[string]string{empty: "is not the data folder of a standalone", old: "start its standalone once with this version", broken: "reading " + filepath.Join(broken, reachFile)} {
		if f, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", dir, f, err, want)
		}
	}
}

// A command looks at the lock for an instant; that must not keep a standalone from starting.
func TestLock_OutlastsACommandThatLooksAndRefusesASecondProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, err := Lock(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := Lock(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "data.dir") || time.Since(began) < lockPatience {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
		go func() {
			time.Sleep(lockPatience / 2)
			_ = first.Close()
		}()
		second, err := Lock(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDialled_ReachesListenersOnAllAddresses(t *testing.T) {
	for addr, want := range map[string]string{":8080": "localhost:8080", "0.0.0.0:1": "localhost:1", "[::]:2": "localhost:2", "127.0.0.1:3": "127.0.0.1:3", "chat.example.org:4": "chat.example.org:4", "": ""} {
		if got := Dialled(addr); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

func TestListeners_NameTheirSettingWhenThePortIsInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	if _, err := StartBroker(t.TempDir(), addr, "secret", kafka.MaxUnpackedBytes, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "kafka.addr: listen tcp "+addr) {
		t.Errorf("the broker: %v", err)
	}
	engine := &ClickHouse{addr: addr}
	if err := engine.CheckAddr(); err == nil || !strings.HasPrefix(err.Error(), "clickhouse.addr: listen tcp "+addr) {
		t.Errorf("the engine: %v", err)
	}
	for _, wrong := range []string{"nowhere", "127.0.0.1:no-such-service"} {
		if _, err := StartBroker(t.TempDir(), wrong, "secret", kafka.MaxUnpackedBytes, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "kafka.addr: ") {
			t.Errorf("the broker on %q: %v", wrong, err)
		}
	}
}

// The engine used to be found from the working folder of the project only.
func TestFindLibrary_LooksBesideTheProgramToo(t *testing.T) {
	t.Chdir(t.TempDir())
	const installed = ".tools/chdb-26.5.3/libchdb.so"
	for _, place := range []string{"../" + installed, installed, "libchdb.so"} {
		bin := filepath.Join(t.TempDir(), "bin")
		write(t, filepath.Join(bin, place), "")
		if found := findLibrary(bin); found != filepath.Join(bin, place) {
			t.Errorf("%s: %q", place, found)
		}
	}
	write(t, installed, "")
	if found := findLibrary(filepath.Join(t.TempDir(), "bin")); found != installed {
		t.Errorf("in the working folder: %q", found)
	}
}

func TestFindClickHouse_NamesTheSettingOfAWrongAddress(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(self), "chdb"), "")
	library := filepath.Join(t.TempDir(), "libchdb.so")
	if _, err := FindClickHouse(library, t.TempDir(), "127.0.0.1:1", "", "", slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNoClickHouse) || !strings.Contains(err.Error(), "clickhouse.library") {
		t.Errorf("without the library: %v", err)
	}
	write(t, library, "")
	if _, err := FindClickHouse(library, t.TempDir(), "nowhere", "", "", slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "clickhouse.addr: ") {
		t.Errorf("got %v", err)
	}
}
