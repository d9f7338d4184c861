package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"tideline/internal/servers"
	"tideline/test/platform"
)

func TestCluster_CarriesAConversation(t *testing.T) {
	c := platform.StartCluster(t)
	converse(t, &c.Platform)
}

func TestCluster_LosesNothingThatWasAnsweredWhenPartsAreKilled(t *testing.T) {
	c := platform.StartCluster(t)
	survive(t, &c.Platform, len(c.Parts)+1, func(i int) {
		if i == len(c.Parts) {
			cl := redis.NewClient(&redis.Options{Addr: c.Redis.Addr})
			defer func() { _ = cl.Close() }()
			if err := cl.FlushAll(context.Background()).Err(); err != nil {
				t.Error(err)
			}
			return
		}
		c.Parts[i].Kill()
		c.Parts[i].Start()
	})
}

func TestCluster_FillsAnArchiveThatHasLostSomething(t *testing.T) {
	c := platform.StartCluster(t)
	ada := c.Join(t, "ada")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Attic"}, &g)
	gone := ada.Send(g.ID, "1", "taken back")
	ada.Must(200, "DELETE", fmt.Sprintf("/conversations/%s/messages/%d", g.ID, gone.Seq), nil, nil)
	a := c.Archived(t, g.ID, ada.Send(g.ID, "2", "kept").Seq)
	if err := a.Conn.Exec(t.Context(), "TRUNCATE TABLE messages"); err != nil {
		t.Fatal(err)
	}
	c.Timeline.Kill()
	if out := c.Tideline("archive", "fill"); !strings.Contains(out, "4 rows were filled in") {
		t.Fatalf("the fill says %s", out)
	}
	c.Timeline.Start()
	c.Archived(t, g.ID, ada.Send(g.ID, "3", "and on").Seq)
	if n := a.Count("SELECT countIf(text = 'taken back') FROM messages"); n != 0 {
		t.Fatal("what was recalled came back with the fill")
	}
	if n := a.Count("SELECT countIf(text = 'kept') FROM messages"); n != 1 {
		t.Fatalf("what was said stands %d times", n)
	}
}

func TestCluster_TakesRecordsOfAForeignPartitioner(t *testing.T) {
	c := platform.StartCluster(t)
	ada, bob := c.Join(t, "ada"), c.Join(t, "bob")
	var g struct {
		ID string `json:"conversation_id"`
	}
	ada.Eventually(201, "POST", "/groups", map[string]any{"name": "Quay", "member_ids": []string{bob.ID}}, &g)
	bobs := bob.Listen()
	for i := range 3 {
		line := fmt.Sprintf(`{"type":"message","conversation_id":%q,"sender_id":%q,"client_msg_id":"kcat-%d","message":{"type":"text","content":{"text":"from kcat"}}}`, g.ID, ada.ID, i)
		cmd := exec.Command(servers.Kcat(t), "-b", c.Kafka, "-t", "im.inbound", "-P", "-k", g.ID, "-X", "partitioner=consistent", "-H", "content-type=application/json", "-H", "producer=kcat")
		cmd.Stdin = strings.NewReader(line + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kcat: %v\n%s", err, out)
		}
	}
	bobs.WaitFor(g.ID, 4)
	if all := bob.History(g.ID); len(all) != 4 {
		t.Fatalf("three messages of a backend and the creation are %d entries", len(all))
	}
}

func TestCluster_StopsInOrder(t *testing.T) {
	c := platform.StartCluster(t)
	c.Join(t, "ada").Listen()
	started := time.Now()
	for _, p := range c.Parts {
		p.Terminate()
	}
	t.Logf("all of it stopped in %s", time.Since(started))
}
