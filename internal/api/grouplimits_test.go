package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/handlers"
	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// retryAfter fails where a refusal does not say when to come back, at most so many ms from now. A conflict is not for a
// client to retry by itself.
func (a *answer) retryAfter(most int64) {
	a.t.Helper()
	var v struct {
		Error struct {
			Retryable  bool  `json:"retryable"`
			RetryAfter int64 `json:"retry_after_ms"`
		} `json:"error"`
	}
	a.into(&v)
	if v.Error.Retryable != (a.status != 409) || v.Error.RetryAfter < most*9/10 || v.Error.RetryAfter > most || a.header.Get("Retry-After") == "" {
		a.t.Errorf("%s says to come back after %d ms, want about %d: %s", a.call, v.Error.RetryAfter, most, a.body)
	}
}

// produce produces a command as a backend does, and waits until it is in the store.
func produce(t *testing.T, c *chat.Command) {
	t.Helper()
	r := theRig(t)
	producer, err := r.parts.Settings.Kafka.NewProducer("a-backend", r.parts.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	record := &kgo.Record{
		Topic: kafka.TopicInbound, Key: []byte(c.Conversation.String()), Value: wire.EncodeCommand(c),
		Headers: []kgo.RecordHeader{{Key: kafka.HeaderProducer, Value: []byte("crm")}, {Key: kafka.HeaderContentType, Value: []byte(wire.ContentTypeProtobuf)}},
	}
	if err := producer.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command has an outcome", func() bool {
		numbered, rejected, err := r.parts.Store.Outcome(t.Context(), c.Conversation, c.Sender, c.ClientMsgID)
		if rejected != nil {
			t.Fatalf("%s was rejected: %+v", c.Type, rejected)
		}
		return err == nil && numbered != nil
	})
}

