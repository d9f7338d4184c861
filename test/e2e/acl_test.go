package e2e

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tideline/internal/servers"
	"tideline/test/platform"
)

// documentedACLs reads what docs/kafka-acl.md allows, as kafka-acls.sh would, and the users that it names.
func documentedACLs(t *testing.T) (acls []*kadm.ACLBuilder, users []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "kafka-acl.md"))
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]kadm.ACLOperation{
		"Read": kadm.OpRead, "Write": kadm.OpWrite, "Create": kadm.OpCreate, "Describe": kadm.OpDescribe, "DescribeConfigs": kadm.OpDescribeConfigs,
	}
	for line := range strings.Lines(string(page)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "allow" {
			continue
		}
		user, rest := words[1], words[2:]
		if !slices.Contains(users, user) {
			users = append(users, user)
		}
		b := kadm.NewACLs().Allow("User:" + user).AllowHosts().ResourcePatternType(kadm.ACLPatternLiteral)
		var ops []kadm.ACLOperation
		var topics, groups, ids []string
		for ; len(rest) >= 2; rest = rest[2:] {
			switch value := rest[1]; rest[0] {
			case "--operation":
				op, known := operations[value]
				if !known {
					t.Fatalf("%q allows %s, which this test does not know", line, value)
				}
				ops = append(ops, op)
			case "--topic":
				topics = append(topics, value)
			case "--group":
				groups = append(groups, value)
			case "--transactional-id":
				ids = append(ids, value)
			case "--resource-pattern-type":
				b.ResourcePatternType(kadm.ACLPatternPrefixed)
			default:
				t.Fatalf("%q has %s, which this test does not know", line, rest[0])
			}
		}
		if len(rest) > 0 {
			t.Fatalf("%q ends in the middle", line)
		}
		acls = append(acls, b.MaybeTopics(topics...).MaybeGroups(groups...).MaybeTransactionalIDs(ids...).Operations(ops...))
	}
	return acls, users
}

// secured is a broker on which nobody may do more than the page allows.
type secured struct {
	*servers.SecuredKafka
	passwords map[string]string
}

func startSecured(t *testing.T) *secured {
	t.Helper()
	acls, users := documentedACLs(t)
	s := &secured{passwords: map[string]string{}}
	for _, u := range users {
		s.passwords[u] = rand.Text()
	}
	s.SecuredKafka = servers.StartSecuredKafka(t, s.passwords)
	s.Allow(t, acls...)
	return s
}

// as gives the variables that make a process a user.
func (s *secured) as(process string) []string {
	user := "tideline-" + process
	switch process {
	case "topics", "migrate", "parked":
		user = "tideline-operator"
	}
	return []string{
		"TIDELINE_KAFKA_USER=" + user, "TIDELINE_KAFKA_PASSWORD=" + s.passwords[user], "TIDELINE_KAFKA_TLS=true", "TIDELINE_KAFKA_TLS_CA=" + s.CA,
	}
}

// is gives the options that make a client a user.
func (s *secured) is(t *testing.T, user string) []kgo.Opt {
	t.Helper()
	text, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return []kgo.Opt{
		kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}),
		kgo.SASL(scram.Auth{User: user, Pass: s.passwords[user]}.AsSha512Mechanism()),
	}
}

