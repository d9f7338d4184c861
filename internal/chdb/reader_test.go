package chdb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tideline/internal/archive"
	"tideline/internal/servers"
)

// refusedFunctions read something besides their arguments (this machine, other tables, dictionaries, the network), wait, or
// change something. A function of the engine is here or in functions.txt.
var refusedFunctions = strings.Fields(`
	__actionName __applyFilter __bitBoolMaskAnd __bitBoolMaskOr __bitSwapLastTwo __bitWrapperFunc __getScalar __patchPartitionID __scalarSubqueryResult
	AIClassify AIExtract AIGenerate AITranslate aiClassify aiExtract aiGenerate aiTranslate FQDN fullHostName hostName hostname displayName getMacro
	getOSKernelVersion getServerPort tcpPort getServerSetting getMergeTreeSetting getSetting getSettingOrDefault getClientHTTPHeader
	getMaxTableNameLengthForDatabase globalVariable serverUUID uptime buildId revision zookeeperSessionUptime hasThreadFuzzer showCertificate chdb file
	filesystemAvailable filesystemCapacity filesystemUnreserved catboostEvaluate naiveBayesClassifier addressToLine addressToLineWithInlines
	addressToSymbol demangle tid logTrace isMergeTreePartCoveredBy mergeTreePartInfo flameGraph dictGet dictGetAll dictGetChildren dictGetDate
	dictGetDateOrDefault dictGetDateTime dictGetDateTimeOrDefault dictGetDescendants dictGetFloat32 dictGetFloat32OrDefault dictGetFloat64
	dictGetFloat64OrDefault dictGetHierarchy dictGetIPv4 dictGetIPv4OrDefault dictGetIPv6 dictGetIPv6OrDefault dictGetInt16 dictGetInt16OrDefault
	dictGetInt32 dictGetInt32OrDefault dictGetInt64 dictGetInt64OrDefault dictGetInt8 dictGetInt8OrDefault dictGetKeys dictGetOrDefault dictGetOrNull
	dictGetString dictGetStringOrDefault dictGetUInt16 dictGetUInt16OrDefault dictGetUInt32 dictGetUInt32OrDefault dictGetUInt64 dictGetUInt64OrDefault
	dictGetUInt8 dictGetUInt8OrDefault dictGetUUID dictGetUUIDOrDefault dictHas dictIsIn regionHierarchy regionIn regionToArea regionToCity
	regionToContinent regionToCountry regionToDistrict regionToName regionToPopulation regionToTopContinent joinGet joinGetOrNull hasColumnInTable
	generateSerialID transactionID transactionLatestSnapshot transactionOldestSnapshot sleep sleepEachRow fuzzQuery fuzzBits aggThrow currentProfiles
	defaultProfiles enabledProfiles currentRoles defaultRoles enabledRoles timeSeriesCopyTag timeSeriesCopyTags timeSeriesExtractTag
	timeSeriesGroupToSamplingKey timeSeriesGroupToTags timeSeriesIdToGroup timeSeriesIdToTags timeSeriesIdToTagsGroup timeSeriesJoinTags
	timeSeriesRemoveAllTagsExcept timeSeriesRemoveTag timeSeriesRemoveTags timeSeriesReplaceTag timeSeriesStoreTags timeSeriesTagsGroupToTags
	timeSeriesTagsToGroup timeSeriesThrowDuplicateSeriesIf`)

// refusedTableFunctions are all but those that make rows of nothing.
var refusedTableFunctions = strings.Fields(`
	arrowstream azureBlobStorage azureBlobStorageCluster cluster clusterAllReplicas cosn deltaLake deltaLakeAzure deltaLakeAzureCluster deltaLakeCluster deltaLakeLocal deltaLakeS3
	deltaLakeS3Cluster dictionary executable file fileCluster filesystem fuzzJSON fuzzQuery gcs generateRandom hdfs hdfsCluster hudi hudiCluster iceberg icebergAzure
	icebergAzureCluster icebergCluster icebergHDFS icebergHDFSCluster icebergLocal icebergLocalCluster icebergS3 icebergS3Cluster input jdbc loop merge mergeTreeAnalyzeIndexes
	mergeTreeAnalyzeIndexesUUID mergeTreeIndex mergeTreeProjection mergeTreeTextIndex mongodb mysql null odbc oss paimon paimonAzure paimonAzureCluster paimonCluster paimonHDFS
	paimonHDFSCluster paimonLocal paimonS3 paimonS3Cluster postgresql primes prometheusQuery prometheusQueryRange redis remote remoteSecure s3 s3Cluster sqlite SQLStandardValues
	timeSeriesData timeSeriesMetrics timeSeriesSelector timeSeriesTags url urlCluster view viewExplain viewIfPermitted ytsaurus`)

const (
	ownerPassword  = "of the owner"
	readerPassword = "of the reader"
	secretText     = "xyzzy" // in everything that a reader must not see
	readerTime     = 2 * time.Second
)

// world is an engine with an archive in it, as its two users see it.
type world struct {
	t    *testing.T
	addr string
	file string // a file of this machine with the secret in it
}

var shared struct {
	mu sync.Mutex // guards what follows
	p  *servers.Process
	at string
}

