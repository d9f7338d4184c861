package chdb

import (
	"encoding/binary"
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// The decoder of blocks allocates what a block says of its own length before it reads the rows. So each block is walked first,
// without allocations: each count in it must fit the bytes behind it.

// Bounds of a block that the engine stays far below.
const (
	maxColumns = 100_000
	maxNesting = 64 // of types within each other
)

var errShortBlock = errors.New("a block of the engine says that it is longer than it is")

// form is how the values of a column are laid out.
type form int

const (
	fixedForm          form = iota // width bytes for each row
	textForm                       // a length and bytes for each row
	nullableForm                   // a byte for each row, and the part's rows
	arrayForm                      // the end of each row as 8 bytes, and the parts with as many rows as the last one says
	tupleForm                      // the parts, with as many rows
	lowCardinalityForm             // a dictionary, and keys
	variantForm                    // the number of a part for each row, and the parts with the rows of theirs
)

// layout is that of a column's type.
type layout struct {
	form  form
	width uint64
	parts []layout
}

var fixedWidths = map[string]uint64{
	"BFloat16": 2, "Float32": 4, "Float64": 8, "Int8": 1, "Int16": 2, "Int32": 4, "Int64": 8, "Int128": 16, "Int256": 32,
	"UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "UInt128": 16, "UInt256": 32, "IPv4": 4, "IPv6": 16, "Bool": 1,
	"Date": 2, "Date32": 4, "UUID": 16, "Nothing": 1, "Point": 16, "Time": 4, "DateTime": 4,
	"IntervalNanosecond": 8, "IntervalMicrosecond": 8, "IntervalMillisecond": 8, "IntervalSecond": 8, "IntervalMinute": 8, "IntervalHour": 8,
	"IntervalDay": 8, "IntervalWeek": 8, "IntervalMonth": 8, "IntervalQuarter": 8, "IntervalYear": 8,
}

// aliases are types that have another name in blocks.
var aliases = map[string]string{
	"Ring": "Array(Point)", "LineString": "Array(Point)", "Polygon": "Array(Ring)", "MultiLineString": "Array(LineString)", "MultiPolygon": "Array(Polygon)",
}

// withParameters are types whose width does not depend on what is in the parentheses.
var withParameters = map[string]uint64{"Enum8": 1, "Enum16": 2, "DateTime": 4, "DateTime64": 8, "Time64": 8}

// elementName matches the name of an element of a tuple, before its type.
var elementName = regexp.MustCompile("^(?:[A-Za-z_][A-Za-z0-9_]*|`(?:[^`\\\\]|\\\\.)*`) +")

func unknownType(t string) error {
	if len(t) > 100 {
		t = t[:100] + "…"
	}
	return &QueryError{Text: "Code: 36. DB::Exception: type " + t + " is not supported in the native format: cast it to String. (BAD_ARGUMENTS)"}
}

// layoutOf reads a type as the engine writes it.
func layoutOf(t string, depth int) (layout, error) {
	if depth > maxNesting {
		return layout{}, unknownType(t)
	}
	if width, ok := fixedWidths[t]; ok {
		return layout{width: width}, nil
	}
	if alias, ok := aliases[t]; ok {
		return layoutOf(alias, depth+1)
	}
	if t == "String" {
		return layout{form: textForm}, nil
	}
	name, inner, ok := strings.Cut(t, "(")
	inner, closed := strings.CutSuffix(inner, ")")
	if !ok || !closed {
		return layout{}, unknownType(t)
	}
	if width, ok := withParameters[name]; ok {
		return layout{width: width}, nil
	}
	parameters := splitParameters(inner)
	out := layout{}
	switch name {
	case "FixedString":
		width, err := strconv.ParseUint(inner, 10, 31)
		if err != nil || width == 0 {
			return layout{}, unknownType(t)
		}
		return layout{width: width}, nil
	case "Decimal":
		width, ok := decimalWidth(parameters[0])
		if !ok {
			return layout{}, unknownType(t)
		}
		return layout{width: width}, nil
	case "SimpleAggregateFunction":
		if len(parameters) != 2 {
			return layout{}, unknownType(t)
		}
		return layoutOf(parameters[1], depth+1)
	case "Nullable":
		out.form = nullableForm
	case "LowCardinality":
		out.form = lowCardinalityForm
		if part, ok := strings.CutPrefix(inner, "Nullable("); ok { // the dictionary has no marks of what is null
			parameters = []string{strings.TrimSuffix(part, ")")}
		}
	case "Array", "Map", "Nested":
		out.form = arrayForm
	case "Tuple":
		out.form = tupleForm
	case "Variant":
		out.form = variantForm
	default:
		return layout{}, unknownType(t)
	}
	for _, p := range parameters {
		if name == "Tuple" || name == "Nested" {
			p = p[len(elementName.FindString(p)):]
		}
		part, err := layoutOf(p, depth+1)
		if err != nil {
			return layout{}, err
		}
		out.parts = append(out.parts, part)
	}
	if want := map[string]int{"Nullable": 1, "LowCardinality": 1, "Array": 1, "Map": 2}[name]; want != 0 && len(out.parts) != want {
		return layout{}, unknownType(t)
	}
	return out, nil
}

func decimalWidth(precision string) (uint64, bool) {
	n, err := strconv.Atoi(precision)
	switch {
	case err != nil || n < 1 || n > 76:
		return 0, false
	case n <= 9:
		return 4, true
	case n <= 18:
		return 8, true
	case n <= 38:
		return 16, true
	}
	return 32, true
}

// splitParameters cuts at the commas outside of parentheses and quotes. It returns at least one part.
func splitParameters(s string) (parts []string) {
	depth, from := 0, 0
	var quoted byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted != 0:
			switch c {
			case '\\':
				i++
			case quoted:
				quoted = 0
			}
		case c == '\'' || c == '`':
			quoted = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts, from = append(parts, strings.TrimSpace(s[from:i])), i+1
		}
	}
	return append(parts, strings.TrimSpace(s[from:]))
}

