package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

func clustersCommand() *cobra.Command {
	return term.Group("clusters", "Clusters: the PostgreSQL servers whose users are managed",
		clustersListCommand(), clustersShowCommand(), clustersRegisterCommand(), clustersUpdateCommand(), clustersRemoveCommand(),
		clustersProbeCommand(), clustersAccessCommand(), clustersRotateCommand(), clustersUserlistCommand())
}

var completeClusters = complete(fixed(client.ClustersPath), "displayName")

func clusterPath(c *call) string { return c.cluster.Path() }

var clusterHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "LOCATION", Gives: term.Some}, {Title: "VERSION", Gives: term.Some},
	{Title: "STATE", State: true},
	{Title: "MANAGE", Gives: term.Some}, {Title: "VIEW", Gives: term.More}, {Title: "ID", Gives: term.Most},
}

func clustersListCommand() *cobra.Command {
	return onServer(listing(&cobra.Command{
		Use:   "list",
		Short: "List the clusters that you may view",
		Example: `  rolecall clusters list
  rolecall clusters list -o json`,
		Args: term.NoArguments,
	}, clusterHead), list(every(client.ClustersPath), clusterHead, func(cl *client.Cluster) []string {
		return []string{cl.Name, cl.Location, cl.Version, cl.State, managers(cl), rules(cl.Access.View), cl.ID}
	}))
}

func clustersShowCommand() *cobra.Command {
	return onNamedCluster(printing(&cobra.Command{
		Use:     "show CLUSTER",
		Short:   "Show a cluster",
		Long:    `Show prints a cluster. As everywhere, CLUSTER is its name or id.`,
		Example: `  rolecall clusters show payments`,
	}), show(clusterPath, clusterFields))
}

// rules shows selectors, any of which is enough.
func rules(selectors []string) string { return strings.Join(selectors, " or ") }

// managers are the accounts that may manage the cluster.
func managers(cl *client.Cluster) string { return cmp.Or(rules(cl.Access.Manage), "admins only") }

func clusterFields(_ *call, cl *client.Cluster) [][]string {
	problems := strings.Join(cl.Capabilities.Problems, " ")
	if cl.Connection.URL != "" && cl.Capabilities.Role == "" {
		problems = "not probed yet: rolecall clusters probe " + cl.Name
	}
	return [][]string{
		{"name", cl.Name},
		{"id", cl.ID},
		{"location", cl.Location},
		{"version", cl.Version},
		{"state", cl.State},
		{"last error", orNothing(cl.LastError)},
		{"connection", cl.Connection.URL}, // only admins see it
		{"TLS", tlsText(cl.Connection.TLS)},
		{"identifier", cl.Connection.SystemIdentifier},
		{"commits", orNothing(cl.SynchronousCommit)},
		{"leases", cl.Leases.String()},
		{"role", cl.Capabilities.Role},
		{"not permitted", cmp.Or(strings.Join(missingRights(cl), ", "), "none")},
		{"problems", cmp.Or(problems, "none")},
		{"managed by", managers(cl)},
		{"viewed by", cmp.Or(rules(cl.Access.View), "no further accounts")},
		{"you may manage", term.YesNo(cl.MayManage)},
		{"system roles", strings.Join(cl.SystemRoles, ", ")},
		{"member of", strings.Join(cl.MemberOf, ", ")},
		{"grantable", strings.Join(cl.Grantable, ", ")},
		{"registered", term.Time(cl.CreatedAt)},
		{"changed", term.Time(cl.UpdatedAt)},
	}
}

// tlsText is how the connection is protected, for people.
func tlsText(tls client.TLS) string {
	if tls.AllowPlaintext {
		return tls.Mode + ", also beyond the server's machine"
	}
	return tls.Mode
}

