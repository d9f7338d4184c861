package chdb

import (
	"regexp"
	"slices"
	"strings"
)

// quote makes a literal of a string, as ClickHouse reads it.
func quote(s string) string { return "'" + escape(s, "'") + "'" }

// quoteName makes an identifier of a string.
func quoteName(s string) string { return "`" + escape(s, "`") + "`" }

func escape(s, mark string) string {
	return strings.NewReplacer(`\`, `\\`, mark, `\`+mark).Replace(s)
}

var wordPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func word(s string) bool { return wordPattern.MatchString(s) }

// insertPattern finds an INSERT whose data stand behind it: what inserts, the name of the format, and the data.
var insertPattern = regexp.MustCompile(`(?is)^\s*(INSERT\s+INTO\s[^;]*?)\s+FORMAT\s+(\w+)(?:\s(.*))?$`)

// insert cuts an INSERT with data in a format into its parts; ok is false for every other statement.
func insert(text string) (head, format, data string, ok bool) {
	m := insertPattern.FindStringSubmatch(text)
	if m == nil || strings.EqualFold(m[2], "Values") {
		return "", "", "", false
	}
	return m[1], m[2], m[3], true
}

// formatIn returns the format that a statement names for its result, by the tree that EXPLAIN AST shows, or "". Names and
// aliases can contain line ends and so add lines, but no real line is lost. Where several formats are shown, all are returned,
// and they are no name of a format.
func formatIn(tree string) string {
	lines := strings.Split(tree, "\n")
	names := []string{}
	for i, line := range lines {
		node := strings.TrimLeft(line, " ")
		depth := len(line) - len(node)
		name, ok := strings.CutPrefix(node, "Identifier ")
		// EXPLAIN shows the format below the statement that it explains.
		if ok && i > 0 && (depth == 1 || depth == 2 && strings.HasPrefix(lines[0], "Explain")) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}