// newWorld returns the archive that the tests of readers share: they change nothing.
func newWorld(t *testing.T) *world {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	w := &world{t: t, file: filepath.Join(t.TempDir(), "token-key")}
	if err := os.WriteFile(w.file, []byte(secretText), 0o600); err != nil {
		t.Fatal(err)
	}
	if shared.p != nil {
		w.addr = shared.at
		return w
	}
	p := servers.ClickHouseWith(t, "-chdb.password="+ownerPassword, "-chdb.reader-password="+readerPassword, "-chdb.reader-time="+readerTime.String())
	w.addr = p.Addr
	dsn := (&url.URL{Scheme: "http", Host: w.addr, User: url.UserPassword("default", ownerPassword), Path: "/tideline"}).String()
	if err := archive.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	engine, err := archive.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	row := func(conversation, kind string, seq, sender int64, text string, recipients ...int64) archive.Message {
		m := archive.Message{
			ConversationID: conversation, ConversationType: kind, Seq: seq, Kind: "message", Type: "text", SenderID: sender, ClientMsgID: fmt.Sprint("id-", sender), Text: text,
			Content: `{"text":"` + text + `"}`, Mentions: []int64{}, Recipients: recipients, SentAt: at.Add(time.Duration(seq) * time.Minute), Offset: seq,
		}
		if recipients == nil {
			m.Recipients = []int64{}
		} else {
			m.Mentions = recipients
		}
		return m
	}
	const hidden, other = 770000000000001, 770000000000002
	var block archive.Block
	for seq := range int64(20_000) { // several granules
		block.Messages = append(block.Messages, row("g-1", "group", seq+1, 11+seq%3, "hello harbour"))
	}
	block.Messages = append(block.Messages,
		row("g-2", "group", 1, 12, "said in two"), row("s-all", "system", 1, 0, "to all"),
		row("g-2", "group", 2, 12, secretText, hidden, other),
		row("p-770000000000001-770000000000002", "private", 1, hidden, secretText), row("p-770000000000001-770000000000002", "private", 2, other, secretText),
		row("s-770000000000001", "system", 1, hidden, secretText))
	for i := range block.Messages {
		if m := &block.Messages[i]; m.ConversationType == "private" {
			m.Mentions = []int64{hidden}
		}
	}
	if err := engine.Insert(t.Context(), "a", block); err != nil {
		t.Fatal(err)
	}
	marks := archive.Block{Marks: []archive.Mark{
		{UserID: 11, ConversationID: "g-1", Seq: 5, At: at}, {UserID: 12, ConversationID: "g-1", Seq: 17, At: at.Add(time.Hour), Offset: 1},
		{UserID: hidden, ConversationID: "p-770000000000001-770000000000002", Seq: 2, At: at, Offset: 2},
	}}
	if err := engine.Insert(t.Context(), "b", marks); err != nil {
		t.Fatal(err)
	}
	w.must(ownerPassword, "CREATE TABLE tideline.joined (id Int64, text String) ENGINE = Join(ANY, LEFT, id)", nil)
	w.must(ownerPassword, "INSERT INTO tideline.joined VALUES (1, '"+secretText+"')", nil)
	w.must(ownerPassword, "CREATE DICTIONARY tideline.dict (id UInt64, text String) PRIMARY KEY id SOURCE(CLICKHOUSE(DB 'tideline' TABLE 'joined')) LIFETIME(0) LAYOUT(FLAT())", nil)
	shared.p, shared.at = p, w.addr
	return w
}

// ask sends a statement as people do with curl, and returns the status and the body.
func (w *world) ask(ctx context.Context, password, text string, params url.Values) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+"/?"+params.Encode(), strings.NewReader(text))
	if err != nil {
		return 0, "", err
	}
	r.SetBasicAuth("anyone", password)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

func (w *world) try(password, text string, params url.Values) (int, string) {
	w.t.Helper()
	status, body, err := w.ask(w.t.Context(), password, text, params)
	if err != nil {
		w.t.Fatalf("%.200s: %v", text, err)
	}
	return status, body
}

func (w *world) must(password, text string, params url.Values) string {
	w.t.Helper()
	status, body := w.try(password, text, params)
	if status != http.StatusOK {
		w.t.Fatalf("%.200s: %d %s", text, status, body)
	}
	return body
}

// refused checks that a reader's statement is refused with one of some codes, and that the answer shows nothing.
func (w *world) refused(text string, params url.Values, codes ...string) {
	w.t.Helper()
	status, body := w.try(readerPassword, text, params)
	if status < 400 || !slices.ContainsFunc(codes, func(code string) bool { return strings.HasPrefix(body, "Code: "+code+".") }) {
		w.t.Errorf("%.200s (%v): %d %.300s, want code %v", text, params, status, body, codes)
	}
	if strings.Contains(body, secretText) && !strings.Contains(text, secretText) {
		w.t.Errorf("%.200s: the answer has the secret: %s", text, body)
	}
}

