package chdb

import (
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What a reader may use is listed, and everything else is refused: a function or a kind of syntax that a later engine adds
// is refused until it was looked at.

// functions.txt has the names of the engine's functions that compute from their arguments alone.
//
//go:embed functions.txt
var functionsText string

// readFunctions are those in lower case. Tests compare them with the engine's own list.
var readFunctions = func() map[string]bool {
	out := map[string]bool{}
	for _, name := range strings.Fields(functionsText) {
		out[strings.ToLower(name)] = true
	}
	return out
}()

// syntaxFunctions are written as syntax and shown as functions by the engine; it does not list them.
var syntaxFunctions = map[string]bool{"lambda": true, "exists": true, "grouping": true, "untuple": true}

// readTableFunctions make rows of nothing. read_through is a view with parameters.
var readTableFunctions = map[string]bool{
	"numbers": true, "numbers_mt": true, "zeros": true, "zeros_mt": true, "generateseries": true, "generate_series": true, "values": true, "read_through": true,
}

// readSystemTables say nothing of this installation, and ordinary clients ask for them when they connect.
var readSystemTables = map[string]bool{"system.one": true, "system.settings": true}

// combinators are suffixes of aggregate functions.
var combinators = []string{
	"SimpleState", "OrDefault", "Distinct", "Resample", "ForEach", "ArgMax", "ArgMin", "OrNull", "Merge", "State", "Array", "Null", "Map", "If",
}

// readFormats are those that need no schema and no other file.
var readFormats = func() map[string]bool {
	out := map[string]bool{}
	for _, name := range strings.Fields(`
		TabSeparated TabSeparatedRaw TabSeparatedWithNames TabSeparatedWithNamesAndTypes TabSeparatedRawWithNames TabSeparatedRawWithNamesAndTypes
		TSV TSVRaw TSVWithNames TSVWithNamesAndTypes TSVRawWithNames TSVRawWithNamesAndTypes TSKV Raw RawWithNames RawWithNamesAndTypes RawBLOB LineAsString
		CSV CSVWithNames CSVWithNamesAndTypes Values SQLInsert Vertical Markdown MD XML Null
		JSON JSONStrings JSONColumns JSONColumnsWithMetadata JSONCompact JSONCompactStrings JSONCompactColumns JSONEachRow JSONLines NDJSON JSONStringsEachRow
		JSONCompactEachRow JSONCompactEachRowWithNames JSONCompactEachRowWithNamesAndTypes JSONCompactStringsEachRow JSONCompactStringsEachRowWithNames
		JSONCompactStringsEachRowWithNamesAndTypes JSONObjectEachRow PrettyJSONEachRow PrettyJSONLines PrettyNDJSON BSONEachRow
		Pretty PrettyCompact PrettyCompactMonoBlock PrettyMonoBlock PrettySpace PrettySpaceMonoBlock PrettyNoEscapes PrettyCompactNoEscapes PrettySpaceNoEscapes
		PrettyNoEscapesMonoBlock PrettyCompactNoEscapesMonoBlock PrettySpaceNoEscapesMonoBlock
		Native RowBinary RowBinaryWithNames RowBinaryWithNamesAndTypes Parquet Arrow ArrowStream ORC Avro MsgPack Npy`) {
		out[name] = true
	}
	return out
}()

// plainNodes are parts of a syntax tree that read nothing by themselves and show all their children. Named windows
// (WindowListElement) and APPLY (ColumnsApplyTransformer) do not show theirs, so they are not among them; neither is Set, the
// SETTINGS of a statement: `readonly = DEFAULT` is taken in readonly mode.
var plainNodes = map[string]bool{
	"SelectWithUnionQuery": true, "SelectIntersectExceptQuery": true, "SelectQuery": true, "DescribeQuery": true, "ExpressionList": true, "Subquery": true, "WithElement": true,
	"TablesInSelectQuery": true, "TablesInSelectQueryElement": true, "TableExpression": true, "TableJoin": true, "ArrayJoin": true, "SampleRatio": true,
	"Asterisk": true, "QualifiedAsterisk": true, "ColumnsRegexpMatcher": true, "ColumnsListMatcher": true, "QualifiedColumnsRegexpMatcher": true, "QualifiedColumnsListMatcher": true,
	"ColumnsTransformerList": true, "ColumnsExceptTransformer": true, "ColumnsReplaceTransformer": true, "ColumnsReplaceTransformer::Replacement": true,
	"OrderByElement": true, "InterpolateElement": true, "WindowDefinition": true, "Literal": true,
}

// roots are the statements that readers have.
var roots = map[string]bool{"SelectWithUnionQuery": true, "SelectIntersectExceptQuery": true, "DescribeQuery": true}

// showTables is the statement that lists the views. Its tree does not say what is listed, so its text decides alone.
var showTables = regexp.MustCompile(`(?i)^\s*SHOW\s+TABLES(?:\s+FORMAT\s+(?-i:(\w+)))?\s*$`)

func denied(format string, args ...any) error {
	return &QueryError{Text: "Code: 497. DB::Exception: " + fmt.Sprintf(format, args...) + ". (ACCESS_DENIED)"}
}

// mayRead decides on a reader's statement by the tree that EXPLAIN AST shows, a line for each part. Names and aliases are
// not quoted in it and can contain line ends. So each line is judged by itself: a forged line can only cause a refusal, because
// the real parts keep their lines.
func mayRead(tree, text, database string, known []string) error {
	lines := strings.Split(strings.TrimSuffix(tree, "\n"), "\n")
	if root, _, _ := strings.Cut(lines[0], " "); root == "ShowTables" {
		if m := showTables.FindStringSubmatch(text); m != nil && (m[1] == "" || readFormats[m[1]]) {
			return nil
		}
		return denied("readers may list tables by SHOW TABLES alone")
	}
	for i, line := range lines {
		node := strings.TrimLeft(line, " ")
		depth := len(line) - len(node)
		kind, rest, _ := strings.Cut(node, " ")
		name := rest
		for _, behind := range []string{" (alias ", " (children "} {
			name, _, _ = strings.Cut(name, behind)
		}
		switch {
		case i == 0 && !roots[kind]:
			return denied("readers have SELECT, DESCRIBE and SHOW TABLES; %s is not for them", kind)
		case kind == "TableIdentifier":
			if err := mayReadTable(name, database); err != nil {
				return err
			}
		case kind == "Identifier" && depth == 1:
			if !readFormats[name] {
				return denied("format %s is not for readers", name)
			}
		case kind == "Identifier":
			// The right side of IN, and an argument of a function, can be the name of a table.
			if first, _, dotted := strings.Cut(name, "."); dotted && first != database && slices.Contains(known, first) {
				return denied("%s is in another database than %s", name, database)
			}
		case kind == "Function":
			if !mayCall(name) {
				return denied("function %s is not for readers", name)
			}
		case kind == "Literal" && depth == 1:
			return denied("INTO OUTFILE is not for readers")
		case kind == "Set":
			return denied("SETTINGS are not for readers: some can be given as parameters of the address")
		case !plainNodes[kind]:
			return denied("%s is not for readers", kind)
		}
	}
	return nil
}

func mayReadTable(name, database string) error {
	rest, ours := strings.CutPrefix(name, database+".")
	switch {
	case readSystemTables[name]:
		return nil
	case name == "" || !ours && strings.Contains(name, ".") || ours && strings.Contains(rest, "."):
		return denied("table %s is not for readers: what they may read is in %s", name, database)
	}
	return nil
}

// mayCall reports whether a reader may call a function. Functions and functions in place of tables are in one list here: where
// a name is both, neither reads anything.
func mayCall(name string) bool {
	if lower := strings.ToLower(name); readFunctions[lower] || syntaxFunctions[lower] || readTableFunctions[lower] {
		return true
	}
	for _, suffix := range combinators {
		if base, ok := strings.CutSuffix(name, suffix); ok && base != "" && mayCall(base) {
			return true
		}
	}
	return false
}
