package chdb_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"tideline/internal/servers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	servers.Stop()
	os.Exit(code)
}

// connect gives the ordinary client on a database of its own.
func connect(t *testing.T, change func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	o, err := clickhouse.ParseDSN(servers.ClickHouse(t))
	if err != nil {
		t.Fatal(err)
	}
	database := o.Auth.Database
	o.Auth.Database = "default"
	maker, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Exec(t.Context(), "CREATE DATABASE "+database); err != nil {
		t.Fatal(err)
	}
	_ = maker.Close()
	o.Auth.Database = database
	if change != nil {
		change(o)
	}
	conn, err := clickhouse.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const everyKind = `CREATE TABLE kinds (
  id Int64, text String, low LowCardinality(String), at DateTime64(3, 'UTC'), day Date, list Array(Int64), maybe Nullable(String),
  yes Bool, price Decimal(18, 4), uid UUID, pairs Map(String, UInt32), half Float64
) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100`

type kinds struct {
	ID    int64             `ch:"id"`
	Text  string            `ch:"text"`
	Low   string            `ch:"low"`
	At    time.Time         `ch:"at"`
	List  []int64           `ch:"list"`
	Maybe *string           `ch:"maybe"`
	Yes   bool              `ch:"yes"`
	Pairs map[string]uint32 `ch:"pairs"`
	Half  float64           `ch:"half"`
}

func sample(id int64) kinds {
	k := kinds{
		ID: id, Text: fmt.Sprintf("line\n%d 'quoted' \\ ünï\x00code \t", id), Low: fmt.Sprint(id % 7), At: time.UnixMilli(1_700_000_000_123 + id).UTC(), Yes: id%2 == 0,
		Pairs: map[string]uint32{"a": uint32(id)}, Half: float64(id) / 2, List: []int64{},
	}
	for n := range id % 4 {
		k.List = append(k.List, n)
	}
	if id%3 == 0 {
		text := fmt.Sprint("maybe ", id)
		k.Maybe = &text
	}
	return k
}

func put(ctx context.Context, conn driver.Conn, from, to int64) error {
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO kinds (id, text, low, at, list, maybe, yes, pairs, half)")
	if err != nil {
		return err
	}
	for id := from; id < to; id++ {
		k := sample(id)
		if err := batch.AppendStruct(&k); err != nil {
			return err
		}
	}
	return batch.Send()
}

func TestServer_GivesTheOrdinaryClientBackWhatItPut(t *testing.T) {
	for name, change := range map[string]func(*clickhouse.Options){
		"plain": nil,
		"lz4": func(o *clickhouse.Options) {
			o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
		},
		"zstd": func(o *clickhouse.Options) {
			o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionZSTD}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, change)
			if err := conn.Exec(t.Context(), everyKind); err != nil {
				t.Fatal(err)
			}
			const n = 150_000 // several blocks of the engine
			if err := put(t.Context(), conn, 0, n); err != nil {
				t.Fatal(err)
			}
			rows, err := conn.Query(t.Context(), "SELECT id, text, low, at, list, maybe, yes, pairs, half FROM kinds WHERE id >= ? ORDER BY id", int64(0))
			if err != nil {
				t.Fatal(err)
			}
			seen := int64(0)
			for ; rows.Next(); seen++ {
				var got kinds
				if err := rows.ScanStruct(&got); err != nil {
					t.Fatal(err)
				}
				want := sample(seen)
				a, b := fmt.Sprint(got.Maybe != nil, want.Maybe), fmt.Sprint(want.Maybe != nil, want.Maybe)
				if got.Maybe != nil && want.Maybe != nil && *got.Maybe != *want.Maybe {
					a = *got.Maybe
				}
				got.Maybe, want.Maybe = nil, nil
				if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || a != b {
					t.Fatalf("row %d came back as\n%+v %s, want\n%+v %s", seen, got, a, want, b)
				}
			}
			if err := rows.Err(); err != nil || seen != n {
				t.Fatalf("%d rows came back, %v", seen, err)
			}
		})
	}
}

