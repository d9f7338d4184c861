package importer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
)

// maxLineBytes bounds what is kept of a line. The largest message has 64 KiB, and six bytes for each of them where
// every character is escaped.
const maxLineBytes = 512 << 10

// byteOrderMark is what some editors put in front of UTF-8. It is part of the digest, and of no line.
var byteOrderMark = []byte("\xef\xbb\xbf")

var errLineTooLong = fmt.Errorf("is over %d bytes", maxLineBytes)

// export reads the lines of a file, which may be compressed with gzip.
type export struct {
	file   *os.File
	in     *bufio.Reader
	number int
	digest hash.Hash // of everything that next gave, with one line feed behind each line
}

func openExport(path string) (*export, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the export: %w", err)
	}
	e := &export{file: f, in: bufio.NewReaderSize(f, 64<<10), digest: sha256.New()}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("opening the export: %s is not a file that can be read twice", path)
	}
	if magic, err := e.in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(e.in)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("opening the export: %w", err)
		}
		e.in = bufio.NewReaderSize(z, 64<<10)
	}
	return e, nil
}

func (e *export) close() { _ = e.file.Close() }

// next gives the next line, which is valid until the next call, and io.EOF behind the last. A line that is too long is
// passed over and told by errLineTooLong.
func (e *export) next() ([]byte, error) {
	var raw []byte
	tooLong := false
	for {
		part, err := e.in.ReadSlice('\n')
		if len(part) > 0 {
			e.digest.Write(bytes.TrimSuffix(part, []byte("\n")))
			tooLong = tooLong || len(raw)+len(part) > maxLineBytes
			if !tooLong {
				raw = append(raw, part...)
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(raw) == 0 && !tooLong:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("reading the export behind line %d: %w", e.number, err)
		}
		e.number++
		e.digest.Write([]byte("\n"))
		if tooLong {
			return nil, errLineTooLong
		}
		if e.number == 1 {
			raw = bytes.TrimPrefix(raw, byteOrderMark)
		}
		return bytes.TrimSpace(raw), nil
	}
}

// sumOfNothing is what sum gives before the first line.
var sumOfNothing = hex.EncodeToString(sha256.New().Sum(nil))

// sum gives the digest of everything up to here.
func (e *export) sum() string { return hex.EncodeToString(e.digest.Sum(nil)) }