func TestReader_SeesTheViewsByTheContractsNames(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]string{
		"SELECT count() FROM messages": "20006",
		"SELECT count() FROM tideline_analysis.messages WHERE conversation_id = 'g-1';":                                                                       "20000",
		"SELECT text FROM messages WHERE conversation_id = 'g-2' AND seq = 1 -- a comment":                                                                    "said in two",
		"SELECT text, content, recipients, mentions, sender_id FROM messages WHERE conversation_id = 'g-2' AND seq = 2":                                       "\t\t[]\t[]\t12",
		"SELECT count(), uniqExact(conversation_id), any(conversation_type), any(sender_id), max(text) FROM messages WHERE startsWith(conversation_id, 'p-')": "2\t1\tprivate\t0\t",
		"SELECT sum(messages) FROM messages_per_hour":                                                                                                         "20006",
		"SELECT max(senders) FROM messages_per_hour WHERE startsWith(conversation_id, 'p-')":                                                                  "0",
		"SELECT sum(messages) FROM active_senders WHERE sender_id = 11":                                                                                       "6667",
		"SELECT max(readers_so_far) FROM read_through(conversation = 'g-1', number = 5)":                                                                      "2",
		"SELECT count(), sum(user_id) FROM read_marks":                                                                                                        "2\t23",
		"SELECT sum(marks) FROM read_marks_per_hour":                                                                                                          "3",
		"WITH m AS (SELECT seq FROM messages WHERE seq < 3) SELECT count() FROM messages WHERE seq IN (SELECT seq FROM m) AND seq IN m":                       "8",
		"SELECT a.seq FROM messages a JOIN read_marks b ON a.conversation_id = b.conversation_id AND a.seq = b.seq ORDER BY a.seq":                            "5\n17",
		"SELECT number FROM numbers(2) UNION ALL SELECT 7 FROM system.one ORDER BY 1":                                                                         "0\n1\n7",
		"SELECT count() > 100 FROM system.settings":                                                                                                           "1",
		"SELECT sumIf(number, number > 1), quantile(0.5)(number), uniqExactIfOrNull(number, 1) FROM numbers(4)":                                               "5\t1.5\t4",
		"SELECT version() != '', timezone() != '', currentUser(), currentDatabase()":                                                                          "1\t1\tdefault\ttideline_analysis",
		"SHOW TABLES": "active_senders\nmessages\nmessages_per_hour\nread_marks\nread_marks_per_hour\nread_through",
	} {
		if got := strings.TrimSuffix(w.must(readerPassword, text, nil), "\n"); got != want {
			t.Errorf("%s\nreturns %q, want %q", text, got, want)
		}
	}
	if got := w.must(readerPassword, "DESCRIBE messages", nil); !strings.HasPrefix(got, "conversation_id\tString") {
		t.Errorf("DESCRIBE returns %q", got)
	}
	// The views have the columns of the tables that they show.
	for _, table := range []string{"messages", "read_marks", "messages_per_hour", "active_senders"} {
		columns := func(password, database string) string {
			return w.must(password, "SELECT * FROM "+database+"."+table+" LIMIT 0 FORMAT TabSeparatedWithNamesAndTypes", nil)
		}
		if owner, reader := columns(ownerPassword, "tideline"), columns(readerPassword, "tideline_analysis"); owner != reader {
			t.Errorf("%s has the columns\n%s and the view\n%s", table, owner, reader)
		}
	}
	if got := w.must(readerPassword, "SELECT text FROM messages WHERE seq = {n:Int64} AND conversation_id = {c:String} FORMAT JSONEachRow", url.Values{"param_n": {"1"}, "param_c": {"g-2"}, "default_format": {"Native"}}); got != `{"text":"said in two"}`+"\n" {
		t.Errorf("with parameters: %q", got)
	}
	// A question about one group does not read the others.
	plan := w.must(ownerPassword, "EXPLAIN indexes = 1 SELECT text FROM tideline_analysis.messages WHERE conversation_id = 'g-2'", nil)
	if !strings.Contains(plan, "Name: by_public_id") {
		t.Errorf("the index of public ids is not used:\n%s", plan)
	}
}

