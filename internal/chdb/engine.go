// Package chdb runs the ClickHouse engine inside a process and serves it behind ClickHouse's HTTP interface, so that the
// ordinary client works against it without a ClickHouse server. The engine is the chDB library, which is loaded at run
// time; nothing of it is linked.
package chdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is what is called of chDB. Several connections may be used at once; each runs one statement at a time.
type library struct {
	dataDir string // absolute

	connect func(argc int32, argv **byte) uintptr
	query   func(conn uintptr, text *byte, textLen uintptr, format *byte, formatLen uintptr) uintptr
	buffer  func(result uintptr) uintptr
	length  func(result uintptr) uintptr
	rows    func(result uintptr) uint64
	problem func(result uintptr) uintptr
	destroy func(result uintptr)
	end     func(conn uintptr)
}

// session is a connection of the library: settings and the current database belong to it. It is not safe for concurrent
// use.
type session struct {
	lib  *library
	conn uintptr // of the library: chdb_connection *
}

// Engine is the library with one data folder open. A process can have one, as the library keeps its state in globals. It
// runs the owner's statements one at a time in one session, and beside them one statement of a reader at a time, each in a
// session of its own. It is safe for concurrent use.
type Engine struct {
	lib *library

	turn     chan struct{} // one place: its holder may use what follows
	owner    *session      // nil once closed
	database string        // the owner's current one

	readTurn chan struct{} // one place: its holder runs a reader's statement, and may use what follows
	reads    int64
	closed   bool

	control  chan struct{} // one place: its holder may use what follows
	controls *session      // ends statements of readers; nil once closed
}

// ErrClosed means that the engine was closed.
var ErrClosed = errors.New("the engine is closed")

// QueryError is what the engine says of a statement, in ClickHouse's words: "Code: 60. DB::Exception: …".
type QueryError struct{ Text string }

// Error gives the engine's words.
func (e *QueryError) Error() string { return e.Text }

// Open loads the library and opens a data folder, which is made when it is missing.
func Open(path, dataDir string) (*Engine, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("loading the library %s: %w", path, err)
	}
	lib := &library{dataDir: dir}
	var signals func(enabled int32)
	for name, into := range map[string]any{
		"chdb_set_signal_handlers_enabled": &signals, "chdb_connect": &lib.connect, "chdb_close_conn": &lib.end, "chdb_query_n": &lib.query,
		"chdb_result_buffer": &lib.buffer, "chdb_result_length": &lib.length, "chdb_result_rows_read": &lib.rows, "chdb_result_error": &lib.problem, "chdb_destroy_query_result": &lib.destroy,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("looking for %s in %s, which may be of a version that is not known: %w", name, path, err)
		}
		purego.RegisterFunc(into, symbol)
	}
	// Otherwise the library owns SIGSEGV, and a nil dereference in Go hangs the process instead of ending it.
	signals(0)
	e := &Engine{lib: lib, turn: make(chan struct{}, 1), readTurn: make(chan struct{}, 1), control: make(chan struct{}, 1), database: "default"}
	if e.owner, err = lib.open(); err != nil {
		return nil, err
	}
	if e.controls, err = lib.open(); err != nil {
		e.owner.close()
		return nil, err
	}
	return e, nil
}

// open makes a connection, which takes about a millisecond once the first has opened the data folder.
func (l *library) open() (*session, error) {
	args := [][]byte{[]byte("tideline\x00"), []byte("--path=" + l.dataDir + "\x00")}
	argv := []*byte{&args[0][0], &args[1][0], nil}
	conn := l.connect(int32(len(args)), &argv[0])
	runtime.KeepAlive(args)
	if conn == 0 || *(*uintptr)(pointer(conn)) == 0 {
		return nil, fmt.Errorf("the engine did not open %s: is another process using it?", l.dataDir)
	}
	return &session{l, conn}, nil
}

func (s *session) close() { s.lib.end(s.conn) }

