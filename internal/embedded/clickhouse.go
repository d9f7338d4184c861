package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ClickHouse is the ClickHouse engine in a process of its own. It is begun again when it dies; what it has answered is on
// the disk.
type ClickHouse struct {
	binary, library, dir, addr string
	owner, reader              string // passwords
	log                        *slog.Logger
}

// ErrNoClickHouse means that the library or the program that serves it is not installed.
var ErrNoClickHouse = errors.New("the ClickHouse engine is not installed")

// FindClickHouse looks for the library, unless one is named, and for the program chdb beside this one. It starts nothing.
// The owner's password is for the archiver, the reader's for analysts.
func FindClickHouse(library, dir, addr, owner, reader string, log *slog.Logger) (*ClickHouse, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	binary := filepath.Join(filepath.Dir(self), "chdb")
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: there is no program %s", ErrNoClickHouse, binary)
	}
	if library == "" {
		library = findLibrary(filepath.Dir(self))
	}
	if library == "" {
		return nil, fmt.Errorf("%w: libchdb.so was not found (`make chdb` fetches it)", ErrNoClickHouse)
	}
	if library, err = filepath.Abs(library); err != nil {
		return nil, fmt.Errorf("finding the library: %w", err)
	}
	if _, err := os.Stat(library); err != nil {
		return nil, fmt.Errorf("%w: there is no %s (clickhouse.library)", ErrNoClickHouse, library)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.addr: %w", err)
	}
	if port == "0" { // it must be the same after the engine was begun again
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("clickhouse.addr: looking for a free port: %w", err)
		}
		addr = net.JoinHostPort(host, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		_ = l.Close()
	}
	return &ClickHouse{binary: binary, library: library, dir: dir, addr: addr, owner: owner, reader: reader, log: log}, nil
}

// findLibrary looks for the library where `make chdb` puts it, in the working folder and above the folder of the program
// (which is bin), then beside the program and where systems keep libraries. It returns "" where there is none.
func findLibrary(programFolder string) string {
	for _, pattern := range []string{
		".tools/chdb-*/libchdb.so", filepath.Join(programFolder, "..", ".tools/chdb-*/libchdb.so"), filepath.Join(programFolder, ".tools/chdb-*/libchdb.so"),
		filepath.Join(programFolder, "libchdb.so"), "/usr/local/lib/libchdb.so", "/usr/lib/libchdb.so",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

// CheckAddr reports why the engine's address cannot be listened on, or nil. The error names the setting. Another program may
// take the address at any time, so that this is for people and logs only.
func (c *ClickHouse) CheckAddr() error {
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		return fmt.Errorf("clickhouse.addr: %w", err)
	}
	return l.Close()
}

// Addr tells where its HTTP interface is.
func (c *ClickHouse) Addr() string { return c.addr }

// DSN returns the address of a database with the owner's password in it.
func (c *ClickHouse) DSN(database string) string {
	return (&url.URL{Scheme: "http", Host: c.addr, User: url.UserPassword("default", c.owner), Path: "/" + database}).String()
}

// Pauses before the engine is begun again.
const (
	leastPause = 500 * time.Millisecond
	mostPause  = 30 * time.Second
	// endWait is how long the engine may take to end.
	endWait = 15 * time.Second
)

// Run keeps the engine running until the context ends, and then ends it in order.
func (c *ClickHouse) Run(ctx context.Context) error {
	for pause := leastPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		began := time.Now()
		err := c.CheckAddr()
		if err == nil {
			err = c.once(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			pause = leastPause
		}
		c.log.Error("the ClickHouse engine is not running; it is started again after the pause, and nothing is archived meanwhile", "err", err, "pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (c *ClickHouse) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.binary)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endWait
	// The passwords are in the environment, which only this user can read, and not among the arguments, which all can.
	cmd.Env = []string{
		"HOME=" + c.dir, "TMPDIR=" + os.TempDir(), "TIDELINE_CHDB_LIBRARY=" + c.library, "TIDELINE_CHDB_DATA_DIR=" + c.dir, "TIDELINE_CHDB_ADDR=" + c.addr,
		"TIDELINE_CHDB_PASSWORD=" + c.owner, "TIDELINE_CHDB_READER_PASSWORD=" + c.reader, "TIDELINE_CHDB_WITH_PARENT=true",
	}
	// The engine ends when its standard input does: the kernel closes it, whatever has ended this process.
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("preparing the engine: %w", err)
	}
	defer func() { _ = lifeline.Close() }()
	cmd.Stderr = os.Stderr
	// Signals that people type at this process are not meant for it: it ends after the archiver has.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	return cmd.Wait()
}
