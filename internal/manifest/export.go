package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"rolecall/internal/client"
)

// Export writes what was observed as a file that changes nothing. server is the URL of the server, for the schema. It
// leaves out what a file cannot declare: system users and databases, leases, OAuth clients, accounts without a user name,
// and passwords. withAccounts says whether it has accounts.
func Export(o *Observed, server string, withAccounts bool) ([]byte, error) {
	root := mapping()
	add(root, "version", scalar(strconv.Itoa(Version)))
	add(root, "mode", scalar(Additive))
	e := &exporter{names: map[string]string{}}
	for i := range o.Accounts {
		e.names[o.Accounts[i].GUID] = o.Accounts[i].Name()
	}
	if withAccounts {
		accounts := sequence()
		for i := range o.Accounts {
			if a := &o.Accounts[i]; !a.OAuthClient && writable(a.Username) {
				accounts.Content = append(accounts.Content, exportAccount(a))
			}
		}
		add(root, "accounts", accounts)
	}
	clusters := sequence()
	for _, c := range o.Clusters {
		clusters.Content = append(clusters.Content, e.cluster(c))
	}
	add(root, "clusters", clusters)
	var out bytes.Buffer
	fmt.Fprintf(&out, "# yaml-language-server: $schema=%s%s\n", server, SchemaPath)
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// exporter writes clusters. names are those of accounts, by guid.
type exporter struct{ names map[string]string }

func mapping() *yaml.Node  { return &yaml.Node{Kind: yaml.MappingNode} }
func sequence() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode} }
func scalar(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: value}
}