// client connects as a user.
func (s *secured) client(t *testing.T, user string, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(slices.Concat([]kgo.Opt{kgo.SeedBrokers(s.Addr)}, s.is(t, user), more)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestCluster_RunsWithTheLeastRights(t *testing.T) {
	s := startSecured(t)
	c := platform.Setup{Kafka: s.Process, As: s.as}.Start(t)
	c.Backend = s.is(t, "crm")
	converse(t, &c.Platform)

	export := filepath.Join(t.TempDir(), "export.jsonl")
	said := `{"day":"2004-12-25","minute":554,"kind":"message","sender":"anna","text":"is anybody here?"}` + "\n"
	if err := os.WriteFile(export, []byte(said), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := c.Tideline("import", "-import.api", c.HTTP, "-import.admin-token", platform.AdminToken, "-import.group", "Quay", export); !strings.Contains(out, "messages numbered                 1") {
		t.Errorf("the import says\n%s", out)
	}

	c.Tideline("fsck", "-at-rest")

	t.Run("AndNobodyMayDoMore", func(t *testing.T) { s.denies(t) })
}

// denies tries what must not be possible.
func (s *secured) denies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range []struct {
		user, topic, transactionalID string
		allowed                      bool
	}{
		{user: "crm", topic: "im.inbound", allowed: true}, // so that the others cannot fail for another reason
		{user: "crm", topic: "im.messages"},
		{user: "crm", topic: "im.notify"},
		{user: "crm", topic: "im.receipts"},
		{user: "crm", topic: "im.rejected"},
		{user: "crm", topic: "im.inbound", transactionalID: "tideline-ingest-0"}, // it would fence the owner
		{user: "search", topic: "im.inbound"},
		{user: "tideline-api", topic: "im.messages"},
		{user: "tideline-api", topic: "im.notify"},
		{user: "tideline-api", topic: "im.inbound", transactionalID: "tideline-ingest-0"},
		{user: "tideline-pusher", topic: "im.messages"},
		{user: "tideline-timeline", topic: "im.messages"},
		{user: "tideline-timeline", topic: "im.inbound"},
		{user: "tideline-operator", topic: "im.messages"},
		{user: "tideline-import", topic: "im.messages"},
		{user: "tideline-fsck", topic: "im.messages"},
		{user: "tideline-fsck", topic: "im.inbound"},
	} {
		var more []kgo.Opt
		if c.transactionalID != "" {
			more = append(more, kgo.TransactionalID(c.transactionalID))
		}
		cl := s.client(t, c.user, more...)
		var err error
		if c.transactionalID != "" {
			err = cl.BeginTransaction()
		}
		if err == nil {
			err = cl.ProduceSync(ctx, &kgo.Record{Topic: c.topic, Key: []byte("1"), Value: []byte("what is this?")}).FirstErr()
		}
		// Who may write nothing anywhere is not even given a producer's id.
		refused := errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
		if refused == c.allowed {
			t.Errorf("%s writes %s with the transactional id %q: %v", c.user, c.topic, c.transactionalID, err)
		}
	}
	for _, c := range []struct {
		user, topic, group string
		allowed            bool
	}{
		{user: "search", topic: "im.messages", group: "search-1", allowed: true},
		{user: "search", topic: "im.messages", group: "tideline-ingest"}, // it would take partitions from ingest
		{user: "search", topic: "im.receipts", group: "search-1"},
		{user: "crm", topic: "im.messages", group: "crm-index", allowed: true},
		{user: "crm", topic: "im.messages", group: "search-1"},
		{user: "crm", topic: "im.inbound", group: "crm-index"},
		{user: "tideline-api", topic: "im.inbound", group: "tideline-ingest"},
	} {
		once, stop := context.WithTimeout(ctx, 20*time.Second)
		fetches := s.client(t, c.user, kgo.ConsumeTopics(c.topic), kgo.ConsumerGroup(c.group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())).PollFetches(once)
		stop()
		err := fetches.Err()
		if refused := errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed); refused == c.allowed {
			t.Errorf("%s reads %s in the group %s: %v", c.user, c.topic, c.group, err)
		}
	}
	// Deleting is nobody's, not even the operator's.
	for _, user := range []string{"crm", "tideline-ingest", "tideline-operator"} {
		gone, err := kadm.NewClient(s.client(t, user)).DeleteTopics(ctx, "im.messages")
		if err == nil {
			err = gone["im.messages"].Err
		}
		if !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("%s deletes im.messages: %v", user, err)
		}
	}
}
