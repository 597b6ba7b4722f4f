package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// The server and a token for it. Without them, those of the last login are used.
const (
	URLVariable   = "ROLECALL_URL"
	TokenVariable = "ROLECALL_TOKEN"
)

// The files with the client certificate and its key, for a server that requires one.
const (
	ClientCertVariable = "ROLECALL_CLIENT_CERT"
	ClientKeyVariable  = "ROLECALL_CLIENT_KEY"
)

// CAVariable stands for --ca-file.
const CAVariable = "ROLECALL_CA_FILE"

// The flags that say which server a command uses.
const (
	contextFlag = "context"
	serverFlag  = "server"
	caFlag      = "ca-file"
)

// BindServer gives a command and all below it the flags that say which server they use.
func BindServer(root *cobra.Command) {
	f := root.PersistentFlags()
	f.String(contextFlag, "", "`name` of the login to use, one of \"rolecall contexts\"")
	f.String(serverFlag, "", "`URL` of the server to use, one that you are signed in to")
	f.String(caFlag, "",
		"`file` with the certificate authorities of the server, in PEM; default: that of the login, else those of the system")
	term.Variable(f.Lookup(caFlag), CAVariable)
	_ = root.RegisterFlagCompletionFunc(contextFlag, completeLogins(func(l *login) string { return l.Name }))
	_ = root.RegisterFlagCompletionFunc(serverFlag, completeLogins(func(l *login) string { return l.URL }))
}

// CheckNoServer rejects the flags of BindServer and of term.BindGlobal for a command that uses no server.
func CheckNoServer(cmd *cobra.Command) error {
	return reject(cmd, "it uses no server", append([]string{contextFlag, serverFlag, caFlag}, term.GlobalFlags...)...)
}

// reject refuses flags that a command inherits and does not use.
func reject(cmd *cobra.Command, reason string, flags ...string) error {
	for _, name := range flags {
		if cmd.Flags().Changed(name) {
			return term.Usage("%s accepts no --%s: %s", cmd.CommandPath(), name, reason)
		}
	}
	return nil
}

// completeLogins offers something of each login.
func completeLogins(member func(*login) string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		s, err := openLogins()
		if err != nil { // a shell's prompt is no place for an error
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, _ := s.all()
		var offered []string
		for _, l := range all {
			offered = append(offered, member(l))
		}
		slices.Sort(offered)
		return slices.Compact(offered), cobra.ShellCompDirectiveNoFileComp
	}
}

// destination is the server of a command by its flags and the environment.
type destination struct {
	context string // the name of a login
	server  string // a URL; not with a context
	token   string // of the environment, for server
	caFile  string
}

// destinationOf is the destination of a command that uses a login, if the environment has no token.
func destinationOf(cmd *cobra.Command) (*destination, error) {
	context, _ := cmd.Flags().GetString(contextFlag)
	if context == "" {
		return readDestination(cmd)
	}
	if cmd.Flags().Changed(serverFlag) {
		return nil, term.Usage("--context and --server exclude each other")
	}
	caFile, _ := cmd.Flags().GetString(caFlag)
	return &destination{context: context, caFile: cmp.Or(caFile, os.Getenv(CAVariable))}, nil
}

// readDestination reads flags and variables. Completion uses it too, so it reads all variables itself. The token of the
// environment is for the server of the environment: it is not sent to a server that a flag names.
func readDestination(cmd *cobra.Command) (*destination, error) {
	value := func(flag string) string {
		v, _ := cmd.Flags().GetString(flag)
		return v
	}
	d := &destination{context: value(contextFlag), server: value(serverFlag),
		caFile: cmp.Or(value(caFlag), os.Getenv(CAVariable))}
	var err error
	if d.server != "" {
		if d.server, err = client.ParseURL(d.server); err != nil {
			return nil, term.Usage("--server is %q: %w", value(serverFlag), err)
		}
	}
	variable := os.Getenv(URLVariable)
	if variable != "" {
		if variable, err = client.ParseURL(variable); err != nil {
			return nil, term.Usage("%s: %w", URLVariable, err)
		}
	}
	d.server = cmp.Or(d.server, variable)
	if variable == "" || variable == d.server {
		d.token = os.Getenv(TokenVariable)
	}
	return d, nil
}

