package pgrole

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// Effective is what a user can do, and why.
type Effective struct {
	Username    string
	Memberships []EffectiveMembership // in the order of the roles' names
	Databases   []EffectiveDatabase   // in the order of their names
}

// EffectiveMembership is a role that the user is a member of, directly or through others.
type EffectiveMembership struct {
	Role string
	// Path are the roles from the user's own membership to this role, both included: the shortest path by which it inherits;
	// if there is none, by which it may SET ROLE; else any.
	Path    []string
	Inherit bool // it has the role's privileges without SET ROLE
	Set     bool // it may SET ROLE to it
}

// EffectiveDatabase is what the user can do in a database.
type EffectiveDatabase struct {
	Database string
	Level    Level    // the highest; "": none
	Via      []string // the path of the membership by which it has the level; none if it has no level
	Connect  bool
	Grants   []GrantCount // what was granted to the user itself, and what it owns
	Problem  string       // why the database could not be looked into, as a sentence; "" if it was
}

// GrantCount counts the objects of a kind on which the user itself was granted a privilege.
type GrantCount struct {
	Kind      string // table, column, sequence, schema, function, database, default privileges on tables, …
	Privilege string // as PostgreSQL names it; OWNER: the user owns the objects
	Count     int
}

// EffectiveAccess says what a user, protected or not, can do in each database. It visits only those where the user was
// granted something itself, or owns something, a few at a time. A database that it cannot connect to or read has a Problem.
func (s *Server) EffectiveAccess(ctx context.Context, name string) (*Effective, error) {
	var e *effective
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		u, err := s.role(ctx, conn, name)
		if err != nil {
			return err
		}
		if u == nil || !u.isUser() {
			return notFound(name)
		}
		e = &effective{s: s, user: u}
		if err := e.readMemberships(ctx, conn); err != nil {
			return err
		}
		if err := e.readDatabases(ctx, conn); err != nil {
			return err
		}
		return conn.QueryRow(ctx, selectVisitors, maxVisitors).Scan(&e.visitors)
	})
	if err != nil {
		return nil, err
	}
	e.visit(ctx)
	if err := ctx.Err(); err != nil {
		return nil, s.fault(err, name)
	}
	return e.result(), nil
}

// effective collects an Effective.
type effective struct {
	s           *Server
	user        *User
	visitors    int // how many databases are visited at the same time
	memberships []effectiveMembership
	databases   []*effectiveDatabase
}

type effectiveMembership struct {
	EffectiveMembership
	oid    uint32
	access *AccessRecord
}

type effectiveDatabase struct {
	EffectiveDatabase
	place
	visit      bool
	connecting []uint32 // roles that were granted CONNECT themselves
}

// edge is a membership of a role in another, by all grantors.
type edge struct {
	member, role uint32
	inherit, set bool
}

// selectEdges lists the memberships of a role ($1), and those of all roles above it.
var selectEdges = `
	WITH RECURSIVE up(oid) AS (
	  SELECT $1::oid UNION SELECT g.oid FROM up CROSS JOIN LATERAL ` + groupsOf("up.oid") + `)
	SELECT m.member, m.roleid, bool_or(` + inherits("m", "u") + `),
	  bool_or(coalesce((to_jsonb(m) ->> 'set_option')::bool, true)), g.rolname::text, ` + recordOfGroup + `
	FROM up JOIN pg_auth_members m ON m.member = up.oid JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
	GROUP BY m.member, m.roleid, g.oid, g.rolname ORDER BY g.rolname`

func (e *effective) readMemberships(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, selectEdges, e.user.oid)
	if err != nil {
		return err
	}
	var all, inherited, settable []edge
	var roles []effectiveMembership
	var d edge
	var name string
	var comment []byte
	_, err = pgx.ForEachRow(rows, []any{&d.member, &d.role, &d.inherit, &d.set, &name, &comment}, func() error {
		all = append(all, d)
		if d.inherit {
			inherited = append(inherited, d)
		}
		if d.set {
			settable = append(settable, d)
		}
		if len(roles) == 0 || roles[len(roles)-1].oid != d.role {
			_, p := parseComment(string(comment))
			m := effectiveMembership{oid: d.role, access: p.Access}
			m.Role = valid(name)
			roles = append(roles, m)
		}
		return nil
	})
	if err != nil {
		return err
	}
	byInherit, bySet, byAny := paths(e.user.oid, inherited), paths(e.user.oid, settable), paths(e.user.oid, all)
	names := make(map[uint32]string, len(roles))
	for _, m := range roles {
		names[m.oid] = m.Role
	}
	for _, m := range roles {
		path := byAny[m.oid]
		if m.Set = bySet[m.oid] != nil; m.Set {
			path = bySet[m.oid]
		}
		if m.Inherit = byInherit[m.oid] != nil; m.Inherit {
			path = byInherit[m.oid]
		}
		for _, oid := range path {
			m.Path = append(m.Path, names[oid])
		}
		e.memberships = append(e.memberships, m)
	}
	return nil
}

