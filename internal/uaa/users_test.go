package uaa_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/audit"
)

type userList struct {
	Resources                              []user
	StartIndex, ItemsPerPage, TotalResults int
}

func (f *fixture) users(t testing.TB, filter string) (l userList) {
	t.Helper()
	f.as(t, f.root(t), "GET", "/Users?"+filter, "").want(t, 200, "").Into(t, &l)
	return l
}

func filter(s string) string { return "filter=" + url.QueryEscape(s) }

// What cf create-user and cf delete-user do.
func TestUserLifecycle(t *testing.T) {
	f := newFixture(t)
	name := unique("Bob")
	if l := f.users(t, filter(`userName eq "`+name+`" and origin eq "uaa"`)); len(l.Resources) != 0 || l.TotalResults != 0 {
		t.Fatalf("got %+v", l)
	}
	body := `{"userName":"` + name + `","password":"its password","origin":"",` +
		`"name":{"familyName":"` + name + `","givenName":"` +
		name + `"},"emails":[{"value":"` + name + `","primary":true}]}`
	a := f.as(t, f.root(t), "POST", "/Users", body).want(t, 201, "")
	u := a.user(t)
	if u.Origin != "uaa" || !u.Active || !u.Verified || u.UserName != name || u.Name.GivenName != name || len(u.Emails) != 1 ||
		u.Meta.Version != 0 || a.Header.Get("ETag") != `"0"` {
		t.Errorf("got %s", a.Body)
	}
	if got := fmt.Sprint(u.Groups[0].Display, " ", u.Groups[1].Display, " ",
		len(u.Groups)); got != "cloud_controller.read cloud_controller.write 2" {
		t.Errorf("the groups are %s", got)
	}
	if f.isPlatformUser(t, u.ID) {
		t.Error("it is a platform user already")
	}
	f.as(t, f.root(t), "POST", "/Users", strings.Replace(body, name, strings.ToLower(name), 1)).want(t, 409,
		"scim_resource_already_exists")
	if l := f.users(t, filter(`userName eq "`+strings.ToUpper(name)+`"`)); l.TotalResults != 1 || l.Resources[0].ID != u.ID {
		t.Errorf("got %+v", l)
	}
	if got := f.as(t, f.root(t), "GET", "/Users/"+u.ID, "", "If-Match: *").want(t, 200, ""); got.Body != a.Body ||
		got.Header.Get("ETag") != `"0"` {
		t.Errorf("got %s", got.Body)
	}
	if got := f.as(t, f.root(t), "DELETE", "/Users/"+u.ID, "").want(t, 200, ""); got.Body != a.Body {
		t.Errorf("got %s", got.Body)
	}
	f.as(t, f.root(t), "GET", "/Users/"+u.ID, "").want(t, 404, "scim_resource_not_found")
	f.as(t, f.root(t), "DELETE", "/Users/"+u.ID, "").want(t, 404, "scim_resource_not_found")
	if _, err := f.Accounts.ByGUID(t.Context(), u.ID); err == nil {
		t.Error("the account is still there")
	}
	var rows []string
	for _, r := range f.AuditRows(t, u.ID) {
		rows = append(rows, r.Action+" "+r.Outcome)
	}
	if got := strings.Join(rows, ", "); got != "account.create done, account.delete done" {
		t.Errorf("the audit log has %s", got)
	}
	if strings.Contains(f.Log.String(), `secret"`) {
		t.Error("a password is in the log")
	}
}

