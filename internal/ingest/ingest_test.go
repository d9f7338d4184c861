package ingest

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tideline/internal/kafka"
	"tideline/internal/tracing"
)

func TestService_SaysWhenAPartitionDoesNotGetPastAPlace(t *testing.T) {
	cfg := DefaultConfig()
	cfg.HashKey = "0123456789abcdef"
	m := NewMetrics(prometheus.NewRegistry())
	s, err := New(cfg, kafka.DefaultConfig(), nil, nil, nil, tracing.None(), quiet, m, "test")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		partition int32
		at        int64
		again     float64
	}{{0, 7, 0}, {1, 7, 0}, {0, 8, 0}, {0, 8, 1}, {1, 7, 2}, {0, 9, 2}} {
		s.failed(c.partition, c.at, errors.New("refused"))
		if failures, again := testutil.ToFloat64(m.failures), testutil.ToFloat64(m.again); failures != float64(i+1) || again != c.again {
			t.Errorf("after the failure of %d at %d: %v failures, %v again, want %d and %v", c.partition, c.at, failures, again, i+1, c.again)
		}
	}
}
