package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"tideline/internal/config"
	"tideline/internal/importer"
	"tideline/internal/kafka"
)

// importExport moves a community in. It fails where something was not numbered, so that scripts see it.
func importExport(ctx context.Context, args []string, out io.Writer) error {
	cfg, kc := importer.DefaultConfig(), kafka.DefaultConfig()
	fromBroker(&kc)
	sections := []config.Section{{Name: "import", Into: &cfg}, {Name: "kafka", Into: &kc}}
	loaded, err := loadWithArgs("import", args, &dataFolder{}, sections...)
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
	return report.Err()
}
