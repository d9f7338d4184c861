package api_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
	wirev1 "tideline/schemas/wire/tideline/v1"
)

// What some clients cannot read, as content. Where early, the text of a request is refused before anyone looks at its fields.
var unreadable = []struct {
	name, content string
	early         bool
}{
	{"TooDeep", `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, false},
	{"NineThousandLevels", `{"a":` + strings.Repeat(`{"a":`, 8_990) + "1" + strings.Repeat("}", 8_990) + `}`, false},
	{"Infinite", `{"a":1e400}`, false},
	{"TooManyDigits", `{"a":` + strings.Repeat("7", 5_000) + `}`, false},
	{"KeyTwice", `{"a":{"b":1,"b":2}}`, true},
	{"LoneSurrogate", `{"a":"\ud83d"}`, true},
}

func TestContentThatClientsCannotRead_IsRefusedAtEveryEntrance(t *testing.T) {
	ada := join(t, "ada")
	cid := ada.group()
	// Its own is custom, so that nothing but the content can be wrong with an edit of it.
	own := ada.surely("POST", "/conversations/"+cid+"/messages", m{"client_msg_id": key(), "type": "custom", "content": m{"a": 1}}).number("seq")
	ws := ada.socket(t).ws
	for _, c := range unreadable {
		t.Run(c.name, func(t *testing.T) {
			code, field := "invalid_field", "content"
			if c.early {
				code, field = "malformed", ""
			}
			check := func(entrance string, a *answer) {
				t.Helper()
				if a.status != 400 || a.code() != code || field != "" && !strings.Contains(string(a.body), `"field":"`+field+`"`) {
					t.Errorf("%s: %d %.300s", entrance, a.status, a.body)
				}
			}
			check("HTTP send", ada.call("POST", "/conversations/"+cid+"/messages", json.RawMessage(fmt.Sprintf(`{"client_msg_id":%q,"type":"custom","content":%s}`, key(), c.content))))
			check("HTTP edit", ada.call("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, own), json.RawMessage(fmt.Sprintf(`{"client_msg_id":%q,"content":%s}`, key(), c.content))))

			frame := fmt.Sprintf(`{"id":7,"op":"send","conversation_id":%q,"client_msg_id":%q,"type":"custom","content":%s}`, cid, key(), c.content)
			if err := ws.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
				t.Fatal(err)
			}
			if got := string(await(t, ws, `"error"`)); !strings.Contains(got, `"code":"`+code+`"`) {
				t.Errorf("socket: %.300s", got)
			}

			said := fmt.Sprintf(`{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":%q,"message":{"type":"custom","content":%s}}`, cid, ada.id, key(), c.content)
			edit := fmt.Sprintf(`{"type":"edit","conversation_id":%q,"sender_id":%q,"client_msg_id":%q,"edit":{"target_seq":%d,"content":%s}}`, cid, ada.id, key(), own, c.content)
			for entrance, r := range map[string]*kgo.Record{
				"Kafka JSON": jsonRecord(said), "Kafka JSON edit": jsonRecord(edit),
				"Kafka protobuf":      protobufRecord(t, ada, cid, &wirev1.Body{Kind: &wirev1.Body_Message{Message: &wirev1.Message{Type: "custom", Content: c.content}}}),
				"Kafka protobuf edit": protobufRecord(t, ada, cid, &wirev1.Body{Kind: &wirev1.Body_Edit{Edit: &wirev1.Edit{TargetSeq: own, Content: c.content}}}),
			} {
				if rejection := produceAndReject(t, cid, r); string(rejection.Code) != code {
					t.Errorf("%s: rejected with %s %s: %s", entrance, rejection.Code, rejection.Field, rejection.Message)
				}
			}
		})
	}
	if got := ada.pull(cid, "?after=0&limit=200"); len(got.Messages) != int(own) {
		t.Errorf("%d numbers were given, want %d", len(got.Messages), own)
	}
}

