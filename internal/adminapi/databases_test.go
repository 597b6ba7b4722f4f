package adminapi_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/account"
)

// levelFixture is a cluster with the database of a name, which has access roles, and the accounts manager, viewer, stranger
// and auditor.
func levelFixture(t testing.TB, database string) (f *fixture, cluster string) {
	t.Helper()
	f = newFixture(t)
	f.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "a"})
	f.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "b"})
	f.Account(t, "stranger", account.DefaultScopes, nil)
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	f.Access(t, f.ClusterID, []string{"team=a"}, []string{"team=b"})
	cluster = "/clusters/" + f.ClusterID
	f.want(t, 201, "POST", cluster+"/databases", `{"name":"`+database+`","accessRoles":true}`)
	t.Cleanup(func() { f.PG.Exec(t, `DROP DATABASE IF EXISTS "`+database+`" WITH (FORCE)`) })
	return f, cluster
}

type accessRoles struct {
	Database string
	Roles    []struct {
		Level, Role string
		Members     []string
	}
	Schemas, Problems []string
	Adopt, Complete   bool
	Statements        []struct{ Database, SQL string }
}

func TestDatabases(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "dbs shop")
	type database struct {
		Name, Owner          string
		AccessRoles, System  bool
		CreatedBy, CreatedAt *string
	}
	var d database
	path := cluster + "/databases/dbs%20shop"
	f.as(t, "viewer", "GET", path, "").Into(t, &d)
	guid, _ := f.Identity.GUID(t.Context(), "root")
	if d.Name != "dbs shop" || d.Owner != "dbs shop_owner" || !d.AccessRoles || d.System || d.CreatedAt == nil ||
		d.CreatedBy == nil || *d.CreatedBy != guid {
		t.Errorf("got %+v", d)
	}
	f.user(t, "dbs_user")
	a := f.want(t, 201, "POST", cluster+"/databases", `{"name":"dbs/2","owner":"dbs_user"}`)
	t.Cleanup(func() { f.PG.Exec(t, `DROP DATABASE IF EXISTS "dbs/2"`) })
	if a.Into(t, &d); d.Owner != "dbs_user" || d.AccessRoles ||
		!strings.HasSuffix(a.Header.Get("Location"), "/databases/dbs%2F2") {
		t.Errorf("got %s at %s", a.Body, a.Header.Get("Location"))
	}
	// Pages follow on each other without a gap.
	var names []string
	for next := ""; ; {
		var page struct {
			Items []database
			Next  *string
		}
		f.want(t, 200, "GET", cluster+"/databases?limit=1"+next, "").Into(t, &page)
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		if page.Next == nil {
			break
		}
		next = "&cursor=" + *page.Next
	}
	if !slices.IsSorted(names) || !slices.Contains(names, "dbs shop") || !slices.Contains(names, "dbs/2") ||
		!slices.Contains(names, "postgres") {
		t.Errorf("listed are %q", names)
	}

	f.do(t, "POST", cluster+"/databases", `{"name":"dbs shop"}`).refused(t, 409, `"dbs shop"`)
	f.do(t, "POST", cluster+"/databases", `{"name":"dbs_none","owner":"dbs_absent"}`).refused(t, 422, "dbs_absent")
	f.do(t, "POST", cluster+"/databases", `{"name":"dbs_none","owner":""}`).refused(t, 422)
	f.do(t, "POST", cluster+"/databases", `{}`).refused(t, 422, "name")
	long := strings.Repeat("x", 58)
	f.do(t, "POST", cluster+"/databases", `{"name":"`+long+`","accessRoles":true}`).refused(t, 422, "64 bytes", long+"_owner")
	f.do(t, "POST", cluster+"/databases", `{"name":"dbs_none","owner":"`+f.PG.User+`"}`).refused(t, 403, f.PG.User)
	f.do(t, "GET", cluster+"/databases/dbs_none", "").refused(t, 404)
	f.do(t, "DELETE", cluster+"/databases/postgres", "").refused(t, 403)
	f.do(t, "DELETE", path, "", `If-Match: "1"`).refused(t, 412)

	// With sessions it stays; without, its access roles and levels go with it.
	f.want(t, 201, "POST", cluster+"/users", `{"username":"dbs_own","password":"`+userPassword+
		`","access":[{"database":"dbs shop","level":"own"}]}`)
	session := f.PG.Connect(t, "dbs_own", userPassword, "dbs shop")
	f.do(t, "DELETE", path, "").refused(t, 409, "in use")
	_ = session.Close(t.Context())
	f.want(t, 204, "DELETE", path, "")
	f.do(t, "DELETE", path, "").refused(t, 404)
	var u userResource
	if f.want(t, 200, "GET", cluster+"/users/dbs_own", "").Into(t, &u); len(u.MemberOf) > 0 {
		t.Errorf("got %+v", u)
	}
}

