package dbuser_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const password = "a-good-password"

var (
	admin = &account.Principal{GUID: "g-admin", Username: "root", Scopes: account.AdminScopes, RequestID: "r-1",
		Address: "192.0.2.1"}
	viewer = &account.Principal{GUID: "g-viewer", Username: "viewer", Scopes: []string{account.ScopeAdminReadOnly}}
)

func create(t testing.TB, s *servicetest.Service, name string) {
	t.Helper()
	if _, _, err := s.Users.CreateUser(t.Context(), admin, s.ClusterID, name, password); err != nil {
		t.Fatal(err)
	}
}

// recorded is the audit rows of a target in short: phase or outcome, action, account, and the reason if there is one.
func recorded(t testing.TB, s *servicetest.Service, target string) (lines []string) {
	t.Helper()
	for _, row := range s.AuditRows(t, target) {
		var detail struct{ Reason string }
		if err := json.Unmarshal([]byte(row.Detail), &detail); err != nil {
			t.Fatal(err)
		}
		what := row.Outcome
		if row.Phase == "attempt" {
			what = row.Phase
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", what, row.Action, row.Account, detail.Reason)))
	}
	return lines
}

func expect(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRecorded(t *testing.T) {
	t.Parallel()
	s := servicetest.Shared(t)
	ctx := t.Context()
	create(t, s, "rec")
	expect(t, recorded(t, s, "rec"), "attempt user.create g-admin", "done user.create g-admin")

	// The role carries the id of the attempt that made it, and the rows say where the request came from.
	var attempt, requestID, address, name string
	err := s.DB.Pool.QueryRow(ctx, `SELECT attempt, request_id, address, account_name FROM audit WHERE target = 'rec' AND `+
		`phase = 'attempt'`).
		Scan(&attempt, &requestID, &address, &name)
	if err != nil {
		t.Fatal(err)
	}
	if requestID != "r-1" || address != "192.0.2.1" || name != "root" {
		t.Errorf("the attempt is from %q at %q by %q", requestID, address, name)
	}
	comment := pgtest.Value[string](t, s.PG, `SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'rec'`)
	if !strings.Contains(comment, `"attempt":"`+attempt+`"`) {
		t.Errorf("the role says %s, the attempt is %s", comment, attempt)
	}
	var unsettled int
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*) FROM audit WHERE phase = 'attempt' AND settle_after < time + `+
		`interval '30 s'`).Scan(&unsettled); err != nil || unsettled > 0 {
		t.Errorf("%d attempts would be settled while they are under way; %v", unsettled, err)
	}

	_, _, err = s.Users.CreateUser(ctx, admin, s.ClusterID, "rec", password)
	wantKind(t, err, fault.Exists)
	_, _, err = s.Users.SetPassword(ctx, admin, s.ClusterID, "rec", "another-password", []string{"old"})
	wantKind(t, err, fault.Stale)
	_, _, err = s.Users.SetPassword(ctx, viewer, s.ClusterID, "rec", "another-password", nil)
	wantKind(t, err, fault.Forbidden)
	got := recorded(t, s, "rec")[2:]
	if len(got) != 5 {
		t.Fatalf("recorded %q", got)
	}
	expect(t, got,
		"attempt user.create g-admin", `not_done user.create g-admin There is a role "rec" in this cluster already.`,
		"attempt user.password g-admin", got[3],
		"denied user.password g-viewer")
	if !strings.HasPrefix(got[3], `not_done user.password g-admin The user "rec" has changed`) {
		t.Errorf("recorded %q", got[3])
	}

	_, _, err = s.Users.SetPassword(ctx, admin, s.ClusterID, s.PG.User, "another-password", nil)
	wantKind(t, err, fault.Forbidden)
	expect(t, recorded(t, s, s.PG.User), "attempt user.password g-admin",
		fmt.Sprintf("denied user.password g-admin The user %q is a system user: it cannot be changed or deleted here.", s.PG.User))

	// What cannot be done anywhere is no attempt, and neither is what names an unknown cluster.
	_, _, err = s.Users.CreateUser(ctx, admin, s.ClusterID, "pg_rec", password)
	wantKind(t, err, fault.Invalid)
	_, _, err = s.Users.CreateUser(ctx, admin, s.ClusterID, "rec-short", "short")
	wantKind(t, err, fault.Invalid)
	_, _, err = s.Users.CreateUser(ctx, viewer, s.ClusterID, "rec-short", "short")
	wantKind(t, err, fault.Forbidden)
	_, _, err = s.Users.CreateUser(ctx, admin, "unknown", "rec-short", password)
	wantKind(t, err, fault.NotFound)
	_, _, err = s.Users.CreateUser(ctx, viewer, s.ClusterID, "rec\x00\xff", password)
	wantKind(t, err, fault.Forbidden)
	_, _, err = s.Users.KeepUser(ctx, viewer, s.ClusterID, "rec", nil)
	wantKind(t, err, fault.Forbidden)
	// But who may not do it is recorded, whatever it was.
	expect(t, append(recorded(t, s, "pg_rec"), recorded(t, s, "rec-short")...), "denied user.create g-viewer")
	expect(t, recorded(t, s, "rec\ufffd\ufffd"), "denied user.create g-viewer")
	if rows := recorded(t, s, "rec"); rows[len(rows)-1] != "denied user.password g-viewer" {
		t.Errorf("recorded %q", rows)
	}

	create(t, s, "rec-heir")
	if err := s.Users.DeleteUser(ctx, admin, s.ClusterID, "rec", dbuser.Deletion{ReassignTo: "rec-heir"}, nil); err != nil {
		t.Fatal(err)
	}
	rows := s.AuditRows(t, "rec")
	if last := rows[len(rows)-2]; last.Detail != `{"reassignTo": "rec-heir"}` {
		t.Errorf("the deletion is recorded as %+v", last)
	}
}

func wantKind(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v, want the kind %d", err, kind)
	}
}

// An outcome that cannot be written does not change the answer, and the settler writes it.
func TestOutcomeNotWritten(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	control := s.PG.Connect(t, s.PG.User, s.PG.Password, s.DB.Identity.Database)
	exec(t, control, `
		CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
		CREATE TRIGGER fail BEFORE INSERT ON rolecall.audit FOR EACH ROW WHEN (new.phase = 'outcome') EXECUTE FUNCTION fail()`)
	create(t, s, "lost")
	expect(t, recorded(t, s, "lost"), "attempt user.create g-admin")
	if !strings.Contains(s.Log.String(), "an outcome is left to the settler") {
		t.Errorf("the log says %s", s.Log)
	}
	exec(t, control, `DROP TRIGGER fail ON rolecall.audit;
		ALTER TABLE rolecall.audit DISABLE TRIGGER audit_append_only;
		UPDATE rolecall.audit SET settle_after = now() WHERE phase = 'attempt';
		ALTER TABLE rolecall.audit ENABLE TRIGGER audit_append_only`)
	settle(t, s)
	expect(t, recorded(t, s, "lost"), "attempt user.create g-admin", "done user.create g-admin")
}

func exec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// settle does one pass of the settler. What it finds depends on all changes of the shared cluster that this service has not
// recorded, so tests that settle do not run beside others.
func settle(t testing.TB, s *servicetest.Service) {
	t.Helper()
	if err := s.Users.SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// In a cluster that grants no roles, only admins reassign to a role without LOGIN: what a role owns runs with its rights.
func TestReassignWithoutGrantableRoles(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t)) // its rules are its own
	create(t, s, "reassign_user")
	s.PG.Exec(t, `CREATE ROLE reassign_group; CREATE TABLE reassign_table ();
		ALTER TABLE reassign_table OWNER TO reassign_user`)
	manager := &account.Principal{GUID: "g-reassign", Scopes: account.DefaultScopes,
		Labels: map[string]string{"team": "reassign"}}
	s.Access(t, s.ClusterID, []string{"team=reassign"}, nil)
	err := s.Users.DeleteUser(t.Context(), manager, s.ClusterID, "reassign_user",
		dbuser.Deletion{ReassignTo: "reassign_group"}, nil)
	if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "only an admin") {
		t.Errorf("got %v", err)
	}
	if err := s.Users.DeleteUser(t.Context(), admin, s.ClusterID, "reassign_user",
		dbuser.Deletion{ReassignTo: "reassign_group"}, nil); err != nil {
		t.Error(err)
	}
}
