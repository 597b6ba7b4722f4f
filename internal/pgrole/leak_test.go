package pgrole_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// loud is a server that tells its log all it can be made to tell. What pgaudit writes it has from the same statements.
var loud = map[string]string{
	"log_statement": "all", "log_min_duration_statement": "0",
	"log_min_messages": "debug1", "log_min_error_statement": "debug5", "log_error_verbosity": "verbose",
	"log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1", "log_replication_commands": "on",
	"log_lock_waits": "on", "deadlock_timeout": "10ms", "log_connections": "on", "log_disconnections": "on",
	"debug_print_parse": "on", "debug_print_rewritten": "on", "debug_print_plan": "on", "debug_pretty_print": "off",
	"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
	"auto_explain.log_nested_statements": "on",
	"auto_explain.log_verbose":           "on", "pg_stat_statements.track": "all", "track_activity_query_size": "100kB",
}

// No clear password gets to the server's log, its statistics, an error or a profile, however the statement ends.
func TestNoClearPassword(t *testing.T) {
	as(t, []string{"superuser", "administrator"}, func(t testing.TB) *pgtest.Cluster { return pgtest.New(t, loud) },
		noClearPassword)
}

// withTimeouts is a server whose sessions have other limits of time.
func withTimeouts(t *testing.T, s *pgrole.Server, limits map[string]string) *pgrole.Server {
	t.Helper()
	config := s.Pool.Config()
	maps.Copy(config.ConnConfig.RuntimeParams, limits)
	other := *s
	other.Pool = pool(t, config)
	return &other
}