func TestCreateUser(t *testing.T) {
	f := newFixture(t)
	create := func(body string) answer { return f.as(t, f.root(t), "POST", "/Users", body) }
	// As little as Terraform sends.
	name := unique("terse")
	u := create(`{"userName":"`+name+`","origin":null,"password":null,"name":null,"emails":null,`+
		`"groups":[{"display":"cloud_controller.admin"}],"id":"mine","schemas":[],"meta":{"version":9}}`).want(t, 201, "").user(t)
	if u.ID == "mine" || len(u.Groups) != 2 || u.Emails[0].Value != name || u.PasswordLastModified != "" ||
		u.Meta.Version != 0 {
		t.Errorf("got %+v", u)
	}
	u = create(`{"userName":"`+name+`","origin":"ldap","emails":[{"value":"a@x"},{"value":"b@x","primary":true}],`+
		`"active":false,"verified":false}`).want(t, 201, "").user(t)
	f.as(t, f.root(t), "PUT", "/Users/"+u.ID, `{"userName":"`+name+`-renamed"}`, "If-Match: *").want(t, 400,
		"invalid_scim_resource")
	if u.Origin != "ldap" || u.Active || u.Verified || u.Emails[0].Value != "b@x" || !u.Emails[0].Primary ||
		u.Emails[1].Primary {
		t.Errorf("got %+v", u)
	}
	for _, test := range []struct{ word, body string }{
		{"scim", ``}, {"scim", `{`}, {"scim", `{"userName":"a","userName":"b"}`},
		{"invalid_scim_resource", `[]`}, {"invalid_scim_resource", `{}`}, {"invalid_scim_resource", `{"userName":""}`},
		{"invalid_scim_resource", `{"userName":5}`}, {"invalid_scim_resource", `{"userName":" a"}`},
		{"invalid_scim_resource", `{"userName":"a:b"}`},
		{"invalid_scim_resource", `{"userName":"a\u0000"}`},
		{"invalid_scim_resource", `{"userName":"admin\u200b"}`},
		{"invalid_scim_resource", `{"userName":"a","name":{"givenName":"\u202e"}}`},
		{"invalid_scim_resource", `{"userName":"a","origin":"ldap\u2028"}`},
		{"invalid_scim_resource", `{"userName":"a","emails":[{"value":"a@x\u200b"}]}`},
		{"invalid_scim_resource", `{"userName":"` + strings.Repeat("é", 256) + `"}`},
		{"invalid_scim_resource", `{"userName":"a","name":[]}`},
		{"invalid_scim_resource", `{"userName":"a","name":{"givenName":1}}`},
		{"invalid_scim_resource", `{"userName":"a","emails":{}}`}, {"invalid_scim_resource", `{"userName":"a","emails":["x"]}`},
		{"invalid_scim_resource", `{"userName":"a","emails":[{"value":""}]}`},
		{"invalid_scim_resource", `{"userName":"a","active":"yes"}`},
		{"invalid_scim_resource", `{"userName":"a","origin":"ldap","password":"x"}`},
		{"invalid_scim_resource", `{"userName":"a","origin":"\u0001"}`},
		{"invalid_password", `{"userName":"a","password":"` + strings.Repeat("x", 256) + `"}`},
		{"invalid_password", `{"userName":"a","password":"ñine char"}`},
		{"invalid_password", `{"userName":"a","password":"a\u0009 password"}`},
	} {
		create(test.body).want(t, 400, test.word)
	}
	f.as(t, f.root(t), "POST", "/Users", `{"userName":"a"}`, "Content-Type: text/plain").want(t, 415, "scim")
	f.as(t, f.root(t), "POST", "/Users", `{"userName":"`+strings.Repeat("a", 70_000)+`"}`).want(t, 413, "scim")
}

func TestListUsers(t *testing.T) {
	f := newFixture(t)
	prefix := unique("list")
	var or []string
	for n := range 5 {
		name := fmt.Sprintf("%s-%d", prefix, n)
		f.person(t, name)
		or = append(or, `userName eq "`+name+`"`)
	}
	five := strings.Join(or, " or ")
	var names []string
	for start := 1; ; { // as go-uaa does it
		l := f.users(t, fmt.Sprintf("%s&startIndex=%d&count=2", filter(five), start))
		for _, u := range l.Resources {
			names = append(names, u.UserName)
		}
		if l.TotalResults != 5 || l.StartIndex != start || l.ItemsPerPage != 2 {
			t.Fatalf("got %+v", l)
		}
		if start+l.ItemsPerPage > l.TotalResults {
			break
		}
		start += l.ItemsPerPage
	}
	if len(names) != 5 || names[0] != prefix+"-0" || names[4] != prefix+"-4" {
		t.Errorf("the pages have %v", names)
	}
	for query, want := range map[string]int{
		filter(`(` + five + `) and origin eq "uaa"`):                      5,
		filter(`(` + five + `) and origin eq "ldap"`):                     0,
		filter(`USERNAME EQ "`+prefix+`-1"`) + "&attributes=id&sortBy=id": 1,
		filter(`id eq "' OR true; --"`):                                   0,
		filter(five) + "&count=0":                                         0,
		filter(five) + "&count=-1":                                        0,
		filter(five) + "&count=10000":                                     5,
		filter(five) + "&startIndex=0":                                    5,
		filter(five) + "&startIndex=6":                                    0,
		filter(five) + "&startIndex=99999999999":                          0,
	} {
		if l := f.users(t, query); len(l.Resources) != want || l.ItemsPerPage > 500 {
			t.Errorf("%s: got %d of %+v", query, len(l.Resources), l.TotalResults)
		}
	}
	for _, query := range []string{filter("userName co \"x\""), filter("nonsense"), "count=x", "startIndex=1.5",
		"count=1&count=2", "%zz"} {
		f.as(t, f.root(t), "GET", "/Users?"+query, "").want(t, 400, "scim")
	}
}

