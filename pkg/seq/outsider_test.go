package seq

import (
	"encoding/json"
	"reflect"
	"testing"

	"tideline/pkg/chat"
)

// What is loaded to refuse a user that never was a member is the same whether the group exists, is in memory, or has what is aimed at in
// the tail: the time that it takes would say so otherwise.
func TestBegin_AsksTheSameForOutsidersWhateverIsInMemory(t *testing.T) {
	const owner, outsider, other = 1, 2, 3
	used, unknown := chat.GroupConversation(5), chat.GroupConversation(6)
	hasher, err := chat.NewHasher([]byte("a key for the tests"))
	if err != nil {
		t.Fatal(err)
	}
	text := json.RawMessage(`{"text":"x"}`)
	for name, command := range map[string]chat.Command{
		"message":  {Type: chat.KindMessage, Message: &chat.Message{Type: chat.TypeText, Content: text}},
		"edit":     {Type: chat.KindEdit, Edit: &chat.Edit{TargetSeq: 1, Content: text}},
		"recall":   {Type: chat.KindRecall, Recall: &chat.Recall{TargetSeq: 1}},
		"join":     {Type: chat.KindJoin, Join: &chat.Join{Users: []chat.UserID{owner, other}}},
		"leave":    {Type: chat.KindLeave, Leave: &chat.Leave{Users: []chat.UserID{owner}}},
		"role":     {Type: chat.KindRole, Role: &chat.SetRole{User: owner, Role: chat.RoleAdmin}},
		"mute":     {Type: chat.KindMute, Mute: &chat.Mute{User: owner, Until: 5}},
		"nickname": {Type: chat.KindNickname, Nickname: &chat.Nickname{User: owner, Nickname: "n"}},
		"update":   {Type: chat.KindUpdate, Update: &chat.Update{Name: new(string)}},
		"dissolve": {Type: chat.KindDissolve, Dissolve: &chat.Dissolve{}},
	} {
		id, offset := int64(0), int64(0)
		m := New(Config{Hasher: hasher, NextID: func() (int64, error) { id++; return id, nil }, WindowIDs: 100, CacheEntries: 100, MaxMembers: 10}, Checkpoint{})
		number := func(c chat.Command, loaded Loaded) Need {
			t.Helper()
			c.ClientMsgID = name + string(rune('a'+offset))
			if c.Update != nil {
				word := "name"
				c.Update = &chat.Update{Name: &word}
			}
			b := m.Begin([]Record{{Offset: offset, Command: &c}}, offset+1, 1)
			offset++
			if err := b.Decide(loaded); err != nil {
				t.Fatal(err)
			}
			need := b.Need()
			for i := range need.ClientIDs {
				need.ClientIDs[i] = ClientID{}
			}
			return need
		}
		number(chat.Command{Type: chat.KindCreate, Conversation: used, Sender: owner, Create: &chat.Create{Name: "a group"}}, Loaded{Users: []chat.UserID{owner}})
		for try := range 3 {
			a, b := command, command
			a.Conversation, a.Sender, b.Conversation, b.Sender = used, outsider, unknown, outsider
			want := number(b, Loaded{})
			got := number(a, Loaded{})
			for i := range got.Conversations {
				got.Conversations[i] = unknown
			}
			for i := range got.Members {
				got.Members[i].Conversation = unknown
			}
			for i := range got.Targets {
				got.Targets[i].Conversation = unknown
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, try %d: a group that is in use needs %+v, an unknown one %+v", name, try, got, want)
			}
		}
	}
}
