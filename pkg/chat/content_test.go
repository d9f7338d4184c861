package chat

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

// nested returns an object of so many levels, of objects or of arrays.
func nested(levels int, open, inner, shut string) string {
	return `{"a":` + strings.Repeat(open, levels-1) + inner + strings.Repeat(shut, levels-1) + `}`
}

var contents = []struct {
	name, text string
	code       Code // "": it is taken
}{
	{"EmptyObject", `{}`, ""},
	{"WhiteSpace", " {\t\"a\" :\r\n[ 1 , true, false, null, \"x\" ] } ", ""},
	{"DeepestObjects", nested(MaxContentDepth, `{"a":`, "1", "}"), ""},
	{"DeepestArrays", nested(MaxContentDepth, "[", "1", "]"), ""},
	{"ObjectsTooDeep", nested(MaxContentDepth+1, `{"a":`, "1", "}"), CodeInvalidField},
	{"ArraysTooDeep", nested(MaxContentDepth+1, "[", "", "]"), CodeInvalidField},
	{"TenThousandLevels", nested(10_000, "[", "1", "]"), CodeInvalidField},
	{"AMillionLevelsThatNeverEnd", strings.Repeat("[", 1<<20), CodeInvalidField},
	{"LongestNumber", `{"a":` + strings.Repeat("9", MaxContentNumberBytes) + `}`, ""},
	{"NumberTooLong", `{"a":` + strings.Repeat("9", MaxContentNumberBytes+1) + `}`, CodeInvalidField},
	{"LongFraction", `{"a":[0.` + strings.Repeat("1", MaxContentNumberBytes) + `]}`, CodeInvalidField},
	{"FiveThousandDigits", `{"a":` + strings.Repeat("1", 5000) + `}`, CodeInvalidField},
	{"LargestFinite", `{"a":1.7976931348623157e308,"b":-1.7976931348623157e308}`, ""},
	{"Infinite", `{"a":1e400}`, CodeInvalidField},
	{"InfiniteNegative", `{"a":{"b":[-1E+309]}}`, CodeInvalidField},
	{"RoundsToInfinite", `{"a":1.7976931348623159e308}`, CodeInvalidField},
	{"Tiny", `{"a":1e-400,"b":-0,"c":0.10}`, ""},
	{"KeyTwice", `{"a":1,"b":2,"a":3}`, CodeMalformed},
	{"KeyTwiceInside", `{"a":[{"b":1,"b":1}]}`, CodeMalformed},
	{"KeyTwiceByEscape", `{"a":1,"\u0061":2}`, CodeMalformed},
	{"SameKeyInTwoObjects", `{"a":{"a":1},"b":{"a":1}}`, ""},
	{"Surrogates", `{"a":"\ud83d\ude00","\uD83D\uDE00":1}`, ""},
	{"HighSurrogateAlone", `{"a":"\ud83d"}`, CodeMalformed},
	{"HighSurrogateBeforeText", `{"a":"\ud83dx"}`, CodeMalformed},
	{"LowSurrogateAlone", `{"a":"\ude00"}`, CodeMalformed},
	{"SurrogatesTheWrongWayRound", `{"a":"\ude00\ud83d"}`, CodeMalformed},
	{"LoneSurrogateInAKey", `{"\ud83d":1}`, CodeMalformed},
	{"EscapedBackslashBeforeU", `{"a":"\\ud83d"}`, ""},
	{"CutOff", `{"a":"\ud8`, CodeMalformed},
	{"Empty", ``, CodeMalformed},
	{"TwoValues", `{} {}`, CodeMalformed},
}

func TestCheckContent(t *testing.T) {
	for _, c := range contents {
		t.Run(c.name, func(t *testing.T) {
			err := CheckContent("message.content", []byte(c.text))
			if got := CodeOf(err); got != c.code {
				t.Fatalf("refused with %q (%v), want %q", got, err, c.code)
			}
			message := &Command{Type: KindMessage, Message: &Message{Type: TypeCustom, Content: []byte(c.text)}}
			edit := &Command{Type: KindEdit, Edit: &Edit{TargetSeq: 1, Content: []byte(c.text)}}
			for what, cmd := range map[string]*Command{"message.content": message, "edit.content": edit} {
				refusal := cmd.CheckContent()
				if c.text != "" && (refusal != nil) != (c.code != "") {
					t.Errorf("%s: %v", what, refusal)
				}
				if refusal != nil && refusal.Field != what {
					t.Errorf("the field is %q, want %q", refusal.Field, what)
				}
			}
		})
	}
}

// FuzzCheckContent: it never panics; what it takes is JSON that encoding/json reads into finite numbers, without levels beyond the
// bound, and stays acceptable in canonical form.
func FuzzCheckContent(f *testing.F) {
	for _, c := range contents {
		if len(c.text) < 10_000 {
			f.Add([]byte(c.text))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		canonical, malformed := CanonicalObject(raw)
		if err := CheckContent("content", raw); err != nil || malformed != nil {
			if code := CodeOf(err); err != nil && code != CodeMalformed && code != CodeInvalidField {
				t.Fatalf("%q is refused with %v", raw, err)
			}
			return
		}
		if err := CheckContent("content", canonical); err != nil {
			t.Fatalf("%q is taken, and its canonical form %q is not: %v", raw, canonical, err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%q is taken: %v", raw, err)
		}
		if n, err := deepest(v); err != nil || n > MaxContentDepth {
			t.Fatalf("%q is taken, with %d levels, %v", raw, n, err)
		}
	})
}

func deepest(v any) (levels int, err error) {
	inside := func(list ...any) {
		for _, x := range list {
			n, fault := deepest(x)
			if levels = max(levels, n); fault != nil {
				err = fault
			}
		}
		levels++
	}
	switch x := v.(type) {
	case map[string]any:
		list := make([]any, 0, len(x))
		for _, y := range x {
			list = append(list, y)
		}
		inside(list...)
	case []any:
		inside(x...)
	case float64:
		if math.IsInf(x, 0) {
			return 0, fmt.Errorf("%v", x)
		}
	}
	return levels, err
}

func BenchmarkCheckContent(b *testing.B) {
	text := []byte(`{"text":"` + strings.Repeat("a message of some length ", 8) + `"}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := CheckContent("content", text); err != nil {
			b.Fatal(err)
		}
	}
}