func TestPutUser(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	u := f.person(t, unique("put"))
	path := "/Users/" + u.ID
	put := func(body string, headers ...string) answer { return f.as(t, root, "PUT", path, body, headers...) }
	body := `{"id":"` + u.ID + `","userName":"` + u.UserName + `-2","origin":"uaa","name":{"givenName":"P","familyName":"Q"},` +
		`"emails":[{"value":"p@x"}],"password":"ignored","groups":[{"display":"cloud_controller.admin"}]}`
	put(body).want(t, 400, "scim")
	put(body, `If-Match: "7"`).want(t, 412, "scim_resource_conflict")
	put(body, `If-Match: x`).want(t, 412, "scim_resource_conflict")
	a := put(body, `If-Match: *`).want(t, 200, "")
	got := a.user(t)
	if got.UserName != u.UserName+"-2" || got.Name.GivenName != "P" || got.Emails[0].Value != "p@x" || got.Meta.Version != 1 ||
		len(got.Groups) != 2 || !got.Active {
		t.Errorf("got %s", a.Body)
	}
	put(body, `If-Match: "1"`).want(t, 200, "")
	put(body, `If-Match: 2`).want(t, 200, "")
	put(body, `If-Match: 2`).want(t, 412, "scim_resource_conflict")
	put(`{}`, `If-Match: *`).want(t, 400, "invalid_scim_resource")
	put(`{"userName":null}`, `If-Match: *`).want(t, 400, "invalid_scim_resource")
	put(`{"userName":"a:b"}`, `If-Match: *`).want(t, 400, "invalid_scim_resource")
	put(`{"userName":"`+u.UserName+`","origin":"ldap"}`, `If-Match: *`).want(t, 400, "invalid_scim_resource")
	put(`{"userName":"ROOT"}`, `If-Match: *`).want(t, 409, "scim_resource_already_exists")
	f.as(t, root, "PUT", "/Users/no-such", body, "If-Match: *").want(t, 404, "scim_resource_not_found")

	// A deactivated user stays so when somebody who does not know of it writes the user back.
	f.as(t, root, "PATCH", path, `{"active":false}`).want(t, 400, "scim")
	f.as(t, root, "PATCH", path, `{"active":false}`, "If-Match: 3").want(t, 200, "")
	if put(body, "If-Match: *").want(t, 200, "").user(t).Active {
		t.Error("the user is active again")
	}
	f.token(t, cf, "grant_type", "password", "username", u.UserName+"-2", "password", u.UserName+"-password").want(t, 401,
		"unauthorized")
	f.as(t, root, "PATCH", path, `{"active":true}`, "If-Match: *").want(t, 200, "")
	f.token(t, cf, "grant_type", "password", "username", u.UserName+"-2", "password", u.UserName+"-password").token(t)
	f.as(t, root, "DELETE", path, "", `If-Match: "1"`).want(t, 412, "scim_resource_conflict")
	f.as(t, root, "DELETE", path, "", `If-Match: "6"`).want(t, 200, "")
}