// blockBytes are what is left of blocks in revision 0.
type blockBytes []byte

// checkBlocks returns an error where a count in the blocks does not fit the bytes behind it, or where a type is not known.
func checkBlocks(blocks []byte) error {
	for rest := blockBytes(blocks); len(rest) > 0; {
		if err := rest.block(); err != nil {
			return err
		}
	}
	return nil
}

func (b *blockBytes) block() error {
	columns, err := b.uvarint()
	if err != nil {
		return err
	}
	rows, err := b.uvarint()
	if err != nil {
		return err
	}
	if columns > maxColumns || columns == 0 && rows != 0 {
		return errShortBlock
	}
	for range columns {
		if _, err := b.text(); err != nil {
			return err
		}
		t, err := b.text()
		if err != nil {
			return err
		}
		l, err := layoutOf(string(t), 0)
		if err != nil {
			return err
		}
		if rows == 0 {
			continue
		}
		if err := b.prefix(l); err != nil {
			return err
		}
		if err := b.values(l, rows); err != nil {
			return err
		}
	}
	return nil
}

// prefix walks what is before the values of a column.
func (b *blockBytes) prefix(l layout) error {
	if l.form == lowCardinalityForm {
		return b.skip(1, 8)
	}
	if l.form == variantForm {
		if err := b.skip(1, 8); err != nil {
			return err
		}
	}
	for _, part := range l.parts {
		if err := b.prefix(part); err != nil {
			return err
		}
	}
	return nil
}

// values walks the rows of a column.
func (b *blockBytes) values(l layout, rows uint64) error {
	switch l.form {
	case fixedForm:
		return b.skip(rows, l.width)
	case textForm:
		for range rows {
			if _, err := b.text(); err != nil {
				return err
			}
		}
		return nil
	case nullableForm:
		if err := b.skip(rows, 1); err != nil {
			return err
		}
	case arrayForm:
		from := *b
		if err := b.skip(rows, 8); err != nil {
			return err
		}
		if rows > 0 {
			rows = binary.LittleEndian.Uint64(from[(rows-1)*8:])
		}
	case lowCardinalityForm:
		return b.lowCardinality(l, rows)
	case variantForm:
		return b.variant(l, rows)
	case tupleForm:
	}
	for _, part := range l.parts {
		if err := b.values(part, rows); err != nil {
			return err
		}
	}
	return nil
}

func (b *blockBytes) lowCardinality(l layout, rows uint64) error {
	if rows == 0 {
		return nil
	}
	meta, err := b.fixed64()
	if err != nil {
		return err
	}
	words, err := b.fixed64()
	if err != nil {
		return err
	}
	if err := b.values(l.parts[0], words); err != nil {
		return err
	}
	keys, err := b.fixed64()
	if err != nil {
		return err
	}
	if meta&0xff > 3 || keys != rows {
		return errShortBlock
	}
	return b.skip(keys, 1<<(meta&0xff))
}

func (b *blockBytes) variant(l layout, rows uint64) error {
	from := *b
	if err := b.skip(rows, 1); err != nil {
		return err
	}
	var counts [256]uint64
	for _, part := range from[:rows] {
		counts[part]++
	}
	if len(l.parts) > len(counts) {
		return errShortBlock
	}
	for i, part := range l.parts {
		if err := b.values(part, counts[uint8(i)]); err != nil {
			return err
		}
	}
	return nil
}

func (b *blockBytes) skip(n, width uint64) error {
	if n > uint64(len(*b))/width {
		return errShortBlock
	}
	*b = (*b)[n*width:]
	return nil
}

func (b *blockBytes) uvarint() (uint64, error) {
	v, n := binary.Uvarint(*b)
	if n <= 0 {
		return 0, errShortBlock
	}
	*b = (*b)[n:]
	return v, nil
}

func (b *blockBytes) fixed64() (uint64, error) {
	from := *b
	if err := b.skip(1, 8); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(from), nil
}

func (b *blockBytes) text() ([]byte, error) {
	n, err := b.uvarint()
	if err != nil {
		return nil, err
	}
	from := *b
	if err := b.skip(n, 1); err != nil {
		return nil, err
	}
	return from[:n], nil
}
