package adminapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/audit"
	"rolecall/internal/servicetest"
)

// credentialResource is a stored credential as a client reads it.
type credentialResource struct {
	Name, Cluster, For, RotateEvery, Overlap, State, CreatedBy string
	Window                                                     *struct {
		Days               []string
		From, To, Timezone string
	}
	Username, LastError  *string
	RotatedAt, RotatesAt time.Time
	CreatedAt            time.Time
}

// currentCredential is what a program logs in with.
type currentCredential struct {
	Username, Password   string
	Connection           struct{ URL string }
	ExpiresAt, RotatesAt time.Time
}

func (f *fixture) stored(t testing.TB, path string) (cr credentialResource, tag string) {
	t.Helper()
	a := f.want(t, 200, "GET", path, "")
	a.Into(t, &cr)
	return cr, a.Header.Get("ETag")
}

func (f *fixture) current(t testing.TB, path string) (current currentCredential) {
	t.Helper()
	f.want(t, 200, "GET", path+"/current", "").Into(t, &current)
	return current
}

// A credential is stored, read, changed, rotated and deleted.
func TestCredential(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "cred_app")
	list := "/clusters/" + f.ClusterID + "/credentials"
	path := list + "/shop"
	a := f.as(t, "manager", "PUT", path, `{"for":"cred_app","rotateEvery":"30d","overlap":"90s"}`)
	if a.Status != 201 || a.Header.Get("ETag") == "" {
		t.Fatalf("got %d %s %s", a.Status, a.Header, a.Body)
	}
	var cr credentialResource
	a.Into(t, &cr)
	if cr.Name != "shop" || cr.Cluster != f.ClusterID || cr.For != "cred_app" || cr.RotateEvery != "720h" ||
		cr.Overlap != "90s" || cr.Window != nil || cr.State != "active" || cr.LastError != nil || cr.Username == nil ||
		cr.CreatedBy == "" || cr.RotatesAt.Sub(cr.RotatedAt).Round(24*time.Hour) != 30*24*time.Hour ||
		cr.RotatesAt.Sub(cr.RotatedAt) >= 30*24*time.Hour {
		t.Errorf("got %s", a.Body)
	}
	first := f.current(t, path)
	u, err := url.Parse(first.Connection.URL)
	if err != nil || u.User.String() != first.Username || first.Username != *cr.Username ||
		!first.ExpiresAt.Equal(first.RotatesAt.Add(90*time.Second)) || !first.RotatesAt.Equal(cr.RotatesAt) {
		t.Errorf("the current one is %+v, %v", first, err)
	}
	if err := f.PG.Login(first.Username, first.Password); err != nil {
		t.Error(err)
	}
	if rows := f.AuditRows(t, "shop"); !slices.ContainsFunc(rows, func(row servicetest.AuditRow) bool {
		return row.Action == audit.ReadCredential && row.Outcome == "done"
	}) {
		t.Errorf("the read is not in %+v", rows)
	}
	// Its lease belongs to no account.
	var l struct{ Items []leaseResource }
	f.want(t, 200, "GET", "/leases?for=cred_app", "").Into(t, &l)
	if len(l.Items) != 1 || l.Items[0].Account != nil || l.Items[0].Credential == nil || *l.Items[0].Credential != "shop" ||
		l.Items[0].Username != first.Username {
		t.Errorf("its leases are %+v", l)
	}
	f.do(t, "POST", "/leases/"+l.Items[0].ID+"/renew", "").refused(t, 422, `"shop"`)

	// Settings change under the condition that nobody has changed them.
	const settings = `{"for":"cred_app","rotateEvery":"7d","overlap":"0s","window":` +
		`{"days":["sat","sun"],"from":"02:00","to":"04:00","timezone":"Europe/Berlin"}}`
	_, tag := f.stored(t, path)
	f.do(t, "PUT", path, settings, `If-Match: "0"`).refused(t, 412)
	f.do(t, "PUT", path, settings, `If-Match: W/`+tag).refused(t, 412)
	f.want(t, 200, "PUT", path, settings, "If-Match: "+tag).Into(t, &cr)
	f.do(t, "PUT", path, settings, "If-Match: "+tag).refused(t, 412)
	if cr.RotateEvery != "168h" || cr.Overlap != "0s" || cr.Window == nil || cr.Window.Timezone != "Europe/Berlin" ||
		!slices.Equal(cr.Window.Days, []string{"sat", "sun"}) || cr.Window.From != "02:00" || cr.Window.To != "04:00" ||
		*cr.Username != first.Username {
		t.Errorf("changed to %+v", cr)
	}
	f.want(t, 200, "PUT", path, `{"for":"cred_app","rotateEvery":"1h","overlap":"1h","window":null}`)

	// After a rotation another one is current, and the replaced one is still accepted.
	a = f.want(t, 200, "POST", path+"/rotate", "")
	second := f.current(t, path)
	if a.Header.Get("ETag") == "" || strings.Contains(a.Body, second.Password) || second.Username == first.Username {
		t.Errorf("rotated: %s, current is %s", a.Body, second.Username)
	}
	for _, current := range []currentCredential{first, second} {
		if err := f.PG.Login(current.Username, current.Password); err != nil {
			t.Error(err)
		}
	}
	f.as(t, "root", "PUT", list+"/other", `{"for":"cred_app","rotateEvery":"1h","overlap":"1h"}`)
	var page struct {
		Items []credentialResource
		Next  *string
	}
	f.want(t, 200, "GET", list+"?limit=1", "").Into(t, &page)
	if len(page.Items) != 1 || page.Items[0].Name != "other" || page.Next == nil {
		t.Fatalf("the first page is %+v", page)
	}
	f.want(t, 200, "GET", list+"?cursor="+*page.Next, "").Into(t, &page)
	if len(page.Items) != 1 || page.Items[0].Name != "shop" || page.Next != nil {
		t.Errorf("the second page is %+v", page)
	}

	_, tag = f.stored(t, path)
	f.do(t, "DELETE", path, "", `If-Match: "0"`).refused(t, 412)
	f.want(t, 204, "DELETE", path, "", "If-Match: "+tag)
	f.do(t, "DELETE", path, "").refused(t, 404)
	f.do(t, "GET", path, "").refused(t, 404)
	f.do(t, "GET", path+"/current", "").refused(t, 404)
	f.do(t, "POST", path+"/rotate", "").refused(t, 404)
	f.hidesSecrets(t, first.Password, second.Password)
}

