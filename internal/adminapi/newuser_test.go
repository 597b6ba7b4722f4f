package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// createdUser is a user with the password that was generated for it.
type createdUser struct {
	userResource
	Password string
}

// checkGenerated fails the test unless the password is a good one, works, and is known to nobody else.
func (f *fixture) checkGenerated(t testing.TB, a answer, name, password string) {
	t.Helper()
	if len(password) < 26 {
		t.Errorf("%q has fewer than 128 bits", password)
	}
	if err := f.PG.Login(name, password); err != nil {
		t.Error(err)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", a.Header.Get("Cache-Control"))
	}
	if strings.Contains(f.Log.String(), password) || strings.Contains(fmt.Sprint(f.AuditRows(t, name)), password) {
		t.Error("the password is logged or recorded")
	}
	if again := f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/users/"+name, ""); strings.Contains(again.Body, password) {
		t.Errorf("the password is shown again: %s", again.Body)
	}
}

// A user is made in one call with all that it may do, or not at all.
func TestCreateUser(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "cru")
	f.PG.Exec(t, `CREATE ROLE cru_group; CREATE ROLE cru_boss SUPERUSER`)
	f.want(t, 200, "PATCH", cluster, `{"grantable":["cru_group","cru_boss"]}`)
	a := f.as(t, "manager", "POST", cluster+"/users", `{"username":"cru_app","access":[{"database":"cru","level":"write"}],
		"roles":["cru_group","cru_group"],"validUntil":"2099-01-31T18:00:00Z","connectionLimit":5}`)
	var u createdUser
	if a.Into(t, &u); a.Status != 201 || u.ETag != a.Header.Get("ETag") || u.ConnectionLimit != 5 || u.ValidUntil == nil ||
		fmt.Sprint(u.MemberOf) != "[cru_group cru_write]" || !strings.HasSuffix(a.Header.Get("Location"), "/users/cru_app") ||
		!slices.Contains(u.Connection.Databases, "cru") {
		t.Errorf("got %d %s at %s", a.Status, a.Body, a.Header.Get("Location"))
	}
	f.checkGenerated(t, a, "cru_app", u.Password)
	rows := f.AuditRows(t, "cru_app")
	if len(rows) != 2 || rows[1].Outcome != "done" ||
		rows[0].Detail != `{"roles": ["cru_group"], "access": [{"level": "write", `+
			`"database": "cru"}], "validUntil": "2099-01-31T18:00:00Z", "connectionLimit": 5}` {
		t.Errorf("recorded are %+v", rows)
	}

	a = f.want(t, 201, "POST", cluster+"/users", `{"username":"cru_own","password":"`+userPassword+
		`","access":[{"database":"cru","level":"own"}],"validUntil":null,"connectionLimit":-1}`)
	if strings.Contains(a.Body, "assword\":\"a") {
		t.Errorf("a password that was given is in the answer: %s", a.Body)
	}
	// What the one makes, the other writes.
	own := f.PG.Connect(t, "cru_own", userPassword, "cru")
	app := f.PG.Connect(t, "cru_app", u.Password, "cru")
	for _, step := range []struct {
		conn *pgx.Conn
		sql  string
	}{{own, `CREATE TABLE t (n serial)`}, {app, `INSERT INTO t DEFAULT VALUES`}} {
		if _, err := step.conn.Exec(t.Context(), step.sql); err != nil {
			t.Errorf("%s: %v", step.sql, err)
		}
	}
	if _, err := app.Exec(t.Context(), `CREATE SCHEMA mine`); err == nil {
		t.Error("a user of write creates schemas")
	}

	f.do(t, "POST", cluster+"/users", `{"username":"cru_app"}`).refused(t, 409, "cru_app")
	many := strings.Repeat(`{"database":"cru","level":"read"},`, 101)
	for body, part := range map[string]string{
		`"access":[{"database":"postgres","level":"read"}]`:                                    `"postgres"`,
		`"access":[{"database":"cru_none","level":"read"}]`:                                    `"cru_none"`,
		`"access":[{"database":"` + strings.Repeat("x", 70) + `","level":"read"}]`:             "xxx",
		`"access":[{"database":"cru","level":"admin"}]`:                                        `"admin"`,
		`"access":[{"database":"cru","level":"own"},{"database":"cru","level":"read"}]`:        `"cru"`,
		`"access":[{"database":"cru","level":"write"},{"database":"postgres","level":"read"}]`: `"postgres"`,
		`"access":[{"database":"cru"}]`:                                                        "access[0].level",
		`"access":[1]`:                                                                         "access[0]",
		`"access":null`:                                                                        "access",
		`"access":[{"database":"cru","level":"read","x":1}]`:                                   "access[0]",
		`"access":[` + strings.TrimSuffix(many, ",") + `]`:                                     "101",
		`"roles":["cru_none"]`:                                                                 "cru_none",
		`"roles":["cru_owner"]`:                                                                "cru_owner",
		`"password":"short"`:                                                                   "10 to 63",
		`"password":null`:                                                                      "password",
		`"connectionLimit":-2`:                                                                 "limit",
		`"access":[{"database":"cru","level":"own"}],"connectionLimit":7,"roles":["cru_group",""]`: `""`,
	} {
		f.do(t, "POST", cluster+"/users", `{"username":"cru_new",`+body+`}`).refused(t, 422, part)
	}
	f.do(t, "POST", cluster+"/users",
		`{"username":"cru_new","access":[{"database":"cru","level":"own"}],"roles":["cru_boss"]}`).
		refused(t, 403, "cru_boss")
	f.do(t, "POST", cluster+"/users", `{}`).refused(t, 422, "username")
	f.do(t, "POST", cluster+"/users", `{"username":"pg_new"}`).refused(t, 422, "pg_new")
	f.do(t, "GET", cluster+"/users/cru_new", "").refused(t, 404)
}

