package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"tideline/internal/kafka"
	"tideline/pkg/chat"
)

// harbour is what testdata/harbour.jsonl says.
var harbour = []string{
	`2011-03-04 23:58:00.000 import:Ines text {"text":"Is the ferry <late> & wet again?"}`,
	`2011-03-04 23:59:00.000 import:tomás text {"text":"Hälfte der Strecke ⛴"}`,
	`2011-03-05 00:00:00.000 import:Ines custom {"kind":"action","text":"looks at the water"}`,
	`2011-03-05 00:02:00.000 import:captain custom {"kind":"empty"}`,
	`2011-03-05 00:02:00.000 import:captain text {"text":"Ferry at \"two\"\n\tbells"}`,
	`2011-03-05 00:03:00.000 import:ines text {"text":"another person, in lower case"}`,
	`2011-03-05 00:03:00.000 import:captain custom {"kind":"action","text":""}`,
	`2011-03-05 00:04:00.000 import:Ines text {"text":"Is the ferry <late> & wet again?"}`,
	`1970-01-01 00:00:00.001 import:Ines text {"text":"the clock of the pier has stopped"}`,
}

var harbourCounts = Counts{Messages: 6, Actions: 2, Empty: 1, Renames: 1}

func copyOf(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("testdata/harbour.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "harbour.jsonl", content)
}

func (r *rig) mustSay(group chat.ConversationID, want []string) {
	r.t.Helper()
	if got := r.said(group); !slices.Equal(got, want) {
		r.t.Errorf("the group says\n%s\nand the export\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestImporter_SaysWhatWasSaidInOrderAndOnce(t *testing.T) {
	r := newRig(t)
	t.Cleanup(r.naming())
	path := copyOf(t)
	report := r.run(r.config(), path)
	r.mustSay(report.Conversation, harbour)
	if report.Counts != harbourCounts || report.People != 4 || report.Numbered[chat.KindMessage] != 9 || report.Rejected() != 0 || report.Missing() != 0 || report.Lines != 11 || report.Before {
		t.Errorf("it reports %+v", report)
	}

	t.Run("again, when it had finished", func(t *testing.T) {
		if again := r.run(r.config(), path); !again.Before || again.Counts != harbourCounts || again.Conversation != report.Conversation {
			t.Errorf("it reports %+v", again)
		}
	})
	t.Run("again, with the checkpoint lost", func(t *testing.T) {
		if err := os.Remove(path + ".checkpoint"); err != nil {
			t.Fatal(err)
		}
		again := r.run(r.config(), path)
		if again.Conversation != report.Conversation || again.Outcomes[chat.CodeDuplicate] != 9+1+1 || again.Rejected() != 0 || again.Missing() != 0 {
			t.Errorf("it reports %+v", again)
		}
		r.mustSay(report.Conversation, harbour)
	})
	t.Run("again, when it has grown", func(t *testing.T) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintln(f, `{"day":"2011-03-06","minute":1,"kind":"message","sender":"newcomer","text":"hello"}`)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if grown := r.run(r.config(), path); grown.Lines != 1 || grown.People != 5 || grown.Missing() != 0 || grown.Rejected() != 0 {
			t.Errorf("it reports %+v", grown)
		}
		r.mustSay(report.Conversation, append(slices.Clone(harbour), `2011-03-06 00:01:00.000 import:newcomer text {"text":"hello"}`))
	})
	t.Run("again, when its beginning has changed", func(t *testing.T) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(content, []byte("wet"), []byte("dry"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(r.stored(report.Conversation))
		_, err = r.importer(r.config()).Run(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), "first 12 lines") {
			t.Errorf("it says %v", err)
		}
		if after := len(r.stored(report.Conversation)); after != before {
			t.Errorf("%d events were made of a refused export", after-before)
		}
	})
}

// Stopped at every line in turn, and each time killed between Kafka's acknowledgement and the checkpoint, so that the next
// run finds one that is older than what was produced.
func TestImporter_StoppedAndKilledAtEveryLineDoublesNothing(t *testing.T) {
	r := newRig(t)
	t.Cleanup(r.naming())
	path := copyOf(t)
	cfg := r.config()
	cfg.Batch = 1
	old := []byte(nil)
	stops := 0
	for {
		ctx, stop := context.WithTimeout(t.Context(), patience)
		im := r.importer(cfg)
		first := sync.OnceFunc(stop)
		im.acknowledged = func(int) { first() }
		report, err := im.Run(ctx, path)
		stop()
		if err == nil {
			if stops < 9 || report.Rejected() != 0 || report.Missing() != 0 {
				t.Errorf("after %d stops it reports %+v", stops, report)
			}
			r.mustSay(report.Conversation, harbour)
			return
		}
		if !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
		if stops++; stops > 40 {
			t.Fatal("it does not come to its end")
		}
		now, err := os.ReadFile(path + ".checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		if stops%2 == 1 && old != nil { // every other stop was a kill
			if err := os.WriteFile(path+".checkpoint", old, 0o600); err != nil {
				t.Fatal(err)
			}
			old = nil
			continue
		}
		old = now
	}
}

func TestImporter_TellsWhatWasRejected(t *testing.T) {
	r := newRig(t)
	t.Cleanup(r.naming())
	path := copyOf(t)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	im := r.importer(r.config())
	im.acknowledged = func(line int) {
		if line >= 4 {
			stop()
		}
	}
	if _, err := im.Run(ctx, path); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "line 4 of 11") {
		t.Fatal(err)
	}
	c, err := loadCheckpoint(path+".checkpoint", "harbour.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	admin := newAdminClient(r.config())
	ids, err := admin.people(t.Context(), []externalUser{{ExternalID: "import:captain", Nickname: "captain"}}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	r.produce(&chat.Command{Type: chat.KindLeave, Conversation: c.Conversation, Sender: ids[0], ClientMsgID: "goodbye", Leave: &chat.Leave{Users: ids}})
	report := r.run(r.config(), path)
	if report.Rejected() != 3 || report.Outcomes[chat.CodeNotAMember] != 3 || report.Missing() != 0 || report.Numbered[chat.KindMessage] != 6 {
		t.Errorf("it reports %+v", report)
	}
	if len(report.Refused) != 3 || report.Refused[0].ClientMsgID != messageID("harbour.jsonl", 6, time.Date(2011, 3, 5, 0, 2, 0, 0, time.UTC).UnixMilli()) {
		t.Errorf("it names %+v", report.Refused)
	}
	var out bytes.Buffer
	if err := report.Print(&out); err != nil || !strings.Contains(out.String(), "rejected") || !strings.Contains(out.String(), report.Refused[2].ClientMsgID+"  "+string(chat.CodeNotAMember)) {
		t.Errorf("it prints\n%s\n%v", &out, err)
	}
}

// The lines are dated three days ahead: nothing can be numbered. The same command says so again, whatever the logs still
// have, until its checkpoint is removed.
func TestImporter_FailedRunStaysFailed(t *testing.T) {
	r := newRig(t)
	t.Cleanup(r.naming())
	day := func(ahead int) string { return time.Now().UTC().AddDate(0, 0, ahead).Format(time.DateOnly) }
	line := func(day, text string) string {
		return `{"day":"` + day + `","minute":1,"kind":"message","sender":"ada","text":"` + text + `"}` + "\n"
	}
	path := write(t, "ahead.jsonl", []byte(line(day(3), "too early")))
	first := r.run(r.config(), path)
	if first.Err() == nil || first.Rejected() != 3 || first.Missing() != 0 || first.Numbered[chat.KindMessage] != 0 {
		t.Fatalf("it reports %+v, %v", first, first.Err())
	}
	mustStayFailed := func(again *Report) {
		t.Helper()
		var out bytes.Buffer
		if err := again.Print(&out); err != nil || again.Err() == nil || again.Rejected() != 3 || !strings.Contains(out.String(), string(chat.CodeInvalidField)) {
			t.Errorf("it reports %+v, %v\n%s", again, again.Err(), &out)
		}
	}
	for range 2 {
		again := r.run(r.config(), path)
		if !again.Before || !strings.Contains(again.Err().Error(), "remove the checkpoint") {
			t.Errorf("it reports %+v, %v", again, again.Err())
		}
		mustStayFailed(again)
	}

	// A checkpoint of the version before says that the run had finished, and no more: the logs are asked again.
	raw, err := os.ReadFile(path + ".checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadCheckpoint(path+".checkpoint", "ahead.jsonl")
	if err != nil || c.Failed == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	old := *c
	old.Version, old.Failed = 1, nil
	if err := old.save(path + ".checkpoint"); err != nil {
		t.Fatal(err)
	}
	mustStayFailed(r.run(r.config(), path))

	// Retention has removed the rejections: what was noted counts.
	c.RejectedFrom, c.Finished = 3, false
	if err := c.save(path + ".checkpoint"); err != nil {
		t.Fatal(err)
	}
	mustStayFailed(r.run(r.config(), path))
	if now, err := os.ReadFile(path + ".checkpoint"); err != nil || !bytes.Contains(now, []byte(`"failed"`)) || !bytes.Contains(raw, []byte(`"failed"`)) {
		t.Errorf("the checkpoint says %s, %v", now, err)
	}

	// Without a checkpoint everything is judged again.
	if err := os.Remove(path + ".checkpoint"); err != nil {
		t.Fatal(err)
	}
	if fresh := r.run(r.config(), path); fresh.Before || fresh.Rejected() != 3 {
		t.Errorf("it reports %+v", fresh)
	}
}

// Nobody numbers: the import stops at its bound, says whom it waits for, and gives up after its patience.
func TestImporter_StopsAtItsBoundWhenNobodyNumbers(t *testing.T) {
	r := newRig(t)
	path := copyOf(t)
	cfg := r.config()
	cfg.MaxLag, cfg.Patience, cfg.Batch = 4, time.Second, 1
	_, err := r.importer(cfg).Run(t.Context(), path)
	if err == nil || errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "nothing has moved for 1s") {
		t.Fatalf("it says %v", err)
	}
	admin, err := r.kafka.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ends, err := kadm.NewClient(admin).ListEndOffsets(t.Context(), kafka.TopicInbound)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	if total < 5 || total > 6 {
		t.Errorf("with a bound of 4 and batches of 1, %d records wait", total)
	}
	t.Cleanup(r.naming())
	report := r.run(r.config(), path)
	if report.Missing() != 0 || report.Rejected() != 0 {
		t.Errorf("it reports %+v", report)
	}
	r.mustSay(report.Conversation, harbour)
}

// Live chat in another partition is what the groups' commits tell of.
func TestGroupLag_SeesWhoIsBehindInOtherPartitions(t *testing.T) {
	r := newRig(t)
	admin, err := r.kafka.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	adm := kadm.NewClient(admin)
	var in [2][]chat.ConversationID // by partition
	for id := int64(1); len(in[0]) == 0 || len(in[1]) == 0; id++ {
		c := chat.GroupConversation(id)
		p := chat.Partition(c.String(), 2)
		in[p] = append(in[p], c)
	}
	for i := range 7 {
		for _, list := range in {
			r.produce(&chat.Command{Type: chat.KindMessage, Conversation: list[0], Sender: 1, ClientMsgID: fmt.Sprint(i), Message: &chat.Message{Type: chat.TypeText, Content: []byte(`{"text":"x"}`)}})
		}
	}
	look := func(skip int32) behind {
		t.Helper()
		b, err := (&groupLag{admin: adm, skip: skip, log: quiet}).look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := look(0); b.n != 0 {
		t.Errorf("a group that has said nothing is %+v", b)
	}
	var at kadm.Offsets
	at.Add(kadm.Offset{Topic: kafka.TopicInbound, Partition: 0, At: 6, LeaderEpoch: -1})
	at.Add(kadm.Offset{Topic: kafka.TopicInbound, Partition: 1, At: 2, LeaderEpoch: -1})
	if err := adm.CommitAllOffsets(t.Context(), kafka.GroupIngest, at); err != nil {
		t.Fatal(err)
	}
	if b := look(0); b.n != 5 || !strings.Contains(b.what, "im.inbound/1") {
		t.Errorf("it sees %+v", b)
	}
	if b := look(1); b.n != 1 {
		t.Errorf("its own partition is followed otherwise, and it sees %+v", b)
	}
}

func TestImporter_TriesNothingThatTheApiRefuses(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.AdminToken = "not the administrators' token"
	began := time.Now()
	_, err := r.importer(cfg).Run(t.Context(), copyOf(t))
	if err == nil || !strings.Contains(err.Error(), "unauthenticated") && !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("it says %v", err)
	}
	if time.Since(began) > patience/2 {
		t.Error("it tries again what cannot become better")
	}
}

func TestImporter_AnAccountOwnsTheGroup(t *testing.T) {
	r := newRig(t)
	t.Cleanup(r.naming())
	owner := strconv.FormatInt(time.Now().UnixNano(), 36)
	body := `{"username":"` + owner + `","password":"correct horse battery","nickname":"Ada"}`
	response, err := http.Post(r.base+"/v1/users", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var made struct {
		User chat.UserID `json:"user_id"`
	}
	err = json.NewDecoder(response.Body).Decode(&made)
	_ = response.Body.Close()
	if err != nil || made.User == 0 {
		t.Fatalf("making an account: %d, %v", response.StatusCode, err)
	}
	cfg, path := r.config(), copyOf(t)
	cfg.Owner = owner + "x"
	if _, err := r.importer(cfg).Run(t.Context(), path); err == nil || !strings.Contains(err.Error(), "import.owner") {
		t.Errorf("an owner who is not there: %v", err)
	}
	cfg.Owner = strings.ToUpper(owner)
	report := r.run(cfg, path)
	found, err := r.parts.Store.Conversations(t.Context(), []chat.ConversationID{report.Conversation})
	if err != nil || len(found) != 1 || found[0].Owner != made.User || found[0].MaxSeq != report.LastSeq {
		t.Errorf("the group is %+v, %v; the account is %s, and the report %+v", found, err, made.User, report)
	}
}