func noClearPassword(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, _ string) {
	c.Exec(t, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements; CREATE ROLE leak_super LOGIN SUPERUSER; CREATE ROLE `+
		`leak_nologin`)
	blocker := c.Connect(t, c.User, c.Password, "postgres")
	var passwords []string
	secret := func() string {
		core := rand.Text()
		passwords = append(passwords, core)
		return []string{core, `'"\` + core + "\u00e9", "e\u0301\u2168" + core, "md5" + core}[len(passwords)%4]
	}
	var told strings.Builder
	tell := func(err error) {
		for ; err != nil; err = errors.Unwrap(err) {
			fmt.Fprintf(&told, "%v|%+v|%#v\n", err, err, err)
			if of, ok := errors.AsType[*fault.Error](err); ok {
				fmt.Fprintln(&told, of.Message)
			}
		}
	}
	call := func(err error, kind fault.Kind) {
		t.Helper()
		tell(err)
		refused(t, err, kind)
	}
	done := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	create := func(s *pgrole.Server, name string) error {
		_, err := s.Create(t.Context(), name, secret(), actor())
		return err
	}
	set := func(s *pgrole.Server, name string, m etag.Match) error {
		_, err := s.SetPassword(t.Context(), name, secret(), m, actor())
		return err
	}
	// blocked runs f while another transaction has run sql, ends that when f waits for it, and returns f's error.
	const waiting = `FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^(CREATE|ALTER) ROLE'`
	blocked := func(sql string, f func() error, meanwhile func()) error {
		t.Helper()
		exec(t, blocker, `BEGIN`, sql)
		ended := make(chan error, 1)
		go func() { ended <- f() }()
		waitFor(t, c, `SELECT EXISTS (SELECT `+waiting+`)`)
		meanwhile()
		exec(t, blocker, `COMMIT`)
		return <-ended
	}

	done(create(s, "leak"))
	done(set(s, "leak", nil))
	own := secret()
	_, err := s.SetPassword(t.Context(), "leak", own, nil, actor())
	done(err)
	done(pgrole.SetOwnPassword(t.Context(), c.Connect(t, "leak", own, "postgres"), secret(), due))
	call(create(s, "leak"), fault.Exists)
	call(create(s, "leak_nologin"), fault.Exists)
	call(create(s, "pg_leak"), fault.Invalid)
	call(set(s, "leak", etag.Match{"x"}), fault.Stale)
	call(set(s, "leak_super", nil), fault.Forbidden)
	call(set(s, "leak_absent", nil), fault.NotFound)
	for _, password := range []string{secret() + strings.Repeat("x", 63), secret() + "\x00", secret() + "\n", secret() +
		"\xff"} {
		_, err := s.Create(t.Context(), "leak_refused", password, actor())
		call(err, fault.Invalid)
		_, err = s.SetPassword(t.Context(), "leak", password, nil, actor())
		call(err, fault.Invalid)
	}

	// Failures of the statement itself, which the server logs with its text. To see that a statement waits takes a busy machine
	// longer than a statement waits for a lock by default. A duplicate,
	patient := withTimeouts(t, s, map[string]string{"lock_timeout": "5min", "statement_timeout": "5min"})
	call(blocked(`CREATE ROLE leak_racing`, func() error { return create(patient, "leak_racing") }, func() {}), fault.Exists)
	// a backend that is ended, after which there is another try, and a look at all that runs,
	const touch = `ALTER ROLE leak CONNECTION LIMIT 9`
	var profiles strings.Builder
	done(blocked(touch, func() error { return set(patient, "leak", nil) }, func() {
		for name, detail := range map[string]int{"goroutine": 2, "heap": 1, "allocs": 1} {
			if err := pprof.Lookup(name).WriteTo(&profiles, detail); err != nil {
				t.Error(err)
			}
		}
		first := 0 // it may be between two tries
		for end := time.Now().Add(time.Minute); first == 0 && time.Now().Before(end); {
			first = pgtest.Value[int](t, c, `SELECT coalesce(max(pid), 0) `+waiting)
		}
		c.Exec(t, `SELECT pg_terminate_backend($1)`, first)
		waitFor(t, c, `SELECT EXISTS (SELECT `+waiting+` AND pid <> $1)`, first)
	}))
	// a request that is cancelled, a lock that is not to be had, and a statement that takes too long.
	call(blocked(touch, func() error { return set(patient, "leak", nil) }, func() {
		c.Exec(t, `SELECT pg_cancel_backend(pid) `+waiting)
		waitFor(t, c, `SELECT NOT EXISTS (SELECT `+waiting+`)`) // else it may get the lock before it looks
	}), fault.Unavailable)
	for name, value := range map[string]string{"lock_timeout": "100ms", "statement_timeout": "100ms"} {
		hasty := withTimeouts(t, s, map[string]string{name: value})
		exec(t, blocker, `BEGIN`, touch)
		call(set(hasty, "leak", nil), fault.Unavailable)
		exec(t, blocker, `COMMIT`)
	}

	log := c.ReadLog(t)
	for _, marker := range []string{
		`CREATE ROLE "leak" LOGIN PASSWORD 'SCRAM-SHA-256$`, `ALTER ROLE CURRENT_USER PASSWORD 'SCRAM-SHA-256$`,
		"duplicate key value", "still waiting for",
		"due to administrator command", "due to user request", "due to lock timeout", "due to statement timeout", "Query Text: ",
		"{QUERY",
	} {
		if !strings.Contains(log, marker) {
			t.Errorf("the log lacks %q", marker)
		}
	}
	places := map[string]string{
		"log":                log,
		"errors":             told.String(),
		"profiles":           profiles.String(),
		"pg_stat_statements": pgtest.Value[string](t, c, `SELECT string_agg(query, E'\n') FROM pg_stat_statements`),
		"pg_stat_activity":   pgtest.Value[string](t, c, `SELECT string_agg(query, E'\n') FROM pg_stat_activity`),
		"roles": pgtest.Value[string](t, c, `SELECT string_agg(concat(rolname, rolpassword, `+
			`shobj_description(oid, 'pg_authid')), E'\n') FROM pg_authid`),
	}
	for place, marker := range map[string]string{"errors": "leak_racing", "profiles": "noClearPassword",
		"pg_stat_statements": `CREATE ROLE "leak"`, "roles": "SCRAM-SHA-256$"} {
		if !strings.Contains(places[place], marker) {
			t.Errorf("the %s lack %q", place, marker)
		}
	}
	for place, text := range places {
		for i, password := range passwords {
			if found := pgtest.Leak(text, password); found != "" {
				t.Errorf("the %s hold the password %d: %s", place, i, found)
			}
		}
	}
	for _, place := range []string{"errors", "profiles"} {
		if strings.Contains(places[place], "SCRAM-SHA-256$") {
			t.Errorf("the %s hold a verifier", place)
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
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING && (never.MatchString(s.Value) ||
				strings.Contains(s.Value, "CASCADE")) &&
				s.Value != "`REASSIGN OWNED BY `" && !strings.Contains(s.Value, "what it owned in database") {
				t.Errorf("%s: %s", name, s.Value)
			}
			return true
		})
	}
}
