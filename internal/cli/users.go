package cli

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

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
	"rolecall/internal/secret"
)

func usersCommand() *cobra.Command {
	return term.Group("users", "Database users: roles with LOGIN in a cluster",
		usersListCommand(), usersShowCommand(), usersCreateCommand(), usersAccessCommand(), usersPasswdCommand(),
		usersSetCommand(), usersGrantCommand(), usersRevokeCommand(), usersSetRolesCommand(), usersDisableCommand(),
		usersEnableCommand(), usersEndSessionsCommand(), usersExpireCommand(), usersDeleteCommand(),
		usersCheckPasswordsCommand())
}

// userPath is the path of the database user that the first argument names.
func userPath(c *call) string { return c.cluster.Path("users", c.args[0]) }

// ofUser completes a command on one database user.
func ofUser(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Args = term.Arguments("NAME")
	cmd.ValidArgsFunction = firstArgument(completeUsers)
	return onCluster(cmd, run)
}

func usersListCommand() *cobra.Command {
	var search userSearch
	cmd := listing(&cobra.Command{
		Use:   "list",
		Short: "List the database users of a cluster, or of all clusters",
		Long: `List prints the database users of a cluster or, with --all-clusters, of all clusters that you
may view. All conditions must match. A cluster that does not answer is named in a warning;
then the list is not complete, and the exit code is 6.

With --all-clusters or a condition such as --name, the server sorts by the columns cluster,
name, created, expires and last-seen. Then --limit reads no more than it prints.`,
		Example: `  rolecall users list -c payments
  rolecall users list -c payments --system -o json
  rolecall users list -c payments --filter state=expired --filter name=app_* --sort -created
  rolecall users list --all-clusters --created-by eve
  rolecall users list --all-clusters --expires-before 7d --sort expires --limit 10`,
		Args: term.NoArguments,
	}, foundHead(true, true))
	onServer(cmd, func(c *call) (err error) {
		if search.allClusters && c.given("cluster") {
			return term.Usage("--all-clusters and --cluster exclude each other; omit one of them")
		}
		if !search.allClusters {
			if c.cluster, err = clusterOfFlag(c.cmd, c.client); err != nil {
				return err
			}
		}
		if search.given(c.cmd) {
			return search.list(c)
		}
		return listUsers(c, search.system)
	})
	cmd.Flags().StringP("cluster", "c", "", "`name` or id of the cluster [$"+ClusterVariable+"]")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	search.bind(cmd)
	return cmd
}

// userHead is the columns of users list. Without --system no user is a system user.
func userHead(system bool) term.Head {
	return term.Head{
		{Title: "NAME", Name: true}, {Title: "SYSTEM", Wide: !system}, {Title: "STATE", State: true}, {Title: "EXPIRES"},
		{Title: "ROLES",
			Gives: term.Some},
		{Title: "CREATED BY", Gives: term.Some}, {Title: "CREATED", Gives: term.More}, {Title: "CHANGED", Gives: term.Most},
		{Title: "CHANGED BY", Gives: term.Most}, {Title: "CHANGED OUTSIDE", Wide: true}, {Title: "LAST SEEN", Wide: true},
	}
}

func listUsers(c *call, system bool) error {
	var query url.Values
	if system {
		query = url.Values{"system": {"true"}}
	}
	return printPages(c, c.cluster.Path("users"), query, foundHead(system, false), func(users []*client.User) [][]string {
		rows := userRows(c, users)
		for i := range rows {
			rows[i] = append([]string{c.cluster.Name}, rows[i]...)
		}
		return rows
	})
}

// userRows are the cells of users below userHead.
func userRows(c *call, users []*client.User) (rows [][]string) {
	var guids []string
	for _, u := range users {
		guids = append(guids, u.CreatedBy, u.ModifiedBy)
	}
	names := accountNames(c, guids...)
	for _, u := range users {
		rows = append(rows, []string{
			u.Username, term.YesNo(u.System), u.State, term.TimeOrNever(u.ValidUntil), strings.Join(u.MemberOf, ", "),
			names[u.CreatedBy], term.Time(u.CreatedAt), term.Time(u.ModifiedAt), names[u.ModifiedBy],
			changedOutside(u), lastSeen(u),
		})
	}
	return rows
}

