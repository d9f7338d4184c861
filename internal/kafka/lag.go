package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lagEvery is how often the lag is measured. It is one request for all partitions.
const lagEvery = 2 * time.Second

// measure tells how far the partitions that are here are behind. It asks the brokers and not the owners: one that cannot
// begin, or waits for something, knows least of all what comes in meanwhile.
func (r *ownersRun) measure(ctx context.Context, cl *kgo.Client) {
	if r.Lag == nil {
		return
	}
	adm := kadm.NewClient(cl)
	ends, err := adm.ListCommittedOffsets(ctx, r.Topic)
	if err != nil {
		r.Log.Debug("the lag is not known", "topic", r.Topic, "err", err)
		return
	}
	// Whose owner has not come to its place yet stands where the group has seen it last.
	var committed kadm.OffsetResponses
	var starts kadm.ListedOffsets
	if r.placeless() {
		if committed, err = adm.FetchOffsets(ctx, r.Group); err == nil {
			starts, err = adm.ListStartOffsets(ctx, r.Topic)
		}
		if err != nil {
			r.Log.Debug("the lag of some partitions is not known", "topic", r.Topic, "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.running {
		end, there := ends.Lookup(r.Topic, id)
		if !there || end.Err != nil {
			continue
		}
		place, known := r.places[id]
		if !known {
			if at, there := committed.Lookup(r.Topic, id); there && at.Err == nil && at.At >= 0 {
				place, known = at.At, true
			} else if at, there := starts.Lookup(r.Topic, id); there && at.Err == nil {
				place, known = at.Offset, true
			}
		}
		if known {
			r.Lag(id, max(end.Offset-place, 0))
		}
	}
}

func (r *ownersRun) placeless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.places) < len(r.running)
}
