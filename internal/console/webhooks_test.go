package console_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// An admin creates a webhook, pauses, tests and replays it; an auditor sees it; others do not.
func TestWebhookPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "root")
	s.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	s.Account(t, "manager", account.DefaultScopes, nil)
	root, auditor, manager := s.signedIn(t, "root", "root-password"), s.signedIn(t, "auditor", "auditor-password"),
		s.signedIn(t, "manager", "manager-password")
	if _, err := s.Audit.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	status := http.StatusNoContent
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer receiver.Close()
	root.get("/console/system").is(200).shows(`href="/console/webhooks"`)
	root.get("/console/webhooks").is(200).shows("There are no webhooks", "/console/webhooks/new")
	root.get("/console/webhooks/new").is(200).shows(`name="_once"`)
	root.post("/console/webhooks/new", "name", "siem", "url", "ftp://x", "events", "*").is(422).
		shows("https://", `href="#field-url"`)
	root.post("/console/webhooks/new", "name", "siem", "url", receiver.URL, "events", "nothing").is(422).
		shows("nothing", `href="#field-events"`)
	form := []string{"name", "<b>siem</b>", "url", receiver.URL, "events", "user.* account.create", "_once", "once-webhook"}
	old := s.signedIn(t, "root", "root-password")
	s.sql(t, `UPDATE console_sessions SET proven_at = proven_at - interval '1 day'
		WHERE account_id = (SELECT id FROM accounts WHERE username = 'root')`)
	old.post("/console/webhooks/new", form...).is(401).shows("Is it you?").hides("whsec_")
	old.post("/console/prove", "next", "/console/webhooks/new", "password", "root-password").is(303)
	made := old.post("/console/webhooks/new", form...).is(200).shows("whsec_", "&lt;b&gt;siem", "user.* account.create")
	root.post("/console/webhooks/new", form...).is(409).hides("whsec_")
	path := regexp.MustCompile(`/console/webhooks/[0-9a-f-]{36}`).FindString(made.Body)
	root.get("/console/webhooks").is(200).shows(path, "active", "&lt;b&gt;siem").hides("whsec_")
	root.get(path).is(200).shows(receiver.URL, "Pause", "Replay").hides("whsec_")
	root.post(path+"/state", "state", "PAUSED").is(303)
	root.get(path).is(200).shows("The webhook is paused", "Resume")
	root.post(path+"/state", "state", "FAILED").is(422).shows("ACTIVE")
	root.post(path + "/test").is(303)
	root.get(path).shows("The test was accepted.")
	status = http.StatusTeapot
	root.post(path + "/test").is(303)
	root.get(path).shows("The test was not accepted", "418")
	root.post(path+"/replay", "fromSeq", "x").is(422).shows("not the number of a row", `href="#field-fromSeq"`)
	root.post(path+"/replay", "fromSeq", "100000").is(422).shows("100000")
	root.post(path+"/replay", "fromSeq", "1").is(303)
	root.get(path).shows("gets the rows from 1 on", "active")
	root.get(strings.TrimSuffix(path, path[len(path)-4:]) + "0000").is(404)
	auditor.get("/console/webhooks").is(200).shows(path).hides("/console/webhooks/new")
	auditor.get(path).is(200).hides("Replay")
	for _, b := range []*browser{auditor, manager} {
		b.post("/console/webhooks/new", "name", "x", "url", receiver.URL, "events", "*").is(403)
		b.post(path+"/state", "state", "PAUSED").is(403)
		b.post(path + "/test").is(403)
		b.post(path+"/replay", "fromSeq", "1").is(403)
	}
	manager.get("/console/webhooks").is(403)
	manager.get(path).is(403)
}
