package manifest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rolecall/internal/client"
)

// clusterPlanner plans what is in one cluster.
type clusterPlanner struct {
	*planner
	want      *Cluster
	now       *ObservedCluster             // nil: it is not registered
	grantable []string                     // after the step on the cluster itself
	memberOf  []string                     // likewise
	levels    map[string]map[string]string // by user and database
	roles     map[string]bool              // the access roles
	users     map[string]*client.User
	inCase    map[string]string // a name of a user, by the name in lower case
	needs     []string          // the cluster, if there is a step for it
}

func (p *planner) cluster(want *Cluster) {
	c := &clusterPlanner{planner: p, want: want, levels: map[string]map[string]string{}, roles: map[string]bool{},
		users: map[string]*client.User{}, inCase: map[string]string{}}
	for _, o := range p.o.Clusters {
		if o.Name == want.Name {
			c.now = o
		}
	}
	t := Thing{Cluster: want.Name, Kind: KindCluster, Name: want.Name}
	if c.now == nil {
		p.saw(t, absent)
		if want.Connection == nil {
			p.conflict(t, want.Place, "there is no such cluster that you may view; to register it, write its connection")
			return
		}
		if !want.Connection.Password.Given() {
			p.conflict(t, want.Place, "it is not registered, and connection.password is missing; write {env: NAME} or {file: PATH}")
			return
		}
		c.register(t)
	} else {
		p.saw(t, c.now.ETag)
		c.settings(t)
		if c.now.Problem != "" {
			p.saw(t, "unreachable")
			p.conflict(t, want.Place, "it could not be read, so nothing in it is planned: %s", c.now.Problem)
			return
		}
	}
	c.learn()
	for i := range want.Databases {
		c.database(&want.Databases[i])
	}
	for i := range want.Users {
		c.user(&want.Users[i])
	}
	for i := range want.Credentials {
		c.credential(&want.Credentials[i])
	}
	if c.now != nil {
		c.retire()
		c.unlisted()
	}
}

// learn looks at what there is: users by name, levels by the members of the access roles, and lists as they will be.
func (c *clusterPlanner) learn() {
	c.grantable, c.memberOf = c.want.Grantable, c.want.MemberOf
	if c.now == nil {
		return
	}
	c.grantable, c.memberOf = c.now.Grantable, c.now.MemberOf
	if c.want.Grantable != nil {
		c.grantable = c.target(c.now.Grantable, c.want.Grantable)
	}
	if c.want.MemberOf != nil {
		c.memberOf = c.target(c.now.MemberOf, c.want.MemberOf)
	}
	c.levels, c.roles = c.now.Levels()
	for i := range c.now.Users {
		u := &c.now.Users[i]
		c.users[u.Username], c.inCase[strings.ToLower(u.Username)] = u, u.Username
	}
}

// Levels are the levels of users, by user and database, and the names of all access roles.
func (o *ObservedCluster) Levels() (levels map[string]map[string]string, roles map[string]bool) {
	levels, roles = map[string]map[string]string{}, map[string]bool{}
	for database, a := range o.AccessRoles {
		for _, r := range a.Roles {
			roles[r.Role] = true
			for _, member := range r.Members {
				if levels[member] == nil {
					levels[member] = map[string]string{}
				}
				had := levels[member][database]
				if had == "" || slices.Index(client.Levels, r.Level) < slices.Index(client.Levels, had) {
					levels[member][database] = r.Level
				}
			}
		}
	}
	return levels, roles
}

func (c *clusterPlanner) register(t Thing) {
	w := c.want
	connection := map[string]any{"url": w.Connection.URL}
	call := Call{Method: http.MethodPost, Body: map[string]any{"displayName": w.Name, "connection": connection}}
	call.Secrets = []SecretField{{[]string{"password"}, w.Connection.Password}}
	tls := map[string]any{}
	if w.Connection.TLS.Mode != "" {
		tls["mode"] = w.Connection.TLS.Mode
	}
	if w.Connection.TLS.AllowPlaintext {
		tls["allowPlaintext"] = true
	}
	for _, f := range []struct {
		name   string
		secret Secret
	}{{"ca", w.Connection.TLS.CA}, {"cert", w.Connection.TLS.Cert}, {"key", w.Connection.TLS.Key}} {
		if f.secret.Given() {
			call.Secrets = append(call.Secrets, SecretField{[]string{"tls", f.name}, f.secret})
		}
	}
	connection["tls"] = tls
	step := Step{Thing: t, Action: Register, Line: w.Line, Notes: []string{"what is in it is not known yet"}}
	step.changes("connection.url", "", w.Connection.URL)
	c.fields(&step, call.Body, &client.Cluster{})
	step.Calls = []Call{call}
	c.add(step)
	c.needs = []string{t.Key()}
}

