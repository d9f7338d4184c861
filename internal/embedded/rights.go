package embedded

import (
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tideline/internal/kafka"
)

// What those may use that do not know the secret: the contract's public topics, and names of groups that are not ours.
var (
	readable    = []string{kafka.TopicMessages, kafka.TopicRejected, kafka.TopicReceipts}
	writable    = []string{kafka.TopicInbound}
	describable = append(slices.Clone(readable), writable...)
)

// ourGroups is what the names of our own consumer groups begin with.
const ourGroups = "tideline-"

func ours(group string) bool { return strings.HasPrefix(group, ourGroups) }

// directory is what the guard has learned from the broker's answers. It is safe for concurrent use.
type directory struct {
	mu        sync.Mutex
	topics    map[[16]byte]string
	producers map[int64]bool // ids of our own producers
	groups    map[string]bool
}

func (d *directory) topic(id [16]byte) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.topics[id]
	return name, ok
}

func (d *directory) isOurs(producer int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.producers[producer]
}

// learn notes the ids of topics, and of our own producers.
func (d *directory) learn(resp kmsg.Response, own bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for _, t := range r.Topics {
			if t.Topic != nil && t.TopicID != [16]byte{} && t.ErrorCode == 0 {
				d.topics[t.TopicID] = *t.Topic
			}
		}
	case *kmsg.InitProducerIDResponse:
		if own && r.ErrorCode == 0 {
			d.producers[r.ProducerID] = true
		}
	}
}

// may returns the error code for a topic that a request names, by id where it has one, or 0 where it is among the allowed.
// An id that no answer has named is unknown: its reader asks for metadata and comes again.
func (d *directory) may(allowed []string, name string, id [16]byte) int16 {
	if id != [16]byte{} {
		known, ok := d.topic(id)
		if !ok {
			return kerr.UnknownTopicID.Code
		}
		name = known
	}
	if slices.Contains(allowed, name) {
		return 0
	}
	return kerr.TopicAuthorizationFailed.Code
}

// ruling is what becomes of a request of a stranger. An answer is sent in place of the broker's; otherwise the request goes
// on, encoded again where it was changed, and after completes the broker's answer with what was taken out.
type ruling struct {
	answer  kmsg.Response
	changed bool
	after   func(kmsg.Response)
}

func refused(req kmsg.Request, code *kerr.Error) ruling { return ruling{answer: refuse(req, code)} }

// take keeps the elements that are allowed and calls out for the others. It reports whether some were taken out.
func take[T any](list *[]T, judge func(*T) int16, out func(T, int16)) bool {
	kept := make([]T, 0, len(*list)) // never nil: a list that is null often means all
	for _, v := range *list {
		if code := judge(&v); code != 0 {
			out(v, code)
			continue
		}
		kept = append(kept, v)
	}
	taken := len(kept) < len(*list)
	if taken {
		*list = kept
	}
	return taken
}

