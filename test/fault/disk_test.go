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

// Everything of standalone is on one disk: its log of commands, its log of messages, its store and its archive. Whichever of them finds
// no room first, what was answered is there, the rest is refused, and all of it goes on when there is room again. Should
// the process have ended, it is started again, as whatever supervises it would.
func TestFault_TheDiskUnderStandaloneIsFull(t *testing.T) {
	onlyInFull(t)
	dir := smallDisk(t, 400)
	c := alone(t, filepath.Join(dir, "data"))
	for range 3 {
		c.For(c.moment(2*time.Second, 4*time.Second))
		f := c.Break("the disk under standalone is full")
		free := fill(t, dir)
		c.For(c.moment(8*time.Second, 12*time.Second))
		free()
		for range 20 { // if it ends, then with what it found while there was no room
			if c.Parts[0].Ended() {
				t.Log("it had ended")
				c.Parts[0].Start()
			}
			c.For(100 * time.Millisecond)
		}
		c.Mended(f, 2*allowed)
	}
	f := c.Break("kill -9 of standalone") // what it has written since the disk was full can be read
	c.Restart()
	c.Mended(f, allowed)
	c.For(2 * time.Second)
	c.end()
}
