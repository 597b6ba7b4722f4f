package dbuser_test

import (
	"testing"

	"rolecall/internal/audit"
	"rolecall/internal/dbuser"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// TestOutcomesLostInACrash: the outcome of a usual change is there as soon as it is answered, and reaches the disk later. A
// crash of the control database that comes first loses it, and the settler finds it again. An outcome that was sealed, or
// followed by another attempt, is not lost.
func TestOutcomesLostInACrash(t *testing.T) {
	// Nothing is written to the disk but what a COMMIT waits for.
	pg := pgtest.New(t, map[string]string{"wal_writer_delay": "10s"})
	s := servicetest.New(t, pg)
	changes := []struct {
		action string
		make   func(name string) error
	}{
		{audit.CreateUser, func(name string) error {
			_, _, err := s.Users.CreateUser(t.Context(), admin, s.ClusterID, name, password)
			return err
		}},
		{audit.ChangePassword, func(name string) error {
			_, _, err := s.Users.SetPassword(t.Context(), admin, s.ClusterID, name, "another long password", nil)
			return err
		}},
		{audit.DeleteUser, func(name string) error {
			return s.Users.DeleteUser(t.Context(), admin, s.ClusterID, name, dbuser.Deletion{}, nil)
		}},
	}
	attempt := func(name, action string) (id, outcome string) {
		t.Helper()
		err := s.DB.Pool.QueryRow(t.Context(), `
			SELECT a.attempt::text, coalesce(o.outcome, '') FROM audit a
			LEFT JOIN audit o ON o.attempt = a.attempt AND o.phase = 'outcome'
			WHERE a.phase = 'attempt' AND a.target = $1 AND a.action = $2`, name, action).Scan(&id, &outcome)
		if err != nil {
			t.Fatal(err)
		}
		return id, outcome
	}
	crash := func() {
		t.Helper()
		pg.Kill(t)
		pg.Start(t)
		s.DB.Pool.Reset()
	}
	for i, change := range changes {
		const name = "crashed"
		if err := change.make(name); err != nil {
			t.Fatal(err)
		}
		if _, got := attempt(name, change.action); got != "done" {
			t.Errorf("%s: after the answer its outcome is %q", change.action, got)
		}
		crash()
		id, got := attempt(name, change.action)
		if got != "" {
			t.Errorf("%s: the outcome %q was on the disk, so this test shows nothing", change.action, got)
		}
		for _, earlier := range changes[:i] {
			if _, got := attempt(name, earlier.action); got != "done" {
				t.Errorf("%s: its outcome is %q after a later crash", earlier.action, got)
			}
		}
		control := pg.Connect(t, pg.User, pg.Password, s.DB.Identity.Database)
		exec(t, control, `ALTER TABLE rolecall.audit DISABLE TRIGGER audit_append_only;
			UPDATE rolecall.audit SET settle_after = now() WHERE attempt = '`+id+`' AND phase = 'attempt';
			ALTER TABLE rolecall.audit ENABLE TRIGGER audit_append_only`)
		settle(t, s)
		if got, why := outcome(t, s, id); got != "done" || why == "" {
			t.Errorf("%s: settled as %q because %q", change.action, got, why)
		}
	}

	// Whatever is committed later keeps it: the attempt of the next change, or a seal.
	for _, change := range changes[:2] {
		if err := change.make("followed"); err != nil {
			t.Fatal(err)
		}
	}
	crash()
	if _, got := attempt("followed", audit.CreateUser); got != "done" {
		t.Errorf("the outcome before another attempt is %q after a crash", got)
	}
	if err := changes[0].make("kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Audit.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := changes[0].make("lost"); err != nil {
		t.Fatal(err)
	}
	crash()
	if _, got := attempt("kept", audit.CreateUser); got != "done" {
		t.Errorf("a sealed outcome is %q after a crash", got)
	}
	if _, got := attempt("lost", audit.CreateUser); got != "" {
		t.Errorf("the outcome %q was on the disk, so this test shows nothing", got)
	}
}
