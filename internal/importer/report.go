package importer

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"tideline/pkg/chat"
)

// Refused is a command of the import that did not become an event.
type Refused struct {
	ClientMsgID string    `json:"client_msg_id"`
	Code        chat.Code `json:"code"`
	Message     string    `json:"message"`
}

// Report says what became of an import, over all of its runs.
type Report struct {
	Conversation chat.ConversationID
	People       int
	Counts       Counts
	BadLines     []BadLine // the first few

	// Numbered counts the events by kind, and Outcomes what stands in im.rejected by its reason. They are read from the
	// logs; Partial tells that these begin too late to show everything.
	Numbered map[chat.Kind]int
	Outcomes map[chat.Code]int
	Refused  []Refused // the first few
	Partial  bool

	// Earlier is what finished runs before this one could not import; a failed import stays failed until its checkpoint is
	// removed, whatever the logs still have.
	Earlier *Failure

	// Before tells that an earlier run had finished and there was nothing to do.
	Before bool
	// LastSeq is the group's last number, or 0 where this run did not look.
	LastSeq int64
	// Lines and Took are of this run: until the store had everything.
	Lines int
	Took  time.Duration
}

// repeated are reasons that only say that it was done before.
var repeated = []chat.Code{chat.CodeDuplicate, chat.CodeNothingToDo, chat.CodeMoved}

// Rejected counts the commands that were refused for good.
func (r *Report) Rejected() int {
	n := 0
	for code, count := range r.Outcomes {
		if !slices.Contains(repeated, code) {
			n += count
		}
	}
	if r.Earlier != nil {
		n = max(n, r.Earlier.Rejected)
	}
	return n
}

// Missing counts the lines that were produced and have no outcome; 0 where the logs do not reach back far enough to say.
func (r *Report) Missing() int {
	n := 0
	if r.Earlier != nil {
		n = r.Earlier.Missing
	}
	if r.Partial || r.Before {
		return n
	}
	return max(r.Counts.Produced()-r.Numbered[chat.KindMessage]-r.Outcomes[chat.CodeDuplicate]-r.Rejected(), n)
}

// Err returns an error where something was not imported, by this run or an earlier one.
func (r *Report) Err() error {
	switch rejected, missing := r.Rejected(), r.Missing(); {
	case rejected == 0 && missing == 0:
		return nil
	case r.Before:
		return fmt.Errorf("an earlier run failed: %d commands were rejected and %d lines have no outcome; remove the checkpoint to import again what was not numbered", rejected, missing)
	default:
		return fmt.Errorf("%d commands were rejected and %d lines have no outcome", rejected, missing)
	}
}

// failure returns what the checkpoint notes of a finished run.
func (r *Report) failure() *Failure {
	if r.Err() == nil {
		return nil
	}
	return &Failure{Rejected: r.Rejected(), Missing: r.Missing(), Refused: r.refused()}
}

// refused lists the first commands that were refused: those that the logs still have, or those noted before.
func (r *Report) refused() []Refused {
	if len(r.Refused) == 0 && r.Earlier != nil {
		return r.Earlier.Refused
	}
	return r.Refused
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(what string, v any) { _, _ = fmt.Fprintf(t, "%s\t%v\n", what, v) }
	row("group", r.Conversation)
	row("people", r.People)
	row("messages", r.Counts.Messages)
	row("actions, as custom", r.Counts.Actions)
	row("empty, as custom", r.Counts.Empty)
	row("renames, skipped", r.Counts.Renames)
	row("lines that could not be imported", r.Counts.Bad)
	for _, l := range r.BadLines {
		row(fmt.Sprintf("  line %d", l.Number), l.Reason)
	}
	if r.Before && r.Err() != nil {
		row("an earlier run failed", "nothing was done now")
		row("rejected", r.Rejected())
		for _, f := range r.refused() {
			row("  "+f.ClientMsgID, string(f.Code)+": "+f.Message)
		}
		row("lines without an outcome", r.Missing())
		return t.Flush()
	}
	if r.Before {
		row("an earlier run had finished", "nothing was left to do")
		return t.Flush()
	}
	if r.LastSeq > 0 {
		row("numbers", fmt.Sprintf("1 to %d", r.LastSeq))
	}
	row("messages numbered", r.Numbered[chat.KindMessage])
	row("repeated, and numbered once", r.Outcomes[chat.CodeDuplicate])
	row("rejected", r.Rejected())
	for _, f := range r.refused() {
		row("  "+f.ClientMsgID, string(f.Code)+": "+f.Message)
	}
	if r.Partial {
		row("note", "retention has removed a part of the outcomes: the last three figures are too low")
	}
	if r.Took > 0 {
		row("this run", fmt.Sprintf("%d lines in %s until all could be read, %.0f/s", r.Lines, r.Took.Round(time.Millisecond), float64(r.Lines)/r.Took.Seconds()))
	}
	return t.Flush()
}