func usersPath(cmd *cobra.Command, c *client.Client) (string, error) {
	cl, err := clusterOfFlag(cmd, c)
	if err != nil {
		return "", err
	}
	return cl.Path("users"), nil
}

var (
	completeUsers = complete(usersPath, "username")
	// completeLasting leaves out leases.
	completeLasting = completeFrom(usersPath, "username", offer{without: "lease"})
)

func usersShowCommand() *cobra.Command {
	return ofUser(printing(&cobra.Command{
		Use:   "show NAME",
		Short: "Show a database user, and how to connect as it",
		Long: `Show prints a database user with its memberships and limits, and a libpq URL to connect
with. The URL contains no password.`,
		Example: `  rolecall users show app -c payments
  psql "$(rolecall users show app -c payments -o json | jq -r .connection.url)"`,
	}), show(userPath, userFields))
}

// memberships are the roles that a user is a member of.
func memberships(u *client.User) string {
	roles := slices.Clone(u.MemberOf)
	for i, role := range roles {
		if slices.Contains(u.NotInherited, role) {
			roles[i] += " (not inherited: only after SET ROLE)"
		}
	}
	return strings.Join(roles, ", ")
}

func userFields(c *call, u *client.User) [][]string {
	names := accountNames(c, u.CreatedBy, u.ModifiedBy)
	return slices.Concat([][]string{
		{"name", u.Username},
		{"cluster", c.cluster.Name},
		{"state", u.State},
		{"member of", memberships(u)},
		{"expires", term.TimeOrNever(u.ValidUntil)},
		{"connection limit", connectionLimit(u.ConnectionLimit)},
		{"password", u.PasswordKind},
		{"password changed outside", changedOutside(u)},
		{"last seen", lastSeen(u)},
	}, leaseOf(u), term.Lines("comment", u.Comment), [][]string{
		{"created", timeBy(u.CreatedAt, names[u.CreatedBy])},
		{"changed", timeBy(u.ModifiedAt, names[u.ModifiedBy])},
		{"databases", strings.Join(u.Connection.Databases, ", ")},
		{"connect with", u.Connection.URL},
	})
}

// changedOutside says whether SQL has changed the password of a user.
func changedOutside(u *client.User) string {
	switch is := u.PasswordChangedOutside; {
	case is == nil:
		return "unknown"
	case *is:
		return "yes, since " + term.Time(u.PasswordChangedOutsideAt)
	}
	return "no"
}

// lastSeen says when a user last had a session. It never says that there was none: one may have ended between two looks.
func lastSeen(u *client.User) string {
	switch {
	case u.LastSeen != nil:
		return term.Time(u.LastSeen)
	case u.LastSeenSince != nil:
		return "not seen since " + term.Time(u.LastSeenSince)
	}
	return "unknown"
}

// leaseOf is the lease that a user is, if it is one.
func leaseOf(u *client.User) [][]string {
	if u.Lease == nil {
		return nil
	}
	return [][]string{{"lease", u.Lease.ID}, {"acts for", u.Lease.For}}
}

func timeBy(t *time.Time, account string) string {
	if t == nil || account == "" {
		return term.Time(t)
	}
	return term.Time(t) + " by " + account
}

func connectionLimit(n int) string {
	if n < 0 {
		return "none"
	}
	return strconv.Itoa(n)
}

// newUser are the flags of users create.
type newUser struct {
	access, roles []string
	limits        limits
	password      newPassword
}

