package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/servicetest"
)

// leaseResource is a lease as a client reads it.
type leaseResource struct {
	ID, Cluster, For, Username, Password, State, Note string
	Connection                                        struct {
		Host, URL string
		Port      int
		Databases []string
	}
	CreatedAt, ExpiresAt, MaxExpiresAt time.Time
	RenewedAt, EndedAt                 *time.Time
	EndReason, Credential              *string
	BlockedBy                          []string
	Account                            *struct{ GUID, Username string }
}

// leaseFixture has a role as that leases act, and the accounts manager, viewer and foreign.
func leaseFixture(t testing.TB, as string) *fixture {
	t.Helper()
	f := newFixture(t)
	f.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "a"})
	f.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "b"})
	f.Account(t, "foreign", account.DefaultScopes, nil)
	f.Access(t, f.ClusterID, []string{"team=a"}, []string{"team=b"})
	if _, _, err := f.Users.CreateUser(t.Context(), f.principal("manager"), f.ClusterID, as, rolePassword); err != nil {
		t.Fatal(err)
	}
	return f
}

// principal is the manager's.
func (f *fixture) principal(username string) *account.Principal {
	return &account.Principal{GUID: username, Username: username, Scopes: account.DefaultScopes,
		Labels: map[string]string{"team": "a"}}
}

// take takes a lease.
func (f *fixture) take(t testing.TB, username, body string) (l leaseResource) {
	t.Helper()
	a := f.as(t, username, "POST", "/clusters/"+f.ClusterID+"/leases", body)
	if a.Status != 201 {
		t.Fatalf("%s: got %d %s", body, a.Status, a.Body)
	}
	a.Into(t, &l)
	return l
}

// leases are the ids of a list, the newest first.
func leases(t testing.TB, a answer) (ids []string) {
	t.Helper()
	if a.Status != 200 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	var l struct{ Items []leaseResource }
	a.Into(t, &l)
	for _, item := range l.Items {
		ids = append(ids, item.ID)
	}
	return ids
}

