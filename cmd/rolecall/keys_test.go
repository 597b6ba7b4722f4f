package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
)

// The master key is replaced as docs/operating.md says it.
func TestReplaceMasterKey(t *testing.T) {
	admin := newShell(t)
	pg := pgtest.Shared(t)
	flags, name := controlDatabase(t, pg)
	file := flags[3]
	old, next := strings.TrimSpace(read(t, file)), control.NewMasterKey()
	serve := func(keys string) (p *program, url string) {
		t.Helper()
		write(t, file, keys+"\n")
		return beginServe(t, flags...)
	}
	end := func(p *program) {
		t.Helper()
		if code := p.end(t); code != 0 {
			t.Errorf("exit code %d: %s", code, p.errOut)
		}
	}
	bootstrap(t, flags, "a password")
	p, _ := serve(old)
	conn := pg.Connect(t, pg.User, pg.Password, name)
	eventually(t, func() error { // the row of bootstrap is in the chain
		var key int
		return conn.QueryRow(t.Context(), `SELECT key_id FROM rolecall.audit_seals`).Scan(&key)
	})
	end(p)

	p, url := serve("# the new one\n" + next + "\n" + old)
	admin.signIn(t, url, "admin", "a password")
	admin.has(t, []string{`master key [0-9a-f]{16}`, `re-encrypted 3`, `new signing key rolecall-\S+`}, "keys", "rotate",
		"--signing-key")
	admin.has(t, []string{`re-encrypted 0`}, "keys", "rotate")
	id, _ := admin.value(t, "masterKey", "keys", "rotate").(string)
	if code, _, errOut := admin.run(t, "", "keys", "rotate"); code != 0 || !strings.Contains(errOut, "master key "+id) {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	admin.fails(t, term.ExitUsage, "", "", "keys", "rotate", "now")
	if text := admin.printed.String(); strings.Contains(text, old) || strings.Contains(text, next) {
		t.Error("a master key was printed")
	}
	end(p)

	p, url = serve(next)
	if r := get(t, url+"/rolecall/v1/audit/verify", basicAuth("admin", "a password")); r.status != http.StatusOK ||
		!strings.Contains(r.body, `"ok":true`) {
		t.Errorf("the audit log: %d %s", r.status, r.body)
	}
	end(p)

	write(t, file, old+"\n")
	code, _, errOut := execute(t, "", append([]string{"serve", "--public-url", "http://x", "--listen", "127.0.0.1:0",
		"--metrics-listen="}, flags...)...)
	if code != term.ExitFailed || !strings.Contains(errOut, "is encrypted with the master key "+id) {
		t.Errorf("with the old key alone: exit code %d: %s", code, errOut)
	}
}

// A lost key of the audit log stops the start, too.
func TestServeChecksTheAuditKeys(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	flags, name := controlDatabase(t, pg)
	bootstrap(t, flags, "a password")
	stranger, err := control.ParseKeyring(control.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	conn := pg.Connect(t, pg.User, pg.Password, name)
	if _, err := conn.Exec(t.Context(), `UPDATE rolecall.audit_keys SET key = $1 WHERE id = 1`,
		stranger.Seal("audit_keys/1/key", []byte("secret"))); err != nil {
		t.Fatal(err)
	}
	code, _, errOut := execute(t, "", append([]string{"serve", "--public-url", "http://x", "--listen", "127.0.0.1:0",
		"--metrics-listen="}, flags...)...)
	if code != term.ExitFailed ||
		!regexp.MustCompile(`audit_keys/1/key is encrypted with the master key [0-9a-f]{16}`).MatchString(errOut) {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

// The key file of dev may hold several keys, too.
func TestReplaceMasterKeyOfDev(t *testing.T) {
	admin := newShell(t)
	dir := preparedFolder(t)
	file := filepath.Join(dir, "master.key")
	next := control.NewMasterKey()
	for _, keys := range []string{next + "\n" + read(t, file), next + "\n"} {
		write(t, file, keys)
		p, url := beginDev(t, dir)
		admin.signIn(t, url, "admin", preparedPassword)
		if keys != next+"\n" {
			admin.has(t, []string{`re-encrypted [2-9]`}, "keys", "rotate")
		}
		admin.ok(t, "", "users", "list", "-c", "local")
		if code := p.end(t); code != 0 {
			t.Fatalf("exit code %d: %s", code, p.errOut)
		}
	}
}
