package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A document is a page whose commands run, and what has to be there first.
type document struct{ path, before string }

// startPages are for a server that has just started, guidePages for that of a reader, which has what the page assumes.
var (
	startPages = []document{{"README.md", ""}, {"docs/tour.md", ""}}
	guidePages = []document{
		{"docs/databases.md", `psql -qc 'CREATE DATABASE crm'`},
		{"docs/leases.md", `rolecall users enable app -c local; printf '#!/bin/sh\n' >migrate; chmod +x migrate`},
		{"docs/clients.md", ""},
		{"docs/fleet-file.md", ""},
		{"docs/fleet.md", `rolecall clusters update local --name payments; rolecall accounts create eve --generate`},
		{"docs/accounts.md", ""},
		{"docs/clusters.md", `rolecall clusters update payments --name shop; rolecall accounts create ann --generate
			psql -qc 'CREATE ROLE auditors' -c 'CREATE ROLE on_call'`},
		{"docs/pgbouncer.md", ""},
		{"docs/events.md", ""},
		{"docs/vault.md", `rolecall leases list --for app -o name | xargs -n1 rolecall leases end
			rolecall users delete app -c shop --yes`},
	}
)

// otherPages have commands that no test of this file runs, with the reason.
var otherPages = map[string]string{
	"CONTRIBUTING.md":               "they run tests and benchmarks",
	"docs/internals/performance.md": "it runs the benchmark",
	"docs/offboarding.md":           "offboarding asks for confirmation; docs/tour.md does the same with --yes",
	"docs/operating.md":             "a company's servers; cmd/rolecall: TestServe, TestBackupAndRestore",
	"docs/quickstart-compose.md":    "they need a container engine; tools/release: TestCompose reads the file",
	"docs/quickstart-kubernetes.md": "they need Kubernetes; tools/chart renders the values of the page",
	"docs/quickstart-systemd.md":    "they install the package; tools/release: TestDebian runs them",
	"docs/quickstart.md":            "a company's servers; docs/tour.md does the same on one machine",
	"docs/uninstall.md":             "the servers of the test run; cmd/rolecall: TestLeases removes a cluster with leases",
	"docs/reference.md":             "the examples of the help; cmd/rolecall: TestDocumentedCommands reads them",
	"docs/sso.md":                   "they need an issuer; TestOIDC and cmd/rolecall: TestOIDCIssuers have one",
}

// otherBlocks begin with these words and do not run, with the reason.
var otherBlocks = []struct{ path, begins, reason string }{
	{"README.md", "git clone", "the test has built the program"},
	{"docs/tour.md", "VAULT_ADDR=", "they need the program vault; TestVaultClient has its library"},
	{"docs/tour.md", "bin/rolecall dev", "TestStart starts this server at a free port"},
	{"docs/tour.md", "rm -rf", "the servers of the test run"},
	{"docs/databases.md", "rolecall databases access-roles shop -c local --delete", "it asks; cmd/rolecall: TestLevels"},
	{"docs/leases.md", "rolecall credentials current shop -c local -o secret", "it needs kubectl"},
	{"docs/clients.md", "ionosctl", "they need ionosctl; TestIonosctl sends its requests"},
	{"docs/clients.md", "cf api", "they need cf; TestCFCommand sends its requests"},
	{"docs/clients.md", "uaa target", "they need uaa; TestUAATokens has its library"},
	{"docs/fleet.md", "rolecall users disable", "they ask; cmd/rolecall: TestManyUsers"},
	{"docs/fleet.md", "rolecall operations list", "an operation has another id each time; cmd/rolecall: TestManyUsers"},
	{"docs/clusters.md", "rolecall clusters register", "a server of a company; docs/tour.md registers one"},
	{"docs/clusters.md", "rolecall clusters update shop --system-identifier", "the identifier of a cluster"},
	{"docs/pgbouncer.md", "rolecall clusters userlist", "it needs ssh; TestPgBouncerAuthFile uses the list"},
	{"docs/events.md", "rolecall serve", "the receivers of a company; cmd/rolecall: TestEventsThroughKills has some"},
	{"docs/events.md", "rolecall webhooks test", "the same"},
	{"docs/events.md", "key=", "event: TestSignature"},
	{"docs/vault.md", "rolecall serve", "the issuer of a company; TestVaultClient has one"},
	{"docs/vault.md", "export BAO_ADDR", "they need bao; TestVaultClient has its library"},
	{"docs/vault.md", "TOKEN=", "it needs a password; TestVaultClient signs in"},
}

