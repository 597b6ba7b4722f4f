package dbuser_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/etag"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// watched is a service with an admin, on a PostgreSQL of its own whose administering role is a superuser.
func watched(t testing.TB) (*servicetest.Service, *account.Principal) {
	t.Helper()
	pg := pgtest.New(t, nil)
	s := servicetest.NewAs(t, pg, pg.User, pg.Password)
	p := &account.Principal{GUID: s.Admin(t, "root"), Username: "root", Origin: account.LocalOrigin,
		Scopes: account.AdminScopes}
	return s, p
}

func look(t testing.TB, s *servicetest.Service) {
	t.Helper()
	if complete, err := s.Users.Look(t.Context(), s.ClusterID); err != nil || !complete {
		t.Fatalf("complete %v: %v", complete, err)
	}
}

// observation is what a request shows of a user.
func observation(t testing.TB, s *servicetest.Service, p *account.Principal, name string) dbuser.Observation {
	t.Helper()
	c, d, err := s.Users.UserDetails(t.Context(), p, s.ClusterID, name)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Users.Observations(t.Context(), c.ID, []uint32{d.OID()})
	if err != nil {
		t.Fatal(err)
	}
	return o.OfUser(d.User)
}

// outside is "yes", "no" or "unknown".
func outside(t testing.TB, s *servicetest.Service, p *account.Principal, name string) string {
	t.Helper()
	o := observation(t, s, p, name)
	if (o.ChangedOutsideAt != nil) != (o.PasswordChangedOutside != nil && *o.PasswordChangedOutside) {
		t.Errorf("%s: the time is %v", name, o.ChangedOutsideAt)
	}
	switch is := o.PasswordChangedOutside; {
	case is == nil:
		return "unknown"
	case *is:
		return "yes"
	}
	return "no"
}

func wantOutside(t testing.TB, s *servicetest.Service, p *account.Principal, name, want string) {
	t.Helper()
	if is := outside(t, s, p, name); is != want {
		t.Errorf("the password of %s was changed by SQL: %s, want %s", name, is, want)
	}
}

// reports is how often the audit log says that the password of a user was changed by SQL.
func reports(t testing.TB, s *servicetest.Service, name string) (n int) {
	t.Helper()
	for _, row := range s.AuditRows(t, name) {
		if row.Action == audit.ChangedOutside {
			n++
		}
	}
	return n
}

func wantReports(t testing.TB, s *servicetest.Service, name string, want int) {
	t.Helper()
	if n := reports(t, s, name); n != want {
		t.Errorf("%d reports of %s, want %d", n, name, want)
	}
}

