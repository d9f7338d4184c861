package importer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	jsonv2 "github.com/go-json-experiment/json"

	"tideline/pkg/chat"
)

// checkpointVersion is the form of the checkpoint file. Version 1 did not note whether a finished run had failed: its runs
// are judged again by what the logs say.
const checkpointVersion = 2

// checkpoint is how far an import is: everything up to Line is acknowledged by Kafka.
type checkpoint struct {
	Version      int                 `json:"version"`
	Source       string              `json:"source"`
	Conversation chat.ConversationID `json:"conversation_id"`
	// Partition is the group's, and MessagesFrom and RejectedFrom are where its logs ended before the first record of this
	// import: the outcomes stand behind them.
	Partition    int32 `json:"partition"`
	MessagesFrom int64 `json:"messages_from"`
	RejectedFrom int64 `json:"rejected_from"`

	Created bool   `json:"created"`
	Joined  int    `json:"joined"` // people, in order of their first line
	Line    int    `json:"line"`
	Sum     string `json:"sum"` // of the export up to Line
	// Last is the inbound offset of the last record that was acknowledged, or -1.
	Last   int64  `json:"last"`
	Counts Counts `json:"counts"`
	// Finished tells that every outcome was seen when the export ended at Line.
	Finished bool `json:"finished"`
	// Failed is what finished runs could not import; nil where nothing was lost.
	Failed *Failure `json:"failed,omitempty"`
}

// Failure is what finished runs of an import could not import.
type Failure struct {
	Rejected int       `json:"rejected"` // commands that were refused for good
	Missing  int       `json:"missing"`  // lines without an outcome
	Refused  []Refused `json:"refused,omitempty"`
}

// Counts says what the lines were.
type Counts struct {
	Messages int `json:"messages"`
	Actions  int `json:"actions"`
	Empty    int `json:"empty"`
	Renames  int `json:"renames"`
	Bad      int `json:"bad"`
}

// Produced gives how many lines became commands.
func (c Counts) Produced() int { return c.Messages + c.Actions + c.Empty }

func (c Counts) least() int { return min(c.Messages, c.Actions, c.Empty, c.Renames, c.Bad) }

// loadCheckpoint reads the file; nil where there is none.
func loadCheckpoint(path, source string) (*checkpoint, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint: %w", err)
	}
	var c checkpoint
	if err := jsonv2.Unmarshal(raw, &c, strict); err != nil {
		return nil, fmt.Errorf("reading the checkpoint %s: %w", path, err)
	}
	switch {
	case c.Version != checkpointVersion && c.Version != 1:
		return nil, fmt.Errorf("the checkpoint %s has version %d, this command knows %d", path, c.Version, checkpointVersion)
	case c.Source != source:
		return nil, fmt.Errorf("the checkpoint %s is of the import %q, this one is %q: name another file with -import.checkpoint", path, c.Source, source)
	case c.Conversation.Kind != chat.KindGroup,
		min(int64(c.Partition), c.MessagesFrom, c.RejectedFrom, int64(c.Joined), int64(c.Line), c.Last+1, int64(c.Counts.least())) < 0:
		return nil, fmt.Errorf("the checkpoint %s is not one that was saved: it names no group, or counts below nothing", path)
	}
	if f := c.Failed; f != nil && (min(f.Rejected, f.Missing) < 0 || f.Rejected+f.Missing == 0 || len(f.Refused) > maxToldLines) {
		return nil, fmt.Errorf("the checkpoint %s is not one that was saved: it notes a failure without a loss", path)
	}
	if c.Version == 1 {
		c.Version, c.Finished = checkpointVersion, false
	}
	return &c, nil
}

// save writes the file so that a crash leaves the old one or the new one.
func (c *checkpoint) save(path string) error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("writing the checkpoint: %w", err)
	}
	return nil
}
