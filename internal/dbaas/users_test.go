package dbaas_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

func TestUserLifecycle(t *testing.T) {
	f := newFixture(t)
	changer := f.Account(t, "changer", []string{"cloud_controller.admin"}, nil)
	before := time.Now().Add(-time.Second)
	a := f.want(t, 200, "POST", f.users(), userBody("life", "first-password"))
	if err := f.PG.Login("life", "first-password"); err != nil {
		t.Fatal(err)
	}
	var u resource
	a.Into(t, &u)
	m := u.Metadata
	if m.CreatedBy != "rolecall:iam:cloud::users/"+f.guid || m.CreatedByUserID != f.guid ||
		m.LastModifiedBy != m.CreatedBy || m.LastModifiedByUserID != f.guid || m.LastModifiedDate != m.CreatedDate ||
		m.ResourceURN != "rolecall:postgresql:de-fra:0:clusters/"+f.ClusterID+"/users/life" {
		t.Errorf("metadata %+v", m)
	}
	if created, err := time.Parse(time.RFC3339Nano, m.CreatedDate); err != nil || created.Before(before) ||
		created.After(time.Now().Add(time.Second)) || !strings.HasSuffix(m.CreatedDate, "Z") {
		t.Errorf("created %s, %v", m.CreatedDate, err)
	}
	if u.Type != "user" || u.Properties.Username != "life" || *u.Properties.System || a.Header.Get("Location") != "" {
		t.Errorf("got %s, Location %q", a.Body, a.Header.Get("Location"))
	}
	got := f.want(t, 200, "GET", f.users("life"), "")
	if got.Body != a.Body || got.Header.Get("ETag") != a.Header.Get("ETag") {
		t.Errorf("POST answered\n%s %s, GET\n%s %s", a.Header.Get("ETag"), a.Body, got.Header.Get("ETag"), got.Body)
	}

	patched := f.as(t, "changer", "PATCH", f.users("life"), passwordBody("second-password"), "If-Match: "+a.Header.Get("ETag"))
	var v resource
	patched.Into(t, &v)
	if n := v.Metadata; n.CreatedBy != m.CreatedBy || n.CreatedDate != m.CreatedDate || n.LastModifiedByUserID != changer ||
		n.LastModifiedDate <= m.LastModifiedDate || v.ID != u.ID {
		t.Errorf("metadata %+v after %+v", n, m)
	}
	if err := f.PG.Login("life", "second-password"); err != nil {
		t.Fatal(err)
	}
	if f.PG.Login("life", "first-password") == nil {
		t.Fatal("the old password still logs in")
	}
	if gone := f.want(t, 204, "DELETE", f.users("life"), "", "If-Match: "+patched.Header.Get("ETag")); gone.Body != "" {
		t.Errorf("204 with the body %q", gone.Body)
	}
	f.refuses(t, "paas-notfound-1", "DELETE", f.users("life"), "")
	f.refuses(t, "paas-notfound-1", "GET", f.users("life"), "")
	f.refuses(t, "paas-notfound-1", "PATCH", f.users("life"), passwordBody("third-password"))
	f.create(t, "life")
	f.want(t, 200, "HEAD", f.users("life"), "")
}

