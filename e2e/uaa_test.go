package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	uaa "github.com/cloudfoundry-community/go-uaa"
	"golang.org/x/oauth2"
)

// matching adds to changes the If-Match that the UAA asks for, and that go-uaa does not send.
type matching struct{ http.RoundTripper }

func (m *matching) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		r = r.Clone(r.Context())
		r.Header.Set("If-Match", "*")
	}
	return m.RoundTripper.RoundTrip(r)
}

func newUAA(t *testing.T, how uaa.AuthenticationOption) *uaa.API {
	t.Helper()
	api, err := uaa.New(shared.env["CF_API_URL"]+"/uaa", how,
		uaa.WithClient(&http.Client{Transport: &matching{http.DefaultTransport}}))
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func adminUAA(t *testing.T) *uaa.API {
	t.Helper()
	return newUAA(t, uaa.WithPasswordCredentials("cf", "", shared.env["CF_USERNAME"], shared.env["CF_PASSWORD"],
		uaa.JSONWebToken))
}

// says fails t unless err is an answer of the server's with this word.
func says(t *testing.T, what string, err error, word string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), word) {
		t.Errorf("%s: %v, want %s", what, err, word)
	}
}

func TestUAAUsers(t *testing.T) {
	t.Parallel()
	api := adminUAA(t)
	primary := true
	u, err := api.CreateUser(uaa.User{
		Username: "Go-UAA", Password: "first password", Origin: "uaa",
		Name: &uaa.UserName{GivenName: "Go", FamilyName: "UAA"}, Emails: []uaa.Email{{Value: "go@example.org", Primary: &primary}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if u.ID == "" || u.Username != "Go-UAA" || u.Origin != "uaa" || u.Name.GivenName != "Go" || u.Name.FamilyName != "UAA" ||
		len(u.Emails) != 1 ||
		u.Emails[0].Value != "go@example.org" || !*u.Active || !*u.Verified || u.Password != "" || u.ZoneID != "uaa" ||
		u.Meta.Created == "" || len(u.Groups) == 0 {
		t.Errorf("created %+v", u)
	}
	_, err = api.CreateUser(uaa.User{Username: "go-uaa", Password: "a password", Origin: "uaa"})
	says(t, "create again", err, "scim_resource_already_exists")
	_, err = api.CreateUser(uaa.User{Username: "no:colon", Password: "a password", Origin: "uaa"})
	says(t, "a bad name", err, "invalid_scim_resource")

	got, err := api.GetUser(u.ID)
	if err != nil || got.Username != "Go-UAA" || got.Meta.Version != u.Meta.Version {
		t.Errorf("get: %+v, %v", got, err)
	}
	if got, err = api.GetUserByUsername("GO-uaa", "uaa", ""); err != nil || got.ID != u.ID {
		t.Errorf("get by name: %v", err)
	}
	if got, err = api.GetUserByUsername("go-uaa", "", ""); err != nil || got.ID != u.ID {
		t.Errorf("get by name alone: %v", err)
	}
	_, err = api.GetUserByUsername("go-uaa", "ldap", "")
	says(t, "get by name of another origin", err, "not found")
	_, err = api.GetUser("nobody")
	says(t, "get nobody", err, "scim_resource_not_found")

	u.Name.FamilyName = "Changed"
	updated, err := api.UpdateUser(*u)
	if err != nil || updated.Name.FamilyName != "Changed" || updated.Name.GivenName != "Go" ||
		updated.Meta.Version <= u.Meta.Version {
		t.Fatalf("update: %+v, %v", updated, err)
	}
	says(t, "deactivate an old version", api.DeactivateUser(u.ID, u.Meta.Version), "scim_resource_conflict")
	if err := api.DeactivateUser(u.ID, updated.Meta.Version); err != nil {
		t.Fatal(err)
	}
	signIn := func(password string) error {
		self := newUAA(t, uaa.WithPasswordCredentials("cf", "", "go-uaa", password, uaa.JSONWebToken))
		_, err := self.Token(t.Context())
		return err
	}
	says(t, "sign in while deactivated", signIn("first password"), "unauthorized")
	if got, err = api.GetUser(u.ID); err != nil || *got.Active {
		t.Errorf("deactivated: %+v, %v", got, err)
	}
	// An update that says nothing of it does not bring the user back.
	got.Active = nil
	if got, err = api.UpdateUser(*got); err != nil || *got.Active {
		t.Errorf("updated while deactivated: %+v, %v", got, err)
	}
	if err := api.ActivateUser(u.ID, got.Meta.Version); err != nil {
		t.Fatal(err)
	}
	if err := signIn("first password"); err != nil {
		t.Errorf("sign in when activated again: %v", err)
	}

	deleted, err := api.DeleteUser(u.ID)
	if err != nil || deleted.ID != u.ID || deleted.Username != "Go-UAA" {
		t.Fatalf("delete: %+v, %v", deleted, err)
	}
	_, err = api.DeleteUser(u.ID)
	says(t, "delete again", err, "scim_resource_not_found")
	says(t, "sign in when deleted", signIn("first password"), "unauthorized")
}

func TestUAAUserList(t *testing.T) {
	t.Parallel()
	api := adminUAA(t)
	var clauses []string
	var ids []string
	for i := range 5 {
		name := fmt.Sprintf("go uaa \"%d\" \\ é", i)
		u, err := api.CreateUser(uaa.User{Username: name, Origin: "ldap"})
		if err != nil {
			t.Fatal(err)
		}
		discard(t, "/uaa/Users/"+u.ID)
		ids = append(ids, u.ID)
		clauses = append(clauses, fmt.Sprintf("userName eq %q", name))
	}
	filter := `origin eq "ldap" and (` + strings.Join(clauses, " or ") + `)`
	var seen []string
	for start, pages := 1, 0; ; pages++ {
		users, page, err := api.ListUsers(filter, "", "", "", start, 2)
		if err != nil || page.StartIndex != start || page.TotalResults != 5 || page.ItemsPerPage != 2 || pages > 2 {
			t.Fatalf("page %d: %+v, %v", pages, page, err)
		}
		for _, u := range users {
			seen = append(seen, u.ID)
		}
		if start += page.ItemsPerPage; start > page.TotalResults {
			break
		}
	}
	if !slices.Equal(seen, ids) {
		t.Errorf("the pages have %v, want %v", seen, ids)
	}
	if users, err := api.ListAllUsers(filter, "userName", "", uaa.SortAscending); err != nil || len(users) != 5 {
		t.Errorf("all: %v, %v", users, err)
	}
	if users, err := api.ListAllUsers(`id eq "`+ids[3]+`"`, "", "", ""); err != nil || len(users) != 1 ||
		users[0].ID != ids[3] {
		t.Errorf("by id: %v, %v", users, err)
	}
	if users, err := api.ListAllUsers("", "", "", ""); err != nil || len(users) < 6 {
		t.Errorf("everybody: %d, %v", len(users), err)
	}
	_, err := api.ListAllUsers(`userName co "x"`, "", "", "")
	says(t, "a filter that is not offered", err, "Invalid filter")
}

func TestUAAGroups(t *testing.T) {
	t.Parallel()
	api := adminUAA(t)
	guid := person(t, "go-uaa-member", "a password")
	all, err := api.ListAllGroups("", "", "", "")
	if err != nil || !slices.ContainsFunc(all, func(g uaa.Group) bool { return g.DisplayName == "cloud_controller.admin" }) {
		t.Fatalf("groups: %+v, %v", all, err)
	}
	auditors, err := api.GetGroupByName("cloud_controller.global_auditor", "")
	if err != nil || auditors.ID == "" || auditors.Description == "" {
		t.Fatalf("group: %+v, %v", auditors, err)
	}
	_, err = api.GetGroupByName("no such group", "")
	says(t, "an unknown group", err, "not found")
	member := func() bool {
		g, err := api.GetGroup(auditors.ID)
		if err != nil || g.DisplayName != "cloud_controller.global_auditor" {
			t.Errorf("group: %+v, %v", g, err)
		}
		return err == nil && slices.Contains(g.Members, uaa.GroupMember{Origin: "uaa", Type: "USER", Value: guid})
	}
	if member() {
		t.Error("a member before it was added")
	}
	if err := api.AddGroupMember(auditors.ID, guid, "", ""); err != nil || !member() {
		t.Errorf("add: %v, member %t", err, member())
	}
	says(t, "add again", api.AddGroupMember(auditors.ID, guid, "USER", "uaa"), "member_already_exists")
	if u, err := api.GetUser(guid); err != nil || !slices.ContainsFunc(u.Groups,
		func(g uaa.UserGroup) bool { return g.Value == auditors.ID && g.Display == auditors.DisplayName }) {
		t.Errorf("the user's groups: %+v, %v", u, err)
	}
	// The group is a scope: it lets its members see everybody.
	access, _ := token(t, "go-uaa-member", "a password")
	bearer := map[string]string{"Authorization": "Bearer " + access}
	if r := send(t, "GET", "/v3/users?usernames=admin", bearer, ""); r.status != 200 ||
		!strings.Contains(r.body, `"username":"admin"`) {
		t.Errorf("an auditor lists users: %d %s", r.status, r.body)
	}
	if err := api.RemoveGroupMember(auditors.ID, guid, "", ""); err != nil || member() {
		t.Errorf("remove: %v, member %t", err, member())
	}
	// uaac puts the whole group back.
	readers, err := api.GetGroupByName("cloud_controller.admin_read_only", "members,id,meta,displayName")
	if err != nil {
		t.Fatal(err)
	}
	readers.Members = append(readers.Members, uaa.GroupMember{Type: "USER", Value: guid})
	if g, err := api.UpdateGroup(*readers); err != nil || !slices.Contains(g.Members,
		uaa.GroupMember{Origin: "uaa", Type: "USER", Value: guid}) {
		t.Errorf("update: %+v, %v", g, err)
	}
	readers.Members = slices.DeleteFunc(readers.Members, func(m uaa.GroupMember) bool { return m.Value == guid })
	if g, err := api.UpdateGroup(*readers); err != nil || len(g.Members) != len(readers.Members) {
		t.Errorf("update back: %+v, %v", g, err)
	}
	if mappings, _, err := api.ListGroupMappings("", 1, 100); err != nil || len(mappings) != 0 {
		t.Errorf("mappings: %+v, %v", mappings, err)
	}
	if me, err := api.GetMe(); err != nil || me.Username != "admin" || me.UserID == "" || me.Sub != me.UserID {
		t.Errorf("me: %+v, %v", me, err)
	}
	says(t, "remove again", api.RemoveGroupMember(auditors.ID, guid, "", ""), "scim_resource_not_found")
	says(t, "add nobody", api.AddGroupMember(auditors.ID, "nobody", "", ""), "scim_resource_not_found")
}

func TestUAAClients(t *testing.T) {
	t.Parallel()
	api := adminUAA(t)
	wanted := uaa.Client{
		ClientID: "go-uaa", ClientSecret: "first + secret %41", AuthorizedGrantTypes: []string{"client_credentials"},
		Authorities: []string{"scim.read"}, Scope: []string{"uaa.none"}, DisplayName: "Go UAA", AccessTokenValidity: 60,
	}
	made, err := api.CreateClient(wanted)
	if err != nil || made.ClientID != "go-uaa" || made.ClientSecret != "" || made.DisplayName != "Go UAA" ||
		made.AccessTokenValidity != 60 ||
		!slices.Equal(made.Authorities, wanted.Authorities) ||
		!slices.Equal(made.AuthorizedGrantTypes, wanted.AuthorizedGrantTypes) || made.LastModified == 0 {
		t.Fatalf("create: %+v, %v", made, err)
	}
	_, err = api.CreateClient(wanted)
	says(t, "create again", err, "invalid_client")
	_, err = api.CreateClient(uaa.Client{ClientID: "go-uaa-bad", ClientSecret: "its-secret",
		AuthorizedGrantTypes: []string{"implicit"}})
	says(t, "a grant that is not offered", err, "invalid_client")
	_, err = api.GetClient("nobody")
	says(t, "get nobody", err, "not_found")
	if got, err := api.GetClient("go-uaa"); err != nil || !slices.Equal(got.Authorities, wanted.Authorities) ||
		len(got.AutoApprove()) != 0 {
		t.Errorf("get: %+v, %v", got, err)
	}
	if list, err := api.ListAllClients(`client_id eq "go-uaa"`, "", ""); err != nil || len(list) != 1 ||
		list[0].ClientID != "go-uaa" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if list, page, err := api.ListClients("", "client_id", uaa.SortAscending, 1, 1); err != nil || len(list) != 1 ||
		page.TotalResults < 1 || page.ItemsPerPage != 1 {
		t.Errorf("a page: %+v, %+v, %v", list, page, err)
	}

	as := func(secret string) (*uaa.API, error) {
		self := newUAA(t, uaa.WithClientCredentials("go-uaa", secret, uaa.JSONWebToken))
		_, err := self.Token(t.Context())
		return self, err
	}
	self, err := as("first + secret %41")
	if err != nil {
		t.Fatalf("sign in: %v", err)
	}
	if u, err := self.GetUserByUsername("admin", "uaa", ""); err != nil || u.Username != "admin" {
		t.Errorf("scim.read: %v", err)
	}
	if tok, err := self.Token(t.Context()); err != nil || time.Until(tok.Expiry) > time.Minute {
		t.Errorf("the token of a client with a validity of 60 s expires at %v, %v", tok.Expiry, err)
	}
	_, err = self.CreateUser(uaa.User{Username: "go-uaa-not", Password: "a password"})
	says(t, "write with scim.read", err, "insufficient_scope")
	says(t, "change one's own secret with nothing but a token", self.ChangeClientSecret("go-uaa", "stolen secret"),
		"insufficient_scope")

	if err := api.ChangeClientSecret("go-uaa", "second secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := as("first + secret %41"); err == nil {
		t.Error("the old secret still works")
	}
	if _, err := as("second secret"); err != nil {
		t.Errorf("the new secret: %v", err)
	}
	made.Authorities = []string{"scim.read", "cloud_controller.read"}
	if got, err := api.UpdateClient(*made); err != nil || len(got.Authorities) != 2 {
		t.Errorf("update: %+v, %v", got, err)
	}
	if got, err := api.DeleteClient("go-uaa"); err != nil || got.ClientID != "go-uaa" {
		t.Errorf("delete: %+v, %v", got, err)
	}
	_, err = api.DeleteClient("go-uaa")
	says(t, "delete again", err, "not_found")
	if _, err := as("second secret"); err == nil {
		t.Error("a deleted client signs in")
	}
}

func TestUAATokens(t *testing.T) {
	t.Parallel()
	nobody := newUAA(t, uaa.WithNoAuthentication())
	if issuer, err := nobody.Issuer(); err != nil || issuer != shared.env["CF_API_URL"]+"/uaa/oauth/token" {
		t.Errorf("issuer: %q, %v", issuer, err)
	}
	if info, err := nobody.GetInfo(); err != nil || info.App.Version == "" || len(info.Prompts["username"]) != 2 ||
		len(info.Prompts["password"]) != 2 ||
		info.Links.Uaa != shared.env["CF_API_URL"]+"/uaa" || info.Links.Login == "" {
		t.Errorf("info: %+v, %v", info, err)
	}
	keys, err := nobody.TokenKeys()
	if err != nil || len(keys) == 0 || keys[0].Alg != "RS256" || keys[0].Kty != "RSA" || keys[0].Use != "sig" ||
		keys[0].Kid == "" ||
		!strings.Contains(keys[0].Value, "BEGIN PUBLIC KEY") || keys[0].N == "" || keys[0].E != "AQAB" {
		t.Errorf("keys: %+v, %v", keys, err)
	}
	if key, err := nobody.TokenKey(); err != nil || *key != keys[0] {
		t.Errorf("key: %+v, %v", key, err)
	}
	_, err = nobody.ListAllUsers("", "", "", "")
	says(t, "list without a token", err, "unauthorized")

	first, err := adminUAA(t).Token(t.Context())
	if err != nil || first.TokenType != "bearer" || first.RefreshToken == "" {
		t.Fatalf("password: %v", err)
	}
	refreshed := newUAA(t, uaa.WithRefreshToken("cf", "", first.RefreshToken, uaa.JSONWebToken))
	if u, err := refreshed.GetUserByUsername("admin", "uaa", ""); err != nil || u.Username != "admin" {
		t.Errorf("refreshed: %v", err)
	}
	given := newUAA(t, uaa.WithToken(&oauth2.Token{AccessToken: first.AccessToken, TokenType: "bearer"}))
	if u, err := given.GetUserByUsername("admin", "uaa", ""); err != nil || u.Username != "admin" {
		t.Errorf("with a token: %v", err)
	}
	_, err = uaa.New(shared.env["CF_API_URL"]+"/uaa", uaa.WithRefreshToken("cf", "", "nonsense", uaa.JSONWebToken))
	says(t, "a wrong refresh token", err, "invalid_grant")
	_, err = newUAA(t, uaa.WithPasswordCredentials("cf", "", "admin", "wrong", uaa.JSONWebToken)).Token(t.Context())
	says(t, "a wrong password", err, "unauthorized")
}