// P3: what a version without the rule numbered is answered with its number; P5: its number is a void for readers, on a page that
// every client can read.
func TestContentThatClientsCannotRead_FromBeforeIsAVoid(t *testing.T) {
	for _, c := range unreadable {
		t.Run(c.name, func(t *testing.T) {
			ada, bob := join(t, "ada"), join(t, "bob")
			cid := ada.group(bob)
			first := ada.say(cid, "before")
			seq := ada.say(cid, "poison")
			last := ada.say(cid, "behind")
			id, err := chat.ParseConversationID(cid)
			if err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", "file:"+theRig(t).parts.Settings.Store.Path+"?_pragma=busy_timeout(5000)")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			set := func(content string) {
				t.Helper()
				eventually(t, "the store has it", func() bool {
					r, err := db.Exec("UPDATE timeline SET content = ? WHERE conversation_id = ? AND seq = ?", content, id.Bytes(), seq)
					if err != nil {
						return false
					}
					n, err := r.RowsAffected()
					return err == nil && n == 1
				})
			}
			set(c.content)
			for what, body := range map[string][]byte{
				"pull":        bob.get(fmt.Sprintf("/conversations/%s/messages?after=0&told=%d", cid, last)).must(200).body,
				"sync":        bob.call("POST", "/sync", m{"newest": 20}).must(200).body,
				"socket pull": ask(t, bob.socket(t).ws, fmt.Sprintf(`{"id":3,"op":"pull","conversation_id":%q,"after":0,"told":%d}`, cid, last)),
				"socket sync": ask(t, bob.socket(t).ws, `{"id":4,"op":"sync","newest":20}`),
			} {
				void := fmt.Sprintf(`{"seq":%d,"to_seq":%d,"type":"void"}`, seq, seq)
				if err := wire.DecodeJSON(body, new(any)); err != nil || !strings.Contains(string(body), void) || !strings.Contains(string(body), "behind") || !strings.Contains(string(body), "before") {
					t.Errorf("%s: %v %.600s", what, err, body)
				}
			}
			if unread := bob.surely("GET", "/conversations/"+cid, nil).number("unread"); unread != last-first+1 {
				t.Errorf("unread is %d, want the %d that were said", unread, last-first+1) // a void still counts
			}
			if a := ada.call("PATCH", fmt.Sprintf("/conversations/%s/messages/%d", cid, seq), m{"client_msg_id": key(), "content": m{"text": "mended"}}).must(200); a.number("seq") != last+1 {
				t.Errorf("the edit is number %d", a.number("seq"))
			}
			if got := bob.pull(cid, fmt.Sprintf("?after=0&told=%d", last+1)); got.Messages[seq-1].text() != "mended" {
				t.Errorf("after the edit it is %+v", got.Messages[seq-1])
			}
		})
	}
}

// await returns the next frame that has a text in it.
func await(t testing.TB, ws *websocket.Conn, text string) []byte {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		_, frame, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("waiting for %s: %v", text, err)
		}
		if strings.Contains(string(frame), text) {
			return frame
		}
	}
}

func ask(t *testing.T, ws *websocket.Conn, frame string) []byte {
	t.Helper()
	if err := ws.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		t.Fatal(err)
	}
	return await(t, ws, `"result"`)
}

func jsonRecord(value string) *kgo.Record {
	return &kgo.Record{Value: []byte(value), Headers: []kgo.RecordHeader{{Key: kafka.HeaderContentType, Value: []byte(wire.ContentTypeJSON)}, {Key: kafka.HeaderProducer, Value: []byte("crm")}}}
}

func protobufRecord(t *testing.T, p *person, cid string, body *wirev1.Body) *kgo.Record {
	t.Helper()
	sender, err := chat.ParseUserID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	value, err := proto.Marshal(&wirev1.Command{ConversationId: cid, SenderId: int64(sender), ClientMsgId: key(), Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Value: value}
}

// produceAndReject writes a record to im.inbound and returns the rejection of it.
func produceAndReject(t *testing.T, cid string, r *kgo.Record) chat.Rejection {
	t.Helper()
	cfg := theRig(t).parts.Settings.Kafka
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.ConsumeTopics(kafka.TopicRejected), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r.Topic, r.Partition = kafka.TopicInbound, chat.Partition(cid, int32(cfg.Partitions))
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	at := chat.Position{Partition: r.Partition, Offset: r.Offset}
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("waiting for the rejection of %+v: %v", at, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			rejection, err := wire.DecodeRejection(it.Next().Value)
			if err != nil {
				t.Fatal(err)
			}
			if rejection.Inbound != at {
				continue
			}
			return rejection
		}
	}
}
