package pgrole

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
)

// What the administering role may do is asked in phase 1, so that no refusal comes after the sessions were ended: whose
// grants it can revoke, and what it can give to another role. The rules are PostgreSQL's own (aclchk.c, user.c and the
// AlterOwner functions that REASSIGN OWNED calls).

// checkRights refuses if the administering role can become neither the user nor the role that gets what it owns.
func (d *deletion) checkRights(ctx context.Context) error {
	roles, err := readRights(ctx, d.conn, []string{d.user.Name, d.reassignTo})
	if err != nil {
		return err
	}
	for _, r := range roles {
		switch {
		case r.name == d.user.Name && !r.drops:
			remedy, err := d.s.lacks(ctx, r.name)
			if err != nil {
				return err
			}
			return fault.New(fault.Forbidden, "Rolecall's administering role may not drop %q. %s", r.name, remedy)
		case (r.name == d.reassignTo || d.reassignTo != "") && !r.uses:
			return fault.New(fault.Forbidden, "Rolecall's administering role cannot act for %q, which it has to, to reassign: %s.",
				r.name,
				r.becoming())
		}
	}
	return nil
}

// readIrrevocable blocks for what was granted by roles that the administering role cannot become.
func (d *deletion) readIrrevocable(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error {
	granted, err := dp.grantedTo(d.user.Name)
	if err != nil || len(granted) == 0 {
		return err
	}
	var grantors []string
	for i, g := range granted {
		if i == 0 || granted[i-1].grantor != g.grantor {
			grantors = append(grantors, g.grantor)
		}
	}
	roles, err := readRights(ctx, conn, grantors)
	if err != nil {
		return err
	}
	n := 0
	for _, g := range granted {
		i := slices.IndexFunc(roles, func(r roleRights) bool { return r.name == g.grantor && !r.sets })
		if i < 0 {
			continue
		}
		if n++; n <= maxNamed {
			dp.block("%s were granted by %q, for whom Rolecall's administering role may not revoke them (%s)", g.what,
				valid(g.grantor), roles[i].revoking(g.revokes[0]))
		}
	}
	if n > maxNamed {
		dp.block("%d more privileges in database %q were granted by roles for which Rolecall's administering role may not revoke "+
			"them", n-maxNamed, valid(dp.name))
	}
	return nil
}

// roleRights is what the administering role may do with a role, if need be by making itself a member of it for a moment.
type roleRights struct {
	name   string
	super  bool
	member bool // of the administering role
	older  bool // the server is older than PostgreSQL 16
	sets   bool // SET ROLE to it
	uses   bool // use its privileges without SET ROLE, as REASSIGN OWNED does
	drops  bool
}

// revoking says how people revoke what the role has granted.
func (r roleRights) revoking(revoke string) string {
	switch {
	case r.super:
		return fmt.Sprintf("as %q, a superuser: %s", valid(r.name), valid(revoke))
	case r.member:
		return fmt.Sprintf("as %q, a member of the administering role: %s", valid(r.name), valid(revoke))
	}
	return fmt.Sprintf("as %q: %s; or %s", valid(r.name), valid(revoke), r.becoming())
}

// becoming is the statement after which the administering role can become the role.
func (r roleRights) becoming() string {
	if r.older {
		return fmt.Sprintf("GRANT %s TO <administering role>", valid(ident(r.name)))
	}
	return fmt.Sprintf("GRANT %s TO <administering role> WITH ADMIN OPTION", valid(ident(r.name)))
}

// readRights asks about roles by their names; those that do not exist are left out. pg_database_owner stands for the owner
// of the connection's database.
func readRights(ctx context.Context, q querier, names []string) ([]roleRights, error) {
	rows, err := q.Query(ctx, selectRights, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r roleRights, err error) {
		return r, row.Scan(&r.name, &r.super, &r.member, &r.older, &r.sets, &r.uses, &r.drops)
	})
}

