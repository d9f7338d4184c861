package importer

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tideline/pkg/chat"
)

func TestLine_BecomesWhatTheDocumentationSays(t *testing.T) {
	at := func(s string) int64 {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UnixMilli()
	}
	for name, c := range map[string]struct {
		raw, content string
		kind         chat.MessageType
		at           int64
	}{
		"a message":                        {`{"day":"2011-03-04","minute":90,"kind":"message","sender":"a","text":"<3 & \"x\""}`, `{"text":"<3 & \"x\""}`, chat.TypeText, at("2011-03-04T01:30:00Z")},
		"a minute past midnight":           {`{"day":"2011-03-04","minute":1441,"kind":"message","sender":"a","text":"x"}`, `{"text":"x"}`, chat.TypeText, at("2011-03-05T00:01:00Z")},
		"an action":                        {`{"day":"2011-03-04","minute":0,"kind":"action","sender":"a","text":"waves"}`, `{"kind":"action","text":"waves"}`, chat.TypeCustom, at("2011-03-04T00:00:00Z")},
		"an action without a text":         {`{"day":"2011-03-04","minute":0,"kind":"action","sender":"a","text":""}`, `{"kind":"action","text":""}`, chat.TypeCustom, at("2011-03-04T00:00:00Z")},
		"a message of spaces":              {`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a","text":" \t\u00a0"}`, `{"kind":"empty"}`, chat.TypeCustom, at("2011-03-04T00:00:00Z")},
		"the first minute, which is not 0": {`{"day":"1970-01-01","minute":0,"kind":"message","sender":"a","text":"x"}`, `{"text":"x"}`, chat.TypeText, 1},
	} {
		l, err := parseLine([]byte(c.raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := l.message()
		if err != nil || m.Type != c.kind || !sameJSON(m.Content, c.content) || l.at != c.at {
			t.Errorf("%s becomes %+v at %d: %v", name, m, l.at, err)
		}
	}
}

func sameJSON(a []byte, b string) bool {
	var x, y map[string]string
	if json.Unmarshal(a, &x) != nil || json.Unmarshal([]byte(b), &y) != nil || len(x) != len(y) {
		return false
	}
	for k, v := range y {
		if x[k] != v {
			return false
		}
	}
	return true
}

// broken are lines that cannot be imported, with a word of what is said about each.
var broken = map[string]string{
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a","text":"x"`: "JSON object",
	`[1]`:  "JSON object",
	`null`: "no day",
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a","text":"x"} {}`:                                                      "after top-level value",
	"{\"day\":\"2011-03-04\",\"minute\":0,\"kind\":\"message\",\"sender\":\"a\",\"text\":\"\xff\"}":                                    "UTF-8",
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a","text":"x","mood":"glad"}`:                                           "mood",
	`{"minute":0,"kind":"message","sender":"a","text":"x"}`:                                                                            "no day",
	`{"day":"2011-03-04","kind":"message","sender":"a","text":"x"}`:                                                                    "no minute",
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a"}`:                                                                    "no text",
	`{"day":"2011-03-04","minute":0,"kind":"message","text":"x"}`:                                                                      "no sender",
	`{"day":"2011-03-04","minute":0,"sender":"a","text":"x"}`:                                                                          "kind",
	`{"day":"2011-03-04","minute":0,"kind":"whisper","sender":"a","text":"x"}`:                                                         "whisper",
	`{"day":"2011-02-29","minute":0,"kind":"message","sender":"a","text":"x"}`:                                                         "2011-02-29",
	`{"day":"1969-12-31","minute":0,"kind":"message","sender":"a","text":"x"}`:                                                         "1969-12-31",
	`{"day":"2011-03-04","minute":-1,"kind":"message","sender":"a","text":"x"}`:                                                        "minute -1",
	`{"day":"2011-03-04","minute":1.5,"kind":"message","sender":"a","text":"x"}`:                                                       "JSON object",
	`{"day":"2011-03-04","minute":99999999,"kind":"message","sender":"a","text":"x"}`:                                                  "99999999",
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"` + strings.Repeat("n", 250) + `","text":"x"}`:                          "sender of 250 bytes",
	`{"day":"2011-03-04","minute":0,"kind":"message","sender":"a","text":"` + strings.Repeat("long ", chat.MaxContentBytes/5+1) + `"}`: "bytes",
}

func TestNickname_IsTakenByThePlatformWhateverTheSenderWasCalled(t *testing.T) {
	for _, sender := range []string{"Ines", " ", "\x00\x07", strings.Repeat("⛴", 200), strings.Repeat(" a", 99), "tab\tbed", "x\u0085y"} {
		if err := chat.ValidateName("nickname", nickname(sender)); err != nil {
			t.Errorf("%q becomes %q: %v", sender, nickname(sender), err)
		}
	}
	if nickname("tomás") != "tomás" {
		t.Error("a good name is changed")
	}
}

// The names that commands have must stay what they are: an import that was begun by an older version goes on with them,
// and other ones would double every message.
func TestClientIDs_StayWhatTheyAre(t *testing.T) {
	for got, want := range map[string]string{
		messageID("harbour.jsonl", 1, 1299283080000):            "012e834e-7340-7bb5-b721-f86cf3debf4c",
		messageID("harbour.jsonl", 2, 1299283080000):            "012e834e-7340-7d9c-a51c-7f9bbcb14df9",
		createID("harbour.jsonl"):                               "import-create-56ed062a8904870964147c2ad433c3e1653e776d",
		joinID("harbour.jsonl", []chat.UserID{1, 258, 1 << 60}): "import-join-b60c39dedfd8714dc7e57acb832c13693c67ca3e",
	} {
		if got != want {
			t.Errorf("a name is %q and was %q", got, want)
		}
		if len(got) > chat.MaxClientMsgIDBytes {
			t.Errorf("%q is too long for a client id", got)
		}
	}
	if chat.Stamp(messageID("s", 1, 1299283080000)) != 1299283080000 {
		t.Error("a message's name does not carry when it was said")
	}
	if messageID("a", 1, 5) == messageID("b", 1, 5) || messageID("a", 1, 5) == messageID("a", 2, 5) || joinID("a", []chat.UserID{1}) == joinID("a", []chat.UserID{1, 2}) {
		t.Error("two have one name")
	}
}
