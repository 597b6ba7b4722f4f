package pgrole_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	c.Exec(t, `CREATE ROLE "B" LOGIN; CREATE ROLE a LOGIN; CREATE ROLE b LOGIN; CREATE ROLE "é" LOGIN; CREATE ROLE "_" LOGIN;
		CREATE ROLE "Z" LOGIN REPLICATION;
		CREATE ROLE "group"; CREATE ROLE "10" LOGIN; CREATE ROLE "9" LOGIN`)
	own := []string{"10", "9", "B", "_", "a", "b", "é"} // by bytes, whatever the cluster's collation
	all := []string{"10", "9", "B", "Z", "_", "a", "b", "postgres", "é"}
	for _, tt := range []struct {
		page   pgrole.Page
		system bool
		want   []string
		more   bool
	}{
		{pgrole.Page{Limit: 100}, false, own, false},
		{pgrole.Page{Limit: 100}, true, all, false},
		{pgrole.Page{Limit: 3}, false, own[:3], true},
		{pgrole.Page{Limit: 3, Offset: 3}, false, own[3:6], true},
		{pgrole.Page{Limit: 3, Offset: 6}, false, own[6:], false},
		{pgrole.Page{Limit: 7}, false, own, false},
		{pgrole.Page{Limit: 6}, false, own[:6], true},
		{pgrole.Page{Limit: 3, Offset: 100}, false, nil, false},
		{pgrole.Page{Limit: 9}, true, all, false},
		{pgrole.Page{Limit: 1, Offset: 3}, true, []string{"Z"}, true},
		{pgrole.Page{Limit: 3, After: "B"}, false, own[3:6], true},
		{pgrole.Page{Limit: 3, After: "B", Offset: 100}, false, own[3:6], true},
		{pgrole.Page{Limit: 3, After: "Z"}, false, own[3:6], true}, // a protected one, and below one that is not there
		{pgrole.Page{Limit: 4, After: "C"}, true, all[3:7], true},
		{pgrole.Page{Limit: 2, After: "b\xff"}, false, own[6:], false},
		{pgrole.Page{Limit: 2, After: "\xff"}, true, nil, false},
		{pgrole.Page{Limit: 2, After: "é"}, true, nil, false},
	} {
		users, more, err := onPage(s.Users(t.Context(), tt.page, tt.system))
		if err != nil || more != tt.more || !slices.Equal(names(users), tt.want) {
			t.Errorf("Users(%+v, %v) = %q, %v, %v, want %q, %v", tt.page, tt.system, names(users), more, err, tt.want, tt.more)
		}
		for _, u := range users {
			if u.System() != (u.Name == "Z" || u.Name == "postgres") {
				t.Errorf("System of %q is %v", u.Name, u.System())
			}
		}
	}
	s.SystemRoles = []string{"*"}
	if users, more, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 100}, false)); len(users) > 0 || more || err != nil {
		t.Errorf("got %q, %v, %v", names(users), more, err)
	}
}

// The registered database may have another encoding than the one in which a role was made: names, comments and patterns
// are then bytes that are not text.
func TestRolesOfOtherEncodings(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	s.SystemRoles = []string{"é?", "*x*", "__"}
	latin1 := database(t, c, "latin1", "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	exec(t, latin1, `SET client_encoding = 'UTF8'`, `CREATE ROLE "é" LOGIN`, `COMMENT ON ROLE "é" IS 'à é rolecall:v1 {}'`,
		`CREATE ROLE "ÿx" LOGIN`)
	users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 100}, true))
	if got := names(users); err != nil || !slices.Contains(got, "\xe9") || !slices.Contains(got, "\xffx") {
		t.Errorf("got %q, %v", got, err)
	}
	for _, u := range users {
		if u.System() != (u.Name == "postgres" || u.Name == "\xffx") {
			t.Errorf("System of %q is %v", u.Name, u.System())
		}
	}
	// "é" in UTF-8 is another role.
	_, err = s.User(t.Context(), "é")
	refused(t, err, fault.NotFound)
	mustCreate(t, s, "é")
	mustDelete(t, s, "é")
	if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_authid WHERE rolname::text::bytea = '\xe9'`); n != 1 {
		t.Errorf("%d roles of the one byte 0xe9", n)
	}
}

// A cluster can be registered over a database that cannot write every name.
func TestRegisteredDatabaseInLatin1(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	database(t, c, "latin1", "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	s := superuser(t, c)
	config := s.Pool.Config()
	config.ConnConfig.Database = "latin1"
	s.Pool = pool(t, config)
	mustCreate(t, s, "é")
	if u, err := s.User(t.Context(), "é"); err != nil || u.Name != "é" {
		t.Errorf("got %+v, %v", u, err)
	}
	_, err := s.Create(t.Context(), "🙂", password, actor())
	refused(t, err, fault.Invalid)
	_, err = s.User(t.Context(), "🙂")
	refused(t, err, fault.NotFound)
	if users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 9, After: "ê"}, false)); err != nil || len(users) > 0 {
		t.Errorf("got %q, %v", names(users), err)
	}
	_, err = s.Users(t.Context(), pgrole.Page{Limit: 9, After: "🙂"}, false)
	refused(t, err, fault.Invalid, "behind the name")
	_, err = s.SetPassword(t.Context(), "🙂", password, nil, actor())
	refused(t, err, fault.NotFound)
	refused(t, remove(t, s, "🙂", "", nil, actor()), fault.NotFound)
	mustDelete(t, s, "é")
}

// The first page of many must not read and sort them all.
func TestListWalksTheIndex(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0"})
	s := superuser(t, c)
	for i := range 10 { // of 20,000 in one transaction the locks are too many
		c.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE ROLE b%%s LOGIN; COMMENT ON ROLE b%%s IS '
			'''x''', i, i); END LOOP; END $$`, i*2000+1, i*2000+2000))
	}
	for _, table := range []string{"pg_authid", "pg_shdescription", "pg_auth_members"} {
		c.Exec(t, `VACUUM ANALYZE `+table)
	}
	users, more, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 100}, false))
	if err != nil || !more || len(users) != 100 {
		t.Fatalf("%d users, %v, %v", len(users), more, err)
	}
	log := c.ReadLog(t)
	plan := log[strings.LastIndex(log, "Query Text:"):]
	if list, more, err := s.DetailsList(t.Context(), false, "b1", 100); err != nil || !more || len(list) != 100 {
		t.Fatalf("%d users, %v, %v", len(list), more, err)
	}
	_, later, _ := strings.Cut(c.ReadLog(t)[len(log):], "$5::name")
	later, _, _ = strings.Cut(later, "Query Text:")
	if sorted := regexp.MustCompile(`Sort  \(cost=.*rows=[0-9]{4}`).FindString(later); later == "" || sorted != "" {
		t.Errorf("a later page is found by %q:\n%s", sorted, later)
	}
	for _, index := range []string{"Index Scan using pg_authid_rolname_index", "Index Scan using pg_shdescription_o_c_index"} {
		if !strings.Contains(plan, index) {
			t.Errorf("there is no %s in the plan:\n%s", index, plan)
		}
	}
}
