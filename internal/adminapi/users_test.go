package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
)

const userPassword = "a-good-password"

// userResource is a database user as a client reads it.
type userResource struct {
	Username, State, PasswordKind, Comment, ETag string
	System                                       bool
	ValidUntil, CreatedBy, CreatedAt             *string
	ModifiedBy, ModifiedAt                       *string
	ConnectionLimit                              int
	MemberOf                                     []string
	Connection                                   struct {
		Host, URL string
		Port      int
		Databases []string
	}
	EndedSessions *int
	KeptRoles     []string
}

// user makes a database user, whose password is userPassword, and returns its path.
func (f *fixture) user(t testing.TB, name string) (path string) {
	t.Helper()
	if a := f.dbaas(t, "POST", "", fmt.Sprintf(`{"properties":{"username":%q,"password":%q}}`, name,
		userPassword)); a.Status != 200 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	return "/clusters/" + f.ClusterID + "/users/" + url.PathEscape(name)
}

// dbaas sends a request about the cluster's users to the DBaaS dialect, as root.
func (f *fixture) dbaas(t testing.TB, method, path, body string) answer {
	t.Helper()
	root := f.token(t, "root", fmt.Sprintf(`{"name":"dbaas %d"}`, time.Now().UnixNano()))
	return answer{f.platform(t)["dbaas.yaml"].Send(t, method, "/databases/postgresql/clusters/"+f.ClusterID+"/users"+path,
		body, "Authorization: Bearer "+root.Secret)}
}

// session opens a session as a user.
func (f *fixture) session(t testing.TB, name string) *pgx.Conn {
	t.Helper()
	return f.PG.Connect(t, name, userPassword, "postgres")
}

func TestUserDetails(t *testing.T) {
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE det_group; CREATE ROLE det_default`)
	f.PG.Exec(t, `CREATE DATABASE det_shop`)
	f.PG.Exec(t, `REVOKE CONNECT ON DATABASE det_shop FROM PUBLIC`)
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"memberOf":["det_default"],"grantable":["det_group"]}`)
	name := `det/ü"x`
	path := f.user(t, name)
	f.PG.Exec(t, `GRANT CONNECT ON DATABASE det_shop TO "det/ü""x"`)
	var u userResource
	a := f.want(t, 200, "GET", path, "")
	a.Into(t, &u)
	guid, _ := f.Identity.GUID(t.Context(), "root")
	if u.Username != name || u.State != "active" || u.PasswordKind != "scram-sha-256" || u.System || u.ValidUntil != nil ||
		u.ConnectionLimit != -1 ||
		fmt.Sprint(u.MemberOf) != "[det_default]" || u.CreatedBy == nil || *u.CreatedBy != guid || u.CreatedAt == nil ||
		a.Header.Get("ETag") != u.ETag {
		t.Errorf("got %s", a.Body)
	}
	if u.Connection.Host != "127.0.0.1" || u.Connection.Port != f.PG.Port ||
		!strings.Contains(strings.Join(u.Connection.Databases, " "), "det_shop") {
		t.Errorf("got %+v", u.Connection)
	}
	// The URL is one that works, with the password beside it, and it names no database of Rolecall's.
	to, err := pgx.ParseConfig(u.Connection.URL)
	if err != nil || to.User != name || to.Password != "" {
		t.Fatalf("%s: %v", u.Connection.URL, err)
	}
	to.Password = userPassword
	conn, err := pgx.ConnectConfig(t.Context(), to)
	if err != nil {
		t.Fatalf("%s: %v", u.Connection.URL, err)
	}
	_ = conn.Close(t.Context())
	if strings.Contains(u.Connection.URL, f.DB.Identity.Database) {
		t.Errorf("the URL is %s", u.Connection.URL)
	}
	f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/users/"+f.PG.User, "").Into(t, &u)
	if !u.System {
		t.Errorf("got %+v", u)
	}
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/users/det_none", "").refused(t, 404)
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/users/det_group", "").refused(t, 404)
}

