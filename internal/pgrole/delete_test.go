package pgrole_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// rights is every owner and every privilege in a database and on shared objects, as lines, without what role was granted.
func rights(t testing.TB, conn *pgx.Conn, role string) []string {
	t.Helper()
	parameters := ""
	if value[bool](t, conn, `SELECT to_regclass('pg_parameter_acl') IS NOT NULL`) {
		parameters = `UNION ALL SELECT 'parameter ' || parname, 10, paracl FROM pg_parameter_acl`
	}
	return value[[]string](t, conn, `
		WITH object(what, owner, acl) AS (
			SELECT 'table ' || oid::regclass, relowner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r'
			  END, relowner)) FROM pg_class WHERE oid >= 16384
			UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname, 0, attacl FROM pg_attribute WHERE attrelid >= 16384
			  AND attacl <> '{}'
			UNION ALL SELECT 'routine ' || oid::regprocedure, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
			  WHERE oid >= 16384
			UNION ALL SELECT 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
			UNION ALL SELECT 'type ' || oid::regtype, typowner, coalesce(typacl, acldefault('T', typowner)) FROM pg_type WHERE oid >=
			  16384 OR typname = 'varchar'
			UNION ALL SELECT 'language ' || lanname, lanowner, coalesce(lanacl, acldefault('l', lanowner)) FROM pg_language
			UNION ALL SELECT 'wrapper ' || fdwname, fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)) FROM pg_foreign_data_wrapper
			UNION ALL SELECT 'server ' || srvname, srvowner, coalesce(srvacl, acldefault('S', srvowner)) FROM pg_foreign_server
			UNION ALL SELECT 'large object ' || oid, lomowner, coalesce(lomacl, acldefault('L', lomowner)) FROM
			  pg_largeobject_metadata
			UNION ALL SELECT 'database ' || datname, datdba, coalesce(datacl, acldefault('d', datdba)) FROM pg_database WHERE datname
			  = current_database()
			UNION ALL SELECT 'tablespace ' || spcname, spcowner, coalesce(spcacl, acldefault('t', spcowner)) FROM pg_tablespace
			UNION ALL SELECT 'default ' || defaclobjtype::text || defaclnamespace, defaclrole, defaclacl FROM pg_default_acl
			`+parameters+`)
		SELECT array_agg(line ORDER BY line) FROM (
			SELECT what || ' of ' || owner::regrole || ': ' || coalesce(string_agg(a.item, ' ' ORDER BY a.item) FILTER (WHERE a.item
			  IS NOT NULL), '') AS line
			FROM object LEFT JOIN LATERAL (SELECT i::text AS item FROM unnest(acl) i WHERE i::text NOT LIKE $1 || '=%') a ON true
			  GROUP BY what, owner) lines`, role)
}

// difference fails t for lines that only one of two has.
func difference(t testing.TB, before, after []string) {
	t.Helper()
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("lost: %s", line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("new: %s", line)
		}
	}
}

func memberships(t testing.TB, c *pgtest.Cluster) []string {
	t.Helper()
	return pgtest.Value[[]string](t, c, `
		SELECT coalesce(array_agg(concat_ws(' ', roleid::regrole, 'to', member::regrole, 'by', grantor::regrole, admin_option,
			to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option')), '{}') FROM pg_auth_members m`)
}

// noNewMembership fails t for memberships that name a role and were not there before.
func noNewMembership(t testing.TB, c *pgtest.Cluster, before []string, role string) {
	t.Helper()
	for _, m := range memberships(t, c) {
		if strings.Contains(m, role) && !slices.Contains(before, m) {
			t.Errorf("left: %s", m)
		}
	}
}

func TestDelete(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		mustDelete(t, s, name)
		mayNotLogin(t, c, name, password)
		if exists(t, c, name) {
			t.Error("it is still there")
		}
		refused(t, remove(t, s, name, "", nil, actor()), fault.NotFound)
		mustCreate(t, s, name)
		mustDelete(t, s, name)
	})
}

