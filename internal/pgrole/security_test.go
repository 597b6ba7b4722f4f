package pgrole_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The owner of a database puts functions, operators and tables in the way of those of PostgreSQL, and a search_path before
// it, and waits for Rolecall, which is a superuser here, to run one of them.
func TestTrapsOfDatabaseOwner(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "trapper", "prey", "heir")
	exec(t, database(t, c, "trapped", "OWNER trapper"), `SELECT 1`)
	trapper := c.Connect(t, "trapper", password, "trapped")
	exec(t, trapper, `CREATE SCHEMA traps`, `ALTER DATABASE trapped SET search_path = traps, pg_catalog`,
		`SET search_path = traps, pg_catalog`,
		`CREATE TABLE sprung (what text, by name DEFAULT session_user)`, `GRANT ALL ON SCHEMA traps TO PUBLIC`,
		`GRANT ALL ON sprung TO PUBLIC`,
		`CREATE FUNCTION spring(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO traps.sprung VALUES (what);
			BEGIN EXECUTE 'ALTER ROLE trapper SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
		END $$`)
	for _, f := range []struct{ name, parameters, result string }{
		{"format", "text, VARIADIC text[]", "text"}, {"format", "text", "text"}, {"quote_ident", "text", "text"},
		{"quote_literal", "text", "text"}, {"pg_has_role", "oid, text", "boolean"},
		{"pg_has_role", "oid, oid, text", "boolean"}, {"has_database_privilege", "name, oid, text", "boolean"},
		{"has_database_privilege", "oid, text", "boolean"}, {"concat", "VARIADIC text[]", "text"},
		{"pg_get_userbyid", "oid", "name"}, {"shobj_description", "oid, name", "text"},
		{"pg_terminate_backend", "int, bigint", "boolean"}, {"pg_describe_object", "oid, oid, int", "text"},
		{"pg_identify_object", "oid, oid, int", "text"}, {"aclexplode", "aclitem[]", "text"},
		{"acldefault", `"char", oid`, "aclitem[]"}, {"pg_advisory_xact_lock", "bigint", "void"},
		{"pg_try_advisory_xact_lock", "bigint", "boolean"}, {"current_setting", "text", "text"},
		{"set_config", "text, text, boolean", "text"}, {"unnest", "text[]", "text"},
		{"now", "", "timestamptz"}, {"coalesce_oid", "oid", "oid"}, {"lower", "text", "text"}, {"length", "text", "int"},
		{"encode", "bytea, text", "text"}, {"to_jsonb", "text", "jsonb"},
	} {
		exec(t, trapper, `CREATE FUNCTION `+f.name+`(`+f.parameters+`) RETURNS `+f.result+` LANGUAGE plpgsql AS $$ BEGIN `+
			`PERFORM traps.spring('`+f.name+`'); `+
			map[bool]string{true: ``, false: `RETURN NULL;`}[f.result == "void"]+` END $$`)
	}
	for _, types := range []string{"oid", "name", "text", "int", `"char"`, "aclitem"} {
		exec(t, trapper, `CREATE FUNCTION equal(a `+types+`, b `+types+`) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM `+
			`traps.spring('='); RETURN true; END $$`,
			`CREATE OPERATOR = (LEFTARG = `+types+`, RIGHTARG = `+types+`, FUNCTION = equal)`,
			`CREATE OPERATOR <> (LEFTARG = `+types+`, RIGHTARG = `+types+`, FUNCTION = equal)`)
	}
	for _, view := range []string{"pg_roles", "pg_authid", "pg_database", "pg_shdepend", "pg_auth_members", "pg_class",
		"pg_namespace", "pg_stat_activity", "pg_proc", "pg_default_acl"} {
		exec(t, trapper, `CREATE VIEW `+view+` AS SELECT spring('`+view+`')::text`, `GRANT ALL ON `+view+` TO PUBLIC`)
	}
	// What hangs on objects is not run by giving these to somebody else, or by taking rights on them.
	exec(t, trapper, `CREATE FUNCTION guarded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM `+
		`traps.spring('trigger'); RETURN NEW; END $$`,
		`CREATE FUNCTION always() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$`,
		`CREATE TABLE guarded (a int DEFAULT 1 CHECK (always()))`, `CREATE INDEX ON guarded ((always()))`,
		`INSERT INTO guarded VALUES (1)`,
		`CREATE OR REPLACE FUNCTION always() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM `+
			`traps.spring('expression'); RETURN true; END $$`,
		`CREATE TRIGGER guarded BEFORE INSERT OR UPDATE OR DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION guarded()`,
		`ALTER TABLE guarded ENABLE ALWAYS TRIGGER guarded`,
		`ALTER TABLE guarded ENABLE ROW LEVEL SECURITY`, `CREATE POLICY guarded ON guarded USING (always())`,
		`CREATE RULE guarded AS ON UPDATE TO guarded DO ALSO SELECT spring('rule')`,
		`GRANT ALL ON guarded, sprung TO prey WITH GRANT OPTION`, `GRANT ALL ON ALL FUNCTIONS IN SCHEMA traps TO prey`,
		`GRANT ALL ON DATABASE trapped TO prey`,
		`ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO prey`)

	owned := c.Connect(t, c.User, c.Password, "trapped")
	exec(t, owned, `ALTER TABLE traps.guarded OWNER TO prey`)
	for what, call := range map[string]func() error{
		"list":      func() error { _, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 100}, true)); return err },
		"databases": func() error { _, _, err := s.Databases(t.Context(), pgrole.Page{Limit: 100}); return err },
		"details":   func() error { _, err := s.Details(t.Context(), "prey"); return err },
		"plan":      func() error { _, err := s.Plan(t.Context(), "prey", "heir"); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := remove(t, s, "prey", "heir", nil, actor()); err != nil {
		t.Fatal(err)
	}
	if owner := value[string](t, owned, `SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid `+
		`OPERATOR(pg_catalog.=) 'traps.guarded'::regclass`); owner != "heir" {
		t.Errorf("the table belongs to %q", owner)
	}
	if n := value[int](t, owned, `SELECT pg_catalog.count(*) FROM traps.sprung`); n > 0 {
		t.Errorf("%d traps were sprung, the first was %s", n, value[string](t, owned, `SELECT what FROM traps.sprung LIMIT 1`))
	}
	// That nothing was caught is not because nothing can be: whoever connects without a search_path is.
	exec(t, owned, `SELECT lower('x')`)
	if !pgtest.Value[bool](t, c, `SELECT rolsuper FROM pg_roles WHERE rolname = 'trapper'`) {
		t.Error("the traps do not work")
	}
}

