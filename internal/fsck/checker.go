package fsck

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/archive"
	"tideline/internal/marks"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Store is what is asked of the store. What is listed comes in the order of the key, at most limit, and beginning after
// (or with, where it says From) what is given.
type Store interface {
	Positions(ctx context.Context, partitions []int32) ([]timeline.Position, error)
	MarkPositions(ctx context.Context, partitions []int32) (map[int32]int64, error)
	RejectionPositions(ctx context.Context, partitions []int32) (map[int32]int64, error)
	ArchivePosition(ctx context.Context, topic string, partition int32) (sqlstore.ArchivePosition, error)
	ListParked(ctx context.Context, topic string, afterPartition int32, afterOffset int64, limit int) ([]sqlstore.Parked, error)

	HeadsAfter(ctx context.Context, after chat.ConversationID, limit int) ([]timeline.Conversation, error)
	NextIn(ctx context.Context, table sqlstore.ConversationTable, after chat.ConversationID) (chat.ConversationID, error)
	Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error)
	Ends(ctx context.Context, c chat.ConversationID) (first, last int64, err error)
	Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error)
	RowsAt(ctx context.Context, places []sqlstore.Place) (map[sqlstore.Place]timeline.Row, error)
	OrdinalsAt(ctx context.Context, c chat.ConversationID, seqs []int64) (map[int64]int64, error)
	RecalledIn(ctx context.Context, c chat.ConversationID, first, last int64) ([]int64, error)
	HighTimes(ctx context.Context, c chat.ConversationID, first, last int64) (map[int64]int64, error)
	ClientIDsFrom(ctx context.Context, c chat.ConversationID, from sqlstore.ClientID, limit int) ([]sqlstore.ClientID, error)
	MembersAfter(ctx context.Context, c chat.ConversationID, after chat.UserID, limit int) ([]timeline.Member, error)
	Members(ctx context.Context, keys []timeline.MemberKey) ([]timeline.Member, error)
	CountMembers(ctx context.Context, c chat.ConversationID) (head, present int64, err error)
	Memberships(ctx context.Context, u chat.UserID, past bool) ([]timeline.Membership, error)
	Marks(ctx context.Context, c chat.ConversationID) ([]timeline.MemberMark, error)
	MeantIn(ctx context.Context, table sqlstore.MeantTable, u chat.UserID, after sqlstore.Place, limit int) ([]sqlstore.MeantRow, error)
	MeantAfter(ctx context.Context, table sqlstore.MeantTable, after *sqlstore.MeantRow, limit int) ([]sqlstore.MeantRow, error)
	MeantAt(ctx context.Context, table sqlstore.MeantTable, rows []sqlstore.MeantRow) (map[sqlstore.MeantRow]bool, error)
}

// Logs are the topics.
type Logs interface {
	// Bounds tells where the partitions of a topic begin and end.
	Bounds(ctx context.Context, topic string) (map[int32]Bounds, error)
	// Read gives the committed records of a range of offsets in order; to does not belong to it and is at most the end.
	Read(ctx context.Context, topic string, partition int32, from, to int64, each func(*kgo.Record) error) error
}

// Archive is what is asked of ClickHouse; see the methods of archive.ClickHouse.
type Archive interface {
	Stored(ctx context.Context, conversation string, first, last int64) ([]archive.Message, error)
	Outside(ctx context.Context, conversation string, first, last int64, limit int) ([]archive.Message, error)
	Behind(ctx context.Context, partition int32, offset int64, limit int) ([]archive.Message, error)
	Marks(ctx context.Context, partition int32, from, to int64, limit int) ([]archive.Mark, error)
	ConversationsAfter(ctx context.Context, after string, limit int) ([]string, error)
}

// Fast are the fast marks in Redis; see the methods of marks.Sets.
type Fast interface {
	Each(ctx context.Context, each func(key string) error) error
	Read(ctx context.Context, key string) (marks.Set, error)
}

// Options say what is looked at, and how.
type Options struct {
	// Partitions is how many every topic has.
	Partitions int
	// Conversation, where it names one, is the only one that is looked at; what belongs to none is left out.
	Conversation chat.ConversationID
	// AtRest says that nobody writes any more: everything has to be equal everywhere.
	AtRest bool
	// Skip names parts that are left out, with the reason.
	Skip map[string]string
	// Broken names parts that could not even be opened, with the reason.
	Broken map[string]error
	// Patience bounds how long a run at rest waits for it; 0 for a minute, which outlasts a partition being taken over.
	Patience time.Duration
	// Progress is told how far the run is, at most once in two seconds; may be nil.
	Progress func(line string)
}

// Checker makes runs. It has one user at a time.
type Checker struct {
	store   Store
	logs    Logs
	archive Archive
	fast    Fast
	options Options

	partitions []int32
	results    map[string]*Result
	unlooked   []Unlooked
	told       time.Time
	parked     map[sqlstore.Place]bool // whose events are parked
	parkedAt   map[chat.Position]bool
}

// New makes a checker. A part whose contract is nil is not there, which is said in the report.
func New(store Store, logs Logs, archive Archive, fast Fast, options Options) *Checker {
	c := &Checker{store: store, logs: logs, archive: archive, fast: fast, options: options}
	if c.options.Patience <= 0 {
		c.options.Patience = restPatience
	}
	for p := range int32(options.Partitions) {
		c.partitions = append(c.partitions, p)
	}
	return c
}

