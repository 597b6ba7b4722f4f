package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
)

// newBackupCluster is a cluster whose PostgreSQL has the programs pg_dump and pg_restore, which come with the one that is
// installed.
func newBackupCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	t.Setenv("ROLECALL_TEST_MAJOR", "")
	os.Unsetenv("ROLECALL_TEST_MAJOR")
	return pgtest.New(t, nil)
}

// postgres runs one of PostgreSQL's programs on a server.
func postgres(t *testing.T, pg *pgtest.Cluster, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(pg.BinDir, program), args...)
	cmd.Env = []string{"PGHOST=" + pg.Host, "PGPORT=" + strconv.Itoa(pg.Port), "PGUSER=" + pg.User, "PGPASSWORD=" +
		pg.Password, "PGSSLMODE=disable"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// restore puts a dump in the place of a control database, as docs/operating.md says it.
func restore(t *testing.T, pg *pgtest.Cluster, name, dump string) {
	t.Helper()
	pg.Exec(t, "DROP DATABASE "+name)
	pg.Exec(t, "CREATE DATABASE "+name)
	pg.Exec(t, "REVOKE ALL ON DATABASE "+name+" FROM PUBLIC")
	postgres(t, pg, "pg_restore", "--exit-on-error", "--no-owner", "--dbname="+name, dump)
}

// registerShop puts the cluster under management, by a role of its own.
func registerShop(t *testing.T, admin *shell, pg *pgtest.Cluster) {
	t.Helper()
	pg.Exec(t, `CREATE ROLE shop_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administering secret'`)
	pg.Exec(t, `GRANT EXECUTE ON FUNCTION pg_control_system() TO shop_admin`)
	admin.ok(t, "administering secret\n", "clusters", "register", "shop", "--tls-mode", "disable", "--password-stdin",
		"--url", fmt.Sprintf("postgres://shop_admin@%s:%d/postgres", pg.Host, pg.Port))
}

// roles is all that a cluster knows of its roles.
func roles(t *testing.T, pg *pgtest.Cluster) string {
	t.Helper()
	return pgtest.Value[string](t, pg, `
		SELECT string_agg(concat_ws('|', to_jsonb(a), shobj_description(oid, 'pg_authid')), E'\n' ORDER BY oid) FROM pg_authid a`)
}

// counts is how many rows each table of a control database has.
func counts(t *testing.T, pg *pgtest.Cluster, name string) map[string]int {
	t.Helper()
	conn := pg.Connect(t, pg.User, pg.Password, name)
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), `
		SELECT relname::text, (xpath('//c/text()',
		  query_to_xml(format('SELECT count(*) AS c FROM %s', c.oid::regclass), false, true, '')))[1]::text::int
		FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'rolecall'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	var table string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&table, &n}, func() error { counts[table] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return counts
}

// A control database that is lost comes back from a dump that was taken of the running server, with the master key and
// not without.
func TestBackupAndRestore(t *testing.T) {
	admin := newShell(t)
	pg := newBackupCluster(t)
	flags, name := controlDatabase(t, pg)
	bootstrap(t, flags, "a password")
	p, url := beginServe(t, flags...)
	admin.signIn(t, url, "admin", "a password")
	registerShop(t, admin, pg)
	admin.ok(t, "", "clusters", "rotate-credential", "shop") // now nobody else knows it
	admin.ok(t, "the secret of ann\n", "users", "create", "ann", "-c", "shop", "--password-stdin")
	admin.ok(t, "the secret of bob\n", "accounts", "create", "bob", "--password-stdin")
	var anchor string
	eventually(t, func() error { // all of it is in the chain
		if n := admin.value(t, "unsealed.count", "audit", "verify"); n != 0.0 {
			return fmt.Errorf("%v rows are not sealed", n)
		}
		anchor = fmt.Sprintf("%.0f:%s", admin.value(t, "head.seq", "audit", "verify"), admin.value(t, "head.mac", "audit",
			"verify"))
		return nil
	})
	dump := filepath.Join(t.TempDir(), "rolecall.dump")
	postgres(t, pg, "pg_dump", "--format=custom", "--file="+dump, name)
	if code := p.end(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.errOut)
	}
	restore(t, pg, name, dump)
	before, was := roles(t, pg), counts(t, pg, name)

	// Without the master key, or with another, nothing happens, and why is said.
	serve := append([]string{"serve", "--public-url", "http://x", "--listen", "127.0.0.1:0", "--metrics-listen="}, flags...)
	other := filepath.Join(t.TempDir(), "other.key")
	write(t, other, control.NewMasterKey())
	for _, c := range []struct {
		key, want string
		code      int
	}{
		{other, "which is missing", term.ExitFailed},
		{filepath.Join(t.TempDir(), "lost.key"), "lost.key", term.ExitUsage},
	} {
		for _, command := range [][]string{serve, append([]string{"recover"}, flags...)} {
			code, _, errOut := execute(t, "", append(command[:len(command):len(command)], "--master-key-file", c.key)...)
			if code != c.code || !isSentence(errOut) || !strings.Contains(errOut, c.want) {
				t.Errorf("%s with the key %s: exit code %d: %s", command[0], c.key, code, errOut)
			}
		}
	}
	if now := counts(t, pg, name); !reflect.DeepEqual(now, was) {
		t.Errorf("without the key the control database has become %v, from %v", now, was)
	}

	_, url = beginServe(t, flags...)
	admin.signIn(t, url, "admin", "a password")
	admin.has(t, []string{"intact yes"}, "audit", "verify", "--anchor", anchor)
	admin.has(t, []string{"state AVAILABLE", "problems none"}, "clusters", "show", "shop")
	admin.ok(t, "", "clusters", "probe", "shop")
	admin.has(t, []string{"problems none"}, "clusters", "show", "shop")
	if now := roles(t, pg); now != before {
		t.Errorf("the roles have become\n%s\nfrom\n%s", now, before)
	}
	admin.ok(t, "another secret of ann\n", "users", "passwd", "ann", "-c", "shop", "--password-stdin")
	if err := pg.Login("ann", "another secret of ann"); err != nil {
		t.Error(err)
	}
	if r := get(t, url+"/rolecall/v1/whoami", basicAuth("bob", "the secret of bob")); r.status != http.StatusOK {
		t.Errorf("bob signs in: %d %s", r.status, r.body)
	}
	if closed := pgtest.Value[bool](t, pg, "SELECT NOT has_database_privilege('ann', $1, 'CONNECT')", name); !closed {
		t.Error("everybody may connect to the restored control database")
	}
}

// A control database that comes back older than the cluster says so, leaves the cluster as it is, and revives no token.
func TestRestoredControlDatabaseIsOlder(t *testing.T) {
	admin := newShell(t)
	pg := newBackupCluster(t)
	flags, name := controlDatabase(t, pg)
	bootstrap(t, flags, "a password")
	metrics := freeAddress(t)
	flags = append(flags, "--metrics-listen", metrics)
	p, url := beginServe(t, flags...)
	admin.signIn(t, url, "admin", "a password")
	registerShop(t, admin, pg)
	for _, user := range []string{"ann", "bob", "eve"} {
		admin.ok(t, "the secret of "+user+"\n", "users", "create", user, "-c", "shop", "--password-stdin")
	}
	token := strings.TrimSpace(admin.ok(t, "", "tokens", "create", "ci"))
	dump := filepath.Join(t.TempDir(), "rolecall.dump")
	postgres(t, pg, "pg_dump", "--format=custom", "--file="+dump, name)

	// What the backup does not know.
	admin.ok(t, "", "tokens", "revoke", "ci")
	admin.ok(t, "a new secret of ann\n", "users", "passwd", "ann", "-c", "shop", "--password-stdin")
	admin.ok(t, "the secret of late\n", "users", "create", "late", "-c", "shop", "--password-stdin")
	admin.ok(t, "", "users", "delete", "eve", "-c", "shop", "--yes")
	admin.ok(t, "", "clusters", "rotate-credential", "shop")
	var anchor string
	eventually(t, func() error {
		if n := admin.value(t, "unsealed.count", "audit", "verify"); n != 0.0 {
			return fmt.Errorf("%v rows are not sealed", n)
		}
		anchor = fmt.Sprintf("%.0f:%s", admin.value(t, "head.seq", "audit", "verify"), admin.value(t, "head.mac", "audit",
			"verify"))
		return nil
	})
	if code := p.end(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.errOut)
	}
	restore(t, pg, name, dump)
	before := roles(t, pg)
	if code, out, errOut := execute(t, "", append([]string{"recover"}, flags[:4]...)...); code != 0 || errOut != "" ||
		!strings.Contains(out, "1 accounts were ended; 1 personal access tokens") ||
		!strings.Contains(out, "The audit log ends at 2") {
		t.Fatalf("recover: exit code %d, printed %q and %q", code, out, errOut)
	}

	p, url = beginServe(t, flags...)
	for _, authorization := range []string{"Bearer " + token, "Bearer " + tokenOf(t, admin)} {
		if r := get(t, url+"/rolecall/v1/whoami", authorization); r.status != http.StatusUnauthorized {
			t.Errorf("a token from before is good again: %d %s", r.status, r.body)
		}
	}
	admin.signIn(t, url, "admin", "a password")
	if code, _, errOut := admin.run(t, "", "audit", "verify", "--anchor", anchor); code != term.ExitFailed ||
		!strings.Contains(errOut, "Rows are missing") {
		t.Errorf("verify with a later anchor: exit code %d: %s", code, errOut)
	}
	admin.has(t, []string{"intact yes"}, "audit", "verify")

	// Its password for the cluster is the one from before the rotation.
	admin.has(t, []string{"state UNKNOWN",
		`last error .*the password of the role "shop_admin"\. .*restored from a backup.*update the registration with it.*`},
		"clusters", "show", "shop")
	admin.fails(t, term.ExitFailed, "restored from a backup", "", "clusters", "probe", "shop")
	if now := roles(t, pg); now != before {
		t.Errorf("the roles have become\n%s\nfrom\n%s", now, before)
	}
	pg.Exec(t, `ALTER ROLE shop_admin PASSWORD 'administering secret, again'`)
	before = roles(t, pg)
	admin.ok(t, "administering secret, again\n", "clusters", "update", "shop", "--password-stdin")
	admin.ok(t, "", "clusters", "probe", "shop")
	admin.has(t, []string{"state AVAILABLE",
		`problems The last changes of some users \("late", "ann", at \S+Z\) are not in the audit log.*restored from.*`},
		"clusters", "show", "shop")
	p.awaits(t, p.errOut, "the last changes of users are not in the audit log")
	if line := p.logged(t,
		"the last changes of users are not in the audit log: another Rolecall made them, or the control database was "+
			"restored from an older backup"); line["users"] != 2.0 {
		t.Errorf("logged %v", line)
	}
	if body := get(t, "http://"+metrics+"/metrics", "").body; !strings.Contains(body,
		`rolecall_cluster_unrecorded_users{cluster="shop"} 2`) {
		t.Errorf("/metrics does not say it:\n%s", body)
	}
	if now := roles(t, pg); now != before {
		t.Errorf("the roles have become\n%s\nfrom\n%s", now, before)
	}

	// Changes by this Rolecall are recorded by it.
	admin.ok(t, "the last secret of ann\n", "users", "passwd", "ann", "-c", "shop", "--password-stdin")
	admin.ok(t, "", "users", "delete", "late", "-c", "shop", "--yes")
	admin.ok(t, "", "clusters", "probe", "shop")
	admin.has(t, []string{"problems none"}, "clusters", "show", "shop")
	if n := strings.Count(p.errOut.String(), "the last changes of users are not in the audit log"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// tokenOf is the access token of a shell that is signed in.
func tokenOf(t *testing.T, s *shell) string {
	t.Helper()
	token, _ := s.login(t)["accessToken"].(string)
	if token == "" {
		t.Fatal("no token")
	}
	return token
}
