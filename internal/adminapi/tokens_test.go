package adminapi_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/cfapi"
	"rolecall/internal/dbaas"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/uaa"
	"rolecall/internal/vaultapi"
	"rolecall/internal/web"
)

// tokenResource is a personal access token as a client reads it.
type tokenResource struct {
	ID, Name, Secret      string
	ReadOnly              bool
	Clusters              []string
	ExpiresAt, LastUsedAt *string
}

// token makes a token as an account.
func (f *fixture) token(t testing.TB, username, body string) (made tokenResource) {
	t.Helper()
	a := f.as(t, username, "POST", "/tokens", body)
	if a.Status != 201 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	a.Into(t, &made)
	return made
}

// with sends a request with a token.
func (f *fixture) with(t testing.TB, token tokenResource, method, path, body string, headers ...string) answer {
	t.Helper()
	return f.as(t, "", method, path, body, append(headers, "Authorization: Bearer "+token.Secret)...)
}

// platform is all dialects that a token is taken by, each held against its document.
type platform map[string]*apitest.Client

func (f *fixture) platform(t testing.TB) platform {
	log := slog.New(slog.NewTextHandler(f.Log, nil))
	entrance := f.Door(10_000)
	p := platform{}
	for document, h := range map[string]http.Handler{
		"dbaas.yaml":    (&dbaas.API{Users: f.Users, PublicURL: servicetest.PublicURL, Door: entrance}).Handler(),
		"platform.yaml": (&cfapi.API{Accounts: f.Accounts, PublicURL: servicetest.PublicURL, Door: entrance}).Handler(),
		"uaa.yaml": (&uaa.API{Accounts: f.Accounts, Identity: f.Identity, PublicURL: servicetest.PublicURL, Door: entrance}).
			Handler(),
		"vault.yaml": (&vaultapi.API{Users: f.Users, Identity: f.Identity, Door: entrance}).Handler(),
	} {
		p[document] = apitest.Load(t, document).Serve(t, &web.Edge{Handler: h, Log: log})
	}
	return p
}

// expect sends a request with a token and fails the test unless the answer has the status.
func (p platform) expect(t testing.TB, status int, token tokenResource, document, method, path, body string) apitest.Answer {
	t.Helper()
	a := p[document].Send(t, method, path, body, "Authorization: Bearer "+token.Secret)
	if a.Status != status {
		t.Errorf("%s: %s %s: got %d, want %d: %s", token.Name, method, path, a.Status, status, a.Body)
	}
	return a
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	f.Account(t, "anna", account.DefaultScopes, map[string]string{"team": "a"})
	f.Access(t, f.ClusterID, []string{"team=a"}, nil)
	plain := f.token(t, "anna", `{"name":"plain"}`)
	full := f.token(t, "anna", fmt.Sprintf(`{"name":"full","readOnly":true,"clusters":[%q,%[1]q],`+
		`"expiresAt":"2099-01-01T00:00:00+01:00"}`, f.ClusterID))
	if !regexp.MustCompile(`^rolecall_pat_[0-9a-f]{32}_[0-9a-f]{40}$`).MatchString(plain.Secret) || plain.ReadOnly ||
		plain.Clusters != nil || plain.ExpiresAt != nil {
		t.Errorf("got %+v", plain)
	}
	if !full.ReadOnly || !slices.Equal(full.Clusters, []string{f.ClusterID}) || *full.ExpiresAt != "2098-12-31T23:00:00Z" {
		t.Errorf("got %+v", full)
	}

	// The list has no secrets, is the account's own, and is cut into pages.
	var l struct {
		Items []tokenResource
		Next  *string
	}
	f.as(t, "anna", "GET", "/tokens?limit=1", "").Into(t, &l)
	if len(l.Items) != 1 || l.Items[0].Name != "full" || l.Items[0].Secret != "" || l.Next == nil {
		t.Fatalf("got %+v", l)
	}
	f.as(t, "anna", "GET", "/tokens?limit=1&cursor="+*l.Next, "").Into(t, &l)
	if len(l.Items) != 1 || l.Items[0].Name != "plain" || l.Next != nil {
		t.Fatalf("got %+v", l)
	}
	if f.want(t, 200, "GET", "/tokens", "").Into(t, &l); len(l.Items) != 0 {
		t.Errorf("root has %+v", l)
	}

	for body, status := range map[string]int{
		`{"name":"plain"}`: 409, `{"name":""}`: 422, `{"name":"a\nb"}`: 422, `{"name":"` + strings.Repeat("é", 101) + `"}`: 422,
		`{}`:                           422,
		`{"name":"x","readOnly":null}`: 422, `{"name":"x","clusters":[]}`: 422,
		`{"name":"x","clusters":["` + plain.ID + `"]}`:  422,
		`{"name":"x","clusters":"` + f.ClusterID + `"}`: 422, `{"name":"x","expiresAt":"2020-01-01T00:00:00Z"}`: 422,
		`{"name":"x","expiresAt":"soon"}`:                   422,
		`{"name":"x","expiresAt":"2099-01-01T00:00:00,5Z"}`: 422, `{"name":"x","expiresAt":1}`: 422,
		`{"name":"x","scopes":[]}`: 422, `[]`: 422, `{`: 400,
	} {
		if a := f.as(t, "anna", "POST", "/tokens", body); a.Status != status {
			t.Errorf("%s: got %d %s, want %d", body, a.Status, a.Body, status)
		}
	}
	if a := f.token(t, "anna", `{"name":"nothing","clusters":null,"expiresAt":null}`); a.Clusters != nil || a.ExpiresAt != nil {
		t.Errorf("got %+v", a)
	}

	// A token makes no tokens, and revokes none but itself, which even one that changes nothing may.
	f.with(t, plain, "POST", "/tokens", `{"name":"more"}`).refused(t, 403, "may not create tokens")
	f.with(t, plain, "DELETE", "/tokens/"+full.ID, "").refused(t, 403)
	if a := f.with(t, full, "DELETE", "/tokens/"+full.ID, ""); a.Status != 204 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	f.do(t, "DELETE", "/tokens/"+plain.ID, "").refused(t, 404)
	f.as(t, "anna", "DELETE", "/tokens/"+full.ID, "").refused(t, 404)
	f.as(t, "anna", "DELETE", "/tokens/none", "").refused(t, 404)
	if a := f.as(t, "anna", "DELETE", "/tokens/"+plain.ID, ""); a.Status != 204 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	var recorded []string
	for _, id := range []string{"", plain.ID, full.ID} {
		for _, row := range f.AuditRows(t, id) {
			if strings.HasPrefix(row.Action, "token.") {
				recorded = append(recorded, row.Action+" "+row.Outcome)
			}
		}
	}
	want := []string{"token.create denied", "token.create done", "token.revoke done", "token.create done",
		"token.revoke denied", "token.revoke done"}
	if !slices.Equal(recorded, want) {
		t.Errorf("recorded %q", recorded)
	}
}