// selectRights follows becomeMember. Up to PostgreSQL 15 a role with CREATEROLE may grant any role that is no superuser, and
// may use it if it inherits; from 16 on it needs the ADMIN OPTION of its own. No role becomes a member of its member.
const selectRights = `
  WITH me AS (
    SELECT oid, rolsuper, rolcreaterole, rolinherit, current_setting('server_version_num')::int < 160000 AS older
    FROM pg_roles WHERE rolname = current_user
  ), asked AS (
    SELECT n.name, r.oid, r.rolsuper, r.oid = me.oid OR me.rolsuper AS any, pg_has_role(r.oid, me.oid, 'MEMBER') AS member
    FROM me, unnest($1::name[]) n (name)
    JOIN pg_roles r ON r.rolname = CASE n.name WHEN 'pg_database_owner' THEN (
      SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()) ELSE n.name END
  ), granting AS (
    SELECT a.*, NOT a.any AND NOT a.rolsuper AND NOT a.member AND CASE WHEN me.older
        THEN me.rolcreaterole OR pg_has_role(a.oid, 'MEMBER WITH ADMIN OPTION')
        ELSE EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = a.oid AND m.member = me.oid AND m.admin_option)
        END AS grants
    FROM asked a, me
  )
  SELECT g.name::text, g.rolsuper, g.member, me.older,
    g.any OR g.grants OR CASE WHEN me.older THEN pg_has_role(g.oid, 'MEMBER')
      ELSE pg_has_role(g.oid, 'SET') AND pg_has_role(g.oid, 'USAGE') END,
    g.any OR g.grants AND (NOT me.older OR me.rolinherit AND NOT pg_has_role(g.oid, 'MEMBER')) OR CASE WHEN me.older
      THEN pg_has_role(g.oid, 'USAGE') ELSE pg_has_role(g.oid, 'SET') AND pg_has_role(g.oid, 'USAGE') END,
    g.any OR NOT g.rolsuper AND me.rolcreaterole AND (me.older OR pg_has_role(g.oid, 'MEMBER WITH ADMIN OPTION'))
  FROM granting g, me`

// selectSessionsThatStay lists the sessions of a role ($1) if the administering role may not end them: a member of
// pg_signal_backend may, and who is or can become a member of the role.
const selectSessionsThatStay = `
  WITH right_to(rolsuper, older, signals) AS (
    SELECT rolsuper, current_setting('server_version_num')::int < 160000, pg_has_role('pg_signal_backend', 'USAGE')
    FROM pg_roles WHERE rolname = current_user
  )
  SELECT array(
    SELECT a.pid::text FROM pg_stat_activity a, right_to r
    WHERE a.usesysid = $1 AND NOT r.rolsuper AND NOT r.older AND NOT r.signals AND NOT pg_has_role($1::oid, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member AND u.rolname = current_user
        WHERE m.roleid = $1 AND m.admin_option))`

