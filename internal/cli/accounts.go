package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func accountsCommand() *cobra.Command {
	return term.Group("accounts", "Accounts: the users and OAuth clients of Rolecall",
		accountsListCommand(), accountsShowCommand(), accountsCreateCommand(), accountsLabelCommand(), accountsAnnotateCommand(),
		accountsPasswdCommand(), accountsGrantCommand(), accountsDeactivateCommand(),
		accountsActivateCommand(), accountsDeleteCommand(), accountsOffboardCommand(), offboardingsCommand())
}

var completeAccounts = complete(fixed(client.AccountsPath), "username")

// account is an account as the server has sent it.
type account struct {
	client.Account
	json json.RawMessage
}

// findAccount finds an account by its user name or guid. A user name may look like a guid; then the guid takes precedence.
func findAccount(ctx context.Context, c *client.Client, nameOrGUID string) (*account, error) {
	parameters := []string{"name", "guid"}
	if uuid.Validate(nameOrGUID) == nil {
		slices.Reverse(parameters)
	}
	for _, parameter := range parameters {
		items, err := c.Items(ctx, client.AccountsPath, url.Values{parameter: {nameOrGUID}})
		if err != nil {
			return nil, err
		}
		found, err := term.DecodeAll[client.Account](items)
		if err != nil {
			return nil, err
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return &account{*found[0], items[0]}, nil
		}
		var guids []string
		for _, a := range found {
			guids = append(guids, a.GUID+" (origin "+a.Origin+")")
		}
		return nil, term.Usage("there are %d accounts %q; give the guid instead: %s", len(found), nameOrGUID,
			strings.Join(guids, ", "))
	}
	return nil, term.NotFound("There is no account %q that you may see.", nameOrGUID)
}

// onAccount completes a command on the account that its first argument names.
func onAccount(cmd *cobra.Command, run func(*call, *account) error) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = term.Arguments("ACCOUNT")
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = firstArgument(completeAccounts)
	}
	return onServer(cmd, func(c *call) error {
		a, err := findAccount(c.cmd.Context(), c.client, c.args[0])
		if err != nil {
			return err
		}
		return run(c, a)
	})
}

var accountHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "ORIGIN", Gives: term.Some}, {Title: "ACTIVE"}, {Title: "LABELS", Gives: term.Some},
	{Title: "SCOPES", Gives: term.More}, {Title: "GUID", Gives: term.Most},
}

func accountsListCommand() *cobra.Command {
	var selector string
	cmd := listing(&cobra.Command{
		Use:   "list",
		Short: "List accounts",
		Example: `  rolecall accounts list
  rolecall accounts list --selector 'team=payments,role in (dba,sre)'
  rolecall accounts list --filter active=no -o name`,
		Args: term.NoArguments,
	}, accountHead)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "only accounts whose labels match this `selector`")
	return onServer(cmd, list(func(*call) (string, url.Values) {
		if selector == "" {
			return client.AccountsPath, nil
		}
		return client.AccountsPath, url.Values{"selector": {selector}}
	}, accountHead, func(a *client.Account) []string {
		return []string{
			a.Name(), a.Origin, term.YesNo(a.Active), term.Pairs(a.Labels), strings.Join(a.Scopes, " "), a.GUID,
		}
	}))
}

func accountsShowCommand() *cobra.Command {
	return onAccount(printing(&cobra.Command{
		Use:     "show ACCOUNT",
		Short:   "Show an account",
		Long:    `Show prints an account. As everywhere, ACCOUNT is its user name or guid.`,
		Example: `  rolecall accounts show alice`,
	}), func(c *call, a *account) error { return printOne(c, a.json, accountFields) })
}

func accountFields(_ *call, a *client.Account) [][]string {
	return [][]string{
		{"user name", a.Username},
		{"origin", a.Origin},
		{"guid", a.GUID},
		{"active", term.YesNo(a.Active)},
		{"scopes", strings.Join(a.Scopes, " ")},
		{"labels", term.Pairs(a.Labels)},
		{"label sources", term.Pairs(a.LabelSources)},
		{"annotations", term.Pairs(a.Annotations)},
		{"created", term.Time(a.CreatedAt)},
	}
}

