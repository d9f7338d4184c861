package chdb

import (
	"regexp"
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

var formatPattern = regexp.MustCompile(`(?is)\bFORMAT\s+(\w+)\s*(?:SETTINGS\s[^()]*)?;?\s*$`)

// formatOf gives the format that a statement names for its result, or "".
func formatOf(text string) string {
	m := formatPattern.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}
