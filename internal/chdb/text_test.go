package chdb

import (
	"strings"
	"testing"

	"tideline/internal/config"
)

func TestInsert_FindsDataBehindAFormat(t *testing.T) {
	for text, want := range map[string][3]string{
		"INSERT INTO t FORMAT Native":                               {"INSERT INTO t", "Native", ""},
		"insert into t (a, b)\n  format JSONEachRow\n{\"a\":1}\n{}": {"insert into t (a, b)", "JSONEachRow", "{\"a\":1}\n{}"},
		"INSERT INTO t VALUES (1, ' FORMAT x')":                     {},
		"INSERT INTO t FORMAT Values (1)":                           {},
		"SELECT 1 FORMAT JSON":                                      {},
	} {
		head, format, data, ok := insert(text)
		if got := [3]string{head, format, data}; ok != (want[0] != "") || got != want {
			t.Errorf("%q was cut into %q", text, got)
		}
	}
}

func TestFormatIn_FindsTheFormatInATree(t *testing.T) {
	for tree, want := range map[string]string{
		"SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 1)\n   ExpressionList (children 1)\n    Identifier a\n": "",
		"SelectWithUnionQuery (children 2)\n ExpressionList (children 1)\n  SelectQuery (children 1)\n Identifier CSV\n":                                  "CSV",
		"SelectWithUnionQuery (children 2)\n ExpressionList (children 1)\n   Literal UInt64_1 (alias x\n Identifier Native\n)\n Identifier RawBLOB\n":     "Native RawBLOB",
		"Explain EXPLAIN (children 1)\n SelectWithUnionQuery (children 2)\n  ExpressionList (children 1)\n  Identifier CSV\n":                             "CSV",
	} {
		if got := formatIn(tree); got != want {
			t.Errorf("%s: %q, want %q", tree, got, want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add(`a'b\`)
	f.Add("`;")
	f.Fuzz(func(t *testing.T, s string) {
		// Invariant: between the outer marks no mark stands without a backslash of its own before it.
		for mark, quoted := range map[byte]string{'\'': quote(s), '`': quoteName(s)} {
			inner := quoted[1 : len(quoted)-1]
			for i := 0; i < len(inner); i++ {
				if inner[i] == '\\' {
					if i++; i == len(inner) {
						t.Fatalf("%q ends within an escape", quoted)
					}
				} else if inner[i] == mark {
					t.Fatalf("%q ends at %d", quoted, i)
				}
			}
		}
	})
}

func TestConfig_WantsAPasswordWhereOthersCanReach(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"0.0.0.0:8123", "10.0.0.5:8123", ":8123"} {
		c.Addr, c.Password = addr, ""
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "password") {
			t.Errorf("%s without a password: %v", addr, err)
		}
		c.Password = config.Secret("hush")
		if err := c.Validate(); err != nil {
			t.Errorf("%s with one: %v", addr, err)
		}
	}
}