func accountsCreateCommand() *cobra.Command {
	var labels, scopes []string
	cmd := printing(&cobra.Command{
		Use:   "create USERNAME",
		Short: "Create an account",
		Long: `Create creates an account that signs in with a user name and a password. Its labels, by
the access rules of the clusters, and its scopes decide what it may do.`,
		Example: `  rolecall accounts create alice --label team=payments
  rolecall accounts create ci --label team=payments --generate
  rolecall accounts create root2 --scope cloud_controller.admin --password-stdin < password-file`,
		Args: term.Arguments("USERNAME"),
	})
	f := cmd.Flags()
	f.StringArrayVar(&labels, "label", nil, "`label` as key=value; repeatable")
	f.StringArrayVar(&scopes, "scope", nil, "`scope` in addition to those that every account gets; repeatable")
	_ = cmd.RegisterFlagCompletionFunc("scope", completeScopes)
	term.BindPassword(cmd, true)
	return onServer(cmd, func(c *call) error {
		set, err := entries(labels)
		if err != nil {
			return err
		}
		body := map[string]any{"username": c.args[0], "labels": set}
		if len(scopes) > 0 {
			if body["scopes"], err = withScopes(defaultScopes, scopes); err != nil {
				return err
			}
		}
		password, err := term.NewPassword(c.cmd, c.args[0])
		if err != nil {
			return err
		}
		body["password"] = password
		answer, err := c.send(http.MethodPost, client.AccountsPath, body)
		if err != nil {
			return err
		}
		c.report("Account %q was created.", c.args[0])
		return term.PrintWithPassword(c.cmd, answer, password)
	})
}

// entries reads key=value, and key- to remove a key.
func entries(args []string) (map[string]*string, error) {
	read := map[string]*string{}
	for _, arg := range args {
		key, value, set := strings.Cut(arg, "=")
		removed, remove := strings.CutSuffix(arg, "-")
		switch {
		case set:
			read[key] = &value
		case remove:
			read[removed] = nil
		default:
			return nil, term.Usage("%q is neither key=value nor key- (which removes the key)", arg)
		}
	}
	return read, nil
}

func accountsLabelCommand() *cobra.Command {
	return entriesCommand(&cobra.Command{
		Use:   "label ACCOUNT KEY=VALUE|KEY-...",
		Short: "Set or remove labels of an account",
		Long: `Label sets each KEY=VALUE and removes each KEY that is followed by a minus sign. The access
rules of the clusters depend on labels.`,
		Example: `  rolecall accounts label alice team=payments role=dba
  rolecall accounts label alice role-`,
	}, "labels", func(a *client.Account) map[string]string { return a.Labels })
}

func accountsAnnotateCommand() *cobra.Command {
	return entriesCommand(&cobra.Command{
		Use:   "annotate ACCOUNT KEY=VALUE|KEY-...",
		Short: "Set or remove annotations of an account",
		Long: `Annotate sets each KEY=VALUE and removes each KEY that is followed by a minus sign.
Annotations are notes for people; Rolecall does not interpret them.`,
		Example: `  rolecall accounts annotate alice contact='alice@example.org, room 12'
  rolecall accounts annotate alice contact-`,
	}, "annotations", func(a *client.Account) map[string]string { return a.Annotations })
}

// entriesCommand changes the labels or the annotations of an account.
func entriesCommand(cmd *cobra.Command, field string, of func(*client.Account) map[string]string) *cobra.Command {
	cmd.Args = term.Arguments("ACCOUNT", "KEY=VALUE...")
	return onAccount(printing(cmd), func(c *call, a *account) error {
		set, err := entries(c.args[1:])
		if err != nil {
			return err
		}
		return changeAccount(c, a, client.Request{Body: map[string]any{field: set}}, func(a *client.Account) {
			c.report("The %s of account %q are now: %s", field, a.Name(), cmp.Or(term.Pairs(of(a)), "none"))
		})
	})
}

// changeAccount sends a change of an account and reports what it is now.
func changeAccount(c *call, a *account, r client.Request, report func(*client.Account)) error {
	r.Method, r.Path = http.MethodPatch, a.Path()
	answer, err := c.client.Do(c.cmd.Context(), r)
	if err != nil {
		return err
	}
	changed, err := term.Decode[client.Account](answer.JSON)
	if err != nil {
		return err
	}
	report(changed)
	return term.PrintUnlessTable(c.cmd, answer.JSON)
}

func accountsPasswdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd [ACCOUNT]",
		Short: "Change your password, or that of another account",
		Long: `Passwd without ACCOUNT changes your own password, and asks for the current one first. With
--password-stdin the first line is the current password and the second line the new one.
An admin sets the password of any other account. A new password ends all sign-ins of the
account. If an admin sets it, it also deletes the personal access tokens.`,
		Example: `  rolecall accounts passwd
  rolecall accounts passwd alice --generate`,
		Args:              term.Arguments("[ACCOUNT]"),
		ValidArgsFunction: firstArgument(completeAccounts),
	}
	term.BindPassword(cmd, true)
	return onServer(cmd, func(c *call) error {
		me, err := whoami(c.cmd.Context(), c.client)
		if err != nil {
			return err
		}
		a := &account{Account: client.Account{GUID: me.Account.GUID, Username: me.Account.Username}}
		if len(c.args) > 0 {
			if a, err = findAccount(c.cmd.Context(), c.client, c.args[0]); err != nil {
				return err
			}
		}
		return setAccountPassword(c, a, a.GUID == me.Account.GUID)
	})
}

