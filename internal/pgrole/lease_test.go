package pgrole_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// takeLease makes a lease for a role, of an hour, and returns it.
func takeLease(t testing.TB, s *pgrole.Server, actsFor, name string) *pgrole.LeaseRole {
	t.Helper()
	return takeLeaseOf(t, s, actsFor, name, time.Hour)
}

func takeLeaseOf(t testing.TB, s *pgrole.Server, actsFor, name string, ttl time.Duration) *pgrole.LeaseRole {
	t.Helper()
	l, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: uuid.New(), For: actsFor, Name: name, TTL: ttl}, password2,
		actor())
	if err != nil {
		t.Fatalf("CreateLease(%q for %q): %v", name, actsFor, err)
	}
	return l
}

// endLease ends a lease as the product does: the short way first.
func endLease(ctx context.Context, s *pgrole.Server, l *pgrole.LeaseRole, expired bool) (pgrole.EndedLease, error) {
	e, done, err := s.DropLease(ctx, l.Key(), expired)
	if err != nil || done {
		return e, err
	}
	return s.EndLease(ctx, l.Key(), expired, actor())
}

// mustEnd ends a lease, of which nothing is left then.
func mustEnd(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, l *pgrole.LeaseRole) {
	t.Helper()
	e, err := endLease(t.Context(), s, l, false)
	if err != nil || e.Gone || len(e.BlockedBy) > 0 || e.Remaining != 0 {
		t.Fatalf("EndLease(%q): %+v, %v", l.Name, e, err)
	}
	if exists(t, c, l.Name) {
		t.Errorf("the role %q is there", l.Name)
	}
}

// odd names are all that a name may be.
func oddNames(prefix string) []string {
	return []string{prefix, prefix + ` "quoted" 'name'`, prefix + `\back=slash; --`, prefix + " Straße 東京",
		(prefix + strings.Repeat("x", 63))[:63]}
}

// A leased role logs in at once and acts for the other role: what it makes belongs to that, and nothing is in the way of its
// end.
func TestLease(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		c.Exec(t, `GRANT CREATE ON SCHEMA public TO PUBLIC`)
		for i, actsFor := range oddNames(prefix) {
			mustCreate(t, s, actsFor)
			by := actor()
			n := pgrole.NewLease{ID: uuid.New(), For: actsFor, Name: strings.ToValidUTF8(actsFor[:min(len(actsFor), 54)], "") +
				"_abcdefg" + fmt.Sprint(i), TTL: time.Hour, Credential: "größe"}
			l, err := s.CreateLease(t.Context(), n, password2, by)
			if err != nil {
				t.Fatal(err)
			}
			if l.ID != n.ID || l.Name != n.Name || l.For != actsFor || l.Credential != n.Credential || l.CreatedBy != account ||
				l.Ends.Sub(l.Created) != time.Hour || !l.Now.Equal(l.Created) || !slices.Contains(l.Databases, "postgres") {
				t.Errorf("the lease is %+v", l)
			}
			conn := c.Connect(t, n.Name, password2, "postgres")
			if who := value[string](t, conn, `SELECT current_user || '|' || session_user`); who != actsFor+"|"+n.Name {
				t.Errorf("it acts as %q", who)
			}
			table := fmt.Sprintf("%s_%d", prefix, i)
			exec(t, conn, `CREATE TABLE `+table+` (a int)`, `SELECT lo_create(0)`)
			if owner := value[string](t, conn, `SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = $1`,
				table); owner != actsFor {
				t.Errorf("the table belongs to %q", owner)
			}
			u, err := s.User(t.Context(), n.Name)
			if err != nil || u.Lease() == nil || u.Lease().ID != n.ID || u.Lease().For != actsFor || !u.Lease().Ends.Equal(l.Ends) {
				t.Errorf("the user is %+v, %v", u, err)
			}
			d, err := s.Details(t.Context(), n.Name)
			if err != nil || d.ValidUntil == nil || !d.ValidUntil.Equal(l.Ends) || !slices.Equal(d.MemberOf, []string{actsFor}) ||
				len(d.NotInherited) > 0 || !slices.Contains(d.Databases, "postgres") {
				t.Errorf("its details are %+v, %v", d, err)
			}
			e, err := endLease(t.Context(), s, l, true)
			if err != nil || e.Remaining <= 0 || e.Remaining > time.Hour || !exists(t, c, n.Name) {
				t.Errorf("the end of a lease that lasts: %+v, %v", e, err)
			}
			e, err = endLease(t.Context(), s, l, false)
			if err != nil || e.Gone || len(e.BlockedBy) > 0 || e.Previous != by.Attempt || exists(t, c, n.Name) {
				t.Fatalf("the end: %+v, %v", e, err)
			}
			if err := conn.Ping(t.Context()); err == nil {
				t.Error("its session lives")
			}
			mayNotLogin(t, c, n.Name, password2)
			e, err = endLease(t.Context(), s, l, false)
			if err != nil || !e.Gone {
				t.Errorf("the second end: %+v, %v", e, err)
			}
			c.Exec(t, `DROP TABLE `+table)
			c.Exec(t, `SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM pg_roles WHERE
				rolname = $1)`, actsFor)
			mustDelete(t, s, actsFor)
		}
	})
}

