package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
)

func usersCommand() *cobra.Command {
	return group("users", "Database users: roles with LOGIN in a cluster",
		usersListCommand(), usersShowCommand(), usersCreateCommand(), usersPasswdCommand(), usersSetCommand(),
		usersGrantCommand(), usersDeleteCommand(), usersCheckPasswordsCommand())
}

// databaseUser is a user as the DBaaS API shows it.
type databaseUser struct {
	Metadata struct {
		CreatedBy            string     `json:"createdBy"`
		CreatedByUserID      string     `json:"createdByUserId"`
		CreatedDate          *time.Time `json:"createdDate"`
		LastModifiedBy       string     `json:"lastModifiedBy"`
		LastModifiedByUserID string     `json:"lastModifiedByUserId"`
		LastModifiedDate     *time.Time `json:"lastModifiedDate"`
	} `json:"metadata"`
	Properties struct {
		Username string `json:"username"`
		System   bool   `json:"system"`
	} `json:"properties"`
}

const dbaasClusters = "/databases/postgresql/clusters"

// usersPath and ownUsersPath are where the users of a cluster are, in the DBaaS API and in Rolecall's own.
func (cl *clusterName) usersPath(segments ...string) string {
	return client.Path(client.Path(dbaasClusters, cl.ID, "users"), segments...)
}

func (cl *clusterName) ownUsersPath(segments ...string) string {
	return client.Path(client.Path(ownClusters, cl.ID, "users"), segments...)
}

func usersListCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var system bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the database users of a cluster",
		Example: `  rolecall users list -c payments
  rolecall users list -c payments --system -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			var query url.Values
			if system {
				query = url.Values{"system": {"true"}}
			}
			users, err := c.Offsets(cmd.Context(), cl.usersPath(), query)
			if err != nil {
				return err
			}
			var accounts map[string]string
			if o.format == "table" {
				all, err := decodeAll[databaseUser](users)
				if err != nil {
					return err
				}
				var guids []string
				for _, u := range all {
					guids = append(guids, guidOf(u.Metadata.CreatedBy), guidOf(u.Metadata.LastModifiedBy))
				}
				accounts = accountNames(cmd.Context(), c, guids...)
			}
			return printList(cmd, o, users, "NAME,SYSTEM,CREATED,BY,CHANGED,BY", func(u *databaseUser) []string {
				m := u.Metadata
				return []string{u.Properties.Username, yesNo(u.Properties.System),
					when(m.CreatedDate), accounts[guidOf(m.CreatedBy)], when(m.LastModifiedDate), accounts[guidOf(m.LastModifiedBy)]}
			})
		},
	}
	on.bind(cmd)
	cmd.Flags().BoolVar(&system, "system", false, "list protected users as well")
	o.bind(cmd)
	return cmd
}

// guidOf is the guid of the account in a URN, "" where no account is meant.
func guidOf(urn string) string {
	guid, err := url.PathUnescape(urn[strings.LastIndex(urn, "/")+1:])
	if err != nil || guid == "_unmanaged_" || guid == "_system_" {
		return ""
	}
	return guid
}

// maxLookedUp is how many guids are looked up with one request, whose URL has to stay short.
const maxLookedUp = 100

// accountNames maps guids to user names. What the caller may not see, or what no longer exists, stays a guid.
func accountNames(ctx context.Context, c *client.Client, guids ...string) map[string]string {
	names := map[string]string{}
	slices.Sort(guids)
	guids = slices.DeleteFunc(slices.Compact(guids), func(guid string) bool { return guid == "" })
	for _, guid := range guids {
		names[guid] = guid
	}
	for some := range slices.Chunk(guids, maxLookedUp) {
		found, err := c.Pages(ctx, "/v3/users", url.Values{"guids": {cfValues(some...)}})
		if err != nil {
			return names
		}
		for _, item := range found {
			if u, err := decode[platformUser](item); err == nil && u.Username != "" {
				names[u.GUID] = u.Username
			}
		}
	}
	return names
}

// ownUser is a database user with what the DBaaS form cannot say.
type ownUser struct {
	Username        string     `json:"username"`
	State           string     `json:"state"`
	ValidUntil      *time.Time `json:"validUntil"`
	ConnectionLimit int        `json:"connectionLimit"`
	MemberOf        []string   `json:"memberOf"`
	PasswordKind    string     `json:"passwordKind"`
	Comment         string     `json:"comment"`
	Connection      struct {
		Host      string   `json:"host"`
		Port      int      `json:"port"`
		Databases []string `json:"databases"`
		URL       string   `json:"url"`
	} `json:"connection"`
	CreatedBy  string     `json:"createdBy"`
	CreatedAt  *time.Time `json:"createdAt"`
	ModifiedBy string     `json:"modifiedBy"`
	ModifiedAt *time.Time `json:"modifiedAt"`

	EndedSessions int      `json:"endedSessions"` // of an answer to a change
	KeptRoles     []string `json:"keptRoles"`     // of an answer to a change: those that are not the cluster's to take
}

func usersShowCommand() *cobra.Command {
	var on clusterFlag
	var o output
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a database user, and how to connect as it",
		Long: `Show prints a database user with its memberships and limits, and a libpq URL with which
