package chdb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

const readerBytes = 128 << 10

// transcode turns blocks as the engine gives them, in revision 0, into those of a client's revision.
func transcode(blocks []byte, revision uint64, method string) ([]byte, error) {
	if len(blocks) == 0 || revision == 0 && method == "" {
		return blocks, nil
	}
	if err := checkBlocks(blocks); err != nil {
		return nil, fmt.Errorf("checking the blocks of the engine: %w", err)
	}
	var out chproto.Buffer
	// The reader goes on with our buffer, because it is large enough: so one can see whether another block begins. The end of
	// the bytes within a block is an error, not the end.
	in := bufio.NewReaderSize(bytes.NewReader(blocks), readerBytes)
	reader := chproto.NewReader(in)
	var compressed []byte
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			break
		}
		// Without a time zone a column of times is a nil dereference.
		block := proto.Block{ServerContext: &column.ServerContext{Timezone: time.UTC}}
		if err := block.Decode(reader, 0); err != nil {
			return nil, fmt.Errorf("reading a block of the engine: %w", err)
		}
		if err := block.Encode(&out, revision); err != nil {
			return nil, fmt.Errorf("writing a block for the client: %w", err)
		}
		if method != "" {
			piece, err := squeeze(out.Buf, method)
			if err != nil {
				return nil, err
			}
			compressed = append(compressed, piece...)
			out.Reset()
		}
	}
	if method != "" {
		return compressed, nil
	}
	return out.Buf, nil
}

func squeeze(block []byte, method string) ([]byte, error) {
	m := compress.LZ4
	switch method {
	case "LZ4":
	case "ZSTD":
		m = compress.ZSTD
	default:
		return nil, &QueryError{Text: "Code: 36. DB::Exception: the compression is not known, LZ4 and ZSTD are. (BAD_ARGUMENTS)"}
	}
	w := compress.NewWriter(compress.LevelZero, m)
	if err := w.Compress(block); err != nil {
		return nil, fmt.Errorf("compressing a block: %w", err)
	}
	return w.Data, nil
}

// squeezeBytes is how much of a result is compressed as one block, as in ClickHouse.
const squeezeBytes = 1 << 20

// squeezeAll compresses a result that is no sequence of blocks.
func squeezeAll(result []byte, method string) ([]byte, error) {
	var out []byte
	for len(result) > 0 {
		n := min(len(result), squeezeBytes)
		piece, err := squeeze(result[:n], method)
		if err != nil {
			return nil, err
		}
		out, result = append(out, piece...), result[n:]
	}
	return out, nil
}
