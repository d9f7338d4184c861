package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// MaxLineBytes bounds a line. The largest are pulls of 1,000 entries and syncs of 500 conversations, far below it.
const MaxLineBytes = 8 << 20

// ErrNotAHistory is wrapped by every error that says what keeps a file from being one.
var ErrNotAHistory = errors.New("not a history")

// Reader reads a history line by line. It is not safe for concurrent use.
type Reader struct {
	Header Header

	in   *bufio.Reader
	line int    // the last one that was read
	long []byte // of lines that do not fit into the buffer
	torn bool
}

// NewReader reads the header.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 256<<10)}
	text, whole, err := r.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrNotAHistory)
	}
	if err := decode(text, &r.Header); err != nil {
		if !whole {
			return nil, fmt.Errorf("%w: line 1 is torn", ErrNotAHistory)
		}
		return nil, r.fault(err)
	}
	if r.Header.Version != Version {
		return nil, fmt.Errorf("%w that is known here: it has version %d, and %d is read", ErrNotAHistory, r.Header.Version, Version)
	}
	return r, nil
}

// Next reads the next record; io.EOF says that there is none. A last line that was torn, because the writer was killed, is
// left out, and Torn tells of it; any other line that is no record is an error that wraps ErrNotAHistory and names the line.
func (r *Reader) Next() (*Record, error) {
	text, whole, err := r.next()
	if err != nil {
		return nil, err
	}
	rec := &Record{}
	if err := decode(text, rec); err != nil {
		if !whole {
			r.torn = true
			return nil, io.EOF
		}
		return nil, r.fault(err)
	}
	if err := rec.Validate(); err != nil {
		return nil, r.fault(err)
	}
	rec.Line = r.line
	return rec, nil
}

// All gives the records that are left; the last step may be an error.
func (r *Reader) All() iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for {
			rec, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// Torn tells whether the last line was torn, once the end was reached.
func (r *Reader) Torn() bool { return r.torn }

// Line gives the number of the line that was read last.
func (r *Reader) Line() int { return r.line }

func (r *Reader) fault(err error) error {
	return fmt.Errorf("%w: line %d: %w", ErrNotAHistory, r.line, err)
}

// next gives a line without its end, valid until the next call; whole tells that its end was there.
func (r *Reader) next() (text []byte, whole bool, err error) {
	r.line++
	r.long = r.long[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		if len(r.long)+len(part) > MaxLineBytes {
			return nil, false, r.fault(fmt.Errorf("is longer than %d bytes", MaxLineBytes))
		}
		switch {
		case err == nil:
			if len(r.long) > 0 {
				part = append(r.long, part...)
				r.long = part
			}
			return part[:len(part)-1], true, nil
		case errors.Is(err, bufio.ErrBufferFull):
			r.long = append(r.long, part...)
		case errors.Is(err, io.EOF):
			if len(r.long)+len(part) == 0 {
				return nil, false, io.EOF
			}
			r.long = append(r.long, part...)
			return r.long, false, nil
		default:
			return nil, false, fmt.Errorf("reading line %d of a history: %w", r.line, err)
		}
	}
}

// decode refuses fields that it does not know: what is left out unseen could hide a fault.
func decode(text []byte, into any) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("is empty") // and not the io.EOF that the decoder would give
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return errors.New("is more than one JSON object")
	}
	return nil
}
