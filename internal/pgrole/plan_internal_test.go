package pgrole

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

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
			rows, err := conn.Query(t.Context(), `EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) `+query.sql, query.args...)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
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
