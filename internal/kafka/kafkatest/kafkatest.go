// Package kafkatest has batches that are not what they say, for the tests of all that reads or refuses them.
package kafkatest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Places in a batch.
const (
	prefix  = 12 // first offset and length, which its length does not count
	header  = 61
	crcAt   = 17
	crcFrom = 21
	magicAt = 16
	codecAt = 22
	countAt = 57
)

// Codecs are those that the protocol knows, by name.
var Codecs = map[string]kgo.CompressionCodecType{"none": kgo.CodecNone, "gzip": kgo.CodecGzip, "snappy": kgo.CodecSnappy, "lz4": kgo.CodecLz4, "zstd": kgo.CodecZstd}

// Records encodes records with these values.
func Records(values ...[]byte) (out []byte) {
	for i, v := range values {
		one := kbin.AppendInt8(nil, 0)
		one = kbin.AppendVarint(kbin.AppendVarint(one, 0), int32(i))
		one = kbin.AppendVarintBytes(kbin.AppendVarintBytes(one, nil), v)
		one = kbin.AppendVarint(one, 0)
		out = append(kbin.AppendVarint(out, int32(len(one))), one...)
	}
	return out
}

// Batch encodes a batch that says to have count records, whatever they are.
func Batch(codec kgo.CompressionCodecType, count int32, records []byte) []byte {
	b := kmsg.RecordBatch{
		Magic: 2, PartitionLeaderEpoch: -1, Attributes: int16(codec), LastOffsetDelta: count - 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: count, Records: records, Length: int32(header - prefix + len(records)),
	}
	return Seal(b.AppendTo(nil))
}

// Seal corrects the checksum of a batch.
func Seal(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[crcAt:], crc32.Checksum(raw[crcFrom:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// Pack packs bytes with a codec.
func Pack(t testing.TB, codec kgo.CompressionCodecType, in []byte) []byte {
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

// Bad is a batch that no broker may take, or that a reader of ours must not unpack.
type Bad struct {
	Name string
	Raw  []byte
	// Offsets is how many offsets the batch says to have.
	Offsets int64
	// Code is the error that the batch is refused with.
	Code *kerr.Error
	// Unseen batches have all records that they say and more: their offsets do not show that something is wrong.
	Unseen bool
	// Sound batches are in order for other brokers: most of them unpack to more than the bound of ours.
	Sound bool
}

// BadBatches returns each kind of damage with each codec. The bombs unpack to more than 16 MiB, or to more records than a
// batch may have.
func BadBatches(t testing.TB) (bad []Bad) {
	t.Helper()
	three := Records([]byte("a"), []byte("b"), []byte("c"))
	add := func(name string, raw []byte) *Bad {
		bad = append(bad, Bad{Name: name, Raw: raw, Offsets: 3, Code: kerr.InvalidRecord})
		return &bad[len(bad)-1]
	}
	bomb := func(name string, raw []byte) *Bad {
		b := add(name, raw)
		b.Code, b.Sound = kerr.MessageTooLarge, true
		return b
	}
	for name, codec := range Codecs {
		add(name+" fewer records than it says", Batch(codec, 3, Pack(t, codec, Records([]byte("a")))))
		add(name+" no records", Batch(codec, 3, Pack(t, codec, nil)))
		add(name+" cut record", Batch(codec, 3, Pack(t, codec, three[:len(three)-2])))
		add(name+" cut first record", Batch(codec, 3, Pack(t, codec, three[:3])))
		add(name+" bytes behind its records", Batch(codec, 3, Pack(t, codec, append(bytes.Clone(three), 1, 2, 3)))).Unseen = true
		if codec == kgo.CodecNone {
			continue
		}
		add(name+" bit on plain records", Batch(codec, 3, three))
		packed := Pack(t, codec, three)
		add(name+" cut", Batch(codec, 3, packed[:len(packed)/2]))
		large := Pack(t, codec, Records([]byte("a"), []byte("b"), make([]byte, 40<<20)))
		if len(large) < 1<<20 { // with snappy it is larger than brokers take
			bomb(name+" bomb", Batch(codec, 3, large))
		}
	}
	const many = 200_000
	tiny := Batch(kgo.CodecGzip, many, Pack(t, kgo.CodecGzip, Records(make([][]byte, many)...)))
	bomb("gzip many tiny records", tiny).Offsets = many
	slices.SortFunc(bad, func(a, b Bad) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return bad
}

// BadHeaders returns batches that a broker refuses by their headers; none can come into a log.
func BadHeaders() (bad []Bad) {
	good := Batch(kgo.CodecNone, 1, Records([]byte("a")))
	add := func(name string, code *kerr.Error, change func([]byte) []byte) {
		bad = append(bad, Bad{Name: name, Raw: change(bytes.Clone(good)), Offsets: 1, Code: code})
	}
	add("wrong checksum", kerr.CorruptMessage, func(b []byte) []byte { b[len(b)-1]++; return b })
	add("older format", kerr.InvalidRecord, func(b []byte) []byte { b[magicAt] = 1; return b })
	add("unknown codec", kerr.UnsupportedCompressionType, func(b []byte) []byte { b[codecAt] = 5; return Seal(b) })
	add("two batches", kerr.InvalidRecord, func(b []byte) []byte { return append(b, b...) })
	add("short", kerr.InvalidRecord, func(b []byte) []byte { return b[:header-1] })
	add("negative count", kerr.InvalidRecord, func(b []byte) []byte { binary.BigEndian.PutUint32(b[countAt:], 1<<31); return Seal(b) })
	add("offset of another place", kerr.InvalidRecord, func(b []byte) []byte { b[header+3] = 2; return Seal(b) })
	bad[len(bad)-1].Sound = true // brokers correct such an offset
	return bad
}

// Produce sends a batch as it is to the leader of a partition and returns its first offset, or the error of the protocol that
// it is refused with.
func Produce(ctx context.Context, cl *kgo.Client, topic string, partition int32, raw []byte) (int64, error) {
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, mt)
	about, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return 0, fmt.Errorf("asking for the topic: %w", err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, raw
	rt.Topic, rt.TopicID = topic, about.Topics[0].TopicID
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	answer, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, fmt.Errorf("producing: %w", err)
	}
	p := answer.Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}
