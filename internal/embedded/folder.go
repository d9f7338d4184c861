package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Names in the data folder of standalone. The store's file is in every installation that has started once.
const (
	StoreFile        = "tideline.db"
	BrokerFolder     = "kafka"
	ClickHouseFolder = "clickhouse"
	AdminToken       = "admin-token"
	RedisPassword    = "redis-password"
	// ClickHouseOwnerPassword is the archiver's; ClickHousePassword is the readers', which analysts have.
	ClickHouseOwnerPassword = "clickhouse-owner-password"
	ClickHousePassword      = "clickhouse-password"
	// SecretFile is the password of the broker's user User. It lets a connection do everything.
	SecretFile = "kafka-password"

	lockFile  = "lock"
	reachFile = "reach.json"
)

// secretFiles are the settings that are kept as files of their own in the data folder, and not in reach.json.
var secretFiles = map[string]string{"import.admin-token": AdminToken, "kafka.password": SecretFile, "redis.password": RedisPassword}

// Reach is how commands reach the standalone of a data folder: settings by their keys, without secrets. It is kept in the
// folder, so that a command needs to know nothing else.
type Reach struct {
	// Topics holds what topics were made with. It is true of a stopped installation, too.
	Topics map[string]string `json:"topics"`
	// Addresses holds where the running process listens. It is empty until all of its listeners are open.
	Addresses map[string]string `json:"addresses,omitempty"`
}

// Write keeps the reach in the folder.
func (r Reach) Write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", reachFile, err)
	}
	return WriteFile(filepath.Join(dir, reachFile), string(text)+"\n")
}

func readReach(dir string) (r Reach, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, reachFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("reading %s: %w", filepath.Join(dir, reachFile), err)
	}
	return r, nil
}

// ForgetAddresses removes the addresses of the process before this one, which are no longer those of this installation.
func ForgetAddresses(dir string) error {
	r, err := readReach(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	r.Addresses = nil
	return r.Write(dir)
}

// WriteFile replaces a file of the data folder, readable by this user only. A kill leaves the old content or the new one.
func WriteFile(path, text string) error {
	aside := path + ".new"
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// ErrNotRunning means that the standalone of a data folder does not run, or has not opened its listeners yet.
var ErrNotRunning = errors.New("standalone is not running")

// Folder is what a command has found in a data folder.
type Folder struct {
	// Dir is the absolute path.
	Dir string
	// Settings are by their keys. They include secrets.
	Settings map[string]string
	// Running reports whether a standalone runs on the folder, with its addresses among the settings.
	Running bool
	// Archived reports whether the installation has an archive, be it reachable or not.
	Archived bool
}

// OpenFolder finds the settings of a standalone in its data folder. It changes nothing there.
func OpenFolder(dir string) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	store := filepath.Join(dir, StoreFile)
	if _, err := os.Stat(store); err != nil {
		return nil, fmt.Errorf("data.dir: %s is not the data folder of a standalone: %w", dir, err)
	}
	r, err := readReach(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("data.dir: %s has no %s; start its standalone once with this version", dir, reachFile)
	} else if err != nil {
		return nil, err
	}
	locked, err := locked(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{Dir: dir, Settings: map[string]string{"store.driver": "sqlite", "store.path": store}, Running: locked && len(r.Addresses) > 0}
	maps.Copy(f.Settings, r.Topics)
	if _, err := os.Stat(filepath.Join(dir, ClickHouseFolder)); err == nil {
		f.Archived = true
	}
	if !f.Running {
		return f, nil
	}
	for key, addr := range r.Addresses {
		f.Settings[key] = addr
	}
	for key, name := range secretFiles {
		secret, err := readSecret(dir, name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the administrators' token may be a setting of the standalone instead
		}
		if err != nil {
			return nil, err
		}
		f.Settings[key] = secret
	}
	if addr := f.Settings["archive.addr"]; addr != "" {
		password, err := readSecret(dir, ClickHouseOwnerPassword)
		if err != nil {
			return nil, err
		}
		u, err := url.Parse(addr)
		if err != nil {
			return nil, fmt.Errorf("reading archive.addr of %s: %w", reachFile, err)
		}
		u.User = url.UserPassword("default", password)
		f.Settings["archive.addr"] = u.String()
	}
	return f, nil
}

func readSecret(dir, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("reading a secret of the data folder: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// locked reports whether a process holds the data folder. It takes the lock for an instant where it is free; Lock waits
// longer than that.
func locked(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("opening the lock: %w", err)
	}
	defer func() { _ = f.Close() }()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("looking at the lock of %s: %w", dir, err)
	}
	return false, nil
}

// Dialled turns an address that a process listens on into one that reaches it from the same machine.
func Dialled(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}