// What a credential is not stored with leaves nothing.
func TestCredentialRefused(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "badcred_app")
	list := "/clusters/" + f.ClusterID + "/credentials"
	with := func(every, overlap, more string) string {
		return fmt.Sprintf(`{"for":"badcred_app","rotateEvery":%s,"overlap":%s%s}`, every, overlap, more)
	}
	window := func(days, from, to, timezone string) string {
		return with(`"7d"`, `"1h"`, fmt.Sprintf(`,"window":{"days":%s,"from":%q,"to":%q,"timezone":%q}`, days, from, to, timezone))
	}
	for body, status := range map[string]int{
		``: 400, `{`: 400, `[]`: 422, `{}`: 422, with(`"1h"`, `"1h"`, `,"password":"mine"`): 422,
		`{"for":"no_such_role","rotateEvery":"1h","overlap":"1h"}`: 422,
		`{"for":"badcred_app","rotateEvery":"1h"}`:                 422, `{"for":"badcred_app","overlap":"1h"}`: 422,
		`{"rotateEvery":"1h","overlap":"1h"}`: 422, with(`3600`, `"1h"`, ""): 422, with(`"1h"`, `0`, ""): 422,
		with(`"0s"`, `"0s"`, ""): 422, with(`"999ms"`, `"0s"`, ""): 422, with(`"-1h"`, `"0s"`, ""): 422,
		with(`"1h"`, `"61m"`, ""): 422, with(`"1h"`, `"-1s"`, ""): 422, with(`null`, `"1h"`, ""): 422,
		with(`"1h"`, `"1h"`, `,"window":[]`): 422, with(`"1h"`, `"1h"`, `,"window":{}`): 422,
		window(`[]`, "02:00", "04:00", "UTC"): 422, window(`["x"]`, "02:00", "04:00", "UTC"): 422,
		window(`["sat"]`, "2:00", "04:00", "UTC"): 422, window(`["sat"]`, "02:00", "24:00", "UTC"): 422,
		window(`["sat"]`, "02:00", "02:00", "UTC"): 422, window(`["sat"]`, "02:00", "04:00", "Nowhere"): 422,
		window(`"sat"`, "02:00", "04:00", "UTC"): 422, window(`["sat"]`, "02:00", "04:00", ""): 422,
		with(`"1d"`, `"1h"`, `,"window":{"days":["sat"],"from":"02:00","to":"04:00","timezone":"UTC"}`):       422, // too rare
		with(`"7d"`, `"1h"`, `,"window":{"days":["sat"],"from":"02:00","to":"04:00","timezone":"UTC","x":1}`): 422,
	} {
		f.as(t, "manager", "PUT", list+"/x", body).refused(t, status)
	}
	good := with(`"1h"`, `"1h"`, "")
	for _, name := range []string{"%00", "a%0Ab", strings.Repeat("x", 300)} {
		f.as(t, "manager", "PUT", list+"/"+name, good).refused(t, 422)
	}
	f.as(t, "manager", "PUT", list+"/x", fmt.Sprintf(`{"for":%q,"rotateEvery":"1h","overlap":"1h"}`, f.PG.User)).refused(t, 403)
	f.as(t, "manager", "PUT", list+"/x", good, "Content-Type: text/plain").refused(t, 415)
	f.as(t, "manager", "PUT", list+"/x?y=1", good).refused(t, 400)
	f.as(t, "manager", "PUT", list+"/x", good, `If-Match: "1"`).refused(t, 412)
	f.do(t, "GET", list+"?limit=0", "").refused(t, 422)
	f.do(t, "GET", list+"?cursor=", "").refused(t, 400)
	if a := f.want(t, 200, "GET", list, ""); !strings.Contains(a.Body, `"items":[]`) {
		t.Errorf("there are %s", a.Body)
	}
	if ids := leases(t, f.want(t, 200, "GET", "/leases?state=active", "")); len(ids) > 0 {
		t.Errorf("there are the leases %q", ids)
	}
}

