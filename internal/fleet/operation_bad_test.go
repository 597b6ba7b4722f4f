package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/fleet"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

// shift makes everything of operations due that waits for a killed replica.
func shift(t *testing.T, s *servicetest.Service) {
	t.Helper()
	for _, sql := range []string{
		`UPDATE operation_items SET due = least(due, clock_timestamp())`,
		`UPDATE tasks SET claimed = NULL, due = least(due, clock_timestamp())`,
	} {
		if _, err := s.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// dying is a tracer that ends everything at a statement, like a kill: that statement may be done, and no other is.
type dying struct {
	at    int64
	count atomic.Int64
}

var errDead = errors.New("dead")

func (d *dying) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if d.count.Add(1) > d.at {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errDead)
		return ctx
	}
	return ctx
}

func (d *dying) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A replica that is cut off after any number of statements in the control database leaves an operation that another replica
// completes: each user has its result, as if nothing had happened.
func TestCutOffAtEveryStatement(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	first, step := int64(pgtest.Seed(t)%3), int64(3)
	if pgtest.Full() {
		first, step = 0, 1
	}
	for _, action := range []fleet.Action{fleet.Disable, fleet.Delete} {
		for at := first; ; at += step {
			names := []string{fmt.Sprintf("cut_%d_a", at), fmt.Sprintf("cut_%d_b", at)}
			create(t, s, p, names...)
			// Those of operations that have ended: their replica was stopped before it could remove them.
			if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM tasks`); err != nil {
				t.Fatal(err)
			}
			id := start(t, s, p, fleet.Request{Action: action, Targets: targets(s, names...)})
			d := &dying{at: at}
			cutOff(t, s, d)
			shift(t, s)
			o := runUntilEnded(t, s, p, id, replica(s))
			if o.State != "done" || o.Counts != (fleet.Counts{Total: 2, Done: 2}) {
				t.Errorf("%s, cut off after %d statements: %+v %v", action, at, o.Counts, results(t, s, p, id))
			}
			for _, name := range names {
				if logsIn(s, name) {
					t.Errorf("%s, cut off after %d statements: %s logs in", action, at, name)
				}
			}
			if action == fleet.Disable {
				runUntilEnded(t, s, p, start(t, s, p, fleet.Request{Action: fleet.Delete, Targets: targets(s, names...)}), replica(s))
			}
			if d.count.Load() <= at {
				break
			}
		}
	}
}

// cutOff has a replica with a pool of its own work until it dies or nothing is due.
func cutOff(t *testing.T, s *servicetest.Service, d *dying) {
	t.Helper()
	pool, err := pgxpoolOf(t.Context(), s.DatabaseURL, d)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db := *s.DB
	db.Pool = pool
	accounts := account.NewStore(&db)
	users := &dbuser.Service{Clusters: s.Clusters, Audit: accounts.Audit, Accounts: accounts, LeaseStore: &lease.Store{DB: &db},
		Log: s.Users.Log}
	other := &fleet.Service{DB: &db, Users: users, Log: s.Users.Log}
	w := replica(s)
	w.DB, w.Kinds = &db, other.Tasks()
	_, _ = w.RunDue(t.Context()) // it fails where it dies
}

// Two replicas share an operation on two clusters. Each user is done once.
func TestTwoReplicas(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("two_%d", i))
	}
	create(t, s, p, names...)
	id := start(t, s, p, fleet.Request{Action: fleet.Disable, Filter: &fleet.Filter{Name: "two_*"}})
	o := runUntilEnded(t, s, p, id, replica(s), replica(s))
	if o.Counts.Done != len(names) {
		t.Errorf("%+v", o)
	}
	for _, name := range names {
		if n := len(s.AuditRows(t, name)); n != 4 {
			t.Errorf("%s has %d audit rows", name, n)
		}
	}
}

// A cluster that is away delays no other. What is to be done there is done when it is back, or fails after 24 hours.
func TestClusterAway(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	away := pgtest.New(t, nil)
	role, secret := servicetest.Administrator(t, away)
	awayID := s.Register(t, "away", away, role, secret)
	s.Access(t, awayID, []string{"team=shop"}, nil)
	create(t, s, p, "here")
	if _, _, err := s.Users.CreateUser(t.Context(), p, awayID, "there", password); err != nil {
		t.Fatal(err)
	}
	list := append(targets(s, "here"), fleet.Target{Cluster: awayID, Name: "there"})
	back := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: list})
	never := start(t, s, p, fleet.Request{Action: fleet.Enable, Targets: list})
	away.Stop(t)
	unknown, plan, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.EndSessions, Targets: list[1:]})
	if err != nil || len(plan.Unreachable) != 1 || len(plan.Users) != 1 || len(plan.Users[0].Blockers) != 1 {
		t.Fatalf("the plan with a cluster that is away: %+v %v", plan, err)
	}
	w := replica(s)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.Run(ctx); close(ended) }()
	until(t, func() bool {
		a, b := results(t, s, p, back), results(t, s, p, never)
		o, err := s.Fleet.Operation(t.Context(), p, back.String())
		return err == nil && a["here"].State == "done" && b["here"].State == "done" && a["there"].State == "pending" &&
			len(o.Stuck) == 1
	})
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE operation_parts SET progressed_at = progressed_at - interval '25 hours'
		WHERE operation_id = $1`, never); err != nil {
		t.Fatal(err)
	}
	if err := s.Fleet.Tend(t.Context(), never); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ended
	shift(t, s)
	if err := s.Fleet.Tend(t.Context(), never); err != nil {
		t.Fatal(err)
	}
	o, err := s.Fleet.Operation(t.Context(), p, never.String())
	if r := results(t, s, p, never)["there"]; err != nil || o.State != "done" || r.State != "failed" ||
		!strings.Contains(r.Detail, "24 hours") {
		t.Errorf("after a day: %+v %+v %v", o, r, err)
	}
	away.Start(t)
	shift(t, s)
	for _, id := range []uuid.UUID{back, unknown} {
		if o := runUntilEnded(t, s, p, id, replica(s)); o.State != "done" || o.Counts.Failed != 0 || len(o.Stuck) != 0 {
			t.Errorf("when the cluster is back: %+v %+v", o, results(t, s, p, id))
		}
	}
	if away.Login("there", password) == nil {
		t.Error("the user of the cluster that was away is not disabled")
	}
}

// until waits for a state.
func until(t *testing.T, reached func() bool) {
	t.Helper()
	for !reached() {
		select {
		case <-t.Context().Done():
			t.Fatal("it was not reached")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// What the account may no longer do is not done, and the operation says why.
func TestAccountEnds(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	create(t, s, manager(t, s, "maker"), "kept")
	root := &account.Principal{GUID: s.Admin(t, "root"), Username: "root", Scopes: account.AdminScopes}
	for name, end := range map[string]struct{ sql, reason string }{
		"deactivated": {`UPDATE accounts SET active = false WHERE guid = $1`, "was deactivated"},
		"deleted":     {`DELETE FROM accounts WHERE guid = $1`, "was deleted"},
		"label":       {`UPDATE accounts SET labels = '{}' WHERE guid = $1`, "may no longer manage"},
		"scope":       {`UPDATE accounts SET scopes = '{cloud_controller.read}' WHERE guid = $1`, "may no longer manage"},
	} {
		p := manager(t, s, "caller_"+name)
		id := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "kept")})
		if _, err := s.DB.Pool.Exec(t.Context(), end.sql, p.GUID); err != nil {
			t.Fatal(err)
		}
		o := runUntilEnded(t, s, root, id, replica(s))
		if o.State != "failed" || !strings.Contains(o.Reason, end.reason) || o.Counts != (fleet.Counts{Total: 1, Skipped: 1}) {
			t.Errorf("%s: %+v", name, o)
		}
	}
	if !logsIn(s, "kept") {
		t.Error("the user was disabled")
	}
}

// An operation that was started in the console goes on when its person signs out. It ends when somebody ends the session.
func TestSessionOfOperationEnds(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	root := &account.Principal{GUID: s.Admin(t, "root"), Username: "root", Scopes: account.AdminScopes}
	for name, of := range map[string]struct {
		end   func(p *account.Principal, session secret.Text) error
		state string
	}{
		"signed_out": {func(_ *account.Principal, session secret.Text) error {
			return s.Identity.EndOwnSession(t.Context(), session)
		}, "done"},
		"session_ended": {func(p *account.Principal, _ secret.Text) error {
			return s.Identity.EndSession(t.Context(), root, p.GUID, p.Session.String())
		}, "failed"},
	} {
		p := manager(t, s, name)
		create(t, s, p, "of_"+name)
		a, err := s.Accounts.ByGUID(t.Context(), p.GUID)
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.Identity.StartSession(t.Context(), a, time.Now(), "192.0.2.1", "a browser")
		if err != nil {
			t.Fatal(err)
		}
		in, err := s.Identity.Authenticate(t.Context(), identity.Credential{Scheme: identity.Session, Value: session}, "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		id := start(t, s, in, fleet.Request{Action: fleet.Disable, Targets: targets(s, "of_"+name)})
		if err := of.end(in, session); err != nil {
			t.Fatal(err)
		}
		if o := runUntilEnded(t, s, root, id, replica(s)); o.State != of.state || logsIn(s, "of_"+name) != (of.state == "failed") {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// A token's limits hold for all of the operation, and a token that is revoked ends it.
func TestTokenLimits(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "limited")
	limited := *p
	limited.Limit(uuid.New(), false, []uuid.UUID{uuid.New()}) // a token that is not stored, for another cluster
	if _, err := s.Fleet.Plan(t.Context(), &limited, fleet.Request{Action: fleet.Disable,
		Targets: targets(s, "limited")}); err == nil {
		t.Error("a token for another cluster plans")
	}
	readOnly := *p
	readOnly.Limit(uuid.New(), true, nil)
	if _, err := s.Fleet.Plan(t.Context(), &readOnly, fleet.Request{Action: fleet.Disable,
		Targets: targets(s, "limited")}); err == nil {
		t.Error("a read-only token plans")
	}
	revoked := *p
	revoked.Limit(uuid.New(), false, []uuid.UUID{uuid.MustParse(s.ClusterID)})
	id := start(t, s, &revoked, fleet.Request{Action: fleet.Disable, Targets: targets(s, "limited")})
	if o := runUntilEnded(t, s, p, id, replica(s)); o.State != "failed" || o.Reason != "The token was revoked." {
		t.Errorf("%+v", o)
	}
	if !logsIn(s, "limited") {
		t.Error("the user was disabled")
	}
}

// A user that was deleted and made again is another one, and is left alone.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "again", "gone")
	ids := []uuid.UUID{
		start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "again", "gone")}),
		start(t, s, p, fleet.Request{Action: fleet.Delete, Targets: targets(s, "again", "gone")}),
	}
	for _, name := range []string{"again", "gone"} {
		if err := s.Users.DeleteUser(t.Context(), p, s.ClusterID, name, dbuser.Deletion{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	create(t, s, p, "again")
	for i, id := range ids {
		runUntilEnded(t, s, p, id, replica(s))
		got := results(t, s, p, id)
		if r := got["again"]; r.State != "failed" || !strings.Contains(r.Detail, "another user now") {
			t.Errorf("the user that was made again: %+v", r)
		}
		if want := []string{"failed", "skipped"}[i]; got["gone"].State != want {
			t.Errorf("the user that is gone: %+v", got["gone"])
		}
	}
	if !logsIn(s, "again") {
		t.Error("the other user was changed")
	}
}

// Two operations on the same users give each of them a result.
func TestTwoOperations(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("both_%d", i))
	}
	create(t, s, p, names...)
	back := slices.Clone(names)
	slices.Reverse(back)
	first := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, names...)})
	second := start(t, s, p, fleet.Request{Action: fleet.Enable, Targets: targets(s, back...)})
	for _, id := range []uuid.UUID{first, second} {
		if o := runUntilEnded(t, s, p, id, replica(s), replica(s)); o.Counts.Done != len(names) {
			t.Errorf("%+v %+v", o.Counts, results(t, s, p, id))
		}
	}
}