// A read-only token changes nothing in any dialect, though its account is an admin.
func TestReadOnlyToken(t *testing.T) {
	f := newFixture(t)
	f.Account(t, "anna", account.DefaultScopes, map[string]string{"team": "a"})
	guid, err := f.Identity.GUID(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	f.Account(t, "writer", []string{account.ScopeWrite}, map[string]string{"team": "a"})
	f.Access(t, f.ClusterID, []string{"team=a"}, nil)
	p := f.platform(t)
	users := "/databases/postgresql/clusters/" + f.ClusterID + "/users"
	root := f.token(t, "root", `{"name":"of root"}`)
	p.expect(t, 200, root, "dbaas.yaml", "POST", users, `{"properties":{"username":"tok_ro","password":"1234567890"}}`)
	for _, name := range []string{"root", "anna"} {
		ro := f.token(t, name, `{"name":"read-only of `+name+`","readOnly":true}`)
		p.expect(t, 200, ro, "dbaas.yaml", "GET", users+"/tok_ro", "")
		p.expect(t, 403, ro, "dbaas.yaml", "POST", users, `{"properties":{"username":"tok_x","password":"1234567890"}}`)
		p.expect(t, 403, ro, "dbaas.yaml", "PATCH", users+"/tok_ro", `{"properties":{"password":"0987654321"}}`)
		p.expect(t, 403, ro, "dbaas.yaml", "PATCH", users+"/tok_ro", `{"properties":{}}`)
		p.expect(t, 403, ro, "dbaas.yaml", "DELETE", users+"/tok_ro?onBlocked=disable", "")
		p.expect(t, 403, ro, "dbaas.yaml", "POST", "/databases/postgresql/clusters/"+f.ClusterID+"/databases",
			`{"properties":{"name":"tok_x","owner":"tok_ro"}}`)
		p.expect(t, 200, ro, "platform.yaml", "GET", "/v3/users", "")
		p.expect(t, 403, ro, "platform.yaml", "POST", "/v3/users", `{"guid":"tok"}`)
		p.expect(t, 403, ro, "platform.yaml", "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"team":"b"}}}`)
		p.expect(t, 403, ro, "platform.yaml", "DELETE", "/v3/users/"+guid, "")
		p.expect(t, 403, ro, "uaa.yaml", "POST", "/uaa/Users", `{"userName":"x","password":"y","emails":[{"value":"z"}]}`)
		p.expect(t, 403, ro, "uaa.yaml", "PUT", "/uaa/Users/"+guid+"/password", `{"oldPassword":"root-password","password":"y"}`)
		for _, change := range [][3]string{
			{"POST", "/clusters", `{}`}, {"PATCH", "/clusters/" + f.ClusterID, `{}`}, {"DELETE", "/clusters/" + f.ClusterID},
			{"POST", "/clusters/" + f.ClusterID + "/probe"},
			{"POST", "/clusters/" + f.ClusterID + "/rotate-credential"},
			{"PATCH", "/clusters/" + f.ClusterID + "/users/tok_ro", `{"endSessions":true}`},
			{"PUT", "/clusters/" + f.ClusterID + "/users/tok_ro/roles", `{"roles":[]}`},
			{"PUT", "/clusters/" + f.ClusterID + "/users/tok_ro/roles/r"},
			{"DELETE", "/clusters/" + f.ClusterID + "/users/tok_ro/roles/r"},
			{"GET", "/clusters/" + f.ClusterID + "/users/tok_ro/deletion-plan"},
			{"GET", "/clusters/" + f.ClusterID + "/pgbouncer/userlist"}, {"POST", "/tokens", `{"name":"x"}`},
		} {
			if a := f.with(t, ro, change[0], change[1], change[2]); a.Status != 403 && (a.Status != 422 || change[2] != "{}") {
				t.Errorf("%s: %s %s: got %d %s", name, change[0], change[1], a.Status, a.Body)
			}
		}
		if a := f.with(t, ro, "GET", "/clusters/"+f.ClusterID+"/users/tok_ro", ""); a.Status != 200 {
			t.Errorf("got %d %s", a.Status, a.Body)
		}
	}

	// Who may write may read, and so does a token that lost the writing.
	p.expect(t, 200, f.token(t, "writer", `{"name":"read-only of writer","readOnly":true}`), "dbaas.yaml", "GET",
		users+"/tok_ro", "")

	// What signs in is changed by no token at all; the rest is, and its id is on record.
	p.expect(t, 403, root, "uaa.yaml", "POST", "/uaa/Users", `{"userName":"x","password":"y","emails":[{"value":"z"}]}`)
	p.expect(t, 403, root, "uaa.yaml", "PUT", "/uaa/Users/"+guid+"/password", `{"oldPassword":"root-password","password":"y"}`)
	p.expect(t, 403, root, "platform.yaml", "PATCH", "/v3/users/"+guid, `{"username":"x","origin":"uaa"}`)
	p.expect(t, 200, root, "platform.yaml", "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"team":"b"}}}`)
	for _, target := range []string{"tok_ro", guid} {
		rows := f.AuditRows(t, target)
		if !slices.ContainsFunc(rows, func(row servicetest.AuditRow) bool {
			return row.Outcome == "done" && strings.Contains(row.Detail, root.ID)
		}) {
			t.Errorf("recorded %+v, without the token", rows)
		}
	}
}

// A token for one cluster does not reach another, nor what is beyond all of them.
func TestClusterToken(t *testing.T) {
	f := newFixture(t)
	other := f.Register(t, "other", f.PG, f.PG.User, f.PG.Password)
	guid := f.Account(t, "anna", account.DefaultScopes, map[string]string{"team": "a"})
	for _, id := range []string{f.ClusterID, other} {
		f.Access(t, id, []string{"team=a"}, nil)
	}
	p := f.platform(t)
	for _, name := range []string{"root", "anna"} {
		one := f.token(t, name, fmt.Sprintf(`{"name":"one","clusters":[%q]}`, f.ClusterID))
		here, there := "/databases/postgresql/clusters/"+f.ClusterID, "/databases/postgresql/clusters/"+other
		body := `{"properties":{"username":"tok_one_` + name + `","password":"1234567890"}}`
		p.expect(t, 404, one, "dbaas.yaml", "GET", there, "")
		p.expect(t, 404, one, "dbaas.yaml", "GET", there+"/users", "")
		p.expect(t, 404, one, "dbaas.yaml", "POST", there+"/users", body)
		p.expect(t, 200, one, "dbaas.yaml", "POST", here+"/users", body)
		p.expect(t, 204, one, "dbaas.yaml", "DELETE", here+"/users/tok_one_"+name, "")
		if a := p.expect(t, 200, one, "dbaas.yaml", "GET", "/databases/postgresql/clusters", ""); strings.Contains(a.Body,
			other) || !strings.Contains(a.Body, f.ClusterID) {
			t.Errorf("%s: the list is %s", name, a.Body)
		}
		for _, path := range []string{"", "/users/postgres", "/users/postgres/deletion-plan", "/pgbouncer/userlist"} {
			f.with(t, one, "GET", "/clusters/"+other+path, "").refused(t, 404)
		}
		if a := f.with(t, one, "GET", "/whoami", ""); strings.Contains(a.Body, other) || !strings.Contains(a.Body, f.ClusterID) {
			t.Errorf("%s: whoami is %s", name, a.Body)
		}
		// Registrations, labels and accounts are beyond any cluster.
		f.with(t, one, "DELETE", "/clusters/"+other, "").refused(t, 404)
		f.with(t, one, "PATCH", "/clusters/"+f.ClusterID, `{"access":{"manage":[]}}`).refused(t, 403)
		f.with(t, one, "POST", "/clusters/"+f.ClusterID+"/rotate-credential", "").refused(t, 403)
		f.with(t, one, "DELETE", "/clusters/"+f.ClusterID, "").refused(t, 403)
		f.with(t, one, "POST", "/clusters", registration("x", f.PG, f.PG.User, "")).refused(t, 403)
		if a := p["platform.yaml"].Send(t, "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"team":"b"}}}`,
			"Authorization: Bearer "+one.Secret); a.Status != 403 && a.Status != 404 {
			t.Errorf("%s: got %d %s", name, a.Status, a.Body)
		}
		f.with(t, one, "GET", "/clusters/"+f.ClusterID+"/pgbouncer/userlist", "").refused(t, 403, "limited to clusters")
		if name == "anna" {
			// A cluster that the account may not view any more is no more the token's.
			f.Access(t, f.ClusterID, nil, nil)
			p.expect(t, 404, one, "dbaas.yaml", "GET", here, "")
		}
	}
	// What the caller may not view cannot be in a token.
	f.as(t, "anna", "POST", "/tokens", fmt.Sprintf(`{"name":"x","clusters":[%q]}`, f.ClusterID)).refused(t, 422, f.ClusterID)
}

// A token is nowhere in clear but in the answer that makes it.
func TestTokenLeaksNowhere(t *testing.T) {
	f := fixtureOn(t, servicetest.New(t, pgtest.Shared(t)), 10_000)
	f.PG.LogStatements(t)
	f.Admin(t, "root")
	made := f.token(t, "root", `{"name":"secret"}`)
	secret := made.Secret[strings.LastIndex(made.Secret, "_")+1:]
	var answers strings.Builder
	for _, request := range [][2]string{{"GET", "/tokens"}, {"GET", "/whoami"}, {"PUT", "/nothing"}, {"POST", "/tokens"},
		{"DELETE", "/tokens/" + made.ID}} {
		a := f.with(t, made, request[0], request[1], "")
		fmt.Fprintln(&answers, a.Status, a.Header, a.Body)
	}
	ctx := t.Context()
	var dump []string
	rows, err := f.DB.Pool.Query(ctx, `SELECT to_jsonb(t)::text FROM personal_tokens t UNION ALL SELECT to_jsonb(a)::text `+
		`FROM audit a`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		dump = append(dump, row)
	}
	if rows.Err() != nil || len(dump) < 2 {
		t.Fatalf("%d rows, %v", len(dump), rows.Err())
	}
	for place, text := range map[string]string{
		"the answers": answers.String(), "the log": f.Log.String(), "the log of PostgreSQL": f.PG.ReadLog(t),
		"the control database": strings.Join(dump, "\n"),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("the token is in %s", place)
		}
	}
}

// The time of the last use shows in the list.
func TestTokenLastUsed(t *testing.T) {
	f := newFixture(t)
	made := f.token(t, "root", `{"name":"used"}`)
	if a := f.with(t, made, "GET", "/whoami", ""); a.Status != 200 {
		t.Fatal(a.Body)
	}
	_, err := f.DB.Pool.Exec(t.Context(), `UPDATE personal_tokens SET last_used_at = '2026-03-02T09:41:07.120944Z'`)
	if err != nil {
		t.Fatal(err)
	}
	var l struct {
		Items []struct{ LastUsedAt time.Time }
	}
	if err := json.Unmarshal([]byte(f.with(t, made, "GET", "/tokens", "").Body), &l); err != nil || len(l.Items) != 1 ||
		l.Items[0].LastUsedAt.Year() != 2026 {
		t.Errorf("got %+v, %v", l, err)
	}
}