// unknown is the error of a command whose login does not exist.
func (s *logins) unknown(d *destination) error {
	switch {
	case d.context != "":
		all, _ := s.all()
		var names []string
		for _, l := range all {
			names = append(names, l.Name)
		}
		return term.Denied("there is no login %q%s; to see yours: rolecall contexts", d.context,
			term.DidYouMean(d.context, names))
	case d.server != "":
		return term.Denied("you are not signed in to %s; use: rolecall login %[1]s", d.server)
	}
	return term.Denied("you are not signed in; use: rolecall login URL, or set %s and %s", URLVariable, TokenVariable)
}

// newClient makes a client that trusts the authorities in caFile; "": those of the system.
func newClient(baseURL, caFile string) (*client.Client, error) {
	c := client.New(baseURL, "rolecall/"+Version)
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, term.Usage("the file of the certificate authorities: %w", err)
		}
		if !c.Trust(pem) {
			return nil, term.Usage("the file of the certificate authorities, %s, has no certificate in PEM", caFile)
		}
	}
	cert, key := os.Getenv(ClientCertVariable), os.Getenv(ClientKeyVariable)
	switch {
	case cert == "" && key == "":
		return c, nil
	case cert == "" || key == "":
		return nil, term.Usage("set both %s and %s, or neither", ClientCertVariable, ClientKeyVariable)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, term.Usage("%s and %s: %w", ClientCertVariable, ClientKeyVariable, err)
	}
	c.Show(pair)
	return c, nil
}

// connect returns the client of a command: with the token of the environment, else with that of a login. A token is only
// ever sent to the server that issued it.
func connect(cmd *cobra.Command) (*client.Client, error) {
	d, err := destinationOf(cmd)
	if err != nil {
		return nil, err
	}
	if d.token != "" {
		return connectWithToken(d)
	}
	s, err := openLogins()
	if err != nil {
		return nil, err
	}
	l, err := s.find(d)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, s.unknown(d)
	}
	c, err := newClient(l.URL, cmp.Or(d.caFile, l.CAFile))
	if err != nil {
		return nil, err
	}
	c.Token = func(ctx context.Context, refused string) (string, error) { return s.token(ctx, c, l, refused) }
	return c, nil
}

func connectWithToken(d *destination) (*client.Client, error) {
	if d.server == "" {
		return nil, term.Usage("%s is set, but %s is not", TokenVariable, URLVariable)
	}
	c, err := newClient(d.server, d.caFile)
	if err != nil {
		return nil, err
	}
	c.Token = func(context.Context, string) (string, error) { return d.token, nil }
	return c, nil
}

// token returns the access token. If it has expired, or the server has just rejected it, token gets a new one.
func (s *logins) token(ctx context.Context, c *client.Client, l *login, refused string) (string, error) {
	if l.AccessToken != refused && time.Until(l.Expires) > 30*time.Second {
		return l.AccessToken, nil
	}
	t, err := c.Renew(ctx, l.oauthClient(), l.RefreshToken)
	if status := client.Status(err); status == http.StatusBadRequest || status == http.StatusUnauthorized {
		return "", term.Denied("your sign-in to %s has ended; to sign in again: %s", l.URL, l.again())
	}
	if err != nil {
		return "", err
	}
	l.take(t)
	return l.AccessToken, s.write(l)
}