// simple are names that every parser of YAML reads as a text.
var simple = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@-]*$`)

// words are texts that some parsers read as something else.
var words = append(slices.Clone(oldBooleans), "true", "false", "null")

// name is a text, in quotes unless it needs none.
func name(value string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if !simple.MatchString(value) || slices.Contains(words, strings.ToLower(value)) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// writable reports whether a name can be in the file. The server shows the bytes of other encodings as U+FFFD.
func writable(value string) bool { return value != "" && !strings.ContainsRune(value, utf8.RuneError) }

func add(to *yaml.Node, key string, value *yaml.Node) {
	to.Content = append(to.Content, name(key), value)
}

func addText(to *yaml.Node, key, value string) { add(to, key, name(value)) }

func addList(to *yaml.Node, key string, values []string) {
	l := sequence()
	l.Style = yaml.FlowStyle
	for _, v := range values {
		l.Content = append(l.Content, name(v))
	}
	add(to, key, l)
}

func addPairs(to *yaml.Node, key string, pairs map[string]string) {
	if len(pairs) == 0 {
		return
	}
	m := mapping()
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		addText(m, k, pairs[k])
	}
	add(to, key, m)
}

func exportAccount(a *client.Account) *yaml.Node {
	n := mapping()
	addText(n, "username", a.Username)
	if a.Origin != LocalOrigin {
		addText(n, "origin", a.Origin)
	}
	if !a.Active {
		add(n, "active", scalar("false"))
	}
	addList(n, "scopes", a.Scopes)
	addPairs(n, "labels", a.AdminLabels())
	addPairs(n, "annotations", a.Annotations)
	return n
}

func (e *exporter) cluster(c *ObservedCluster) *yaml.Node {
	n := mapping()
	addText(n, "name", c.Name)
	addText(n, "location", c.Location)
	if c.Connection.URL != "" {
		connection := mapping()
		addText(connection, "url", c.Connection.URL)
		if now := c.Connection.TLS; now.Mode != "" {
			tls := mapping()
			addText(tls, "mode", now.Mode)
			if now.AllowPlaintext {
				add(tls, "allowPlaintext", scalar("true"))
			}
			add(connection, "tls", tls)
		}
		add(n, "connection", connection)
	}
	access := mapping()
	addList(access, "manage", c.Access.Manage)
	addList(access, "view", c.Access.View)
	add(n, "access", access)
	addList(n, "memberOf", c.MemberOf)
	addList(n, "grantable", c.Grantable)
	addList(n, "systemRoles", c.SystemRoles)
	commit := Default
	if c.SynchronousCommit != nil {
		commit = *c.SynchronousCommit
	}
	add(n, "synchronousCommit", scalar(commit))
	leases := mapping()
	addText(leases, "defaultTtl", c.Leases.DefaultTTL)
	addText(leases, "maxTtl", c.Leases.MaxTTL)
	add(leases, "maxPerAccount", scalar(strconv.Itoa(c.Leases.MaxPerAccount)))
	add(n, "leases", leases)
	if c.Problem != "" {
		n.HeadComment = comment("what is in it could not be read: " + c.Problem)
		return n
	}
	add(n, "databases", databases(c))
	add(n, "users", e.users(c))
	credentials := sequence()
	for i := range c.Credentials {
		credentials.Content = append(credentials.Content, exportCredential(&c.Credentials[i]))
	}
	add(n, "credentials", credentials)
	return n
}

// comment is a comment of one line.
func comment(text string) string {
	quoted := strconv.Quote(text)
	return "# " + quoted[1:len(quoted)-1]
}

func databases(c *ObservedCluster) *yaml.Node {
	all := sequence()
	for _, d := range c.Databases {
		if d.System || !writable(d.Name) {
			continue
		}
		n := mapping()
		addText(n, "name", d.Name)
		if writable(d.Owner) {
			addText(n, "owner", d.Owner)
		}
		if roles := c.AccessRoles[d.Name]; roles != nil {
			a := mapping()
			addList(a, "schemas", roles.Schemas)
			add(a, "adopt", scalar(strconv.FormatBool(roles.Adopt)))
			add(n, "accessRoles", a)
		}
		all.Content = append(all.Content, n)
	}
	return all
}

func (e *exporter) users(c *ObservedCluster) *yaml.Node {
	levels, accessRoles := c.Levels()
	all := sequence()
	for i := range c.Users {
		u := &c.Users[i]
		if u.System || u.Lease != nil || !writable(u.Username) {
			continue
		}
		n := mapping()
		if u.CreatedBy == "" {
			n.HeadComment = "# not created by Rolecall"
		} else if by := e.names[u.CreatedBy]; by != "" {
			n.HeadComment = comment("created by " + by)
		}
		if u.State == "deleting" {
			n.HeadComment = "# it is being deleted"
		}
		addText(n, "name", u.Username)
		access := map[string]string{}
		for database, level := range levels[u.Username] {
			if writable(database) {
				access[database] = level
			}
		}
		addPairs(n, "access", access)
		var roles, others []string
		for _, role := range u.MemberOf {
			switch {
			case accessRoles[role] || !writable(role):
			case slices.Contains(c.Grantable, role):
				roles = append(roles, role)
			default:
				others = append(others, role)
			}
		}
		if len(roles) > 0 {
			addList(n, "roles", roles)
		}
		if len(others) > 0 {
			n.FootComment = comment("also a member of roles that are not grantable: " + joined(others))
		}
		add(n, "validUntil", name(rfc3339(u.ValidUntil)))
		add(n, "connectionLimit", name(limit(u.ConnectionLimit)))
		if u.ConnectionLimit >= 0 {
			n.Content[len(n.Content)-1] = scalar(limit(u.ConnectionLimit))
		}
		add(n, "disabled", scalar(strconv.FormatBool(u.State == "disabled")))
		all.Content = append(all.Content, n)
	}
	return all
}

func exportCredential(cr *client.Credential) *yaml.Node {
	n := mapping()
	addText(n, "name", cr.Name)
	addText(n, "for", cr.For)
	addText(n, "rotateEvery", cr.RotateEvery)
	addText(n, "overlap", cr.Overlap)
	if cr.Window != nil {
		w := mapping()
		addList(w, "days", cr.Window.Days)
		addText(w, "from", cr.Window.From)
		addText(w, "to", cr.Window.To)
		addText(w, "timezone", cr.Window.Timezone)
		add(n, "window", w)
	}
	return n
}
