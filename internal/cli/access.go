package cli

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// level is a level in a database, as the flags have it: shop=write.
type level struct {
	Database string `json:"database"`
	Level    string `json:"level"`
}

// parseLevels reads the values of a flag. The name of a database may contain a =, a level does not.
func parseLevels(flag string, values []string) ([]level, error) {
	var levels []level
	for _, value := range values {
		at := strings.LastIndex(value, "=")
		if at <= 0 {
			return nil, term.Usage("--%s is %q; use DATABASE=LEVEL, such as shop=write", flag, value)
		}
		l := level{value[:at], value[at+1:]}
		if !slices.Contains(client.Levels, l.Level) {
			return nil, term.Usage("--%s is %q: there is no level %q; use own, write or read%s", flag, value, l.Level,
				term.DidYouMean(l.Level, client.Levels))
		}
		if slices.ContainsFunc(levels, func(other level) bool { return other.Database == l.Database }) {
			return nil, term.Usage("--%s names the database %q twice; a user has one level in it", flag, l.Database)
		}
		levels = append(levels, l)
	}
	return levels, nil
}

// completeLevels offers the databases that have access roles, and after the = the levels.
func completeLevels(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	before, last := start[:strings.LastIndex(start, ",")+1], start[strings.LastIndex(start, ",")+1:]
	var offered []string
	if at := strings.LastIndex(last, "="); at > 0 {
		for _, l := range client.Levels {
			offered = append(offered, before+last[:at+1]+l)
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
	databases, _ := completeWithRoles(cmd, args, start)
	for _, database := range databases {
		offered = append(offered, before+database+"=")
	}
	return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// accessChange are the flags of users access.
type accessChange struct{ set, remove []string }

// levelsHelp is part of the help of the commands that give levels.
const levelsHelp = `    own    create and change everything in the database
    write  read and change the rows of all tables, and use sequences
    read   read all tables and sequences`

func usersAccessCommand() *cobra.Command {
	var a accessChange
	cmd := &cobra.Command{
		Use:   "access NAME",
		Short: "Show what a database user can do and why, or set its levels",
		Long: `Access shows in which databases a user has which level, by which roles, and what was
granted to the user itself. Then it lists all roles that the user is a member of, directly
or through others. -o json prints all of it.

--set gives the user a level in a database that has access roles, in place of the level
that it has there. --remove takes the level away. Both take effect at once, also in open
sessions. Sessions in the database are ended if the user loses the level own.

` + levelsHelp,
		Example: `  rolecall users access app -c payments
  rolecall users access app -c payments --set shop=write
  rolecall users access app -c payments --set shop=read --set crm=own
  rolecall users access app -c payments --remove shop`,
	}
	term.BindTable(cmd)
	cmd.Flags().StringSliceVar(&a.set, "set", nil, "`database=level` to set: own, write or read; repeatable")
	cmd.Flags().StringSliceVar(&a.remove, "remove", nil, "`database` in which the user loses its level; repeatable")
	_ = cmd.RegisterFlagCompletionFunc("set", completeLevels)
	_ = cmd.RegisterFlagCompletionFunc("remove", completeDatabases)
	return ofUser(cmd, func(c *call) error {
		if !c.given("set") && !c.given("remove") {
			return showAccess(c)
		}
		return a.change(c)
	})
}

// change makes one change after the other: each is a request of its own.
func (a *accessChange) change(c *call) error {
	levels, err := parseLevels("set", a.set)
	if err != nil {
		return err
	}
	for _, database := range a.remove {
		if slices.ContainsFunc(levels, func(l level) bool { return l.Database == database }) {
			return term.Usage("--set and --remove both name the database %q", database)
		}
	}
	for _, database := range a.remove {
		r := client.Request{Method: http.MethodDelete, Path: c.cluster.Path("users", c.args[0], "access", database)}
		if err := c.do(r); err != nil {
			return err
		}
		c.report("Database user %q of cluster %q has no level in database %q.", c.args[0], c.cluster.Name, database)
	}
	for _, l := range levels {
		r := client.Request{Method: http.MethodPut, Path: c.cluster.Path("users", c.args[0], "access", l.Database),
			Body: map[string]string{"level": l.Level}}
		if err := c.do(r); err != nil {
			return err
		}
		c.report("Database user %q of cluster %q has the level %s in database %q.", c.args[0], c.cluster.Name, l.Level,
			l.Database)
	}
	if term.IsTable(c.cmd) {
		return nil
	}
	return showAccess(c)
}

// do sends a change whose answer says nothing new.
func (c *call) do(r client.Request) error {
	answer, err := c.client.Do(c.cmd.Context(), r)
	if err == nil {
		c.passOn(answer)
	}
	return err
}

// passOn repeats what the server warns of.
func (c *call) passOn(a client.Answer) {
	if a.Warning != "" {
		c.warn("Warning: %s", a.Warning)
	}
}

var (
	accessHead = term.Head{{Title: "DATABASE"}, {Title: "LEVEL"}, {Title: "BY", Gives: term.Some}, {Title: "CONNECT"}}
	grantHead  = term.Head{{Title: "DATABASE"}, {Title: "GRANTED TO THE USER ITSELF", Gives: term.Some}}
	pathHead   = term.Head{{Title: "ROLE"}, {Title: "PATH", Gives: term.Some}, {Title: "ITS RIGHTS"}}
)

// showAccess prints a table of the databases in which the user can do something, one of its grants, and one of its roles.
func showAccess(c *call) error {
	if err := term.CheckTable(c.cmd); err != nil {
		return err
	}
	answer, err := c.get(c.cluster.Path("users", c.args[0], "access"), nil)
	if err != nil {
		return err
	}
	if !term.IsTable(c.cmd) {
		return term.PrintData(c.cmd, answer)
	}
	a, err := term.Decode[client.EffectiveAccess](answer)
	if err != nil {
		return err
	}
	var databases, grants, roles [][]string
	for _, d := range a.Databases {
		granted := grantTexts(d.Grants)
		if d.Problem != "" {
			granted = append(granted, d.Problem)
		}
		for _, text := range granted {
			grants = append(grants, []string{d.Database, text})
		}
		if d.Level == "" && !d.Connect && len(granted) == 0 {
			continue
		}
		level := d.Level
		if level == "" {
			level = "none"
		}
		databases = append(databases, []string{d.Database, level, strings.Join(d.Via, ", "), term.YesNo(d.Connect)})
	}
	for _, m := range a.Memberships {
		roles = append(roles, []string{m.Role, strings.Join(append([]string{a.Username}, m.Path...), " > "),
			rightsBy(m.Inherit, m.Set)})
	}
	if err := term.TableOf(c.cmd, accessHead).Print(databases); err != nil {
		return err
	}
	if err := c.printMore(grantHead, grants); err != nil {
		return err
	}
	return c.printMore(pathHead, roles)
}

// printMore prints one more table, if it has rows.
func (c *call) printMore(head term.Head, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(c.cmd.OutOrStdout()); err != nil {
		return err
	}
	return term.TableOf(c.cmd, head).Print(rows)
}

// grantTexts are like "SELECT on 3 tables".
func grantTexts(grants []client.GrantCount) []string {
	var texts []string
	for _, g := range grants {
		kind := g.Kind
		if g.Count != 1 {
			kind += "s"
		}
		texts = append(texts, fmt.Sprintf("%s on %d %s", g.Privilege, g.Count, kind))
	}
	return texts
}

// rightsBy says when a member has the rights of a role.
func rightsBy(inherit, set bool) string {
	switch {
	case inherit:
		return "always"
	case set:
		return "after SET ROLE"
	}
	return "never"
}