func (c *clusterPlanner) settings(t Thing) {
	step := Step{Thing: t, Action: Change, Line: c.want.Line, ETag: c.now.ETag}
	body := map[string]any{}
	c.fields(&step, body, &c.now.Cluster)
	if url := c.now.Connection.URL; c.want.Connection != nil && url != "" && url != c.want.Connection.URL {
		body["connection"] = map[string]any{"url": c.want.Connection.URL}
		step.changes("connection.url", url, c.want.Connection.URL)
	}
	if len(body) == 0 {
		return
	}
	step.Calls = []Call{{Method: http.MethodPatch, Body: body, Match: true}}
	c.add(step)
	c.needs = []string{t.Key()}
}

// fields adds the settings of a cluster that differ from those that it has.
func (c *clusterPlanner) fields(step *Step, body map[string]any, now *client.Cluster) {
	w := c.want
	if w.Location != nil && *w.Location != now.Location {
		body["location"] = *w.Location
		step.changes("location", now.Location, *w.Location)
	}
	access := map[string]any{}
	const or, and = " or ", ", " // a selector contains commas itself
	for _, f := range []struct {
		name, field, separator string
		now, want              []string
		in                     map[string]any
	}{
		{"access.manage", "manage", or, now.Access.Manage, w.Access.Manage, access},
		{"access.view", "view", or, now.Access.View, w.Access.View, access},
		{"memberOf", "memberOf", and, now.MemberOf, w.MemberOf, body},
		{"grantable", "grantable", and, now.Grantable, w.Grantable, body},
		{"systemRoles", "systemRoles", and, now.SystemRoles, w.SystemRoles, body},
	} {
		if target := c.target(orEmpty(f.now), f.want); f.want != nil && !sameSet(target, f.now) {
			f.in[f.field] = target
			step.changes(f.name, strings.Join(f.now, f.separator), strings.Join(target, f.separator))
		}
	}
	if len(access) > 0 {
		body["access"] = access
	}
	if w.SynchronousCommit != nil {
		was := Default
		if now.SynchronousCommit != nil {
			was = *now.SynchronousCommit
		}
		if *w.SynchronousCommit != was {
			body["synchronousCommit"] = nil
			if *w.SynchronousCommit != Default {
				body["synchronousCommit"] = *w.SynchronousCommit
			}
			step.changes("synchronousCommit", was, *w.SynchronousCommit)
		}
	}
	leases := map[string]any{}
	for _, f := range []struct {
		name, now string
		want      *string
	}{{"defaultTtl", now.Leases.DefaultTTL, w.Leases.DefaultTTL}, {"maxTtl", now.Leases.MaxTTL, w.Leases.MaxTTL}} {
		if f.want != nil && *f.want != f.now {
			leases[f.name] = *f.want
			step.changes("leases."+f.name, f.now, *f.want)
		}
	}
	if n := w.Leases.MaxPerAccount; n != nil && *n != now.Leases.MaxPerAccount {
		leases["maxPerAccount"] = *n
		step.changes("leases.maxPerAccount", strconv.Itoa(now.Leases.MaxPerAccount), strconv.Itoa(*n))
	}
	if len(leases) > 0 {
		body["leases"] = leases
	}
}

// orEmpty keeps a target from being nil, which JSON would write as null.
func orEmpty(values []string) []string { return append([]string{}, values...) }

func (c *clusterPlanner) thing(kind, name string) Thing {
	return Thing{Cluster: c.want.Name, Kind: kind, Name: name}
}

func (c *clusterPlanner) observedDatabase(name string) *client.Database {
	if c.now != nil {
		for i := range c.now.Databases {
			if c.now.Databases[i].Name == name {
				return &c.now.Databases[i]
			}
		}
	}
	return nil
}