// judge decides what a stranger's request may do. The list of what is allowed is short, and everything else is refused.
func (d *directory) judge(request kmsg.Request) ruling {
	no := refusal(request.Key())
	var missing []func(kmsg.Response)
	add := func(f func(kmsg.Response)) { missing = append(missing, f) }
	after := func(resp kmsg.Response) {
		for _, f := range missing {
			f(resp)
		}
	}
	// rest is the ruling for a list of which some elements were taken out: without the others there is nothing to ask.
	rest := func(left int) ruling {
		if left == 0 && len(missing) > 0 {
			resp := request.ResponseKind()
			after(resp)
			return ruling{answer: resp}
		}
		return ruling{changed: len(missing) > 0, after: after}
	}
	switch req := request.(type) {
	case *kmsg.MetadataRequest:
		return d.metadata(req)
	case *kmsg.DescribeConfigsRequest:
		take(&req.Resources, func(r *kmsg.DescribeConfigsRequestResource) int16 {
			switch r.ResourceType {
			case kmsg.ConfigResourceTypeTopic:
				return d.may(describable, r.ResourceName, [16]byte{})
			case kmsg.ConfigResourceTypeBroker:
				return 0
			default:
				return kerr.ClusterAuthorizationFailed.Code
			}
		}, func(r kmsg.DescribeConfigsRequestResource, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewDescribeConfigsResponseResource()
				one.ResourceType, one.ResourceName, one.ErrorCode = r.ResourceType, r.ResourceName, code
				to := resp.(*kmsg.DescribeConfigsResponse)
				to.Resources = append(to.Resources, one)
			})
		})
		return rest(len(req.Resources))
	case *kmsg.FindCoordinatorRequest:
		if req.CoordinatorType == 1 {
			return refused(req, kerr.TransactionalIDAuthorizationFailed)
		}
		if req.CoordinatorType != 0 || req.Version < 4 && ours(req.CoordinatorKey) {
			return refused(req, no)
		}
		if req.Version < 4 {
			return ruling{}
		}
		take(&req.CoordinatorKeys, groupCode, func(name string, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewFindCoordinatorResponseCoordinator()
				one.Key, one.ErrorCode, one.NodeID, one.Port = name, code, -1, -1
				to := resp.(*kmsg.FindCoordinatorResponse)
				to.Coordinators = append(to.Coordinators, one)
			})
		})
		return rest(len(req.CoordinatorKeys))
	case *kmsg.InitProducerIDRequest:
		if req.TransactionalID != nil {
			return refused(req, no)
		}
		// A producer without transactions always gets a new id: it cannot name another one's and raise its epoch.
		changed := req.ProducerID != -1 || req.ProducerEpoch != -1
		req.ProducerID, req.ProducerEpoch = -1, -1
		return ruling{changed: changed}
	case *kmsg.FetchRequest:
		return d.fetch(req)
	case *kmsg.ListOffsetsRequest:
		if req.ReplicaID >= 0 {
			return refused(req, no)
		}
		take(&req.Topics, func(t *kmsg.ListOffsetsRequestTopic) int16 { return d.may(describable, t.Topic, [16]byte{}) },
			func(t kmsg.ListOffsetsRequestTopic, code int16) { add(appendRefused(t, code)) })
		return rest(len(req.Topics))
	case *kmsg.OffsetForLeaderEpochRequest:
		take(&req.Topics, func(t *kmsg.OffsetForLeaderEpochRequestTopic) int16 { return d.may(describable, t.Topic, [16]byte{}) },
			func(t kmsg.OffsetForLeaderEpochRequestTopic, code int16) { add(appendRefused(t, code)) })
		return rest(len(req.Topics))
	case *kmsg.OffsetCommitRequest:
		if ours(req.Group) {
			return refused(req, no)
		}
		if !d.group(req.Group) {
			return refused(req, kerr.GroupMaxSizeReached)
		}
		take(&req.Topics, func(t *kmsg.OffsetCommitRequestTopic) int16 {
			for _, p := range t.Partitions {
				if p.Metadata != nil && len(*p.Metadata) > maxOffsetMetadata {
					return kerr.OffsetMetadataTooLarge.Code
				}
			}
			return d.may(describable, t.Topic, t.TopicID)
		}, func(t kmsg.OffsetCommitRequestTopic, code int16) { add(appendRefused(t, code)) })
		return rest(len(req.Topics))
	case *kmsg.OffsetFetchRequest:
		if req.Version < 8 {
			return group(req, req.Group)
		}
		take(&req.Groups, func(g *kmsg.OffsetFetchRequestGroup) int16 { return groupCode(&g.Group) }, func(g kmsg.OffsetFetchRequestGroup, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewOffsetFetchResponseGroup()
				one.Group, one.ErrorCode = g.Group, code
				to := resp.(*kmsg.OffsetFetchResponse)
				to.Groups = append(to.Groups, one)
			})
		})
		return rest(len(req.Groups))
	case *kmsg.DescribeGroupsRequest:
		take(&req.Groups, groupCode, func(name string, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewDescribeGroupsResponseGroup()
				one.Group, one.ErrorCode = name, code
				to := resp.(*kmsg.DescribeGroupsResponse)
				to.Groups = append(to.Groups, one)
			})
		})
		return rest(len(req.Groups))
	case *kmsg.DeleteGroupsRequest:
		take(&req.Groups, groupCode, func(name string, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewDeleteGroupsResponseGroup()
				one.Group, one.ErrorCode = name, code
				to := resp.(*kmsg.DeleteGroupsResponse)
				to.Groups = append(to.Groups, one)
			})
		})
		return rest(len(req.Groups))
	case *kmsg.ConsumerGroupDescribeRequest:
		take(&req.Groups, groupCode, func(name string, code int16) {
			add(func(resp kmsg.Response) {
				one := kmsg.NewConsumerGroupDescribeResponseGroup()
				one.Group, one.ErrorCode = name, code
				to := resp.(*kmsg.ConsumerGroupDescribeResponse)
				to.Groups = append(to.Groups, one)
			})
		})
		return rest(len(req.Groups))
	case *kmsg.ListGroupsRequest:
		return ruling{after: func(resp kmsg.Response) {
			to := resp.(*kmsg.ListGroupsResponse)
			to.Groups = slices.DeleteFunc(to.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return ours(g.Group) })
		}}
	case *kmsg.JoinGroupRequest:
		size := 0
		for _, p := range req.Protocols {
			size += len(p.Name) + len(p.Metadata)
		}
		if size > maxGroupMetadata {
			return refused(req, kerr.InvalidRequest)
		}
		return d.joined(req, req.Group)
	case *kmsg.HeartbeatRequest:
		return group(req, req.Group)
	case *kmsg.LeaveGroupRequest:
		return group(req, req.Group)
	case *kmsg.SyncGroupRequest:
		size := 0
		for _, a := range req.GroupAssignment {
			size += len(a.MemberID) + len(a.MemberAssignment)
		}
		if size > maxGroupMetadata {
			return refused(req, kerr.InvalidRequest)
		}
		return group(req, req.Group)
	case *kmsg.OffsetDeleteRequest:
		return group(req, req.Group)
	case *kmsg.ConsumerGroupHeartbeatRequest:
		for _, t := range req.SubscribedTopicNames {
			if d.may(describable, t, [16]byte{}) != 0 {
				return refused(req, kerr.TopicAuthorizationFailed)
			}
		}
		return d.joined(req, req.Group)
	}
	return refused(request, no)
}

