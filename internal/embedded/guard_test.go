package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tideline/internal/kafka"
)

var quiet = slog.New(slog.DiscardHandler)

// startGuarded starts a broker with the platform's topics.
func startGuarded(t testing.TB) (*Broker, kafka.Config) {
	t.Helper()
	broker, err := StartBroker(t.TempDir(), "127.0.0.1:0", "secret", kafka.MaxUnpackedBytes, quiet)
	if err != nil {
		t.Fatal(err)
	}
	stop, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = broker.Run(stop) }()
	t.Cleanup(func() { cancel(); <-stopped })
	cfg := kafka.DefaultConfig()
	cfg.Partitions, cfg.Replication, cfg.MinInSync, cfg.Plain = 2, 1, 1, true
	broker.Join(&cfg)
	admin, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := kafka.EnsureTopics(t.Context(), admin, cfg); err != nil {
		t.Fatal(err)
	}
	// As the services do at their start, so that the guard knows the ids of the topics.
	if _, err := kadm.NewClient(admin).Metadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	return broker, cfg
}

// rawConn is a connection of a stranger that speaks the protocol by hand.
type rawConn struct {
	net.Conn
	t testing.TB
}

func dial(t testing.TB, b *Broker) *rawConn {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawConn{c, t}
}

func encode(corr int32, req kmsg.Request) []byte {
	out := []byte{0, 0, 0, 0}
	out = kbin.AppendInt16(out, req.Key())
	out = kbin.AppendInt16(out, req.GetVersion())
	out = kbin.AppendInt32(out, corr)
	out = kbin.AppendNullableString(out, kmsg.StringPtr("stranger"))
	if req.IsFlexible() {
		out = append(out, 0)
	}
	out = req.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

func (c *rawConn) receive(corr int32, resp kmsg.Response) error {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	body := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	r := kbin.Reader{Src: body}
	if got := r.Int32(); got != corr {
		return fmt.Errorf("answer %d came in place of %d", got, corr)
	}
	if resp.IsFlexible() && resp.Key() != 18 {
		kmsg.SkipTags(&r)
	}
	return resp.ReadFrom(r.Src)
}

func (c *rawConn) ask(req kmsg.Request) (kmsg.Response, error) {
	if _, err := c.Write(encode(7, req)); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	return resp, c.receive(7, resp)
}

// populate fills a request with one of everything.
func populate(v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case name == "Version" || name == "UnknownTags":
		case f.Kind() == reflect.String:
			f.SetString("im.notify")
		case f.Type() == reflect.TypeFor[*string]():
			f.Set(reflect.ValueOf(kmsg.StringPtr("im.notify")))
		case f.Kind() == reflect.Struct:
			populate(f)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() != reflect.Uint8:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			e := f.Index(0)
			if e.CanAddr() {
				if d, ok := e.Addr().Interface().(interface{ Default() }); ok {
					d.Default()
				}
			}
			if e.Kind() == reflect.Struct {
				populate(e)
			} else if e.Kind() == reflect.String {
				e.SetString("im.notify")
			}
		}
	}
}

// codes collects the error codes of a response.
func codes(v reflect.Value, out map[int16]int) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			codes(v.Elem(), out)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "ErrorCode" {
				out[int16(v.Field(i).Int())]++
			} else if v.Type().Field(i).IsExported() {
				codes(v.Field(i), out)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				codes(v.Index(i), out)
			}
		}
	}
}

var unauthorized = map[int16]bool{
	kerr.TopicAuthorizationFailed.Code: true, kerr.GroupAuthorizationFailed.Code: true, kerr.ClusterAuthorizationFailed.Code: true,
	kerr.TransactionalIDAuthorizationFailed.Code: true,
}

