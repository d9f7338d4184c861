package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tideline/pkg/chat"
)

var errClosed = fmt.Errorf("the history is closed: %w", os.ErrClosed)

// writeBuffer is how many bytes wait before they go to the file: a few hundred records.
const writeBuffer = 256 << 10

// Who is a client in one of its runs.
type Who struct {
	Client chat.UserID
	Conn   Conn // 0 where there is none, as at the Kafka door
}

// Writer appends records. It is safe for concurrent use.
//
// No method that records returns an error: the first one is kept, nothing is written after it, and Err, Flush and Close
// give it. Whoever judges a history MUST have seen Close succeed; what a process that was killed had not flushed is lost
// from the end of the file and from nowhere else.
type Writer struct {
	began time.Time
	ops   atomic.Uint64
	conns atomic.Uint64
	fault atomic.Uint64

	mu   sync.Mutex // guards what follows
	out  *bufio.Writer
	file io.Closer // nil where the writer does not own what it writes to
	err  error
}

// Create makes a file, which must not be there yet, and begins a history in it.
func Create(path string, h Header) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("beginning a history: %w", err)
	}
	w := NewWriter(f, h)
	w.file = f
	return w, nil
}

// NewWriter begins a history: its clock starts now. Version and, where it is 0, BeganAt of the header are filled in.
func NewWriter(out io.Writer, h Header) *Writer {
	w := &Writer{began: time.Now(), out: bufio.NewWriterSize(out, writeBuffer)}
	h.Version = Version
	if h.BeganAt == 0 {
		h.BeganAt = w.began.UnixMilli()
	}
	w.line(h)
	return w
}

// Now gives the time of the history, ns; it is never 0.
func (w *Writer) Now() int64 { return max(int64(time.Since(w.began)), 1) }

// Write records something that happened at r.At; where that is 0, it happens now.
func (w *Writer) Write(r Record) {
	if r.At == 0 {
		r.At = w.Now()
	}
	if err := r.Validate(); err != nil {
		w.fail(fmt.Errorf("a record that is none was to be written: %w", err))
		return
	}
	w.line(r)
}

func (w *Writer) line(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		w.fail(fmt.Errorf("encoding a record: %w", err))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	if _, err := w.out.Write(append(text, '\n')); err != nil {
		w.err = fmt.Errorf("writing a history: %w", err)
	}
}

func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// Begin records that an operation begins, and gives it a name. Call it before the request leaves.
func (w *Writer) Begin(who Who, c chat.ConversationID, b Begin) Op {
	op := Op(w.ops.Add(1))
	w.Write(Record{Op: op, Client: who.Client, Conn: who.Conn, Conversation: c, Begin: &b})
	return op
}

// End records how an operation ended. Call it after the whole answer was read; at most once for each operation.
func (w *Writer) End(op Op, e End) { w.Write(Record{Op: op, End: &e}) }

// Created records how the making of a group ended, which learns only then how it is called. Where that is not known, End
// is enough.
func (w *Writer) Created(op Op, c chat.ConversationID, e End) {
	w.Write(Record{Op: op, Conversation: c, End: &e})
}

// Opened records that a client's run begins, and names it. Call it after the socket's auth was answered.
func (w *Writer) Opened(client chat.UserID, door Door) Who {
	who := Who{client, Conn(w.conns.Add(1))}
	w.Write(Record{Client: client, Conn: who.Conn, Open: &Open{door}})
	return who
}

// Closed records that a client's run has ended. Nothing of it may be recorded later.
func (w *Writer) Closed(who Who, code int, reason string) {
	w.Write(Record{Client: who.Client, Conn: who.Conn, Close: &Close{code, reason}})
}

// Heard records a hint: a conversation is at a number.
func (w *Writer) Heard(who Who, c chat.ConversationID, seq int64) {
	w.Write(Record{Client: who.Client, Conn: who.Conn, Conversation: c, Hint: &Hint{seq}})
}

// Break records that something is about to be broken, and names the fault. Call it before the fault is made.
func (w *Writer) Break(name string) FaultID {
	id := FaultID(w.fault.Add(1))
	w.Write(Record{Fault: &Fault{id, name}})
	return id
}

// Mended records that a fault is over, and within what time everybody must have been told of everything from now on.
func (w *Writer) Mended(id FaultID, allowed time.Duration) {
	w.Write(Record{FaultEnd: &FaultEnd{id, int64(allowed)}})
}

// Rest records that nothing moves any more.
func (w *Writer) Rest() { w.Write(Record{Rest: &Rest{}}) }

// Found records an event as one of the sources has it.
func (w *Writer) Found(c chat.ConversationID, e Event) { w.Write(Record{Conversation: c, Event: &e}) }

// FoundRejected records what im.rejected has.
func (w *Writer) FoundRejected(c chat.ConversationID, r Rejected) {
	w.Write(Record{Conversation: c, Rejected: &r})
}

// FoundMember records a membership.
func (w *Writer) FoundMember(c chat.ConversationID, m Member) {
	w.Write(Record{Conversation: c, Member: &m})
}

// ReadToEnd records that a source was read to its end, and how many records of it stand in the history.
func (w *Writer) ReadToEnd(source SourceName, count int64) {
	w.Write(Record{Source: &Source{source, count}})
}

// Err gives the first error, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Flush gives everything that was recorded to the file.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Writer) flush() error {
	if w.err == nil {
		if err := w.out.Flush(); err != nil {
			w.err = fmt.Errorf("writing a history: %w", err)
		}
	}
	return w.err
}

// Close flushes, and closes the file that Create made. The writer writes nothing any more.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	if w.file != nil {
		if closing := w.file.Close(); err == nil && closing != nil {
			err = fmt.Errorf("closing a history: %w", closing)
		}
		w.file = nil
	}
	if w.err == nil {
		w.err = errClosed
	}
	return err
}