func orNothing(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// missingRights are what the administering role of a probed cluster is not permitted to do.
func missingRights(cl *client.Cluster) []string {
	var missing []string
	if cl.Capabilities.Role == "" {
		return nil
	}
	if !cl.Capabilities.ForeignRoles {
		missing = append(missing, "change roles of others that were not granted to it")
	}
	if !cl.Capabilities.ReadVerifiers {
		missing = append(missing, "read verifiers")
	}
	return missing
}

// registration are the flags of register and update.
type registration struct {
	url, tlsMode, tlsCA, tlsCert, tlsKey string // the last three name files
	allowPlaintext                       bool
	location, synchronousCommit          string
	manage, view                         []string
	memberOf, grantable, systemRoles     []string

	leaseDefaultTTL, leaseMaxTTL, leaseMaxPerAccount string
}

func (r *registration) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.url, "url", "", "`URL` of the cluster, without a password: postgres://role@host:5432/database")
	f.StringVar(&r.tlsMode, "tls-mode", "",
		"TLS `mode`: verify-full (the default), verify-ca, require or, on loopback only, disable")
	f.BoolVar(&r.allowPlaintext, "allow-plaintext", false,
		"allow --tls-mode disable beyond loopback, in a private network; it is recorded in the audit log")
	f.StringVar(&r.tlsCA, "tls-ca", "", "`file` with the trusted certificate authorities, in PEM")
	f.StringVar(&r.tlsCert, "tls-cert", "", "`file` with the client certificate, in PEM")
	f.StringVar(&r.tlsKey, "tls-key", "", "`file` with the key of the client certificate, in PEM")
	f.StringVar(&r.synchronousCommit, "synchronous-commit", "", "`setting` of Rolecall's sessions: local does not wait for a "+
		"standby; also remote_write, on, remote_apply; '' restores the server's default")
	f.StringVar(&r.location, "location", "", "`location` of the cluster, such as de/fra")
	f.StringArrayVar(&r.manage, "manage", nil,
		"`selector` of the accounts that may manage the users of the cluster; repeatable, any match is enough")
	f.StringArrayVar(&r.view, "view", nil, "`selector` of the accounts that may view them; repeatable, any match is enough")
	f.StringSliceVar(&r.memberOf, "member-of", nil, "`roles` of which every new user becomes a member")
	f.StringSliceVar(&r.grantable, "grantable", nil, "`roles` that may be granted to users")
	f.StringSliceVar(&r.systemRoles, "system-role", nil, "`names` of protected roles; * stands for any characters")
	f.StringVar(&r.leaseDefaultTTL, "lease-default-ttl", "", "`duration` of a lease without --ttl; '' restores 1h")
	f.StringVar(&r.leaseMaxTTL, "lease-max-ttl", "", "longest `duration` of a lease, renewals included; '' restores 24h")
	f.StringVar(&r.leaseMaxPerAccount, "lease-max-per-account", "", "`number` of leases that an account may have at a time; "+
		"'' restores 100")
	term.CompleteWords(cmd, "tls-mode", "verify-full", "verify-ca", "require", "disable")
	term.CompleteWords(cmd, "synchronous-commit", "local", "remote_write", "on", "remote_apply")
	for flag, list := range map[string]func(*client.Cluster) []string{
		"member-of":   func(cl *client.Cluster) []string { return cl.MemberOf },
		"grantable":   func(cl *client.Cluster) []string { return cl.Grantable },
		"system-role": func(cl *client.Cluster) []string { return cl.SystemRoles },
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, completeRoles(list))
	}
}