// Passwords are given or generated.
func TestChangePassword(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "chp")
	path := f.user(t, "chp_user") + "/password"
	for _, body := range []string{"", `{}`} {
		a := f.as(t, "manager", "POST", path, body)
		var u createdUser
		if a.Into(t, &u); a.Status != 200 || u.ETag != a.Header.Get("ETag") {
			t.Errorf("got %d %s", a.Status, a.Body)
		}
		f.checkGenerated(t, a, "chp_user", u.Password)
	}
	a := f.want(t, 200, "POST", path, `{"password":"another-password"}`)
	if err := f.PG.Login("chp_user", "another-password"); err != nil || strings.Contains(a.Body, "another-password") {
		t.Errorf("got %s, %v", a.Body, err)
	}
	f.do(t, "POST", path, `{"password":"another-password"}`, `If-Match: "0"`).refused(t, 412)
	f.want(t, 200, "POST", path, "", "If-Match: "+a.Header.Get("ETag"))
	f.do(t, "POST", path, `{"password":""}`).refused(t, 422)
	f.do(t, "POST", path, `{"password":7}`).refused(t, 422)
	f.do(t, "POST", cluster+"/users/"+f.PG.User+"/password", "").refused(t, 403)
	f.do(t, "POST", cluster+"/users/chp_none/password", "").refused(t, 404)
}

// A level is set, replaced and taken away, each by one change of the user.
func TestSetLevel(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "lev")
	user := f.user(t, "lev_user")
	path := user + "/access/lev"
	before := f.want(t, 200, "GET", user, "").Header.Get("ETag")
	for _, level := range []string{"read", "write", "own", "write"} {
		a := f.as(t, "manager", "PUT", path, `{"level":"`+level+`"}`, "If-Match: "+before)
		if a.Status != 200 || a.Body != `{"database":"lev","level":"`+level+`"}`+"\n" {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		before = a.Header.Get("ETag")
		var u userResource
		role := map[string]string{"own": "lev_owner"}[level]
		if role == "" {
			role = "lev_" + level
		}
		if f.want(t, 200, "GET", user, "").Into(t, &u); fmt.Sprint(u.MemberOf) != "["+role+"]" || u.ETag != before {
			t.Errorf("%s: got %+v, the tag was %s", level, u, before)
		}
	}
	var access struct {
		Username  string
		Databases []struct {
			Database string
			Level    *string
			Via      []string
			Connect  bool
		}
	}
	f.as(t, "viewer", "GET", user+"/access", "").Into(t, &access)
	found := false
	for _, in := range access.Databases {
		if in.Database == "lev" {
			found = in.Level != nil && *in.Level == "write" && fmt.Sprint(in.Via) == "[lev_write]" && in.Connect
		}
	}
	if access.Username != "lev_user" || !found {
		t.Errorf("got %+v", access)
	}
	f.do(t, "PUT", path, `{"level":"read"}`, `If-Match: "0"`).refused(t, 412)
	f.do(t, "DELETE", path, "", `If-Match: "0"`).refused(t, 412)
	f.want(t, 204, "DELETE", path, "", "If-Match: "+before)
	f.want(t, 204, "DELETE", path, "")
	rows := f.AuditRows(t, "lev_user")
	if set, taken := rows[2], rows[len(rows)-2]; set.Action != "user.access" ||
		set.Detail != `{"level": "read", "database": "lev"}` || taken.Detail != `{"level": null, "database": "lev"}` {
		t.Errorf("recorded are %+v", rows)
	}
	for _, x := range []struct {
		path, body string
		status     int
		part       string
	}{
		{path, `{}`, 422, "level"}, {path, `{"level":"admin"}`, 422, `"admin"`}, {path, `{"level":null}`, 422, "level"},
		{user + "/access/lev_none", `{"level":"read"}`, 404, "lev_none"},
		{user + "/access/postgres", `{"level":"read"}`, 422, "postgres"},
		{user + "/access/" + strings.Repeat("x", 70), `{"level":"read"}`, 404, "xxx"},
		{cluster + "/users/lev_none/access/lev", `{"level":"read"}`, 404, "lev_none"},
		{cluster + "/users/lev_owner/access/lev", `{"level":"read"}`, 404, "lev_owner"},
		{cluster + "/users/" + f.PG.User + "/access/lev", `{"level":"read"}`, 403, f.PG.User},
	} {
		f.do(t, "PUT", x.path, x.body).refused(t, x.status, x.part)
	}
	f.do(t, "DELETE", user+"/access/lev_none", "").refused(t, 404)
	f.do(t, "GET", cluster+"/users/lev_none/access", "").refused(t, 404)
	f.PG.Exec(t, `ALTER ROLE lev_user NOINHERIT`)
	warning := f.want(t, 200, "PUT", path, `{"level":"read"}`).Header.Get("Rolecall-Warning")
	if (warning != "") != (f.PG.Major < 16) { // from 16 on a membership inherits, whatever its member does
		t.Errorf("warned is %q", warning)
	}
	f.want(t, 204, "DELETE", user, "") // a member of access roles is deleted as any other user
}

