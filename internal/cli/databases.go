package cli

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func databasesCommand() *cobra.Command {
	return term.Group("databases", "Databases of a cluster, and their access roles",
		databasesListCommand(), databasesShowCommand(), databasesCreateCommand(), databasesAccessRolesCommand(),
		databasesDeleteCommand())
}

// databasePath is the path of the database that the first argument names, or of something below it.
func databasePath(c *call, segments ...string) string {
	return client.Path(c.cluster.Path("databases", c.args[0]), segments...)
}

func databasesPath(cmd *cobra.Command, c *client.Client) (string, error) {
	cl, err := clusterOfFlag(cmd, c)
	if err != nil {
		return "", err
	}
	return cl.Path("databases"), nil
}

var (
	completeDatabases = complete(databasesPath, "name")
	completeWithRoles = completeFrom(databasesPath, "name", offer{with: "accessRoles"})
)

// ofDatabase completes a command on one database.
func ofDatabase(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Args = term.Arguments("NAME")
	cmd.ValidArgsFunction = firstArgument(completeDatabases)
	return onCluster(cmd, run)
}

func databasesListCommand() *cobra.Command {
	return onCluster(listing(&cobra.Command{
		Use:   "list",
		Short: "List the databases of a cluster",
		Example: `  rolecall databases list -c payments
  rolecall databases list -c payments --filter access-roles=no -o name`,
		Args: term.NoArguments,
	}, databaseHead), listDatabases)
}

var databaseHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "OWNER", Gives: term.Some}, {Title: "ACCESS ROLES"}, {Title: "SYSTEM",
		Gives: term.More},
	{Title: "CREATED BY", Gives: term.More}, {Title: "CREATED", Gives: term.Most},
}

func listDatabases(c *call) error {
	return printPages(c, c.cluster.Path("databases"), nil, databaseHead, func(databases []*client.Database) [][]string {
		var guids []string
		for _, d := range databases {
			guids = append(guids, d.CreatedBy)
		}
		names := accountNames(c, guids...)
		var rows [][]string
		for _, d := range databases {
			rows = append(rows, []string{
				d.Name, d.Owner, term.YesNo(d.AccessRoles), term.YesNo(d.System), names[d.CreatedBy], term.Time(d.CreatedAt),
			})
		}
		return rows
	})
}

func databasesShowCommand() *cobra.Command {
	return ofDatabase(printing(&cobra.Command{
		Use:   "show NAME",
		Short: "Show a database, and who has which level in it",
		Example: `  rolecall databases show shop -c payments
  rolecall databases show shop -c payments -o json`,
	}), show(func(c *call) string { return databasePath(c) }, databaseFields))
}

// databaseFields asks for the access roles, too: the database itself only says whether it has any.
func databaseFields(c *call, d *client.Database) [][]string {
	names := accountNames(c, d.CreatedBy)
	fields := [][]string{
		{"name", d.Name},
		{"cluster", c.cluster.Name},
		{"owner", d.Owner},
		{"system", term.YesNo(d.System)},
		{"created", timeBy(d.CreatedAt, names[d.CreatedBy])},
		{"access roles", term.YesNo(d.AccessRoles)},
	}
	if !d.AccessRoles {
		return fields
	}
	answer, err := c.get(databasePath(c, "access-roles"), nil)
	if err != nil {
		return append(fields, []string{"levels", err.Error()})
	}
	a, err := term.Decode[client.AccessRoles](answer)
	if err != nil {
		return append(fields, []string{"levels", err.Error()})
	}
	return append(fields, levelFields(a)...)
}

// levelFields are the access roles of a database, with their members.
func levelFields(a *client.AccessRoles) [][]string {
	schemas := strings.Join(a.Schemas, ", ")
	if slices.Equal(a.Schemas, []string{"*"}) {
		schemas = "all"
	}
	creators := "members of own"
	if a.Adopt {
		creators = "all owners"
	}
	fields := [][]string{{"schemas", schemas}, {"new objects of", creators}, {"complete", term.YesNo(a.Complete)}}
	for _, problem := range a.Problems {
		fields = append(fields, []string{"problem", problem})
	}
	for _, r := range a.Roles {
		fields = append(fields, []string{r.Level, r.Role + "; members: " + orNone(r.Members)})
	}
	return fields
}