// A lease is taken, seen, renewed and ended.
func TestLease(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "life_app")
	path := "/clusters/" + f.ClusterID + "/leases"
	a := f.as(t, "manager", "POST", path, `{"for":"life_app","ttl":"90s","maxTtl":"1h","note":"for a report"}`)
	if a.Status != 201 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	var l leaseResource
	a.Into(t, &l)
	if !strings.HasSuffix(a.Header.Get("Location"), "/rolecall/v1/leases/"+l.ID) {
		t.Errorf("Location is %q", a.Header.Get("Location"))
	}
	if l.Cluster != f.ClusterID || l.For != "life_app" || !strings.HasPrefix(l.Username, "life_app_") || l.State != "active" ||
		l.Note != "for a report" || l.Account == nil || l.Account.Username != "manager" || l.Credential != nil ||
		l.EndReason != nil || l.EndedAt != nil || l.RenewedAt != nil || l.BlockedBy == nil || len(l.BlockedBy) > 0 ||
		l.ExpiresAt.Sub(l.CreatedAt) != 90*time.Second || l.MaxExpiresAt.Sub(l.CreatedAt) != time.Hour {
		t.Errorf("got %s", a.Body)
	}
	u, err := url.Parse(l.Connection.URL)
	if err != nil || u.User.String() != l.Username || l.Connection.Port != f.PG.Port ||
		!slices.Contains(l.Connection.Databases, "postgres") {
		t.Errorf("the connection is %+v, %v", l.Connection, err)
	}
	conn := f.PG.Connect(t, l.Username, l.Password, "postgres")
	var as string
	if err := conn.QueryRow(t.Context(), `SELECT current_user`).Scan(&as); err != nil || as != "life_app" {
		t.Errorf("its session acts as %s, %v", as, err)
	}
	_ = conn.Close(t.Context())
	if strings.Contains(f.Log.String(), l.Password) {
		t.Error("the password is in the log")
	}

	for _, read := range []answer{
		f.as(t, "manager", "GET", "/leases/"+l.ID, ""), f.as(t, "viewer", "GET", "/leases/"+l.ID, ""),
		f.want(t, 200, "GET", "/leases/"+l.ID, ""),
	} {
		var shown leaseResource
		read.Into(t, &shown)
		if read.Status != 200 || shown.Username != l.Username || strings.Contains(read.Body, "password") {
			t.Errorf("read: %d %s", read.Status, read.Body)
		}
	}
	// The role is a database user like any other, and says which lease it is.
	var user struct {
		Lease *struct {
			ID, For   string
			ExpiresAt time.Time
		}
		MemberOf []string
	}
	f.as(t, "viewer", "GET", "/clusters/"+f.ClusterID+"/users/"+l.Username, "").Into(t, &user)
	if user.Lease == nil || user.Lease.ID != l.ID || user.Lease.For != "life_app" || !user.Lease.ExpiresAt.Equal(l.ExpiresAt) ||
		!slices.Equal(user.MemberOf, []string{"life_app"}) {
		t.Errorf("the user is %+v", user)
	}
	if a := f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/users/life_app", ""); !strings.Contains(a.Body, `"lease":null`) {
		t.Errorf("the role that it acts for is %s", a.Body)
	}

	var renewed leaseResource
	f.as(t, "manager", "POST", "/leases/"+l.ID+"/renew", `{"ttl":"30m"}`).Into(t, &renewed)
	if renewed.RenewedAt == nil || renewed.ExpiresAt.Sub(*renewed.RenewedAt) != 30*time.Minute {
		t.Errorf("renewed to %+v", renewed)
	}
	for _, body := range []string{"", `{}`} { // its first ttl is shorter: the end stays
		a := f.as(t, "manager", "POST", "/leases/"+l.ID+"/renew", body)
		var again leaseResource
		a.Into(t, &again)
		if a.Status != 200 || !again.ExpiresAt.Equal(renewed.ExpiresAt) {
			t.Errorf("renewed by %q: %d %s", body, a.Status, a.Body)
		}
	}
	f.want(t, 200, "POST", "/leases/"+l.ID+"/renew", `{"ttl":"3h"}`).Into(t, &renewed)
	if !renewed.ExpiresAt.Equal(l.MaxExpiresAt) {
		t.Errorf("renewed to %s, past %s", renewed.ExpiresAt, l.MaxExpiresAt)
	}
	f.want(t, 422, "POST", "/leases/"+l.ID+"/renew", `{"ttl":"3h"}`)

	f.want(t, 204, "DELETE", "/leases/"+l.ID, "")
	f.want(t, 204, "DELETE", "/leases/"+l.ID, "")
	f.do(t, "POST", "/leases/"+l.ID+"/renew", "").refused(t, 422, "has ended")
	var ended leaseResource
	f.as(t, "manager", "GET", "/leases/"+l.ID, "").Into(t, &ended)
	if ended.State != "ended" || ended.EndedAt == nil || ended.EndReason == nil || *ended.EndReason != "deleted" {
		t.Errorf("ended as %+v", ended)
	}
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/users/"+l.Username, "").refused(t, 404)
	if err := f.PG.Login(l.Username, l.Password); err == nil {
		t.Error("an ended lease logs in")
	}
}

// What something keeps from being dropped is answered with 200, and the reasons.
func TestLeaseBlocked(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "stuck_app")
	l := f.take(t, "manager", `{"for":"stuck_app"}`)
	f.PG.Exec(t, `ALTER ROLE `+l.Username+` CREATEROLE`) // so it is protected
	var blocked leaseResource
	f.want(t, 200, "DELETE", "/leases/"+l.ID, "").Into(t, &blocked)
	if blocked.State != "blocked" || len(blocked.BlockedBy) == 0 || blocked.EndReason == nil ||
		*blocked.EndReason != "deleted" ||
		blocked.EndedAt != nil {
		t.Errorf("got %+v", blocked)
	}
	if ids := leases(t, f.want(t, 200, "GET", "/leases?state=blocked", "")); !slices.Equal(ids, []string{l.ID}) {
		t.Errorf("blocked are %q", ids)
	}
	f.PG.Exec(t, `ALTER ROLE `+l.Username+` NOCREATEROLE`)
	f.want(t, 204, "DELETE", "/leases/"+l.ID, "")
}