// A user that is disabled keeps its password, and its sessions and leases end.
func TestDisableUser(t *testing.T) {
	t.Parallel()
	f, cluster := levelFixture(t, "dis")
	user := f.user(t, "dis_user")
	session := f.session(t, "dis_user")
	l := f.take(t, "manager", `{"for":"dis_user"}`)
	f.do(t, "POST", user+"/disable", "", `If-Match: "0"`).refused(t, 412)
	var u userResource
	f.as(t, "manager", "POST", user+"/disable", "").Into(t, &u)
	if u.State != "disabled" || u.PasswordKind == "none" || u.EndedSessions == nil || *u.EndedSessions != 1 ||
		session.Ping(t.Context()) == nil {
		t.Errorf("got %+v", u)
	}
	if err := f.PG.Login("dis_user", userPassword); err == nil {
		t.Error("a disabled user logs in")
	}
	var lease leaseResource
	if f.want(t, 200, "GET", "/leases/"+l.ID, "").Into(t, &lease); lease.State == "active" ||
		*lease.EndReason != "accessEnded" {
		t.Errorf("its lease is %+v", lease)
	}
	f.as(t, "manager", "POST", cluster+"/leases", `{"for":"dis_user"}`).refused(t, 422, "disabled")
	f.want(t, 200, "POST", user+"/disable", "")
	a := f.want(t, 200, "POST", user+"/enable", "")
	if a.Into(t, &u); u.State != "active" || f.PG.Login("dis_user", userPassword) != nil {
		t.Errorf("got %+v", u)
	}
	f.want(t, 200, "POST", user+"/enable", "", "If-Match: "+a.Header.Get("ETag"))

	// A deletion that was blocked has taken the password, too.
	f.PG.Exec(t, `CREATE TABLE dis_kept (); ALTER TABLE dis_kept OWNER TO dis_user`)
	t.Cleanup(func() { f.PG.Exec(t, `DROP TABLE dis_kept`) })
	f.want(t, 200, "DELETE", user+"?onBlocked=disable", "")
	f.do(t, "POST", user+"/enable", "").refused(t, 422, "password")
	f.want(t, 200, "POST", user+"/password", `{"password":"`+userPassword+`"}`)
	if err := f.PG.Login("dis_user", userPassword); err != nil {
		t.Error(err)
	}
	var actions []string
	for _, row := range f.AuditRows(t, "dis_user") {
		if row.Outcome == "done" && strings.HasSuffix(row.Action, "able") {
			actions = append(actions, row.Action+row.Detail[:min(11, len(row.Detail))])
		}
	}
	if got := strings.Join(actions, " "); !strings.HasPrefix(got, `user.disable{"ended": 1`) || len(actions) != 4 {
		t.Errorf("recorded are %q", got)
	}
	for _, of := range []string{"dis_none", "dis_owner"} {
		f.do(t, "POST", cluster+"/users/"+of+"/disable", "").refused(t, 404)
		f.do(t, "POST", cluster+"/users/"+of+"/enable", "").refused(t, 404)
	}
	f.do(t, "POST", cluster+"/users/"+f.PG.User+"/disable", "").refused(t, 403)
	other := f.take(t, "manager", `{"for":"dis_read"}`)
	f.do(t, "POST", cluster+"/users/"+other.Username+"/disable", "").refused(t, 422, "lease")
	f.do(t, "PUT", cluster+"/users/"+other.Username+"/access/dis", `{"level":"own"}`).refused(t, 422, "lease")
	f.do(t, "POST", cluster+"/users/"+other.Username+"/password", "").refused(t, 422, "lease")
}
