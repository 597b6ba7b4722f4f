package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// object decodes an answer as clients do that look for members in it.
func (r response) object(t *testing.T) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &o); err != nil {
		t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	return o
}

// member follows a path of members, nil when one is missing.
func member(v any, path ...string) any {
	for _, name := range path {
		o, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = o[name]
	}
	return v
}

// platform is a client of the platform users API and of the UAA.
type platform struct{ client }

func (c platform) does(want int, method, path, body string) response {
	c.Helper()
	header := maps.Clone(c.header)
	if body != "" {
		maps.Copy(header, c.withBody)
	}
	r := send(c.T, method, path, header, body)
	if r.status != want {
		c.Errorf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
	}
	return r
}

// cfCommand is the cf command line 8.18: what it sends, and what it makes of the answers.
type cfCommand struct {
	platform
	access, refresh string
}

func newCFCommand(t *testing.T) *cfCommand {
	return &cfCommand{platform: platform{client{t, map[string]string{
		"User-Agent": "cf/8.18.4 (go1.26.8; amd64 linux)", "Accept": "application/json", "Content-Type": "application/json",
		"Authorization": "",
		"X-B3-Traceid":  "b35394cf7bf54e56bcb5005b5ace0639", "X-B3-Spanid": "1d5d18d9cb71b72b",
	}, nil}}}
}

// uaa are the headers of its requests to the UAA.
func (c *cfCommand) uaa() platform {
	header := maps.Clone(c.header)
	header["Connection"] = "close"
	return platform{client{c.T, header, nil}}
}

// api is cf api: it targets the server and returns where to sign in.
func (c *cfCommand) api() (login string) {
	c.Helper()
	root := c.does(200, "GET", "/", "").object(c.T)
	version, _ := member(root, "links", "cloud_controller_v3", "meta", "version").(string)
	if !regexp.MustCompile(`^3\.\d+\.\d+$`).MatchString(version) || version < "3.160.0" {
		c.Errorf("the API's version is %q", version)
	}
	if root["cf_on_k8s"] != nil {
		c.Error("cf would sign in with a kubeconfig")
	}
	url := shared.env["CF_API_URL"]
	login, _ = member(root, "links", "login", "href").(string)
	if member(root, "links", "self", "href") != url || member(root, "links", "cloud_controller_v3", "href") != url+"/v3" ||
		member(root, "links", "uaa", "href") != url+"/uaa" || login != url+"/uaa" {
		c.Errorf("root: %v", root)
	}
	return login
}