// Every kind of request and every version of it that the broker knows, asked of what is not for others, gets the protocol's
// authorization error, in a form that its client can read, and the connection goes on.
func TestGuard_EveryRequestForWhatIsNotPublicIsRefusedInItsOwnForm(t *testing.T) {
	broker, _ := startGuarded(t)
	allowed := map[kmsg.Key]bool{
		kmsg.ApiVersions: true, kmsg.ListGroups: true, // list what may be seen
		kmsg.SASLHandshake: true, kmsg.SASLAuthenticate: true,
	}
	n := 0
	for key, known := range broker.guard.versions {
		if allowed[kmsg.Key(key)] {
			continue
		}
		for version := known.MinVersion; version <= known.MaxVersion; version++ {
			n++
			req := kmsg.RequestForKey(key)
			populate(reflect.ValueOf(req).Elem())
			req.SetVersion(version)
			switch r := req.(type) {
			case *kmsg.ProduceRequest:
				r.Acks, r.TransactionID = -1, nil
				r.Topics[0].TopicID = topicID(t, broker, kafka.TopicNotify)
			case *kmsg.FetchRequest:
				r.ReplicaID, r.ReplicaState.ID, r.SessionID = -1, -1, 0
				r.Topics[0].TopicID = topicID(t, broker, kafka.TopicNotify)
			case *kmsg.ListOffsetsRequest:
				r.ReplicaID = -1
			case *kmsg.MetadataRequest:
			case *kmsg.DescribeConfigsRequest:
				r.Resources[0].ResourceType = kmsg.ConfigResourceTypeTopic
			case *kmsg.FindCoordinatorRequest:
				r.CoordinatorKey, r.CoordinatorKeys = "tideline-ingest", []string{"tideline-ingest"}
			default:
				setGroups(reflect.ValueOf(req).Elem())
			}
			c := dial(t, broker)
			for range 2 { // the second time shows that the connection goes on
				resp, err := c.ask(req)
				if err != nil {
					t.Errorf("%s v%d: %v", kmsg.NameForKey(key), version, err)
					break
				}
				got := map[int16]int{}
				codes(reflect.ValueOf(resp), got)
				refusals := 0
				for code, times := range got {
					if unauthorized[code] {
						refusals += times
					}
				}
				if refusals == 0 && !hasNoCode(key, version) {
					t.Errorf("%s v%d was not refused: %v %+v", kmsg.NameForKey(key), version, got, resp)
				}
			}
			_ = c.Close()
		}
	}
	if n < 170 {
		t.Errorf("%d kinds and versions were tried", n)
	}
}

// hasNoCode names the answers whose form has no place for an error.
func hasNoCode(key, version int16) bool {
	return kmsg.Key(key) == kmsg.DescribeLogDirs && version < 3
}

func setGroups(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch name := v.Type().Field(i).Name; {
		case name == "Group" && f.Kind() == reflect.String:
			f.SetString("tideline-ingest")
		case name == "Groups" && f.Type() == reflect.TypeFor[[]string]():
			f.Set(reflect.ValueOf([]string{"tideline-ingest"}))
		case name == "Groups" && f.Kind() == reflect.Slice:
			for j := range f.Len() {
				setGroups(f.Index(j))
			}
		}
	}
}

func topicID(t testing.TB, b *Broker, name string) [16]byte {
	t.Helper()
	for id, known := range b.guard.dir.topics {
		if known == name {
			return id
		}
	}
	t.Fatalf("the guard does not know %s", name)
	return [16]byte{}
}

