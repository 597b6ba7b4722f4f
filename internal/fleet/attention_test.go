package fleet_test

import (
	"os"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/fleet"
)

// What needs attention is counted in the clusters that one may view, and those that do not answer are named.
func TestUserAttention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fleet.Limit = time.Minute
	soon, later := time.Now().Add(24*time.Hour), time.Now().Add(30*24*time.Hour)
	w.make(t,
		user{cluster: "B", name: "soon", validUntil: soon},
		user{cluster: "a", name: "soon", validUntil: soon},
		user{cluster: "a", name: "later", validUntil: later},
		user{cluster: "a", name: "over", validUntil: time.Now().Add(-time.Hour)},
		user{cluster: "a", name: "leased", validUntil: soon, lease: true, createdBy: "g"},
		user{cluster: "b", name: "hashed", md5: true},
		user{cluster: "a", name: "off", state: "disabled", createdBy: "g"},
		user{cluster: "b", name: "half", state: "deleting", createdBy: "g"},
	)
	before := time.Now()
	a, err := w.Fleet.UserAttention(t.Context(), admin)
	if err != nil || len(a.Unreachable) != 0 {
		t.Fatalf("%+v %v", a, err)
	}
	if a.ExpiresBefore.Before(before.Add(fleet.ExpiresSoon-time.Minute)) ||
		a.ExpiresBefore.After(time.Now().Add(fleet.ExpiresSoon)) {
		t.Errorf("users expire soon that do before %s", a.ExpiresBefore)
	}
	want := fleet.UserAttention{Expiring: fleet.Count{N: 2}, MD5: fleet.Count{N: 1}, Disabled: fleet.Count{N: 1},
		HalfDeleted: fleet.Count{N: 1}, WithoutAny: fleet.Count{N: 4}, ExpiresBefore: a.ExpiresBefore} // soon, soon, later, leased
	if os.Getenv("ROLECALL_TEST_ADMINISTRATOR") == "least" { // it may not see what kind of password a user has
		want.MD5, want.WithoutAny = fleet.Count{}, fleet.Count{}
	}
	if got := *a; got.Expiring != want.Expiring || got.MD5 != want.MD5 || got.Disabled != want.Disabled ||
		got.HalfDeleted != want.HalfDeleted || got.WithoutAny != want.WithoutAny || got.ChangedOutside.N != 0 {
		t.Errorf("got %+v, want %+v", got, want)
	}

	viewer := &account.Principal{GUID: "v", Scopes: []string{account.ScopeRead}, Labels: map[string]string{"team": "b"}}
	w.Access(t, w.ids["b"], nil, []string{"team=b"})
	if a, err = w.Fleet.UserAttention(t.Context(), viewer); err != nil || a.Expiring.N != 0 || a.HalfDeleted.N != 1 {
		t.Errorf("the viewer of b sees %+v %v", a, err)
	}
	nobody := &account.Principal{GUID: "n", Scopes: []string{account.ScopeRead}}
	if a, err = w.Fleet.UserAttention(t.Context(), nobody); err != nil || a.HalfDeleted.N != 0 || len(a.Unreachable) != 0 {
		t.Errorf("nobody sees %+v %v", a, err)
	}

	w.servers["b"].Stop(t)
	w.Fleet.Limit = 8 * time.Second // time for the others, on a busy machine as well
	start := time.Now()
	a, err = w.Fleet.UserAttention(t.Context(), admin)
	if err != nil || a.Expiring.N != 2 || len(a.Unreachable) != 1 || a.Unreachable[0].Cluster.DisplayName != "b" {
		t.Errorf("with b unreachable: %+v %v", a, err)
	}
	if took := time.Since(start); took > 30*time.Second { // the limit, and what a busy machine adds
		t.Errorf("it took %s", took)
	}
}

