// Package openapitest holds what a server says against the OpenAPI document, in tests: every answer must stand in the
// document as it is, and what was answered with success must have been a request that the document allows.
package openapitest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	verrors "github.com/pb33f/libopenapi-validator/errors"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"tideline/schemas/openapi"
)

// Contract is the document, ready to be asked. It is safe for concurrent use.
type Contract struct {
	validator validator.Validator
	model     *v3.Document
	refusal   *jsonschema.Schema // components/schemas/ErrorBody

	mu   sync.Mutex // guards seen
	seen map[string]bool
}

var shared = sync.OnceValues(func() (*Contract, error) { return Load(openapi.Document) })

// Shared gives the contract of this project, read once.
func Shared(t testing.TB) *Contract {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Load reads a document.
func Load(text []byte) (*Contract, error) {
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("resolving the OpenAPI document: %w", err)
	}
	// Who may ask is the server's to judge; the tests ask without a token on purpose.
	v, faults := validator.NewValidator(document, config.WithoutSecurityValidation())
	if len(faults) > 0 {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", errors.Join(faults...))
	}
	tree, err := Tree(text)
	if err != nil {
		return nil, err
	}
	refusal, err := Compile(tree, "/components/schemas/ErrorBody")
	if err != nil {
		return nil, err
	}
	return &Contract{validator: v, model: &model.Model, refusal: refusal, seen: map[string]bool{}}, nil
}

// Tree gives a YAML document as a JSON schema compiler wants it.
func Tree(text []byte) (any, error) {
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("reading YAML: %w", err)
	}
	return tree, nil
}

// Compile gives the schema at a JSON pointer of a document.
func Compile(tree any, pointer string) (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", tree); err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	s, err := compiler.Compile("openapi.json#" + pointer)
	if err != nil {
		return nil, fmt.Errorf("the schema %s: %w", pointer, err)
	}
	return s, nil
}

// Validate holds the document against the specification of OpenAPI 3.1.
func (c *Contract) Validate() []error { return faultsOf(c.validator.ValidateDocument()) }

// Model gives the document, resolved.
func (c *Contract) Model() *v3.Document { return c.model }

// Seen gives what was answered so far, as "GET /users 200".
func (c *Contract) Seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for s := range c.seen {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// Exchange holds a request and its answer against the document. Both bodies are given beside them, read.
func (c *Contract) Exchange(r *http.Request, asked []byte, a *http.Response, answered []byte) []error {
	ask := r.Clone(r.Context())
	ask.Body = io.NopCloser(bytes.NewReader(asked))
	ask.ContentLength = int64(len(asked))
	answer := *a
	answer.Body = io.NopCloser(bytes.NewReader(answered))
	answer.ContentLength = int64(len(answered))

	operation := c.operation(r)
	if operation == "" {
		return c.strange(a, answered)
	}
	c.mu.Lock()
	c.seen[operation+" "+fmt.Sprint(a.StatusCode)] = true
	c.mu.Unlock()
	var faults []error
	add := func(list []error) { faults = append(faults, list...) }
	add(faultsOf(c.validator.ValidateHttpResponse(ask, &answer)))
	add(c.form(a, answered))
	if a.StatusCode < 400 && a.StatusCode != http.StatusSwitchingProtocols {
		ask.Body, ask.ContentLength = io.NopCloser(bytes.NewReader(asked)), int64(len(asked))
		for _, f := range faultsOf(c.validator.ValidateHttpRequestSync(ask)) {
			faults = append(faults, fmt.Errorf("it was answered %d, and the document does not allow it: %w", a.StatusCode, f))
		}
	}
	return faults
}

// operation names what is asked for, as "GET /users/{uid}"; "" where the document has no such thing. An address with a
// fixed part goes before one with a field.
func (c *Contract) operation(r *http.Request) string {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v1")
	if !ok {
		return ""
	}
	parts := strings.Split(path, "/")
	best, bestFields := "", 1<<30
	for pair := c.model.Paths.PathItems.First(); pair != nil; pair = pair.Next() {
		template := strings.Split(pair.Key(), "/")
		if len(template) != len(parts) {
			continue
		}
		fields, fits := 0, true
		for i := range template {
			if strings.HasPrefix(template[i], "{") {
				fields++
				fits = fits && parts[i] != ""
			} else {
				fits = fits && template[i] == parts[i]
			}
		}
		if !fits || fields >= bestFields {
			continue
		}
		if pair.Value().GetOperations().GetOrZero(strings.ToLower(r.Method)) != nil {
			best, bestFields = r.Method+" "+pair.Key(), fields
		}
	}
	return best
}

// strange holds an answer at an address that the document does not have: it must say so in the contract's form.
func (c *Contract) strange(a *http.Response, answered []byte) []error {
	if a.StatusCode < 400 {
		return []error{fmt.Errorf("this is not in the document, and it was answered with %d", a.StatusCode)}
	}
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(answered))
	if err == nil {
		err = c.refusal.Validate(body)
	}
	if err != nil {
		return []error{fmt.Errorf("the refusal has not the contract's form: %w", err)}
	}
	return c.form(a, answered)
}

// form holds what is true of every answer.
func (c *Contract) form(a *http.Response, answered []byte) []error {
	var faults []error
	id := a.Header.Get("X-Request-Id")
	if id == "" {
		faults = append(faults, errors.New("the answer has no X-Request-Id"))
	}
	switch a.StatusCode {
	case http.StatusNoContent, http.StatusNotModified:
		if len(answered) > 0 {
			faults = append(faults, fmt.Errorf("an answer of %d has a body", a.StatusCode))
		}
		return faults
	}
	if kind, _, err := mime.ParseMediaType(a.Header.Get("Content-Type")); err != nil || (a.StatusCode >= 400 && kind != "application/json") {
		faults = append(faults, fmt.Errorf("the answer is %q", a.Header.Get("Content-Type")))
	}
	if a.StatusCode >= 400 && !bytes.Contains(answered, []byte(`"request_id":"`+id+`"`)) {
		faults = append(faults, fmt.Errorf("the refusal does not carry the request id %s", id))
	}
	return faults
}

func faultsOf(ok bool, list []*verrors.ValidationError) []error {
	if ok {
		return nil
	}
	faults := make([]error, 0, len(list))
	for _, e := range list {
		text := e.Message + ": " + e.Reason
		for _, s := range e.SchemaValidationErrors {
			text += "; " + s.FieldPath + " " + s.Reason
		}
		faults = append(faults, errors.New(text))
	}
	return faults
}

// Transport gives a RoundTripper that fails the test for every exchange that the document does not allow.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	return &transport{t, next, Shared(t)}
}

type transport struct {
	t        testing.TB
	next     http.RoundTripper
	contract *Contract
}

// RoundTrip asks, and holds the answer against the document.
func (x *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var asked []byte
	if r.Body != nil {
		var err error
		if asked, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(asked))
	}
	a, err := x.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answered, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if err != nil {
		return nil, err
	}
	for _, fault := range x.contract.Exchange(r, asked, a, answered) {
		x.t.Errorf("%s %s, answered %d: %v\n asked: %.400s\n answered: %.400s", r.Method, r.URL.RequestURI(), a.StatusCode, fault, asked, answered)
	}
	a.Body = io.NopCloser(bytes.NewReader(answered))
	return a, nil
}