func groupCode(name *string) int16 {
	if ours(*name) {
		return kerr.GroupAuthorizationFailed.Code
	}
	return 0
}

// Limits of what the broker keeps of strangers' groups: in memory, and for offsets also in its log.
const (
	// maxGroups bounds the names of groups that strangers use from one start to the next. A backend has one.
	maxGroups = 1000
	// maxGroupName is in bytes. Names of topics may have 249.
	maxGroupName = 255
	// maxOffsetMetadata is the default of brokers, in bytes.
	maxOffsetMetadata = 4096
	// maxGroupMetadata bounds what a member says of itself, and what a leader assigns, in bytes.
	maxGroupMetadata = 64 << 10
)

// group notes the name of a stranger's group. It reports false where there are too many.
func (d *directory) group(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.groups[name] {
		return true
	}
	if len(name) > maxGroupName || len(d.groups) >= maxGroups {
		return false
	}
	d.groups[name] = true
	return true
}

// joined is group for requests that make one.
func (d *directory) joined(req kmsg.Request, name string) ruling {
	if r := group(req, name); r.answer != nil {
		return r
	}
	if !d.group(name) {
		return refused(req, kerr.GroupMaxSizeReached)
	}
	return ruling{}
}

func group(req kmsg.Request, name string) ruling {
	if ours(name) {
		return refused(req, kerr.GroupAuthorizationFailed)
	}
	return ruling{}
}

// appendRefused returns what adds a topic, with each of its partitions refused, to the answer of its kind.
func appendRefused(topic any, code int16) func(kmsg.Response) {
	return func(resp kmsg.Response) {
		switch to := resp.(type) {
		case *kmsg.ListOffsetsResponse:
			t := topic.(kmsg.ListOffsetsRequestTopic)
			one := kmsg.NewListOffsetsResponseTopic()
			one.Topic = t.Topic
			for _, p := range t.Partitions {
				op := kmsg.NewListOffsetsResponseTopicPartition()
				op.Partition, op.ErrorCode = p.Partition, code
				one.Partitions = append(one.Partitions, op)
			}
			to.Topics = append(to.Topics, one)
		case *kmsg.OffsetForLeaderEpochResponse:
			t := topic.(kmsg.OffsetForLeaderEpochRequestTopic)
			one := kmsg.NewOffsetForLeaderEpochResponseTopic()
			one.Topic = t.Topic
			for _, p := range t.Partitions {
				op := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				op.Partition, op.ErrorCode = p.Partition, code
				one.Partitions = append(one.Partitions, op)
			}
			to.Topics = append(to.Topics, one)
		case *kmsg.OffsetCommitResponse:
			t := topic.(kmsg.OffsetCommitRequestTopic)
			one := kmsg.NewOffsetCommitResponseTopic()
			one.Topic, one.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				op := kmsg.NewOffsetCommitResponseTopicPartition()
				op.Partition, op.ErrorCode = p.Partition, code
				one.Partitions = append(one.Partitions, op)
			}
			to.Topics = append(to.Topics, one)
		case *kmsg.FetchResponse:
			t := topic.(kmsg.FetchRequestTopic)
			one := kmsg.NewFetchResponseTopic()
			one.Topic, one.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				op := kmsg.NewFetchResponseTopicPartition()
				op.Partition, op.ErrorCode, op.HighWatermark = p.Partition, code, -1
				one.Partitions = append(one.Partitions, op)
			}
			to.Topics = append(to.Topics, one)
		case *kmsg.ProduceResponse:
			t := topic.(kmsg.ProduceRequestTopic)
			at := slices.IndexFunc(to.Topics, func(r kmsg.ProduceResponseTopic) bool { return r.Topic == t.Topic && r.TopicID == t.TopicID })
			if at < 0 {
				one := kmsg.NewProduceResponseTopic()
				one.Topic, one.TopicID = t.Topic, t.TopicID
				to.Topics = append(to.Topics, one)
				at = len(to.Topics) - 1
			}
			for _, p := range t.Partitions {
				op := kmsg.NewProduceResponseTopicPartition()
				op.Partition, op.ErrorCode, op.BaseOffset = p.Partition, code, -1
				to.Topics[at].Partitions = append(to.Topics[at].Partitions, op)
			}
		}
	}
}

