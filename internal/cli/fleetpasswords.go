package cli

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"rolecall/internal/manifest"
	"rolecall/internal/secret"
)

// A generated password is handed out before it is sent to the server. Otherwise a process that is killed in between would
// leave a user whose password nobody knows.

// passwords is where generated passwords go.
type passwords struct {
	c   *call
	dir string // "": to standard output, a line of JSON each
}

// passwordLine is a generated password on standard output. One that the server has refused follows as null.
type passwordLine struct {
	Cluster  string  `json:"cluster,omitempty"`
	Username string  `json:"username,omitempty"`
	Account  string  `json:"account,omitempty"`
	Origin   string  `json:"origin,omitempty"`
	Password *string `json:"password"`
}

func (p *passwords) line(t manifest.Thing, password *string) error {
	l := passwordLine{Cluster: t.Cluster, Username: t.Name, Password: password}
	if t.Kind == manifest.KindAccount {
		l = passwordLine{Account: t.Name, Origin: t.Origin, Password: password}
	}
	return printLine(p.c, l)
}

// printLine prints a line of JSON.
func printLine(c *call, v any) error {
	e := json.NewEncoder(c.cmd.OutOrStdout())
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// generate returns a password for something new, which has been handed out.
func (p *passwords) generate(t manifest.Thing) (secret.Text, error) {
	password := rand.Text() // 130 bits as letters and digits
	if p.dir == "" {
		return secret.Text(password), p.line(t, &password)
	}
	err := createFile(p.path(t), []byte(password))
	if errors.Is(err, fs.ErrExist) { // of a run that did not get further, or that is running now
		kept, err := os.ReadFile(p.path(t))
		if err == nil && len(kept) == 0 {
			err = fmt.Errorf("%s is empty; remove it", p.path(t))
		}
		return secret.Text(kept), err
	}
	if err != nil {
		return "", fmt.Errorf("the password cannot be kept: %w", err)
	}
	return secret.Text(password), nil
}

// refused takes back a password that the server has refused. If something of that name exists in the meantime, its file
// stays: another run may have created it with the same password.
func (p *passwords) refused(t manifest.Thing, exists bool) error {
	if p.dir == "" {
		return p.line(t, nil)
	}
	if exists {
		return nil
	}
	return os.Remove(p.path(t))
}

// path is the file of a password. Names are escaped as in URLs, so that none leaves the folder.
func (p *passwords) path(t manifest.Thing) string {
	if t.Kind == manifest.KindAccount {
		return filepath.Join(p.dir, "accounts", fileName(t.Origin), fileName(t.Name))
	}
	return filepath.Join(p.dir, "clusters", fileName(t.Cluster), fileName(t.Name))
}

func fileName(name string) string {
	escaped := url.PathEscape(name)
	if strings.HasPrefix(escaped, ".") {
		return "%2E" + escaped[1:]
	}
	return escaped
}

// readSecret reads a secret that the file names. The error does not contain it.
func readSecret(s manifest.Secret) (secret.Text, error) {
	if s.Env != "" {
		value, set := os.LookupEnv(s.Env)
		if !set || value == "" {
			return "", fmt.Errorf("the variable %s is not set; set it to the secret", s.Env)
		}
		return secret.Text(value), nil
	}
	text, err := os.ReadFile(s.File)
	if err != nil {
		return "", fmt.Errorf("the file of a secret cannot be read: %w", err)
	}
	value := strings.TrimRight(string(text), "\r\n")
	if value == "" {
		return "", fmt.Errorf("the file %s is empty; write the secret to it", s.File)
	}
	return secret.Text(value), nil
}