func loginCommand() *cobra.Command {
	var username, name string
	var b browserSignIn
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Sign in to a Rolecall server",
		Long: `Login asks for a user name and a password, and stores the tokens that the server issues
for them, not the password. The other commands use these tokens. URL defaults to --server,
to that of the login that --context names, to $ROLECALL_URL, or to the current server.

With --sso you sign in on a page of the server, with your company's account or with a
password. Login opens it in $BROWSER or in the default browser, and prints its URL. The
browser has to run on this machine. Without one, add --no-browser: login prints a URL and
a code, which you enter in any browser, on any machine.

You can have several logins, to one server or to several. --context gives a login a name;
without it the name is the URL. The last login is the current one. --context or --server
selects another for one command, ROLECALL_URL for a shell, and "rolecall contexts use" for
all commands. The file of --ca-file is remembered with the login.

No login is needed if ROLECALL_URL and ROLECALL_TOKEN are set, for example to a personal
access token in the environment of a program.`,
		Example: `  rolecall login https://rolecall.example.org
  rolecall login https://rolecall.example.org --sso
  rolecall login https://rolecall.example.org --no-browser
  rolecall login https://rolecall.example.org --context prod --ca-file ca.pem
  rolecall login --username alice --password-stdin < password-file`,
		Args: term.Arguments("[URL]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.check(cmd); err != nil {
				return err
			}
			s, err := openLogins()
			if err != nil {
				return err
			}
			l, err := s.toSignIn(cmd, name, args)
			if err != nil {
				return err
			}
			warnOfPlainHTTP(cmd, l.URL)
			if b.sso {
				return s.signInByBrowser(cmd, l, &b)
			}
			return s.signIn(cmd, l, username)
		},
	}
	cmd.Flags().StringVarP(&username, usernameFlag, "u", "", "user `name` of the account; default: a prompt")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the login; the same as --context")
	_ = cmd.Flags().MarkHidden("name")
	_ = cmd.RegisterFlagCompletionFunc("name", completeLogins(func(l *login) string { return l.Name }))
	term.BindPassword(cmd, false)
	b.bind(cmd)
	return cmd
}

// toSignIn is the login that the command line describes, without a user name and tokens. A login that is damaged is no
// obstacle: it is about to be replaced.
func (s *logins) toSignIn(cmd *cobra.Command, name string, args []string) (*login, error) {
	d, err := readDestination(cmd)
	if err != nil {
		return nil, err
	}
	if name != "" && d.context != "" {
		return nil, term.Usage("--name and --context are the same; give one of them")
	}
	l := &login{Name: cmp.Or(name, d.context)}
	var old *login
	if l.Name != "" {
		if old, _ = s.read(l.Name); old == nil && !contextName.MatchString(l.Name) {
			return nil, term.Usage("the name of the login is %q; use at most 63 letters, digits and the characters . _ @ -", l.Name)
		}
	}
	serverGiven := cmd.Flags().Changed(serverFlag)
	switch {
	case len(args) > 0 && serverGiven:
		return nil, term.Usage("the server is given twice: %q and --server %q", args[0], d.server)
	case len(args) > 0:
		if l.URL, err = client.ParseURL(args[0]); err != nil {
			return nil, term.Usage("the URL %q: %w", args[0], err)
		}
	case old != nil && !serverGiven:
		l.URL = old.URL
	default:
		l.URL = d.server
	}
	if current, _ := s.find(&destination{}); l.URL == "" && current != nil {
		l.URL = current.URL
	}
	if l.URL == "" {
		return nil, term.Usage("the URL is missing; use: rolecall login https://rolecall.example.org")
	}
	if l.Name == "" {
		old, _ = s.of(l.URL)
		l.Name = l.URL
		if old != nil {
			l.Name = old.Name
		}
	}
	if d.caFile != "" {
		if l.CAFile, err = filepath.Abs(d.caFile); err != nil {
			return nil, err
		}
	} else if old != nil && old.URL == l.URL {
		l.CAFile = old.CAFile
	}
	return l, nil
}

func (s *logins) signIn(cmd *cobra.Command, l *login, username string) error {
	if username == "" {
		if !term.Interactive(cmd) {
			return term.Usage("there is no terminal to ask for the user name; add --username NAME")
		}
		var err error
		if username, err = term.Ask(cmd, "User name: "); err != nil {
			return err
		}
	}
	password, err := term.Password(cmd, "Password: ")
	if err != nil {
		return err
	}
	c, err := newClient(l.URL, l.CAFile)
	if err != nil {
		return err
	}
	t, err := c.SignIn(cmd.Context(), username, password)
	if client.Status(err) == http.StatusUnauthorized {
		return term.Denied("the user name or the password is wrong")
	}
	if err != nil {
		return err
	}
	l.Username = username
	return s.keep(cmd, l, t)
}

// keep stores a new login, which is the current one from now on.
func (s *logins) keep(cmd *cobra.Command, l *login, t *client.Tokens) error {
	l.take(t)
	if err := errors.Join(s.write(l), s.use(l.Name)); err != nil {
		return err
	}
	term.Report(cmd, "Signed in to %s as %s.", l.URL, l.Username)
	if os.Getenv(TokenVariable) != "" {
		term.Warn(cmd, "%s is set and takes precedence over this login.", TokenVariable)
	}
	return nil
}

