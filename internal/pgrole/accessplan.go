package pgrole

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// allSchemas stands for all schemas, and those that members of own make.
const allSchemas = "*"

// accessPrivileges are the privileges of access roles; each is a bit, by its place.
var accessPrivileges = []string{"CONNECT", "TEMPORARY", "USAGE", "CREATE", "SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE"}

// accessGrant is what one level is granted on a kind of object: those of pg_default_acl, and d for the database.
type accessGrant struct {
	kind             string
	own, write, read []string
}

var accessGrants = []accessGrant{
	{"d", []string{"CONNECT", "TEMPORARY", "CREATE"}, []string{"CONNECT", "TEMPORARY"}, []string{"CONNECT", "TEMPORARY"}},
	{"n", []string{"USAGE", "CREATE"}, []string{"USAGE"}, []string{"USAGE"}},
	{"r", []string{"SELECT", "INSERT", "UPDATE", "DELETE"}, []string{"SELECT", "INSERT", "UPDATE", "DELETE"},
		[]string{"SELECT"}},
	{"S", []string{"USAGE", "SELECT", "UPDATE"}, []string{"USAGE", "SELECT", "UPDATE"}, []string{"SELECT"}},
	{"f", []string{"EXECUTE"}, []string{"EXECUTE"}, []string{"EXECUTE"}},
	{"T", []string{"USAGE"}, []string{"USAGE"}, []string{"USAGE"}},
}

// accessKinds are the kinds of objects in the plural, as SQL has them.
var accessKinds = map[string]string{"n": "SCHEMAS", "r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES"}

// lacks is what the roles of own, write and read lack, as bits.
type lacks [3]int

// accessPlan describes the access roles of a database, and the statements that complete them.
type accessPlan struct {
	s        *Server
	database string // from whose name they have theirs
	now      string // its name now: another one while it is being made
	// givenAway says that the administering role owns the database only until it is made.
	givenAway bool
	names     []string // in the order of Levels, as all that follows
	roles     []*User  // nil: it is to be made
	members   [][]string
	// former says that the roles were made for a database that had the name before: they may not connect to this one, and
	// have members, or rights elsewhere.
	former   bool
	record   AccessRecord // of the role of own, as it is to be
	self     string       // the administering role
	super    bool
	rights   map[string]roleRights // of the owners
	steps    []accessStep
	problems []string
	warning  string
	attempt  uuid.UUID // that changed the role of own last
}

// accessStep is a statement, to be run as a role; "": as the administering role.
type accessStep struct{ as, sql string }

// planAccess reads in the database, whose name is now, what its access roles lack.
func (s *Server) planAccess(ctx context.Context, q querier, wish AccessRolesWish, now string) (p *accessPlan, err error) {
	p = &accessPlan{s: s, database: wish.Database, now: now}
	if p.names, err = s.accessNames(wish.Database); err != nil {
		return nil, err
	}
	if err := p.readRoles(ctx, q); err != nil {
		return nil, err
	}
	if err := p.apply(wish); err != nil {
		return nil, err
	}
	var creates bool
	err = q.QueryRow(ctx,
		`SELECT rolname::text, rolsuper, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user`).
		Scan(&p.self, &p.super, &creates)
	if err != nil {
		return nil, err
	}
	for i, role := range p.roles {
		if role == nil {
			p.add("", createGroup(p.names[i]))
		}
	}
	if !creates && len(p.steps) > 0 {
		return nil, fault.New(fault.Forbidden,
			"Rolecall's administering role may not make roles. It has no CREATEROLE: ALTER ROLE "+
				"%s CREATEROLE.", valid(ident(p.self)))
	}
	if err := p.readDatabase(ctx, q); err != nil {
		return nil, err
	}
	if err := p.readObjects(ctx, q); err != nil {
		return nil, err
	}
	// Roles act in the order of their names, as in deletions: from PostgreSQL 16 on SET ROLE after GRANT takes a lock on the
	// role.
	slices.SortStableFunc(p.steps, func(a, b accessStep) int { return strings.Compare(a.as, b.as) })
	return p, nil
}