func TestNames(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{
		`o'reilly`, `quo"te`, `a/b`, `/lead`, `trail/`, `with space`, ` edges `, `;drop role postgres`, `a%2Fb`, `100%`, `a+b`,
		`a&b=c`, `a?b#c`,
		`back\slash`, `$$`, `--`, `/*`, `...`, `a..`, `日本語`, `🙂`, `Dup`, `dup`, `PG_x`, `pg`, `Public`, `<b>&amp;`, "\u00a0nbsp",
		"e\u0301", "é",
		strings.Repeat("é", 31), strings.Repeat("x", 63),
	} {
		t.Run(name, func(t *testing.T) {
			var u resource
			f.create(t, name).Into(t, &u)
			if u.Properties.Username != name || f.local(t, u.Href) != f.users(name) {
				t.Errorf("got %+v", u)
			}
			f.want(t, 200, "GET", f.local(t, u.Href), "")
			if err := f.PG.Login(name, password); err != nil {
				t.Error(err)
			}
			// As a client in the field sends a slash.
			f.want(t, 200, "GET", strings.ReplaceAll(f.users(name), "%2F", "/"), "")
			f.refuses(t, "paas-conflict-1", "POST", f.users(), userBody(name, password))
			f.want(t, 200, "PATCH", f.users(name), passwordBody("another-password"))
			f.want(t, 204, "DELETE", strings.ReplaceAll(f.users(name), "%2F", "/"), "")
			f.refuses(t, "paas-notfound-1", "GET", f.users(name), "")
		})
	}

	for _, name := range []string{
		"", ".", "..", "pg_x", "pg_", "public", "none", "postgres", "admin", "standby",
		strings.Repeat("é", 32), strings.Repeat("x", 64), "a\x00b", "a\nb", "\x7f", "\u0085",
		"joe\u200b", "a\u202eb", "a\u2028b",
	} {
		f.refuses(t, "paas-validation-1", "POST", f.users(), userBody(name, password))
	}
	found := pgtest.Value[[]string](t, f.PG,
		`SELECT array(SELECT rolname::text FROM pg_authid WHERE rolname ~ '^(x+|é+|a|a.b|pg_x?|[.]*|none|public)$')`)
	if len(found) > 0 {
		t.Errorf("refused, and there: %q", found)
	}
	// Longer names must not be cut to those of users that exist.
	long := strings.Repeat("l", 63)
	f.create(t, long)
	for _, name := range []string{long + "l", "a%00b", "no-such"} {
		path := f.users() + "/" + name
		f.refuses(t, "paas-notfound-1", "GET", path, "")
		f.refuses(t, "paas-notfound-1", "PATCH", path, passwordBody(password))
		f.refuses(t, "paas-notfound-1", "DELETE", path, "")
	}
	f.want(t, 200, "GET", f.users(long), "")
}

// A name of dots must reach neither the list nor the cluster: other routers clean the path and redirect there.
func TestDots(t *testing.T) {
	f := newFixture(t)
	for _, dots := range []string{"..", ".", "%2e%2e", "%2E", "../..", "..%2F..", "", "%00"} {
		for _, method := range []string{"GET", "DELETE"} {
			f.refuses(t, "paas-notfound-1", method, f.users()+"/"+dots, "")
			f.refuses(t, "paas-notfound-1", method, "/clusters/"+f.ClusterID+"/databases/"+dots, "")
		}
	}
	f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "")
}

