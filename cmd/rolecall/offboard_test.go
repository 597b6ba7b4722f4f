package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// An account is offboarded as docs/offboarding.md says it.
func TestOffboard(t *testing.T) {
	admin, _ := newLocal(t)
	alice := &shell{config: t.TempDir(), printed: admin.printed}
	url, _ := admin.login(t)["url"].(string)
	const password = "alice has a password"
	admin.ok(t, password+"\n", "accounts", "create", "alice", "--scope", "cloud_controller.admin", "--password-stdin")
	alice.signIn(t, url, "alice", password)
	for _, name := range []string{"leaver_app", "leaver_old"} {
		alice.ok(t, "", "users", "create", name, "--generate")
	}
	alice.ok(t, "", "tokens", "create", "nightly")
	admin.ok(t, "", "users", "passwd", "leaver_old", "--generate")

	admin.has(t, []string{`account alice \(uaa\)`, "active yes", "database users 1", "tokens nightly", "leases none",
		"audit log since the beginning", "CLUSTER USER WHY ACTION STATE VALID UNTIL DETAIL", "local leaver_app made it keep.*"},
		"accounts", "offboard", "alice", "--plan")
	admin.has(t, []string{"passwords expire 20.*", "local leaver_app made it expire.*"}, "accounts", "offboard", "alice",
		"--plan",
		"--users", "expire=7d")
	if out := admin.ok(t, "", "accounts", "offboardings", "list", "-o", "name"); out != "" {
		t.Errorf("the plan is listed: %s", out)
	}
	alice.ok(t, "", "whoami")
	admin.fails(t, term.ExitUsage, "add --yes", "", "accounts", "offboard", "alice")
	for _, users := range []string{"drop", "disable=7d", "expire", "expire=soon"} {
		admin.fails(t, term.ExitUsage, "--users is", "", "accounts", "offboard", "alice", "--yes", "--users", users)
	}
	admin.fails(t, term.ExitFailed, "your own account", "", "accounts", "offboard", "admin", "--yes")
	admin.fails(t, term.ExitNotFound, "nobody", "", "accounts", "offboard", "nobody", "--yes")

	var done client.Offboarding
	_, out, errOut := admin.run(t, "", "accounts", "offboard", "alice", "--users", "disable", "--yes", "-o", "json")
	if err := json.Unmarshal([]byte(out), &done); err != nil || done.ID == "" || len(done.Users) != 1 ||
		done.Users[0].Username != "leaver_app" || done.Users[0].Action != "disable" || done.State != "running" {
		t.Fatalf("the report is %s: %v", out, err)
	}
	if next := "rolecall accounts offboardings show " + done.ID; !strings.Contains(errOut, next) {
		t.Errorf("without %q: %s", next, errOut)
	}
	admin.has(t, []string{"ID TIME ACCOUNT BY USERS OPERATION", done.ID + ` \S+ \S+ alice admin 1 .*`}, "accounts",
		"offboardings",
		"list", "--account", "alice")
	admin.has(t, []string{"report " + done.ID, "by admin", "operation " + regexp.QuoteMeta(done.Operation) + " .*",
		"local leaver_app made it disable.*"}, "accounts", "offboardings", "show", done.ID)
	if out := admin.ok(t, "", "accounts", "offboardings", "show", done.ID, "-o", "yaml"); !strings.Contains(out, "why: made") {
		t.Errorf("as YAML it is %s", out)
	}
	admin.has(t, []string{"active no"}, "accounts", "show", "alice")
	admin.has(t, []string{"was active no"}, "accounts", "offboard", "alice", "--yes")
	admin.ok(t, "", "accounts", "delete", "alice", "--yes")
	admin.has(t, []string{`account alice \(uaa\)`}, "accounts", "offboardings", "show", done.ID)
}
