package dbaas_test

import (
	"strings"
	"testing"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// What an administering role may not do that is no superuser is refused with 403, in words that say what it lacks. Up to
// PostgreSQL 15 CREATEROLE is enough for most of it.
func TestLeastPrivilege(t *testing.T) {
	pgtest.EachMajor(t, []int{15, 16}, func(t *testing.T, major int) {
		pg := pgtest.NewMajor(t, major, nil)
		pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE PASSWORD 'administrator'; CREATE ROLE elder LOGIN; CREATE ROLE `+
			`elders; CREATE ROLE supers SUPERUSER`)
		s := servicetest.NewAs(t, pg, "rolecall_admin", "administrator")
		s.Admin(t, "root")
		f := fixtureOn(t, s, 10_000)
		memberOf := func(role string) {
			t.Helper()
			if _, err := f.DB.Pool.Exec(t.Context(),
				`UPDATE clusters SET member_of = ARRAY[$2], updated_at = clock_timestamp() WHERE id = $1`, f.ClusterID,
				role); err != nil {
				t.Fatal(err)
			}
			if err := f.Clusters.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// forbidden fails t unless the answer is 403, with the words, and no server error behind it.
		forbidden := func(a answer, words string) {
			t.Helper()
			if message := a.refused(t, "paas-auth-2"); !strings.Contains(message, words) {
				t.Errorf("PostgreSQL %d: the message lacks %q: %s", major, words, message)
			}
		}
		f.want(t, 200, "GET", f.users("elder"), "")
		const before = `SELECT to_jsonb(r)::text FROM pg_authid r WHERE rolname = 'elder'`
		was := pgtest.Value[string](t, pg, before)
		memberOf("elders")
		if major < 16 {
			f.want(t, 200, "POST", f.users(), userBody("younger", password))
			f.want(t, 200, "PATCH", f.users("elder"), passwordBody(password))
			f.want(t, 204, "DELETE", f.users("elder"), "")
		} else {
			forbidden(f.do(t, "POST", f.users(), userBody("younger", password)), `GRANT "elders" TO`)
			f.refuses(t, "paas-notfound-1", "GET", f.users("younger"), "")
			forbidden(f.do(t, "PATCH", f.users("elder"), passwordBody(password)), `GRANT "elder" TO`)
			forbidden(f.do(t, "DELETE", f.users("elder"), ""), `GRANT "elder" TO`)
			forbidden(f.do(t, "DELETE", f.users("elder")+"?onBlocked=disable", ""), `GRANT "elder" TO`)
			if now := pgtest.Value[string](t, pg, before); now != was {
				t.Errorf("elder was\n%s, is\n%s", was, now)
			}
			pg.Exec(t, `GRANT elder, elders TO rolecall_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`)
			f.want(t, 200, "POST", f.users(), userBody("younger", password))
			f.want(t, 200, "PATCH", f.users("elder"), passwordBody(password))
			f.want(t, 204, "DELETE", f.users("elder"), "")
		}
		memberOf("supers")
		forbidden(f.do(t, "POST", f.users(), userBody("youngest", password)), `"supers" is a system role`)
		forbidden(f.do(t, "POST", "/clusters/"+f.ClusterID+"/databases", `{"properties":{"name":"theirs","owner":"younger"}}`),
			"CREATEDB")
		if log := f.Log.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("PostgreSQL %d: the log has errors:\n%s", major, log)
		}
	})
}
