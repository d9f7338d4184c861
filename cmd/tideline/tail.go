package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"tideline/internal/config"
	"tideline/internal/sqlstore"
	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

const (
	// tailMessages is how many messages tail prints.
	tailMessages = 10
	// tailWindow is how many numbers tail reads at once, and tailWindows how often: events that are no messages lie between.
	tailWindow, tailWindows = 100, 10
)

// tailConversation prints the last messages of a conversation, from the store.
func tailConversation(ctx context.Context, args []string, out io.Writer) error {
	cfg := sqlstore.DefaultConfig()
	loaded, err := loadWithArgs("tail", args, &dataFolder{stoppedToo: true}, config.Section{Name: "store", Into: &cfg})
	switch {
	case err != nil:
		return err
	case loaded.PrintVersion:
		return printVersion(ctx, nil, out)
	case loaded.PrintConfig:
		return loaded.Print(out)
	case len(loaded.Args) != 1:
		return errors.New("one conversation is required, behind the flags")
	}
	id, err := chat.ParseConversationID(loaded.Args[0])
	if err != nil {
		return err
	}
	store, err := sqlstore.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	return printTail(ctx, store, id, out)
}

// tailStore is what tail reads.
type tailStore interface {
	Conversations(ctx context.Context, ids []chat.ConversationID) ([]timeline.Conversation, error)
	Rows(ctx context.Context, c chat.ConversationID, first, last int64) ([]timeline.Row, error)
	Users(ctx context.Context, ids []chat.UserID) ([]sqlstore.User, error)
}

func printTail(ctx context.Context, store tailStore, id chat.ConversationID, out io.Writer) error {
	found, err := store.Conversations(ctx, []chat.ConversationID{id})
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return fmt.Errorf("conversation %s not found", id)
	}
	var messages []timeline.Row // the newest first
	last := found[0].MaxSeq
	for n := 0; n < tailWindows && last > 0 && len(messages) < tailMessages; n++ {
		rows, err := store.Rows(ctx, id, max(1, last-tailWindow+1), last)
		if err != nil {
			return err
		}
		for i := len(rows) - 1; i >= 0 && len(messages) < tailMessages; i-- {
			if rows[i].Kind == chat.KindMessage {
				messages = append(messages, rows[i])
			}
		}
		last -= tailWindow
	}
	senders := map[chat.UserID]string{}
	var ids []chat.UserID
	for _, m := range messages {
		if _, seen := senders[m.Sender]; !seen {
			senders[m.Sender] = m.Sender.String()
			ids = append(ids, m.Sender)
		}
	}
	users, err := store.Users(ctx, ids)
	if err != nil {
		return err
	}
	for _, u := range users {
		senders[u.ID] = u.Nickname
	}
	for i := len(messages) - 1; i >= 0; i-- {
		m := messages[i]
		line := fmt.Sprintf("%d  %s  %s: %s", m.Seq, time.UnixMilli(m.SentAt).UTC().Format("2006-01-02 15:04"), senders[m.Sender], says(m))
		if _, err := fmt.Fprintln(out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// says returns what a message shows.
func says(m timeline.Row) string {
	if m.RecalledAt != 0 {
		return "(recalled)"
	}
	var text struct {
		Text string `json:"text"`
	}
	if m.Type == chat.TypeText && json.Unmarshal(m.Content, &text) == nil {
		return text.Text
	}
	return string(m.Content)
}

// printable keeps a line on one line, and keeps sequences that a terminal would obey out of it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
