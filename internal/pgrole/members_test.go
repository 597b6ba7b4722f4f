package pgrole_test

import (
	"slices"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The members of a user lose with it what they have by it: they are named, and it is deleted only if that is asked for.
func TestDeleteWithMembers(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_b", name+"_a")
		c.Exec(t, `GRANT `+name+` TO `+name+`_b, `+name+`_a`)
		if members, err := s.Members(t.Context(), name); err != nil || !slices.Equal(members, []string{name + "_a", name + "_b"}) {
			t.Errorf("the members are %q, %v", members, err)
		}
		plan, err := s.Plan(t.Context(), name, "")
		if err != nil || len(plan.Blockers) != 1 {
			t.Errorf("the plan is %+v, %v", plan, err)
		}
		refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, "withMembers", name+"_a, "+name+"_b", "Nothing was changed")
		mayLogin(t, c, name, password)
		with := *s
		with.WithMembers = true
		if plan, err := with.Plan(t.Context(), name, ""); err != nil || len(plan.Blockers) != 0 {
			t.Errorf("with members the plan is %+v, %v", plan, err)
		}
		if err := remove(t, &with, name, "", nil, actor()); err != nil {
			t.Error(err)
		}
		if exists(t, c, name) {
			t.Error("it is there")
		}
		mustDelete(t, s, name+"_a")
		mustDelete(t, s, name+"_b")
		// Who made a role is no member that loses something.
		c.Exec(t, `CREATE ROLE `+name+`_maker LOGIN CREATEROLE PASSWORD 'maker'`)
		maker := c.Connect(t, name+"_maker", "maker", "postgres")
		exec(t, maker, `CREATE ROLE `+name+`_made LOGIN`)
		if c.Major >= 16 {
			exec(t, maker, `GRANT `+name+`_made TO CURRENT_USER WITH INHERIT TRUE, SET TRUE`)
			if user := s.Pool.Config().ConnConfig.User; user != c.User {
				c.Exec(t, `GRANT `+name+`_made TO `+user+` WITH ADMIN OPTION`)
			}
		}
		mustDelete(t, s, name+"_made")
	})
}
