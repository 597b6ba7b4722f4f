package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/client"
)

func clustersCommand() *cobra.Command {
	return group("clusters", "Clusters: the PostgreSQL servers whose users are managed",
		clustersListCommand(), clustersShowCommand(), clustersRegisterCommand(), clustersUpdateCommand(), clustersRemoveCommand(),
		clustersProbeCommand(), clustersAccessCommand(), clustersRotateCommand(), clustersUserlistCommand())
}

const ownClusters = "/rolecall/v1/clusters"

type ownCluster struct {
	ID           string  `json:"id"`
	DisplayName  string  `json:"displayName"`
	Location     string  `json:"location"`
	Version      string  `json:"version"`
	State        string  `json:"state"`
	Reachable    bool    `json:"reachable"`
	LastError    *string `json:"lastError"`
	Capabilities struct {
		Role           string   `json:"role"`
		ForeignRoles   bool     `json:"foreignRoles"`
		ReadVerifiers  bool     `json:"readVerifiers"`
		MaxConnections int      `json:"maxConnections"`
		Problems       []string `json:"problems"`
	} `json:"capabilities"`
	Access     accessRules `json:"access"`
	Connection struct {
		URL              string            `json:"url"`
		TLS              map[string]string `json:"tls"`
		SystemIdentifier string            `json:"systemIdentifier"`
	} `json:"connection"`
	MayManage   bool       `json:"mayManage"`
	SystemRoles []string   `json:"systemRoles"`
	MemberOf    []string   `json:"memberOf"`
	Grantable   []string   `json:"grantable"`
	Synchronous *string    `json:"synchronousCommit"`
	CreatedAt   *time.Time `json:"createdAt"`
	UpdatedAt   *time.Time `json:"updatedAt"`
}

type accessRules struct {
	Manage []string `json:"manage"`
	View   []string `json:"view"`
}

func (cl *clusterName) path(segments ...string) string {
	return client.Path(client.Path(ownClusters, cl.ID), segments...)
}

func clustersListCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the clusters that you may view",
		Example: `  rolecall clusters list
  rolecall clusters list -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			clusters, err := c.Items(cmd.Context(), ownClusters, nil)
			if err != nil {
				return err
			}
			return printList(cmd, o, clusters, "NAME,LOCATION,VERSION,STATE,MANAGE,VIEW,ID", func(cl *ownCluster) []string {
				return []string{cl.DisplayName, cl.Location, cl.Version, cl.State,
					rules(cl.Access.Manage), rules(cl.Access.View), cl.ID}
			})
		},
	}
	o.bind(cmd)
	return cmd
}

// rules shows selectors, any of which suffices.
func rules(selectors []string) string { return strings.Join(selectors, " or ") }

func (cl *ownCluster) fields() [][]string {
	var lastError, synchronous string
	if cl.LastError != nil {
		lastError = *cl.LastError
	}
	if cl.Synchronous != nil {
		synchronous = *cl.Synchronous
	}
	problems := strings.Join(cl.Capabilities.Problems, " ")
	if cl.Connection.URL != "" && cl.Capabilities.Role == "" {
		problems = "not looked for yet: rolecall clusters probe " + cl.DisplayName
	}
	var cannot []string
	if can := cl.Capabilities; can.Role != "" {
		if !can.ForeignRoles {
			cannot = append(cannot, "change users of others that were not granted to it")
		}
		if !can.ReadVerifiers {
			cannot = append(cannot, "read verifiers")
		}
	}
	return [][]string{
		{"name", cl.DisplayName},
		{"id", cl.ID},
		{"location", cl.Location},
		{"version", cl.Version},
		{"state", cl.State},
		{"last error", lastError},
		{"connection", cl.Connection.URL}, // for admins
		{"TLS", cl.Connection.TLS["mode"]},
		{"identifier", cl.Connection.SystemIdentifier},
		{"commits", synchronous},
		{"role", cl.Capabilities.Role},
		{"it cannot", strings.Join(cannot, ", ")},
		{"problems", problems},
		{"may manage", rules(cl.Access.Manage)},
		{"may view", rules(cl.Access.View)},
		{"you manage", yesNo(cl.MayManage)},
		{"system roles", strings.Join(cl.SystemRoles, ", ")},
		{"member of", strings.Join(cl.MemberOf, ", ")},
		{"grantable", strings.Join(cl.Grantable, ", ")},
		{"registered", when(cl.CreatedAt)},
		{"changed", when(cl.UpdatedAt)},
	}
}

func clustersShowCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:               "show CLUSTER",
		Short:             "Show a cluster",
		Long:              `Show prints a cluster, which is given by its name or id, as everywhere.`,
		Example:           `  rolecall clusters show payments`,
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			cluster, err := c.Get(cmd.Context(), cl.path(), nil)
			if err != nil {
				return err
			}
			return printOne(cmd, o, cluster, (*ownCluster).fields)
		},
	}
	o.bind(cmd)
	return cmd
}

// clusterSettings are the flags of register and update.
type clusterSettings struct {
	location, url, tlsMode           string
	synchronousCommit                string
	tlsCA, tlsCert, tlsKey           string // files
	manage, view                     []string
	memberOf, grantable, systemRoles []string
}

func (s *clusterSettings) bind(f *pflag.FlagSet) {
	f.StringVar(&s.url, "url", "", "`URL` of the cluster, without a password: postgres://role@host:5432/database")
	f.StringVar(&s.tlsMode, "tls-mode", "", "`mode` of TLS: verify-full (the default), verify-ca, require or, on loopback only, disable")
	f.StringVar(&s.tlsCA, "tls-ca", "", "`file` with the certificate authorities to trust, in PEM")
	f.StringVar(&s.tlsCert, "tls-cert", "", "`file` with the client certificate, in PEM")
	f.StringVar(&s.tlsKey, "tls-key", "", "`file` with the key of the client certificate, in PEM")
	f.StringVar(&s.synchronousCommit, "synchronous-commit", "", "`setting` of Rolecall's sessions: local does not wait for a standby; also remote_write, on, remote_apply; '' is the server's own")
	f.StringVar(&s.location, "location", "", "`place` of the cluster, such as de/fra")
	f.StringArrayVar(&s.manage, "manage", nil, "`selector` of the accounts that may manage the users of the cluster; repeatable, any suffices")
	f.StringArrayVar(&s.view, "view", nil, "`selector` of the accounts that may view them; repeatable, any suffices")
	f.StringSliceVar(&s.memberOf, "member-of", nil, "`roles` that every new user becomes a member of")
	f.StringSliceVar(&s.grantable, "grantable", nil, "`roles` that may be granted to users")
	f.StringSliceVar(&s.systemRoles, "system-role", nil, "`names` of protected roles, in which * stands for anything")
}

// body is what was given of a cluster's fields. Files are read here: the server is sent what is in them.
func (s *clusterSettings) body(f *pflag.FlagSet) (body, connection map[string]any, err error) {
	body, connection = map[string]any{}, map[string]any{}
	tls := map[string]any{}
	if f.Changed("url") {
		u, err := url.Parse(s.url)
		if err != nil {
			return nil, nil, usage("--url is not a URL like postgres://role@host:5432/database") // and is not quoted: it may hold a password
		}
		if _, has := u.User.Password(); has || u.Query().Has("password") {
			return nil, nil, usage("--url holds a password, which every process of the machine can read; it is asked for, or taken by --password-stdin")
		}
		connection["url"] = s.url
	}
	if f.Changed("tls-mode") {
		tls["mode"] = s.tlsMode
	}
	for _, file := range []struct{ flag, field, name string }{
		{"tls-ca", "ca", s.tlsCA}, {"tls-cert", "cert", s.tlsCert}, {"tls-key", "key", s.tlsKey},
	} {
		if f.Changed(file.flag) {
			text, err := os.ReadFile(file.name)
			if err != nil {
				return nil, nil, usage("--%s: %w", file.flag, err)
			}
			tls[file.field] = string(text)
		}
	}
	if len(tls) > 0 {
		connection["tls"] = tls
	}
	if f.Changed("location") {
		body["location"] = s.location
	}
	if f.Changed("synchronous-commit") {
		body["synchronousCommit"] = nil
		if s.synchronousCommit != "" {
			body["synchronousCommit"] = s.synchronousCommit
		}
	}
	access := map[string]any{}
	for _, list := range []struct {
		flag, field string
		values      []string
		in          map[string]any
	}{
		{"manage", "manage", s.manage, access}, {"view", "view", s.view, access},
		{"member-of", "memberOf", s.memberOf, body}, {"grantable", "grantable", s.grantable, body}, {"system-role", "systemRoles", s.systemRoles, body},
	} {
		if f.Changed(list.flag) {
			// A flag that is given as '' empties the list.
			list.in[list.field] = slices.DeleteFunc(append([]string{}, list.values...), func(v string) bool { return v == "" })
		}
	}
	if len(access) > 0 {
		body["access"] = access
	}
	return body, connection, nil
}

func clustersRegisterCommand() *cobra.Command {
	var o output
	var s clusterSettings
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "register NAME --url URL",
		Short: "Register a cluster",
		Long: `Register connects to a PostgreSQL server, makes sure that it is a primary that is not
