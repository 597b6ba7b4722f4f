package cli

import (
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
)

func credentialsCommand() *cobra.Command {
	return term.Group("credentials", "Stored credentials: named logins of programs, whose passwords rotate",
		credentialsListCommand(), credentialsShowCommand(), credentialsPutCommand(), credentialsCurrentCommand(),
		credentialsRotateCommand(), credentialsDeleteCommand())
}

// ofCredential completes a command on one stored credential.
func ofCredential(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = term.Arguments("NAME")
	}
	cmd.ValidArgsFunction = firstArgument(completeCredentials)
	return onCluster(cmd, run)
}

var completeCredentials = complete(func(cmd *cobra.Command, c *client.Client) (string, error) {
	cl, err := clusterOfFlag(cmd, c)
	if err != nil {
		return "", err
	}
	return cl.CredentialPath(), nil
}, "name")

// credentialPath is the path of the credential that the first argument names.
func credentialPath(c *call) string { return c.cluster.CredentialPath(c.args[0]) }

var credentialHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "STATE", State: true}, {Title: "FOR"}, {Title: "USER NAME", Gives: term.Some},
	{Title: "ROTATES", Gives: term.Some}, {Title: "EVERY", Gives: term.More}, {Title: "OVERLAP", Gives: term.More},
	{Title: "ERROR", Gives: term.Most},
}

func credentialsListCommand() *cobra.Command {
	return onCluster(listing(&cobra.Command{
		Use:     "list",
		Short:   "List the stored credentials of a cluster",
		Example: `  rolecall credentials list -c payments`,
		Args:    term.NoArguments,
	}, credentialHead), list(func(c *call) (string, url.Values) { return c.cluster.CredentialPath(), nil }, credentialHead,
		func(cr *client.Credential) []string {
			return []string{
				cr.Name, cr.State, cr.For, cr.Username, term.Time(cr.RotatesAt), inDays(cr.RotateEvery), inDays(cr.Overlap),
				cr.LastError,
			}
		}))
}

func credentialsShowCommand() *cobra.Command {
	return ofCredential(printing(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show a stored credential, without its password",
		Example: `  rolecall credentials show shop -c payments`,
	}), show(credentialPath, credentialFields))
}

func credentialFields(c *call, cr *client.Credential) [][]string {
	fields := [][]string{
		{"name", cr.Name}, {"cluster", c.cluster.Name}, {"for", cr.For}, {"state", cr.State},
	}
	if cr.LastError != "" {
		fields = append(fields, []string{"last error", cr.LastError})
	}
	window := "any time"
	if cr.Window != nil {
		window = windowText(cr.Window)
	}
	names := accountNames(c, cr.CreatedBy)
	return append(fields, [][]string{
		{"user name", cr.Username}, {"rotates every", inDays(cr.RotateEvery)}, {"overlap", inDays(cr.Overlap)}, {"window", window},
		{"rotated", term.Time(cr.RotatedAt)}, {"rotates", term.Time(cr.RotatesAt)},
		{"created", timeBy(&cr.CreatedAt, names[cr.CreatedBy])},
	}...)
}

// inDays writes a duration of two days or more in days if it is a whole number of them: 30d and not 720h.
func inDays(text string) string {
	d, err := moment.Duration(text)
	if day := 24 * time.Hour; err == nil && d >= 2*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	return text
}

// credentialSettings is the flags of credentials put.
type credentialSettings struct{ role, rotateEvery, overlap, window string }

