package pgrole_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// left fails t if anything in the cluster still depends on a role that is gone.
func left(t testing.TB, c *pgtest.Cluster, oid uint32) {
	t.Helper()
	if n := pgtest.Value[int](t, c, `SELECT (SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND
		  refobjid = $1) + (SELECT count(*) FROM pg_auth_members WHERE $1 IN (roleid, member, grantor)) +
		(SELECT count(*) FROM pg_db_role_setting WHERE setrole = $1) +
		(SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1)`, oid); n > 0 {
		t.Errorf("%d things of the role are left", n)
	}
}

func oid(t testing.TB, c *pgtest.Cluster, role string) uint32 {
	t.Helper()
	return pgtest.Value[uint32](t, c, `SELECT oid FROM pg_roles WHERE rolname = $1`, role)
}

// mustBlock fails t unless something keeps the lease from ending; then nobody can log in as it any more.
func mustBlock(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, l *pgrole.LeaseRole, parts ...string) {
	t.Helper()
	e, err := endLease(t.Context(), s, l, false)
	if err != nil || e.Gone || len(e.BlockedBy) == 0 {
		t.Fatalf("the end of %q: %+v, %v", l.Name, e, err)
	}
	for _, part := range parts {
		if all := strings.Join(e.BlockedBy, "\n"); !strings.Contains(all, part) {
			t.Errorf("the reasons lack %q: %s", part, all)
		}
	}
	if pgtest.Value[bool](t, c, `SELECT rolcanlogin OR rolpassword IS NOT NULL OR EXISTS (SELECT FROM pg_stat_activity
		WHERE usesysid = a.oid) FROM pg_authid a WHERE rolname = $1`, l.Name) {
		t.Errorf("%q is not disabled", l.Name)
	}
	u, err := s.User(t.Context(), l.Name)
	if err != nil || u.Provenance.State != pgrole.StateDisabled || u.Lease() == nil || u.Lease().ID != l.ID {
		t.Errorf("%+v, %v", u, err)
	}
}

// What a lease owns, because its sessions left the role that they act as, goes to that role; what it was granted is revoked.
func TestLeaseOwns(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		other := prefix + "_other"
		mustCreate(t, s, prefix, other)
		l := takeLease(t, s, prefix, prefix+"_lease")
		id := oid(t, c, l.Name)
		second := database(t, c, prefix+"_db")
		exec(t, second, `CREATE SCHEMA s`, `GRANT ALL ON SCHEMA s TO PUBLIC`,
			`GRANT CREATE ON DATABASE `+prefix+`_db TO `+prefix, `ALTER DATABASE `+prefix+`_db OWNER TO `+l.Name,
			`CREATE TABLE s.granted ()`, `ALTER TABLE s.granted OWNER TO `+prefix, `SET ROLE `+prefix,
			`GRANT SELECT ON s.granted TO `+l.Name, `RESET ROLE`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+prefix+` GRANT SELECT ON TABLES TO `+l.Name)
		c.Exec(t, `ALTER ROLE `+prefix+` CREATEDB`)
		conn := c.Connect(t, l.Name, password2, prefix+"_db")
		exec(t, conn, `CREATE DATABASE `+prefix+`_made`)
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+prefix+`_made`) })
		for i, leave := range []string{`RESET ROLE`, `SET ROLE NONE`} { // the role of the login counts for RESET
			exec(t, conn, leave, fmt.Sprintf(`CREATE TABLE s.t%d (a serial PRIMARY KEY)`, i),
				fmt.Sprintf(`CREATE FUNCTION s.f%d () RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'`, i),
				fmt.Sprintf(`GRANT SELECT ON s.t%d TO %s`, i, other), fmt.Sprintf(`CREATE TYPE s.y%d AS (a int)`, i),
				`SELECT lo_create(0)`, fmt.Sprintf(`CREATE TEMP TABLE t%d ()`, i), fmt.Sprintf(`CREATE SCHEMA s%d`, i))
		}
		if !pgtest.Value[bool](t, c, `SELECT count(*) > 0 FROM pg_shdepend WHERE refobjid = $1 AND deptype = 'o'`, id) {
			t.Error("the lease owns nothing")
		}
		mustEnd(t, c, s, l)
		left(t, c, id)
		for _, what := range []string{
			`SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class WHERE relnamespace = 's'::regnamespace
			   AND relname ~ '^t[01]'`,
			`SELECT string_agg(DISTINCT proowner::regrole::text, ',') FROM pg_proc WHERE pronamespace = 's'::regnamespace`,
			`SELECT string_agg(DISTINCT f, ',') FROM (VALUES (s.f0()), (s.f1())) AS runs (f)`,
			`SELECT string_agg(DISTINCT typowner::regrole::text, ',') FROM pg_type WHERE typname IN ('y0', 'y1')`,
			`SELECT string_agg(DISTINCT lomowner::regrole::text, ',') FROM pg_largeobject_metadata`,
			`SELECT string_agg(DISTINCT nspowner::regrole::text, ',') FROM pg_namespace WHERE nspname IN ('s0', 's1')`,
			`SELECT string_agg(DISTINCT datdba::regrole::text, ',') FROM pg_database WHERE datname LIKE '` + prefix + `\_%'`,
		} {
			if owner := value[string](t, second, what); owner != prefix {
				t.Errorf("%s: %q", what, owner)
			}
		}
		for i := range 2 {
			if !value[bool](t, second, fmt.Sprintf(`SELECT has_table_privilege('%s', 's.t%d', 'SELECT')`, other, i)) {
				t.Error("another user has lost something")
			}
		}
	})
}

