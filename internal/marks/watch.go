package marks

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// watch begins a new epoch when a Redis server is another process than the one that was known: it may have come back with
// an old snapshot, or be a replica that had not seen everything. Which servers are known stands in Redis itself, so that
// it is as old as what it vouches for.
func (m *Marks) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := m.checkServers(ctx); err != nil && ctx.Err() == nil {
			m.log.Debug("Redis could not be asked which server it is", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Marks) checkServers(ctx context.Context) error {
	var servers, known string
	err := m.guarded(ctx, "asking Redis which server it is", func() (err error) {
		if servers, err = m.servers(ctx); err != nil || servers == "" {
			return err
		}
		known, err = m.client.Get(ctx, serverKey).Result()
		return err
	})
	if err != nil || servers == "" || servers == known {
		return err
	}
	if known != "" {
		m.log.Warn("Redis is another server than before: all fast marks are filled again")
	}
	if err := m.Invalidate(ctx); err != nil {
		return err
	}
	return m.guarded(ctx, "noting which server Redis is", func() error { return m.client.Set(ctx, serverKey, servers, 0).Err() })
}

// servers names the processes that hold sets, or is empty where they do not tell: an embedded Redis begins empty.
func (m *Marks) servers(ctx context.Context) (string, error) {
	cluster, ok := m.client.(*redis.ClusterClient)
	if !ok {
		return runID(ctx, m.client)
	}
	var mu sync.Mutex // guards ids
	var ids []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		id, err := runID(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	})
	slices.Sort(ids)
	return strings.Join(ids, ","), err
}

func runID(ctx context.Context, c redis.Cmdable) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if err != nil {
		if strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "section") {
			return "", nil
		}
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
			return id, nil
		}
	}
	return "", nil
}