// A canceled operation does nothing more, and what a killed replica had begun has a result, too.
func TestCancel(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "begun", "waits")
	id := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "begun", "waits")})
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE operation_items SET state = 'running', claim = gen_random_uuid(),
		due = clock_timestamp() + interval '1 minute' WHERE position = 0`); err != nil {
		t.Fatal(err)
	}
	o, err := s.Fleet.Cancel(t.Context(), p, id.String())
	if err != nil || o.State != "cancelled" || !o.EndedAt.IsZero() || o.Counts.Skipped != 1 {
		t.Fatalf("%+v %v", o, err)
	}
	shift(t, s)
	o = runUntilEnded(t, s, p, id, replica(s))
	if o.State != "cancelled" || o.Counts != (fleet.Counts{Total: 2, Failed: 1, Skipped: 1}) {
		t.Errorf("%+v %+v", o, results(t, s, p, id))
	}
	if !logsIn(s, "waits") {
		t.Error("it was done all the same")
	}
	if again, err := s.Fleet.Cancel(t.Context(), p, id.String()); err != nil || again.State != "cancelled" {
		t.Errorf("once more: %+v %v", again, err)
	}
}

// An operation of a backup does not go on after the control database was restored: what it had done since may have been
// reversed.
func TestOperationOfABackup(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "waits")
	id := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "waits")})
	ended, err := s.Accounts.EndAllTokens(t.Context(), true, audit.Entry{AccountGUID: audit.ActorRestored})
	if err != nil || ended.Operations != 1 {
		t.Fatalf("%+v, %v", ended, err)
	}
	o := runUntilEnded(t, s, p, id, replica(s))
	if o.State != "failed" || !strings.Contains(o.Reason, "restored") || o.Counts != (fleet.Counts{Total: 1, Skipped: 1}) {
		t.Errorf("%+v %+v", o, results(t, s, p, id))
	}
	if !logsIn(s, "waits") {
		t.Error("it was done all the same")
	}
}

// An operation is removed 90 days after its end. A clock that jumps makes nothing worse.
func TestKept(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	create(t, s, p, "old")
	id := start(t, s, p, fleet.Request{Action: fleet.Disable, Targets: targets(s, "old")})
	if _, err := s.DB.Pool.Exec(t.Context(), // the clock was a year ahead when it was started
		`UPDATE operations SET created_at = created_at + interval '1 year'`); err != nil {
		t.Fatal(err)
	}
	runUntilEnded(t, s, p, id, replica(s))
	for _, age := range []string{"89 days", "1 day"} {
		if err := s.Fleet.Tend(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fleet.Operation(t.Context(), p, id.String()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE operations SET ended_at = ended_at - $1::interval`, age); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Fleet.Tend(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fleet.Operation(t.Context(), p, id.String()); err == nil {
		t.Error("it is there after 90 days")
	}
	var items int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM operation_items`).Scan(&items); err != nil || items != 0 {
		t.Errorf("%d items are left: %v", items, err)
	}
}

// The whole of an operation on many users is stored, and its plan and results are complete.
func TestLargeOperation(t *testing.T) {
	t.Parallel()
	s, p := open(t)
	const n = 2_500 // more than one page, and more than one read
	s.PG.Exec(t, fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 1..%d LOOP EXECUTE format('CREATE ROLE many_%%s LOGIN', i); END LOOP; END $$`, n))
	id, plan, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.Expire, Filter: &fleet.Filter{Name: "many_*"},
		After: time.Hour})
	if err != nil || len(plan.Users) != n {
		t.Fatalf("%v", err)
	}
	seen, after := 0, -1
	for more := true; more; {
		var list []fleet.Result
		if list, more, err = s.Fleet.Results(t.Context(), p, id.String(), nil, after, 1000); err != nil {
			t.Fatal(err)
		}
		seen, after = seen+len(list), list[len(list)-1].Position
	}
	if o, err := s.Fleet.Cancel(t.Context(), p, id.String()); err != nil || seen != n || o.Counts.Skipped != n {
		t.Errorf("%d results, %+v, %v", seen, o, err)
	}
}

// pgxpoolOf opens a pool on the control database whose statements a tracer sees.
func pgxpoolOf(ctx context.Context, url string, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["search_path"] = "rolecall"
	config.ConnConfig.Tracer = tracer
	return pgxpool.NewWithConfig(ctx, config)
}
