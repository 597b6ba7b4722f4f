package adminapi_test

import (
	"slices"
	"testing"

	"rolecall/internal/pgtest"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Account(t, "stranger", []string{"cloud_controller.read"}, nil)
	f.Account(t, "auditor", []string{"cloud_controller.global_auditor"}, nil)
	f.as(t, "stranger", "GET", "/status", "").refused(t, 403, "for admins and auditors")
	f.do(t, "GET", "/status?x=1", "").refused(t, 400)
	var s struct {
		Version, Installation string
		Replicas              []string
		Control               struct {
			Version, Database          string
			Bytes                      int64
			Migration, NewerMigrations int
		}
		Clusters struct {
			Registered  int
			Unreachable []string
		}
	}
	f.as(t, "auditor", "GET", "/status", "").Into(t, &s)
	if s.Version != "test" || s.Installation != f.DB.Installation.String() || len(s.Replicas) != 1 ||
		s.Control.Database != f.DB.Identity.Database || s.Control.Bytes == 0 || s.Control.Migration < 19 ||
		s.Control.NewerMigrations != 0 || s.Clusters.Registered != 1 || len(s.Clusters.Unreachable) != 0 {
		t.Errorf("the status is %+v", s)
	}
	// A cluster that does not answer, and a migration of a newer release.
	other := pgtest.New(t, nil)
	c := f.register(t, "away", other, "")
	other.Stop(t)
	f.do(t, "GET", "/clusters/"+c.ID, "")
	if _, err := f.DB.Pool.Exec(t.Context(), `INSERT INTO migrations (version, name) VALUES (9999, 'later')`); err != nil {
		t.Fatal(err)
	}
	registered, err := f.Clusters.Get(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	registered.Unconfirmed(t.Context()) // asks it at once
	f.want(t, 200, "GET", "/status", "").Into(t, &s)
	if s.Control.NewerMigrations != 1 || s.Control.Migration != 9999 || s.Clusters.Registered != 2 ||
		!slices.Equal(s.Clusters.Unreachable, []string{"away"}) {
		t.Errorf("the status is %+v", s)
	}
}