func setAccountPassword(c *call, a *account, own bool) error {
	body := map[string]any{}
	if own {
		current, err := term.Password(c.cmd, "Current password: ")
		if err != nil {
			return err
		}
		body["currentPassword"] = current
	}
	password, err := term.NewPassword(c.cmd, a.Name())
	if err != nil {
		return err
	}
	body["password"] = password
	if _, err := c.send(http.MethodPost, a.Path("password"), body); err != nil {
		return err
	}
	c.report("Account %q has a new password.", a.Name())
	// A generated password is printed before anything else may fail: this is its only copy.
	if err := term.PrintWithPassword(c.cmd, nil, password); err != nil || !own {
		return err
	}
	return signInAgain(c.cmd.Context(), c.client, a.Name(), password)
}

// knownScopes are the scopes that an account can have, and defaultScopes those that a new account gets.
var (
	knownScopes = []string{
		"cloud_controller.admin", "cloud_controller.admin_read_only", "cloud_controller.global_auditor",
		"cloud_controller.read", "cloud_controller.write", "scim.read", "scim.write",
	}
	defaultScopes  = []string{"cloud_controller.read", "cloud_controller.write"}
	completeScopes = cobra.FixedCompletions(knownScopes, cobra.ShellCompDirectiveNoFileComp)
)

// withScopes adds scopes, and removes each that is followed by a minus sign.
func withScopes(scopes, changes []string) ([]string, error) {
	scopes = append([]string{}, scopes...)
	for _, change := range changes {
		scope, remove := strings.CutSuffix(change, "-")
		if !slices.Contains(knownScopes, scope) {
			return nil, term.NotFound("There is no scope %q; see rolecall accounts grant --help", scope)
		}
		scopes = slices.DeleteFunc(scopes, func(s string) bool { return s == scope })
		if !remove {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

func accountsGrantCommand() *cobra.Command {
	return onAccount(printing(&cobra.Command{
		Use:   "grant ACCOUNT SCOPE|SCOPE-...",
		Short: "Grant or revoke scopes of an account",
		Long: `Grant grants each SCOPE, and revokes each SCOPE that is followed by a minus sign. It takes
effect with the account's next token, within twenty minutes.

    cloud_controller.admin            may do everything in every cluster, and set labels
    cloud_controller.admin_read_only  may read everything
    cloud_controller.global_auditor   may read everything
    cloud_controller.read             may read what its labels let it view; a default
    cloud_controller.write            may change what its labels let it manage; a default
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
	}), grantScopes)
}

// grantScopes replaces the scopes of the account. The precondition keeps what another change has granted in the meantime.
func grantScopes(c *call, a *account) error {
	answer, err := c.client.Get(c.cmd.Context(), a.Path(), nil)
	if err != nil {
		return err
	}
	current, err := term.Decode[client.Account](answer.JSON)
	if err != nil {
		return err
	}
	scopes, err := withScopes(current.Scopes, c.args[1:])
	if err != nil {
		return err
	}
	r := client.Request{Body: map[string]any{"scopes": scopes}, IfMatch: answer.ETag}
	return changeAccount(c, a, r, func(a *client.Account) {
		c.report("The scopes of account %q are now: %s", a.Name(), cmp.Or(strings.Join(a.Scopes, " "), "none"))
	})
}

func accountsDeactivateCommand() *cobra.Command {
	return setsActive(&cobra.Command{
		Use:   "deactivate ACCOUNT",
		Short: "Turn off an account",
		Long: `Deactivate turns off an account, which keeps its labels and scopes. It can no longer sign
in. Its sign-ins and personal access tokens end, and its leases end within a minute. The
database users that it has created are not changed.`,
		Example: `  rolecall accounts deactivate alice`,
	}, false, "Account %q is deactivated. Its tokens end within 5 seconds, and its leases within a minute.")
}

func accountsActivateCommand() *cobra.Command {
	return setsActive(&cobra.Command{
		Use:     "activate ACCOUNT",
		Short:   "Turn on an account that was deactivated",
		Example: `  rolecall accounts activate alice`,
	}, true, "Account %q is active.")
}

// setsActive completes a command that turns an account on or off.
func setsActive(cmd *cobra.Command, active bool, done string) *cobra.Command {
	return onAccount(printing(cmd), func(c *call, a *account) error {
		r := client.Request{Body: map[string]any{"active": active}}
		return changeAccount(c, a, r, func(a *client.Account) { c.report(done, a.Name()) })
	})
}

func accountsDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ACCOUNT",
		Short: "Delete an account",
		Long: `Delete deletes an account with its labels, and ends its sign-ins and tokens. The database
users that it has created are not changed.`,
		Example: `  rolecall accounts delete alice
  rolecall accounts delete alice --yes`,
	}
	term.BindYes(cmd)
	return onAccount(cmd, func(c *call, a *account) error {
		if err := term.Confirm(c.cmd, "Delete account %q (%s)?", a.Name(), a.GUID); err != nil {
			return err
		}
		if _, err := c.send(http.MethodDelete, a.Path(), nil); err != nil {
			return err
		}
		c.report("Account %q was deleted.", a.Name())
		return nil
	})
}
