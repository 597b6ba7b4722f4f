package vaultapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/task"
)

// leaseFixture is a fixture whose cluster the team "leases" manages, and the team "readers" views, with a role to lease.
func leaseFixture(t testing.TB) (f *fixture, role string) {
	t.Helper()
	f = newFixture(t)
	f.Access(t, f.ClusterID, []string{"team=leases"}, []string{"team=readers"})
	role = unique("app")
	f.role(t, role)
	return f, role
}

func (f *fixture) role(t testing.TB, name string) {
	t.Helper()
	if _, _, err := f.Users.CreateUser(t.Context(), &account.Principal{GUID: "test", Scopes: account.AdminScopes}, f.ClusterID,
		name, "password of the role"); err != nil {
		t.Fatal(err)
	}
}

// take takes a lease.
func (f *fixture) take(t testing.TB, token, role string) envelope {
	t.Helper()
	return f.send(t, token, "GET", "/main/creds/"+url.PathEscape(role), "").envelope(t)
}

// logsIn reports whether credentials are accepted by the cluster, and as whom their sessions act.
func (f *fixture) logsIn(t testing.TB, e envelope) (as string) {
	t.Helper()
	user, password := e.Data["username"].(string), e.Data["password"].(string)
	if f.PG.Login(user, password) != nil {
		return ""
	}
	conn := f.PG.Connect(t, user, password, "postgres")
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), `SELECT current_user`).Scan(&as); err != nil {
		t.Fatal(err)
	}
	return as
}

func body(id string, more string) string { return fmt.Sprintf(`{"lease_id":%q%s}`, id, more) }

// A lease is taken, shown, renewed and ended, on every path that there is for it.
func TestLease(t *testing.T) {
	f, role := leaseFixture(t)
	guid, _, manager := f.person(t, "leases")
	e := f.take(t, manager, role)
	mount, rest, _ := strings.Cut(e.LeaseID, "/creds/"+role+"/")
	if mount != "main" || uuid.Validate(rest) != nil || !e.Renewable || e.LeaseDuration != 3600 || e.Auth != nil ||
		len(e.Data) != 2 || e.Warnings != nil || uuid.Validate(e.RequestID) != nil {
		t.Errorf("got %+v", e)
	}
	if as := f.logsIn(t, e); as != role {
		t.Errorf("its session acts as %q", as)
	}
	if strings.Contains(f.Log.String(), e.Data["password"].(string)) {
		t.Error("the password is in the log")
	}
	again := f.send(t, manager, "GET", "/"+f.ClusterID+"/creds/"+role, "").envelope(t)
	if !strings.HasPrefix(again.LeaseID, f.ClusterID+"/creds/"+role+"/") || again.Data["username"] == e.Data["username"] {
		t.Errorf("by the id of the cluster: %+v", again)
	}

	look := func() map[string]any {
		t.Helper()
		byBody := f.send(t, manager, "PUT", "/sys/leases/lookup", body(e.LeaseID, "")).envelope(t)
		byPath := f.send(t, manager, "POST", "/sys/leases/lookup/"+e.LeaseID, "").envelope(t)
		if byBody.Data["id"] != e.LeaseID || byPath.Data["expire_time"] != byBody.Data["expire_time"] {
			t.Errorf("got %v and %v", byBody.Data, byPath.Data)
		}
		return byBody.Data
	}
	shown := look()
	expires, err := time.Parse(time.RFC3339, shown["expire_time"].(string))
	if err != nil || shown["renewable"] != true || shown["last_renewal"] != nil || shown["ttl"].(float64) < 3500 {
		t.Errorf("got %v, %v", shown, err)
	}

	for request, want := range map[string]int{
		"PUT /sys/leases/renew " + body(e.LeaseID, ""):                      3600,
		"PUT /sys/leases/renew " + body(e.LeaseID, `,"increment":"0.5s"`):   1,
		"PUT /sys/leases/renew " + body(e.LeaseID, `,"increment":7200`):     7200,
		"POST /sys/leases/renew " + body(e.LeaseID, `,"increment":"2h30m"`): 9000,
		"PUT /sys/renew " + body(e.LeaseID, `,"increment":"10800"`):         10800,
		"PUT /sys/leases/renew/" + e.LeaseID + ` {"increment":10900}`:       10900,
		"POST /sys/renew/" + e.LeaseID + ` {"increment":11000}`:             11000,
	} {
		method, rest, _ := strings.Cut(request, " ")
		path, sent, _ := strings.Cut(rest, " ")
		renewed := f.send(t, manager, method, path, sent).envelope(t)
		// Another request of these may have asked for more before: a renewal never shortens.
		if renewed.LeaseID != e.LeaseID || !renewed.Renewable || renewed.LeaseDuration < want || renewed.LeaseDuration > 11000 ||
			renewed.Data != nil || renewed.Warnings != nil {
			t.Errorf("%s: %+v", request, renewed)
		}
	}
	later := look()
	if at, err := time.Parse(time.RFC3339, later["expire_time"].(string)); err != nil || !at.After(expires.Add(time.Hour)) ||
		later["last_renewal"] == nil {
		t.Errorf("got %v, %v", later, err)
	}
	// Beyond its last end the renewal is cut, also the second time.
	for range 2 {
		cut := f.send(t, manager, "PUT", "/sys/leases/renew", body(e.LeaseID, `,"increment":"90h"`)).envelope(t)
		if cut.LeaseDuration > 86400 || cut.LeaseDuration < 86300 || len(cut.Warnings) != 1 || !cut.Renewable {
			t.Errorf("got %+v", cut)
		}
	}
	if last := look(); last["renewable"] != false {
		t.Errorf("got %v", last)
	}
	for _, increment := range []string{"-1", `"x"`, "true", "1.5"} {
		f.send(t, manager, "PUT", "/sys/leases/renew", body(e.LeaseID, `,"increment":`+increment)).want(t, 400, "increment")
	}
	for _, path := range []string{"/sys/leases/renew", "/sys/leases/revoke", "/sys/leases/lookup"} {
		for _, sent := range []string{"", "{}", `{"lease_id":""}`} {
			f.send(t, manager, "PUT", path, sent).want(t, 400, "missing lease_id")
		}
		f.send(t, manager, "PUT", path, `{"lease_id":1}`).want(t, 400, "lease_id")
	}

	f.send(t, manager, "PUT", "/sys/leases/revoke/"+e.LeaseID, `{"sync":false}`).want(t, 204)
	if as := f.logsIn(t, e); as != "" {
		t.Errorf("it logs in after its end, as %s", as)
	}
	for _, path := range []string{"/sys/leases/revoke", "/sys/revoke"} {
		f.send(t, manager, "PUT", path, body(e.LeaseID, "")).want(t, 204)
	}
	f.send(t, manager, "PUT", "/sys/leases/renew", body(e.LeaseID, "")).want(t, 400, "lease not found")
	f.send(t, manager, "PUT", "/sys/leases/lookup", body(e.LeaseID, "")).want(t, 400, "invalid lease")
	if as := f.logsIn(t, again); as != role {
		t.Errorf("the other lease acts as %q", as)
	}
	f.send(t, manager, "POST", "/sys/revoke/"+again.LeaseID, "").want(t, 204)
	rows := 0
	for _, row := range f.AuditRows(t, e.Data["username"].(string)) {
		if row.Account == guid {
			rows++
		}
	}
	if rows < 3 {
		t.Errorf("the audit log has %d rows of the lease by its account", rows)
	}
}