// What is written here has been tried by hand on the engine, most of it with success before there was a reader.
func TestReader_IsRefusedEverythingElse(t *testing.T) {
	w := newWorld(t)
	out := filepath.Join(t.TempDir(), "out")
	for _, text := range []string{
		"SELECT * FROM tideline.messages", "SELECT * FROM `tideline`.`messages`", "FROM tideline.messages SELECT text", "SELECT text FROM (SELECT * FROM tideline.messages)",
		"SELECT * FROM messages JOIN tideline.messages AS x USING (seq)", "SELECT * FROM messages, tideline.messages", "WITH t AS (SELECT * FROM tideline.messages) SELECT * FROM t",
		"SELECT 1 UNION ALL SELECT text FROM tideline.messages", "SELECT 1 INTERSECT SELECT seq FROM tideline.messages", "SELECT (SELECT max(text) FROM tideline.messages)",
		"SELECT seq IN tideline.joined FROM messages", "SELECT seq IN (tideline.joined) FROM messages", "SELECT in(seq, tideline.joined) FROM messages", "SELECT 1 GLOBAL NOT IN tideline.joined",
		"SELECT EXISTS(SELECT 1 FROM tideline.messages)", "SELECT 1 WHERE 1 = ANY (SELECT seq FROM tideline.messages)", "SELECT * FROM tideline.read_through(conversation = 'g-1', number = 1)",
		"SELECT * FROM tideline.analysis_key", "SELECT * FROM tideline.dict", "SELECT tideline.joined.text FROM messages", "SELECT * FROM system.parts", "SELECT * FROM `system`.`parts_columns`",
		"SELECT * FROM system.processes", "SELECT * FROM system.query_log", "SHOW TABLES FROM tideline", "SHOW TABLES FORMAT Template", "SHOW DATABASES", "SELECT * FROM system.merges", "SELECT * FROM information_schema.tables",
		"SELECT * FROM INFORMATION_SCHEMA.columns", "SELECT * FROM default.anything", "SELECT * FROM messages WHERE seq IN system.numbers",
		"SELECT joinGet('tideline.joined', 'text', 1)", "SELECT joinGet(tideline.joined, 'text', toInt64(1))", "SELECT dictGet('tideline.dict', 'text', 1)", "SELECT dictGet(tideline.dict, 'text', 1)",
		"SELECT hasColumnInTable('tideline', 'joined', 'text')", "SELECT * FROM merge('tideline', 'joined')", "SELECT * FROM merge('joined')", "SELECT * FROM remote('127.0.0.1', 'tideline.joined')",
		"SELECT * FROM cluster('default', tideline.joined)", "SELECT * FROM view(SELECT * FROM tideline.joined)", "SELECT * FROM view(SELECT 1)", "SELECT * FROM dictionary('tideline.dict')", "SELECT * FROM loop(tideline.joined)",
		"SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))", "SELECT * FROM (EXPLAIN SELECT * FROM messages)", "SELECT * FROM mergeTreeIndex(tideline, messages)", "SELECT * FROM executable('id', 'TSV', 'a String')",
		"SELECT * FROM file('" + w.file + "', 'LineAsString')", "SELECT file('" + w.file + "')", "SELECT * FROM url('http://" + w.addr + "/', 'LineAsString')", "SELECT * FROM sqlite('" + w.file + "', 'users')",
		"DESCRIBE tideline.messages", "DESCRIBE TABLE file('" + w.file + "', 'LineAsString')", "DESC (SELECT * FROM tideline.messages)", "SHOW CREATE TABLE messages", "SHOW CREATE VIEW tideline_analysis.messages",
		"SHOW CREATE DATABASE tideline", "SHOW TABLES FROM tideline", "SHOW DATABASES", "SHOW PROCESSLIST", "SHOW COLUMNS FROM tideline.messages", "SHOW SETTINGS LIKE 'readonly'", "SHOW CLUSTERS", "SHOW MERGES", "SHOW GRANTS",
		"EXISTS tideline.messages", "EXISTS TABLE messages", "EXPLAIN SELECT * FROM messages", "EXPLAIN AST SELECT * FROM messages", "EXPLAIN SYNTAX SELECT * FROM messages", "EXPLAIN QUERY TREE SELECT * FROM messages",
		"EXPLAIN PLAN actions = 1 SELECT * FROM messages", "EXPLAIN PIPELINE SELECT 1", "EXPLAIN ESTIMATE SELECT * FROM messages", "EXPLAIN TABLE OVERRIDE tideline.messages PARTITION BY 1",
		"USE tideline", "SET readonly = 0", "SET readonly = DEFAULT", "SET max_execution_time = 0", "SELECT 1 SETTINGS readonly = 0", "SELECT 1 SETTINGS readonly = DEFAULT", "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
		"SELECT 1 SETTINGS max_execution_time = 0", "SELECT 1 FORMAT JSON SETTINGS max_memory_usage = 0", "SELECT 1; DROP TABLE tideline.read_marks", "SELECT 1; SELECT * FROM tideline.messages", "SELECT 1 /* ; */ ; SELECT 2",
		"SELECT 1;\n-- x\nSELECT text FROM tideline.messages", "DROP TABLE tideline.read_marks", "TRUNCATE TABLE tideline.read_marks", "ALTER TABLE tideline.messages DELETE WHERE 1", "ALTER TABLE tideline.messages UPDATE text = '' WHERE 1",
		"DELETE FROM tideline.messages WHERE 1", "UPDATE tideline.messages SET text = '' WHERE 1", "CREATE TABLE tideline_analysis.mine (a Int8) ENGINE = Memory", "CREATE TEMPORARY TABLE mine (a Int8)", "CREATE VIEW mine AS SELECT * FROM tideline.messages",
		"CREATE FUNCTION f AS x -> x", "CREATE USER u", "GRANT ALL ON *.* TO default", "INSERT INTO tideline.joined VALUES (2, 'x')", "INSERT INTO tideline.joined SELECT 2, 'x'", "INSERT INTO tideline.joined FORMAT CSV 2,x",
		"INSERT INTO FUNCTION file('" + out + "', 'CSV', 'a String') SELECT 'x'", "SELECT 1 INTO OUTFILE '" + out + "'", "SELECT text FROM messages INTO OUTFILE '" + out + "' FORMAT CSV", "(SELECT 1) UNION ALL (SELECT 2) INTO OUTFILE '" + out + "'",
		"DESCRIBE messages INTO OUTFILE '" + out + "'", "KILL QUERY WHERE 1", "SYSTEM FLUSH LOGS", "SYSTEM SHUTDOWN", "OPTIMIZE TABLE tideline.messages", "BACKUP TABLE tideline.messages TO File('" + out + "')", "ATTACH TABLE tideline.x FROM '/tmp' (a Int8) ENGINE = TinyLog",
		"DETACH TABLE tideline.messages", "RENAME TABLE tideline.messages TO tideline.x", "EXCHANGE TABLES tideline.messages AND tideline.read_marks", "CHECK TABLE tideline.messages", "WATCH tideline.messages", "BEGIN TRANSACTION", "EXECUTE AS default SELECT 1",
		"SELECT getSetting('log_comment')", "SELECT hostName()", "SELECT getMacro('x')", "SELECT getServerSetting('max_connections')", "SELECT filesystemAvailable()", "SELECT sleep(3)", "SELECT catboostEvaluate('/x', 1)", "SELECT aiGenerate('x', 'y')",
		"SELECT * APPLY(file) FROM (SELECT '" + w.file + "')", "SELECT COLUMNS('text') APPLY(x -> file('" + w.file + "')) FROM messages", "SELECT sum(1) OVER w FROM numbers(3) WINDOW w AS (PARTITION BY file('" + w.file + "'))",
		"SELECT 1 FORMAT Template", "SELECT 1 FORMAT MySQLWire", "SELECT 1 AS `x\n Identifier JSON`, text FROM tideline.joined", "SELECT 1 AS `a)\nTableIdentifier messages (alias b` FROM tideline.joined", "SELECT * FROM `tideline.joined`",
		"SELECT arrayReduce('sumIf', [1], [2]), file('" + w.file + "')", "graph = 1 SELECT 1", "optimize = 0 SELECT 1", "", ";", "-- nothing", "1 + 1; SELECT 2",
	} {
		w.refused(text, nil, "497", "62", "164", "36")
	}
	for name, value := range map[string]string{"t": "tideline.joined", "u": "joined", "d": "tideline"} {
		params := url.Values{"param_" + name: {value}, "param_d": {"tideline"}, "param_u": {"joined"}, "param_t": {"tideline.joined"}}
		for _, text := range []string{"SELECT * FROM {d:Identifier}.{u:Identifier}", "SELECT 1 IN {d:Identifier}.{u:Identifier}", "SELECT * FROM {t:Identifier}", "SELECT * FROM merge({d:String}, {u:String})"} {
			w.refused(text, params, "497", "60", "62")
		}
	}
	for name, value := range map[string]string{
		"readonly": "0", "max_memory_usage": "0", "max_result_rows": "0", "result_overflow_mode": "break", "timeout_overflow_mode": "break", "allow_ddl": "1", "allow_introspection_functions": "1", "log_comment": "x",
		"max_threads": "64", "additional_table_filters": "{}", "additional_result_filter": "1", "dialect": "kusto", "implicit_select": "1", "format_schema": "x", "format_template_resultset": w.file, "aggregate_functions_null_for_empty": "1",
		"max_query_size": "1000000", "sql_security": "x", "no_such_setting": "1", "a = 1; DROP TABLE x": "1", "user_files_path": "/",
	} {
		w.refused("SELECT 1", url.Values{name: {value}}, "164", "115")
	}
	w.refused("SELECT count() FROM messages", url.Values{"database": {"tideline"}}, "497")
	w.refused("SELECT 1", url.Values{"default_format": {"Template"}}, "497")
	w.refused("SELECT '"+strings.Repeat("x", maxReadText)+"'", nil, "62")
	if _, err := os.Stat(out); err == nil {
		t.Error("a reader wrote a file")
	}
	if got := w.must(ownerPassword, "SELECT count(), (SELECT count() FROM tideline.messages) FROM tideline.read_marks", nil); got != "3\t20006\n" {
		t.Errorf("after all of these the archive has %q", got)
	}
	for _, password := range []string{"", "wrong", readerPassword + "x"} {
		if status, body := w.try(password, "SELECT 1", nil); status != http.StatusUnauthorized {
			t.Errorf("password %q: %d %s", password, status, body)
		}
	}
}

