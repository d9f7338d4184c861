package embedded

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// refusal is the authorization error of the protocol for a kind of request.
func refusal(key int16) *kerr.Error {
	switch kmsg.Key(key) {
	case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata, kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.DeleteRecords, kmsg.CreatePartitions,
		kmsg.OffsetForLeaderEpoch, kmsg.DescribeProducers, kmsg.DescribeTopicPartitions:
		return kerr.TopicAuthorizationFailed
	case kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.JoinGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.SyncGroup, kmsg.DescribeGroups, kmsg.ListGroups,
		kmsg.DeleteGroups, kmsg.OffsetDelete, kmsg.ConsumerGroupHeartbeat, kmsg.ConsumerGroupDescribe, kmsg.ShareGroupHeartbeat, kmsg.ShareGroupDescribe,
		kmsg.ShareFetch, kmsg.ShareAcknowledge, kmsg.DescribeShareGroupOffsets, kmsg.AlterShareGroupOffsets, kmsg.DeleteShareGroupOffsets, kmsg.FindCoordinator:
		return kerr.GroupAuthorizationFailed
	case kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit, kmsg.DescribeTransactions, kmsg.ListTransactions:
		return kerr.TransactionalIDAuthorizationFailed
	default:
		return kerr.ClusterAuthorizationFailed
	}
}

// mirrored are the lists of responses that have another name in their requests.
var mirrored = map[kmsg.Key]map[string][]string{
	kmsg.CreateACLs:                {"Results": {"Creations"}},
	kmsg.DeleteACLs:                {"Results": {"Filters"}},
	kmsg.AlterUserSCRAMCredentials: {"Results": {"Deletions", "Upsertions"}},
	kmsg.DescribeTransactions:      {"TransactionStates": {"TransactionalIDs"}},
	kmsg.DeleteTopics:              {"Topics": {"Topics", "TopicNames"}},
	kmsg.ShareGroupDescribe:        {"Groups": {"GroupIDs"}},
	kmsg.FindCoordinator:           {"Coordinators": {"CoordinatorKeys"}},
}

// refuse returns the response that refuses a request as a whole: each error code of it is set, and each thing that was asked
// for has its entry, as a broker answers.
func refuse(req kmsg.Request, code *kerr.Error) kmsg.Response {
	resp := req.ResponseKind()
	if d, ok := req.(*kmsg.AlterReplicaLogDirsRequest); ok {
		topics := resp.(*kmsg.AlterReplicaLogDirsResponse)
		for _, dir := range d.Dirs {
			for _, t := range dir.Topics {
				rt := kmsg.NewAlterReplicaLogDirsResponseTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rp := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
					rp.Partition, rp.ErrorCode = p, code.Code
					rt.Partitions = append(rt.Partitions, rp)
				}
				topics.Topics = append(topics.Topics, rt)
			}
		}
		return resp
	}
	mirror(reflect.ValueOf(resp).Elem(), reflect.ValueOf(req).Elem(), code.Code, mirrored[kmsg.Key(req.Key())])
	return resp
}

// mirror copies what request and response share by name, and sets the error codes.
func mirror(resp, req reflect.Value, code int16, names map[string][]string) {
	for i := range resp.NumField() {
		field, name := resp.Field(i), resp.Type().Field(i).Name
		asked := req.FieldByName(name)
		switch {
		case name == "Version" || name == "UnknownTags" || name == "ThrottleMillis":
		case name == "ErrorCode" && field.Kind() == reflect.Int16:
			field.SetInt(int64(code))
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			from := names[name]
			if from == nil {
				from = []string{name}
			}
			for _, n := range from {
				mirrorList(field, req.FieldByName(n), code)
			}
		case asked.IsValid() && asked.Type() == field.Type():
			field.Set(asked)
		}
	}
}

func mirrorList(resp, req reflect.Value, code int16) {
	if !req.IsValid() || req.Kind() != reflect.Slice {
		return
	}
	for i := range req.Len() {
		one := reflect.New(resp.Type().Elem())
		if d, ok := one.Interface().(interface{ Default() }); ok {
			d.Default()
		}
		asked := req.Index(i)
		if asked.Kind() == reflect.Struct {
			mirror(one.Elem(), asked, code, nil)
		} else {
			setFirst(one.Elem(), asked, code)
		}
		resp.Set(reflect.Append(resp, one.Elem()))
	}
}

// setFirst fills an entry of which the request has no more than its name or number.
func setFirst(entry, name reflect.Value, code int16) {
	named := false
	for i := range entry.NumField() {
		switch f := entry.Field(i); {
		case entry.Type().Field(i).Name == "ErrorCode":
			f.SetInt(int64(code))
		case !named && f.Type() == reflect.PointerTo(name.Type()):
			f.Set(reflect.New(name.Type()))
			f.Elem().Set(name)
			named = true
		case !named && f.Type() == name.Type():
			f.Set(name)
			named = true
		}
	}
}
