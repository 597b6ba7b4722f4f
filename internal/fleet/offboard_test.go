package fleet_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
)

// leaver makes the account leaver, and the admins root and second.
func (w *world) leaver(t testing.TB) (leaver, root, second *account.Principal) {
	t.Helper()
	for _, id := range w.ids {
		w.Access(t, id, []string{"team=a"}, nil)
	}
	labels := map[string]string{"team": "a"}
	leaver = &account.Principal{Username: "leaver", Origin: account.LocalOrigin, Scopes: account.DefaultScopes, Labels: labels}
	leaver.GUID = w.Account(t, "leaver", leaver.Scopes, labels)
	root = &account.Principal{Username: "root", Origin: account.LocalOrigin, Scopes: account.AdminScopes, GUID: w.Admin(t,
		"root")}
	second = &account.Principal{Username: "second", Origin: account.LocalOrigin, Scopes: account.AdminScopes,
		GUID: w.Admin(t, "second")}
	return leaver, root, second
}

func (w *world) creates(t testing.TB, p *account.Principal, cluster string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, _, err := w.Users.CreateUser(t.Context(), p, w.ids[cluster], name, password); err != nil {
			t.Fatal(err)
		}
	}
}

// reported are the users of a report as cluster/name.
func reported(r *fleet.Report) (users []string) {
	for _, u := range r.Users {
		users = append(users, u.Cluster.DisplayName+"/"+u.Username)
	}
	return users
}

func offboard(t testing.TB, w *world, by, who *account.Principal, action fleet.Action) *fleet.Offboarding {
	t.Helper()
	o, err := w.Fleet.Offboard(t.Context(), by, fleet.Leaver{Account: who.GUID, Action: action})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A cluster that does not answer is listed. What the audit log has of it is changed when it answers again, and a user of the
// same name in another cluster that is not the account's is not.
func TestOffboardUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fleet.Limit = 8 * time.Second // time for the others, on a busy machine as well
	leaver, root, second := w.leaver(t)
	w.creates(t, leaver, "a", "app", "gone", "reset")
	w.creates(t, second, "b", "app")
	w.creates(t, leaver, "b", "job")
	if _, _, err := w.Users.SetPassword(t.Context(), second, w.ids["a"], "reset", password+"2", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Users.DeleteUser(t.Context(), second, w.ids["a"], "gone", dbuser.Deletion{}, nil); err != nil {
		t.Fatal(err)
	}
	w.servers["a"].Stop(t)
	o := offboard(t, w, root, leaver, fleet.Disable)
	same(t, "the report", reported(o.Report), []string{"a/app", "b/job"})
	if len(o.Report.Unreachable) != 1 || o.Report.Unreachable[0].Cluster.DisplayName != "a" ||
		o.Report.Unreachable[0].Error == "" {
		t.Errorf("unreachable are %+v", o.Report.Unreachable)
	}
	w.servers["a"].Start(t)
	if done := runUntilEnded(t, w.Service, root, o.Operation, replica(w.Service)); done.State != "done" ||
		done.Counts.Done != 2 {
		t.Errorf("the operation is %+v", done)
	}
	for user, logs := range map[string]bool{"a/app": false, "b/job": false, "b/app": true} {
		cluster, name, _ := strings.Cut(user, "/")
		if got := w.servers[cluster].Login(name, password) == nil; got != logs {
			t.Errorf("%s logs in: %t", user, got)
		}
	}
	kept, err := w.Fleet.Offboarding(t.Context(), root, o.ID.String())
	if err != nil || kept.State != "done" || kept.Report.Users[0].State != "done" || kept.Report.Users[1].State != "done" {
		t.Errorf("the report is %+v: %v", kept, err)
	}
	// Again, nothing is left to do.
	again := offboard(t, w, second, leaver, fleet.Disable)
	if again.Operation != uuid.Nil || again.Report.Account.Active || len(again.Report.Users) != 2 ||
		again.Report.Users[0].Action != fleet.Keep || again.Report.Users[0].Detail != "It is disabled already." {
		t.Errorf("the second report is %+v", again.Report)
	}
	list, more, err := w.Fleet.Offboardings(t.Context(), root, "LEAVER", uuid.Nil, 1)
	if err != nil || !more || len(list) != 1 || list[0].ID != again.ID {
		t.Errorf("the list is %+v, %t, %v", list, more, err)
	}
}

// Passwords that expire earlier stay so.
func TestOffboardExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaver, root, _ := w.leaver(t)
	w.creates(t, leaver, "a", "never", "later", "sooner", "infinite")
	w.servers["a"].Exec(t, `ALTER ROLE later VALID UNTIL '2100-01-01'; ALTER ROLE sooner VALID UNTIL '2027-01-01';
		ALTER ROLE infinite VALID UNTIL 'infinity'`)
	leave := fleet.Leaver{Account: leaver.GUID, Action: fleet.Expire, After: 3650 * 24 * time.Hour}
	plan, err := w.Fleet.OffboardingPlan(t.Context(), root, leave)
	if err != nil {
		t.Fatal(err)
	}
	o, err := w.Fleet.Offboard(t.Context(), root, leave)
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]*fleet.Report{"the plan": plan, "the report": o.Report} {
		var actions []string
		for _, u := range r.Users {
			actions = append(actions, u.Username+" "+string(u.Action))
		}
		same(t, what, actions, []string{"infinite expire", "later expire", "never expire", "sooner keep"})
		if r.ExpiresAt == nil {
			t.Errorf("%s does not say when", what)
		}
	}
	runUntilEnded(t, w.Service, root, o.Operation, replica(w.Service))
	if _, d, err := w.Users.UserDetails(t.Context(), root, w.ids["a"], "later"); err != nil ||
		!d.ValidUntil.Equal(*o.Report.ExpiresAt) {
		t.Errorf("later expires at %+v, want %s: %v", d, o.Report.ExpiresAt, err)
	}
}

