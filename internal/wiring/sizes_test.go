package wiring

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tideline/internal/sqlstore"
)

func TestSizes_AreReadSeldomHoweverManyScrape(t *testing.T) {
	now, reads := time.Unix(1_760_000_000, 0), 0
	var fault error
	s := newSizes(func(ctx context.Context) (sqlstore.Sizes, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a scrape may wait for ever")
		}
		reads++
		return sqlstore.Sizes{Users: int64(reads), Sessions: 20, Conversations: 30, Bytes: 40}, fault
	}, func() (int64, error) { return 50, nil }, slog.New(slog.DiscardHandler))
	s.now = func() time.Time { return now }
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	expect := func(want map[string]float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			if !strings.Contains(f.GetHelp(), sizesEvery.String()) {
				t.Errorf("the help of %s does not say how often it is read", f.GetName())
			}
			got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
		if len(got) != len(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for name, v := range want {
			if got[name] != v {
				t.Errorf("%s is %v, want %v", name, got[name], v)
			}
		}
	}
	all := func(users float64) map[string]float64 {
		return map[string]float64{"tideline_users": users, "tideline_sessions": 20, "tideline_conversations": 30, "tideline_store_bytes": 40, "tideline_data_bytes": 50}
	}
	for range 100 {
		expect(all(1))
	}
	now = now.Add(sizesEvery)
	expect(all(2))
	fault = errors.New("down")
	now = now.Add(sizesEvery)
	for range 100 {
		expect(map[string]float64{"tideline_data_bytes": 50}) // no value is better than an old one
	}
	if reads != 3 {
		t.Errorf("the store was read %d times, want 3", reads)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