// readRoles reads the roles and their members.
func (p *accessPlan) readRoles(ctx context.Context, q querier) error {
	p.roles, p.members = make([]*User, len(Levels)), make([][]string, len(Levels))
	for i, name := range p.names {
		u, err := p.s.role(ctx, q, name)
		if fault.Is(err, fault.NotFound) {
			return fault.New(fault.Invalid, "The encoding of the database %q has not all the characters of the name %q.", p.database,
				name).Because(err)
		}
		if err != nil {
			return err
		}
		p.roles[i] = u
		if u != nil {
			if p.members[i], err = readMembers(ctx, q, name); err != nil {
				return err
			}
		}
	}
	if own := p.roles[0]; own != nil {
		p.attempt = own.Provenance.Attempt
	}
	return p.readFormer(ctx, q)
}

// readFormer finds out whether the roles are of a former database of the name. Members of such roles, or of the roles of the
// new database, must not have access to both.
func (p *accessPlan) readFormer(ctx context.Context, q querier) error {
	var made []uint32
	members := false
	for i, u := range p.roles {
		if u != nil && u.accessRole(p.database, Levels[i]) {
			made = append(made, u.oid)
			members = members || len(p.members[i]) > 0
		}
	}
	if len(made) == 0 {
		return nil
	}
	err := q.QueryRow(ctx, selectFormer, made, p.now, members).Scan(&p.former)
	if errors.Is(err, pgx.ErrNoRows) {
		return databaseNotFound(p.database)
	}
	return err
}

// made reports whether the role of a level, by its place, was made for this database.
func (p *accessPlan) made(i int) bool {
	return !p.former && p.roles[i] != nil && p.roles[i].accessRole(p.database, Levels[i])
}

// apply makes the record of a wish and what is recorded.
func (p *accessPlan) apply(wish AccessRolesWish) error {
	p.record = AccessRecord{Schemas: []string{allSchemas}}
	if p.made(0) {
		p.record = *p.roles[0].Provenance.Access
	}
	p.record.Database, p.record.Level = p.database, Own
	if wish.Adopt != nil {
		p.record.Adopt = *wish.Adopt
	}
	p.givenAway = wish.givenAway
	if wish.Schemas == nil {
		return nil
	}
	schemas := slices.Compact(slices.Sorted(slices.Values(wish.Schemas)))
	switch {
	case len(schemas) == 0:
		return fault.New(fault.Invalid, "Name at least one schema, or * for all.")
	case slices.Contains(schemas, allSchemas) && len(schemas) > 1:
		return fault.New(fault.Invalid, "Name either schemas, or * for all.")
	}
	for _, schema := range schemas {
		if schema != allSchemas && (!storable(schema) || strings.HasPrefix(schema, "pg_") || schema == "information_schema") {
			return fault.New(fault.Invalid, "The schema %q cannot be covered by access roles.", schema)
		}
	}
	p.record.Schemas = schemas
	if longest := (Provenance{Access: &p.record}).comment(""); len(longest) > maxRecord/2 {
		return fault.New(fault.Invalid, "These are too many schemas: name fewer, or * for all.")
	}
	return nil
}

// checkRoles refuses roles that have the names of access roles and cannot be that.
func (p *accessPlan) checkRoles() error {
	for i, u := range p.roles {
		if u == nil {
			continue
		}
		made := p.made(i)
		switch {
		case u.System():
			return fault.New(fault.Forbidden, "The role %q is a system role: it cannot be an access role.", u.Name)
		case u.isUser() || u.Lease() != nil:
			return fault.New(fault.Invalid, "The role %q has LOGIN, or is a user: an access role has none. Rename the user, or the "+
				"database.", u.Name)
		case p.former && !p.record.Adopt:
			return fault.New(fault.Invalid, "The role %q was made for a former database %q, and its access roles have members, or "+
				"rights elsewhere. Take these away, drop or rename the roles, or adopt them.", u.Name, p.database)
		case !made && !p.record.Adopt:
			return fault.New(fault.Invalid, "There is a role %q already, which Rolecall has not made for the database %q. Adopt it, "+
				"or rename it.", u.Name, p.database)
		case !made && p.s.Reassignable != nil && !slices.Contains(p.s.Reassignable, u.Name):
			// A principal that gives itself the level would become a role that it may not grant.
			return fault.New(fault.Forbidden, "The role %q is not among those that can be granted in this cluster: only an admin "+
				"adopts it.", u.Name)
		}
		if r, known := p.rights[u.Name]; known && (!r.drops || i == 0 && !r.sets) {
			return fault.New(fault.Forbidden, "Rolecall's administering role cannot act for the role %q: %s.", u.Name, r.becoming())
		}
	}
	return nil
}

