package uaa_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rolecall/internal/account"
)

// ids are the ids of a group's members.
func (g group) ids() (ids []string) {
	for _, m := range g.Members {
		ids = append(ids, m.Value)
	}
	return ids
}

func members(ids ...string) string {
	all := []map[string]any{}
	for _, id := range ids {
		all = append(all, map[string]any{"type": "USER", "origin": "uaa", "value": id})
	}
	return object(map[string]any{"displayName": account.ScopeSCIMRead, "members": all})
}

// uaac reads the members of a group in a list, and puts the group back with others.
func TestPutGroup(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	path := "/Groups/" + f.group(t, account.ScopeSCIMRead)
	read := func() (g group, version string) {
		t.Helper()
		var l struct{ Resources []group }
		f.as(t, root, "GET", "/Groups?"+filter(`displayName eq "scim.read"`), "").want(t, 200, "").Into(t, &l)
		a := f.as(t, root, "GET", path, "").want(t, 200, "")
		a.Into(t, &g)
		if !slices.Equal(l.Resources[0].ids(), g.ids()) {
			t.Errorf("the list has %v, the group %v", l.Resources[0].ids(), g.ids())
		}
		return g, strings.Trim(a.Header.Get("ETag"), `"`)
	}
	ann, bea, program := f.person(t, unique("ann")).ID, f.person(t, unique("bea")).ID, f.program(t, nil)
	before, first := read()
	all := append(before.ids(), ann, bea)
	var g group
	f.as(t, root, "PUT", path, members(all...), "If-Match: "+first).want(t, 200, "").Into(t, &g)
	if !slices.Equal(g.ids(), all) {
		t.Errorf("the members are %v, want %v", g.ids(), all)
	}
	if got := f.as(t, root, "GET", "/Users/"+ann, "").want(t, 200, "").user(t).Groups; len(got) != 3 {
		t.Errorf("the user's groups are %v", got)
	}
	for _, id := range []string{ann, bea} {
		var actions []string
		for _, row := range f.AuditRows(t, id) {
			actions = append(actions, row.Action)
		}
		if !slices.Contains(actions, "account.grant") {
			t.Errorf("the audit log has %v of %s", actions, id)
		}
	}
	// Whoever read the group before that does not undo it.
	f.as(t, root, "PUT", path, members(before.ids()...), "If-Match: "+first).want(t, 412, "scim_resource_conflict")
	f.as(t, root, "PUT", path, members(before.ids()...)).want(t, 400, "scim")
	// All or nothing.
	for body, word := range map[string]string{
		members(append(before.ids(), "no-such")...):      "scim_resource_not_found",
		members(append(before.ids(), program)...):        "scim_resource_not_found",
		`{"members":[{"type":"GROUP","value":"x"}]}`:     "invalid_scim_resource",
		`{"members":["` + ann + `"]}`:                    "invalid_scim_resource",
		`{"members":[{}]}`:                               "invalid_scim_resource",
		`{"displayName":"other","members":[]}`:           "invalid_scim_resource",
		`{"displayName":"scim.read","members":{"a":[]}}`: "invalid_scim_resource",
	} {
		status := 400
		if word == "scim_resource_not_found" {
			status = 404
		}
		f.as(t, root, "PUT", path, body, "If-Match: *").want(t, status, word)
	}
	if now, _ := read(); !slices.Equal(now.ids(), all) {
		t.Errorf("the members are %v, want %v", now.ids(), all)
	}
	// scim.write alone changes only who has the scopes of every user.
	writer, _ := f.holder(t, account.ScopeSCIMRead, account.ScopeSCIMWrite)
	f.as(t, writer, "PUT", path, members(), "If-Match: *").want(t, 403, "insufficient_scope")
	f.as(t, f.tokenOf(t, "root"), "PUT", "/Groups/no-such", members(), "If-Match: *").want(t, 404, "scim_resource_not_found")
	_, now := read()
	f.as(t, root, "PUT", path, members(before.ids()...), `If-Match: "`+now+`"`).want(t, 200, "")
	if after, version := read(); !slices.Equal(after.ids(), before.ids()) || version != first {
		t.Errorf("the members are %v of version %s, want %v of %s", after.ids(), version, before.ids(), first)
	}
}