// What cannot go to another role, or be revoked, blocks the end of a lease; its role is left disabled, and changes no more
// until nothing blocks it.
func TestLeaseBlocked(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		id := oid(t, c, l.Name)
		main := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, main, `CREATE TABLE `+prefix+` (a int)`, `CREATE POLICY p ON `+prefix+` TO `+l.Name)
		conn := c.Connect(t, l.Name, password2, "postgres")
		mustBlock(t, c, s, l, "policy p on table public."+prefix)
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("its session lives")
		}
		before := state(t, c, l.Name)
		mustBlock(t, c, s, l, "policy p on table public."+prefix)
		if after := state(t, c, l.Name); after != before {
			t.Errorf("it was changed: %s, before %s", after, before)
		}
		_, err := s.ChangeLeaseEnd(t.Context(), l.Key(), pgrole.LeaseEnd{In: 2 * time.Hour}, actor())
		refused(t, err, fault.Invalid, "has ended")
		c.Exec(t, `ALTER ROLE `+l.Name+` LOGIN PASSWORD 'by somebody else'`)
		mustBlock(t, c, s, l, "policy p on table public."+prefix)
		exec(t, main, `DROP TABLE `+prefix)
		mustEnd(t, c, s, l)
		left(t, c, id)
	})
}

// A subscription goes to the role that the lease acts for where that may own one, and blocks elsewhere.
func TestLeaseOwnsASubscription(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		db := database(t, c, prefix+"_db")
		exec(t, db, `GRANT CREATE ON DATABASE `+prefix+`_db TO `+prefix,
			`CREATE SUBSCRIPTION `+prefix+` CONNECTION 'dbname=nowhere password=x' PUBLICATION p WITH `+
				`(connect = false, slot_name = NONE)`, `ALTER ROLE `+l.Name+` SUPERUSER`,
			`ALTER SUBSCRIPTION `+prefix+` OWNER TO `+l.Name, `ALTER ROLE `+l.Name+` NOSUPERUSER`)
		if c.Major < 16 {
			mustBlock(t, c, s, l, "ubscription "+prefix, "only a superuser owns a subscription")
			exec(t, db, `DROP SUBSCRIPTION `+prefix)
			mustEnd(t, c, s, l)
			return
		}
		mustEnd(t, c, s, l)
		if owner := value[string](t, db, `SELECT subowner::regrole::text FROM pg_subscription WHERE subname = $1`,
			prefix); owner != prefix {
			t.Errorf("it belongs to %q", owner)
		}
		exec(t, db, `DROP SUBSCRIPTION `+prefix)
	})
}