func (c *clusterPlanner) database(want *Database) {
	t := c.thing(KindDatabase, want.Name)
	now := c.observedDatabase(want.Name)
	if now == nil {
		c.saw(t, absent)
		step := Step{Thing: t, Action: Create, Line: want.Line, Changes: []Difference{}, Needs: slices.Clone(c.needs)}
		body := map[string]any{"name": want.Name, "accessRoles": want.AccessRoles != nil}
		if want.Owner != "" {
			body["owner"] = want.Owner
			step.changes("owner", "", want.Owner)
		}
		step.Calls = []Call{{Method: http.MethodPost, Segments: []string{"databases"}, Body: body}}
		if want.AccessRoles != nil {
			step.changes("accessRoles", "", "yes")
			if call := want.accessRolesCall(); len(call.Body) > 0 {
				step.Calls = append(step.Calls, call)
			}
		}
		c.add(step)
		return
	}
	roles := c.now.AccessRoles[want.Name]
	c.saw(t, databaseState(now, roles))
	if want.Owner != "" && want.Owner != now.Owner {
		c.conflict(t, want.Place, "its owner is %q; an existing database keeps its owner: change it in the file, or by ALTER "+
			"DATABASE", now.Owner)
	}
	if want.AccessRoles != nil {
		c.accessRoles(want, now, roles)
	}
}

func databaseState(d *client.Database, a *client.AccessRoles) string {
	if a == nil {
		return digestOf(d.Name, d.Owner)
	}
	return digestOf(d.Name, d.Owner, a.Schemas, a.Adopt, a.Complete)
}

func (d *Database) accessRolesCall() Call {
	body := map[string]any{}
	if d.AccessRoles.Schemas != nil {
		body["schemas"] = d.AccessRoles.Schemas
	}
	if d.AccessRoles.Adopt != nil {
		body["adopt"] = *d.AccessRoles.Adopt
	}
	return Call{Method: http.MethodPut, Segments: []string{"databases", d.Name, "access-roles"}, Body: body}
}

func (c *clusterPlanner) accessRoles(want *Database, now *client.Database, roles *client.AccessRoles) {
	t := c.thing(KindAccessRoles, want.Name)
	step := Step{Thing: t, Action: Create, Line: want.Line, Changes: []Difference{}, Needs: slices.Clone(c.needs)}
	if roles != nil {
		step.Action = Change
		if s := want.AccessRoles.Schemas; s != nil && !sameSet(s, roles.Schemas) {
			step.changes("schemas", joined(roles.Schemas), joined(s))
		}
		if a := want.AccessRoles.Adopt; a != nil && *a != roles.Adopt {
			step.changes("adopt", strconv.FormatBool(roles.Adopt), strconv.FormatBool(*a))
		}
		if !roles.Complete && len(roles.Problems) == 0 {
			step.changes("complete", "false", "true")
		}
		if len(step.Changes) == 0 {
			return
		}
	}
	if now.System {
		c.conflict(t, want.Place, "it is a system database, which has no access roles")
		return
	}
	if c.foreign(t, want.Place, now.CreatedBy) {
		return
	}
	step.Calls = []Call{want.accessRolesCall()}
	c.add(step)
}

func (c *clusterPlanner) userState(u *client.User) string {
	state := u.State
	if state == "expired" { // by the clock alone
		state = "active"
	}
	return digestOf(u.ETag, state, rfc3339(u.ValidUntil), u.ConnectionLimit, u.MemberOf, c.levels[u.Username])
}

func (c *clusterPlanner) user(want *User) {
	t := c.thing(KindUser, want.Name)
	now := c.users[want.Name]
	if now == nil {
		c.saw(t, absent)
	} else {
		c.saw(t, c.userState(now))
	}
	if !c.rolesPossible(t, want, now) {
		return
	}
	if now == nil {
		c.newUser(t, want)
		return
	}
	step := c.changeUser(t, want, now)
	switch {
	case len(step.Changes) == 0:
	case now.System:
		c.conflict(t, want.Place, "it is a system user, which cannot be changed here")
	case now.Lease != nil:
		c.conflict(t, want.Place, "it belongs to a lease, which ends by itself; remove it from the file")
	case now.State == "deleting":
		c.conflict(t, want.Place, "it is being deleted; complete that first: rolecall users delete")
	case c.foreign(t, want.Place, now.CreatedBy, now.ModifiedBy):
	default:
		c.add(step)
	}
}

