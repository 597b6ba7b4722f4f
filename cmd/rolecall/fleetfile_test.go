package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/pgtest"
)

// declared is a shell with a fleet: the cluster local of a dev server, and the folder of its files.
type declared struct {
	*shell
	postgres map[string]string
	dir      string
}

func newDeclared(t *testing.T) *declared {
	t.Helper()
	s, postgres := newLocal(t)
	return &declared{s, postgres, t.TempDir()}
}

// file writes a file and returns its path.
func (d *declared) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	write(t, path, text)
	return path
}

// ends runs a command line that has to end with a code, and returns what it prints.
func (d *declared) ends(t *testing.T, code int, args ...string) (out, errOut string) {
	t.Helper()
	got, out, errOut := d.run(t, "", args...)
	if got != code {
		t.Fatalf("rolecall %q: exit code %d, want %d:\n%s%s", args, got, code, out, errOut)
	}
	return out, errOut
}

// handedOut are the passwords in the output of apply, by cluster/user or account: the last one of each.
func handedOut(t *testing.T, out string) map[string]string {
	t.Helper()
	passwords := map[string]string{}
	for text := range strings.Lines(out) {
		var l struct {
			Cluster, Username, Account string
			Password                   *string
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v in the line %q", err, text)
		}
		key := l.Account
		if l.Account == "" {
			key = l.Cluster + "/" + l.Username
		}
		if _, has := passwords[key]; has && l.Password != nil {
			t.Errorf("two passwords of %s are printed", key)
		}
		if l.Password != nil {
			passwords[key] = *l.Password
		} else {
			delete(passwords, key)
		}
	}
	return passwords
}

// login logs in to the cluster local.
func (d *declared) login(t *testing.T, user, password string) error {
	t.Helper()
	return tryPsql(t, map[string]string{"PGHOST": d.postgres["PGHOST"], "PGPORT": d.postgres["PGPORT"], "PGUSER": user,
		"PGPASSWORD": password})
}

func TestFleetFile(t *testing.T) {
	d := newDeclared(t)
	psql(t, d.postgres, `CREATE ROLE readers; CREATE ROLE writers`)
	pg := pgtest.Shared(t)
	t.Setenv("OFF_PASSWORD", "a password of off")
	password := d.file(t, "admin-password", pg.Password+"\n")
	fleet := d.file(t, "fleet.yaml", fmt.Sprintf(`version: 1
accounts:
  - username: alice
    labels: {team: payments}
    annotations: {note: "on: call"}
  - username: robot
    active: false
    scopes: [cloud_controller.read]
  - username: carol
    origin: corp
clusters:
  - name: local
    location: de/fra
    access: {manage: [team=payments], view: ['role in (dba,sre)']}
    grantable: [readers, writers]
    synchronousCommit: local
    leases: {defaultTtl: 30m, maxTtl: 2d}
    databases:
      - {name: shop, accessRoles: {}}
      - {name: crm, accessRoles: {schemas: [public]}}
      - name: plain
    users:
      - {name: app, access: {shop: write, crm: own}}
      - {name: report, access: {shop: read}, roles: [readers], validUntil: 2030-01-31, connectionLimit: 5}
      - {name: "off", disabled: true, password: {env: OFF_PASSWORD}}
    credentials:
      - {name: shop, for: app, rotateEvery: 30d, overlap: 1h}
  - name: orders
    connection:
      url: postgres://postgres@127.0.0.1:%d/postgres
      password: {file: %s}
      tls: {mode: disable}
    users:
      - name: fleet_file_orders
`, pg.Port, password))
	t.Cleanup(func() { pg.Exec(t, "DROP ROLE IF EXISTS fleet_file_orders") })

	out, _ := d.ends(t, 2, "diff", "-f", fleet)
	for _, want := range []string{`+ account "alice"`, `    labels.team: payments`, `~ cluster "local"`, `+ cluster "orders"`,
		`+ database "shop" in "local"`, `+ user "app" in "local"`, `    access.crm: own`, `+ credential "shop" in "local"`,
		`    password: from the variable OFF_PASSWORD`, "To create: 12, to change: 1, to delete: 0. Conflicts: 0."} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan has no %q:\n%s", want, out)
		}
	}
	d.ends(t, term.ExitUsage, "apply", "-f", fleet) // nobody can be asked
	d.ends(t, 2, "diff", "-f", fleet, "-q")
	out, _ = d.ends(t, 0, "apply", "-f", fleet, "--yes")
	passwords := handedOut(t, out)
	if len(passwords) != 5 {
		t.Errorf("passwords of %v were printed", passwords)
	}
	for _, user := range []string{"app", "report"} {
		if err := d.login(t, user, passwords["local/"+user]); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := pg.Login("fleet_file_orders", passwords["orders/fleet_file_orders"]); err != nil {
		t.Error(err)
	}
	if out, errOut := d.ends(t, 0, "diff", "-f", fleet); out != "Nothing differs.\n" {
		t.Errorf("afterwards: %s%s", out, errOut)
	}
	if out, _ := d.ends(t, 0, "apply", "-f", fleet, "--yes"); out != "" {
		t.Errorf("a second run prints %s", out)
	}
	export := filepath.Join(d.dir, "export.yaml")
	d.ok(t, "", "export", "-f", export)
	if out, errOut := d.ends(t, 0, "diff", "-f", export); out != "Nothing differs.\n" {
		t.Errorf("the export differs: %s%s", out, errOut)
	}
}