// signInAgain replaces the stored tokens of an account after a change of its password has ended them.
func signInAgain(ctx context.Context, c *client.Client, username, password string) error {
	s, err := openLogins()
	if err != nil {
		return err
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.URL != c.URL || !strings.EqualFold(l.Username, username) || l.Origin != "" && l.Origin != client.LocalOrigin {
			continue // that of another account
		}
		t, err := c.SignIn(ctx, l.Username, password)
		if client.Status(err) == http.StatusUnauthorized {
			continue // the stored sign-in is that of another account
		}
		if err != nil {
			return err
		}
		l.take(t)
		l.SSO = false
		if err := s.write(l); err != nil {
			return err
		}
	}
	return nil
}

func warnOfPlainHTTP(cmd *cobra.Command, server string) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "https" || u.Hostname() == "localhost" {
		return
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() {
		return
	}
	term.Warn(cmd, "Warning: %s is not encrypted. Others in the network can read the password and the tokens.", server)
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End the sign-in to a server and remove the stored tokens",
		Long: `Logout revokes the tokens of one login and removes it: that of --context, --server or
ROLECALL_URL, else the current one. If the server cannot be reached, it removes the login
only. Other logins stay.`,
		Example: `  rolecall logout
  rolecall logout --context prod`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := destinationOf(cmd)
			if err != nil {
				return err
			}
			s, err := openLogins()
			if err != nil {
				return err
			}
			l, err := s.find(d)
			if err == nil && l == nil {
				to := cmp.Or(d.context, d.server)
				if to != "" {
					to = " to " + to
				}
				term.Report(cmd, "You were not signed in%s.", to)
				return nil
			}
			return s.logout(cmd, l, err, d.caFile)
		},
	}
}