func usersCreateCommand() *cobra.Command {
	var n newUser
	cmd := &cobra.Command{
		Use:   "create NAME [DIR]",
		Short: "Create a database user, with what it may do",
		Long: `Create creates a role with LOGIN, its levels, its roles and its limits in one step: if a
part is refused, nothing is created. The password comes from a prompt or from standard
input. --generate lets the server generate it and prints it once, alone on standard
output.

--access shop=write gives it the level write in the database shop, which has access roles:

` + levelsHelp + `

--role makes it a member of a role of the cluster's list "grantable".

` + passwordFormats,
		Example: `  PASSWORD=$(rolecall users create app -c payments --access shop=write --generate)
  rolecall users create report -c payments --access shop=read,crm=read --valid-until 90d
  rolecall users create app -c payments --access shop=write --generate -o secret | kubectl apply -f -
  pwgen 24 1 | rolecall users create app -c payments --role readwrite --password-stdin`,
	}
	f := cmd.Flags()
	f.StringSliceVar(&n.access, "access", nil, "`database=level` that the user has: own, write or read; repeatable")
	f.StringSliceVar(&n.roles, "role", nil, "`role` that the user is a member of; repeatable")
	_ = cmd.RegisterFlagCompletionFunc("access", completeLevels)
	_ = cmd.RegisterFlagCompletionFunc("role", completeGrantable)
	n.limits.bind(cmd)
	n.password.bind(cmd)
	cmd.ValidArgsFunction = folderAfter(cobra.NoFileCompletions)
	return onCluster(cmd, func(c *call) error { return n.create(c) })
}

func (n *newUser) create(c *call) error {
	levels, err := parseLevels("access", n.access)
	if err != nil {
		return err
	}
	body, err := n.limits.properties(c)
	if err != nil {
		return err
	}
	body["username"] = c.args[0]
	if len(levels) > 0 {
		body["access"] = levels
	}
	if len(n.roles) > 0 {
		body["roles"] = n.roles
	}
	if len(levels) == 1 && n.password.handover.database == "" {
		n.password.handover.database = levels[0].Database
	}
	done := fmt.Sprintf("Database user %q was created in cluster %q.", c.args[0], c.cluster.Name)
	if len(levels) > 0 {
		done += " Access: " + strings.Join(n.access, ", ") + "."
	}
	return n.password.send(c, c.cluster.Path("users"), body, done)
}

// folderAfter completes the first argument, and a folder as the second, which belongs to -o binding-dir.
func folderAfter(first cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return first(cmd, args, start)
	}
}

func usersPasswdCommand() *cobra.Command {
	var p newPassword
	cmd := &cobra.Command{
		Use:   "passwd NAME [DIR]",
		Short: "Set a new password for a database user",
		Long: `Passwd replaces the password of a database user. Open sessions stay open; to end them:
rolecall users set NAME --end-sessions. A user that was disabled by --on-blocked disable is
enabled again; one that was disabled by users disable is not.

The password comes from a prompt or from standard input. --generate lets the server
generate it and prints it once, alone on standard output.

` + passwordFormats,
		Example: `  rolecall users passwd app -c payments
  PASSWORD=$(rolecall users passwd app -c payments --generate)`,
	}
	p.bind(cmd)
	cmd.ValidArgsFunction = folderAfter(completeUsers)
	return onCluster(cmd, func(c *call) error {
		return p.send(c, c.cluster.Path("users", c.args[0], "password"), map[string]any{},
			fmt.Sprintf("Database user %q of cluster %q has a new password.", c.args[0], c.cluster.Name))
	})
}

// passwordFormats is part of the help of the commands that set a password.
const passwordFormats = `With -o json or yaml a generated password is the member "password" of the output. The
formats env, pgpass, uri, jdbc, secret and binding-dir contain the password, also if it
was not generated; "rolecall leases create --help" explains them.`

// newPassword is how the commands get and hand out the password of a database user.
type newPassword struct{ handover handover }

func (p *newPassword) bind(cmd *cobra.Command) {
	term.BindPassword(cmd, true)
	p.handover.bind(cmd, "NAME")
}