// add plans a statement.
func (p *accessPlan) add(as, sql string) {
	if p.super || as == p.self {
		as = ""
	}
	p.steps = append(p.steps, accessStep{as, sql})
}

// grant plans to grant on a target what is lacking.
func (p *accessPlan) grant(as, target string, l lacks) {
	for _, g := range p.split(l) {
		p.add(as, grantTo(g.privileges, target, g.grantees))
	}
}

// accessGrantees are roles that lack the same privileges.
type accessGrantees struct {
	privileges string
	grantees   []string
}

func (p *accessPlan) split(l lacks) (all []accessGrantees) {
	for i, bits := range l {
		if bits == 0 || slices.Contains(l[:i], bits) {
			continue
		}
		var g accessGrantees
		for j := i; j < len(l); j++ {
			if l[j] == bits {
				g.grantees = append(g.grantees, p.names[j])
			}
		}
		var privileges []string
		for bit, privilege := range accessPrivileges {
			if bits&(1<<bit) != 0 {
				privileges = append(privileges, privilege)
			}
		}
		g.privileges = strings.Join(privileges, ", ")
		all = append(all, g)
	}
	return all
}

// parameters are the first of each query about access roles.
func (p *accessPlan) parameters(more ...any) []any {
	oids := make([]uint32, len(Levels))
	for i, u := range p.roles {
		oids[i] = ^uint32(i) // no role has these
		if u != nil {
			oids[i] = u.oid
		}
	}
	var kinds, privileges []string
	var levels, bits []int32
	for _, g := range accessGrants {
		for i, of := range [][]string{g.own, g.write, g.read} {
			for _, privilege := range of {
				kinds, privileges, levels = append(kinds, g.kind), append(privileges, privilege), append(levels, int32(i+1))
				bits = append(bits, 1<<slices.Index(accessPrivileges, privilege))
			}
		}
	}
	return append([]any{oids, kinds, levels, privileges, bits}, more...)
}

// has reports whether bits have a privilege.
func has(bits int, privilege string) bool {
	return bits&(1<<slices.Index(accessPrivileges, privilege)) != 0
}

// readDatabase plans the grants on the database itself. Without them the roles are useless, so it fails if the administering
// role cannot act for the owner.
func (p *accessPlan) readDatabase(ctx context.Context, q querier) error {
	var owner, self string
	var public, byOthers, connectsByPublic bool
	var l lacks
	err := q.QueryRow(ctx, selectDatabaseLacks, p.parameters(p.now)...).Scan(&owner, &self, &public, &byOthers,
		&connectsByPublic,
		&l[0], &l[1], &l[2])
	if errors.Is(err, pgx.ErrNoRows) {
		return databaseNotFound(p.database)
	}
	if err != nil {
		return err
	}
	if p.givenAway && !p.super {
		p.record.GaveConnect = true
	}
	if l == (lacks{}) && !public {
		return p.connectIsPublic(byOthers)
	}
	rights, err := readRights(ctx, q, []string{owner})
	if err != nil {
		return err
	}
	if len(rights) == 1 && !rights[0].sets {
		return fault.New(fault.Forbidden, "The database %q belongs to %q, for whom Rolecall's administering role cannot act: %s.",
			p.database, valid(owner), rights[0].orOwner(p.database))
	}
	target := targetDatabase(p.now)
	p.grant(owner, target, l)
	if public {
		if connectsByPublic && owner != p.self {
			p.record.GaveConnect = true
			p.add(owner, grantTo("CONNECT", target, []string{p.self}))
		}
		p.record.TookConnect = true
		p.add(owner, revokeFromPublic("CONNECT", target))
		if err := p.readLosers(ctx, q); err != nil {
			return err
		}
	}
	return p.connectIsPublic(byOthers)
}

