package pgrole

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// plan is what stands between a role and its DROP, read from pg_shdepend, which PostgreSQL keeps for all databases and
// which DROP ROLE itself goes by.
type plan struct {
	databases []*databasePlan
	// blockers are what a delete neither resolves nor steps over, as sentences without a full stop.
	blockers []string
}

// databasePlan is the part of a plan in one database. The shared objects, databases and tablespaces, are planned with
// the registered database.
type databasePlan struct {
	name       string
	encoding   string
	registered bool           // shared objects are planned here, too
	owned      Listing        // what it owns, which reassigning moves
	definers   Listing        // of that, what runs with its owner's rights; only looked at to reassign
	grants     []grant        // privileges that the role was granted
	defaults   []defaultGrant // default privileges that name the role
}

// grant is privileges on one object, granted to the role by grantor. target is quoted: `TABLE public.t`.
type grant struct {
	target, grantor string
}

// defaultGrant is one entry of pg_default_acl: what objects that owner makes are granted with.
type defaultGrant struct {
	owner, schema, objects string
	grantees               []string // "" is PUBLIC
	own                    bool     // owner is the role itself
}

// maxNamed is how many things of a kind a message names.
const maxNamed = 10

// planDelete looks at everything that depends on the role. reassign says that owned objects will go to another role.
func (s *Server) planDelete(ctx context.Context, conn *pgx.Conn, u *User, reassign bool) (*plan, error) {
	p := &plan{}
	var gids []string
	err := conn.QueryRow(ctx, `SELECT array(SELECT gid || ' in database ' || database FROM pg_prepared_xacts WHERE owner = $1 ORDER BY 1)`, u.Name).Scan(&gids)
	if err != nil {
		return nil, err
	}
	if len(gids) > 0 {
		p.block("it has prepared transactions, to be committed or rolled back first: %s", some(gids, len(gids)))
	}
	var given []string
	err = conn.QueryRow(ctx, `SELECT array(
		SELECT roleid::regrole || ' to ' || member::regrole FROM pg_auth_members
		WHERE grantor = $1 AND member <> $1 AND roleid <> $1 ORDER BY 1)`, u.oid).Scan(&given)
	if err != nil {
		return nil, err
	}
	if len(given) > 0 {
		p.block("it has granted memberships to others, to be revoked or granted by another role first: %s", some(given, len(given)))
	}
	rows, err := conn.Query(ctx, `
		SELECT coalesce(db.datname, current_database())::text, coalesce(db.datallowconn, true),
		       pg_encoding_to_char(coalesce(db.encoding, own.encoding))::text, coalesce(db.datname, current_database()) = current_database()
		FROM pg_shdepend d
		LEFT JOIN pg_database db ON db.oid = d.dbid
		JOIN pg_database own ON own.datname = current_database()
		WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1
		GROUP BY 1, 2, 3, 4 ORDER BY 1`, u.oid)
	if err != nil {
		return nil, err
	}
	type place struct {
		name        string
		connectable bool
		encoding    string
		registered  bool
	}
	places, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (pl place, err error) {
		return pl, row.Scan(&pl.name, &pl.connectable, &pl.encoding, &pl.registered)
	})
	if err != nil {
		return nil, err
	}
	for _, pl := range places {
		if !pl.connectable {
			p.block("something in database %q depends on it, which takes no connections (ALTER DATABASE %s ALLOW_CONNECTIONS true lets it be looked at)", valid(pl.name), valid(ident(pl.name)))
			continue
		}
		look := func(conn *pgx.Conn) error {
			dp := &databasePlan{name: pl.name, encoding: pl.encoding, registered: pl.registered}
			p.databases = append(p.databases, dp)
			return p.look(ctx, conn, u, dp, reassign)
		}
		if pl.registered {
			err = look(conn)
		} else {
			err = s.visit(ctx, pl.name, pl.encoding, look)
		}
		if sqlstate.Is(err, sqlstate.UndefinedDatabase) {
			continue // dropped meanwhile, with all that was in it
		}
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege, sqlstate.InvalidAuthorization, sqlstate.InvalidPassword, sqlstate.NotInPrerequisiteState) {
			p.block("something in database %q depends on it, to which Rolecall's administering role may not connect (GRANT CONNECT ON DATABASE %s TO it, or see pg_hba.conf)", valid(pl.name), valid(ident(pl.name)))
			continue
		}
		if sqlstate.Is(err, sqlstate.CharacterNotInRepertoire) {
			p.block("something in database %q depends on it, whose encoding %s cannot write its name; drop it by hand", valid(pl.name), pl.encoding)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *plan) block(format string, args ...any) {
	p.blockers = append(p.blockers, fmt.Sprintf(format, args...))
}