registered yet, finds out what the administering role can do, and keeps it under NAME.
The password of the administering role comes from a prompt or from standard input.`,
		Example: `  rolecall clusters register payments --url postgres://rolecall_admin@db1:5432/postgres \
    --manage team=payments --view 'team in (search,sre)'
  rolecall clusters register local2 --url postgres://rolecall_admin@127.0.0.1:5433/postgres \
    --tls-mode disable --password-stdin < password-file`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, connection, err := s.body(cmd.Flags())
			if err != nil {
				return err
			}
			if s.url == "" {
				return usage("--url is missing; see %s --help", cmd.CommandPath())
			}
			c, err := connect()
			if err != nil {
				return err
			}
			if connection["password"], err = readSecret(cmd, "Password of the administering role: ", password.stdin); err != nil {
				return err
			}
			body["displayName"], body["connection"] = args[0], connection
			answer, err := c.Do(cmd.Context(), http.MethodPost, ownClusters, nil, body)
			if err != nil {
				return err
			}
			did(cmd, "Cluster %q was registered.", args[0])
			return printOne(cmd, o, answer, (*ownCluster).fields)
		},
	}
	s.bind(cmd.Flags())
	password.bind(cmd, false)
	o.bind(cmd)
	return cmd
}

func clustersUpdateCommand() *cobra.Command {
	var o output
	var s clusterSettings
	var password passwordFlags
	var name, systemIdentifier string
	var askPassword bool
	cmd := &cobra.Command{
		Use:   "update CLUSTER",
		Short: "Change a cluster's registration",
		Long: `Update changes what is given and leaves the rest. A list that is given takes the place of
the old one; --view '' empties it. --password asks for the password of the administering
role; --password-stdin reads it.

A cluster in whose place another one answers is stopped. "rolecall clusters show" says the
other's system identifier; to give it as --system-identifier confirms that this is meant.`,
		Example: `  rolecall clusters update payments --manage team=payments --manage role=dba
  rolecall clusters update payments --view ''
  rolecall clusters update payments --url postgres://rolecall_admin@db2:5432/postgres
  rolecall clusters update payments --synchronous-commit local
  rolecall clusters update payments --system-identifier 7593042318274650123`,
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, connection, err := s.body(cmd.Flags())
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("name") {
				body["displayName"] = name
			}
			if cmd.Flags().Changed("system-identifier") {
				connection["systemIdentifier"] = systemIdentifier
			}
			if len(body) == 0 && len(connection) == 0 && !askPassword && !password.stdin {
				return usage("say what to change; see %s --help", cmd.CommandPath())
			}
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			if askPassword || password.stdin {
				if connection["password"], err = readSecret(cmd, "Password of the administering role: ", password.stdin); err != nil {
					return err
				}
			}
			if tls, ok := connection["tls"].(map[string]any); ok {
				if err := keepTLS(cmd.Context(), c, cl, tls); err != nil {
					return err
				}
			}
			if len(connection) > 0 {
				body["connection"] = connection
			}
			answer, err := c.Do(cmd.Context(), http.MethodPatch, cl.path(), nil, body)
			if err != nil {
				return err
			}
			did(cmd, "Cluster %q was changed.", cl.Name)
			return printOne(cmd, o, answer, (*ownCluster).fields)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "new `name` of the cluster")
	cmd.Flags().StringVar(&systemIdentifier, "system-identifier", "", "`number` of the cluster that has taken the place of the registered one")
	s.bind(cmd.Flags())
	cmd.Flags().BoolVar(&askPassword, "password", false, "ask for the password of the administering role")
	password.bind(cmd, false)
	o.bind(cmd)
	return cmd
}

// keepTLS adds what was not given of the settings of TLS, which the server replaces as a whole.
func keepTLS(ctx context.Context, c *client.Client, on *clusterName, tls map[string]any) error {
	answer, err := c.Get(ctx, on.path(), nil)
	if err != nil {
		return err
	}
	cl, err := decode[ownCluster](answer)
	if err != nil {
		return err
	}
	for field, value := range cl.Connection.TLS {
		if _, given := tls[field]; !given {
			tls[field] = value
		}
	}
	return nil
}

