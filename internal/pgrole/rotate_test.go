package pgrole_test

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func due(context.Context) error { return nil }

func TestSetOwnPassword(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	c.Exec(t, `CREATE ROLE own_group`)
	c.LogStatements(t)
	var secrets []string
	for role, options := range map[string]string{"own_super": `SUPERUSER`, "own_admin": `CREATEROLE`, "own_plain": ``,
		"own_settings": `CREATEROLE IN ROLE own_group`} {
		c.Exec(t, `CREATE ROLE `+role+` LOGIN PASSWORD 'old password' `+options)
		if role == "own_settings" {
			c.Exec(t, `ALTER ROLE own_settings SET role = 'own_group'`)
		}
		conn := c.Connect(t, role, "old password", "postgres")
		who := value[string](t, conn, `SELECT current_user::text`)
		old := "old password"
		for range 2 {
			secret := rand.Text()
			secrets = append(secrets, secret)
			if err := pgrole.SetOwnPassword(t.Context(), conn, secret, due); err != nil {
				t.Fatalf("%s: %v", role, err)
			}
			mayLogin(t, c, role, secret)
			mayNotLogin(t, c, role, old)
			old = secret
		}
		if got := pgtest.Value[string](t, c, `SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = $1`,
			role); got != "SCRAM-SHA-256$" {
			t.Errorf("%s: %s", role, got)
		}
		if got := value[string](t, conn, `SELECT current_user::text`); got != who {
			t.Errorf("%s was %s, is %s", role, who, got)
		}
		before := state(t, c, role)
		if err := pgrole.SetOwnPassword(t.Context(), conn, "", due); err == nil || state(t, c, role) != before {
			t.Errorf("the empty password: %v", err)
		}
		notDue := fault.New(fault.InUse, "not due")
		if err := pgrole.SetOwnPassword(t.Context(), conn, rand.Text(),
			func(context.Context) error { return notDue }); err != notDue || state(t, c, role) != before {
			t.Errorf("one that was called off: %v", err)
		}
	}
	log := c.ReadLog(t)
	if !strings.Contains(log, "ALTER ROLE CURRENT_USER PASSWORD") {
		t.Fatal("the log is not whole")
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Error("a password is in the log")
		}
	}
}

// When the COMMIT's answer is lost, the new password may count or the old one, and the error says so.
func TestSetOwnPasswordCutAtCommit(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	p := &cutter{}
	c.Exec(t, `CREATE ROLE own_cut LOGIN PASSWORD 'old password'`)
	s := serverAt(t, p.listen(t, c), "own_cut", "old password")
	for _, before := range []bool{true, false} {
		conn, err := s.Connect(t.Context(), "postgres", "UTF8")
		if err != nil {
			t.Fatal(err)
		}
		p.arm(before, 0, 1)
		err = pgrole.SetOwnPassword(t.Context(), conn, "new password", due)
		unavailable(t, err)
		refused(t, err, fault.Unavailable, "may count")
		if before {
			mayLogin(t, c, "own_cut", "old password")
			continue
		}
		for end := time.Now().Add(time.Minute); c.Login("own_cut", "new password") != nil; {
			if time.Now().After(end) {
				t.Fatal("the new password never counts")
			}
		}
		again := c.Connect(t, "own_cut", "new password", "postgres")
		if err := pgrole.SetOwnPassword(t.Context(), again, "new password", due); err != nil {
			t.Error(err)
		}
		mayLogin(t, c, "own_cut", "new password")
	}
}
