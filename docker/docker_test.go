// Package docker holds what can be known of the image and the compose file where there is no engine to run them.
package docker

import (
	"context"
	"debug/elf"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"tideline/internal/config"
	"tideline/internal/servers"
	"tideline/internal/wiring"
)

func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithProfiles([]string{"*"}), cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatalf("the compose file is not valid: %v", err)
	}
	return p
}

// ours tells whether a service runs our image.
func ours(s types.ServiceConfig) bool { return s.Image == "tideline" }

func prepare(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "secrets")
	if out, err := exec.Command("./prepare", dir).CombinedOutput(); err != nil {
		t.Fatalf("preparing the secrets: %v: %s", err, out)
	}
	return dir
}

func TestServicesAreBoundedAndWatched(t *testing.T) {
	p := project(t)
	pinned := regexp.MustCompile(`^[a-z/-]+:(RELEASE\.)?\d+[.-]\d+[\w.-]*$`)
	for name, s := range p.Services {
		oneShot := name == "topics" || name == "migrate"
		switch {
		case !ours(s) && !pinned.MatchString(s.Image):
			t.Errorf("%s: the image %q has no version", name, s.Image)
		case s.MemLimit == 0:
			t.Errorf("%s may take all memory", name)
		case s.Logging == nil || s.Logging.Options["max-size"] == "":
			t.Errorf("%s may log the disk full", name)
		case s.HealthCheck == nil && !oneShot:
			t.Errorf("nobody sees whether %s is well", name)
		case ours(s) && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})):
			t.Errorf("%s has rights that it does not need", name)
		}
		for _, port := range s.Ports {
			if ip := net.ParseIP(port.HostIP); ip == nil || !ip.IsLoopback() {
				t.Errorf("%s opens port %s to the world", name, port.Published)
			}
		}
		if _, front := s.Networks["front"]; !front && len(s.Ports) > 0 {
			t.Errorf("%s publishes a port from a network that has no way out", name)
		}
	}
	drain := wiring.Defaults().Ops.Drain
	for name, s := range p.Services {
		if ours(s) && (s.StopGracePeriod == nil || drain >= time.Duration(*s.StopGracePeriod)) {
			t.Errorf("%s is killed before it has drained, which may take %s", name, drain)
		}
	}
}

