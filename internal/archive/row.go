package archive

import (
	"encoding/json"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

// Message is a row of messages.
type Message struct {
	ConversationID   string    `ch:"conversation_id"`
	ConversationType string    `ch:"conversation_type"`
	Seq              int64     `ch:"seq"`
	Kind             string    `ch:"kind"`
	TargetSeq        int64     `ch:"target_seq"`
	SenderID         int64     `ch:"sender_id"`
	ClientMsgID      string    `ch:"client_msg_id"`
	Type             string    `ch:"type"`
	Text             string    `ch:"text"`
	Content          string    `ch:"content"`
	Mentions         []int64   `ch:"mentions"`
	Recipients       []int64   `ch:"recipients"`
	SentAt           time.Time `ch:"sent_at"`
	Recalled         bool      `ch:"recalled"`
	Partition        int32     `ch:"partition"`
	Offset           int64     `ch:"offset"`
	EditSeq          int64     `ch:"edit_seq"`
}

// Mark is a row of read_marks.
type Mark struct {
	UserID         int64     `ch:"user_id"`
	ConversationID string    `ch:"conversation_id"`
	Seq            int64     `ch:"seq"`
	At             time.Time `ch:"at"`
	Partition      int32     `ch:"partition"`
	Offset         int64     `ch:"offset"`
}

// Place names a row of messages.
type Place struct {
	Conversation string
	Seq          int64
}

// Edit is a change of a row that was archived before.
type Edit struct {
	Place
	EditSeq       int64
	Text, Content string
}

// Changes are what a range does to rows before it: at most one change per row.
type Changes struct {
	Edits   []Edit
	Recalls []Place
}

func (c *Changes) empty() bool { return len(c.Edits)+len(c.Recalls) == 0 }

// messageOf gives the row of a row of the timeline.
func messageOf(r *timeline.Row, partition int32, offset int64) Message {
	m := Message{
		ConversationID: r.Conversation.String(), ConversationType: r.Conversation.Kind.Type(), Seq: r.Seq, Kind: r.Kind.String(), TargetSeq: r.TargetSeq,
		SenderID: int64(r.Sender), ClientMsgID: r.ClientMsgID, Type: string(r.Type), SentAt: time.UnixMilli(r.SentAt).UTC(),
		Recalled: r.RecalledAt > 0, Partition: partition, Offset: offset, Mentions: []int64{}, Recipients: []int64{},
	}
	if !m.Recalled {
		m.Content, m.Text = string(r.Content), textOf(r.Type, r.Content)
		if r.Mentions != nil {
			if r.Mentions.All {
				m.Mentions = append(m.Mentions, 0)
			}
			m.Mentions = append(m.Mentions, numbers(r.Mentions.UserIDs)...)
		}
	}
	m.Recipients = append(m.Recipients, numbers(r.Recipients)...)
	return m
}

func (m *Message) recall() {
	m.Text, m.Content, m.Mentions, m.Recalled = "", "", []int64{}, true
}

func textOf(t chat.MessageType, content json.RawMessage) string {
	if t != chat.TypeText {
		return ""
	}
	var c struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(content, &c) // checked when it was numbered
	return c.Text
}

func numbers(ids []chat.UserID) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}

// rows gives the rows of a range and what it does to rows before it. What aims into the range itself is done to its rows
// here, so that the content of a message that was recalled within the range never reaches ClickHouse.
func rows(partition int32, entries []timeline.Entry) ([]Message, Changes) {
	list := make([]Message, 0, len(entries))
	at := make(map[Place]int, len(entries))
	var order []Place
	edits, recalls := map[Place]Edit{}, map[Place]bool{}
	for i := range entries {
		e := &entries[i].Event
		row := timeline.RowOf(e)
		if target := e.TargetSeq(); target > 0 {
			place := Place{e.Conversation.String(), target}
			n, here := at[place]
			switch {
			case e.Kind == chat.KindRecall && here:
				list[n].recall()
			case e.Kind == chat.KindRecall:
				if _, known := edits[place]; !known && !recalls[place] {
					order = append(order, place)
				}
				recalls[place] = true
				delete(edits, place)
			case here && !list[n].Recalled:
				list[n].Content, list[n].Text, list[n].EditSeq = string(e.Edit.Content), textOf(chat.MessageType(list[n].Type), e.Edit.Content), e.Seq
			case !here && !recalls[place]:
				if _, known := edits[place]; !known {
					order = append(order, place)
				}
				// A message keeps its type, and only a text has a text.
				edits[place] = Edit{Place: place, EditSeq: e.Seq, Content: string(e.Edit.Content), Text: textOf(chat.TypeText, e.Edit.Content)}
			}
		}
		at[Place{e.Conversation.String(), e.Seq}] = len(list)
		list = append(list, messageOf(&row, partition, entries[i].Offset))
	}
	var changes Changes
	for _, p := range order {
		if e, ok := edits[p]; ok {
			changes.Edits = append(changes.Edits, e)
		} else {
			changes.Recalls = append(changes.Recalls, p)
		}
	}
	return list, changes
}