func userID(t *testing.T, text string) chat.UserID {
	t.Helper()
	u, err := chat.ParseUserID(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func conversationID(t *testing.T, text string) chat.ConversationID {
	t.Helper()
	id, err := chat.ParseConversationID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestGroups_BoundNewGroupsOfAPersonByTheHour(t *testing.T) {
	ada, bob := join(t, "ada"), join(t, "bob")
	most := handlers.DefaultGroupsConfig().CreatedPerHour
	body := m{"name": "Harbour", "client_msg_id": key()}
	first := ada.call("POST", "/groups", body).must(201).text("conversation_id")
	for range most - 1 {
		ada.call("POST", "/groups", m{"name": "Harbour"}).must(201)
	}
	refused := ada.call("POST", "/groups", m{"name": "Harbour"})
	refused.refused(429, "rate_limited", "")
	refused.retryAfter(60 * 60 * 1000)
	if !strings.Contains(string(refused.body), fmt.Sprintf("%d groups", most)) {
		t.Errorf("the refusal does not say which limit it is: %s", refused.body)
	}
	// A retry is answered as the first request was, and another person has a limit of its own.
	if again := ada.call("POST", "/groups", body).must(201).text("conversation_id"); again != first {
		t.Errorf("the retry made %s, and the first request %s", again, first)
	}
	bob.call("POST", "/groups", m{"name": "Harbour"}).must(201)
	// Administrators are exempt, and what they reserve does not count.
	admin := visitor(t)
	admin.token = adminToken
	for range most + 1 {
		admin.call("POST", "/admin/groups/reserve", m{"creator_id": bob.id, "client_msg_id": key()}).must(200)
	}
	bob.call("POST", "/groups", m{"name": "Harbour"}).must(201)
}

func TestGroups_BoundTheMembershipsOfAPerson(t *testing.T) {
	most := theRig(t).parts.Settings.Groups.MaxMemberships
	victim, zoe := join(t, "victim"), join(t, "zoe")
	makers := []*person{join(t, "ada"), join(t, "bob"), join(t, "eve")}
	var groups []string
	body := m{"name": "Harbour", "member_ids": []string{victim.id}, "client_msg_id": key()}
	for i := range most {
		maker := makers[i/15]
		if i < most-1 {
			groups = append(groups, maker.group(victim))
		} else {
			groups = append(groups, maker.call("POST", "/groups", body).must(201).text("conversation_id"))
		}
	}
	last := makers[(most-1)/15]
	if victim.call("POST", "/conversations/private", m{"user_id": zoe.id}).must(200); len(groups) != most {
		t.Fatal(len(groups))
	}
	full := func(a *answer, field string) {
		t.Helper()
		a.refused(409, "membership_limit", field)
		if !strings.Contains(string(a.body), victim.id) || !strings.Contains(string(a.body), fmt.Sprint(most)) {
			t.Errorf("the refusal names neither the person nor the limit: %s", a.body)
		}
	}
	cid := zoe.group()
	path := "/groups/" + cid + "/members"
	full(zoe.call("POST", "/groups", m{"name": "Quay", "member_ids": []string{victim.id, last.id}}), "member_ids")
	victim.call("POST", "/groups", m{"name": "Quay"}).refused(409, "membership_limit", "")
	full(zoe.call("POST", path, m{"user_ids": []string{victim.id, last.id}}), "user_ids")
	if ids, _ := zoe.members(cid, ""); !slices.Equal(ids, []string{zoe.id}) {
		t.Errorf("the group has %v: where one has no room, none is added", ids)
	}
	// The room and the existence of the people it names say nothing about a group to a caller outside of it.
	stranger, former := join(t, "stranger"), join(t, "former")
	lost := zoe.group(former)
	former.call("DELETE", "/groups/"+lost+"/members/me", nil).must(200)
	for what, ids := range map[string][]string{"a full person": {victim.id}, "no person": {"99999999999"}} {
		add := func(p *person, cid string) func() *answer {
			return func() *answer { return p.call("POST", "/groups/"+cid+"/members", m{"user_ids": ids}) }
		}
		alike(t, what+" added by a stranger", add(stranger, "g-77"), add(stranger, cid), add(stranger, groups[1])).refused(404, "conversation_not_found", "")
		add(former, lost)().refused(403, "not_a_member", "")
	}
	// Retries are answered as the first requests were, and members of the group itself are no news.
	if again := last.call("POST", "/groups", body).must(201).text("conversation_id"); again != groups[most-1] {
		t.Errorf("the retry made %s, and the first request %s", again, groups[most-1])
	}
	last.call("POST", "/groups/"+groups[most-1]+"/members", m{"user_ids": []string{victim.id, zoe.id}}).must(200)
	last.call("POST", "/groups/"+groups[most-1]+"/members", m{"user_ids": []string{victim.id}}).refused(409, "nothing_to_do", "")
	// A dissolved group counts until it is left, and it can be left.
	makers[0].call("DELETE", "/groups/"+groups[0], nil).must(200)
	full(zoe.call("POST", path, m{"user_ids": []string{victim.id}}), "user_ids")
	victim.call("DELETE", "/groups/"+groups[0]+"/members/me", nil).must(200)
	added := m{"user_ids": []string{victim.id}, "client_msg_id": key()}
	seq := zoe.call("POST", path, added).must(200).number("seq")
	// The retry names a person who is full by now and has left since: it is the first request's number all the same.
	victim.call("DELETE", path+"/me", nil).must(200)
	join(t, "ida").group(victim)
	if again := zoe.call("POST", path, added).must(200).number("seq"); again != seq {
		t.Errorf("the retry is answered with %d, and the first request with %d", again, seq)
	}
	zoe.call("POST", path, m{"user_ids": []string{victim.id}}).refused(409, "membership_limit", "user_ids")
	// A backend is exempt.
	produce(t, &chat.Command{Type: chat.KindJoin, Conversation: conversationID(t, cid), Sender: userID(t, zoe.id), ClientMsgID: key(), Join: &chat.Join{Users: []chat.UserID{userID(t, victim.id)}}})
}

func TestGroups_CanBeLeftAfterTheyWereDissolved(t *testing.T) {
	ada, bob, eve := join(t, "ada"), join(t, "bob"), join(t, "eve")
	cid := ada.group(bob, eve)
	path := "/groups/" + cid + "/members/"
	ada.call("DELETE", path+"me", nil).refused(403, "forbidden", "") // hands it over first
	ada.call("DELETE", "/groups/"+cid, nil).must(200)
	ada.call("DELETE", path+bob.id, nil).refused(403, "dissolved", "")
	for _, p := range []*person{bob, ada} {
		left := p.call("DELETE", path+"me", nil).must(200).number("seq")
		p.get("/groups/"+cid).refused(403, "not_a_member", "")
		if got := p.pull(cid, "?after=0"); got.MaxSeq != left {
			t.Errorf("%s sees %+v after the leave at %d", p.name, got, left)
		}
		p.call("DELETE", path+"me", nil).refused(403, "not_a_member", "")
	}
	if g := eve.get("/groups/" + cid).must(200).object(); g["member_count"] != 1.0 || g["dissolved"] != true {
		t.Errorf("eve, who stayed, sees %v", g)
	}
}

func TestGroups_DoNotPutBackWhoLeftTheSamePerson(t *testing.T) {
	ada, bob, eve, zoe := join(t, "ada"), join(t, "bob"), join(t, "eve"), join(t, "zoe")
	cid := ada.group(bob, eve)
	path := "/groups/" + cid + "/members"
	ada.call("PATCH", path+"/"+bob.id, m{"role": "admin"}).must(200)
	add := func(by *person, who ...*person) *answer {
		ids := []string{}
		for _, p := range who {
			ids = append(ids, p.id)
		}
		return by.call("POST", path, m{"user_ids": ids})
	}
	const day = 24 * 60 * 60 * 1000
	// A person who was removed did not leave.
	ada.call("DELETE", path+"/"+eve.id, nil).must(200)
	add(ada, eve).must(200)
	// Of the first members and of those who were added later alike.
	for _, round := range []string{"added later", "added again by the other"} {
		eve.call("DELETE", path+"/me", nil).must(200)
		refused := add(ada, eve, zoe)
		if round == "added later" {
			refused.refused(409, "left_recently", "user_ids")
			refused.retryAfter(day)
			if ids, _ := ada.members(cid, ""); slices.Contains(ids, zoe.id) {
				t.Errorf("zoe was added by a request that was refused")
			}
			add(bob, eve).must(200)
			continue
		}
		refused.must(200)
	}
	// A backend is exempt.
	zoe.call("DELETE", path+"/me", nil).must(200)
	add(ada, zoe).refused(409, "left_recently", "user_ids")
	produce(t, &chat.Command{Type: chat.KindJoin, Conversation: conversationID(t, cid), Sender: userID(t, ada.id), ClientMsgID: key(), Join: &chat.Join{Users: []chat.UserID{userID(t, zoe.id)}}})
}

// socketSend sends over the socket and returns the answer's code, or the number.
func (p *person) socketSend(cid string, body m) (code string, seq int64) {
	p.t.Helper()
	conn, response, err := websocket.DefaultDialer.DialContext(p.t.Context(), "ws"+strings.TrimPrefix(p.base, "http")+"/ws", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _, _ = response.Body.Close(), conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	body["id"], body["op"], body["conversation_id"] = 2, "send", cid
	for _, frame := range []m{{"id": 1, "op": "auth", "token": p.token}, body} {
		if err := conn.WriteJSON(frame); err != nil {
			p.t.Fatal(err)
		}
	}
	for {
		var answer struct {
			ID     json.RawMessage `json:"id"`
			Result struct {
				Seq int64 `json:"seq"`
			} `json:"result"`
			Error struct{ Code, Field string } `json:"error"`
		}
		if err := conn.ReadJSON(&answer); err != nil {
			p.t.Fatal(err)
		}
		if string(answer.ID) == "2" {
			return answer.Error.Code, answer.Result.Seq
		}
	}
}

func TestSend_NamesMembersOnly(t *testing.T) {
	ada, bob, gone, stranger := join(t, "ada"), join(t, "bob"), join(t, "gone"), join(t, "stranger")
	cid := ada.group(bob, gone)
	path := "/conversations/" + cid + "/messages"
	message := func(more m) m {
		body := m{"client_msg_id": key(), "type": "text", "content": m{"text": "psst"}}
		for k, v := range more {
			body[k] = v
		}
		return body
	}
	secret := message(m{"recipients": []string{gone.id}, "mentions": m{"user_ids": []string{gone.id}}})
	first := ada.call("POST", path, secret).must(200).number("seq")
	gone.call("DELETE", "/groups/"+cid+"/members/me", nil).must(200)

	private := ada.call("POST", "/conversations/private", m{"user_id": bob.id}).must(200).text("conversation_id")
	for name, ids := range map[string][]string{
		"a stranger": {stranger.id}, "a member who left": {gone.id}, "no user": {"77"}, "a member and a stranger": {bob.id, stranger.id}, "the sender and a stranger": {ada.id, stranger.id},
	} {
		for _, c := range []string{cid, private} {
			body := message(m{"recipients": ids})
			a := ada.call("POST", "/conversations/"+c+"/messages", body)
			a.refused(409, "recipient_not_a_member", "recipients")
			if !strings.Contains(string(a.body), ids[len(ids)-1]) {
				t.Errorf("%s in %s: the refusal does not name the person: %s", name, c, a.body)
			}
			if code, _ := ada.socketSend(c, message(m{"recipients": ids})); code != "recipient_not_a_member" {
				t.Errorf("%s in %s, over the socket: %q", name, c, code)
			}
		}
	}
	for _, c := range []string{cid, private} {
		for _, ids := range [][]string{{bob.id}, {ada.id}, {ada.id, bob.id}} {
			ada.call("POST", "/conversations/"+c+"/messages", message(m{"recipients": ids})).must(200)
		}
	}
	// A retry is the first one's number, though the recipient has left since.
	if again := ada.call("POST", path, secret).must(200); again.number("seq") != first || again.object()["duplicate"] != true {
		t.Errorf("the retry of %d is answered with %s", first, again.body)
	}

	// Mentions: people leave while others type.
	for _, c := range []string{cid, private} {
		body := message(m{"mentions": m{"user_ids": []string{stranger.id, bob.id, gone.id, "77"}}})
		seq := ada.call("POST", "/conversations/"+c+"/messages", body).must(200).number("seq")
		dropped := message(m{"mentions": m{"user_ids": []string{stranger.id}}})
		none := ada.call("POST", "/conversations/"+c+"/messages", dropped).must(200).number("seq")
		_, all := ada.socketSend(c, message(m{"mentions": m{"all": true, "user_ids": []string{gone.id}}}))
		for n, want := range map[int64]string{seq: `{"user_ids":["` + bob.id + `"]}`, none: "", all: `{"all":true}`} {
			var page struct {
				Messages []struct {
					Mentions json.RawMessage `json:"mentions"`
				} `json:"messages"`
			}
			bob.get(fmt.Sprintf("/conversations/%s/messages?after=%d&limit=1&told=%d", c, n-1, n)).must(200).into(&page)
			if len(page.Messages) == 0 || string(page.Messages[0].Mentions) != want {
				t.Errorf("%s/%d mentions %+v, want %s", c, n, page.Messages, want)
			}
		}
		// The command's hash has what was dropped: its retry is a retry, and another list is another body.
		if again := ada.call("POST", "/conversations/"+c+"/messages", body).must(200).number("seq"); again != seq {
			t.Errorf("the retry of %s/%d is %d", c, seq, again)
		}
		body["mentions"] = m{"user_ids": []string{bob.id}}
		ada.call("POST", "/conversations/"+c+"/messages", body).refused(409, "client_msg_id_conflict", "client_msg_id")
	}
}
