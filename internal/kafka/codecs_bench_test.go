package kafka

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkCodecs is what a batch costs its writer and its reader, for batches as large as ours: a few messages, some dozens, and
// as many as an import has. The floor is none. The bytes are those that go over the wire.
func BenchmarkCodecs(b *testing.B) {
	for _, messages := range []int{3, 30, 300} {
		batch := someBatch(messages)
		for _, codec := range []struct {
			name string
			of   kgo.CompressionCodec
		}{
			{"none", kgo.NoCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
			{"gzip-1", kgo.GzipCompression().WithLevel(1)}, {"gzip-3", kgo.GzipCompression().WithLevel(3)}, {"gzip-6", kgo.GzipCompression().WithLevel(6)}, {"gzip-9", kgo.GzipCompression().WithLevel(9)},
		} {
			b.Run(fmt.Sprintf("messages=%d/codec=%s", messages, codec.name), func(b *testing.B) {
				compressor, err := kgo.DefaultCompressor(codec.of)
				if err != nil {
					b.Fatal(err)
				}
				decompressor := kgo.DefaultDecompressor()
				var size int
				b.ReportAllocs()
				for b.Loop() {
					small, kind := batch, kgo.CodecNone
					if compressor != nil {
						small, kind = compressor.Compress(new(bytes.Buffer), batch)
					}
					size = len(small)
					large, err := decompressor.Decompress(small, kind)
					if err != nil || len(large) != len(batch) {
						b.Fatalf("%d bytes of %d came back: %v", len(large), len(batch), err)
					}
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
	}
}

// someBatch is as long and as repetitive as the values of so many events.
func someBatch(messages int) []byte {
	words := bytes.Fields([]byte("are we still on for tonight yes but the train is late again I will bring what you asked for see you at the gate"))
	rnd := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	for i := range messages {
		fmt.Fprintf(&out, "g-%d%d0197f1c2-%04x-7%03x-b%03x-%012x{\"text\":\"", rnd.Int64(), i, rnd.IntN(1<<16), rnd.IntN(1<<12), rnd.IntN(1<<12), rnd.Int64N(1<<48))
		for range 3 + rnd.IntN(20) {
			out.Write(words[rnd.IntN(len(words))])
			out.WriteByte(' ')
		}
		out.WriteString("\"}")
	}
	return out.Bytes()
}