// readLosers says which users can connect only because PUBLIC can.
func (p *accessPlan) readLosers(ctx context.Context, q querier) error {
	if p.now != p.database {
		return nil // nobody uses it yet
	}
	var of []uint32
	for _, u := range p.roles {
		if u != nil {
			of = append(of, u.oid)
		}
	}
	rows, err := q.Query(ctx, selectLosers, of, p.now, maxNamed)
	if err != nil {
		return err
	}
	var names []string
	var name string
	var connected bool
	var count int
	_, err = pgx.ForEachRow(rows, []any{&name, &connected, &count}, func() error {
		named := strconv.QuoteToASCII(name)
		if connected {
			named += " (has sessions now)"
		}
		names = append(names, named)
		return nil
	})
	if len(names) > 0 {
		p.warning = fmt.Sprintf("PUBLIC loses CONNECT on the database. Without it these users cannot connect: %s. Give each "+
			"that uses the database a level, or grant it CONNECT.", some(names, count))
	}
	return err
}

func (p *accessPlan) connectIsPublic(byOthers bool) error {
	if byOthers {
		p.problem("PUBLIC was granted CONNECT on the database %q by another role than its owner, which that role revokes: REVOKE "+
			"CONNECT ON DATABASE %s FROM PUBLIC", p.database, ident(p.now))
	}
	return nil
}

// orOwner says how the administering role comes to act for the owner of a database.
func (r roleRights) orOwner(database string) string {
	if r.super {
		return fmt.Sprintf("give it another owner with ALTER DATABASE %s OWNER TO …", ident(database))
	}
	return r.becoming()
}

func (p *accessPlan) problem(format string, args ...any) {
	p.problems = append(p.problems, sentence(fmt.Sprintf(format, args...)))
}

// accessSchema is a schema of the database.
type accessSchema struct {
	oid           uint32
	name, owner   string
	extension     bool // made by one
	public        int  // what PUBLIC has on it, as bits
	publicByOwner bool // PUBLIC was granted CREATE by the owner
	lacks         lacks
}

// accessOwner owns something in the covered schemas.
type accessOwner struct {
	oid       uint32
	name      string
	relations bool // tables or sequences
	makes     bool // anything but the schema public, which belongs to the owner of the database
	may       bool // the administering role can act for it
}

// readObjects plans the grants in the database.
func (p *accessPlan) readObjects(ctx context.Context, q querier) error {
	schemas, public, err := p.readSchemas(ctx, q)
	if err != nil {
		return err
	}
	oids := make([]uint32, len(schemas))
	for i, schema := range schemas {
		oids[i] = schema.oid
	}
	owners, err := p.readOwners(ctx, q, oids)
	if err != nil {
		return err
	}
	for _, schema := range schemas {
		p.grantSchema(schema)
	}
	if public != nil && has(public.public, "CREATE") {
		if public.publicByOwner && p.may(public.owner) {
			p.record.TookCreate = true
			p.add(public.owner, revokeFromPublic("CREATE", targetSchema(public.name)))
		} else {
			p.problem("every user may create in the schema public of the database %q, which belongs to %q. As that role, or a "+
				"superuser, in the database: %s", p.database, valid(public.owner), revokeFromPublic("CREATE",
				targetSchema(public.name)))
		}
	}
	if err := p.readRelations(ctx, q, oids, owners); err != nil {
		return err
	}
	return p.readDefaults(ctx, q, oids, owners)
}

// readSchemas reads the schemas that are covered, and the schema public, if there is one.
func (p *accessPlan) readSchemas(ctx context.Context, q querier) (covered []accessSchema, public *accessSchema, err error) {
	rows, err := q.Query(ctx, selectSchemaLacks, p.parameters()...)
	if err != nil {
		return nil, nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n accessSchema, err error) {
		return n, row.Scan(&n.oid, &n.name, &n.owner, &n.extension, &n.public, &n.publicByOwner, &n.lacks[0], &n.lacks[1],
			&n.lacks[2])
	})
	if err != nil {
		return nil, nil, err
	}
	every := slices.Contains(p.record.Schemas, allSchemas)
	absent := slices.Clone(p.record.Schemas)
	for _, n := range all {
		if n.name == "public" {
			public = &n
		}
		named := readable(n.name)
		if every && !n.extension || slices.Contains(p.record.Schemas, named) {
			covered = append(covered, n)
			absent = slices.DeleteFunc(absent, func(name string) bool { return name == named })
		}
	}
	if !every && len(absent) > 0 {
		return nil, nil, fault.New(fault.Invalid, "There is no schema %q in the database %q.", absent[0], p.database)
	}
	var names []string
	if public != nil {
		names = append(names, public.owner)
	}
	for _, n := range covered {
		names = append(names, n.owner)
	}
	return covered, public, p.readOwnerRights(ctx, q, names)
}