// No lease comes into being for what nobody may hand out.
func TestLeaseRefused(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		user, group, other, leased := prefix, prefix+"_group", prefix+"_other", prefix+"_lease"
		mustCreate(t, s, user)
		c.Exec(t, `CREATE ROLE `+group+`; CREATE ROLE `+prefix+`_super CREATEROLE LOGIN; CREATE ROLE `+prefix+
			`_in_super LOGIN; GRANT `+prefix+`_super TO `+prefix+`_in_super`)
		self := s.Pool.Config().ConnConfig.User
		if pgtest.Value[int](t, c, `SELECT current_setting('server_version_num')::int`) >= 160000 && self != c.User {
			c.Exec(t, `GRANT `+group+` TO `+self+` WITH ADMIN OPTION`)
		}
		first := takeLease(t, s, user, prefix+"_first")
		create := func(s *pgrole.Server, actsFor string) error {
			_, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: uuid.New(), For: actsFor, Name: leased, TTL: time.Minute},
				password2, actor())
			return err
		}
		refused(t, create(s, other), fault.Invalid, `There is no role "`+other+`" in this cluster.`)
		refused(t, create(s, strings.Repeat("x", 64)), fault.Invalid, `There is no role "xxx`)
		refused(t, create(s, "a\x00b"), fault.Invalid, `There is no role`)
		refused(t, create(s, prefix+"_super"), fault.Forbidden, "is a system role")
		refused(t, create(s, prefix+"_in_super"), fault.Forbidden, "member of the system role")
		refused(t, create(s, "pg_monitor"), fault.Forbidden, "is a system role")
		_, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: uuid.New(), For: "pg_monitor", Name: "pg_monitor_lease",
			TTL: time.Minute}, password2, actor())
		refused(t, err, fault.Forbidden, "is a system role")
		refused(t, create(s, self), fault.Forbidden, "is a system role")
		refused(t, create(s, first.Name), fault.Invalid, "is a lease itself", user)
		refused(t, create(s, group), fault.Invalid, "is no user")
		if err := create(granting(s, group), group); err != nil {
			t.Error(err)
		}
		refused(t, create(granting(s, group), group), fault.Exists, leased)
		member := *s
		member.MemberOf = []string{group}
		c.Exec(t, `DROP ROLE `+leased)
		if err := create(&member, group); err != nil {
			t.Error(err)
		}
		c.Exec(t, `DROP ROLE `+leased)
		_, err = s.CreateLease(t.Context(), pgrole.NewLease{ID: uuid.New(), For: user, Name: leased, TTL: time.Minute}, "short",
			actor())
		refused(t, err, fault.Invalid, "A password has")
		_, err = s.CreateLease(t.Context(), pgrole.NewLease{ID: uuid.New(), For: user, Name: "pg_x", TTL: time.Minute}, password2,
			actor())
		refused(t, err, fault.Invalid, "reserved")
		mustEnd(t, c, s, first)

		// A user whose deletion is blocked is disabled.
		c.Exec(t, `CREATE SCHEMA `+user+` AUTHORIZATION `+user)
		if why, _, err := s.DeleteOrDisable(t.Context(), user, "", nil, actor()); err != nil || why == "" {
			t.Fatal(why, err)
		}
		refused(t, create(s, user), fault.Invalid, "is disabled")
		if exists(t, c, leased) {
			t.Error("there is a role")
		}
	})
}