func credentialsPutCommand() *cobra.Command {
	var s credentialSettings
	cmd := printing(&cobra.Command{
		Use:   "put NAME",
		Short: "Store a credential, or change the settings of one",
		Long: `Put makes Rolecall keep a lease under NAME and replace it every --rotate-every. The replaced
password stays valid for --overlap, so a program that reads the current one in that time never
fails to log in. With --window, rotations wait for these days and hours.

A new credential needs --for, --rotate-every and --overlap. For an existing one, give only the
settings to change. Another --for rotates at once.`,
		Example: `  rolecall credentials put shop -c payments --for shop_write --rotate-every 30d --overlap 24h
  rolecall credentials put shop -c payments --window 'sat,sun 02:00-04:00 Europe/Berlin'
  rolecall credentials put shop -c payments --window ''`,
	})
	f := cmd.Flags()
	bindFor(cmd, &s.role)
	f.StringVar(&s.rotateEvery, "rotate-every", "", "`duration` after which a password is replaced, like 30d")
	f.StringVar(&s.overlap, "overlap", "", "`duration` for which a replaced password stays valid, like 24h")
	f.StringVar(&s.window, "window", "",
		"`time` of rotations: days, hours and a time zone, like 'sat,sun 02:00-04:00 Europe/Berlin'; '' for any time, the default")
	return ofCredential(cmd, func(c *call) error {
		if err := checkDurations(map[string]string{"rotate-every": s.rotateEvery, "overlap": s.overlap}); err != nil {
			return err
		}
		body, etag, err := s.merge(c)
		if err != nil {
			return err
		}
		answer, err := c.client.Do(c.cmd.Context(), client.Request{
			Method: http.MethodPut, Path: credentialPath(c), Body: body, IfMatch: etag,
		})
		if err != nil {
			return err
		}
		cr, err := term.Decode[client.Credential](answer.JSON)
		if err != nil {
			return err
		}
		reportRotation(c, cr)
		return term.PrintUnlessTable(c.cmd, answer.JSON)
	})
}

// merge puts what is given together with what is stored. The entity tag is that of what is stored; "": nothing is.
func (s *credentialSettings) merge(c *call) (body client.CredentialSettings, etag string, err error) {
	stored, err := c.client.Get(c.cmd.Context(), credentialPath(c), nil)
	if err != nil && client.Status(err) != http.StatusNotFound {
		return body, "", err
	}
	if err == nil {
		cr, err := term.Decode[client.Credential](stored.JSON)
		if err != nil {
			return body, "", err
		}
		body = client.CredentialSettings{For: cr.For, RotateEvery: cr.RotateEvery, Overlap: cr.Overlap, Window: cr.Window}
	}
	for _, flag := range []struct {
		name, value string
		field       *string
	}{
		{"for", s.role, &body.For}, {"rotate-every", s.rotateEvery, &body.RotateEvery}, {"overlap", s.overlap, &body.Overlap},
	} {
		if c.given(flag.name) {
			*flag.field = flag.value
		}
		if *flag.field == "" {
			return body, "", term.Usage("--%s is missing, and there is no credential %q yet", flag.name, c.args[0])
		}
	}
	if c.given("window") {
		body.Window, err = parseWindow(s.window)
		return body, stored.ETag, err
	}
	return body, stored.ETag, nil
}

// parseWindow reads days, hours and a time zone; "" is nil.
func parseWindow(text string) (*client.Window, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	parts := strings.Fields(text)
	if len(parts) == 3 {
		if from, to, ok := strings.Cut(parts[1], "-"); ok {
			return &client.Window{Days: strings.Split(parts[0], ","), From: from, To: to, Timezone: parts[2]}, nil
		}
	}
	return nil, term.Usage("--window is %q; use days, hours and a time zone, like 'sat,sun 02:00-04:00 Europe/Berlin'", text)
}

func windowText(w *client.Window) string {
	return strings.Join(w.Days, ",") + " " + w.From + "-" + w.To + " " + w.Timezone
}

func reportRotation(c *call, cr *client.Credential) {
	c.report("Credential %q of cluster %q: the user name is %s; it rotates at %s.", cr.Name, c.cluster.Name, cr.Username,
		term.Time(cr.RotatesAt))
}