// A function may be in many places of a statement: the tree must show each of them.
func TestReader_IsRefusedAFunctionWhereverItStands(t *testing.T) {
	w := newWorld(t)
	const f = "toUInt64(length(file('/etc/hostname')))"
	for _, text := range []string{
		"SELECT @", "SELECT DISTINCT ON (@) 1", "SELECT 1 WHERE @", "SELECT 1 FROM numbers(3) PREWHERE @", "SELECT 1 FROM numbers(3) GROUP BY @", "SELECT 1 FROM numbers(3) GROUP BY GROUPING SETS ((@))", "SELECT count() FROM numbers(3) HAVING @",
		"SELECT count() FROM numbers(3) QUALIFY @", "SELECT 1 ORDER BY @", "SELECT number FROM numbers(3) ORDER BY number WITH FILL FROM @", "SELECT number FROM numbers(3) ORDER BY number WITH FILL TO @", "SELECT number FROM numbers(3) ORDER BY number WITH FILL STEP @",
		"SELECT number FROM numbers(3) ORDER BY number WITH FILL STALENESS @", "SELECT number, 1 AS a FROM numbers(3) ORDER BY number WITH FILL INTERPOLATE (a AS @)", "SELECT 1 LIMIT @", "SELECT 1 LIMIT 1 OFFSET @", "SELECT 1 FROM numbers(3) LIMIT @ BY 1", "SELECT 1 FROM numbers(3) LIMIT 1 BY @",
		"SELECT 1 FROM numbers(3) LIMIT 1 OFFSET @ BY 1", "SELECT 1 ORDER BY 1 OFFSET 0 ROWS FETCH FIRST @ ROWS ONLY", "SELECT 1 FROM numbers(@)", "SELECT 1 FROM values('a UInt64', @)", "SELECT 1 FROM numbers(3) ARRAY JOIN [@] AS x", "SELECT 1 FROM numbers(3) AS a JOIN numbers(3) AS b ON @ = b.number",
		"WITH @ AS x SELECT x", "WITH x AS (SELECT @) SELECT * FROM x", "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT @ FROM r) SELECT * FROM r", "SELECT (SELECT @)", "SELECT arrayMap(x -> @, [1])", "SELECT quantile(@)(1)", "SELECT sum(1) FILTER (WHERE @)", "SELECT CASE @ WHEN 1 THEN 2 END",
		"SELECT CASE WHEN @ THEN 2 END", "SELECT CASE 1 WHEN 1 THEN @ END", "SELECT sum(1) OVER (PARTITION BY @)", "SELECT sum(1) OVER (ORDER BY @)", "SELECT sum(1) OVER (ORDER BY 1 ROWS BETWEEN @ PRECEDING AND CURRENT ROW)", "SELECT sum(1) OVER w FROM numbers(3) WINDOW w AS (ORDER BY @)",
		"SELECT * REPLACE (@ AS number) FROM numbers(3)", "SELECT * APPLY(x -> @) FROM numbers(3)", "SELECT [@][1], (@, 1).1", "SELECT 1 BETWEEN @ AND 2", "SELECT 1 IN (@)", "SELECT @::String", "SELECT INTERVAL @ DAY", "SELECT EXTRACT(YEAR FROM toDate(@))", "SELECT 1 ? @ : 2", "SELECT 1 EXCEPT SELECT @", "SELECT @ FORMAT JSON",
		"SELECT messages_per_hour.hour FROM read_through(conversation = toString(@), number = 1)", "DESCRIBE (SELECT @)", "SELECT 'a' LIKE toString(@)", "SELECT map('a', @)", "SELECT sumIf(1, @)", "SELECT TRIM(LEADING toString(@) FROM 'a')", "SELECT SUBSTRING('abc' FROM @ FOR 1)", "SELECT POSITION(toString(@) IN 'a')", "SELECT DATE_ADD(DAY, @, now())",
	} {
		w.refused(strings.ReplaceAll(text, "@", f), nil, "497")
	}
}

