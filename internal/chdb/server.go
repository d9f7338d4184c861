package chdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
)

// Server is ClickHouse's HTTP interface in front of an Engine. It is an ops.Service.
type Server struct {
	cfg      Config
	engine   *Engine
	log      *slog.Logger
	listener net.Listener
	seats    chan struct{} // of the owner's statements that run or wait
	// readSeats are those of readers: they cannot take the archiver's.
	readSeats chan struct{}
	// bodies are places of readers whose statement is being read.
	bodies chan struct{}
	// stopping is closed when the server stops: readers' statements end then.
	stopping chan struct{}
	// scratch is where data of inserts stand until the engine has read them.
	scratch string
}

// Listen opens the engine and the listener.
func Listen(cfg Config, log *slog.Logger) (*Server, error) {
	if err := sweepMutations(cfg.DataDir, log); err != nil {
		return nil, err
	}
	engine, err := Open(cfg.Library, cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, engine: engine, log: log, seats: make(chan struct{}, cfg.MaxQueued+1), readSeats: make(chan struct{}, maxReads), bodies: make(chan struct{}, maxBodies), stopping: make(chan struct{})}
	if s.scratch, err = os.MkdirTemp("", "tideline-chdb-"); err != nil {
		engine.Close()
		return nil, fmt.Errorf("making a folder for inserts: %w", err)
	}
	if s.listener, err = net.Listen("tcp", cfg.Addr); err != nil {
		s.close()
		return nil, fmt.Errorf("chdb.addr: %w", err)
	}
	return s, nil
}

// Addr tells where it listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

func (s *Server) close() {
	s.engine.Close()
	_ = os.RemoveAll(s.scratch)
}

// stopWait is how long statements that are running may take when the server stops.
const stopWait = 20 * time.Second

// Run serves until the context ends, lets what is running finish, and closes the engine.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Ok.\n") })
	mux.HandleFunc("/{$}", s.statement)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- server.Serve(s.listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	close(s.stopping)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	err := server.Shutdown(stop)
	_ = <-done // it ended because it was told to
	return err
}

// maxReads bounds the statements of readers that run or wait, and with them the results that are in memory.
const maxReads = 8

// maxBodies bounds the statements of readers that are on their way here, each of maxReadText twice at most.
const maxBodies = 64

// bodyWait is how long a reader may take to send a statement.
const bodyWait = 10 * time.Second

// writeWait is how long a client may take to read its result: it has its seat until then.
const writeWait = 2 * time.Minute

// role is what a password permits.
type role int

const (
	noRole role = iota
	roleReader
	roleOwner
)

// request is what a client asks for, cut out of an HTTP request.
type request struct {
	Statement
	// revision is the client's, for blocks in the native format; 0 for none.
	revision   uint64
	compress   string // method of native compression of the answer, or ""
	gzip       bool   // the answer has Content-Encoding: gzip
	data       []byte // behind an INSERT
	dataFormat string
}

func (s *Server) statement(w http.ResponseWriter, r *http.Request) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		refuse(w, http.StatusBadRequest, "Code: 36. DB::Exception: the address has parameters that are not readable. (BAD_ARGUMENTS)")
		return
	}
	as := s.role(r, params)
	if as != roleOwner {
		// It holds for what is refused as well: net/http reads the body before it answers. Every connection of net/http has it.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
	}
	switch as {
	case noRole:
		refuse(w, http.StatusUnauthorized, "Code: 516. DB::Exception: authentication failed. (AUTHENTICATION_FAILED)")
		return
	case roleReader:
		// A reader has a seat only once its statement is here: slow bodies keep no other reader out.
		if !take(w, s.bodies) {
			return
		}
	case roleOwner:
		if !take(w, s.seats) {
			return
		}
		defer func() { <-s.seats }()
	}
	q, err := func() (*request, error) {
		if as == roleReader {
			defer func() { <-s.bodies }()
		}
		return s.read(w, r, params, as)
	}()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		refuse(w, http.StatusRequestTimeout, "Code: 209. DB::Exception: the statement was not sent in time. (SOCKET_TIMEOUT)")
		return
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "Code: 307. DB::Exception: the request is too large. (TOO_MANY_BYTES)")
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "Code: 36. DB::Exception: "+err.Error()+". (BAD_ARGUMENTS)")
		return
	}
	patience := s.cfg.MaxWait
	if as == roleReader {
		patience += s.cfg.ReaderTime // a statement of a reader ends with its context, also once it was begun
		// From here on the connection is read to see whether the client goes.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience + writeWait))
		if !take(w, s.readSeats) {
			return
		}
		defer func() { <-s.readSeats }()
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	result, err := s.run(ctx, q, as)
	var body []byte
	if err == nil {
		body, err = q.encode(result)
	}
	var said *QueryError
	switch {
	case errors.As(err, &said):
		refuse(w, statusOf(said.Text), said.Text)
		return
	case ctx.Err() != nil:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "Code: 159. DB::Exception: the statement waited too long for its turn. (TIMEOUT_EXCEEDED)")
		return
	case errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed):
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "Code: 236. DB::Exception: the server stops. (ABORTED)")
		return
	case err != nil:
		s.log.Error("a statement was not run", "err", err)
		refuse(w, http.StatusInternalServerError, "Code: 1001. DB::Exception: the server has a fault. (STD_EXCEPTION)")
		return
	}
	if w.Header().Set("X-ClickHouse-Format", q.format(result)); q.gzip {
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("X-ClickHouse-Summary", `{"result_rows":"`+strconv.FormatUint(result.Rows, 10)+`"}`) // the JDBC driver reads no rows without it
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWait))                       // every connection of net/http has it
	_, _ = w.Write(body)
}