// A prepared transaction of the lease itself blocks its end; one of the role that it acts for does not.
func TestLeasePrepared(t *testing.T) {
	asEachAlone(t, map[string]string{"max_prepared_transactions": "2"}, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server,
		prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		exec(t, c.Connect(t, l.Name, password2, "postgres"), `BEGIN`, `SELECT lo_create(0)`, `PREPARE TRANSACTION 'theirs'`)
		mustEnd(t, c, s, l)
		l = takeLease(t, s, prefix, prefix+"_lease")
		exec(t, c.Connect(t, l.Name, password2, "postgres"), `SET ROLE NONE`, `BEGIN`, `SELECT lo_create(0)`,
			`PREPARE TRANSACTION 'own'`)
		mustBlock(t, c, s, l, "prepared transactions", "ROLLBACK PREPARED 'own'")
		c.Exec(t, `COMMIT PREPARED 'own'`)
		mustEnd(t, c, s, l)
		if owner := pgtest.Value[string](t, c, `SELECT lomowner::regrole::text FROM pg_largeobject_metadata`); owner != prefix {
			t.Errorf("the large object belongs to %q", owner)
		}
		c.Exec(t, `ROLLBACK PREPARED 'theirs'`)
	})
}

// A client that logs in again and again has no session when the lease has ended, and gets none.
func TestLeaseReconnects(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		for i := range 4 {
			l := takeLease(t, s, prefix, fmt.Sprintf("%s_lease%d", prefix, i))
			id := oid(t, c, l.Name)
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 3 {
				clients.Go(func() {
					for ctx.Err() == nil {
						_ = c.Login(l.Name, password2)
					}
				})
			}
			waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = $1)`, id)
			mustEnd(t, c, s, l)
			left(t, c, id)
			stop()
			clients.Wait()
		}
	})
}

// The role that a lease acts for may go, or get another name: the lease ends all the same, and what it owns goes there only.
func TestLeaseForAnotherName(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		c.Exec(t, `CREATE SCHEMA `+prefix+`_s; GRANT ALL ON SCHEMA `+prefix+`_s TO PUBLIC`)
		table := prefix + `_s.t`
		own := func(l *pgrole.LeaseRole) {
			t.Helper()
			exec(t, c.Connect(t, l.Name, password2, "postgres"), `SET ROLE NONE`, `CREATE TABLE `+table+` ()`)
		}
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		own(l)
		c.Exec(t, `ALTER ROLE `+prefix+` RENAME TO `+prefix+`_new; CREATE ROLE `+prefix+` LOGIN`)
		// Its sessions can act as neither name any more.
		if who := value[string](t, c.Connect(t, l.Name, password2, "postgres"), `SELECT current_user::text`); who != l.Name {
			t.Errorf("it acts as %q", who)
		}
		mustEnd(t, c, s, l)
		if owner := pgtest.Value[string](t, c, `SELECT relowner::regrole::text FROM pg_class WHERE oid = $1::regclass`,
			table); owner != prefix+"_new" {
			t.Errorf("the table belongs to %q", owner)
		}
		c.Exec(t, `DROP TABLE `+table+`; DROP ROLE `+prefix)

		l = takeLease(t, s, prefix+"_new", prefix+"_lease")
		own(l)
		c.Exec(t, `DROP ROLE `+prefix+`_new`)
		mustBlock(t, c, s, l, "It owns 1 object", `The role "`+prefix+`_new", to which it would go, is gone.`)
		c.Exec(t, `DROP TABLE `+table)
		mustEnd(t, c, s, l)
	})
}

// Nobody else's role is touched, whatever its name.
func TestLeaseOfAnother(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix, prefix+"_user")
		l := takeLease(t, s, prefix, prefix+"_lease")
		c.Exec(t, `CREATE ROLE `+prefix+`_sql LOGIN`)
		for _, name := range []string{prefix, prefix + "_user", prefix + "_sql", l.Name, prefix + "_none", "a\x00b", ""} {
			for _, id := range []uuid.UUID{uuid.New(), {}} {
				key := pgrole.LeaseKey{Name: name, ID: id}
				before := state(t, c, strings.ReplaceAll(name, "\x00", ""))
				if e, done, err := s.DropLease(t.Context(), key, false); err != nil || !done || !e.Gone {
					t.Errorf("%q: %+v, %t, %v", name, e, done, err)
				}
				if e, err := s.EndLease(t.Context(), key, false, actor()); err != nil || !e.Gone {
					t.Errorf("%q: %+v, %v", name, e, err)
				}
				if after := state(t, c, strings.ReplaceAll(name, "\x00", "")); after != before {
					t.Errorf("%q was changed: %s", name, after)
				}
			}
		}
		// Somebody drops the role and makes another of the name.
		c.Exec(t, `DROP ROLE `+l.Name+`; CREATE ROLE `+l.Name+` LOGIN`)
		before := state(t, c, l.Name)
		if e, err := endLease(t.Context(), s, l, false); err != nil || !e.Gone || state(t, c, l.Name) != before {
			t.Errorf("%+v, %v", e, err)
		}
		c.Exec(t, `DROP ROLE `+l.Name)
	})
}

// A role whose comment or OID is not the lease's is not touched, and people are told what to do about it.
func TestLeaseRecordChanged(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		comment := pgtest.Value[string](t, c, `SELECT shobj_description('`+l.Name+`'::regrole, 'pg_authid')`)
		untouched := func(l pgrole.LeaseKey, says string) {
			t.Helper()
			before := state(t, c, l.Name)
			found, findErr := s.FindLease(t.Context(), l)
			short, done, shortErr := s.DropLease(t.Context(), l, false)
			long, longErr := s.EndLease(t.Context(), l, false, actor())
			_, renewed := s.ChangeLeaseEnd(t.Context(), l, pgrole.LeaseEnd{In: 2 * time.Hour}, actor())
			for _, e := range []pgrole.EndedLease{found, short, long} {
				if e.Gone != (says == "") || !strings.Contains(strings.Join(e.BlockedBy, ""), says) {
					t.Errorf("%+v: %+v, want %q", l, e, says)
				}
			}
			if err := errors.Join(findErr, shortErr, longErr); err != nil || !done || !fault.Is(renewed, fault.NotFound) {
				t.Errorf("%+v: %v; done %t; renewed: %v", l, err, done, renewed)
			}
			if after := state(t, c, l.Name); after != before {
				t.Errorf("%q was changed: %s", l.Name, after)
			}
		}
		changed := `The comment of the role "` + l.Name + `" was changed by SQL`
		for _, to := range []string{`NULL`, `'of somebody'`, `'rolecall:v1 {"revision":1}'`} {
			c.Exec(t, `COMMENT ON ROLE `+l.Name+` IS `+to)
			untouched(l.Key(), changed)
			untouched(pgrole.LeaseKey{Name: l.Name, ID: l.ID}, "") // which role it was is not known
		}
		untouched(pgrole.LeaseKey{Name: l.Name, ID: uuid.New(), OID: l.OID}, changed)
		restore := `COMMENT ON ROLE ` + l.Name + ` IS '` + strings.ReplaceAll(comment, `'`, `''`) + `'`
		c.Exec(t, restore)
		untouched(pgrole.LeaseKey{Name: l.Name, ID: l.ID, OID: l.OID - 1}, fmt.Sprintf("its OID is %d, not %d", l.OID, l.OID-1))
		mustEnd(t, c, s, l)
		c.Exec(t, `CREATE ROLE `+l.Name+` LOGIN; `+restore)
		untouched(l.Key(), fmt.Sprintf("not %d", l.OID))
		c.Exec(t, `DROP ROLE `+l.Name)
		untouched(l.Key(), "")
	})
}

