package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
)

func command(t *testing.T, name string) *cobra.Command {
	t.Helper()
	for _, cmd := range rootCommand().Commands() {
		if cmd.Name() == name {
			return cmd
		}
	}
	t.Fatalf("there is no command %s", name)
	return nil
}

// knownSettings are the flags, the commands that have them, and two values that each takes.
var knownSettings = []struct {
	flag, commands string
	values         [2]string
}{
	{"config", "serve doctor", [2]string{"one", "two"}},
	{"listen", "dev serve doctor", [2]string{"127.0.0.1:1", "127.0.0.1:2"}},
	{"allow-remote", "dev", [2]string{"true", "false"}},
	{"data-dir", "dev env", [2]string{"one", "two"}},
	{"pg-bin", "dev", [2]string{"one", "two"}},
	{"public-url", "dev serve doctor", [2]string{"http://one", "http://two"}},
	{"database-url", "serve bootstrap recover doctor", [2]string{"postgres://one", "postgres://two"}},
	{"database-url-file", "serve bootstrap recover doctor", [2]string{"one", "two"}},
	{"password-file", "bootstrap", [2]string{"one", "two"}},
	{"master-key-file", "serve bootstrap recover doctor", [2]string{"one", "two"}},
	{"tls-cert", "serve doctor", [2]string{"one", "two"}},
	{"tls-key", "serve doctor", [2]string{"one", "two"}},
	{"tls-client-ca", "serve doctor", [2]string{"one", "two"}},
	{"trusted-proxies", "serve doctor", [2]string{"[10.0.0.0/8,192.0.2.1]", "[192.0.2.2]"}},
	{"drain-delay", "serve doctor", [2]string{"1s", "1d"}},
	{"metrics-listen", "dev serve doctor", [2]string{"127.0.0.1:1", "127.0.0.1:2"}},
	{"pprof-listen", "dev serve doctor", [2]string{"127.0.0.1:1", "127.0.0.1:2"}},
	{"oidc-issuer", "dev serve doctor", [2]string{"[https://one]", "[https://two]"}},
	{"oidc-file", "dev serve doctor", [2]string{"one", "two"}},
	{"rate-limit", "dev serve doctor", [2]string{"1", "2.5"}},
	{"audit-retention", "dev serve doctor", [2]string{"90d", "0"}},
	{"audit-file", "serve doctor", [2]string{"one", "two"}},
	{"audit-syslog", "serve doctor", [2]string{"tls://one", "tls://two"}},
	{"audit-https", "serve doctor", [2]string{"https://one", "https://two"}},
	{"audit-https-token-file", "serve doctor", [2]string{"one", "two"}},
	{"audit-ca-file", "serve doctor", [2]string{"one", "two"}},
	{"audit-format", "serve doctor", [2]string{"json", "ocsf"}},
	{"webhook-allow-private", "serve doctor", [2]string{"true", "false"}},
	{"log-format", "dev serve doctor", [2]string{"text", "json"}},
	{"otlp-endpoint", "dev serve doctor", [2]string{"http://one", "http://two"}},
	{"log-level", "dev serve doctor", [2]string{"debug", "error"}},
	{"output", "whoami audit status doctor version contexts diff apply", [2]string{"json", "yaml"}},
}

