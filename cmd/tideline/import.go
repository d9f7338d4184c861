package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"tideline/internal/config"
	"tideline/internal/importer"
	"tideline/internal/kafka"
	"tideline/pkg/chat"
)

// importExport moves a community in. It fails where something was not numbered, so that scripts see it.
func importExport(ctx context.Context, args []string, out io.Writer) error {
	cfg, kc := importer.DefaultConfig(), kafka.DefaultConfig()
	fromBroker(&kc)
	sections := []config.Section{{Name: "import", Into: &cfg}, {Name: "kafka", Into: &kc}}
	folder := &dataFolder{}
	loaded, err := loadWithArgs("import", args, folder, sections...)
	switch {
	case err != nil:
		return err
	case loaded.PrintVersion:
		return printVersion(ctx, nil, out)
	case loaded.PrintConfig:
		return loaded.Print(out)
	case len(loaded.Args) != 1:
		return errors.New("give the file to import, behind the flags")
	}
	info, err := os.Stderr.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := kc.AdoptPartitions(ctx, "tideline", log); err != nil {
		return err
	}
	report, err := importer.New(cfg, kc, log, os.Stderr, terminal).Run(ctx, loaded.Args[0])
	if err != nil {
		return err
	}
	if err := report.Print(out); err != nil {
		return err
	}
	if err := printShow(out, os.Args[0], folder.Dir, report.Conversation); err != nil {
		return err
	}
	return report.Err()
}

// printShow prints the command that shows the end of what was imported.
func printShow(out io.Writer, program, dir string, group chat.ConversationID) error {
	words := []string{program}
	if dir != "" {
		words = append(words, "-data.dir", dir)
	}
	words = append(words, "tail", group.String())
	for i, word := range words {
		words[i] = shellWord(word)
	}
	_, err := fmt.Fprintln(out, "\nits last ten messages: "+strings.Join(words, " "))
	return err
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:+-]+$`)

// shellWord quotes a word for a shell, where it needs that.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
