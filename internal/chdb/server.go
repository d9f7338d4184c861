package chdb

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	seats    chan struct{} // of statements that run or wait
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
	s := &Server{cfg: cfg, engine: engine, log: log, seats: make(chan struct{}, cfg.MaxQueued+1)}
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
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	err := server.Shutdown(stop)
	_ = <-done // it ended because it was told to
	return err
}

// request is what a client asks for, cut out of an HTTP request.
type request struct {
	Statement
	// revision is the client's, for blocks in the native format; 0 for none.
	revision   uint64
	compress   string // method of native compression of the answer, or ""
	data       []byte // behind an INSERT
	dataFormat string
}

func (s *Server) statement(w http.ResponseWriter, r *http.Request) {
	if !s.knows(r) {
		refuse(w, http.StatusUnauthorized, "Code: 516. DB::Exception: authentication failed. (AUTHENTICATION_FAILED)")
		return
	}
	select {
	case s.seats <- struct{}{}:
		defer func() { <-s.seats }()
	default:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "Code: 202. DB::Exception: too many statements wait for their turn. (TOO_MANY_SIMULTANEOUS_QUERIES)")
		return
	}
	q, err := s.read(w, r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "Code: 307. DB::Exception: the request is too large. (TOO_MANY_BYTES)")
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "Code: 36. DB::Exception: "+err.Error()+". (BAD_ARGUMENTS)")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.MaxWait)
	defer cancel()
	result, err := s.run(ctx, q)
	var said *QueryError
	switch {
	case errors.As(err, &said):
		refuse(w, statusOf(said.Text), said.Text)
		return
	case ctx.Err() != nil:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "Code: 159. DB::Exception: the statement waited too long for its turn. (TIMEOUT_EXCEEDED)")
		return
	case err != nil:
		s.log.Error("a statement was not run", "err", err)
		refuse(w, http.StatusInternalServerError, "Code: 1001. DB::Exception: the server has a fault. (STD_EXCEPTION)")
		return
	}
	w.Header().Set("X-ClickHouse-Format", q.Format)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(result)))
	_, _ = w.Write(result)
}

func (s *Server) run(ctx context.Context, q *request) ([]byte, error) {
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
	result, err := s.engine.Run(ctx, q.Statement)
	if err != nil || q.Format != native || formatOf(q.Text) != "" && !strings.EqualFold(formatOf(q.Text), native) {
		return result, err
	}
	return transcode(result, q.revision, q.compress)
}

// knows tells whether the request has the password; user names do not matter.
func (s *Server) knows(r *http.Request) bool {
	want := s.cfg.Password.Reveal()
	if want == "" {
		return true
	}
	given := r.Header.Get("X-ClickHouse-Key")
	if _, password, ok := r.BasicAuth(); ok {
		given = password
	}
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

const native = "Native"

// notSettings are parameters of the address that are no settings of the engine.
var notSettings = map[string]bool{
	"query": true, "database": true, "default_format": true, "client_protocol_version": true, "query_id": true, "quota_key": true, "user": true, "password": true,
	"compress": true, "decompress": true, "network_compression_method": true, "network_zstd_compression_level": true, "session_id": true,
	"session_timeout": true, "wait_end_of_query": true, "buffer_size": true, "enable_http_compression": true,
}

func (s *Server) read(w http.ResponseWriter, r *http.Request) (*request, error) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the address has parameters that are not readable")
	}
	body, err := s.body(w, r, params)
	if err != nil {
		return nil, err
	}
	q := &request{Statement: Statement{Database: params.Get("database"), Format: params.Get("default_format"), Settings: map[string]string{}}}
	if q.Database == "" {
		q.Database = r.Header.Get("X-ClickHouse-Database")
	}
	if q.Database == "" {
		q.Database = "default"
	}
	if q.Format == "" {
		q.Format = "TabSeparated"
	}
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

func (s *Server) body(w http.ResponseWriter, r *http.Request, params url.Values) ([]byte, error) {
	limit := int64(s.cfg.MaxBody)
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