func TestServer_TakesABlockOnceForEachToken(t *testing.T) {
	conn := connect(t, nil)
	if err := conn.Exec(t.Context(), everyKind); err != nil {
		t.Fatal(err)
	}
	with := func(token string) context.Context {
		return clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"insert_deduplicate": 1, "insert_deduplication_token": token}))
	}
	for _, token := range []string{"a'b\\", "a'b\\", "c"} {
		if err := put(with(token), conn, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	// The token of a statement is not the next one's: the same rows without one are taken again.
	if err := put(t.Context(), conn, 0, 5); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), conn, 5, 10); err != nil {
		t.Fatal(err)
	}
	var n uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM kinds").Scan(&n); err != nil || n != 30 {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func TestServer_TellsErrorsAsClickHouseDoesAndGoesOn(t *testing.T) {
	conn := connect(t, nil)
	for text, code := range map[string]int32{
		"SELECT * FROM nowhere": 60,
		"SELEC 1":               62,
		"SELECT throwIf(number > 5) FROM numbers(10)": 395,
	} {
		err := conn.Exec(t.Context(), text)
		var said *clickhouse.Exception
		if !errors.As(err, &said) || said.Code != code {
			t.Errorf("%s: %v", text, err)
		}
	}
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 1}))
	var said *clickhouse.Exception
	if err := conn.Exec(ctx, "SELECT 1"); !errors.As(err, &said) || said.Code != 115 {
		t.Errorf("an unknown setting: %v", err)
	}
	var one uint8
	if err := conn.QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil || one != 1 {
		t.Fatalf("after the errors: %v", err)
	}
}

func TestServer_KeepsDatabasesAndSettingsOfManyClientsApart(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		conn := connect(t, nil)
		wg.Go(func() {
			if err := conn.Exec(t.Context(), "CREATE TABLE mine (n Int64) ENGINE = MergeTree ORDER BY n"); err != nil {
				t.Error(err)
				return
			}
			for n := range 20 {
				ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_threads": i + 1}), clickhouse.WithParameters(clickhouse.Parameters{"n": fmt.Sprint(n)}))
				if err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO mine VALUES (%d)", i)); err != nil {
					t.Error(err)
					return
				}
				var threads uint64
				var given int64
				if err := conn.QueryRow(ctx, "SELECT toUInt64(getSetting('max_threads')), {n:Int64}").Scan(&threads, &given); err != nil || threads != uint64(i+1) || given != int64(n) {
					t.Errorf("client %d has %d threads and %d: %v", i, threads, given, err)
				}
			}
			var n, others uint64
			if err := conn.QueryRow(t.Context(), "SELECT count(), countIf(n != ?) FROM mine", i).Scan(&n, &others); err != nil || n != 20 || others != 0 {
				t.Errorf("client %d has %d rows, %d of others: %v", i, n, others, err)
			}
		})
	}
	wg.Wait()
}

func TestServer_TakesWhatPeopleTypeWithCurl(t *testing.T) {
	u, err := url.Parse(servers.ClickHouse(t))
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + u.Host + "/?"
	ask := func(params url.Values, header http.Header, body []byte) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+params.Encode(), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			r.Header[k] = v
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	expect := func(params url.Values, header http.Header, body []byte, status int, part string) {
		t.Helper()
		if got, text := ask(params, header, body); got != status || !strings.Contains(text, part) {
			t.Fatalf("%v %.80s: %d %q, want %d with %q", params, body, got, text, status, part)
		}
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "SELECT 40 + 2;")
	_ = z.Close()
	table := fmt.Sprintf("typed_%d", time.Now().UnixNano())
	expect(nil, nil, []byte("CREATE TABLE "+table+" (a Int64, s String) ENGINE = MergeTree ORDER BY a"), 200, "")
	expect(nil, nil, []byte("INSERT INTO "+table+" FORMAT JSONEachRow\n{\"a\":1,\"s\":\"one\\ntwo\"}\n{\"a\":2,\"s\":\"x\"}"), 200, "")
	expect(url.Values{"query": {"INSERT INTO " + table + " FORMAT TabSeparated"}}, nil, []byte("3\tthree\n"), 200, "")
	expect(nil, nil, []byte("INSERT INTO "+table+" VALUES (4, 'FORMAT four')"), 200, "")
	expect(nil, nil, []byte("SELECT count(), max(a) FROM "+table), 200, "4\t4")
	expect(url.Values{"default_format": {"Native"}}, nil, []byte("SELECT s FROM "+table+" WHERE a = 1 FORMAT JSONEachRow"), 200, `{"s":"one\ntwo"}`)
	expect(nil, http.Header{"Content-Encoding": {"gzip"}}, zipped.Bytes(), 200, "42")
	expect(nil, http.Header{"Content-Encoding": {"br"}}, []byte("x"), 400, "gzip is known")
	expect(nil, nil, nil, 400, "empty")
	expect(url.Values{"a = 1; DROP TABLE " + table: {"1"}}, nil, []byte("SELECT 1"), 400, "no word")
	expect(url.Values{"database": {"x`; SELECT 1"}}, nil, []byte("SELECT 1"), 404, "Code: 81")
	expect(url.Values{"query": {"SELECT count() FROM " + table}}, nil, nil, 200, "4")
}