// What the compose file sets is what the commands know: a variable that one of them does not read keeps it from starting.
func TestSettingsAreAccepted(t *testing.T) {
	p, secrets := project(t), prepare(t)
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(secrets, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	sections := map[string]func(*wiring.Settings) []config.Section{
		"ingest": (*wiring.Settings).ForIngest, "timeline": (*wiring.Settings).ForTimeline, "api": (*wiring.Settings).ForAPI, "pusher": (*wiring.Settings).ForPusher,
		"topics": func(s *wiring.Settings) []config.Section { return []config.Section{{Name: "kafka", Into: &s.Kafka}} },
		"migrate": func(s *wiring.Settings) []config.Section {
			return []config.Section{{Name: "store", Into: &s.Store}, {Name: "archive", Into: &s.Archive}}
		},
	}
	for name, of := range sections {
		t.Run(name, func(t *testing.T) {
			service, ok := p.Services[name]
			if !ok {
				t.Fatal("is no service")
			}
			var environ []string
			for key, value := range service.Environment {
				if file, ok := strings.CutPrefix(*value, "/run/secrets/"); ok {
					if !slices.ContainsFunc(service.Secrets, func(s types.ServiceSecretConfig) bool { return s.Source == file }) {
						t.Errorf("%s names a secret that the service does not get", key)
					}
					*value = filepath.Join(secrets, file)
				}
				environ = append(environ, key+"="+*value)
			}
			s := wiring.Defaults()
			if _, err := config.Load(name, nil, environ, io.Discard, of(s)...); err != nil {
				t.Fatal(err)
			}
			if dsn := s.Store.DSN.Reveal(); name != "topics" && dsn != "tideline:"+read("mysql_password")+"@tcp(mysql:3306)/tideline" {
				t.Errorf("the store is somewhere else than MySQL: %s", s.Store.DSN)
			}
			if name != "migrate" && !slices.Equal(s.Kafka.Brokers, []string{"kafka:19092"}) {
				t.Errorf("the log is somewhere else than Kafka: %v", s.Kafka.Brokers)
			}
			if addr := s.Archive.Addr.Reveal(); (name == "migrate" || name == "timeline") && !strings.Contains(addr, read("clickhouse_password")+"@clickhouse:9000/") {
				t.Errorf("the archive is somewhere else than ClickHouse: %s", s.Archive.Addr)
			}
		})
	}
}

func TestSecretsAreKept(t *testing.T) {
	p, dir := project(t), prepare(t)
	before := map[string]string{}
	for name, s := range p.Secrets {
		if s.File != filepath.Join(p.WorkingDir, "secrets", name) {
			t.Errorf("%s comes from %s, where nothing puts it", name, s.File)
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("nothing makes %s: %v", name, err)
		}
		if before[name] = string(raw); len(strings.TrimSpace(before[name])) < 64 {
			t.Errorf("%s can be guessed: %d bytes", name, len(raw))
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is open to others: %v, %v", info.Mode(), err)
	}
	if out, err := exec.Command("./prepare", dir).CombinedOutput(); err != nil {
		t.Fatalf("preparing again: %v: %s", err, out)
	}
	for name, was := range before {
		if raw, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(raw) != was {
			t.Errorf("%s was made anew: what it protects is lost", name)
		}
	}
}

func TestKafkaIsTheOneOfTheTests(t *testing.T) {
	kafka := project(t).Services["kafka"]
	if want := "apache/kafka:" + servers.KafkaVersion; kafka.Image != want {
		t.Errorf("the image is %s, the tests run %s", kafka.Image, want)
	}
	for line := range strings.Lines(servers.KafkaSettings) {
		key, want, _ := strings.Cut(strings.TrimSpace(line), "=")
		name := "KAFKA_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if got := kafka.Environment[name]; got == nil || *got != want {
			t.Errorf("%s is not %q", name, want)
		}
	}
}

// The build line of the Dockerfile, run as it stands there, makes every command, and each is what the last stage can run.
func TestImageHasEveryCommand(t *testing.T) {
	raw, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	file := string(raw)
	install, err := os.ReadFile("../scripts/install-go")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version=(.+)$`).FindSubmatch(install)
	if version == nil || !strings.Contains(file, "FROM golang:"+string(version[1])+"-") {
		t.Errorf("the image is not built with the Go %s of scripts/install-go", version)
	}
	if testing.Short() {
		t.Skip("building everything takes a minute")
	}
	line := regexp.MustCompile(`(?m)^RUN (.*go build.*)$`).FindStringSubmatch(file)
	if line == nil || !strings.Contains(line[1], " /out/ ") {
		t.Fatal("the Dockerfile has no line that builds into /out/")
	}
	out := t.TempDir() + "/"
	build := exec.Command("sh", "-c", strings.Replace(line[1], " /out/ ", " "+out+" ", 1))
	build.Dir = ".."
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line[1], err, said)
	}
	commands, err := os.ReadDir("../cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		program, err := elf.Open(out + c.Name())
		if err != nil {
			t.Errorf("%s is not in the image: %v", c.Name(), err)
			continue
		}
		dynamic := slices.ContainsFunc(program.Progs, func(s *elf.Prog) bool { return s.Type == elf.PT_INTERP })
		if dynamic != (c.Name() == "chdb") {
			t.Errorf("%s: dynamically linked: %t", c.Name(), dynamic)
		}
		_ = program.Close()
	}
	for name, s := range project(t).Services {
		if !ours(s) {
			continue
		}
		for _, program := range []string{s.Command[0], healthCommand(s)} {
			if _, err := os.Stat(out + program); err != nil {
				t.Errorf("%s runs what the image does not have: %v", name, err)
			}
		}
	}
}

// healthCommand is the program that looks after a service, or the service's own.
func healthCommand(s types.ServiceConfig) string {
	if s.HealthCheck == nil {
		return s.Command[0]
	}
	return s.HealthCheck.Test[1]
}