// visit runs f on a connection to another database.
func (s *Server) visit(ctx context.Context, database, encoding string, f func(conn *pgx.Conn) error) error {
	conn, err := s.Connect(ctx, database, encoding)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

// look reads what depends on the role in the connection's database.
func (p *plan) look(ctx context.Context, conn *pgx.Conn, u *User, dp *databasePlan, reassign bool) error {
	// A database in another encoding may not take the bytes of the name, and then nothing there can be revoked.
	if _, err := conn.Exec(ctx, `SELECT $1::text`, u.Name); err != nil {
		return err
	}
	var err error
	if dp.owned, err = describe(ctx, conn, selectOwned, u, dp); err != nil {
		return err
	}
	if dp.owned.Count > 0 && !reassign {
		p.block("it owns %s in database %q: %s", objects(dp.owned.Count), valid(dp.name), some(dp.owned.First, dp.owned.Count))
	}
	if reassign {
		if dp.definers, err = describe(ctx, conn, selectDefiners, u, dp); err != nil {
			return err
		}
	}
	named, err := describe(ctx, conn, selectNamed, u, dp)
	if err != nil {
		return err
	}
	if named.Count > 0 {
		p.block("%s in database %q name it and have to be changed or dropped first: %s", objects(named.Count), valid(dp.name), some(named.First, named.Count))
	}
	if err := p.lookGrants(ctx, conn, u, dp); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, selectDefaults, u.oid, dp.registered)
	if err != nil {
		return err
	}
	dp.defaults, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d defaultGrant, err error) {
		return d, row.Scan(&d.owner, &d.schema, &d.objects, &d.grantees, &d.own)
	})
	return err
}

func describe(ctx context.Context, conn *pgx.Conn, sql string, u *User, dp *databasePlan) (l Listing, err error) {
	rows, err := conn.Query(ctx, sql, u.oid, dp.registered, maxNamed)
	if err != nil {
		return l, err
	}
	l.First, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (name string, err error) {
		err = row.Scan(&l.Count, &name)
		return valid(name), err
	})
	return l, err
}

func (p *plan) lookGrants(ctx context.Context, conn *pgx.Conn, u *User, dp *databasePlan) error {
	// pg_parameter_acl came with PostgreSQL 15, and a query cannot name a table that is not there.
	var parameters bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('pg_parameter_acl') IS NOT NULL`).Scan(&parameters); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, selectGrants(parameters), u.oid, dp.registered)
	if err != nil {
		return err
	}
	var given []string
	var g grant
	var grantee string
	var by bool
	_, err = pgx.ForEachRow(rows, []any{&g.target, &g.grantor, &grantee, &by}, func() error {
		if by {
			given = append(given, g.target+" to "+grantee)
		} else {
			dp.grants = append(dp.grants, g)
		}
		return nil
	})
	if len(given) > 0 {
		p.block("it has granted privileges to others in database %q, to be revoked or granted by another role first: %s", valid(dp.name), some(given, len(given)))
	}
	return err
}

// objects says a number of objects.
func objects(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}

// valid makes a name fit for a message: one from a database in another encoding may not be UTF-8.
func valid(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// some lists the first names of a list, of which there are count.
func some(names []string, count int) string {
	names = names[:min(len(names), maxNamed)]
	list := valid(strings.Join(names, ", "))
	if count > len(names) {
		list += fmt.Sprintf(" and %d more", count-len(names))
	}
	return list
}