// People may do this to themselves, and no more.
func TestSelf(t *testing.T) {
	f := newFixture(t)
	u := f.person(t, unique("self"))
	password := u.UserName + "-password"
	token := f.tokenOf(t, u.UserName)
	path := "/Users/" + u.ID
	if got := f.as(t, token, "GET", path, "").want(t, 200, "").user(t); got.ID != u.ID {
		t.Errorf("got %+v", got)
	}
	name := `"userName":"` + u.UserName + `"`
	if got := f.as(t, token, "PUT", path, `{`+name+`,"name":{"givenName":"Me"},"emails":[{"value":"me@x"}]}`,
		"If-Match: *").want(t, 200, "").user(t); got.Name.GivenName != "Me" {
		t.Errorf("got %+v", got)
	}
	for _, body := range []string{`{"userName":"` + unique("else") + `"}`, `{` + name + `,"active":false}`,
		`{` + name + `,"verified":false}`} {
		f.as(t, token, "PUT", path, body, "If-Match: *").want(t, 403, "insufficient_scope")
	}
	f.as(t, token, "DELETE", path, "").want(t, 403, "insufficient_scope")
	f.as(t, token, "POST", "/Groups/"+f.group(t, account.ScopeAdmin)+"/members", `{"value":"`+u.ID+`"}`).want(t, 403,
		"insufficient_scope")

	change := func(body string) answer { return f.as(t, token, "PUT", path+"/password", body) }
	change(`{"password":"new password"}`).want(t, 403, "insufficient_scope")
	change(`{"password":"new password","oldPassword":"wrong"}`).want(t, 401, "unauthorized")
	change(`{"oldPassword":"`+password+`"}`).want(t, 400, "invalid_password")
	for _, bad := range []string{strings.Repeat("x", 256), "nine char", "a\\u0000 password"} {
		change(`{"password":"`+bad+`","oldPassword":"`+password+`"}`).want(t, 400, "invalid_password")
	}
	if got := change(`{"password":"new password","oldPassword":"`+password+`"}`).want(t, 200,
		"").Body; strings.TrimSpace(got) != `{"status":"ok","message":"password updated"}` {
		t.Errorf("got %s", got)
	}
	f.token(t, cf, "grant_type", "password", "username", u.UserName, "password", password).want(t, 401, "unauthorized")
	f.token(t, cf, "grant_type", "password", "username", u.UserName, "password", "new password").token(t)

	// An admin needs the old one, too, for its own.
	admin, guid := f.holder(t, account.AdminScopes...)
	f.as(t, admin, "PUT", "/Users/"+guid+"/password", `{"password":"new password"}`).want(t, 403, "insufficient_scope")
	// Guessing the old one is held up like any other guess.
	token = f.tokenOf(t, u.UserName)
	for range 6 {
		f.as(t, token, "PUT", path+"/password", `{"password":"a password","oldPassword":"guess"}`)
	}
	change = func(body string) answer { return f.as(t, token, "PUT", path+"/password", body) }
	change(`{"password":"a password","oldPassword":"guess"}`).want(t, 429, "too_many_requests")
}

