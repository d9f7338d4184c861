package pusher

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCloseCodes_SayWhetherToComeBackAndFitIntoAFrame(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range CloseReasons() {
		if r.Code < 4000 || r.Code > 4999 || seen[r.Name] || seen[fmt.Sprint(int(r.Code))] || r.Meaning == "" {
			t.Errorf("%+v", r)
		}
		seen[r.Name], seen[fmt.Sprint(int(r.Code))] = true, true
		if n := len(r.Code.payload(time.Hour)); n > 125 {
			t.Errorf("the payload of %s has %d bytes", r.Name, n)
		}
	}
}

// TestCloseCodes_AreDocumented holds the page against the table: each code has its row, with its meaning.
func TestCloseCodes_AreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/socket.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range CloseReasons() {
		back := "no"
		if r.Code.ComeBack() {
			back = "yes"
		}
		row := fmt.Sprintf("| %d | `%s` | %s | %s |", r.Code, r.Name, back, r.Meaning)
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/socket.md lacks the row\n%s", row)
		}
	}
}