// What ends or fills the process of a broker without a guard only ends the connection.
func TestGuard_BytesThatAreNoRequestEndTheirConnectionOnly(t *testing.T) {
	broker, cfg := startGuarded(t)
	frames := map[string][]byte{
		"unknown key":         {0, 0, 0, 0x0a, 0x27, 0x0f, 0, 0, 0, 0, 0, 1, 0, 0},
		"negative key":        {0, 0, 0, 0x0a, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0},
		"unknown version":     {0, 0, 0, 0x0a, 0, 3, 0, 99, 0, 0, 0, 1, 0, 0},
		"negative version":    {0, 0, 0, 0x0a, 0, 3, 0xff, 0xff, 0, 0, 0, 1, 0, 0},
		"huge length":         {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1},
		"negative length":     {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 1},
		"no length":           {0, 0, 0, 0, 0, 3, 0, 1},
		"cut body":            {0, 0, 0, 0x0a, 0, 3, 0, 1, 0, 0, 0, 1, 0, 9},
		"count of a billion":  {0, 0, 0, 0x0e, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x3f, 0xff, 0xff, 0xff},
		"produced, a billion": {0, 0, 0, 0x16, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xff},
		"four billion tags":   {0, 0, 0, 0x0f, 0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"tags of versions":    {0, 0, 0, 0x11, 0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0, 1, 1, 0xff, 0xff, 0xff, 0x0f},
		"http":                []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	}
	for name, frame := range frames {
		c := dial(t, broker)
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("%s: the connection was not closed: %v", name, err)
		}
	}
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); err != nil {
		t.Fatalf("the broker has ended: %v", err)
	}
}

