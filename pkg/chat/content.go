package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
)

// Limits of what content may be like, beside its size. They are what clients can read: Jackson and .NET refuse a text of more
// than 1,000 or 64 levels, Python a number of more than 4,300 digits, and most readers a number that float64 does not have. A
// page puts content four levels deep.
const (
	MaxContentDepth       = 32
	MaxContentNumberBytes = 64
)

// CheckContent reports whether every client can read content that is one JSON object: at most MaxContentDepth levels, numbers
// that are finite and have at most MaxContentNumberBytes characters, each key once in its object, no lone surrogate. The
// error is an *Error that names the field. What is not JSON at all is refused too, and never makes it panic.
//
// Numbering judges it behind the duplicate check, so that a message from before this rule is still answered with its number
// (P3). It must be called on the text as it came: the canonical form has lost equal keys and lone surrogates.
func CheckContent(field string, raw []byte) error {
	s := contentScan{text: raw}
	fault := s.value(0)
	if fault == "" {
		if s.space(); s.at != len(s.text) {
			fault = faultNotJSON
		}
	}
	switch fault {
	case "":
		return nil
	case faultTwice, faultSurrogate, faultNotJSON: // as over HTTP, where the text is not read that far
		return RefuseField(CodeMalformed, field, "%s", fault)
	}
	return RefuseField(CodeInvalidField, field, "%s", fault)
}

// CheckContent reports whether every client can read the content that the command carries, if it carries any; see the
// function. It must be called before Validate, which makes content canonical.
func (c *Command) CheckContent() *Error {
	var err error
	switch {
	case c.Message != nil && len(c.Message.Content) > 0:
		err = CheckContent("message.content", c.Message.Content)
	case c.Edit != nil && len(c.Edit.Content) > 0:
		err = CheckContent("edit.content", c.Edit.Content)
	}
	var refusal *Error
	errors.As(err, &refusal)
	return refusal
}

const (
	faultNotJSON   = "is not one JSON value"
	faultTwice     = "has a key twice in one object"
	faultSurrogate = "has half of a surrogate pair"
)

var (
	faultDepth    = "has more than " + strconv.Itoa(MaxContentDepth) + " levels"
	faultNumber   = "has a number of more than " + strconv.Itoa(MaxContentNumberBytes) + " characters"
	faultInfinite = "has a number that is too large for 64-bit floating point"
)

// contentScan walks over a JSON text once. It never goes deeper than MaxContentDepth, and allocates only for the keys of
// objects with several.
type contentScan struct {
	text []byte
	at   int
}

func (s *contentScan) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// take consumes a byte if it comes next behind white space.
func (s *contentScan) take(b byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == b {
		s.at++
		return true
	}
	return false
}

// value consumes one value that lies within so many levels. It returns what is wrong with it, or "".
func (s *contentScan) value(depth int) (fault string) {
	s.space()
	if s.at == len(s.text) {
		return faultNotJSON
	}
	switch s.text[s.at] {
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case '"':
		_, fault = s.string()
		return fault
	case 't', 'f', 'n':
		return s.literal()
	}
	return s.number()
}

func (s *contentScan) object(depth int) string {
	if depth > MaxContentDepth {
		return faultDepth
	}
	s.at++
	if s.take('}') {
		return ""
	}
	var first []byte
	var seen map[string]bool
	for n := 0; ; n++ {
		s.space()
		key, fault := s.string()
		if fault != "" {
			return fault
		}
		name, fault := keyName(key)
		switch {
		case fault != "":
			return fault
		case n == 0:
			first = name
		default:
			if seen == nil {
				seen = map[string]bool{string(first): true}
			}
			if seen[string(name)] {
				return faultTwice
			}
			seen[string(name)] = true
		}
		if !s.take(':') {
			return faultNotJSON
		}
		if fault := s.value(depth); fault != "" {
			return fault
		}
		if s.take('}') {
			return ""
		}
		if !s.take(',') {
			return faultNotJSON
		}
	}
}

func (s *contentScan) array(depth int) string {
	if depth > MaxContentDepth {
		return faultDepth
	}
	s.at++
	if s.take(']') {
		return ""
	}
	for {
		if fault := s.value(depth); fault != "" {
			return fault
		}
		if s.take(']') {
			return ""
		}
		if !s.take(',') {
			return faultNotJSON
		}
	}
}

func (s *contentScan) literal() string {
	for _, word := range []string{"true", "false", "null"} {
		if end := s.at + len(word); end <= len(s.text) && string(s.text[s.at:end]) == word {
			s.at = end
			return ""
		}
	}
	return faultNotJSON
}

func (s *contentScan) number() string {
	start := s.at
	for s.at < len(s.text) && bytes.IndexByte([]byte("+-.0123456789Ee"), s.text[s.at]) >= 0 {
		s.at++
	}
	text := s.text[start:s.at]
	if len(text) > MaxContentNumberBytes {
		return faultNumber
	}
	if !json.Valid(text) {
		return faultNotJSON
	}
	if _, err := strconv.ParseFloat(string(text), 64); err != nil {
		return faultInfinite
	}
	return ""
}

// string consumes a string and returns it with its quotes.
func (s *contentScan) string() (raw []byte, fault string) {
	if s.at == len(s.text) || s.text[s.at] != '"' {
		return nil, faultNotJSON
	}
	start := s.at
	// Most strings have no escape, and most content is one such string.
	if n := bytes.IndexByte(s.text[start+1:], '"'); n >= 0 && bytes.IndexByte(s.text[start+1:start+1+n], '\\') < 0 {
		s.at = start + n + 2
		return s.text[start:s.at], ""
	}
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '"':
			s.at++
			return s.text[start:s.at], ""
		case '\\':
			if s.at++; s.at == len(s.text) {
				return nil, faultNotJSON
			}
			if s.text[s.at] != 'u' {
				continue
			}
			first, ok := s.escape()
			switch {
			case !ok:
				return nil, faultNotJSON
			case !utf16.IsSurrogate(first):
				continue
			}
			if s.at+2 >= len(s.text) || s.text[s.at+1] != '\\' || s.text[s.at+2] != 'u' {
				return nil, faultSurrogate
			}
			s.at += 2
			second, ok := s.escape()
			if !ok || utf16.DecodeRune(first, second) == '\uFFFD' {
				return nil, faultSurrogate
			}
		}
	}
	return nil, faultNotJSON
}

// escape reads the four digits behind a u, and ends at the last of them.
func (s *contentScan) escape() (rune, bool) {
	if s.at+4 >= len(s.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.text[s.at+1:s.at+5]), 16, 16)
	s.at += 4
	return rune(n), err == nil
}

// keyName returns what a key says, whatever escapes it is written with.
func keyName(raw []byte) ([]byte, string) {
	for _, b := range raw {
		if b != '\\' {
			continue
		}
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return nil, faultNotJSON
		}
		return []byte(name), ""
	}
	return raw[1 : len(raw)-1], ""
}
