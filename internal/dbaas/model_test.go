package dbaas_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolecall/internal/pgtest"
)

// modelTime is how long TestModel goes on unless SOAK_SECONDS says more: make soak.
const modelTime = 8 * time.Second

// TestModel does what comes into its head, over the API and with SQL, breaks connections and the server meanwhile, and
// holds the cluster, the answers and the audit log to a model of a few lines.
func TestModel(t *testing.T) {
	t.Parallel()
	lasts := pgtest.SoakTime(t, modelTime)
	pg := pgtest.New(t, nil)
	p := pgtest.NewProxy(t, pg)
	m := &model{fixture: behind(t, pg, p), pg: pg, way: p, counts: map[string]int{}}
	pg.Exec(t, `CREATE SCHEMA granted AUTHORIZATION failover_admin`)
	end := time.Now().Add(lasts)
	for failed := false; time.Now().Before(end) && !t.Failed(); {
		rapid.Check(t, func(rt *rapid.T) {
			if time.Now().After(end) && !failed { // what has failed is tried again, to find the shortest way to it
				return
			}
			failed = true
			m.begin(t, rt)
			rt.Repeat(map[string]func(*rapid.T){
				"create":            m.create,
				"set password":      m.setPassword,
				"delete":            func(rt *rapid.T) { m.delete(rt, false) },
				"delete or disable": func(rt *rapid.T) { m.delete(rt, true) },
				"get":               m.get,
				"list":              m.list,
				"create by SQL":     m.createBySQL,
				"password by SQL":   m.passwordBySQL,
				"rename by SQL":     m.renameBySQL,
				"drop by SQL":       m.dropBySQL,
				"grant by SQL":      m.grantBySQL,
				"own":               m.own,
				"disown":            m.disown,
			})
			m.end()
			failed = false
		})
	}
	line := fmt.Sprintf("model: %s", lasts)
	for _, name := range slices.Sorted(maps.Keys(m.counts)) {
		line += fmt.Sprintf(", %d × %s", m.counts[name], name)
	}
	fmt.Println(line)
}

// model is what the cluster should hold.
type model struct {
	*fixture
	t      *testing.T
	pg     *pgtest.Cluster
	way    *pgtest.Proxy
	runs   int
	names  []string
	users  map[string]*modelled // those there are
	counts map[string]int
}

type modelled struct {
	password string
	disabled bool
	owns     bool // a table
	granted  bool // USAGE of a schema
	recorded bool // Rolecall has made or changed it
}

func (m *model) begin(t *testing.T, rt *rapid.T) {
	m.t, m.users = t, map[string]*modelled{}
	m.runs++
	m.names = nil
	for _, name := range []string{"a", "b", "c"} {
		m.names = append(m.names, fmt.Sprintf("model %d %s", m.runs, name))
	}
	rt.Cleanup(func() {
		for _, name := range m.names {
			m.pg.Exec(t, `DROP TABLE IF EXISTS "`+name+`"`)
			if pgtest.Value[bool](t, m.pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, name) {
				m.pg.Exec(t, `DROP OWNED BY "`+name+`"; DROP ROLE "`+name+`"`)
			}
		}
	})
}

// end looks at everything once more.
func (m *model) end() {
	for _, name := range m.names {
		if u := m.users[name]; u != nil && !u.disabled {
			if err := m.pg.Login(name, u.password); err != nil {
				m.t.Errorf("in the end %s: %v", name, err)
			}
		}
	}
	m.counts["runs"]++
}

func (m *model) any(rt *rapid.T) (name string, u *modelled) {
	name = rapid.SampledFrom(m.names).Draw(rt, "user")
	return name, m.users[name]
}

func anyPassword(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"first-password", "second-password", "thïrd-password"}).Draw(rt, "password")
}