// A lease that is ended several times at once, or while it is renewed, ends once.
func TestLeaseEndsOnce(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		other := *s
		other.Batcher = pgrole.NewBatcher(batchWait)
		for i := range 6 {
			l := takeLease(t, s, prefix, fmt.Sprintf("%s_lease%d", prefix, i))
			id := oid(t, c, l.Name)
			if i%2 == 0 {
				c.Connect(t, l.Name, password2, "postgres")
			}
			var ended int
			var mu sync.Mutex
			for _, err := range together(6, func(j int) error {
				if j == 5 {
					_, err := s.ChangeLeaseEnd(t.Context(), l.Key(), pgrole.LeaseEnd{In: 2 * time.Hour}, actor())
					if fault.Is(err, fault.NotFound) {
						err = nil
					}
					return err
				}
				from := []*pgrole.Server{s, &other}[j%2]
				e, err := endLease(t.Context(), from, l, false)
				mu.Lock()
				defer mu.Unlock()
				if !e.Gone && len(e.BlockedBy) == 0 && err == nil {
					ended++
				}
				return err
			}) {
				if err != nil {
					t.Error(err)
				}
			}
			if ended != 1 || exists(t, c, l.Name) {
				t.Errorf("it was ended %d times", ended)
			}
			left(t, c, id)
		}
	})
}