// rolesPossible refuses roles that the cluster does not let users have.
func (c *clusterPlanner) rolesPossible(t Thing, want *User, now *client.User) bool {
	for _, role := range want.Roles {
		if c.roles[role] {
			c.conflict(t, want.Place, "%q is an access role; give the level with access", role)
			return false
		}
		if !slices.Contains(c.grantable, role) && (now == nil || !slices.Contains(now.MemberOf, role)) {
			c.conflict(t, want.Place, "the role %q is not in the cluster's list grantable; add it there", role)
			return false
		}
	}
	return true
}

// userNeeds are the things in the file that the user depends on.
func (c *clusterPlanner) userNeeds(want *User) []string {
	needs := slices.Clone(c.needs)
	for _, database := range slices.Sorted(maps.Keys(want.Access)) {
		needs = append(needs, c.thing(KindDatabase, database).Key(), c.thing(KindAccessRoles, database).Key())
	}
	return needs
}

func (c *clusterPlanner) newUser(t Thing, want *User) {
	if want.Password.Word == Keep {
		c.conflict(t, want.Place, "there is no such user whose password could be kept; write password: generate")
		return
	}
	step := Step{Thing: t, Action: Create, Line: want.Line, Password: &want.Password, Needs: c.userNeeds(want)}
	body := map[string]any{"username": want.Name}
	levels := []map[string]string{}
	for _, database := range slices.Sorted(maps.Keys(want.Access)) {
		levels = append(levels, map[string]string{"database": database, "level": want.Access[database]})
		step.changes("access."+database, "", want.Access[database])
	}
	if len(levels) > 0 {
		body["access"] = levels
	}
	if len(want.Roles) > 0 {
		body["roles"] = want.Roles
		step.changes("roles", "", joined(want.Roles))
	}
	if want.ValidUntil != nil && *want.ValidUntil != Never {
		body["validUntil"] = *want.ValidUntil
		step.changes("validUntil", "", *want.ValidUntil)
	}
	if want.ConnectionLimit != nil && *want.ConnectionLimit != -1 {
		body["connectionLimit"] = *want.ConnectionLimit
		step.changes("connectionLimit", "", limit(*want.ConnectionLimit))
	}
	step.changes("password", "", want.Password.describe())
	step.Calls = []Call{{Method: http.MethodPost, Segments: []string{"users"}, Body: body}}
	if want.Disabled != nil && *want.Disabled {
		step.changes("disabled", "", "true")
		step.Calls = append(step.Calls, Call{Method: http.MethodPost, Segments: []string{"users", want.Name, "disable"},
			Match: true})
	}
	if other := c.inCase[strings.ToLower(want.Name)]; other != "" {
		step.Notes = append(step.Notes, "there is a user "+quote(other)+", whose name differs in case only")
	}
	c.add(step)
}

// limit is a connection limit as the file has it.
func limit(n int) string {
	if n < 0 {
		return None
	}
	return strconv.Itoa(n)
}

// call adds a request about the user of the step.
func (s *Step) call(method string, body map[string]any, segments ...string) {
	s.Calls = append(s.Calls, Call{Method: method, Segments: slices.Concat([]string{"users", s.Name}, segments), Body: body,
		Match: true})
}