// readOwnerRights adds to the rights on owners.
func (p *accessPlan) readOwnerRights(ctx context.Context, q querier, names []string) error {
	if p.rights == nil {
		p.rights = map[string]roleRights{}
		for _, u := range p.roles {
			if u != nil {
				names = append(names, u.Name)
			}
		}
	}
	names = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(names))), func(name string) bool {
		_, known := p.rights[name]
		return known
	})
	if len(names) == 0 {
		return nil
	}
	rights, err := readRights(ctx, q, names)
	for _, r := range rights {
		p.rights[r.name] = r
	}
	return err
}

// may reports whether the administering role can act for an owner.
func (p *accessPlan) may(owner string) bool { return p.super || p.rights[owner].sets }

// grantSchema plans what is granted on a schema. What PUBLIC has is enough where nothing can be granted.
func (p *accessPlan) grantSchema(n accessSchema) {
	if p.may(n.owner) {
		p.grant(n.owner, targetSchema(n.name), n.lacks)
		return
	}
	var rest lacks
	for i := range rest {
		rest[i] = n.lacks[i] &^ n.public
	}
	for _, g := range p.split(rest) {
		p.problem("the schema %q of the database %q belongs to %q, for whom Rolecall's administering role cannot act: %s",
			readable(n.name), p.database, valid(n.owner), p.remedy(n.owner, grantTo(g.privileges, targetSchema(n.name), g.grantees)))
	}
}

// remedy is what helps where the administering role cannot act for an owner.
func (p *accessPlan) remedy(owner, sql string) string {
	r := p.rights[owner]
	as := fmt.Sprintf("as that role, or a superuser, in the database: %s", readable(sql))
	if r.super || r.member {
		return as
	}
	return r.becoming() + "; or " + as
}

func (p *accessPlan) readOwners(ctx context.Context, q querier, schemas []uint32) ([]accessOwner, error) {
	rows, err := q.Query(ctx, selectOwners, schemas)
	if err != nil {
		return nil, err
	}
	owners, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o accessOwner, err error) {
		return o, row.Scan(&o.oid, &o.name, &o.relations, &o.makes)
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range owners {
		names = append(names, o.name)
	}
	if err := p.readOwnerRights(ctx, q, names); err != nil {
		return nil, err
	}
	for i := range owners {
		owners[i].may = p.may(owners[i].name)
	}
	return owners, nil
}

// relationKinds says in messages what the kinds of relations are.
var relationKinds = map[string]string{"r": "tables and views", "S": "sequences"}

// relationGroup is tables or sequences of a schema and an owner on which the roles lack the same.
type relationGroup struct {
	schema, kind, owner string
	lacks               lacks
}

