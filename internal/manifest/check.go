package manifest

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"rolecall/internal/label"
	"rolecall/internal/moment"
)

// LocalOrigin is the origin of accounts whose password Rolecall verifies.
const LocalOrigin = "uaa"

// check refuses what no schema can: names that occur twice, and values that contradict each other. It completes defaults.
func (p *parser) check(m *Manifest) {
	seen := map[string]Place{}
	for i := range m.Accounts {
		p.account(&m.Accounts[i], seen)
	}
	for i := range m.Clusters {
		p.cluster(&m.Clusters[i], seen)
	}
	if len(m.Retired) > 0 && m.Mode != Authoritative {
		p.here(m.Retired[0].Place, "retired deletes only in the mode %s, and the mode is %s; write mode: %[1]s, or remove retired",
			Authoritative, m.Mode)
	}
	for i := range m.Retired {
		p.retired(&m.Retired[i], m, seen)
	}
}

func (p *parser) here(at Place, format string, args ...any) {
	p.at(at.Line, at.Column, format, args...)
}

// once refuses a second thing of the same key.
func (p *parser) once(at Place, seen map[string]Place, key, what string) {
	if first, has := seen[key]; has {
		p.here(at, "%s is in line %d already; remove one of the two", what, first.Line)
		return
	}
	seen[key] = at
}

func (p *parser) account(a *Account, seen map[string]Place) {
	a.Origin = cmp.Or(a.Origin, LocalOrigin)
	p.once(a.Place, seen, accountKey(a.Origin, a.Username), "the account "+quote(a.Username)+
		" (upper and lower case do not differ)")
	if a.Origin != LocalOrigin && a.Password != (Secret{}) {
		p.here(a.Place, "the account %q of the origin %q has no password here; remove password", a.Username, a.Origin)
	}
	for key := range a.Labels {
		if err := label.CheckKey(key); err != nil {
			p.here(a.Place, "the account %q has the label %q: %v", a.Username, key, err)
		}
	}
}

func (p *parser) cluster(c *Cluster, seen map[string]Place) {
	p.once(c.Place, seen, "cluster "+c.Name, "the cluster "+quote(c.Name))
	for _, text := range slices.Concat(c.Access.Manage, c.Access.View) {
		if _, err := label.ParseRule(text); err != nil {
			p.here(c.Place, "the cluster %q has the rule %q: %v", c.Name, text, err)
		}
	}
	if c.Connection != nil {
		p.connection(c)
	}
	if l := c.Leases; l.DefaultTTL != nil && l.MaxTTL != nil && length(*l.DefaultTTL) > length(*l.MaxTTL) {
		p.here(c.Place, "the cluster %q has the defaultTtl %s, which is longer than its maxTtl %s; make it shorter", c.Name,
			*l.DefaultTTL, *l.MaxTTL)
	}
	for i := range c.Databases {
		p.database(c, &c.Databases[i], seen)
	}
	for i := range c.Users {
		u := &c.Users[i]
		p.once(u.Place, seen, "user "+c.Name+"/"+u.Name, "the user "+quote(u.Name)+" of the cluster "+quote(c.Name))
	}
	for i := range c.Credentials {
		p.credential(c, &c.Credentials[i], seen)
	}
}

// connection refuses a URL with a password, and does not print it.
func (p *parser) connection(c *Cluster) {
	u, err := url.Parse(c.Connection.URL)
	if err != nil {
		p.here(c.Place, "the connection.url of the cluster %q is not a URL like postgres://role@host:5432/database", c.Name)
		return
	}
	_, has := u.User.Password()
	if query, err := url.ParseQuery(u.RawQuery); err != nil || query.Has("password") || query.Has("sslpassword") || has {
		p.here(c.Place, "the connection.url of the cluster %q must not contain a password; write connection.password: {env: NAME}",
			c.Name)
	}
}

func (p *parser) database(c *Cluster, d *Database, seen map[string]Place) {
	p.once(d.Place, seen, "database "+c.Name+"/"+d.Name, "the database "+quote(d.Name)+" of the cluster "+quote(c.Name))
	if d.AccessRoles == nil {
		return
	}
	if len(d.Name+"_owner") > 63 {
		p.here(d.Place, "the database %q cannot have access roles: the name %q has more than 63 bytes", d.Name, d.Name+"_owner")
	}
	if s := d.AccessRoles.Schemas; len(s) > 1 && slices.Contains(s, "*") {
		p.here(d.Place, `the database %q has the schemas '*' and others; write '*' alone, which is all`, d.Name)
	}
}

func (p *parser) credential(c *Cluster, cr *Credential, seen map[string]Place) {
	p.once(cr.Place, seen, "credential "+c.Name+"/"+cr.Name, "the credential "+quote(cr.Name)+" of the cluster "+quote(c.Name))
	cr.Overlap = cmp.Or(cr.Overlap, "0s")
	if length(cr.RotateEvery) < time.Second {
		p.here(cr.Place, "the credential %q rotates every %s; write at least 1s", cr.Name, cr.RotateEvery)
	}
	if length(cr.Overlap) > length(cr.RotateEvery) {
		p.here(cr.Place, "the credential %q has the overlap %s, which is longer than rotateEvery, %s", cr.Name, cr.Overlap,
			cr.RotateEvery)
	}
}

// length is a duration that was parsed before.
func length(text string) time.Duration {
	d, _ := moment.Duration(text)
	return d
}

func (p *parser) retired(r *Retired, m *Manifest, seen map[string]Place) {
	var kinds []string
	for _, k := range []struct{ kind, name string }{
		{"account", r.Account}, {"user", r.User}, {"database", r.Database}, {"credential", r.Credential},
	} {
		if k.name != "" {
			kinds = append(kinds, k.kind)
		}
	}
	if len(kinds) != 1 {
		p.here(r.Place, "an entry of retired names one thing; write exactly one of account, user, database and credential")
		return
	}
	kind := kinds[0]
	switch {
	case kind == "account" && (r.Cluster != "" || r.ReassignTo != ""):
		p.here(r.Place, "an account is in no cluster and owns nothing; remove cluster and reassignTo")
		return
	case kind != "account" && r.Origin != "":
		p.here(r.Place, "only an account has an origin; remove it")
		return
	case kind != "account" && !m.Covers(r.Cluster):
		p.here(r.Place, "the %s is in the cluster %q, which the file does not have; write cluster: NAME, of one in clusters", kind,
			r.Cluster)
		return
	case kind != "user" && r.ReassignTo != "":
		p.here(r.Place, "only what a user owns can be reassigned; remove reassignTo")
	case kind == "user" && r.ReassignTo == r.User:
		p.here(r.Place, "the user %q cannot be reassignTo of its own; name another role", r.User)
	case kind == "database" && (r.DestroyData == nil || !*r.DestroyData):
		p.here(r.Place, "the database %q would be deleted with everything in it; to confirm that, write destroyData: true",
			r.Database)
	case kind != "database" && r.DestroyData != nil:
		p.here(r.Place, "only a database has data; remove destroyData")
	}
	r.Origin = cmp.Or(r.Origin, LocalOrigin)
	key, what := kind+" "+r.Cluster+"/"+cmp.Or(r.User, r.Database, r.Credential), "the "+kind+" "+
		quote(cmp.Or(r.Account, r.User, r.Database, r.Credential))
	if kind == "account" {
		key = accountKey(r.Origin, r.Account)
	}
	p.once(r.Place, seen, key, what)
}

// accountKey is the same for user names that do not differ for Rolecall.
func accountKey(origin, username string) string {
	return "account " + origin + "/" + strings.ToLower(username)
}