// completeRoles offers the roles that the cluster of the first argument has in a list. A new cluster has none.
func completeRoles(list func(*client.Cluster) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 || cmd.Name() != "update" {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		cl, err := readCluster(ctx, cmd, args[0])
		if err != nil { // a shell's prompt is no place for an error
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return list(cl), cobra.ShellCompDirectiveNoFileComp
	}
}

func readCluster(ctx context.Context, cmd *cobra.Command, nameOrID string) (*client.Cluster, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	ref, err := findCluster(ctx, c, nameOrID)
	if err != nil {
		return nil, err
	}
	answer, err := c.Get(ctx, ref.Path(), nil)
	if err != nil {
		return nil, err
	}
	return term.Decode[client.Cluster](answer.JSON)
}

// body is the request: the fields whose flags are given.
func (r *registration) body(f *pflag.FlagSet) (body, connection map[string]any, err error) {
	body, connection = map[string]any{}, map[string]any{}
	if f.Changed("url") {
		if err := term.CheckDatabaseURL("url", r.url, "leave it out: it is asked for, or read with --password-stdin"); err != nil {
			return nil, nil, err
		}
		connection["url"] = r.url
	}
	tls, err := r.tls(f)
	if err != nil {
		return nil, nil, err
	}
	if len(tls) > 0 {
		connection["tls"] = tls
	}
	if f.Changed("location") {
		body["location"] = r.location
	}
	if f.Changed("synchronous-commit") {
		body["synchronousCommit"] = nil
		if r.synchronousCommit != "" {
			body["synchronousCommit"] = r.synchronousCommit
		}
	}
	access := map[string]any{}
	for _, given := range []struct {
		flag, field string
		values      []string
		in          map[string]any
	}{
		{"manage", "manage", r.manage, access},
		{"view", "view", r.view, access},
		{"member-of", "memberOf", r.memberOf, body},
		{"grantable", "grantable", r.grantable, body},
		{"system-role", "systemRoles", r.systemRoles, body},
	} {
		if f.Changed(given.flag) {
			// A flag with the value '' empties the list.
			given.in[given.field] = slices.DeleteFunc(append([]string{}, given.values...), func(v string) bool { return v == "" })
		}
	}
	if len(access) > 0 {
		body["access"] = access
	}
	leases, err := r.leases(f)
	if err != nil {
		return nil, nil, err
	}
	if len(leases) > 0 {
		body["leases"] = leases
	}
	return body, connection, nil
}

// leases are the limits of leases that are given. An empty value restores the default.
func (r *registration) leases(f *pflag.FlagSet) (map[string]any, error) {
	leases := map[string]any{}
	for _, given := range []struct{ flag, field, value string }{
		{"lease-default-ttl", "defaultTtl", r.leaseDefaultTTL}, {"lease-max-ttl", "maxTtl", r.leaseMaxTTL},
	} {
		if !f.Changed(given.flag) {
			continue
		}
		leases[given.field] = nil
		if given.value != "" {
			if _, err := moment.Duration(given.value); err != nil {
				return nil, term.Usage("--%s is %q; use %s", given.flag, given.value, moment.DurationForm)
			}
			leases[given.field] = given.value
		}
	}
	if f.Changed("lease-max-per-account") {
		leases["maxPerAccount"] = nil
		if r.leaseMaxPerAccount != "" {
			n, err := strconv.Atoi(r.leaseMaxPerAccount)
			if err != nil {
				return nil, term.Usage("--lease-max-per-account is %q; use a number", r.leaseMaxPerAccount)
			}
			leases["maxPerAccount"] = n
		}
	}
	return leases, nil
}

// tls reads the files of the TLS flags: the server gets their content.
func (r *registration) tls(f *pflag.FlagSet) (map[string]any, error) {
	tls := map[string]any{}
	if f.Changed("tls-mode") {
		tls["mode"] = r.tlsMode
	}
	if f.Changed("allow-plaintext") {
		tls["allowPlaintext"] = r.allowPlaintext
	}
	for _, file := range []struct{ flag, field, name string }{
		{"tls-ca", "ca", r.tlsCA}, {"tls-cert", "cert", r.tlsCert}, {"tls-key", "key", r.tlsKey},
	} {
		if !f.Changed(file.flag) {
			continue
		}
		text, err := os.ReadFile(file.name)
		if err != nil {
			return nil, term.Usage("--%s: %w", file.flag, err)
		}
		tls[file.field] = string(text)
	}
	return tls, nil
}

func administeringPassword(c *call) (string, error) {
	return term.Password(c.cmd, "Password of the administering role: ")
}

func clustersRegisterCommand() *cobra.Command {
	var r registration
	cmd := printing(&cobra.Command{
		Use:   "register NAME --url URL",
		Short: "Register a cluster",
		Long: `Register connects to a PostgreSQL server, verifies that it is a primary that is not
registered yet, probes what the administering role can do, and registers it as NAME. The
password of the administering role comes from a prompt or from standard input.`,
		Example: `  rolecall clusters register payments --url postgres://rolecall_admin@db1:5432/postgres \
    --manage team=payments --view 'team in (search,sre)'
  rolecall clusters register local2 --url postgres://rolecall_admin@127.0.0.1:5433/postgres \
    --tls-mode disable --password-stdin < password-file
  rolecall clusters register inner --url postgres://rolecall_admin@db.internal:5432/postgres \
    --tls-mode disable --allow-plaintext`,
		Args: term.Arguments("NAME"),
	})
	r.bind(cmd)
	term.BindPassword(cmd, false)
	return onServer(cmd, func(c *call) error {
		body, connection, err := r.body(c.cmd.Flags())
		if err != nil {
			return err
		}
		if r.url == "" {
			return term.Usage("--url is missing; see %s --help", c.cmd.CommandPath())
		}
		if connection["password"], err = administeringPassword(c); err != nil {
			return err
		}
		body["displayName"], body["connection"] = c.args[0], connection
		answer, err := c.send(http.MethodPost, client.ClustersPath, body)
		if err != nil {
			return err
		}
		c.report("Cluster %q was registered.", c.args[0])
		return printOne(c, answer, clusterFields)
	})
}

func clustersUpdateCommand() *cobra.Command {
	var r registration
	var name, systemIdentifier string
	var askPassword bool
	cmd := printing(&cobra.Command{
		Use:   "update CLUSTER",
		Short: "Change a cluster's registration",
		Long: `Update changes what is given and keeps everything else. A list that is given replaces the
old one; --view '' empties it. --password asks for the password of the administering
role; --password-stdin reads it.

If another server answers at the address of a cluster, Rolecall stops using it. "rolecall
clusters show" prints the other server's system identifier. To confirm that the other
server is the right one, give that number with --system-identifier.`,
		Example: `  rolecall clusters update payments --manage team=payments --manage role=dba
  rolecall clusters update payments --view ''
  rolecall clusters update payments --url postgres://rolecall_admin@db2:5432/postgres
  rolecall clusters update payments --synchronous-commit local
  rolecall clusters update payments --lease-default-ttl 30m --lease-max-ttl 7d
  rolecall clusters update payments --system-identifier 7593042318274650123`,
	})
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "new `name` of the cluster")
	f.StringVar(&systemIdentifier, "system-identifier", "", "`number` of the server that has replaced the registered one")
	r.bind(cmd)
	f.BoolVar(&askPassword, "password", false, "ask for the password of the administering role")
	term.BindPassword(cmd, false)
	return onNamedCluster(cmd, func(c *call) error {
		body, connection, err := r.body(c.cmd.Flags())
		if err != nil {
			return err
		}
		if c.given("name") {
			body["displayName"] = name
		}
		if c.given("system-identifier") {
			connection["systemIdentifier"] = systemIdentifier
		}
		newPassword := askPassword || term.FromStdin(c.cmd)
		if len(body) == 0 && len(connection) == 0 && !newPassword {
			return term.Usage("nothing to change; see %s --help", c.cmd.CommandPath())
		}
		if newPassword {
			if connection["password"], err = administeringPassword(c); err != nil {
				return err
			}
		}
		return updateCluster(c, body, connection)
	})
}

