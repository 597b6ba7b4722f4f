package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
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

// CAVariable names the file with the certificate authorities of the server, for one whose authority is not the system's.
const CAVariable = "ROLECALL_CA_CERT"

// login is a stored sign-in. It holds tokens.
type login struct {
	URL          string    `json:"url"`
	Username     string    `json:"username"`
	AccessToken  string    `json:"accessToken"`
	Expires      time.Time `json:"expires"`
	RefreshToken string    `json:"refreshToken"`
}

// loginFolder holds a file for each server that somebody is signed in to, and the file current with the URL of the one that
// commands use. With a file each, a command that renews its tokens never touches another login.
func loginFolder() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("credentials cannot be stored: %w; set %s and %s instead", err, URLVariable, TokenVariable)
	}
	return filepath.Join(folder, "rolecall", "logins"), nil
}

const currentFile = "current"

func loginFile(server string) (string, error) {
	folder, err := loginFolder()
	return filepath.Join(folder, url.PathEscape(server)+".json"), err
}

// currentServer is the URL of the server that commands use, "" for none.
func currentServer() (string, error) {
	folder, err := loginFolder()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(folder, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the stored credentials cannot be read: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// readLogin returns the stored sign-in to a server, an empty one if there is none.
func readLogin(server string) (*login, error) {
	var l login
	file, err := loginFile(server)
	if err != nil || server == "" {
		return &l, err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the stored credentials cannot be read: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil || l.URL != server {
		return nil, fmt.Errorf("%s is damaged; to sign in again: rolecall login %s", file, server)
	}
	return &l, nil
}

// allLogins are the servers that somebody is signed in to, in the order of their URLs.
func allLogins() ([]*login, error) {
	folder, err := loginFolder()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	all := []*login{}
	for _, file := range files {
		server, err := url.PathUnescape(strings.TrimSuffix(filepath.Base(file), ".json"))
		if err != nil {
			continue // no file of a login
		}
		l, err := readLogin(server)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func (l *login) write() error {
	file, err := loginFile(l.URL)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(file, data)
}

// use makes a server the one that commands use.
func use(server string) error {
	folder, err := loginFolder()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(folder, currentFile), []byte(server))
}

// replaceFile replaces a file as a whole: other commands read it at the same time.
func replaceFile(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("the credentials cannot be stored: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), ".login-*") // mode 0600
	if err != nil {
		return fmt.Errorf("the credentials cannot be stored: %w", err)
	}
	_, err = temporary.Write(append(data, '\n'))
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("the credentials cannot be stored: %w", err)
	}
	return nil
}

func (l *login) take(t *client.Tokens) {
	l.AccessToken, l.Expires, l.RefreshToken = string(t.Access), t.Expires, string(t.Refresh)
}

func newClient(baseURL string) (*client.Client, error) {
	c := client.New(baseURL, "rolecall/"+Version)
	cert, key := os.Getenv(ClientCertVariable), os.Getenv(ClientKeyVariable)
	if file := os.Getenv(CAVariable); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, term.Usage("%s: %w", CAVariable, err)
		}
		if !c.Trust(pem) {
			return nil, term.Usage("%s: the file %s has no certificate in PEM", CAVariable, file)
		}
	}
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

// connect returns the client of a command: with the server and token of the environment, else with those of the last login.
// A token is only ever sent to the server that issued it.
func connect() (*client.Client, error) {
	server, token := os.Getenv(URLVariable), os.Getenv(TokenVariable)
	if server != "" {
		var err error
		if server, err = client.ParseURL(server); err != nil {
			return nil, term.Usage("%s: %w", URLVariable, err)
		}
	}
	if token != "" {
		return connectWithToken(server, token)
	}
	if server == "" {
		var err error
		if server, err = currentServer(); err != nil {
			return nil, err
		}
	}
	l, err := readLogin(server)
	if err != nil {
		return nil, err
	}
	switch {
	case server == "":
		return nil, term.Denied("you are not signed in; use: rolecall login URL, or set %s and %s", URLVariable, TokenVariable)
	case l.URL == "":
		return nil, term.Denied("you are not signed in to %s; use: rolecall login %s", server, server)
	}
	c, err := newClient(l.URL)
	if err != nil {
		return nil, err
	}
	c.Token = func(ctx context.Context, refused string) (string, error) { return l.token(ctx, c, refused) }
	return c, nil
}

func connectWithToken(server, token string) (*client.Client, error) {
	if server == "" {
		return nil, term.Usage("%s is set, but %s is not", TokenVariable, URLVariable)
	}
	c, err := newClient(server)
	if err != nil {
		return nil, err
	}
	c.Token = func(context.Context, string) (string, error) { return token, nil }
	return c, nil
}

// token returns the access token. If it has expired, or the server has just rejected it, token gets a new one.
func (l *login) token(ctx context.Context, c *client.Client, refused string) (string, error) {
	if l.AccessToken != refused && time.Until(l.Expires) > 30*time.Second {
		return l.AccessToken, nil
	}
	t, err := c.Renew(ctx, l.RefreshToken)
	if status := client.Status(err); status == http.StatusBadRequest || status == http.StatusUnauthorized {
		return "", term.Denied("your sign-in to %s has ended; to sign in again: rolecall login %[1]s", l.URL)
	}
	if err != nil {
		return "", err
	}
	l.take(t)
	return l.AccessToken, l.write()
}

func loginCommand() *cobra.Command {
	var username string
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Sign in to a Rolecall",
		Long: `Login asks for a user name and a password, and stores the tokens that the server issues
for them, not the password. The other commands use these tokens. URL defaults to
$ROLECALL_URL, else to the current server. You can be signed in to several servers: the
last login is the current one, ROLECALL_URL or "rolecall context use" selects another.

No login is needed if ROLECALL_URL and ROLECALL_TOKEN are set, for example to a personal
access token in the environment of a program.`,
		Example: `  rolecall login https://rolecall.example.org
  rolecall login --username alice --password-stdin < password-file`,
		Args: term.Arguments("[URL]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := serverToUse(args)
			if err != nil {
				return err
			}
			warnOfPlainHTTP(cmd, server)
			return signIn(cmd, server, username)
		},
	}
	cmd.Flags().StringVarP(&username, "username", "u", "", "user `name` of the account; default: a prompt")
	term.BindPassword(cmd, false)
	return cmd
}

// serverToUse is the URL of the argument, else that of the environment, else that of the last login.
func serverToUse(args []string) (string, error) {
	server := os.Getenv(URLVariable)
	if len(args) > 0 {
		server = args[0]
	}
	if server == "" {
		var err error
		if server, err = currentServer(); err != nil {
			return "", err
		}
	}
	if server == "" {
		return "", term.Usage("the URL is missing; use: rolecall login https://rolecall.example.org")
	}
	parsed, err := client.ParseURL(server)
	if err != nil {
		return "", term.Usage("the URL %q: %w", server, err)
	}
	return parsed, nil
}

func signIn(cmd *cobra.Command, server, username string) error {
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
	c, err := newClient(server)
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
	l := &login{URL: server, Username: username}
	l.take(t)
	if err := errors.Join(l.write(), use(server)); err != nil {
		return err
	}
	term.Report(cmd, "Signed in to %s as %s.", server, username)
	if os.Getenv(TokenVariable) != "" {
		term.Report(cmd, "%s is set and takes precedence over this login.", TokenVariable)
	}
	return nil
}

// signInAgain replaces the stored tokens after a change of the own password has ended them.
func signInAgain(ctx context.Context, c *client.Client, password string) error {
	l, err := readLogin(c.URL)
	if err != nil || l.URL == "" {
		return err
	}
	t, err := c.SignIn(ctx, l.Username, password)
	if client.Status(err) == http.StatusUnauthorized {
		return nil // the stored sign-in is another account's
	}
	if err != nil {
		return err
	}
	l.take(t)
	return l.write()
}

func warnOfPlainHTTP(cmd *cobra.Command, server string) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "https" || u.Hostname() == "localhost" {
		return
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() {
		return
	}
	term.Report(cmd, "Warning: %s is not encrypted. Others in the network can read the password.", server)
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "End the sign-in to a server and remove the stored tokens",
		Long: `Logout revokes the tokens that login has stored on this machine for the server of
ROLECALL_URL, else for the current server, and removes them. If the server cannot be
reached, it removes them only. Logins to other servers stay.`,
		Example: `  rolecall logout`,
		Args:    term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server := os.Getenv(URLVariable)
			if server == "" {
				current, err := currentServer()
				if err != nil || current == "" {
					term.Report(cmd, "You were not signed in.")
					return err
				}
				server = current
			}
			return logout(cmd, server)
		},
	}
}