to connect. The URL holds no password.`,
		Example: `  rolecall users show app -c payments
  psql "$(rolecall users show app -c payments -o json | jq -r .connection.url)"`,
		Args:              arguments("NAME"),
		ValidArgsFunction: firstArgument(on.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			user, err := c.Get(cmd.Context(), cl.ownUsersPath(args[0]), nil)
			if err != nil {
				return err
			}
			return printOne(cmd, o, user, func(u *ownUser) [][]string {
				names := accountNames(cmd.Context(), c, u.CreatedBy, u.ModifiedBy)
				return [][]string{
					{"name", u.Username},
					{"cluster", cl.Name},
					{"state", u.State},
					{"member of", strings.Join(u.MemberOf, ", ")},
					{"expires", orNever(u.ValidUntil)},
					{"connection limit", limitOf(u.ConnectionLimit)},
					{"password", u.PasswordKind},
					{"comment", u.Comment},
					{"created", at(u.CreatedAt, names[u.CreatedBy])},
					{"changed", at(u.ModifiedAt, names[u.ModifiedBy])},
					{"databases", strings.Join(u.Connection.Databases, ", ")},
					{"connect with", u.Connection.URL},
				}
			})
		},
	}
	on.bind(cmd)
	o.bind(cmd)
	return cmd
}

func at(t *time.Time, by string) string {
	if t == nil || by == "" {
		return when(t)
	}
	return when(t) + " by " + by
}

func orNever(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return when(t)
}

func limitOf(n int) string {
	if n < 0 {
		return "none"
	}
	return strconv.Itoa(n)
}

type userProperties struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password"`
}

type userBody struct {
	Properties userProperties `json:"properties"`
}

func usersCreateCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a database user",
		Long: `Create makes a role with LOGIN. Its password comes from a prompt, from standard input, or
is made up: --generate prints it on standard output, once, and nothing else there; with
-o json or yaml it is the member "password" of what is printed.`,
		Example: `  rolecall users create app -c payments
  PASSWORD=$(rolecall users create app -c payments --generate)
  pwgen 24 1 | rolecall users create app -c payments --password-stdin`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			secret, err := password.read(cmd, args[0])
			if err != nil {
				return err
			}
			user, err := c.Do(cmd.Context(), http.MethodPost, cl.usersPath(), nil, userBody{userProperties{args[0], secret}})
			if err != nil {
				return err
			}
			did(cmd, "Database user %q was created in cluster %q.", args[0], cl.Name)
			warned(cmd, c)
			return password.print(cmd, o, user, secret)
		},
	}
	on.bind(cmd)
	password.bind(cmd, true)
	o.bind(cmd)
	return cmd
}

func usersPasswdCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a database user a new password",
		Long: `Passwd replaces the password of a database user. Sessions that are open stay open; to end
them: rolecall users set NAME --end-sessions. A disabled user is enabled again.`,
		Example: `  rolecall users passwd app -c payments
  PASSWORD=$(rolecall users passwd app -c payments --generate)`,
		Args:              arguments("NAME"),
		ValidArgsFunction: firstArgument(on.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			secret, err := password.read(cmd, args[0])
			if err != nil {
				return err
			}
			user, err := c.Do(cmd.Context(), http.MethodPatch, cl.usersPath(args[0]), nil, userBody{userProperties{Password: secret}})
			if err != nil {
				return err
			}
			did(cmd, "Database user %q of cluster %q has a new password.", args[0], cl.Name)
			warned(cmd, c)
			return password.print(cmd, o, user, secret)
		},
	}
	on.bind(cmd)
	password.bind(cmd, true)
	o.bind(cmd)
	return cmd
}

// warned prints what the server had to say along with a success.
func warned(cmd *cobra.Command, c *client.Client) {
	if c.Warning != "" {
		did(cmd, "Warning: %s", c.Warning)
	}
}

type passwordProblem struct {
	Username     string `json:"username"`
	System       bool   `json:"system"`
	PasswordKind string `json:"passwordKind"`
	Problem      string `json:"problem"`
}

