// Command tideline is the operators' command: it prepares what the processes need, and looks after what they leave.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"tideline/internal/archive"
	"tideline/internal/config"
	"tideline/internal/kafka"
	"tideline/internal/sqlstore"
	"tideline/internal/version"
	"tideline/internal/wiring"
)

// command is one thing that operators do.
type command struct {
	words string // as it is typed
	help  string
	run   func(ctx context.Context, args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{"migrate", "bring the schemas of the store and, where one is set, of the archive to what this binary knows", migrate},
		{"topics create", "create the topics that are missing, and check those that are there", topics(true)},
		{"topics check", "check the topics against the settings", topics(false)},
		{"import", "move a community in: read a chat export and produce what was said (see docs/import.md)", importExport},
		{"tail", "print the last ten messages of a conversation, from the store", tailConversation},
		{"archive fill", "make the archive's messages anew from the store, while no archiver runs", fillArchive},
		{"parked list", "list the records that the store could never take", listParked},
		{"parked replay", "try each of them again: what can be stored now is put where it belongs", replayParked},
		{"parked drop", "remove one of them for good, named by topic, partition and offset: a record that no version can apply", dropParked},
		{"fsck", "go through the stores and the log and report every promise that is broken (see docs/fsck.md); changes nothing", checkAll},
		{"health", "ask the process behind ops.addr whether it is ready", health},
		{"version", "print the version of this build", printVersion},
	}
}

// codedError is an error of a command whose exit codes say more than that it failed.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitUsage is the code for a command line that names no command.
const exitUsage = 2

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	// The data folder can be named once in front of the command; what is behind the command goes before it.
	front, showVersion := &dataFolder{}, false
	flags := flag.NewFlagSet("tideline", flag.ContinueOnError)
	flags.StringVar(&front.Dir, "data.dir", "", "")
	flags.BoolVar(&showVersion, "version", false, "")
	flags.Usage = func() { usage(out) }
	switch err := config.ParseFlags(flags, args, errOut); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "tideline: %v\n", err)
		return exitUsage
	case showVersion:
		_, _ = fmt.Fprintln(out, version.Line("tideline"))
		return 0
	}
	args = flags.Args()
	if len(args) == 0 {
		usage(errOut)
		return exitUsage
	}
	for _, c := range commands() {
		words := strings.Fields(c.words)
		if len(args) < len(words) || !slices.Equal(args[:len(words)], words) {
			continue
		}
		args = args[len(words):]
		if front.Dir != "" {
			args = append([]string{"-data.dir", front.Dir}, args...)
		}
		err := c.run(ctx, args, out)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case err != nil:
			_, _ = fmt.Fprintf(errOut, "tideline %s: %v\n", c.words, err)
			if coded := (*codedError)(nil); errors.As(err, &coded) {
				return coded.code
			}
			return 1
		}
		return 0
	}
	_, _ = fmt.Fprintf(errOut, "tideline: unknown command %q%s (-h lists the commands)\n", strings.Join(args[:min(2, len(args))], " "), meant(args))
	return exitUsage
}

// meant returns what to say of the commands that an unknown one may mean: those that begin with its first word, or the
// nearest one.
func meant(args []string) string {
	var begun, known []string
	for _, c := range commands() {
		known = append(known, c.words)
		if first, _, several := strings.Cut(c.words, " "); several && first == args[0] {
			begun = append(begun, c.words)
		}
	}
	if len(begun) > 0 {
		return "; known are " + strings.Join(begun, " and ")
	}
	for _, words := range []string{args[0], strings.Join(args[:min(2, len(args))], " ")} {
		if near := config.Nearest(words, known); near != "" {
			return "; did you mean " + near + "?"
		}
	}
	return ""
}

func usage(w io.Writer) {
	_, _ = fmt.Fprint(w, "usage: tideline [-data.dir folder] <command> [flags]\n\ncommands; -h behind one lists its flags:\n")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(w, "  %-16s %s\n", c.words, c.help)
	}
	_, _ = fmt.Fprint(w, "\n-data.dir names the data folder of a standalone on this machine: a command finds addresses, files and credentials there.\nEverything else is set with flags, TIDELINE_ variables or a file (-config).\n")
}