func TestFlagsAndVariables(t *testing.T) {
	known := map[string]bool{}
	for _, s := range knownSettings {
		for name := range strings.FieldsSeq(s.commands) {
			known[name+" "+s.flag] = true
			if command(t, name).Flags().Lookup(s.flag) == nil {
				t.Errorf("%s has no flag --%s", name, s.flag)
				continue
			}
			if s.flag == "database-url" {
				continue // whose variable may hold a password, and is read apart
			}
			value := func(variableValue string, args ...string) string {
				t.Helper()
				cmd := command(t, name)
				t.Setenv("ROLECALL_"+strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_")), variableValue)
				if err := cmd.ParseFlags(args); err != nil {
					t.Fatal(err)
				}
				if err := term.FromEnvironment(cmd, nil); err != nil {
					t.Fatal(err)
				}
				return cmd.Flags().Lookup(s.flag).Value.String()
			}
			for i, want := range s.values {
				given := strings.Trim(want, "[]")
				if got := value(given); got != want {
					t.Errorf("%s: the variable of --%s makes it %q, want %q", name, s.flag, got, want)
				}
				if got := value(strings.Trim(s.values[1-i], "[]"), "--"+s.flag+"="+given); got != want {
					t.Errorf("%s: --%s is %q, want the flag's %q rather than the variable's", name, s.flag, got, want)
				}
			}
		}
	}
	for _, cmd := range rootCommand().Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			// Package cli reads the variables of these itself, when the command runs, and tests them.
			if f.Name == "cluster" || f.Name == "ca-file" {
				return
			}
			if strings.Contains(f.Usage, "[$") && !known[cmd.Name()+" "+f.Name] {
				t.Errorf("%s has a flag --%s with a variable that this test does not know", cmd.Name(), f.Name)
			}
		})
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	key := file("master.key", control.NewMasterKey())
	data := filepath.Join(dir, "data")
	serve := "serve --public-url http://localhost --listen 127.0.0.1:0 --metrics-listen= "
	whole := serve + "--database-url postgres://rolecall@127.0.0.1:1/rolecall --master-key-file " + key + " "
	certPEM, keyPEM := certificate(t, 1)
	tls := whole + "--tls-cert " + file("cert.pem", certPEM) + " --tls-key " + file("key.pem", keyPEM) + " "
	dev := "dev --listen 127.0.0.1:0 --data-dir " + data + " "
	for _, test := range []struct{ args, says string }{
		{"nonsense", `no command "nonsense"`},
		{"dev nonsense", "no arguments"},
		{"serve nonsense", "no arguments"},
		{"env nonsense", "no arguments"},
		{"version nonsense", "no arguments"},
		{"bootstrap one two", "takes [USERNAME]"},
		{"--nonsense", "--nonsense"},
		{"dev --nonsense", "--nonsense"},
		{"dev --tls-cert x", "--tls-cert"},

		{dev + "--listen nonsense", "--listen"},
		{dev + "--listen 127.0.0.1:http", "--listen"},
		{dev + "--listen 127.0.0.1:65536", "--listen"},
		{dev + "--listen=", "--listen"},
		{dev + "--allow-remote=perhaps", "--allow-remote"},
		{dev + "--metrics-listen nonsense", "--metrics-listen"},
		{dev + "--pprof-listen nonsense", "--pprof-listen"},
		{dev + "--pprof-listen 0.0.0.0:1", "--pprof-listen"},
		{dev + "--public-url nonsense", "--public-url"},
		{dev + "--pg-bin " + dir, "--pg-bin"},
		{dev + "--rate-limit many", "--rate-limit"},
		{dev + "--rate-limit -1", "--rate-limit"},
		{dev + "--rate-limit NaN", "--rate-limit"},
		{dev + "--rate-limit Inf", "--rate-limit"},
		{dev + "--audit-retention 90", "--audit-retention"},
		{dev + "--audit-retention 23h", "--audit-retention"},
		{dev + "--audit-retention -1d", "--audit-retention"},
		{dev + "--audit-retention 999999d", "--audit-retention"},
		{dev + "--log-format xml", "--log-format"},
		{dev + "--log-level loud", "--log-level"},
		{"dev --data-dir=", "--data-dir"},
		{"env --data-dir=", "--data-dir"},

		{"serve", "--public-url"},
		{serve, "--database-url-file or ROLECALL_DATABASE_URL"},
		{serve + "--database-url nonsense", "--database-url"},
		{serve + "--database-url postgres://u:opensesame@h/d", "--database-url-file"},
		{serve + "--database-url postgres://u@h/d?password=opensesame", "--database-url-file"},
		{serve + "--database-url u:opensesame@h", "--database-url"},
		{serve + "--database-url-file " + dir + "/none", "--database-url-file"},
		{serve + "--database-url postgres://u@h/d", "--master-key-file or ROLECALL_MASTER_KEY"},
		{serve + "--database-url postgres://u@h/d --master-key-file " + dir + "/none", "--master-key-file"},
		{serve + "--database-url postgres://u@h/d --master-key-file " + file("empty", "\n"), "master key is empty"},
		{serve + "--database-url postgres://u@h/d --master-key-file " + file("bad", "opensesame"), "line 1 of the master key"},
		{whole + "--public-url ftp://x", "--public-url"},
		{whole + "--public-url http://x/?y=z", "--public-url"},
		{whole + "--public-url http://u:opensesame@x", "--public-url"},
		{whole + "--listen nonsense", "--listen"},
		{whole + "--metrics-listen nonsense", "--metrics-listen"},
		{whole + "--tls-cert " + key, "--tls-key"},
		{whole + "--tls-key " + key, "--tls-cert"},
		{whole + "--tls-cert " + key + " --tls-key " + key, "--tls-cert"},
		{whole + "--tls-cert " + dir + "/none --tls-key " + key, dir + "/none"},
		{whole + "--tls-client-ca " + key, "--tls-cert"},
		{tls + "--tls-client-ca " + dir + "/none", "--tls-client-ca"},
		{tls + "--tls-client-ca " + key, "--tls-client-ca"},
		{tls, "--public-url"},
		{whole + "--trusted-proxies nonsense", "--trusted-proxies"},
		{whole + "--trusted-proxies 10.0.0.0/99", "--trusted-proxies"},
		{whole + "--rate-limit -1", "--rate-limit"},
		{whole + "--audit-retention d", "--audit-retention"},
		{whole + "--drain-delay -1s", "--drain-delay"},
		{whole + "--drain-delay 2h", "--drain-delay"},
		{whole + "--drain-delay 1d", "--drain-delay"},
		{whole + "--pprof-listen nonsense", "--pprof-listen"},
		{whole + "--log-format xml", "--log-format"},
		{whole + "--log-level loud", "--log-level"},

		{"bootstrap", "--database-url-file or ROLECALL_DATABASE_URL"},
		{"bootstrap --database-url postgres://u:opensesame@h/d", "--database-url-file"},
		{"bootstrap --database-url postgres://u@h/d", "--master-key-file or ROLECALL_MASTER_KEY"},
		{"bootstrap --database-url postgres://u@127.0.0.1:1/d --master-key-file " + key, "--password-stdin"},
	} {
		code, out, errOut := execute(t, "", strings.Fields(test.args)...)
		if code != term.ExitUsage || out != "" || !isSentence(errOut) || !strings.Contains(errOut, test.says) {
			t.Errorf("rolecall %s: exit code %d, printed %q and %q; want %d and a sentence about %s", test.args, code, out, errOut,
				term.ExitUsage, test.says)
		}
		if strings.Contains(errOut, "opensesame") {
			t.Errorf("rolecall %s: the error shows the secret: %s", test.args, errOut)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a command line that was refused has made the data folder")
	}
}