func TestDoubledSlashes(t *testing.T) {
	f := newFixture(t)
	f.create(t, "slashed")
	auth := "Authorization: " + basic("root", "root-password")
	for path, want := range map[string]int{
		"//databases/postgresql" + f.users("slashed"):  200,
		"///databases/postgresql" + f.users("slashed"): 200,
		"/databases//postgresql" + f.users("slashed"):  404,
		"/databases/postgresql/" + f.users("slashed"):  404,
		"/databases/postgresql" + f.users() + "/":      404,
	} {
		if a := f.send(t, "GET", f.URL+path, "", auth); a.Status != want {
			t.Errorf("%s: %d, want %d", path, a.Status, want)
		}
	}
	if a := f.send(t, "DELETE", f.URL+"//databases/postgresql"+f.users("slashed"), "", auth); a.Status != 204 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "pw")
	for _, p := range []string{
		"1234567890", strings.Repeat("x", 63), strings.Repeat("🙂", 10), strings.Repeat("é", 63), `'"\;--$$<>&{}`,
		`back\\slash\u0041`,
		"  spaces  around  ", "md5" + strings.Repeat("0a", 16), "SCRAM-SHA-256$4096:abc$def:ghi", "pässwörter", "%s%d%n%x%s%d",
		"null-null-null",
	} {
		f.want(t, 200, "PATCH", f.users("pw"), passwordBody(p))
		if _, err := f.PG.Psql("pw", p, "SELECT 1"); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	f.want(t, 200, "PATCH", f.users("pw"), passwordBody(password))
	for _, p := range []string{"", "123456789", strings.Repeat("x", 64), strings.Repeat("🙂", 9), strings.Repeat("é", 64),
		"null\x00password", "new\nline-password", "\u0085-control-character"} {
		f.refuses(t, "paas-validation-1", "PATCH", f.users("pw"), passwordBody(p))
		f.refuses(t, "paas-validation-1", "POST", f.users(), userBody("pw-never", p))
	}
	for _, body := range []string{
		`{}`, `{"properties":null}`, `{"properties":[]}`, `{"properties":"x"}`, `[]`, `"x"`, `1`, `true`, `null`,
		`{"Properties":{}}`,
		`{"properties":{"password":null}}`, `{"properties":{"password":1234567890}}`, `{"properties":{"password":["1234567890"]}}`,
		`{"properties":{"username":"other"}}`, `{"properties":{"username":"other","password":"1234567890"}}`,
		`{"properties":{"username":null}}`, `{"properties":{"username":"PW"}}`,
	} {
		f.refuses(t, "paas-validation-1", "PATCH", f.users("pw"), body)
	}
	for _, body := range []string{
		`{}`, `{"properties":{}}`, `{"properties":{"username":"x"}}`, `{"properties":{"password":"1234567890"}}`,
		`{"properties":{"Username":"x","Password":"1234567890"}}`,
		`{"properties":{"username":null,"password":"1234567890"}}`, `{"properties":{"username":1,"password":"1234567890"}}`,
		`{"username":"x","password":"1234567890"}`,
	} {
		f.refuses(t, "paas-validation-1", "POST", f.users(), body)
	}
	if err := f.PG.Login("pw", password); err != nil {
		t.Errorf("a refused change did something: %v", err)
	}
	// What is not known is ignored, and so is what the server sets.
	f.want(t, 200, "PATCH", f.users("pw"),
		`{"x":1,"properties":{"username":"pw","password":"other-password","system":"?","a":[{}]}}`)
	// Where that changes nothing, the response says so, without the name of the field: it may be a password.
	for body, warned := range map[string]bool{
		`{"properties":{"pasword":"another-password"}}`: true, `{"properties":{"Password":"another-password"}}`: true,
		`{"properties":{"username":"pw","another-password":1}}`: true, `{"properties":{"password":"other-password","x":1}}`: false,
		`{"properties":{}}`: false, `{"properties":{"username":"pw","system":false}}`: false, `{"x":1,"properties":{}}`: false,
	} {
		a := f.want(t, 200, "PATCH", f.users("pw"), body)
		if got := a.Header.Get("Rolecall-Warning"); strings.HasPrefix(got, "Nothing was changed: ") != warned ||
			strings.Contains(got, "another-password") {
			t.Errorf("%s: the warning is %q", body, got)
		}
	}
	if err := f.PG.Login("pw", "other-password"); err != nil {
		t.Errorf("an ignored field did something: %v", err)
	}
	f.want(t, 200, "POST", f.users(),
		`{"id":1,"properties":{"username":"pw-system","password":"other-password","system":true,"superuser":true}}`)
	if got := pgtest.Value[string](t, f.PG, `SELECT concat_ws(' ', rolcanlogin, rolinherit, rolsuper, rolcreatedb,
		rolcreaterole, rolreplication, rolbypassrls, rolconnlimit)
		FROM pg_roles WHERE rolname = 'pw-system'`); got != "t t f f f f f -1" {
		t.Errorf("a new role has the attributes %s", got)
	}
}