// during offboards the leaver, and does something once the survey waits for cluster a.
func (w *world) during(t testing.TB, by, leaver *account.Principal, do func()) (o *fleet.Offboarding, err error) {
	t.Helper()
	pg := w.servers["a"]
	conn := pg.Connect(t, pg.User, pg.Password, "postgres")
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE pg_shdescription`); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		o, err = w.Fleet.Offboard(t.Context(), by, fleet.Leaver{Account: leaver.GUID, Action: fleet.Disable})
	}()
	for !pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_locks
		WHERE NOT granted AND relation = 'pg_shdescription'::regclass)`) {
		time.Sleep(5 * time.Millisecond)
	}
	do()
	if _, err := conn.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	<-done
	return o, err
}

// What the account does during the survey is in the report. An admin who is deactivated, and an account that is deleted in
// the meantime, are refused, and nothing is done.
func TestOffboardConcurrently(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fleet.Limit = time.Minute
	leaver, root, second := w.leaver(t)
	w.creates(t, leaver, "a", "before")
	inactive := false
	o, err := w.during(t, root, leaver, func() {
		if _, err := w.Accounts.UpdateProfile(t.Context(), second, root.GUID, nil,
			account.ProfileChange{Active: &inactive}); err != nil {
			t.Error(err)
		}
	})
	var done bool
	scanErr := w.DB.Pool.QueryRow(t.Context(), `
		SELECT EXISTS (SELECT FROM offboardings) OR EXISTS (SELECT FROM operations)
		  OR EXISTS (SELECT FROM accounts WHERE guid = $1 AND NOT active)
		  OR EXISTS (SELECT FROM audit WHERE action = 'account.offboard' AND outcome = 'done')`, leaver.GUID).Scan(&done)
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	if !fault.Is(err, fault.Forbidden) || o != nil || done {
		t.Errorf("an admin who was deactivated: %+v, %v; something is done: %t", o, err, done)
	}

	o, err = w.during(t, second, leaver, func() {
		w.creates(t, leaver, "b", "meanwhile")
		if _, err := w.Accounts.UpdateProfile(t.Context(), second, leaver.GUID, nil,
			account.ProfileChange{Active: &inactive}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the report", reported(o.Report), []string{"a/before", "b/meanwhile"})
	if o.Report.Account.Active {
		t.Error("the account was not active any more")
	}
	if _, err = w.during(t, second, leaver, func() {
		if err := w.Accounts.DeleteProfile(t.Context(), second, leaver.GUID, nil); err != nil {
			t.Error(err)
		}
	}); !fault.Is(err, fault.NotFound) {
		t.Errorf("an account that was deleted: %v", err)
	}
}

// The users of a cluster whose verifiers the account has read are listed until their passwords are others.
func TestOffboardVerifiers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaver, root, second := w.leaver(t)
	if _, err := w.DB.Pool.Exec(t.Context(), `UPDATE accounts SET scopes = $2 WHERE guid = $1`, leaver.GUID,
		account.AdminScopes); err != nil {
		t.Fatal(err)
	}
	leaver.Scopes = account.AdminScopes
	w.creates(t, second, "b", "same", "changed", "dropped")
	w.servers["b"].Exec(t, `CREATE ROLE by_sql LOGIN PASSWORD 'x'`)
	if _, err := w.Users.Userlist(t.Context(), leaver, w.ids["b"]); err != nil {
		if !fault.Is(err, fault.Forbidden) { // the least privileged role cannot
			t.Fatal(err)
		}
		return
	}
	if _, _, err := w.Users.SetPassword(t.Context(), second, w.ids["b"], "changed", password+"2", nil); err != nil {
		t.Fatal(err)
	}
	w.servers["b"].Exec(t, `DROP ROLE dropped`)
	w.creates(t, second, "b", "later")
	o := offboard(t, w, root, leaver, fleet.Disable)
	if v := o.Report.Verifiers; len(o.Report.Users) != 0 || o.Operation != uuid.Nil || len(v) != 1 ||
		v[0].Cluster.DisplayName != "b" || !slices.Equal(v[0].Users, []string{"by_sql", "same"}) {
		t.Errorf("the report is %+v", o.Report)
	}
}

// 5,000 users are found, reported and changed.
func TestOffboardMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fleet.Limit = time.Minute
	leaver, root, second := w.leaver(t)
	const many = 5000
	var users []user
	for i := range many {
		by := leaver.GUID
		if i%5 == 4 {
			by = second.GUID
		}
		users = append(users, user{cluster: "a", name: fmt.Sprintf("many_%04d", i), createdBy: by, createdAt: time.Now()})
	}
	w.make(t, users...)
	began := time.Now()
	o := offboard(t, w, root, leaver, fleet.EndSessions)
	t.Logf("%d of %d users in %s", len(o.Report.Users), many, time.Since(began))
	kept, err := w.Fleet.Offboarding(t.Context(), root, o.ID.String())
	if err != nil || len(kept.Report.Users) != many*4/5 || kept.Users != many*4/5 || kept.State != "running" {
		t.Fatalf("the report has %d users: %v", kept.Users, err)
	}
	for _, u := range kept.Report.Users {
		if u.Why != fleet.WhyMade || u.State != "pending" {
			t.Fatalf("%+v", u)
		}
	}
}