// pointer makes a pointer of an address that the library gave: it points to memory of the library, which Go's collector
// neither moves nor frees.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// Close closes the data folder after the statements that are running.
func (e *Engine) Close() {
	e.readTurn <- struct{}{}
	e.closed = true
	<-e.readTurn
	e.control <- struct{}{}
	if e.controls != nil {
		e.controls.close()
		e.controls = nil
	}
	<-e.control
	e.turn <- struct{}{}
	if e.owner != nil {
		e.owner.close()
		e.owner = nil
	}
	<-e.turn
}

// Statement is one statement with what a request says beside it.
type Statement struct {
	Text string
	// Database is where names without one are looked for; empty for default.
	Database string
	// Format is the form of the result where the text names none.
	Format string
	// Settings hold for this statement only. Their names must be words.
	Settings map[string]string
}

// Run waits for its turn, runs one statement of the owner and returns its result in the format asked for. An error of the engine is a
// *QueryError; the context's error means that the statement was not begun. One that was begun runs to its end.
func (e *Engine) Run(ctx context.Context, s Statement) (*Result, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other statements: %w", ctx.Err())
	}
	if e.owner == nil {
		return nil, ErrClosed
	}
	if database := s.Database; database != "" && database != e.database {
		if _, err := e.owner.run("USE "+quoteName(database), "Null"); err != nil {
			return nil, err
		}
		e.database = database
	}
	defer e.reset(s.Settings)
	for name, value := range s.Settings {
		if !word(name) {
			return nil, &QueryError{Text: "Code: 115. DB::Exception: a setting has a name that is no word. (UNKNOWN_SETTING)"}
		}
		if _, err := e.owner.run("SET "+name+" = "+quote(value), "Null"); err != nil {
			return nil, err
		}
	}
	result, err := e.owner.query(s.Text, s.Format)
	if err != nil || len(result.Data) == 0 || !strings.Contains(strings.ToLower(s.Text), "format") {
		return result, err
	}
	// The statement may name a format. What it names only the engine's parser can say.
	tree, err := e.owner.run("EXPLAIN AST "+s.Text, "TabSeparatedRaw")
	if err != nil {
		return nil, err
	}
	result.Format = formatIn(string(tree))
	return result, nil
}

// reset gives settings back their defaults; those that were refused need none.
func (e *Engine) reset(settings map[string]string) {
	for name := range settings {
		if word(name) {
			_, _ = e.owner.run("SET "+name+" = DEFAULT", "Null")
		}
	}
}

// run runs a statement and returns the bytes of its result.
func (s *session) run(text, format string) ([]byte, error) {
	result, err := s.query(text, format)
	if err != nil {
		return nil, err
	}
	return result.Data, nil
}

// Result is what a statement returns.
type Result struct {
	Data   []byte // in the statement's format
	Format string // that the text names; "" where it names none
	Rows   uint64
}

// query calls the library.
func (s *session) query(text, format string) (*Result, error) {
	if text == "" {
		return nil, &QueryError{Text: "Code: 62. DB::Exception: the statement is empty. (SYNTAX_ERROR)"}
	}
	t, f := []byte(text), []byte(format)
	result := s.lib.query(*(*uintptr)(pointer(s.conn)), &t[0], uintptr(len(t)), &f[0], uintptr(len(f)))
	runtime.KeepAlive(t)
	runtime.KeepAlive(f)
	if result == 0 {
		return nil, &QueryError{Text: "Code: 1001. DB::Exception: the engine gave no result. (STD_EXCEPTION)"}
	}
	defer s.lib.destroy(result)
	if problem := s.lib.problem(result); problem != 0 {
		if text := goString(problem); text != "" {
			return nil, &QueryError{Text: text}
		}
	}
	out := &Result{Rows: s.lib.rows(result)}
	if n := int(s.lib.length(result)); n > 0 {
		out.Data = make([]byte, n)
		copy(out.Data, unsafe.Slice((*byte)(pointer(s.lib.buffer(result))), n))
	}
	return out, nil
}

// maxErrorBytes bounds what is read of an error's text.
const maxErrorBytes = 64 << 10

func goString(address uintptr) string {
	bytes := unsafe.Slice((*byte)(pointer(address)), maxErrorBytes)
	n := 0
	for n < maxErrorBytes && bytes[n] != 0 {
		n++
	}
	return string(bytes[:n])
}
