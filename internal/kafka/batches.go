package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// MaxUnpackedBytes is how many bytes a batch may unpack to by default. A batch of ours has at most 1 MiB before it is
// packed, and clients of other languages stay below their brokers' 1 MiB as well: 16 MiB leaves room for unusual settings.
const MaxUnpackedBytes = 16 << 20

const (
	// MaxBatchRecords bounds the records of a batch. A reader takes about 170 bytes for each, however small it is: without
	// this bound 16 MiB of records of 7 bytes take 400 MB. A batch of 1 MiB that is not packed holds about as many.
	MaxBatchRecords = 128 << 10
	// recordBytes is what a reader takes for a record beside its bytes.
	recordBytes = 170
	// smallUnpacked is what a batch of ours and of most clients unpacks to at most. Larger ones are unpacked one after the
	// other in a process.
	smallUnpacked = 2 << 20
)

// unpackLarge is held while a batch that is larger than smallUnpacked is unpacked.
var unpackLarge sync.Mutex

// Unpacker unpacks batches up to a bound. It is safe for concurrent use, and a kgo.Decompressor.
type Unpacker struct {
	max          int
	small, large kgo.Decompressor
}

// unpackers has one Unpacker for each bound: their buffers are shared, and there are one or two bounds in a process.
var unpackers sync.Map

// NewUnpacker returns an Unpacker that refuses batches of more than max bytes with kgo.ErrMaxDecompress.
func NewUnpacker(max int64) (*Unpacker, error) {
	if known, ok := unpackers.Load(max); ok {
		return known.(*Unpacker), nil
	}
	u := &Unpacker{max: int(max)}
	var err error
	if u.small, err = boundedDecompressor(min(u.max, smallUnpacked)); err != nil {
		return nil, err
	}
	if u.large, err = boundedDecompressor(u.max); err != nil {
		return nil, err
	}
	unpackers.Store(max, u)
	return u, nil
}

// boundedDecompressor returns the decompressor that franz-go gives a client with a bound, which is its only way to one.
func boundedDecompressor(max int) (kgo.Decompressor, error) {
	cl, err := newClient("decompressor", []kgo.Opt{kgo.MaxDecompressBatchBytes(max)})
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	d, ok := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("the Kafka client has no decompressor")
	}
	return d, nil
}

// ErrTooManyRecords is wrapped by the error of a batch that unpacks to more than MaxBatchRecords records.
var ErrTooManyRecords = fmt.Errorf("a batch has more than %d records", MaxBatchRecords)

// Decompress returns the unpacked records of a batch.
func (u *Unpacker) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	out, err := u.small.Decompress(src, codec)
	if tooLarge(err) && u.max > smallUnpacked {
		unpackLarge.Lock()
		out, err = u.unpackLarge(src, codec)
		unpackLarge.Unlock()
	}
	if tooLarge(err) {
		return nil, fmt.Errorf("%w: %w", kgo.ErrMaxDecompress, err)
	}
	if err != nil {
		return nil, err
	}
	if countRecords(out) > MaxBatchRecords {
		return nil, ErrTooManyRecords
	}
	return out, nil
}

// unpackLarge unpacks a batch twice: first to count its bytes, and then into as many. franz-go's decompressor grows a buffer
// instead, and takes 80 MiB for what is refused at 16.
func (u *Unpacker) unpackLarge(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecSnappy { // says first how long it is
		return u.large.Decompress(src, codec)
	}
	var size int64
	count := func(r io.Reader) (err error) {
		size, err = io.Copy(io.Discard, io.LimitReader(r, int64(u.max)+1))
		return err
	}
	if err := u.stream(src, codec, count); err != nil {
		return nil, err
	}
	if size > int64(u.max) {
		return nil, kgo.ErrMaxDecompress
	}
	out := make([]byte, size)
	err := u.stream(src, codec, func(r io.Reader) error {
		_, err := io.ReadFull(r, out)
		return err
	})
	return out, err
}

// stream calls read with what a batch unpacks to.
func (u *Unpacker) stream(src []byte, codec kgo.CompressionCodecType, read func(io.Reader) error) error {
	in := bytes.NewReader(src)
	switch codec {
	case kgo.CodecGzip:
		r, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		return read(r)
	case kgo.CodecLz4:
		return read(lz4.NewReader(in))
	case kgo.CodecZstd:
		// One goroutine, and no buffers for more than the window, which a decoder takes as its frame says.
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(u.max)))
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	}
	return fmt.Errorf("codec %d is not known", codec)
}

// tooLarge reports whether a decompressor refused to unpack more. Of zstd it is the window that is too large at first.
func tooLarge(err error) bool {
	return errors.Is(err, kgo.ErrMaxDecompress) || errors.Is(err, zstd.ErrWindowSizeExceeded)
}

// countRecords returns how many records follow one another in the unpacked bytes of a batch, as far as their lengths say.
// It stops behind MaxBatchRecords.
func countRecords(in []byte) (n int) {
	for len(in) > 0 && n <= MaxBatchRecords {
		length, used := kbin.Varint(in)
		if used <= 0 || length < 0 || len(in)-used < int(length) {
			return n
		}
		in = in[used+int(length):]
		n++
	}
	return n
}

// meter bounds what one reader unpacks between two polls: franz-go unpacks all batches of a fetch at once, and a fetch of
// 4 MiB can hold hundreds of batches that unpack to just less than the bound of one. A batch that finds no room is fetched
// again after the next poll.
type meter struct {
	unpacker *Unpacker
	used     atomic.Int64
}

