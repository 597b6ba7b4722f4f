package pgrole_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func TestCreate(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		by := actor()
		u, err := s.Create(t.Context(), name, password, by)
		if err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password)
		mayNotLogin(t, c, name, password2)
		attributes := pgtest.Value[string](t, c,
			`SELECT concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
			rolbypassrls, rolconnlimit, coalesce(rolvaliduntil::text, 'ever'), left(rolpassword, 14)) FROM pg_authid WHERE rolname =
			  $1`, name)
		if want := "f t f f t f f -1 ever SCRAM-SHA-256$"; attributes != want {
			t.Errorf("attributes are %s, want %s", attributes, want)
		}
		p := u.Provenance
		if u.Name != name || u.System() || !p.Managed() || p.CreatedBy != account || p.ModifiedBy != account ||
			p.Attempt != by.Attempt ||
			p.Revision != 1 || p.State != "" || !p.Created.Equal(p.Modified) || time.Since(p.Created).Abs() > time.Minute {
			t.Errorf("got %+v", u)
		}
		line, ours := strings.CutPrefix(comment(t, c, name), "rolecall:v1 ")
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); !ours || err != nil || strings.Contains(line, "\n") ||
			got["createdBy"] != account ||
			got["modifiedBy"] != account || got["attempt"] != by.Attempt.String() || got["revision"] != 1.0 || len(got) != 6 {
			t.Errorf("the comment is %s", line)
		}
		again, err := s.User(t.Context(), name)
		if err != nil || again.Revision() != u.Revision() || again.Provenance != u.Provenance {
			t.Errorf("User gives %+v, %v; Create gave %+v", again, err, u)
		}
		before := state(t, c, name)
		_, err = s.Create(t.Context(), name, password2, actor())
		refused(t, err, fault.Exists)
		if state(t, c, name) != before {
			t.Error("a refused Create changed the role")
		}
	})
}

func TestSetPassword(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		created, err := s.Create(t.Context(), name, password, actor())
		if err != nil {
			t.Fatal(err)
		}
		by := pgrole.Actor{Account: "other", Attempt: actor().Attempt}
		u, err := s.SetPassword(t.Context(), name, password2, nil, by)
		if err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password2)
		mayNotLogin(t, c, name, password)
		p := u.Provenance
		if !p.Created.Equal(created.Provenance.Created) || p.CreatedBy != account || p.ModifiedBy != "other" || p.Revision != 2 ||
			p.Attempt != by.Attempt || !p.Modified.After(p.Created) || u.Revision() == created.Revision() {
			t.Errorf("got %+v, created as %+v", u, created)
		}
	})
}

func TestHumanCommentIsKept(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	for i, human := range []string{"of the shop", "two\nlines, it's a \\ comment", "rolecall:v1 {}",
		"rolecall:v1 {\"revision\":0}\n", "\n", "a\n\nb\n"} {
		name := fmt.Sprintf("human_comment_%d", i)
		c.Exec(t, `CREATE ROLE `+name+` LOGIN`)
		c.Exec(t, `COMMENT ON ROLE `+name+` IS E'`+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(human)+`'`)
		u, err := s.User(t.Context(), name)
		if err != nil || u.Provenance.Managed() {
			t.Fatalf("%q: got %+v, %v, want an unmanaged user", human, u, err)
		}
		c.Exec(t, `CREATE TABLE `+name+`_t (); ALTER TABLE `+name+`_t OWNER TO `+name)
		for range 2 {
			if _, err := s.SetPassword(t.Context(), name, password, nil, actor()); err != nil {
				t.Fatal(err)
			}
			refused(t, remove(t, s, name, "", nil, actor()), fault.InUse)
			if got := comment(t, c, name); !strings.HasPrefix(got, human+"\nrolecall:v1 {") ||
				strings.Count(got, "\n") != strings.Count(human, "\n")+1 {
				t.Errorf("the comment %q became %q", human, got)
			}
		}
	}
}

