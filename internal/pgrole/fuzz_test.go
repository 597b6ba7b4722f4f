package pgrole

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

// fuzzConn is one connection for all inputs: a fuzz target runs them one after the other.
func fuzzConn(f *testing.F) (ask func(t *testing.T, sql string, args ...any) (column, value string)) {
	f.Helper()
	c := pgtest.Shared(f)
	conn := c.Connect(f, c.User, c.Password, "postgres")
	var mu sync.Mutex
	return func(t *testing.T, sql string, args ...any) (string, string) {
		mu.Lock()
		defer mu.Unlock()
		rows, err := conn.Query(context.Background(), sql, append([]any{pgx.QueryExecModeExec}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		column := rows.FieldDescriptions()
		value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
		if err != nil || len(column) != 1 {
			t.Fatalf("%q: %v", sql, err)
		}
		return column[0].Name, value
	}
}

func seed(f *testing.F) {
	for _, s := range []string{"", "a", "A b", `"`, `""`, `'`, `''`, `\`, `\'`, `\\`, `E'`, "--", "/*", "*/", ";", "$1", "$$",
		"é", "🙂", "\n", "\r", "\t", `'; DROP ROLE x; --`,
		`"; DROP ROLE x; --`, strings.Repeat("é", 31), strings.Repeat("x", 63), "%", "_", "U&'\\0041'", "\u2028", "a\u0301"} {
		f.Add(s)
	}
}

// FuzzIdent: what ident quotes is one identifier, and the same one.
func FuzzIdent(f *testing.F) {
	seed(f)
	ask := fuzzConn(f)
	f.Fuzz(func(t *testing.T, name string) {
		if !storable(name) {
			return
		}
		if column, _ := ask(t, `SELECT 'x' AS `+ident(name)); column != name {
			t.Errorf("%q became %q", name, column)
		}
	})
}

// FuzzLiteral: what literal quotes is one string, and the same one, whatever standard_conforming_strings is.
func FuzzLiteral(f *testing.F) {
	seed(f)
	ask, askOld, c := fuzzConn(f), fuzzConn(f), pgtest.Shared(f)
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			return
		}
		if _, got := ask(t, `SELECT `+literal(s)+`::text`); got != s {
			t.Errorf("%q became %q", s, got)
		}
		if c.Major >= 19 {
			return // the setting cannot be changed
		}
		askOld(t, `SELECT set_config('standard_conforming_strings', 'off', false)`)
		if _, got := askOld(t, `SELECT `+literal(s)+`::text`); got != s {
			t.Errorf("%q became %q where backslashes escape", s, got)
		}
	})
}

// FuzzLikeMatch: a name that is refused for a system role's pattern is one that PostgreSQL finds by it.
func FuzzLikeMatch(f *testing.F) {
	for _, s := range [][2]string{
		{"", ""}, {"*", ""}, {"?", ""}, {"*", "abc"}, {"a*", "abc"}, {"*c", "abc"}, {"a*c", "abc"}, {"a?c", "abc"},
		{"a*b*c", "aXbXbXc"}, {"**", "a"}, {"*?*", "é"}, {"??", "é"}, {"?", "🙂"},
		{"%", "a"}, {"_", "a"}, {"%", "%"}, {"_", "_"}, {`\`, `\`}, {`\*`, `\abc`}, {`\%`, `%`}, {`a\`, `a\`}, {"[a]", "a"},
		{"[a]", "[a]"}, {"A", "a"}, {"*a*a*a*b", "aaaaaaaaaaaa"}, {"a/*", "a/b/c"}, {"a\n*", "a\nb"},
	} {
		f.Add(s[0], s[1])
	}
	ask := fuzzConn(f)
	f.Fuzz(func(t *testing.T, glob, name string) {
		if !utf8.ValidString(glob) || !utf8.ValidString(name) || strings.Contains(glob+name, "\x00") {
			return
		}
		_, like := ask(t, `SELECT (`+literal(name)+` LIKE ANY (ARRAY[`+literal(likePattern(glob))+`]))::text`)
		if got := likeMatch(glob, name); got != (like == "true") {
			t.Errorf("likeMatch(%q, %q) is %v, LIKE is %s", glob, name, got, like)
		}
	})
}

// FuzzParseComment: a comment is a human's part and ours, and together they are the comment again.
func FuzzParseComment(f *testing.F) {
	attempt := uuid.UUID{2}
	p := Provenance{Created: time.Unix(1e9, 1000).UTC(), CreatedBy: "a"}.changed(time.Unix(2e9, 0).UTC(),
		Actor{"b", uuid.UUID{1}})
	for _, s := range []string{marker + `{"revision":1,"attempt":"x"}`, "", "\n", "human", "human\n", "\n\n", marker, marker +
		"{}", marker + "null", marker + `{"revision":1}`, marker +
		`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`,
		marker + `{"revision":-1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`, marker +
			`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"} `, marker +
			`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}` + "\n", marker +
			`{"revision":1e99,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`,
		marker + `[]`, " " + marker + `{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`, "human\n" + marker +
			`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting","was":"disabled","more":1}`,
		leaseRecorded.comment(""), accessRecorded.comment("a"), marker + `{"revision":1,` +
			`"attempt":"0198f3a2-0000-7000-8000-000000000001","access":{"database":"a\nb","level":"own","schemas":[null]}}`,
		p.comment("") + "\nbelow", p.comment(""), p.comment("two\nlines"), p.comment(p.comment(""))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, comment string) {
		human, p := parseComment(comment)
		if !p.Managed() {
			if human != comment || p != (Provenance{}) {
				t.Errorf("%q became %q and %+v", comment, human, p)
			}
		} else {
			lines, cut := strings.Split(comment, "\n"), false
			for i := range lines {
				cut = cut || strings.Join(slices.Concat(lines[:i], lines[i+1:]), "\n") == human
			}
			if !cut {
				t.Errorf("%q is not %q without a line", human, comment)
			}
		}
		p = p.changed(time.Unix(2e9, 0).UTC(), Actor{"account", attempt})
		if year := p.Created.Year(); p.Revision < 1 || year < 0 || year > 9999 || !utf8.ValidString(comment) {
			return
		}
		again, q := parseComment(p.comment(human))
		if again != human || !q.Created.Equal(p.Created) || q.Attempt != attempt || q.Revision != p.Revision ||
			q.State != p.State || q.Lease != p.Lease || q.For != p.For || !q.Ends.Equal(p.Ends) ||
			q.Credential != p.Credential || q.Password != p.Password || (q.Access == nil) != (p.Access == nil) ||
			q.Access != nil && (q.Access.Database != p.Access.Database || q.Access.Level != p.Access.Level ||
				!q.Access.same(*p.Access)) {
			t.Errorf("%q and %+v became %q and %+v", human, p, again, q)
		}
	})
}
