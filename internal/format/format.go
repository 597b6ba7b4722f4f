// Package format writes what a program needs to log in to PostgreSQL in the formats that programs read.
package format

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"rolecall/internal/secret"
)

// Names are the formats that are text.
var Names = []string{"env", "pgpass", "uri", "jdbc", "secret"}

// Login is a database, and as whom to log in to it.
type Login struct {
	Hosts    []Host // at least one; clients try them in this order
	Database string
	Username string
	Password secret.Text
	SSLMode  string
	// Primary is whether clients should look for the primary among the hosts.
	Primary bool
}

// Host is a server.
type Host struct{ Name, Port string }

// Parse reads a URL as the API has it: without a password, with the port of each host. database "": that of the URL. net/url
// cannot parse several hosts of which one is an IPv6 address.
func Parse(text, database string, password secret.Text) (*Login, error) {
	bad := errors.New("the server's answer has no URL to connect to")
	rest, ok := strings.CutPrefix(text, "postgresql://")
	user, rest, found := strings.Cut(rest, "@")
	hosts, rest, slash := strings.Cut(rest, "/")
	path, settings, _ := strings.Cut(rest, "?")
	if !ok || !found || !slash {
		return nil, bad
	}
	l := Login{Password: password}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			return nil, bad
		}
		l.Hosts = append(l.Hosts, Host{name, port})
	}
	query, errQuery := url.ParseQuery(settings)
	username, errUser := url.PathUnescape(user)
	inURL, errPath := url.PathUnescape(path)
	if errors.Join(errQuery, errUser, errPath) != nil {
		return nil, bad
	}
	l.Username, l.Database = username, cmp.Or(database, inURL)
	// A cluster without TLS has no mode in its URL. Drivers have different defaults.
	l.SSLMode = cmp.Or(query.Get("sslmode"), "disable")
	l.Primary = query.Get("target_session_attrs") == "read-write"
	return &l, nil
}

// Text is the login in one of the formats of Names. secretName is the name of the Kubernetes Secret; "": that of the user.
func (l *Login) Text(format, secretName string) (string, error) {
	switch format {
	case "env":
		return l.exports(), nil
	case "pgpass":
		return l.pgpass()
	case "uri":
		return l.URI() + "\n", nil
	case "jdbc":
		return l.JDBC() + "\n", nil
	}
	return l.kubernetes(cmp.Or(secretName, SecretName(l.Username)))
}

// Environment is the variables of libpq and DATABASE_URL, as NAME=value.
func (l *Login) Environment() []string {
	var names, ports []string
	for _, host := range l.Hosts {
		names, ports = append(names, host.Name), append(ports, host.Port)
	}
	env := []string{
		"PGHOST=" + strings.Join(names, ","), "PGPORT=" + strings.Join(ports, ","), "PGUSER=" + l.Username,
		"PGPASSWORD=" + string(l.Password), "PGDATABASE=" + l.Database, "PGSSLMODE=" + l.SSLMode,
	}
	if l.Primary {
		env = append(env, "PGTARGETSESSIONATTRS=read-write")
	}
	return append(env, "DATABASE_URL="+l.uri("postgres"))
}

// exports is the environment for a POSIX shell.
func (l *Login) exports() string {
	var b strings.Builder
	for _, variable := range l.Environment() {
		name, value, _ := strings.Cut(variable, "=")
		b.WriteString("export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n")
	}
	return b.String()
}

// pgpass is a line of a password file for each host. A line end in a name would begin a line for another login.
func (l *Login) pgpass() (string, error) {
	for _, name := range []string{l.Database, l.Username} {
		if strings.ContainsAny(name, "\r\n") {
			return "", fmt.Errorf("the name %q has a line end, which a password file cannot have; use another output format", name)
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	var b strings.Builder
	for _, host := range l.Hosts {
		for i, field := range []string{host.Name, host.Port, l.Database, l.Username, string(l.Password)} {
			if i > 0 {
				b.WriteByte(':')
			}
			b.WriteString(escape.Replace(field))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// URI is a URI of libpq.
func (l *Login) URI() string { return l.uri("postgresql") }

func (l *Login) uri(scheme string) string {
	text := scheme + "://" + percent(l.Username) + ":" + percent(string(l.Password)) + "@" + l.authority() + "/" +
		percent(l.Database) + "?sslmode=" + percent(l.SSLMode)
	if l.Primary {
		text += "&target_session_attrs=read-write"
	}
	return text
}

// JDBC is a URL of the PostgreSQL JDBC driver.
func (l *Login) JDBC() string {
	text := "jdbc:postgresql://" + l.authority() + "/" + percent(l.Database) + "?user=" + percent(l.Username) +
		"&password=" + percent(string(l.Password)) + "&sslmode=" + percent(l.SSLMode)
	if l.Primary {
		text += "&targetServerType=primary"
	}
	return text
}

func (l *Login) authority() string {
	var all []string
	for _, host := range l.Hosts {
		all = append(all, net.JoinHostPort(host.Name, host.Port))
	}
	return strings.Join(all, ",")
}

// percent encodes everything that has a meaning in any part of a URL. A space is not a plus sign: libpq would keep that.
func percent(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// entries are those of a service binding: https://servicebinding.io.
func (l *Login) entries() [][2]string {
	return [][2]string{
		{"type", "postgresql"}, {"provider", provider}, {"host", l.Hosts[0].Name}, {"port", l.Hosts[0].Port},
		{"database", l.Database}, {"username", l.Username}, {"password", string(l.Password)}, {"uri", l.URI()},
	}
}

const provider = "rolecall"

// kubernetes is the manifest of a Secret. It has the keys of CloudNativePG and those of a service binding.
func (l *Login) kubernetes(name string) (string, error) {
	pgpass, err := l.pgpass()
	if err != nil {
		return "", err
	}
	data := yaml.Node{Kind: yaml.MappingNode}
	for _, entry := range append(l.entries(), [][2]string{
		{"dbname", l.Database}, {"jdbc-uri", l.JDBC()}, {"pgpass", pgpass},
	}...) {
		var key, value yaml.Node
		key.SetString(entry[0])
		value.SetString(entry[1])
		value.Style = yaml.DoubleQuotedStyle
		data.Content = append(data.Content, &key, &value)
	}
	var manifest struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   struct {
			Name string `yaml:"name"`
		} `yaml:"metadata"`
		Type       string     `yaml:"type"`
		StringData *yaml.Node `yaml:"stringData"`
	}
	manifest.APIVersion, manifest.Kind, manifest.Type = "v1", "Secret", "servicebinding.io/postgresql"
	manifest.Metadata.Name, manifest.StringData = name, &data
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	err = errors.Join(e.Encode(manifest), e.Close())
	return text.String(), err
}

var unsafe = regexp.MustCompile(`[^a-z0-9]+`)

// SecretName makes a name of a Kubernetes object of the name of a user.
func SecretName(username string) string {
	return cmp.Or(strings.Trim(unsafe.ReplaceAllString(strings.ToLower(username), "-"), "-"), provider)
}

var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// IsSecretName reports whether Kubernetes accepts the name of a Secret.
func IsSecretName(name string) bool { return len(name) <= 253 && objectName.MatchString(name) }
