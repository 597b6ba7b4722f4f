package dbuser_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// cutOff records an attempt whose process died, to be settled from so many seconds ago on.
func cutOff(t testing.TB, s *servicetest.Service, clusterID, action, target string, secondsAgo int) (id string) {
	t.Helper()
	id = uuid.NewString()
	_, err := s.DB.Pool.Exec(t.Context(), `
		INSERT INTO audit (attempt, phase, action, account_guid, account_name, cluster_id, target, settle_after)
		VALUES ($1, 'attempt', $2, 'g', 'g', $3, $4, clock_timestamp() - $5 * interval '1 s')`, id, action, clusterID,
		target, secondsAgo)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// outcome is that of an attempt, "" when there is none, and why.
func outcome(t testing.TB, s *servicetest.Service, id string) (outcome, why string) {
	t.Helper()
	err := s.DB.Pool.QueryRow(t.Context(), `
		SELECT coalesce(max(outcome), ''), coalesce(max(detail ->> 'settled'), '') FROM audit WHERE attempt = $1 AND phase
		  = 'outcome'`, id).Scan(&outcome, &why)
	if err != nil {
		t.Fatal(err)
	}
	return outcome, why
}

func record(attempt, state string) string {
	return ` IS 'rolecall:v1 {"revision":3,"attempt":"` + attempt + `","state":"` + state + `"}'`
}

func TestSettle(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	other := uuid.NewString()
	role := func(name, attempt, state string) {
		s.PG.Exec(t, `CREATE ROLE "`+name+`"`)
		if attempt != "" {
			s.PG.Exec(t, `COMMENT ON ROLE "`+name+`"`+record(attempt, state))
		}
	}
	database := func(name, attempt string) {
		s.PG.Exec(t, `CREATE DATABASE "`+name+`"`)
		if attempt != "" {
			s.PG.Exec(t, `COMMENT ON DATABASE "`+name+`"`+record(attempt, ""))
		}
	}
	type expected struct{ id, outcome, why string }
	var all []expected
	n := 0
	attempt := func(action, want, why string, world func(target, id string)) {
		n++
		target := fmt.Sprintf("settle-%s-%d", action, n)
		id := cutOff(t, s, s.ClusterID, action, target, 1)
		if world != nil {
			world(target, id)
		}
		all = append(all, expected{id, want, why})
	}
	by := func(who, state string) func(target, id string) {
		return func(target, id string) {
			if who == "self" {
				who = id
			}
			role(target, who, state)
		}
	}
	databaseBy := func(who string) func(target, id string) {
		return func(target, id string) {
			if who == "self" {
				who = id
			}
			database(target, who)
		}
	}
	later := func(target, _ string) {
		role(target, other, "")
		cutOff(t, s, s.ClusterID, audit.ChangePassword, target, -60)
	}

	const trace = "the cluster shows no trace of it"
	attempt(audit.CreateUser, "done", "the attempt is recorded with it", by("self", ""))
	attempt(audit.CreateUser, "not_done", trace, nil)
	attempt(audit.CreateUser, "not_done", trace, by(other, ""))
	attempt(audit.CreateUser, "unknown", "it carries no record", by("", ""))
	attempt(audit.CreateUser, "unknown", "later attempts have been made on it", later)
	attempt(audit.ChangePassword, "done", "the attempt is recorded with it", by("self", ""))
	attempt(audit.ChangePassword, "not_done", trace, by(other, ""))
	attempt(audit.ChangePassword, "unknown", "it no longer exists", nil) // it was there, and what became of it is not known
	attempt(audit.ChangePassword, "unknown", "it carries no record", by("", ""))
	attempt(audit.ChangePassword, "unknown", "later attempts have been made on it", later)
	attempt(audit.DeleteUser, "done", "it is gone", nil)
	all = append(all, expected{cutOff(t, s, s.ClusterID, audit.DeleteUser, "settle-jos\uFFFD", 1), "unknown",
		"its name is not valid UTF-8, and could not be recorded as it is"})
	attempt(audit.DeleteUser, "not_done", trace, by(other, ""))
	attempt(audit.DeleteUser, "unknown", "it carries no record", by("", "")) // perhaps dropped, and made again with SQL
	attempt(audit.DeleteUser, "not_done", "its deletion has begun; the same call finishes it", by("self", "deleting"))
	attempt(audit.DeleteUser, "not_done", trace, by("self", "")) // called off
	attempt(audit.DeleteUser, "not_done", "it was blocked; the user is disabled", by("self", "disabled"))
	attempt(audit.DeleteUser, "done", "it was blocked; the user is disabled, as was asked for", func(target, id string) {
		role(target, id, "disabled")
		_, err := s.DB.Pool.Exec(t.Context(), `
			ALTER TABLE audit DISABLE TRIGGER audit_append_only;
			UPDATE audit SET detail = '{"onBlocked":"disable"}' WHERE attempt = '`+id+`';
			ALTER TABLE audit ENABLE TRIGGER audit_append_only`)
		if err != nil {
			t.Fatal(err)
		}
	})
	attempt(audit.DeleteUser, "unknown", "later attempts have been made on it", later)
	attempt(audit.ChangeAccess, "done", "the attempt is recorded with it", by("self", ""))
	attempt(audit.EnableUser, "not_done", trace, by(other, "disabled"))
	attempt(audit.DisableUser, "unknown", "it is disabled; whether its sessions were ended is not known", by("self",
		"disabled"))
	attempt(audit.DisableUser, "not_done", trace, by(other, ""))
	accessRole := func(state string, self bool) func(target, id string) {
		return func(target, id string) {
			if !self {
				id = other
			}
			s.PG.Exec(t, fmt.Sprintf(`CREATE ROLE "%[1]s_owner"; COMMENT ON ROLE "%[1]s_owner" IS `+
				`'rolecall:v1 {"revision":3,"attempt":"%[2]s","state":"%[3]s","access":{"database":"%[1]s","level":"own"}}'`,
				target, id, state))
		}
	}
	attempt(audit.MakeAccessRoles, "done", "the attempt is recorded with it", accessRole("", true))
	attempt(audit.MakeAccessRoles, "not_done", trace, accessRole("", false))
	attempt(audit.MakeAccessRoles, "not_done", trace, nil)
	attempt(audit.DropAccessRoles, "done", "it is gone", nil)
	attempt(audit.DropAccessRoles, "not_done", "their removal has begun; the same call finishes it", accessRole("deleting",
		true))
	attempt(audit.DropAccessRoles, "not_done", trace, accessRole("", false))
	attempt(audit.DeleteDatabase, "done", "it is gone", accessRole("", false)) // which is dropped, too
	attempt(audit.CreateLease, "done", "the attempt is recorded with it", by("self", ""))
	attempt(audit.CreateLease, "not_done", trace, nil)
	attempt(audit.RenewLease, "done", "the attempt is recorded with it", by("self", ""))
	attempt(audit.RenewLease, "not_done", trace, by(other, ""))
	attempt(audit.RenewLease, "unknown", "it no longer exists", nil)
	attempt(audit.EndLease, "done", "it is gone", nil)
	attempt(audit.EndLease, "not_done", trace, by(other, ""))
	attempt(audit.EndLease, "not_done", "its end has begun; another attempt finishes it", by("self", "deleting"))
	attempt(audit.EndLease, "done", "something keeps its role from being dropped; it is disabled", by("self", "disabled"))
	attempt(audit.EndLease, "unknown", "later attempts have been made on it", later) // by another call for the user
	attempt(audit.CreateDatabase, "done", "the attempt is recorded with it", databaseBy("self"))
	attempt(audit.CreateDatabase, "unknown", "it carries no record", databaseBy(""))
	attempt(audit.CreateDatabase, "not_done", trace, nil)
	attempt(audit.DeleteDatabase, "not_done", trace, databaseBy(other))
	attempt(audit.DeleteDatabase, "unknown", "it carries no record", databaseBy(""))
	attempt(audit.DeleteDatabase, "done", "it is gone", nil)
	all = append(all, expected{cutOff(t, s, uuid.NewString(), audit.CreateUser, "elsewhere", 1), "unknown",
		"the cluster is no longer registered"})

	// One whose request may still be under way, and one that has its outcome already, are left alone.
	create(t, s, "settle-ended")
	all = append(all, expected{cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-early", -30), "", ""})
	settle(t, s)
	settle(t, s)
	for _, want := range all {
		got, why := outcome(t, s, want.id)
		if got != want.outcome || why != want.why {
			var action, target string
			_ = s.DB.Pool.QueryRow(t.Context(), `SELECT action, target FROM audit WHERE attempt = $1`, want.id).Scan(&action, &target)
			t.Errorf("%s of %s: got %q because %q, want %q because %q", action, target, got, why, want.outcome, want.why)
		}
	}
	expect(t, recorded(t, s, "settle-ended"), "attempt user.create g-admin", "done user.create g-admin")

	// The watermark has passed: what lies before it is not looked at again.
	late := cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-before", 3600)
	settle(t, s)
	if got, _ := outcome(t, s, late); got != "" {
		t.Errorf("an attempt before the watermark was settled as %s", got)
	}
}

// A cluster that does not answer keeps its attempts, and holds up nobody else's.
func TestSettleUnreachable(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	down := pgtest.New(t, nil)
	downID := s.Register(t, "down", down, down.User, down.Password)
	down.Stop(t)
	const many = 300 // more than are read at a time
	_, err := s.DB.Pool.Exec(t.Context(), `
		INSERT INTO audit (attempt, phase, action, account_guid, account_name, cluster_id, target, settle_after)
		SELECT gen_random_uuid(), 'attempt', 'user.create', 'g', 'g', $1, 'down-' || i, now() - interval '1 h' FROM
		  generate_series(1, $2::int) i`, downID, many)
	if err != nil {
		t.Fatal(err)
	}
	reachable := cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-reachable", 1)
	outcomes := func() (n int) {
		t.Helper()
		if err := s.DB.Pool.QueryRow(t.Context(),
			`SELECT count(*) FROM audit WHERE phase = 'outcome' AND cluster_id = $1 AND target LIKE 'down-%'`,
			downID).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	settle(t, s)
	if got, _ := outcome(t, s, reachable); got != "not_done" || outcomes() != 0 {
		t.Errorf("the reachable cluster's attempt is %q, the other has %d outcomes", got, outcomes())
	}
	// What came before is not read again at each pass, however long the cluster is away.
	overdue := func() (n int) {
		t.Helper()
		if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM overdue`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := overdue(); n != many {
		t.Errorf("%d of %d attempts are remembered", n, many)
	}
	before := cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-before", 3600)
	settle(t, s)
	if got, _ := outcome(t, s, before); got != "" {
		t.Errorf("the watermark has not moved: what lies before it was settled as %s", got)
	}
	down.Start(t)
	settle(t, s)
	if n := outcomes(); n != many || overdue() != 0 {
		t.Errorf("%d of %d attempts are settled, %d are remembered", n, many, overdue())
	}
}

func TestSettlersTakeTurns(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	id := cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-turn", 1)
	control := s.PG.Connect(t, s.PG.User, s.PG.Password, s.DB.Identity.Database)
	exec(t, control, `SELECT pg_advisory_lock(x'736574746c6572'::bigint)`) // another replica's
	settle(t, s)
	if got, _ := outcome(t, s, id); got != "" {
		t.Errorf("settled as %s while another replica was at it", got)
	}
	exec(t, control, `SELECT pg_advisory_unlock_all()`)
	for range 20 {
		cutOff(t, s, s.ClusterID, audit.CreateUser, "settle-turns", 1)
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := s.Users.SettleOnce(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	settle(t, s)
	var open int
	if err := s.DB.Pool.QueryRow(t.Context(),
		`SELECT count(*) FILTER (WHERE phase = 'attempt') - count(*) FILTER (WHERE phase = 'outcome') FROM audit WHERE `+
			`cluster_id = $1 AND target LIKE 'settle-turn%'`, s.ClusterID).Scan(&open); err != nil || open != 0 {
		t.Errorf("%d attempts are open; %v", open, err)
	}
	if got, _ := outcome(t, s, id); got != "not_done" {
		t.Errorf("settled as %q", got)
	}
}