// send sends a change with a password, says what was done, and prints the user.
func (p *newPassword) send(c *call, path string, body map[string]any, done string) error {
	if err := p.handover.check(c, 1); err != nil {
		return err
	}
	given, err := term.GivenPassword(c.cmd, c.args[0])
	if err != nil {
		return err
	}
	if given != "" {
		body["password"] = given
	}
	answer, err := c.client.Do(c.cmd.Context(), client.Request{Method: http.MethodPost, Path: path, Body: body})
	if err != nil {
		return err
	}
	c.report("%s", done)
	c.passOn(answer)
	u, err := term.Decode[client.User](answer.JSON)
	if err == nil {
		err = p.print(c, answer.JSON, u, secret.Text(given))
	}
	if err != nil && given == "" {
		return fmt.Errorf("%w; the generated password is lost: generate another one with rolecall users passwd --generate", err)
	}
	return err
}

// print prints the user in the output format. In a table it is the generated password alone.
func (p *newPassword) print(c *call, answer json.RawMessage, u *client.User, given secret.Text) error {
	if term.Format(c.cmd) != "table" {
		return p.handover.print(c, answer, u.Connection.URL, cmp.Or(u.Password, given), nil)
	}
	if u.Password == "" {
		return nil
	}
	_, err := fmt.Fprintln(c.cmd.OutOrStdout(), string(u.Password))
	return err
}

func usersDisableCommand() *cobra.Command {
	var m many
	return oneOrMany(printing(&cobra.Command{
		Use:   "disable [NAME]",
		Short: "Turn off the login of a database user, or of many, and end its sessions",
		Long: `Disable takes LOGIN from a database user, and ends its sessions and its leases. The user
keeps its password, its roles and what it owns. To turn the login on again: rolecall users
enable.

` + manyHelp,
		Example: `  rolecall users disable app -c payments
  rolecall users disable --created-by eve --all-clusters --plan`,
	}), &m, completeUsers, func(c *call) error {
		answer, err := c.send(http.MethodPost, c.cluster.Path("users", c.args[0], "disable"), nil)
		if err != nil {
			return err
		}
		u, err := term.Decode[client.User](answer)
		if err != nil {
			return err
		}
		c.report("Database user %q of cluster %q is disabled. Sessions ended: %d.", u.Username, c.cluster.Name,
			u.EndedSessions)
		return term.PrintUnlessTable(c.cmd, answer)
	}, plainly("disable"))
}

func usersEnableCommand() *cobra.Command {
	var m many
	return oneOrMany(printing(&cobra.Command{
		Use:   "enable [NAME]",
		Short: "Turn on the login of a database user that is disabled, or of many",
		Long: `Enable gives LOGIN back to a database user that is disabled. Its password is
unchanged. A user without a password is refused: rolecall users passwd sets one and enables it.

` + manyHelp,
		Example: `  rolecall users enable app -c payments
  rolecall users enable --name 'app_*' --state disabled --all-clusters`,
	}), &m, completeUsers, func(c *call) error {
		answer, err := c.send(http.MethodPost, c.cluster.Path("users", c.args[0], "enable"), nil)
		if err != nil {
			return err
		}
		c.report("Database user %q of cluster %q is enabled.", c.args[0], c.cluster.Name)
		return term.PrintUnlessTable(c.cmd, answer)
	}, plainly("enable"))
}

var problemHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "SYSTEM"}, {Title: "PASSWORD"}, {Title: "PROBLEM", Gives: term.Some},
}

func usersCheckPasswordsCommand() *cobra.Command {
	return onCluster(listing(&cobra.Command{
		Use:   "check-passwords",
		Short: "List the database users whose passwords should be renewed",
		Long: `Check-passwords lists the users of a cluster whose password is stored as an md5 hash, or
with fewer SCRAM iterations than PostgreSQL uses for a new password, and those without a
password. Only a superuser can read this, so the administering role has to be one.`,
		Example: `  rolecall users check-passwords -c payments
  rolecall users check-passwords -c payments -o json | jq -r '.[] | select(.passwordKind == "md5").username'`,
		Args: term.NoArguments,
	}, problemHead), list(func(c *call) (string, url.Values) { return c.cluster.Path("password-problems"), nil }, problemHead,
		func(p *client.PasswordProblem) []string {
			return []string{p.Username, term.YesNo(p.System), p.PasswordKind, p.Problem}
		}))
}

