package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/control"
	"rolecall/internal/doctor"
	"rolecall/internal/pgtest"
)

// TestDoctor: each check finds what is wrong, and says what to do. None changes anything.
func TestDoctor(t *testing.T) {
	t.Parallel()
	shared := pgtest.Shared(t)
	flags, name := controlDatabase(t, shared)
	args := func(more ...string) []string {
		return append(append([]string{"doctor", "--public-url", "http://rolecall.example.org", "--listen", "192.0.2.1:1"},
			flags...), more...)
	}
	// find runs the checks, and returns the finding of one.
	find := func(check string, args ...string) doctor.Finding {
		t.Helper()
		code, out, errOut := execute(t, "", append(args, "-o", "json")...)
		var findings []doctor.Finding
		if err := json.Unmarshal([]byte(out), &findings); err != nil {
			t.Fatalf("exit code %d: %v in %q, %q", code, err, out, errOut)
		}
		failed := slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.Level == doctor.Error })
		if (code == 1) != failed || code > 1 {
			t.Errorf("exit code %d after %s", code, out)
		}
		if strings.Contains(out+errOut, shared.Password) {
			t.Errorf("the password is in %q, %q", out, errOut)
		}
		i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Check == check })
		if i < 0 {
			return doctor.Finding{Text: "none in " + out}
		}
		return findings[i]
	}
	expect := func(level doctor.Level, check, says string, args ...string) {
		t.Helper()
		if got := find(check, args...); got.Level != level || !strings.Contains(got.Text, says) {
			t.Errorf("%s: %+v, want %s and %q", check, got, level, says)
		}
	}
	expect(doctor.Warning, "schema", "The database is empty", args()...)
	if n := pgtest.Value[int](t, shared, "SELECT count(*) FROM pg_database WHERE datname = $1 AND datacl IS NULL",
		name); n != 1 {
		t.Error("the examination has changed the database")
	}
	bootstrap(t, flags, "a password")
	for check, says := range map[string]string{
		"configuration": "All settings are valid", "files": "cannot read", "TLS": "plain HTTP", "clock": "It differs by",
		"control database": "without a pooler", "schema": "migrations are applied", "master key": "It decrypts",
	} {
		expect(doctor.OK, check, says, args()...)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	expect(doctor.Error, "configuration", `--log-level is "loud"`, args("--log-level", "loud")...)
	expect(doctor.Error, "configuration", `there is no setting "nonsense"`, args("--config", file("x.yaml", "nonsense: 1"))...)
	expect(doctor.Error, "configuration", "no such file", args("--tls-cert", dir+"/none", "--tls-key", dir+"/none")...)
	expect(doctor.Error, "master key", "master key", args("--master-key-file", file("other.key", control.NewMasterKey()))...)
	down := file("down", "postgres://rolecall:secret@127.0.0.1:1/rolecall")
	expect(doctor.Error, "control database", "connection refused", args("--database-url-file", down)...)
	if err := os.Chmod(flags[3], 0o644); err != nil {
		t.Fatal(err)
	}
	expect(doctor.Warning, "files", "chmod 600 "+flags[3], args()...)
	if err := os.Chmod(flags[3], 0o600); err != nil {
		t.Fatal(err)
	}

	// The clusters: one that works, and the same one after its role was locked out.
	other := pgtest.New(t, nil)
	server, url := beginServe(t, flags...)
	body := fmt.Sprintf(`{"displayName":"orders","connection":{"url":"postgres://%s@127.0.0.1:%d/postgres","password":%q,`+
		`"tls":{"mode":"disable"}}}`, other.User, other.Port, other.Password)
	if r := request(t, http.DefaultClient, "POST", url+"/rolecall/v1/clusters", basicAuth("admin", "a password"),
		body); r.status != 201 {
		t.Fatalf("registering: %d %s", r.status, r.body)
	}
	server.end(t)
	expect(doctor.OK, "cluster orders", "PostgreSQL "+other.Version, args()...)
	other.Stop(t)
	expect(doctor.Error, "cluster orders", "cannot be reached", args()...)
	code, out, errOut := execute(t, "", args()...)
	if code != 1 || !strings.Contains(out, "ok     configuration ") || !strings.Contains(out, "error  cluster orders ") ||
		!strings.Contains(errOut, "have found an error") {
		t.Errorf("for people: exit code %d, %s %s", code, out, errOut)
	}

	// A schema of another release is not examined further.
	conn := shared.Connect(t, shared.User, shared.Password, name)
	for _, c := range []struct{ sql, says string }{
		{`INSERT INTO rolecall.migrations (version, name) VALUES (999, 'later')`, "of a newer release"},
		{`DELETE FROM rolecall.migrations WHERE version > 18`, "of an older release"},
	} {
		if _, err := conn.Exec(t.Context(), c.sql); err != nil {
			t.Fatal(err)
		}
		expect(doctor.Warning, "schema", c.says, args()...)
	}
}