func TestPasswordChangedOutside(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	ctx := t.Context()
	if _, _, err := s.Users.CreateUser(ctx, p, s.ClusterID, "app", password); err != nil {
		t.Fatal(err)
	}
	s.PG.Exec(t, `CREATE ROLE old LOGIN PASSWORD 'before'; CREATE ROLE root2 SUPERUSER LOGIN PASSWORD 'before'`)
	wantOutside(t, s, p, "old", "unknown")
	look(t, s)
	for _, name := range []string{"app", "old"} {
		wantOutside(t, s, p, name, "no")
	}
	steps := []struct {
		name string
		sql  string
		want string
		n    int // reports until then
	}{
		{"app", `ALTER ROLE app PASSWORD 'other'`, "yes", 1},
		{"app", ``, "yes", 1},
		{"app", `ALTER ROLE app PASSWORD 'other'`, "yes", 2}, // another salt
		{"app", `ALTER ROLE app CONNECTION LIMIT 5`, "yes", 2},
		{"old", `ALTER ROLE old CONNECTION LIMIT 5`, "no", 0},
		{"old", `ALTER ROLE old PASSWORD NULL`, "yes", 1},
		{"old", `SET password_encryption = md5; ALTER ROLE old PASSWORD 'x'`, "yes", 2},
		{"old", `RESET password_encryption; ALTER ROLE old PASSWORD 'x'`, "yes", 3},
		{"app", `COMMENT ON ROLE app IS 'by hand'`, "yes", 2},
		{"root2", `ALTER ROLE root2 PASSWORD 'x'`, "unknown", 0},
	}
	for _, step := range steps {
		s.PG.Exec(t, `SELECT 1; `+step.sql)
		look(t, s)
		wantOutside(t, s, p, step.name, step.want)
		wantReports(t, s, step.name, step.n)
	}
	if log := s.Log.String(); strings.Count(log, "was changed by SQL") != 5 || strings.Contains(log, "SCRAM-SHA") {
		t.Errorf("the log is %s", log)
	}
	c, err := s.Users.Clusters.Get(s.ClusterID)
	if err != nil || s.Users.ChangedOutside(c) != 5 {
		t.Errorf("%d passwords were changed by SQL: %v", s.Users.ChangedOutside(c), err)
	}
	// The next password of Rolecall ends it at once, and for good.
	for _, name := range []string{"app", "old"} {
		if _, _, err := s.Users.SetPassword(ctx, p, s.ClusterID, name, password, etag.Match{}); err != nil {
			t.Fatal(err)
		}
		wantOutside(t, s, p, name, "no")
		look(t, s)
		wantOutside(t, s, p, name, "no")
	}
	wantReports(t, s, "app", 2)
	wantReports(t, s, "old", 3)
	// What Rolecall has set is known without a look before.
	s.PG.Exec(t, `ALTER ROLE app RENAME TO web; ALTER ROLE web PASSWORD 'x'`)
	look(t, s)
	wantOutside(t, s, p, "web", "yes")
	wantReports(t, s, "web", 1)
}

// What Rolecall sets or removes is not reported, whichever way it does so.
func TestOwnPasswordsAreKnown(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	ctx := t.Context()
	if _, _, err := s.Users.CreateUser(ctx, p, s.ClusterID, "app", password); err != nil {
		t.Fatal(err)
	}
	id := s.ClusterID
	changes := []struct {
		what string
		do   func() error
	}{
		{"create", func() error {
			_, _, _, err := s.Users.CreateUserWith(ctx, p, id, dbuser.NewUser{Name: "with"})
			return err
		}},
		{"set", func() error {
			_, _, err := s.Users.SetPassword(ctx, p, id, "app", "another password", etag.Match{})
			return err
		}},
		{"the same", func() error {
			_, _, err := s.Users.SetPassword(ctx, p, id, "app", "another password", etag.Match{})
			return err
		}},
		{"generate", func() error { _, _, _, err := s.Users.ChangePassword(ctx, p, id, "app", nil, etag.Match{}); return err }},
		{"limits", func() error {
			limit := 3
			_, _, _, err := s.Users.SetLimits(ctx, p, id, "app", pgrole.Limits{ConnectionLimit: &limit}, false, etag.Match{})
			return err
		}},
		{"disable", func() error { _, _, _, err := s.Users.DisableUser(ctx, p, id, "app", etag.Match{}); return err }},
		{"enable", func() error { _, _, err := s.Users.EnableUser(ctx, p, id, "app", etag.Match{}); return err }},
		{"lease", func() error { _, _, _, err := s.Users.CreateLease(ctx, p, id, dbuser.NewLease{For: "app"}); return err }},
		{"a blocked deletion", func() error {
			s.PG.Exec(t, `CREATE TABLE kept (); ALTER TABLE kept OWNER TO "with"`)
			_, u, err := s.Users.DeleteOrDisableUser(ctx, p, id, "with", dbuser.Deletion{}, etag.Match{})
			if err == nil && u == nil {
				t.Error("the owner of a table was deleted")
			}
			return err
		}},
		{"credential", func() error {
			_, _, _, err := s.Users.PutCredential(ctx, p, id, "stored", dbuser.CredentialSettings{For: "app",
				RotateEvery: time.Hour, Overlap: time.Minute}, etag.Match{})
			return err
		}},
		{"rotation", func() error { _, _, err := s.Users.RotateStored(ctx, p, id, "stored"); return err }},
	}
	for _, change := range changes {
		if err := change.do(); err != nil {
			t.Fatalf("%s: %v", change.what, err)
		}
		for _, sql := range []string{"", "DELETE FROM observations"} { // also without what was known before
			if _, err := s.DB.Pool.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
			look(t, s)
			var n int
			if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*) FROM observations WHERE outside OR recorded = ''`).
				Scan(&n); err != nil || n > 0 {
				t.Errorf("%s: %d passwords are foreign: %v", change.what, n, err)
			}
		}
	}
	var n int
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*) FROM observations WHERE recorded <> ''`).Scan(&n); err != nil || n != 5 {
		t.Errorf("%d of five roles have a fingerprint: %v", n, err)
	}
}

