package importer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kgo"

	"tideline/internal/kafka"
	"tideline/internal/wire"
	"tideline/pkg/chat"
)

// produceAll produces the group, its members and the lines, as far as they are not acknowledged yet.
func (r *run) produceAll(ctx context.Context) error {
	if err := r.produceGroup(ctx); err != nil {
		return err
	}
	e, err := openExport(r.path)
	if err != nil {
		return err
	}
	defer e.close()
	for e.number < r.cp.Line {
		if _, err := e.next(); err != nil && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("going on behind line %d: %w", e.number, err)
		}
	}
	r.progress.begin("lines", r.cp.Line, r.found.lines)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.gate.pass(ctx); err != nil {
			return err
		}
		next := *r.cp
		commands, err := r.batch(e, &next.Counts)
		if err != nil {
			return err
		}
		if e.number == r.cp.Line {
			return nil
		}
		next.Line, next.Sum, next.Finished = e.number, e.sum(), false
		if err := r.produce(ctx, &next, commands); err != nil {
			return fmt.Errorf("lines %d to %d: %w", r.cp.Line+1, e.number, err)
		}
		r.progress.set(e.number)
		if r.acknowledged != nil {
			r.acknowledged(e.number)
		}
	}
}

// produceGroup produces the group's first event and the joins that are missing. They are dated like the first line, so
// that times in the group never go back.
func (r *run) produceGroup(ctx context.Context) error {
	next := *r.cp
	var commands []*chat.Command
	if !next.Created {
		commands = append(commands, &chat.Command{
			Type: chat.KindCreate, Conversation: r.group, Sender: r.owner, ClientMsgID: createID(r.cfg.Source), OriginalAt: r.found.firstAt,
			Create: &chat.Create{Name: r.cfg.Group, HistoryVisible: r.cfg.HistoryVisible},
		})
		next.Created = true
	}
	for next.Joined < len(r.people) {
		part := r.people[next.Joined:min(next.Joined+chat.MaxMembersPerCommand, len(r.people))]
		commands = append(commands, &chat.Command{
			Type: chat.KindJoin, Conversation: r.group, Sender: r.owner, ClientMsgID: joinID(r.cfg.Source, part), OriginalAt: r.found.firstAt,
			Join: &chat.Join{Users: append([]chat.UserID{}, part...)}, // Validate sorts it
		})
		next.Joined += len(part)
	}
	if len(commands) == 0 {
		return nil
	}
	if err := r.produce(ctx, &next, commands); err != nil {
		return fmt.Errorf("the group and its members: %w", err)
	}
	return nil
}

// batch reads the next lines and gives what they say.
func (r *run) batch(e *export, counts *Counts) ([]*chat.Command, error) {
	commands := make([]*chat.Command, 0, r.cfg.Batch)
	for range r.cfg.Batch {
		l, fate, err := readLine(e, r.cfg)
		switch {
		case errors.Is(err, io.EOF):
			return commands, nil
		case fate == lineFailed:
			return nil, err
		case fate == lineBad && !r.cfg.SkipBad:
			return nil, fmt.Errorf("line %d %w", e.number, err)
		case fate == lineBad:
			counts.Bad++
			continue
		case fate == lineRenamed:
			counts.Renames++
			continue
		case fate == lineNothing:
			continue
		}
		sender, known := r.ids[l.sender]
		if !known {
			return nil, fmt.Errorf("line %d was not there a moment ago: the export changes while it is read", e.number)
		}
		message, err := l.message()
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", e.number, err)
		}
		switch {
		case l.kind == kindAction:
			counts.Actions++
		case l.isEmpty():
			counts.Empty++
		default:
			counts.Messages++
		}
		commands = append(commands, &chat.Command{
			Type: chat.KindMessage, Conversation: r.group, Sender: sender, ClientMsgID: messageID(r.cfg.Source, e.number, l.at), OriginalAt: l.at, Message: message,
		})
	}
	return commands, nil
}

// produce produces commands in order, waits until all are acknowledged, and then notes how far the import is. A stop of
// the import does not cut it off: see connect.
func (r *run) produce(ctx context.Context, next *checkpoint, commands []*chat.Command) error {
	records := make([]*kgo.Record, len(commands))
	key := []byte(r.group.String())
	for i, c := range commands {
		if err := c.Validate(); err != nil {
			return fmt.Errorf("the command %s: %w", c.ClientMsgID, err)
		}
		records[i] = &kgo.Record{
			Topic: kafka.TopicInbound, Key: key, Value: wire.EncodeCommand(c),
			Headers: []kgo.RecordHeader{
				{Key: kafka.HeaderProducer, Value: []byte(producerName)},
				{Key: kafka.HeaderContentType, Value: []byte(wire.ContentTypeProtobuf)},
			},
		}
	}
	if err := r.producer.ProduceSync(context.WithoutCancel(ctx), records...).FirstErr(); err != nil {
		return fmt.Errorf("producing to %s: %w", kafka.TopicInbound, err)
	}
	for _, rec := range records {
		if rec.Partition != next.Partition {
			return fmt.Errorf("the record went to partition %d, the group's is %d", rec.Partition, next.Partition)
		}
		next.Last = max(next.Last, rec.Offset)
	}
	if err := next.save(r.cfg.Checkpoint); err != nil {
		return err
	}
	*r.cp = *next
	return nil
}
