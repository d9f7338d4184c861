package sqlstore

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	tidb "github.com/pingcap/tidb/pkg/parser"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver" // the parser's values

	mysqlschema "tideline/schemas/mysql"
)

// TestSchema_IsTakenByTiDBsParser is the nearest proof, without their servers, that MySQL 8 and TiDB take the schema.
func TestSchema_IsTakenByTiDBsParser(t *testing.T) {
	steps, err := fs.Glob(mysqlschema.Files, "*.sql")
	if err != nil || len(steps) == 0 {
		t.Fatalf("%d steps: %v", len(steps), err)
	}
	for _, step := range steps {
		raw, err := fs.ReadFile(mysqlschema.Files, step)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := tidb.New().Parse(string(raw), "", ""); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
}

// TestStatements_AreTakenByTiDBsParser parses every statement that stands whole in the package's source. Those that are
// put together from parts run on MariaDB in the suite.
func TestStatements_AreTakenByTiDBsParser(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	begins := regexp.MustCompile(`^(SELECT|INSERT INTO|UPDATE|DELETE FROM) `)
	parsed := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		var inPart = map[ast.Node]bool{}
		ast.Inspect(tree, func(n ast.Node) bool {
			if sum, ok := n.(*ast.BinaryExpr); ok {
				ast.Inspect(sum, func(m ast.Node) bool { inPart[m] = true; return true })
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING || inPart[n] {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil || !begins.MatchString(text) || strings.Contains(text, "%") || strings.HasSuffix(strings.TrimSpace(text), "WHERE") || strings.HasSuffix(strings.TrimSpace(text), "AND") {
				return true
			}
			parsed++
			if _, _, err := tidb.New().Parse(text, "", ""); err != nil {
				t.Errorf("%s: %v\n%s", f.Name(), err, text)
			}
			return true
		})
	}
	if parsed < 20 {
		t.Fatalf("only %d statements were found", parsed)
	}
}

// TestLeases_AreTakenByTiDBsParser parses the statements that are put together for the database's own clock.
func TestLeases_AreTakenByTiDBsParser(t *testing.T) {
	l := mysqlDialect.leases()
	for _, text := range []string{l.free, l.take, l.fresh, l.renew} {
		if _, _, err := tidb.New().Parse(text, "", ""); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
