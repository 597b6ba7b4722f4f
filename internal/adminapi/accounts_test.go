package adminapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/servicetest"
)

// accountResource is an account as a client reads it.
type accountResource struct {
	GUID, PresentationName, Password  string
	Username, Origin                  *string
	Active, OAuthClient               bool
	Scopes                            []string
	Labels, Annotations, LabelSources map[string]string
	CreatedAt, UpdatedAt              time.Time
	LastSignInAt                      *time.Time
}

// admin sends a request to another API as root.
func (f *fixture) admin(t testing.TB, p platform, document, method, path, body string, headers ...string) answer {
	t.Helper()
	token, err := f.Identity.MintFor(t.Context(), "root", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return answer{p[document].Send(t, method, path, body, append(headers, "Authorization: Bearer "+token)...)}
}

// One request creates, changes and deletes an account with everything that the other APIs show of it.
func TestAccountLife(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	others := f.platform(t)
	a := f.want(t, 201, "POST", "/accounts",
		`{"username":"life","labels":{"team":"a","gone":null},"annotations":{"note":"x `+
			`y"},"scopes":["scim.read","cloud_controller.read"]}`)
	var made accountResource
	a.Into(t, &made)
	if a.Header.Get("Location") != servicetest.PublicURL+"/rolecall/v1/accounts/"+made.GUID || a.Header.Get("ETag") == "" ||
		len(made.Password) < 20 {
		t.Fatalf("got %s %s", a.Header, a.Body)
	}
	if *made.Username != "life" || *made.Origin != "uaa" || made.PresentationName != "life" || !made.Active ||
		made.OAuthClient ||
		!slices.Equal(made.Scopes, []string{"cloud_controller.read", "scim.read"}) ||
		!maps.Equal(made.Labels, map[string]string{"team": "a"}) ||
		!maps.Equal(made.Annotations, map[string]string{"note": "x y"}) || made.LastSignInAt != nil || len(made.LabelSources) > 0 {
		t.Errorf("got %s", a.Body)
	}
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth("life", made.Password)
	authorization := "Authorization: " + basic.Header.Get("Authorization")
	if a := f.as(t, "", "GET", "/whoami", "", authorization); a.Status != 200 {
		t.Errorf("the generated password: %d %s", a.Status, a.Body)
	}
	if a := f.want(t, 200, "GET", "/accounts/"+made.GUID, ""); strings.Contains(a.Body, "password") {
		t.Errorf("the password is shown again: %s", a.Body)
	}

	at := "/accounts/" + made.GUID
	v3, scim := "/v3/users/"+made.GUID, "/uaa/Users/"+made.GUID
	for _, want := range []struct{ document, path, body string }{
		{"platform.yaml", v3, `"labels":{"team":"a"},"annotations":{"note":"x y"}`}, {"uaa.yaml", scim, `"display":"scim.read"`},
	} {
		if a := f.admin(t, others, want.document, "GET", want.path, ""); a.Status != 200 || !strings.Contains(a.Body, want.body) {
			t.Errorf("%s: %d %s", want.path, a.Status, a.Body)
		}
	}

	a = f.want(t, 200, "PATCH", at, `{"username":"Life2","active":false,"scopes":["cloud_controller.write"],
		"presentationName":"The Life",
		"labels":{"role":"dba","team":null,"absent":null},"annotations":{"note":"z"}}`)
	var changed accountResource
	a.Into(t, &changed)
	if *changed.Username != "Life2" || changed.Active || !slices.Equal(changed.Scopes, []string{"cloud_controller.write"}) ||
		changed.PresentationName != "The Life" || !maps.Equal(changed.Labels, map[string]string{"role": "dba"}) ||
		changed.Annotations["note"] != "z" ||
		!changed.UpdatedAt.After(made.UpdatedAt) || changed.CreatedAt != made.CreatedAt {
		t.Errorf("got %s", a.Body)
	}
	if _, err := f.Identity.VerifyPassword(t.Context(), "life2", made.Password, ""); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("the password of an inactive account is valid: %v", err)
	}
	for _, want := range []struct{ document, path, body string }{
		{"platform.yaml", v3, `"username":"Life2","presentation_name":"The Life"`}, {"uaa.yaml", scim, `"active":false`},
	} {
		if a := f.admin(t, others, want.document, "GET", want.path, ""); a.Status != 200 || !strings.Contains(a.Body, want.body) {
			t.Errorf("%s: %d %s", want.path, a.Status, a.Body)
		}
	}
	// Who sends back what was read asks for no change, and no change is recorded.
	same := f.want(t, 200, "PATCH", at, `{"username":"Life2","active":false,"scopes":["cloud_controller.write"],`+
		`"labels":{"role":"dba"}}`)
	if same.Header.Get("ETag") != a.Header.Get("ETag") {
		t.Errorf("the tag changed from %s to %s", a.Header.Get("ETag"), same.Header.Get("ETag"))
	}
	var back accountResource
	if f.want(t, 200, "PATCH", at, `{"presentationName":null}`).Into(t, &back); back.PresentationName != "Life2" {
		t.Errorf("the presentation name is %s", back.PresentationName)
	}

	f.want(t, 204, "DELETE", at, "")
	f.do(t, "GET", at, "").refused(t, 404)
	for document, path := range map[string]string{"platform.yaml": v3, "uaa.yaml": scim} {
		if a := f.admin(t, others, document, "GET", path, ""); a.Status != 404 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	var rows []string
	for _, row := range f.AuditRows(t, made.GUID) {
		rows = append(rows, row.Action+" "+row.Outcome)
	}
	if want := []string{"account.create done", "account.update done", "account.update done",
		"account.delete done"}; !slices.Equal(rows, want) {
		t.Errorf("recorded %q", rows)
	}
}

// What the other APIs made is one account here, too.
func TestAccountOfOtherAPIs(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	others := f.platform(t)
	var scim struct{ ID string }
	f.admin(t, others, "uaa.yaml", "POST", "/uaa/Users", `{"userName":"of-uaa","password":"of-uaa-password"}`).Into(t, &scim)
	f.admin(t, others, "platform.yaml", "POST", "/v3/users", `{"guid":"guid-alone","metadata":{"labels":{"team":"a"}}}`)
	f.admin(t, others, "uaa.yaml", "POST", "/uaa/oauth/clients",
		`{"client_id":"of-client","client_secret":"its-secret","authorized_grant_types":["client_credentials"],`+
			`"authorities":["cloud_controller.read"]}`)

	var a accountResource
	f.want(t, 200, "PATCH", "/accounts/"+scim.ID, `{"labels":{"team":"b"}}`).Into(t, &a)
	if a.Labels["team"] != "b" {
		t.Errorf("got %+v", a)
	}
	if v3 := f.admin(t, others, "platform.yaml", "GET", "/v3/users/"+scim.ID, ""); v3.Status != 200 ||
		!strings.Contains(v3.Body, `"team":"b"`) {
		t.Errorf("got %d %s", v3.Status, v3.Body)
	}

	f.want(t, 200, "GET", "/accounts/guid-alone", "").Into(t, &a)
	if a.Username != nil || a.Origin != nil || a.Active || a.PresentationName != "guid-alone" || len(a.Scopes) > 0 {
		t.Errorf("got %+v", a)
	}
	for _, body := range []string{`{"active":true}`, `{"username":"x"}`, `{"scopes":["scim.read"]}`} {
		f.do(t, "PATCH", "/accounts/guid-alone", body).refused(t, 422, "known by its guid alone")
	}
	f.do(t, "POST", "/accounts/guid-alone/password", "").refused(t, 422, "known by its guid alone")
	f.want(t, 200, "PATCH", "/accounts/guid-alone", `{"labels":{"team":null},"active":false,"scopes":[]}`)
	f.want(t, 204, "DELETE", "/accounts/guid-alone", "")

	f.want(t, 200, "GET", "/accounts/of-client", "").Into(t, &a)
	if !a.OAuthClient || !a.Active || a.Username != nil || !slices.Equal(a.Scopes, []string{"cloud_controller.read"}) {
		t.Errorf("got %+v", a)
	}
	f.do(t, "PATCH", "/accounts/of-client", `{"username":"x"}`).refused(t, 422, "OAuth client")
	f.want(t, 200, "PATCH", "/accounts/of-client", `{"scopes":["scim.read"],"labels":{"team":"a"}}`)
	f.want(t, 200, "POST", "/accounts/of-client/password", `{"password":"another-password"}`)
	if a := others["uaa.yaml"].Send(t, "POST", "/uaa/oauth/token",
		"grant_type=client_credentials&client_id=of-client&client_secret=another-password",
		"Content-Type: application/x-www-form-urlencoded"); a.Status != 200 || !strings.Contains(a.Body, "scim.read") {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	f.want(t, 204, "DELETE", "/accounts/of-client", "")
}

// Each kind of principal meets each operation.
func TestAccountRights(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	label := map[string]string{"team": "a"}
	principals := map[string][]string{
		"r-admin": {account.ScopeAdmin}, "r-readonly": {account.ScopeAdminReadOnly}, "r-auditor": {account.ScopeAuditor},
		"r-scim-read": {account.ScopeSCIMRead}, "r-scim-write": {account.ScopeSCIMWrite}, "r-plain": account.DefaultScopes,
		"r-none": nil,
	}
	guids := map[string]string{}
	for name, scopes := range principals {
		guids[name] = f.Account(t, name, scopes, nil)
	}
	plain := f.Account(t, "r-target", account.DefaultScopes, nil)
	labelled := f.Account(t, "r-labelled", account.DefaultScopes, label)
	powerful := f.Account(t, "r-powerful", []string{account.ScopeAuditor}, nil)
	_, err := f.DB.Pool.Exec(t.Context(), `INSERT INTO accounts (guid, platform_created_at, platform_updated_at) VALUES `+
		`('r-guid', now(), now())`)
	if err != nil {
		t.Fatal(err)
	}
	seen := func(principal string) (all []string) {
		for cursor := ""; ; {
			var l struct {
				Items []accountResource
				Next  *string
			}
			f.as(t, principal, "GET", "/accounts?limit=1000"+cursor, "").Into(t, &l)
			for _, a := range l.Items {
				all = append(all, a.GUID)
			}
			if l.Next == nil {
				return all
			}
			cursor = "&cursor=" + *l.Next
		}
	}
	const all, identities, itself = "all", "identities", "itself"
	for principal, sees := range map[string]string{
		"r-admin": all, "r-readonly": all, "r-auditor": all, "r-scim-read": identities,
		"r-scim-write": itself, "r-plain": itself, "r-none": itself,
	} {
		listed := seen(principal)
		for guid, want := range map[string]bool{guids[principal]: true, plain: sees != itself, labelled: sees != itself,
			"r-guid": sees == all} {
			status := map[bool]int{true: 200, false: 404}[want]
			if a := f.as(t, principal, "GET", "/accounts/"+guid, ""); a.Status != status {
				t.Errorf("%s reads %s: %d %s", principal, guid, a.Status, a.Body)
			}
			if slices.Contains(listed, guid) != want {
				t.Errorf("%s lists %s: %t", principal, guid, !want)
			}
		}
	}
	f.as(t, "", "GET", "/accounts", "").refused(t, 401)

	// Labels and annotations are for those who see everything, and the account itself.
	for principal, want := range map[string]int{"r-admin": 1, "r-auditor": 1, "r-scim-read": 0, "r-labelled": 1} {
		var a accountResource
		f.as(t, principal, "GET", "/accounts/"+labelled, "").Into(t, &a)
		var l struct{ Items []accountResource }
		f.as(t, principal, "GET", "/accounts?selector=team=a&name=r-labelled", "").Into(t, &l)
		if len(a.Labels) != want || len(l.Items) != want {
			t.Errorf("%s: shown the labels %v, and finds %d by them", principal, a.Labels, len(l.Items))
		}
	}
	var same accountResource
	f.as(t, "r-scim-write", "PATCH", "/accounts/"+labelled, `{}`).Into(t, &same)
	if len(same.Labels) != 0 {
		t.Errorf("a change that changes nothing shows %v", same.Labels)
	}

	for _, x := range []struct {
		principal, method, path, body string
		status                        int
	}{
		// Who sees an account and may not change it is told so; to the others it does not exist.
		{"r-readonly", "PATCH", "/accounts/" + plain, `{"active":false}`, 403},
		{"r-auditor", "PATCH", "/accounts/" + plain, `{}`, 403},
		{"r-scim-read", "PATCH", "/accounts/" + plain, `{"active":false}`, 403},
		{"r-scim-read", "DELETE", "/accounts/" + plain, ``, 403},
		{"r-scim-read", "POST", "/accounts/" + plain + "/password", ``, 403},
		{"r-plain", "PATCH", "/accounts/" + plain, `{"active":false}`, 404},
		{"r-plain", "DELETE", "/accounts/" + plain, ``, 404},
		{"r-plain", "POST", "/accounts/" + plain + "/password", ``, 404},
		{"r-plain", "PATCH", "/accounts/" + guids["r-plain"], `{"labels":{"team":"a"}}`, 403},
		{"r-plain", "PATCH", "/accounts/" + guids["r-plain"], `{"username":"r-other"}`, 403},
		{"r-plain", "DELETE", "/accounts/" + guids["r-plain"], ``, 403},
		{"r-plain", "POST", "/accounts/" + guids["r-plain"] + "/password", ``, 403},
		{"r-none", "POST", "/accounts", `{"username":"r-new"}`, 403},
		{"r-readonly", "POST", "/accounts", `{"username":"r-new"}`, 403},
		{"r-scim-read", "POST", "/accounts", `{"username":"r-new"}`, 403},

		// scim.write cannot give rights, take over an account that has any, or take them away.
		{"r-scim-write", "POST", "/accounts", `{"username":"r-new","scopes":["scim.read"]}`, 403},
		{"r-scim-write", "POST", "/accounts", `{"username":"r-new","labels":{"team":"a"}}`, 403},
		{"r-scim-write", "POST", "/accounts", `{"username":"r-new","annotations":{"a":"b"}}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"labels":{"team":"a"}}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + labelled, `{"labels":{"absent":null}}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + powerful, `{}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + powerful, `{"username":"r-powerful"}`, 403},
		{"r-scim-write", "POST", "/accounts", `{"username":"r-new","scopes":["` + strings.Repeat("x", 300) + `"]}`, 422},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"annotations":{"a":"b"}}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"presentationName":"Root"}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"scopes":["cloud_controller.admin"]}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"active":false,"labels":{"team":"a"}}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + guids["r-scim-write"], `{"scopes":["scim.write","cloud_controller.admin"]}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + guids["r-scim-write"], `{"scopes":[]}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + powerful, `{"scopes":[]}`, 403},
		{"r-scim-write", "PATCH", "/accounts/" + powerful, `{"active":false}`, 403},
		{"r-scim-write", "POST", "/accounts/" + powerful + "/password", `{"password":"mine from now"}`, 403},
		{"r-scim-write", "DELETE", "/accounts/" + powerful, ``, 403},
		{"r-scim-write", "POST", "/accounts/" + guids["r-admin"] + "/password", `{"password":"mine from now"}`, 403},
		{"r-scim-write", "POST", "/accounts/" + labelled + "/password", `{"password":"mine from now"}`, 403},
		{"r-scim-write", "POST", "/accounts/" + guids["r-scim-write"] + "/password", `{"password":"mine from now"}`, 403},
		{"r-scim-write", "DELETE", "/accounts/" + labelled, ``, 403},
		{"r-scim-write", "PATCH", "/accounts/r-guid", `{"labels":{"team":"a"}}`, 404},
		{"r-scim-write", "DELETE", "/accounts/r-guid", ``, 404},
		{"r-scim-write", "PATCH", "/accounts/" + labelled, `{"active":false}`, 200}, // to end an account's sign-ins is no way in
		{"r-scim-write", "PATCH", "/accounts/" + labelled, `{"active":true}`, 403},

		// What it may do.
		{"r-scim-write", "POST", "/accounts", `{"username":"r-by-scim","scopes":["cloud_controller.read"]}`, 201},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"active":false,"username":"r-renamed","scopes":[]}`, 200},
		{"r-scim-write", "PATCH", "/accounts/" + plain, `{"active":true,"scopes":["cloud_controller.write"]}`, 200},
		{"r-scim-write", "POST", "/accounts/" + plain + "/password", `{"password":"another-password"}`, 200},
		{"r-scim-write", "DELETE", "/accounts/" + plain, ``, 204},

		// Admins may do everything, without a scim scope.
		{"r-admin", "POST", "/accounts", `{"username":"r-by-admin","labels":{"team":"a"},"scopes":["cloud_controller.admin"]}`,
			201},
		{"r-admin", "PATCH", "/accounts/" + labelled, `{"active":true,"labels":{"team":"b"},"scopes":["scim.write"]}`, 200},
		{"r-admin", "POST", "/accounts/" + labelled + "/password", ``, 200},
		{"r-admin", "POST", "/accounts/" + guids["r-admin"] + "/password", `{"password":"mine from now"}`, 403},
		{"r-admin", "DELETE", "/accounts/" + powerful, ``, 204},
		{"r-admin", "DELETE", "/accounts/r-guid", ``, 204},
	} {
		if a := f.as(t, x.principal, x.method, x.path, x.body); a.Status != x.status {
			t.Errorf("%s: %s %s %s: got %d %s, want %d", x.principal, x.method, x.path, x.body, a.Status, a.Body, x.status)
		}
	}
	if rows := f.AuditRows(t, labelled); !slices.ContainsFunc(rows, func(r servicetest.AuditRow) bool {
		return r.Action == "account.password" && r.Outcome == "denied" && r.Account == guids["r-scim-write"]
	}) {
		t.Errorf("the refusal is not recorded: %+v", rows)
	}
}

// A personal access token changes nothing that signs in, and one that is limited reaches no other account.
func TestAccountByToken(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	guid := f.Account(t, "by-token", account.AdminScopes, nil)
	target := f.Account(t, "by-token-target", account.DefaultScopes, nil)
	plain := f.token(t, "by-token", `{"name":"plain"}`)
	readOnly := f.token(t, "by-token", `{"name":"read-only","readOnly":true}`)
	limited := f.token(t, "by-token", fmt.Sprintf(`{"name":"limited","clusters":[%q]}`, f.ClusterID))
	_, err := f.DB.Pool.Exec(t.Context(), `INSERT INTO accounts (guid, platform_created_at, platform_updated_at) VALUES `+
		`('by-token-guid', now(), now())`)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		token              tokenResource
		method, path, body string
		status             int
	}{
		{plain, "POST", "/accounts", `{"username":"by-token-new"}`, 403},
		{plain, "PATCH", "/accounts/" + target, `{"active":false}`, 403},
		{plain, "PATCH", "/accounts/" + target, `{"username":"x","labels":{"a":"b"}}`, 403},
		{plain, "PATCH", "/accounts/" + target, `{"scopes":[]}`, 403},
		{plain, "POST", "/accounts/" + target + "/password", ``, 403},
		{plain, "POST", "/accounts/" + guid + "/password", `{"currentPassword":"by-token-password"}`, 403},
		{plain, "DELETE", "/accounts/" + target, ``, 403},
		{plain, "PATCH", "/accounts/" + target, `{"labels":{"a":"b"},"active":true}`, 200},
		{plain, "DELETE", "/accounts/by-token-guid", ``, 204}, // as /v3 has it
		{readOnly, "GET", "/accounts/" + target, ``, 200},
		{readOnly, "PATCH", "/accounts/" + target, `{"labels":{"a":"c"}}`, 403},
		{readOnly, "DELETE", "/accounts/" + target, ``, 403},
		{readOnly, "POST", "/accounts", `{"username":"by-token-new"}`, 403},
		{limited, "GET", "/accounts/" + guid, ``, 200},
		{limited, "GET", "/accounts/" + target, ``, 404},
		{limited, "PATCH", "/accounts/" + target, `{"labels":{"a":"c"}}`, 404},
		{limited, "PATCH", "/accounts/" + guid, `{"labels":{"a":"c"}}`, 403},
		{limited, "POST", "/accounts", `{"username":"by-token-new"}`, 403},
	} {
		if a := f.with(t, x.token, x.method, x.path, x.body); a.Status != x.status {
			t.Errorf("%s: %s %s %s: got %d %s, want %d", x.token.Name, x.method, x.path, x.body, a.Status, a.Body, x.status)
		}
	}
	// Another's new password and a deactivation end personal access tokens, one's own new password does not.
	f.as(t, "by-token", "POST", "/accounts/"+guid+"/password", `{"currentPassword":"wrong"}`).
		refused(t, 403, "current password is wrong")
	if a := f.as(t, "by-token", "POST", "/accounts/"+guid+"/password",
		`{"password":"by-token-password","currentPassword":"by-token-password"}`); a.Status != 200 ||
		strings.Contains(a.Body, `"password"`) {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	left := func(guid string) (n int) {
		if err := f.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM personal_tokens t JOIN accounts a ON a.id = `+
			`t.account_id WHERE a.guid = $1`, guid).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if left(guid) != 3 {
		t.Errorf("%d tokens are left after the own change", left(guid))
	}
	f.want(t, 200, "POST", "/accounts/"+guid+"/password", `{"password":"by-token-password"}`)
	if left(guid) != 0 {
		t.Errorf("%d tokens are left after another's change", left(guid))
	}
	f.token(t, "by-token-target", `{"name":"of an account that is made inactive"}`)
	f.want(t, 200, "PATCH", "/accounts/"+target, `{"active":false}`)
	if left(target) != 0 {
		t.Errorf("%d tokens are left of an inactive account", left(target))
	}
}

func TestAccountBadRequests(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	guid := f.Account(t, "bad", account.DefaultScopes, nil)
	external := f.want(t, 201, "POST", "/accounts", `{"username":"bad","origin":"ldap"}`)
	if strings.Contains(external.Body, `"password"`) {
		t.Errorf("an account of another origin has a password: %s", external.Body)
	}
	var ofLDAP accountResource
	external.Into(t, &ofLDAP)
	many := map[string]string{}
	for i := range 51 {
		many["k"+strconv.Itoa(i)] = "v"
	}
	fifty, err := json.Marshal(map[string]any{"labels": many})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "", `{"username":"BAD"}`, 409, `"BAD" is taken`},
		{"POST", "", `{}`, 422, "username is missing"},
		{"POST", "", `{"username":null}`, 422, "must be a string"},
		{"POST", "", `{"username":""}`, 422, "1 to 255 characters"},
		{"POST", "", `{"username":"a:b"}`, 422, "colon"},
		{"POST", "", `{"username":" a"}`, 422, "space"},
		{"POST", "", `{"username":"bad1","origin":""}`, 422, "origin"},
		{"POST", "", `{"username":"bad1","origin":"a\nb"}`, 422, "origin"},
		{"POST", "", `{"username":"bad1\u200b"}`, 422, "characters that are shown"},
		{"PATCH", "/" + guid, `{"username":"bad1\u200b"}`, 422, "characters that are shown"},
		{"PATCH", "/" + guid, `{"presentationName":"\u202ebad"}`, 422, "characters that are shown"},
		{"POST", "", `{"username":"bad1","password":"x","origin":"ldap"}`, 422, "has no password here"},
		{"POST", "", `{"username":"bad1","password":""}`, 422, "10 to 255 characters, this one"},
		{"POST", "", `{"username":"bad1","password":"` + strings.Repeat("x", 256) + `"}`, 422, "10 to 255 characters, this one"},
		{"POST", "", `{"username":"bad1","password":"nine char"}`, 422, "10 to 255 characters, this one 9"},
		{"POST", "", `{"username":"bad1","password":"a\u0000 password"}`, 422, "must not contain control characters"},
		{"POST", "", `{"username":"bad1","scopes":["root"]}`, 422, `no scope "root"`},
		{"POST", "", `{"username":"bad1","scopes":null}`, 422, "an array"},
		{"POST", "", `{"username":"bad1","labels":[]}`, 422, "an object"},
		{"POST", "", `{"username":"bad1","labels":{"team":1}}`, 422, "strings or null, not a number"},
		{"POST", "", `{"username":"bad1","labels":{"-":"x"}}`, 422, "labels"},
		{"POST", "", `{"username":"bad1","labels":{"team":"a b"}}`, 422, "labels"},
		{"POST", "", `{"username":"bad1","annotations":{"a":"` + strings.Repeat("x", 5001) + `"}}`, 422, "annotations"},
		{"POST", "", `{"username":"bad1","email":"x"}`, 422, "unknown"},
		{"POST", "", `{"username":"bad1"`, 400, ""},
		{"POST", "", `[]`, 422, "an object"},
		{"POST", "?x=1", `{"username":"bad1"}`, 400, ""},
		{"PATCH", "/" + guid, `{"active":null}`, 422, "true or false"},
		{"PATCH", "/" + guid, `{"scopes":["cloud_controller.read","no"]}`, 422, `no scope "no"`},
		{"PATCH", "/" + guid, `{"username":"root"}`, 409, `"root" is taken`},
		{"PATCH", "/" + guid, `{"username":""}`, 422, "1 to 255 characters"},
		{"PATCH", "/" + ofLDAP.GUID, `{"username":"renamed"}`, 422, "comes from its identity provider"},
		{"PATCH", "/" + guid, `{"presentationName":""}`, 422, "presentationName"},
		{"PATCH", "/" + guid, `{"presentationName":"a\nb"}`, 422, "control characters"},
		{"PATCH", "/" + guid, `{"guid":"x"}`, 422, "unknown"},
		{"PATCH", "/" + guid, `{"origin":"x"}`, 422, "unknown"},
		{"PATCH", "/" + guid, string(fifty), 422, "50"},
		{"PATCH", "/" + guid + "?x=1", `{}`, 400, ""},
		{"PATCH", "/nobody", `{}`, 404, "no such account"},
		{"PATCH", "/%00", `{}`, 404, "no such account"},
		{"DELETE", "/%FF", ``, 404, "no such account"},
		{"POST", "/" + guid + "/password", `{"password":""}`, 422, "10 to 255 characters, this one"},
		{"POST", "/" + guid + "/password", `{"password":"nine char"}`, 422, "10 to 255 characters, this one 9"},
		{"POST", "/" + guid + "/password", `{"password":null}`, 422, "a string"},
		{"POST", "/" + guid + "/password", `{"secret":"x"}`, 422, "unknown"},
		{"POST", "/" + ofLDAP.GUID + "/password", ``, 422, "kept by its origin, ldap"},
		{"POST", "/nobody/password", ``, 404, "no such account"},
	} {
		f.do(t, x.method, "/accounts"+x.path, x.body).refused(t, x.status, x.says)
	}
	for _, query := range []string{
		"x=1", "name=", "name=%00", "guid=", "origin=%FF", "scope=", "scope=root", "active=", "active=yes", "selector=",
		"selector=a+in+(", "name=a&name=b",
		"limit=x", "cursor=x!", "cursor=YQ",
	} {
		f.do(t, "GET", "/accounts?"+query, "").refused(t, 400)
	}
	f.do(t, "GET", "/accounts?limit=0", "").refused(t, 422)
	if a := f.want(t, 200, "GET", "/accounts?name=bad1", ""); !strings.Contains(a.Body, `"items":[]`) {
		t.Errorf("a refused request has made %s", a.Body)
	}
}

// A tag is good until anything about the account changes, by whichever API.
func TestAccountIfMatch(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	others := f.platform(t)
	guid := f.Account(t, "tagged", account.DefaultScopes, nil)
	at := "/accounts/" + guid
	var groups struct{ Resources []struct{ ID string } }
	f.admin(t, others, "uaa.yaml", "GET", "/uaa/Groups?filter="+url.QueryEscape(`displayName eq "scim.read"`), "").
		Into(t, &groups)
	member := "/uaa/Groups/" + groups.Resources[0].ID + "/members"
	for what, change := range map[string]func() answer{
		"PATCH":    func() answer { return f.do(t, "PATCH", at, `{"labels":{"a":"b"}}`) },
		"password": func() answer { return f.do(t, "POST", at+"/password", `{"password":"tagged-password"}`) },
		"/v3": func() answer {
			return f.admin(t, others, "platform.yaml", "PATCH", "/v3/users/"+guid, `{"metadata":{"labels":{"c":"d"}}}`)
		},
		"/uaa group": func() answer {
			return f.admin(t, others, "uaa.yaml", "POST", member, fmt.Sprintf(`{"value":%q}`, guid))
		},
	} {
		tag := f.want(t, 200, "GET", at, "").Header.Get("ETag")
		if a := change(); a.Status >= 300 {
			t.Fatalf("%s: %d %s", what, a.Status, a.Body)
		}
		f.do(t, "PATCH", at, `{"active":false}`, "If-Match: "+tag).refused(t, 412, "changed concurrently")
		f.do(t, "DELETE", at, "", "If-Match: "+tag).refused(t, 412)
		f.do(t, "POST", at+"/password", `{}`, "If-Match: "+tag).refused(t, 412)
	}
	tag := f.want(t, 200, "GET", at, "").Header.Get("ETag")
	f.do(t, "PATCH", at, `{}`, "If-Match: W/"+tag).refused(t, 412)
	a := f.want(t, 200, "PATCH", at, `{"labels":{"a":"c"}}`, "If-Match: "+tag)
	a = f.want(t, 200, "PATCH", at, `{"labels":{"a":"d"}}`, "If-Match: \"1\", "+a.Header.Get("ETag"))
	f.want(t, 204, "DELETE", at, "", "If-Match: "+a.Header.Get("ETag"))
	f.do(t, "DELETE", at, "", "If-Match: *").refused(t, 404)
}

// One person who is an active admin stays, also if two admins change each other at once. OAuth clients are not enough.
func TestLastAdmin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.guid(t, "root")
	for _, body := range []string{`{"active":false}`, `{"scopes":[]}`, `{"scopes":["cloud_controller.read","scim.write"]}`} {
		f.do(t, "PATCH", "/accounts/"+root, body).refused(t, 422, "last active admin")
	}
	f.do(t, "DELETE", "/accounts/"+root, "").refused(t, 422, "last active admin")
	f.want(t, 200, "PATCH", "/accounts/"+root, `{"scopes":["cloud_controller.admin"],"labels":{"a":"b"}}`)
	second := f.Admin(t, "second")
	for _, change := range [][2]string{{"PATCH", `{"active":false}`}, {"DELETE", ""}} {
		var wg sync.WaitGroup
		status := make([]int, 2)
		for i, who := range []struct{ by, guid string }{{"root", second}, {"second", root}} {
			wg.Go(func() { status[i] = f.as(t, who.by, change[0], "/accounts/"+who.guid, change[1]).Status })
		}
		wg.Wait()
		var active int
		if err := f.DB.Pool.QueryRow(t.Context(), `
			SELECT count(*) FROM accounts WHERE active AND 'cloud_controller.admin' = ANY (scopes)`).Scan(&active); err != nil {
			t.Fatal(err)
		}
		if active != 1 || status[0] == status[1] {
			t.Errorf("afterwards %d admins are active; the answers are %v", active, status)
		}
		if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE accounts SET active = true`); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAccountList(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var guids []string
	for i := range 5 {
		body := fmt.Sprintf(`{"username":"list%d","labels":{"n":"%d","team":"%s"}}`, i, i, []string{"a", "b"}[i%2])
		var a accountResource
		f.want(t, 201, "POST", "/accounts", body).Into(t, &a)
		guids = append(guids, a.GUID)
	}
	f.want(t, 201, "POST", "/accounts", `{"username":"list0","origin":"ldap"}`)
	f.want(t, 200, "PATCH", "/accounts/"+guids[2], `{"active":false,"scopes":["scim.read"]}`)
	list := func(query url.Values) (names []string, next string) {
		var l struct {
			Items []accountResource
			Next  *string
		}
		f.want(t, 200, "GET", "/accounts?"+query.Encode(), "").Into(t, &l)
		for _, a := range l.Items {
			names = append(names, *a.Username)
		}
		if l.Next != nil {
			next = *l.Next
		}
		return names, next
	}
	for _, x := range []struct{ query, want string }{
		{"name=LIST1", "list1"}, {"name=list", ""}, {"name=list0", "list0 list0"}, {"name=list0&origin=ldap", "list0"},
		{"guid=" + guids[3], "list3"},
		{"guid=" + strings.ToUpper(guids[3]), ""}, {"selector=team%3Da", "list0 list2 list4"},
		{"selector=team+in+(a,b),n!%3D0", "list1 list2 list3 list4"},
		{"selector=!team", "root list0"}, {"scope=scim.read", "root list2"}, {"active=false", "list2"},
		{"active=true&selector=team%3Da", "list0 list4"},
		{"origin=uaa", "root list0 list1 list2 list3 list4"}, {"name=list1&guid=" + guids[3], ""},
		{"", "root list0 list1 list2 list3 list4 list0"},
	} {
		query, err := url.ParseQuery(x.query)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := list(query); strings.Join(got, " ") != x.want {
			t.Errorf("%s: got %q, want %s", x.query, got, x.want)
		}
	}
	// Pages follow one another whatever is removed and created between them.
	first, next := list(url.Values{"limit": {"3"}, "origin": {"uaa"}})
	f.want(t, 204, "DELETE", "/accounts/"+guids[1], "")
	f.want(t, 201, "POST", "/accounts", `{"username":"list5"}`)
	second, next := list(url.Values{"limit": {"3"}, "origin": {"uaa"}, "cursor": {next}})
	third, end := list(url.Values{"limit": {"3"}, "origin": {"uaa"}, "cursor": {next}})
	if got := strings.Join(slices.Concat(first, second, third), " "); got != "root list0 list1 list2 list3 list4 list5" ||
		end != "" {
		t.Errorf("the pages are %s, then %q", got, end)
	}
}

// A change whose audit row cannot be written is not made at all.
func TestAccountAllOrNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	guid := f.Account(t, "whole", account.DefaultScopes, map[string]string{"team": "a"})
	_, err := f.DB.Pool.Exec(t.Context(), `
		CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN
		  NEW; END $$;
		CREATE TRIGGER die BEFORE INSERT ON audit FOR EACH ROW WHEN (NEW.action LIKE 'account.%') EXECUTE FUNCTION die()`)
	if err != nil {
		t.Fatal(err)
	}
	state := func() (all string) {
		if err := f.DB.Pool.QueryRow(t.Context(), `SELECT string_agg(a::text, E'\n' ORDER BY guid) FROM accounts a`).
			Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := state()
	for _, x := range [][3]string{
		{"POST", "", `{"username":"half","labels":{"team":"a"},"scopes":["cloud_controller.admin"]}`},
		{"PATCH", "/" + guid, `{"labels":{"team":"b"},"scopes":["cloud_controller.admin"],"active":false,"username":"half"}`},
		{"POST", "/" + guid + "/password", `{"password":"half-password"}`},
		{"DELETE", "/" + guid, ``},
	} {
		if a := f.do(t, x[0], "/accounts"+x[1], x[2]); a.Status < 500 {
			t.Errorf("%s: got %d %s", x[0], a.Status, a.Body)
		}
		if after := state(); after != before {
			t.Errorf("%s has changed\n%s\nto\n%s", x[0], before, after)
		}
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `DROP TRIGGER die ON audit`); err != nil {
		t.Fatal(err)
	}
	f.want(t, 200, "PATCH", "/accounts/"+guid, `{"labels":{"team":"b"},"scopes":["cloud_controller.admin"],"active":false,`+
		`"username":"half"}`)
}

// TestLabelsOfIssuers: an account shows which labels an issuer has set, to itself as well, and nobody else sets them.
func TestLabelsOfIssuers(t *testing.T) {
	t.Parallel()
	s := *servicetest.Shared(t)
	s.Accounts = account.NewStore(s.DB, account.Issuer{Name: "corp", Origin: "labels.example.org", Links: true,
		LabelKeys: []string{"team", "group.*"}})
	f := fixtureOn(t, &s, 0)
	made, err := s.Accounts.External(t.Context(), account.External{Issuer: "https://labels.example.org", Subject: "1",
		Origin: "labels.example.org", Username: "nora", Labels: map[string]string{"team": "a"}, Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	at := "/accounts/" + made.GUID
	var got accountResource
	f.want(t, 200, "PATCH", at, `{"labels":{"room":"12"}}`).Into(t, &got)
	if fmt.Sprint(got.Labels, got.LabelSources) != "map[room:12 team:a] map[team:corp]" {
		t.Errorf("got %+v", got)
	}
	for _, body := range []string{`{"labels":{"team":"b"}}`, `{"labels":{"team":null}}`,
		`{"labels":{"group.x":"true","room":"13"}}`} {
		if a := f.want(t, 422, "PATCH", at, body); !strings.Contains(a.Body, `of this account is set by the issuer \"corp\"`) {
			t.Errorf("%s: %s", body, a.Body)
		}
	}
	f.want(t, 422, "POST", "/accounts", `{"username":"prepared","origin":"labels.example.org","labels":{"team":"b"}}`)
	f.want(t, 200, "PATCH", at, `{"labels":{"team":"a"}}`)
	f.want(t, 200, "GET", at, "").Into(t, &got)
	if fmt.Sprint(got.Labels, got.LabelSources) != "map[room:12 team:a] map[team:corp]" {
		t.Errorf("got %+v", got)
	}

	s.Account(t, "sourced", nil, map[string]string{"team": "a"})
	_, err = s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET label_sources = '{"team": "corp"}' WHERE username = 'sourced'`)
	if err != nil {
		t.Fatal(err)
	}
	if a := f.as(t, "sourced", "GET", "/whoami", ""); !strings.Contains(a.Body, `"labelSources":{"team":"corp"}`) {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}
