package archive

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/pressly/goose/v3"

	"tideline/internal/config"
	clickhouseschema "tideline/schemas/clickhouse"
)

// Config says where ClickHouse is and how much goes there at once. Keys begin with archive.
type Config struct {
	Addr   config.Secret `conf:"addr" help:"clickhouse://user:password@host:9000/tideline, or http://…:8123/tideline; empty: nothing is archived"`
	Batch  int           `conf:"batch" help:"records of a partition that are inserted together at most"`
	Refill string        `conf:"refill" help:"what is done at the start about rows that the archive had and has lost: report says it, auto fills their partitions again from the store"`
	Linger time.Duration `conf:"linger" help:"least time between two inserts of a partition that keeps up: shorter means more parts to merge"`
}

// DefaultConfig archives nothing.
func DefaultConfig() Config {
	return Config{
		Batch: 20_000, // a few megabytes of rows
		// Filling forgets what is left of a partition, and reads all of its history from the store: on a cluster operators say when.
		Refill: refillReport,
		// A part costs ClickHouse some 20 ms of CPU with its merges, however small it is: 8 partitions make 8 a second for each
		// table at most. What was recalled stands in the archive for at least as long as this after the answer.
		Linger: time.Second,
	}
}

// Validate lists every fault.
func (c *Config) Validate() error {
	var faults []error
	if addr := c.Addr.Reveal(); addr != "" {
		if _, err := options(addr); err != nil {
			faults = append(faults, err)
		}
	}
	if c.Batch < 1 || c.Batch > 1_000_000 {
		faults = append(faults, fmt.Errorf("archive.batch is %d, 1 to 1000000 are possible", c.Batch))
	}
	if c.Refill != refillReport && c.Refill != refillAuto {
		faults = append(faults, fmt.Errorf("archive.refill is %q, report and auto are possible", c.Refill))
	}
	if c.Linger < 0 || c.Linger > time.Minute {
		faults = append(faults, fmt.Errorf("archive.linger is %s, 0 to 1m are possible", c.Linger))
	}
	return errors.Join(faults...)
}

const defaultDatabase = "tideline"

func options(addr string) (*clickhouse.Options, error) {
	o, err := clickhouse.ParseDSN(addr)
	if err != nil {
		return nil, errors.New("archive.addr is not of the form clickhouse://user:password@host:port/database") // without the secret
	}
	if o.Auth.Database == "" {
		o.Auth.Database = defaultDatabase
	}
	o.DialTimeout = 3 * time.Second
	// A mutation rewrites parts and is waited for.
	o.ReadTimeout = 5 * time.Minute
	o.MaxOpenConns, o.MaxIdleConns = 16, 4
	return o, nil
}

// ClickHouse is the archive itself.
type ClickHouse struct{ conn driver.Conn }

// Open prepares connections; it does not make any yet.
func Open(addr string) (*ClickHouse, error) {
	o, err := options(addr)
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("opening ClickHouse: %w", err)
	}
	return &ClickHouse{conn}, nil
}

// Close ends the connections.
func (c *ClickHouse) Close() error { return c.conn.Close() }

// Migrate makes the database and brings its schema to what this binary knows.
func Migrate(ctx context.Context, addr string) error {
	o, err := options(addr)
	if err != nil {
		return err
	}
	database := o.Auth.Database
	first := *o
	first.Auth.Database = "default"
	maker := clickhouse.OpenDB(&first)
	defer func() { _ = maker.Close() }()
	if _, err := maker.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(database)); err != nil {
		return fmt.Errorf("making the archive's database: %w", err)
	}
	db := clickhouse.OpenDB(o)
	defer func() { _ = db.Close() }()
	p, err := goose.NewProvider(goose.DialectClickHouse, db, clickhouseschema.Files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the archive's steps: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the archive: %w", err)
	}
	return migrateAnalysis(ctx, o)
}

// AnalysisOf returns the name of the analysts' database that belongs to an archive's.
func AnalysisOf(database string) string { return database + "_analysis" }

// migrateAnalysis makes the key of private conversations, once, and the analysts' views.
func migrateAnalysis(ctx context.Context, o *clickhouse.Options) error {
	conn, err := clickhouse.Open(o)
	if err != nil {
		return fmt.Errorf("opening ClickHouse: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var keys uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM analysis_key").Scan(&keys); err != nil {
		return fmt.Errorf("looking for the key of private conversations: %w", err)
	}
	if keys == 0 { // of two that are made at once, the views take the same one
		var key [16]byte
		rand.Read(key[:])
		// As a block, so that no log of statements has it.
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO analysis_key (k0, k1, made_at)")
		if err == nil {
			err = batch.Append(binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:]), time.Now().UTC())
		}
		if err == nil {
			err = batch.Send()
		}
		if err != nil {
			return fmt.Errorf("making the key of private conversations: %w", err)
		}
	}
	archive := o.Auth.Database
	analysis := AnalysisOf(archive)
	names := strings.NewReplacer("{archive}", quoteName(archive), "{analysis}", quoteName(analysis))
	statements := append([]string{"CREATE DATABASE IF NOT EXISTS {analysis}"}, strings.Split(clickhouseschema.Views, ";\n")...)
	for _, text := range statements {
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := conn.Exec(ctx, names.Replace(text)); err != nil {
			return fmt.Errorf("making the analysts' views in %s, which needs CREATE DATABASE, CREATE VIEW and DROP VIEW there: %w", analysis, err)
		}
	}
	return nil
}

