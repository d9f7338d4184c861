package kafka

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rawRecords encodes records with these values.
func rawRecords(values ...[]byte) (out []byte) {
	for i, v := range values {
		one := kbin.AppendInt8(nil, 0)
		one = kbin.AppendVarint(kbin.AppendVarint(one, 0), int32(i))
		one = kbin.AppendVarintBytes(kbin.AppendVarintBytes(one, nil), v)
		one = kbin.AppendVarint(one, 0)
		out = append(kbin.AppendVarint(out, int32(len(one))), one...)
	}
	return out
}

// rawBatch encodes a batch as it says and not as it is.
func rawBatch(codec kgo.CompressionCodecType, count int32, records []byte) []byte {
	b := kmsg.RecordBatch{
		Magic: 2, PartitionLeaderEpoch: -1, Attributes: int16(codec), LastOffsetDelta: count - 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: count, Records: records, Length: int32(batchOverhead - batchPrefix + len(records)),
	}
	return sealed(b.AppendTo(nil))
}

// sealed corrects the checksum of a batch.
func sealed(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[batchCRCAt:], castagnoli))
	return raw
}

// pack packs bytes with a codec.
func pack(t testing.TB, codec kgo.CompressionCodecType, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var err error
	switch codec {
	case kgo.CodecNone:
		return in
	case kgo.CodecGzip:
		w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
		_, err = w.Write(in)
		err = errors.Join(err, w.Close())
	case kgo.CodecSnappy:
		return s2.EncodeSnappyBest(nil, in)
	case kgo.CodecLz4:
		w := lz4.NewWriter(&out)
		_, err = w.Write(in)
		err = errors.Join(err, w.Close())
	case kgo.CodecZstd:
		w, _ := zstd.NewWriter(&out)
		_, err = w.Write(in)
		err = errors.Join(err, w.Close())
	default:
		t.Fatalf("codec %d", codec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var codecs = map[string]kgo.CompressionCodecType{"none": kgo.CodecNone, "gzip": kgo.CodecGzip, "snappy": kgo.CodecSnappy, "lz4": kgo.CodecLz4, "zstd": kgo.CodecZstd}

// badBatch is a batch that no broker may take, or that a reader of ours cannot unpack, of three offsets.
type badBatch struct {
	name string
	raw  []byte
	code *kerr.Error
	// unseen batches have all that they say and more: they cannot be told from good ones by their offsets.
	unseen bool
}

func badBatches(t testing.TB) (bad []badBatch) {
	t.Helper()
	three := rawRecords([]byte("a"), []byte("b"), []byte("c"))
	add := func(name string, code *kerr.Error, unseen bool, raw []byte) {
		bad = append(bad, badBatch{name, raw, code, unseen})
	}
	for name, codec := range codecs {
		add(name+" fewer records than it says", kerr.InvalidRecord, false, rawBatch(codec, 3, pack(t, codec, rawRecords([]byte("a")))))
		add(name+" no records", kerr.InvalidRecord, false, rawBatch(codec, 3, pack(t, codec, nil)))
		add(name+" cut record", kerr.InvalidRecord, false, rawBatch(codec, 3, pack(t, codec, three[:len(three)-2])))
		add(name+" cut first record", kerr.InvalidRecord, false, rawBatch(codec, 3, pack(t, codec, three[:3])))
		add(name+" record longer than it says", kerr.InvalidRecord, true, rawBatch(codec, 3, pack(t, codec, append(bytes.Clone(three), 1, 2, 3))))
		if codec == kgo.CodecNone {
			continue
		}
		add(name+" plain records with the bit set", kerr.InvalidRecord, false, rawBatch(codec, 3, three))
		packed := pack(t, codec, three)
		add(name+" cut", kerr.InvalidRecord, false, rawBatch(codec, 3, packed[:len(packed)/2]))
		zeros := make([]byte, 40<<20)
		bomb := pack(t, codec, rawRecords([]byte("a"), []byte("b"), zeros))
		if len(bomb) < 1<<20 { // of snappy it is larger than brokers take
			add(name+" bomb", kerr.MessageTooLarge, false, rawBatch(codec, 3, bomb))
		}
	}
	tiny := bytes.Repeat(rawRecords(nil), 2*MaxBatchRecords)
	add("many tiny records", kerr.MessageTooLarge, false, rawBatch(kgo.CodecGzip, 3, pack(t, kgo.CodecGzip, tiny)))
	return bad
}

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
	for name, codec := range codecs {
		if _, fault := unpacker(t).Batch(rawBatch(codec, int32(len(values)), pack(t, codec, rawRecords(values...)))); fault != nil {
			t.Errorf("%s: %v", name, fault)
		}
	}
}

func TestBatch_RefusesWhatABrokerRefuses(t *testing.T) {
	for _, bad := range badBatches(t) {
		if _, fault := unpacker(t).Batch(bad.raw); fault == nil || fault.Code != bad.code {
			t.Errorf("%s: %v, want %v", bad.name, fault, bad.code)
		}
	}
	good := rawBatch(kgo.CodecNone, 1, rawRecords([]byte("a")))
	wrong := func(name string, code *kerr.Error, change func([]byte) []byte) {
		if _, fault := unpacker(t).Batch(change(bytes.Clone(good))); fault == nil || fault.Code != code {
			t.Errorf("%s: %v, want %v", name, fault, code)
		}
	}
	wrong("checksum", kerr.CorruptMessage, func(b []byte) []byte { b[len(b)-1]++; return b })
	wrong("older format", kerr.InvalidRecord, func(b []byte) []byte { b[batchMagicAt] = 1; return b })
	wrong("unknown codec", kerr.UnsupportedCompressionType, func(b []byte) []byte { b[22] = 5; return sealed(b) })
	wrong("two batches", kerr.InvalidRecord, func(b []byte) []byte { return append(b, b...) })
	wrong("short", kerr.CorruptMessage, func(b []byte) []byte { return b[:batchOverhead-1] })
	wrong("negative count", kerr.InvalidRecord, func(b []byte) []byte { binary.BigEndian.PutUint32(b[57:], 1<<31); return sealed(b) })
	wrong("offset of another place", kerr.InvalidRecord, func(b []byte) []byte { b[batchOverhead+3] = 2; return sealed(b) })
}

// What the judge takes has as many records as it says, and is read by the client as such; it never panics.
func FuzzBatch(f *testing.F) {
	for _, bad := range badBatches(f) {
		if len(bad.raw) < 1<<12 {
			f.Add(bad.raw)
		}
	}
	f.Add(rawBatch(kgo.CodecNone, 1, rawRecords([]byte("a"))))
	u := unpacker(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > batchOverhead {
			sealed(raw)
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

// produceRaw puts a batch into a partition as it is, and returns its first offset.
func produceRaw(ctx context.Context, cfg Config, topic string, partition int32, raw []byte) (int64, error) {
	cl, err := cfg.NewAdmin("tests", quiet)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, raw
	rt.Topic = topic
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, mt)
	about, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	req.Topics[0].TopicID = about.Topics[0].TopicID
	answer, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	p := answer.Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
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
	for _, bad := range badBatches(t) {
		if bad.unseen {
			continue
		}
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			cfg := broker(t)
			write(t, cfg, 0, 2)
			if _, err := produceRaw(t.Context(), cfg, TopicInbound, 0, bad.raw); err != nil {
				t.Fatal(err)
			}
			write(t, cfg, 0, 1)
			p := open(t, cfg, 0)
			p.StepOver = true
			if err := p.Start(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			places := pollAll(t, p, 6)
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
			for o := range int64(6) {
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
			if end, err := ReadOverDamage(t.Context(), cfg, "tests", quiet, TopicInbound, 0, 0, func(*kgo.Record) error { return nil }); err != nil || end != 6 {
				t.Errorf("reading over damage: %d, %v", end, err)
			}
		})
	}
}

// Hundreds of batches that each unpack to less than the bound come in one fetch.
func TestPartition_ManyLargeBatchesTakeBoundedMemory(t *testing.T) {
	cfg := broker(t)
	value := make([]byte, 15<<20)
	raw := rawBatch(kgo.CodecGzip, 1, pack(t, kgo.CodecGzip, rawRecords(value)))
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