// furnish makes objects of every kind, owned by owner, and grants the user everything on each, also through a third role.
func furnish(t testing.TB, conn *pgx.Conn, user, owner, other string) {
	t.Helper()
	db := value[string](t, conn, `SELECT current_database()::text`)
	exec(t, conn,
		`GRANT CREATE ON DATABASE `+db+` TO `+owner,
		`SET ROLE `+owner,
		`CREATE SCHEMA "S; drop"`,
		`CREATE TABLE "S; drop"."t'""\x" (a int, "b b" int)`,
		`INSERT INTO "S; drop"."t'""\x" SELECT 1, 2 FROM generate_series(1, 10)`,
		`CREATE VIEW "S; drop".v AS SELECT 1 AS one`,
		`CREATE MATERIALIZED VIEW "S; drop".m AS SELECT 1 AS one`,
		`CREATE TABLE "S; drop".parts (a int) PARTITION BY RANGE (a)`,
		`CREATE SEQUENCE "S; drop".s`,
		`CREATE FUNCTION "S; drop".f(a int, varchar, "S; drop"."t'""\x", VARIADIC text[] DEFAULT '{}') RETURNS int LANGUAGE `+
			`sql AS 'SELECT 1'`,
		`CREATE PROCEDURE "S; drop".p(IN a text, OUT b int) LANGUAGE plpgsql AS 'BEGIN b := 1; END'`,
		`CREATE AGGREGATE "S; drop".sum2(int) (SFUNC = int4pl, STYPE = int)`,
		`CREATE AGGREGATE "S; drop".counted(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0')`,
		`CREATE DOMAIN "S; drop".d AS int`,
		`CREATE TYPE "S; drop"."T" AS (a int)`,
		`CREATE TYPE "S; drop".e AS ENUM ('x')`,
		`SELECT lo_create(4711)`,
	)
	for _, to := range []string{user, other + ` WITH GRANT OPTION`} {
		for _, on := range []string{
			`SCHEMA "S; drop"`, `ALL TABLES IN SCHEMA "S; drop"`, `SEQUENCE "S; drop".s`, `ALL ROUTINES IN SCHEMA "S; drop"`,
			`TYPE "S; drop".d, "S; drop"."T", "S; drop".e`, `LARGE OBJECT 4711`,
		} {
			exec(t, conn, `GRANT ALL ON `+on+` TO `+to)
		}
		exec(t, conn, `GRANT SELECT (a), UPDATE ("b b") ON "S; drop"."t'""\x" TO `+to)
	}
	exec(t, conn, `RESET ROLE`, `SET ROLE `+other,
		`GRANT ALL ON ALL TABLES IN SCHEMA "S; drop" TO `+user, `GRANT ALL ON SCHEMA "S; drop" TO `+user,
		`GRANT ALL ON ALL ROUTINES IN SCHEMA "S; drop" TO `+user,
		`GRANT SELECT ("b b") ON "S; drop"."t'""\x" TO `+user,
		`RESET ROLE`)
	// Default privileges, the user's own and others' for it.
	exec(t, conn, `GRANT CREATE ON SCHEMA "S; drop" TO `+user)
	kinds := []string{"TABLES", "SEQUENCES", "FUNCTIONS", "TYPES"}
	for _, kind := range kinds {
		exec(t, conn,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+owner+` GRANT ALL ON `+kind+` TO `+user+`, `+other,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+owner+` IN SCHEMA "S; drop" GRANT ALL ON `+kind+` TO `+user+` WITH GRANT OPTION`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+user+` GRANT ALL ON `+kind+` TO `+other+` WITH GRANT OPTION`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+user+` REVOKE ALL ON `+kind+` FROM PUBLIC, `+user,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+user+` IN SCHEMA "S; drop" GRANT ALL ON `+kind+` TO `+other+`, PUBLIC`,
		)
	}
	exec(t, conn,
		`ALTER DEFAULT PRIVILEGES FOR ROLE `+user+` GRANT ALL ON SCHEMAS TO PUBLIC`,
		`ALTER DEFAULT PRIVILEGES FOR ROLE `+owner+` GRANT ALL ON SCHEMAS TO `+user+`, `+other)
	if value[int](t, conn, `SELECT current_setting('server_version_num')::int`) >= 180000 {
		exec(t, conn,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+user+` GRANT ALL ON LARGE OBJECTS TO PUBLIC`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE `+owner+` GRANT ALL ON LARGE OBJECTS TO `+user+`, `+other)
	}
}

// furnishAsSuperuser grants the user what only a superuser can.
func furnishAsSuperuser(t testing.TB, conn *pgx.Conn, user string) {
	t.Helper()
	exec(t, conn,
		`CREATE FOREIGN DATA WRAPPER "w w"`, `CREATE SERVER "s s" FOREIGN DATA WRAPPER "w w"`,
		`GRANT USAGE ON FOREIGN DATA WRAPPER "w w" TO `+user, `GRANT USAGE ON FOREIGN SERVER "s s" TO `+user+` WITH GRANT OPTION`,
		`GRANT USAGE ON LANGUAGE plpgsql TO `+user,
		`GRANT USAGE ON TYPE pg_catalog.varchar TO `+user,
		`GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO `+user,
		`GRANT SELECT ON pg_authid TO `+user, `GRANT SELECT (oid) ON pg_class TO `+user)
}

func TestDeleteWithGrantsEverywhere(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	for _, admin := range selected(t, []string{"superuser", "administrator", "rds"}) {
		t.Run(admin, func(t *testing.T) {
			s := superuser(t, c)
			switch admin {
			case "administrator":
				s, _ = administrator(t, c)
			case "rds":
				s = rdsAdministrator(t, c)
			}
			user, owner, other := "user_"+admin, "owner_"+admin, "other_"+admin
			mustCreate(t, s, user, owner, other)
			members := memberships(t, c)
			c.Exec(t, `CREATE ROLE group_`+admin+`; GRANT group_`+admin+` TO `+user+`; GRANT pg_monitor TO `+user+`; GRANT `+user+
				` TO `+other)
			var dbs []*pgx.Conn
			for i := range 2 {
				name := fmt.Sprintf("grants_%s_%d", admin, i)
				dbs = append(dbs, database(t, c, name, `OWNER `+owner))
				exec(t, dbs[i], `SET ROLE `+owner, `GRANT ALL ON DATABASE `+name+` TO `+user, `RESET ROLE`)
			}
			dbs = append(dbs, c.Connect(t, c.User, c.Password, "postgres"))
			for _, db := range dbs[:2] {
				furnish(t, db, user, owner, other)
			}
			if admin == "superuser" {
				furnish(t, dbs[2], user, owner, other)
				for _, db := range dbs {
					furnishAsSuperuser(t, db, user)
				}
				exec(t, dbs[0], `SET allow_in_place_tablespaces = on`, `CREATE TABLESPACE "in place" LOCATION ''`,
					`GRANT CREATE ON TABLESPACE "in place" TO `+user,
					`GRANT CONNECT ON DATABASE postgres TO `+user)
				if c.Major >= 15 {
					exec(t, dbs[0], `SET my."select" = 'x'`,
						`GRANT SET ON PARAMETER work_mem, "TimeZone", my."select" TO `+user+`, `+other,
						`GRANT ALTER SYSTEM ON PARAMETER work_mem TO `+user)
				}
			}
			before := make([][]string, len(dbs))
			for i, db := range dbs {
				for _, line := range rights(t, db, user) {
					// its own default privileges, and entries for it alone
					if !strings.Contains(line, " of "+user+":") && !strings.HasSuffix(line, ": ") {
						before[i] = append(before[i], line)
					}
				}
			}
			with := *s
			with.WithMembers = true // other is one
			mustDelete(t, &with, user)
			for i, db := range dbs {
				after := slices.DeleteFunc(rights(t, db, "nobody"), func(line string) bool { return strings.HasSuffix(line, ": ") })
				difference(t, before[i], after)
				if i < 2 {
					if n := value[int](t, db, `SELECT count(*) FROM "S; drop"."t'""\x"`); n != 10 {
						t.Errorf("%d rows", n)
					}
				}
			}
			noNewMembership(t, c, members, "")
			if exists(t, c, user) {
				t.Error("it is still there")
			}
			mayLogin(t, c, owner, password)
		})
	}
}

func TestDeleteRefusals(t *testing.T) {
	asEachAlone(t, map[string]string{"max_prepared_transactions": "5"}, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server,
		_ string) {
		a, b := database(t, c, "ref_a"), database(t, c, "ref_b")
		main := c.Connect(t, c.User, c.Password, "postgres")
		c.Exec(t, `CREATE ROLE bystander; CREATE ROLE grp`)
		for _, tt := range []struct {
			name  string
			setup func(name string)
			parts []string
		}{
			{"owns", func(name string) {
				for _, db := range []*pgx.Conn{a, b} {
					for i := range 11 {
						exec(t, db, fmt.Sprintf(`CREATE TABLE %s_%d (); ALTER TABLE %[1]s_%d OWNER TO %[1]s`, name, i))
					}
				}
				exec(t, b, `DROP TABLE owns_10, owns_9`)
				c.Exec(t, `CREATE SCHEMA one AUTHORIZATION `+name)
			}, []string{`11 objects in database "ref_a": table `, " and 1 more", `9 objects in database "ref_b": table `,
				`1 object in database "postgres": schema one`}},
			{"owns_database", func(name string) { c.Exec(t, `CREATE DATABASE owned_db OWNER `+name) }, []string{"database owned_db"}},
			{"policy", func(name string) {
				exec(t, a, `CREATE TABLE secured (); CREATE POLICY pol ON secured TO `+name)
			}, []string{`policy pol on table `, `"ref_a"`}},
			{"mapping", func(name string) {
				exec(t, b, `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR `+name+
					` SERVER srv`)
			}, []string{`user mapping for mapping on server srv`, `"ref_b"`}},
			{"gave", func(name string) {
				exec(t, a, `CREATE TABLE given (x int); GRANT SELECT ON given TO gave WITH GRANT OPTION; SET ROLE gave; GRANT SELECT `+
					`ON given TO bystander; RESET ROLE`)
			}, []string{`TABLE public.given to bystander`, `"ref_a"`}},
			{"gave_column", func(name string) {
				exec(t, a, `GRANT SELECT (x) ON given TO gave_column WITH GRANT OPTION; SET ROLE gave_column; GRANT SELECT (x) ON `+
					`given TO PUBLIC; RESET ROLE`)
			}, []string{`TABLE public.given to `, `"ref_a"`}},
			{"gave_membership", func(name string) {
				c.Exec(t, `GRANT grp TO gave_membership WITH ADMIN OPTION; SET ROLE gave_membership; GRANT grp TO bystander; RESET ROLE`)
			}, []string{`grp to bystander`}},
			{"prepared", func(name string) {
				exec(t, a, `SET ROLE prepared`, `BEGIN`, `SELECT 1`, `PREPARE TRANSACTION 'my gid'`, `RESET ROLE`)
				t.Cleanup(func() { exec(t, a, `ROLLBACK PREPARED 'my gid'`) })
			}, []string{`my gid in database ref_a`}},
			{"closed", func(name string) {
				c.Exec(t, `CREATE DATABASE closed_db`)
				c.Exec(t, `GRANT CONNECT ON DATABASE closed_db TO closed`)
				conn := c.Connect(t, c.User, c.Password, "closed_db")
				exec(t, conn, `CREATE TABLE t (); GRANT SELECT ON t TO closed`)
				conn.Close(t.Context())
				c.Exec(t, `ALTER DATABASE closed_db ALLOW_CONNECTIONS false`)
			}, []string{`database "closed_db"`, "ALLOW_CONNECTIONS"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				mustCreate(t, s, tt.name)
				tt.setup(tt.name)
				exec(t, main, `CREATE TABLE `+tt.name+`_granted (); GRANT SELECT ON `+tt.name+`_granted TO `+tt.name)
				session := c.Connect(t, tt.name, password, "postgres")
				before, rightsBefore := state(t, c, tt.name), rights(t, main, "nobody")
				err := remove(t, s, tt.name, "", nil, actor())
				refused(t, err, fault.InUse, tt.parts...)
				if owns := tt.name == "owns" || tt.name == "owns_database"; (fault.Of(err).Hint == fault.Reassign) != owns {
					t.Errorf("it hints at %q: %v", fault.Of(err).Hint, err)
				}
				if state(t, c, tt.name) != before {
					t.Error("the role was changed")
				}
				difference(t, rightsBefore, rights(t, main, "nobody"))
				if err := session.Ping(t.Context()); err != nil {
					t.Errorf("its session was ended: %v", err)
				}
			})
		}
	})
}

// What a role owns runs as it, so objects go to roles without LOGIN only where these are listed, or for admins.
func TestReassignable(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "reassignable", "reassignable_user")
	c.Exec(t, `CREATE ROLE reassignable_vault; CREATE ROLE reassignable_group; CREATE TABLE reassignable_t (); ALTER TABLE `+
		`reassignable_t OWNER TO reassignable`)
	s.Reassignable = []string{"reassignable_group"}
	refused(t, remove(t, s, "reassignable", "reassignable_vault", nil, actor()), fault.Forbidden, "only an admin")
	if _, err := s.Plan(t.Context(), "reassignable", "reassignable_vault"); !fault.Is(err, fault.Forbidden) {
		t.Errorf("the plan: %v", err)
	}
	if err := remove(t, s, "reassignable", "reassignable_group", nil, actor()); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, "reassignable")
	c.Exec(t, `ALTER TABLE reassignable_t OWNER TO reassignable`)
	if err := remove(t, s, "reassignable", "reassignable_user", nil, actor()); err != nil {
		t.Fatal(err)
	}
}

func TestReassign(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	for _, admin := range selected(t, []string{"superuser", "administrator", "rds"}) {
		t.Run(admin, func(t *testing.T) {
			s := superuser(t, c)
			switch admin {
			case "administrator":
				s, _ = administrator(t, c)
			case "rds":
				s = rdsAdministrator(t, c)
			}
			role := s.Pool.Config().ConnConfig.User
			user, to := "from_"+admin, "to_"+admin
			mustCreate(t, s, user, to, "third_"+admin)
			refused(t, remove(t, s, user, user, nil, actor()), fault.Invalid)
			refused(t, remove(t, s, user, "absent", nil, actor()), fault.Invalid)
			refused(t, remove(t, s, user, "postgres", nil, actor()), fault.Forbidden)
			refused(t, remove(t, s, user, role, nil, actor()), fault.Forbidden)
			first := database(t, c, "reassign_"+admin, "OWNER "+user)
			second := database(t, c, "reassign2_"+admin, "OWNER third_"+admin)
			main := c.Connect(t, c.User, c.Password, "postgres")
			exec(t, second, `SET ROLE third_`+admin, `GRANT CREATE ON DATABASE reassign2_`+admin+` TO `+user+`, `+role, `RESET ROLE`)
			exec(t, first, `GRANT CREATE ON DATABASE reassign_`+admin+` TO `+role)
			for _, db := range []*pgx.Conn{first, second} {
				exec(t, db, `SET ROLE `+user, `CREATE SCHEMA owned`, `CREATE TABLE owned.t (id serial PRIMARY KEY)`,
					`INSERT INTO owned.t SELECT FROM generate_series(1, 5)`,
					`CREATE VIEW owned.v AS SELECT * FROM owned.t`, `SELECT lo_create(1)`, `CREATE TYPE owned.e AS ENUM ()`,
					`GRANT SELECT ON owned.t TO pg_monitor`,
					`CREATE FUNCTION owned.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `RESET ROLE`, `GRANT CREATE ON SCHEMA owned TO `+to)
			}
			exec(t, main, `CREATE TABLE t_`+admin+` ()`, `ALTER TABLE t_`+admin+` OWNER TO `+user)
			members := memberships(t, c)
			if err := remove(t, s, user, to, nil, actor()); err != nil {
				t.Fatal(err)
			}
			if exists(t, c, user) {
				t.Error("it is still there")
			}
			for _, db := range []*pgx.Conn{first, second, main} {
				for _, line := range rights(t, db, "nobody") {
					for _, of := range []string{"owned", "t_" + admin, "large object", "database reassign_" + admin} {
						if strings.Contains(line, of) && !strings.Contains(line, " of "+to+": ") {
							t.Error(line)
						}
					}
				}
			}
			for _, db := range []*pgx.Conn{first, second} {
				if n := value[int](t, db, `SELECT count(*) FROM owned.t`); n != 5 {
					t.Errorf("%d rows", n)
				}
				if acl := value[string](t, db,
					`SELECT relacl::text FROM pg_class WHERE oid = 'owned.t'::regclass`); !strings.Contains(acl, "pg_monitor=r/"+to) {
					t.Errorf("the table's privileges are %s", acl)
				}
			}
			noNewMembership(t, c, members, "")
		})
	}
}

