package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The topics of the platform.
const (
	TopicInbound  = "im.inbound"
	TopicMessages = "im.messages"
	TopicRejected = "im.rejected"
	TopicReceipts = "im.receipts"
	TopicNotify   = "im.notify"
)

// The consumer groups of the platform. Their committed offsets serve to see the lag; progress is kept elsewhere.
const (
	GroupIngest     = "tideline-ingest"
	GroupTimeline   = "tideline-timeline"
	GroupMarks      = "tideline-marks"
	GroupRejections = "tideline-rejections"
	GroupArchive    = "tideline-archive"
)

// The headers of the platform's records.
const (
	HeaderContentType = "content-type"
	HeaderProducer    = "producer"
	HeaderReplyTo     = "reply-to"   // <api instance>:<request number>: who waits for the outcome
	HeaderMovedFrom   = "moved-from" // <partition>:<offset> of im.inbound where the record was produced to
	HeaderKind        = "kind"
	HeaderSeq         = "seq"
	HeaderClientMsgID = "client_msg_id"
	// HeaderKinds is the least version of the list of kinds that knows the event's; see chat.Kind.Since. Events of the first
	// version do not have it.
	HeaderKinds       = "kinds"
	HeaderTraceparent = "traceparent" // and tracestate: the trace that a command belongs to
)

// ProducerAPI is the producer's name on commands that clients gave over HTTP and the socket.
const ProducerAPI = "api"

// Topic is how one topic is made.
type Topic struct {
	Name      string
	Retention time.Duration // with which it is created
	Least     time.Duration // what it must be kept for whatever an operator sets
	Why       string
}

// Topics lists the topics with the time that each keeps its records. Retention is chosen so that whoever reads a topic
// can be away over a long weekend; the two that hold messages keep them longer, because they are the public contract.
// An operator may set less, down to what a night without anybody at the screen takes.
func Topics() []Topic {
	const day = 24 * time.Hour
	return []Topic{
		{TopicInbound, 7 * day, day, "a backlog of a week can still be numbered"},
		{TopicMessages, 30 * day, day, "services that join late, and archives that were away, find a month; the stores keep the rest"},
		{TopicRejected, 7 * day, time.Hour, "backends look at what became of their commands within days"},
		{TopicReceipts, 7 * day, day, "marks are durable in the store once the writer has passed"},
		{TopicNotify, time.Hour, time.Minute, "hints are worth nothing once everybody has pulled"},
	}
}

