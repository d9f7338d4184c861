package marks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// sets is as much of Redis as the marks use, within the client: it answers commands before they reach a connection. That lets
// ten thousand schedules pass in the time that a server takes for a hundred; those of the tests beside it hold the same code to
// real servers. It has one user at a time.
type sets struct {
	keys     map[string]*set
	versions map[string]int
}

// road is the way of one client to them, with what that client watches.
type road struct {
	*sets
	watched map[string]int
}

type set struct {
	text    string
	scores  map[string]float64 // nil of a text
	expires time.Time
}

func newSets() *sets { return &sets{keys: map[string]*set{}, versions: map[string]int{}} }

// client gives a client that is answered here, behind other hooks.
func (s *sets) client(before ...redis.Hook) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: "nowhere:0", MaxRetries: -1, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	for _, h := range append(before, &road{sets: s}) {
		c.AddHook(h)
	}
	return c
}

func (s *road) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *road) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error { s.do(cmd); return cmd.Err() }
}

func (s *road) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "multi" {
			changed := false
			for k, v := range s.watched {
				changed = changed || s.versions[k] != v
			}
			s.watched = nil
			if changed {
				for _, c := range cmds {
					c.SetErr(redis.TxFailedErr)
				}
				return redis.TxFailedErr
			}
			cmds = cmds[1 : len(cmds)-1]
		}
		var first error
		for _, c := range cmds {
			s.do(c)
			if first == nil {
				first = c.Err()
			}
		}
		return first
	}
}

func (s *sets) at(key string) *set {
	v := s.keys[key]
	if v != nil && !v.expires.IsZero() && !v.expires.After(time.Now()) {
		s.drop(key)
		return nil
	}
	return v
}

func (s *sets) drop(key string) { delete(s.keys, key); s.versions[key]++ }

func (s *road) do(cmd redis.Cmder) {
	args := make([]string, 0, len(cmd.Args()))
	for _, a := range cmd.Args() {
		switch v := a.(type) {
		case string:
			args = append(args, v)
		case float64:
			args = append(args, strconv.FormatFloat(v, 'f', -1, 64))
		default:
			args = append(args, fmt.Sprint(v))
		}
	}
	key := ""
	if len(args) > 1 {
		key = args[1]
	}
	v := s.at(key)
	scores := map[string]float64{}
	if v != nil && v.scores != nil {
		scores = v.scores
	}
	switch c := cmd.(type) {
	case *redis.StringCmd: // GET
		if v == nil {
			c.SetErr(redis.Nil)
			return
		}
		c.SetVal(v.text)
	case *redis.StatusCmd:
		c.SetVal("OK")
		switch args[0] {
		case "set":
			s.set(key, args)
		case "rename":
			if v == nil {
				c.SetErr(errors.New("ERR no such key"))
				return
			}
			s.drop(key)
			s.keys[args[2]] = v
			s.versions[args[2]]++
		case "watch":
			s.watched = map[string]int{}
			for _, k := range args[1:] {
				s.at(k)
				s.watched[k] = s.versions[k]
			}
		case "unwatch":
			s.watched = nil
		case "flushall":
			for k := range maps.Clone(s.keys) {
				s.drop(k)
			}
		default:
			c.SetErr(fmt.Errorf("ERR unknown command %v", args))
		}
	case *redis.BoolCmd:
		switch {
		case args[0] == "expire":
			if v != nil {
				seconds, _ := strconv.Atoi(args[2])
				v.expires = time.Now().Add(time.Duration(seconds) * time.Second)
			}
			c.SetVal(v != nil)
		case v == nil: // SET NX and SETNX
			s.set(key, args)
			c.SetVal(true)
		}
	case *redis.IntCmd:
		c.SetVal(s.count(args, key, v, scores))
	case *redis.FloatCmd: // ZSCORE
		score, there := scores[args[2]]
		if !there {
			c.SetErr(redis.Nil)
			return
		}
		c.SetVal(score)
	case *redis.FloatSliceCmd: // ZMSCORE
		out := make([]float64, 0, len(args)-2)
		for _, m := range args[2:] {
			out = append(out, scores[m])
		}
		c.SetVal(out)
	case *redis.ZSliceCmd: // ZRANGE 0 -1
		out := make([]redis.Z, 0, len(scores))
		for _, m := range slices.Sorted(maps.Keys(scores)) {
			out = append(out, redis.Z{Member: m, Score: scores[m]})
		}
		slices.SortStableFunc(out, func(a, b redis.Z) int { return cmp.Compare(a.Score, b.Score) })
		c.SetVal(out)
	default:
		c.SetErr(fmt.Errorf("ERR unknown command %v", args))
	}
}

func (s *sets) set(key string, args []string) {
	v := &set{text: args[2]}
	if i := slices.Index(args, "ex"); i > 0 {
		seconds, _ := strconv.Atoi(args[i+1])
		v.expires = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	s.keys[key] = v
	s.versions[key]++
}

// count does what is answered with a number.
func (s *sets) count(args []string, key string, v *set, scores map[string]float64) int64 {
	n := int64(0)
	switch args[0] {
	case "exists":
		if v != nil {
			n = 1
		}
	case "del":
		if v != nil {
			s.drop(key)
			n = 1
		}
	case "zcard":
		n = int64(len(scores))
	case "zcount":
		low, _ := bound(args[2])
		high, open := bound(args[3])
		for _, score := range scores {
			if score >= low && (score < high || score == high && !open) {
				n++
			}
		}
	case "zrem":
		for _, m := range args[2:] {
			if _, there := scores[m]; there {
				delete(scores, m)
				s.versions[key]++
				n++
			}
		}
		if v != nil && len(scores) == 0 {
			s.drop(key)
		}
	case "zadd":
		rest := args[2:]
		xx, gt := false, false
		for ; rest[0] == "xx" || rest[0] == "gt" || rest[0] == "ch"; rest = rest[1:] {
			xx, gt = xx || rest[0] == "xx", gt || rest[0] == "gt"
		}
		for ; len(rest) > 1; rest = rest[2:] {
			score, _ := strconv.ParseFloat(rest[0], 64)
			old, there := scores[rest[1]]
			if xx && !there || gt && there && score <= old {
				continue
			}
			scores[rest[1]] = score
			n++
		}
		if n > 0 {
			if v == nil {
				s.keys[key] = &set{scores: scores}
			}
			s.versions[key]++
		}
	}
	return n
}

func bound(text string) (score float64, open bool) {
	text, open = strings.CutPrefix(text, "(")
	if text == "-inf" {
		return math.Inf(-1), open
	}
	score, _ = strconv.ParseFloat(text, 64)
	return score, open
}