func credentialsCurrentCommand() *cobra.Command {
	var h handover
	cmd := &cobra.Command{
		Use:   "current NAME [DIR]",
		Short: "Print the current password of a stored credential",
		Long: `Current prints the current user name and password, in the formats of "rolecall leases
create". Read them again after "rotates" and before "expires": after "rotates" there is a new
password, at "expires" this one ends. Each read is recorded in the audit log.`,
		Example: `  rolecall credentials current shop -c payments
  rolecall credentials current shop -c payments -o env
  rolecall credentials current shop -c payments -o binding-dir shop-binding`,
	}
	h.bind(cmd, "NAME")
	return ofCredential(cmd, func(c *call) error {
		if err := h.check(c, 1); err != nil {
			return err
		}
		answer, err := c.get(c.cluster.CredentialPath(c.args[0], "current"), nil)
		if err != nil {
			return err
		}
		current, err := term.Decode[client.CurrentCredential](answer)
		if err != nil {
			return err
		}
		return h.print(c, answer, current.Connection.URL, current.Password, [][]string{
			{"user name", current.Username}, {"password", string(current.Password)},
			{"rotates", term.Time(&current.RotatesAt)}, {"expires", term.Time(&current.ExpiresAt)},
			{"databases", strings.Join(current.Connection.Databases, ", ")}, {"connect with", current.Connection.URL},
		})
	})
}

func credentialsRotateCommand() *cobra.Command {
	return oneOrMany(printing(&cobra.Command{
		Use:   "rotate [NAME]",
		Short: "Replace the password of a stored credential, or of many, now",
		Long: `Rotate replaces the current lease at once, also outside of the window. The replaced password
stays valid for the overlap.

Without NAME, it concerns all credentials that match --name, in one cluster or with
--all-clusters in all that you may manage. --plan shows them only.`,
		Example: `  rolecall credentials rotate shop -c payments
  rolecall credentials rotate --name 'shop_*' --all-clusters`,
	}), &many{credentials: true}, completeCredentials, func(c *call) error {
		answer, err := c.send(http.MethodPost, c.cluster.CredentialPath(c.args[0], "rotate"), nil)
		if err != nil {
			return err
		}
		cr, err := term.Decode[client.Credential](answer)
		if err != nil {
			return err
		}
		reportRotation(c, cr)
		return term.PrintUnlessTable(c.cmd, answer)
	}, plainly("rotateCredential"))
}

func credentialsDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a stored credential, and end its leases",
		Long: `Delete deletes a stored credential and ends its leases at once: the current one, and replaced
ones that are still valid.`,
		Example: `  rolecall credentials delete shop -c payments`,
	}
	term.BindYes(cmd)
	return ofCredential(cmd, func(c *call) error {
		if err := term.Confirm(c.cmd, "Delete credential %q of cluster %q, and end its database users?", c.args[0],
			c.cluster.Name); err != nil {
			return err
		}
		if _, err := c.send(http.MethodDelete, credentialPath(c), nil); err != nil {
			return err
		}
		c.report("Credential %q of cluster %q was deleted.", c.args[0], c.cluster.Name)
		return nil
	})
}

// findCredential turns CLUSTER/NAME into what the API knows: the id of the cluster, and the name. Whether there is such a
// credential, the server says.
func findCredential(c *call, given string) (string, error) {
	cluster, name, ok := strings.Cut(given, "/")
	if !ok || cluster == "" || name == "" {
		return "", term.Usage("--credential is %q; use CLUSTER/NAME", given)
	}
	cl, err := findCluster(c.cmd.Context(), c.client, cluster)
	if err != nil {
		return "", err
	}
	return cl.ID + "/" + name, nil
}

// completeCredentialOf offers CLUSTER/NAME.
func completeCredentialOf(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	cluster, _, named := strings.Cut(start, "/")
	if !named {
		clusters, _ := completeClusters(cmd, args, start)
		clusters = slices.Clone(clusters)
		for i := range clusters {
			clusters[i] += "/"
		}
		return clusters, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	found, rest := complete(func(cmd *cobra.Command, c *client.Client) (string, error) {
		cl, err := findCluster(cmd.Context(), c, cluster)
		if err != nil {
			return "", err
		}
		return cl.CredentialPath(), nil
	}, "name")(cmd, args, start)
	for i := range found {
		found[i] = cluster + "/" + found[i]
	}
	return found, rest
}
