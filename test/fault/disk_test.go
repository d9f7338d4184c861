package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// smallDisk gives a folder on a disk of some megabytes of its own. It takes the rights of root to make one.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatalf("a small disk cannot be made: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("letting go of a small disk: %v", err)
		}
	})
	return dir
}

// fill takes what is left of a disk, and gives a function that gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// A broker whose disk is full stops; what supervises it starts it again, and that is all that is done by hand.
func TestFault_TheDiskUnderTheBrokerIsFull(t *testing.T) {
	onlyInFull(t)
	dir := smallDisk(t, 400)
	kafka := servers.StartKafkaIn(t, dir)
	c := begin(t, platform.Setup{Kafka: kafka})
	c.For(2 * time.Second)
	f := c.Break("the disk under the broker is full")
	free := fill(t, dir)
	for end := time.Now().Add(30 * time.Second); !kafka.Ended() && time.Now().Before(end); {
		c.For(100 * time.Millisecond)
	}
	c.For(3 * time.Second) // sends are refused, or wait
	free()
	kafka.Restart()
	c.Mended(f, 2*allowed)
	c.For(3 * time.Second)
	c.end()
}

// A database whose disk is full refuses; when there is room again it goes on, and nobody does anything.
func TestFault_TheDiskUnderMySQLIsFull(t *testing.T) {
	onlyInFull(t)
	dir := smallDisk(t, 500)
	c := begin(t, platform.Setup{MySQL: servers.StartMySQLIn(t, dir)})
	c.For(2 * time.Second)
	f := c.Break("the disk under MySQL is full")
	free := fill(t, dir)
	c.For(15 * time.Second)
	free()
	if c.MySQLServer.Ended() {
		c.MySQLServer.Restart()
	}
	c.Mended(f, 2*allowed)
	c.For(3 * time.Second)
	c.end()
}