func TestReader_EveryFunctionOfTheEngineIsDecidedOn(t *testing.T) {
	w := newWorld(t)
	list := func(text string) []string { return strings.Fields(w.must(ownerPassword, text, nil)) }
	allowed := strings.Fields(functionsText)
	engine := list("SELECT name FROM system.functions WHERE origin = 'System'")
	if len(engine) < 1500 {
		t.Fatalf("the engine has %d functions", len(engine))
	}
	for _, name := range engine {
		if in, out := slices.Contains(allowed, name), slices.Contains(refusedFunctions, name); in == out {
			t.Errorf("function %s: allowed is %v, refused is %v", name, in, out)
		}
	}
	for _, name := range append(slices.Clone(allowed), refusedFunctions...) {
		if !slices.Contains(engine, name) {
			t.Errorf("function %s is decided on, and the engine does not have it", name)
		}
	}
	for _, name := range refusedFunctions {
		w.refused("SELECT "+quoteName(name)+"('tideline.joined', 'text', 1)", nil, "497")
		w.refused("SELECT "+quoteName(strings.ToUpper(name))+"('tideline.joined')", nil, "497")
	}
	for _, name := range list("SELECT name FROM system.table_functions") {
		in, out := readTableFunctions[strings.ToLower(name)] || name == "format", slices.Contains(refusedTableFunctions, name)
		if in == out {
			t.Errorf("table function %s: allowed is %v, refused is %v", name, in, out)
		}
		if !in {
			w.refused("SELECT * FROM "+quoteName(name)+"('tideline', 'joined')", nil, "497", "62")
			w.refused("DESCRIBE "+quoteName(name)+"('"+w.file+"')", nil, "497", "62")
		}
	}
	if engine := list("SELECT name FROM system.aggregate_function_combinators"); len(engine) != len(combinators) {
		t.Errorf("the engine has the combinators %v", engine)
	}
	for _, name := range list("SELECT name FROM system.formats WHERE is_output") {
		if readFormats[name] {
			w.must(readerPassword, "SELECT 'x' AS a FORMAT "+name, nil)
		} else {
			w.refused("SELECT 1 AS a FORMAT "+name, nil, "497")
		}
	}
	// No table of the engine, and none of the archive.
	tables := list("SELECT concat(database, '.', name) FROM system.tables WHERE database != 'tideline_analysis'")
	if len(tables) < 50 {
		t.Fatalf("the engine has %d tables", len(tables))
	}
	for _, table := range tables {
		if _, copied := catalog[strings.TrimPrefix(table, "system.")]; !copied && !readSystemTables[table] {
			w.refused("SELECT * FROM "+table, nil, "497")
			w.refused("SELECT 1 IN "+table, nil, "497")
		}
	}
}

// What tools ask of the engine's tables is answered with the views alone, whatever the names are quoted with and wherever
// they are, and shows nothing of how these are made.
func TestReader_CatalogHasTheViewsAlone(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]string{
		"SELECT name FROM system.databases":                                                                                                                  "tideline_analysis",
		"SELECT count(), uniqExact(t.database) FROM SYSTEM.tables AS t":                                                                                      "6\t1",
		"SELECT DISTINCT database FROM `system`.`columns` UNION ALL SELECT DISTINCT database FROM \"system\" . \"tables\"":                                   "tideline_analysis\ntideline_analysis",
		"SELECT system.tables.name FROM system.tables JOIN system.databases d ON system.tables.database = d.name WHERE system.tables.name LIKE 'read_m%k%s'": "read_marks",
		"SELECT 'system.tables', `x system.tables` /* system.tables */ FROM (SELECT 1 AS `x system.tables`) -- system.tables":                                "system.tables\t1",
		"SELECT * FROM (SELECT count() FROM system.columns WHERE table = 'messages') WHERE 1 IN (SELECT 1 FROM system.tables)":                               "17",
		"SELECT maxOrNull(total_rows), max(length(create_table_query)), max(length(as_select)), max(length(data_paths)) FROM system.tables":                  "\\N\t0\t0\t0",
		"SHOW TABLES FORMAT CSV": `"active_senders"` + "\n" + `"messages"` + "\n" + `"messages_per_hour"` + "\n" + `"read_marks"` + "\n" + `"read_marks_per_hour"` + "\n" + `"read_through"`,
	} {
		if got := strings.TrimSuffix(w.must(readerPassword, text, nil), "\n"); got != want {
			t.Errorf("%s\nreturns %q, want %q", text, got, want)
		}
	}
	for name := range catalog {
		body := w.must(readerPassword, "SELECT * FROM system."+name+" FORMAT JSONEachRow", nil)
		for _, secret := range []string{"analysis_key", "joined", `"tideline"`, "sipHash", "SELECT", "/"} {
			if strings.Contains(body, secret) {
				t.Errorf("system.%s shows %s", name, secret)
			}
		}
		w.refused("INSERT INTO system."+name+" SELECT 1", nil, "497")
		w.refused("DROP TABLE system."+name, nil, "497")
		w.refused("SELECT throwIf(name = 'joined') FROM system."+name+" UNION ALL SELECT 1 FROM system.parts", nil, "497")
	}
	if got := w.must(ownerPassword, "SELECT count() FROM system.tables WHERE name = 'joined'", nil); got != "1\n" {
		t.Errorf("the owner sees %q", got)
	}
}

