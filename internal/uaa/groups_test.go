package uaa_test

import (
	"fmt"
	"testing"

	"rolecall/internal/account"
)

type group struct {
	ID, DisplayName string
	Members         []struct{ Value, Origin, Type string }
}

// group returns the id of a scope's group, found as go-uaa finds it.
func (f *fixture) group(t testing.TB, scope string) string {
	t.Helper()
	var l struct{ Resources []group }
	f.as(t, f.root(t), "GET", "/Groups?count=100&startIndex=1&"+filter(`displayName eq "`+scope+`"`), "").want(t, 200,
		"").Into(t, &l)
	if len(l.Resources) != 1 || l.Resources[0].DisplayName != scope {
		t.Fatalf("got %+v", l)
	}
	return l.Resources[0].ID
}

func TestGroups(t *testing.T) {
	f := newFixture(t)
	root := f.root(t)
	var l struct {
		Resources                              []group
		StartIndex, ItemsPerPage, TotalResults int
	}
	f.as(t, root, "GET", "/Groups", "").want(t, 200, "").Into(t, &l)
	if l.TotalResults != 7 || len(l.Resources) != 7 || l.Resources[0].DisplayName != "cloud_controller.admin" ||
		len(l.Resources[0].Members) == 0 {
		t.Errorf("got %+v", l)
	}
	f.as(t, root, "GET", "/Groups?startIndex=6&count=5&"+filter(`displayName eq "none" or not`), "").want(t, 400, "scim")
	f.as(t, root, "GET", "/Groups?startIndex=6&count=5", "").want(t, 200, "").Into(t, &l)
	if l.TotalResults != 7 || len(l.Resources) != 2 || l.StartIndex != 6 {
		t.Errorf("got %+v", l)
	}
	f.as(t, root, "GET", "/Groups?startIndex=60", "").want(t, 200, "")

	u := f.person(t, unique("member"))
	path := "/Groups/" + f.group(t, "scim.read")
	body := `{"origin":"uaa","type":"USER","value":"` + u.ID + `"}`
	f.as(t, root, "POST", path+"/members", body).want(t, 201, "")
	f.as(t, root, "POST", path+"/members", body).want(t, 409, "member_already_exists")
	var g group
	f.as(t, root, "GET", path, "").want(t, 200, "").Into(t, &g)
	var members []struct{ Value string }
	f.as(t, root, "GET", path+"/members", "").want(t, 200, "").Into(t, &members)
	if last := len(members) - 1; fmt.Sprint(members[last]) != "{"+u.ID+"}" || g.Members[last].Value != u.ID ||
		g.Members[last].Type != "USER" {
		t.Errorf("the members are %v and %+v", members, g)
	}
	if got := f.as(t, root, "GET", "/Users/"+u.ID, "").want(t, 200, "").user(t).Groups; len(got) != 3 ||
		got[2].Value != f.group(t, "scim.read") {
		t.Errorf("the user's groups are %v", got)
	}
	// go-uaa sends a body with DELETE.
	f.as(t, root, "DELETE", path+"/members/"+u.ID, body).want(t, 200, "")
	f.as(t, root, "DELETE", path+"/members/"+u.ID, "").want(t, 404, "scim_resource_not_found")

	f.as(t, root, "POST", path+"/members", `{"value":"no-such"}`).want(t, 404, "scim_resource_not_found")
	f.as(t, root, "POST", path+"/members", `{"value":"`+f.program(t, nil)+`"}`).want(t, 404, "scim_resource_not_found")
	f.as(t, root, "POST", path+"/members", `{"type":"GROUP","value":"x"}`).want(t, 400, "invalid_scim_resource")
	f.as(t, root, "POST", path+"/members", `{}`).want(t, 400, "invalid_scim_resource")
	f.as(t, root, "POST", "/Groups/no-such/members", body).want(t, 404, "scim_resource_not_found")
	f.as(t, root, "GET", "/Groups/no-such", "").want(t, 404, "scim_resource_not_found")
	var rows int
	for _, r := range f.AuditRows(t, u.ID) {
		if r.Detail == `{"scope": "scim.read"}` && r.Outcome == "done" {
			rows++
		}
	}
	if rows != 2 {
		t.Errorf("%d of 2 changes are in the audit log", rows)
	}
}