func TestDeleteEndsSessions(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_kept")
		kept := c.Connect(t, name+"_kept", password, "postgres")
		var sessions []*pgx.Conn
		for range 3 {
			sessions = append(sessions, c.Connect(t, name, password, "postgres"))
		}
		exec(t, sessions[0], `BEGIN`, `SELECT 1`)
		members := memberships(t, c)
		mustDelete(t, s, name)
		for _, session := range sessions {
			if err := session.Ping(t.Context()); err == nil {
				t.Error("a session is left")
			}
		}
		if err := kept.Ping(t.Context()); err != nil {
			t.Errorf("another user's session was ended: %v", err)
		}
		noNewMembership(t, c, members, name)
	})
}

// A lock that somebody else holds stops a deletion before it begins, and the answer names the holder.
func TestDeleteAwaitsHolders(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		session := c.Connect(t, name, password, "postgres")
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `SET application_name = 'holder'`, `CREATE TABLE `+name+`_t ()`, `BEGIN`,
			`GRANT SELECT ON `+name+`_t TO `+name) // DROP ROLE waits for its end
		before := state(t, c, name)
		s.Waits.Holders, s.Waits.LockTry = 300*time.Millisecond, 200*time.Millisecond
		err := remove(t, s, name, "", nil, actor())
		unavailable(t, err)
		holder := fmt.Sprintf(`locked by process %d of the role %q (application "holder"`, conn.PgConn().PID(), c.User)
		refused(t, err, fault.Unavailable, holder, "Nothing was changed")
		if state(t, c, name) != before || session.Ping(t.Context()) != nil {
			t.Error("it was changed, or its session was ended")
		}
		if p, err := s.Plan(t.Context(), name, ""); err != nil || len(p.Blockers) != 1 ||
			!strings.Contains(p.Blockers[0], holder) {
			t.Errorf("the plan: %+v, %v", p, err)
		}
		exec(t, conn, `COMMIT`, `REVOKE SELECT ON `+name+`_t FROM `+name)
		exec(t, conn, `CREATE TABLE `+name+`_o (); ALTER TABLE `+name+`_o OWNER TO `+name, `BEGIN`, `TABLE `+name+`_o`)
		mustCreate(t, s, name+"_heir")
		refused(t, remove(t, s, name, name+"_heir", nil, actor()), fault.Unavailable, "table public."+name+`_o in database `+
			`"postgres" is locked by process`)
		exec(t, conn, `COMMIT`, `DROP TABLE `+name+`_o`)
		s.Waits.Holders = 0
		mustDelete(t, s, name)
	})
}