// quoteName makes an identifier of a name of the settings.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "") + "`" }

// Insert inserts rows as one block, once for each token.
func (c *ClickHouse) Insert(ctx context.Context, token string, b Block) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"insert_deduplicate": 1, "insert_deduplication_token": token, "async_insert": 0,
	}))
	table, columns := "messages", messageColumns
	if b.Messages == nil {
		table, columns = "read_marks", markColumns
	}
	batch, err := c.conn.PrepareBatch(ctx, "INSERT INTO "+table+" ("+columns+")")
	if err != nil {
		return fmt.Errorf("preparing an insert of %s: %w", table, err)
	}
	defer func() { _ = batch.Close() }()
	for i := range b.Messages {
		if err := batch.AppendStruct(&b.Messages[i]); err != nil {
			return fmt.Errorf("adding a row of %s: %w", table, err)
		}
	}
	for i := range b.Marks {
		if err := batch.AppendStruct(&b.Marks[i]); err != nil {
			return fmt.Errorf("adding a row of %s: %w", table, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("inserting into %s: %w", table, err)
	}
	return nil
}

const (
	messageColumns = "conversation_id, conversation_type, seq, kind, target_seq, sender_id, client_msg_id, type, text, content, mentions, recipients, sent_at, recalled, partition, offset, edit_seq"
	markColumns    = "user_id, conversation_id, seq, at, partition, offset"
)

// Has tells whether a row of a range is there. Blocks are inserted whole: the others are, too.
func (c *ClickHouse) Has(ctx context.Context, table string, partition int32, from, to int64) (bool, error) {
	var n uint64
	err := c.conn.QueryRow(ctx, "SELECT count() FROM "+table+" WHERE partition = ? AND offset >= ? AND offset < ?", partition, from, to).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("looking for a range in %s: %w", table, err)
	}
	return n > 0, nil
}

// changesAtOnce bounds one statement.
const changesAtOnce = 200

// Change edits and blanks rows, and returns when no part holds the old ones any more.
func (c *ClickHouse) Change(ctx context.Context, changes Changes) error {
	for list := changes.Recalls; len(list) > 0; list = list[min(len(list), changesAtOnce):] {
		where, args := among(list[:min(len(list), changesAtOnce)])
		if err := c.alter(ctx, "UPDATE text = '', content = '', mentions = [], recalled = true WHERE "+where, args); err != nil {
			return fmt.Errorf("blanking what was recalled: %w", err)
		}
	}
	for list := changes.Edits; len(list) > 0; list = list[min(len(list), changesAtOnce):] {
		part := list[:min(len(list), changesAtOnce)]
		var text, content, seq strings.Builder
		var texts, contents, seqs []any
		places := make([]Place, len(part))
		for i, e := range part {
			places[i] = e.Place
			const when = "conversation_id = ? AND seq = ? AND edit_seq < ?"
			text.WriteString(when + " AND type = 'text', ?, ")
			content.WriteString(when + ", ?, ")
			seq.WriteString(when + ", toInt64(?), ")
			texts = append(texts, e.Conversation, e.Seq, e.EditSeq, e.Text)
			contents = append(contents, e.Conversation, e.Seq, e.EditSeq, e.Content)
			seqs = append(seqs, e.Conversation, e.Seq, e.EditSeq, e.EditSeq)
		}
		where, last := among(places)
		args := append(append(append(texts, contents...), seqs...), last...)
		err := c.alter(ctx, "UPDATE text = multiIf("+text.String()+"text), content = multiIf("+content.String()+"content), edit_seq = multiIf("+seq.String()+
			"edit_seq) WHERE "+where+" AND NOT recalled", args)
		if err != nil {
			return fmt.Errorf("editing: %w", err)
		}
	}
	return nil
}

func among(places []Place) (string, []any) {
	args := make([]any, 0, 2*len(places))
	for _, p := range places {
		args = append(args, p.Conversation, p.Seq)
	}
	return "(conversation_id, seq) IN (" + strings.TrimSuffix(strings.Repeat("(?, ?), ", len(places)), ", ") + ")", args
}

func (c *ClickHouse) alter(ctx context.Context, what string, args []any) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	return c.conn.Exec(ctx, "ALTER TABLE messages "+what, args...)
}

// Forget removes the messages of a partition, before they are filled in again.
func (c *ClickHouse) Forget(ctx context.Context, partition int32) error {
	if err := c.alter(ctx, "DELETE WHERE partition = ?", []any{partition}); err != nil {
		return fmt.Errorf("removing the messages of partition %d: %w", partition, err)
	}
	return nil
}

// ForgetMarks removes the read marks of a partition, before they are filled in again.
func (c *ClickHouse) ForgetMarks(ctx context.Context, partition int32) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"mutations_sync": 2}))
	if err := c.conn.Exec(ctx, "ALTER TABLE read_marks DELETE WHERE partition = ?", partition); err != nil {
		return fmt.Errorf("removing the read marks of partition %d: %w", partition, err)
	}
	return nil
}

// Held counts the rows of a partition, and returns the highest offset among them; -1 where there is none.
func (c *ClickHouse) Held(ctx context.Context, table string, partition int32) (rows, last int64, err error) {
	err = c.conn.QueryRow(ctx, "SELECT toInt64(count()), if(count() = 0, -1, max(offset)) FROM "+table+" WHERE partition = ?", partition).Scan(&rows, &last)
	if err != nil {
		return 0, 0, fmt.Errorf("counting what %s has: %w", table, err)
	}
	return rows, last, nil
}