// scim.write by itself leads to nothing more.
func TestNoEscalation(t *testing.T) {
	f := newFixture(t)
	token, guid := f.holder(t, "scim.read", "scim.write", "cloud_controller.read", "cloud_controller.write")
	admin := unique("admin")
	adminGUID := f.Admin(t, admin)
	_, reader := f.holder(t, account.ScopeAdminReadOnly)
	deputy := unique("deputy") // a program with admin rights
	f.program(t, map[string]any{"client_id": deputy, "client_secret": "its-secret",
		"authorities": []string{account.ScopeAdmin}})
	labelled := unique("robot")
	if _, err := f.DB.Pool.Exec(t.Context(), `INSERT INTO accounts (guid, labels, platform_created_at, platform_updated_at)
		VALUES ($1, '{"team":"dba"}', now(), now())`, labelled); err != nil {
		t.Fatal(err)
	}
	// Labels are rights as well: they open clusters.
	dba := unique("dba")
	dbaGUID := f.Account(t, dba, account.DefaultScopes, map[string]string{"team": "dba"})
	client := func(fields string) string {
		return `{"client_id":"` + unique("c") +
			`","client_secret":"its-secret","authorized_grant_types":["client_credentials","password"],` + fields + `}`
	}
	for _, call := range [][3]string{
		{"POST", "/Groups/" + f.group(t, account.ScopeAdmin) + "/members", `{"value":"` + guid + `"}`},
		{"POST", "/Groups/" + f.group(t, account.ScopeAuditor) + "/members", `{"value":"` + guid + `"}`},
		{"POST", "/Groups/" + f.group(t, account.ScopeSCIMWrite) + "/members", `{"value":"` + reader + `"}`},
		{"DELETE", "/Groups/" + f.group(t, account.ScopeAdmin) + "/members/" + adminGUID, ""},
		{"DELETE", "/Groups/" + f.group(t, account.ScopeRead) + "/members/" + adminGUID, ""},
		{"PUT", "/Users/" + adminGUID + "/password", `{"password":"mine from now"}`},
		{"PUT", "/Users/" + reader + "/password", `{"password":"mine from now"}`},
		{"PUT", "/Users/" + guid + "/password", `{"password":"mine from now"}`},
		{"PUT", "/Users/" + dbaGUID + "/password", `{"password":"mine from now"}`},
		{"PUT", "/Users/" + adminGUID, `{"userName":"mine"}`},
		{"PATCH", "/Users/" + adminGUID, `{"active":false}`},
		{"DELETE", "/Users/" + adminGUID, ""},
		{"POST", "/oauth/clients", client(`"authorities":["cloud_controller.admin"]`)},
		{"POST", "/oauth/clients", client(`"authorities":["scim.write"]`)},
		{"POST", "/oauth/clients", `{"client_id":"` + labelled +
			`","client_secret":"its-secret","authorized_grant_types":["client_credentials"]}`},
		{"PUT", "/oauth/clients/" + deputy + "/secret", `{"secret":"mine from now"}`},
		{"PUT", "/oauth/clients/" + deputy, `{"authorities":[]}`},
		{"DELETE", "/oauth/clients/" + deputy, ""},
	} {
		f.as(t, token, call[0], call[1], call[2], "If-Match: *").want(t, 403, "insufficient_scope")
	}
	// Nor does being an admin without it.
	only, _ := f.holder(t, account.ScopeAdmin)
	f.as(t, only, "POST", "/Users", `{"userName":"x"}`).want(t, 403, "insufficient_scope")
	f.as(t, only, "GET", "/Users", "").want(t, 403, "insufficient_scope")

	// What it is for.
	u := f.as(t, token, "POST", "/Users", `{"userName":"`+unique("new")+`"}`).want(t, 201, "").user(t)
	f.as(t, token, "PUT", "/Users/"+u.ID+"/password", `{"password":"a password"}`).want(t, 200, "")
	f.as(t, token, "DELETE", "/Groups/"+f.group(t, account.ScopeWrite)+"/members/"+u.ID, "").want(t, 200, "")
	f.as(t, token, "POST", "/Groups/"+f.group(t, account.ScopeWrite)+"/members", `{"value":"`+u.ID+`"}`).want(t, 201, "")
	f.as(t, token, "DELETE", "/Users/"+u.ID, "").want(t, 200, "")
	id := unique("plain")
	f.as(t, token, "POST", "/oauth/clients", `{"client_id":"`+id+`","client_secret":"its-secret",`+
		`"authorized_grant_types":["client_credentials"],`+
		`"authorities":["cloud_controller.read"]}`).want(t, 201, "")
	f.as(t, token, "PUT", "/oauth/clients/"+id, `{"authorities":["cloud_controller.admin"]}`).want(t, 403, "insufficient_scope")
	f.as(t, token, "PUT", "/oauth/clients/"+id, `{"scope":["scim.write"]}`).want(t, 403, "insufficient_scope")
}

// A token that was narrowed may do what it carries, not what its account may.
func TestNarrowedTokens(t *testing.T) {
	f := newFixture(t)
	tok := f.token(t, cf, "grant_type", "password", "username", "root", "password", "root-password", "scope",
		"scim.read scim.write").token(t)
	f.as(t, tok.AccessToken, "GET", "/Users?count=1", "").want(t, 200, "")
	u := f.person(t, unique("narrow"))
	f.as(t, tok.AccessToken, "POST", "/Groups/"+f.group(t, account.ScopeAdmin)+"/members", `{"value":"`+u.ID+`"}`).want(t, 403,
		"insufficient_scope")
}
