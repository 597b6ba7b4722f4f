package pgrole_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func TestPlan(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		to, owner := name+"_to", name+"_owner"
		mustCreate(t, s, name, to, owner)
		if p, err := s.Plan(t.Context(), name, ""); err != nil || !reflect.DeepEqual(p, &pgrole.DeletionPlan{}) {
			t.Errorf("with nothing: %+v, %v", p, err)
		}
		db := database(t, c, name+"_db")
		main := c.Connect(t, c.User, c.Password, "postgres")
		for i := range 12 {
			exec(t, db, fmt.Sprintf(`CREATE TABLE t%02d (); ALTER TABLE t%02[1]d OWNER TO %s`, i, name))
		}
		exec(t, db, `CREATE SCHEMA s`, `CREATE FUNCTION s.definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'`,
			`CREATE FUNCTION s.invoker() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
			`CREATE VIEW s.v AS SELECT 1 AS one`, `CREATE MATERIALIZED VIEW s.m AS SELECT 1 AS one`, `CREATE TABLE s.granted (a int)`,
			`ALTER FUNCTION s.definer OWNER TO `+name, `ALTER FUNCTION s.invoker OWNER TO `+name, `ALTER VIEW s.v OWNER TO `+name,
			`ALTER MATERIALIZED VIEW s.m OWNER TO `+name,
			`ALTER TABLE s.granted OWNER TO `+owner, `GRANT SELECT (a) ON s.granted TO `+name, `GRANT USAGE ON SCHEMA s TO `+name,
			`GRANT CREATE ON SCHEMA s TO `+to,
			`ALTER SCHEMA s OWNER TO `+owner,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+owner+` IN SCHEMA s GRANT SELECT ON TABLES TO `+name,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+name+` REVOKE ALL ON ROUTINES FROM PUBLIC`)
		owned := 16
		if c.Major >= 15 {
			exec(t, db, `CREATE VIEW s.vi WITH (security_invoker = on) AS SELECT 1 AS one`,
				`CREATE VIEW s.vd WITH (security_invoker = off) AS SELECT 1 AS one`,
				`ALTER VIEW s.vi OWNER TO `+name, `ALTER VIEW s.vd OWNER TO `+name)
			owned += 2
		}
		exec(t, main, `ALTER DATABASE `+name+`_db OWNER TO `+owner, `GRANT CONNECT ON DATABASE `+name+`_db TO `+name)
		session := c.Connect(t, name, password, "postgres")
		before, rightsBefore, members := state(t, c, name), rights(t, db, "nobody"), membershipsOf(t, c, name)

		p, err := s.Plan(t.Context(), name, "")
		if err != nil || len(p.Blockers) != 1 || p.Sessions != 1 || len(p.Databases) != 2 {
			t.Fatalf("got %+v, %v", p, err)
		}
		for _, part := range []string{fmt.Sprintf(`It owns %d objects in database "%s_db": `, owned, name), "table public.t00",
			" and "} {
			if !strings.Contains(p.Blockers[0], part) {
				t.Errorf("the blocker lacks %q: %s", part, p.Blockers[0])
			}
		}
		if in := p.Databases[0]; in.Name != "postgres" || in.Objects.Count+in.Defaults.Count != 0 ||
			!slices.Equal(in.Privileges.First, []string{fmt.Sprintf(`DATABASE %s_db, granted by %q`, name, owner)}) {
			t.Errorf("shared: %+v", in)
		}
		in := p.Databases[1]
		if in.Name != name+"_db" || in.Objects.Count != owned || len(in.Objects.First) != 10 || in.Definers.Count != 0 ||
			!slices.Equal(in.Privileges.First, []string{fmt.Sprintf("SCHEMA s, granted by %q", owner),
				fmt.Sprintf("TABLE s.granted, granted by %q", owner)}) || in.Privileges.Count != 2 {
			t.Errorf("got %+v", in)
		}
		if want := []string{fmt.Sprintf("on routines that %q makes", name), fmt.Sprintf("on tables that %q makes in schema s",
			owner)}; !slices.Equal(in.Defaults.First, want) || in.Defaults.Count != 2 {
			t.Errorf("default privileges are %+v, want %q", in.Defaults, want)
		}

		p, err = s.Plan(t.Context(), name, to)
		if err != nil || len(p.Blockers) != 0 || p.Databases[1].Objects.Count != owned {
			t.Fatalf("got %+v, %v", p, err)
		}
		want := []string{"function s.definer()", "materialized view s.m", "view s.v", "view s.vd"}
		definers := p.Databases[1].Definers
		if got := slices.Sorted(slices.Values(definers.First)); !slices.Equal(got, want[:len(want)-1+(owned-16)/2]) ||
			definers.Count != len(got) {
			t.Errorf("with the owner's rights run %+v, want %q", definers, want)
		}

		if state(t, c, name) != before || session.Ping(t.Context()) != nil {
			t.Error("it was changed")
		}
		difference(t, rightsBefore, rights(t, db, "nobody"))
		difference(t, members, membershipsOf(t, c, name))
		for to, kind := range map[string]fault.Kind{name: fault.Invalid, "absent": fault.Invalid, "postgres": fault.Forbidden} {
			_, err := s.Plan(t.Context(), name, to)
			refused(t, err, kind)
		}
		for name, kind := range map[string]fault.Kind{"absent": fault.NotFound, "postgres": fault.Forbidden, name +
			"_db": fault.NotFound} {
			_, err := s.Plan(t.Context(), name, "")
			refused(t, err, kind)
		}
	})
}

// All that a Delete would be refused for, before it changes anything, is in the plan.
func TestPlanOfWhatBlocks(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "plan_blocks")
	db := database(t, c, "plan_blocks_db")
	exec(t, db, `CREATE TABLE secured (x int)`, `CREATE POLICY pol ON secured TO plan_blocks`,
		`GRANT SELECT ON secured TO plan_blocks WITH GRANT OPTION`,
		`SET ROLE plan_blocks`, `GRANT SELECT ON secured TO PUBLIC`, `RESET ROLE`)
	c.Exec(t, `CREATE DATABASE plan_blocks_off`)
	c.Exec(t, `GRANT CONNECT ON DATABASE plan_blocks_db TO plan_blocks`)
	t.Cleanup(func() { c.Exec(t, `DROP DATABASE plan_blocks_off`) })
	off := c.Connect(t, c.User, c.Password, "plan_blocks_off")
	exec(t, off, `CREATE TABLE t ()`, `GRANT SELECT ON t TO plan_blocks`)
	off.Close(t.Context())
	c.Exec(t, `ALTER DATABASE plan_blocks_off ALLOW_CONNECTIONS false`)
	p, err := s.Plan(t.Context(), "plan_blocks", "")
	if err != nil || len(p.Blockers) != 3 {
		t.Fatalf("got %+v, %v", p, err)
	}
	deleteErr := remove(t, s, "plan_blocks", "", nil, actor())
	for _, blocker := range p.Blockers {
		refused(t, deleteErr, fault.InUse, strings.TrimSuffix(blocker[1:], "."))
	}
}
