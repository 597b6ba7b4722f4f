package pgrole_test

import (
	"testing"

	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The same password again keeps its verifier where that can be read; another one, or other iterations, make a new one.
func TestSamePasswordKeepsItsVerifier(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		verifier := func() string {
			return pgtest.Value[string](t, c, `SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1`, name)
		}
		set := func(password string) (kept bool) {
			t.Helper()
			before := verifier()
			revision, err := s.User(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			u, err := s.SetPassword(t.Context(), name, password, nil, actor())
			if err != nil || u.Revision() == revision.Revision() {
				t.Fatalf("%v, %v", u, err)
			}
			mayLogin(t, c, name, password)
			return verifier() == before
		}
		reads := s.Pool.Config().ConnConfig.User == c.User
		if kept := set(password); kept != reads {
			t.Errorf("the same password: kept %v", kept)
		}
		if set(password2) {
			t.Error("another password has the same verifier")
		}
		exec(t, c.Connect(t, c.User, c.Password, "postgres"), `SET password_encryption = 'md5'`,
			`ALTER ROLE `+name+` PASSWORD '`+password2+`'`)
		if set(password2) {
			t.Error("an md5 hash was kept")
		}
		c.Exec(t, `ALTER ROLE `+name+` PASSWORD NULL`)
		if set(password2) {
			t.Error("no password was kept")
		}
	})
}
