package pgrole_test

import (
	"slices"
	"testing"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func TestProtected(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	adm, administering := administrator(t, c)
	adm.SystemRoles = []string{"postgres", "admin", "st?r", "app-*", "*.system", `50%`, `a_b`, `back\*`, "é?", "[x]"}
	adm.ControlRole = "control"
	c.Exec(t, `
		CREATE ROLE control LOGIN;
		CREATE ROLE super LOGIN SUPERUSER;
		CREATE ROLE in_super LOGIN NOINHERIT IN ROLE super;
		CREATE ROLE supers NOLOGIN IN ROLE super;
		CREATE ROLE supers2 NOLOGIN NOINHERIT IN ROLE supers;
		CREATE ROLE by_group LOGIN IN ROLE supers;
		CREATE ROLE by_two_groups LOGIN NOINHERIT IN ROLE supers2;
		CREATE ROLE replicator LOGIN REPLICATION;
		CREATE ROLE in_replicator LOGIN IN ROLE replicator;
		CREATE ROLE bypass LOGIN BYPASSRLS;
		CREATE ROLE creator LOGIN CREATEROLE;
		CREATE ROLE in_creator LOGIN IN ROLE creator;
		CREATE ROLE executes LOGIN IN ROLE pg_execute_server_program;
		CREATE ROLE reads LOGIN IN ROLE pg_read_server_files;
		CREATE ROLE writes LOGIN IN ROLE pg_write_server_files;
		CREATE ROLE rds_superuser NOLOGIN;
		CREATE ROLE of_cloud LOGIN IN ROLE rds_superuser;
		CREATE ROLE in_control LOGIN IN ROLE control;
		CREATE ROLE in_administering LOGIN NOINHERIT IN ROLE `+administering+`;
		CREATE ROLE star LOGIN; CREATE ROLE stair LOGIN; CREATE ROLE "app-" LOGIN; CREATE ROLE "app-x/y" LOGIN; CREATE ROLE appx
		  LOGIN;
		CREATE ROLE ".system" LOGIN; CREATE ROLE systems LOGIN; CREATE ROLE "50%" LOGIN; CREATE ROLE "501" LOGIN; CREATE ROLE a_b
		  LOGIN; CREATE ROLE axb LOGIN;
		CREATE ROLE "back\slash" LOGIN; CREATE ROLE "back*" LOGIN; CREATE ROLE "éé" LOGIN; CREATE ROLE "é" LOGIN; CREATE ROLE
		  "[x]" LOGIN; CREATE ROLE x LOGIN;
		CREATE ROLE plain LOGIN IN ROLE pg_monitor, pg_read_all_data;
		CREATE ROLE makes_databases LOGIN CREATEDB;
		CREATE ROLE victim LOGIN; CREATE TABLE owned (); ALTER TABLE owned OWNER TO victim`)
	protected := []string{
		"postgres", "super", "in_super", "by_group", "by_two_groups", "replicator", "in_replicator", "bypass", "creator",
		"in_creator", "executes", "reads",
		"writes", "of_cloud", "in_control", "in_administering", "control", administering, "star", "app-", "app-x/y", ".system",
		"50%", "a_b", `back\slash`, "éé", "[x]",
	}
	for _, name := range protected {
		before := state(t, c, name)
		u, err := adm.User(t.Context(), name)
		if err != nil || !u.System() {
			t.Errorf("%q: got %+v, %v, want a system user", name, u, err)
		}
		_, err = adm.SetPassword(t.Context(), name, password2, nil, actor())
		refused(t, err, fault.Forbidden)
		_, err = adm.Changeable(t.Context(), name, etag.Match{"*"})
		refused(t, err, fault.Forbidden)
		refused(t, remove(t, adm, name, "", nil, actor()), fault.Forbidden)
		refused(t, remove(t, adm, "victim", name, nil, actor()), fault.Forbidden)
		if state(t, c, name) != before {
			t.Errorf("%q was changed", name)
		}
	}
	// Not even what is no user is given objects to, when who becomes it could do harm, or everybody has it.
	for _, name := range []string{"supers", "supers2", "rds_superuser", "pg_monitor", "pg_execute_server_program"} {
		refused(t, remove(t, adm, "victim", name, nil, actor()), fault.Forbidden)
	}
	if owner := pgtest.Value[string](t, c,
		`SELECT relowner::regrole::text FROM pg_class WHERE relname = 'owned'`); owner != "victim" || !exists(t, c, "victim") {
		t.Errorf("the table went to %s", owner)
	}
	for _, name := range []string{"stair", "appx", "systems", "501", "axb", "back*", "é", "x", "plain", "makes_databases",
		"victim"} {
		u, err := adm.User(t.Context(), name)
		if err != nil || u.System() {
			t.Errorf("%q: got %+v, %v, want no system user", name, u, err)
		}
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	listed, _, err := onPage(adm.Users(t.Context(), pgrole.Page{Limit: 1000}, true))
	if err != nil || len(listed) != len(protected)+11 {
		t.Errorf("%d users are listed, want %d: %v", len(listed), len(protected)+11, err)
	}
	unprotected, _, err := onPage(adm.Users(t.Context(), pgrole.Page{Limit: 1000}, false))
	if err != nil || len(unprotected) != 11 {
		t.Errorf("listed as no system users: %q, %v", names(unprotected), err)
	}
}

// A role that becomes protected after the first look is found out under the lock.
func TestBecomesProtected(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "becomes_protected")
	s.Waits.Holders = -1
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `BEGIN`, `CREATE TABLE becomes_protected_t (); ALTER TABLE becomes_protected_t OWNER TO becomes_protected`,
		`DROP TABLE becomes_protected_t`)
	done := make(chan error)
	go func() { done <- remove(t, s, "becomes_protected", "", nil, actor()) }()
	waitForDrop(t, c, "becomes_protected")
	c.Exec(t, `GRANT postgres TO becomes_protected`) // too late for this DROP, which has been decided
	exec(t, conn, `COMMIT`)
	// One that is tried again, because it has waited too long for a lock, is decided again.
	if err := <-done; err != nil && !fault.Is(err, fault.Forbidden) || err == nil && exists(t, c, "becomes_protected") {
		refused(t, err, fault.InUse)
	}
}