func logout(cmd *cobra.Command, server string) error {
	server, err := client.ParseURL(server)
	if err != nil {
		return term.Usage("%s: %w", URLVariable, err)
	}
	file, err := loginFile(server)
	if err != nil {
		return err
	}
	l, unreadable := readLogin(server)
	err = os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		term.Report(cmd, "You were not signed in to %s.", server)
		return nil
	}
	if err != nil {
		return err
	}
	if unreadable != nil {
		return fmt.Errorf("the tokens are removed, but they are valid until they expire: %w", unreadable)
	}
	if err := l.revoke(cmd.Context()); err != nil {
		return fmt.Errorf("the tokens are removed, but they are valid until they expire, within 30 days: %w", err)
	}
	term.Report(cmd, "Signed out of %s.", server)
	return nil
}

func contextCommand() *cobra.Command {
	return term.Group("context", "The servers that you are signed in to", contextListCommand(), contextUseCommand())
}

// contextItem is a login without its tokens.
type contextItem struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Username string `json:"username"`
	Current  bool   `json:"current"`
}

func contextListCommand() *cobra.Command {
	return printing(&cobra.Command{
		Use:     "list",
		Short:   "List the servers that you are signed in to",
		Example: `  rolecall context list`,
		Args:    term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := allLogins()
			if err != nil {
				return err
			}
			current, err := currentServer()
			if err != nil {
				return err
			}
			var items []json.RawMessage
			for _, l := range all {
				item, err := json.Marshal(contextItem{l.URL, l.URL, l.Username, l.URL == current})
				if err != nil {
					return err
				}
				items = append(items, item)
			}
			head := term.Head{{Title: "CURRENT"}, {Title: "URL"}, {Title: "USER NAME", Gives: term.Some}}
			return term.PrintList(cmd, items, head, func(i *contextItem) []string {
				return []string{term.YesNo(i.Current), i.URL, i.Username}
			})
		},
	})
}

func contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "use URL",
		Short:   "Select the server that commands use",
		Example: `  rolecall context use https://rolecall.example.org`,
		Args:    term.Arguments("URL"),
		ValidArgsFunction: firstArgument(func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var urls []string
			all, _ := allLogins() // none after an error: a shell's prompt is no place for one
			for _, l := range all {
				urls = append(urls, l.URL)
			}
			return urls, cobra.ShellCompDirectiveNoFileComp
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := client.ParseURL(args[0])
			if err != nil {
				return term.Usage("the URL %q: %w", args[0], err)
			}
			l, err := readLogin(server)
			if err != nil {
				return err
			}
			if l.URL == "" {
				return term.Denied("you are not signed in to %s; use: rolecall login %[1]s", server)
			}
			if err := use(server); err != nil {
				return err
			}
			term.Report(cmd, "Commands use %s now.", server)
			return nil
		},
	}
}

// revoke ends the sign-in at the server.
func (l *login) revoke(ctx context.Context) error {
	c, err := newClient(l.URL)
	if err != nil {
		return err
	}
	return c.Revoke(ctx, l.RefreshToken)
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
			{"may manage", strings.Join(manage, ", ")},
			{"may only view", strings.Join(view, ", ")},
		}
	}))
}
