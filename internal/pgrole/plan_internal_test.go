package pgrole

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

// explain returns the lines of a plan.
func explain(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// Many leases for one role end at once, in batches: a batch reads all memberships at most once, and not once for each role
// that it drops, whether PostgreSQL has statistics of them or not.
func TestDropBatchPlans(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	c.Exec(t, `CREATE ROLE app LOGIN`)
	c.Exec(t, `DO $$ BEGIN FOR i IN 1..3000 LOOP
		EXECUTE format('CREATE ROLE lease_%s LOGIN IN ROLE app; ALTER ROLE lease_%1$s SET role = app', i);
		END LOOP; END $$`)
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("lease_%d", (i+1)*300))
	}
	s := &Server{}
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for _, statistics := range []string{"no", "with"} {
		for what, query := range map[string]struct {
			sql  string
			args []any
		}{
			"roles": {selectRoles, s.protection(names)},
			"alone": {selectAlone, []any{names}},
		} {
			plan := explain(t, conn, `EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) `+query.sql, query.args...)
			scans := 0
			for _, line := range plan {
				if strings.Contains(line, "Seq Scan on pg_auth_members") {
					scans++
					if !strings.Contains(line, "loops=1)") {
						scans += len(names)
					}
				}
			}
			if scans > 1 {
				t.Errorf("%s, %s statistics: memberships are read %d times:\n%s", what, statistics, scans, strings.Join(plan, "\n"))
			}
		}
		c.Exec(t, `VACUUM ANALYZE`)
	}
}

// A page of many roles costs what its own roles cost, and little for each that it passes over: no sub-plan runs for those,
// nothing reads all comments, and no hash table is made for thousands that are expected. PostgreSQL plans without the values
// of parameters, as it does for a Server.
func TestListPlans(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	for i := range 10 { // in one transaction the locks are too many
		c.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE ROLE b%%s LOGIN; COMMENT ON ROLE b%%s IS '
			'''x''', i, i); END LOOP; END $$`, i*1000+10001, i*1000+11000))
	}
	conn := c.Connect(t, c.User, c.Password, "postgres")
	if _, err := conn.Exec(t.Context(), `SET plan_cache_mode = force_generic_plan; SET jit = off`); err != nil {
		t.Fatal(err)
	}
	loops := regexp.MustCompile(`loops=(\d+)`)
	allComments := regexp.MustCompile(`(Seq Scan|Hash|Sort).*pg_shdescription`)
	hashed := regexp.MustCompile(`(?:Recursive Union|CTE Scan on (?:known|risky))\b.*? rows=(\d+) width`)
	allMembers := regexp.MustCompile(`Seq Scan on pg_auth_members.*loops=.*`)
	search, _ := (&Search{}).statement(Stretch{}, true)
	for _, statistics := range []string{"no", "with", "with many groups and"} {
		for what, query := range map[string]struct{ sql, own string }{
			"first":      {selectUsers, ", 101, 0"},
			"by offset":  {selectUsers, ", 101, 5000"},
			"after":      {selectUsersAfter, ", 101, 'b15000'"},
			"all":        {selectAllUsers, ", 101, 5000"},
			"all, after": {selectAllUsersAfter, ", 101, 'b15000'"},
			"search":     {search, ", 101"},
			"count":      {countUsers, ""},
			"roles":      {selectRoles, ", '{b15000,b15001,b15002}'"},
		} {
			if _, err := conn.Exec(t.Context(), `PREPARE page AS `+query.sql); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			lines := explain(t, conn, `EXPLAIN (ANALYZE, TIMING OFF)
				EXECUTE page ('{}', '{postgres,admin}', '{`+strings.Join(alwaysDangerous, ",")+`}'`+query.own+`)`)
			if _, err := conn.Exec(t.Context(), `DEALLOCATE page`); err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			if found := allComments.FindString(plan); found != "" {
				t.Errorf("%s, %s statistics: there is %q:\n%s", what, statistics, found, plan)
			}
			if found := allMembers.FindString(plan); found != "" && statistics == "with many groups and" {
				t.Errorf("%s, %s statistics: there is %q:\n%s", what, statistics, found, plan)
			}
			for _, m := range hashed.FindAllStringSubmatch(plan, -1) {
				if n, _ := strconv.Atoi(m[1]); n > 1000 {
					t.Errorf("%s, %s statistics: PostgreSQL makes a hash table for %d rows:\n%s", what, statistics, n, plan)
				}
			}
			for _, m := range loops.FindAllStringSubmatch(plan, -1) {
				if n, _ := strconv.Atoi(m[1]); n > 200 && statistics != "with many groups and" {
					t.Errorf("%s, %s statistics: a part of the plan runs %d times:\n%s", what, statistics, n, plan)
				}
			}
		}
		if _, err := conn.Exec(t.Context(), selectEdges, pgx.QueryExecModeExec, 10); err != nil {
			t.Errorf("memberships above a role, %s statistics: %v", statistics, err)
		}
		if statistics == "with" { // each role is a group, as those of an administrator without SUPERUSER from PostgreSQL 16 on
			c.Exec(t, `CREATE ROLE member`)
			for i := range 10 {
				c.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('GRANT b%%s TO member', i); END LOOP;
					END $$`, i*1000+10001, i*1000+11000))
			}
		}
		c.Exec(t, `VACUUM ANALYZE`)
	}
}

// A lookup costs as much among 10,000 roles as among ten: the plan, which is made once for whatever names come, reads none
// of the big catalogs as a whole, with statistics or without.
func TestLookupPlan(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	c.Exec(t, `CREATE ROLE app LOGIN`)
	for i := 0; i < 10_000; i += 2000 { // a transaction has room for so many locks
		c.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE ROLE user_%%s LOGIN; COMMENT ON ROLE user_%%1$s IS %%L', i, repeat('comment ', 20));
			IF i %% 3 = 0 THEN
			  EXECUTE format('GRANT app TO user_%%s', i);
			  EXECUTE format('CREATE FUNCTION f_%%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', i);
			  EXECUTE format('ALTER FUNCTION f_%%s() OWNER TO user_%%1$s', i);
			END IF;
			END LOOP; END $$`, i+1, i+2000))
	}
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for _, sql := range []string{`SET plan_cache_mode = force_generic_plan`,
		`PREPARE quickly (name[]) AS ` + selectRolesQuickly} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, statistics := range []string{"no", "with"} {
		plan := explain(t, conn, `EXPLAIN (COSTS OFF) EXECUTE quickly ('{user_1, user_3, user_9999}')`)
		for _, line := range plan {
			if strings.Contains(line, "Seq Scan") && !strings.Contains(line, "Seq Scan on pg_database") {
				t.Errorf("%s statistics: %s\n%s", statistics, line, strings.Join(plan, "\n"))
			}
		}
		c.Exec(t, `VACUUM ANALYZE`)
	}
}
