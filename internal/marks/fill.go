package marks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// userFillers and conversationFillers bound how many sets are filled at once: each asks the store twice, and waits for the
	// writers in between, whom all of them ask together. A user has a few hundred members at most; a conversation may have many
	// thousands, and does not stand in a row with a crowd of users.
	userFillers         = 32
	conversationFillers = 4
	// fillTime bounds one fill.
	fillTime = 20 * time.Second
	// lockTime is for how long a fill keeps other processes from the same work. It is only thrift: two fills of one set
	// do not disturb each other, because only the one that is named in :fill goes on.
	lockTime = 10 * time.Second
	// rounds bounds how often a set is compared with a store that does not come to rest.
	rounds = 8
	// tries bounds how often a change is tried that others overtake.
	tries = 50
)

var (
	errOvertaken = errors.New("another fill, or the loss of the set, has overtaken this one")
	errRestless  = errors.New("the members changed in every round")
	errLocked    = errors.New("another process fills it")
)

// Run fills what is asked for, and watches for a Redis that has become another one, until the context ends.
func (m *Marks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { m.watch(ctx) })
	for range userFillers {
		wg.Go(func() { m.fillAll(ctx, m.users) })
	}
	for range conversationFillers {
		wg.Go(func() { m.fillAll(ctx, m.conversations) })
	}
	wg.Wait()
	return nil
}

func (m *Marks) fillAll(ctx context.Context, queue <-chan subject) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-queue:
			m.fillAsked(ctx, s)
		}
	}
}

// ask queues a fill unless it is queued or under way; it never waits.
func (m *Marks) ask(s subject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked[s] {
		return
	}
	queue := m.conversations
	if s.user != 0 {
		queue = m.users
	}
	select {
	case queue <- s:
		m.asked[s] = true
	default:
	}
}

func (m *Marks) fillAsked(ctx context.Context, s subject) {
	defer func() {
		m.mu.Lock()
		delete(m.asked, s)
		m.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	started := time.Now()
	err := m.fill(ctx, s)
	switch {
	case err == nil:
		m.metrics.fills.Observe(time.Since(started).Seconds())
	case errors.Is(err, errLocked), ctx.Err() != nil:
	default:
		m.metrics.failed.Inc()
		m.log.Info("fast marks are not ready; the store answers for them", "set", s.key(), "err", err)
	}
}

// fill makes a set and makes it ready; see the package comment for why that can be believed.
func (m *Marks) fill(ctx context.Context, s subject) error {
	key, token := s.key(), newToken()
	name := strconv.FormatFloat(token, 'f', 0, 64)
	// The epoch comes first: what begins a new one from here on makes this fill worthless.
	if err := m.client.SetNX(ctx, epochKey, name, 0).Err(); err != nil {
		return err
	}
	epoch, err := m.epoch(ctx)
	if err != nil {
		return err
	}
	mine, err := m.client.SetNX(ctx, key+lockTail, name, lockTime).Result()
	if err != nil {
		return err
	}
	if !mine {
		return errLocked
	}
	first, err := m.load(ctx, s)
	if err != nil {
		return err
	}
	aside := key + ":" + name
	if err := m.build(ctx, aside, first, token); err != nil {
		return err
	}
	// The set and the name of the fill that works on it change together.
	_, err = m.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Rename(ctx, aside, key)
		p.Expire(ctx, key, keep)
		p.Set(ctx, key+fillTail, name, fillTime)
		return nil
	})
	if err != nil {
		return err
	}
	for range rounds {
		if err := m.barrier.wait(ctx, s); err != nil {
			return err
		}
		want, err := m.load(ctx, s)
		if err != nil {
			return err
		}
		same, err := m.compare(ctx, key, token, want)
		if err != nil {
			return err
		}
		if !same {
			continue
		}
		err = m.change(ctx, key, token, func(p redis.Pipeliner) { m.finish(ctx, p, key, epoch) })
		if err != nil {
			return err
		}
		// A lock that is left behind after a failure keeps this set from being tried again at once.
		if holder, err := m.client.Get(ctx, key+lockTail).Result(); err == nil && holder == name {
			return m.client.Del(ctx, key+lockTail).Err()
		}
		return nil
	}
	return errRestless
}

// finish makes a set ready, where it is: one that was evicted meanwhile must not come back as a ready one that has nobody.
func (m *Marks) finish(ctx context.Context, p redis.Pipeliner, key string, epoch float64) {
	p.ZAddArgs(ctx, key, redis.ZAddArgs{XX: true, Members: []redis.Z{{Member: ready, Score: epoch}}})
	p.ZRem(ctx, key, filling)
	p.Del(ctx, key+fillTail)
}