// Whatever a reader does with the views, nothing of a private conversation is in the answer, in an error no more than in a row.
func TestReader_NeverSeesWhatIsPrivate(t *testing.T) {
	w := newWorld(t)
	hidden := []string{secretText, "77000000000000"}
	check := func(text string) {
		t.Helper()
		_, body := w.try(readerPassword, text, nil)
		for _, part := range hidden {
			if strings.Contains(body, part) && !strings.Contains(text, part) {
				t.Errorf("%s\nshows %q: %.300s", text, part, body)
			}
		}
	}
	columns := strings.Split(strings.TrimSpace(w.must(readerPassword, "SELECT * FROM messages LIMIT 0 FORMAT TabSeparatedWithNames", nil)), "\t")
	if len(columns) < 15 {
		t.Fatalf("the view has the columns %q", columns)
	}
	for _, view := range []string{"messages", "read_marks", "messages_per_hour", "active_senders", "read_marks_per_hour", "read_through(conversation = 'p-770000000000001-770000000000002', number = 1)"} {
		check("SELECT * FROM " + view + " WHERE conversation_id != 'g-1' FORMAT JSON")
		check("SELECT * FROM " + view + " LIMIT 100 FORMAT JSON")
	}
	// A condition that fails says on what it failed.
	for _, view := range []string{"messages", "read_marks"} {
		names := columns
		if view == "read_marks" {
			names = []string{"user_id", "conversation_id", "seq", "at"}
		}
		for _, column := range names {
			for _, condition := range []string{
				"toUInt8(toString(%s)) = 1", "throwIf(toString(%s) LIKE '%%7700000%%') = 1", "toDateTime(toString(%s)) > 0", "throwIf(positionCaseInsensitive(toString(%s), 'XYZZY') > 0)", "CAST(toString(%s) AS UUID) IS NULL",
				"parseDateTime(toString(%s), '%%Y') > 0", "JSONExtractString(toString(%s), 'text') = 'x' AND throwIf(1)",
			} {
				c := fmt.Sprintf(condition, column)
				check("SELECT count() FROM " + view + " WHERE " + c)
				check("SELECT count() FROM " + view + " PREWHERE " + c)
				check("SELECT count() FROM " + view + " WHERE seq = 2 AND " + c + " ORDER BY seq LIMIT 1")
				// The condition does not even hold for a private row: throwIf would say so.
				if status, body := w.try(readerPassword, "SELECT count() FROM "+view+" WHERE throwIf(toString("+column+") LIKE '%7700000%' OR toString("+column+") LIKE '%xyzzy%') = 1", nil); status != http.StatusOK {
					t.Errorf("%s of %s was seen by a condition: %s", column, view, body)
				}
			}
		}
	}
	// The id is a keyed hash, and the key cannot be had.
	id := strings.TrimSpace(w.must(readerPassword, "SELECT DISTINCT conversation_id FROM messages WHERE conversation_type = 'private'", nil))
	if len(id) != 2+32 || !strings.HasPrefix(id, "p-") {
		t.Fatalf("a private conversation has the id %q", id)
	}
	for _, hash := range []string{"sipHash128(%s)", "sipHash128Reference(%s)", "sipHash128Keyed((toUInt64(0), toUInt64(0)), %s)", "sipHash128ReferenceKeyed((toUInt64(0), toUInt64(0)), %s)", "MD5(%s)"} {
		if got := w.must(readerPassword, "SELECT lower(hex("+fmt.Sprintf(hash, "'p-770000000000001-770000000000002'")+"))", nil); strings.Contains(got, id[2:]) {
			t.Errorf("the id is %s", hash)
		}
	}
	for _, text := range []string{"SELECT k0 FROM messages", "SELECT k.k0 FROM messages", "SELECT public_id FROM messages", "SELECT m.conversation_id FROM messages", "SELECT r.user_id FROM read_marks", "SELECT _part, _table FROM messages"} {
		w.refused(text, nil, "47", "497")
	}
}

// longStatement runs until it is ended.
const longStatement = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"

func (w *world) running() string {
	w.t.Helper()
	return strings.TrimSpace(w.must(ownerPassword, "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT count() FROM numbers(1000000000000)')", nil))
}

func (w *world) await(want string, patience time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	for w.running() != want {
		if time.Since(began) > patience {
			w.t.Fatalf("%s statements of readers run after %s, want %s", w.running(), patience, want)
		}
	}
	return time.Since(began)
}

func TestReader_AStatementEndsWhenItsClientGoes(t *testing.T) {
	w := newWorld(t)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _, _ = w.ask(ctx, readerPassword, longStatement, nil) // its end is the client's
	}()
	w.await("1", readerTime)
	// The owner does not wait for a reader.
	w.must(ownerPassword, "SELECT count() FROM tideline.messages", nil)
	leave()
	<-gone
	t.Logf("the statement ended %s after its client had gone", w.await("0", readerTime/2))
	w.must(readerPassword, "SELECT 1", nil)
}

func TestReader_IsBounded(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	w.refused(longStatement, nil, "159")
	if took := time.Since(began); took < readerTime/2 {
		t.Errorf("the time limit came after %s", took)
	}
	w.refused(longStatement, url.Values{"max_execution_time": {"0.2"}}, "159") // may be shortened
	w.refused(longStatement, url.Values{"max_execution_time": {"1000000"}}, "159")
	w.refused("SELECT number FROM numbers(1000001)", nil, "396")
	w.refused("SELECT repeat(toString(number), 1000000) FROM numbers(100000)", nil, "241")
	w.refused("SELECT repeat('x', 1000000) FROM numbers(1000)", nil, "396", "241", "159")
	// Not a setting of the engine bounds this one: a long name is in each row.
	w.refused("SELECT number AS `"+strings.Repeat("x", 200_000)+"` FROM numbers(500000) FORMAT JSONEachRow", nil, "241", "159")
	if got := w.must(readerPassword, "SELECT count() FROM messages", nil); got != "20006\n" {
		t.Errorf("afterwards: %q", got)
	}
	// More at once than may wait are refused, and the owner is not among them.
	var wg sync.WaitGroup
	busy := make([]string, 3*maxReads)
	for i := range busy {
		wg.Go(func() {
			if status, _, err := w.ask(t.Context(), readerPassword, longStatement, url.Values{"max_execution_time": {"0.3"}}); err == nil {
				busy[i] = fmt.Sprint(status)
			}
		})
	}
	w.await("1", readerTime)
	w.must(ownerPassword, "SELECT 1", nil)
	wg.Wait()
	if !slices.Contains(busy, "503") || slices.Contains(busy, "") {
		t.Errorf("%d at once are answered %v", len(busy), busy)
	}
}

