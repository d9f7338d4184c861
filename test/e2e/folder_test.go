package e2e

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// commandRun is how a run of the command has ended.
type commandRun struct {
	code int
	out  string // of both outputs
}

func tideline(t *testing.T, args ...string) commandRun {
	t.Helper()
	cmd := exec.Command(platform.Built(t, "tideline"), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return commandRun{cmd.ProcessState.ExitCode(), string(out)}
}

// Nothing but the folder has to be known, of a standalone that runs and of one that is stopped.
func TestTideline_FindsEverythingInTheDataFolder(t *testing.T) {
	dir := t.TempDir()
	pf := platform.StandaloneIn(t, dir, platform.ManyPartitions)
	converse(t, pf)
	run := func(code int, want string, args ...string) {
		t.Helper()
		if got := tideline(t, append([]string{"-data.dir", dir}, args...)...); got.code != code || !strings.Contains(got.out, want) {
			t.Errorf("%q ended with %d, want %d and %q:\n%s", args, got.code, code, want, got.out)
		}
	}
	if got := tideline(t, "-data.dir", dir, "fsck", "-at-rest"); got.code != 0 || strings.Contains(got.out, "not looked at") {
		t.Errorf("fsck ended with %d, or has not looked at everything:\n%s", got.code, got.out)
	}
	export := filepath.Join(t.TempDir(), "export.jsonl")
	if err := os.WriteFile(export, []byte(`{"day":"2004-12-25","minute":554,"kind":"message","sender":"crimsun","text":"I'm afraid not."}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, "", "import", "-import.group", "Harbour of old", export)
	run(0, "", "parked", "list")
	run(0, "0 put back", "parked", "replay")
	run(0, "im.messages", "topics", "check")
	run(0, "current", "migrate")
	run(0, "store", "health")
	// What the command is given is stronger than the folder, and no secret is shown.
	run(1, "does not answer", "health", "-ops.addr", platform.FreePort(t))
	run(0, "data folder "+dir, "archive", "fill", "-print-config")
	for name, show := range map[string][]string{"admin-token": {"import", "-print-config", "-import.group", "x"}, "clickhouse-owner-password": {"fsck", "-print-config"}} {
		secret, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		run(0, "****", show...)
		if got := tideline(t, append([]string{"-data.dir", dir}, show...)...); strings.Contains(got.out, strings.TrimSpace(string(secret))) {
			t.Errorf("%q shows %s", show, name)
		}
	}
	// The folder can be named behind the command, too.
	if got := tideline(t, "fsck", "-data.dir", dir, "-skip", "archive"); got.code != 0 {
		t.Errorf("with the folder behind the command: %+v", got)
	}

	pf.Parts[0].Terminate()
	run(2, "COULD NOT LOOK at log: standalone is not running", "fsck")
	run(2, "COULD NOT LOOK at archive: standalone is not running", "fsck")
	run(0, "not looked at: redis", "fsck", "-skip", "log,archive,redis")
	run(0, "", "parked", "list")
	run(0, "the store's schema is current", "migrate")
	for _, args := range [][]string{{"health"}, {"topics", "check"}, {"parked", "replay"}, {"archive", "fill"}, {"import", "-import.group", "x", export}} {
		run(1, "data.dir: "+dir+": standalone is not running", args...)
	}

	pf.Parts[0].Start() // the lock that commands looked at is free
	pf.Join(t, "carol")
	run(0, "store", "health")
}

func TestTideline_RefusesAFolderThatIsNoInstallation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nowhere")
	for _, args := range [][]string{{"fsck"}, {"migrate"}, {"parked", "list"}} {
		if got := tideline(t, append([]string{"-data.dir", dir}, args...)...); got.code == 0 || !strings.Contains(got.out, "data.dir: "+dir+" is not the data folder of a standalone") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made there: %v", err)
	}
}

func TestStandalone_SaysWhereItsDataIsAndWhenItIsANewInstallation(t *testing.T) {
	platform.Built(t, "standalone") // the Go tool finds it from here
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	started := func() string {
		p := platform.StartProcess(t, "standalone", "TIDELINE_HTTP_ADDR=127.0.0.1:0", "TIDELINE_KAFKA_ADDR=127.0.0.1:0", "TIDELINE_OPS_ADDR=127.0.0.1:0", "TIDELINE_CLICKHOUSE_ADDR=127.0.0.1:0")
		defer p.Terminate()
		return awaitOutput(t, p, "Tideline listens on")
	}
	data := filepath.Join(dir, "data")
	if out := started(); !strings.Contains(out, "New installation in "+data) || !strings.Contains(out, "data in "+data+")") {
		t.Errorf("the first start:\n%s", out)
	}
	if out := started(); strings.Contains(out, "New installation") || !strings.Contains(out, "data in "+data+")") {
		t.Errorf("the second start:\n%s", out)
	}
}

func TestStandalone_NamesTheSettingWhoseAddressIsInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	free := map[string]string{"http.addr": "TIDELINE_HTTP_ADDR=", "kafka.addr": "TIDELINE_KAFKA_ADDR=", "ops.addr": "TIDELINE_OPS_ADDR=", "clickhouse.addr": "TIDELINE_CLICKHOUSE_ADDR="}
	with := func(key string) *platform.Process {
		env := []string{"TIDELINE_DATA_DIR=" + t.TempDir(), "TIDELINE_CLICKHOUSE_LIBRARY=" + servers.ClickHouseLibrary(t)}
		for other, variable := range free {
			addr := "127.0.0.1:0"
			if other == key {
				addr = taken.Addr().String()
			}
			env = append(env, variable+addr)
		}
		platform.Built(t, "chdb")
		return platform.StartProcess(t, "standalone", env...)
	}
	const inUse = "address already in use"
	for _, key := range []string{"http.addr", "kafka.addr", "ops.addr"} {
		p := with(key)
		p.AwaitEnd(30 * time.Second)
		if out := p.Log(); !strings.Contains(out, key+": ") || !strings.Contains(out, inUse) {
			t.Errorf("%s:\n%s", key, out)
		}
	}

	// The archive follows when it can: its address in use ends nothing, and the banner does not promise it.
	p := with("clickhouse.addr")
	banner := awaitOutput(t, p, "Tideline listens on")
	if strings.Contains(banner, "ClickHouse on http") || !strings.Contains(banner, "ClickHouse not reachable yet, clickhouse.addr: ") || !strings.Contains(banner, inUse) {
		t.Errorf("the banner:\n%s", banner)
	}
	awaitOutput(t, p, "the ClickHouse engine is not running")
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, p, "the archive is ready")
}

// awaitOutput waits until a process has printed a text, and returns all that it has printed.
func awaitOutput(t *testing.T, p *platform.Process, text string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		switch out := p.Log(); {
		case strings.Contains(out, text):
			return out
		case p.Ended() || time.Now().After(deadline):
			t.Fatalf("%s has not printed %q:\n%s", p.Name, text, out)
		}
	}
}
