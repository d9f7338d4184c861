package chdb

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// appendBlock appends a block of the native format in revision 0: a column of numbers and one of texts.
func appendBlock(b []byte, rows []string) []byte {
	out := chproto.Buffer{Buf: b}
	out.PutUVarInt(2)
	out.PutUVarInt(uint64(len(rows)))
	out.PutString("n")
	out.PutString("UInt8")
	for range rows {
		out.PutRaw([]byte{7})
	}
	out.PutString("t")
	out.PutString("String")
	for _, r := range rows {
		out.PutString(r)
	}
	return out.Buf
}

// texts reads the texts of blocks as a client does.
func texts(t *testing.T, blocks []byte, revision uint64) (all []string) {
	t.Helper()
	reader := chproto.NewReader(bytes.NewReader(blocks))
	for {
		b := proto.Block{ServerContext: &column.ServerContext{Timezone: time.UTC}}
		if err := b.Decode(reader, revision); err != nil {
			return all
		}
		for i := range b.Rows() {
			all = append(all, b.Columns[1].Row(i, false).(string))
		}
	}
}

// FuzzTranscode: the blocks come from the engine in this process, so that their form is trusted and their rows are anything.
// Every row of every block comes out, in order, and as it was; blocks that break off are an error, never fewer rows; a
// compression that is not known is refused as the client's fault, and nothing else is.
func FuzzTranscode(f *testing.F) {
	f.Add("a,bc|d|,", uint64(54460), "", 0)
	f.Add("a,bc|d|,", uint64(54460), "", 3)
	f.Add("\x00\xff,'\n|", uint64(0), "LZ4", 1)
	f.Add("a", uint64(54460), "ZSTD", 9)
	f.Add("", uint64(1), "BROTLI", 0)
	f.Fuzz(func(t *testing.T, rows string, revision uint64, method string, cut int) {
		var blocks []byte
		var want []string
		ends := map[int]bool{0: true}
		for part := range strings.SplitSeq(rows, "|") {
			list := strings.Split(part, ",")
			blocks, want = appendBlock(blocks, list), append(want, list...)
			ends[len(blocks)] = true
		}
		if cut > 0 && cut < len(blocks) {
			blocks, want = blocks[:len(blocks)-cut], nil
		}
		out, err := transcode(blocks, revision, method)
		whole, known := ends[len(blocks)], method == "" || method == "LZ4" || method == "ZSTD"
		var client *QueryError
		switch {
		case revision == 0 && method == "": // as they are, whatever they are
			if err != nil || !bytes.Equal(out, blocks) {
				t.Fatalf("%x becomes %x, %v", blocks, out, err)
			}
		case errors.As(err, &client):
			if known {
				t.Fatalf("%x with %q is said to be the client's fault: %v", blocks, method, err)
			}
		case !whole || !known:
			if err == nil {
				t.Fatalf("%x breaks off, and becomes %x", blocks, out)
			}
		case err != nil:
			t.Fatalf("%x: %v", blocks, err)
		case want != nil && method == "":
			if got := texts(t, out, revision); strings.Join(got, ",") != strings.Join(want, ",") {
				t.Fatalf("%q comes out as %q", want, got)
			}
		}
	})
}

// claim returns a block with a column of a type that says it has a number of rows, and some bytes behind it.
func claim(rows uint64, kind, rest string) []byte {
	var out chproto.Buffer
	out.PutUVarInt(1)
	out.PutUVarInt(rows)
	out.PutString("a")
	out.PutString(kind)
	out.PutRaw([]byte(rest))
	return out.Buf
}

// FuzzCheckBlocks: blocks whose bytes are anything are refused or decoded, and what is decoded is no larger than the bytes
// allow. Types that the decoder reads otherwise than the check would be seen as a panic or as a lack of memory.
func FuzzCheckBlocks(f *testing.F) {
	long := strings.Repeat("\xff", 16)
	for _, kind := range []string{
		"UInt64", "FixedString(1000000)", "String", "Array(UInt64)", "Array(Array(String))", "Map(String, UInt64)", "Tuple(a UInt8, `b c` Array(UInt8))", "Nullable(String)",
		"LowCardinality(String)", "LowCardinality(Nullable(String))", "Array(LowCardinality(String))", "Variant(String, UInt64)", "Nested(a UInt8, b String)", "Decimal(76, 3)",
		"Enum8('a)' = 1, 'b, (' = 2)", "SimpleAggregateFunction(sum, UInt64)", "MultiPolygon", "JSON", "Dynamic", "QBit(Float32, 8)", "Array(", "Tuple()", "Nothing",
	} {
		f.Add(uint64(900_000_000), kind, long)
		f.Add(uint64(1), kind, long)
		f.Add(uint64(1), kind, "\x01"+strings.Repeat("\x00", 63))
	}
	f.Fuzz(func(t *testing.T, rows uint64, kind, rest string) {
		block := claim(rows, kind, rest)
		out, err := transcode(block, 54460, "")
		if err == nil && len(out) > 64+64*len(block) {
			t.Fatalf("%d bytes become %d", len(block), len(out))
		}
		if err == nil && rows > uint64(len(block)) {
			t.Fatalf("%d rows of %q are decoded from %d bytes", rows, kind, len(block))
		}
	})
}