func TestAccessRoles(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "acr")
	path := cluster + "/databases/acr/access-roles"
	var roles accessRoles
	f.as(t, "manager", "PUT", path, "").Into(t, &roles)
	complete := f.PG.Major > 14 || os.Getenv("ROLECALL_TEST_ADMINISTRATOR") != "least" // who cannot change the schema public
	if roles.Complete != complete || complete != (len(roles.Problems) == 0) || len(roles.Roles) != 3 ||
		roles.Roles[0].Level != "own" || roles.Roles[2].Role != "acr_read" ||
		fmt.Sprint(roles.Schemas) != "[*]" || roles.Adopt || len(roles.Statements) > 0 {
		t.Errorf("got %+v", roles)
	}
	conn := f.PG.Connect(t, f.PG.User, f.PG.Password, "acr")
	if _, err := conn.Exec(t.Context(), `SET ROLE acr_owner; CREATE SCHEMA extra; CREATE TABLE extra.t ();
		REVOKE SELECT ON extra.t FROM acr_read`); err != nil {
		t.Fatal(err)
	}
	plan := f.want(t, 200, "PUT", path+"?plan=true", `{"schemas":["extra"],"adopt":true}`)
	f.as(t, "viewer", "GET", path, "").Into(t, &roles)
	if plan.Into(t, &roles); len(roles.Statements) == 0 || roles.Statements[0].Database != "acr" {
		t.Errorf("the plan is %s", plan.Body)
	}
	if rows := f.AuditRows(t, "acr"); len(rows) != 4 { // made, and completed
		t.Errorf("recorded are %+v", rows)
	}
	planned := fmt.Sprint(roles.Statements)
	f.want(t, 200, "PUT", path, `{"schemas":["extra"],"adopt":true}`).Into(t, &roles)
	if fmt.Sprint(roles.Statements) != planned || !roles.Adopt || fmt.Sprint(roles.Schemas) != "[extra]" {
		t.Errorf("got %+v, planned %s", roles, planned)
	}
	rows := f.AuditRows(t, "acr")
	if attempt, done := rows[4], rows[5]; attempt.Action != "database.access" ||
		attempt.Detail != `{"adopt": true, "schemas": ["extra"]}` || done.Outcome != "done" ||
		done.Detail != fmt.Sprintf(`{"ran": %d, "adopt": true, "schemas": ["extra"]}`, len(roles.Statements)) {
		t.Errorf("recorded are %+v", rows)
	}

	for body, part := range map[string]string{`{"schemas":[]}`: "empty", `{"schemas":["*","extra"]}`: `"*"`,
		`{"schemas":["acr_none"]}`: "acr_none", `{"schemas":["a\u0000"]}`: "schema", `{"schemas":null}`: "schemas",
		`{"x":1}`: "unknown"} {
		f.do(t, "PUT", path, body).refused(t, 422, part)
		f.do(t, "PUT", path+"?plan=true", body).refused(t, 422, part)
	}
	f.do(t, "PUT", path+"?plan=x", "").refused(t, 400, "plan")
	f.do(t, "PUT", cluster+"/databases/acr_none/access-roles", "").refused(t, 404, "acr_none")
	f.do(t, "PUT", cluster+"/databases/postgres/access-roles", "").refused(t, 403, "postgres")
	f.do(t, "GET", cluster+"/databases/postgres/access-roles", "").refused(t, 404, "postgres")
	f.do(t, "GET", cluster+"/databases/"+strings.Repeat("x", 60)+"/access-roles", "").refused(t, 404)
	f.do(t, "DELETE", path+"?reassignTo=", "").refused(t, 422)
	f.do(t, "DELETE", path+"?reassignTo=acr_none", "").refused(t, 422, "acr_none")
	f.do(t, "DELETE", path, "").refused(t, 422, "acr") // it owns the database

	f.user(t, "acr_heir")
	f.want(t, 201, "POST", cluster+"/databases", `{"name":"acr_public","owner":"acr_heir"}`)
	t.Cleanup(func() { f.PG.Exec(t, `DROP DATABASE IF EXISTS acr_public WITH (FORCE)`) })
	f.user(t, "acr_\u00e4")
	f.PG.Connect(t, "acr_\u00e4", userPassword, "acr_public")
	for _, query := range []string{"?plan=true", "", "?plan=true"} {
		a := f.want(t, 200, "PUT", cluster+"/databases/acr_public/access-roles"+query, "")
		warned := strings.Contains(a.Header.Get("Rolecall-Warning"), `"acr_\u00e4" (has sessions now)`)
		if a.Into(t, &roles); warned != (len(roles.Statements) > 0) {
			t.Errorf("%d statements, and warned: %s", len(roles.Statements), a.Header.Get("Rolecall-Warning"))
		}
	}
	f.want(t, 201, "POST", cluster+"/users", `{"username":"acr_member","access":[{"database":"acr","level":"read"}]}`)
	f.do(t, "DELETE", path+"?reassignTo=acr_heir", "").refused(t, 422, "acr_member")
	f.want(t, 204, "DELETE", cluster+"/users/acr_member/access/acr", "")
	f.want(t, 204, "DELETE", path+"?reassignTo=acr_heir", "")
	f.do(t, "DELETE", path, "").refused(t, 404)
	f.do(t, "GET", path, "").refused(t, 404)
	rows = f.AuditRows(t, "acr")
	if done := rows[len(rows)-3]; done.Action != "database.access.remove" || done.Outcome != "done" {
		t.Errorf("recorded is %+v", rows)
	}
}