// change sends a request that changes a user to what after says, or is refused, while something may break. After a 503 the
// user is that, or what it was, and the audit log knows which.
func (m *model) change(rt *rapid.T, method, path, body, name string, want int, after *modelled) {
	before, record, recorded := m.users[name], m.record(name), len(m.outcomes(name))
	fault := rapid.SampledFrom([]string{"", "", "", "answers lost", "statements lost", "sessions ended",
		"servers killed"}).Draw(rt, "fault")
	at := rapid.IntRange(1, 12).Draw(rt, "statement")
	if method == "DELETE" {
		at *= rapid.IntRange(1, 3).Draw(rt, "times") // it may have many statements
	}
	var mu sync.Mutex // held while something is being broken, which may take longer than the request
	seen, kind := 0, ""
	m.way.Watch(func(string, int) pgtest.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if seen++; seen != at {
			return pgtest.Pass
		}
		kind = fault
		switch fault {
		case "answers lost":
			return pgtest.CutAfter
		case "statements lost":
			return pgtest.CutBefore
		case "sessions ended":
			m.pg.Exec(m.t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'failover_admin'`)
		case "servers killed":
			m.pg.Kill(m.t)
			m.pg.Start(m.t)
		}
		return pgtest.Pass
	})
	a := m.do(m.t, method, path, body)
	m.way.Watch(func(string, int) pgtest.Verdict { return pgtest.Pass })
	mu.Lock()
	seen = at // what comes now is not broken any more
	mu.Unlock()
	m.counts["changes"]++
	if kind != "" {
		m.counts[kind]++
	}
	if a.Status != want && (a.Status != 503 || kind == "") {
		rt.Fatalf("%s %s: %d %s, want %d (%s at %d)", method, path, a.Status, a.Body, want, kind, at)
	}
	done, resumed := a.Status == want && want < 300, false
	if a.Status == 503 {
		m.counts["answered with 503"]++
		m.settle(rt)
		if method == "DELETE" && m.isBeingDeleted(name) {
			resumed = true
			m.counts["deletions resumed"]++
			m.want(m.t, want, method, path, body)
		}
		done = want < 300 && m.is(name, after) && (after == nil || m.record(name) != record)
	}
	now := before
	if done {
		now = after
	}
	if !m.is(name, now) {
		rt.Fatalf("%s %s: answered with %d %s (%s at %d): the user should be %+v, was %+v", method, path, a.Status, a.Body, kind,
			at, now, before)
	}
	if m.users[name] = now; now == nil {
		delete(m.users, name)
	}
	outcome := "not_done"
	if done {
		outcome = "done"
	}
	outcomes := m.outcomes(name)[recorded:]
	switch {
	case resumed && slices.Equal(outcomes, []string{"not_done", "done"}):
	case slices.Equal(outcomes, []string{outcome}):
	// it is gone, as was asked for
	case a.Status == 503 && slices.Equal(outcomes, []string{"done"}) && method == "DELETE" && before == nil:
	case a.Status == 503 && slices.Equal(outcomes, []string{"unknown"}) &&
		(before == nil && method == "PATCH" || before != nil && !before.recorded):
		m.counts["unknown"]++ // a role that is not there, or without a record, tells nothing
	default:
		rt.Fatalf("%s %s: answered with %d %s (%s at %d): done is %v, and recorded are the outcomes %q", method, path, a.Status,
			a.Body, kind, at, done, outcomes)
	}
}

// outcomes are those recorded of the attempts on a user, the latest one last.
func (m *model) outcomes(name string) (outcomes []string) {
	for _, row := range m.AuditRows(m.t, name) {
		if row.Phase == "outcome" {
			outcomes = append(outcomes, row.Outcome)
		}
	}
	return outcomes
}

// is reports whether the user is in the cluster as the model has it, nil for not at all.
func (m *model) is(name string, u *modelled) bool {
	var there, login, disabled bool
	there = pgtest.Value[bool](m.t, m.pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, name)
	if !there || u == nil {
		return there == (u != nil)
	}
	login = pgtest.Value[bool](m.t, m.pg, `SELECT rolcanlogin FROM pg_roles WHERE rolname = $1`, name)
	disabled = pgtest.Value[bool](m.t, m.pg, `SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = $1`, name)
	if u.disabled {
		return disabled && !login
	}
	return login && m.pg.Login(name, u.password) == nil
}

// record is the comment of the user, "" when there is none.
func (m *model) record(name string) string {
	return pgtest.Value[string](m.t, m.pg, `SELECT coalesce((SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE `+
		`rolname = $1), '')`, name)
}

func (m *model) isBeingDeleted(name string) bool {
	return pgtest.Value[bool](m.t, m.pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND shobj_description(oid, `+
		`'pg_authid') LIKE '%"state":"deleting"%')`, name)
}

// settle has the settler judge what was cut off, as if its time had come.
func (m *model) settle(rt *rapid.T) {
	_, err := m.DB.Pool.Exec(m.t.Context(), `
		ALTER TABLE audit DISABLE TRIGGER audit_append_only;
		UPDATE audit SET settle_after = clock_timestamp() WHERE phase = 'attempt' AND settle_after > clock_timestamp();
		ALTER TABLE audit ENABLE TRIGGER audit_append_only`)
	if err != nil {
		rt.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := m.Users.SettleOnce(m.t.Context()); err != nil {
			rt.Fatal(err)
		}
		var open int
		err := m.DB.Pool.QueryRow(m.t.Context(),
			`SELECT count(*) FILTER (WHERE phase = 'attempt') - count(*) FILTER (WHERE phase = 'outcome') FROM audit WHERE `+
				`attempt IN (SELECT attempt FROM audit WHERE phase = 'attempt')`).Scan(&open)
		if err != nil {
			rt.Fatal(err)
		}
		if open == 0 {
			return
		}
		if time.Now().After(end) {
			rt.Fatalf("%d attempts are not settled:\n%s", open, m.Log)
		}
	}
}

func (m *model) create(rt *rapid.T) {
	name, u := m.any(rt)
	password := anyPassword(rt)
	want := 200
	if u != nil {
		want = 422
	}
	m.change(rt, "POST", m.fixture.users(), userBody(name, password), name, want, &modelled{password: password, recorded: true})
}

func (m *model) setPassword(rt *rapid.T) {
	name, u := m.any(rt)
	want, after := 404, &modelled{}
	if u != nil {
		want, *after = 200, *u
	}
	after.password, after.disabled, after.recorded = anyPassword(rt), false, true
	if u != nil && u.password == after.password {
		after.password = "another-password" // or else it could not be seen whether it was done
	}
	m.change(rt, "PATCH", m.fixture.users(name), passwordBody(after.password), name, want, after)
}

func (m *model) delete(rt *rapid.T, orDisable bool) {
	name, u := m.any(rt)
	path, want := m.fixture.users(name), 204
	var after *modelled
	switch {
	case u == nil:
		want = 404
	case u.owns && orDisable:
		want, after = 200, &modelled{disabled: true, owns: true, recorded: true, granted: u.granted}
	case u.owns:
		want = 422
	}
	if orDisable {
		path += "?onBlocked=disable"
	}
	m.change(rt, "DELETE", path, "", name, want, after)
}

func (m *model) get(rt *rapid.T) {
	name, u := m.any(rt)
	want := 404
	if u != nil {
		want = 200
	}
	m.want(m.t, want, "GET", m.fixture.users(name), "")
	m.counts["reads"]++
}

func (m *model) list(rt *rapid.T) {
	var l list
	m.want(m.t, 200, "GET", m.fixture.users()+"?limit=200", "").Into(m.t, &l)
	names := l.names()
	names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(m.names, name) })
	if want := slices.Sorted(maps.Keys(m.users)); !slices.Equal(names, want) {
		rt.Fatalf("listed are %q, want %q", names, want)
	}
	m.counts["reads"]++
}