// signIn takes the tokens out of an answer of the token endpoint.
func (c *cfCommand) signIn(r response) {
	c.Helper()
	o := r.object(c.T)
	if o["token_type"] != "bearer" { // else it signs in again before each command
		c.Errorf("the token's type is %q", o["token_type"])
	}
	c.access, _ = o["access_token"].(string)
	c.refresh, _ = o["refresh_token"].(string)
	c.header["Authorization"] = "bearer " + c.access
	parts := strings.Split(c.access, ".")
	if len(parts) != 3 {
		c.Fatalf("the token is no JWT: %s", r.body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		c.Fatalf("the token has no claims: %s", payload)
	}
	text := func(name string) string { s, _ := claims[name].(string); return s }
	exp, _ := claims["exp"].(float64)
	if time.Until(time.Unix(int64(exp), 0)) < time.Minute {
		c.Errorf("the token expires at %v", claims["exp"])
	}
	// It panics without an origin.
	if text("grant_type") != "client_credentials" && (text("user_name") == "" || text("user_id") == "" ||
		text("origin") == "") || text("client_id") == "" ||
		text("jti") == "" || strings.HasSuffix(text("jti"), "-r") || text("iss") != shared.env["CF_API_URL"]+"/uaa/oauth/token" ||
		!strings.Contains(fmt.Sprint(claims["aud"]), "cloud_controller") {
		c.Errorf("claims: %s", payload)
	}
	if claims["revocable"] == true {
		c.Error("cf logout would revoke the token")
	}
}

// auth is cf auth.
func (c *cfCommand) auth(login, username, password, query string) {
	c.Helper()
	form := url.Values{"grant_type": {"password"}, "username": {username}, "password": {password}}
	c.signIn(c.grant(200, login+"/oauth/token"+query, form, "Basic Y2Y6"))
}

func (c *cfCommand) grant(want int, target string, form url.Values, authorization string) response {
	c.Helper()
	header := maps.Clone(c.uaa().header)
	header["Content-Type"], header["Authorization"] = "application/x-www-form-urlencoded", authorization
	return platform{client{c.T, header, nil}}.does(want, "POST", target, form.Encode())
}

// createUser is cf create-user. It returns what the command prints.
func (c *cfCommand) createUser(name, password, origin string) string {
	c.Helper()
	where := origin
	if where == "" {
		where = "uaa"
	}
	found := c.uaa().does(200, "GET", "/uaa/Users?"+url.Values{"filter": {fmt.Sprintf(`userName eq "%s" and origin eq "%s"`,
		name, where)}}.Encode(), "").object(c.T)
	if list, ok := found["resources"].([]any); !ok {
		c.Fatalf("no resources: %v", found)
	} else if len(list) > 0 {
		return "already exists"
	}
	body, _ := json.Marshal(map[string]any{"userName": name, "password": password, "origin": origin,
		"name":   map[string]any{"familyName": name, "givenName": name},
		"emails": []any{map[string]any{"value": name, "primary": true}}})
	made := c.uaa().does(201, "POST", "/uaa/Users", string(body)).object(c.T)
	if made["id"] == nil || made["origin"] != where {
		c.Errorf("made %v", made)
	}
	user := c.does(201, "POST", "/v3/users", fmt.Sprintf(`{"guid":%q}`, made["id"])).object(c.T)
	if user["guid"] != made["id"] || user["username"] != name || user["origin"] != where {
		c.Errorf("made %v", user)
	}
	return "OK"
}

// deleteUser is cf delete-user -f. It returns what the command prints.
func (c *cfCommand) deleteUser(name string) string {
	c.Helper()
	found := c.uaa().does(200, "GET", "/uaa/Users?"+url.Values{"filter": {fmt.Sprintf(`userName eq "%s"`, name)}}.Encode(),
		"").object(c.T)
	list, _ := found["resources"].([]any)
	switch len(list) {
	case 0:
		return "does not exist"
	case 1:
	default:
		return "several origins"
	}
	guid, _ := member(list[0], "id").(string)
	r := send(c.T, "DELETE", "/v3/users/"+guid, c.header, "")
	switch location := r.header.Get("Location"); {
	case r.status == 202 && r.body == "" && strings.HasPrefix(location, shared.env["CF_API_URL"]+"/v3/jobs/"):
		job := c.does(200, "GET", location, "").object(c.T)
		if job["state"] != "COMPLETE" || job["operation"] != "user.delete" {
			c.Errorf("job: %v", job)
		}
	case r.status == 404:
		// With exactly "User not found" it would stop here, and the identity would stay (cloudfoundry/cli#2086).
		errs, _ := r.object(c.T)["errors"].([]any)
		if len(errs) != 1 || member(errs[0], "code") != 10010.0 || member(errs[0], "title") != "CF-ResourceNotFound" ||
			member(errs[0], "detail") == "User not found" {
			c.Errorf("404: %s", r.body)
		}
	default:
		c.Errorf("DELETE: %d %q, Location %q", r.status, r.body, location)
	}
	gone := c.uaa().does(200, "DELETE", "/uaa/Users/"+guid, "").object(c.T)
	if gone["id"] != guid || gone["userName"] != name {
		c.Errorf("deleted %v", gone)
	}
	return "OK"
}

func TestCFCommand(t *testing.T) {
	t.Parallel()
	c := newCFCommand(t)
	login := c.api()
	c.does(401, "GET", "/v3/users", "")
	c.auth(login, shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"], "")

	// cf login.
	c.api()
	info := c.does(200, "GET", login+"/login", "").object(t)
	for name, label := range map[string]string{"username": "text", "password": "password"} {
		prompt, _ := member(info, "prompts", name).([]any)
		if len(prompt) != 2 || prompt[0] != label { // it panics on less
			t.Errorf("prompts: %v", info)
		}
	}
	if version, _ := member(info, "app", "version").(string); version == "" {
		t.Errorf("login: %v", info)
	}
	c.auth(login, shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"], "?login_hint="+url.QueryEscape(`{"origin":"uaa"}`))
	orgs := c.does(200, "GET", "/v3/organizations?order_by=name", "").object(t)
	if list, ok := orgs["resources"].([]any); !ok || len(list) != 0 || member(orgs, "pagination", "next") != nil ||
		member(orgs, "pagination", "total_results") != 0.0 {
		t.Errorf("organizations: %v", orgs)
	}

	// cf create-user, cf curl -X PATCH, cf curl, cf delete-user.
	if said := c.createUser("cf-bob", "a password", ""); said != "OK" {
		t.Errorf("create-user: %s", said)
	}
	if said := c.createUser("CF-Bob", "a password", ""); said != "already exists" {
		t.Errorf("create-user again: %s", said)
	}
	found := c.does(200, "GET", "/v3/users?usernames=cf-bob", "").object(t)
	list, _ := found["resources"].([]any)
	if len(list) != 1 {
		t.Fatalf("users: %v", found)
	}
	guid, _ := member(list[0], "guid").(string)
	patched := c.does(200, "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"cf-team":"payments"}}}`)
	if patched.header.Get("Location") != "" || patched.header.Get("X-Vcap-Request-Id") == "" ||
		patched.header.Get("Content-Type") != "application/json; charset=utf-8" ||
		!regexp.MustCompile(`^\{"guid":"`+guid+`","created_at":"[0-9T:-]+Z","updated_at":"[0-9T:-]+Z",`+
			`"username":"cf-bob","presentation_name":"cf-bob","origin":"uaa",`+
			`"metadata":\{"labels":\{"cf-team":"payments"\},"annotations":\{\}\},"links":\{"self":\{"href":"`+
			regexp.QuoteMeta(shared.env["CF_API_URL"])+`/v3/users/`+guid+`"\}\}\}\n?$`).MatchString(patched.body) {
		t.Errorf("patched: %v %s", patched.header, patched.body)
	}
	for range 2 { // it sends a PATCH again when it got a 5xx
		c.does(200, "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"cf-team":"payments"}}}`)
	}
	if selected := c.does(200, "GET", "/v3/users?label_selector=cf-team=payments", ""); !strings.Contains(selected.body, guid) {
		t.Errorf("by label: %s", selected.body)
	}
	for body, code := range map[string]string{`{"metadata":`: `"code":1001,"title":"CF-MessageParseError"`,
		`{"nonsense":1}`: `"detail":"Unknown field(s): 'nonsense'"`} {
		if r := send(t, "PATCH", "/v3/users/"+guid, c.header, body); !strings.Contains(r.body, code) {
			t.Errorf("PATCH %s: %s", body, r.body)
		}
	}

	// As bob, who may do less.
	bob := newCFCommand(t)
	bob.auth(login, "cf-bob", "a password", "")
	bob.uaa().does(403, "GET", "/uaa/Users?filter="+url.QueryEscape(`userName eq "x"`), "")
	bob.does(403, "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"cf-team":"dba"}}}`)
	bob.does(200, "GET", "/v3/users/"+guid, "")
	// cf passwd, which looks at the status alone; and the tokens end.
	own := "/uaa/Users/" + guid + "/password"
	if r := send(t, "PUT", own, bob.uaa().header, `{"password":"new password","oldPassword":"wrong"}`); r.status != 401 {
		t.Errorf("a wrong old password: %d %s", r.status, r.body)
	}
	if r := send(t, "PUT", own, bob.uaa().header, `{"password":"new password","oldPassword":"a password"}`); r.status != 200 ||
		!strings.Contains(r.body, `"status":"ok"`) {
		t.Errorf("passwd: %d %s", r.status, r.body)
	}
	if r := bob.grant(401, login+"/oauth/token", url.Values{"grant_type": {"password"}, "username": {"cf-bob"},
		"password": {"a password"}}, "Basic Y2Y6"); strings.TrimSpace(r.body) !=
		`{"error":"unauthorized","error_description":"Bad credentials"}` {
		t.Errorf("the old password: %s", r.body)
	}
	if r := bob.grant(400, login+"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {bob.refresh}},
		"Basic Y2Y6"); !strings.Contains(r.body, `"invalid_grant"`) {
		t.Errorf("a refresh token from before: %s", r.body)
	}
	bob.auth(login, "cf-bob", "new password", "")
	// Its commands share a refresh token, which therefore stays.
	refresh := bob.refresh
	for range 2 {
		bob.signIn(bob.grant(200, login+"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}},
			"Basic Y2Y6"))
		if bob.refresh != refresh {
			t.Error("the refresh token was replaced")
		}
	}

	if said := c.deleteUser("cf-bob"); said != "OK" {
		t.Errorf("delete-user: %s", said)
	}
	if said := c.deleteUser("cf-bob"); said != "does not exist" {
		t.Errorf("delete-user again: %s", said)
	}
	c.does(404, "GET", "/v3/users/"+guid, "")

	// The identity is there, the platform user is not: create-user says so and makes none, delete-user goes through.
	person(t, "cf-uaa-only", "a password")
	if said := c.createUser("cf-uaa-only", "a password", ""); said != "already exists" {
		t.Errorf("create-user of an identity: %s", said)
	}
	if r := c.does(200, "GET", "/v3/users?usernames=cf-uaa-only", ""); !strings.Contains(r.body, `"total_results":0`) {
		t.Errorf("an identity is a platform user already: %s", r.body)
	}
	if said := c.deleteUser("cf-uaa-only"); said != "OK" {
		t.Errorf("delete-user of an identity: %s", said)
	}
	if said := c.deleteUser("cf-uaa-only"); said != "does not exist" {
		t.Errorf("the identity stayed: %s", said)
	}
	// Of another origin, without a password.
	if said := c.createUser("cf-ldap", "", "ldap"); said != "OK" {
		t.Errorf("create-user --origin ldap: %s", said)
	}
	if said := c.deleteUser("cf-ldap"); said != "OK" {
		t.Errorf("delete-user --origin ldap: %s", said)
	}

	// cf auth --client-credentials, which puts the secret into the form.
	program(t, "cf-program", everything)
	robot := newCFCommand(t)
	robot.signIn(robot.grant(200, login+"/oauth/token", url.Values{"grant_type": {"client_credentials"},
		"client_id": {"cf-program"}, "client_secret": {secret}}, ""))
	if robot.refresh != "" {
		t.Error("a program got a refresh token")
	}
	self := robot.does(200, "GET", "/v3/users/cf-program", "").object(t)
	if self["username"] != nil || self["origin"] != nil || self["presentation_name"] != "cf-program" {
		t.Errorf("a program: %v", self)
	}
	if said := robot.createUser("cf-by-program", "a password", ""); said != "OK" {
		t.Errorf("create-user by a program: %s", said)
	}
	if said := robot.deleteUser("cf-by-program"); said != "OK" {
		t.Errorf("delete-user by a program: %s", said)
	}
	if r := robot.grant(401, login+"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"cf-program"},
		"client_secret": {"wrong"}}, ""); !strings.Contains(r.body, `"invalid_client"`) {
		t.Errorf("a wrong secret: %s", r.body)
	}
}

// TestTerraformCF replays the resources cloudfoundry_user and cloudfoundry_user_cf, and the data source, of the provider
// cloudfoundry/cloudfoundry, as its own tests recorded them.
func TestTerraformCF(t *testing.T) {
	t.Parallel()
	agent := "Terraform/1.5.7 terraform-provider-cloudfoundry/dev"
	access, _ := token(t, shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"])
	api := platform{client{t, map[string]string{"User-Agent": agent, "Authorization": "Bearer " + access},
		map[string]string{"Content-Type": "application/json"}}}
	uaa := platform{client{t, map[string]string{"User-Agent": agent, "Authorization": "Bearer " + access,
		"Accept": "application/json", "X-Identity-Zone-Id": ""},
		map[string]string{"Content-Type": "application/json"}}}
	matching := platform{client{t, maps.Clone(uaa.header), uaa.withBody}}
	matching.header["If-Match"] = "*"

	// users lists by name as it does before it creates, with what its client needs in order to end.
	users := func(name string) []any {
		t.Helper()
		found := uaa.does(200, "GET", "/uaa/Users?count=100&filter="+url.QueryEscape(`userName eq "`+name+`"`)+"&startIndex=1",
			"").object(t)
		list, ok := found["resources"].([]any)
		if !ok || found["startIndex"] != 1.0 || found["itemsPerPage"] != 100.0 || found["totalResults"] != float64(len(list)) {
			t.Errorf("users: %v", found)
		}
		return list
	}
	// state is what it keeps. It crashes on a missing name, an empty list of addresses and missing metadata.
	type state struct{ guid, username, origin, given, family, email, labels, annotations string }
	stateOf := func(identity, user map[string]any) state {
		t.Helper()
		text := func(v any) string { s, _ := v.(string); return s }
		emails, _ := identity["emails"].([]any)
		if _, ok := identity["name"].(map[string]any); !ok || len(emails) == 0 || member(user, "metadata", "labels") == nil ||
			member(user, "metadata", "annotations") == nil {
			t.Fatalf("the provider would crash on %v and %v", identity, user)
		}
		if groups, ok := identity["groups"].([]any); !ok || len(groups) == 0 || member(groups[0], "display") == nil {
			t.Errorf("groups: %v", identity)
		}
		for _, at := range []any{user["created_at"], user["updated_at"]} {
			if _, err := time.Parse(time.RFC3339, text(at)); err != nil {
				t.Error(err)
			}
		}
		return state{text(user["guid"]), text(user["username"]), text(user["origin"]), text(member(identity, "name", "givenName")),
			text(member(identity, "name", "familyName")),
			text(member(emails[0], "value")), fmt.Sprint(member(user, "metadata", "labels")),
			fmt.Sprint(member(user, "metadata", "annotations"))}
	}
	equal := func(what string, got, want state) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}

	// create
	if list := users("tf-test"); len(list) != 0 {
		t.Fatalf("users: %v", list)
	}
	identity := uaa.does(201, "POST", "/uaa/Users",
		`{"password":"tf-password","userName":"tf-test","name":{"familyName":"tf-family","givenName":"tf-given"},`+
			`"emails":[{"value":"tf-test@example.com","primary":true}]}`).object(t)
	guid, _ := identity["id"].(string)
	user, uaaUser := "/v3/users/"+guid, "/uaa/Users/"+guid
	if r := api.does(404, "GET", user, ""); !strings.Contains(r.body, `"code":10010`) {
		t.Errorf("a user that is not there: %s", r.body)
	}
	made := api.does(201, "POST", "/v3/users",
		`{"guid":"`+guid+`","metadata":{"labels":{"landscape":"test","purpose":"testing"},"annotations":null}}`)
	if made.header.Get("Location") != "" {
		t.Error("the provider would poll a job for a created user")
	}
	want := state{guid, "tf-test", "uaa", "tf-given", "tf-family", "tf-test@example.com", "map[landscape:test purpose:testing]",
		"map[]"}
	equal("created", stateOf(identity, made.object(t)), want)
	// read
	read := func() state {
		t.Helper()
		u := api.does(200, "GET", user, "").object(t)
		r := matching.does(200, "GET", uaaUser, "")
		version, _ := member(r.object(t), "meta", "version").(float64)
		if r.header.Get("ETag") != fmt.Sprintf(`"%.0f"`, version) {
			t.Errorf("ETag %s, version %v", r.header.Get("ETag"), version)
		}
		return stateOf(r.object(t), u)
	}
	equal("read", read(), want)
	// data source
	page := api.does(200, "GET", "/v3/users?page=1&per_page=50&usernames=tf-test", "").object(t)
	if list, _ := page["resources"].([]any); len(list) != 1 || member(list[0], "guid") != guid ||
		member(page, "pagination", "next") != nil {
		t.Errorf("data source: %v", page)
	}
	none := api.does(200, "GET", "/v3/users?page=1&per_page=50&usernames=tf-nobody", "").object(t)
	if list, ok := none["resources"].([]any); !ok || len(list) != 0 {
		t.Errorf("data source of nobody: %v", list)
	}
	// update: another name, no given and family name any more, another password, other labels
	identity = matching.does(200, "PUT", uaaUser,
		`{"id":"`+guid+`","userName":"tf-test2","name":{},`+
			`"emails":[{"value":"tf-test-updated@example.com","primary":true}],"origin":"uaa"}`).object(t)
	const passwords = `{ "oldPassword" : "tf-password" , "password" : "tf-password2"}`
	if r := send(t, "PUT", uaaUser+"/password", uaa.header, passwords); r.status != 200 ||
		!strings.Contains(r.body, `"status":"ok"`) {
		t.Errorf("password: %d %s", r.status, r.body)
	}
	changed := api.does(200, "PATCH", user,
		`{"metadata":{"labels":{"landscape":null,"purpose":"production","status":"fine"},"annotations":null}}`).object(t)
	want = state{guid, "tf-test2", "uaa", "", "", "tf-test-updated@example.com", "map[purpose:production status:fine]", "map[]"}
	equal("updated", stateOf(identity, changed), want)
	equal("read", read(), want)
	token(t, "tf-test2", "tf-password2")
	// One that was made before is taken over.
	if list := users("tf-test2"); len(list) != 1 || member(list[0], "id") != guid {
		t.Errorf("users: %v", list)
	}
	// delete
	gone := api.does(202, "DELETE", user, "")
	job := gone.header.Get("Location")
	if gone.body != "" || !regexp.MustCompile(`/v3/jobs/[0-9a-f-]{36}$`).MatchString(job) {
		t.Errorf("delete: %q, Location %s", gone.body, job)
	}
	job = "/v3/jobs/" + job[strings.LastIndex(job, "/")+1:]
	if state := api.does(200, "GET", job, "").object(t)["state"]; state != "COMPLETE" {
		t.Errorf("job: %v", state)
	}
	if gone := matching.does(200, "DELETE", uaaUser, "").object(t); gone["id"] != guid || gone["userName"] != "tf-test2" {
		t.Errorf("deleted %v", gone)
	}
	// what a plan asks when it is gone
	api.does(404, "GET", user, "")
	if r := matching.does(404, "GET", uaaUser, ""); !strings.Contains(r.body, "scim_resource_not_found") {
		t.Errorf("read of a deleted user: %s", r.body)
	}

	// cloudfoundry_user_cf
	byName := api.does(201, "POST", "/v3/users",
		`{"username":"tf-sso","origin":"sso.example.org","metadata":{"labels":null,"annotations":{"a":"b"}}}`).object(t)
	user = "/v3/users/" + fmt.Sprint(byName["guid"])
	if byName["username"] != "tf-sso" || byName["origin"] != "sso.example.org" {
		t.Errorf("by name: %v", byName)
	}
	api.does(200, "PATCH", user, `{"metadata":{"labels":null,"annotations":{"a":null}}}`)
	if got := api.does(200, "GET", user, "").object(t); fmt.Sprint(got["metadata"]) != "map[annotations:map[] labels:map[]]" {
		t.Errorf("the annotation is still there: %v", got)
	}
	api.does(202, "DELETE", user, "")
	discard(t, "/uaa/Users/"+fmt.Sprint(byName["guid"]))

	// cloudfoundry_users, of an organization and of a space
	for _, path := range []string{"/v3/organizations/x/users?page=1&per_page=50", "/v3/spaces/x/users?page=1&per_page=50"} {
		if r := api.does(404, "GET", path, ""); !strings.Contains(r.body, `"code":10010`) {
			t.Errorf("GET %s: %s", path, r.body)
		}
	}
	// cloudfoundry_user_groups
	guid = person(t, "tf-member", "a password")
	group := uaa.does(200, "GET", "/uaa/Groups?count=100&filter="+url.QueryEscape(`displayName eq "scim.read"`)+"&startIndex=1",
		"").object(t)
	groups, _ := group["resources"].([]any)
	if len(groups) != 1 {
		t.Fatalf("groups: %v", group)
	}
	id := fmt.Sprint(member(groups[0], "id"))
	body := `{"origin":"uaa","type":"USER","value":"` + guid + `"}`
	uaa.does(201, "POST", "/uaa/Groups/"+id+"/members", body)
	if r := uaa.does(409, "POST", "/uaa/Groups/"+id+"/members", body); !strings.Contains(r.body, "member_already_exists") {
		t.Errorf("add again: %s", r.body)
	}
	has, _ := matching.does(200, "GET", "/uaa/Users/"+guid, "").object(t)["groups"].([]any)
	if !slices.ContainsFunc(has, func(g any) bool { return member(g, "display") == "scim.read" }) {
		t.Errorf("groups of the member: %v", has)
	}
	matching.does(200, "DELETE", "/uaa/Groups/"+id+"/members/"+guid, body)
}
