package cli

import (
	"reflect"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func TestParseLevels(t *testing.T) {
	t.Parallel()
	got, err := parseLevels("access", []string{"shop=write", "a=b=own", " x y=read"})
	if want := []level{{"shop", "write"}, {"a=b", "own"}, {" x y", "read"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, values := range []string{"shop", "=write", "shop=", "shop=Write", "shop=admin", "shop=read shop=write", ""} {
		given := strings.Split(values, " ")
		if got, err := parseLevels("access", given); term.ExitCode(err) != term.ExitUsage ||
			!strings.Contains(err.Error(), "--access") {
			t.Errorf("%q is %v, %v", given, got, err)
		}
	}
}

func TestPsqlScript(t *testing.T) {
	t.Parallel()
	statement := func(database, sql string) client.Statement { return client.Statement{Database: database, SQL: sql} }
	got, err := psqlScript([]client.Statement{
		statement("shop", "SELECT 1"), statement("shop", "SELECT 2;"), statement(`it's "a" \b=c`, "SELECT 3"),
		statement("shop", "SELECT 4"),
	})
	want := `\set ON_ERROR_STOP on
\connect "shop"
SELECT 1;
SELECT 2;
\connect -reuse-previous=on "dbname='it\'s ""a"" \\b=c'"
SELECT 3;
\connect "shop"
SELECT 4;
`
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if got, err := psqlScript(nil); err != nil || got != "" {
		t.Errorf("without statements: %q, %v", got, err)
	}
	if got, err := psqlScript([]client.Statement{statement("a\nb", "SELECT 1")}); err == nil {
		t.Errorf("with a line break: %q", got)
	}
}
