package main

import (
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
)

func TestUsersListAllClusters(t *testing.T) {
	l := newLeased(t)
	second := pgtest.Other(t)
	l.ok(t, second.Password+"\n", "clusters", "register", "Archive", "--tls-mode", "disable", "--password-stdin",
		"--url", fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", second.User, second.Port))
	second.Exec(t, `CREATE ROLE old LOGIN VALID UNTIL '2001-01-01'; CREATE ROLE shop LOGIN`)
	for args, want := range map[string]string{
		"--all-clusters -o name":                               "old shop shop",
		"--all-clusters --sort name -o name":                   "old shop shop",
		"--all-clusters --sort -cluster --limit 1 -o name":     "shop",
		"--all-clusters --name s*p -o name":                    "shop shop",
		"--all-clusters --created-by admin -o name":            "shop",
		"--all-clusters --creator-selector !team -o name":      "shop",
		"--all-clusters --state expired,disabled -o name":      "old",
		"--all-clusters --expires-before 1d -o name":           "old",
		"--all-clusters --lease=false --name sh* -o name":      "shop shop",
		"--all-clusters --lease -o name":                       "",
		"--all-clusters --changed-outside -o name":             "",
		"--all-clusters --not-seen-for 90d -o name":            "",
		"--all-clusters --password-kind scram-sha-256 -o name": "shop",
		"--all-clusters --filter cluster=arch* -o name":        "old shop",
		"-c Archive --name * -o name":                          "old shop",
		"-c local --state active -o name":                      "shop",
	} {
		out := l.ok(t, "", append([]string{"users", "list"}, strings.Fields(args)...)...)
		if got := strings.Join(strings.Fields(out), " "); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
	if out := l.ok(t, "", "users", "list", "--all-clusters"); !strings.HasPrefix(out, "CLUSTER  NAME") {
		t.Errorf("got %s", out)
	}
	l.fails(t, 2, "did you mean expired?", "", "users", "list", "--all-clusters", "--state", "expird")
	l.fails(t, 2, "--not-seen-for", "", "users", "list", "--all-clusters", "--not-seen-for", "soon")
	l.fails(t, 2, "exclude each other", "", "users", "list", "--all-clusters", "-c", "local")
	// What answers is printed, and what is missing is not overlooked.
	second.Stop(t)
	code, out, errOut := l.run(t, "", "users", "list", "--all-clusters", "-o", "name")
	if code != 6 || strings.TrimSpace(out) != "shop" || !strings.Contains(errOut, `"Archive" is unreachable: `) {
		t.Errorf("exit code %d, %q, %s", code, out, errOut)
	}
	l.ok(t, "", "users", "list", "-c", "local", "--name", "*")
}
