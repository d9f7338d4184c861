package fsck

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"tideline/pkg/chat"
)

// Place says where a breach is. Fields that do not belong to it are absent.
type Place struct {
	Conversation string `json:"conversation,omitempty"`
	Seq          int64  `json:"seq,omitempty"`
	User         string `json:"user,omitempty"`
	Topic        string `json:"topic,omitempty"`
	Partition    *int32 `json:"partition,omitempty"`
	Offset       *int64 `json:"offset,omitempty"`
	Table        string `json:"table,omitempty"`
	// Key and Member are of Redis.
	Key    string `json:"key,omitempty"`
	Member string `json:"member,omitempty"`
}

// String gives the place as people write it.
func (p Place) String() string {
	var parts []string
	if p.Topic != "" {
		at := p.Topic
		if p.Partition != nil {
			at += fmt.Sprintf("/%d", *p.Partition)
		}
		if p.Offset != nil {
			at += fmt.Sprintf(" at %d", *p.Offset)
		}
		parts = append(parts, at)
	}
	if p.Table != "" {
		at := "table " + p.Table
		if p.Topic == "" && p.Partition != nil {
			at += fmt.Sprintf(" partition %d", *p.Partition)
		}
		parts = append(parts, at)
	}
	if p.Key != "" {
		at := "key " + p.Key
		if p.Member != "" {
			at += " member " + p.Member
		}
		parts = append(parts, at)
	}
	if p.Conversation != "" {
		at := p.Conversation
		if p.Seq != 0 {
			at += fmt.Sprintf(" number %d", p.Seq)
		}
		parts = append(parts, at)
	}
	if p.User != "" {
		parts = append(parts, "user "+p.User)
	}
	return strings.Join(parts, ", ")
}

func inConversation(c chat.ConversationID) Place { return Place{Conversation: c.String()} }

func atSeq(c chat.ConversationID, seq int64) Place { return Place{Conversation: c.String(), Seq: seq} }

func ofMember(c chat.ConversationID, u chat.UserID) Place {
	return Place{Table: "members", Conversation: c.String(), User: u.String()}
}

func atOffset(topic string, partition int32, offset int64) Place {
	return Place{Topic: topic, Partition: &partition, Offset: &offset}
}

// Breach is a promise that is broken, in one place.
type Breach struct {
	Check string `json:"check"`
	Place Place  `json:"place"`
	What  string `json:"what"`
}

// Result is what became of one check.
type Result struct {
	Check
	// Looked is how many things were looked at.
	Looked int64 `json:"looked_at"`
	// Undecided is how many of them could not be judged, because they moved.
	Undecided int64 `json:"undecided,omitempty"`
	// Found is how many breaches there are; the first of them are in Breaches.
	Found    int64    `json:"found"`
	Breaches []Breach `json:"breaches,omitempty"`
}

// Unlooked is a part that was not looked at, wholly or from some place on.
type Unlooked struct {
	Part string `json:"part"`
	Why  string `json:"why"`
	// Wanted tells that whoever asked has left it out.
	Wanted bool `json:"wanted,omitempty"`
}

// Report is what a run has found.
type Report struct {
	Checks   []Result   `json:"checks"`
	Unlooked []Unlooked `json:"not_looked_at,omitempty"`
}

// Breaches counts all that was found.
func (r *Report) Breaches() int64 {
	var n int64
	for i := range r.Checks {
		n += r.Checks[i].Found
	}
	return n
}

// Blind tells whether a part could not be looked at that should have been.
func (r *Report) Blind() bool {
	for _, u := range r.Unlooked {
		if !u.Wanted {
			return true
		}
	}
	return false
}

// JSON writes the report for machines, as one object.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Text writes the report for people: a line for each check, the breaches under it, and the result as its last line.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	blank := map[string]bool{}
	for _, u := range r.Unlooked {
		blank[u.Part] = true
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		if blank[c.Part] && c.Looked+c.Found == 0 {
			continue // said below
		}
		fmt.Fprintf(&b, "%-16s %-3s %12d looked at", c.Name, c.Promise, c.Looked)
		if c.Undecided > 0 {
			fmt.Fprintf(&b, ", %d of them moved and were not judged", c.Undecided)
		}
		if c.Found > 0 {
			fmt.Fprintf(&b, ", %d BREACHES: %s does not hold", c.Found, c.Holds)
		}
		b.WriteByte('\n')
		for _, v := range c.Breaches {
			fmt.Fprintf(&b, "    %s: %s\n", v.Place, v.What)
		}
		if more := c.Found - int64(len(c.Breaches)); more > 0 {
			fmt.Fprintf(&b, "    and %d more\n", more)
		}
	}
	for _, u := range r.Unlooked {
		if u.Wanted {
			fmt.Fprintf(&b, "not looked at: %s (%s)\n", u.Part, u.Why)
		} else {
			fmt.Fprintf(&b, "COULD NOT LOOK at %s: %s\n", u.Part, u.Why)
		}
	}
	switch n := r.Breaches(); {
	case n > 0:
		fmt.Fprintf(&b, "result: %d breaches\n", n)
	case r.Blind():
		b.WriteString("result: what was checked holds, and a part could not be checked\n")
	default:
		b.WriteString("result: everything that was checked holds\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
