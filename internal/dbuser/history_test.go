package dbuser_test

import (
	"fmt"
	"testing"

	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// TestHistory: where the outcome of a change was lost, and later changes have left their own trace on the user, they tell
// what came of it.
func TestHistory(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	control := s.PG.Connect(t, s.PG.User, s.PG.Password, s.DB.Identity.Database)
	exec(t, control, `CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`)
	lose := func(f func()) {
		t.Helper()
		exec(t, control, `CREATE TRIGGER lose BEFORE INSERT ON rolecall.audit FOR EACH ROW WHEN (new.phase = 'outcome') `+
			`EXECUTE FUNCTION lose()`)
		f()
		exec(t, control, `DROP TRIGGER lose ON rolecall.audit`)
	}
	made := func(name string) { create(t, s, name) }
	changed := func(name string) {
		t.Helper()
		if _, _, err := s.Users.SetPassword(t.Context(), admin, s.ClusterID, name, password, nil); err != nil {
			t.Fatal(err)
		}
	}
	deleted := func(name string) {
		t.Helper()
		if err := s.Users.DeleteUser(t.Context(), admin, s.ClusterID, name, dbuser.Deletion{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	notDeleted := func(kind fault.Kind) func(string) {
		return func(name string) {
			t.Helper()
			wantKind(t, s.Users.DeleteUser(t.Context(), admin, s.ClusterID, name, dbuser.Deletion{}, nil), kind)
		}
	}
	lost := func(f func(string)) func(string) { return func(name string) { lose(func() { f(name) }) } }
	cut := func(action string) func(string) {
		return func(name string) { cutOff(t, s, s.ClusterID, action, name, -3600) }
	}
	sql := func(format string) func(string) {
		return func(name string) { s.PG.Exec(t, fmt.Sprintf(format, name)) }
	}
	table := sql(`CREATE TABLE "%[1]s" (); ALTER TABLE "%[1]s" OWNER TO "%[1]s"`)
	disabled := func(name string) {
		t.Helper()
		_, u, err := s.Users.DeleteOrDisableUser(t.Context(), admin, s.ClusterID, name, dbuser.Deletion{}, nil)
		if err != nil || u == nil {
			t.Fatalf("got %v, %v", u, err)
		}
	}

	const after, between = "the change after it has found it", "the changes before and after it follow on each other"
	for name, c := range map[string]struct {
		steps        []func(string)
		action       string // whose outcome is missing: the first such attempt
		outcome, why string
	}{
		"done, and another after it": {[]func(string){made, lost(changed), changed}, audit.ChangePassword, "done",
			after},
		"done, and several after it": {[]func(string){made, lost(changed), changed, changed, changed},
			audit.ChangePassword, "done", after},
		"done, like the one after it": {[]func(string){made, lost(changed), lost(changed)}, audit.ChangePassword, "done",
			after},
		"done, and deleted": {[]func(string){made, lost(changed), deleted}, audit.ChangePassword, "done",
			after},
		"done, and refused to be deleted": {[]func(string){made, lost(changed), table, notDeleted(fault.InUse), changed},
			audit.ChangePassword, "done", after},
		"done, and disabled": {[]func(string){made, lost(changed), table, disabled, changed},
			audit.ChangePassword, "done", after},
		"not done, and another after it": {[]func(string){made, cut(audit.ChangePassword), changed}, audit.ChangePassword,
			"not_done", between},
		"not done, and several after it": {[]func(string){made, changed, cut(audit.ChangePassword), changed, changed},
			audit.ChangePassword, "not_done", between},
		"not done, and deleted": {[]func(string){made, cut(audit.ChangePassword), deleted}, audit.ChangePassword,
			"not_done", between},
		"not made, and made by the same again": {[]func(string){cut(audit.CreateUser), made}, audit.CreateUser, "not_done",
			"it was made by a later attempt"},
		"not made, and changed since": {[]func(string){cut(audit.CreateUser), made, changed}, audit.CreateUser,
			"not_done", "it was made by a later attempt"},
		"made, and changed since":      {[]func(string){lost(made), changed, changed}, audit.CreateUser, "done", after},
		"made, and deleted":            {[]func(string){lost(made), deleted}, audit.CreateUser, "done", after},
		"made, deleted and made again": {[]func(string){lost(made), deleted, made}, audit.CreateUser, "done", after},
		"deleted, and by the same again": {[]func(string){made, lost(deleted), notDeleted(fault.NotFound)}, audit.DeleteUser,
			"done", "it is gone"},
		"deleted, and made again": {[]func(string){made, lost(deleted), made}, audit.DeleteUser, "done",
			"it was gone, and was made again"},
		"deleted twice, and made again": {[]func(string){made, cut(audit.DeleteUser), deleted, made}, audit.DeleteUser,
			"unknown", "later attempts have been made on it"},
		"not deleted, and changed since": {[]func(string){made, cut(audit.DeleteUser), changed}, audit.DeleteUser,
			"not_done", between},
		"not deleted, and then deleted": {[]func(string){made, cut(audit.DeleteUser), deleted}, audit.DeleteUser,
			"not_done", between},
		"a database of that name": {[]func(string){made, cut(audit.ChangePassword), cut(audit.CreateDatabase)},
			audit.ChangePassword, "not_done", between},
		"a database of that name instead": {[]func(string){cut(audit.CreateUser), cut(audit.CreateDatabase)},
			audit.CreateUser, "not_done", "the cluster shows no trace of it"},
		// What was between them is not known any more.
		"the record was removed": {[]func(string){made, lost(changed), sql(`COMMENT ON ROLE "%s" IS NULL`), changed},
			audit.ChangePassword, "unknown", "later attempts have been made on it"},
		"the next was lost as well": {[]func(string){made, lost(changed), lost(changed), changed}, audit.ChangePassword,
			"unknown", "later attempts have been made on it"},
		"dropped by SQL and changed": {[]func(string){made, cut(audit.ChangePassword), sql(`DROP ROLE "%s"`), made},
			audit.ChangePassword, "unknown", "later attempts have been made on it"},
	} {
		t.Run(name, func(t *testing.T) {
			user := "trail " + name
			for _, step := range c.steps {
				step(user)
			}
			exec(t, control, `ALTER TABLE rolecall.audit DISABLE TRIGGER audit_append_only;
				UPDATE rolecall.audit SET settle_after = now() WHERE phase = 'attempt' AND target = '`+user+`';
				ALTER TABLE rolecall.audit ENABLE TRIGGER audit_append_only`)
			var id string
			err := s.DB.Pool.QueryRow(t.Context(), `
				SELECT attempt FROM audit a WHERE phase = 'attempt' AND target = $1 AND action = $2
				AND NOT EXISTS (SELECT FROM audit WHERE attempt = a.attempt AND phase = 'outcome') ORDER BY id LIMIT 1`, user,
				c.action).Scan(&id)
			if err != nil {
				t.Fatal(err)
			}
			settle(t, s)
			if got, why := outcome(t, s, id); got != c.outcome || why != c.why {
				t.Errorf("got %q because %q, want %q because %q", got, why, c.outcome, c.why)
			}
		})
	}
}