// Who may view reads, who may manage changes, and what may not be viewed is not there; a token does not widen that.
func TestLevelRights(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "lri")
	f.user(t, "lri_user")
	user, db := cluster+"/users/lri_user", cluster+"/databases/lri"
	readOnly := f.token(t, "manager", `{"name":"ro","readOnly":true}`)
	limited := f.token(t, "manager", `{"name":"here","clusters":["`+f.ClusterID+`"]}`)
	for _, x := range []struct {
		method, path, body string
		manager, viewer    int
	}{
		{"GET", cluster + "/databases", "", 200, 200},
		{"GET", db, "", 200, 200},
		{"GET", db + "/access-roles", "", 200, 200},
		{"GET", user + "/access", "", 200, 200},
		{"PUT", db + "/access-roles?plan=true", "", 200, 403},
		{"PUT", db + "/access-roles", "", 200, 403},
		{"DELETE", db + "/access-roles?reassignTo=lri_user", "", 204, 403},
		{"PUT", db + "/access-roles", "", 200, 403},
		{"POST", user + "/password", "", 200, 403},
		{"POST", user + "/disable", "", 200, 403},
		{"POST", user + "/enable", "", 200, 403},
		{"PUT", user + "/access/lri", `{"level":"read"}`, 200, 403},
		{"DELETE", user + "/access/lri", "", 204, 403},
		{"POST", cluster + "/users", `{"username":"lri_new"}`, 201, 403},
		{"DELETE", db, "", 204, 403},
		{"POST", cluster + "/databases", `{"name":"lri"}`, 201, 403},
	} {
		reads := x.method == "GET"
		for name, want := range map[string]int{"viewer": x.viewer, "stranger": 404, "auditor": x.viewer, "": 401} {
			if a := f.as(t, name, x.method, x.path, x.body); a.Status != want {
				t.Errorf("%s: %s %s: got %d %s, want %d", name, x.method, x.path, a.Status, a.Body, want)
			}
		}
		if a := f.with(t, readOnly, x.method, x.path, x.body); reads != (a.Status == 200) || !reads && a.Status != 403 {
			t.Errorf("read-only: %s %s: got %d %s", x.method, x.path, a.Status, a.Body)
		}
		// A token that is limited to the cluster does what its account may.
		if a := f.with(t, limited, x.method, x.path, x.body); a.Status != x.manager {
			t.Errorf("manager: %s %s: got %d %s, want %d", x.method, x.path, a.Status, a.Body, x.manager)
		}
	}
	denied := 0
	for _, row := range f.AuditRows(t, "lri_user") {
		if row.Outcome == "denied" {
			denied++
		}
	}
	if denied != 15 { // five changes, by the viewer, the auditor and the token
		t.Errorf("%d refusals are recorded", denied)
	}
}
