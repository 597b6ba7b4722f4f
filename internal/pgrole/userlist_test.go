package pgrole_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
)

func TestUserlist(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	s.SystemRoles = append(s.SystemRoles, "sys*")
	s.ControlRole = "control"
	mustCreate(t, s, "b", "B", `quo"te`, "é", "disabled")
	c.Exec(t, `CREATE ROLE a LOGIN PASSWORD 'md5d41d8cd98f00b204e9800998ecf8427e';
		CREATE ROLE later LOGIN PASSWORD 'x' VALID UNTIL '2100-01-01';
		CREATE ROLE super LOGIN SUPERUSER PASSWORD 'x'; CREATE ROLE in_super LOGIN PASSWORD 'x' IN ROLE super; CREATE ROLE sys1
		  LOGIN PASSWORD 'x'; CREATE ROLE control LOGIN PASSWORD 'x';
		CREATE ROLE nopassword LOGIN; CREATE ROLE nologin PASSWORD 'x'; CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL
		  '2020-01-01';
		CREATE ROLE ever LOGIN PASSWORD 'x' VALID UNTIL 'infinity'`)
	disable(t, c, s, "disabled")
	list, err := s.Userlist(t.Context())
	var got []string
	for _, credential := range list {
		got = append(got, credential.Name)
		if want := pgtest.Value[string](t, c, `SELECT rolpassword FROM pg_authid WHERE rolname = $1`,
			credential.Name); string(credential.Verifier) != want {
			t.Errorf("the verifier of %s is another", credential.Name)
		}
	}
	if want := []string{"B", "a", "b", "ever", "later", `quo"te`, "é"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, verb := range []string{"%v", "%+v", "%s", "%#v"} {
		if text := fmt.Sprintf(verb, list); strings.Contains(text, "SCRAM") || strings.Contains(text, "md5") {
			t.Errorf("%s prints the verifiers: %s", verb, text)
		}
	}
	adm, _ := administrator(t, c)
	list, err = adm.Userlist(t.Context())
	refused(t, err, fault.Forbidden, "superuser")
	if list != nil {
		t.Errorf("got %v", list)
	}
}
