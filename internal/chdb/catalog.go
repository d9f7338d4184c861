package chdb

import (
	"regexp"
	"strings"
)

// Tools ask the engine's own tables for what there is. A reader's statement asks copies of them instead, which are made in
// its session, and which contain the views of the readers' database alone. A condition in a view over the engine's tables
// would not do: the engine may try a reader's condition on a row before it tries the view's.

// catalog has the statement that makes each copy, with ? for the readers' database as a literal. Each has columns that say
// nothing of this machine, of how a view is made and of how large the archive is.
var catalog = map[string]string{
	"databases": "SELECT name, engine, '' AS data_path, '' AS metadata_path, uuid, engine AS engine_full, comment FROM system.databases WHERE name = ?",
	"tables": `SELECT database, name, uuid, engine, is_temporary, CAST([], 'Array(String)') AS data_paths, '' AS metadata_path, toDateTime(0) AS metadata_modification_time,
		CAST([], 'Array(String)') AS dependencies_database, CAST([], 'Array(String)') AS dependencies_table, '' AS create_table_query, engine AS engine_full, '' AS as_select,
		partition_key, sorting_key, primary_key, sampling_key, storage_policy, CAST(NULL, 'Nullable(UInt64)') AS total_rows, CAST(NULL, 'Nullable(UInt64)') AS total_bytes,
		comment, has_own_data FROM system.tables WHERE database = ?`,
	"columns": `SELECT database, table, name, type, position, default_kind, default_expression, toUInt64(0) AS data_compressed_bytes, toUInt64(0) AS data_uncompressed_bytes,
		toUInt64(0) AS marks_bytes, comment, is_in_partition_key, is_in_sorting_key, is_in_primary_key, is_in_sampling_key, compression_codec, character_octet_length,
		numeric_precision, numeric_precision_radix, numeric_scale, datetime_precision FROM system.columns WHERE database = ?`,
}

// catalogCopy begins the names of the copies.
const catalogCopy = "reader_system_"

// plainText finds what is no code in a statement, which stays as it is, and the names of the engine's tables. Comments,
// strings and quoted names have a group of their own; a name may be quoted in parts.
var plainText = regexp.MustCompile("(?is)(--[^\n]*|/\\*.*?\\*/|'(?:[^'\\\\]|\\\\.|'')*')" +
	"|(?:\\bsystem|`system`|\"system\")\\s*\\.\\s*(?:(databases|tables|columns)\\b|`(databases|tables|columns)`|\"(databases|tables|columns)\")" +
	"|(`(?:[^`\\\\]|\\\\.)*`|\"(?:[^\"\\\\]|\\\\.)*\")")

// useCatalog puts the names of the copies in place of those of the engine's tables, and returns which it used. What it
// returns is judged as if the reader had written it, so a mistake here cannot show more than mayRead permits.
func useCatalog(text string) (_ string, used []string) {
	seen := map[string]bool{}
	text = plainText.ReplaceAllStringFunc(text, func(found string) string {
		m := plainText.FindStringSubmatch(found)
		if m == nil {
			return found
		}
		name := strings.ToLower(m[2] + m[3] + m[4])
		if name == "" {
			return found
		}
		if !seen[name] {
			seen[name], used = true, append(used, name)
		}
		return catalogCopy + name
	})
	return text, used
}

// copyCatalog makes copies in the session of a reader, before it is forced to readonly.
func (s *session) copyCatalog(names []string, database string) error {
	for _, name := range names {
		text := "CREATE TEMPORARY TABLE " + catalogCopy + name + " AS " + strings.ReplaceAll(catalog[name], "?", quote(database))
		if _, err := s.run(text, "Null"); err != nil {
			return err
		}
	}
	return nil
}
