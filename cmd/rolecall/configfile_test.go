package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
)

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	flagsOf := func(args ...string) map[string]string {
		t.Helper()
		cmd := command(t, "serve")
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if err := term.FromEnvironment(cmd, nil); err != nil {
			t.Fatal(err)
		}
		if err := readConfigFile(cmd.Flags().Lookup("config").Value.String(), cmd.NonInheritedFlags()); err != nil {
			t.Fatal(err)
		}
		values := map[string]string{}
		for _, name := range settable(cmd.NonInheritedFlags()) {
			values[name] = cmd.Flags().Lookup(name).Value.String()
		}
		return values
	}
	t.Setenv("ROLECALL_LOG_LEVEL", "warn")
	t.Setenv("ROLECALL_CONFIG", file("rolecall.yaml", `# Settings
listen: 0.0.0.0:8443
log-level: debug
log-format: text
rate-limit: 2.5
audit-retention: 90d
trusted-proxies: [10.0.0.0/8, 192.0.2.7]
oidc-issuer:
  - https://one.example.org,audience=a
  - https://two.example.org,audience=b
database-url-file: url
master-key-file: key
`))
	for name, want := range map[string]string{
		"listen": "0.0.0.0:8443", "log-level": "warn", "log-format": "json", "rate-limit": "2.5", "audit-retention": "90d",
		"trusted-proxies": "[10.0.0.0/8,192.0.2.7]", "database-url-file": "url", "master-key-file": "key", "drain-delay": "0s",
		"oidc-issuer": `["https://one.example.org,audience=a","https://two.example.org,audience=b"]`,
	} {
		if got := flagsOf("--log-format", "json")[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// Another way to give the same takes precedence as well.
	if got := flagsOf("--database-url", "postgres://x@y/z")["database-url-file"]; got != "" {
		t.Errorf("with --database-url, the file of the URL is %q", got)
	}
	t.Setenv(databaseURLVariable, "postgres://x@y/z")
	t.Setenv(masterKeyVariable, control.NewMasterKey())
	if got := flagsOf(); got["database-url-file"] != "" || got["master-key-file"] != "" {
		t.Errorf("with variables for the secrets: %q, %q", got["database-url-file"], got["master-key-file"])
	}
	for name, text := range map[string]string{"empty": "", "comment": "# nothing\n"} {
		if got := flagsOf("--config", file(name, text))["listen"]; got != "127.0.0.1:8080" {
			t.Errorf("an %s file: --listen is %q", name, got)
		}
	}
	t.Setenv("ROLECALL_CONFIG", "")

	for _, test := range []struct{ text, says string }{
		{"listen: a:1\nlisten-on: b:2\n", `line 2: there is no setting "listen-on"`},
		{"drain_delay: 5s\n", `line 1: there is no setting "drain_delay" (did you mean drain-delay?)`},
		{"config: other.yaml\n", `line 1: there is no setting "config"`},
		{"check-config: true\n", `line 1: there is no setting "check-config"`},
		{"server: https://x\n", `line 1: there is no setting "server"`},
		{"listen: a:1\n\nlisten: b:2\n", "line 3: the setting listen is in line 1 already"},
		{"rate-limit: fast\n", `line 1: the setting rate-limit is "fast": use a number`},
		{"rate-limit:\n", "line 1: the setting rate-limit needs a value"},
		{"rate-limit: {a: 1}\n", "line 1: the setting rate-limit needs a value"},
		{"listen: [a:1, b:2]\n", "line 1: the setting listen has a list; give one value"},
		{"oidc-issuer: [[a]]\n", "line 1: the setting oidc-issuer needs a value"},
		{"- listen\n", "line 1: the file is no mapping"},
		{"listen\n", "line 1: the file is no mapping"},
		{"---\n", "the file is no mapping"},
		{"listen: a:1\n---\nlisten: b:2\n", "a second document"},
		{"listen: 'a\n", "yaml: "},
		{"listen: a:1\n\tx: y\n", "yaml: line 2"},
		{"listen: " + strings.Repeat("x", maxConfigFile), "the file has more than 1048576 bytes"},
		{"log-format: loud\n", `--log-format is "loud"`},
	} {
		code, out, errOut := execute(t, "", "serve", "--config", file("bad.yaml", test.text), "--public-url", "http://localhost",
			"--check-config")
		if code != term.ExitUsage || out != "" || !strings.Contains(errOut, test.says) {
			t.Errorf("%.60q: exit code %d, %q does not contain %q", test.text, code, errOut, test.says)
		}
	}
	for path, says := range map[string]string{filepath.Join(dir, "none"): "no such file", dir: "is a directory"} {
		if code, _, errOut := execute(t, "", "serve", "--config", path); code != term.ExitUsage ||
			!strings.Contains(errOut, "--config: ") || !strings.Contains(errOut, says) {
			t.Errorf("--config %s: exit code %d, %s", path, code, errOut)
		}
	}
}

// --check-config finds what serve would find before it listens, and neither listens nor connects.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	certPEM, keyPEM := certificate(t, 1)
	valid := "public-url: https://rolecall.example.org\nlisten: 192.0.2.1:8443\ntls-cert: " + file("cert.pem", certPEM) +
		"\ntls-key: " + file("key.pem", keyPEM) + "\nmaster-key-file: " + file("master.key", control.NewMasterKey()) + "\n"
	url := "database-url-file: " + file("url", "postgres://rolecall:secret@192.0.2.1/rolecall") + "\n"
	check := func(text string) (code int, out, errOut string) {
		return execute(t, "", "serve", "--check-config", "--config", file("rolecall.yaml", text))
	}
	if code, out, errOut := check(valid + url); code != 0 || out != "The configuration is valid.\n" || errOut != "" {
		t.Errorf("a valid file: exit code %d, printed %q and %q", code, out, errOut)
	}
	for _, test := range []struct{ text, says string }{
		{valid, "--database-url-file or ROLECALL_DATABASE_URL is needed"},
		{valid + "database-url: postgres://x:secret@y/z\n", "--database-url contains a password"},
		{valid + "database-url-file: " + file("bad", "postgres://rolecall:secret@[/x"), "cannot be read; it has the form"},
		{valid + "database-url-file: " + file("ca", "postgres://r:secret@192.0.2.1/x?sslrootcert=/nowhere/ca.pem"),
			"/nowhere/ca.pem: no such file"},
		{valid + url + "metrics-listen: nonsense", `--metrics-listen "nonsense" is not an address`},
		{valid + url + "tls-client-ca: " + file("ca.pem", "none"), "holds no certificate"},
		{strings.Replace(valid, "key.pem", "none.pem", 1) + url, "none.pem: no such file"},
		{strings.Replace(valid, "master.key", "none.key", 1) + url, "none.key: no such file"},
		{valid + url + "oidc-file: " + file("oidc.yaml", "x: y"), "--oidc-file: "},
	} {
		if code, out, errOut := check(test.text); code != term.ExitUsage || out != "" || !strings.Contains(errOut, test.says) ||
			strings.Contains(errOut, "secret") {
			t.Errorf("%q is not in: exit code %d, %q", test.says, code, errOut)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "master.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := check(valid + url); code != 0 || !strings.Contains(errOut, "chmod 600") {
		t.Errorf("a key that everybody can read: exit code %d, %s", code, errOut)
	}
}

// A server starts from nothing but the file.
func TestServeByConfigFile(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	path := filepath.Join(t.TempDir(), "rolecall.yaml")
	write(t, path, "public-url: http://rolecall.example.org\nlisten: 127.0.0.1:0\nmetrics-listen: ''\ndatabase-url-file: "+
		flags[1]+"\nmaster-key-file: "+flags[3]+"\n")
	p := begin(t, "serve", "--config", path)
	if r := get(t, "http://"+p.servesAt(t)+"/readyz", ""); r.status != http.StatusOK {
		t.Errorf("the server answers %d", r.status)
	}
}
