package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// login is a stored sign-in, which the commands call a context. It holds tokens.
type login struct {
	Name         string    `json:"name"`
	URL          string    `json:"url"`
	Username     string    `json:"username"`
	CAFile       string    `json:"caFile,omitempty"` // "": the authorities of the system
	SSO          bool      `json:"sso,omitempty"`    // through a browser, not by a password
	Issuer       string    `json:"issuer,omitempty"` // of --issuer
	Origin       string    `json:"origin,omitempty"` // of the account; "": not known, signed in by a password
	AccessToken  string    `json:"accessToken"`
	Expires      time.Time `json:"expires"`
	RefreshToken string    `json:"refreshToken"`
}

func (l *login) take(t *client.Tokens) {
	l.AccessToken, l.Expires, l.RefreshToken = string(t.Access), t.Expires, string(t.Refresh)
}

// again is the command that signs in again.
func (l *login) again() string {
	command := "rolecall login " + l.URL
	if l.Name != l.URL {
		command += " --context " + l.Name
	}
	if l.SSO {
		command += " --sso"
	}
	if l.Issuer != "" {
		command += " --issuer " + l.Issuer
	}
	return command
}

// oauthClient is the client that got the tokens, and renews and revokes them.
func (l *login) oauthClient() string {
	if l.SSO {
		return client.BrowserClient
	}
	return client.PasswordClient
}

// logins is a folder with a file for each login, and the file current with the name of the login that commands use. With a
// file each, a command that renews its tokens never touches another login.
type logins struct{ folder string }

const currentFile = "current"

// openLogins finds the logins of this machine. A file login.json beside the folder is that of a version that knew one login.
func openLogins() (*logins, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("credentials cannot be stored: %w; set %s and %s instead", err, URLVariable, TokenVariable)
	}
	s := &logins{filepath.Join(config, "rolecall", "logins")}
	return s, s.takeOver(filepath.Join(config, "rolecall", "login.json"))
}

// takeOver makes the only login of an older version one of several. It is the current one, unless there is another. If the
// file is damaged, nobody is signed in by it.
func (s *logins) takeOver(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		data = nil // in most cases there is none, and one that cannot be read is of no use
	}
	var l login
	if json.Unmarshal(data, &l) != nil || l.URL == "" {
		return nil
	}
	l.Name = l.URL
	if there, err := s.read(l.Name); err != nil || there == nil {
		if err := s.write(&l); err != nil {
			return err
		}
	}
	current, err := s.current()
	if err == nil && current == "" {
		err = s.use(l.Name)
	}
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the stored credentials cannot be moved: %w", err)
	}
	return nil
}

func (s *logins) file(name string) string {
	return filepath.Join(s.folder, url.PathEscape(name)+".json")
}

// current is the name of the login that commands use, "" for none.
func (s *logins) current() (string, error) {
	text, err := os.ReadFile(filepath.Join(s.folder, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the stored credentials cannot be read: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// use makes a login the one that commands use.
func (s *logins) use(name string) error {
	return store(filepath.Join(s.folder, currentFile), []byte(name))
}

// read returns a login, nil if there is none of that name.
func (s *logins) read(name string) (*login, error) {
	data, err := os.ReadFile(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the stored credentials cannot be read: %w", err)
	}
	var l login
	err = json.Unmarshal(data, &l)
	l.Name = cmp.Or(l.Name, l.URL)
	if err != nil || l.URL == "" || l.Name != name {
		return nil, damaged{name}
	}
	return &l, nil
}

// damaged is the error of a login whose file cannot be understood.
type damaged struct{ name string }

// Error implements error.
func (d damaged) Error() string {
	return fmt.Sprintf("the file of the login %q is damaged; to remove it: rolecall contexts delete %[1]s", d.name)
}

// all are the logins in the order of their names. One that is damaged is left out.
func (s *logins) all() ([]*login, error) {
	files, err := filepath.Glob(filepath.Join(s.folder, "*.json"))
	if err != nil {
		return nil, err
	}
	all := []*login{}
	for _, file := range files {
		name, err := url.PathUnescape(strings.TrimSuffix(filepath.Base(file), ".json"))
		if err != nil {
			continue // no file of a login
		}
		if l, err := s.read(name); err == nil && l != nil {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b *login) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// of is the login to a server: the current one, or the only one, or the one without a name of its own; nil if there is none.
func (s *logins) of(server string) (*login, error) {
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	current, err := s.current()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(l *login) bool { return l.URL != server })
	for _, l := range all {
		if l.Name == current || len(all) == 1 {
			return l, nil
		}
	}
	l, err := s.read(server)
	if err != nil || l != nil || len(all) == 0 {
		return l, err
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return nil, term.Usage("there are several logins to %s: %s; choose one with --context", server, strings.Join(names, ", "))
}

// find is the login that a command uses, nil if there is none.
func (s *logins) find(d *destination) (*login, error) {
	switch {
	case d.context != "":
		return s.read(d.context)
	case d.server != "":
		return s.of(d.server)
	}
	current, err := s.current()
	if err != nil || current == "" {
		return nil, err
	}
	return s.read(current)
}

func (s *logins) write(l *login) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return store(s.file(l.Name), data)
}

// remove removes a login. If commands use it, they use none afterwards.
func (s *logins) remove(name string) error {
	current, err := s.current()
	if err == nil && current == name {
		err = os.Remove(filepath.Join(s.folder, currentFile))
	}
	return errors.Join(os.Remove(s.file(name)), err)
}

// store writes a file of the logins.
func store(path string, data []byte) error {
	if err := replaceFile(path, append(data, '\n')); err != nil {
		return fmt.Errorf("the credentials cannot be stored: %w", err)
	}
	return nil
}

// contextName is what a login may be called. No URL is one.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)
