package api

import (
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tideline/internal/accounts"
	"tideline/internal/tracing"
	"tideline/schemas/openapi/openapitest"
)

var ginField = regexp.MustCompile(`:([a-z_]+)`)

// operations gives the document's operations with the names of their query fields.
func operations(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	model := openapitest.Shared(t).Model()
	for path, item := range model.Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			var query []string
			for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
				if p.In == "query" {
					query = append(query, p.Name)
				}
			}
			out[strings.ToUpper(method)+" /v1"+path] = query
		}
	}
	return out
}

func TestDocument_HasExactlyTheRoutesOfTheServer(t *testing.T) {
	s := New(DefaultConfig(), nil, accounts.New(accounts.DefaultConfig(), nil, nil, nil, nil, nil), "", nil, tracing.None(), slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	served := map[string]bool{"GET " + socketPath: true} // the socket stands beside the routes
	for _, r := range s.engine.Routes() {
		served[r.Method+" "+ginField.ReplaceAllString(r.Path, "{$1}")] = true
	}
	documented := operations(t)
	for _, op := range slices.Sorted(maps.Keys(served)) {
		if _, there := documented[op]; !there {
			t.Errorf("%s is served and not documented", op)
		}
	}
	for _, op := range slices.Sorted(maps.Keys(documented)) {
		if !served[op] {
			t.Errorf("%s is documented and not served", op)
		}
	}
}

func TestDocument_HasExactlyTheQueryFieldsThatAreKnown(t *testing.T) {
	documented := operations(t)
	known := map[string][]string{}
	for route, fields := range queries {
		known[ginField.ReplaceAllString(route, "{$1}")] = fields
	}
	for op, fields := range documented {
		want := slices.Sorted(slices.Values(fields))
		if got := slices.Sorted(slices.Values(known[op])); !slices.Equal(got, want) {
			t.Errorf("%s takes %v, and the document says %v", op, got, want)
		}
		delete(known, op)
	}
	for op := range known {
		t.Errorf("%s has query fields and is not documented", op)
	}
}

// Everything that changes something takes a name for it, and what changes nothing does not.
func TestDocument_SaysWhereChangesAreNamed(t *testing.T) {
	reading := []string{"POST /v1/users/batch", "POST /v1/sync"}
	for path, item := range openapitest.Shared(t).Model().Paths.PathItems.FromOldest() {
		for method, op := range item.GetOperations().FromOldest() {
			takes := false
			for _, p := range op.Parameters {
				takes = takes || p.Name == "Idempotency-Key"
			}
			name := strings.ToUpper(method) + " /v1" + path
			if changes := method != "get" && !slices.Contains(reading, name); takes != changes {
				t.Errorf("%s: changes %t, takes Idempotency-Key %t", name, changes, takes)
			}
		}
	}
}

func TestMatches_ReadsIfNoneMatchAsProxiesWriteIt(t *testing.T) {
	for header, want := range map[string]bool{
		`"a1"`: true, `W/"a1"`: true, `"b2", "a1"`: true, `"b2",W/"a1"`: true, `*`: true,
		``: false, `"a"`: false, `a1`: false, `"b2"`: false, `"b2, a1"`: false,
	} {
		if got := matches(header, `"a1"`); got != want {
			t.Errorf("If-None-Match: %s matches: %t", header, got)
		}
	}
}