// A lease ends although the role that it acts for, or one above that, has become protected. A leased role that is protected
// itself is not touched.
func TestLeaseForProtected(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		l := takeLease(t, s, prefix, prefix+"_lease")
		c.Connect(t, l.Name, password2, "postgres")
		c.Exec(t, `ALTER ROLE `+prefix+` CREATEROLE`)
		_, err := s.ChangeLeaseEnd(t.Context(), l.Key(), pgrole.LeaseEnd{In: 2 * time.Hour}, actor())
		refused(t, err, fault.Forbidden, "system user")
		mustEnd(t, c, s, l)
		c.Exec(t, `ALTER ROLE `+prefix+` NOCREATEROLE`)

		l = takeLease(t, s, prefix, prefix+"_lease")
		c.Exec(t, `CREATE SCHEMA `+l.Name+` AUTHORIZATION `+l.Name+`; ALTER ROLE `+prefix+` REPLICATION`)
		mustBlock(t, c, s, l, "owns 1 object", "is a system role")
		c.Exec(t, `DROP SCHEMA `+l.Name+`; ALTER ROLE `+prefix+` NOREPLICATION`)
		mustEnd(t, c, s, l)

		l = takeLease(t, s, prefix, prefix+"_lease")
		c.Exec(t, `ALTER ROLE `+l.Name+` SUPERUSER`)
		before := state(t, c, l.Name)
		e, err := endLease(t.Context(), s, l, false)
		if err != nil || len(e.BlockedBy) != 1 || !strings.Contains(e.BlockedBy[0], "is a system user") ||
			state(t, c, l.Name) != before {
			t.Errorf("%+v, %v", e, err)
		}
		c.Exec(t, `ALTER ROLE `+l.Name+` NOSUPERUSER`)
		mustEnd(t, c, s, l)
	})
}

// A lease is not made into something else, and the role that it acts for stays as long as it does.
func TestChangesOfALease(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		user, group := prefix+"_user", prefix+"_group"
		mustCreate(t, s, prefix, user)
		c.Exec(t, `CREATE ROLE `+group)
		l := takeLease(t, s, prefix, prefix+"_lease")
		before, until := state(t, c, l.Name), time.Now().Add(time.Hour)
		validUntil := &until
		_, err := s.SetPassword(t.Context(), l.Name, password, nil, actor())
		refused(t, err, fault.Invalid, "is a lease: renew it, or take another one")
		_, err = s.SetLimits(t.Context(), l.Name, pgrole.Limits{ValidUntil: &validUntil}, nil, actor())
		refused(t, err, fault.Invalid, "is a lease: renew it, or take another one")
		_, _, err = setRoles(t.Context(), s, l.Name, []string{group}, []string{group}, nil, actor())
		refused(t, err, fault.Invalid, "is a lease")
		_, err = granting(s, group).GrantRole(t.Context(), l.Name, group, nil, actor())
		refused(t, err, fault.Invalid, "is a lease")
		_, err = granting(s, prefix).RevokeRole(t.Context(), l.Name, prefix, nil, actor())
		refused(t, err, fault.Invalid, "is a lease")
		_, err = granting(s, l.Name).GrantRole(t.Context(), user, l.Name, nil, actor())
		refused(t, err, fault.Invalid, "is a lease, which ends", prefix)
		refused(t, remove(t, s, user, l.Name, nil, actor()), fault.Invalid, "is a lease, which ends", prefix)
		_, err = s.Plan(t.Context(), user, l.Name)
		refused(t, err, fault.Invalid, "is a lease, which ends")
		_, err = s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: prefix + "_db", Owner: l.Name}, actor())
		refused(t, err, fault.Invalid, "is a lease, which ends", prefix)
		if after := state(t, c, l.Name); after != before {
			t.Errorf("it was changed: %s", after)
		}
		conn := c.Connect(t, l.Name, password2, "postgres")
		limit := 7
		d, ended, err := setLimitsAndEnd(t.Context(), s, l.Name, pgrole.Limits{ConnectionLimit: &limit}, nil, actor())
		if err != nil || d.ConnectionLimit != 7 || ended != 1 || conn.Ping(t.Context()) == nil || d.Lease() == nil ||
			d.Lease().ID != l.ID {
			t.Errorf("%+v, %d, %v", d, ended, err)
		}

		// Deleting the role that leases act for, with the rights of an admin too.
		all := []*pgrole.LeaseRole{l}
		for i := range 11 {
			all = append(all, takeLease(t, s, prefix, fmt.Sprintf("%s_lease_%02d", prefix, i)))
		}
		c.Exec(t, `GRANT `+prefix+` TO `+user+`; COMMENT ON ROLE `+user+` IS 'knows "lease":"'`)
		with := *s
		with.WithMembers = true
		before = state(t, c, prefix)
		named := prefix + "_lease, " + prefix + "_lease_00"
		refused(t, remove(t, s, prefix, "", nil, actor()), fault.Invalid, "to be ended first: "+named, "and 2 more",
			"and would lose what they have by it", ": "+user)
		refused(t, remove(t, &with, prefix, "", nil, actor()), fault.Invalid, "to be ended first: "+named, "and 2 more")
		refused(t, remove(t, &with, prefix, user, nil, actor()), fault.Invalid, "to be ended first: "+named)
		plan, err := with.Plan(t.Context(), prefix, "")
		if err != nil || len(plan.Blockers) != 1 || !strings.Contains(plan.Blockers[0], "to be ended first: "+named) {
			t.Errorf("%+v, %v", plan, err)
		}
		if after := state(t, c, prefix); after != before {
			t.Errorf("it was changed: %s", after)
		}
		if why, _, err := with.DeleteOrDisable(t.Context(), prefix, "", nil, actor()); err != nil ||
			!strings.Contains(why, named) {
			t.Errorf("%q, %v", why, err)
		}
		for _, l := range all {
			mustEnd(t, c, s, l)
		}
		if err := remove(t, &with, prefix, "", nil, actor()); err != nil {
			t.Error(err)
		}
	})
}