// limits are the flags of users set, and of users create without endSessions.
type limits struct {
	validUntil, connectionLimit string
	endSessions                 bool
}

func usersSetCommand() *cobra.Command {
	var l limits
	cmd := printing(&cobra.Command{
		Use:   "set NAME",
		Short: "Change the limits of a database user, or end its sessions",
		Example: `  rolecall users set app -c payments --valid-until 2027-01-31T18:00:00Z
  rolecall users set app -c payments --valid-until 3d --connection-limit 5
  rolecall users set app -c payments --valid-until never --connection-limit none
  rolecall users set app -c payments --end-sessions`,
	})
	l.bind(cmd)
	cmd.Flags().BoolVar(&l.endSessions, "end-sessions", false, "end the open sessions")
	return ofUser(cmd, func(c *call) error { return l.set(c) })
}

// bind gives a command the flags of the limits.
func (l *limits) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.validUntil, "valid-until", "",
		"password expiry: a `time` like 2027-01-31T18:00:00Z or 2027-01-31, a duration from now like 3d, or never")
	f.StringVar(&l.connectionLimit, "connection-limit", "", "maximum `number` of connections, or none, which is -1 in JSON")
	term.CompleteWords(cmd, "valid-until", "never")
	term.CompleteWords(cmd, "connection-limit", "none")
}

func (l *limits) set(c *call) error {
	change, err := l.change(c)
	if err != nil {
		return err
	}
	answer, err := c.send(http.MethodPatch, userPath(c), change)
	if err != nil {
		return err
	}
	u, err := term.Decode[client.User](answer)
	if err != nil {
		return err
	}
	c.report("Database user %q of cluster %q: expires: %s; connection limit: %s.",
		u.Username, c.cluster.Name, term.TimeOrNever(u.ValidUntil), connectionLimit(u.ConnectionLimit))
	if l.endSessions {
		c.report("Sessions ended: %d.", u.EndedSessions)
	}
	return term.PrintUnlessTable(c.cmd, answer)
}

// change is the body of the request.
func (l *limits) change(c *call) (map[string]any, error) {
	change, err := l.properties(c)
	if err != nil {
		return nil, err
	}
	if l.endSessions {
		change["endSessions"] = true
	}
	if len(change) == 0 {
		return nil, term.Usage("nothing to change; add --valid-until, --connection-limit or --end-sessions")
	}
	return change, nil
}

// properties are the limits that are given.
func (l *limits) properties(c *call) (map[string]any, error) {
	change := map[string]any{}
	if c.given("valid-until") {
		until, err := deadline("valid-until", l.validUntil)
		if err != nil {
			return nil, err
		}
		change["validUntil"] = until
	}
	if c.given("connection-limit") {
		n := -1
		if l.connectionLimit != "none" {
			var err error
			if n, err = strconv.Atoi(l.connectionLimit); err != nil || n < -1 { // -1 is none, as in the API
				return nil, term.Usage("--connection-limit is %q; use a number, or none", l.connectionLimit)
			}
		}
		change["connectionLimit"] = n
	}
	return change, nil
}

// deadline reads a time, a duration from now, or never, which is nil.
func deadline(flag, value string) (*time.Time, error) {
	if value == "never" {
		return nil, nil
	}
	if d, err := moment.Duration(value); err == nil {
		t := time.Now().Add(d).UTC().Truncate(time.Second)
		return &t, nil
	}
	t, err := moment.Time(value)
	if err != nil {
		return nil, term.Usage("--%s is %q; use %s, %s from now, or never", flag, value, moment.TimeForm, moment.DurationForm)
	}
	return &t, nil
}

func usersGrantCommand() *cobra.Command {
	var roles []string
	cmd := printing(&cobra.Command{
		Use:   "grant NAME ROLE...",
		Short: "Make a database user a member of roles",
		Long: `Grant makes a database user a member of roles of the cluster's list "grantable". It keeps
all other memberships. To take one away: rolecall users revoke. To set exactly these
roles: rolecall users set-roles.`,
		Example: `  rolecall users grant app -c payments readwrite
  rolecall users grant app -c payments readonly reporting`,
	})
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "`roles` in addition to the arguments, separated by commas")
	_ = cmd.RegisterFlagCompletionFunc("roles", completeGrantable)
	return ofUserAndRoles(cmd, &roles, func(c *call, given []string) error { return changeEach(c, http.MethodPut, given) })
}