func TestUnmanaged(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	c.Exec(t, `CREATE ROLE unmanaged LOGIN`)
	if got := allUsers(t, s, "unmanaged"); !slices.Equal(got, []string{"unmanaged"}) {
		t.Errorf("the list has %q", got)
	}
	first, err := s.User(t.Context(), "unmanaged")
	if err != nil || first.Provenance.Managed() || first.Provenance != (pgrole.Provenance{}) {
		t.Fatalf("got %+v, %v", first, err)
	}
	listed, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 10000}, true))
	i := slices.IndexFunc(listed, func(u *pgrole.User) bool { return u.Name == "unmanaged" })
	if err != nil || i < 0 || listed[i].Revision() != first.Revision() {
		t.Errorf("the list has another revision than the user's %s", first.Revision())
	}
	c.Exec(t, `ALTER ROLE unmanaged CONNECTION LIMIT 3`)
	if u, err := s.User(t.Context(), "unmanaged"); err != nil || u.Revision() == first.Revision() {
		t.Error("an attribute changed by SQL does not change the revision")
	}
	_, err = s.SetPassword(t.Context(), "unmanaged", password, etag.Match{first.Revision()}, actor())
	refused(t, err, fault.Stale)
	u, err := s.SetPassword(t.Context(), "unmanaged", password, nil, actor())
	if err != nil || u.Provenance.Revision != 1 || u.Provenance.CreatedBy != "" || !u.Provenance.Created.IsZero() ||
		u.Provenance.ModifiedBy != account {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestNologinRoleIsNoUser(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	c.Exec(t, `CREATE ROLE nologin_group`)
	before := state(t, c, "nologin_group")
	_, err := s.User(t.Context(), "nologin_group")
	refused(t, err, fault.NotFound)
	_, err = s.SetPassword(t.Context(), "nologin_group", password, nil, actor())
	refused(t, err, fault.NotFound)
	_, err = s.Changeable(t.Context(), "nologin_group", nil)
	refused(t, err, fault.NotFound)
	refused(t, remove(t, s, "nologin_group", "", nil, actor()), fault.NotFound)
	_, err = s.Create(t.Context(), "nologin_group", password, actor())
	refused(t, err, fault.Exists)
	if state(t, c, "nologin_group") != before {
		t.Error("the role was changed")
	}
	if got := allUsers(t, s, "nologin_group"); len(got) > 0 {
		t.Errorf("the list has %q", got)
	}
	if u, err := s.Inspect(t.Context(), "nologin_group"); err != nil || u == nil {
		t.Errorf("Inspect = %v, %v, want any role", u, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	all := []string{
		"a", `quo"te`, `""`, `'`, `it's`, "a/b", "a b", " ", "x;drop role postgres", `"; DROP ROLE postgres; --`, `back\slash`,
		`\`, `E'\'`, "%", "%s", "_", "$1",
		"🙂", strings.Repeat("é", 31), strings.Repeat("n", 63), "Dup", "dup", "DUP", "PG_x", "pgx", "publicx", "Public", "select",
		"...", ".a", "e\u0301",
		"a@b.c", "<script>", `{"a":1}`, "\u00a0", "- -", "-d", "rolecall:v1 {}",
	}
	for _, name := range all {
		u, err := s.Create(t.Context(), name, password, actor())
		if err != nil || u.Name != name {
			t.Errorf("Create(%q) = %+v, %v", name, u, err)
			continue
		}
		mayLogin(t, c, name, password)
		if u, err = s.SetPassword(t.Context(), name, password2, etag.Match{u.Revision()}, actor()); err != nil || u.Name != name {
			t.Errorf("SetPassword(%q) = %+v, %v", name, u, err)
		}
		mayLogin(t, c, name, password2)
	}
	found := allUsers(t, s, "")
	for _, name := range all {
		if !slices.Contains(found, name) {
			t.Errorf("the list lacks %q", name)
		}
	}
	for _, name := range []string{"Dup", "dup", "DUP", "🙂", `"; DROP ROLE postgres; --`, strings.Repeat("é", 31), `\`, "pgx",
		"publicx"} {
		mustDelete(t, s, name)
		if exists(t, c, name) {
			t.Errorf("%q is still there", name)
		}
	}
	if !exists(t, c, "postgres") {
		t.Fatal("no postgres")
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	before := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_authid WHERE oid < 16384`)
	for _, name := range []string{
		"", ".", "..", strings.Repeat("é", 32), strings.Repeat("n", 64), strings.Repeat("🙂", 16), "pg_x", "pg_", "public", "none",
		"user", "current_user",
		"session_user", "current_role", "postgres", "admin", "standby", "rdsadmin", "rds_superuser", "cloudsqladmin",
		"azure_pg_admin", "doadmin",
		"a\x00b", "a\nb", "a\tb", "\x7f", "a\u0085b", "\xff", "a\xc3",
		"joe\u200b", "a\u202eb", "a\u2028b", "a\u2029b", "\ufeffjoe", "a\u00adb", "joe\u3164", "a\ufe0f",
	} {
		_, err := s.Create(t.Context(), name, password, actor())
		refused(t, err, fault.Invalid)
	}
	if after := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_authid WHERE oid < 16384`); after != before {
		t.Errorf("%d system roles, were %d", after, before)
	}
}

// PostgreSQL cuts a name at 63 bytes and only says so in a notice.
func TestLongNameFindsNoOtherRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	kept, kept2 := strings.Repeat("k", 63), strings.Repeat("ö", 31)+"o"
	mustCreate(t, s, kept, kept2)
	for _, role := range []string{kept, kept2} {
		before := state(t, c, role)
		for _, name := range []string{role + "k", role + "ö", role + strings.Repeat("ö", 40)} {
			_, err := s.Create(t.Context(), name, password, actor())
			refused(t, err, fault.Invalid)
			_, err = s.User(t.Context(), name)
			refused(t, err, fault.NotFound)
			_, err = s.SetPassword(t.Context(), name, password2, nil, actor())
			refused(t, err, fault.NotFound)
			refused(t, remove(t, s, name, "", nil, actor()), fault.NotFound)
			refused(t, remove(t, s, role, name, nil, actor()), fault.Invalid)
			if u, err := s.Inspect(t.Context(), name); u != nil || err != nil {
				t.Errorf("Inspect(%q) = %v, %v", name, u, err)
			}
		}
		if state(t, c, role) != before {
			t.Errorf("%q was changed", role)
		}
	}
}

// Names that no role can have are not there; they are no failure of the cluster.
func TestImpossibleNamesAreNotFound(t *testing.T) {
	t.Parallel()
	s := superuser(t, pgtest.Shared(t))
	for _, name := range []string{"", "a\x00b", "\xff\xfe", strings.Repeat("x", 1000)} {
		_, err := s.User(t.Context(), name)
		refused(t, err, fault.NotFound)
		_, err = s.SetPassword(t.Context(), name, password, nil, actor())
		refused(t, err, fault.NotFound)
		refused(t, remove(t, s, name, "", nil, actor()), fault.NotFound)
		_, err = s.Database(t.Context(), name)
		refused(t, err, fault.NotFound)
		refused(t, s.DropDatabase(t.Context(), name, actor()), fault.NotFound)
	}
}

func TestPasswordsAreJustPasswords(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "just_passwords"
	mustCreate(t, s, name)
	for _, password := range []string{
		`it's "quoted" \ $1 $$`, `''''''''''''`, `\\\\\\\\\\`, `'; DROP ROLE just_passwords; --`,
		"md5" + strings.Repeat("0", 32), "md5d41d8cd98f00b204e9800998ecf8427e",
		"SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAA:AAAAAAAA", "SCRAM-SHA-256$4096:c2FsdA==$a:b",
		"          ", strings.Repeat("x", 63), "zehn Zeichen, äöüß", strings.Repeat("🙂", 10),
	} {
		if _, err := s.SetPassword(t.Context(), name, password, nil, actor()); err != nil {
			t.Errorf("%q: %v", password, err)
			continue
		}
		if err := c.Login(name, password); err != nil {
			t.Errorf("%q does not log in: %v", password, err)
		}
	}
	before := state(t, c, name)
	for _, password := range []string{"", "too short", strings.Repeat("x", 64), "a new\nline here", "\x00234567890",
		"tab\tand more", "\xff234567890"} {
		_, err := s.SetPassword(t.Context(), name, password, nil, actor())
		refused(t, err, fault.Invalid)
		_, err = s.Create(t.Context(), name+"_new", password, actor())
		refused(t, err, fault.Invalid)
	}
	if state(t, c, name) != before || exists(t, c, name+"_new") {
		t.Error("a refused password changed something")
	}
}

func TestConcurrentCreate(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	replicas := []*pgrole.Server{superuser(t, c), superuser(t, c)}
	won := -1
	for i, err := range together(20, func(i int) error {
		_, err := replicas[i%2].Create(t.Context(), "concurrent_create", fmt.Sprintf("password of %d", i), actor())
		return err
	}) {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("both %d and %d made it", won, i)
		default:
			refused(t, err, fault.Exists)
		}
	}
	mayLogin(t, c, "concurrent_create", fmt.Sprintf("password of %d", won))
}

// CREATE ROLE from elsewhere takes no lock of ours: either unique index or check answers.
func TestCreateAgainstSQL(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `BEGIN`, `CREATE ROLE create_against_sql`)
	done := make(chan error)
	go func() {
		_, err := s.Create(t.Context(), "create_against_sql", password, actor())
		done <- err
	}()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE ROLE `+
		`"create_against_sql"%')`)
	exec(t, conn, `COMMIT`)
	refused(t, <-done, fault.Exists)
}

func TestConcurrentSetPassword(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	replicas := []*pgrole.Server{superuser(t, c), superuser(t, c)}
	const name = "concurrent_set"
	mustCreate(t, replicas[0], name)
	revisions := make([]int, 20)
	for i, err := range together(20, func(i int) error {
		u, err := replicas[i%2].SetPassword(t.Context(), name, fmt.Sprintf("password of %d", i), nil, actor())
		if err == nil {
			revisions[i] = u.Provenance.Revision
		}
		return err
	}) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	last := slices.Index(revisions, 21)
	if last < 0 {
		t.Fatalf("revisions are %v, want 2 to 21", revisions)
	}
	mayLogin(t, c, name, fmt.Sprintf("password of %d", last))
	mustDelete(t, replicas[0], name)
}

// SQL from elsewhere takes no lock of ours, and PostgreSQL then says "tuple concurrently updated".
func TestSetPasswordAgainstSQL(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "against_sql")
	conn := c.Connect(t, c.User, c.Password, "postgres")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var altered atomic.Int64
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			conn.Exec(context.Background(), fmt.Sprintf(`ALTER ROLE against_sql CONNECTION LIMIT %d`, altered.Add(1)+10))
			conn.Exec(context.Background(), `SELECT pg_sleep(0.002)`)
		}
	}()
	done, all := 0, 0
	for ; all < 40 || altered.Load() < 10 && all < 10_000; all++ {
		_, err := s.SetPassword(t.Context(), "against_sql", []string{password, password2}[all%2], nil,
			actor())
		if err == nil {
			done++
		} else {
			unavailable(t, err)
		}
	}
	if u, err := s.User(t.Context(), "against_sql"); err != nil || u.Provenance.Revision != done+1 || done < all*9/10 {
		t.Errorf("%d changes were done, but it is %+v, %v", done, u, err)
	}
	cancel()
	<-ended
	if n := altered.Load(); n < 10 {
		t.Errorf("the other session altered it %d times only", n)
	}
	if _, err := s.SetPassword(t.Context(), "against_sql", password2, nil, actor()); err != nil {
		t.Error(err)
	}
	mayLogin(t, c, "against_sql", password2)
}

// With If-Match only one of many that read the same revision wins.
func TestConcurrentMatch(t *testing.T) {
	t.Parallel()
	s := superuser(t, pgtest.Shared(t))
	u, err := s.Create(t.Context(), "concurrent_match", password, actor())
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for _, err := range together(10, func(int) error {
		_, err := s.SetPassword(t.Context(), u.Name, password2, etag.Match{u.Revision()}, actor())
		return err
	}) {
		if err == nil {
			won++
		} else {
			refused(t, err, fault.Stale)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	u, err := s.Create(t.Context(), "match", password, actor())
	if err != nil {
		t.Fatal(err)
	}
	before := state(t, c, "match")
	for _, m := range []etag.Match{{""}, {"x"}, {"1"}, {"x", u.Revision() + "x"}} {
		_, err := s.SetPassword(t.Context(), "match", password2, m, actor())
		refused(t, err, fault.Stale)
		_, err = s.Changeable(t.Context(), "match", m)
		refused(t, err, fault.Stale)
		refused(t, remove(t, s, "match", "", m, actor()), fault.Stale)
	}
	if state(t, c, "match") != before {
		t.Error("a stale change changed something")
	}
	_, err = s.SetPassword(t.Context(), "match_none", password2, etag.Match{"*"}, actor())
	refused(t, err, fault.NotFound)
	for _, m := range []etag.Match{{"*"}, {"x", "*"}, nil} {
		if u, err = s.SetPassword(t.Context(), "match", password2, m, actor()); err != nil {
			t.Errorf("%q: %v", m, err)
		}
	}
	if err := remove(t, s, "match", "", etag.Match{"x", u.Revision()}, actor()); err != nil {
		t.Error(err)
	}
}

// A role's defaults for transactions must not let a change decide by a snapshot from before it had the lock.
func TestDefaultsOfTheAdministeringRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	c.Exec(t, `ALTER ROLE `+role+` SET default_transaction_isolation = 'serializable'`)
	won := 0
	for _, err := range together(8, func(int) error {
		_, err := s.Create(t.Context(), "defaults_of_role", password, actor())
		return err
	}) {
		if err == nil {
			won++
		} else {
			refused(t, err, fault.Exists)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
	mustDelete(t, s, "defaults_of_role")
	// An operator's switch, which is not overridden.
	c.Exec(t, `ALTER ROLE `+role+` SET default_transaction_read_only = on`)
	s.Pool.Reset()
	_, err := s.Create(t.Context(), "defaults_of_role", password, actor())
	unavailable(t, err)
}