// A busy table is no table that somebody holds: new readers come before the old ones have left.
func TestDeleteAwaitsNoNewHolders(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "busy_table", "busy_table_heir")
	c.Exec(t, `CREATE TABLE busy_table_t (); ALTER TABLE busy_table_t OWNER TO busy_table`)
	ended, end := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 3 {
		conn := c.Connect(t, c.User, c.Password, "postgres")
		readers.Go(func() {
			for ended.Err() == nil {
				if _, err := conn.Exec(t.Context(), `BEGIN; TABLE busy_table_t; SELECT pg_sleep(0.02); COMMIT`); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	waitFor(t, c, `SELECT count(*) > 1 FROM pg_locks WHERE relation = 'busy_table_t'::regclass AND $1 <> ''`, "busy_table")
	if err := remove(t, s, "busy_table", "busy_table_heir", nil, actor()); err != nil {
		t.Error(err)
	}
	end()
	readers.Wait()
}

// What waits in the middle for a lock gives the role its LOGIN back as long as nothing was done, and says who holds the
// lock.
func TestDeleteMeetsLock(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		s.Waits = pgrole.Waits{Holders: -1, Lock: time.Millisecond, LockTry: 3 * time.Second}
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `BEGIN`, `CREATE TABLE `+name+`_t ()`, `GRANT SELECT ON `+name+`_t TO `+name)
		err := remove(t, s, name, "", nil, actor())
		unavailable(t, err)
		refused(t, err, fault.Unavailable, fmt.Sprintf("locked by process %d", conn.PgConn().PID()), "Nothing was changed",
			"its sessions were ended")
		mayLogin(t, c, name, password)
		if u, err := s.User(t.Context(), name); err != nil || u.Provenance.State != "" {
			t.Errorf("got %+v, %v", u, err)
		}
		exec(t, conn, `ROLLBACK`)
		mustDelete(t, s, name)
	})
}