// A role that was granted EXECUTE on a function that reads the server's files, or a parameter that names a command or a
// library, is as dangerous as a member of pg_read_server_files: it and its members are protected.
func TestProtectedByPrivileges(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	other := database(t, c, "other")
	mustCreate(t, s, "reads", "imports", "member", "harmless", "sets", "alters", "plain")
	exec(t, other, `GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reads`, `GRANT reads TO member`,
		`GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO harmless`)
	c.Exec(t, `GRANT EXECUTE ON FUNCTION lo_import(text) TO imports`)
	want := map[string]bool{"reads": true, "imports": true, "member": true, "harmless": false, "plain": false}
	if c.Major >= 15 {
		c.Exec(t, `GRANT ALTER SYSTEM ON PARAMETER archive_command TO alters; GRANT SET ON PARAMETER session_preload_libraries `+
			`TO sets; GRANT SET ON PARAMETER log_min_duration_statement TO harmless`)
		want["sets"], want["alters"] = true, true
	}
	users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 100}, false))
	if err != nil {
		t.Fatal(err)
	}
	for name, protected := range want {
		_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		if protected {
			refused(t, err, fault.Forbidden, "system user")
			mayLogin(t, c, name, password)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if slices.Contains(names(users), name) == protected {
			t.Errorf("%s: protected %v, listed %q", name, protected, names(users))
		}
	}
	_, _, err = setRoles(t.Context(), s, "plain", []string{"reads"}, []string{"reads"}, nil, actor())
	refused(t, err, fault.Forbidden)
	exec(t, other, `REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM reads`)
	if _, err := s.SetPassword(t.Context(), "member", password2, nil, actor()); err != nil {
		t.Error(err)
	}
}