// paths are the shortest paths from a role to the roles above it, without itself.
func paths(from uint32, edges []edge) map[uint32][]uint32 {
	above := map[uint32][]uint32{}
	for _, d := range edges {
		above[d.member] = append(above[d.member], d.role)
	}
	found := map[uint32][]uint32{}
	for next := []uint32{from}; len(next) > 0; next = next[1:] {
		for _, role := range above[next[0]] {
			if role != from && found[role] == nil {
				found[role] = append(slices.Clone(found[next[0]]), role)
				next = append(next, role)
			}
		}
	}
	return found
}

// selectUserDatabases lists the databases except templates, the control database ($2) and those that are being made, with
// what a role ($1) was granted on them, and whether something in them depends on it.
const selectUserDatabases = `
	SELECT d.datname::text, pg_encoding_to_char(d.encoding)::text, d.datname = current_database(), d.datallowconn,
	  CASE WHEN d.datconnlimit = 0 AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN -1
	    ELSE d.datconnlimit END,
	  has_database_privilege($1::oid, d.oid, 'CONNECT'), d.datdba = $1,
	  array(SELECT x.privilege_type FROM aclexplode(d.datacl) x WHERE x.grantee = $1 AND d.datdba <> $1
	    GROUP BY 1 ORDER BY 1),
	  array(SELECT DISTINCT x.grantee FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
	    WHERE x.privilege_type = 'CONNECT' AND x.grantee <> 0),
	  EXISTS (SELECT FROM pg_shdepend s WHERE s.dbid = d.oid AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1)
	FROM pg_database d
	WHERE NOT d.datistemplate AND d.datname <> $2
	  AND NOT (starts_with(d.datname::text, '` + unfinishedPrefix + `') AND pg_get_userbyid(d.datdba) = current_user)
	ORDER BY d.datname`

func (e *effective) readDatabases(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, selectUserDatabases, e.user.oid, e.s.ControlDatabase)
	if err != nil {
		return err
	}
	var d effectiveDatabase
	var allowed, owner bool
	var limit int
	var granted []string
	_, err = pgx.ForEachRow(rows, []any{&d.name, &d.encoding, &d.registered, &allowed, &limit, &d.Connect, &owner, &granted,
		&d.connecting, &d.visit}, func() error {
		found := d
		found.Database = valid(found.name)
		if owner {
			granted = []string{"OWNER"}
		}
		for _, privilege := range granted {
			found.Grants = append(found.Grants, GrantCount{"database", privilege, 1})
		}
		if !allowed || limit == 0 || limit == invalidDatabase {
			found.visit = false
			found.Problem = "The database takes no connections."
		}
		e.setLevel(&found)
		e.databases, d, granted = append(e.databases, &found), effectiveDatabase{}, nil
		return nil
	})
	return err
}

// setLevel finds the highest level of the user in a database. As in levelRoles, an access role has to be allowed to connect.
func (e *effective) setLevel(d *effectiveDatabase) {
	for _, level := range Levels {
		for _, m := range e.memberships {
			a := m.access
			if (m.Inherit || m.Set) && a != nil && a.Database == d.name && a.Level == level && slices.Contains(d.connecting, m.oid) {
				d.Level, d.Via = level, m.Path
				return
			}
		}
	}
}

// visit looks into the databases, a few at a time.
func (e *effective) visit(ctx context.Context) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4) // else there would be no answer
		defer cancel()
	}
	free := make(chan struct{}, e.visitors)
	var wg sync.WaitGroup
	for _, d := range e.databases {
		if !d.visit {
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if err := e.visitOne(ctx, d); err != nil {
				d.Problem = problem(err)
			}
		})
	}
	wg.Wait()
}

func (e *effective) visitOne(ctx context.Context, d *effectiveDatabase) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.registered {
		return e.s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error { return e.count(ctx, conn, d) })
	}
	conn, err := e.s.connect(ctx, d.name, d.encoding)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	return e.count(ctx, conn, d)
}

// problem says why a database could not be looked into. What PostgreSQL says may be from an event trigger of the database.
func problem(err error) string {
	if code := sqlstate.Code(err); code != "" {
		return fmt.Sprintf("The database cannot be looked into: %s (SQLSTATE %s).", sqlstate.Message(err), code)
	}
	return "The database did not answer in time."
}

// count reads what the user was granted in a database, and what it owns there.
func (e *effective) count(ctx context.Context, conn *pgx.Conn, d *effectiveDatabase) error {
	var grants []GrantCount
	for _, query := range []string{selectGrantCounts, selectDefaultCounts, selectOwnedCounts} {
		rows, err := conn.Query(ctx, query, e.user.oid)
		if err != nil {
			return err
		}
		counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[GrantCount])
		if err != nil {
			return err
		}
		grants = append(grants, counts...)
	}
	d.Grants = append(d.Grants, grants...)
	return nil
}

func (e *effective) result() *Effective {
	all := &Effective{Username: e.user.Name, Memberships: []EffectiveMembership{}, Databases: []EffectiveDatabase{}}
	for _, m := range e.memberships {
		all.Memberships = append(all.Memberships, m.EffectiveMembership)
	}
	for _, d := range e.databases {
		slices.SortFunc(d.Grants, func(a, b GrantCount) int {
			return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Privilege, b.Privilege))
		})
		all.Databases = append(all.Databases, d.EffectiveDatabase)
	}
	return all
}