// The id of a lease names its role, too. What is no such id, is the id of no lease.
func TestForeignLeaseIDs(t *testing.T) {
	f, role := leaseFixture(t)
	_, _, manager := f.person(t, "leases")
	e := f.take(t, manager, role)
	id := e.LeaseID[strings.LastIndexByte(e.LeaseID, '/')+1:]
	for _, wrong := range []string{"x", id, "/" + id, "main/creds/" + id, "main/creds/other/" + id, "main/creds/" + role + "/",
		"main/creds/" + role + "/" + uuid.NewString(), "main/creds/" + role + "/" + strings.ToUpper(id),
		"main/creds/" + role + "/{" + id + "}", e.LeaseID + "/", e.LeaseID + "x"} {
		f.send(t, manager, "PUT", "/sys/leases/renew", body(wrong, "")).want(t, 400, "lease not found")
		f.send(t, manager, "PUT", "/sys/leases/lookup", body(wrong, "")).want(t, 400, "invalid lease")
		f.send(t, manager, "PUT", "/sys/leases/revoke", body(wrong, "")).want(t, 204)
	}
	if as := f.logsIn(t, e); as != role {
		t.Errorf("it acts as %q", as)
	}
	// The body takes precedence over the path.
	f.send(t, manager, "PUT", "/sys/leases/lookup/x", body(e.LeaseID, "")).want(t, 200)
	f.send(t, manager, "PUT", "/sys/leases/lookup/"+e.LeaseID, body("x", "")).want(t, 400)
}

// Names with anything in them, as a client escapes them or does not.
func TestOddRoles(t *testing.T) {
	f, _ := leaseFixture(t)
	_, _, manager := f.person(t, "leases")
	for _, role := range []string{unique("a/b"), unique("a b"), unique("ä%2F"), unique("creds")} {
		f.role(t, role)
		e := f.take(t, manager, role)
		if as := f.logsIn(t, e); as != role {
			t.Errorf("%s acts as %q", role, as)
		}
		if !strings.HasPrefix(e.LeaseID, "main/creds/"+role+"/") {
			t.Errorf("got %s", e.LeaseID)
		}
		escaped := (&url.URL{Path: e.LeaseID}).EscapedPath()
		f.send(t, manager, "PUT", "/sys/leases/renew/"+escaped, "").want(t, 200)
		f.send(t, manager, "PUT", "/sys/leases/revoke", body(e.LeaseID, "")).want(t, 204)
		if as := f.logsIn(t, e); as != "" {
			t.Errorf("%s acts as %q after its end", role, as)
		}
	}
	slashed := unique("a/b")
	f.role(t, slashed)
	f.send(t, manager, "GET", "/main/creds/"+slashed, "").want(t, 200) // not escaped
}

