package console_test

import (
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// The start page says what needs attention in the clusters that a person may view, and to whom none is shown what to do.
func TestStart(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := newSite(t, servicetest.New(t, pg))
	s.Fleet.Limit = 2 * time.Second
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=view"})
	s.Admin(t, "root")
	p := s.principal(t, "mgr", account.DefaultScopes, map[string]string{"team": "shop"})
	s.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "view"})
	s.Account(t, "nobody", account.DefaultScopes, map[string]string{"team": "other"})
	s.Account(t, "unread", nil, nil)
	root, manager, viewer := s.signedIn(t, "root", "root-password"), s.signedIn(t, "mgr", "mgr-password"),
		s.signedIn(t, "viewer", "viewer-password")

	root.get("/console/").is(200).shows("Set up this Rolecall", "Register a cluster", "Done", "rolecall clusters register",
		`href="/console/clusters/`+s.ClusterID+`/users/new"`)
	manager.get("/console/").is(200).shows("<h1>Needs attention</h1>", `hx-get="/console/?users=count"`,
		`href="/console/?users=count"`).hides("Set up this Rolecall")
	manager.get("/console/?users=count").is(200).shows("Nothing needs you.", "1 cluster answers").hides("hx-get")
	s.signedIn(t, "nobody", "nobody-password").get("/console/").is(200).shows("You see no cluster yet", "team=other",
		"rolecall accounts label").hides("hx-get", "Needs attention", ">main<")
	s.signedIn(t, "unread", "unread-password").get("/console/").is(200).
		shows("no scope to read with", "rolecall accounts grant")

	pg.Exec(t, `CREATE ROLE soon LOGIN PASSWORD 'x' VALID UNTIL '`+time.Now().Add(time.Hour).Format(time.RFC3339)+`';
		CREATE ROLE bare LOGIN; CREATE ROLE hashed LOGIN PASSWORD 'md500000000000000000000000000000000'`)
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "off", dbPassword); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Users.DisableUser(t.Context(), p, s.ClusterID, "off", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Audit.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	root.get("/console/").is(200).hides("Set up this Rolecall")
	for _, b := range []*browser{manager, viewer} {
		b.get("/console/?users=count").is(200).shows("user expires within 14 days", "passwordKind=md5", "user is disabled",
			"state=disabled").hides("Nothing needs you", "half")
	}

	// A cluster that does not answer is named, and the page comes all the same.
	pg2 := pgtest.New(t, nil)
	role, password := servicetest.Administrator(t, pg2)
	far := s.Register(t, "far", pg2, role, password)
	s.Access(t, far, nil, []string{"team=view"})
	pg2.Stop(t)
	viewer.get("/console/?users=count").is(200).shows("far", "did not answer in time", "Count them again",
		"user expires within 14 days")
	for _, c := range s.Clusters.All() {
		c.Health(t.Context())
	}
	viewer.get("/console/").is(200).shows("cluster does not answer",
		"far</a>: The cluster does not answer, or takes no changes.").hides("127.0.0.1:")
	root.get("/console/").is(200).shows("cluster does not answer", "far")
	manager.get("/console/").is(200).hides("far", "cluster does not answer")
}

// A server without a cluster says how it begins.
func TestStartOnNewServer(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM clusters`); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Admin(t, "root")
	s.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	s.signedIn(t, "root", "root-password").get("/console").is(200).shows("Set up this Rolecall", "/console/clusters/new",
		"/console/accounts", "Register a cluster first.").hides("hx-get", "Needs attention")
	s.signedIn(t, "auditor", "auditor-password").get("/console/").is(200).shows("No cluster is registered yet.")
}
