package adminapi_test

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

// offboarding is a report or a plan as a client reads it.
type offboarding struct {
	ID, Operation, OperationState *string
	CreatedAt                     *time.Time
	By                            *struct{ GUID, Username string }
	Account                       struct {
		GUID, Username, Origin string
		Active, OAuthClient    bool
	}
	Users []struct {
		Cluster                       struct{ ID, DisplayName string }
		Username, Why, Action, Detail string
		State                         *string
		ValidUntil                    *time.Time
		PasswordChangedOutside        *bool
	}
	Leases   []struct{ ID, Username, For string }
	Tokens   []struct{ ID, Name string }
	Sessions []struct {
		Client string
		Count  int
	}
	Credentials []struct {
		Cluster  struct{ ID, DisplayName string }
		Name     string
		Made     bool
		ReadAt   *time.Time
		Username *string
	}
	Verifiers []struct {
		Cluster struct{ DisplayName string }
		Users   []string
	}
	Unreachable []struct {
		Cluster struct{ ID, DisplayName string }
		Error   string
	}
	ExpiresAt, AuditSince *time.Time
}

// listed are the users as cluster/name why action.
func (o *offboarding) listed() string {
	var users []string
	for _, u := range o.Users {
		users = append(users, fmt.Sprintf("%s/%s %s %s", u.Cluster.DisplayName, u.Username, u.Why, u.Action))
	}
	return strings.Join(users, ", ")
}

// leavers has the account leaver, an admin of the cluster and no more, and its helper other.
func leavers(t testing.TB) (f *fixture, guid string) {
	t.Helper()
	f = newFixture(t)
	guid = f.Account(t, "leaver", account.DefaultScopes, map[string]string{"team": "a"})
	f.Account(t, "other", account.DefaultScopes, map[string]string{"team": "a"})
	f.Access(t, f.ClusterID, []string{"team=a"}, nil)
	return f, guid
}

// makes has an account make a database user.
func (f *fixture) makes(t testing.TB, username, cluster, name string) {
	t.Helper()
	t.Cleanup(func() { f.PG.Exec(t, `DROP ROLE IF EXISTS "`+name+`"`) })
	a := f.as(t, username, "POST", "/clusters/"+cluster+"/users", fmt.Sprintf(`{"username":%q,"password":"first password"}`,
		name))
	if a.Status != http.StatusCreated {
		t.Fatalf("%s makes %s: %d %s", username, name, a.Status, a.Body)
	}
}

// sets has an account set the password of a database user.
func (f *fixture) sets(t testing.TB, username, cluster, name string) {
	t.Helper()
	a := f.as(t, username, "POST", "/clusters/"+cluster+"/users/"+name+"/password", `{"password":"another password"}`)
	if a.Status != http.StatusOK {
		t.Fatalf("%s sets the password of %s: %d %s", username, name, a.Status, a.Body)
	}
}

// offboards offboards an account, or plans to.
func (f *fixture) offboards(t testing.TB, guid, query, body string) (o offboarding) {
	t.Helper()
	f.want(t, 200, "POST", "/accounts/"+guid+"/offboard"+query, body).Into(t, &o)
	return o
}