// Who may do what.
func TestLeaseRights(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "right_app")
	f.Account(t, "second", account.DefaultScopes, map[string]string{"team": "a"})
	path := "/clusters/" + f.ClusterID + "/leases"
	const body = `{"for":"right_app"}`
	f.as(t, "", "POST", path, body).refused(t, 401)
	f.as(t, "viewer", "POST", path, body).refused(t, 403)
	f.as(t, "foreign", "POST", path, body).refused(t, 404)
	f.as(t, "manager", "POST", "/clusters/00000000-0000-0000-0000-000000000000/leases", body).refused(t, 404)
	f.as(t, "manager", "POST", path, fmt.Sprintf(`{"for":%q}`, f.PG.User)).refused(t, 403)

	l := f.take(t, "manager", body)
	one := "/leases/" + l.ID
	for username, want := range map[string]struct{ read, change int }{
		"": {401, 401}, "viewer": {200, 403}, "foreign": {404, 404}, "second": {200, 200}, "root": {200, 200},
	} {
		if a := f.as(t, username, "GET", one, ""); a.Status != want.read {
			t.Errorf("%s reads: %d %s", username, a.Status, a.Body)
		}
		if a := f.as(t, username, "POST", one+"/renew", ""); a.Status != want.change {
			t.Errorf("%s renews: %d %s", username, a.Status, a.Body)
		}
		if want.change != 200 {
			f.as(t, username, "DELETE", one, "").refused(t, want.change)
		}
	}
	for username, want := range map[string][]string{"manager": {l.ID}, "viewer": {l.ID}, "second": {l.ID}, "root": {l.ID},
		"foreign": nil} {
		if ids := leases(t, f.as(t, username, "GET", "/leases", "")); !slices.Equal(ids, want) {
			t.Errorf("%s sees %q", username, ids)
		}
	}
	f.as(t, "foreign", "GET", path, "").refused(t, 404)

	readOnly := f.token(t, "manager", `{"name":"ro","readOnly":true}`)
	f.with(t, readOnly, "POST", path, body).refused(t, 403, "read-only")
	if a := f.with(t, readOnly, "GET", one, ""); a.Status != 200 {
		t.Errorf("a read-only token reads: %d %s", a.Status, a.Body)
	}
	f.with(t, readOnly, "POST", one+"/renew", "").refused(t, 403, "read-only")
	f.with(t, readOnly, "DELETE", one, "").refused(t, 403, "read-only")
	reads := f.principal("manager") // as with an access token that was asked for with this scope alone
	reads.GUID, reads.Scopes = l.Account.GUID, []string{account.ScopeRead}
	if _, _, _, err := f.Users.RenewLease(t.Context(), reads, l.ID, 0); !fault.Is(err, fault.Forbidden) {
		t.Errorf("a token that reads renews: %v", err)
	}
	if _, _, err := f.Users.EndLease(t.Context(), reads, l.ID); !fault.Is(err, fault.Forbidden) {
		t.Errorf("a token that reads ends it: %v", err)
	}

	// What was its own is its own, also when the account has lost the cluster.
	f.Access(t, f.ClusterID, nil, nil)
	f.as(t, "second", "GET", one, "").refused(t, 404)
	if a := f.as(t, "manager", "GET", one, ""); a.Status != 200 {
		t.Errorf("its own: %d %s", a.Status, a.Body)
	}
	if ids := leases(t, f.as(t, "manager", "GET", "/leases", "")); !slices.Equal(ids, []string{l.ID}) {
		t.Errorf("its own are %q", ids)
	}
	if a := f.as(t, "manager", "DELETE", one, ""); a.Status != 204 {
		t.Errorf("its own ends: %d %s", a.Status, a.Body)
	}
}