// exec is SQL by somebody else, who is the administering role, or else the superuser.
func (m *model) exec(format string, args ...any) {
	m.pg.Exec(m.t, `SET ROLE failover_admin; `+fmt.Sprintf(format, args...)+`; RESET ROLE`)
	m.counts["by SQL"]++
}

func (m *model) createBySQL(rt *rapid.T) {
	if name, u := m.any(rt); u == nil {
		u = &modelled{password: anyPassword(rt)}
		m.exec(`CREATE ROLE %q LOGIN PASSWORD '%s'`, name, u.password)
		m.users[name] = u
	}
}

func (m *model) passwordBySQL(rt *rapid.T) {
	if name, u := m.any(rt); u != nil && !u.disabled {
		u.password = anyPassword(rt)
		m.exec(`ALTER ROLE %q PASSWORD '%s'`, name, u.password)
	}
}

func (m *model) renameBySQL(rt *rapid.T) {
	name, u := m.any(rt)
	to, other := m.any(rt)
	if u != nil && other == nil && !u.owns {
		m.exec(`ALTER ROLE %q RENAME TO %q`, name, to)
		delete(m.users, name)
		m.users[to] = u
	}
}

func (m *model) dropBySQL(rt *rapid.T) {
	if name, u := m.any(rt); u != nil && !u.owns && !u.granted {
		m.exec(`DROP ROLE %q`, name)
		delete(m.users, name)
	}
}

func (m *model) grantBySQL(rt *rapid.T) {
	if name, u := m.any(rt); u != nil {
		m.exec(`GRANT USAGE ON SCHEMA granted TO %q`, name)
		u.granted = true
	}
}

func (m *model) own(rt *rapid.T) {
	if name, u := m.any(rt); u != nil && !u.owns {
		m.pg.Exec(m.t, fmt.Sprintf(`CREATE TABLE %q (); ALTER TABLE %[1]q OWNER TO %[1]q`, name))
		u.owns = true
	}
}

func (m *model) disown(rt *rapid.T) {
	if name, u := m.any(rt); u != nil && u.owns {
		m.pg.Exec(m.t, fmt.Sprintf(`DROP TABLE %q`, name))
		u.owns = false
	}
}
