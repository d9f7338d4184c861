package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tideline/internal/kafka/kafkatest"
)

func unpacker(t testing.TB) *Unpacker {
	t.Helper()
	u, err := NewUnpacker(MaxUnpackedBytes)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestBatch_TakesWhatEveryCodecPacked(t *testing.T) {
	values := [][]byte{nil, {}, []byte("hello"), bytes.Repeat([]byte("x"), 3<<20)}
	for name, codec := range kafkatest.Codecs {
		if _, fault := unpacker(t).Batch(kafkatest.Batch(codec, int32(len(values)), kafkatest.Pack(t, codec, kafkatest.Records(values...)))); fault != nil {
			t.Errorf("%s: %v", name, fault)
		}
	}
}

func TestBatch_RefusesWhatABrokerRefuses(t *testing.T) {
	for _, bad := range append(kafkatest.BadBatches(t), kafkatest.BadHeaders()...) {
		if _, fault := unpacker(t).Batch(bad.Raw); fault == nil || fault.Code != bad.Code {
			t.Errorf("%s: %v, want %v", bad.Name, fault, bad.Code)
		}
	}
}

// What the judge takes has as many records as it says, and is read by the client as such; it never panics.
func FuzzBatch(f *testing.F) {
	for _, bad := range kafkatest.BadBatches(f) {
		if len(bad.Raw) < 1<<12 {
			f.Add(bad.Raw)
		}
	}
	f.Add(kafkatest.Batch(kgo.CodecNone, 1, kafkatest.Records([]byte("a"))))
	u := unpacker(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > batchOverhead {
			kafkatest.Seal(raw)
		}
		b, fault := u.Batch(raw)
		if fault != nil || b.Attributes&batchControl != 0 {
			return
		}
		got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: b.FirstOffset}, &kmsg.FetchResponseTopicPartition{RecordBatches: raw}, u, nil)
		if b.FirstOffset >= 0 && b.FirstOffset < 1<<60 && (got.Err != nil || len(got.Records) != int(b.NumRecords)) {
			t.Fatalf("%d records of %d: %v", len(got.Records), b.NumRecords, got.Err)
		}
	})
}

// produceRaw sends a batch as it is.
func produceRaw(ctx context.Context, cfg Config, topic string, partition int32, raw []byte) (int64, error) {
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	return kafkatest.Produce(ctx, cl, topic, partition, raw)
}

// pollAll reads until an offset and returns what each record of Poll stands for.
func pollAll(t *testing.T, p *Partition, end int64) (places []string) {
	t.Helper()
	for p.Next() < end {
		records, err := p.Poll(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if d := DamageOf(r); d != nil {
				places = append(places, fmt.Sprintf("%d-%d", d.First, d.Last))
			} else {
				places = append(places, fmt.Sprint(r.Offset))
			}
		}
	}
	return places
}

// Each offset is read once or stepped over once, whatever is wrong with the batch in the middle, and an owner that must not
// step over stops with the place.
func TestPartition_StepsOverWhatCannotBeRead(t *testing.T) {
	for _, bad := range kafkatest.BadBatches(t) {
		if bad.Unseen {
			continue
		}
		t.Run(bad.Name, func(t *testing.T) {
			t.Parallel()
			cfg := broker(t)
			write(t, cfg, 0, 2)
			if _, err := produceRaw(t.Context(), cfg, TopicInbound, 0, bad.Raw); err != nil {
				t.Fatal(err)
			}
			write(t, cfg, 0, 1)
			p := open(t, cfg, 0)
			p.StepOver = true
			if err := p.Start(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			end := 3 + bad.Offsets
			places := pollAll(t, p, end)
			seen := map[int64]int{}
			damaged := 0
			for _, at := range places {
				var from, to int64
				if n, _ := fmt.Sscanf(at, "%d-%d", &from, &to); n == 1 {
					to = from
				} else {
					damaged++
				}
				for o := from; o <= to; o++ {
					seen[o]++
				}
			}
			for o := range end {
				if seen[o] != 1 {
					t.Errorf("offset %d came %d times: %v", o, seen[o], places)
				}
			}
			if damaged != 1 {
				t.Errorf("%d stretches were stepped over: %v", damaged, places)
			}
			if _, err := ReadToEnd(t.Context(), cfg, "tests", quiet, TopicInbound, 0, 0, func(*kgo.Record) error { return nil }); !errors.Is(err, ErrDamaged) {
				t.Errorf("reading to the end: %v", err)
			}
			if got, err := ReadOverDamage(t.Context(), cfg, "tests", quiet, TopicInbound, 0, 0, func(*kgo.Record) error { return nil }); err != nil || got != end {
				t.Errorf("reading over damage: %d, %v", got, err)
			}
		})
	}
}

// What unpacks to too much costs no memory of its size, and what fits costs little more than it unpacks to.
func TestUnpacker_TakesNoMemoryForWhatItRefuses(t *testing.T) {
	large := kafkatest.Records(make([]byte, 15<<20))
	for name, codec := range kafkatest.Codecs {
		if codec == kgo.CodecNone {
			continue
		}
		t.Run(name, func(t *testing.T) {
			u := unpacker(t)
			allocated := func(raw []byte, want error) int64 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if _, err := u.Decompress(raw, codec); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				runtime.ReadMemStats(&after)
				return int64(after.TotalAlloc-before.TotalAlloc) >> 20
			}
			bomb := kafkatest.Pack(t, codec, kafkatest.Records(make([]byte, 100<<20)))
			// All that was allocated, collected or not; the pools of codecs forget buffers under the race detector.
			const most = 48
			if mib := allocated(bomb, kgo.ErrMaxDecompress); mib > most {
				t.Errorf("%d bytes that unpack to 100 MiB took %d MiB", len(bomb), mib)
			}
			if mib := allocated(kafkatest.Pack(t, codec, large), nil); mib > most {
				t.Errorf("what unpacks to 15 MiB took %d MiB", mib)
			}
		})
	}
}

// Hundreds of batches that each unpack to less than the bound come in one fetch.
func TestPartition_ManyLargeBatchesTakeBoundedMemory(t *testing.T) {
	cfg := broker(t)
	value := make([]byte, 15<<20)
	raw := kafkatest.Batch(kgo.CodecGzip, 1, kafkatest.Pack(t, kgo.CodecGzip, kafkatest.Records(value)))
	const n = 40
	for range n {
		if _, err := produceRaw(t.Context(), cfg, TopicInbound, 0, raw); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, cfg, 0)
	if err := p.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	var most uint64
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for p.Next() < n {
		if _, err := p.Poll(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc)
	}
	if grown := int64(most) - int64(before.HeapAlloc); grown > 128<<20 {
		t.Errorf("what is held grew by %d MiB", grown>>20)
	}
}
