package importer

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"tideline/internal/config"
	"tideline/pkg/chat"
)

// Config says what is imported and how. Keys begin with import.
type Config struct {
	API            string        `conf:"api" help:"address of the api, such as http://127.0.0.1:8080"`
	AdminToken     config.Secret `conf:"admin-token" help:"the administrators' token of the api"`
	Group          string        `conf:"group" help:"name of the group that is made"`
	HistoryVisible bool          `conf:"history-visible" help:"members who join later may read what was imported"`
	Source         string        `conf:"source" help:"name of this import; the ids of its messages follow from it; empty for the file's name"`
	PeoplePrefix   string        `conf:"people-prefix" help:"stands before a sender's name in the external_id"`
	Importer       string        `conf:"importer" help:"external_id of the import's own user, which owns the group where import.owner is empty"`
	Owner          string        `conf:"owner" help:"username of an account that owns the group, and so sees what was imported"`
	Checkpoint     string        `conf:"checkpoint" help:"file that notes how far the import is; empty for the export's name with .checkpoint"`
	Batch          int           `conf:"batch" help:"lines that are produced together"`
	MaxLag         int64         `conf:"max-lag" help:"records that may wait in a partition before the import pauses; it goes on at half of it"`
	SkipBad        bool          `conf:"skip-bad" help:"leave out lines that cannot be imported, instead of refusing the file"`
	Patience       time.Duration `conf:"patience" help:"how long nothing may move before the import gives up"`
}

// DefaultConfig suits both a cluster and standalone.
func DefaultConfig() Config {
	return Config{
		API: "http://127.0.0.1:8080",
		// People who join after the move would otherwise find an empty room.
		HistoryVisible: true,
		PeoplePrefix:   "import:",
		Importer:       "tideline-importer",
		// One checkpoint, and one wait for the brokers, for each; a thousand lines are far above what both cost.
		Batch: 1000,
		// Live senders are told to come back at 50,000 (20,000 in standalone); the import must stop well before that.
		MaxLag:   10_000,
		Patience: 5 * time.Minute, // a broker's restart or a slow takeover pass
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if u, err := url.Parse(c.API); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		faults = append(faults, fmt.Errorf("import.api is %q, not an http or https address", c.API))
	}
	if c.AdminToken.Reveal() == "" {
		faults = append(faults, errors.New("import.admin-token is empty; TIDELINE_IMPORT_ADMIN_TOKEN_FILE can name a file that holds it"))
	}
	if err := chat.ValidateName("import.group", c.Group); err != nil {
		faults = append(faults, err)
	}
	if c.Importer == "" || len(c.Importer) > maxExternalID {
		faults = append(faults, fmt.Errorf("import.importer has not 1 to %d bytes", maxExternalID))
	}
	if c.Batch < 1 || c.Batch > 10_000 {
		faults = append(faults, fmt.Errorf("import.batch is %d, 1 to 10000 are possible", c.Batch))
	}
	if c.MaxLag < 2 {
		faults = append(faults, fmt.Errorf("import.max-lag is %d, at least 2 is needed", c.MaxLag))
	}
	if c.Patience < time.Second {
		faults = append(faults, fmt.Errorf("import.patience is %s, at least 1s is needed", c.Patience))
	}
	return errors.Join(faults...)
}

// forFile fills in what follows from the file's name.
func (c Config) forFile(path string) Config {
	if c.Source == "" {
		c.Source = filepath.Base(path)
	}
	if c.Checkpoint == "" {
		c.Checkpoint = path + ".checkpoint"
	}
	return c
}