func databasesCreateCommand() *cobra.Command {
	var owner string
	var accessRoles bool
	cmd := printing(&cobra.Command{
		Use:   "create NAME",
		Short: "Create a database",
		Long: `Create creates a database. With --access-roles it has the levels own, write and read from
the start: "rolecall users create --access NAME=write" creates a user that can use it. Its
owner is then NAME_owner, unless --owner names another role. Without --access-roles the
owner is the administering role of the cluster, unless --owner names another role.`,
		Example: `  rolecall databases create shop -c payments --access-roles
  rolecall databases create crm -c payments --owner crm_admin`,
		Args: term.Arguments("NAME"),
	})
	cmd.Flags().StringVar(&owner, "owner", "", "`role` that owns the database")
	cmd.Flags().BoolVar(&accessRoles, "access-roles", false, "create the access roles of the database as well")
	_ = cmd.RegisterFlagCompletionFunc("owner", completeHeirs)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return onCluster(cmd, func(c *call) error {
		body := map[string]any{"name": c.args[0], "accessRoles": accessRoles}
		if c.given("owner") {
			body["owner"] = owner
		}
		answer, err := c.client.Do(c.cmd.Context(),
			client.Request{Method: http.MethodPost, Path: c.cluster.Path("databases"), Body: body})
		if err != nil {
			return err
		}
		d, err := term.Decode[client.Database](answer.JSON)
		if err != nil {
			return err
		}
		with := ""
		if d.AccessRoles {
			with = " It has access roles."
		}
		c.report("Database %q was created in cluster %q. Its owner is %q.%s", d.Name, c.cluster.Name, d.Owner, with)
		c.passOn(answer)
		return term.PrintUnlessTable(c.cmd, answer.JSON)
	})
}

// accessRoles are the flags of databases access-roles.
type accessRoles struct {
	schemas             []string
	adopt, plan, remove bool
	reassignTo          string
}

func databasesAccessRolesCommand() *cobra.Command {
	var a accessRoles
	cmd := printing(&cobra.Command{
		Use:   "access-roles NAME",
		Short: "Create, complete or remove the access roles of a database",
		Long: `Access-roles gives a database three roles without a login: NAME_owner, NAME_write and
NAME_read. Their members have the levels own, write and read. If the roles exist, it adds
what they lack, such as rights in a schema that was created later. It prints the levels,
the roles and their members, and on standard error each statement that was run. A second
run changes nothing.

` + levelsHelp + `

Objects that members of own create belong to NAME_owner.

By default all schemas are covered: the objects that exist, and what members of own create
later. --schema covers only the given schemas. --adopt also covers what other owners create
later, and takes over roles of these names that exist.

PUBLIC loses the right to connect to the database and, on PostgreSQL 14, the right to
create objects in its schema public.

--plan prints the statements and runs none of them. --delete removes the access roles. It
refuses while they have members, or own something that --reassign-to gives to no other role.`,
		Example: `  rolecall databases access-roles shop -c payments
  rolecall databases access-roles shop -c payments --plan > plan.sql
  rolecall databases access-roles crm -c payments --adopt --schema crm --schema public
  rolecall databases access-roles shop -c payments --delete --reassign-to app`,
	})
	f := cmd.Flags()
	f.StringSliceVar(&a.schemas, "schema", nil, "`schema` to cover; repeatable; default: as it is, or '*', which is all")
	f.BoolVar(&a.adopt, "adopt", false, "also cover what other owners create later, and take over roles of these names")
	f.BoolVar(&a.plan, "plan", false, "print the statements for psql, and change nothing")
	f.BoolVar(&a.remove, "delete", false, "remove the access roles")
	f.StringVar(&a.reassignTo, "reassign-to", "", "with --delete: `role` that becomes the owner of what they own")
	_ = cmd.RegisterFlagCompletionFunc("reassign-to", completeHeirs)
	term.BindYes(cmd)
	return ofDatabase(cmd, func(c *call) error {
		if err := a.check(c); err != nil {
			return err
		}
		switch {
		case a.remove:
			return a.delete(c)
		case a.plan:
			return a.show(c)
		}
		return a.complete(c)
	})
}

// check refuses flags that cannot be combined.
func (a *accessRoles) check(c *call) error {
	if c.given("reassign-to") && !a.remove {
		return term.Usage("--reassign-to belongs to --delete; see %s --help", c.cmd.CommandPath())
	}
	for _, flag := range []string{"plan", "schema", "adopt"} {
		if a.remove && c.given(flag) {
			return term.Usage("--delete and --%s cannot be combined; see %s --help", flag, c.cmd.CommandPath())
		}
	}
	return nil
}

