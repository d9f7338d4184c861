package handlers

import (
	"testing"
	"testing/synctest"
	"time"

	"tideline/pkg/chat"
	"tideline/pkg/timeline"
)

func TestRaised_AMarkIsNeverAnsweredBehindWhatWasRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaised()
		c := chat.GroupConversation(5)
		r.add(c, 7, timeline.Mark{Seq: 5, Ordinal: 4})
		r.add(c, 7, timeline.Mark{Seq: 3, Ordinal: 2})
		for _, x := range []struct {
			what     string
			from     int64
			user     chat.UserID
			end      int64
			want     int64
			wantRead int64
		}{
			{"the store is behind", 1, 7, 9, 5, 4},
			{"the store is ahead", 8, 7, 9, 8, 0},
			{"somebody else", 1, 8, 9, 1, 0},
			{"the mark is beyond what exists", 1, 7, 4, 1, 0},
		} {
			if got := r.atLeast(timeline.Mark{Seq: x.from}, c, x.user, x.end); got.Seq != x.want || got.Ordinal != x.wantRead {
				t.Errorf("%s: the mark is %+v, want %d", x.what, got, x.want)
			}
		}
		time.Sleep(raisedFor + time.Second)
		if got := r.atLeast(timeline.Mark{Seq: 1}, c, 7, 9); got.Seq != 1 {
			t.Errorf("after a minute it is still %+v: the store knows better by then", got)
		}
	})
}

func TestRaised_RemembersABoundedNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRaised()
		for i := range int64(maxRaised + 500) {
			r.add(chat.GroupConversation(i+1), 7, timeline.Mark{Seq: 1})
		}
		if len(r.entries) != maxRaised || r.order.Len() != maxRaised {
			t.Errorf("%d and %d are remembered", len(r.entries), r.order.Len())
		}
		time.Sleep(raisedFor + time.Second)
		r.add(chat.GroupConversation(1), 8, timeline.Mark{Seq: 1})
		if len(r.entries) != 1 || r.order.Len() != 1 {
			t.Errorf("what is over is still remembered: %d and %d", len(r.entries), r.order.Len())
		}
	})
}
