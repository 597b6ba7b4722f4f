package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

// leaverActions are the values of --users.
var leaverActions = []string{"disable", "expire=7d", "end-sessions", "keep"}

func accountsOffboardCommand() *cobra.Command {
	var users string
	var plan bool
	cmd := printing(&cobra.Command{
		Use:   "offboard ACCOUNT",
		Short: "Turn off an account, and find all that it could still use",
		Long: `Offboard turns off the account of somebody who leaves. Its tokens and sign-ins end within 5
seconds, and its leases within a minute. It lists every database user whose password the
account made or set last, in all clusters, and what becomes of each:

    keep          nothing; the default
    disable       it can no longer log in, and its sessions end
    expire=7d     its password expires in 7 days
    end-sessions  its sessions end; it can log in again

It also lists the stored credentials that the account made or read, and the verifiers that
it read. Nothing of these is ended. --plan shows the same, and changes nothing.

The report is kept: see rolecall accounts offboardings.`,
		Example: `  rolecall accounts offboard alice --plan
  rolecall accounts offboard alice --users expire=7d
  rolecall accounts offboard alice --users disable --yes -o json > alice.json`,
	})
	f := cmd.Flags()
	f.StringVar(&users, "users", "keep", "`action` on the database users: disable, expire=7d, end-sessions or keep")
	f.BoolVar(&plan, "plan", false, "show what would be done, and change nothing")
	term.CompleteWords(cmd, "users", leaverActions...)
	term.BindYes(cmd)
	return onAccount(cmd, func(c *call, a *account) error {
		body, err := leaverAction(users)
		if err != nil {
			return err
		}
		r := client.Request{Method: http.MethodPost, Path: a.Path("offboard"), Body: body}
		planned := r
		planned.Query = url.Values{"plan": {"true"}}
		if plan {
			return printOffboarding(c, planned)
		}
		if term.Asks(c.cmd) {
			answer, err := c.client.Do(c.cmd.Context(), planned)
			if err != nil {
				return err
			}
			o, err := term.Decode[client.Offboarding](answer.JSON)
			if err != nil {
				return err
			}
			if err := writeOffboarding(c.cmd.ErrOrStderr(), o); err != nil {
				return err
			}
		}
		if err := term.Confirm(c.cmd, "Offboard account %q (%s)?", a.Name(), a.GUID); err != nil {
			return err
		}
		return offboard(c, a, r)
	})
}

// leaverAction is the body that the value of --users stands for.
func leaverAction(users string) (body client.OffboardRequest, err error) {
	word, after, timed := strings.Cut(users, "=")
	switch {
	case word == "expire":
		if _, err := moment.Duration(after); err != nil {
			return body, term.Usage("--users is %q; say in how long the passwords expire, like expire=7d", users)
		}
	case timed || !slices.Contains(leaverActions, word):
		return body, term.Usage("--users is %q; use %s%s", users, term.Either(leaverActions),
			term.DidYouMean(users, leaverActions))
	case word == "end-sessions":
		word = "endSessions" // as the API has it
	}
	body.Users.Default, body.Users.After = word, after
	return body, nil
}

// offboard carries out an offboarding, and says how to see what becomes of the database users.
func offboard(c *call, a *account, r client.Request) error {
	answer, err := c.client.Do(c.cmd.Context(), r)
	if err != nil {
		return err
	}
	if err := showOffboarding(c, answer.JSON); err != nil {
		return err
	}
	o, err := term.Decode[client.Offboarding](answer.JSON)
	if err != nil {
		return err
	}
	if o.Operation == "" {
		c.report("Account %q was offboarded.", a.Name())
		return nil
	}
	c.report("Account %q was offboarded. Its database users are changed in the background. To see how far that is: "+
		"rolecall accounts offboardings show %s", a.Name(), o.ID)
	return nil
}

// printOffboarding sends a request for a report or a plan, and prints it.
func printOffboarding(c *call, r client.Request) error {
	answer, err := c.client.Do(c.cmd.Context(), r)
	if err != nil {
		return err
	}
	return showOffboarding(c, answer.JSON)
}

func showOffboarding(c *call, answer json.RawMessage) error {
	if !term.IsTable(c.cmd) {
		return term.PrintData(c.cmd, answer)
	}
	o, err := term.Decode[client.Offboarding](answer)
	if err != nil {
		return err
	}
	return writeOffboarding(c.cmd.OutOrStdout(), o)
}

var offboardedHead = term.Head{
	{Title: "CLUSTER", Gives: term.Some}, {Title: "USER", Name: true}, {Title: "WHY"}, {Title: "ACTION"},
	{Title: "STATE", State: true}, {Title: "VALID UNTIL", Gives: term.More}, {Title: "DETAIL", Gives: term.Most},
}

// writeOffboarding writes a report for people: what ends, then a table of the database users.
func writeOffboarding(w io.Writer, o *client.Offboarding) error {
	if err := term.PrintFields(w, offboardingFields(o)); err != nil {
		return err
	}
	if len(o.Users) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	var rows [][]string
	for _, u := range o.Users {
		why := map[string]string{"made": "made it", "setPassword": "set its password"}[u.Why]
		detail := u.Detail
		if u.ChangedOutside {
			detail = strings.TrimSpace("Its password was changed by SQL since. " + detail)
		}
		rows = append(rows, []string{u.Cluster.Name, u.Username, why, u.Action, u.State, term.Time(u.ValidUntil), detail})
	}
	return term.NewTable(w, offboardedHead).Print(rows)
}