func updateCluster(c *call, body, connection map[string]any) error {
	r := client.Request{Method: http.MethodPatch, Path: c.cluster.Path(), Body: body}
	if tls, ok := connection["tls"].(map[string]any); ok {
		var err error
		if r.IfMatch, err = keepTLS(c, tls); err != nil {
			return err
		}
	}
	if len(connection) > 0 {
		body["connection"] = connection
	}
	answer, err := c.client.Do(c.cmd.Context(), r)
	if err != nil {
		return err
	}
	c.report("Cluster %q was changed.", c.cluster.Name)
	return printOne(c, answer.JSON, clusterFields)
}

// keepTLS adds the TLS settings that are not given, because the server replaces all of them. They are those of the ETag.
func keepTLS(c *call, tls map[string]any) (etag string, err error) {
	answer, err := c.client.Get(c.cmd.Context(), c.cluster.Path(), nil)
	if err != nil {
		return "", err
	}
	cl, err := term.Decode[client.Cluster](answer.JSON)
	if err != nil {
		return "", err
	}
	now := cl.Connection.TLS
	for field, value := range map[string]string{"mode": now.Mode, "ca": now.CA, "cert": now.Cert} {
		if _, given := tls[field]; !given && value != "" {
			tls[field] = value
		}
	}
	// Another mode ends the permission.
	if _, given := tls["allowPlaintext"]; !given && now.AllowPlaintext && tls["mode"] == now.Mode {
		tls["allowPlaintext"] = true
	}
	return answer.ETag, nil
}

func clustersRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove CLUSTER",
		Short: "Unregister a cluster",
		Long: `Remove ends the registration of a cluster. The cluster itself, its users and its databases
are not changed.

A cluster with leases or stored credentials is not removed. --end-leases ends them first. If
the cluster is lost, --end-leases=false removes it all the same; its leases then stay as roles.`,
		Example: `  rolecall clusters remove payments
  rolecall clusters remove payments --end-leases --yes`,
	}
	endLeases := cmd.Flags().Bool("end-leases", false, "end the leases and stored credentials of the cluster first")
	term.BindYes(cmd)
	return onNamedCluster(cmd, func(c *call) error {
		if err := term.Confirm(c.cmd, "Unregister cluster %q? The cluster itself is not changed.", c.cluster.Name); err != nil {
			return err
		}
		path := c.cluster.Path()
		if c.given("end-leases") {
			path += "?endLeases=" + strconv.FormatBool(*endLeases)
		}
		_, err := c.send(http.MethodDelete, path, nil)
		if client.Status(err) == http.StatusUnprocessableEntity && !c.given("end-leases") {
			return fmt.Errorf("%w; here that is the flag --end-leases", err)
		}
		if err != nil {
			return err
		}
		c.report("Cluster %q is no longer registered.", c.cluster.Name)
		return nil
	})
}

func clustersProbeCommand() *cobra.Command {
	return clusterAction("probe", "Re-check what Rolecall can do in a cluster",
		`Probe connects to a cluster and tries what the administering role can do, in a transaction
that is rolled back.`, "Cluster %q was probed.")
}

func clustersRotateCommand() *cobra.Command {
	return clusterAction("rotate-credential", "Change the password of the administering role",
		`Rotate-credential lets Rolecall generate a new password for its administering role in a
cluster. Nobody sees the new password.`, "The administering role of cluster %q has a new password.")
}

// clusterAction is a command that sends a POST to a cluster.
func clusterAction(name, short, long, done string) *cobra.Command {
	return onNamedCluster(printing(&cobra.Command{
		Use:     name + " CLUSTER",
		Short:   short,
		Long:    long,
		Example: "  rolecall clusters " + name + " payments",
	}), func(c *call) error {
		answer, err := c.send(http.MethodPost, c.cluster.Path(name), nil)
		if err != nil {
			return err
		}
		c.report(done, c.cluster.Name)
		if answer == nil {
			return nil
		}
		return printOne(c, answer, clusterFields)
	})
}

