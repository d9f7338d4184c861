package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tideline/pkg/chat"
)

// lineKind is the word of a line's kind.
type lineKind string

// The kinds of line.
const (
	kindMessage lineKind = "message"
	kindAction  lineKind = "action"
	kindRenamed lineKind = "renamed"
)

// maxExternalID is what the api takes, bytes.
const maxExternalID = 255

// maxMinute bounds the minute of a line. Exports count on past midnight where a day's file does; beyond a year it is a
// mistake.
const maxMinute = 366 * 24 * 60

// line is a line that can be imported.
type line struct {
	kind   lineKind
	sender string
	text   string
	at     int64 // ms; never 0, which would mean now
}

// strict refuses fields that are not known, in another case, or there twice: they would be read as something else than was
// meant. Half of a surrogate pair, which exports of chats are known for, becomes U+FFFD.
var strict = jsonv2.JoinOptions(jsonv2.RejectUnknownMembers(true), jsontext.AllowInvalidUTF8(true))

// parseLine reads one line of an export.
func parseLine(raw []byte) (line, error) {
	if !utf8.Valid(raw) {
		return line{}, errors.New("is not valid UTF-8")
	}
	var w struct {
		Day    *string  `json:"day"`
		Minute *int     `json:"minute"`
		Kind   lineKind `json:"kind"`
		Sender string   `json:"sender"`
		Text   *string  `json:"text"`
		To     *string  `json:"to"`
	}
	if err := jsonv2.Unmarshal(raw, &w, strict); err != nil {
		return line{}, fmt.Errorf("is not the JSON object that belongs here: %w", err)
	}
	if w.Day == nil || w.Minute == nil {
		return line{}, errors.New("has no day or no minute")
	}
	day, err := time.Parse(time.DateOnly, *w.Day)
	if err != nil || day.Year() < 1970 {
		return line{}, fmt.Errorf("has the day %.20q, not one such as 2004-12-25 from 1970 on", *w.Day)
	}
	if *w.Minute < 0 || *w.Minute > maxMinute {
		return line{}, fmt.Errorf("has the minute %d, 0 to %d are possible", *w.Minute, maxMinute)
	}
	l := line{kind: w.Kind, sender: w.Sender, at: max(day.Add(time.Duration(*w.Minute)*time.Minute).UnixMilli(), 1)}
	switch w.Kind {
	case kindRenamed:
		return l, nil
	case kindMessage, kindAction:
	default:
		return line{}, fmt.Errorf("has the kind %.20q, none of message, action, renamed", w.Kind)
	}
	if w.Text == nil {
		return line{}, errors.New("has no text")
	}
	if w.Sender == "" {
		return line{}, errors.New("has no sender")
	}
	l.text = *w.Text
	return l, nil
}

// isEmpty tells whether there is nothing to be seen: a text of that kind is refused by the platform.
func (l line) isEmpty() bool { return chat.IsBlank(l.text) }

// message gives what the line says as a message: a text, or custom where it is an action or empty.
func (l line) message() (*chat.Message, error) {
	m := &chat.Message{Type: chat.TypeCustom}
	var body any
	switch {
	case l.kind == kindAction:
		body = struct {
			Kind lineKind `json:"kind"`
			Text string   `json:"text"`
		}{l.kind, l.text}
	case l.isEmpty():
		body = map[string]string{"kind": "empty"}
	default:
		m.Type, body = chat.TypeText, map[string]string{"text": l.text}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // "<3" is three bytes of the limit, not eight
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("encoding content: %w", err)
	}
	content, err := chat.ValidateContent(m.Type, out.Bytes())
	if err != nil {
		return nil, err
	}
	m.Content = content
	return m, nil
}

// nickname makes a name that the platform takes of a sender's name, which stands in full in the external_id.
func nickname(sender string) string {
	name := strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || chat.TurnsDirection(r) {
			return -1
		}
		return r
	}, sender))
	if runes := []rune(name); len(runes) > chat.MaxNameRunes {
		name = strings.TrimSpace(string(runes[:chat.MaxNameRunes]))
	}
	if chat.IsBlank(name) {
		return "nameless"
	}
	return name
}
