package console_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// A person registers a cluster in two steps: what is found is shown first, and nothing is stored before that.
func TestRegisterCluster(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.New(t, nil))
	other := pgtest.New(t, nil)
	other.Exec(t, `CREATE ROLE weak LOGIN PASSWORD 'weak-secret'`)
	url := fmt.Sprintf("postgres://weak@127.0.0.1:%d/postgres", other.Port)
	s.Root.get("/console/clusters/new").is(200).shows("CREATE ROLE rolecall_admin", `name="connection.password"`)
	s.Manager.get("/console/clusters/new").is(403).shows("cloud_controller.admin")
	s.Manager.post("/console/clusters/new", "displayName", "new").is(403)

	typed := []string{"displayName", "new", "location", "de/muc", "connection.url", url, "connection.tls.mode", "disable",
		"access.manage", "team=shop\r\n\r\nteam=desk\r\n", "connection.password"}
	with := func(last string, more ...string) []string {
		return append(append(typed[:len(typed):len(typed)], last), more...)
	}
	stored := func() int {
		t.Helper()
		var n int
		err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM clusters WHERE display_name = 'new'`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	// What is wrong is said at its field, and what was typed stays, but for the password.
	s.Root.post("/console/clusters/new", with("wrong-secret")...).is(422).shows("rejects the password",
		`id="error-connection.password"`, `value="new"`, `value="de/muc"`, url,
		"team=shop", `value="disable" selected`).hides("wrong-secret")
	s.Root.post("/console/clusters/new", "displayName", "main", "connection.url", url, "connection.tls.mode", "disable",
		"connection.password", "weak-secret").is(409).shows("There is a cluster", `id="error-displayName"`)
	s.Root.post("/console/clusters/new", "displayName", "new", "connection.url", url, "connection.password", "weak-secret",
		"access.manage", "team=", "connection.tls.mode", "disable").is(422).shows(`id="error-access.manage"`)

	// Without TLS beyond this machine: only with the box, and with a warning.
	inner := []string{"displayName", "inner", "connection.url", strings.Replace(url, "127.0.0.1", "0.0.0.0", 1),
		"connection.tls.mode", "disable", "connection.password", "weak-secret"}
	s.Root.post("/console/clusters/new", inner...).is(422).shows(`id="error-connection.tls.mode"`, "not for 0.0.0.0")
	s.Root.post("/console/clusters/new", append(inner, "connection.tls.allowPlaintext", "yes")...).
		shows("The connection has no TLS", `name="connection.tls.allowPlaintext" value="yes"`)
	s.Root.post("/console/clusters/new", "displayName", "inner", "connection.url", url, "connection.password", "weak-secret",
		"connection.tls.allowPlaintext", "yes").is(422).shows("the mode is verify-full", `value="yes" checked`)

	// The role lacks what is needed: the page says what will not work, and the SQL that fixes it. The password is not asked for
	// again.
	page := s.Root.post("/console/clusters/new", with("weak-secret")...).is(422).shows("cannot be registered yet",
		"ALTER ROLE &#34;weak&#34; CREATEROLE;", "Nothing can be managed here.", "ALTER ROLE &#34;weak&#34; CREATEDB;",
		"GRANT pg_signal_backend TO &#34;weak&#34;;", "Check again", `value="de/muc"`).
		hides("weak-secret", `value="register"`)
	again := []string{"preview", page.hidden("preview"), "displayName", "new", "location", "de/muc", "access.manage",
		"team=shop"}
	s.Root.post("/console/clusters/new", append(again, "step", "register")...).is(422).shows("CREATEROLE")
	other.Exec(t, `ALTER ROLE weak CREATEROLE CREATEDB; GRANT pg_signal_backend TO weak`)
	page = s.Root.post("/console/clusters/new", append(again, "step", "check")...).is(200).shows(`value="register"`,
		"badge good", "Nothing is stored yet").hides("weak-secret", "CREATEROLE;")
	if n := stored(); n != 0 {
		t.Fatalf("%d clusters are stored before that was confirmed", n)
	}

	// The first step again: without the password, and with all else.
	s.Root.post("/console/clusters/new", append(again, "step", "edit", "connection.url", url)...).is(200).
		shows("Step 1 of 2", url, `value="de/muc"`).hides("weak-secret")

	// What is encrypted is of no use to others, and not if it was altered.
	s.Admin(t, "second")
	second := s.signedIn(t, "second", "second-password")
	again[1] = page.hidden("preview")
	if _, err := s.Clusters.Previewed(again[1], "another"); err == nil {
		t.Error("another account opens the connection of a preview")
	}
	second.post("/console/clusters/new", append(again, "step", "register")...).is(422).shows("Type it again")
	s.Root.post("/console/clusters/new", "preview", again[1][:len(again[1])-2]+"xx", "displayName", "new", "step", "register").
		is(422).shows("Type it again")
	if n := stored(); n != 0 {
		t.Fatalf("%d clusters are stored", n)
	}

	to := s.Root.post("/console/clusters/new", append(again, "step", "register")...).is(303).Location
	if stored() != 1 || !strings.HasPrefix(to, "/console/clusters/") {
		t.Fatalf("%d clusters are stored, and the answer leads to %s", stored(), to)
	}
	s.Root.get(to+"/settings").is(200).shows("The cluster new is registered.", "de/muc", url).hides("weak-secret")
	s.Root.get(to + "/access").is(200).shows("<code>team=shop</code>")
	var session string
	for _, row := range s.AuditRows(t, "new") {
		var detail map[string]any
		if err := json.Unmarshal([]byte(row.Detail), &detail); err != nil {
			t.Fatal(err)
		}
		session, _ = detail["session"].(string)
		if strings.Contains(row.Detail, "weak-secret") || detail["via"] != "console" {
			t.Errorf("the row is %+v", row)
		}
	}
	if session == "" {
		t.Error("no row names the session")
	}
}

// A cluster that does not answer is said at once, and nothing of it is stored.
func TestRegisterUnreachable(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pgtest.Shared(t))
	role, password := servicetest.Administrator(t, pg)
	pg.Stop(t)
	s.Root.post("/console/clusters/new", "displayName", "gone", "connection.url",
		fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, pg.Port), "connection.tls.mode", "disable", "connection.password",
		password).is(422).shows("cannot be reached", `value="gone"`)
}