// No lease comes into being for a role that is being deleted, and none is left behind.
func TestLeaseWhileDeleting(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		other := *s
		other.Batcher = pgrole.NewBatcher(batchWait)
		for i := range 12 {
			user := fmt.Sprintf("%s_%d", prefix, i)
			mustCreate(t, s, user)
			n := pgrole.NewLease{ID: uuid.New(), For: user, Name: user + "_lease", TTL: time.Hour}
			errs := together(2, func(j int) error {
				if j == 0 {
					_, err := s.CreateLease(t.Context(), n, password2, actor())
					return err
				}
				return remove(t, &other, user, "", nil, actor())
			})
			if errs[0] == nil {
				refused(t, errs[1], fault.Invalid, "leases act for it")
				mayLogin(t, c, n.Name, password2)
				mayLogin(t, c, user, password)
				continue
			}
			refused(t, errs[0], fault.Invalid, user)
			if errs[1] != nil || exists(t, c, user) || exists(t, c, n.Name) {
				t.Errorf("%v, %v", errs[0], errs[1])
			}
		}
	})
}

// From PostgreSQL 16 on the administering role needs the ADMIN OPTION of the role that a lease acts for.
func TestLeaseWithoutAdminOption(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		c.Exec(t, `CREATE ROLE `+prefix+` LOGIN`)
		n := pgrole.NewLease{ID: uuid.New(), For: prefix, Name: prefix + "_lease", TTL: time.Hour}
		l, err := s.CreateLease(t.Context(), n, password2, actor())
		if c.Major < 16 || s.Pool.Config().ConnConfig.User == c.User {
			if err != nil {
				t.Fatal(err)
			}
			mayLogin(t, c, n.Name, password2)
			mustEnd(t, c, s, l)
			return
		}
		refused(t, err, fault.Forbidden, "may not make members of", "WITH ADMIN OPTION")
		if exists(t, c, n.Name) {
			t.Error("there is a role")
		}
	})
}

