package dbuser_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// What a token is limited to limits what it shows of the log.
func TestAuditOfTokens(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.Access(t, s.ClusterID, []string{"team=payments"}, []string{"team"})
	here, elsewhere := uuid.MustParse(s.ClusterID), uuid.New()
	user := []string{account.ScopeRead, account.ScopeWrite}
	for name, c := range map[string]struct {
		scopes   []string
		team     string
		readOnly bool
		clusters []uuid.UUID
		own      bool
		sees     []uuid.UUID
	}{
		"manager":                    {user, "payments", false, nil, true, []uuid.UUID{here}},
		"manager, read-only":         {user, "payments", true, nil, true, []uuid.UUID{here}},
		"manager, limited":           {user, "payments", false, []uuid.UUID{here}, false, []uuid.UUID{here}},
		"manager, limited elsewhere": {user, "payments", false, []uuid.UUID{elsewhere}, false, nil},
		"viewer":                     {user, "search", false, nil, true, nil},
		"viewer, read-only":          {user, "search", true, nil, true, nil},
		"admin, limited":             {account.AdminScopes, "", false, []uuid.UUID{here}, false, []uuid.UUID{here}},
		"admin, limited, read-only":  {account.AdminScopes, "", true, []uuid.UUID{here}, false, []uuid.UUID{here}},
		"admin, limited elsewhere":   {account.AdminScopes, "", false, []uuid.UUID{elsewhere}, false, nil},
		"auditor, limited":           {[]string{account.ScopeAuditor}, "", false, []uuid.UUID{here}, false, []uuid.UUID{here}},
	} {
		p := &account.Principal{GUID: "me", Scopes: c.scopes, Labels: map[string]string{"team": c.team}}
		if c.readOnly || c.clusters != nil {
			p.Limit(uuid.New(), c.readOnly, c.clusters)
		}
		v := s.Users.VisibleAudit(p)
		if v == nil || (v.Account == "me") != c.own || !slices.Equal(v.Clusters, c.sees) {
			t.Errorf("%s: sees %+v", name, v)
		}
	}
	for _, scope := range []string{account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor} {
		p := &account.Principal{GUID: "me", Scopes: []string{scope}}
		if v := s.Users.VisibleAudit(p); v != nil {
			t.Errorf("%s: sees %+v", scope, v)
		}
	}
	p := &account.Principal{GUID: "me", Scopes: account.AdminScopes}
	p.Limit(uuid.New(), true, nil)
	if v := s.Users.VisibleAudit(p); v != nil {
		t.Errorf("a read-only admin: sees %+v", v)
	}
}
