package main

import (
	"strings"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/pgtest"
)

// Commands on many users show a plan, go ahead only if that is confirmed, and print a result for each user.
func TestManyUsers(t *testing.T) {
	s := newShell(t)
	_, url := beginDev(t, preparedFolder(t))
	s.signIn(t, url, "admin", preparedPassword)
	for _, name := range []string{"app_1", "app_2", "other"} {
		s.ok(t, "", "users", "create", name, "-c", "local", "--generate")
	}
	plan := s.ok(t, "", "users", "expire", "--name", "app_*", "--all-clusters", "--in", "7d", "--plan")
	if !strings.Contains(plan, "app_1") || !strings.Contains(plan, "app_2") || strings.Contains(plan, "other") ||
		!strings.Contains(plan, "now: never") {
		t.Errorf("the plan: %s", plan)
	}
	s.fails(t, 2, "add --yes", "", "users", "disable", "--name", "app_*", "--all-clusters") // nobody can be asked
	s.fails(t, 2, "at least one condition", "", "users", "disable", "--all-clusters", "--yes")
	s.fails(t, 2, "NAME is missing", "", "users", "disable", "--yes", "-c", "local")
	s.fails(t, 2, "give --in", "", "users", "expire", "--name", "app_*", "--all-clusters", "--yes")
	if got := s.ok(t, "", "operations", "list", "-o", "name"); got != "" {
		t.Errorf("there are operations: %s", got)
	}
	lines := s.ok(t, "", "users", "disable", "--name", "app_*", "--all-clusters", "--yes", "-o", "json")
	if strings.Count(lines, "\n") != 2 || strings.Count(lines, `"done"`) != 2 {
		t.Errorf("the results: %s", lines)
	}
	if got := s.ok(t, "", "users", "show", "app_1", "-c", "local"); !strings.Contains(got, "disabled") {
		t.Errorf("app_1: %s", got)
	}
	s.ok(t, "", "users", "expire", "other", "-c", "local", "--in", "7d")
	s.ok(t, "", "users", "end-sessions", "other", "-c", "local")
	s.ok(t, "", "users", "enable", "--state", "disabled", "-c", "local", "--yes")
	s.ok(t, "", "users", "delete", "--name", "app_*", "--all-clusters", "--yes")
	if got := s.ok(t, "", "users", "list", "-c", "local", "-o", "name"); got != "other\n" {
		t.Errorf("left are: %s", got)
	}
	ids := strings.Fields(s.ok(t, "", "operations", "list", "-o", "name"))
	if len(ids) != 3 {
		t.Fatalf("operations: %q", ids)
	}
	s.ok(t, "", "operations", "watch", ids[0])
	s.ok(t, "", "operations", "cancel", ids[0])
	if got := s.ok(t, "", "operations", "show", ids[0], "--results"); !strings.Contains(got, "app_2") {
		t.Errorf("the results: %s", got)
	}
	if got := s.ok(t, "", "operations", "show", ids[0]); !strings.Contains(got, "done") {
		t.Errorf("the operation: %s", got)
	}

	// A cluster that is unreachable keeps nobody else waiting, and the exit code says that its users were not found.
	pg := pgtest.New(t, nil)
	registerShop(t, s, pg)
	pg.Stop(t)
	for name, want := range map[string]string{"o*": "1 done", "nobody*": "nothing to do"} {
		for _, last := range []string{"--plan", "--yes"} {
			code, _, errOut := s.run(t, "", "users", "disable", "--name", name, "--all-clusters", last)
			if code != term.ExitIncomplete || !strings.Contains(errOut, `cluster "shop" is unreachable`) ||
				!strings.Contains(errOut, "the plan is not complete") || last == "--yes" && !strings.Contains(errOut, want) {
				t.Errorf("%s %s: exit code %d, %s", name, last, code, errOut)
			}
		}
	}
	if got := s.ok(t, "", "users", "show", "other", "-c", "local"); !strings.Contains(got, "disabled") {
		t.Errorf("other: %s", got)
	}
}
