package uaa_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/uaa"
)

// Every route has exactly one operation in the document, and the other way round.
func TestParity(t *testing.T) {
	var routes, operations []string
	for _, r := range (&uaa.API{}).Handler().Routes() {
		routes = append(routes, fmt.Sprintf("%s %s public=%t", r.Method, r.Pattern, r.Public))
	}
	for _, op := range apitest.Load(t, "uaa.yaml").Operations() {
		operations = append(operations, fmt.Sprintf("%s %s public=%t", op.Method, op.Path, op.Public))
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes:\n%s\noperations:\n%s", strings.Join(routes, "\n"), strings.Join(operations, "\n"))
	}
}

// The table for people and the enum for programs are one list.
func TestErrorWordsAreExplained(t *testing.T) {
	spec := apitest.Load(t, "uaa.yaml").Spec()
	listed := map[string]bool{}
	rows := regexp.MustCompile("(?m)^\\| [0-9, ]+ \\| `([^`]+)` \\|")
	for _, row := range rows.FindAllStringSubmatch(spec.Info.Description, -1) {
		listed[row[1]] = true
	}
	enum := map[string]bool{}
	for _, code := range spec.Components.Schemas["Error"].Value.Properties["error"].Value.Enum {
		enum[code.(string)] = true
	}
	if fmt.Sprint(listed) != fmt.Sprint(enum) {
		t.Errorf("the table has %v\nthe enum has  %v", listed, enum)
	}
}

// What goes wrong outside an operation comes in the same envelope.
func TestUnknownPathsAndMethods(t *testing.T) {
	f := newFixture(t)
	f.send(t, "GET", "/nothing", "").want(t, 404, "not_found")
	f.send(t, "GET", "/oauth/authorize?response_type=code&client_id=ssh-proxy", "").want(t, 404, "not_found")
	f.as(t, f.root(t), "GET", "/Users/x/y/z", "").want(t, 404, "not_found")
	f.send(t, "DELETE", "/oauth/token", "").want(t, 405, "method_not_allowed")
	a := f.send(t, "DELETE", "/Users", "").want(t, 405, "method_not_allowed")
	if got := a.Header.Get("Allow"); got != "GET, POST" {
		t.Errorf("Allow is %q", got)
	}
}

func TestNoTokenOrABadOne(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/Users", "/Users/x", "/Groups", "/oauth/clients"} {
		a := f.send(t, "GET", path, "").want(t, 401, "unauthorized")
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="rolecall"` {
			t.Errorf("WWW-Authenticate is %q", got)
		}
		// Not even a right password: see signIn.
		f.send(t, "GET", path, "", basic("root", "root-password")).want(t, 401, "unauthorized")
		a = f.as(t, "x.y.z", "GET", path, "").want(t, 401, "invalid_token")
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="rolecall", error="invalid_token"` {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}
}

// Somebody without scopes may read and change nobody else, and learns nothing of who exists.
func TestInsufficientScope(t *testing.T) {
	f := newFixture(t)
	other := f.person(t, unique("other"))
	token, _ := f.holder(t, "cloud_controller.read", "cloud_controller.write")
	for _, call := range [][3]string{
		{"GET", "/Users", ""},
		{"GET", "/Users/" + other.ID, ""},
		{"GET", "/Users/no-such", ""},
		{"POST", "/Users", `{"userName":"x"}`},
		{"PUT", "/Users/" + other.ID, `{"userName":"x"}`},
		{"PUT", "/Users/no-such", `{"userName":"x"}`},
		{"PATCH", "/Users/" + other.ID, `{"active":false}`},
		{"DELETE", "/Users/" + other.ID, ""},
		{"DELETE", "/Users/no-such", ""},
		{"PUT", "/Users/" + other.ID + "/password", `{"password":"a password"}`},
		{"GET", "/Groups", ""},
		{"GET", "/Groups/no-such", ""},
		{"GET", "/Groups/no-such/members", ""},
		{"GET", "/oauth/clients", ""},
		{"GET", "/oauth/clients/no-such", ""},
		{"POST", "/oauth/clients", `{"client_id":"x","client_secret":"its-secret",` +
			`"authorized_grant_types":["client_credentials"]}`},
		{"PUT", "/oauth/clients/no-such", `{"authorized_grant_types":["client_credentials"]}`},
		{"DELETE", "/oauth/clients/no-such", ""},
		{"PUT", "/oauth/clients/no-such/secret", `{"secret":"its-secret"}`},
	} {
		a := f.as(t, token, call[0], call[1], call[2], "If-Match: *").want(t, 403, "insufficient_scope")
		if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="rolecall", error="insufficient_scope"` {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}
	for _, row := range f.AuditRows(t, other.ID) {
		if row.Action == "account.delete" && row.Outcome == "denied" {
			return
		}
	}
	t.Error("the denied deletion is not in the audit log")
}

func TestLimits(t *testing.T) {
	for _, path := range []string{"/token_keys", "/Users"} {
		f := fixtureOn(t, newFixture(t).Service, 1)
		var last answer
		for range 4 {
			last = f.send(t, "GET", path, "")
		}
		if last.want(t, 429, "too_many_requests"); last.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", last.Header.Get("Retry-After"))
		}
	}
	f := fixtureOn(t, newFixture(t).Service, 1)
	for range 3 {
		f.as(t, "rolecall_pat_x", "GET", "/Users", "")
	}
	f.as(t, "rolecall_pat_x", "GET", "/Users", "").want(t, 429, "too_many_requests")
	f = fixtureOn(t, newFixture(t).Service, 1)
	token := f.root(t)
	for range 2 {
		f.as(t, token, "GET", "/Groups", "").want(t, 200, "")
	}
	f.as(t, token, "GET", "/Groups", "").want(t, 429, "too_many_requests")
}