func TestVariablesThatCannotBeRead(t *testing.T) {
	for variable, says := range map[string]string{
		"ROLECALL_RATE_LIMIT":   `ROLECALL_RATE_LIMIT="nonsense"`,
		"ROLECALL_ALLOW_REMOTE": `ROLECALL_ALLOW_REMOTE="nonsense"`,
		"ROLECALL_LISTEN":       "--listen",
		"ROLECALL_LOG_LEVEL":    "--log-level",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "nonsense")
			code, _, errOut := execute(t, "", "dev", "--data-dir", filepath.Join(t.TempDir(), "data"))
			if code != term.ExitUsage || !isSentence(errOut) || !strings.Contains(errOut, says) {
				t.Errorf("exit code %d: %s", code, errOut)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	table := fmt.Sprintf("rolecall %s\ncommit   unknown\ngo       %s\nplatform %s\n", version, runtime.Version(), platform)
	yaml := fmt.Sprintf("version: %s\ngoVersion: %s\nplatform: %s\n", version, runtime.Version(), platform)
	json := fmt.Sprintf("{\n  \"version\": %q,\n  \"goVersion\": %q,\n  \"platform\": %q\n}\n",
		version, runtime.Version(), platform)
	for args, want := range map[string]string{"version": table, "version -o json": json, "version -o yaml": yaml} {
		if code, out, errOut := execute(t, "", strings.Fields(args)...); code != 0 || out != want || errOut != "" {
			t.Errorf("rolecall %s: exit code %d, printed %q and %q, want %q", args, code, out, errOut, want)
		}
	}
}

// TestManualPages: each command has its page, and the pages are the same each time.
func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var pages [2]map[string]string
	for i := range pages {
		dir := filepath.Join(t.TempDir(), "man1")
		if code, out, errOut := execute(t, "", "man", dir); code != 0 || out != "" || errOut != "" {
			t.Fatalf("exit code %d, printed %q and %q", code, out, errOut)
		}
		pages[i] = map[string]string{}
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			pages[i][filepath.Base(file)] = read(t, file)
		}
	}
	for name, says := range map[string]string{
		"rolecall.1": "PostgreSQL users as a service", "rolecall-serve.1": "public-url", "rolecall-users-create.1": "Nov 2023",
	} {
		if !strings.Contains(pages[0][name], says) {
			t.Errorf("%s has no %q", name, says)
		}
	}
	if !maps.Equal(pages[0], pages[1]) {
		t.Error("the second manual differs from the first")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range []string{"", "--help", "help dev", "dev --help", "serve --help", "bootstrap --help", "env --help",
		"version", "--version"} {
		code, out, errOut := execute(t, "", strings.Fields(args)...)
		if code != 0 || out == "" || errOut != "" {
			t.Errorf("rolecall %s: exit code %d, printed %q and %q", args, code, out, errOut)
		}
	}
	_, command, _ := execute(t, "", "version")
	if _, flag, _ := execute(t, "", "--version"); flag == "" || !strings.HasPrefix(command, flag) {
		t.Errorf("rolecall --version prints %q, and rolecall version begins with %q", flag, command)
	}
	for _, group := range [][]string{{"--help"}, {"users", "--help"}, {"keys", "--help"}} {
		if _, help, _ := execute(t, "", group...); strings.Contains(help, "[flags]") {
			t.Errorf("rolecall %q has no flags, and its usage line has:\n%s", group, help)
		}
	}
}
