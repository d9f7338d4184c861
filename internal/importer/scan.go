package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"tideline/pkg/chat"
)

// BadLine is a line that cannot be imported.
type BadLine struct {
	Number int
	Reason string
}

// maxToldLines bounds how many lines a report names.
const maxToldLines = 10

// scan is what a first reading of the export found.
type scan struct {
	people  []string // names of senders, in order of their first line
	lines   int
	firstAt int64
	bad     int
	told    []BadLine // the first of the bad ones
	sum     string    // of everything up to the line that was asked for; "" where the export is shorter
}

// scanExport reads an export once, before anything is produced: who spoke, and whether every line can be imported. It
// notes the digest up to line at.
func scanExport(ctx context.Context, cfg Config, path string, at int) (*scan, error) {
	e, err := openExport(path)
	if err != nil {
		return nil, err
	}
	defer e.close()
	s := &scan{}
	if at == 0 {
		s.sum = e.sum()
	}
	known := map[string]bool{}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, kind, err := readLine(e, cfg)
		if errors.Is(err, io.EOF) {
			break
		}
		if e.number == at {
			s.sum = e.sum()
		}
		switch kind {
		case lineFailed:
			return nil, err
		case lineBad:
			s.bad++
			if len(s.told) < maxToldLines {
				s.told = append(s.told, BadLine{e.number, err.Error()})
			}
		case lineSaid:
			if s.firstAt == 0 {
				s.firstAt = l.at
			}
			if !known[l.sender] {
				known[l.sender] = true
				s.people = append(s.people, l.sender)
			}
		}
	}
	s.lines = e.number
	return s, s.judge(cfg)
}

// judge refuses an export that cannot be imported as it is.
func (s *scan) judge(cfg Config) error {
	if s.bad > 0 && !cfg.SkipBad {
		var b strings.Builder
		for _, l := range s.told {
			fmt.Fprintf(&b, "\n  line %d %s", l.Number, l.Reason)
		}
		return fmt.Errorf("%d lines cannot be imported; -import.skip-bad leaves them out:%s", s.bad, b.String())
	}
	if len(s.people) == 0 {
		return errors.New("nobody says anything in this export")
	}
	if most := chat.MaxGroupMembers - 1; len(s.people) > most {
		return fmt.Errorf("%d people speak in this export, a group takes %d besides its owner: divide the export", len(s.people), most)
	}
	return nil
}

// lineFate is what becomes of a line.
type lineFate int

const (
	lineFailed  lineFate = iota // the export cannot be read on
	lineBad                     // it cannot be imported
	lineNothing                 // blank
	lineRenamed                 // skipped, because names are not events here
	lineSaid                    // a message
)

// readLine reads a line and judges it. The error says why it failed or is bad.
func readLine(e *export, cfg Config) (line, lineFate, error) {
	raw, err := e.next()
	switch {
	case errors.Is(err, errLineTooLong):
		return line{}, lineBad, err
	case err != nil:
		return line{}, lineFailed, err
	case len(raw) == 0:
		return line{}, lineNothing, nil
	}
	l, err := parseLine(raw)
	switch {
	case err != nil:
		return line{}, lineBad, err
	case l.kind == kindRenamed:
		return l, lineRenamed, nil
	case len(cfg.PeoplePrefix)+len(l.sender) > maxExternalID:
		return line{}, lineBad, fmt.Errorf("has a sender of %d bytes; %d are possible with the prefix", len(l.sender), maxExternalID)
	}
	if _, err := l.message(); err != nil {
		return line{}, lineBad, err
	}
	return l, lineSaid, nil
}