// readRelations plans what is granted on tables and sequences: one statement for a schema and its kind, if that says the
// same, else one for those that lack the same.
func (p *accessPlan) readRelations(ctx context.Context, q querier, schemas []uint32, owners []accessOwner) error {
	var acting []uint32
	for _, o := range owners {
		if o.may {
			acting = append(acting, o.oid)
		}
	}
	rows, err := q.Query(ctx, selectRelationLacks, p.parameters(schemas, acting, p.super)...)
	if err != nil {
		return err
	}
	var order []relationGroup
	targets := map[relationGroup][]string{}
	var g relationGroup
	var may bool
	var target *string
	var count int
	_, err = pgx.ForEachRow(rows, []any{&g.schema, &g.kind, &g.owner, &may, &target, &count, &g.lacks[0], &g.lacks[1],
		&g.lacks[2]}, func() error {
		if !may {
			p.relationProblem(g, count)
			return nil
		}
		if _, begun := targets[g]; !begun {
			order = append(order, g)
		}
		if target != nil {
			targets[g] = append(targets[g], *target)
		} else {
			targets[g] = nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, g := range order {
		target := targetAll(accessKinds[g.kind], g.schema)
		if list := targets[g]; len(list) > 0 {
			target = strings.TrimSuffix(accessKinds[g.kind], "S") + " " + strings.Join(list, ", ")
		}
		p.grant(g.owner, target, g.lacks)
	}
	return nil
}

// relationProblem is for objects of an owner for whom the administering role cannot act.
func (p *accessPlan) relationProblem(g relationGroup, count int) {
	for _, of := range p.split(g.lacks) {
		sql := grantTo(of.privileges, targetAll(accessKinds[g.kind], g.schema), of.grantees)
		p.problem("%d %s in the schema %q of the database %q belong to %q, for whom Rolecall's administering role cannot act: %s",
			count, relationKinds[g.kind], readable(g.schema), p.database, valid(g.owner), p.remedy(g.owner, sql))
	}
}

// readDefaults plans default privileges: for objects that members of own create later and, with adopt, other owners.
func (p *accessPlan) readDefaults(ctx context.Context, q querier, schemas []uint32, owners []accessOwner) error {
	oids, names := []uint32{^uint32(0)}, []string{p.names[0]}
	if own := p.roles[0]; own != nil {
		oids[0] = own.oid
	}
	for _, o := range owners {
		switch {
		case !p.record.Adopt || o.name == p.names[0] || o.name == "pg_database_owner" || !o.makes:
		case o.may:
			oids, names = append(oids, o.oid), append(names, o.name)
		case o.relations:
			p.problem("what %q makes later in the database %q is not covered, because Rolecall's administering role cannot act for "+
				"that role: %s", valid(o.name), p.database, p.remedy(o.name, alterDefault(o.name, "")+"GRANT …"))
		}
	}
	places := schemas
	if slices.Contains(p.record.Schemas, allSchemas) {
		places = []uint32{0}
	}
	rows, err := q.Query(ctx, selectDefaultLacks, p.parameters(oids, names, places)...)
	if err != nil {
		return err
	}
	var owner, schema, kind string
	var l lacks
	_, err = pgx.ForEachRow(rows, []any{&owner, &schema, &kind, &l[0], &l[1], &l[2]}, func() error {
		for _, g := range p.split(l) {
			p.add(owner, grantDefaultTo(owner, schema, g.privileges, accessKinds[kind], g.grantees))
		}
		return nil
	})
	return err
}

// run does what is planned, in a transaction.
func (p *accessPlan) run(ctx context.Context, tx *transaction, by Actor) error {
	for steps := p.steps; len(steps) > 0; {
		as, sql := steps[0].as, ""
		for len(steps) > 0 && steps[0].as == as {
			sql, steps = sql+steps[0].sql+";", steps[1:]
		}
		exec := func() error {
			_, err := tx.Exec(ctx, sql)
			return err
		}
		var err error
		if as == "" {
			err = exec()
		} else {
			err = tx.asRole(ctx, as, exec)
		}
		if err != nil {
			return err
		}
	}
	for i, u := range p.roles {
		if err := p.writeRecord(ctx, tx, i, u, by); err != nil {
			return err
		}
	}
	return nil
}

// writeRecord writes the comment of a role, if it was made or changed, and fails if its name means another role now.
func (p *accessPlan) writeRecord(ctx context.Context, tx *transaction, i int, u *User, by Actor) error {
	record := AccessRecord{Database: p.database, Level: Levels[i]}
	if i == 0 {
		record = p.record
	}
	if u == nil {
		access := Provenance{Created: tx.now, CreatedBy: by.Account, Access: &record}.changed(tx.now, by)
		_, err := tx.Exec(ctx, commentOnRole(p.names[i], access.comment("")))
		return err
	}
	if u.accessRole(p.database, Levels[i]) && (i > 0 || len(p.steps) == 0 && u.Provenance.Access.same(record)) {
		_, err := tx.Exec(ctx, checkRole(u))
		if sqlstate.Is(err, sqlstate.DivisionByZero) {
			return u.replaced()
		}
		return err
	}
	access := u.Provenance.changed(tx.now, by)
	access.Access = &record
	return p.s.alter(ctx, tx, u, commentOnRole(u.Name, access.comment(u.userComment)))
}

// result is the plan for callers.
func (p *accessPlan) result() *AccessRoles {
	all := &AccessRoles{Database: p.database, Schemas: p.record.Schemas, Adopt: p.record.Adopt, attempt: p.attempt,
		Complete: len(p.steps)+len(p.problems) == 0, Problems: p.problems, Warning: p.warning}
	for i, u := range p.roles {
		if p.made(i) {
			all.Roles = append(all.Roles, AccessRoleState{Level: Levels[i], Name: u.Name, Members: p.members[i]})
		}
	}
	for _, step := range p.steps {
		all.Statements = append(all.Statements, Statement{Database: p.database, SQL: readable(step.sql)})
	}
	return all
}
