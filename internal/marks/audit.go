package marks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"

	"tideline/pkg/chat"
)

// Sets reads the fast marks as they stand, for those who compare them with what they were made from. It changes nothing:
// it needs GET, SCAN and ZRANGE.
type Sets struct{ client redis.UniversalClient }

// NewSets makes a reader.
func NewSets(client redis.UniversalClient) *Sets { return &Sets{client} }

// Standing is a mark in a set.
type Standing struct {
	// Seq is how far was read; there only with HasSeq. Both halves of an entry belong together.
	Seq    int64
	HasSeq bool
	// Other is the second half: in a user's set the ordinal at Seq, in a conversation's the number of the join.
	Other    int64
	HasOther bool
}

// Set is a set as it stands: of a user, or else of a conversation.
type Set struct {
	Key          string
	User         chat.UserID
	Conversation chat.ConversationID
	// Ready tells that the set is complete in the present epoch, and so is believed.
	Ready bool
	// OfConversations are the entries of a user's set, OfUsers those of a conversation's.
	OfConversations map[chat.ConversationID]Standing
	OfUsers         map[chat.UserID]Standing
	// Strange are members that belong to no set.
	Strange []string
}

// scanned is how many keys are asked for at once.
const scanned = 500

var setKey = regexp.MustCompile(`^tl:\{([uc]):([^{}]+)\}$`)

// Each gives the keys of all sets, of every server of a Cluster one after the other, in no order; one may come twice.
func (s *Sets) Each(ctx context.Context, each func(key string) error) error {
	one := func(ctx context.Context, c redis.Cmdable) error {
		cursor := uint64(0)
		for {
			keys, next, err := c.Scan(ctx, cursor, "tl:{*}", scanned).Result()
			if err != nil {
				return fmt.Errorf("listing the fast marks: %w", err)
			}
			for _, k := range keys {
				if setKey.MatchString(k) {
					if err := each(k); err != nil {
						return err
					}
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return one(ctx, s.client)
	}
	turn := make(chan struct{}, 1) // servers are asked at once, and those who are told want one after the other
	return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return one(ctx, c)
	})
}

// KeyOf gives the key of a conversation's set.
func KeyOf(c chat.ConversationID) string { return conversationKey(c) }

// Read gives a set whole: it has two entries for each member, and grows with the largest group. A key that is not there
// gives a set that is not ready.
func (s *Sets) Read(ctx context.Context, key string) (Set, error) {
	set := Set{Key: key}
	parts := setKey.FindStringSubmatch(key)
	if parts == nil {
		return set, fmt.Errorf("%.80q is not the key of a set of marks", key)
	}
	var err error
	if parts[1] == "u" {
		set.User, err = chat.ParseUserID(parts[2])
		set.OfConversations = map[chat.ConversationID]Standing{}
	} else {
		set.Conversation, err = chat.ParseConversationID(parts[2])
		set.OfUsers = map[chat.UserID]Standing{}
	}
	if err != nil {
		return set, fmt.Errorf("reading the key %s: %w", key, err)
	}
	// The epoch comes first: what is ready in an epoch that has ended since is not taken for ready in the next.
	epoch, err := s.epoch(ctx)
	if err != nil {
		return set, err
	}
	list, err := s.client.ZRangeWithScores(ctx, key, 0, -1).Result()
	if err != nil {
		return set, fmt.Errorf("reading %s: %w", key, err)
	}
	for _, z := range list {
		member := z.Member.(string)
		switch {
		case member == ready:
			set.Ready = epoch != 0 && z.Score == epoch
		case member != filling && !set.take(member, z.Score):
			set.Strange = append(set.Strange, member)
		}
	}
	return set, nil
}

func (s *Sets) epoch(ctx context.Context) (float64, error) {
	epoch, err := s.client.Get(ctx, epochKey).Float64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("reading the epoch of the fast marks: %w", err)
	}
	return epoch, nil
}

// take puts a member where it belongs; false where it belongs nowhere.
func (set *Set) take(member string, score float64) bool {
	if set.OfUsers != nil {
		name, joined := strings.CutPrefix(member, joinPrefix)
		u, err := chat.ParseUserID(name)
		if err != nil {
			return false
		}
		v := set.OfUsers[u]
		if joined {
			v.Other, v.HasOther = int64(-score)-1, true
		} else {
			v.Seq, v.HasSeq = int64(score), true
		}
		set.OfUsers[u] = v
		return true
	}
	name, ordinal := strings.CutPrefix(member, ordinalPrefix)
	c, err := chat.ParseConversationID(name)
	if err != nil {
		return false
	}
	v := set.OfConversations[c]
	if ordinal {
		v.Other, v.HasOther = int64(score), true
	} else {
		v.Seq, v.HasSeq = int64(score), true
	}
	set.OfConversations[c] = v
	return true
}