// Names in the catalogs are as hostile as those of callers, and nobody checked them.
func TestNamesOutOfCatalogs(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		for i, evil := range []string{
			`x"; ALTER ROLE ` + prefix + `_thief SUPERUSER; --`, `x'; ALTER ROLE ` + prefix + `_thief SUPERUSER; --`,
			`x\'; ALTER ROLE ` + prefix + `_thief SUPERUSER; --`,
			`$$; ALTER ROLE ` + prefix + `_thief SUPERUSER; $$`, "%I $1 {} /*\n\t\x1b[31m\", \"postgres x/y=z,\"{} é'\"\\\u202e",
		} {
			if c.Major >= 19 { // which refuses line breaks in names
				evil = strings.ReplaceAll(evil, "\n", "\v")
			}
			evil = prefix[len(prefix)-1:] + string(rune('0'+i)) + evil // a cluster is shared
			evil = evil[:min(len(evil), 63)]
			ident := pgx.Identifier{evil}.Sanitize()
			c.Exec(t, `CREATE ROLE `+ident+` LOGIN`)
			user, thief := prefix+"_user", prefix+"_thief"
			mustCreate(t, s, user, thief)
			if s.Pool.Config().ConnConfig.User != c.User && c.Major >= 16 {
				c.Exec(t, `GRANT `+ident+` TO `+s.Pool.Config().ConnConfig.User+` WITH ADMIN OPTION`)
			}
			c.Exec(t, `CREATE DATABASE `+ident+` OWNER `+ident)
			db := c.Connect(t, c.User, c.Password, evil)
			exec(t, db, `SET ROLE `+ident, `CREATE SCHEMA `+ident, `CREATE TABLE `+ident+`.`+ident+` (`+ident+` int)`,
				`CREATE FUNCTION `+ident+`.`+ident+`(`+ident+` int) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
				`GRANT ALL ON SCHEMA `+ident+` TO `+user+` WITH GRANT OPTION`,
				`GRANT ALL ON `+ident+`.`+ident+` TO `+user, `GRANT SELECT (`+ident+`) ON `+ident+`.`+ident+` TO `+user,
				`GRANT ALL ON FUNCTION `+ident+`.`+ident+` TO `+user,
				`ALTER DEFAULT PRIVILEGES IN SCHEMA `+ident+` GRANT ALL ON TABLES TO `+user, `GRANT ALL ON DATABASE `+ident+` TO `+user,
				`RESET ROLE`)
			if _, err := s.Details(t.Context(), user); err != nil {
				t.Errorf("%q: %v", evil, err)
			}
			mustDelete(t, s, user)
			// It owns, and is in the way with every one of these names.
			refusal := remove(t, s, evil, "", nil, actor())
			if refusal == nil || !strings.Contains(refusal.Error(), "own") {
				t.Errorf("%q: %v", evil, refusal)
			}
			if pgtest.Value[bool](t, c, `SELECT rolsuper FROM pg_roles WHERE rolname = $1`, thief) {
				t.Fatalf("%q was run", evil)
			}
			mustDelete(t, s, thief)
			db.Close(t.Context())
			c.Exec(t, `DROP DATABASE `+ident)
		}
	})
}
