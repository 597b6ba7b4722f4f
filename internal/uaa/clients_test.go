package uaa_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/identity"
)

type oauthClient struct {
	ID          string   `json:"client_id"`
	Grants      []string `json:"authorized_grant_types"`
	Scope       []string
	Authorities []string
}

func TestClientLifecycle(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	id := unique("sb-x!b1|y!b2")
	path := "/oauth/clients/" + strings.ReplaceAll(id, "|", "%7C")
	a := f.as(t, root, "POST", "/oauth/clients", object(map[string]any{
		"client_id": id, "client_secret": "first secret", "authorized_grant_types": []string{"client_credentials"},
		"name":        "A program",
		"authorities": []string{"scim.read", "uaa.none", "cloud_controller.read", "scim.read"}, "scope": []string{"uaa.none"},
		"autoapprove": true,
	})).want(t, 201, "")
	var c oauthClient
	a.Into(t, &c)
	if got := fmt.Sprint(c.ID == id, c.Grants, c.Scope,
		c.Authorities); got != "true [client_credentials] [] [cloud_controller.read scim.read]" {
		t.Errorf("got %s", got)
	}
	if strings.Contains(a.Body, "first secret") {
		t.Error("the answer has the secret")
	}
	if got := f.as(t, root, "GET", path, "").want(t, 200, ""); got.Body != a.Body {
		t.Errorf("got %s", got.Body)
	}
	var l struct {
		Resources    []oauthClient
		TotalResults int
	}
	f.as(t, root, "GET", "/oauth/clients?count=100&startIndex=1&"+filter(`client_id eq "`+id+`"`), "").want(t, 200, "").Into(t,
		&l)
	if l.TotalResults != 1 || l.Resources[0].ID != id {
		t.Errorf("got %+v", l)
	}
	f.as(t, root, "GET", "/oauth/clients?"+filter(`userName eq "x"`), "").want(t, 400, "invalid_client")
	if l := f.users(t, filter(`id eq "`+id+`"`)); l.TotalResults != 0 {
		t.Errorf("a client is among the users: %+v", l)
	}
	f.as(t, root, "GET", "/Users/"+strings.ReplaceAll(id, "|", "%7C"), "").want(t, 404, "scim_resource_not_found")

	token := f.token(t, basic(id, "first secret"), "grant_type", "client_credentials").token(t).AccessToken
	f.as(t, token, "GET", path, "").want(t, 200, "")
	f.as(t, token, "PUT", path+"/secret", `{"secret":"second secret"}`).want(t, 403, "insufficient_scope")
	f.as(t, token, "PUT", path+"/secret", `{"secret":"second secret","oldSecret":"wrong"}`).want(t, 401, "unauthorized")
	for _, secret := range []string{"nine char", "\\u0007 is the bell"} {
		f.as(t, token, "PUT", path+"/secret", `{"secret":"`+secret+`","oldSecret":"first secret"}`).want(t, 400, "invalid_client")
	}
	f.as(t, token, "PUT", path+"/secret", `{"secret":"second secret","oldSecret":"first secret"}`).want(t, 200, "")
	f.token(t, basic(id, "first secret"), "grant_type", "client_credentials").want(t, 401, "invalid_client")
	f.token(t, basic(id, "second secret"), "grant_type", "client_credentials").token(t)
	f.as(t, root, "PUT", path+"/secret", `{"clientId":"`+id+`","secret":"third secret"}`).want(t, 200, "")
	f.as(t, root, "PUT", path+"/secret", `{"secret":"its-secret","changeMode":"ADD"}`).want(t, 400, "invalid_client")
	f.as(t, root, "PUT", path+"/secret", `{}`).want(t, 400, "invalid_client")

	f.as(t, root, "PUT", path,
		`{"client_id":"`+id+`","authorities":["cloud_controller.write"],"client_secret":"ignored"}`).want(t, 200, "").Into(t, &c)
	if fmt.Sprint(c.Authorities, c.Grants) != "[cloud_controller.write] [client_credentials]" {
		t.Errorf("got %+v", c)
	}
	f.as(t, root, "PUT", path, `{"client_id":"other"}`).want(t, 400, "invalid_client")
	token = f.token(t, basic(id, "third secret"), "grant_type", "client_credentials").token(t).AccessToken
	f.as(t, root, "DELETE", path, "").want(t, 200, "")
	f.as(t, token, "GET", path, "").want(t, 401, "invalid_token")
	f.as(t, root, "GET", path, "").want(t, 404, "not_found")
	f.as(t, root, "DELETE", path, "").want(t, 404, "not_found")
	f.as(t, root, "PUT", path, `{"authorities":[]}`).want(t, 404, "not_found")
}

