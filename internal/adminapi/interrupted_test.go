package adminapi_test

import (
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// brokenFixture is another replica, which loses its connection to the control database once: at a statement with the text.
func (f *fixture) brokenFixture(t *testing.T, text string, verdict pgtest.Verdict) *fixture {
	t.Helper()
	proxy := pgtest.NewProxy(t, f.PG)
	u, err := url.Parse(f.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:" + strconv.Itoa(proxy.Port)
	s := *f.Service
	s.DatabaseURL = u.String()
	replica := fixtureOn(t, (&s).Replica(t), 10_000)
	replica.Idempotency.Claim = time.Hour // tests end it
	var reached atomic.Bool
	proxy.Watch(func(sql string, _ int) pgtest.Verdict {
		if strings.Contains(sql, text) && reached.CompareAndSwap(false, true) {
			return verdict
		}
		return pgtest.Pass
	})
	return replica
}

// What a request with a key is answered that is interrupted at a statement, and what its repetition.
func TestInterrupted(t *testing.T) {
	const insert, store = "INSERT INTO idempotency_keys", "SET sealed = $3"
	f := newFixture(t)
	path := "/clusters/" + f.ClusterID + "/users"
	for i, c := range []struct {
		name, at string
		verdict  pgtest.Verdict
		first    int
		held     bool // it is in progress until its claim ends
		then     int
		part     string // of the refusal
	}{
		{"before it is claimed", insert, pgtest.CutBefore, 503, false, 201, ""},
		{"when it is claimed", insert, pgtest.CutAfter, 503, true, 201, ""},
		{"before its answer is stored", store, pgtest.CutBefore, 201, true, 409, "its answer is lost"},
		{"when its answer is stored", store, pgtest.CutAfter, 201, false, 201, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "interrupted_" + strconv.Itoa(i)
			header, body := newKey(), `{"username":"`+name+`"}`
			first := f.brokenFixture(t, c.at, c.verdict).do(t, "POST", path, body, header)
			if first.Status != c.first {
				t.Fatalf("the first is %d %s", first.Status, first.Body)
			}
			if first.Status == 503 && pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '`+name+`')`) {
				t.Error("it was carried out")
			}
			for end := time.Now().Add(2 * time.Minute); c.held && f.count(t, `
				SELECT count(*) FROM idempotency_keys WHERE claimed_until > now()`) == 0; {
				if time.Now().After(end) { // the statement that was cut off is not done yet
					t.Fatal("the key is not claimed")
				}
			}
			if c.held {
				a := f.do(t, "POST", path, body, header)
				a.refused(t, 409, "in progress")
				if a.Header.Get("Retry-After") == "" {
					t.Error("it does not say when to try again")
				}
				f.claimEnds(t)
			}
			then := f.do(t, "POST", path, body, header)
			for then.Status == 409 && then.Header.Get("Retry-After") != "" { // likewise
				then = f.do(t, "POST", path, body, header)
			}
			switch {
			case c.then == 409:
				then.refused(t, 409, c.part)
				if then.Header.Get("Retry-After") != "" {
					t.Error("it says when to try again")
				}
			case first.Status == 201:
				same(t, first, then)
			case then.Status != 201 || then.Header.Get("Idempotency-Replayed") != "":
				t.Errorf("it is not carried out: %d %s", then.Status, then.Body)
			}
			if rows := f.AuditRows(t, name); len(rows) != 2 {
				t.Errorf("the log has %+v", rows)
			}
		})
	}
}

// claimEnds is what time does to the claim of a replica that was killed.
func (f *fixture) claimEnds(t *testing.T) {
	t.Helper()
	if _, err := f.DB.Pool.Exec(t.Context(),
		`UPDATE idempotency_keys SET claimed_until = now() WHERE claimed_until IS NOT NULL`); err != nil {
		t.Fatal(err)
	}
}

// A request whose outcome is not known yet is not carried out again. Once the settler has found out, a repetition gets
// an error that says so, or is carried out if nothing was done.
func TestUndecided(t *testing.T) {
	f := newFixture(t)
	path := "/clusters/" + f.ClusterID + "/users"
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := f.DB.Pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	// No outcome is recorded, and no answer stored.
	exec(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$`)
	exec(`CREATE TRIGGER fail BEFORE INSERT ON audit FOR EACH ROW WHEN (new.phase = 'outcome') EXECUTE FUNCTION fail()`)
	exec(`CREATE TRIGGER fail BEFORE UPDATE OF sealed ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION fail()`)
	headers, bodies := map[string]string{}, map[string]string{}
	for _, name := range []string{"undecided_done", "undecided_not", "undecided_unknown"} {
		headers[name], bodies[name] = newKey(), `{"username":"`+name+`"}`
		f.want(t, 201, "POST", path, bodies[name], headers[name])
	}
	f.claimEnds(t)
	exec(`DROP TRIGGER fail ON audit`)
	exec(`DROP TRIGGER fail ON idempotency_keys`)
	for name := range headers {
		a := f.do(t, "POST", path, bodies[name], headers[name])
		a.refused(t, 409, "finding out")
		if a.Header.Get("Retry-After") == "" {
			t.Error("it does not say when to try again")
		}
		f.do(t, "POST", path, `{"username":"another"}`, headers[name]).refused(t, 422)
	}
	f.PG.Exec(t, `DROP ROLE undecided_not`)
	exec(`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name, request_id)
		SELECT attempt, 'outcome', action, 'unknown', account_guid, account_name, request_id FROM audit
		WHERE target = 'undecided_unknown'`)
	exec(`ALTER TABLE audit DISABLE TRIGGER audit_append_only`)
	exec(`UPDATE audit SET settle_after = now() WHERE phase = 'attempt'`)
	exec(`ALTER TABLE audit ENABLE TRIGGER audit_append_only`)
	if err := f.Users.SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.do(t, "POST", path, bodies["undecided_done"], headers["undecided_done"]).refused(t, 409, "its answer is lost")
	f.do(t, "POST", path, bodies["undecided_unknown"], headers["undecided_unknown"]).refused(t, 409, "no longer be read")
	f.want(t, 201, "POST", path, bodies["undecided_not"], headers["undecided_not"])
}
