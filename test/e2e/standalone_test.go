// Package e2e runs the whole: the programs themselves, as clients and backends see them.
package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/test/platform"
)

func TestStandalone_CarriesAConversation(t *testing.T) {
	converse(t, platform.Standalone(t, platform.ManyPartitions))
}

func TestStandalone_LosesNothingThatWasAnsweredWhenItIsKilled(t *testing.T) {
	pf := platform.Standalone(t)
	survive(t, pf, 3, func(int) { pf.Restart() })
}

func TestStandalone_StopsInOrder(t *testing.T) {
	pf := platform.Standalone(t)
	pf.Join(t, "ada").Listen()
	pf.Parts[0].Terminate()
}

// converse is the life of a small group of two.
func converse(t *testing.T, pf *platform.Platform) {
	ada, bob := pf.Join(t, "ada"), pf.Join(t, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Harbour", "member_ids": []string{bob.ID}, "client_msg_id": "group-1"}, &g)
	talk(t, pf, g.ID, ada, bob)
}

// talk is what two members of a group say to each other: sends, hints, pulls, receipts, a backend, retries, an edit and a
// recall, bob removed by ada, who may do that, and everything restarted.
func talk(t *testing.T, pf *platform.Platform, cid string, ada, bob *platform.Person) {
	g := struct{ ID string }{cid}
	bobs := bob.Listen()

	first := ada.Send(g.ID, "hello-1", "hello")
	told := bobs.WaitFor(g.ID, first.Seq)
	var page platform.Page
	bob.Must(200, "GET", fmt.Sprintf("/conversations/%s/messages?told=%d", g.ID, told), nil, &page)
	if last := page.Messages[len(page.Messages)-1]; last.Seq != first.Seq || last.Key != "hello-1" {
		t.Fatalf("bob was told %d and pulled %+v", told, last)
	}

	// A backend, with a partitioner of its own: the record is moved, numbered, and seen by both.
	for partition := range int32(2) {
		key := fmt.Sprintf("crm-%d", partition)
		pf.Produce(t, g.ID, fmt.Sprintf(`{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":%q,"message":{"type":"text","content":{"text":"from the crm"}}}`, g.ID, ada.ID, key), partition)
		bobs.WaitFor(g.ID, first.Seq+1+int64(partition))
	}

	var read struct {
		ReadSeq int64 `json:"read_seq"`
		Unread  int64 `json:"unread"`
	}
	bob.Must(200, "PUT", "/conversations/"+g.ID+"/read", map[string]int64{"seq": first.Seq}, &read)
	if read.ReadSeq != first.Seq || read.Unread != 2 {
		t.Fatalf("bob's mark: %+v", read)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		var receipts struct {
			Receipts []struct {
				Read int64 `json:"read_count"`
			} `json:"receipts"`
		}
		ada.Must(200, "GET", fmt.Sprintf("/conversations/%s/receipts?seq=%d", g.ID, first.Seq), nil, &receipts)
		if len(receipts.Receipts) == 1 && receipts.Receipts[0].Read == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("bob's mark is not in ada's receipts: %+v", receipts)
		}
		time.Sleep(20 * time.Millisecond)
	}

	retries := func(when string) {
		t.Helper()
		if again := ada.Send(g.ID, "hello-1", "hello"); again.Seq != first.Seq || !again.Duplicate {
			t.Fatalf("%s: the retry of %d was answered %+v", when, first.Seq, again)
		}
		body := platform.Text("something else")
		body["client_msg_id"] = "hello-1"
		ada.Must(409, "POST", "/conversations/"+g.ID+"/messages", body, nil)
	}
	retries("at once")

	second := bob.Send(g.ID, "bob-1", "hi")
	body := map[string]any{"content": map[string]string{"text": "hi!"}}
	bob.Must(200, "PATCH", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, second.Seq), body, nil)
	ada.Must(200, "DELETE", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, first.Seq), nil, nil)
	for _, m := range bob.History(g.ID) {
		if m.Seq == first.Seq && (!m.Recalled || m.Content != nil) {
			t.Fatalf("what was recalled can be read: %+v", m)
		}
		if m.Seq == second.Seq && !strings.Contains(string(m.Content), "hi!") {
			t.Fatalf("what was edited reads %s", m.Content)
		}
	}

	ada.Must(200, "DELETE", "/groups/"+g.ID+"/members/"+bob.ID, nil, nil)
	if again := bob.Send(g.ID, "bob-1", "hi"); again.Seq != second.Seq {
		t.Fatalf("after he was removed, the retry of %d was answered %+v", second.Seq, again)
	}
	bob.Must(403, "POST", "/conversations/"+g.ID+"/messages", map[string]any{"client_msg_id": "bob-2", "type": "text", "content": map[string]string{"text": "late"}}, nil)

	pf.Restart()
	ada.Login()
	bob.Login()
	retries("after a restart of everything")
	if again := bob.Send(g.ID, "bob-1", "hi"); again.Seq != second.Seq {
		t.Fatalf("after a restart, the retry of %d was answered %+v", second.Seq, again)
	}
	all := ada.History(g.ID)
	next := ada.Send(g.ID, "after", "still here")
	if last := all[len(all)-1].Seq; next.Seq != last+1 {
		t.Fatalf("%d numbers were there, and the next one is %d", last, next.Seq)
	}
	a := pf.Archived(t, g.ID, next.Seq)
	if left := a.Count("SELECT countIf(text != '' OR content != '' OR NOT recalled) FROM messages WHERE conversation_id = ? AND seq = ?", g.ID, first.Seq); left != 0 {
		t.Fatal("what was recalled stands in the archive")
	}
	if hi := a.Count("SELECT countIf(text = 'hi!') FROM messages WHERE conversation_id = ? AND seq = ?", g.ID, second.Seq); hi != 1 {
		t.Fatal("what was edited stands in the archive as it was")
	}
}