func usersRevokeCommand() *cobra.Command {
	var roles []string
	cmd := printing(&cobra.Command{
		Use:   "revoke NAME ROLE...",
		Short: "End the membership of a database user in roles",
		Long: `Revoke ends the membership of a database user in roles of the cluster's list "grantable".
It keeps all other memberships.`,
		Example: `  rolecall users revoke app -c payments readwrite`,
	})
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "`roles` in addition to the arguments, separated by commas")
	_ = cmd.RegisterFlagCompletionFunc("roles", completeGrantable)
	return ofUserAndRoles(cmd, &roles, func(c *call, given []string) error { return changeEach(c, http.MethodDelete, given) })
}

func usersSetRolesCommand() *cobra.Command {
	var roles []string
	cmd := printing(&cobra.Command{
		Use:   "set-roles NAME --roles ROLE,ROLE",
		Short: "Set exactly the roles of which a database user is a member",
		Long: `Set-roles makes a database user a member of the given roles, and removes it from all other
roles in the cluster's list "grantable". An empty list removes it from all of these.`,
		Example: `  rolecall users set-roles app -c payments --roles readonly,reporting
  rolecall users set-roles app -c payments --roles ''`,
	})
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "`roles`, separated by commas")
	_ = cmd.RegisterFlagCompletionFunc("roles", completeGrantable)
	return ofUserAndRoles(cmd, &roles, setRoles)
}

// ofUserAndRoles completes a command that changes the roles of a database user. change gets the arguments together with the
// roles of the flag.
func ofUserAndRoles(cmd *cobra.Command, roles *[]string, change func(c *call, given []string) error) *cobra.Command {
	cmd = ofUser(cmd, func(c *call) error {
		given := append(slices.Clone(c.args[1:]), *roles...)
		if len(given) == 0 && !c.given("roles") {
			return term.Usage("no role is given; see %s --help", c.cmd.CommandPath())
		}
		return change(c, given)
	})
	cmd.Args = term.Arguments("NAME", "[ROLE]...")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return completeUsers(cmd, args, start)
		}
		return completeGrantable(cmd, args, start)
	}
	return cmd
}

// changeEach grants (PUT) or revokes (DELETE) the roles one after the other.
func changeEach(c *call, method string, roles []string) error {
	if len(roles) == 0 {
		return term.Usage("--roles is empty; to end all memberships: rolecall users set-roles %s --roles ''", c.args[0])
	}
	before, _, err := readUser(c)
	if err != nil {
		return err
	}
	for i, role := range roles {
		answer, err := c.client.Do(c.cmd.Context(), client.Request{
			Method: method, Path: c.cluster.Path("users", c.args[0], "roles", role),
		})
		if err != nil && i > 0 {
			c.report("Done before the error: %s.", strings.Join(roles[:i], ", "))
		}
		if err != nil {
			return err
		}
		c.passOn(answer)
	}
	after, text, err := readUser(c)
	if err != nil {
		return err
	}
	reportRoles(c, before, after)
	return term.PrintUnlessTable(c.cmd, text)
}

// setRoles sets exactly these of the grantable roles.
func setRoles(c *call, roles []string) error {
	before, _, err := readUser(c)
	if err != nil {
		return err
	}
	answer, err := c.client.Do(c.cmd.Context(), client.Request{
		Method: http.MethodPut, Path: c.cluster.Path("users", c.args[0], "roles"),
		Body: map[string]any{"roles": append([]string{}, roles...)},
	})
	if err != nil {
		return err
	}
	after, err := term.Decode[client.User](answer.JSON)
	if err != nil {
		return err
	}
	c.passOn(answer)
	reportRoles(c, before, after)
	if len(after.KeptRoles) > 0 {
		c.report("Kept, because they are not in the cluster's list \"grantable\": %s", strings.Join(after.KeptRoles, ", "))
	}
	return term.PrintUnlessTable(c.cmd, answer.JSON)
}