// A client that is newer than the broker is told which versions of ApiVersions there are, in the oldest form.
func TestGuard_NewerClientIsAnsweredInTheOldestForm(t *testing.T) {
	broker, _ := startGuarded(t)
	c := dial(t, broker)
	if _, err := c.Write([]byte{0, 0, 0, 0x0a, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := c.receive(5, resp); err != nil || resp.ErrorCode != kerr.UnsupportedVersion.Code || len(resp.ApiKeys) != 1 {
		t.Fatalf("%+v, %v", resp, err)
	}
	again := kmsg.NewPtrApiVersionsRequest()
	again.Version, again.ClientSoftwareName, again.ClientSoftwareVersion = resp.ApiKeys[0].MaxVersion, "test", "1"
	if _, err := c.ask(again); err != nil {
		t.Fatal(err)
	}
}

// The memory of a request is taken as its bytes arrive.
func TestGuard_LengthWithoutBytesTakesNoMemory(t *testing.T) {
	broker, _ := startGuarded(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 64 {
		c := dial(t, broker)
		if _, err := c.Write([]byte{0, 0xff, 0, 0, 0, 0, 0, 9, 0, 0}); err != nil { // 16 MiB of a produce request
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 32<<20 {
		t.Errorf("64 connections took %d MiB", grown>>20)
	}

	// No memory at all is taken for a length that no request may have.
	const connections, each = 8, 256 << 10
	runtime.ReadMemStats(&before)
	for range connections {
		c := dial(t, broker)
		if _, err := c.Write([]byte{0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 9}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection was not closed")
		}
	}
	runtime.ReadMemStats(&after)
	if taken := int64(after.TotalAlloc - before.TotalAlloc); taken > connections*each {
		t.Errorf("%d connections took %d KiB", connections, taken>>10)
	}
}

// Requests that come at once are answered in their order, whether the broker answers or the guard.
func TestGuard_AnswersInOrder(t *testing.T) {
	broker, _ := startGuarded(t)
	c := dial(t, broker)
	var all []byte
	meta := kmsg.NewPtrMetadataRequest()
	meta.Version = 9
	deletion := kmsg.NewPtrDeleteTopicsRequest()
	deletion.Version, deletion.TopicNames = 3, []string{kafka.TopicMessages}
	const n = 40
	for i := range int32(n) {
		if i%2 == 0 {
			all = append(all, encode(i, meta)...)
		} else {
			all = append(all, encode(i, deletion)...)
		}
	}
	go func() { _, _ = c.Write(all) }()
	for i := range int32(n) {
		resp := meta.ResponseKind()
		if i%2 == 1 {
			resp = deletion.ResponseKind()
		}
		if err := c.receive(i, resp); err != nil {
			t.Fatal(err)
		}
		if d, ok := resp.(*kmsg.DeleteTopicsResponse); ok && d.Topics[0].ErrorCode != kerr.TopicAuthorizationFailed.Code {
			t.Fatalf("%+v", d)
		}
		if m, ok := resp.(*kmsg.MetadataResponse); ok && len(m.Topics) != len(describable) {
			t.Fatalf("%d topics are listed", len(m.Topics))
		}
	}
}

func stranger(t *testing.T, b *Broker, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Addr())}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// A stranger with default settings sends, reads what is public in a group of its own, and can change nothing else.
func TestGuard_StrangerMayDoWhatTheContractSays(t *testing.T) {
	broker, cfg := startGuarded(t)
	ours, err := cfg.NewOwnerProducer("tests", "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ours.Close)
	if err := ours.ProduceSync(t.Context(), &kgo.Record{Topic: kafka.TopicMessages, Partition: 0, Value: []byte("hello")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl := stranger(t, broker, kgo.ConsumerGroup("crm"), kgo.ConsumeTopics(kafka.TopicMessages), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: kafka.TopicInbound, Value: []byte("a command")}).FirstErr(); err != nil {
		t.Errorf("sending: %v", err)
	}
	if got := cl.PollFetches(t.Context()); got.Err() != nil || got.NumRecords() != 1 {
		t.Errorf("reading: %d records, %v", got.NumRecords(), got.Err())
	}
	if err := cl.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Errorf("committing: %v", err)
	}
	for _, topic := range []string{kafka.TopicMessages, kafka.TopicNotify, kafka.TopicReceipts, "other"} {
		err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
		if !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("writing %s: %v", topic, err)
		}
	}
	adm := kadm.NewClient(cl)
	if r, err := adm.DeleteTopics(t.Context(), kafka.TopicMessages); err != nil || !errors.Is(r.Error(), kerr.TopicAuthorizationFailed) {
		t.Errorf("deleting a topic: %v, %v", r.Error(), err)
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(kafka.TopicMessages, 0, 1, -1)
	if r, err := adm.DeleteRecords(t.Context(), offsets); err != nil || !errors.Is(r.Error(), kerr.TopicAuthorizationFailed) {
		t.Errorf("deleting records: %v, %v", r.Error(), err)
	}
	hidden := stranger(t, broker, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{kafka.TopicNotify: {0: kgo.NewOffset().AtStart()}}))
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := hidden.PollFetches(soon).Err(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("reading im.notify: %v", err)
	}
	groups, err := adm.ListGroups(t.Context())
	if err != nil || len(groups) != 1 {
		t.Errorf("groups: %v, %v", groups, err)
	}
	ids := stranger(t, broker, kgo.TransactionalID("tideline-ingest-0"))
	if err := ids.BeginTransaction(); err == nil {
		if _, _, err = ids.ProducerID(soon); !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
			t.Errorf("a transactional id: %v", err)
		}
	}
}

// A wrong password is refused with the protocol's error, and proves nothing half way.
func TestGuard_WrongSecretIsRefused(t *testing.T) {
	_, cfg := startGuarded(t)
	for _, wrong := range []kafka.Config{{User: User, Password: "guess"}, {User: "admin", Password: "secret"}} {
		c := cfg
		c.User, c.Password = wrong.User, wrong.Password
		cl, err := c.NewAdmin("tests", quiet)
		if err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := cl.Ping(soon); err == nil {
			t.Errorf("%s was let in", wrong.User)
		}
		cancel()
		cl.Close()
	}
}

// A stranger cannot take the id of one of our producers, which would fence it off.
func TestGuard_ProducersOfOursCannotBeTaken(t *testing.T) {
	broker, cfg := startGuarded(t)
	ours, err := cfg.NewOwnerProducer("tests", "", quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ours.Close)
	id, epoch, err := ours.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, broker)
	ask := kmsg.NewPtrInitProducerIDRequest()
	ask.Version, ask.ProducerID, ask.ProducerEpoch = 4, id, epoch
	resp, err := c.ask(ask)
	if err != nil || resp.(*kmsg.InitProducerIDResponse).ProducerID == id {
		t.Errorf("%+v, %v", resp, err)
	}
	if !broker.guard.dir.isOurs(id) {
		t.Error("the guard does not know the producer")
	}
}

func FuzzGuard(f *testing.F) {
	broker, _ := startGuarded(f)
	for key, known := range broker.guard.versions {
		for version := known.MinVersion; version <= known.MaxVersion; version++ {
			req := kmsg.RequestForKey(key)
			populate(reflect.ValueOf(req).Elem())
			req.SetVersion(version)
			f.Add(encode(1, req))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 4 || len(frame) > 1<<16 {
			return
		}
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4)) // most frames would not be read otherwise
		c, err := net.Dial("tcp", broker.Addr())
		if err != nil {
			t.Fatalf("the broker has ended: %v", err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond)) // some requests wait
		_, _ = c.Write(frame)
		_, _ = c.Read(make([]byte, 64))
		// What the broker behind does with it shows at the next request.
		probe := dial(t, broker)
		if _, err := probe.ask(&kmsg.ApiVersionsRequest{}); err != nil {
			t.Fatalf("after %x: %v", frame, err)
		}
	})
}

