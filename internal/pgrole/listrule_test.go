package pgrole_test

import (
	"fmt"
	"slices"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// A list finds protected roles by a set that is made once for the query, and a single role is decided by itself: both must
// say the same of every role. A short page looks at few groups only, and then at the memberships of each role instead.
func TestListsAndSingleRolesAgree(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, _ string) {
		s.SystemRoles = []string{"postgres", "admin", "st?r", "app-*", `50%`, `a_b`, "late*", "grouped"}
		s.ControlRole = "control"
		for _, sql := range []string{
			`CREATE ROLE control LOGIN; CREATE ROLE in_control LOGIN IN ROLE control`,
			`CREATE ROLE admin LOGIN; CREATE ROLE in_admin LOGIN IN ROLE admin`, // its members are not protected
			`CREATE ROLE super LOGIN SUPERUSER; CREATE ROLE in_super LOGIN NOINHERIT IN ROLE super`,
			`CREATE ROLE supers IN ROLE super; CREATE ROLE supers2 NOINHERIT IN ROLE supers`,
			`CREATE ROLE by_group LOGIN IN ROLE supers; CREATE ROLE by_two LOGIN NOINHERIT IN ROLE supers2`,
			`CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE in_replicator LOGIN IN ROLE replicator`,
			`CREATE ROLE bypass LOGIN BYPASSRLS; CREATE ROLE in_bypass LOGIN IN ROLE bypass`,
			`CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE in_creator LOGIN IN ROLE creator`,
			`CREATE ROLE executes LOGIN IN ROLE pg_execute_server_program; CREATE ROLE reads LOGIN IN ROLE pg_read_server_files`,
			`CREATE ROLE rds_superuser; CREATE ROLE of_cloud LOGIN IN ROLE rds_superuser`,
			`CREATE ROLE imports LOGIN; GRANT EXECUTE ON FUNCTION lo_import(text) TO imports; CREATE ROLE in_imports LOGIN IN ROLE
			   imports; CREATE ROLE in_in_imports LOGIN IN ROLE in_imports`,
			`CREATE ROLE star LOGIN; CREATE ROLE stair LOGIN; CREATE ROLE "app-1" LOGIN; CREATE ROLE app1 LOGIN; CREATE ROLE "50%"
			   LOGIN; CREATE ROLE "501" LOGIN; CREATE ROLE a_b LOGIN; CREATE ROLE axb LOGIN; CREATE ROLE later LOGIN`,
			`CREATE ROLE in_star LOGIN IN ROLE star`,
			`CREATE ROLE monitors LOGIN IN ROLE pg_monitor, pg_read_all_data; CREATE ROLE databases LOGIN CREATEDB`,
			`CREATE ROLE grouped; CREATE ROLE in_grouped LOGIN IN ROLE grouped; CREATE ROLE "group"; CREATE ROLE gone`,
			`CREATE ROLE gone_super SUPERUSER`,
			`CREATE ROLE expired LOGIN VALID UNTIL '2001-01-01'; CREATE ROLE "é" LOGIN; CREATE ROLE "PG_x" LOGIN`,
			`CREATE ROLE pg LOGIN`,
			// More groups than a short page looks at, before and behind the dangerous ones.
			`DO $$ BEGIN FOR i IN 1..40 LOOP
			   EXECUTE format('CREATE ROLE g%s LOGIN; CREATE ROLE m%1$s LOGIN IN ROLE g%1$s', i); END LOOP; END $$`,
			`CREATE ROLE last_super LOGIN SUPERUSER; CREATE ROLE in_last_super LOGIN IN ROLE last_super, g1, g2`,
			`CREATE ROLE in_in_last LOGIN IN ROLE in_last_super`,
		} {
			c.Exec(t, sql)
		}
		c.Exec(t, `CREATE ROLE in_self LOGIN; GRANT "`+s.Pool.Config().ConnConfig.User+`" TO in_self`)
		mustCreate(t, s, "made", "stopped", "leased")
		if _, _, err := s.Disable(t.Context(), "stopped", nil, actor()); err != nil {
			t.Fatal(err)
		}
		record := comment(t, c, "stopped")
		c.Exec(t, `COMMENT ON ROLE gone IS '`+record+`'; COMMENT ON ROLE gone_super IS '`+record+`'`)
		takeLease(t, s, "leased", "leased_1")

		var plain, protected []string
		for _, name := range pgtest.Value[[]string](t, c, `SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_authid`) {
			u, err := s.User(t.Context(), name)
			switch {
			case fault.Is(err, fault.NotFound):
			case err != nil:
				t.Fatal(err)
			case u.System():
				protected = append(protected, name)
			default:
				plain = append(plain, name)
			}
		}
		for _, name := range []string{"in_super", "by_two", "in_in_imports", "in_last_super", "in_in_last", "star", "in_self",
			"gone_super"} {
			if !slices.Contains(protected, name) {
				t.Errorf("%s is not protected", name)
			}
		}
		for _, name := range []string{"in_admin", "in_star", "in_grouped", "m40", "gone", "stopped", "monitors", "leased_1"} {
			if !slices.Contains(plain, name) {
				t.Errorf("%s is no user, or protected", name)
			}
		}
		same := func(how string, got []string, err error) {
			t.Helper()
			if err != nil || !slices.Equal(got, plain) {
				t.Errorf("%s: got %q, %v, want %q", how, got, err, plain)
			}
		}
		for _, limit := range []int{1000, 7, 1} {
			var paged, after []string
			for more := true; more; {
				users, follows, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: limit, Offset: len(paged)}, false))
				if err != nil {
					t.Fatal(err)
				}
				paged, more = append(paged, names(users)...), follows
			}
			same(fmt.Sprintf("pages of %d", limit), paged, nil)
			for more := true; more; {
				from := ""
				if len(after) > 0 {
					from = after[len(after)-1]
				}
				details, follows, err := s.DetailsList(t.Context(), false, from, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range details {
					after = append(after, d.Name)
				}
				more = follows
			}
			same(fmt.Sprintf("pages of %d behind a name", limit), after, nil)
		}
		hits, _, err := s.Search(t.Context(), &pgrole.Search{}, pgrole.Stretch{Limit: 1000})
		var found []string
		for _, h := range hits {
			found = append(found, h.Name)
		}
		same("a search", found, err)
		if n, err := s.CountUsers(t.Context()); err != nil || n != len(plain) {
			t.Errorf("%d are counted, %v, want %d", n, err, len(plain))
		}
		all, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1000}, true))
		if err != nil || len(all) != len(plain)+len(protected) {
			t.Errorf("%d are listed with protected ones, %v, want %d", len(all), err, len(plain)+len(protected))
		}
		for _, u := range all {
			if u.System() != slices.Contains(protected, u.Name) {
				t.Errorf("%s is listed as protected: %v", u.Name, u.System())
			}
		}
		if problems, _, err := s.PasswordProblems(t.Context(), true, "", 1000); !fault.Is(err, fault.Forbidden) {
			if err != nil || len(problems) < 50 {
				t.Errorf("%d passwords are problems, %v", len(problems), err)
			}
			for _, p := range problems {
				if p.System != slices.Contains(protected, p.Name) {
					t.Errorf("the password of %s is that of a protected role: %v", p.Name, p.System)
				}
			}
			c.Exec(t, `ALTER ROLE in_in_last PASSWORD 'x'; ALTER ROLE m7 PASSWORD 'x'`)
			list, err := s.Userlist(t.Context())
			var with []string
			for _, u := range list {
				with = append(with, u.Name)
			}
			if want := []string{"leased", "leased_1", "m7", "made"}; err != nil || !slices.Equal(with, want) {
				t.Errorf("the userlist has %q, %v, want %q", with, err, want)
			}
		}
		// It holds at once, and in a cluster without any memberships.
		c.Exec(t, `GRANT super TO m9; DELETE FROM pg_auth_members WHERE member <> 'm9'::regrole`)
		if u, err := s.User(t.Context(), "m9"); err != nil || !u.System() {
			t.Errorf("m9: %v, %v", u, err)
		}
		if users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1000}, false)); err != nil ||
			slices.Contains(names(users), "m9") || !slices.Contains(names(users), "in_super") {
			t.Errorf("got %q, %v", names(users), err)
		}
		c.Exec(t, `DELETE FROM pg_auth_members`)
		if users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1000}, false)); err != nil ||
			!slices.Contains(names(users), "m9") {
			t.Errorf("got %q, %v", names(users), err)
		}
	})
}