func (c *clusterPlanner) changeUser(t Thing, want *User, now *client.User) Step {
	s := Step{Thing: t, Action: Change, Line: want.Line, ETag: now.ETag, Needs: c.userNeeds(want)}
	disabled := now.State == "disabled"
	if want.Disabled != nil && *want.Disabled && !disabled {
		s.changes("disabled", "false", "true")
		s.call(http.MethodPost, nil, "disable")
	}
	limits := map[string]any{}
	if was := rfc3339(now.ValidUntil); want.ValidUntil != nil && *want.ValidUntil != was {
		limits["validUntil"] = nil
		if *want.ValidUntil != Never {
			limits["validUntil"] = *want.ValidUntil
		}
		s.changes("validUntil", was, *want.ValidUntil)
	}
	if want.ConnectionLimit != nil && *want.ConnectionLimit != now.ConnectionLimit {
		limits["connectionLimit"] = *want.ConnectionLimit
		s.changes("connectionLimit", limit(now.ConnectionLimit), limit(*want.ConnectionLimit))
	}
	if len(limits) > 0 {
		s.call(http.MethodPatch, limits)
	}
	levels := c.levels[want.Name]
	for _, database := range slices.Sorted(maps.Keys(want.Access)) {
		if level := want.Access[database]; levels[database] != level {
			s.changes("access."+database, levels[database], level)
			s.call(http.MethodPut, map[string]any{"level": level}, "access", database)
		}
	}
	for _, database := range slices.Sorted(maps.Keys(levels)) {
		if _, has := want.Access[database]; c.exact() && want.Access != nil && !has {
			s.changes("access."+database, levels[database], "")
			s.call(http.MethodDelete, nil, "access", database)
		}
	}
	if want.Roles != nil {
		c.changeRoles(&s, want, now)
	}
	if want.Disabled != nil && !*want.Disabled && disabled {
		s.changes("disabled", "true", "false")
		s.call(http.MethodPost, nil, "enable")
	}
	return s
}

// changeRoles adds roles one by one or, if the file's list is exact, sets all that are grantable. New users are members of
// the cluster's list memberOf, so these roles are not too many.
func (c *clusterPlanner) changeRoles(s *Step, want *User, now *client.User) {
	exact := slices.Clone(want.Roles)
	differs := false
	for _, role := range want.Roles {
		if !slices.Contains(now.MemberOf, role) {
			differs = true
			s.changes("roles", "", role)
			if !c.exact() {
				s.call(http.MethodPut, nil, "roles", role)
			}
		}
	}
	if !c.exact() {
		return
	}
	exact = slices.DeleteFunc(exact, func(role string) bool { return !slices.Contains(c.grantable, role) })
	for _, role := range now.MemberOf {
		switch {
		case c.roles[role] || slices.Contains(want.Roles, role) || !slices.Contains(c.grantable, role):
		case slices.Contains(c.memberOf, role):
			exact = append(exact, role)
		default:
			differs = true
			s.changes("roles", role, "")
		}
	}
	if differs {
		s.call(http.MethodPut, map[string]any{"roles": exact}, "roles")
	}
}

func (c *clusterPlanner) observedCredential(name string) *client.Credential {
	if c.now != nil {
		for i := range c.now.Credentials {
			if c.now.Credentials[i].Name == name {
				return &c.now.Credentials[i]
			}
		}
	}
	return nil
}

// sameWindow compares windows; the order of the days does not matter.
func sameWindow(a, b *client.Window) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameSet(a.Days, b.Days) && a.From == b.From && a.To == b.To && a.Timezone == b.Timezone
}

func window(w *client.Window) string {
	if w == nil {
		return "any time"
	}
	return strings.Join(w.Days, ",") + " " + w.From + "-" + w.To + " " + w.Timezone
}

func credentialState(cr *client.Credential) string {
	return digestOf(cr.For, cr.RotateEvery, cr.Overlap, cr.Window)
}

func (c *clusterPlanner) credential(want *Credential) {
	t := c.thing(KindCredential, want.Name)
	now := c.observedCredential(want.Name)
	step := Step{Thing: t, Action: Change, Line: want.Line}
	step.Needs = append(slices.Clone(c.needs), c.thing(KindUser, want.For).Key())
	if database := c.databaseOf(want.For); database != "" {
		step.Needs = append(step.Needs, c.thing(KindDatabase, database).Key(), c.thing(KindAccessRoles, database).Key())
	}
	was := client.Credential{}
	if now == nil {
		c.saw(t, absent)
		step.Action = Create
	} else {
		c.saw(t, credentialState(now))
		was, step.ETag = *now, c.now.CredentialTags[want.Name]
	}
	for _, f := range [][3]string{
		{"for", was.For, want.For}, {"rotateEvery", was.RotateEvery, want.RotateEvery}, {"overlap", was.Overlap, want.Overlap},
	} {
		if f[1] != f[2] {
			step.changes(f[0], f[1], f[2])
		}
	}
	// A window that the file does not have is one that it does not speak of, except where it is exact.
	target := want.Window
	if target == nil && !c.exact() {
		target = was.Window
	}
	if !sameWindow(was.Window, target) {
		step.changes("window", window(was.Window), window(target))
	}
	if len(step.Changes) == 0 || now != nil && c.foreign(t, want.Place, now.CreatedBy) {
		return
	}
	if now != nil && was.For != want.For {
		step.Notes = append(step.Notes, "it rotates at once")
	}
	body := map[string]any{"for": want.For, "rotateEvery": want.RotateEvery, "overlap": want.Overlap}
	if target != nil {
		body["window"] = target
	}
	step.Calls = []Call{{Method: http.MethodPut, Segments: []string{"credentials", want.Name}, Body: body, Match: now != nil}}
	c.add(step)
}

