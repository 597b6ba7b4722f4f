package main

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

	"rolecall/internal/client"
)

// Where a server and a token come from when nobody has signed in.
const (
	urlVariable   = "ROLECALL_URL"
	tokenVariable = "ROLECALL_TOKEN"
)

// The files with the certificate that is shown to a server which wants one, and its key.
const (
	clientCertVariable = "ROLECALL_CLIENT_CERT"
	clientKeyVariable  = "ROLECALL_CLIENT_KEY"
)

// login is a sign-in, as it is kept. It holds tokens.
type login struct {
	URL          string    `json:"url"`
	Username     string    `json:"username"`
	AccessToken  string    `json:"accessToken"`
	Expires      time.Time `json:"expires"`
	RefreshToken string    `json:"refreshToken"`
}

func loginFile() (string, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no place to keep a sign-in: %w; set %s and %s instead", err, urlVariable, tokenVariable)
	}
	return filepath.Join(folder, "rolecall", "login.json"), nil
}

// readLogin returns the kept sign-in; an empty one when there is none.
func readLogin() (*login, error) {
	var l login
	file, err := loginFile()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the sign-in cannot be read: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("%s is damaged; sign in again with: rolecall login", file)
	}
	return &l, nil
}

// write replaces the file as a whole: other commands read it at the same time.
func (l *login) write() error {
	file, err := loginFile()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("the sign-in cannot be kept: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), ".login-*") // mode 0600
	if err != nil {
		return fmt.Errorf("the sign-in cannot be kept: %w", err)
	}
	_, err = temporary.Write(append(data, '\n'))
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return fmt.Errorf("the sign-in cannot be kept: %w", err)
	}
	return nil
}

func (l *login) take(t *client.Tokens) {
	l.AccessToken, l.Expires, l.RefreshToken = string(t.Access), t.Expires, string(t.Refresh)
}

// deniedError is a command that cannot go on because nobody has signed in.
type deniedError struct{ error }

func denied(format string, args ...any) error { return &deniedError{fmt.Errorf(format, args...)} }

func newClient(baseURL string) (*client.Client, error) {
	c := client.New(baseURL, "rolecall/"+version)
	cert, key := os.Getenv(clientCertVariable), os.Getenv(clientKeyVariable)
	if cert == "" && key == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, usage("%s and %s: %w", clientCertVariable, clientKeyVariable, err)
	}
	c.Show(pair)
	return c, nil
}

// connect returns the client of a command: the server and token of the environment, or else those of the sign-in. A
// token is only ever sent to the server that it came from.
func connect() (*client.Client, error) {
	server, token := os.Getenv(urlVariable), os.Getenv(tokenVariable)
	if server != "" {
		var err error
		if server, err = client.ParseURL(server); err != nil {
			return nil, usage("%s: %w", urlVariable, err)
		}
	}
	if token != "" {
		if server == "" {
			return nil, usage("%s is set, but %s is not", tokenVariable, urlVariable)
		}
		return withToken(server, token)
	}
	l, err := readLogin()
	if err != nil {
		return nil, err
	}
	// What rolecall env prints is enough, when nobody has signed in to that server.
	if token := os.Getenv("IONOS_TOKEN"); server != "" && l.URL != server && token != "" && os.Getenv("IONOS_API_URL") == server {
		return withToken(server, token)
	}
	switch {
	case l.URL == "" && server == "":
		return nil, denied("you are not signed in; do so with: rolecall login URL, or set %s and %s", urlVariable, tokenVariable)
	case l.URL == "" || server != "" && server != l.URL:
		return nil, denied("you are not signed in to %s; do so with: rolecall login %s", server, server)
	}
	c, err := newClient(l.URL)
	if err != nil {
		return nil, err
	}
	c.Token = func(ctx context.Context, refused string) (string, error) { return l.token(ctx, c, refused) }
	return c, nil
}

func withToken(server, token string) (*client.Client, error) {
	c, err := newClient(server)
	if err != nil {
		return nil, err
	}
	c.Token = func(context.Context, string) (string, error) { return token, nil }
	return c, nil
}

// token returns the access token, a new one when it has expired or was refused.
func (l *login) token(ctx context.Context, c *client.Client, refused string) (string, error) {
	if l.AccessToken != refused && time.Until(l.Expires) > 30*time.Second {
		return l.AccessToken, nil
	}
	t, err := c.Renew(ctx, l.RefreshToken)
	if status := client.Status(err); status == http.StatusBadRequest || status == http.StatusUnauthorized {
		return "", denied("your sign-in to %s has ended; sign in again with: rolecall login", l.URL)
	}
	if err != nil {
		return "", err
	}
	l.take(t)
	return l.AccessToken, l.write()
}