// Two replicas that look at the same time report a change once.
func TestLooksOfReplicas(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	other := s.Replica(t)
	const users = 150 // more than one look reports
	for i := range users {
		s.PG.Exec(t, fmt.Sprintf(`CREATE ROLE u%d LOGIN PASSWORD 'x'`, i))
	}
	look(t, s)
	s.PG.Exec(t, `DO $$ BEGIN FOR i IN 0..149 LOOP EXECUTE format('ALTER ROLE u%s PASSWORD ''y''', i); END LOOP; END $$`)
	for range 4 {
		var group sync.WaitGroup
		for _, one := range []*servicetest.Service{s, other, s, other} {
			group.Go(func() {
				if _, err := one.Users.Look(t.Context(), s.ClusterID); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	for i := range users {
		wantReports(t, s, fmt.Sprintf("u%d", i), 1)
	}
	wantOutside(t, s, p, "u149", "yes")
}

// What looks like a change by SQL and is none.
func TestNoFalseAlarm(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	ctx := t.Context()
	// Another Rolecall on the same cluster, with a control database of its own.
	two := servicetest.NewAs(t, s.PG, s.PG.User, s.PG.Password)
	q := &account.Principal{GUID: two.Admin(t, "root"), Username: "root", Origin: account.LocalOrigin,
		Scopes: account.AdminScopes}
	set := func(on *servicetest.Service, by *account.Principal, name, to string) {
		t.Helper()
		if _, _, err := on.Users.SetPassword(ctx, by, on.ClusterID, name, to, etag.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	s.PG.Exec(t, `CREATE ROLE app LOGIN PASSWORD 'x'; CREATE ROLE lost LOGIN PASSWORD 'x';
		SET password_encryption = md5; CREATE ROLE named LOGIN PASSWORD 'x'; RESET password_encryption`)
	verifier := func(name string) (v string) {
		t.Helper()
		conn := s.PG.Connect(t, s.PG.User, s.PG.Password, "postgres")
		defer conn.Close(ctx)
		if err := conn.QueryRow(ctx, `SELECT rolpassword FROM pg_authid WHERE rolname = $1`, name).Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := verifier("lost")
	both := func(names ...string) {
		t.Helper()
		look(t, s)
		look(t, two)
		for _, name := range names {
			wantOutside(t, s, p, name, "no")
			wantOutside(t, two, q, name, "no")
		}
	}
	both("app", "lost", "named")
	set(s, p, "app", "a password of one")
	both("app")
	set(two, q, "app", "a password of two")
	both("app")
	set(s, p, "app", "a password of one again")
	set(s, p, "lost", "a password of one")
	both("app", "lost")
	// A failover to a server that has not the last password, and not the record of it.
	s.PG.Exec(t, `ALTER ROLE lost PASSWORD '`+first+`'; COMMENT ON ROLE lost IS NULL`)
	both("lost")
	// PostgreSQL removes an md5 password when the role is renamed.
	s.PG.Exec(t, `ALTER ROLE named RENAME TO renamed; ALTER ROLE app RENAME TO app2`)
	both("renamed", "app2")
	// A release without fingerprints sets a password: the record has none then.
	set(s, p, "app2", "by an older release")
	conn := s.PG.Connect(t, s.PG.User, s.PG.Password, "postgres")
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE app2 IS %L', (SELECT
		regexp_replace(shobj_description(oid, 'pg_authid'), '"fingerprint":"[^"]*",', '')
		FROM pg_roles WHERE rolname = 'app2')); END $$`,
	); err != nil {
		t.Fatal(err)
	}
	both("app2")
	s.PG.Exec(t, `ALTER ROLE app2 PASSWORD 'x'`)
	look(t, s)
	wantOutside(t, s, p, "app2", "yes")
	// A dump of the roles gives them other OIDs.
	set(s, p, "app2", "a password of one")
	s.PG.Exec(t, `DO $$ DECLARE v text; c text; BEGIN
		SELECT rolpassword, shobj_description(oid, 'pg_authid') INTO v, c FROM pg_authid WHERE rolname = 'app2';
		DROP ROLE app2; EXECUTE format('CREATE ROLE app2 LOGIN PASSWORD %L', v); EXECUTE format('COMMENT ON ROLE app2 IS %L', c);
		END $$`)
	both("app2")
	wantReports(t, s, "app", 0)
	wantReports(t, s, "app2", 1)
	// The rows of roles that are gone go.
	var n int
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*) FROM observations WHERE fingerprint IS NOT NULL`).Scan(&n); err != nil ||
		n != 3 {
		t.Errorf("%d rows of three roles: %v", n, err)
	}
}

// An administering role that may not read verifiers sees the sessions of all roles.
func TestLastSeen(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE ROLE least LOGIN CREATEROLE CREATEDB PASSWORD 'x'; CREATE ROLE seen LOGIN PASSWORD 'x';
		CREATE ROLE unseen LOGIN PASSWORD 'x'`)
	s := servicetest.NewAs(t, pg, "least", "x")
	p := &account.Principal{GUID: s.Admin(t, "root"), Username: "root", Origin: account.LocalOrigin,
		Scopes: account.AdminScopes}
	if o := observation(t, s, p, "seen"); o != (dbuser.Observation{}) {
		t.Errorf("before the first look: %+v", o)
	}
	_, d, err := s.Users.UserDetails(t.Context(), p, s.ClusterID, "seen")
	if err != nil {
		t.Fatal(err)
	}
	oid := d.OID()
	conn := pg.Connect(t, "seen", "x", "postgres")
	look(t, s)
	one := observation(t, s, p, "seen")
	if one.LastSeen == nil || one.LastSeenSince == nil || one.PasswordChangedOutside != nil {
		t.Errorf("seen is %+v", one)
	}
	if o := observation(t, s, p, "unseen"); o.LastSeen != nil || o.LastSeenSince == nil || o.PasswordChangedOutside != nil {
		t.Errorf("unseen is %+v", o)
	}
	// It is stored once a minute.
	look(t, s)
	if again := observation(t, s, p, "seen"); !again.LastSeen.Equal(*one.LastSeen) {
		t.Errorf("it was stored again: %s, %s", one.LastSeen, again.LastSeen)
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := s.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE observations SET last_seen = last_seen - interval '51 seconds'`)
	look(t, s)
	if again := observation(t, s, p, "seen"); again.LastSeen.Before(*one.LastSeen) {
		t.Errorf("it was not stored again: %s, %s", one.LastSeen, again.LastSeen)
	}
	// The clock of the control database was ahead: no time is in the future, and none goes back.
	exec(`UPDATE observations SET last_seen = last_seen + interval '1 hour'`)
	look(t, s)
	var ahead bool
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT bool_and(last_seen > now() + interval '59 minutes') FROM observations`).
		Scan(&ahead); err != nil || !ahead {
		t.Errorf("what is stored went back: %v", err)
	}
	before := observation(t, s, p, "seen")
	if after := observation(t, s, p, "seen"); after.LastSeen.Before(*before.LastSeen) ||
		after.LastSeen.Sub(*one.LastSeen).Minutes() > 30 {
		t.Errorf("%s after %s", after.LastSeen, before.LastSeen)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	pg.Exec(t, `DROP ROLE seen`) // a session that is about to end does not keep it
	look(t, s)
	var n int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM observations WHERE role_oid = $1`,
		oid).Scan(&n); err != nil ||
		n > 0 {
		t.Errorf("%d rows of a role that is gone: %v", n, err)
	}
}
