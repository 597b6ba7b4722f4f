package pgrole_test

import (
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The sessions of a user are listed and counted under each kind of administering role. One that may not see where they come
// from says what helps.
func TestSessionList(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_idle")
		first := c.Connect(t, name, password, "postgres")
		exec(t, first, `SET application_name = 'billing é'`)
		c.Connect(t, name, password, "template1")
		oid := details(t, s, name).OID()
		idle := details(t, s, name+"_idle").OID()
		counts, err := s.SessionCounts(t.Context(), []uint32{oid, idle})
		if err != nil || counts[oid] != 2 || len(counts) != 1 {
			t.Errorf("got %v, %v", counts, err)
		}
		all, err := s.Sessions(t.Context(), name)
		if err != nil || all.Total != 2 || len(all.List) != 2 {
			t.Fatalf("got %+v, %v", all, err)
		}
		role := s.Pool.Config().ConnConfig.User
		sees := pgtest.Value[bool](t, c, `SELECT pg_has_role($1, 'pg_read_all_stats', 'USAGE')`, role)
		databases := map[string]bool{}
		for _, one := range all.List {
			databases[one.Database] = true
			if one.PID == int32(first.PgConn().PID()) && !strings.HasPrefix(one.Application, "billing") {
				t.Errorf("the application is %q", one.Application)
			}
			if one.Since.IsZero() == sees || (one.Address == "127.0.0.1") != sees || (one.State == "idle") != sees {
				t.Errorf("sees %v, and got %+v", sees, one)
			}
		}
		if !databases["postgres"] || !databases["template1"] {
			t.Errorf("the databases are %v", databases)
		}
		if (all.Problem == "") != sees || !sees && !strings.Contains(all.Problem, "GRANT pg_read_all_stats TO") {
			t.Errorf("the problem is %q", all.Problem)
		}
		if all, err := s.Sessions(t.Context(), name+"_idle"); err != nil || all.Total != 0 || all.Problem != "" {
			t.Errorf("got %+v, %v", all, err)
		}
		_, err = s.Sessions(t.Context(), name+"_none")
		refused(t, err, fault.NotFound)
	})
}