// A deletion that was cut off leaves a user that is listed, takes no password, and is deleted by the same call.
func TestDeleteCutOff(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_owner")
		u, err := s.User(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		read := etag.Match{u.Revision()}
		s.Waits = pgrole.Waits{Holders: -1, Lock: time.Millisecond, LockTry: 3 * time.Second}
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `CREATE SCHEMA `+name+` AUTHORIZATION `+name+`_owner`, `SET ROLE `+name+`_owner`,
			`GRANT USAGE ON SCHEMA `+name+` TO `+name, `RESET ROLE`) // is revoked
		// Something that DROP ROLE waits for, longer than it may.
		exec(t, conn, `BEGIN`, `CREATE TABLE `+name+`_t ()`, `GRANT SELECT ON `+name+`_t TO `+name)
		err = remove(t, s, name, "", read, actor())
		unavailable(t, err)
		refused(t, err, fault.Unavailable, "begun", "Delete it again", fmt.Sprintf("locked by process %d", conn.PgConn().PID()))
		mayNotLogin(t, c, name, password)
		u, err = s.User(t.Context(), name)
		if err != nil || u.Provenance.State != pgrole.StateDeleting {
			t.Errorf("got %+v, %v", u, err)
		}
		if got := allUsers(t, s, name); !slices.Contains(got, name) {
			t.Error("it is not listed")
		}
		_, err = s.SetPassword(t.Context(), name, password2, nil, actor())
		refused(t, err, fault.InUse)
		_, err = s.Create(t.Context(), name, password2, actor())
		refused(t, err, fault.Exists)
		unavailable(t, remove(t, s, name, "", read, actor()))
		exec(t, conn, `ROLLBACK`)
		refused(t, remove(t, s, name, "", etag.Match{"0-other"}, actor()), fault.Stale)
		if err := remove(t, s, name, "", read, actor()); err != nil { // the same call finishes it, with what was read before
			t.Error(err)
		}
	})
}

// What blocks a deletion that had been cut off calls it off: nothing else would ever give the user its LOGIN back.
func TestDeleteCutOffAndBlocked(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "cut_off_blocked"
	mustCreate(t, s, name)
	c.Exec(t, `ALTER ROLE `+name+` NOLOGIN; COMMENT ON ROLE `+name+` IS 'shop
rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}'`)
	c.Exec(t, `CREATE TABLE cut_off_blocked_t (); ALTER TABLE cut_off_blocked_t OWNER TO `+name)
	refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, "cut_off_blocked_t", "may log in again")
	mayLogin(t, c, name, password)
	if u, err := s.User(t.Context(), name); err != nil || u.Provenance.State != "" || u.Provenance.FormerState != "" ||
		!strings.HasPrefix(comment(t, c, name), "shop\n") {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestDisabledUser(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name, comment = "disabled_user",
		`'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"disabled"}'`
	c.Exec(t, `CREATE ROLE `+name+`; COMMENT ON ROLE `+name+` IS `+comment)
	if got := allUsers(t, s, name); !slices.Equal(got, []string{name}) {
		t.Errorf("the list has %q", got)
	}
	c.Exec(t, `CREATE TABLE disabled_user_t (); GRANT CONNECT ON DATABASE postgres TO `+name)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `BEGIN`, `ALTER TABLE disabled_user_t OWNER TO `+name)
	s.Waits.Holders = -1
	done := make(chan error)
	go func() { done <- remove(t, s, name, "", nil, actor()) }()
	waitForDrop(t, c, name)
	exec(t, conn, `COMMIT`)
	refused(t, <-done, fault.InUse, "disabled_user_t", "It is disabled, as before")
	u, err := s.User(t.Context(), name)
	if err != nil || u.Provenance.State != pgrole.StateDisabled ||
		pgtest.Value[bool](t, c, `SELECT rolcanlogin FROM pg_roles WHERE rolname = $1`, name) {
		t.Errorf("got %+v, %v, want it disabled as before", u, err)
	}
	if _, err := s.SetPassword(t.Context(), name, password, nil, actor()); err != nil {
		t.Fatal(err)
	}
	mayLogin(t, c, name, password)
	c.Exec(t, `DROP TABLE disabled_user_t`)
	mustDelete(t, s, name)
}

