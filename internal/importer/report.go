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
	ClientMsgID string
	Code        chat.Code
	Message     string
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

	// Before tells that an earlier run had finished and there was nothing to do.
	Before bool
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
	return n
}

// Missing counts the lines that were produced and have no outcome; 0 where the logs do not reach back far enough to say.
func (r *Report) Missing() int {
	if r.Partial || r.Before {
		return 0
	}
	return max(r.Counts.Produced()-r.Numbered[chat.KindMessage]-r.Outcomes[chat.CodeDuplicate]-r.Rejected(), 0)
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
	if r.Before {
		row("an earlier run had finished", "nothing was left to do")
		return t.Flush()
	}
	row("messages numbered", r.Numbered[chat.KindMessage])
	row("repeated, and numbered once", r.Outcomes[chat.CodeDuplicate])
	row("rejected", r.Rejected())
	for _, f := range r.Refused {
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