// other is the reason why a block of a page does not run, "" if it does.
func other(path, block string) string {
	for _, o := range otherBlocks {
		if o.path == path && strings.HasPrefix(strings.TrimSpace(block), o.begins) {
			return o.reason
		}
	}
	return ""
}

// TestCommandsOfDocuments finds commands that no test of this file runs and no list has, and superfluous entries of lists.
func TestCommandsOfDocuments(t *testing.T) {
	t.Parallel()
	var run, used []string
	for _, d := range slices.Concat(startPages, guidePages) {
		run = append(run, d.path)
	}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/internals/*.md"} {
		paths, err := filepath.Glob("../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			path = strings.TrimPrefix(path, "../")
			all := blocks(t, path)
			if len(all) > 0 && otherPages[path] == "" && !slices.Contains(run, path) {
				t.Errorf("no test runs the commands of %s: add it to guidePages, or to otherPages with the reason", path)
			}
			if len(all) > 0 {
				used = append(used, path)
			}
			for _, block := range all {
				used = append(used, path+": "+other(path, block))
			}
		}
	}
	for path := range otherPages {
		if !slices.Contains(used, path) || slices.Contains(run, path) {
			t.Errorf("otherPages has %s, which has no commands or runs", path)
		}
	}
	for _, o := range otherBlocks {
		if !slices.Contains(used, o.path+": "+o.reason) {
			t.Errorf("no block of %s begins with %q", o.path, o.begins)
		}
	}
}

// TestStart runs the commands of the README and of the tour, and TestGuides those of the guides, as a reader would.
func TestStart(t *testing.T) {
	t.Parallel()
	dir := readersFolder(t)
	// The second cluster is another one, and no copy, which Rolecall would find to be registered already.
	second, err := start(filepath.Join(dir, "rolecall-data-2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.stopFor(t) })
	runPages(t, dir, startPages)
}

func TestGuides(t *testing.T) {
	t.Parallel()
	runPages(t, readersFolder(t), guidePages)
}

// readersFolder is a folder as the README leaves it after "make run".
func readersFolder(t *testing.T) string {
	t.Helper()
	dir := serverFolder(t)
	s, err := startCopy(filepath.Join(dir, "rolecall-data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stopFor(t) })
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(rolecall, filepath.Join(dir, "bin", "rolecall")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runPages runs the commands of pages, each page in a shell with the variables that the README sets, until one fails.
func runPages(t *testing.T, dir string, pages []document) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -eE -o pipefail\ntrap 'echo \"$PAGE: failed: $BASH_COMMAND\" >&2' ERR\n")
	for _, p := range pages {
		fmt.Fprintf(&script, "PAGE=%s\n(\nexport PATH=\"$PWD/bin:$PATH\"\neval \"$(rolecall env)\"\n%s\n", p.path, p.before)
		for _, block := range blocks(t, p.path) {
			if other(p.path, block) == "" {
				script.WriteString(block)
			}
		}
		script.WriteString(")\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "PSQLRC=/dev/null"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v; the end of what was printed:\n%s", err, out[max(0, len(out)-4000):])
	} else if os.Getenv("SHOW") != "" {
		t.Logf("%s", out)
	}
}

var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```")

// blocks are the commands of a page.
func blocks(t *testing.T, path string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range shellBlock.FindAllSubmatch(text, -1) {
		all = append(all, string(match[1]))
	}
	return all
}