func usersCheckPasswordsCommand() *cobra.Command {
	var on clusterFlag
	var o output
	cmd := &cobra.Command{
		Use:   "check-passwords",
		Short: "List the database users whose passwords are to be renewed",
		Long: `Check-passwords lists the users of a cluster whose password is stored as an md5 hash, or with
fewer SCRAM iterations than PostgreSQL gives a new one, and those that have no password. Only
a superuser may look, so Rolecall's role in the cluster has to be one.`,
		Example: `  rolecall users check-passwords -c payments
  rolecall users check-passwords -c payments -o json | jq -r '.[] | select(.passwordKind == "md5").username'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			problems, err := c.Items(cmd.Context(), cl.path("password-problems"), nil)
			if err != nil {
				return err
			}
			return printList(cmd, o, problems, "NAME,SYSTEM,PASSWORD,PROBLEM", func(p *passwordProblem) []string {
				return []string{p.Username, yesNo(p.System), p.PasswordKind, p.Problem}
			})
		},
	}
	on.bind(cmd)
	o.bind(cmd)
	return cmd
}

func usersSetCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var validUntil, limit string
	var endSessions bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change the limits of a database user, or end its sessions",
		Example: `  rolecall users set app -c payments --valid-until 2027-01-31T18:00:00Z
  rolecall users set app -c payments --valid-until 72h --connection-limit 5
  rolecall users set app -c payments --valid-until never --connection-limit none
  rolecall users set app -c payments --end-sessions`,
		Args:              arguments("NAME"),
		ValidArgsFunction: firstArgument(on.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := map[string]any{}
			if cmd.Flags().Changed("valid-until") {
				until, err := deadline("valid-until", validUntil)
				if err != nil {
					return err
				}
				change["validUntil"] = until
			}
			if cmd.Flags().Changed("connection-limit") {
				n := -1
				if limit != "none" {
					var err error
					if n, err = strconv.Atoi(limit); err != nil || n < 0 {
						return usage("--connection-limit is %q; it takes a number, or none", limit)
					}
				}
				change["connectionLimit"] = n
			}
			if endSessions {
				change["endSessions"] = true
			}
			if len(change) == 0 {
				return usage("say what to change: --valid-until, --connection-limit or --end-sessions")
			}
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			user, err := c.Do(cmd.Context(), http.MethodPatch, cl.ownUsersPath(args[0]), nil, change)
			if err != nil {
				return err
			}
			u, err := decode[ownUser](user)
			if err != nil {
				return err
			}
			did(cmd, "Database user %q of cluster %q: expires: %s; connection limit: %s.", args[0], cl.Name, orNever(u.ValidUntil), limitOf(u.ConnectionLimit))
			if endSessions {
				did(cmd, "Sessions ended: %d.", u.EndedSessions)
			}
			return o.printUnlessTable(cmd, user)
		},
	}
	on.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&validUntil, "valid-until", "", "until `when` the password is good: a time like 2027-01-31T18:00:00Z, a duration from now like 72h, or never")
	f.StringVar(&limit, "connection-limit", "", "`number` of connections at the same time, or none for no limit")
	f.BoolVar(&endSessions, "end-sessions", false, "end the sessions that are open")
	o.bind(cmd)
	return cmd
}

// deadline reads a time, a duration from now, or never, which is nil.
func deadline(flag, value string) (*time.Time, error) {
	if value == "never" {
		return nil, nil
	}
	if d, err := time.ParseDuration(value); err == nil {
		t := time.Now().Add(d).UTC().Truncate(time.Second)
		return &t, nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return nil, usage("--%s is %q; it takes a time like 2027-01-31T18:00:00Z, a duration like 72h, or never", flag, value)
	}
	return &t, nil
}

func usersGrantCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var roles []string
	cmd := &cobra.Command{
		Use:   "grant NAME --roles ROLE,ROLE",
		Short: "Set the roles of which a database user is a member",
		Long: `Grant makes a database user a member of the roles that are named, and of no other of those
that the cluster lets be granted (its list "grantable"). An empty list takes all of them away.`,
		Example: `  rolecall users grant app -c payments --roles readwrite
  rolecall users grant app -c payments --roles readonly,reporting
  rolecall users grant app -c payments --roles ''`,
		Args:              arguments("NAME"),
		ValidArgsFunction: firstArgument(on.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("roles") {
				return usage("say which roles: --roles ROLE,ROLE")
			}
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			user, err := c.Do(cmd.Context(), http.MethodPut, cl.ownUsersPath(args[0], "roles"), nil, map[string]any{"roles": roles})
			if err != nil {
				return err
			}
			u, err := decode[ownUser](user)
			if err != nil {
				return err
			}
			did(cmd, "Database user %q of cluster %q is a member of: %s", args[0], cl.Name, cmp.Or(strings.Join(u.MemberOf, ", "), "no role"))
			if len(u.KeptRoles) > 0 {
				did(cmd, "Not the cluster's to take, and so kept: %s", strings.Join(u.KeptRoles, ", "))
			}
			return o.printUnlessTable(cmd, user)
		},
	}
	on.bind(cmd)
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "`roles`, separated by commas")
	o.bind(cmd)
	return cmd
}

func usersDeleteCommand() *cobra.Command {
	var on clusterFlag
	var o output
	var ok consent
	var plan bool
	var reassignTo, onBlocked string
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a database user",
		Long: `Delete drops the role and its privileges; it destroys no data. A user that owns objects
stays as it is, and the answer names them: --reassign-to gives them to another role, and
--on-blocked disable leaves a user that cannot sign in.

--plan shows what a delete would do and what stands in its way, and changes nothing. Its exit
code is 1 when the delete would be refused, or not all could be looked at.

A delete that ran out of time on a cluster with very many databases has got some way: the
same command goes on.`,
		Example: `  rolecall users delete app -c payments --plan
  rolecall users delete app -c payments
  rolecall users delete app -c payments --reassign-to owner --yes`,
		Args:              arguments("NAME"),
		ValidArgsFunction: firstArgument(on.completeUsers),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			if cmd.Flags().Changed("reassign-to") {
				query.Set("reassignTo", reassignTo)
			}
			if onBlocked != "" && onBlocked != "disable" {
				return usage("--on-blocked is %q; it takes disable", onBlocked)
			}
			c, cl, err := on.connect(cmd.Context())
			if err != nil {
				return err
			}
			if plan {
				answer, err := c.Get(cmd.Context(), cl.ownUsersPath(args[0], "deletion-plan"), query)
				if err != nil {
					return err
				}
				return printPlan(cmd, o, args[0], answer)
			}
			if onBlocked != "" {
				query.Set("onBlocked", onBlocked)
			}
			if err := ok.get(cmd, "Delete database user %q of cluster %q?", args[0], cl.Name); err != nil {
				return err
			}
			answer, err := c.Do(cmd.Context(), http.MethodDelete, cl.usersPath(args[0]), query, nil)
			if e, ok := errors.AsType[*client.Error](err); ok {
				e.Message = strings.ReplaceAll(e.Message, "?reassignTo=<role>", "--reassign-to ROLE")
			}
			if err != nil {
				return err
			}
			if answer != nil {
				did(cmd, "Database user %q of cluster %q could not be deleted, and was disabled.", args[0], cl.Name)
				return o.printUnlessTable(cmd, answer)
			}
			did(cmd, "Database user %q of cluster %q was deleted.", args[0], cl.Name)
			return nil
		},
	}
	on.bind(cmd)
	f := cmd.Flags()
	f.BoolVar(&plan, "plan", false, "show what would be done, and do nothing")
	f.StringVar(&reassignTo, "reassign-to", "", "`role` that gets what the user owns")
	f.StringVar(&onBlocked, "on-blocked", "", "what to do with a user that cannot be deleted: `disable`")
	ok.bind(cmd)
	o.bind(cmd)
	return cmd
}

// connect finds the server and the cluster.
func (f *clusterFlag) connect(ctx context.Context) (*client.Client, *clusterName, error) {
	c, err := connect()
	if err != nil {
		return nil, nil, err
	}
	cl, err := f.find(ctx, c)
	return c, cl, err
}

func (f *clusterFlag) completeUsers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return completing(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		cl, err := f.find(ctx, c)
		if err != nil {
			return nil, err
		}
		users, err := c.Offsets(ctx, cl.usersPath(), nil)
		if err != nil {
			return nil, err
		}
		names := make([]string, len(users))
		for i, item := range users {
			u, err := decode[databaseUser](item)
			if err != nil {
				return nil, err
			}
			names[i] = u.Properties.Username
		}
		return names, nil
	})
}

// deletionPlan is what a delete would do.
type deletionPlan struct {
	Blockers  []string `json:"blockers"`
	Sessions  int      `json:"sessions"`
	Unvisited int      `json:"unvisited"`
	Databases []struct {
		Name       string  `json:"name"`
		Objects    listing `json:"objects"`
		Definers   listing `json:"definers"`
		Privileges listing `json:"privileges"`
		Defaults   listing `json:"defaultPrivileges"`
	} `json:"databases"`
}

// listing is a number of things, the first of which are named.
type listing struct {
	Count int      `json:"count"`
	First []string `json:"first"`
}

func (l listing) String() string {
	text := strconv.Itoa(l.Count)
	if len(l.First) > 0 {
		text += ": " + strings.Join(l.First, ", ")
	}
	if l.Count > len(l.First) && len(l.First) > 0 {
		text += ", …"
	}
	return text
}

// printPlan prints a plan, and fails then if it would be refused, or might be.
func printPlan(cmd *cobra.Command, o output, name string, answer json.RawMessage) error {
	p, err := decode[deletionPlan](answer)
	if err != nil {
		return err
	}
	err = printOne(cmd, o, answer, func(p *deletionPlan) [][]string {
		fields := [][]string{{"would be refused", yesNo(len(p.Blockers) > 0)}}
		for _, blocker := range p.Blockers {
			fields = append(fields, []string{"because", blocker})
		}
		fields = append(fields, []string{"sessions to end", strconv.Itoa(p.Sessions)})
		if p.Unvisited > 0 {
			fields = append(fields, []string{"not complete", fmt.Sprintf("there was no time to look into %d more databases", p.Unvisited)})
		}
		for _, in := range p.Databases {
			for _, part := range []struct {
				name string
				listing
			}{
				{"objects owned", in.Objects}, {"of these, run as their owner", in.Definers},
				{"privileges to revoke", in.Privileges}, {"default privileges to revoke", in.Defaults},
			} {
				if part.Count > 0 {
					fields = append(fields, []string{"database " + in.Name, part.name + ", " + part.listing.String()})
				}
			}
		}
		return fields
	})
	switch {
	case err != nil:
		return err
	case len(p.Blockers) > 0:
		return fmt.Errorf("the database user %q would not be deleted", name)
	case p.Unvisited > 0:
		return fmt.Errorf("the plan for %q is not complete", name)
	}
	return nil
}