func offboardingFields(o *client.Offboarding) [][]string {
	account := o.Account.Name()
	if o.Account.Origin != "" {
		account += " (" + o.Account.Origin + ")"
	}
	fields := [][]string{{"account", account}, {"guid", o.Account.GUID}, {"active", term.YesNo(o.Account.Active)}}
	if o.ID != "" {
		fields[2][0] = "was active"
		fields = append(fields, []string{"report", o.ID}, []string{"offboarded", term.Time(o.CreatedAt)},
			[]string{"by", o.By.Name()})
	}
	if o.Operation != "" {
		fields = append(fields, []string{"operation", strings.TrimSpace(o.Operation + " " + o.State)})
	}
	fields = append(fields, []string{"database users", strconv.Itoa(len(o.Users))})
	if o.ExpiresAt != nil {
		fields = append(fields, []string{"passwords expire", term.Time(o.ExpiresAt)})
	}
	var tokens, sessions, leases, credentials, verifiers, unreachable []string
	for _, t := range o.Tokens {
		tokens = append(tokens, t.Name)
	}
	for _, s := range o.Sessions {
		sessions = append(sessions, fmt.Sprintf("%s: %d, last at %s", s.Client, s.Count, term.Time(s.LastAt)))
	}
	for _, l := range o.Leases {
		leases = append(leases, fmt.Sprintf("%s in %s, until %s", l.Username, l.Cluster.Name, term.Time(l.ExpiresAt)))
	}
	for _, cr := range o.Credentials {
		var knows []string
		if cr.Made {
			knows = append(knows, "made it")
		}
		if cr.ReadAt != nil {
			knows = append(knows, "read its password at "+term.Time(cr.ReadAt))
		}
		credentials = append(credentials, fmt.Sprintf("%s in %s: %s", cr.Name, cr.Cluster.Name, strings.Join(knows, ", ")))
	}
	for _, v := range o.Verifiers {
		verifiers = append(verifiers, fmt.Sprintf("%s: read at %s, %d users have the same password", v.Cluster.Name,
			term.Time(v.ReadAt), len(v.Users)))
	}
	for _, u := range o.Unreachable {
		unreachable = append(unreachable, u.Cluster.Name+": "+u.Error)
	}
	fields = slices.Concat(fields, fieldLines("tokens", tokens), fieldLines("sign-ins", sessions), fieldLines("leases", leases),
		fieldLines("credentials", credentials), fieldLines("verifiers", verifiers), fieldLines("unreachable", unreachable))
	since := "the beginning"
	if o.AuditSince != nil {
		since = term.Time(o.AuditSince)
	}
	return append(fields, []string{"audit log since", since})
}

// fieldLines is a field with a line for each value.
func fieldLines(name string, values []string) [][]string {
	if len(values) == 0 {
		return [][]string{{name, "none"}}
	}
	var lines [][]string
	for _, v := range values {
		lines = append(lines, []string{name, v})
		name = ""
	}
	return lines
}

func offboardingsCommand() *cobra.Command {
	return term.Group("offboardings", "The reports of accounts that were offboarded",
		offboardingsListCommand(), offboardingsShowCommand())
}

var offboardingHead = term.Head{
	{Title: "ID", Name: true}, {Title: "TIME", Gives: term.Some}, {Title: "ACCOUNT"}, {Title: "BY", Gives: term.More},
	{Title: "USERS"}, {Title: "OPERATION", State: true},
}

func offboardingsListCommand() *cobra.Command {
	var of string
	cmd := listing(&cobra.Command{
		Use:   "list",
		Short: "List the reports, the newest first",
		Example: `  rolecall accounts offboardings list
  rolecall accounts offboardings list --account alice`,
		Args: term.NoArguments,
	}, offboardingHead)
	cmd.Flags().StringVar(&of, "account", "", "only reports of this `account`, given by user name or guid")
	_ = cmd.RegisterFlagCompletionFunc("account", completeAccounts)
	return onServer(cmd, list(func(*call) (string, url.Values) {
		if of == "" {
			return client.OffboardingsPath, nil
		}
		return client.OffboardingsPath, url.Values{"account": {of}}
	}, offboardingHead, func(o *client.OffboardingSummary) []string {
		return []string{o.ID, term.Time(&o.CreatedAt), o.Account.Name(), o.By.Name(), strconv.Itoa(o.Users), o.State}
	}))
}

func offboardingsShowCommand() *cobra.Command {
	return onServer(printing(&cobra.Command{
		Use:   "show ID",
		Short: "Show a report, and what has become of the database users",
		Example: `  rolecall accounts offboardings show 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963
  rolecall accounts offboardings show 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963 -o yaml`,
		Args:              term.Arguments("ID"),
		ValidArgsFunction: firstArgument(complete(fixed(client.OffboardingsPath), "id")),
	}), func(c *call) error {
		answer, err := c.get(client.Path(client.OffboardingsPath, c.args[0]), nil)
		if err != nil {
			return err
		}
		return showOffboarding(c, answer)
	})
}
