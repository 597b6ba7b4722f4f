package pgrole_test

import (
	"crypto/rand"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// No clear password gets to the server's log, its statistics, or an error, however the statement ends.
func TestNoClearPassword(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"log_min_messages": "debug1", "log_error_verbosity": "verbose", "track_activity_query_size": "100kB"})
	s := superuser(t, c)
	adm, _ := administrator(t, c)
	c.Exec(t, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements; CREATE ROLE leak_super LOGIN SUPERUSER; CREATE ROLE leak_nologin`)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	var passwords []string
	secret := func() string {
		p := rand.Text()
		if len(passwords)%3 == 0 {
			p = `'"\` + p + `é`
		}
		passwords = append(passwords, p)
		return p
	}
	var errs strings.Builder
	call := func(err error, kind fault.Kind) {
		t.Helper()
		if kind != fault.Internal {
			refused(t, err, kind)
			fmt.Fprintln(&errs, err, fault.Of(err).Message)
		} else if err != nil {
			t.Error(err)
		}
	}
	for i := range 3 {
		name := fmt.Sprintf("leak_%d", i)
		create := func(s *pgrole.Server, name string) error {
			_, err := s.Create(t.Context(), name, secret(), stamp())
			return err
		}
		set := func(s *pgrole.Server, name string, m pgrole.Match) error {
			_, err := s.SetPassword(t.Context(), name, secret(), m, stamp())
			return err
		}
		call(create(s, name), fault.Internal)
		call(set(s, name, nil), fault.Internal)
		call(create(adm, name), fault.Exists)
		call(create(adm, "leak_nologin"), fault.Exists)
		call(create(adm, "pg_leak"), fault.Invalid)
		call(set(adm, name, pgrole.Match{"x"}), fault.Stale)
		call(set(adm, "leak_super", nil), fault.Forbidden)
		call(set(adm, "absent", nil), fault.NotFound)
		_, err := s.Create(t.Context(), "leak_long", secret()+strings.Repeat("x", 63), stamp())
		call(err, fault.Invalid)
		// Failures of the statement itself, which the server logs with its text.
		exec(t, conn, `BEGIN`, `CREATE ROLE leak_racing`, `ALTER ROLE `+name+` CONNECTION LIMIT 1`)
		done := make(chan error, 1)
		go func() { done <- create(s, "leak_racing") }()
		waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE ROLE%')`)
		exec(t, conn, `COMMIT`)
		call(<-done, fault.Exists)
		c.Exec(t, `DROP ROLE leak_racing`)
	}
	if len(passwords) != 30 {
		t.Fatalf("%d passwords", len(passwords))
	}
	places := map[string]string{
		"log":                c.ReadLog(t),
		"errors":             errs.String(),
		"pg_stat_statements": pgtest.Value[string](t, c, `SELECT string_agg(query, E'\n') FROM pg_stat_statements`),
		"pg_stat_activity":   pgtest.Value[string](t, c, `SELECT string_agg(query, E'\n') FROM pg_stat_activity`),
	}
	if !strings.Contains(places["log"], `CREATE ROLE "leak_0"`) || !strings.Contains(places["errors"], "leak_0") {
		t.Fatal("the log or the errors are not whole")
	}
	for place, text := range places {
		for _, p := range passwords {
			if core := regexp.MustCompile(`[A-Z2-7]{26}`).FindString(p); core == "" || strings.Contains(text, core) {
				t.Errorf("the %s hold the password %s", place, p)
			}
		}
	}
}

// DROP OWNED drops what appeared since anybody looked, and reaches third parties; FORCE ends sessions.
func TestNeverInTheCode(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	never := regexp.MustCompile(`(?i)\b(owned|force)\b`)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING && (never.MatchString(s.Value) || strings.Contains(s.Value, "CASCADE")) &&
				s.Value != "`REASSIGN OWNED BY `" && !strings.Contains(s.Value, "what it owned in database") {
				t.Errorf("%s: %s", name, s.Value)
			}
			return true
		})
	}
}