// metadata lets a stranger see what it may describe. A topic that is not there is refused as one that is and is not public.
func (d *directory) metadata(req *kmsg.MetadataRequest) ruling {
	r := ruling{changed: req.AllowAutoTopicCreation}
	req.AllowAutoTopicCreation = false
	var denied []kmsg.MetadataResponseTopic
	if req.Topics != nil {
		all := len(req.Topics) == 0 && req.Version == 0
		if take(&req.Topics, func(t *kmsg.MetadataRequestTopic) int16 {
			name := ""
			if t.Topic != nil {
				name = *t.Topic
			}
			return d.may(describable, name, t.TopicID)
		}, func(t kmsg.MetadataRequestTopic, code int16) {
			one := kmsg.NewMetadataResponseTopic()
			one.Topic, one.TopicID, one.ErrorCode = t.Topic, t.TopicID, code
			if one.Topic == nil && req.Version < 12 {
				one.Topic = kmsg.StringPtr("")
			}
			denied = append(denied, one)
		}) {
			r.changed = true
		}
		if len(req.Topics) == 0 && req.Version == 0 && !all { // here an empty list asks for all
			hidden := kmsg.NewMetadataRequestTopic()
			hidden.Topic = kmsg.StringPtr(kafka.TopicInbound)
			req.Topics = append(req.Topics, hidden)
			r.after = func(resp kmsg.Response) { resp.(*kmsg.MetadataResponse).Topics = denied }
			return r
		}
	}
	r.after = func(resp kmsg.Response) {
		to := resp.(*kmsg.MetadataResponse)
		to.Topics = slices.DeleteFunc(to.Topics, func(t kmsg.MetadataResponseTopic) bool {
			return t.Topic == nil || !slices.Contains(describable, *t.Topic)
		})
		to.Topics = append(to.Topics, denied...)
	}
	return r
}

// fetch lets a stranger read the public topics, without a session: the numbers of sessions can be guessed, and those of our
// own connections are among them. A client that gets no session asks in full each time.
func (d *directory) fetch(req *kmsg.FetchRequest) ruling {
	if req.ReplicaID >= 0 || req.ReplicaState.ID >= 0 {
		return refused(req, kerr.ClusterAuthorizationFailed)
	}
	if req.SessionID != 0 {
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return ruling{answer: resp}
	}
	req.SessionEpoch, req.ForgottenTopics = -1, nil
	var denied []func(kmsg.Response)
	take(&req.Topics, func(t *kmsg.FetchRequestTopic) int16 { return d.may(readable, t.Topic, t.TopicID) },
		func(t kmsg.FetchRequestTopic, code int16) { denied = append(denied, appendRefused(t, code)) })
	after := func(resp kmsg.Response) {
		for _, f := range denied {
			f(resp)
		}
	}
	if len(denied) > 0 && len(req.Topics) == 0 {
		resp := req.ResponseKind()
		after(resp)
		return ruling{answer: resp}
	}
	if len(denied) > 0 { // a refusal does not wait for records
		req.MaxWaitMillis = 0
		return ruling{changed: true, after: after}
	}
	return ruling{changed: req.Version >= 7}
}
