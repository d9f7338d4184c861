package chdb

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Limits bound each statement of a reader. The reader cannot raise them.
type Limits struct {
	// Database is the only one whose tables and views may be read.
	Database string
	// Time is how long a statement may run.
	Time time.Duration
}

// Bounds of a reader's statement that are no settings: an analysis of one machine's archive stays far below them.
const (
	// readMemory is what the engine may allocate for one statement.
	readMemory = 1 << 30
	// readGrowth is how much the process may grow while a statement runs. The engine does not count the text of a result as
	// memory of the statement, and a row can have column names of 200 KB.
	readGrowth = readMemory + readMemory/2
	// readRows and readBytes bound a result; a larger one is read in pages.
	readRows  = 1_000_000
	readBytes = 256 << 20
	// readSpill bounds what sorts and joins write to the disk.
	readSpill = 1 << 30
	// maxReadText is the engine's own max_query_size.
	maxReadText = 256 << 10
	// watchEvery is how often the size of the process is looked at, and how often an ending statement is ended again: the
	// engine forgets a request to end a statement that has not begun.
	watchEvery = 20 * time.Millisecond
)

// readSettings may be set by a reader: they change how a result looks, and nothing else. What is ignored is sent by
// ordinary clients unasked.
var readSettings = map[string]bool{
	"date_time_output_format": true, "join_use_nulls": true, "output_format_json_array_of_rows": true,
	"output_format_json_named_tuples_as_objects": true, "output_format_json_quote_64bit_floats": true, "output_format_json_quote_64bit_integers": true,
	"output_format_json_quote_decimals": true, "output_format_json_quote_denormals": true, "output_format_native_write_json_as_string": true,
	"output_format_pretty_max_rows": true, "output_format_write_statistics": true, "session_timezone": true,
	"async_insert": false, "cancel_http_readonly_queries_on_client_close": false, "send_progress_in_http_headers": false,
}

// Read waits for its turn and runs one statement of a reader, in a session of its own that is forced to readonly=1. What may
// be read is decided by the statement's syntax tree, as the engine has parsed it. The statement ends when the context does.
func (e *Engine) Read(ctx context.Context, s Statement, limits Limits) (*Result, error) {
	if len(s.Text) > maxReadText {
		return nil, tooLong()
	}
	settings, limit, err := readerSettings(s.Settings, limits.Time)
	if err != nil {
		return nil, err
	}
	if s.Database != "" && s.Database != limits.Database {
		return nil, denied("database %s is not for readers, %s is", s.Database, limits.Database)
	}
	if !readFormats[s.Format] {
		return nil, denied("format %s is not for readers", s.Format)
	}
	select {
	case e.readTurn <- struct{}{}:
		defer func() { <-e.readTurn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other statements: %w", ctx.Err())
	}
	if e.closed {
		return nil, ErrClosed
	}
	e.reads++
	tag := fmt.Sprintf("reader %d", e.reads)
	reader, err := e.lib.open()
	if err != nil {
		return nil, err
	}
	defer reader.close()
	known, err := reader.run("SELECT name FROM system.databases", "TabSeparatedRaw")
	if err != nil {
		return nil, err
	}
	if _, err := reader.run("USE "+quoteName(limits.Database), "Null"); err != nil {
		return nil, err
	}
	text, copies := useCatalog(s.Text)
	if s.Text = text; len(text) > maxReadText {
		return nil, tooLong()
	}
	if err := reader.copyCatalog(copies, limits.Database); err != nil {
		return nil, err
	}
	settings = append(settings, [][2]string{
		{"log_comment", tag}, {"max_execution_time", strconv.FormatFloat(limit.Seconds(), 'f', 3, 64)}, {"timeout_overflow_mode", "throw"},
		{"max_memory_usage", strconv.Itoa(readMemory)}, {"max_result_rows", strconv.Itoa(readRows)}, {"max_result_bytes", strconv.Itoa(readBytes)}, {"result_overflow_mode", "throw"},
		{"max_temporary_data_on_disk_size_for_query", strconv.Itoa(readSpill)}, {"allow_introspection_functions", "0"}, {"allow_ddl", "0"},
		{"readonly", "1"}, // the last one: nothing can be set behind it
	}...)
	for _, setting := range settings {
		if _, err := reader.run("SET "+setting[0]+" = "+quote(setting[1]), "Null"); err != nil {
			return nil, err
		}
	}
	ended := e.watch(ctx, tag, limit)
	out, err := reader.read(s, limits.Database, strings.Split(string(known), "\n"))
	why := ended()
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the client has gone: %w", ctx.Err())
	case why != "":
		return nil, &QueryError{Text: why}
	}
	return nil, err
}