// TestNamesOfBefore: a name that a rule refuses today does not keep its account from other changes.
func TestNamesOfBefore(t *testing.T) {
	f := newFixture(t)
	u := f.person(t, unique("before"))
	name := u.UserName + "\u200b"
	if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE accounts SET username = $2, family_name = $2, presentation_name = $2
		WHERE guid = $1`, u.ID, name); err != nil {
		t.Fatal(err)
	}
	put := func(name, given string) answer {
		return f.as(t, f.root(t), "PUT", "/Users/"+u.ID, object(map[string]any{"userName": name,
			"name": map[string]any{"familyName": u.UserName + "\u200b", "givenName": given}}), "If-Match: *")
	}
	if got := put(name, "new").want(t, 200, "").user(t); got.Name.GivenName != "new" || got.UserName != name {
		t.Errorf("got %+v", got)
	}
	put(name, "\u200b").want(t, 400, "invalid_scim_resource")
	put(name+"\u200b", "").want(t, 400, "invalid_scim_resource")
	if got := put(u.UserName, "new").want(t, 200, "").user(t); got.UserName != u.UserName {
		t.Errorf("got %+v", got)
	}
}

// Somebody of another origin is not the local account of the same name.
func TestSelfOfAnotherOrigin(t *testing.T) {
	f := newFixture(t)
	name := unique("twin")
	local := f.person(t, name)
	var guid string
	err := f.DB.Pool.QueryRow(t.Context(), `
		INSERT INTO accounts (guid, username, origin, scopes, identity_created_at, identity_updated_at)
		VALUES ($1, $2, 'ldap', '{}', now(), now()) RETURNING guid`,
		unique("twin"), name).Scan(&guid)
	if err != nil {
		t.Fatal(err)
	}
	p := &account.Principal{GUID: guid, Username: name, Origin: "ldap"}
	if err := f.Accounts.SetSecret(t.Context(), p, false, local.ID, true, nil); err == nil {
		t.Error("it has changed the password of the other")
	}
}

// Deleting the identity leaves the platform user with its labels, and the user name to whoever comes next.
func TestDeleteKeepsThePlatformUser(t *testing.T) {
	f := newFixture(t)
	name := unique("parts")
	guid := f.Account(t, name, account.AdminScopes, map[string]string{"team": "payments"})
	f.as(t, f.root(t), "DELETE", "/Users/"+guid, "").want(t, 200, "")
	a, err := f.Accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	if a.Username != "" || len(a.Scopes) != 0 || a.PasswordHash != "" || a.Labels["team"] != "payments" ||
		!a.IdentityCreatedAt.IsZero() || a.PlatformCreatedAt.IsZero() {
		t.Errorf("what is left is %+v", a)
	}
	f.as(t, f.root(t), "GET", "/Users/"+guid, "").want(t, 404, "scim_resource_not_found")
	if l := f.users(t, filter(`id eq "`+guid+`"`)); l.TotalResults != 0 {
		t.Errorf("got %+v", l)
	}
	next := f.person(t, name)
	b, err := f.Accounts.ByGUID(t.Context(), next.ID)
	if err != nil || next.ID == guid || len(b.Labels) != 0 {
		t.Errorf("the next of that name is %+v, %v", b, err)
	}
}

// Of several that want the same, one has it.
func TestChangesThatMeet(t *testing.T) {
	f := newFixture(t)
	root, name := f.root(t), unique("racing")
	once := func(what string, status int, call func() answer) {
		t.Helper()
		var group sync.WaitGroup
		var done atomic.Int64
		for range 8 {
			group.Go(func() {
				if call().Status == status {
					done.Add(1)
				}
			})
		}
		if group.Wait(); done.Load() != 1 {
			t.Errorf("%s was done %d times", what, done.Load())
		}
	}
	once("creating", 201, func() answer { return f.as(t, root, "POST", "/Users", `{"userName":"`+name+`"}`) })
	path := "/Users/" + f.users(t, filter(`userName eq "`+name+`"`)).Resources[0].ID
	once("changing version 0", 200, func() answer {
		return f.as(t, root, "PATCH", path, `{"name":{"givenName":"x"}}`, `If-Match: "0"`)
	})
	members := "/Groups/" + f.group(t, "scim.read") + "/members"
	once("granting", 201, func() answer {
		return f.as(t, root, "POST", members, `{"value":"`+strings.TrimPrefix(path, "/Users/")+`"}`)
	})
	id := unique("racing")
	once("creating a client", 201, func() answer {
		return f.as(t, root, "POST", "/oauth/clients",
			`{"client_id":"`+id+`","client_secret":"its-secret","authorized_grant_types":["client_credentials"]}`)
	})
	once("deleting", 200, func() answer { return f.as(t, root, "DELETE", path, "") })
}

// Who may not make users and clients is told so, and leaves in the audit log what it could have meant: not a whole body.
func TestRefusalsAreSmall(t *testing.T) {
	f := newFixture(t)
	token, guid := f.holder(t, account.DefaultScopes...)
	long := strings.Repeat("x", 60_000)
	refused := func(path, body string, rows int) {
		t.Helper()
		f.as(t, token, "POST", path, body).want(t, 403, "insufficient_scope")
		var found, longest int
		err := f.DB.Pool.QueryRow(t.Context(), `
			SELECT count(*), coalesce(max(length(detail::text)), 0) FROM audit
			WHERE account_guid = $1 AND outcome = 'denied'`, guid).Scan(&found, &longest)
		if err != nil || found != rows || longest > 1000 {
			t.Errorf("%s: %d rows with up to %d characters, %v", path, found, longest, err)
		}
	}
	client := func(authorities ...string) string {
		return object(map[string]any{"client_id": unique("c"), "client_secret": "its-secret",
			"authorized_grant_types": []string{"client_credentials"}, "authorities": authorities})
	}
	refused("/Users", `{"userName":"`+long+`"}`, 0)
	refused("/Users", `{"userName":"a","name":{"givenName":"`+long+`"}}`, 0)
	refused("/oauth/clients", client(strings.Split(long[:9_900], "")...), 0)
	refused("/Users", `{"userName":"a"}`, 1)
	refused("/oauth/clients", client("scim.read", "scim.read"), 2)
	// However often it tries, it is told to wait in the end.
	a := f.as(t, token, "POST", "/Users", `{"userName":"a"}`)
	for n := 0; a.Status == 403 && n < 10*audit.MaxRefusals; n++ {
		a = f.as(t, token, "POST", "/Users", `{"userName":"a"}`)
	}
	if a.want(t, 429, "too_many_requests"); a.Header.Get("Retry-After") == "" {
		t.Error("it is not told for how long")
	}
}