// readUser is the user that the first argument names, also as the server has sent it.
func readUser(c *call) (*client.User, json.RawMessage, error) {
	text, err := c.get(userPath(c), nil)
	if err != nil {
		return nil, nil, err
	}
	u, err := term.Decode[client.User](text)
	return u, text, err
}

func reportRoles(c *call, before, after *client.User) {
	c.report("Database user %q of cluster %q: added: %s; removed: %s; is now a member of: %s.", after.Username, c.cluster.Name,
		orNone(without(after.MemberOf, before.MemberOf)), orNone(without(before.MemberOf, after.MemberOf)),
		cmp.Or(memberships(after), "none"))
}

func without(roles, others []string) []string {
	return slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return slices.Contains(others, role) })
}

func orNone(roles []string) string { return cmp.Or(strings.Join(roles, ", "), "none") }

func grantableRoles(ctx context.Context, c *client.Client, of *client.ClusterRef) ([]string, error) {
	answer, err := c.Get(ctx, of.Path(), nil)
	if err != nil {
		return nil, err
	}
	cl, err := term.Decode[client.Cluster](answer.JSON)
	if err != nil {
		return nil, err
	}
	return cl.Grantable, nil
}

// completeGrantable offers the roles that can be granted in the cluster.
func completeGrantable(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	cmd.SetContext(ctx)
	c, err := connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cl, err := clusterOfFlag(cmd, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	roles, _ := grantableRoles(ctx, c, cl) // none after an error: a shell's prompt is no place for one
	return roles, cobra.ShellCompDirectiveNoFileComp
}

// completeHeirs offers whom objects can be reassigned to, and for whom there are leases: users that are not leases, roles
// that can be granted, and access roles.
func completeHeirs(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	ctx := cmd.Context()
	offered, _ := completeLasting(cmd, args, start)
	cmd.SetContext(ctx) // that of completeLasting has ended
	grantable, _ := completeGrantable(cmd, args, start)
	cmd.SetContext(ctx)
	databases, rest := completeWithRoles(cmd, args, start)
	offered = append(offered, grantable...)
	for _, database := range databases {
		offered = append(offered, database+"_owner", database+"_write", database+"_read")
	}
	return offered, rest
}

// deletion are the flags of users delete.
type deletion struct {
	plan, withMembers     bool
	reassignTo, onBlocked string
}

func usersDeleteCommand() *cobra.Command {
	var d deletion
	cmd := printing(&cobra.Command{
		Use:   "delete [NAME]",
		Short: "Delete a database user, or many",
		Long: `Delete drops the role and its privileges; it destroys no data. A user that owns objects is
not changed, and the error names the objects. --reassign-to gives them to another role. The
same goes for a user that other roles are members of: --with-members deletes it, and they
lose what they have by it.

--on-blocked disable turns off the login of a user that cannot be deleted.

--plan shows what a deletion would do and what prevents it, and changes nothing. Its exit
code is 1 if the deletion would be rejected, or if the plan is incomplete.

A deletion in a cluster with very many databases may run out of time after a part of the
work. Run the same command again to continue.

` + manyHelp,
		Example: `  rolecall users delete app -c payments --plan
  rolecall users delete --created-by eve --all-clusters --plan
  rolecall users delete app -c payments
  rolecall users delete app -c payments --reassign-to owner --yes`,
	})
	f := cmd.Flags()
	f.BoolVar(&d.plan, "plan", false, "show what would be done, and change nothing")
	f.StringVar(&d.reassignTo, "reassign-to", "", "`role` that becomes the owner of the user's objects")
	f.BoolVar(&d.withMembers, "with-members", false, "delete it although other roles lose what they have as its members")
	f.StringVar(&d.onBlocked, "on-blocked", "", "what to do with a user that cannot be deleted: `disable`")
	_ = cmd.RegisterFlagCompletionFunc("reassign-to", completeHeirs)
	term.CompleteWords(cmd, "on-blocked", "disable")
	term.BindYes(cmd)
	return oneOrMany(cmd, &many{}, completeUsers, func(c *call) error {
		if err := d.check(); err != nil {
			return err
		}
		if d.plan {
			return d.show(c)
		}
		return d.delete(c)
	}, d.request)
}

func (d *deletion) check() error {
	if d.onBlocked != "" && d.onBlocked != "disable" {
		return term.Usage("--on-blocked is %q; it must be disable", d.onBlocked)
	}
	return nil
}

// request is the options of the operation.
func (d *deletion) request(c *call) (action string, options map[string]any, err error) {
	if d.withMembers {
		return "", nil, term.Usage("--with-members is for one user")
	}
	options = map[string]any{}
	if c.given("reassign-to") {
		options["reassignTo"] = d.reassignTo
	}
	if d.onBlocked != "" {
		options["onBlocked"] = d.onBlocked
	}
	return "delete", options, d.check()
}

// query are the parameters of the request.
func (d *deletion) query(c *call) url.Values {
	query := url.Values{}
	if c.given("reassign-to") {
		query.Set("reassignTo", d.reassignTo)
	}
	if d.withMembers {
		query.Set("withMembers", "true")
	}
	if d.onBlocked != "" && !d.plan {
		query.Set("onBlocked", d.onBlocked)
	}
	return query
}

func (d *deletion) delete(c *call) error {
	name := c.args[0]
	if err := term.Confirm(c.cmd, "Delete database user %q of cluster %q?", name, c.cluster.Name); err != nil {
		return err
	}
	r := client.Request{Method: http.MethodDelete, Path: c.cluster.Path("users", name), Query: d.query(c)}
	answer, err := c.client.Do(c.cmd.Context(), r)
	if e, ok := errors.AsType[*client.Error](err); ok && e.Hint == "reassign" {
		e.Message += " Delete it with --reassign-to ROLE to give what it owns to another role."
	}
	if err != nil {
		return err
	}
	if answer.JSON != nil {
		c.report("Database user %q of cluster %q could not be deleted, and was disabled.", name, c.cluster.Name)
		return term.PrintUnlessTable(c.cmd, answer.JSON)
	}
	c.report("Database user %q of cluster %q was deleted.", name, c.cluster.Name)
	return nil
}

// show prints the plan of the deletion. It fails if the deletion would be rejected, or might be.
func (d *deletion) show(c *call) error {
	answer, err := c.get(c.cluster.Path("users", c.args[0], "deletion-plan"), d.query(c))
	if err != nil {
		return err
	}
	p, err := term.Decode[client.DeletionPlan](answer)
	if err != nil {
		return err
	}
	if err := printOne(c, answer, planFields); err != nil {
		return err
	}
	switch {
	case len(p.Blockers) > 0:
		return fmt.Errorf("the database user %q would not be deleted", c.args[0])
	case p.Unvisited > 0:
		return fmt.Errorf("the plan for %q is incomplete", c.args[0])
	}
	return nil
}

func planFields(_ *call, p *client.DeletionPlan) [][]string {
	fields := [][]string{{"would be rejected", term.YesNo(len(p.Blockers) > 0)}}
	for _, blocker := range p.Blockers {
		fields = append(fields, []string{"because", blocker})
	}
	fields = append(fields, []string{"sessions to end", strconv.Itoa(p.Sessions)})
	if p.Unvisited > 0 {
		fields = append(fields, []string{"incomplete", fmt.Sprintf("%d more databases were not checked for lack of time",
			p.Unvisited)})
	}
	for _, in := range p.Databases {
		for _, part := range []struct {
			name string
			client.Listing
		}{
			{"objects owned", in.Objects},
			{"of these, run as their owner", in.Definers},
			{"privileges to revoke", in.Privileges},
			{"default privileges to revoke", in.Defaults},
		} {
			if part.Count > 0 {
				fields = append(fields, []string{"database " + in.Name, part.name + ", " + part.Listing.String()})
			}
		}
	}
	return fields
}