// take takes a place, or refuses the request where there is none.
func take(w http.ResponseWriter, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "Code: 202. DB::Exception: too many statements wait for their turn. (TOO_MANY_SIMULTANEOUS_QUERIES)")
		return false
	}
}

func (s *Server) run(ctx context.Context, q *request, as role) (*Result, error) {
	if as == roleReader {
		return s.runRead(ctx, q)
	}
	if q.data != nil {
		f, err := os.CreateTemp(s.scratch, "*.data")
		if err != nil {
			return nil, fmt.Errorf("making a file for an insert: %w", err)
		}
		defer func() { _ = os.Remove(f.Name()) }()
		_, err = f.Write(q.data)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("writing the data of an insert: %w", err)
		}
		q.Text += " FROM INFILE " + quote(f.Name()) + " FORMAT " + q.dataFormat
	}
	return s.engine.Run(ctx, q.Statement)
}

// runRead runs a statement of a reader. It ends when the client goes and when the server stops.
func (s *Server) runRead(ctx context.Context, q *request) (*Result, error) {
	if q.data != nil {
		return nil, denied("INSERT is not for readers")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return s.engine.Read(ctx, q.Statement, Limits{Database: s.cfg.ReaderDatabase, Time: s.cfg.ReaderTime})
}

// format returns the format that a result is in: the one that the engine's parser saw in the statement, or the request's.
// The text alone does not say it: behind a comment a reader may name another one.
func (q *request) format(result *Result) string {
	if result.Format != "" {
		return result.Format
	}
	return q.Format
}

// encode returns a result as the client wants it: blocks are those of its revision, text stays as it is, and both are
// compressed where the client asked for that.
func (q *request) encode(result *Result) (out []byte, err error) {
	switch {
	case q.Format == native && strings.EqualFold(q.format(result), native):
		out, err = transcode(result.Data, q.revision, q.compress)
	case q.compress != "":
		out, err = squeezeAll(result.Data, q.compress)
	default:
		out = result.Data
	}
	if err != nil || !q.gzip {
		return out, err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err = z.Write(out); err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("compressing the result: %w", err)
	}
	return zipped.Bytes(), nil
}

// role returns what the request's password permits; user names do not matter. Both passwords are always compared, so
// that the time does not say which of them was closer.
func (s *Server) role(r *http.Request, params url.Values) role {
	owner, reader := s.cfg.Password.Reveal(), s.cfg.ReaderPassword.Reveal()
	if owner == "" {
		return roleOwner // Validate has made sure that only this machine can reach the address, and that there is no reader
	}
	given := params.Get("password")
	if key := r.Header.Get("X-ClickHouse-Key"); key != "" {
		given = key
	}
	if _, password, ok := r.BasicAuth(); ok {
		given = password
	}
	isOwner, isReader := same(given, owner), same(given, reader)
	switch {
	case isOwner:
		return roleOwner
	case isReader && reader != "":
		return roleReader
	}
	return noRole
}

func same(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

const native = "Native"

// notSettings are parameters of the address that are no settings of the engine.
var notSettings = map[string]bool{
	"query": true, "database": true, "default_format": true, "client_protocol_version": true, "query_id": true, "quota_key": true, "user": true, "password": true,
	"compress": true, "decompress": true, "network_compression_method": true, "network_zstd_compression_level": true, "session_id": true,
	"session_timeout": true, "session_check": true, "wait_end_of_query": true, "buffer_size": true, "enable_http_compression": true,
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, params url.Values, as role) (*request, error) {
	limit := int64(s.cfg.MaxBody)
	if as == roleReader {
		limit = min(limit, 2*maxReadText) // a statement, and what is compressed badly
	}
	body, err := s.body(w, r, params, limit)
	if err != nil {
		return nil, err
	}
	if kind, options, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "multipart/form-data" {
		if err := readForm(body, options["boundary"], params); err != nil {
			return nil, err
		}
		body = nil
	}
	q := &request{Statement: Statement{Database: params.Get("database"), Format: params.Get("default_format"), Settings: map[string]string{}}}
	// A header goes before the parameter, as in ClickHouse.
	if v := r.Header.Get("X-ClickHouse-Database"); v != "" {
		q.Database = v
	}
	if v := r.Header.Get("X-ClickHouse-Format"); v != "" {
		q.Format = v
	}
	switch {
	case q.Database == "" && as == roleOwner:
		q.Database = "default"
	case q.Database == "default" && as == roleReader:
		q.Database = "" // clients name it where their user has named none: for a reader that is the one of the views
	}
	if q.Format == "" {
		q.Format = "TabSeparated"
	}
	q.gzip = params.Get("enable_http_compression") == "1" && acceptsGzip(r.Header.Values("Accept-Encoding"))
	if v := params.Get("client_protocol_version"); v != "" {
		if q.revision, err = strconv.ParseUint(v, 10, 32); err != nil {
			return nil, errors.New("client_protocol_version is no number")
		}
	}
	if params.Get("compress") == "1" {
		q.compress = strings.ToUpper(params.Get("network_compression_method"))
		if q.compress == "" {
			q.compress = "LZ4"
		}
	}
	for name, values := range params {
		if !notSettings[name] && !strings.HasPrefix(name, "http_") {
			q.Settings[name] = values[0]
		}
	}
	text := params.Get("query")
	if text == "" {
		text, body = string(body), nil
	}
	if head, format, data, ok := insert(text); ok {
		q.Text, q.dataFormat, q.data = head, format, append([]byte(data), body...)
		return q, nil
	}
	q.Text = strings.TrimRight(strings.TrimSpace(text+" "+string(body)), ";")
	return q, nil
}

func (s *Server) body(w http.ResponseWriter, r *http.Request, params url.Values, limit int64) ([]byte, error) {
	var reader io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(reader)
		if err != nil {
			return nil, fmt.Errorf("the body is no gzip: %w", err)
		}
		reader = z
	default:
		return nil, fmt.Errorf("the body has the encoding %q, gzip is known", encoding)
	}
	if params.Get("decompress") == "1" {
		blocks := chproto.NewReader(reader)
		blocks.EnableCompression()
		reader = plainEOF{blocks}
	}
	// What was small on the way may be large here.
	body, err := io.ReadAll(io.LimitReader(reader, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return body, nil
}

// maxFields bounds the fields of a form: a statement, and parameters that people write by hand.
const maxFields = 1000

// readForm adds the fields of a form to the parameters of the address, which go before them. The body is bounded already.
func readForm(body []byte, boundary string, params url.Values) error {
	if boundary == "" {
		return errors.New("the form has no boundary")
	}
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for n := 0; ; n++ {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the form: %w", err)
		case n == maxFields:
			return fmt.Errorf("the form has more than %d fields", maxFields)
		case part.FileName() != "" || part.FormName() == "":
			return errors.New("the form has a file, and tables of a request's own are not known here")
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return fmt.Errorf("reading the form: %w", err)
		}
		params.Add(part.FormName(), string(value))
	}
}

// acceptsGzip reports whether a client lists gzip among the encodings that it takes.
func acceptsGzip(accepted []string) bool {
	for item := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
		name, options, _ := strings.Cut(item, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		weight, found := strings.CutPrefix(strings.ReplaceAll(options, " ", ""), "q=")
		if q, err := strconv.ParseFloat(weight, 64); !found || err == nil && q > 0 {
			return true
		}
	}
	return false
}

// plainEOF gives the end of compressed blocks as readers expect it; a block that is cut off has another error.
type plainEOF struct{ r io.Reader }

func (p plainEOF) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

var codePattern = regexp.MustCompile(`Code: (\d+)\.`)

// statusOf gives the status that ClickHouse has for an error.
func statusOf(text string) int {
	switch m := codePattern.FindStringSubmatch(text); {
	case m == nil:
		return http.StatusInternalServerError
	case m[1] == "60" || m[1] == "81" || m[1] == "47": // unknown table, database, identifier
		return http.StatusNotFound
	case m[1] == "164" || m[1] == "497": // readonly, access
		return http.StatusForbidden
	case m[1] == "62" || m[1] == "115" || m[1] == "36": // syntax, setting, arguments
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func refuse(w http.ResponseWriter, status int, text string) {
	if m := codePattern.FindStringSubmatch(text); m != nil {
		w.Header().Set("X-ClickHouse-Exception-Code", m[1])
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
