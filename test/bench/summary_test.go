package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// expected is what a summary must say of a conversation.
type expected struct{ max, read, unread int64 }

// summary is cell 4.
func (b *bench) summary() {
	tab := b.table(fmt.Sprintf("4. Summary of %d conversations", b.size.summary), "on", "p50 ms", "p99 ms", "KB", "floor p50 ms", "÷ floor", "CPU µs of one, by process", "verdict")
	for _, name := range b.size.sites {
		b.summaryOn(b.site(name), tab)
	}
	tab.print()
}

func (b *bench) summaryOn(s *site, tab *table) {
	floor := b.theFloor()
	two := b.people(s, 2)
	ada, bob := two[0], two[1]
	ids := make([]string, b.size.summary)
	want := make([]expected, b.size.summary)
	b.each(s.api, b.size.summary, 16, func(d *door, i int) error {
		var err error
		if ids[i], want[i].max, err = d.group([]person{ada, bob}); err != nil {
			return err
		}
		want[i].read = want[i].max // the join: a mark begins there
		one := &gun{groups: ids[i : i+1]}
		for range i % 7 {
			text, err := d.get(one.message(nil, 0, bob.token))
			if err != nil {
				return err
			}
			if want[i].max, err = number(text, `"seq":`); err != nil {
				return err
			}
		}
		return nil
	})
	b.settle(s) // a mark is clamped to what is stored
	b.each(s.api, b.size.summary, 16, func(d *door, i int) error {
		if first := want[i].read; i%3 == 0 && want[i].max > first {
			want[i].read = first + (want[i].max-first+1)/2
			if _, err := d.try("PUT", "/v1/conversations/"+ids[i]+"/read", ada.token, object{"seq": want[i].read}); err != nil {
				return err
			}
		}
		want[i].unread = want[i].max - want[i].read
		return nil
	})
	d, err := openDoor(s.api)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.close()
	ask := request("POST", "/v1/sync", ada.token, fmt.Appendf(nil, `{"limit":%d}`, b.size.summary))
	var void []string
	var medians, tails, floors []float64
	var size int
	times, uses := 0, used{}
	for range b.size.runs {
		var sound []byte
		var took, bare []time.Duration
		profiled := b.profile(s, "summary", b.size.cell)
		before := cpu()
		for began := time.Now(); time.Since(began) < b.size.cell; {
			sent := time.Now()
			text, err := d.get(ask)
			took = append(took, time.Since(sent))
			if err != nil {
				b.t.Fatal(err)
			}
			if !bytes.Equal(text, sound) { // every value of every answer is looked at, the same bytes once
				if fault := b.wrong(text, ids, want); fault != "" {
					void = voided(void, "%s", fault)
				}
				sound = slices.Clone(text)
			}
		}
		uses.add(cpu().since(before))
		profiled()
		times += len(took)
		size = len(sound)
		floor.call(b.t, floorAsk{Bytes: map[string]string{"summary": string(sound)}}, nil)
		f, err := openDoor(floor.addr)
		if err != nil {
			b.t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < b.size.floor; {
			sent := time.Now()
			if _, err := f.get(request("GET", "/floor/summary", ada.token, nil)); err != nil {
				b.t.Fatal(err)
			}
			bare = append(bare, time.Since(sent))
		}
		f.close()
		took, bare = sortedTimes(took), sortedTimes(bare)
		medians, tails, floors = append(medians, ms(quantile(took, 0.5))), append(tails, ms(quantile(took, 0.99))), append(floors, ms(quantile(bare, 0.5)))
	}
	m, f := spreadOf(medians), spreadOf(floors)
	tab.row(void, s.name, m, spreadOf(tails), size>>10, f, short(m.median/f.median), uses.each(times), atMost(m.median, 5, " ms"))
}

// wrong looks at every value of a summary.
func (b *bench) wrong(text []byte, ids []string, want []expected) string {
	var v struct {
		Conversations []struct {
			ID     string `json:"conversation_id"`
			Max    int64  `json:"max_seq"`
			Min    int64  `json:"min_seq"`
			Read   int64  `json:"read_seq"`
			Unread int64  `json:"unread"`
		} `json:"conversations"`
		UnreadTotal int64 `json:"unread_total"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return err.Error()
	}
	if len(v.Conversations) != len(ids) {
		return fmt.Sprintf("%d of %d conversations", len(v.Conversations), len(ids))
	}
	var total int64
	for _, c := range v.Conversations {
		i := slices.Index(ids, c.ID)
		if i < 0 {
			return "a conversation of somebody else: " + c.ID
		}
		if got := (expected{c.Max, c.Read, c.Unread}); got != want[i] {
			return fmt.Sprintf("%s is told to be at %+v, and is at %+v", c.ID, got, want[i])
		}
		total += want[i].unread
	}
	if total != v.UnreadTotal {
		return fmt.Sprintf("unread_total is %d, the sum %d", v.UnreadTotal, total)
	}
	return ""
}