func tooLong() error {
	return &QueryError{Text: "Code: 62. DB::Exception: the statement is longer than 262144 bytes. (SYNTAX_ERROR)"}
}

// read checks a statement and runs it.
func (s *session) read(st Statement, database string, known []string) (*Result, error) {
	// EXPLAIN AST shows the first statement of several, and the library runs all of them: formatQuery takes exactly one.
	if _, err := s.run("SELECT formatQuerySingleLine("+quote(st.Text)+")", "Null"); err != nil {
		text, _, _ := strings.Cut(err.Error(), ": In scope SELECT formatQuerySingleLine")
		return nil, &QueryError{Text: text}
	}
	tree, err := s.run("EXPLAIN AST "+st.Text, "TabSeparatedRaw")
	if err != nil {
		return nil, err
	}
	if err := mayRead(string(tree), st.Text, database, known); err != nil {
		return nil, err
	}
	result, err := s.query(st.Text, st.Format)
	if err != nil {
		return nil, err
	}
	result.Format = formatIn(string(tree))
	return result, nil
}

// readerSettings sorts what a reader has set: parameters of the statement, the look of the result, and a time limit below
// ours.
func readerSettings(given map[string]string, limit time.Duration) (settings [][2]string, _ time.Duration, err error) {
	for name, value := range given {
		shown, known := readSettings[name]
		switch {
		case !word(name):
			return nil, 0, &QueryError{Text: "Code: 115. DB::Exception: a setting has a name that is no word. (UNKNOWN_SETTING)"}
		case strings.HasPrefix(name, "param_"), shown:
			settings = append(settings, [2]string{name, value})
		case known:
		case name == "max_execution_time":
			// The ordinary client sends the time that its caller has left.
			if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 && seconds < math.MaxInt32 {
				limit = min(limit, time.Duration(seconds*float64(time.Second)))
			}
		default:
			return nil, 0, &QueryError{Text: "Code: 164. DB::Exception: Cannot modify '" + name + "' setting in readonly mode. (READONLY)"}
		}
	}
	return settings, limit, nil
}

// watch ends the statement with a tag when the context ends, its time is over or the process has grown too much. The function
// that it returns ends the watch, and returns the error of a statement that was ended for the latter two, or "".
func (e *Engine) watch(ctx context.Context, tag string, limit time.Duration) func() string {
	stop, gone := make(chan struct{}), make(chan struct{})
	var why atomic.Pointer[string]
	go func() {
		defer close(gone)
		deadline := time.NewTimer(limit)
		defer deadline.Stop()
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		before := residentBytes()
		for ending := false; ; {
			select {
			case <-stop:
				return
			case <-ctx.Done():
				ending = true
			case <-deadline.C:
				text := "Code: 159. DB::Exception: Timeout exceeded: maximum: " + limit.String() + ". (TIMEOUT_EXCEEDED)"
				why.CompareAndSwap(nil, &text)
				ending = true
			case <-tick.C:
			}
			if !ending && residentBytes()-before > readGrowth {
				text := "Code: 241. DB::Exception: Query memory limit exceeded: the result is too large. (MEMORY_LIMIT_EXCEEDED)"
				why.CompareAndSwap(nil, &text)
				ending = true
			}
			if !ending {
				continue
			}
			e.kill(tag)
			select {
			case <-stop:
				return
			case <-time.After(watchEvery):
			}
		}
	}()
	return func() string {
		close(stop)
		<-gone
		if text := why.Load(); text != nil {
			return *text
		}
		return ""
	}
}

// kill ends the statement with a tag at its next block of rows. A session cannot be interrupted, but another one can ask.
func (e *Engine) kill(tag string) {
	e.control <- struct{}{}
	defer func() { <-e.control }()
	if e.controls != nil {
		_, _ = e.controls.run("KILL QUERY WHERE Settings['log_comment'] = "+quote(tag)+" ASYNC", "Null") // it may have ended
	}
}

// residentBytes is how much memory this process has; 0 where the system does not say.
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
