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
	"unsafe"

	"github.com/ebitengine/purego"
)

// Engine is the library with one data folder open. A process can have one, as the library keeps its state in globals. It
// runs one statement at a time: settings and the current database belong to its only session. It is safe for concurrent
// use.
type Engine struct {
	turn     chan struct{} // one place: whoever has put something into it may use what follows, and the library
	conn     uintptr       // of the library: chdb_connection *
	database string        // the current one

	query   func(conn uintptr, text *byte, textLen uintptr, format *byte, formatLen uintptr) uintptr
	buffer  func(result uintptr) uintptr
	length  func(result uintptr) uintptr
	problem func(result uintptr) uintptr
	destroy func(result uintptr)
	end     func(conn uintptr)
}

// ErrClosed means that the engine was closed.
var ErrClosed = errors.New("the engine is closed")

// QueryError is what the engine says of a statement, in ClickHouse's words: "Code: 60. DB::Exception: …".
type QueryError struct{ Text string }

// Error gives the engine's words.
func (e *QueryError) Error() string { return e.Text }

// Open loads the library and opens a data folder, which is made when it is missing.
func Open(library, dataDir string) (*Engine, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	path, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	lib, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("loading the library %s: %w", library, err)
	}
	e := &Engine{turn: make(chan struct{}, 1), database: "default"}
	var connect func(argc int32, argv **byte) uintptr
	var signals func(enabled int32)
	for name, into := range map[string]any{
		"chdb_set_signal_handlers_enabled": &signals, "chdb_connect": &connect, "chdb_close_conn": &e.end, "chdb_query_n": &e.query,
		"chdb_result_buffer": &e.buffer, "chdb_result_length": &e.length, "chdb_result_error": &e.problem, "chdb_destroy_query_result": &e.destroy,
	} {
		symbol, err := purego.Dlsym(lib, name)
		if err != nil {
			return nil, fmt.Errorf("looking for %s in %s, which may be of a version that is not known: %w", name, library, err)
		}
		purego.RegisterFunc(into, symbol)
	}
	// Otherwise the library owns SIGSEGV, and a nil dereference in Go hangs the process instead of ending it.
	signals(0)
	args := [][]byte{[]byte("tideline\x00"), []byte("--path=" + path + "\x00")}
	argv := []*byte{&args[0][0], &args[1][0], nil}
	e.conn = connect(int32(len(args)), &argv[0])
	runtime.KeepAlive(args)
	if e.conn == 0 || *(*uintptr)(pointer(e.conn)) == 0 {
		return nil, fmt.Errorf("the engine did not open %s: is another process using it?", path)
	}
	return e, nil
}

// pointer makes a pointer of an address that the library gave: it points to memory of the library, which Go's collector
// neither moves nor frees.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// Close closes the data folder after the statement that is running.
func (e *Engine) Close() {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	if e.conn != 0 {
		e.end(e.conn)
		e.conn = 0
	}
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

// Run waits for its turn, runs one statement and gives its result in the format asked for. An error of the engine is a
// *QueryError; the context's error means that the statement was not begun. One that was begun runs to its end.
func (e *Engine) Run(ctx context.Context, s Statement) ([]byte, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other statements: %w", ctx.Err())
	}
	if e.conn == 0 {
		return nil, ErrClosed
	}
	if database := s.Database; database != "" && database != e.database {
		if _, err := e.run("USE "+quoteName(database), "Null"); err != nil {
			return nil, err
		}
		e.database = database
	}
	defer e.reset(s.Settings)
	for name, value := range s.Settings {
		if !word(name) {
			return nil, &QueryError{Text: "Code: 115. DB::Exception: a setting has a name that is no word. (UNKNOWN_SETTING)"}
		}
		if _, err := e.run("SET "+name+" = "+quote(value), "Null"); err != nil {
			return nil, err
		}
	}
	return e.run(s.Text, s.Format)
}

// reset gives settings back their defaults; those that were refused need none.
func (e *Engine) reset(settings map[string]string) {
	for name := range settings {
		if word(name) {
			_, _ = e.run("SET "+name+" = DEFAULT", "Null")
		}
	}
}

// run calls the library. The caller has its turn.
func (e *Engine) run(text, format string) ([]byte, error) {
	if text == "" {
		return nil, &QueryError{Text: "Code: 62. DB::Exception: the statement is empty. (SYNTAX_ERROR)"}
	}
	t, f := []byte(text), []byte(format)
	result := e.query(*(*uintptr)(pointer(e.conn)), &t[0], uintptr(len(t)), &f[0], uintptr(len(f)))
	runtime.KeepAlive(t)
	runtime.KeepAlive(f)
	if result == 0 {
		return nil, &QueryError{Text: "Code: 1001. DB::Exception: the engine gave no result. (STD_EXCEPTION)"}
	}
	defer e.destroy(result)
	if problem := e.problem(result); problem != 0 {
		if text := goString(problem); text != "" {
			return nil, &QueryError{Text: text}
		}
	}
	n := int(e.length(result))
	if n == 0 {
		return nil, nil
	}
	out := make([]byte, n)
	copy(out, unsafe.Slice((*byte)(pointer(e.buffer(result))), n))
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