// The end of a lease moves by the clock of the cluster, and not back unless that is asked for.
func TestChangeLeaseEnd(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		change := func(end pgrole.LeaseEnd) *pgrole.LeaseRole {
			t.Helper()
			now, err := s.ChangeLeaseEnd(t.Context(), l.Key(), end, actor())
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.Details(t.Context(), l.Name)
			if err != nil || d.ValidUntil == nil || !d.ValidUntil.Equal(now.Ends) || !d.Lease().Ends.Equal(now.Ends) {
				t.Errorf("its details are %+v, %v", d, err)
			}
			return now
		}
		if now := change(pgrole.LeaseEnd{In: time.Minute}); !now.Ends.Equal(l.Ends) {
			t.Errorf("it ends at %s, not %s", now.Ends, l.Ends)
		}
		if now := change(pgrole.LeaseEnd{In: 2 * time.Hour}); now.Ends.Sub(now.Now) != 2*time.Hour {
			t.Errorf("it ends at %s", now.Ends)
		}
		latest := l.Ends.Add(90 * time.Minute)
		if now := change(pgrole.LeaseEnd{In: 4 * time.Hour, Max: latest}); !now.Ends.Equal(latest) {
			t.Errorf("it ends at %s", now.Ends)
		}
		short := change(pgrole.LeaseEnd{In: time.Minute, Shorten: true})
		if short.Ends.Sub(short.Now) != time.Minute {
			t.Errorf("it ends at %s", short.Ends)
		}
		if now := change(pgrole.LeaseEnd{In: time.Hour, Shorten: true}); !now.Ends.Equal(short.Ends) {
			t.Errorf("it ends at %s, not %s", now.Ends, short.Ends)
		}
		_, err := s.ChangeLeaseEnd(t.Context(), pgrole.LeaseKey{Name: l.Name, ID: uuid.New()}, pgrole.LeaseEnd{In: time.Hour},
			actor())
		refused(t, err, fault.NotFound)
		_, err = s.ChangeLeaseEnd(t.Context(), pgrole.LeaseKey{Name: prefix, ID: l.ID}, pgrole.LeaseEnd{In: time.Hour}, actor())
		refused(t, err, fault.NotFound)
		_, err = s.ChangeLeaseEnd(t.Context(), pgrole.LeaseKey{Name: prefix}, pgrole.LeaseEnd{In: time.Hour}, actor())
		refused(t, err, fault.NotFound)
		change(pgrole.LeaseEnd{In: time.Millisecond, Shorten: true})
		waitFor(t, c, `SELECT rolvaliduntil < clock_timestamp() FROM pg_roles WHERE rolname = $1`, l.Name)
		mayNotLogin(t, c, l.Name, password2)
		_, err = s.ChangeLeaseEnd(t.Context(), l.Key(), pgrole.LeaseEnd{In: time.Hour}, actor())
		refused(t, err, fault.Invalid, "has ended")
		if e, err := endLease(t.Context(), s, l, true); err != nil || e.Remaining > 0 || e.Gone {
			t.Errorf("the end: %+v, %v", e, err)
		}
		if exists(t, c, l.Name) {
			t.Error("it is there")
		}
	})
}

// LeaseRoles finds the leases of one's own cluster, and tells for which of them the other role may not be handed out.
func TestLeaseRoles(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		if list, err := s.LeaseRoles(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		leases := map[string]*pgrole.LeaseRole{}
		for _, what := range []string{"good", "renamed", "dropped", "super", "left", "disabled", "replaced"} {
			mustCreate(t, s, what)
			leases[what] = takeLease(t, s, what, what+"_lease")
		}
		c.Exec(t, `ALTER ROLE renamed RENAME TO renamed2; DROP ROLE dropped; ALTER ROLE super CREATEROLE;
			DROP ROLE replaced; CREATE ROLE replaced LOGIN`)
		c.Exec(t, `CREATE SCHEMA s AUTHORIZATION disabled`)
		if why, _, err := s.DeleteOrDisable(t.Context(), "disabled", "", nil, actor()); err != nil || why == "" {
			t.Fatal(why, err)
		}
		// What is no record of a lease, and what is no text, is passed over.
		latin := database(t, c, "latin", `ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`)
		exec(t, latin, `CREATE ROLE odd`, `COMMENT ON ROLE odd IS E'\u00e9"lease":"\u00e9'`, `CREATE ROLE odd2`,
			`COMMENT ON ROLE odd2 IS 'rolecall:v1 {"revision":1,"lease":"x"}'`, `CREATE ROLE odd3`)
		c.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE odd3 IS %L', repeat('"lease":"', 1000000)); END $$`)
		list, err := s.LeaseRoles(t.Context())
		if err != nil || len(list) != len(leases) {
			t.Fatalf("%d, %v", len(list), err)
		}
		want := map[string]string{"good": "", "left": "", "renamed": `There is no role "renamed"`,
			"dropped": `There is no role "dropped"`, "super": "system role", "disabled": "is disabled",
			"replaced": `There is no role "replaced"`}
		for _, l := range list {
			first := leases[l.For]
			if first == nil || l.ID != first.ID || l.Name != first.Name || !l.Ends.Equal(first.Ends) || l.CreatedBy != account ||
				!l.Created.Equal(first.Created) || l.Now.Before(first.Now) {
				t.Errorf("%+v, not %+v", l, first)
				continue
			}
			if problem := want[l.For]; !strings.Contains(l.ForProblem, problem) || problem == "" && l.ForProblem != "" ||
				l.ForGone != strings.Contains(problem, "There is no role") {
				t.Errorf("%s: %q, gone %t", l.For, l.ForProblem, l.ForGone)
			}
			mustEnd(t, c, s, l)
		}
		if list, err := s.LeaseRoles(context.Background()); err != nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
}