func waitForDrop(t testing.TB, c *pgtest.Cluster, name string) {
	t.Helper()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%DROP ROLE "' `+
		`|| $1 || '"%')`, name)
}

// An object that another session gives the user after the plan, and commits while DROP ROLE waits for it, is not lost.
func TestObjectAppearsDuringDelete(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_owner")
		made, err := s.User(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		conn, granted := c.Connect(t, c.User, c.Password, "postgres"), c.Connect(t, c.User, c.Password, "postgres")
		exec(t, granted, `CREATE SCHEMA `+name+`_granted AUTHORIZATION `+name+`_owner`, `SET ROLE `+name+`_owner`,
			`GRANT USAGE ON SCHEMA `+name+`_granted TO `+name)
		members := memberships(t, c)
		exec(t, conn, `BEGIN`, `CREATE TABLE `+name+`_t AS SELECT 1 AS one`, `ALTER TABLE `+name+`_t OWNER TO `+name)
		s.Waits.Holders = -1
		done, previous := make(chan error), uuid.Nil
		go func() {
			var err error
			previous, err = deleteUser(t.Context(), s, name, "", nil, actor())
			done <- err
		}()
		waitForDrop(t, c, name)
		exec(t, conn, `COMMIT`)
		refused(t, <-done, fault.InUse, `"postgres": table public.`+name+`_t`, "may log in again", "SCHEMA "+name+"_granted")
		mayLogin(t, c, name, password)
		if n := pgtest.Value[int](t, c, `SELECT one FROM `+name+`_t`); n != 1 {
			t.Error("the data are gone")
		}
		// It has changed the user twice, and before it there was its creation.
		u, err := s.User(t.Context(), name)
		if err != nil || u.Provenance.State != "" || u.Provenance.Revision != 3 {
			t.Errorf("got %+v, %v", u, err)
		}
		if before := made.Provenance.Attempt; previous != before || u.Provenance.Previous != before ||
			u.Provenance.Attempt == before {
			t.Errorf("it found %q, and the user says %+v; it was made by %q", previous, u.Provenance, before)
		}
		noNewMembership(t, c, members, name)
	})
}

// A grant made after the plan is revoked, too.
func TestGrantAppearsDuringDelete(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "grant_appears"
	mustCreate(t, s, name)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `CREATE TABLE grant_appears_t ()`, `BEGIN`, `GRANT SELECT ON grant_appears_t TO `+name)
	s.Waits.Holders = -1
	done := make(chan error)
	go func() { done <- remove(t, s, name, "", nil, actor()) }()
	waitForDrop(t, c, name)
	exec(t, conn, `COMMIT`)
	if err := <-done; err != nil || exists(t, c, name) {
		t.Errorf("%v", err)
	}
}

// Roles that are given objects and privileges all the time are either deleted or not, and nothing is lost either way.
func TestDeleteAgainstBusySessions(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	rounds, tries := 1, 5
	if pgtest.Full() {
		rounds, tries = 2, 20
	}
	for round := range rounds {
		name := fmt.Sprintf("busy_%d", round)
		mustCreate(t, s, name)
		made := make(chan int)
		// In a database of its own: a thousand tables would make each deletion of other tests slower.
		conn := database(t, c, name)
		go func() {
			n := 0
			for ; ; n++ {
				_, err := conn.Exec(t.Context(), fmt.Sprintf(`CREATE TABLE %s_%d (); ALTER TABLE %[1]s_%d OWNER TO %[1]s; ALTER `+
					`TABLE %[1]s_%d OWNER TO postgres; GRANT SELECT ON %[1]s_%d TO %[1]s`, name, n))
				if err != nil {
					break
				}
			}
			made <- n
		}()
		time.Sleep(20 * time.Millisecond)
		var err error
		for range tries {
			if err = remove(t, s, name, "", nil, actor()); err == nil {
				break
			}
			if !fault.Is(err, fault.InUse) && !fault.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
		}
		if err != nil {
			c.Exec(t, `SELECT pg_terminate_backend($1::int)`, conn.PgConn().PID())
		}
		n := <-made
		conn = c.Connect(t, c.User, c.Password, name)
		if got := value[int](t, conn, `SELECT count(*) FROM pg_class WHERE relname LIKE $1`, name+`\_%`); got != n && got != n+1 {
			t.Errorf("%d tables, made were %d, and perhaps one whose COMMIT was cut off", got, n)
		}
	}
}