func clustersUserlistCommand() *cobra.Command {
	return onNamedCluster(&cobra.Command{
		Use:   "userlist CLUSTER",
		Short: "Print the users and verifiers of a cluster for PgBouncer",
		Long: `Userlist prints the users of a cluster with the verifiers of their passwords, in the format
of PgBouncer's auth_file. Protected roles are left out. Only admins may do this, and it
is recorded in the audit log. If there are md5 hashes in the list, a warning says so:
PgBouncer takes them with auth_type = md5 only, which takes SCRAM verifiers too.`,
		Example: `  rolecall clusters userlist payments > /etc/pgbouncer/userlist.txt`,
	}, func(c *call) error {
		var md5 md5Counter
		if err := c.copy(c.cluster.Path("pgbouncer", "userlist"), nil, "text/plain", &md5); err != nil {
			return err
		}
		if md5.count > 0 {
			c.warn("Warning: %d of the passwords are md5 hashes. PgBouncer takes them only with auth_type = md5, which takes "+
				"SCRAM verifiers too. List their users with: rolecall users check-passwords -c %s", md5.count, c.cluster.Name)
		}
		return nil
	})
}

// md5Counter counts the lines of an auth_file that have an md5 hash.
type md5Counter struct {
	line  []byte // that is not complete
	count int
}

var md5Line = regexp.MustCompile(`" "md5[0-9a-f]{32}"$`)

func (m *md5Counter) Write(data []byte) (int, error) {
	m.line = append(m.line, data...)
	for {
		i := bytes.IndexByte(m.line, '\n')
		if i < 0 {
			return len(data), nil
		}
		if md5Line.Match(m.line[:i]) {
			m.count++
		}
		m.line = m.line[i+1:]
	}
}

// copy prints an answer of the server as it comes, and shows it to others.
func (c *call) copy(path string, query url.Values, mediaType string, others ...io.Writer) error {
	answer, err := c.client.Stream(c.cmd.Context(), path, query, mediaType)
	if err != nil {
		return err
	}
	defer answer.Close()
	out := &output{Writer: c.cmd.OutOrStdout()}
	switch _, err := io.Copy(io.MultiWriter(append(others, out)...), answer); {
	case out.err != nil:
		return out.err
	case c.cmd.Context().Err() != nil:
		return c.cmd.Context().Err()
	case err != nil:
		return fmt.Errorf("the output is incomplete, because the connection ended early: %w", err)
	}
	return nil
}

// output remembers whether writing failed.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(data []byte) (n int, err error) {
	n, o.err = o.Writer.Write(data)
	return n, o.err
}

func clustersAccessCommand() *cobra.Command {
	var name string
	cmd := printing(&cobra.Command{
		Use:   "access CLUSTER --account ACCOUNT",
		Short: "Explain what an account may do in a cluster, and why",
		Long: `Access explains which scope, or which rule of the cluster and which labels, decide what an
account may do.`,
		Example: `  rolecall clusters access payments --account alice`,
	})
	cmd.Flags().StringVar(&name, "account", "", "user `name` or guid of the account")
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	return onNamedCluster(cmd, func(c *call) error {
		if name == "" {
			return term.Usage("--account is missing; see %s --help", c.cmd.CommandPath())
		}
		a, err := findAccount(c.cmd.Context(), c.client, name)
		if err != nil {
			return err
		}
		answer, err := c.get(c.cluster.Path("access"), url.Values{"account": {a.GUID}})
		if err != nil {
			return err
		}
		return printOne(c, answer, accessFields)
	})
}

func accessFields(c *call, a *client.Access) [][]string {
	return [][]string{
		{"cluster", c.cluster.Name},
		{"account", cmp.Or(a.Account.Username, a.Account.GUID)},
		{"scopes", strings.Join(a.Account.Scopes, " ")},
		{"labels", term.Pairs(a.Account.Labels)},
		{"may view", decision(a.View)},
		{"may manage", decision(a.Manage)},
	}
}

func decision(d client.Decision) string { return term.YesNo(d.Allowed) + ": " + d.Why }