// A password that some drivers prepare otherwise is set, and its setting answered with a warning, without any part of it.
func TestPortabilityWarning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, tt := range []struct {
		password string
		warned   bool
	}{
		{"printable ~ ASCII", false}, {"composed-\u00e9-word", false}, {"decomposed-e\u0301", true}, {"ordinal-\u00aa-word", true},
		{"numeral-\u2168-word", true}, {"hyphen-\u00ad-word", true}, {"space-\u00a0-word", true}, {"wide-\uff21-word", true},
		{"emoji-\U0001f600-word", true},
	} {
		name := fmt.Sprintf("warn-%d", i)
		made := f.want(t, 200, "POST", f.users(), userBody(name, tt.password))
		set := f.want(t, 200, "PATCH", f.users(name), passwordBody(tt.password))
		if _, err := f.PG.Psql(name, tt.password, "SELECT 1"); err != nil {
			t.Errorf("%+q: %v", tt.password, err)
		}
		for _, a := range []answer{made, set} {
			warning := a.Header.Get("Rolecall-Warning")
			if (warning != "") != tt.warned {
				t.Errorf("%+q: the warning is %q", tt.password, warning)
			}
			if strings.ContainsFunc(warning, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%+q: the warning is %q, which is not ASCII", tt.password, warning)
			}
		}
		for _, a := range []answer{
			f.want(t, 200, "GET", f.users(name), ""),
			f.want(t, 200, "PATCH", f.users(name), `{"properties":{}}`),
			f.do(t, "POST", f.users(), userBody(name, tt.password)), // there is one
		} {
			if warning := a.Header.Get("Rolecall-Warning"); warning != "" {
				t.Errorf("%+q: a %d that sets no password warns: %s", tt.password, a.Status, warning)
			}
		}
	}
}

// A new password with which the user still cannot log in is a success with a warning.
func TestWarnsOfUserThatCannotLogIn(t *testing.T) {
	f := newFixture(t)
	for sql, want := range map[string]string{
		`VALID UNTIL '2020-01-01 00:00Z'`: "valid until 2020-01-01 00:00:00 UTC, so it cannot log in.",
		`CONNECTION LIMIT 0`:              "connection limit 0",
		`CONNECTION LIMIT 5`:              "",
	} {
		f.create(t, "expired")
		f.PG.Exec(t, `ALTER ROLE expired `+sql)
		for _, password := range []string{"another password", "numeral-\u2168-word"} {
			warning := f.want(t, 200, "PATCH", f.users("expired"), passwordBody(password)).Header.Get("Rolecall-Warning")
			if !strings.Contains(warning, want) || strings.Contains(warning, "Printable ASCII") != (password != "another password") ||
				want == "" && password == "another password" && warning != "" {
				t.Errorf("%s: the warning is %q", sql, warning)
			}
		}
		f.want(t, 204, "DELETE", f.users("expired"), "")
	}
}

// A client that knows nothing of members is told of them.
func TestDeleteUserWithMembers(t *testing.T) {
	f := newFixture(t)
	f.create(t, "lead")
	f.create(t, "follower")
	f.PG.Exec(t, `GRANT lead TO follower`)
	refused := f.do(t, "DELETE", f.users("lead"), "")
	if refused.Status != 422 || !strings.Contains(string(refused.Body), "follower") ||
		!strings.Contains(string(refused.Body), "withMembers") {
		t.Errorf("%d %s", refused.Status, refused.Body)
	}
	f.want(t, 204, "DELETE", f.users("lead")+"?withMembers=true", "")
	rows := f.AuditRows(t, "lead")
	attempt, outcome := rows[len(rows)-2], rows[len(rows)-1]
	if !strings.Contains(attempt.Detail, `"withMembers": true`) ||
		!strings.Contains(outcome.Detail, `"members": ["follower"]`) {
		t.Errorf("recorded: %s, %s", attempt.Detail, outcome.Detail)
	}
	f.want(t, 204, "DELETE", f.users("follower"), "")
}