// The users whose passwords an account still knows are listed, whoever made them, under whatever name they have now.
func TestOffboardingFindsUsers(t *testing.T) {
	t.Parallel()
	f, guid := leavers(t)
	c := f.ClusterID
	for _, name := range []string{"off_made", "off_reset", "off_gone", "off_again", "off_sql", "off_old", "off_limits",
		"off_deleted",
		"off_lost", "off_lost_set", "off_protected", "off_a"} {
		f.makes(t, "leaver", c, name)
	}
	for _, name := range []string{"off_set", "off_other", "off_both", "off_b"} {
		f.makes(t, "other", c, name)
	}
	f.sets(t, "leaver", c, "off_set")
	f.sets(t, "leaver", c, "off_both")
	f.sets(t, "other", c, "off_both") // so the leaver no longer knows it
	f.sets(t, "other", c, "off_reset")
	f.sets(t, "other", c, "off_lost_set")
	f.want(t, 204, "DELETE", "/clusters/"+c+"/users/off_deleted", "")
	f.want(t, 204, "DELETE", "/clusters/"+c+"/users/off_again", "")
	f.makes(t, "other", c, "off_again")
	f.PG.Exec(t, `DROP ROLE off_gone; ALTER ROLE off_sql VALID UNTIL '2020-01-01';
		COMMENT ON ROLE off_lost IS NULL; COMMENT ON ROLE off_lost_set IS NULL; ALTER ROLE off_protected CREATEROLE;
		ALTER ROLE off_old RENAME TO off_renamed;
		ALTER ROLE off_a RENAME TO off_x; ALTER ROLE off_b RENAME TO off_a; ALTER ROLE off_x RENAME TO off_b`)
	t.Cleanup(func() { f.PG.Exec(t, `DROP ROLE IF EXISTS off_renamed, off_a, off_b`) })
	// A change that is no password does not hide who set the password.
	for _, name := range []string{"off_limits", "off_renamed", "off_b"} {
		if a := f.as(t, "other", "PATCH", "/clusters/"+c+"/users/"+name, `{"connectionLimit":5}`); a.Status != 200 {
			t.Fatalf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	want := "main/off_b made disable, main/off_limits made disable, main/off_lost made disable, main/off_made made disable, " +
		"main/off_protected made keep, main/off_renamed made disable, main/off_set setPassword disable, main/off_sql made disable"
	plan := f.offboards(t, guid, "?plan=true", `{"users":{"default":"disable"}}`)
	if got := plan.listed(); got != want {
		t.Errorf("the plan lists\n%s, want\n%s", got, want)
	}
	if plan.ID != nil || plan.CreatedAt != nil || plan.By != nil || plan.Operation != nil || !plan.Account.Active ||
		plan.Account.Username != "leaver" || plan.AuditSince != nil || len(plan.Unreachable) != 0 {
		t.Errorf("the plan is %+v", plan)
	}
	if f.as(t, "leaver", "GET", "/whoami", "").Status != 200 {
		t.Error("the plan has ended the account")
	}
	var l struct{ Items []struct{ ID string } }
	if f.want(t, 200, "GET", "/offboardings", "").Into(t, &l); len(l.Items) != 0 {
		t.Errorf("the plan is kept: %+v", l)
	}

	done := f.offboards(t, guid, "", `{"users":{"default":"disable"}}`)
	if got := done.listed(); got != want {
		t.Errorf("done are\n%s, want\n%s", got, want)
	}
	if done.ID == nil || done.Operation == nil || done.OperationState == nil || done.By == nil || done.By.Username != "root" {
		t.Fatalf("the report is %+v", done)
	}
	for f.as(t, "leaver", "GET", "/whoami", "").Status != 401 { // within 5 seconds
		time.Sleep(50 * time.Millisecond)
	}
	rows := f.AuditRows(t, guid)
	rows = slices.DeleteFunc(rows, func(r servicetest.AuditRow) bool { return r.Action != audit.OffboardAccount })
	if len(rows) != 1 || rows[0].Outcome != "done" || !strings.Contains(rows[0].Detail, *done.ID) ||
		!strings.Contains(rows[0].Detail, *done.Operation) || !strings.Contains(rows[0].Detail, `"users": 8`) {
		t.Errorf("the audit log has %+v", rows)
	}
	var kept offboarding
	f.want(t, 200, "GET", "/offboardings/"+*done.ID, "").Into(t, &kept)
	if kept.listed() != want || kept.Account != done.Account || *kept.Operation != *done.Operation ||
		!kept.CreatedAt.Equal(*done.CreatedAt) {
		t.Errorf("kept is %+v", kept)
	}
}

// What ends with the account is listed, and what belongs to a cluster stays.
func TestOffboardingEnds(t *testing.T) {
	t.Parallel()
	f, guid := leavers(t)
	c := "/clusters/" + f.ClusterID
	f.makes(t, "other", f.ClusterID, "offe_app")
	t.Cleanup(func() {
		for _, lease := range pgtest.Value[[]string](t, f.PG, `SELECT coalesce(array_agg(rolname::text), '{}') FROM pg_roles
			WHERE rolname LIKE 'offe\_app\_%'`) {
			f.PG.Exec(t, `REASSIGN OWNED BY "`+lease+`" TO CURRENT_USER; DROP ROLE "`+lease+`"`)
		}
	})
	lease := f.take(t, "leaver", `{"for":"offe_app"}`)
	token := f.token(t, "leaver", `{"name":"nightly"}`)
	for user, name := range map[string]string{"leaver": "own", "other": "others"} {
		for _, name := range []string{name, name + "-unread"} {
			if a := f.as(t, user, "PUT", c+"/credentials/"+name,
				`{"for":"offe_app","rotateEvery":"30d","overlap":"0s"}`); a.Status != 201 {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
		}
		f.as(t, "leaver", "GET", c+"/credentials/"+name+"/current", "")
	}
	o := f.offboards(t, guid, "", "")
	if len(o.Leases) != 1 || o.Leases[0].ID != lease.ID || o.Leases[0].Username != lease.Username ||
		len(o.Tokens) != 1 || o.Tokens[0].Name != "nightly" || o.Tokens[0].ID != token.ID || o.listed() != "" ||
		o.Operation != nil {
		t.Errorf("the report is %+v", o)
	}
	var credentials []string
	for _, cr := range o.Credentials {
		credentials = append(credentials, fmt.Sprintf("%s made %t read %t", cr.Name, cr.Made, cr.ReadAt != nil))
	}
	if got := strings.Join(credentials, ", "); got != "others made false read true, own made true read true, "+
		"own-unread made true read false" {
		t.Errorf("the credentials are %s", got)
	}
	if a := f.with(t, token, "GET", "/whoami", ""); a.Status != 401 {
		t.Errorf("its token is still accepted: %d", a.Status)
	}
	if err := f.PG.Login(lease.Username, lease.Password); err != nil {
		t.Fatal(err)
	}
	// The sweep of the cluster ends the lease; the credentials stay.
	id := uuid.MustParse(f.ClusterID)
	err := f.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		return task.Set(t.Context(), tx, task.Task{Kind: "lease.sweep", Key: id, Cluster: id})
	})
	if err != nil {
		t.Fatal(err)
	}
	worker := &task.Worker{DB: f.DB, Log: slog.New(slog.NewTextHandler(f.Log, nil)), Kinds: f.Users.Tasks()}
	for range 2 { // the sweep, and what it has found
		if _, err := worker.RunDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.PG.Login(lease.Username, lease.Password); err == nil {
		t.Error("its lease still logs in")
	}
	if current := f.current(t, c+"/credentials/own"); f.PG.Login(current.Username, current.Password) != nil {
		t.Error("the credential that it made no longer logs in")
	}
}

// Whoever may not offboard is refused, with the plan as without.
func TestOffboardingRefusals(t *testing.T) {
	t.Parallel()
	f, guid := leavers(t)
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	root := f.guid(t, "root")
	token := f.token(t, "root", `{"name":"admin"}`)
	for _, plan := range []string{"", "?plan=true"} {
		path := "/accounts/" + guid + "/offboard" + plan
		f.as(t, "other", "POST", path, "").refused(t, 403, "cloud_controller.admin")
		f.as(t, "auditor", "POST", path, "").refused(t, 403, "cloud_controller.admin")
		if a := f.with(t, token, "POST", path, ""); a.Status != 403 {
			t.Errorf("a personal access token: %d", a.Status)
		}
		f.do(t, "POST", "/accounts/nobody/offboard"+plan, "").refused(t, 404, "no such account")
		f.do(t, "POST", "/accounts/"+root+"/offboard"+plan, "").refused(t, 422, "your own account")
		for body, want := range map[string]string{
			`{"users":{"default":"drop"}}`:                   "users.default",
			`{"users":{"default":"expire"}}`:                 "users.after is missing",
			`{"users":{"default":"expire","after":"-1d"}}`:   "users.after",
			`{"users":{"default":"expire","after":"9999d"}}`: "too long",
			`{"users":{"default":"keep","after":"1d"}}`:      "expire only",
			`{"users":{"others":"keep"}}`:                    "unknown",
			`{"users":"keep"}`:                               "users",
		} {
			f.do(t, "POST", path, body).refused(t, 422, want)
		}
	}
	refused := slices.DeleteFunc(f.AuditRows(t, guid),
		func(r servicetest.AuditRow) bool { return r.Action != audit.OffboardAccount })
	if len(refused) != 6 || refused[0].Outcome != "denied" {
		t.Errorf("the audit log has %+v", refused)
	}
	// The reports are for admins and auditors.
	f.as(t, "other", "GET", "/offboardings", "").refused(t, 403, "auditors")
	f.as(t, "other", "GET", "/offboardings/"+guid, "").refused(t, 403, "auditors")
	f.as(t, "auditor", "GET", "/offboardings/"+guid, "").refused(t, 404, "no offboarding")
	done := f.offboards(t, guid, "", "")
	for _, user := range []string{"auditor", "root"} {
		if a := f.as(t, user, "GET", "/offboardings/"+*done.ID, ""); a.Status != 200 {
			t.Errorf("%s reads the report: %d", user, a.Status)
		}
		for query, want := range map[string]int{"?account=leaver": 1, "?account=" + guid: 1, "?account=other": 0, "": 1} {
			var l struct{ Items []struct{ ID string } }
			f.as(t, user, "GET", "/offboardings"+query, "").Into(t, &l)
			if len(l.Items) != want {
				t.Errorf("%s lists with %q %d reports, want %d", user, query, len(l.Items), want)
			}
		}
	}
	// The report stays when its account is deleted.
	f.want(t, 204, "DELETE", "/accounts/"+guid, "")
	f.want(t, 200, "GET", "/offboardings/"+*done.ID, "")
	f.do(t, "POST", "/accounts/"+guid+"/offboard", "").refused(t, 404)
}

// guid is that of an account.
func (f *fixture) guid(t testing.TB, username string) string {
	t.Helper()
	a, err := f.Accounts.ByUsername(t.Context(), username, account.LocalOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return a.GUID
}

// Users that are to be kept are kept, with the reason; the others get the action.
func TestOffboardingKeepsUsers(t *testing.T) {
	t.Parallel()
	f, guid := leavers(t)
	f.makes(t, "leaver", f.ClusterID, "kept")
	f.makes(t, "leaver", f.ClusterID, "disabled")
	body := fmt.Sprintf(`{"users":{"default":"disable","keep":[{"cluster":%q,"username":"kept"},{"cluster":%[1]q,
		"username":"none"}]}}`, f.ClusterID)
	for _, query := range []string{"?plan=true", ""} {
		got := map[string]string{}
		for _, u := range f.offboards(t, guid, query, body).Users {
			got[u.Username] = string(u.Action) + " " + u.Detail
		}
		want := map[string]string{"kept": "keep You chose to keep it.", "disabled": "disable "}
		if !maps.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
	for _, keep := range []string{`"kept"`, `{}`, `[{"cluster":"x"}]`, `[{"cluster":"x","username":""}]`, `[1]`} {
		f.do(t, "POST", "/accounts/"+guid+"/offboard?plan=true", `{"users":{"keep":`+keep+`}}`).refused(t, 422)
	}
}

// The last active admin stays, also if two admins offboard each other at once. OAuth clients are not enough.
func TestOffboardingLastAdmin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.guid(t, "root")
	if _, err := f.DB.Pool.Exec(t.Context(), `
		INSERT INTO accounts (guid, program, scopes, identity_created_at, password_hash)
		SELECT 'robot', true, scopes, now(), password_hash FROM accounts WHERE guid = $1`, root); err != nil {
		t.Fatal(err)
	}
	robot := &account.Principal{GUID: "robot", Scopes: account.AdminScopes}
	if _, err := f.Fleet.Offboard(t.Context(), robot, fleet.Leaver{Account: root, Action: fleet.Keep}); !fault.Is(err,
		fault.Invalid) ||
		!strings.Contains(err.Error(), "last active admin") {
		t.Errorf("the last admin: %v", err)
	}
	second := f.Admin(t, "second")
	var wg sync.WaitGroup
	status := make([]int, 2)
	for i, who := range []struct{ by, guid string }{{"root", second}, {"second", root}} {
		wg.Go(func() { status[i] = f.as(t, who.by, "POST", "/accounts/"+who.guid+"/offboard", "").Status })
	}
	wg.Wait()
	var active int
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM accounts WHERE active AND NOT program`).
		Scan(&active); err != nil {
		t.Fatal(err)
	}
	if active != 1 || status[0] == status[1] {
		t.Errorf("afterwards %d admins are active; the answers are %v", active, status)
	}
}

// A user that expires after the year 9999, which JSON cannot write, or at -infinity, is in a report like others.
func TestOffboardingOfOddTimes(t *testing.T) {
	f, guid := leavers(t)
	for name, until := range map[string]string{"far": "20000-01-01", "past": "-infinity"} {
		f.makes(t, "leaver", f.ClusterID, name)
		f.PG.Exec(t, `ALTER ROLE `+name+` VALID UNTIL '`+until+`'`)
	}
	var o offboarding
	f.want(t, 200, "POST", "/accounts/"+guid+"/offboard?plan=true", `{"users":{"default":"keep"}}`).Into(t, &o)
	if len(o.Users) != 2 || o.Users[0].ValidUntil.Year() != 9999 || o.Users[1].ValidUntil.Year() != 1 {
		t.Errorf("got %+v", o.Users)
	}
}
