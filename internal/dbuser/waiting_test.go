package dbuser_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// Rules, system roles and grantable roles that were changed while a change waited for its turn count for it.
func TestRulesChangeDuringTheWait(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	manager := &account.Principal{GUID: "g-manager", Username: "manager", Scopes: account.DefaultScopes,
		Labels: map[string]string{"team": "a"}}
	set := func(settings cluster.Settings) {
		if _, err := s.Users.UpdateCluster(t.Context(), admin, s.ClusterID, nil, settings, nil); err != nil {
			t.Error(err)
		}
	}
	pg.Exec(t, `CREATE ROLE wait_role`)
	for i := range 4 {
		create(t, s, fmt.Sprint("wait_ahead", i))
	}
	for what, test := range map[string]struct {
		change    func()
		kind      fault.Kind
		recorded  string
		onlyRoles bool
	}{
		"may view only":     {func() { s.Access(t, s.ClusterID, nil, []string{"team=a"}) }, fault.Forbidden, "denied", false},
		"may not even view": {func() { s.Access(t, s.ClusterID, nil, nil) }, fault.NotFound, "denied", false},
		"is a system role": {func() { set(cluster.Settings{SystemRoles: &[]string{"wait_user*"}}) }, fault.Forbidden, "denied",
			false},
		"grants it no longer": {func() { set(cluster.Settings{Grantable: &[]string{}}) }, fault.Invalid, "not_done", true},
		"is gone": {func() {
			if err := s.Clusters.Remove(t.Context(), uuid.MustParse(s.ClusterID), nil, false,
				audit.Entry{AccountGUID: "g", AccountName: "g", Target: "main"}); err != nil {
				t.Error(err)
			}
		}, fault.NotFound, "not_done", false},
	} {
		t.Run(what, func(t *testing.T) {
			role, secret := servicetest.Administrator(t, pg)
			s.ClusterID = s.Register(t, what, pg, role, secret)
			s.Access(t, s.ClusterID, []string{"team=a"}, nil)
			set(cluster.Settings{Grantable: &[]string{"wait_role"}})
			name := "wait_user_" + strings.ReplaceAll(what, " ", "_")
			create(t, s, name)
			create(t, s, name+"_d")
			for i := range 2 {
				create(t, s, fmt.Sprint(name, "_ahead", i))
			}
			// Two depend on nothing but the schema, so that their deletion has phases, and takes turns.
			pg.Exec(t, fmt.Sprintf(`GRANT USAGE ON SCHEMA public TO %s_d, %[1]s_ahead0, %[1]s_ahead1`, name))
			password, before := pgtest.Value[string](t, pg, `SELECT rolpassword FROM pg_authid WHERE rolname = $1`, name),
				len(s.AuditRows(t, name))
			beforeDelete := len(s.AuditRows(t, name+"_d"))
			blocker := pg.Connect(t, pg.User, pg.Password, "postgres")
			exec(t, blocker, `BEGIN; LOCK TABLE pg_authid, pg_auth_members IN SHARE ROW EXCLUSIVE MODE`)
			var ahead, waiting sync.WaitGroup
			for i := range 4 {
				ahead.Go(func() {
					_, _, _ = s.Users.SetPassword(context.Background(), admin, s.ClusterID, fmt.Sprint("wait_ahead", i), "another-password",
						nil)
				})
			}
			for i := range 2 {
				ahead.Go(func() {
					_ = s.Users.DeleteUser(context.Background(), admin, s.ClusterID, fmt.Sprint(name, "_ahead", i), dbuser.Deletion{}, nil)
				})
			}
			waitFor(t, pg, `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%ALTER ROLE%'`,
				6)
			var setErr, deleteErr error
			waiting.Go(func() {
				if test.onlyRoles {
					_, _, _, setErr = s.Users.SetRoles(context.Background(), manager, s.ClusterID, name, []string{"wait_role"}, nil)
					return
				}
				_, _, setErr = s.Users.SetPassword(context.Background(), manager, s.ClusterID, name, "another-password", nil)
			})
			if !test.onlyRoles {
				waiting.Go(func() {
					deleteErr = s.Users.DeleteUser(context.Background(), manager, s.ClusterID, name+"_d", dbuser.Deletion{}, nil)
				})
				waitForRows(t, s, name+"_d", beforeDelete+1)
			}
			waitForRows(t, s, name, before+1)
			test.change()
			exec(t, blocker, `ROLLBACK`)
			waiting.Wait()
			ahead.Wait()
			wantKind(t, setErr, test.kind)
			if rows := s.AuditRows(t, name); len(rows) != before+2 || rows[before+1].Outcome != test.recorded {
				t.Errorf("recorded: %+v", rows[before:])
			}
			if pgtest.Value[string](t, pg, `SELECT rolpassword FROM pg_authid WHERE rolname = $1`, name) != password {
				t.Error("the password was changed")
			}
			if test.onlyRoles {
				return
			}
			wantKind(t, deleteErr, test.kind)
			if rows := s.AuditRows(t, name+"_d"); len(rows) != beforeDelete+2 || rows[beforeDelete+1].Outcome != test.recorded {
				t.Errorf("recorded: %+v", rows[beforeDelete:])
			}
			if pgtest.Value[int](t, pg, `SELECT count(*)::int FROM pg_roles WHERE rolcanlogin AND rolname = $1`, name+"_d") != 1 {
				t.Error("the deletion has begun")
			}
		})
	}
}

func waitForRows(t testing.TB, s *servicetest.Service, target string, n int) {
	t.Helper()
	for i := 0; len(s.AuditRows(t, target)) < n; i++ {
		if i == 5000 {
			t.Fatalf("%d rows about %q, want %d", len(s.AuditRows(t, target)), target, n)
		}
	}
}
