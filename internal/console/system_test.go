package console_test

import (
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestSystemPage(t *testing.T) {
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
	head, err := s.Audit.ReadHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done, err := s.Identity.RotateKeys(t.Context(), s.principal(t, "rotator", account.AdminScopes, nil), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*browser{root, auditor} {
		b.get("/console/system").is(200).shows("<dd>test</dd>", s.DB.Identity.Database, s.DB.Identity.System, head.String(),
			done.MasterKey, "rolecall-servicetest", "0001_initial.sql", `href="/docs"`, "30m", "encrypts").hides(s.MasterKey)
	}
	auditor.get("/console/system").hides("Rotate the keys")
	manager.get("/console/system").is(403).shows("This is for admins and auditors", "cloud_controller.global_auditor")
	for _, b := range []*browser{auditor, manager} {
		b.get("/console/system/rotate-keys").is(403).shows("cloud_controller.admin")
		b.post("/console/system/rotate-keys", "signingKey", "1").is(403)
	}

	// A master key that is missing here is named.
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE clusters SET credential = overlay(credential PLACING '\x0102030405060708'
		FROM 2 FOR 8)`); err != nil {
		t.Fatal(err)
	}
	root.get("/console/system").is(200).shows("0102030405060708", "which this replica does not have")
}

// The keys are rotated by somebody who has just proved who they are.
func TestRotateKeysPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "root")
	root := s.signedIn(t, "root", "root-password")
	root.get("/console/system/rotate-keys").is(200).shows("What happens", "first key of the master key file")
	old := s.signedIn(t, "root", "root-password")
	forgetProofs := `UPDATE console_sessions SET proven_at = proven_at - interval '1 day'`
	if _, err := s.DB.Pool.Exec(t.Context(), forgetProofs); err != nil {
		t.Fatal(err)
	}
	keys := func() int {
		t.Helper()
		found, err := s.Identity.PublicKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	old.post("/console/system/rotate-keys", "signingKey", "1").is(401).shows("Is it you?")
	if n := keys(); n != 1 {
		t.Fatalf("without a proof there are %d signing keys", n)
	}
	old.post("/console/prove", "next", "/console/system/rotate-keys", "password", "root-password").is(303)
	old.post("/console/system/rotate-keys", "signingKey", "1").is(303)
	old.get("/console/system").is(200).shows("All secrets are encrypted with the master key",
		"The new signing key is rolecall-")
	if n := keys(); n != 2 {
		t.Errorf("there are %d signing keys", n)
	}
}