// put sends what is given; what is not stays as it is.
func (a *accessRoles) put(c *call, query url.Values) (*client.Answer, *client.AccessRoles, error) {
	body := map[string]any{}
	if c.given("schema") {
		body["schemas"] = append([]string{}, a.schemas...)
	}
	if c.given("adopt") {
		body["adopt"] = a.adopt
	}
	answer, err := c.client.Do(c.cmd.Context(), client.Request{
		Method: http.MethodPut, Path: databasePath(c, "access-roles"), Query: query, Body: body,
	})
	if err != nil {
		return nil, nil, err
	}
	roles, err := term.Decode[client.AccessRoles](answer.JSON)
	return &answer, roles, err
}

func (a *accessRoles) complete(c *call) error {
	answer, roles, err := a.put(c, nil)
	if err != nil {
		return err
	}
	for _, s := range roles.Statements {
		c.report("in %s: %s", s.Database, s.SQL)
	}
	c.report("Database %q of cluster %q has access roles. Statements run: %d.", c.args[0], c.cluster.Name,
		len(roles.Statements))
	if !roles.Complete {
		c.warn("Warning: they are not complete. To see what is missing: rolecall databases access-roles --plan")
	}
	c.passOn(*answer)
	return printOne(c, answer.JSON, func(_ *call, a *client.AccessRoles) [][]string { return levelFields(a) })
}

// show prints the statements that complete would run.
func (a *accessRoles) show(c *call) error {
	answer, roles, err := a.put(c, url.Values{"plan": {"true"}})
	if err != nil {
		return err
	}
	if !term.IsTable(c.cmd) {
		return term.PrintData(c.cmd, answer.JSON)
	}
	script, err := psqlScript(roles.Statements)
	if err != nil {
		return err
	}
	for _, problem := range roles.Problems {
		c.warn("Problem: %s", problem)
	}
	c.passOn(*answer)
	c.report("Statements that would be run: %d. Nothing was changed.", len(roles.Statements))
	return term.PrintScript(c.cmd, script)
}

func (a *accessRoles) delete(c *call) error {
	if err := term.Confirm(c.cmd, "Remove the access roles of database %q of cluster %q?", c.args[0],
		c.cluster.Name); err != nil {
		return err
	}
	query := url.Values{}
	if c.given("reassign-to") {
		query.Set("reassignTo", a.reassignTo)
	}
	_, err := c.client.Do(c.cmd.Context(), client.Request{
		Method: http.MethodDelete, Path: databasePath(c, "access-roles"), Query: query,
	})
	if e, ok := errors.AsType[*client.Error](err); ok && e.Hint == "reassign" {
		e.Message += " Add --reassign-to ROLE to give what they own to another role."
	}
	if err != nil {
		return err
	}
	c.report("The access roles of database %q of cluster %q were removed.", c.args[0], c.cluster.Name)
	return nil
}

func databasesDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a database with everything in it",
		Long: `Delete drops a database with everything in it, and its access roles. Their members stay, and
lose their level; the prompt names them. Delete refuses while sessions use the database, and
if something elsewhere depends on an access role. Only a backup can bring the database back.`,
		Example: `  rolecall databases delete shop -c payments
  rolecall databases delete shop -c payments --yes`,
	}
	term.BindYes(cmd)
	return ofDatabase(cmd, func(c *call) error {
		if term.Asks(c.cmd) {
			if err := warnOfLostLevels(c); err != nil {
				return err
			}
		}
		if err := term.Confirm(c.cmd, "Delete database %q of cluster %q, with everything in it?", c.args[0],
			c.cluster.Name); err != nil {
			return err
		}
		if _, err := c.send(http.MethodDelete, databasePath(c), nil); err != nil {
			return err
		}
		c.report("Database %q of cluster %q was deleted.", c.args[0], c.cluster.Name)
		return nil
	})
}

// mostNamed is how many users a warning names at most.
const mostNamed = 20

// warnOfLostLevels names the users that lose a level with a database.
func warnOfLostLevels(c *call) error {
	answer, err := c.get(databasePath(c), nil)
	if err != nil {
		return err
	}
	d, err := term.Decode[client.Database](answer)
	if err != nil || !d.AccessRoles {
		return err
	}
	if answer, err = c.get(databasePath(c, "access-roles"), nil); err != nil {
		return err
	}
	a, err := term.Decode[client.AccessRoles](answer)
	if err != nil {
		return err
	}
	var users []string
	for _, r := range a.Roles {
		for _, member := range r.Members {
			users = append(users, member+" ("+r.Level+")")
		}
	}
	if len(users) > 0 {
		c.warn("Users that lose their level, %s.", client.Listing{Count: len(users), First: users[:min(len(users), mostNamed)]})
	}
	return nil
}