// load gives the members of a set as the store has them.
func (m *Marks) load(ctx context.Context, s subject) (map[string]float64, error) {
	if s.user != 0 {
		list, err := m.store.Memberships(ctx, s.user, false)
		if err != nil {
			return nil, err
		}
		set := make(map[string]float64, 2*len(list))
		for i := range list {
			v := &list[i].Member
			set[v.Conversation.String()], set[ordinalMember(v.Conversation)] = float64(v.ReadSeq), float64(v.ReadOrdinal)
		}
		return set, nil
	}
	list, err := m.store.Marks(ctx, s.conversation)
	if err != nil {
		return nil, err
	}
	set := make(map[string]float64, 2*len(list))
	for _, v := range list {
		set[v.User.String()], set[joinMember(v.User)] = float64(v.Seq), joinScore(v.JoinSeq)
	}
	return set, nil
}

func (m *Marks) build(ctx context.Context, key string, set map[string]float64, token float64) error {
	all := make([]redis.Z, 0, len(set)+2)
	all = append(all, redis.Z{Member: filling, Score: token}, redis.Z{Member: ready, Score: nobody})
	for member, score := range set {
		all = append(all, redis.Z{Member: member, Score: score})
	}
	for len(all) > 0 {
		n := min(len(all), pipelined)
		if err := m.client.ZAddArgs(ctx, key, redis.ZAddArgs{Members: all[:n]}).Err(); err != nil {
			return err
		}
		// What a fill leaves behind that died must not stay.
		if err := m.client.Expire(ctx, key, fillTime).Err(); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// compare raises the marks of a set to the store's and corrects its members; it tells whether they were the same.
func (m *Marks) compare(ctx context.Context, key string, token float64, want map[string]float64) (same bool, err error) {
	list, err := m.client.ZRangeWithScores(ctx, key, 0, -1).Result()
	if err != nil {
		return false, err
	}
	have := make(map[string]float64, len(list))
	for _, z := range list {
		have[z.Member.(string)] = z.Score
	}
	if have[filling] != token {
		return false, errOvertaken
	}
	var raise, put []redis.Z
	var gone []any
	for member, score := range want {
		old, there := have[member]
		fixed := strings.HasPrefix(member, joinPrefix)
		switch {
		case !there, fixed && old != score:
			put = append(put, redis.Z{Member: member, Score: score})
		case !fixed && old < score:
			raise = append(raise, redis.Z{Member: member, Score: score})
		}
	}
	for member := range have {
		if _, there := want[member]; !there && member != filling && member != ready {
			gone = append(gone, member)
		}
	}
	for len(raise) > 0 {
		n := min(len(raise), pipelined)
		if err := m.client.ZAddArgs(ctx, key, redis.ZAddArgs{XX: true, GT: true, Members: raise[:n]}).Err(); err != nil {
			return false, err
		}
		raise = raise[n:]
	}
	if len(put)+len(gone) == 0 {
		return true, nil
	}
	return false, m.change(ctx, key, token, func(p redis.Pipeliner) {
		if len(put) > 0 {
			p.ZAddArgs(ctx, key, redis.ZAddArgs{Members: put})
		}
		if len(gone) > 0 {
			p.ZRem(ctx, key, gone...)
		}
		p.Expire(ctx, key, keep) // also of what is left where the set was evicted meanwhile: nobody believes it
	})
}

// change does something to a set in one transaction, if the set is still the one that this fill works on. It is the name of the
// fill that is watched and not the set, which changes with every mark: in a large group no fill would come to its end.
func (m *Marks) change(ctx context.Context, key string, token float64, do func(redis.Pipeliner)) error {
	for range tries {
		err := m.client.Watch(ctx, func(tx *redis.Tx) error {
			at, err := tx.Get(ctx, key+fillTail).Result()
			if errors.Is(err, redis.Nil) || err == nil && at != strconv.FormatFloat(token, 'f', 0, 64) {
				return errOvertaken
			}
			if err != nil {
				return err
			}
			// The set itself says the same, unless it was evicted, or is that of somebody who does not name fills.
			of, err := tx.ZScore(ctx, key, filling).Result()
			if errors.Is(err, redis.Nil) || err == nil && of != token {
				return errOvertaken
			}
			if err != nil {
				return err
			}
			_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { do(p); return nil })
			return err
		}, key+fillTail)
		if !errors.Is(err, redis.TxFailedErr) {
			return err
		}
	}
	return fmt.Errorf("changing %s: others were always faster", key)
}