// Wherever a call is cut off, its answer is true, and the same call again ends well.
func TestLeaseCutAnywhere(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, direct *pgrole.Server, prefix string) {
		mustCreate(t, direct, prefix)
		c.Exec(t, `CREATE SCHEMA `+prefix+`; GRANT ALL ON SCHEMA `+prefix+` TO PUBLIC`)
		var mu sync.Mutex // guards what follows
		var remaining int
		var statement string
		how := wayToCut(t, prefix)
		s := through(t, direct, listen(t, c, func(sql string, port int) pgtest.Verdict {
			mu.Lock()
			defer mu.Unlock()
			if remaining--; remaining != 0 {
				return pgtest.Pass
			}
			statement = sql
			if how == pgtest.Pass {
				c.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE client_port = $1`, port)
			}
			return how
		}))
		cut := func(n int, call func() error) (cut bool, err error) {
			mu.Lock()
			remaining, statement = n, ""
			mu.Unlock()
			err = call()
			mu.Lock()
			defer mu.Unlock()
			cut = remaining <= 0
			remaining = 0
			if err != nil {
				unavailable(t, err)
			}
			return cut, err
		}
		first, step := 1+pgtest.Seed(t)%5, 5
		if pgtest.Full() {
			first, step = 1, 1
		}
		for n := first; !t.Failed(); n += step {
			l := &pgrole.LeaseRole{Name: fmt.Sprintf("%s_lease%d", prefix, n), Lease: pgrole.Lease{ID: uuid.New()}}
			made, err := cut(n, func() error {
				_, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: l.ID, For: prefix, Name: l.Name, TTL: time.Hour}, password2,
					actor())
				return err
			})
			if there := exists(t, c, l.Name); there != (err == nil) {
				t.Errorf("cut at statement %d, %s: there is %t, and the answer %v", n, statement, there, err)
			}
			if err != nil {
				l = takeLease(t, direct, prefix, l.Name)
			}
			mayLogin(t, c, l.Name, password2)
			id := oid(t, c, l.Name)
			c.Exec(t, `CREATE TABLE `+prefix+`.`+l.Name+` (); ALTER TABLE `+prefix+`.`+l.Name+` OWNER TO `+l.Name)
			var renewed *pgrole.LeaseRole
			changed, err := cut(n, func() (err error) {
				renewed, err = s.ChangeLeaseEnd(t.Context(), l.Key(), pgrole.LeaseEnd{In: 2 * time.Hour}, actor())
				return err
			})
			if u, readErr := direct.User(t.Context(), l.Name); readErr != nil || err == nil && !u.Lease().Ends.Equal(renewed.Ends) {
				t.Errorf("cut at statement %d, %s: %+v, %v, %v", n, statement, u, readErr, err)
			}
			var e pgrole.EndedLease
			ended, err := cut(n, func() (err error) {
				e, err = endLease(t.Context(), s, l, false)
				return err
			})
			if there := exists(t, c, l.Name); there != (err != nil) || len(e.BlockedBy) > 0 {
				t.Errorf("cut at statement %d, %s: there is %t, %+v, and the answer %v", n, statement, there, e, err)
			}
			if err != nil {
				mustEnd(t, c, direct, l)
			}
			left(t, c, id)
			if owner := pgtest.Value[string](t, c, `SELECT relowner::regrole::text FROM pg_class WHERE relname = $1`,
				l.Name); owner != prefix {
				t.Errorf("cut at statement %d, %s: the table belongs to %q", n, statement, owner)
			}
			if !made && !changed && !ended {
				break
			}
		}
	})
}

// A lock of somebody else on what a lease owns blocks its end until the lock is gone; its sessions end at once.
func TestLeaseLocked(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		mustCreate(t, s, prefix)
		c.Exec(t, `CREATE SCHEMA `+prefix+`; GRANT ALL ON SCHEMA `+prefix+` TO PUBLIC`)
		l := takeLease(t, s, prefix, prefix+"_lease")
		conn := c.Connect(t, l.Name, password2, "postgres")
		exec(t, conn, `SET ROLE NONE`, `CREATE TABLE `+prefix+`.t ()`)
		holder := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, holder, `BEGIN`, `SELECT FROM `+prefix+`.t`)
		brief := *s
		brief.Waits.Holders = 100 * time.Millisecond
		mustBlock(t, c, &brief, l, `Table `+prefix+`.t in database "postgres" is locked by`)
		if err := conn.Ping(t.Context()); err == nil {
			t.Error("its session lives")
		}
		exec(t, holder, `ROLLBACK`)
		mustEnd(t, c, s, l)
		if owner := pgtest.Value[string](t, c, `SELECT relowner::regrole::text FROM pg_class WHERE oid = $1::regclass`,
			prefix+".t"); owner != prefix {
			t.Errorf("the table belongs to %q", owner)
		}
	})
}