// What a lease is not taken with leaves nothing.
func TestLeaseRefused(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "refused_app")
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"leases":{"defaultTtl":"10m","maxTtl":"2h","maxPerAccount":2}}`)
	path := "/clusters/" + f.ClusterID + "/leases"
	with := func(field string) string { return `{"for":"refused_app",` + field + `}` }
	for body, status := range map[string]int{
		``: 400, `{`: 400, `{"for":"refused_app","for":"x"}`: 400,
		`[]`: 422, `{}`: 422, `{"for":null}`: 422, `{"for":7}`: 422, `{"for":""}`: 422, `{"for":"no_such_role"}`: 422,
		`{"for":"a\u0000b"}`: 422, `{"for":"` + strings.Repeat("é", 40) + `"}`: 422,
		with(`"ttl":"0s"`): 422, with(`"ttl":"-1s"`): 422, with(`"ttl":"999ms"`): 422, with(`"ttl":60`): 422,
		with(`"ttl":""`): 422, with(`"ttl":"1w"`): 422, with(`"ttl":null`): 422, with(`"ttl":"121m"`): 422,
		with(`"maxTtl":"121m"`): 422, with(`"maxTtl":"0"`): 422, with(`"ttl":"1h","maxTtl":"59m"`): 422,
		with(`"maxTtl":3600`): 422, with(`"note":7`): 422, with(`"note":"` + strings.Repeat("x", 201) + `"`): 422,
		with(`"note":"a\nb"`): 422, with(`"TTL":"1h"`): 422, with(`"password":"mine"`): 422,
	} {
		f.as(t, "manager", "POST", path, body).refused(t, status)
	}
	f.as(t, "manager", "POST", path, `{"for":"refused_app"}`, "Content-Type: text/plain").refused(t, 415)
	f.as(t, "manager", "POST", path, `{"for":"`+strings.Repeat("x", 70<<10)+`"}`).refused(t, 413)
	f.as(t, "manager", "POST", path+"?x=1", `{"for":"refused_app"}`).refused(t, 400)
	f.as(t, "manager", "POST", path, `{"for":"pg_monitor"}`).refused(t, 403, "system role")
	f.as(t, "manager", "POST", path, with(`"ttl":"0"`)).refused(t, 422, "ttl is 0s")
	f.as(t, "manager", "POST", path, with(`"ttl":"121m"`)).refused(t, 422, "2h1m", "at most 2h.")
	if ids := leases(t, f.want(t, 200, "GET", "/leases", "")); len(ids) > 0 {
		t.Errorf("there are %q", ids)
	}

	first := f.take(t, "manager", `{"for":"refused_app"}`)
	if first.ExpiresAt.Sub(first.CreatedAt) != 10*time.Minute || first.MaxExpiresAt.Sub(first.CreatedAt) != 2*time.Hour {
		t.Errorf("the limits of the cluster give %+v", first)
	}
	f.as(t, "manager", "POST", path, fmt.Sprintf(`{"for":%q}`, first.Username)).refused(t, 422)
	f.take(t, "manager", with(`"maxTtl":"5m"`))
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"leases":{"maxPerAccount":1}}`)
	f.as(t, "manager", "POST", path, `{"for":"refused_app"}`).refused(t, 422, "2 leases", "the limit is 1.")
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"leases":{"maxPerAccount":2}}`)
	f.as(t, "manager", "DELETE", "/clusters/"+f.ClusterID+"/users/refused_app", "").refused(t, 422, first.Username)
	f.take(t, "root", `{"for":"refused_app"}`)
	f.want(t, 204, "DELETE", "/leases/"+first.ID, "")
	l := f.take(t, "manager", `{"for":"refused_app","ttl":"1h"}`)

	renew := "/leases/" + l.ID + "/renew"
	for body, status := range map[string]int{
		`{`: 400, `[]`: 422, `{"ttl":"0s"}`: 422, `{"ttl":"-1h"}`: 422, `{"ttl":3600}`: 422, `{"ttl":null}`: 422, `{"x":1}`: 422,
	} {
		f.do(t, "POST", renew, body).refused(t, status)
	}
	for _, id := range []string{"x", "00000000-0000-0000-0000-000000000000", strings.ReplaceAll(l.ID, "-", ""), "%00"} {
		f.do(t, "GET", "/leases/"+id, "").refused(t, 404)
		f.do(t, "POST", "/leases/"+id+"/renew", "").refused(t, 404)
		f.do(t, "DELETE", "/leases/"+id, "").refused(t, 404)
	}
	// A leased role is not changed, but by its lease.
	user := "/clusters/" + f.ClusterID + "/users/" + l.Username
	f.do(t, "PATCH", user, `{"validUntil":null}`).refused(t, 422)
	f.do(t, "PUT", user+"/roles", `{"roles":[]}`).refused(t, 422)
	f.want(t, 200, "PATCH", user, `{"connectionLimit":3}`)
	f.want(t, 200, "PATCH", user, `{"endSessions":true}`)
	f.want(t, 204, "DELETE", user, "")
	var ended leaseResource
	f.want(t, 200, "GET", "/leases/"+l.ID, "").Into(t, &ended)
	if ended.State != "ended" || *ended.EndReason != "deleted" {
		t.Errorf("a lease whose user was deleted is %+v", ended)
	}
}

// Lists are filtered, and paged, the newest first.
func TestLeaseList(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "list_app")
	f.Account(t, "second", account.DefaultScopes, map[string]string{"team": "a"})
	administrator, _ := servicetest.Administrator(t, f.PG)
	f.PG.Exec(t, `SET ROLE `+administrator+`; CREATE ROLE list_group; RESET ROLE`) // who made it may grant it
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"grantable":["list_group"]}`)
	var all []string
	for _, taken := range [][2]string{
		{"manager", `{"for":"list_app","ttl":"5m"}`}, {"second", `{"for":"list_group","ttl":"2h"}`},
		{"manager", `{"for":"list_group","ttl":"2h"}`},
	} {
		all = append([]string{f.take(t, taken[0], taken[1]).ID}, all...)
	}
	f.want(t, 204, "DELETE", "/leases/"+all[1], "")
	var second leaseResource
	f.want(t, 200, "GET", "/leases/"+all[1], "").Into(t, &second)
	soon := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	for query, want := range map[string][]string{
		"": all, "limit=1000": all, "account=manager": {all[0], all[2]}, "account=" + second.Account.GUID: {all[1]},
		"account=nobody": nil, "for=list_app": {all[2]}, "for=list_group": {all[0], all[1]}, "for=no_such": nil,
		"state=active": {all[0], all[2]}, "state=ended": {all[1]}, "state=ended&state=active": all,
		"state=ending&state=blocked": nil, "expiresBefore=" + soon: {all[2]}, "expiresBefore=2000-01-01": nil,
		"expiresBefore=9999-01-01": all, "account=manager&for=list_group&state=active": {all[0]},
	} {
		for _, path := range []string{"/leases", "/clusters/" + f.ClusterID + "/leases"} {
			if got := leases(t, f.want(t, 200, "GET", path+"?"+query, "")); !slices.Equal(got, want) {
				t.Errorf("%s?%s: got %q, want %q", path, query, got, want)
			}
		}
	}
	for _, query := range []string{"state=x", "state=", "state=active&state=x", "account=", "for=", "for=%00", "account=%FF",
		"expiresBefore=", "expiresBefore=x", "expiresBefore=7d", "limit=x", "cursor=x", "cursor=", "cursor=YQ", "x=1",
		"for=a&for=b"} {
		for _, path := range []string{"/leases", "/clusters/" + f.ClusterID + "/leases"} {
			f.do(t, "GET", path+"?"+query, "").refused(t, 400)
		}
	}
	f.do(t, "GET", "/leases?limit=0", "").refused(t, 422)
	var paged []string
	for cursor := ""; ; {
		var l struct {
			Items []leaseResource
			Next  *string
		}
		if err := json.Unmarshal([]byte(f.want(t, 200, "GET", "/leases?limit=1"+cursor, "").Body), &l); err != nil ||
			len(l.Items) != 1 {
			t.Fatal(l, err)
		}
		paged = append(paged, l.Items[0].ID)
		if l.Next == nil {
			break
		}
		cursor = "&cursor=" + *l.Next
	}
	if !slices.Equal(paged, all) {
		t.Errorf("the pages have %q, want %q", paged, all)
	}
}