// Who may do what, and in which order that is found out.
func TestLeaseRights(t *testing.T) {
	f, role := leaseFixture(t)
	_, _, manager := f.person(t, "leases")
	_, _, colleague := f.person(t, "leases")
	_, _, reader := f.person(t, "readers")
	_, _, stranger := f.person(t, "none")
	f.send(t, reader, "GET", "/main/creds/"+role, "").want(t, 403, "permission denied")
	f.send(t, reader, "GET", "/main/creds/no-such", "").want(t, 403, "permission denied")
	f.send(t, stranger, "GET", "/main/creds/"+role, "").want(t, 404)
	f.send(t, manager, "GET", "/main/creds/no-such", "").want(t, 400, "unknown role: no-such")
	for _, odd := range []string{strings.Repeat("x", 64), strings.Repeat("%80", 60), "a%00b"} { // no role has such a name
		f.send(t, manager, "GET", "/main/creds/"+odd, "").want(t, 400, "unknown role: ")
		f.send(t, reader, "GET", "/main/creds/"+odd, "").want(t, 403, "permission denied")
	}
	if a := f.send(t, manager, "HEAD", "/main/creds/"+role, ""); a.Status != 404 {
		t.Errorf("HEAD: got %d", a.Status)
	}
	f.send(t, manager, "GET", "/main/creds/"+f.PG.User, "").want(t, 403, "permission denied", "system role")
	e := f.take(t, manager, role)
	f.send(t, manager, "GET", "/main/creds/"+e.Data["username"].(string), "").want(t, 400, "is a lease itself")

	f.send(t, reader, "PUT", "/sys/leases/lookup", body(e.LeaseID, "")).want(t, 200)
	f.send(t, reader, "PUT", "/sys/leases/renew", body(e.LeaseID, "")).want(t, 403, "permission denied")
	f.send(t, reader, "PUT", "/sys/leases/revoke", body(e.LeaseID, "")).want(t, 403, "permission denied")
	f.send(t, stranger, "PUT", "/sys/leases/lookup", body(e.LeaseID, "")).want(t, 400, "invalid lease")
	f.send(t, stranger, "PUT", "/sys/leases/renew", body(e.LeaseID, "")).want(t, 400, "lease not found")
	f.send(t, stranger, "PUT", "/sys/leases/revoke", body(e.LeaseID, "")).want(t, 204)
	if as := f.logsIn(t, e); as != role {
		t.Errorf("it acts as %q", as)
	}
	f.send(t, colleague, "PUT", "/sys/leases/renew", body(e.LeaseID, "")).want(t, 200)
	f.send(t, colleague, "PUT", "/sys/leases/revoke", body(e.LeaseID, "")).want(t, 204)
}

// A token that is ended by its holder takes its leases with it, and no others of its account.
func TestRevokeSelfEndsLeases(t *testing.T) {
	f, role := leaseFixture(t)
	_, username, one := f.person(t, "leases")
	two := f.send(t, "", "PUT", "/auth/userpass/login/"+username, `{"password":"`+username+`-password"}`).envelope(t).
		Auth.ClientToken
	access, err := f.id.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ends, endsToo, stays := f.take(t, one, role), f.take(t, access, role), f.take(t, two, role)
	for _, token := range []string{one, access} {
		p, err := f.id.Authenticate(t.Context(), identity.ParseCredential("Bearer "+token), f.address)
		if err != nil {
			t.Fatal(err)
		}
		f.send(t, token, "PUT", "/auth/token/revoke-self", "").want(t, 204)
		// A request that was authenticated before makes no lease, which nothing would end.
		if _, _, _, err := f.Users.CreateLease(t.Context(), p, f.ClusterID, dbuser.NewLease{For: role}); !fault.Is(err,
			fault.Forbidden) {
			t.Errorf("the token that was revoked makes a lease: %v", err)
		}
		f.send(t, token, "GET", "/auth/token/lookup-self", "").want(t, 403, "permission denied")
	}
	ctx, stop := context.WithCancel(t.Context())
	worker := &task.Worker{DB: f.DB, Log: slog.New(slog.NewTextHandler(f.Log, nil)), Kinds: f.Users.Tasks(),
		Every: 10 * time.Millisecond}
	done := make(chan struct{})
	go func() { defer close(done); worker.Run(ctx) }()
	for _, e := range []envelope{ends, endsToo} {
		for f.PG.Login(e.Data["username"].(string), e.Data["password"].(string)) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	stop()
	<-done
	if as := f.logsIn(t, stays); as != role {
		t.Errorf("the lease of the other token acts as %q", as)
	}
	f.send(t, two, "PUT", "/sys/leases/lookup", body(ends.LeaseID, "")).want(t, 400, "invalid lease")
	f.send(t, two, "PUT", "/sys/leases/revoke", body(stays.LeaseID, "")).want(t, 204)
}