// databaseOf is the database of the file that a role is an access role of, "" without one.
func (c *clusterPlanner) databaseOf(role string) string {
	for _, d := range c.want.Databases {
		for _, suffix := range []string{"_owner", "_write", "_read"} {
			if d.Name+suffix == role {
				return d.Name
			}
		}
	}
	return ""
}

// retire plans the deletion of what exists and is retired.
func (c *clusterPlanner) retire() {
	for _, r := range c.m.Retired {
		if r.Cluster != c.want.Name {
			continue
		}
		switch {
		case r.User != "":
			c.retireUser(&r)
		case r.Database != "":
			t := c.thing(KindDatabase, r.Database)
			now := c.observedDatabase(r.Database)
			if now == nil {
				c.saw(t, absent)
				continue
			}
			c.saw(t, databaseState(now, c.now.AccessRoles[r.Database]))
			if now.System {
				c.conflict(t, r.Place, "it is a system database, which cannot be deleted here")
				continue
			}
			c.remove(t, r.Line, Call{Method: http.MethodDelete, Segments: []string{"databases", r.Database}}, "",
				[]string{"with everything in it"}, nil)
		case r.Credential != "":
			t := c.thing(KindCredential, r.Credential)
			now := c.observedCredential(r.Credential)
			if now == nil {
				c.saw(t, absent)
				continue
			}
			c.saw(t, credentialState(now))
			c.remove(t, r.Line, Call{Method: http.MethodDelete, Segments: []string{"credentials", r.Credential}, Match: true},
				c.now.CredentialTags[r.Credential], nil, nil)
		}
	}
}

func (c *clusterPlanner) retireUser(r *Retired) {
	t := c.thing(KindUser, r.User)
	now := c.users[r.User]
	if now == nil {
		c.saw(t, absent)
		return
	}
	c.saw(t, c.userState(now))
	if now.System || now.Lease != nil {
		c.conflict(t, r.Place, "it is a system user or belongs to a lease, so it cannot be deleted here")
		return
	}
	call := Call{Method: http.MethodDelete, Segments: []string{"users", r.User}, Match: true}
	var notes []string
	if r.ReassignTo != "" {
		call.Query = url.Values{"reassignTo": {r.ReassignTo}}
		notes = append(notes, "what it owns goes to "+quote(r.ReassignTo))
	}
	c.remove(t, r.Line, call, now.ETag, notes, c.now.Deletions[r.User])
}

func (c *clusterPlanner) remove(t Thing, line int, call Call, tag string, notes, blockers []string) {
	c.removals = append(c.removals, Step{Thing: t, Action: Delete, Line: line, Changes: []Difference{}, ETag: tag, Notes: notes,
		Blockers: blockers, Calls: []Call{call}})
}

// unlisted finds what is in the lists of the file, by their kind, but not named there.
func (c *clusterPlanner) unlisted() {
	if !c.exact() {
		return
	}
	if c.want.Databases != nil {
		for _, d := range c.now.Databases {
			if !d.System {
				c.unless(c.thing(KindDatabase, d.Name))
			}
		}
	}
	if c.want.Users != nil {
		for _, u := range c.now.Users {
			if !u.System && u.Lease == nil {
				c.unless(c.thing(KindUser, u.Username))
			}
		}
	}
	if c.want.Credentials != nil {
		for _, cr := range c.now.Credentials {
			c.unless(c.thing(KindCredential, cr.Name))
		}
	}
}

// unless adds a thing to those that are not in the file, unless it is there.
func (c *clusterPlanner) unless(t Thing) {
	if _, named := c.plan.Things[t.Key()]; !named {
		c.plan.Unlisted = append(c.plan.Unlisted, t)
	}
}