// Revoking a grant on a database changes a row that all such grants share: "tuple concurrently updated". So do default
// privileges, and the memberships through which an administrator revokes.
func TestDeleteManyAtOnce(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, _ string) {
		mustCreate(t, s, "owner", "other")
		var dbs []*pgx.Conn
		for i := range 2 {
			dbs = append(dbs, database(t, c, fmt.Sprintf("shared_%d", i), "OWNER owner"))
			exec(t, dbs[i], `CREATE SCHEMA s AUTHORIZATION owner`, `SET ROLE owner`, `CREATE TABLE s.shared ()`,
				`GRANT USAGE ON SCHEMA s TO other`, `GRANT SELECT ON s.shared TO other WITH GRANT OPTION`)
		}
		var users []string
		for i := range 12 {
			users = append(users, fmt.Sprintf("at_once_%d", i))
		}
		mustCreate(t, s, users...)
		for i, db := range dbs {
			for _, name := range users {
				exec(t, db, fmt.Sprintf(`GRANT ALL ON DATABASE shared_%d TO %s`, i, name), `GRANT SELECT ON s.shared TO `+name,
					`GRANT USAGE ON SCHEMA s TO `+name,
					`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO `+name,
					`ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON SEQUENCES TO `+name,
					`SET ROLE other`, `GRANT SELECT ON s.shared TO `+name, `SET ROLE owner`)
			}
		}
		members := memberships(t, c)
		config := s.Pool.Config().ConnConfig
		replicas := []*pgrole.Server{s, serverAs(t, c, config.User, config.Password)}
		turns := []chan struct{}{make(chan struct{}, 2), make(chan struct{}, 2)} // as package dbuser gives them
		for i, err := range together(len(users), func(i int) error {
			turns[i%2] <- struct{}{}
			defer func() { <-turns[i%2] }()
			return remove(t, replicas[i%2], users[i], "", nil, actor())
		}) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'at\_once%'`); n != 0 {
			t.Errorf("%d are left", n)
		}
		noNewMembership(t, c, members, "")
		for _, db := range dbs {
			if !value[bool](t, db, `SELECT has_table_privilege('other', 's.shared', 'SELECT WITH GRANT OPTION') AND NOT EXISTS `+
				`(SELECT FROM pg_default_acl)`) {
				t.Error("too much was revoked, or too little")
			}
		}
	})
}

func TestDeleteTheSameAtOnce(t *testing.T) {
	t.Parallel()
	s := superuser(t, pgtest.Shared(t))
	mustCreate(t, s, "same_at_once")
	deleted := 0
	for _, err := range together(6, func(int) error { return remove(t, s, "same_at_once", "", nil, actor()) }) {
		if err == nil {
			deleted++
		} else {
			refused(t, err, fault.NotFound)
		}
	}
	if deleted != 1 {
		t.Errorf("%d deleted it", deleted)
	}
}

// The same name is other bytes in a database of another encoding, and there may be a role of those bytes, too.
func TestDeleteInOtherEncodings(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, _ string) {
		mustCreate(t, s, "é", "ë", "🙂", "owner")
		latin1 := database(t, c, "latin1", "OWNER owner ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
		// the one byte 0xe9
		exec(t, latin1, `CREATE SCHEMA s AUTHORIZATION owner`, `SET client_encoding = 'UTF8'`, `CREATE ROLE "é" LOGIN`,
			`SET ROLE owner`, `CREATE TABLE s."tä" ()`, `GRANT SELECT ON s."tä" TO "é"`,
			`SET client_encoding = 'LATIN1'`, `GRANT SELECT ON s."t`+"\xe4"+`" TO "é"`, `GRANT CREATE ON SCHEMA s TO "é"`,
			`GRANT ALL ON DATABASE latin1 TO "é"`, // the two of UTF-8
			`RESET ROLE`, `CREATE TABLE s.o (); ALTER TABLE s.o OWNER TO "é"`)
		privileges := func() []string {
			return value[[]string](t, latin1, `SELECT array_agg(encode(a::text::bytea, 'escape') ORDER BY a::text) FROM pg_class, `+
				`unnest(relacl) a WHERE relname = $1`, "t\xe4")
		}
		if got, want := privileges(), []string{`"\303\251"=r/owner`, `"\351"=r/owner`, `owner=arwdDxt/owner`}; len(got) != 3 ||
			!slices.Equal(got[:2], want[:2]) {
			t.Fatalf("the privileges are %q", got)
		}
		refused(t, remove(t, s, "é", "", nil, actor()), fault.InUse, "table s.o")
		if err := remove(t, s, "é", "ë", nil, actor()); err != nil {
			t.Fatal(err)
		}
		if got := privileges(); len(got) != 2 || got[0] != `"\351"=r/owner` {
			t.Errorf("the privileges are %q", got)
		}
		if owner := value[string](t, latin1,
			`SELECT relowner::regrole::text FROM pg_class WHERE relname = 'o'`); owner != `"ë"` && owner != "ë" {
			t.Errorf("the owner is %q", owner)
		}
		if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_authid WHERE rolname::text::bytea = '\xe9'`); n != 1 {
			t.Error("the other role is gone")
		}
		// Bytes that the encoding of the database does not have.
		eucJP := database(t, c, "euc_jp", "ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0")
		oid := pgtest.Value[uint32](t, c, `SELECT oid FROM pg_roles WHERE rolname = '🙂'`)
		exec(t, eucJP, `CREATE TABLE t ()`)
		c.Exec(t, `ALTER ROLE "🙂" RENAME TO smile`)
		exec(t, eucJP, `GRANT SELECT ON t TO smile`)
		c.Exec(t, `ALTER ROLE smile RENAME TO "🙂"`)
		was := state(t, c, "🙂")
		refused(t, remove(t, s, "🙂", "", nil, actor()), fault.InUse, `"euc_jp"`, "EUC_JP")
		if state(t, c, "🙂") != was || !pgtest.Value[bool](t, c, `SELECT oid = $1 FROM pg_roles WHERE rolname = '🙂'`, oid) {
			t.Error("it was changed")
		}
	})
}

// A grantor that has become a member of the owner acts as the owner from then on, and cannot take back what it granted
// before: nobody can. The deletion ends there and is called off.
func TestGrantThatCannotBeRevoked(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		owner, grantor := name+"_owner", name+"_grantor"
		mustCreate(t, s, name, owner, grantor)
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `CREATE SCHEMA `+name+` AUTHORIZATION `+owner, `SET ROLE `+owner,
			`GRANT USAGE ON SCHEMA `+name+` TO `+grantor+` WITH GRANT OPTION`,
			`SET ROLE `+grantor, `GRANT USAGE ON SCHEMA `+name+` TO `+name, `RESET ROLE`, `GRANT `+owner+` TO `+grantor)
		refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, "SCHEMA "+name, `REVOKE "`+owner+`" FROM "`+grantor,
			"Nothing was changed")
		exec(t, conn, `REVOKE `+owner+` FROM `+grantor)
		mustDelete(t, s, name)
	})
}