// Connections that never show whose they are keep no other one out, however busy they are.
func TestGuard_UnknownConnectionsKeepNoOtherOut(t *testing.T) {
	broker, cfg := startGuarded(t)
	versions := kmsg.NewPtrApiVersionsRequest()
	for range maxUnknown + 20 {
		if _, err := dial(t, broker).ask(versions); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); err != nil {
		t.Fatalf("a connection of ours beside them: %v", err)
	}
	meta := kmsg.NewPtrMetadataRequest()
	meta.Version = 8
	if _, err := dial(t, broker).ask(meta); err != nil {
		t.Fatalf("a stranger's beside them: %v", err)
	}
}

func TestGuard_GroupsOfStrangersAreBounded(t *testing.T) {
	broker, _ := startGuarded(t)
	c := dial(t, broker)
	commit := func(group string, metadata int) int16 {
		t.Helper()
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = 7, group, -1
		topic, partition := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
		partition.Metadata = kmsg.StringPtr(strings.Repeat("x", metadata))
		topic.Topic, topic.Partitions = kafka.TopicMessages, append(topic.Partitions, partition)
		req.Topics = append(req.Topics, topic)
		resp, err := c.ask(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
	}
	if code := commit("mine", maxOffsetMetadata); code != 0 {
		t.Errorf("metadata of the most bytes: %v", kerr.ErrorForCode(code))
	}
	if code := commit("mine", maxOffsetMetadata+1); code != kerr.OffsetMetadataTooLarge.Code {
		t.Errorf("metadata of one byte more: %v", kerr.ErrorForCode(code))
	}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = 5, "mine", 10_000, 10_000, "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", make([]byte, maxGroupMetadata)
	join.Protocols = append(join.Protocols, protocol)
	if resp, err := c.ask(join); err != nil || resp.(*kmsg.JoinGroupResponse).ErrorCode != kerr.InvalidRequest.Code {
		t.Errorf("a member with %d bytes: %+v, %v", maxGroupMetadata, resp, err)
	}
	for i := range maxGroups - 1 {
		if code := commit(fmt.Sprint("group-", i), 0); code != 0 {
			t.Fatalf("group %d: %v", i, kerr.ErrorForCode(code))
		}
	}
	if code := commit("one too many", 0); code != kerr.GroupMaxSizeReached.Code {
		t.Errorf("one group too many: %v", kerr.ErrorForCode(code))
	}
	if code := commit("mine", 0); code != 0 {
		t.Errorf("a group that was there: %v", kerr.ErrorForCode(code))
	}
}