const (
	// pageRows is how many rows are read by one statement: with 64 KiB each they are 32 MiB.
	pageRows = 500
	// listed is how many breaches of a check are kept with their places; all are counted.
	listed = 100
	// looks is how often a suspicion is looked at.
	looks = 3
	// writersPatience is how long the writers are waited for. Who is behind for longer is behind for a reason.
	writersPatience = 10 * time.Second
	// restPatience is how long a run at rest waits for it, by default.
	restPatience = time.Minute
	// standstill is how long nothing has to move for the writers to be taken for stopped.
	standstill = time.Second
	progress   = 2 * time.Second
)

// found is what a look at something has found.
type found struct {
	looked, undecided map[string]int64
	list              []Breach
	more              map[string]int64 // breaches that are only counted
}

// mostFound bounds the breaches of one look whose places are known: what is wholly broken must not take all memory.
const mostFound = 10_000

func newFound() *found {
	return &found{looked: map[string]int64{}, undecided: map[string]int64{}, more: map[string]int64{}}
}

func (f *found) count(check string, n int) { f.looked[check] += int64(n) }

func (f *found) breach(check string, at Place, format string, args ...any) {
	if len(f.list) >= mostFound {
		f.more[check]++
		return
	}
	f.list = append(f.list, Breach{Check: check, Place: at, What: fmt.Sprintf(format, args...)})
}

// Run looks at everything. The error is the context's; what goes wrong otherwise is in the report, beside the part that
// could not be looked at.
func (c *Checker) Run(ctx context.Context) (*Report, error) {
	c.results, c.unlooked = map[string]*Result{}, nil
	for _, v := range Checks() {
		c.results[v.Name] = &Result{Check: v}
	}
	// What is parked is needed to tell a hole that is known from one that is not.
	parked := c.loadParked(ctx)
	if c.options.AtRest && parked == nil && c.logs != nil {
		if err := c.writersPass(ctx, c.options.Patience); err != nil && ctx.Err() == nil {
			c.say("the writers could not be waited for: %v", err)
		}
	}
	for _, part := range []struct {
		name string
		is   bool
		look func(context.Context) error
	}{
		{PartStore, c.store != nil, c.lookAtStore},
		{PartLog, c.logs != nil, c.lookAtLog},
		{PartArchive, c.archive != nil, c.lookAtArchive},
		{PartRedis, c.fast != nil, c.lookAtFast},
	} {
		why, skipped := c.options.Skip[part.name]
		switch {
		case skipped:
			c.unlooked = append(c.unlooked, Unlooked{part.name, why, true})
		case c.options.Broken[part.name] != nil:
			c.unlooked = append(c.unlooked, Unlooked{Part: part.name, Why: c.options.Broken[part.name].Error()})
		case !part.is && part.name != PartStore:
			c.unlooked = append(c.unlooked, Unlooked{part.name, "none is set", true})
		case parked != nil: // everything is compared with the store
			c.unlooked = append(c.unlooked, Unlooked{Part: part.name, Why: parked.Error()})
		default:
			if err := part.look(ctx); err != nil && ctx.Err() == nil {
				c.unlooked = append(c.unlooked, Unlooked{Part: part.name, Why: err.Error()})
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	r := &Report{Unlooked: c.unlooked}
	for _, v := range Checks() {
		r.Checks = append(r.Checks, *c.results[v.Name])
	}
	return r, nil
}

// settle looks at something, again where a breach is suspected, and notes what was wrong every time.
func (c *Checker) settle(ctx context.Context, look func(ctx context.Context, f *found) error) error {
	f := newFound()
	if err := look(ctx, f); err != nil {
		return err
	}
	first := f
	for n := 1; n < looks && len(f.list) > 0 && !c.options.AtRest; n++ {
		if err := c.writersPass(ctx, writersPatience); err != nil {
			return err
		}
		again := newFound()
		if err := look(ctx, again); err != nil {
			return err
		}
		suspected := map[string]bool{}
		for _, b := range f.list {
			suspected[b.Check+" "+b.Place.String()] = true
		}
		again.list = slices.DeleteFunc(again.list, func(b Breach) bool { return !suspected[b.Check+" "+b.Place.String()] })
		f = again
	}
	f.looked = first.looked
	c.note(f)
	return nil
}

// note takes what was found into the report, and leaves nothing of it.
func (c *Checker) note(f *found) {
	for name, n := range f.looked {
		c.results[name].Looked += n
	}
	for name, n := range f.undecided {
		c.results[name].Undecided += n
	}
	for _, b := range f.list {
		r := c.results[b.Check]
		r.Found++
		if len(r.Breaches) < listed {
			r.Breaches = append(r.Breaches, b)
		}
	}
	for name, n := range f.more {
		c.results[name].Found += n
	}
	*f = *newFound()
}

func (c *Checker) say(format string, args ...any) {
	if c.options.Progress == nil || time.Since(c.told) < progress {
		return
	}
	c.told = time.Now()
	c.options.Progress(fmt.Sprintf(format, args...))
}