// A user on which nothing depends is dropped by one statement, unless something appears just then.
func TestDropAlone(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_kept")
		refused(t, remove(t, s, name, "", etag.Match{"0-other"}, actor()), fault.Stale)
		mustDelete(t, s, name)
		if exists(t, c, name) {
			t.Error("it is there")
		}
		refused(t, remove(t, s, name, "", nil, actor()), fault.NotFound)

		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `BEGIN`, `CREATE TABLE `+name+`_t (); ALTER TABLE `+name+`_t OWNER TO `+name+`_kept`)
		s.Waits.Holders = -1
		done := make(chan error)
		go func() { done <- remove(t, s, name+"_kept", "", nil, actor()) }()
		waitForDrop(t, c, name+"_kept")
		exec(t, conn, `COMMIT`)
		refused(t, <-done, fault.InUse, name+"_t")
		mayLogin(t, c, name+"_kept", password)
	})
}

// Users that are deleted at the same time are dropped in few transactions, and one among them that is in the way of the
// others, or that may not be deleted, is answered as if it were alone.
func TestDropTogether(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		const n = 60
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint(name, i)
		}
		mustCreate(t, s, names...)
		mustCreate(t, s, name+"_owner", name+"_locked", name+"_stale")
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `CREATE TABLE `+name+`_t (); ALTER TABLE `+name+`_t OWNER TO `+name+`_owner`, `BEGIN`,
			`ALTER ROLE `+name+`_locked CONNECTION LIMIT 5`)
		others := []func() error{
			func() error { return remove(t, s, name+"_owner", "", nil, actor()) },
			func() error { return remove(t, s, name+"_locked", "", nil, actor()) },
			func() error { return remove(t, s, name+"_stale", "", etag.Match{"0-other"}, actor()) },
			func() error { return remove(t, s, name+"_absent", "", nil, actor()) },
		}
		errs := together(n+len(others), func(i int) error {
			if i < len(others) {
				return others[i]()
			}
			return remove(t, s, names[i-len(others)], "", nil, actor())
		})
		exec(t, conn, `ROLLBACK`)
		refused(t, errs[0], fault.InUse, name+"_t")
		refused(t, errs[1], fault.Unavailable)
		refused(t, errs[2], fault.Stale)
		refused(t, errs[3], fault.NotFound)
		for i, err := range errs[len(others):] {
			if err != nil || exists(t, c, names[i]) {
				t.Errorf("%s: %v", names[i], err)
			}
		}
		for _, left := range []string{"_owner", "_locked", "_stale"} {
			mayLogin(t, c, name+left, password)
		}

		// The same one, twice at once: one call finds it.
		mustCreate(t, s, name)
		gone := 0
		for _, err := range together(8, func(int) error { return remove(t, s, name, "", nil, actor()) }) {
			if err == nil {
				gone++
			} else {
				refused(t, err, fault.NotFound)
			}
		}
		if gone != 1 {
			t.Errorf("%d calls have deleted it", gone)
		}
	})
}

// A client that is let in as the role while it is dropped, and has no row in pg_stat_activity yet, is not left in.
func TestDeleteEndsLogins(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"post_auth_delay": "1"})
	s := superuser(t, c)
	mustCreate(t, s, "alone", "granted")
	c.Exec(t, `CREATE SCHEMA logins; GRANT USAGE ON SCHEMA logins TO granted`)
	for _, name := range []string{"alone", "granted"} {
		config := s.Pool.Config().ConnConfig
		config.User, config.Password = name, password
		session := make(chan *pgx.Conn)
		go func() {
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				conn = nil // ended as soon as it could be
			}
			session <- conn
		}()
		waitForLogin(t, c, "object") // it has found the role when it locks the database
		mustDelete(t, s, name)
		if conn := <-session; conn != nil && conn.Ping(t.Context()) == nil {
			t.Errorf("%s is gone, and its session lives on", name)
		}
	}
}

// waitForLogin waits until a client that is being let in has a lock of the type.
func waitForLogin(t testing.TB, c *pgtest.Cluster, locktype string) {
	t.Helper()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = $1 AND a.usesysid IS NULL AND a.datid IS NULL)`, locktype)
}

// A client that never sends its password holds a deletion up, but not for ever.
func TestDeleteDespiteHungLogin(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "alone")
	client, err := net.Dial("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	hello, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber,
		Parameters: map[string]string{"user": "alone"}}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(hello); err != nil {
		t.Fatal(err)
	}
	waitForLogin(t, c, "virtualxid")
	mustDelete(t, s, "alone")
}

// From PostgreSQL 15 on the schema public belongs to pg_database_owner, which nobody can be made a member of: what it has
// given is taken back as the owner of the database, or blocks the deletion where Rolecall cannot become that.
func TestRightsOnSchemaPublic(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		owner, user := prefix+"_owner", prefix+"_user"
		mustCreate(t, s, owner, user)
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: owner, Owner: owner}, actor()); err != nil {
			t.Fatal(err)
		}
		conn := database(t, c, prefix+"_of_super")
		exec(t, c.Connect(t, c.User, c.Password, owner), `ALTER SCHEMA public OWNER TO pg_database_owner`,
			`GRANT CREATE, USAGE ON SCHEMA public TO "`+user+`"`)
		mustDelete(t, s, user)

		mustCreate(t, s, user)
		exec(t, conn, `ALTER SCHEMA public OWNER TO pg_database_owner`, `GRANT CREATE, USAGE ON SCHEMA public TO "`+user+`"`)
		if err := remove(t, s, user, "", nil, actor()); !strings.HasSuffix(prefix, "_s") {
			refused(t, err, fault.InUse, "pg_database_owner")
			mayLogin(t, c, user, password)
		} else if err != nil {
			t.Error(err)
		}
	})
}