func clustersRemoveCommand() *cobra.Command {
	var ok consent
	cmd := &cobra.Command{
		Use:   "remove CLUSTER",
		Short: "Forget a cluster",
		Long: `Remove ends the registration of a cluster. The cluster itself, its users and its databases
are not touched.`,
		Example: `  rolecall clusters remove payments
  rolecall clusters remove payments --yes`,
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			if err := ok.get(cmd, "Forget cluster %q? It is not touched itself.", cl.Name); err != nil {
				return err
			}
			if _, err := c.Do(cmd.Context(), http.MethodDelete, cl.path(), nil, nil); err != nil {
				return err
			}
			did(cmd, "Cluster %q is no longer registered.", cl.Name)
			return nil
		},
	}
	ok.bind(cmd)
	return cmd
}

func clustersProbeCommand() *cobra.Command {
	return clusterAction("probe", "probe", "Find out anew what can be done in a cluster",
		`Probe connects to a cluster and tries what the administering role can do, in a transaction
that is rolled back.`, "Cluster %q was probed.")
}

func clustersRotateCommand() *cobra.Command {
	return clusterAction("rotate-credential", "rotate-credential", "Give the administering role a new password",
		`Rotate-credential lets Rolecall change the password of its own role in a cluster. Nobody
gets to see the new one.`, "The administering role of cluster %q has a new password.")
}

func clustersUserlistCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "userlist CLUSTER",
		Short: "Print the users and verifiers of a cluster for PgBouncer",
		Long: `Userlist prints the users of a cluster with the verifiers of their passwords, as PgBouncer's
auth_file has them. Protected roles are left out. It is for admins, and recorded.`,
		Example:           `  rolecall clusters userlist payments > /etc/pgbouncer/userlist.txt`,
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			list, err := c.Stream(cmd.Context(), cl.path("pgbouncer", "userlist"), nil, "text/plain")
			if err != nil {
				return err
			}
			defer list.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), list); err != nil {
				return fmt.Errorf("the list was cut off: %w", err)
			}
			return nil
		},
	}
}

// clusterAction is a command that posts to a cluster.
func clusterAction(name, path, short, long, done string) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:               name + " CLUSTER",
		Short:             short,
		Long:              long,
		Example:           "  rolecall clusters " + name + " payments",
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := c.Do(cmd.Context(), http.MethodPost, cl.path(path), nil, nil)
			if err != nil {
				return err
			}
			did(cmd, done, cl.Name)
			if answer == nil {
				return nil
			}
			return printOne(cmd, o, answer, (*ownCluster).fields)
		},
	}
	o.bind(cmd)
	return cmd
}

func clustersAccessCommand() *cobra.Command {
	var o output
	var name string
	cmd := &cobra.Command{
		Use:   "access CLUSTER --account ACCOUNT",
		Short: "Say what an account may do in a cluster, and why",
		Long: `Access says which scope, or which rule of the cluster and which labels, decide what an
account may do.`,
		Example:           `  rolecall clusters access payments --account alice`,
		Args:              arguments("CLUSTER"),
		ValidArgsFunction: firstArgument(completeClusters),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				return usage("--account is missing; see %s --help", cmd.CommandPath())
			}
			c, cl, err := (&clusterFlag{args[0]}).connect(cmd.Context())
			if err != nil {
				return err
			}
			a, err := findAccount(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			answer, err := c.Get(cmd.Context(), cl.path("access"), url.Values{"account": {a.GUID}})
			if err != nil {
				return err
			}
			return printOne(cmd, o, answer, func(e *explanation) [][]string {
				return [][]string{
					{"cluster", cl.Name},
					{"account", a.name()},
					{"scopes", strings.Join(e.Account.Scopes, " ")},
					{"labels", pairs(e.Account.Labels)},
					{"may view", e.View.String()},
					{"may manage", e.Manage.String()},
				}
			})
		},
	}
	cmd.Flags().StringVar(&name, "account", "", "user `name` or guid of the account")
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	o.bind(cmd)
	return cmd
}

// right is a right of an account in a cluster, with the rules that decide.
type right struct {
	Allowed bool   `json:"allowed"`
	Why     string `json:"why"`
}

type explanation struct {
	Account struct {
		GUID     string            `json:"guid"`
		Username string            `json:"username"`
		Origin   string            `json:"origin"`
		Scopes   []string          `json:"scopes"`
		Labels   map[string]string `json:"labels"`
	} `json:"account"`
	View   right `json:"view"`
	Manage right `json:"manage"`
}

func (r right) String() string { return yesNo(r.Allowed) + ": " + r.Why }