func TestCreateClientRefused(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	taken := f.program(t, nil)
	u := f.person(t, unique("person"))
	create := func(id, rest string) answer {
		return f.as(t, root, "POST", "/oauth/clients", `{"client_id":"`+id+`"`+rest+`}`)
	}
	const good = `,"client_secret":"its-secret","authorized_grant_types":["client_credentials"]`
	for _, id := range []string{taken, u.ID, "cf", "rolecall"} {
		create(id, good).want(t, 409, "invalid_client")
	}
	for _, id := range []string{"", "a b", "a/b", `a\\b`, "a%41", "a+b", "a:b", `a\u0000`, `a\u200b`, strings.Repeat("a", 201),
		"Rolecall", "bootstrap", "restored", "unknown", uuid.NewString(),
		strings.ReplaceAll(uuid.NewString(), "-", "")} {
		create(id, good).want(t, 400, "invalid_client")
	}
	for _, rest := range []string{
		``, `,"client_secret":"its-secret"`, `,"authorized_grant_types":["client_credentials"]`,
		`,"client_secret":"its-secret","authorized_grant_types":[]`,
		`,"client_secret":"its-secret","authorized_grant_types":["authorization_code"]`,
		`,"client_secret":"its-secret","authorized_grant_types":"client_credentials"`,
		good + `,"authorities":["clients.read"]`, good + `,"scope":["openid"]`, good + `,"authorities":[1]`,
		`,"client_secret":"nine char","authorized_grant_types":["client_credentials"]`,
		`,"client_secret":"a\u0000 secret of x","authorized_grant_types":["client_credentials"]`,
		`,"client_secret":"` + strings.Repeat("x", 256) + `","authorized_grant_types":["client_credentials"]`,
	} {
		create(unique("bad"), rest).want(t, 400, "invalid_client")
	}
}

// TestClientIDOfADeletedAccount: the id of a deleted account whose changes are in the audit log is for admins to use again,
// because the new account would read these rows.
func TestClientIDOfADeletedAccount(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	writer, _ := f.holder(t, account.ScopeSCIMRead, account.ScopeSCIMWrite)
	admin := &account.Principal{GUID: "x", Scopes: account.AdminScopes}
	create := func(token, id string) answer {
		return f.as(t, token, "POST", "/oauth/clients", object(map[string]any{"client_id": id,
			"client_secret": id + "-secret", "authorized_grant_types": []string{"client_credentials"}}))
	}
	for _, sealed := range []bool{false, true} {
		id := unique("again")
		create(writer, id).want(t, 201, "")
		f.as(t, root, "DELETE", "/oauth/clients/"+id, "").want(t, 200, "")
		create(writer, id).want(t, 201, "") // it changed nothing
		token := f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials").token(t).AccessToken
		f.as(t, token, "POST", "/Users", `{"userName":"`+unique("denied")+`","password":"long-enough-password"}`).
			want(t, 403, "insufficient_scope")
		f.as(t, root, "DELETE", "/oauth/clients/"+id, "").want(t, 200, "")
		if _, err := f.Accounts.DeletePlatform(t.Context(), admin, id, nil); err != nil {
			t.Fatal(err)
		}
		for rows := 1; sealed && rows > 0; {
			var err error
			if rows, err = f.Audit.Seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if a := create(writer, id).want(t, 403, "insufficient_scope"); !strings.Contains(a.Body, "audit log") {
			t.Error(a.Body)
		}
		create(root, id).want(t, 201, "")
	}
}

// A client that was made before its id was reserved goes on, and can be changed.
func TestClientOfAReservedID(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"Restored", uuid.NewString()} {
		made := f.program(t, nil)
		if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE accounts SET guid = $2 WHERE guid = $1`, made, id); err != nil {
			t.Fatal(err)
		}
		f.as(t, f.root(t), "PUT", "/oauth/clients/"+id, `{"authorities":["cloud_controller.write"]}`).want(t, 200, "")
		token := f.token(t, basic(id, made+"-secret"), "grant_type", "client_credentials").token(t).AccessToken
		f.as(t, token, "GET", "/oauth/clients/"+id, "").want(t, 200, "")
	}
}

// A client may be the identity of a platform user that was known before, with its labels. Its scopes never outlive it.
func TestClientOfAPlatformUser(t *testing.T) {
	f := newFixture(t)
	id := unique("robot")
	admin := &account.Principal{GUID: "x", Scopes: account.AdminScopes}
	team := "dba"
	if _, err := f.Accounts.CreatePlatform(t.Context(), admin,
		account.NewPlatformUser{GUID: id, Labels: map[string]*string{"team": &team}}); err != nil {
		t.Fatal(err)
	}
	f.program(t, map[string]any{"client_id": id, "client_secret": "its-secret",
		"authorities": []string{"cloud_controller.write"}})
	token := f.token(t, basic(id, "its-secret"), "grant_type", "client_credentials").token(t).AccessToken
	p, err := f.Identity.Authenticate(t.Context(), identity.ParseCredential("Bearer "+token), "")
	if err != nil || p.GUID != id || p.Labels["team"] != "dba" {
		t.Errorf("it signs in as %+v, %v", p, err)
	}
	f.as(t, f.root(t), "DELETE", "/oauth/clients/"+id, "").want(t, 200, "")
	a, err := f.Accounts.ByGUID(t.Context(), id)
	if err != nil || a.OAuthClient || len(a.Scopes) != 0 || a.Labels["team"] != "dba" {
		t.Errorf("what is left is %+v, %v", a, err)
	}
	f.program(t, map[string]any{"client_id": id, "client_secret": "secret-of-y", "authorities": []string{}})
	if tok := f.token(t, basic(id, "secret-of-y"), "grant_type", "client_credentials").token(t); tok.Scope != "" ||
		fmt.Sprint(tok.claims(t)["scope"]) != "[]" {
		t.Errorf("the next one has %q", tok.Scope)
	}
}
