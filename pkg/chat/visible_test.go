package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// unseen are texts of which nothing can be seen.
var unseen = map[string]string{
	"white space": " \t\u00a0\u3000", "zero-width space": "\u200b", "zero-width joiners": "\u200c\u200d", "word joiner": "\u2060", "byte order mark": "\ufeff",
	"soft hyphen": "\u00ad", "marks of direction": "\u200e\u200f\u061c", "Hangul filler": "\u3164", "half-width filler": "\uffa0", "Braille blank": "\u2800",
	"variation selector": "\ufe0f", "tags": "\U000e0041\U000e007f", "grapheme joiner": "\u034f", "Mongolian separator": "\u180e", "mixed": " \u200b \ufeff\u2060", "overrides": "\u202e\u202c",
	"controls": "\x01\x7f", "invisible operators": "\u2061\u2064",
}

func refusedWith(t *testing.T, what string, err error, field string) {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != CodeInvalidField || refusal.Field != field {
		t.Errorf("%s: got %v, want %s (%s)", what, err, CodeInvalidField, field)
	}
}

// commands are all commands that carry a name, and the field that it is in.
func commands(name string) map[string]Command {
	of := func(c Command) Command {
		c.Conversation, c.Sender, c.ClientMsgID = GroupConversation(1), 2, "x"
		return c
	}
	return map[string]Command{
		"create.name":       of(Command{Type: KindCreate, Create: &Create{Name: name}}),
		"update.name":       of(Command{Type: KindUpdate, Update: &Update{Name: &name}}),
		"nickname.nickname": of(Command{Type: KindNickname, Nickname: &Nickname{User: 3, Nickname: name}}),
	}
}

func TestNames_WithNothingToSeeAreEmpty(t *testing.T) {
	for what, name := range unseen {
		refusedWith(t, what, ValidateName("nickname", name), "nickname")
		for field, c := range commands(name) {
			refusedWith(t, what, c.Validate(), field)
		}
	}
}

func TestNames_TakeWhatPeopleAreCalled(t *testing.T) {
	for _, name := range []string{
		"Ada", "Łukasz Żółć", "李小龍", "محمد", "\u200fמשה\u200f", "क्षत्रिय", "नि\u200dखि\u200cल", "👨\u200d👩\u200d👧", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "❤\ufe0f", "O’Brien-Smith", "a b", strings.Repeat("a", MaxNameRunes),
	} {
		if err := ValidateName("nickname", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		for _, c := range commands(name) {
			if err := c.Validate(); err != nil {
				t.Errorf("%q as %s: %v", name, c.Type, err)
			}
		}
	}
}

func TestNames_DoNotTurnTheDirectionOfWriting(t *testing.T) {
	for r := rune(0); r <= 0x3000; r++ {
		turns := strings.ContainsRune("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", r)
		if TurnsDirection(r) != turns {
			t.Errorf("%U turns the direction: %t", r, TurnsDirection(r))
		}
		if !turns {
			continue
		}
		for _, name := range []string{"ada" + string(r) + "nimda", string(r) + "ada", "ada" + string(r)} {
			refusedWith(t, fmt.Sprintf("%U", r), ValidateName("nickname", name), "nickname")
			for field, c := range commands(name) {
				refusedWith(t, fmt.Sprintf("%U", r), c.Validate(), field)
			}
		}
	}
}

func TestTexts_WithNothingToSeeAreEmpty(t *testing.T) {
	for what, text := range unseen {
		raw, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ValidateContent(TypeText, raw)
		refusedWith(t, what, err, "message.content.text")
		raw, _ = json.Marshal(map[string]string{"text": text + "a" + text})
		if _, err := ValidateContent(TypeText, raw); err != nil {
			t.Errorf("%s around a letter: %v", what, err)
		}
	}
}

func TestPictures_AreOnPublicHosts(t *testing.T) {
	for _, good := range []string{
		"", "https://example.org/a.png", "https://cdn-1.example.co.uk:8443/a/b?c=d#e", "https://xn--mnchen-3ya.de/", "https://a_b.example.com/x", "https://EXAMPLE.ORG/A.png", "https://3com.com/1", "https://1.2.3.4.example.org/", "https://example.org/ä%20b.png",
	} {
		if err := ValidateURL("avatar_url", good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for what, bad := range map[string]string{
		"no scheme": "example.org/a.png", "relative to a scheme": "//example.org/a", "http": "http://example.org/a.png", "ftp": "ftp://example.org/a", "a script": "javascript:alert(1)", "data": "data:image/png;base64,AA",
		"opaque": "https:example.org/a", "no host": "https:///a", "a user": "https://ada@example.org/", "a password": "https://ada:secret@example.org/", "an empty user": "https://@example.org/",
		"one label": "https://intranet/", "localhost": "https://localhost/", "below localhost": "https://a.localhost/", "mDNS": "https://printer.local/", "private use": "https://db.internal/", "a home": "https://nas.home.arpa/", "a LAN": "https://nas.lan/", "onion": "https://abc.onion/",
		"IPv4": "https://127.0.0.1/", "public IPv4": "https://93.184.216.34/a", "metadata": "https://169.254.169.254/latest", "short IPv4": "https://127.1/", "a number": "https://2130706433/", "hex": "https://0x7f.0.0.0x1/", "octal": "https://0177.0.0.1/",
		"IPv6": "https://[::1]/", "IPv4 in IPv6": "https://[::ffff:127.0.0.1]/", "with a zone": "https://[fe80::1%25eth0]/", "wide digits": "https://１２７.０.０.１/", "a wide dot": "https://127。0。0。1/", "other letters": "https://münchen.de/",
		"a dot at the end": "https://example.org./", "two dots": "https://a..org/", "a dot at the start": "https://.org/", "a dash at the start": "https://-a.org/", "a long label": "https://" + strings.Repeat("a", 64) + ".org/", "a long host": "https://" + strings.Repeat("abc.", 64) + "org/",
		"a backslash": `https://example.org\@evil.org/`, "an escaped host": "https://%31%32%37.0.0.1/", "a space": "https://example.org/a b", "a line": "https://example.org/\n", "zero width": "https://example.org/\u200b", "an override": "https://example.org/\u202egnp", "too long": "https://example.org/" + strings.Repeat("a", MaxURLBytes),
		"invalid UTF-8": "https://example.org/\xff", "no port number": "https://example.org:x/",
	} {
		refusedWith(t, what, ValidateURL("avatar_url", bad), "avatar_url")
		name := "Harbour"
		create := Command{Type: KindCreate, Conversation: GroupConversation(1), Sender: 2, ClientMsgID: "x", Create: &Create{Name: name, AvatarURL: bad}}
		refusedWith(t, what, create.Validate(), "create.avatar_url")
		update := Command{Type: KindUpdate, Conversation: GroupConversation(1), Sender: 2, ClientMsgID: "x", Update: &Update{AvatarURL: &bad}}
		refusedWith(t, what, update.Validate(), "update.avatar_url")
	}
}