// readUnmovable blocks for what the role owns in the connection's database and cannot go to another, and for more than one
// transaction can move.
func (d *deletion) readUnmovable(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error {
	if dp.owned.Count == 0 {
		return nil
	}
	var version, relations, locks int
	if err := conn.QueryRow(ctx, selectLocksNeeded, d.user.oid).Scan(&version, &relations, &locks); err != nil {
		return err
	}
	if relations > locks {
		dp.block("what it owns in database %q is %d tables, indexes and the like, all of which one transaction would have to "+
			"lock, and the server has room for %d locks (raise max_locks_per_transaction, or move a part of them first with "+
			"ALTER … OWNER TO)", valid(dp.name), relations, locks)
		return nil
	}
	rows, err := conn.Query(ctx, selectUnmovable(version), d.user.oid, dp.registered, d.reassignTo, maxNamed)
	if err != nil {
		return err
	}
	var count int
	var object *string
	var why string
	_, err = pgx.ForEachRow(rows, []any{&count, &object, &why}, func() error {
		if object != nil {
			dp.block("%s in database %q cannot go to %q: %s", valid(*object), valid(dp.name), d.reassignTo, valid(why))
		}
		return nil
	})
	if count > maxNamed {
		dp.block("%d more objects in database %q cannot go to %q", count-maxNamed, valid(dp.name), d.reassignTo)
	}
	return err
}

// selectLocksNeeded is how many relations a role ($1) owns, each of which is locked when it gets another owner, and for how
// many locks the server has room. https://www.postgresql.org/docs/current/runtime-config-locks.html
const selectLocksNeeded = `
  SELECT current_setting('server_version_num')::int, (SELECT count(*)::int FROM pg_class WHERE relowner = $1),
    current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int +
      current_setting('max_prepared_transactions')::int)`

// selectUnmovable lists what the role ($1) owns and REASSIGN OWNED cannot give to another ($3), with the reason and the
// statement that helps. The administering role is a member of both while it does that. The schemas go first, so the new
// owner may create in them; for superusers PostgreSQL checks only what the last lines check.
func selectUnmovable(version int) string {
	subscription := `'up to PostgreSQL 15 only a superuser owns a subscription (DROP SUBSCRIPTION, or ALTER SUBSCRIPTION … OWNER
        TO <a superuser>)'`
	if version >= 160000 {
		subscription = `CASE WHEN NOT me.rolsuper AND NOT (SELECT subpasswordrequired FROM pg_subscription WHERE oid = d.objid)
          THEN 'only a superuser moves a subscription with password_required = false'
        WHEN NOT me.rolsuper AND NOT here.creates THEN
          'Rolecall''s administering role needs CREATE on the database (' || here.remedy
          || ')' END`
	}
	publishesSchemas := `false`
	if version >= 150000 {
		publishesSchemas = `EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = d.objid)`
	}
	return `
  WITH me AS (
    SELECT oid, rolname, rolsuper FROM pg_roles WHERE rolname = current_user
  ), heir AS (
    SELECT oid, rolname FROM pg_roles WHERE rolname = $3::name
  ), here AS (
    SELECT has_database_privilege(current_database(), 'CREATE')
        OR has_database_privilege($1::oid, current_database(), 'CREATE')
        OR has_database_privilege(heir.oid, current_database(), 'CREATE') AS creates,
      has_database_privilege(heir.oid, current_database(), 'CREATE') AS heir_creates,
      format('GRANT CREATE ON DATABASE %I TO %I', current_database(), me.rolname) AS remedy,
      format('GRANT CREATE ON DATABASE %I TO %I', current_database(), heir.rolname) AS heir_remedy
    FROM me, heir
  ), unmovable AS (
    SELECT d.classid, d.objid, CASE d.classid
      WHEN 'pg_foreign_data_wrapper'::regclass THEN
        'only a superuser owns a foreign-data wrapper (ALTER FOREIGN DATA WRAPPER … OWNER TO <a superuser>)'
      WHEN 'pg_event_trigger'::regclass THEN
        'only a superuser owns an event trigger (ALTER EVENT TRIGGER … OWNER TO <a superuser>)'
      WHEN 'pg_subscription'::regclass THEN ` + subscription + `
      WHEN 'pg_namespace'::regclass THEN CASE WHEN NOT me.rolsuper AND NOT here.creates THEN
        'Rolecall''s administering role needs CREATE on the database (' || here.remedy || ')' END
      WHEN 'pg_foreign_server'::regclass THEN (
        SELECT 'it needs USAGE on the foreign-data wrapper (' ||
          format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', w.fdwname, heir.rolname) || ')'
        FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        WHERE s.oid = d.objid AND NOT me.rolsuper AND NOT has_foreign_data_wrapper_privilege(heir.oid, w.oid, 'USAGE'))
      WHEN 'pg_publication'::regclass THEN CASE
        WHEN me.rolsuper THEN NULL
        WHEN (SELECT p.puballtables OR coalesce((to_jsonb(p) ->> 'puballsequences')::bool, false) -- since PostgreSQL 19
            FROM pg_publication p WHERE p.oid = d.objid) OR ` + publishesSchemas + ` THEN
          'only a superuser owns a publication of all tables, all sequences or a schema (ALTER PUBLICATION … OWNER TO
            <a superuser>)'
        WHEN NOT here.heir_creates THEN 'it needs CREATE on the database (' || here.heir_remedy || ')' END
      ELSE (
        SELECT 'it needs CREATE on the schema (' || format('GRANT CREATE ON SCHEMA %I TO %I', n.nspname, heir.rolname) || ')'
        FROM pg_namespace n
        WHERE d.classid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass,
            'pg_collation'::regclass, 'pg_conversion'::regclass, 'pg_statistic_ext'::regclass, 'pg_ts_config'::regclass,
            'pg_ts_dict'::regclass)
          AND NOT me.rolsuper AND n.nspowner <> $1
          AND quote_ident(n.nspname) = (pg_identify_object(d.classid, d.objid, d.objsubid)).schema
          AND NOT has_schema_privilege(heir.oid, n.oid, 'CREATE'))
      END AS why
    FROM pg_shdepend d, me, heir, here
    WHERE ` + ofRole + ` AND d.deptype = 'o' AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
      AND NOT ` + endsWithSession(`(pg_identify_object(d.classid, d.objid, d.objsubid)).schema`) + `
  )
  SELECT count(*) OVER ()::int, pg_describe_object(classid, objid, 0), why
  FROM unmovable WHERE why IS NOT NULL ORDER BY classid, objid LIMIT $4`
}
