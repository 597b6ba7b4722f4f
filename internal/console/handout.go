package console

import (
	"regexp"
	"strings"

	"rolecall/internal/cluster"
	"rolecall/internal/format"
	"rolecall/internal/secret"
)

// onceLogin is a login to PostgreSQL with its password, for the template "onceLogin". Only a page that is shown once has it.
type onceLogin struct {
	Username string
	Password secret.Text
	Handouts []handout
}

// handout is a login in a format that people paste or programs read.
type handout struct{ ID, Title, Hint, Text string }

// Plain is the password. Only the page that shows it once asks for it.
func (l *onceLogin) Plain() string { return string(l.Password) }

// handOut writes a login in the formats that people read and programs take.
func handOut(to cluster.Login, username string, password secret.Text) (*onceLogin, error) {
	login, err := format.Parse(to.URL, "", password)
	if err != nil {
		return nil, err
	}
	env, err := login.Text("env", "")
	if err != nil {
		return nil, err
	}
	l := &onceLogin{Username: username, Password: password, Handouts: []handout{
		{"psql", "psql", "psql asks for the password, so that it is not in the history of your shell.",
			"psql " + shellQuoted(to.URL)},
		{"url", "Connection URL", "The password is in it.", login.URI()},
		{"env", "Environment", "For a shell or a container.", strings.TrimSuffix(env, "\n")},
	}}
	if manifest, err := login.Text("secret", ""); err == nil { // a name with a line end has none
		l.Handouts = append(l.Handouts, handout{"kubernetes", "Kubernetes Secret", "For kubectl apply -f.", manifest})
	}
	return l, nil
}

// plainWord matches what a shell takes for one word as it is.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:/@-]*$`)

// shellWord quotes a word for a POSIX shell if that is necessary.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return shellQuoted(word)
}

// shellQuoted quotes a word for a POSIX shell.
func shellQuoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