// PATCH without a password is the user as it is: nothing is recorded and its tag stays.
func TestNoChange(t *testing.T) {
	f := newFixture(t)
	tag := f.create(t, "same").Header.Get("ETag")
	rows := len(f.AuditRows(t, "same"))
	comment := func() string {
		return pgtest.Value[string](t, f.PG, `SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'same'`)
	}
	before := comment()
	for _, body := range []string{`{"properties":{}}`, `{"properties":{"username":"same"}}`, `{"properties":{"system":true}}`} {
		if a := f.want(t, 200, "PATCH", f.users("same"), body); a.Header.Get("ETag") != tag {
			t.Errorf("the tag %s became %s", tag, a.Header.Get("ETag"))
		}
	}
	f.want(t, 200, "PATCH", f.users("same"), `{"properties":{}}`, "If-Match: "+tag)
	f.refuses(t, "paas-stale-1", "PATCH", f.users("same"), `{"properties":{}}`, `If-Match: "0"`)
	f.refuses(t, "paas-notfound-1", "PATCH", f.users("not-there"), `{"properties":{}}`)
	f.refuses(t, "paas-auth-2", "PATCH", f.users("postgres"), `{"properties":{}}`)
	if got := len(f.AuditRows(t, "same")); got != rows || comment() != before {
		t.Errorf("%d audit rows, then %d; comment %q, then %q", rows, got, before, comment())
	}
	if err := f.PG.Login("same", password); err != nil {
		t.Error(err)
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE "match-sql" LOGIN`)
	if role, least := f.administrator(t); least && f.PG.Major >= 16 {
		if message := f.refuses(t, "paas-auth-2", "PATCH", f.users("match-sql"), passwordBody(password),
			"If-Match: *"); !strings.Contains(message, "ADMIN OPTION") {
			t.Errorf("%q does not say what is missing", message)
		}
		f.PG.Exec(t, `GRANT "match-sql" TO `+role+` WITH ADMIN OPTION`)
	}
	old := f.create(t, "match").Header.Get("ETag")
	for _, name := range []string{"match", "match-sql"} {
		change := func(ifMatch ...string) answer {
			headers := []string{}
			for _, m := range ifMatch {
				headers = append(headers, "If-Match: "+m)
			}
			return f.do(t, "PATCH", f.users(name), passwordBody(password), headers...)
		}
		tag := func() string { return f.want(t, 200, "GET", f.users(name), "").Header.Get("ETag") }
		for _, good := range []func() []string{
			func() []string { return []string{tag()} },
			func() []string { return []string{"*"} },
			func() []string { return []string{`"x", ` + tag()} },
			func() []string { return []string{`"x"`, tag() + ` , "y"`} },
			func() []string { return nil },
		} {
			m := good()
			before := tag()
			if a := change(m...); a.Status != 200 || a.Header.Get("ETag") == before || a.Header.Get("ETag") != tag() {
				t.Errorf("If-Match %q at %s: %d %s, now at %s", m, before, a.Status, a.Header.Get("ETag"), tag())
			}
		}
		now := tag()
		for _, bad := range []string{old, `"0"`, `""`, `"`, strings.Trim(now, `"`), "W/" + now, "'" + strings.Trim(now, `"`) + "'",
			"`" + strings.Trim(now, `"`) + "`", `"*"`, `W/*`, "x", `"` + now + `"`} {
			change(bad).refused(t, "paas-stale-1")
			f.refuses(t, "paas-stale-1", "DELETE", f.users(name), "", "If-Match: "+bad)
		}
		if tag() != now {
			t.Errorf("the tag %s became %s", now, tag())
		}
	}
	for _, m := range []string{"*", `"1"`} {
		f.refuses(t, "paas-notfound-1", "PATCH", f.users("match-none"), passwordBody(password), "If-Match: "+m)
		f.refuses(t, "paas-notfound-1", "DELETE", f.users("match-none"), "", "If-Match: "+m)
	}
	f.want(t, 204, "DELETE", f.users("match"), "", "If-Match: *")
	// A user that was made again is another one, however often it has changed.
	if again := f.create(t, "match").Header.Get("ETag"); again == old {
		t.Errorf("the second user of a name has the tag %s of the first", old)
	}
}