// A reader can make any bytes with RawBLOB. They were decoded as blocks, which allocate what they say, where the server and
// the engine's parser saw different formats.
func TestReader_BytesOfAStatementAreNotDecodedAsBlocks(t *testing.T) {
	w := newWorld(t)
	block := claim(900_000_000, "UInt64", "")
	ask := func(text string, header bool, params url.Values) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/?"+params.Encode(), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("anyone", readerPassword)
		if header {
			r.Header.Set("X-ClickHouse-Format", "Native")
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return answer.StatusCode, string(body)
	}
	made := 0
	for _, end := range []string{
		"", ";", " ;", ";;", " -- x", " --x", "\n-- x\n", " /* */", " /**/", "/* x */;", "; -- x", " # x", " #! x", "\n#!x", "\n", "\n\n ", "\t", "\x00", "\u00a0", " -- FORMAT Native", " /* FORMAT Native */", " /* FORMAT Native", "; # FORMAT Native", " /* /* */ */",
	} {
		for _, format := range []string{"FORMAT RawBLOB", "format RawBLOB", "FORMAT/**/RawBLOB", "FORMAT -- x\n RawBLOB", "FORMAT `RawBLOB`", "FORMAT \"RawBLOB\"", "FORMAT rawblob", ""} {
			for given, params := range map[string]url.Values{
				"Native": {"default_format": {"Native"}}, "native": {"default_format": {"native"}}, "RawBLOB": {"default_format": {"RawBLOB"}}, "": {},
			} {
				for _, header := range []bool{false, true} {
					params.Set("client_protocol_version", "54460")
					text := fmt.Sprintf("SELECT unhex('%x') AS a ", block) + format + end
					status, body := ask(text, header, params)
					switch {
					case status >= http.StatusInternalServerError && !strings.HasPrefix(body, "Code: "), strings.HasPrefix(body, "Code: 1001."):
						t.Errorf("%q with the format %q: %d %s", text, given, status, body)
					case status == http.StatusOK && strings.Contains(strings.ToLower(format), "rawblob"):
						if body != string(block) {
							t.Errorf("%q with the format %q: %q", text, given, body)
						}
						made++
					}
				}
			}
		}
	}
	if made < 100 {
		t.Errorf("%d statements were run", made)
	}
	native := url.Values{"default_format": {"Native"}, "client_protocol_version": {"54460"}}
	blocks := w.must(readerPassword, "SELECT 1 AS a", native)
	for text, same := range map[string]bool{
		"SELECT 1 AS a FORMAT Native": true, "SELECT 1 AS a -- FORMAT CSV": true, "SELECT 1 AS a FORMAT Native /* FORMAT CSV */": true, "SELECT 1 AS a FORMAT CSV": false, "SELECT 1 AS a FORMAT CSV -- x": false,
	} {
		for _, password := range []string{readerPassword, ownerPassword} {
			if got := w.must(password, text, native); (got == blocks) != same {
				t.Errorf("%s: %q", text, got)
			}
		}
	}
}

// The blocks of each type that the engine makes come through the check of their lengths.
func TestServer_BlocksOfEveryTypeAreTranscoded(t *testing.T) {
	w := newWorld(t)
	native := url.Values{"default_format": {"Native"}, "client_protocol_version": {"54460"}}
	for _, value := range []string{
		"number", "toString(number)", "[number, 2]", "arrayMap(x -> [toString(x)], range(number))", "map('a', number)", "CAST(map('a', [1]) AS Map(LowCardinality(String), Array(Nullable(UInt8))))", "tuple(number)", "CAST(tuple(number, 'x') AS Tuple(a UInt8, b String))",
		"CAST(tuple(number, 'x') AS Tuple(`values` UInt8, `from` LowCardinality(String)))", "toNullable(number)", "if(number % 2 = 0, NULL, toString(number))", "toLowCardinality(toString(number))", "toLowCardinality(toNullable(toString(number)))", "[toLowCardinality(toString(number))]",
		"arrayMap(x -> toLowCardinality(toString(x)), range(number % 2))", "emptyArrayString()", "toFixedString('abc', 3)", "toDecimal32(number, 2)", "toDecimal64(number, 2)", "toDecimal128(number, 2)", "toDecimal256(number, 2)",
		"CAST(number % 2 + 1 AS Enum8('a)' = 1, 'b, (' = 2))", "CAST(1 AS Enum16('it\\'s' = 1))", "toDate('2026-03-01')", "toDate32('2026-03-01')", "toDateTime(number)", "toDateTime(number, 'UTC')", "toDateTime64(number, 3)", "toDateTime64(number, 3, 'UTC')",
		"toIntervalDay(number)", "toIntervalNanosecond(1)", "toUUID('00000000-0000-0000-0000-000000000001')", "toIPv4('127.0.0.1')", "toIPv6('::1')", "toInt128(number)", "toUInt256(number)", "toFloat32(number)", "true", "CAST((1, 2) AS Point)",
		"CAST([(1., 2.)] AS Ring)", "CAST([[(1., 2.)]] AS Polygon)", "CAST([[[(1., 2.)]]] AS MultiPolygon)", "CAST([(number, 'x')] AS Nested(a UInt64, b String))", "CAST(number AS SimpleAggregateFunction(sum, UInt64))",
	} {
		for _, rows := range []string{"0", "1", "1000"} {
			text := "SELECT " + value + " AS a FROM numbers(" + rows + ")"
			if status, body := w.try(ownerPassword, text, native); status != http.StatusOK {
				t.Errorf("%s: %d %.300s", text, status, body)
			}
		}
	}
}

// Statements that are sent slowly take no seat of a reader, and end after some seconds.
func TestReader_SlowBodiesKeepNoOtherReaderOut(t *testing.T) {
	w := newWorld(t)
	answers := make(chan string, maxBodies+maxReads)
	slow := func(n int) {
		t.Helper()
		for range n {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
			r.SetBasicAuth("anyone", readerPassword)
			if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: 100\r\n\r\nSELECT", r.Header.Get("Authorization")); err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = c.SetReadDeadline(time.Now().Add(time.Minute))
				line, _ := bufio.NewReader(c).ReadString('\n')
				answers <- strings.TrimSpace(line)
			}()
		}
	}
	slow(2 * maxReads)
	w.must(readerPassword, "SELECT 1", nil)
	// More of them than are read at once are refused, and the owner is not among them.
	slow(maxBodies - maxReads)
	w.must(ownerPassword, "SELECT 1", nil)
	for range maxBodies + maxReads {
		if got := <-answers; !strings.HasPrefix(got, "HTTP/1.1 408 ") && !strings.HasPrefix(got, "HTTP/1.1 503 ") {
			t.Fatalf("a body that does not come is answered %q", got)
		}
	}
	w.must(readerPassword, "SELECT 1", nil)
}