// A group whose members are missing in the body has none, as in the UAA: uaac removes the last one so.
// TestPutGroupAtOnce: of two that read the same version, one is told that it was changed.
func TestPutGroupAtOnce(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	path := "/Groups/" + f.group(t, account.ScopeSCIMRead)
	ann, bea := f.person(t, unique("ann")).ID, f.person(t, unique("bea")).ID
	for range 5 {
		a := f.as(t, root, "GET", path, "").want(t, 200, "")
		var before group
		a.Into(t, &before)
		codes := make(chan int, 2)
		for _, id := range []string{ann, bea} {
			go func() {
				codes <- f.as(t, root, "PUT", path, members(append(before.ids(), id)...), "If-Match: "+a.Header.Get("ETag")).Status
			}()
		}
		if one, two := <-codes, <-codes; one+two != 200+412 {
			t.Errorf("got %d and %d, want 200 and 412", one, two)
		}
		f.as(t, root, "PUT", path, members(before.ids()...), "If-Match: *").want(t, 200, "")
	}
}

// TestPutGroupOfAdmins: nobody removes the last admin by a body without members.
func TestPutGroupOfAdmins(t *testing.T) {
	f := newFixture(t)
	path := "/Groups/" + f.group(t, account.ScopeAdmin)
	for _, body := range []string{`{"displayName":"cloud_controller.admin"}`, `{"members":[]}`, `{"Members":[{"value":"x"}]}`} {
		f.as(t, f.root(t), "PUT", path, body, "If-Match: *").want(t, 400, "invalid_scim_resource")
	}
	var g group
	f.as(t, f.root(t), "GET", path, "").want(t, 200, "").Into(t, &g)
	if len(g.Members) == 0 {
		t.Error("there is no admin any more")
	}
}

func TestPutGroupWithoutMembers(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	path := "/Groups/" + f.group(t, account.ScopeAuditor)
	ann := f.person(t, unique("ann")).ID
	var g group
	f.as(t, root, "PUT", path, object(map[string]any{"members": []any{map[string]any{"value": ann}}}), "If-Match: *").
		want(t, 200, "").Into(t, &g)
	if !slices.Equal(g.ids(), []string{ann}) {
		t.Errorf("the members are %v", g.ids())
	}
	f.as(t, root, "PUT", path, `{"displayName":"cloud_controller.global_auditor"}`, "If-Match: *").want(t, 200, "").Into(t, &g)
	if len(g.Members) != 0 {
		t.Errorf("the members are %v", g.ids())
	}
}

func TestExternalGroups(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/Groups/External", "/Groups/External/list?startIndex=1&count=50"} {
		var l struct {
			Resources    []any
			TotalResults int
		}
		f.as(t, f.root(t), "GET", path, "").want(t, 200, "").Into(t, &l)
		if l.Resources == nil || len(l.Resources) != 0 || l.TotalResults != 0 {
			t.Errorf("%s: %+v", path, l)
		}
		nobody, _ := f.holder(t, account.ScopeRead)
		f.as(t, nobody, "GET", path, "").want(t, 403, "insufficient_scope")
	}
}