// What the control database knows needs no answer of a cluster.
func TestAttention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := w.DB.Pool.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	a, err := w.Fleet.Attention(ctx, admin)
	if err != nil || a.Viewable != 3 || a.Audit != nil || a.Running != 0 || a.Failed != 0 ||
		a.Steps == nil || !a.Steps.Registered || a.Steps.Labeled || len(a.BlockedLeases)+len(a.FailingCredentials) != 0 {
		t.Fatalf("at first: %+v %v", a, err)
	}
	p := manager(t, w.Service, "steps")
	w.Access(t, w.ClusterID, []string{"team=shop"}, nil)
	if a, err = w.Fleet.Attention(ctx, admin); err != nil || a.Steps == nil || !a.Steps.Labeled {
		t.Fatalf("with a label: %+v %v", a, err)
	}
	create(t, w.Service, p, "first")
	if _, err := w.Audit.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	if a, err = w.Fleet.Attention(ctx, admin); err != nil || a.Steps != nil {
		t.Fatalf("with a user: %+v %v", a.Steps, err)
	}

	_, l, _, err := w.Users.CreateLease(ctx, p, w.ClusterID, dbuser.NewLease{For: "first"})
	if err != nil {
		t.Fatal(err)
	}
	exec(`UPDATE leases SET state = 'blocked', end_reason = 'expired', blocked_by = '{It owns.}' WHERE id = $1`, l.ID)
	daily := dbuser.CredentialSettings{For: "first", RotateEvery: 24 * time.Hour, Overlap: time.Hour}
	if _, _, _, err := w.Users.PutCredential(ctx, p, w.ClusterID, "stored", daily, nil); err != nil {
		t.Fatal(err)
	}
	exec(`UPDATE credentials SET last_error = 'It does not rotate.'`)
	id := start(t, w.Service, p, fleet.Request{Action: fleet.Disable, Targets: targets(w.Service, "first")})
	mine := func(who *account.Principal) *fleet.Attention {
		t.Helper()
		a, err := w.Fleet.Attention(ctx, who)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, a := range map[string]*fleet.Attention{"the manager": mine(p), "an admin": mine(admin)} {
		if len(a.BlockedLeases) != 1 || a.BlockedLeases[0].N != 1 || len(a.FailingCredentials) != 1 || a.Running != 1 ||
			a.Failed != 0 {
			t.Errorf("%s sees %+v", name, a)
		}
	}
	if a := mine(p); a.Viewable != 1 || a.Steps != nil || a.Audit != nil {
		t.Errorf("the manager of one cluster sees %+v", a)
	}
	other := &account.Principal{GUID: "other", Scopes: account.DefaultScopes}
	if a := mine(other); a.Viewable+a.Running+a.Failed+len(a.BlockedLeases)+len(a.FailingCredentials) != 0 {
		t.Errorf("somebody else sees %+v", a)
	}
	exec(`UPDATE operations SET state = 'done', ended_at = clock_timestamp() WHERE id = $1`, id)
	exec(`UPDATE operation_parts SET failed = 1 WHERE operation_id = $1`, id)
	if a := mine(p); a.Running != 0 || a.Failed != 1 {
		t.Errorf("after it has failed for a user: %+v", a)
	}
	for filter, want := range map[fleet.OperationFilter]int{{}: 1, {State: "running"}: 0, {State: "done"}: 1,
		{Failures: true}: 1, {State: "done", Failures: true}: 1, {State: "failed"}: 0} {
		if found, _, err := w.Fleet.Operations(ctx, p, filter, l.Token, 10); err != nil || len(found) != want {
			t.Errorf("%+v: %d operations %v", filter, len(found), err)
		}
	}
	exec(`UPDATE operations SET ended_at = clock_timestamp() - $1::interval`, fleet.FailedLately)
	if a := mine(p); a.Failed != 0 {
		t.Errorf("long after that: %+v", a)
	}

	w.servers["a"].Stop(t)
	for _, c := range w.Clusters.All() {
		c.Health(ctx)
	}
	if a := mine(admin); len(a.Unreachable) != 1 || a.Unreachable[0].DisplayName != "a" {
		t.Errorf("with a stopped: %+v", a)
	}
	exec(`UPDATE clusters SET capabilities = '{"Problems": ["It may not."]}' WHERE id = $1`, w.ids["b"])
	if err := w.Clusters.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if a := mine(admin); len(a.Limited) != 1 || a.Limited[0].DisplayName != "b" {
		t.Errorf("with problems in b: %+v", a.Limited)
	}
}

// A log that nobody verifies needs attention, and no longer once somebody does.
func TestAuditAttention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	attention := func() *fleet.AuditAttention {
		t.Helper()
		a, err := w.Fleet.Attention(ctx, admin)
		if err != nil {
			t.Fatal(err)
		}
		return a.Audit
	}
	if _, err := w.Audit.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	if a := attention(); a != nil {
		t.Fatalf("at first: %+v", a)
	}
	if v, err := w.Audit.Verify(ctx, audit.Point{}); err != nil || v.Problem != nil {
		t.Fatal(v, err)
	}
	_, last, err := w.Audit.Unverified(ctx)
	if err != nil || time.Since(last) > time.Hour {
		t.Fatalf("it was verified at %s %v", last, err)
	}
	if _, err := w.DB.Pool.Exec(ctx, `
		UPDATE watermarks SET time = time - interval '8 days' WHERE name = 'audit verified'`); err != nil {
		t.Fatal(err)
	}
	if a := attention(); a == nil || !a.Unverified || a.LastVerified.IsZero() || a.Unsealed != 0 {
		t.Errorf("after eight days: %+v", a)
	}
	auditor := &account.Principal{GUID: "a", Scopes: []string{account.ScopeAuditor}}
	if a, err := w.Fleet.Attention(ctx, auditor); err != nil || a.Audit == nil || a.Steps != nil {
		t.Errorf("an auditor sees %+v %v", a, err)
	}
	if _, err := w.Audit.Verify(ctx, audit.Point{}); err != nil {
		t.Fatal(err)
	}
	if a := attention(); a != nil {
		t.Errorf("after it was verified: %+v", a)
	}
}