func TestProtected(t *testing.T) {
	f := newFixture(t)
	for _, sql := range []string{
		`CREATE ROLE "pr-group" SUPERUSER`, `CREATE ROLE "pr-middle" IN ROLE "pr-group"`,
		`CREATE ROLE "pr-member" LOGIN NOINHERIT IN ROLE "pr-middle"`,
		`CREATE ROLE "pr-replication" LOGIN REPLICATION`, `CREATE ROLE "pr-creator" LOGIN CREATEROLE`,
		`CREATE ROLE standby LOGIN`, `CREATE ROLE "pr-nologin"`,
	} {
		f.PG.Exec(t, sql)
	}
	f.create(t, "pr-heir")
	for _, name := range []string{f.PG.User, "standby", "pr-member", "pr-replication", "pr-creator"} {
		var u resource
		f.want(t, 200, "GET", f.users(name), "").Into(t, &u)
		if !*u.Properties.System || !strings.HasSuffix(u.Metadata.CreatedBy, "/_system_") {
			t.Errorf("%s: %+v", name, u)
		}
		f.refuses(t, "paas-auth-2", "PATCH", f.users(name), passwordBody(password))
		f.refuses(t, "paas-auth-2", "DELETE", f.users(name), "")
		f.refuses(t, "paas-auth-2", "DELETE", f.users("pr-heir")+"?reassignTo="+url.QueryEscape(name), "")
		rows := f.AuditRows(t, name)
		if last := rows[len(rows)-1]; last.Outcome != "denied" {
			t.Errorf("%s: the last audit row is %+v", name, last)
		}
	}
	for _, name := range []string{"pr-nologin", "pg_read_all_data"} {
		f.refuses(t, "paas-notfound-1", "GET", f.users(name), "")
		f.refuses(t, "paas-notfound-1", "PATCH", f.users(name), passwordBody(password))
		f.refuses(t, "paas-notfound-1", "DELETE", f.users(name), "")
	}
	f.refuses(t, "paas-conflict-1", "POST", f.users(), userBody("pr-nologin", password))
	f.want(t, 200, "GET", f.users("pr-heir"), "")
}

func TestDeleteOwner(t *testing.T) {
	f := newFixture(t)
	f.create(t, "owner")
	f.create(t, "heir")
	databases := "/clusters/" + f.ClusterID + "/databases"
	for _, name := range []string{"owned_a", "owned/b"} {
		f.want(t, 200, "POST", databases, `{"properties":{"name":"`+name+`","owner":"owner"}}`)
		conn := f.PG.Connect(t, "owner", password, name)
		if _, err := conn.Exec(t.Context(), `CREATE SCHEMA s CREATE TABLE orders()`); err != nil {
			t.Fatal(err)
		}
	}
	message := f.refuses(t, "paas-inuse-1", "DELETE", f.users("owner"), "")
	for _, want := range []string{`"owned_a"`, `"owned/b"`, "orders", "reassignTo"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q does not name %s", message, want)
		}
	}
	if err := f.PG.Login("owner", password); err != nil {
		t.Errorf("a refused deletion did something: %v", err)
	}
	for to, code := range map[string]string{
		"": "paas-validation-1", "owner": "paas-validation-1", "nobody-there": "paas-validation-1",
		strings.Repeat("x", 64): "paas-validation-1",
		f.PG.User:               "paas-auth-2", "heir&reassignTo=heir": "paas-parse-1",
	} {
		f.refuses(t, code, "DELETE", f.users("owner")+"?reassignTo="+to, "")
	}
	// The connections above are live sessions of the owner.
	f.want(t, 204, "DELETE", f.users("owner")+"?reassignTo=heir", "")
	for _, name := range []string{"owned_a", "owned/b"} {
		conn := f.PG.Connect(t, f.PG.User, f.PG.Password, name)
		var owner string
		if err := conn.QueryRow(t.Context(),
			`SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 's.orders'::regclass`).Scan(&owner); err != nil ||
			owner != "heir" {
			t.Errorf("in %s the table belongs to %s, %v", name, owner, err)
		}
	}
	f.refuses(t, "paas-notfound-1", "DELETE", f.users("owner")+"?reassignTo=heir", "")
}

func TestDeleteEndsSessions(t *testing.T) {
	f := newFixture(t)
	f.create(t, "session")
	conn := f.PG.Connect(t, "session", password, "postgres")
	f.PG.Exec(t, `GRANT SELECT ON pg_authid TO session`)
	if _, least := f.administrator(t); least {
		if message := f.refuses(t, "paas-inuse-1", "DELETE", f.users("session"), ""); !strings.Contains(message,
			"TABLE pg_authid") {
			t.Errorf("%q does not name what the superuser granted", message)
		}
		f.PG.Exec(t, `REVOKE SELECT ON pg_authid FROM session`)
	}
	f.want(t, 204, "DELETE", f.users("session"), "")
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a session outlived its user")
	}
}
