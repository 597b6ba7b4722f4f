package fleet_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

const password = "correct horse battery staple"

// open returns a service of the test's own, whose account eve manages its cluster.
func open(t *testing.T) (*servicetest.Service, *account.Principal) {
	t.Helper()
	s := servicetest.New(t, pgtest.New(t, nil))
	s.Access(t, s.ClusterID, []string{"team=shop"}, nil)
	return s, manager(t, s, "eve")
}

func manager(t *testing.T, s *servicetest.Service, name string) *account.Principal {
	t.Helper()
	labels := map[string]string{"team": "shop"}
	guid := s.Account(t, name, account.DefaultScopes, labels)
	return &account.Principal{GUID: guid, Username: name, Origin: account.LocalOrigin, Scopes: account.DefaultScopes,
		Labels: labels, RequestID: "req-" + name, Address: "192.0.2.1"}
}

func create(t *testing.T, s *servicetest.Service, p *account.Principal, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, name, password); err != nil {
			t.Fatal(err)
		}
	}
}

func targets(s *servicetest.Service, names ...string) (list []fleet.Target) {
	for _, name := range names {
		list = append(list, fleet.Target{Cluster: s.ClusterID, Name: name})
	}
	return list
}

func start(t *testing.T, s *servicetest.Service, p *account.Principal, r fleet.Request) uuid.UUID {
	t.Helper()
	id, _, err := s.Fleet.Start(t.Context(), p, r)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func replica(s *servicetest.Service) *task.Worker {
	return &task.Worker{DB: s.DB, Log: slog.New(slog.NewTextHandler(s.Log, nil)), Kinds: s.Fleet.Tasks(),
		Away: s.Clusters.Away, Every: 5 * time.Millisecond}
}

// runUntilEnded has replicas work until an operation has ended, and returns it.
func runUntilEnded(t *testing.T, s *servicetest.Service, p *account.Principal, id uuid.UUID, replicas ...*task.Worker) (
	o *fleet.Operation) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{}, len(replicas))
	for _, w := range replicas {
		go func() { w.Run(ctx); done <- struct{}{} }()
	}
	for o == nil || o.EndedAt.IsZero() {
		var err error
		if o, err = s.Fleet.Operation(t.Context(), p, id.String()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	for range replicas {
		<-done
	}
	return o
}

func results(t *testing.T, s *servicetest.Service, p *account.Principal, id uuid.UUID) map[string]fleet.Result {
	t.Helper()
	list, _, err := s.Fleet.Results(t.Context(), p, id.String(), nil, -1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]fleet.Result{}
	for _, r := range list {
		byName[r.Name] = r
	}
	return byName
}

// logsIn says whether a user logs in with its password.
func logsIn(s *servicetest.Service, name string) bool { return s.PG.Login(name, password) == nil }

// Each action does to each user what the call for one user does, and every user has a result.
func TestActions(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "a", "b", "c")
	run := func(r fleet.Request, done, skipped int) map[string]fleet.Result {
		t.Helper()
		id := start(t, s, p, r)
		o := runUntilEnded(t, s, p, id, replica(s))
		if o.State != "done" || o.Counts != (fleet.Counts{Total: done + skipped, Done: done, Skipped: skipped}) {
			t.Errorf("%s: %+v of %+v", r.Action, o, results(t, s, p, id))
		}
		return results(t, s, p, id)
	}
	got := run(fleet.Request{Action: fleet.Disable, Targets: targets(s, "a", "b", "postgres", "nobody", "a")}, 2, 2)
	if logsIn(s, "a") || logsIn(s, "b") || !logsIn(s, "c") {
		t.Error("other users than a and b are disabled")
	}
	if got["nobody"].Detail != `There is no user "nobody" in this cluster.` || got["postgres"].State != "skipped" {
		t.Errorf("%+v", got)
	}
	run(fleet.Request{Action: fleet.Enable, Targets: targets(s, "a", "b")}, 2, 0)
	if !logsIn(s, "a") || !logsIn(s, "b") {
		t.Error("they are not enabled")
	}
	run(fleet.Request{Action: fleet.Expire, Targets: targets(s, "a"), ValidUntil: time.Now().Add(-time.Hour)}, 1, 0)
	if logsIn(s, "a") {
		t.Error("a did not expire")
	}
	run(fleet.Request{Action: fleet.Expire, Targets: targets(s, "a"), After: time.Hour}, 1, 0) // which extends it
	if !logsIn(s, "a") {
		t.Error("a has expired")
	}
	session := s.PG.Connect(t, "b", password, "postgres")
	defer session.Close(context.Background())
	got = run(fleet.Request{Action: fleet.EndSessions, Targets: targets(s, "a", "b")}, 2, 0)
	if _, err := session.Exec(t.Context(), "SELECT 1"); err == nil || got["b"].Detail != "1 session was ended." {
		t.Errorf("the session of b: %v; %+v", err, got["b"])
	}
	run(fleet.Request{Action: fleet.Delete, Targets: targets(s, "a", "b")}, 2, 0)
	if logsIn(s, "a") || !logsIn(s, "c") {
		t.Error("other users than a and b are deleted")
	}
}

