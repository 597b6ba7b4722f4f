package pgrole_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/scram"
)

func TestPasswordProblems(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	c.UsualIterations(t)
	s := superuser(t, c)
	s.SystemRoles = append(s.SystemRoles, "sys*")
	mustCreate(t, s, "good", "disabled", "renamed", `quo"te é`)
	disable(t, c, s, "disabled")
	weak, err := scram.NewVerifier(password, 1000)
	if err != nil {
		t.Fatal(err)
	}
	// A hash of this form is taken for one whatever password_encryption says, on 18 with a warning.
	const md5 = `'md5d41d8cd98f00b204e9800998ecf8427e'`
	c.Exec(t, `CREATE ROLE old LOGIN PASSWORD `+md5+`; CREATE ROLE sys1 LOGIN PASSWORD `+md5+`; CREATE ROLE without LOGIN;
		CREATE ROLE weak LOGIN PASSWORD '`+weak+`';
		CREATE ROLE moved LOGIN PASSWORD `+md5+`; ALTER ROLE moved RENAME TO moved_away; CREATE ROLE no_login PASSWORD `+md5+`;
		CREATE ROLE expired LOGIN PASSWORD `+md5+` VALID UNTIL '2020-01-01';
		CREATE ROLE super LOGIN SUPERUSER; CREATE ROLE in_super LOGIN PASSWORD `+md5+` IN ROLE super`)
	list := func(s *pgrole.Server, limit int) (all []pgrole.PasswordProblem) {
		t.Helper()
		for after := ""; ; {
			page, more, err := s.PasswordProblems(t.Context(), true, after, limit)
			if err != nil || len(page) > limit || more && len(page) < limit {
				t.Fatalf("%d problems, more: %t, %v", len(page), more, err)
			}
			if all = append(all, page...); !more {
				return all
			}
			after = page[limit-1].Name
		}
	}
	want := []string{
		"expired false md5 0", "in_super true md5 0", "moved_away false none 0", "old false md5 0", "super true none 0",
		"sys1 true md5 0", "weak false scram-sha-256 1000", "without false none 0",
	}
	for _, limit := range []int{1, 3, len(want), 100} {
		var got []string
		for _, p := range list(s, limit) {
			got = append(got, fmt.Sprint(p.Name, " ", p.System, " ", p.Kind, " ", p.Iterations))
			if len(p.Problem) < 40 || strings.Contains(p.Problem, "SCRAM-SHA-256$") || strings.Contains(p.Problem, "d41d8") {
				t.Errorf("%s: the problem is %q", p.Name, p.Problem)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by pages of %d: %q, want %q", limit, got, want)
		}
	}

	// A new password is no problem any more.
	manageable, more, err := s.PasswordProblems(t.Context(), false, "", 5)
	if err != nil || len(manageable) != 5 || more || slices.ContainsFunc(manageable,
		func(p pgrole.PasswordProblem) bool { return p.System }) {
		t.Errorf("without the protected ones: %+v, more: %t, %v", manageable, more, err)
	}
	for _, name := range []string{"old", "without", "weak", "moved_away", "expired"} {
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for _, p := range list(s, 100) {
		left = append(left, p.Name)
	}
	if want := []string{"in_super", "super", "sys1"}; !slices.Equal(left, want) {
		t.Errorf("with new passwords there are left %q, want %q", left, want)
	}

	adm, role := administrator(t, c)
	_, _, err = adm.PasswordProblems(t.Context(), true, "", 100)
	refused(t, err, fault.Forbidden, "superuser")
	c.Exec(t, `GRANT SELECT ON pg_authid TO `+role) // the right is what counts
	if got := list(adm, 100); len(got) != 3 {
		t.Errorf("got %+v", got)
	}
	for _, after := range []string{"\x00", strings.Repeat("x", 64)} {
		_, _, err := s.PasswordProblems(t.Context(), true, after, 100)
		refused(t, err, fault.Malformed)
	}
}

// From 16 on the server says how many iterations it wants: of new verifiers, and so of those that there are.
func TestScramIterations(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	c.UsualIterations(t)
	adm, role := administrator(t, c)
	stored := func(name string) (n int) {
		t.Helper()
		return pgtest.Value[int](t, c, `SELECT substring(rolpassword from '^SCRAM-SHA-256\$(\d+):')::int FROM pg_authid WHERE `+
			`rolname = $1`, name)
	}
	mustCreate(t, adm, "usual")
	if n := stored("usual"); n != 4096 {
		t.Errorf("%d iterations", n)
	}
	if c.Major < 16 {
		return
	}
	c.Exec(t, `ALTER ROLE `+role+` SET scram_iterations = 15000; ALTER ROLE `+c.User+` SET scram_iterations = 15000`)
	adm, s := serverAs(t, c, role, "administrator"), superuser(t, c)
	problems, _, err := s.PasswordProblems(t.Context(), true, "", 100)
	if err != nil || !slices.ContainsFunc(problems, func(p pgrole.PasswordProblem) bool {
		return p.Name == "usual" && p.Iterations == 4096 && strings.Contains(p.Problem, "15000")
	}) {
		t.Errorf("got %+v, %v", problems, err)
	}
	mustCreate(t, adm, "strong")
	if _, err := adm.SetPassword(t.Context(), "usual", password2, nil, actor()); err != nil {
		t.Fatal(err)
	}
	if err := pgrole.SetOwnPassword(t.Context(), c.Connect(t, role, "administrator", "postgres"), password, due); err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]string{"usual": password2, "strong": password, role: password} {
		if n := stored(name); n != 15000 {
			t.Errorf("%s has %d iterations", name, n)
		}
		mayLogin(t, c, name, password)
	}

	// Nobody could stop what a cluster's owner sets off with this.
	c.Exec(t, `ALTER ROLE `+role+` SET scram_iterations = 2147483647`)
	adm = serverAs(t, c, role, password)
	_, err = adm.SetPassword(t.Context(), "usual", password, nil, actor())
	refused(t, err, fault.Forbidden, "scram_iterations")
	mayLogin(t, c, "usual", password2)
}

// Whatever the server makes of passwords that are set with SQL, it stores our verifiers as they are, and their users log
// in with SCRAM, also where pg_hba.conf says md5.
func TestMD5Server(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"password_encryption": "md5"})
	verifier, err := scram.NewVerifier("administrator", 4096)
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, `CREATE ROLE adm LOGIN CREATEROLE CREATEDB PASSWORD '`+verifier+`'; GRANT pg_signal_backend TO adm`)
	adm := serverAs(t, c, "adm", "administrator")
	mustCreate(t, adm, "made", "moved")
	c.Exec(t, `CREATE ROLE legacy LOGIN PASSWORD 'first password'; CREATE ROLE own LOGIN PASSWORD 'first password'; GRANT `+
		`legacy, own TO adm WITH ADMIN OPTION`)
	p := probe(t, c.Connect(t, "adm", "administrator", "postgres"))
	problems(t, p, `ALTER SYSTEM SET password_encryption = 'scram-sha-256'`)
	if !p.ManageUsers {
		t.Errorf("got %+v", p)
	}
	kinds := func(want string) {
		t.Helper()
		if got := pgtest.Value[string](t, c, `SELECT string_agg(rolname || ' ' || left(rolpassword, 3), ', ' ORDER BY rolname) `+
			`FROM pg_authid WHERE rolname IN ('made', 'moved', 'legacy', 'own')`); got != want {
			t.Errorf("the passwords are %s, want %s", got, want)
		}
	}
	kinds("legacy md5, made SCR, moved SCR, own md5")
	c.Exec(t, `ALTER ROLE moved RENAME TO moved_away; ALTER ROLE moved_away RENAME TO moved`) // takes an md5 hash away

	for _, method := range []string{"md5", "scram-sha-256"} {
		if err := os.WriteFile(filepath.Join(c.DataDir, "pg_hba.conf"), []byte("host all all all "+method+"\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
		c.Stop(t)
		c.Start(t)
		for name, password := range map[string]string{"made": password, "moved": password, "adm": "administrator"} {
			mayLogin(t, c, name, password) // it takes SCRAM only
			if _, err := c.Psql(name, password, "SELECT 1"); err != nil {
				t.Errorf("%s: %v", method, err)
			}
		}
		mayNotLogin(t, c, "legacy", password)
		if _, err := c.Psql("legacy", password, "SELECT 1"); (err == nil) != (method == "md5") {
			t.Errorf("%s: psql with an md5 hash: %v", method, err)
		}
	}

	if _, err := adm.SetPassword(t.Context(), "legacy", password2, nil, actor()); err != nil {
		t.Fatal(err)
	}
	mayLogin(t, c, "legacy", password2)
	kinds("legacy SCR, made SCR, moved SCR, own md5")
}