// Who may view reads, who may manage changes, and what may not be viewed is not there.
func TestUserRights(t *testing.T) {
	f := newFixture(t)
	path := f.user(t, "rig")
	f.Access(t, f.ClusterID, []string{"team=a"}, []string{"team=b"})
	f.PG.Exec(t, `CREATE ROLE rig_a`)
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"grantable":["rig_a"]}`)
	f.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "a"})
	f.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "b"})
	f.Account(t, "stranger", account.DefaultScopes, map[string]string{"team": "c"})
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	list := "/clusters/" + f.ClusterID + "/pgbouncer/userlist"
	for _, x := range []struct {
		method, path, body                 string
		manager, viewer, stranger, auditor int
	}{
		{"GET", path, "", 200, 200, 404, 200},
		{"PATCH", path, `{"connectionLimit":3}`, 200, 403, 404, 403},
		{"PUT", path + "/roles", `{"roles":[]}`, 200, 403, 404, 403},
		{"PUT", path + "/roles/rig_a", "", 204, 403, 404, 403},
		{"DELETE", path + "/roles/rig_a", "", 204, 403, 404, 403},
		{"GET", path + "/deletion-plan", "", 200, 403, 404, 403},
		{"GET", "/clusters/" + f.ClusterID + "/password-problems", "", 200, 403, 404, 403},
		{"GET", list, "", 403, 403, 404, 403},
		{"DELETE", path, "", 204, 403, 404, 403},
	} {
		for name, want := range map[string]int{"manager": x.manager, "viewer": x.viewer, "stranger": x.stranger,
			"auditor": x.auditor, "": 401} {
			if a := f.as(t, name, x.method, x.path, x.body); a.Status != want {
				t.Errorf("%s: %s %s: got %d %s, want %d", name, x.method, x.path, a.Status, a.Body, want)
			}
		}
	}
	outcomes := map[string]int{}
	for _, row := range f.AuditRows(t, "rig") {
		outcomes[row.Action+" "+row.Phase+row.Outcome]++
	}
	for key, want := range map[string]int{"user.limits attempt": 1, "user.limits outcomedone": 1,
		"user.limits outcomedenied": 2, "user.roles outcomedone": 3, "user.roles outcomedenied": 6} {
		if outcomes[key] != want {
			t.Errorf("%s: %d rows, want %d: %v", key, outcomes[key], want, outcomes)
		}
	}
}

func TestLimits(t *testing.T) {
	f := newFixture(t)
	path := f.user(t, "lim")
	var u userResource
	f.want(t, 200, "PATCH", path, `{"validUntil":"2099-01-31T18:00:00.25+01:00","connectionLimit":1}`).Into(t, &u)
	if u.ValidUntil == nil || *u.ValidUntil != "2099-01-31T17:00:00.25Z" || u.ConnectionLimit != 1 || u.EndedSessions != nil {
		t.Errorf("got %+v", u)
	}
	first := f.session(t, "lim")
	if err := f.PG.Login("lim", userPassword); err == nil {
		t.Error("there is a second connection")
	}
	f.want(t, 200, "PATCH", path, `{"endSessions":true}`).Into(t, &u)
	if u.EndedSessions == nil || *u.EndedSessions != 1 || first.Ping(t.Context()) == nil {
		t.Errorf("got %+v, and the session goes on", u)
	}
	f.want(t, 200, "PATCH", path, `{"validUntil":"2020-01-01T00:00:00Z","endSessions":false}`)
	if err := f.PG.Login("lim", userPassword); err == nil {
		t.Error("an expired password is taken")
	}
	f.want(t, 200, "PATCH", path, `{"validUntil":"2027-01-31"}`).Into(t, &u)
	if u.ValidUntil == nil || *u.ValidUntil != "2027-01-31T00:00:00Z" {
		t.Errorf("a date is %+v", u)
	}
	if u.State != "active" {
		t.Errorf("before its end the state is %s", u.State)
	}
	f.want(t, 200, "PATCH", path, `{"validUntil":"2020-01-01T00:00:00Z"}`).Into(t, &u)
	var users struct{ Items []userResource }
	f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/users", "").Into(t, &users)
	if u.State != "expired" || !slices.ContainsFunc(users.Items, func(i userResource) bool {
		return i.Username == "lim" && i.State == "expired"
	}) {
		t.Errorf("after its end the state is %s, and the list has %+v", u.State, users.Items)
	}
	f.want(t, 200, "PATCH", path, `{"connectionLimit":5}`)
	// null is for ever, infinity too.
	var cleared userResource
	f.do(t, "PATCH", path, `{"validUntil":null}`, "If-Match: "+u.ETag).refused(t, 412)
	f.want(t, 200, "GET", path, "").Into(t, &u)
	f.want(t, 200, "PATCH", path, `{"validUntil":null,"connectionLimit":-1}`, "If-Match: "+u.ETag).Into(t, &cleared)
	if cleared.ValidUntil != nil || cleared.ConnectionLimit != -1 || cleared.ETag == u.ETag {
		t.Errorf("got %+v", cleared)
	}
	if err := f.PG.Login("lim", userPassword); err != nil {
		t.Error(err)
	}
	f.PG.Exec(t, `ALTER ROLE lim VALID UNTIL 'infinity'`)
	f.want(t, 200, "GET", path, "").Into(t, &cleared)
	if cleared.ValidUntil != nil {
		t.Errorf("got %+v", cleared)
	}

	for _, body := range []string{`{}`, `{"endSessions":false}`, `{"validUntil":"tomorrow"}`, `{"validUntil":"infinity"}`,
		`{"validUntil":1}`, `{"connectionLimit":-2}`, `{"connectionLimit":null}`,
		`{"connectionLimit":1.5}`, `{"connectionLimit":99999999999}`, `{"endSessions":null}`, `{"validUntil":"7d"}`} {
		f.do(t, "PATCH", path, body).refused(t, 422)
	}
	a := f.do(t, "PATCH", path, `{"opensesame":"x"}`)
	a.refused(t, 422, "field 1", "connectionLimit, endSessions, validUntil")
	if strings.Contains(a.Body, "opensesame") {
		t.Errorf("the message repeats what may be a secret: %s", a.Body)
	}
	f.do(t, "PATCH", path, `{"connectionLimit":1}`, `If-Match: "0-0"`).refused(t, 412)
	f.do(t, "PATCH", "/clusters/"+f.ClusterID+"/users/lim_none", `{"connectionLimit":1}`).refused(t, 404)
	f.do(t, "PATCH", "/clusters/"+f.ClusterID+"/users/"+f.PG.User, `{"connectionLimit":1}`).refused(t, 403)
}

func TestRoles(t *testing.T) {
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE rol_a; CREATE ROLE rol_b; CREATE ROLE rol_out; CREATE ROLE rol_danger CREATEROLE`)
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"grantable":["rol_a","rol_b","rol_danger","rol_none"]}`)
	path := f.user(t, "rol")
	f.PG.Exec(t, `GRANT rol_out TO rol`)
	set := func(body, memberOf string) {
		t.Helper()
		var u userResource
		f.want(t, 200, "PUT", path+"/roles", body).Into(t, &u)
		if got := strings.Join(u.MemberOf, " "); got != memberOf || fmt.Sprint(u.KeptRoles) != "[rol_out]" {
			t.Errorf("%s: member of %s, kept %s", body, got, u.KeptRoles)
		}
	}
	set(`{"roles":["rol_b","rol_a"]}`, "rol_a rol_b rol_out")
	set(`{"roles":["rol_b"]}`, "rol_b rol_out")
	for body, status := range map[string]int{
		`{"roles":["rol_out"]}`: 422, `{"roles":["postgres"]}`: 422, `{"roles":["rol_none"]}`: 422,
		`{"roles":["rol_danger"]}`: 403, `{"roles":["rol_a","rol_danger"]}`: 403,
		`{"roles":null}`: 422, `{"roles":[1]}`: 422, `{}`: 422,
	} {
		f.do(t, "PUT", path+"/roles", body).refused(t, status)
	}
	f.do(t, "PUT", path+"/roles", `{"roles":[]}`, `If-Match: "x"`).refused(t, 412)
	f.do(t, "PUT", "/clusters/"+f.ClusterID+"/users/"+f.PG.User+"/roles", `{"roles":[]}`).refused(t, 403)
	set(`{"roles":["rol_b"]}`, "rol_b rol_out")
	set(`{"roles":[]}`, "rol_out")
}

func TestGrantAndRevokeRole(t *testing.T) {
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE add_a; CREATE ROLE "add/b %"; CREATE ROLE add_out; CREATE ROLE add_danger CREATEROLE`)
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"grantable":["add_a","add/b %","add_danger","add_none"]}`)
	path := f.user(t, "add")
	f.PG.Exec(t, `GRANT add_out TO add`)
	revision := ""
	for _, x := range []struct{ method, role, memberOf string }{
		{"PUT", "add_a", "add_a add_out"}, {"PUT", "add_a", "add_a add_out"}, {"PUT", "add%2Fb%20%25", "add/b % add_a add_out"},
		{"DELETE", "add_a", "add/b % add_out"}, {"DELETE", "add_a", "add/b % add_out"}, {"DELETE", "add_none", "add/b % add_out"},
	} {
		var conditions []string
		if revision != "" {
			conditions = []string{"If-Match: " + revision}
		}
		a := f.want(t, 204, x.method, path+"/roles/"+x.role, "", conditions...)
		var u userResource
		f.want(t, 200, "GET", path, "").Into(t, &u)
		if got := strings.Join(u.MemberOf, " "); got != x.memberOf || a.Header.Get("ETag") != u.ETag || a.Body != "" {
			t.Errorf("%s %s: member of %s, ETag %s of %s", x.method, x.role, got, a.Header.Get("ETag"), u.ETag)
		}
		revision = u.ETag
	}
	for _, method := range []string{"PUT", "DELETE"} {
		for role, status := range map[string]int{"add_out": 422, "postgres": 422, "add%00": 422, "add_danger": 403} {
			f.do(t, method, path+"/roles/"+role, "").refused(t, status)
		}
		f.do(t, method, path+"/roles/add_a", "", `If-Match: "x"`).refused(t, 412)
		f.do(t, method, path+"_none/roles/add_a", "").refused(t, 404)
		f.do(t, method, "/clusters/"+f.ClusterID+"/users/"+f.PG.User+"/roles/add_a", "").refused(t, 403)
	}
	f.do(t, "PUT", path+"/roles/add_none", "").refused(t, 422, `no role "add_none"`)
	details := map[string]int{}
	for _, row := range f.AuditRows(t, "add") {
		if row.Action == "user.roles" && row.Phase == "attempt" {
			details[string(row.Detail)]++
		}
	}
	for detail, want := range map[string]int{`{"grant": "add_a"}`: 3, `{"revoke": "add_a"}`: 3, `{"revoke": "add_none"}`: 1} {
		if details[detail] != want {
			t.Errorf("%s: %d attempts, want %d: %v", detail, details[detail], want, details)
		}
	}
}

func TestDeletionPlan(t *testing.T) {
	f := newFixture(t)
	path := f.user(t, "pla")
	f.user(t, "pla_heir")
	type listing struct {
		Count int
		First []string
	}
	type plan struct {
		Blockers  []string
		Sessions  int
		Unvisited *int
		Databases []struct {
			Name                                             string
			Objects, Definers, Privileges, DefaultPrivileges listing
		}
	}
	look := func(query string) (p plan) {
		t.Helper()
		f.want(t, 200, "GET", path+"/deletion-plan"+query, "").Into(t, &p)
		return p
	}
	if p := look(""); len(p.Blockers) > 0 || p.Sessions > 0 || len(p.Databases) > 0 || p.Unvisited == nil || *p.Unvisited != 0 {
		t.Errorf("got %+v", p)
	}
	f.PG.Exec(t, `GRANT CREATE, USAGE ON SCHEMA public TO pla`)
	f.PG.Exec(t, `CREATE ROLE pla_group; GRANT pla_group TO pla WITH ADMIN OPTION`)
	f.PG.Exec(t, `CREATE TABLE pla_policed (x int); CREATE POLICY pla_policy ON pla_policed TO pla`)
	own := f.session(t, "pla")
	for _, sql := range []string{
		`CREATE TABLE pla_table (x int)`, `CREATE VIEW pla_view AS SELECT * FROM pla_table`, `GRANT pla_group TO pla_heir`,
		`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC`,
	} {
		if _, err := own.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	p := look("")
	text := strings.Join(p.Blockers, "\n")
	for _, part := range []string{"It owns ", "pla_table", "pla_policy", "It has granted memberships to others"} {
		if !strings.Contains(text, part) {
			t.Errorf("the blockers lack %q:\n%s", part, text)
		}
	}
	if p.Sessions != 1 || len(p.Databases) != 1 || p.Databases[0].Name != "postgres" || p.Databases[0].Objects.Count < 2 ||
		p.Databases[0].Privileges.Count != 1 || p.Databases[0].DefaultPrivileges.Count != 1 {
		t.Errorf("got %+v", p)
	}
	reassigned := look("?reassignTo=pla_heir")
	if strings.Contains(strings.Join(reassigned.Blockers, "\n"), "It owns ") ||
		len(reassigned.Databases[0].Definers.First) != 1 {
		t.Errorf("got %+v", reassigned)
	}
	if own.Ping(t.Context()) != nil {
		t.Error("a plan ended a session")
	}
	f.do(t, "GET", path+"/deletion-plan?reassignTo=pla_none", "").refused(t, 422)
	f.do(t, "GET", path+"/deletion-plan?reassignTo=pla", "").refused(t, 422)
	f.do(t, "GET", path+"/deletion-plan?reassignTo=", "").refused(t, 422)
	f.do(t, "GET", path+"/deletion-plan?reassignTo="+f.PG.User, "").refused(t, 403)
	f.do(t, "GET", path+"/deletion-plan?x=y", "").refused(t, 400)
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/users/pla_none/deletion-plan", "").refused(t, 404)
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/users/"+f.PG.User+"/deletion-plan", "").refused(t, 403)
	f.PG.Exec(t, `REVOKE pla_group FROM pla CASCADE`)
}

// A user that cannot be deleted is disabled when that is asked for; it can be enabled again, and deleted once nothing is
// in the way.
func TestDelete(t *testing.T) {
	f := newFixture(t)
	path, owner, heir := f.user(t, "del"), f.user(t, "del_owner"), f.user(t, "del_heir")
	f.PG.Exec(t, `CREATE TABLE del_table (); ALTER TABLE del_table OWNER TO del_owner`)
	f.do(t, "DELETE", path+"?reassignTo=", "").refused(t, 422)
	f.do(t, "DELETE", path+"?onBlocked=keep", "").refused(t, 422)
	f.do(t, "DELETE", path+"?force=true", "").refused(t, 400)
	f.do(t, "DELETE", path, "", `If-Match: "0-other"`).refused(t, 412)
	f.want(t, 200, "GET", path, "")
	f.want(t, 204, "DELETE", path, "", "If-Match: *")
	f.do(t, "DELETE", path, "").refused(t, 404)

	var refused struct{ Detail, Hint string }
	f.want(t, 409, "DELETE", owner, "").Into(t, &refused)
	if refused.Hint != "reassign" || !strings.Contains(refused.Detail, "del_table") ||
		strings.Contains(refused.Detail, "reassign") {
		t.Errorf("got %+v", refused)
	}
	var disabled struct{ Username, State string }
	f.want(t, 200, "DELETE", owner+"?onBlocked=disable", "").Into(t, &disabled)
	if disabled.Username != "del_owner" || disabled.State != "disabled" {
		t.Errorf("got %+v", disabled)
	}
	f.want(t, 204, "DELETE", owner+"?onBlocked=disable&reassignTo=del_heir", "")
	f.want(t, 409, "DELETE", heir, "")
	f.PG.Exec(t, `DROP TABLE del_table`)
	f.want(t, 204, "DELETE", heir, "")
}

func TestDisableInsteadOfDelete(t *testing.T) {
	f := newFixture(t)
	path := f.user(t, "dis")
	f.PG.Exec(t, `GRANT CREATE ON SCHEMA public TO dis`)
	own := f.session(t, "dis")
	if _, err := own.Exec(t.Context(), `CREATE TABLE dis_table (x int)`); err != nil {
		t.Fatal(err)
	}
	if a := f.dbaas(t, "DELETE", "/dis", ""); a.Status != 422 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	for _, query := range []string{"?onBlocked=", "?onBlocked=drop"} {
		if a := f.dbaas(t, "DELETE", "/dis"+query, ""); a.Status != 422 {
			t.Errorf("%s: got %d %s", query, a.Status, a.Body)
		}
	}
	state := func(want string) {
		t.Helper()
		var u userResource
		if f.want(t, 200, "GET", path, "").Into(t, &u); u.State != want {
			t.Errorf("the state is %s, want %s", u.State, want)
		}
	}
	state("active")
	if a := f.dbaas(t, "DELETE", "/dis?onBlocked=disable", ""); a.Status != 200 ||
		!strings.Contains(a.Body, `"username":"dis"`) || a.Header.Get("ETag") == "" {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	state("disabled")
	if own.Ping(t.Context()) == nil || f.PG.Login("dis", userPassword) == nil {
		t.Error("the disabled user is in")
	}
	rows := f.AuditRows(t, "dis")
	if last := rows[len(rows)-1]; last.Outcome != "done" || !strings.Contains(last.Detail, "dis_table") {
		t.Errorf("recorded %+v", last)
	}
	if a := f.dbaas(t, "PATCH", "/dis", `{"properties":{"password":"`+userPassword+`"}}`); a.Status != 200 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	state("active")
	if err := f.PG.Login("dis", userPassword); err != nil {
		t.Error(err)
	}
	f.PG.Exec(t, `DROP TABLE dis_table`)
	if a := f.dbaas(t, "DELETE", "/dis?onBlocked=disable", ""); a.Status != 204 || a.Body != "" {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	f.do(t, "GET", path, "").refused(t, 404)
}

func TestUserlist(t *testing.T) {
	f := newFixture(t)
	f.user(t, `ul"x`)
	f.PG.Exec(t, `CREATE ROLE ul_danger LOGIN CREATEROLE PASSWORD 'x'; CREATE ROLE ul_none LOGIN; `+
		`CREATE ROLE "ul`+"\n"+`" LOGIN PASSWORD 'x'`)
	a := f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/pgbouncer/userlist", "")
	line := regexp.MustCompile(`^"((?:[^"]|"")+)" "((?:[^"]|"")+)"$`)
	found := map[string]string{}
	for text := range strings.SplitSeq(strings.TrimSuffix(a.Body, "\n"), "\n") {
		parts := line.FindStringSubmatch(text)
		if parts == nil {
			t.Fatalf("PgBouncer cannot read %q", text)
		}
		found[strings.ReplaceAll(parts[1], `""`, `"`)] = parts[2]
	}
	verifier := pgtest.Value[string](t, f.PG, `SELECT rolpassword FROM pg_authid WHERE rolname = 'ul"x'`)
	if found[`ul"x`] != verifier {
		t.Errorf("got %q, want %q", found[`ul"x`], verifier)
	}
	for _, name := range []string{"ul_danger", "ul_none", "ul\n", f.PG.User} {
		if _, there := found[name]; there {
			t.Errorf("%q is in the list", name)
		}
	}
	var recorded, leaked int
	err := f.DB.Pool.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE phase = 'outcome' AND outcome = 'done' AND (detail->>'users')::int > 0), count(*) FILTER
		  (WHERE detail::text LIKE '%SCRAM%')
		FROM audit WHERE action = 'user.verifiers'`).Scan(&recorded, &leaked)
	if err != nil || recorded != 1 || leaked > 0 || strings.Contains(f.Log.String(), verifier) {
		t.Errorf("%d rows, %d with a verifier, %v", recorded, leaked, err)
	}
}

func TestPasswordProblems(t *testing.T) {
	f := newFixture(t)
	const md5 = "md5d41d8cd98f00b204e9800998ecf8427e"
	f.PG.Exec(t, `CREATE ROLE prob_a LOGIN PASSWORD '`+md5+`'; CREATE ROLE prob_b LOGIN; CREATE ROLE prob_c LOGIN CREATEROLE `+
		`PASSWORD '`+md5+`'`)
	f.user(t, "prob_good")
	type problems struct {
		Items []struct {
			Username, PasswordKind, Problem string
			System                          bool
			Iterations                      *int
		}
		Next *string
	}
	path := "/clusters/" + f.ClusterID + "/password-problems"
	got := map[string]string{}
	for query := "?limit=1"; query != ""; {
		var page problems
		a := f.want(t, 200, "GET", path+query, "")
		a.Into(t, &page)
		if strings.Contains(a.Body, md5[3:]) || strings.Contains(a.Body, "SCRAM-SHA-256$") {
			t.Fatalf("a verifier is in %s", a.Body)
		}
		for _, item := range page.Items { // the cluster is shared, and has others
			if strings.HasPrefix(item.Username, "prob_") {
				got[item.Username] = fmt.Sprint(item.PasswordKind, " ", item.System, " ", item.Iterations == nil)
			}
		}
		query = ""
		if page.Next != nil {
			query = "?limit=1&cursor=" + *page.Next
		}
	}
	if want := "map[prob_a:md5 false true prob_b:none false true prob_c:md5 true true]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	f.Access(t, f.ClusterID, []string{"team=prob"}, nil)
	f.Account(t, "prob_manager", account.DefaultScopes, map[string]string{"team": "prob"})
	if a := f.as(t, "prob_manager", "GET", path+"?limit=1000", ""); a.Status != 200 || !strings.Contains(a.Body, `"prob_a"`) ||
		strings.Contains(a.Body, `"prob_c"`) || strings.Contains(a.Body, `"system":true`) {
		t.Errorf("who cannot renew system users' passwords is answered %d %s", a.Status, a.Body)
	}
	f.do(t, "GET", path+"?cursor=AA", "").refused(t, 400)
	f.do(t, "GET", path+"?limit=0", "").refused(t, 422)
	f.do(t, "GET", path+"?kind=md5", "").refused(t, 400)

	plain := f.Register(t, "prob-plain", f.PG, role(t, f.PG, "prob_admin", "CREATEROLE"), rolePassword)
	f.do(t, "GET", "/clusters/"+plain+"/password-problems", "").refused(t, 403, "only a superuser may")
}

// A list shows each user as it is shown by itself.
func TestListUsers(t *testing.T) {
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE lst_outside LOGIN PASSWORD 'x'; CREATE ROLE lst_group; COMMENT ON ROLE lst_outside IS 'by hand'`)
	want := map[string]string{}
	for _, name := range []string{"lst_a", "lst_b/ü", "lst_c"} {
		path := f.user(t, name)
		want[name] = strings.TrimSpace(f.want(t, 200, "GET", path, "").Body)
	}
	want["lst_outside"] = strings.TrimSpace(f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/users/lst_outside", "").Body)
	at := "/clusters/" + f.ClusterID + "/users"
	list := func(query string) (names []string) {
		t.Helper()
		for cursor := ""; ; {
			var l struct {
				Items []json.RawMessage
				Next  *string
			}
			f.want(t, 200, "GET", at+"?limit=2"+query+cursor, "").Into(t, &l)
			for _, item := range l.Items {
				var u userResource
				if err := json.Unmarshal(item, &u); err != nil {
					t.Fatal(err)
				}
				names = append(names, u.Username)
				if one, ours := want[u.Username]; ours && one != string(item) {
					t.Errorf("%s is %s in the list and %s by itself", u.Username, item, one)
				}
			}
			if l.Next == nil {
				return names
			}
			cursor = "&cursor=" + *l.Next
		}
	}
	names, all := list(""), list("&system=true")
	for name := range want {
		if !slices.Contains(names, name) || !slices.Contains(all, name) {
			t.Errorf("%s is not among %q", name, names)
		}
	}
	if !slices.IsSorted(names) || slices.Contains(names, "lst_group") || slices.Contains(names, f.PG.User) ||
		!slices.Contains(all, f.PG.User) {
		t.Errorf("got %q, and with system users %q", names, all)
	}
	for _, query := range []string{"?system=1", "?system=", "?x=1", "?cursor=AA"} {
		f.do(t, "GET", at+query, "").refused(t, 400)
	}
	f.do(t, "GET", "/clusters/none/users", "").refused(t, 404)
}