// survive sends while parts are killed, and then checks that every answered message stands once, at its number.
func survive(t *testing.T, pf *platform.Platform, kills int, kill func(i int)) {
	ada := pf.Join(t, "ada")
	bob := pf.Join(t, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Storm", "member_ids": []string{bob.ID}, "client_msg_id": "storm"}, &g)
	answered := make([]map[string]int64, 4)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range answered {
		answered[w] = map[string]int64{}
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("w%d-%d", w, i)
				for {
					select {
					case <-stop:
						return
					default:
					}
					body := platform.Text(key)
					body["client_msg_id"] = key
					var s platform.Sent
					if status := ada.Call("POST", "/conversations/"+g.ID+"/messages", body, &s); status == 200 {
						answered[w][key] = s.Seq
						break
					}
					time.Sleep(20 * time.Millisecond) // the same id again, as a client does
				}
			}
		})
	}
	for i := range kills {
		time.Sleep(700 * time.Millisecond) // some are answered before the next kill; how many does not matter
		kill(i)
	}
	time.Sleep(time.Second)
	close(stop)
	wg.Wait()
	// Everything before the last message is numbered; it can be read when the writer has come so far.
	end := ada.Send(g.ID, "the-end", "the end")
	bob.Eventually(200, "GET", fmt.Sprintf("/conversations/%s/messages?limit=1&told=%d", g.ID, end.Seq), nil, nil)
	at := map[string]int64{}
	for _, m := range bob.History(g.ID) {
		if m.Key == "" {
			continue
		}
		if first, twice := at[m.Key]; twice {
			t.Errorf("%s stands at %d and at %d", m.Key, first, m.Seq)
		}
		at[m.Key] = m.Seq
	}
	pf.Archived(t, g.ID, end.Seq)
	total := 0
	for _, list := range answered {
		total += len(list)
		for key, seq := range list {
			if at[key] != seq {
				t.Errorf("%s was answered with %d and stands at %d", key, seq, at[key])
			}
		}
	}
	if total == 0 {
		t.Error("nothing was answered")
	}
	t.Logf("%d messages were answered over %d kills", total, kills)
}