// A plan to enable says which users have lost their passwords. A plan has only users of clusters that one may manage, and a
// search that finds more than it may stops.
func TestPlanIsHonest(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "kept", "lost")
	s.PG.Exec(t, `CREATE TABLE of_lost ()`)
	s.PG.Exec(t, `ALTER TABLE of_lost OWNER TO lost`)
	if _, _, _, err := s.Users.DisableUser(t.Context(), p, s.ClusterID, "kept", nil); err != nil {
		t.Fatal(err)
	}
	if _, disabled, err := s.Users.DeleteOrDisableUser(t.Context(), p, s.ClusterID, "lost", dbuser.Deletion{},
		nil); err != nil ||
		disabled == nil {
		t.Fatalf("%v, %v", disabled, err)
	}
	r := fleet.Request{Action: fleet.Enable, Filter: &fleet.Filter{States: []string{"disabled"}}}
	plan, err := s.Fleet.Plan(t.Context(), p, r)
	if err != nil || len(plan.Users) != 2 || plan.Users[0].Blockers != nil || len(plan.Users[1].Blockers) != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	id := start(t, s, p, r)
	runUntilEnded(t, s, p, id, replica(s))
	if got := results(t, s, p, id); got["kept"].State != "done" || got["lost"].State != "failed" {
		t.Errorf("%+v", got)
	}
	if found, _, err := s.Fleet.Matches(t.Context(), p, fleet.Filter{Name: "*"}, 1); err != nil || len(found) < 2 {
		t.Errorf("of two users at most one is wanted: %+v, %v", found, err)
	}
	s.Access(t, s.ClusterID, nil, []string{"team=shop"})
	if plan, err = s.Fleet.Plan(t.Context(), p, r); err != nil || len(plan.Users) != 0 {
		t.Errorf("an account that may only view: %+v, %v", plan, err)
	}
}

// A user that an operation has enabled before its replica was killed, and that somebody has disabled since, stays disabled.
func TestDoneBeforeAKill(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "cut")
	id := start(t, s, p, fleet.Request{Action: fleet.Enable, Targets: targets(s, "cut")})
	runUntilEnded(t, s, p, id, replica(s))
	if _, _, _, err := s.Users.DisableUser(t.Context(), p, s.ClusterID, "cut", nil); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`UPDATE operations SET state = 'running', ended_at = NULL`, `UPDATE operation_parts SET done = 0`,
		`UPDATE operation_items SET state = 'running', claim = gen_random_uuid(), due = clock_timestamp()`,
		`UPDATE tasks SET due = clock_timestamp()`,
	} {
		if _, err := s.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	o := runUntilEnded(t, s, p, id, replica(s))
	if o.Counts != (fleet.Counts{Total: 1, Done: 1}) || logsIn(s, "cut") {
		t.Errorf("%+v; it logs in: %t", o.Counts, logsIn(s, "cut"))
	}
}

// A cluster that is unregistered between the plan and the start is no mistake of ours.
func TestUnregisteredBeforeTheStart(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "left")
	if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM clusters`); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "left")})
	if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Forbidden) {
		t.Errorf("the error is %v", err)
	}
}