func printVersion(_ context.Context, args []string, out io.Writer) error {
	// No setting matters here, so that none can be wrong.
	switch loaded, err := config.Load("tideline version", args, nil, os.Stderr); {
	case err != nil:
		return err
	case len(loaded.Args) > 0:
		return fmt.Errorf("takes no arguments, and %q was given", loaded.Args)
	}
	_, err := fmt.Fprintln(out, version.Line("tideline"))
	return err
}

// load reads settings for a command, those that nothing sets from the data folder where one is named. printed reports that
// the command has nothing left to do.
func load(name string, args []string, out io.Writer, folder *dataFolder, sections ...config.Section) (printed bool, err error) {
	loaded, err := loadWithArgs(name, args, folder, sections...)
	switch {
	case err != nil:
		return false, err
	case loaded.PrintVersion:
		return true, printVersion(context.Background(), nil, out)
	case loaded.PrintConfig:
		return true, loaded.Print(out)
	case len(loaded.Args) > 0:
		return false, fmt.Errorf("takes no arguments, and %q was given", loaded.Args)
	}
	return false, nil
}

// loadWithArgs is load for a command that takes arguments behind its flags.
func loadWithArgs(name string, args []string, folder *dataFolder, sections ...config.Section) (*config.Loaded, error) {
	sections = append([]config.Section{{Into: folder}}, sections...)
	return config.Load("tideline "+name, args, ours(os.Environ(), sections), os.Stderr, sections...)
}

// ours keeps the variables of the sections that a command reads: operators set those of all processes side by side.
func ours(environ []string, sections []config.Section) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if name == "TIDELINE_CONFIG" || name == "TIDELINE_DATA_DIR" {
			out = append(out, kv)
		}
		for _, s := range sections {
			if s.Name == "" {
				continue // given by hand, with each call
			}
			if strings.HasPrefix(name, "TIDELINE_"+strings.ToUpper(s.Name)+"_") {
				out = append(out, kv)
			}
		}
	}
	return out
}

func openStore(ctx context.Context, name string, args []string, out io.Writer) (*sqlstore.Store, error) {
	cfg := sqlstore.DefaultConfig()
	printed, err := load(name, args, out, &dataFolder{stoppedToo: true}, config.Section{Name: "store", Into: &cfg})
	switch {
	case err != nil:
		return nil, err
	case printed:
		return nil, flag.ErrHelp // nothing is left to do
	}
	return sqlstore.Open(ctx, cfg)
}

func migrate(ctx context.Context, args []string, out io.Writer) error {
	s := wiring.Defaults()
	printed, err := load("migrate", args, out, &dataFolder{stoppedToo: true}, config.Section{Name: "store", Into: &s.Store}, config.Section{Name: "archive", Into: &s.Archive})
	if err != nil || printed {
		return err
	}
	store, err := sqlstore.Open(ctx, s.Store)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	if _, err = fmt.Fprintln(out, "the store's schema is current"); err != nil {
		return err
	}
	addr := s.Archive.Addr.Reveal()
	if addr == "" {
		return nil
	}
	if err := archive.Migrate(ctx, addr); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "the archive's schema is current")
	return err
}

// fromBroker makes a command ask the brokers for the partition count where nothing sets it.
func fromBroker(cfg *kafka.Config) { cfg.Partitions, cfg.FromBroker = 0, true }

func topics(create bool) func(ctx context.Context, args []string, out io.Writer) error {
	return func(ctx context.Context, args []string, out io.Writer) error {
		cfg := kafka.DefaultConfig()
		if printed, err := load("topics", args, out, &dataFolder{}, config.Section{Name: "kafka", Into: &cfg}); err != nil || printed {
			return err
		}
		cl, err := cfg.NewAdmin("tideline", slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			return err
		}
		defer cl.Close()
		do := kafka.CheckTopics
		if create {
			do = kafka.EnsureTopics
		}
		if err := do(ctx, cl, cfg); err != nil {
			return err
		}
		for _, t := range kafka.Topics() {
			if _, err := fmt.Fprintf(out, "%-12s %d partitions, kept for %s: %s\n", t.Name, cfg.Partitions, t.Retention, t.Why); err != nil {
				return err
			}
		}
		return nil
	}
}
