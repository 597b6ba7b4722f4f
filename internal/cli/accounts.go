package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func accountsCommand() *cobra.Command {
	return term.Group("accounts", "Accounts: the people and programs that use Rolecall",
		accountsListCommand(), accountsShowCommand(), accountsCreateCommand(), accountsLabelCommand(), accountsAnnotateCommand(),
		accountsPasswdCommand(), accountsGrantCommand(), accountsDeleteCommand())
}

// An account has two facets, which the API keeps apart: the identity signs in, the platform user has labels. These
// commands show and change both as one.

type metadata struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type platformUser struct {
	GUID      string    `json:"guid"`
	Username  string    `json:"username"`
	Origin    string    `json:"origin"`
	CreatedAt time.Time `json:"created_at"`
	Metadata  metadata  `json:"metadata"`
}

type identityUser struct {
	ID       string `json:"id"`
	UserName string `json:"userName"`
	Origin   string `json:"origin"`
	Active   bool   `json:"active"`
	Groups   []struct {
		Display string `json:"display"`
	} `json:"groups"`
	Meta struct {
		Created time.Time `json:"created"`
	} `json:"meta"`
}

// facets is an account with both.
type facets struct {
	GUID         string            `json:"guid"`
	Username     string            `json:"username"`
	Origin       string            `json:"origin"`
	Identity     *bool             `json:"identity"`     // it can sign in, unless it is inactive; null: the caller may not know
	PlatformUser bool              `json:"platformUser"` // it has labels and annotations
	Active       bool              `json:"active"`
	Scopes       []string          `json:"scopes"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	CreatedAt    time.Time         `json:"createdAt"`
}

func (a *facets) takePlatform(u *platformUser) {
	a.GUID, a.Username, a.Origin, a.CreatedAt = u.GUID, u.Username, u.Origin, u.CreatedAt
	a.PlatformUser, a.Labels, a.Annotations = true, u.Metadata.Labels, u.Metadata.Annotations
}

func (a *facets) takeIdentity(u *identityUser) {
	a.GUID, a.Username, a.Origin, a.CreatedAt = u.ID, u.UserName, u.Origin, u.Meta.Created
	a.Identity, a.Active = new(true), u.Active
	for _, g := range u.Groups {
		a.Scopes = append(a.Scopes, g.Display)
	}
}

// name is what people call the account.
func (a *facets) name() string { return cmp.Or(a.Username, a.GUID) }

func (a *facets) signIn() string {
	switch {
	case a.Identity == nil:
		return "?"
	case !*a.Identity:
		return "no"
	case !a.Active:
		return "inactive"
	}
	return "yes"
}

// accounts reads both facets of the accounts that the two queries select, sorted by name. Who may not read identities
// still sees what there is of platform users.
func accounts(ctx context.Context, c *client.Client, ofPlatform, ofIdentity url.Values) ([]*facets, error) {
	byGUID := map[string]*facets{}
	platform, err := c.Pages(ctx, "/v3/users", ofPlatform)
	if err != nil {
		return nil, err
	}
	for _, item := range platform {
		u, err := term.Decode[platformUser](item)
		if err != nil {
			return nil, err
		}
		byGUID[u.GUID] = &facets{Scopes: []string{}, Labels: map[string]string{}, Annotations: map[string]string{}}
		byGUID[u.GUID].takePlatform(u)
	}
	identities, err := c.Resources(ctx, "/uaa/Users", ofIdentity)
	if client.Status(err) != http.StatusForbidden {
		if err != nil {
			return nil, err
		}
		for _, a := range byGUID {
			a.Identity = new(false)
		}
	}
	for _, item := range identities {
		u, err := term.Decode[identityUser](item)
		if err != nil {
			return nil, err
		}
		if byGUID[u.ID] == nil {
			byGUID[u.ID] = &facets{Scopes: []string{}, Labels: map[string]string{}, Annotations: map[string]string{}}
		}
		byGUID[u.ID].takeIdentity(u)
	}
	all := make([]*facets, 0, len(byGUID))
	for _, a := range byGUID {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *facets) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.name()), strings.ToLower(b.name())), strings.Compare(a.GUID, b.GUID))
	})
	return all, nil
}

// findAccount finds an account by its user name or guid.
func findAccount(ctx context.Context, c *client.Client, nameOrGUID string) (*facets, error) {
	quoted, err := json.Marshal(nameOrGUID)
	if err != nil {
		return nil, err
	}
	var found []*facets
	for _, name := range []string{"guids", "usernames"} {
		attribute := map[string]string{"guids": "id", "usernames": "userName"}[name]
		some, err := accounts(ctx, c, url.Values{name: {cfValues(nameOrGUID)}}, url.Values{"filter": {attribute + " eq " + string(quoted)}})
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	switch len(found) {
	case 0:
		return nil, term.NotFound("There is no account %q that you may see.", nameOrGUID)
	case 1:
		return found[0], nil
	}
	var guids []string
	for _, a := range found {
		guids = append(guids, a.GUID+" (origin "+a.Origin+")")
	}
	return nil, term.Usage("there are %d accounts %q; say which by its guid: %s", len(found), nameOrGUID, strings.Join(guids, ", "))
}

func (a *facets) platformPath() string { return client.Path("/v3/users", a.GUID) }
func (a *facets) identityPath() string { return client.Path("/uaa/Users", a.GUID) }

func accountsListCommand() *cobra.Command {
	var selector string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List accounts",
		Example: `  rolecall accounts list
  rolecall accounts list --selector 'team=payments,role in (dba,sre)'`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var query url.Values
			if selector != "" {
				query = url.Values{"label_selector": {selector}}
			}
			all, err := accounts(cmd.Context(), c, query, nil)
			if err != nil {
				return err
			}
			if selector != "" { // what has no labels is not selected
				all = slices.DeleteFunc(all, func(a *facets) bool { return !a.PlatformUser })
			}
			if term.Format(cmd) != "table" {
				return term.PrintData(cmd, all)
			}
			rows := [][]string{{"NAME", "ORIGIN", "SIGN-IN", "LABELS", "SCOPES", "GUID"}}
			for _, a := range all {
				rows = append(rows, []string{a.name(), a.Origin, a.signIn(), term.Pairs(a.Labels), strings.Join(a.Scopes, " "), a.GUID})
			}
			return term.PrintTable(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "list those whose labels match this `selector`")
	term.BindOutput(cmd)
	return cmd
}

func accountsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show ACCOUNT",
		Short:             "Show an account",
		Long:              `Show prints an account, which is given by its user name or guid, as everywhere.`,
		Example:           `  rolecall accounts show alice`,
		Args:              term.Arguments("ACCOUNT"),
		ValidArgsFunction: firstArgument(completeAccounts),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			a, err := findAccount(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return a.print(cmd)
		},
	}
	term.BindOutput(cmd)
	return cmd
}

func (a *facets) print(cmd *cobra.Command) error {
	if term.Format(cmd) != "table" {
		return term.PrintData(cmd, a)
	}
	return term.PrintFields(cmd.OutOrStdout(), [][]string{
		{"user name", a.Username},
		{"origin", a.Origin},
		{"guid", a.GUID},
		{"sign-in", a.signIn()},
		{"scopes", strings.Join(a.Scopes, " ")},
		{"labels", term.Pairs(a.Labels)},
		{"annotations", term.Pairs(a.Annotations)},
		{"created", term.Time(&a.CreatedAt)},
	})
}

func accountsCreateCommand() *cobra.Command {
	var labels, scopes []string
	cmd := &cobra.Command{
		Use:   "create USERNAME",
		Short: "Create an account",
		Long: `Create makes an account that can sign in with a user name and a password. What it may do
follows from its labels, by the access rules of the clusters, and from its scopes.`,
		Example: `  rolecall accounts create alice --label team=payments
  rolecall accounts create ci --label team=payments --generate
  rolecall accounts create root2 --scope cloud_controller.admin --password-stdin < password-file`,
		Args: term.Arguments("USERNAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := changes(labels, false)
			if err != nil {
				return err
			}
			c, err := connect()
			if err != nil {
				return err
			}
			groups, err := findGroups(cmd.Context(), c, scopes)
			if err != nil {
				return err
			}
			secret, err := term.NewPassword(cmd, args[0])
			if err != nil {
				return err
			}
			a, err := createAccount(cmd.Context(), c, args[0], secret, change, groups)
			if err != nil {
				return err
			}
			term.Report(cmd, "Account %q was created.", args[0])
			answer, err := json.Marshal(a)
			if err != nil {
				return err
			}
			return term.PrintWithPassword(cmd, answer, secret)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&labels, "label", nil, "`label` as key=value; repeatable")
	f.StringArrayVar(&scopes, "scope", nil, "`scope` beyond those that every account has; repeatable")
	_ = cmd.RegisterFlagCompletionFunc("scope", completeScopes)
	term.BindPassword(cmd, true)
	term.BindOutput(cmd)
	return cmd
}

// createAccount makes both facets. When the second cannot be made, the first is removed again.
func createAccount(ctx context.Context, c *client.Client, username, password string, labels map[string]*string, groups map[string]string) (*facets, error) {
	answer, err := c.Do(ctx, http.MethodPost, "/uaa/Users", nil, map[string]any{"userName": username, "password": password})
	if err != nil {
		return nil, err
	}
	u, err := term.Decode[identityUser](answer.JSON)
	if err != nil {
		return nil, err
	}
	a := &facets{GUID: u.ID}
	_, err = c.Do(ctx, http.MethodPost, "/v3/users", nil, map[string]any{"guid": u.ID, "metadata": map[string]any{"labels": labels}})
	for _, group := range groups {
		if err == nil {
			err = a.setScope(ctx, c, group, true)
		}
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if undoErr := a.delete(undo, c); undoErr != nil {
			err = fmt.Errorf("%w The account was made halfway, and could not be removed again: %w", err, undoErr)
		}
		return nil, err
	}
	return findAccount(ctx, c, u.ID)
}

// delete removes the facets that there are.
func (a *facets) delete(ctx context.Context, c *client.Client) error {
	for _, path := range []string{a.platformPath(), a.identityPath()} {
		if _, err := c.Do(ctx, http.MethodDelete, path, nil, nil); err != nil && client.Status(err) != http.StatusNotFound {
			return err
		}
	}
	return nil
}

// changes reads key=value and, to remove a key, key-.
func changes(args []string, remove bool) (map[string]*string, error) {
	change := map[string]*string{}
	for _, arg := range args {
		key, value, set := strings.Cut(arg, "=")
		removed := strings.TrimSuffix(arg, "-")
		switch {
		case set:
			change[key] = &value
		case remove && removed != arg:
			change[removed] = nil
		case remove:
			return nil, term.Usage("%q is neither key=value nor key- (which removes the key)", arg)
		default:
			return nil, term.Usage("%q is not of the form key=value", arg)
		}
	}
	return change, nil
}

func accountsLabelCommand() *cobra.Command {
	cmd := metadataCommand("label", "labels", func(a *facets) map[string]string { return a.Labels })
	cmd.Short = "Set or remove labels of an account"
	cmd.Long = `Label sets each KEY=VALUE and removes each KEY that is followed by a minus sign. The access
rules of the clusters decide by labels.`
	cmd.Example = `  rolecall accounts label alice team=payments role=dba
  rolecall accounts label alice role-`
	return cmd
}

func accountsAnnotateCommand() *cobra.Command {
	cmd := metadataCommand("annotate", "annotations", func(a *facets) map[string]string { return a.Annotations })
	cmd.Short = "Set or remove annotations of an account"
	cmd.Long = `Annotate sets each KEY=VALUE and removes each KEY that is followed by a minus sign.
Annotations are for people; nothing is decided by them.`
	cmd.Example = `  rolecall accounts annotate alice contact='alice@example.org, room 12'
  rolecall accounts annotate alice contact-`
	return cmd
}

func metadataCommand(name, section string, of func(*facets) map[string]string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               name + " ACCOUNT KEY=VALUE|KEY-...",
		Args:              term.Arguments("ACCOUNT", "KEY=VALUE..."),
		ValidArgsFunction: firstArgument(completeAccounts),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return term.Usage("say what to set or remove: KEY=VALUE or KEY-")
			}
			change, err := changes(args[1:], true)
			if err != nil {
				return err
			}
			c, err := connect()
			if err != nil {
				return err
			}
			a, err := findAccount(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if !a.PlatformUser {
				if _, err := c.Do(cmd.Context(), http.MethodPost, "/v3/users", nil, map[string]any{"guid": a.GUID}); err != nil {
					return err
				}
			}
			body := map[string]any{"metadata": map[string]any{section: change}}
			answer, err := c.Do(cmd.Context(), http.MethodPatch, a.platformPath(), nil, body)
			if err != nil {
				return err
			}
			u, err := term.Decode[platformUser](answer.JSON)
			if err != nil {
				return err
			}
			a.PlatformUser, a.Labels, a.Annotations = true, u.Metadata.Labels, u.Metadata.Annotations
			term.Report(cmd, "The %s of account %q are now: %s", section, a.name(), cmp.Or(term.Pairs(of(a)), "none"))
			return term.PrintUnlessTable(cmd, a)
		},
	}
	term.BindOutput(cmd)
	return cmd
}

func accountsPasswdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd [ACCOUNT]",
		Short: "Change your password, or that of another account",
		Long: `Passwd without ACCOUNT changes your own password and asks for the present one first; with
--password-stdin that is the first line and the new one the second. An admin gives any
other account a new password. It ends all sign-ins of the account, and if it is another
one its personal access tokens.`,
		Example: `  rolecall accounts passwd
  rolecall accounts passwd alice --generate`,
		Args:              term.Arguments("[ACCOUNT]"),
		ValidArgsFunction: firstArgument(completeAccounts),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			me, err := whoami(cmd.Context(), c)
			if err != nil {
				return err
			}
			a := &facets{GUID: me.Account.GUID, Username: me.Account.Username}
			if len(args) > 0 {
				if a, err = findAccount(cmd.Context(), c, args[0]); err != nil {
					return err
				}
			}
			body := map[string]any{}
			if a.GUID == me.Account.GUID {
				if body["oldPassword"], err = term.Password(cmd, "Current password: "); err != nil {
					return err
				}
			}
			secret, err := term.NewPassword(cmd, a.name())
			if err != nil {
				return err
			}
			body["password"] = secret
			if _, err := c.Do(cmd.Context(), http.MethodPut, a.identityPath()+"/password", nil, body); err != nil {
				return err
			}
			term.Report(cmd, "Account %q has a new password.", a.name())
			if a.GUID == me.Account.GUID {
				if err := signInAgain(cmd.Context(), c, secret); err != nil {
					return err
				}
			}
			return term.PrintWithPassword(cmd, nil, secret)
		},
	}
	term.BindPassword(cmd, true)
	return cmd
}

func accountsGrantCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grant ACCOUNT SCOPE|SCOPE-...",
		Short: "Give or take scopes of an account",
		Long: `Grant gives each SCOPE and takes each SCOPE that is followed by a minus sign. The sign-ins
of the account have them from their next token on, within twenty minutes.

    cloud_controller.admin            may do everything in every cluster, and set labels
    cloud_controller.admin_read_only  may read everything
    cloud_controller.global_auditor   may read everything
    cloud_controller.read             may read what the labels let it view; given at creation
    cloud_controller.write            may change what the labels let it manage; given at creation
    scim.read                         may read accounts and their scopes
    scim.write                        may change accounts and their scopes`,
		Example: `  rolecall accounts grant alice cloud_controller.global_auditor
  rolecall accounts grant alice cloud_controller.write-`,
		Args: term.Arguments("ACCOUNT", "SCOPE..."),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeAccounts(cmd, args, start)
			}
			return completeScopes(cmd, args, start)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			scopes := make([]string, len(args)-1)
			for i, arg := range args[1:] {
				scopes[i] = strings.TrimSuffix(arg, "-")
			}
			groups, err := findGroups(cmd.Context(), c, scopes)
			if err != nil {
				return err
			}
			a, err := findAccount(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			for i, scope := range scopes {
				give := args[i+1] == scope
				if slices.Contains(a.Scopes, scope) == give {
					continue
				}
				if err := a.setScope(cmd.Context(), c, groups[scope], give); err != nil {
					return err
				}
			}
			if a, err = findAccount(cmd.Context(), c, a.GUID); err != nil {
				return err
			}
			term.Report(cmd, "The scopes of account %q are now: %s", a.name(), cmp.Or(strings.Join(a.Scopes, " "), "none"))
			return term.PrintUnlessTable(cmd, a)
		},
	}
	term.BindOutput(cmd)
	return cmd
}

// setScope gives or takes a scope, which is named by its group.
func (a *facets) setScope(ctx context.Context, c *client.Client, group string, give bool) error {
	path := client.Path("/uaa/Groups", group, "members")
	var err error
	if give {
		_, err = c.Do(ctx, http.MethodPost, path, nil, map[string]any{"value": a.GUID, "type": "USER"})
	} else {
		_, err = c.Do(ctx, http.MethodDelete, client.Path(path, a.GUID), nil, nil)
	}
	return err
}

// findGroups returns the ids of the groups that stand for the scopes.
func findGroups(ctx context.Context, c *client.Client, scopes []string) (map[string]string, error) {
	found := map[string]string{}
	if len(scopes) == 0 {
		return found, nil
	}
	all, err := groupIDs(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, scope := range scopes {
		if all[scope] == "" {
			return nil, term.NotFound("There is no scope %q; see rolecall accounts grant --help", scope)
		}
		found[scope] = all[scope]
	}
	return found, nil
}

func groupIDs(ctx context.Context, c *client.Client) (map[string]string, error) {
	items, err := c.Resources(ctx, "/uaa/Groups", nil)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, item := range items {
		g, err := term.Decode[struct{ ID, DisplayName string }](item)
		if err != nil {
			return nil, err
		}
		ids[g.DisplayName] = g.ID
	}
	return ids, nil
}

func accountsDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ACCOUNT",
		Short: "Delete an account",
		Long: `Delete removes an account with its labels, and ends its sign-ins and tokens. The database
users that it has made stay.`,
		Example: `  rolecall accounts delete alice
  rolecall accounts delete alice --yes`,
		Args:              term.Arguments("ACCOUNT"),
		ValidArgsFunction: firstArgument(completeAccounts),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			a, err := findAccount(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := term.Confirm(cmd, "Delete account %q (%s)?", a.name(), a.GUID); err != nil {
				return err
			}
			if err := a.delete(cmd.Context(), c); err != nil {
				return err
			}
			term.Report(cmd, "Account %q was deleted.", a.name())
			return nil
		},
	}
	term.BindYes(cmd)
	return cmd
}

func completeAccounts(cmd *cobra.Command, _ []string, start string) ([]string, cobra.ShellCompDirective) {
	names, err := accountNamesWith(cmd, start)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func accountNamesWith(cmd *cobra.Command, start string) ([]string, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	if start != "" {
		query.Set("partial_usernames", cfValues(start))
	}
	items, err := c.Pages(cmd.Context(), "/v3/users", query)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, item := range items {
		u, err := term.Decode[platformUser](item)
		if err != nil {
			return nil, err
		}
		if u.Username != "" {
			names = append(names, u.Username)
		}
	}
	return names, nil
}

// allScopes are the scopes that an account can have.
var allScopes = []string{
	"cloud_controller.admin", "cloud_controller.admin_read_only", "cloud_controller.global_auditor",
	"cloud_controller.read", "cloud_controller.write", "scim.read", "scim.write",
}

var completeScopes = cobra.FixedCompletions(allScopes, cobra.ShellCompDirectiveNoFileComp)