// logout removes a login that find has found. A damaged one, which find reports as err, is removed as well.
func (s *logins) logout(cmd *cobra.Command, l *login, err error, caFile string) error {
	if d, ok := errors.AsType[damaged](err); ok {
		if err := s.remove(d.name); err != nil {
			return err
		}
		term.Warn(cmd, "The login %q was damaged, and is removed. Its tokens cannot be revoked; they expire within 30 days.",
			d.name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.remove(l.Name); err != nil {
		return err
	}
	c, err := newClient(l.URL, cmp.Or(caFile, l.CAFile))
	if err == nil {
		err = c.Revoke(cmd.Context(), l.oauthClient(), l.RefreshToken)
	}
	if err != nil {
		return fmt.Errorf("the tokens are removed, but they are valid until they expire, within 30 days: %w", err)
	}
	term.Report(cmd, "Signed out of %s.", l.URL)
	return nil
}

func contextsCommand() *cobra.Command {
	cmd := term.Group("contexts", "The logins that you have, and which one commands use",
		contextsListCommand(), contextsUseCommand(), contextsDeleteCommand())
	cmd.Aliases = []string{"context"}
	cmd.Long = `Contexts lists your logins, as "rolecall contexts list" does. A login has the name that
"rolecall login --context NAME" has given it, else its URL.`
	cmd.Example = `  rolecall contexts
  rolecall contexts use prod`
	cmd.RunE = listContexts
	return listing(cmd, contextHead)
}

// contextItem is a login without its tokens.
type contextItem struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Current  bool   `json:"current"`
}

var contextHead = term.Head{
	{Title: "CURRENT"}, {Title: "NAME", Name: true}, {Title: "URL", Gives: term.Some}, {Title: "USER NAME", Gives: term.Some},
}

func contextsListCommand() *cobra.Command {
	return listing(&cobra.Command{
		Use:   "list",
		Short: "List your logins",
		Example: `  rolecall contexts list
  rolecall contexts list -o json`,
		Args: term.NoArguments,
		RunE: listContexts,
	}, contextHead)
}

func listContexts(cmd *cobra.Command, _ []string) error {
	if err := reject(cmd, "it lists all logins", contextFlag, serverFlag, caFlag); err != nil {
		return err
	}
	s, err := openLogins()
	if err != nil {
		return err
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	current, err := s.current()
	if err != nil {
		return err
	}
	var items []json.RawMessage
	var rows [][]string
	for _, l := range all {
		i := contextItem{l.Name, l.URL, l.Username, l.Name == current}
		item, err := json.Marshal(i)
		if err != nil {
			return err
		}
		items = append(items, item)
		rows = append(rows, []string{term.YesNo(i.Current), i.Name, i.URL, i.Username})
	}
	list, err := term.NewList(cmd, contextHead)
	if err != nil {
		return err
	}
	list.Add(items, rows)
	return list.Print()
}

// ofContext completes a command on the login that its first argument names. run gets the result of find.
func ofContext(cmd *cobra.Command, run func(*cobra.Command, *logins, *login, error) error) *cobra.Command {
	cmd.Args = term.Arguments("NAME")
	cmd.ValidArgsFunction = firstArgument(completeLogins(func(l *login) string { return l.Name }))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := reject(cmd, "its argument names the login", contextFlag, serverFlag); err != nil {
			return err
		}
		s, err := openLogins()
		if err != nil {
			return err
		}
		d := &destination{context: args[0]}
		if server, err := client.ParseURL(args[0]); err == nil {
			d = &destination{server: server}
		}
		l, err := s.find(d)
		if err == nil && l == nil {
			return s.unknown(d)
		}
		return run(cmd, s, l, err)
	}
	return cmd
}

func contextsUseCommand() *cobra.Command {
	return ofContext(&cobra.Command{
		Use:   "use NAME",
		Short: "Select the login that commands use",
		Long:  `Use selects the login that commands use. A login without a name of its own is given by its URL.`,
		Example: `  rolecall contexts use prod
  rolecall contexts use https://rolecall.example.org`,
	}, func(cmd *cobra.Command, s *logins, l *login, err error) error {
		if err = cmp.Or(err, reject(cmd, "it uses no server", caFlag)); err != nil {
			return err
		}
		if err := s.use(l.Name); err != nil {
			return err
		}
		term.Report(cmd, "Commands now use %s as %s.", l.URL, l.Username)
		return nil
	})
}

func contextsDeleteCommand() *cobra.Command {
	return ofContext(&cobra.Command{
		Use:   "delete NAME",
		Short: "Revoke the tokens of a login, and remove it",
		Long: `Delete signs out of a login, as "rolecall logout --context NAME" does. If it was the
current one, there is none until the next "rolecall login" or "rolecall contexts use".`,
		Example: `  rolecall contexts delete prod`,
	}, func(cmd *cobra.Command, s *logins, l *login, err error) error {
		caFile, _ := cmd.Flags().GetString(caFlag)
		return s.logout(cmd, l, err, caFile)
	})
}

func whoami(ctx context.Context, c *client.Client) (*client.Whoami, error) {
	answer, err := c.Get(ctx, client.WhoamiPath, nil)
	if err != nil {
		return nil, err
	}
	return term.Decode[client.Whoami](answer.JSON)
}

// clusterNames maps the ids of the caller's clusters to their names.
func clusterNames(me *client.Whoami) map[string]string {
	names := map[string]string{}
	for _, cl := range me.Clusters {
		names[cl.ID] = cl.Name
	}
	return names
}

func whoamiCommand() *cobra.Command {
	return onServer(printing(&cobra.Command{
		Use:   "whoami",
		Short: "Show the account that you are signed in as, and what it may do",
		Example: `  rolecall whoami
  rolecall whoami -o json`,
		Args: term.NoArguments,
	}), show(func(*call) string { return client.WhoamiPath }, func(c *call, me *client.Whoami) [][]string {
		var manage, view []string
		for _, cl := range me.Clusters {
			if cl.Manage {
				manage = append(manage, cl.Name)
			} else {
				view = append(view, cl.Name)
			}
		}
		return [][]string{
			{"server", c.client.URL},
			{"user name", me.Account.Username},
			{"origin", me.Account.Origin},
			{"guid", me.Account.GUID},
			{"scopes", strings.Join(me.Scopes, " ")},
			{"labels", term.Pairs(me.Labels)},
			{"label sources", term.Pairs(me.LabelSources)},
			{"may manage", orNone(manage)},
			{"may only view", orNone(view)},
		}
	}))
}