// EnsureTopics creates what is missing and checks what is there: see CheckTopics. It changes nothing that exists.
func EnsureTopics(ctx context.Context, cl *kgo.Client, cfg Config) error {
	adm := kadm.NewClient(cl)
	for _, t := range Topics() {
		configs := map[string]*string{
			"retention.ms":        ptr(strconv.FormatInt(t.Retention.Milliseconds(), 10)),
			"min.insync.replicas": ptr(strconv.Itoa(cfg.MinInSync)),
			"cleanup.policy":      ptr("delete"),
			"max.message.bytes":   ptr(strconv.Itoa(maxRecordBatchBytes)),
		}
		if cfg.RetentionBytes > 0 {
			configs["retention.bytes"] = ptr(strconv.FormatInt(cfg.RetentionBytes, 10))
		}
		if cfg.SegmentBytes > 0 {
			configs["segment.bytes"] = ptr(strconv.FormatInt(cfg.SegmentBytes, 10))
		}
		_, err := adm.CreateTopic(ctx, int32(cfg.Partitions), int16(cfg.Replication), configs, t.Name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("creating topic %s: %w", t.Name, err)
		}
	}
	// A topic that was just made is not known to every broker at once.
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		err := CheckTopics(ctx, cl, cfg)
		if !errors.Is(err, errNoTopic) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

var errNoTopic = errors.New("the topic does not exist")

// CheckTopics refuses to go on with topics that would break a promise: a topic that is missing, a partition count other
// than the configured one (numbers are tied to partitions for good), fewer in-sync replicas than configured, a retention
// so short that a night's failure loses what was accepted, compaction (which would leave one event of a conversation), or
// records allowed that are smaller than ours.
func CheckTopics(ctx context.Context, cl *kgo.Client, cfg Config) error {
	adm := kadm.NewClient(cl)
	var names []string
	for _, t := range Topics() {
		names = append(names, t.Name)
	}
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	var faults []error
	for _, name := range names {
		d, ok := details[name]
		switch {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			faults = append(faults, fmt.Errorf("%s: %w: create the topics with `tideline topics create`", name, errNoTopic))
		case d.Err != nil:
			faults = append(faults, fmt.Errorf("topic %s: %w", name, d.Err))
		case len(d.Partitions) != cfg.Partitions:
			faults = append(faults, otherCount(name, len(d.Partitions), cfg.Partitions))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return fmt.Errorf("reading topic settings: %w", err)
	}
	for _, t := range Topics() {
		i := slices.IndexFunc(configs, func(rc kadm.ResourceConfig) bool { return rc.Name == t.Name })
		switch {
		case i < 0:
			faults = append(faults, fmt.Errorf("the settings of topic %s were not told by the brokers", t.Name))
		case configs[i].Err != nil:
			faults = append(faults, fmt.Errorf("the settings of topic %s cannot be read, and promises rest on them (it needs DESCRIBE_CONFIGS): %w", t.Name, configs[i].Err))
		default:
			faults = append(faults, t.check(cfg, configs[i].Configs)...)
		}
	}
	return errors.Join(faults...)
}

// otherCount is the error of a topic whose partition count is not the configured one.
func otherCount(topic string, has, configured int) error {
	return fmt.Errorf(
		"topic %s has %d partitions and kafka.partitions says %d: %w, because a conversation's numbers, its state and its place in the store follow from its partition. Set kafka.partitions to %d; a different count needs a new cluster and an import",
		topic, has, configured, ErrOtherCount, has)
}

// ErrOtherCount is wrapped by the errors of topics whose partition count is not the configured one.
var ErrOtherCount = errors.New("the count is fixed for good")

// CountPartitions returns the partition count that the topics were created with, and 0 where there are none. im.inbound
// decides; where it is missing, the first of the others.
func CountPartitions(ctx context.Context, cl *kgo.Client) (topic string, n int, err error) {
	var names []string
	for _, t := range Topics() {
		names = append(names, t.Name)
	}
	details, err := kadm.NewClient(cl).ListTopics(ctx, names...)
	if err != nil {
		return "", 0, fmt.Errorf("asking the brokers for the partition count: %w", err)
	}
	for _, name := range names {
		switch d, ok := details[name]; {
		case !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case d.Err != nil:
			return "", 0, fmt.Errorf("asking the brokers for the partition count of %s: %w", name, d.Err)
		default:
			return name, len(d.Partitions), nil
		}
	}
	return "", 0, nil
}

// adoptTimeout bounds how long AdoptPartitions waits for the brokers.
const adoptTimeout = 15 * time.Second

// AdoptPartitions sets the partition count to that of the topics where it is 0, and refuses another one than theirs. It is
// for commands that use topics and do not create them.
func (c *Config) AdoptPartitions(ctx context.Context, clientID string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	cl, err := c.NewAdmin(clientID, log)
	if err != nil {
		return err
	}
	defer cl.Close()
	topic, n, err := CountPartitions(ctx, cl)
	switch {
	case err != nil && c.Partitions == 0:
		return fmt.Errorf("%w; kafka.partitions is not set", err)
	case err != nil:
		return err
	case n == 0:
		return fmt.Errorf("%s: %w: create the topics with `tideline topics create`", TopicInbound, errNoTopic)
	case c.Partitions != 0 && c.Partitions != n:
		return otherCount(topic, n, c.Partitions)
	}
	c.Partitions = n
	return nil
}

// check compares the settings of a topic, as the broker tells them, with what we rest on.
func (t Topic) check(cfg Config, settings []kadm.Config) (faults []error) {
	value := map[string]string{}
	for _, c := range settings {
		value[c.Key] = c.MaybeValue()
	}
	number := func(key string) (int64, bool) {
		n, err := strconv.ParseInt(value[key], 10, 64)
		return n, err == nil
	}
	if n, told := number("min.insync.replicas"); told && n < int64(cfg.MinInSync) {
		faults = append(faults, fmt.Errorf("topic %s has min.insync.replicas=%d, kafka.min-in-sync says %d: an acknowledged send could be lost with one broker", t.Name, n, cfg.MinInSync))
	}
	if ms, told := number("retention.ms"); told && ms >= 0 && ms < t.Least.Milliseconds() { // -1 is for ever
		faults = append(faults, fmt.Errorf("topic %s has retention.ms=%d, at least %d (%s) is needed: records must outlast a failure of whoever reads them", t.Name, ms, t.Least.Milliseconds(), t.Least))
	}
	if policy := value["cleanup.policy"]; strings.Contains(policy, "compact") {
		faults = append(faults, fmt.Errorf("topic %s has cleanup.policy=%s: compaction keeps the last record of a key, and a key is a whole conversation; set it to delete", t.Name, policy))
	}
	if n, told := number("max.message.bytes"); told && n < maxRecordBatchBytes {
		faults = append(faults, fmt.Errorf("topic %s has max.message.bytes=%d, at least %d is needed for a full batch", t.Name, n, maxRecordBatchBytes))
	}
	return faults
}

func ptr(s string) *string { return &s }

// Header gives the value of a record's first header of that name, or "".
func Header(r *kgo.Record, key string) string {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

// ParsePlace reads "<partition>:<offset>".
func ParsePlace(s string) (partition int32, offset int64, err error) {
	p, o, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, fmt.Errorf("%.40q is not <partition>:<offset>", s)
	}
	pn, err := strconv.ParseInt(p, 10, 32)
	if err != nil || pn < 0 {
		return 0, 0, fmt.Errorf("%.40q does not begin with a partition", s)
	}
	on, err := strconv.ParseInt(o, 10, 64)
	if err != nil || on < 0 {
		return 0, 0, fmt.Errorf("%.40q does not end in an offset", s)
	}
	return int32(pn), on, nil
}