func loginCommand() *cobra.Command {
	var username string
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Sign in to a Rolecall",
		Long: `Login asks for a user name and a password and keeps what the server gives for them, not
the password, for the commands that follow. URL is that of $ROLECALL_URL, or of the last
sign-in, when it is left out.

Where ROLECALL_URL and ROLECALL_TOKEN are set, such as to a personal access token in a
program's environment, no login is needed.`,
		Example: `  rolecall login https://rolecall.example.org
  rolecall login --username alice --password-stdin < password-file`,
		Args: arguments("[URL]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := readLogin()
			if err != nil {
				l = &login{} // it is about to be replaced
			}
			server := l.URL
			if value := os.Getenv(urlVariable); value != "" {
				server = value
			}
			if len(args) > 0 {
				server = args[0]
			}
			if server == "" {
				return usage("say where: rolecall login https://rolecall.example.org")
			}
			if server, err = client.ParseURL(server); err != nil {
				return usage("%q: %w", server, err)
			}
			warnOfPlainHTTP(cmd, server)
			if username == "" {
				if _, ok := terminal(cmd); !ok {
					return usage("there is no terminal to ask for the user name on; give it with --username")
				}
				if username, err = ask(cmd, "User name: "); err != nil {
					return err
				}
			}
			secret, err := readSecret(cmd, "Password: ", password.stdin)
			if err != nil {
				return err
			}
			c, err := newClient(server)
			if err != nil {
				return err
			}
			t, err := c.SignIn(cmd.Context(), username, secret)
			if client.Status(err) == http.StatusUnauthorized {
				return denied("the user name or the password is wrong")
			}
			if err != nil {
				return err
			}
			l = &login{URL: server, Username: username}
			l.take(t)
			if err := l.write(); err != nil {
				return err
			}
			did(cmd, "Signed in to %s as %s.", server, username)
			if os.Getenv(tokenVariable) != "" {
				did(cmd, "%s is set and counts before this sign-in.", tokenVariable)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&username, "username", "u", "", "`name` of the account; asked for when it is left out")
	password.bind(cmd, false)
	return cmd
}

func warnOfPlainHTTP(cmd *cobra.Command, server string) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "https" || u.Hostname() == "localhost" {
		return
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() {
		return
	}
	did(cmd, "Warning: %s is not encrypted; everybody on the way can read the password.", server)
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		Short:   "Forget the sign-in",
		Long:    `Logout removes what login has kept on this machine.`,
		Example: `  rolecall logout`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := loginFile()
			if err != nil {
				return err
			}
			err = os.Remove(file)
			if errors.Is(err, fs.ErrNotExist) {
				did(cmd, "You were not signed in.")
				return nil
			}
			if err == nil {
				did(cmd, "Signed out.")
			}
			return err
		},
	}
}

// whoamiPath is where the server says who is asking.
const whoamiPath = "/rolecall/v1/whoami"

type principal struct {
	Account struct {
		GUID     string `json:"guid"`
		Username string `json:"username"`
		Origin   string `json:"origin"`
	} `json:"account"`
	Scopes   []string          `json:"scopes"`
	Labels   map[string]string `json:"labels"`
	Clusters []struct {
		clusterName
		Manage bool `json:"manage"`
	} `json:"clusters"`
}

func whoami(ctx context.Context, c *client.Client) (*principal, error) {
	answer, err := c.Get(ctx, whoamiPath, nil)
	if err != nil {
		return nil, err
	}
	return decode[principal](answer)
}

func whoamiCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are signed in as, and what you may do",
		Example: `  rolecall whoami
  rolecall whoami -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			me, err := c.Get(cmd.Context(), whoamiPath, nil)
			if err != nil {
				return err
			}
			return printOne(cmd, o, me, func(p *principal) [][]string {
				var manage, view []string
				for _, cl := range p.Clusters {
					if cl.Manage {
						manage = append(manage, cl.Name)
					} else {
						view = append(view, cl.Name)
					}
				}
				return [][]string{
					{"server", c.URL},
					{"user name", p.Account.Username},
					{"origin", p.Account.Origin},
					{"guid", p.Account.GUID},
					{"scopes", strings.Join(p.Scopes, " ")},
					{"labels", pairs(p.Labels)},
					{"may manage", strings.Join(manage, ", ")},
					{"may only view", strings.Join(view, ", ")},
				}
			})
		},
	}
	o.bind(cmd)
	return cmd
}