// Parameters of a list are honored or refused.
func TestSortAndAttributes(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	prefix := unique("sorted")
	names := []string{prefix + "-b", prefix + "-A", prefix + "-c"}
	either := make([]string, len(names))
	for n, name := range names {
		f.person(t, name)
		either[n] = `userName eq "` + name + `"`
	}
	these := filter(strings.Join(either, " or "))
	for query, want := range map[string]string{
		"":                                     "bAc",
		"sortOrder=descending":                 "cAb",
		"sortBy=userName":                      "Abc",
		"sortBy=USERNAME&sortOrder=":           "Abc",
		"sortBy=userName&sortOrder=DESCENDING": "cbA",
		"sortBy=meta.created&sortOrder=ascending":    "bAc",
		"sortBy=lastmodified":                        "bAc",
		"sortBy=userName&startIndex=2&count=1":       "b",
		"sortBy=active&sortOrder=descending&count=2": "cA",
	} {
		got := ""
		for _, u := range f.users(t, these+"&"+query).Resources {
			got += u.UserName[len(u.UserName)-1:]
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	for _, path := range []string{"/Users", "/Groups"} {
		for _, query := range []string{"sortBy=nonsense", "sortBy=password", "sortOrder=up", "attributes=nonsense",
			"attributes=id,name.nonsense", "attributes=id.x", "sortBy=displayName%00"} {
			f.as(t, root, "GET", path+"?"+query, "").want(t, 400, "scim")
		}
	}
	f.as(t, root, "GET", "/oauth/clients?sortBy=nonsense", "").want(t, 400, "invalid_client")
	f.as(t, root, "GET", "/oauth/clients?sortBy=client_id&sortOrder=descending&attributes=client_id", "").want(t, 200, "")

	for query, want := range map[string]string{
		"attributes=userName": `map[userName:` + names[1] + `]`,
		"attributes=username,%20NAME.givenName,emails.value,meta.version,active,groups.display": "map[" +
			"NAME.givenName: active:true emails.value:[" + names[1] + "] " +
			"groups.display:[cloud_controller.read cloud_controller.write] meta.version:0 username:" + names[1] + "]",
	} {
		var l struct{ Resources []map[string]any }
		f.as(t, root, "GET", "/Users?count=1&sortBy=userName&"+these+"&"+query, "").want(t, 200, "").Into(t, &l)
		if got := fmt.Sprint(l.Resources[0]); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	var l struct{ Resources []map[string]any }
	f.as(t, root, "GET", "/Groups?sortBy=displayName&sortOrder=descending&attributes=displayName", "").
		want(t, 200, "").Into(t, &l)
	if got := fmt.Sprint(l.Resources[0]); got != "map[displayName:scim.write]" {
		t.Errorf("the first group is %s", got)
	}
	f.as(t, root, "GET", "/Groups?sortBy=id&attributes=id,members.value", "").want(t, 200, "").Into(t, &l)
	if len(l.Resources) != 7 || l.Resources[0]["members.value"] == nil {
		t.Errorf("the groups are %v", l.Resources)
	}
}

// What the UAA keeps of a user, and this server does not, is refused.
func TestFieldsOfUsersThatAreNotKept(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	name := unique("kept")
	for _, field := range []string{`"phoneNumbers":[{"value":"+49 721"}]`, `"externalId":"x"`, `"externalId":7`} {
		f.as(t, root, "POST", "/Users", `{"userName":"`+name+`",`+field+`}`).want(t, 400, "invalid_scim_resource")
	}
	u := f.as(t, root, "POST", "/Users", `{"userName":"`+name+`","phoneNumbers":[],"externalId":"","title":"Dr."}`).
		want(t, 201, "").user(t)
	f.as(t, root, "PATCH", "/Users/"+u.ID, `{"phoneNumbers":[{"value":"1"}]}`, "If-Match: *").want(t, 400,
		"invalid_scim_resource")
}

func TestUserInfo(t *testing.T) {
	f := newFixture(t)
	name := unique("info")
	u := f.as(t, f.root(t), "POST", "/Users", object(map[string]any{"userName": name, "password": name + "-password",
		"name":   map[string]any{"givenName": "In", "familyName": "Fo"},
		"emails": []any{map[string]any{"value": "in@example.org"}}})).
		want(t, 201, "").user(t)
	var got map[string]any
	f.as(t, f.tokenOf(t, name), "GET", "/userinfo", "").want(t, 200, "").Into(t, &got)
	for key, want := range map[string]any{"user_id": u.ID, "sub": u.ID, "user_name": name, "name": "In Fo", "given_name": "In",
		"family_name": "Fo", "email": "in@example.org", "origin": "uaa"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	program := f.program(t, nil)
	token := f.token(t, basic(program, program+"-secret"), "grant_type", "client_credentials").token(t).AccessToken
	f.as(t, token, "GET", "/userinfo", "").want(t, 403, "insufficient_scope")
	f.send(t, "GET", "/userinfo", "").want(t, 401, "unauthorized")
}

func TestIDs(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	u, gone := f.person(t, unique("id")), f.person(t, unique("gone"))
	f.as(t, root, "PATCH", "/Users/"+gone.ID, `{"active":false}`, "If-Match: *").want(t, 200, "")
	both := filter(`userName eq "` + u.UserName + `" or id eq "` + gone.ID + `"`)
	for query, want := range map[string]int{both: 1, both + "&includeInactive=false": 1, both + "&includeInactive=true": 2} {
		var l struct {
			Resources    []map[string]any
			TotalResults int
		}
		f.as(t, root, "GET", "/ids/Users?"+query, "").want(t, 200, "").Into(t, &l)
		if l.TotalResults != want || len(l.Resources) != want ||
			fmt.Sprint(l.Resources[0]) != fmt.Sprint(map[string]any{"id": u.ID, "userName": u.UserName, "origin": "uaa"}) {
			t.Errorf("%s: %+v", query, l)
		}
	}
	f.as(t, root, "GET", "/ids/Users", "").want(t, 400, "scim")
	f.as(t, root, "GET", "/ids/Users?"+both+"&includeInactive=x", "").want(t, 400, "scim")
	nobody, _ := f.holder(t, account.ScopeRead)
	f.as(t, nobody, "GET", "/ids/Users?"+both, "").want(t, 403, "insufficient_scope")
}

// An admin ends the wait of a user after failed sign-ins.
func TestUnlock(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	u := f.person(t, unique("locked"))
	signIn := func(password string) answer {
		return f.token(t, cf, "grant_type", "password", "username", u.UserName, "password", password)
	}
	for range 6 {
		signIn("wrong").want(t, 401, "unauthorized")
	}
	signIn(u.UserName+"-password").want(t, 429, "too_many_requests")
	path := "/Users/" + u.ID + "/status"
	for _, body := range []string{`{}`, `{"locked":true}`, `{"locked":"false"}`, `{"passwordChangeRequired":true}`,
		`{"locked":false,"passwordChangeRequired":true}`} {
		f.as(t, root, "PATCH", path, body).want(t, 400, "invalid_scim_resource")
	}
	nobody, _ := f.holder(t, account.ScopeSCIMRead)
	f.as(t, nobody, "PATCH", path, `{"locked":false}`).want(t, 403, "insufficient_scope")
	f.as(t, root, "PATCH", "/Users/no-such/status", `{"locked":false}`).want(t, 404, "scim_resource_not_found")
	if a := f.as(t, root, "PATCH", path, `{"locked":false}`).want(t, 200, ""); strings.TrimSpace(a.Body) != `{"locked":false}` {
		t.Errorf("got %s", a.Body)
	}
	signIn(u.UserName + "-password").token(t)
	rows := f.AuditRows(t, u.ID)
	if last := rows[len(rows)-1]; last.Action != "account.update" {
		t.Errorf("the audit log ends with %+v", last)
	}
}

// A client's tokens are valid no longer than it says.
func TestValidityOfTokens(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	u := f.person(t, unique("short"))
	id := f.program(t, map[string]any{"authorized_grant_types": []string{"client_credentials", "password", "refresh_token"},
		"scope": []string{"cloud_controller.read"}, "access_token_validity": 600, "refresh_token_validity": "3600",
		"name": "Short"})
	path := "/oauth/clients/" + id
	expires := func() string {
		t.Helper()
		own := f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials").token(t)
		of := f.token(t, basic(id, id+"-secret"), "grant_type", "password", "username", u.UserName, "password",
			u.UserName+"-password").token(t)
		again := f.token(t, basic(id, id+"-secret"), "grant_type", "refresh_token", "refresh_token", of.RefreshToken).token(t)
		c := of.claims(t)
		if got := c["exp"].(float64) - c["iat"].(float64); int(got) != of.ExpiresIn {
			t.Errorf("the token is valid for %v s, the answer says %d", got, of.ExpiresIn)
		}
		return fmt.Sprint(own.ExpiresIn, of.ExpiresIn, again.ExpiresIn)
	}
	refreshes := func() (seconds int) {
		t.Helper()
		err := f.DB.Pool.QueryRow(t.Context(), `SELECT extract(epoch FROM expires_at - created_at)::int FROM refresh_tokens
			WHERE client_id = $1 ORDER BY created_at LIMIT 1`, id).Scan(&seconds)
		if err != nil {
			t.Error(err)
		}
		return seconds
	}
	if got := expires(); got != "600 600 600" || refreshes() != 3600 {
		t.Errorf("the tokens are valid for %s and %d s", got, refreshes())
	}
	a := f.as(t, root, "GET", path, "").want(t, 200, "")
	if !strings.Contains(a.Body, `"name":"Short","access_token_validity":600,"refresh_token_validity":3600`) {
		t.Errorf("the client is %s", a.Body)
	}
	// What was read is sent back, and changes nothing.
	if b := f.as(t, root, "PUT", path, a.Body).want(t, 200, ""); strings.Split(b.Body, `"lastModified"`)[0] !=
		strings.Split(a.Body, `"lastModified"`)[0] {
		t.Errorf("the client is %s", b.Body)
	}
	for _, field := range []string{`"access_token_validity":43201`, `"access_token_validity":-1`, `"access_token_validity":1.5`,
		`"access_token_validity":"soon"`, `"access_token_validity":[]`, `"refresh_token_validity":2592001`,
		`"refresh_token_validity":99999999999999999999`, `"name":7`, `"name":"` + strings.Repeat("x", 256) + `"`,
		`"redirect_uri":["https://x"]`, `"resource_ids":["x"]`, `"allowedproviders":["uaa"]`, `"required_user_groups":["x"]`,
		`"token_salt":"x"`, `"allowpublic":true`, `"jwks":{}`, `"jwks_uri":"https://x"`} {
		f.as(t, root, "PUT", path, `{`+field+`}`).want(t, 400, "invalid_client")
	}
	for _, field := range []string{`"redirect_uri":[]`, `"resource_ids":["none"]`, `"allowpublic":false`, `"autoapprove":true`,
		`"token_salt":""`, `"allowedproviders":null`} {
		f.as(t, root, "PUT", path, `{`+field+`}`).want(t, 200, "")
	}
	f.as(t, root, "PUT", path, `{"access_token_validity":7200}`).want(t, 200, "")
	if got := expires(); got != "7200 1200 1200" {
		t.Errorf("a user's tokens are not valid for longer than usual: %s", got)
	}
	f.as(t, root, "PUT", path, `{"access_token_validity":0,"refresh_token_validity":0,"name":""}`).want(t, 200, "")
	if got := expires(); got != "43200 1200 1200" {
		t.Errorf("the tokens are valid for %s", got)
	}
}

func TestClientMeta(t *testing.T) {
	f := newFixture(t)
	id := f.program(t, map[string]any{"name": "A program"})
	var got struct {
		ClientID, ClientName string
		LastModified         int64
	}
	f.as(t, f.root(t), "GET", "/oauth/clients/"+id+"/meta", "").want(t, 200, "").Into(t, &got)
	if got.ClientID != id || got.ClientName != "A program" || got.LastModified == 0 {
		t.Errorf("got %+v", got)
	}
	f.as(t, f.root(t), "GET", "/oauth/clients/no-such/meta", "").want(t, 404, "not_found")
	nobody, _ := f.holder(t, account.ScopeRead)
	f.as(t, nobody, "GET", "/oauth/clients/"+id+"/meta", "").want(t, 403, "insufficient_scope")
}

// cf auth --assertion gets answers that say what to do.
func TestOtherWaysToSignIn(t *testing.T) {
	f := newFixture(t)
	const bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	f.token(t, cf, "grant_type", bearer).want(t, 400, "invalid_request")
	f.token(t, cf, "grant_type", bearer, "assertion", f.root(t)).want(t, 400, "invalid_grant")
	f.send(t, "POST", "/oauth/token?assertion=x", "grant_type="+bearer, form, cf).want(t, 400, "invalid_request")
	// The grant is looked at before the client.
	f.token(t, basic("no-such", "x"), "grant_type", "implicit").want(t, 400, "unsupported_grant_type")
	f.token(t, cf, "grant_type", "implicit", "client_id", "other").want(t, 400, "unsupported_grant_type")
	f.token(t, "", "grant_type", "").want(t, 400, "invalid_request")
	f.token(t, "", "grant_type", "client_credentials", "client_id", "x", "client_assertion", "y").want(t, 401, "invalid_client")

	// The same client twice is one client.
	id := f.program(t, nil)
	for secret, status := range map[string]int{id + "-secret": 200, "wrong": 400, "": 400} {
		f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials", "client_id", id, "client_secret", secret).
			want(t, status, "invalid_request")
	}
	f.token(t, basic(id, "wrong-secret"), "grant_type", "client_credentials", "client_id", id, "client_secret", "wrong-secret").
		want(t, 401, "invalid_client")
	f.token(t, cf, "grant_type", "client_credentials", "client_id", id, "client_secret", id+"-secret").
		want(t, 400, "invalid_request")
	f.token(t, basic(id, id+"-secret"), "grant_type", bearer, "client_id", id, "assertion", strconv.Itoa(7)).
		want(t, 400, "unauthorized_client")
}