// Who may do what, and a token that is limited to one credential.
func TestCredentialRights(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "credright_app")
	list := "/clusters/" + f.ClusterID + "/credentials"
	path := list + "/shop"
	const body = `{"for":"credright_app","rotateEvery":"1h","overlap":"1h"}`
	for _, name := range []string{"shop", "other"} {
		if a := f.as(t, "manager", "PUT", list+"/"+name, body); a.Status != 201 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
	}
	for username, want := range map[string]struct{ read, change int }{
		"": {401, 401}, "viewer": {200, 403}, "foreign": {404, 404}, "manager": {200, 200},
	} {
		for _, request := range []struct {
			method, path, body string
			want               int
		}{
			{http.MethodGet, list, "", want.read}, {http.MethodGet, path, "", want.read},
			{http.MethodPut, path, body, want.change}, {http.MethodGet, path + "/current", "", want.change},
			{http.MethodPost, path + "/rotate", "", want.change},
		} {
			if a := f.as(t, username, request.method, request.path, request.body); a.Status != request.want {
				t.Errorf("%s %s of %q: got %d %s", request.method, request.path, username, a.Status, a.Body)
			}
		}
		if want.change != 200 {
			f.as(t, username, "DELETE", path, "").refused(t, want.change)
		}
	}
	readOnly := f.token(t, "manager", `{"name":"ro","readOnly":true}`)
	f.with(t, readOnly, "GET", path+"/current", "").refused(t, 403)
	f.with(t, readOnly, "POST", path+"/rotate", "").refused(t, 403)
	f.with(t, readOnly, "PUT", path, body).refused(t, 403)
	f.with(t, readOnly, "DELETE", path, "").refused(t, 403)
	if a := f.with(t, readOnly, "GET", path, ""); a.Status != 200 {
		t.Errorf("a read-only token reads: %d %s", a.Status, a.Body)
	}

	reference := f.ClusterID + "/shop"
	one := f.token(t, "manager", fmt.Sprintf(`{"name":"one","credentials":[%q,%[1]q]}`, reference))
	var tokens struct {
		Items []struct {
			Name        string
			Credentials []string
		}
	}
	f.as(t, "manager", "GET", "/tokens", "").Into(t, &tokens)
	if len(tokens.Items) != 2 || !slices.Equal(tokens.Items[0].Credentials, []string{reference}) ||
		tokens.Items[1].Credentials != nil {
		t.Errorf("the tokens are %+v", tokens)
	}
	current := f.with(t, one, "GET", path+"/current", "")
	if current.Status != 200 || !strings.Contains(current.Body, `"password"`) {
		t.Errorf("the token reads: %d %s", current.Status, current.Body)
	}
	for _, request := range [][2]string{
		{"GET", list + "/other/current"}, {"GET", path}, {"GET", list}, {"POST", path + "/rotate"}, {"DELETE", path},
		{"GET", "/whoami"}, {"GET", "/leases"}, {"GET", "/clusters"}, {"GET", "/tokens"}, {"DELETE", "/tokens/" + one.ID},
	} {
		f.with(t, one, request[0], request[1], "").refused(t, 403)
	}
	for body, status := range map[string]int{
		`[]`: 422, `[7]`: 422, `"x"`: 422, `["x"]`: 422, `["` + f.ClusterID + `/nothing"]`: 422, `["` + f.ClusterID + `/"]`: 422,
		`["00000000-0000-0000-0000-000000000000/shop"]`: 422,
	} {
		f.as(t, "manager", "POST", "/tokens", `{"name":"x","credentials":`+body+`}`).refused(t, status)
	}
	f.as(t, "manager", "POST", "/tokens", `{"name":"x","readOnly":true,"credentials":["`+reference+`"]}`).refused(t, 422)
	f.as(t, "viewer", "POST", "/tokens", `{"name":"x","credentials":["`+reference+`"]}`).refused(t, 403)
	f.as(t, "foreign", "POST", "/tokens", `{"name":"x","credentials":["`+reference+`"]}`).refused(t, 422)
	if a := f.as(t, "manager", "POST", "/tokens", `{"name":"x","credentials":null}`); a.Status != 201 {
		t.Errorf("null is no limit: %d %s", a.Status, a.Body)
	}
}
