package adminapi_test

import (
	"strings"
	"testing"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// What an administering role may not do that is no superuser is refused with 403, in words that say what it lacks, and
// was foretold by the probe.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	pg := pgtest.NewMajor(t, 16, nil)
	pg.Exec(t, `CREATE ROLE elder LOGIN PASSWORD 'password of elder'; CREATE ROLE elders`)
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	f := fixtureOn(t, s, 10_000)
	f.want(t, 204, "DELETE", "/clusters/"+f.ClusterID, "")
	var c clusterResource
	f.want(t, 201, "POST", "/clusters", registration("least", pg, role(t, pg, "least_admin", "CREATEROLE CREATEDB"),
		`,"memberOf":[],"grantable":["elders"]`)).Into(t, &c)
	foretold := func(parts ...string) {
		t.Helper()
		all := strings.Join(c.Capabilities.Problems, "\n")
		if len(c.Capabilities.Problems) != len(parts) {
			t.Errorf("the problems are %s, want %q", all, parts)
		}
		for _, part := range parts {
			if !strings.Contains(all, part) {
				t.Errorf("the problems lack %q: %s", part, all)
			}
		}
	}
	path := "/clusters/" + c.ID
	foretold(`GRANT <user> TO "least_admin"`, `GRANT "elders" TO "least_admin"`)
	session := pg.Connect(t, "elder", "password of elder", "postgres")
	for _, change := range [][4]string{
		{"PATCH", "/users/elder", `{"endSessions":true}`, "elder"},
		{"PATCH", "/users/elder", `{"connectionLimit":3}`, "elder"},
		{"PUT", "/users/elder/roles", `{"roles":[]}`, "elder"},
		{"PUT", "/users/elder/roles/elders", "", "elders"}, // it lacks both, and this comes first
		{"DELETE", "/users/elder/roles/elders", "", "elder"},
	} {
		f.do(t, change[0], path+change[1], change[2]).refused(t, 403, `GRANT "`+change[3]+`" TO`)
	}
	if err := session.Ping(t.Context()); err != nil {
		t.Errorf("the session was ended: %v", err)
	}
	f.do(t, "GET", path+"/pgbouncer/userlist", "").refused(t, 403, "only a superuser may")
	if got := f.want(t, 200, "GET", path+"/users/elder", "").Body; !strings.Contains(got, `"passwordKind":"unknown"`) {
		t.Errorf("got %s", got)
	}
	f.do(t, "GET", path+"/users/elder/deletion-plan", "").refused(t, 403, `GRANT "elder" TO`)

	pg.Exec(t, `GRANT elder TO least_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`)
	f.want(t, 200, "GET", path+"/users/elder/deletion-plan", "")
	f.do(t, "PUT", path+"/users/elder/roles", `{"roles":["elders"]}`).refused(t, 403, `GRANT "elders" TO`)
	// A change of these roles is looked at in the cluster, too.
	f.want(t, 200, "PATCH", path, `{"grantable":["elders","younger"]}`).Into(t, &c)
	foretold(`"younger", and there is no such role`, `GRANT "elders" TO "least_admin"`)
	pg.Exec(t, `GRANT elders TO least_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`)
	f.want(t, 200, "PATCH", path, `{"grantable":["elders"]}`).Into(t, &c)
	foretold()
	f.want(t, 200, "PUT", path+"/users/elder/roles", `{"roles":["elders"]}`)
	if got := f.want(t, 200, "PATCH", path+"/users/elder", `{"endSessions":true}`).
		Body; !strings.Contains(got, `"endedSessions":1`) {
		t.Errorf("got %s", got)
	}
	if log := f.Log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", log)
	}
}
