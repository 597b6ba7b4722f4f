package console_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fleet"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

// principal is an account of a site as the domain knows it.
func (s *site) principal(t testing.TB, username string, scopes []string, labels map[string]string) *account.Principal {
	t.Helper()
	guid := s.Account(t, username, scopes, labels)
	return &account.Principal{GUID: guid, Username: username, Origin: account.LocalOrigin, Scopes: scopes, Labels: labels,
		RequestID: "test", Address: "192.0.2.1"}
}

// run does what is due until a state is reached.
func (s *site) run(t testing.TB, reached func() bool) {
	t.Helper()
	w := &task.Worker{DB: s.DB, Log: slog.New(slog.NewTextHandler(s.Log, nil)), Every: 5 * time.Millisecond,
		Kinds: append(s.Fleet.Tasks(), s.Users.Tasks()...), Away: s.Clusters.Away}
	for !reached() {
		_, _ = w.RunDue(t.Context()) // a task of a cluster that does not answer fails, and is done again
		if _, err := s.DB.Pool.Exec(t.Context(), `
			UPDATE tasks SET due = least(due, clock_timestamp()) WHERE claimed IS NULL`); err != nil {
			t.Fatal(err)
		}
	}
}

const dbPassword = "a-password-of-a-user"

// An operation shows its progress and its results to those who may see it, and whoever may cancel it can.
func TestOperations(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=view"})
	p := s.principal(t, "ops-manager", account.DefaultScopes, map[string]string{"team": "shop"})
	s.Account(t, "ops-auditor", []string{account.ScopeAuditor}, nil)
	s.Account(t, "ops-other", account.DefaultScopes, map[string]string{"team": "shop"})
	manager, auditor, other := s.signedIn(t, "ops-manager", "ops-manager-password"),
		s.signedIn(t, "ops-auditor", "ops-auditor-password"), s.signedIn(t, "ops-other", "ops-other-password")
	manager.get("/console/operations").is(200).shows("There are no operations.")

	list := []fleet.Target{{Cluster: s.ClusterID, Name: "<b>absent"}}
	for i := range 60 {
		name := fmt.Sprintf("ops_%02d", i)
		if i < 2 {
			if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, name, dbPassword); err != nil {
				t.Fatal(err)
			}
		}
		list = append(list, fleet.Target{Cluster: s.ClusterID, Name: name})
	}
	id, _, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.Disable, Targets: list})
	if err != nil {
		t.Fatal(err)
	}
	path := "/console/operations/" + id.String()
	manager.get("/console/operations").is(200).shows("Disable 61 users", "Running", `href="`+path+`"`, "ops-manager")
	other.get("/console/operations").is(200).hides(path)
	other.get(path).is(http.StatusNotFound)
	other.post(path + "/cancel").is(http.StatusNotFound)
	auditor.get(path).is(200).shows("Disable 61 users", "Reload").hides("Cancel the operation")
	auditor.post(path+"/cancel").is(http.StatusForbidden).shows("only its account and admins may cancel it", "Disable 61 users")
	page := manager.get(path).is(200).shows("Running", `every 2s`, "Reload", "Cancel the operation", "&lt;b&gt;absent",
		"Skipped", "Next page", "ops_00").hides("<b>absent", "ops_59", "hx-on")
	if !strings.Contains(page.Body, "?after=49") {
		t.Errorf("the next page is not named:\n%s", page.Body)
	}
	// A page that is open for long asks no more: its requests would keep the session in use.
	manager.get(path+"?live=1").is(200).shows("Running", "Reload").hides("every 2s", "live=1")
	manager.get(path+"?live="+fmt.Sprint(time.Now().Unix())).is(200).shows("every 2s", `href="`+path+`"`)
	manager.get(path+"?after=49").is(200).shows("ops_59", "First page").hides("ops_00", "Next page")
	manager.get(path+"?state=pending").is(200).shows("ops_00", "ops_01").hides("absent", "ops_02")
	manager.get(path + "?state=failed").is(200).shows("None is failed.")
	manager.get(path+"?state=odd").is(422).shows("There is no state", "error-state")
	manager.get(path + "?after=x").is(422).shows("There is no such page of the list.")
	manager.get("/console/operations/00000000-0000-0000-0000-000000000000").is(404)
	manager.get("/console/operations/x").is(404)

	s.run(t, func() bool {
		o, err := s.Fleet.Operation(t.Context(), p, id.String())
		return err == nil && !o.EndedAt.IsZero()
	})
	manager.get(path).is(200).shows("Done", "ops_00").hides("every 2s", "Cancel the operation", "Reload")
	manager.get(path+"?state=done").is(200).shows("ops_00", "ops_01").hides("ops_02", "absent")
	a := manager.post(path + "/cancel").is(http.StatusSeeOther)
	manager.get(a.Location).is(200).shows("had ended before it could be canceled")

	second, _, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.Enable, Targets: list[1:3]})
	if err != nil {
		t.Fatal(err)
	}
	a = manager.post("/console/operations/" + second.String() + "/cancel").is(http.StatusSeeOther)
	manager.get(a.Location).is(200).shows("What was done stays done.", "Canceled", "Enable 2 users")
	manager.get("/console/operations?state=cancelled").is(200).shows("Enable 2 users").hides("Disable 61")
	manager.get("/console/operations?state=running").is(200).shows("No operation is in this state.")
	manager.get("/console/operations?state=odd").is(422).shows("There is no state", "error-state").
		hides("There are no operations")
	manager.get("/console/operations?after="+second.String()).is(200).shows("Disable 61 users", "First page").hides("Enable 2")
}

// An operation says in which cluster it does not go on, and why.
func TestOperationStuck(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Access(t, s.ClusterID, []string{"team=shop"}, nil)
	p := s.principal(t, "stuck", account.DefaultScopes, map[string]string{"team": "shop"})
	away := pgtest.New(t, nil)
	role, password := servicetest.Administrator(t, away)
	awayID := s.Register(t, "far", away, role, password)
	s.Access(t, awayID, []string{"team=shop"}, nil)
	away.Stop(t)
	id, _, err := s.Fleet.Start(t.Context(), p, fleet.Request{Action: fleet.EndSessions,
		Targets: []fleet.Target{{Cluster: awayID, Name: "there"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, func() bool {
		o, err := s.Fleet.Operation(t.Context(), p, id.String())
		return err == nil && len(o.Stuck) == 1
	})
	s.signedIn(t, "stuck", "stuck-password").get("/console/operations/"+id.String()).is(200).
		shows("It does not go on in 1 cluster.", "far", "End the sessions of 1 user", "Running")
}
