package embedded

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
)

// Clients of other languages, with their default settings, send, read what is public in groups of their own, and are
// refused what is not. What each prints is compared line by line.
func TestGuard_ClientsOfOtherLanguages(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	installed := func(pattern string) string {
		found, _ := filepath.Glob(filepath.Join(root, ".tools", pattern))
		if len(found) == 0 {
			return ""
		}
		return found[len(found)-1]
	}
	clients := map[string]struct {
		needs string
		cmd   func(needs, addr string) *exec.Cmd
		want  []string
	}{
		"java": {installed("kafka-*/lib"), func(lib, addr string) *exec.Cmd {
			return exec.Command("java", "-Xmx128m", "-cp", filepath.Join(lib, "*"), "clients/Client.java", addr)
		}, []string{"sent ", "refused TopicAuthorizationException", "classic read 1", "consumer read 1", "refused TopicAuthorizationException", "topics [im.inbound, im.messages, im.receipts, im.rejected]"}},
		"kafkajs": {installed("kafkajs-*"), func(dir, addr string) *exec.Cmd {
			cmd := exec.Command("node", "clients/client.js", addr)
			cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING=1")
			return cmd
		}, []string{"sent ", "refused TOPIC_AUTHORIZATION_FAILED", "read im.messages ", "read im.rejected "}},
		"kafka-python": {installed("kafka-python-*"), func(dir, addr string) *exec.Cmd {
			cmd := exec.Command("python3", "clients/client.py", addr)
			cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
			return cmd
		}, []string{"sent ", "refused TopicAuthorizationFailedError", "read im.messages ", "read im.rejected "}},
		"librdkafka": {which("kcat"), func(kcat, addr string) *exec.Cmd {
			return exec.Command("sh", "-c", `echo hello | "$0" -b "$1" -P -t im.inbound -p 0 && echo sent && "$0" -b "$1" -q -G kcat -o beginning -c 1 -f 'read %o\n' im.rejected`, kcat, addr)
		}, []string{"sent", "read "}},
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if client.needs == "" {
				if os.Getenv("TIDELINE_REQUIRE_SERVERS") != "" {
					t.Fatalf("%s is required and not there (scripts/install-servers installs it)", name)
				}
				t.Skipf("%s is not here (scripts/install-servers installs it)", name)
			}
			broker, cfg := startGuarded(t)
			ours, err := cfg.NewOwnerProducer("tests", "", quiet)
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			// As ingest writes them, and long enough to be compressed.
			value := bytes.Repeat([]byte("x"), 1000)
			for _, topic := range []string{kafka.TopicMessages, kafka.TopicRejected} {
				if err := ours.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			cmd := client.cmd(client.needs, broker.Addr())
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

func which(program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	return path
}