// errNoRoom is returned for a batch that was fetched while others that are as large were not polled yet.
var errNoRoom = errors.New("the batches that were unpacked before are not polled yet")

func (m *meter) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if m.used.Load() >= int64(m.unpacker.max) {
		return nil, errNoRoom
	}
	out, err := m.unpacker.Decompress(src, codec)
	m.used.Add(int64(len(out) + recordBytes*countRecords(out)))
	return out, err
}

// BatchFault says why a batch is refused. Code is the error that a broker answers a producer with.
type BatchFault struct {
	Code *kerr.Error
	Why  string
}

// Error returns why.
func (f *BatchFault) Error() string { return f.Why }

func faulty(code *kerr.Error, format string, args ...any) *BatchFault {
	return &BatchFault{code, fmt.Sprintf(format, args...)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Places in a batch: what comes before its length is counted, and what its checksum covers.
const (
	batchPrefix   = 12 // first offset and length
	batchCRCAt    = 21
	batchMagicAt  = 16
	batchOverhead = 61
	batchControl  = 0x20
	batchCodecs   = 0x07
)

// Batch reads one batch and judges it as a broker judges what a producer sends: format, length, checksum, codec, what it
// unpacks to, and that its records are as many, and as long, as they say. The batch is returned as far as it could be read.
func (u *Unpacker) Batch(raw []byte) (kmsg.RecordBatch, *BatchFault) {
	var b kmsg.RecordBatch
	if len(raw) < batchOverhead {
		return b, faulty(kerr.InvalidRecord, "the batch has %d bytes, which is less than its header", len(raw))
	}
	if magic := raw[batchMagicAt]; magic != 2 {
		return b, faulty(kerr.InvalidRecord, "the batch has format %d, and only 2 is taken", magic)
	}
	if err := b.ReadFrom(raw); err != nil {
		return b, faulty(kerr.CorruptMessage, "the batch cannot be read: %v", err)
	}
	if int64(b.Length) != int64(len(raw)-batchPrefix) {
		return b, faulty(kerr.InvalidRecord, "the batch says that it has %d bytes and has %d; one batch a partition is taken", b.Length, len(raw)-batchPrefix)
	}
	if crc := crc32.Checksum(raw[batchCRCAt:], castagnoli); uint32(b.CRC) != crc {
		return b, faulty(kerr.CorruptMessage, "the checksum of the batch is wrong")
	}
	if b.Attributes&batchControl != 0 {
		return b, nil // a marker has its own format, and whether it may come is the caller's to judge
	}
	codec := kgo.CompressionCodecType(b.Attributes & batchCodecs)
	if codec > kgo.CodecZstd {
		return b, faulty(kerr.UnsupportedCompressionType, "the batch names codec %d, which is not known", codec)
	}
	records, err := u.Decompress(b.Records, codec)
	switch {
	case errors.Is(err, kgo.ErrMaxDecompress), errors.Is(err, ErrTooManyRecords):
		return b, faulty(kerr.MessageTooLarge, "the batch unpacks to more than %d bytes or %d records", u.max, MaxBatchRecords)
	case err != nil:
		return b, faulty(kerr.InvalidRecord, "the batch cannot be unpacked")
	}
	return b, checkRecords(records, b.NumRecords)
}

// checkRecords judges the unpacked records of a batch.
func checkRecords(in []byte, count int32) *BatchFault {
	if count < 1 || int(count) > len(in) {
		return faulty(kerr.InvalidRecord, "the batch says that it has %d records, in %d bytes", count, len(in))
	}
	for i := range count {
		length, used := kbin.Varint(in)
		if used <= 0 || length < 0 || len(in)-used < int(length) {
			return faulty(kerr.InvalidRecord, "record %d of %d of the batch is cut", i, count)
		}
		if !recordFits(in[used:used+int(length)], i) {
			return faulty(kerr.InvalidRecord, "record %d of %d of the batch does not fit its length, or has another place", i, count)
		}
		in = in[used+int(length):]
	}
	if len(in) > 0 {
		return faulty(kerr.InvalidRecord, "the batch has %d bytes behind its %d records", len(in), count)
	}
	return nil
}

// recordFits reports whether a record's fields fill exactly its bytes, and whether its offset is that of its place.
func recordFits(in []byte, place int32) bool {
	r := kbin.Reader{Src: in}
	r.Int8() // attributes: none are defined
	r.Varlong()
	delta := r.Varint()
	r.VarintBytes()
	r.VarintBytes()
	headers := r.Varint()
	if headers < 0 || int(headers) > len(r.Src) {
		return false
	}
	for range headers {
		if n, used := kbin.Varint(r.Src); used <= 0 || n < 0 {
			return false // the key of a header is never null
		}
		r.VarintBytes()
		r.VarintBytes()
	}
	return r.Ok() && len(r.Src) == 0 && delta == place
}

// batches calls each for every whole batch of a fetched partition, with its offsets. It stops when each returns false. What
// follows the last whole batch was cut by the broker.
func batches(in []byte, each func(raw []byte, first, last int64) bool) {
	for len(in) >= batchOverhead {
		first, length := int64(binary.BigEndian.Uint64(in)), int32(binary.BigEndian.Uint32(in[8:]))
		if length < batchOverhead-batchPrefix || int64(length)+batchPrefix > int64(len(in)) {
			return
		}
		raw := in[:int(length)+batchPrefix]
		last := first
		if raw[batchMagicAt] == 2 {
			last += int64(int32(binary.BigEndian.Uint32(raw[23:])))
		}
		if !each(raw, first, max(first, last)) {
			return
		}
		in = in[len(raw):]
	}
}
