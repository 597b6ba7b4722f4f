// Package rules checks the rules of CONTRIBUTING.md that a test can check.
package rules

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayImport lists the packages of the project that each package may import. Tests may import all. So may packages with nil,
// such as bench, which runs everything.
var mayImport = map[string][]string{
	"api": {},
	"internal/adminapi": {"access",
		"account", "api", "audit", "cluster", "dbuser", "door", "etag", "event", "fault", "fleet", "idempotency", "identity",
		"label", "lease", "moment", "pgrole", "secret", "web",
	},
	"internal/console": {
		"access", "account", "audit", "cluster", "dbuser", "door", "etag", "event", "fault", "fleet", "format", "idempotency",
		"identity", "label", "lease", "moment", "pgrole", "secret", "web",
	},
	"internal/cfapi": {"account", "audit", "door", "fault", "identity", "label", "web"},
	"internal/dbaas": {"scram", "account", "cluster", "dbuser", "door", "fault", "identity", "pgrole", "web"},
	"internal/uaa":   {"account", "audit", "door", "etag", "fault", "identity", "web"},
	"internal/door":  {"account", "fault", "identity", "remote", "secret", "web"},
	"internal/web":   {"etag", "fault", "jsonlog", "remote", "trace"},
	"internal/fleet": {
		"access", "account", "audit", "cluster", "control", "dbuser", "etag", "fault", "label", "lease", "moment", "pgrole",
		"secret", "sqlstate", "task",
	},
	"internal/dbuser": {
		"access", "account", "audit", "cluster", "control", "etag", "fault", "invisible", "lease", "moment", "observe",
		"pgrole", "secret", "task",
	},
	"internal/event": {
		"access", "account", "audit", "control", "fault", "invisible", "secret", "sqlstate", "task",
	},
	"internal/lease":    {"control", "fault", "moment", "secret", "sqlstate", "task"},
	"internal/task":     {"control", "fault", "sqlstate"},
	"internal/observe":  {"control"},
	"internal/vaultapi": {"account", "cluster", "dbuser", "door", "fault", "identity", "lease", "moment", "secret", "web"},
	"internal/batch":    {},
	"internal/jsonlog":  {},
	"internal/pgrole":   {"scram", "batch", "etag", "fault", "invisible", "pgwire", "primary", "secret", "sqlstate"},
	"internal/cluster": {
		"audit", "control", "etag", "failpoint", "fault", "label", "lease", "moment", "observe", "pgrole", "pgwire", "primary",
		"secret", "sqlstate", "trace",
	},
	"internal/identity": {
		"account", "audit", "control", "fault", "batch", "invisible", "label", "remote", "secret", "sqlstate",
	},
	"internal/idempotency": {"account", "audit", "control", "failpoint", "fault", "sqlstate"},
	"internal/account":     {"audit", "batch", "control", "etag", "fault", "invisible", "label", "secret", "sqlstate"},
	"internal/audit":       {"control", "failpoint", "fault", "batch", "sqlstate"},
	"internal/client":      {"secret"},
	"internal/cli":         {"cli/term", "client", "format", "manifest", "moment", "secret"},
	"internal/manifest":    {"client", "label", "moment"},
	"internal/format":      {"secret"},
	"internal/cli/term":    {"invisible"},
	"internal/doctor":      {"cluster", "control", "fault", "server"},
	"internal/dev":         {"audit", "cluster", "control", "fault", "localpg", "pgrole", "secret", "server"},
	"internal/server": {
		"account", "adminapi", "audit", "cfapi", "cluster", "console", "control", "dbaas", "dbuser", "door", "event", "fleet",
		"idempotency", "identity", "jsonlog", "lease", "notify", "observe", "secret",
		"task", "trace", "uaa", "vaultapi", "web",
	},
	"internal/access":      {"account", "cluster", "fault", "label"},
	"internal/scram":       {},
	"internal/etag":        {},
	"internal/control":     {"failpoint", "fault", "primary", "secret", "sqlstate", "trace"},
	"internal/failpoint":   {},
	"internal/secret":      {},
	"internal/label":       {"fault"},
	"internal/localpg":     {},
	"internal/remote":      {},
	"internal/invisible":   {},
	"internal/pgwire":      {},
	"internal/moment":      {},
	"internal/trace":       {},
	"internal/notify":      {},
	"internal/fault":       {},
	"internal/primary":     {"sqlstate"},
	"internal/sqlstate":    {},
	"internal/apitest":     nil,
	"internal/compat":      nil,
	"internal/pgtest":      nil,
	"internal/servicetest": nil,
	"internal/rules":       nil,
	"cmd/rolecall": {
		"cli", "cli/term", "control", "dev", "doctor", "event", "identity", "jsonlog", "localpg", "moment", "notify", "secret",
		"server", "trace",
	},
	"bench":        nil,
	"scripts/sbom": {},
}

// forTests are the packages that only _test files import.
var forTests = []string{"apitest", "pgtest", "servicetest"}

type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Doc        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,GoFiles,Imports", "rolecall/...")
	list.Env = append(os.Environ(), "GOWORK=off") // without e2e
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "rolecall/")
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("%s is not in the table of imports; say what it may import", name)
			continue
		}
		testing := slices.Contains(forTests, strings.TrimPrefix(name, "internal/"))
		for _, imported := range p.Imports {
			imported, ours := strings.CutPrefix(imported, "rolecall/")
			if !ours {
				continue
			}
			imported = strings.TrimPrefix(imported, "internal/")
			if slices.Contains(forTests, imported) && !testing {
				t.Errorf("%s imports %s, which is for tests", name, imported)
			}
			if allowed != nil && !slices.Contains(allowed, imported) {
				t.Errorf("%s must not import %s", name, imported)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// quoting matches SQL that is concatenated with a quoted name or literal.
var quoting = regexp.MustCompile("[`\"] *\\+ *(ident|literal)\\(")

func TestOneFileConcatenatesSQL(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			if file == "sql.go" && strings.HasSuffix(p.Dir, "pgrole") {
				continue
			}
			if line := quoting.FindString(read(t, filepath.Join(p.Dir, file))); line != "" {
				t.Errorf("%s/%s concatenates SQL (%s); move that to internal/pgrole/sql.go", p.ImportPath, file, line)
			}
		}
	}
}

// TestNothingIsSkipped: a test fails if something that it needs is missing, because a skipped test proves nothing.
func TestNothingIsSkipped(t *testing.T) {
	skip := regexp.MustCompile(`\bt\.Skip`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "rules_test.go") {
			return err
		}
		if skip.MatchString(read(t, path)) {
			t.Errorf("%s skips a test", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
