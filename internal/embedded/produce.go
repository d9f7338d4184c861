package embedded

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produce judges a request that produces.
func (c *guardedConn) produce(frame, header, body []byte, corr int32, req *kmsg.ProduceRequest, p passed) (bool, error) {
	if err := req.ReadFrom(body); err != nil {
		return false, errRefused
	}
	var missing []func(kmsg.Response)
	if req.TransactionID != nil && !c.own {
		if req.Acks == 0 {
			return false, errRefused
		}
		return false, c.answer(corr, refuse(req, kerr.TransactionalIDAuthorizationFailed))
	}
	if !c.own {
		take(&req.Topics, func(t *kmsg.ProduceRequestTopic) int16 { return c.g.dir.may(writable, t.Topic, t.TopicID) },
			func(t kmsg.ProduceRequestTopic, code int16) { missing = append(missing, appendRefused(t, code)) })
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		refused := *t
		take(&t.Partitions, func(p *kmsg.ProduceRequestTopicPartition) int16 {
			code, why := c.judgeBatch(p.Records)
			if code == nil {
				return 0
			}
			c.g.log.Debug("a batch was refused", "topic", t.Topic, "partition", p.Partition, "err", why)
			return code.Code
		}, func(p kmsg.ProduceRequestTopicPartition, code int16) {
			refused.Partitions = []kmsg.ProduceRequestTopicPartition{p}
			missing = append(missing, appendRefused(refused, code))
		})
	}
	if len(missing) > 0 {
		if req.Acks == 0 { // there is no answer that could say so: a broker closes the connection
			return false, errRefused
		}
		left := 0
		for _, t := range req.Topics {
			left += len(t.Partitions)
		}
		after := func(resp kmsg.Response) {
			for _, f := range missing {
				f(resp)
			}
		}
		if left == 0 {
			resp := req.ResponseKind()
			after(resp)
			return false, c.answer(corr, resp)
		}
		p.after = after
		frame = again(header, req)
	}
	if req.Acks == 0 { // nothing is written for it
		c.buf = frame
		return false, nil
	}
	return true, c.pass(frame, p)
}

// judgeBatch returns why a batch is not taken, or nil. Batches of our own connections are judged alike: a fault of ours must
// not reach the log either.
func (c *guardedConn) judgeBatch(raw []byte) (*kerr.Error, string) {
	const transactional = 0x10
	b, fault := c.g.unpacker.Batch(raw)
	switch {
	case fault != nil:
		return fault.Code, fault.Why
	case b.Attributes&0x20 != 0:
		return kerr.InvalidRecord, "clients send no markers"
	case b.FirstOffset != 0 || b.LastOffsetDelta != b.NumRecords-1:
		return kerr.InvalidRecord, "the offsets of the batch are not those of its records"
	case c.own:
		return nil, ""
	case b.Attributes&transactional != 0:
		return kerr.TransactionalIDAuthorizationFailed, "transactions are not for others"
	case b.ProducerID >= 0 && c.g.dir.isOurs(b.ProducerID):
		return kerr.ClusterAuthorizationFailed, "the producer's id is one of ours"
	}
	return nil, ""
}
