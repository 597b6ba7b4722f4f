package dbuser_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"rolecall/internal/etag"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// behind is another replica whose statements, in the control database and in the cluster, go through a proxy.
func behind(t *testing.T, s *servicetest.Service, way *pgtest.Proxy) *servicetest.Service {
	t.Helper()
	port := func(url string) string {
		return strings.Replace(url, ":"+strconv.Itoa(s.PG.Port)+"/", ":"+strconv.Itoa(way.Port)+"/", 1)
	}
	through := *s
	through.DatabaseURL = port(s.DatabaseURL)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE clusters SET url = replace(url, $1, $2), updated_at = clock_timestamp()`,
		fmt.Sprintf(":%d/", s.PG.Port), fmt.Sprintf(":%d/", way.Port)); err != nil {
		t.Fatal(err)
	}
	return through.Replica(t)
}

// A look that is cut off at any statement reports a change once: then, or the next look does. A password that Rolecall was
// setting when it was cut off is not reported, whether it was set or not.
func TestLookCutOff(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	way := pgtest.NewProxy(t, s.PG)
	cut := behind(t, s, way)
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "app", password); err != nil {
		t.Fatal(err)
	}
	look(t, s)
	changes := 0
	for _, verdict := range []pgtest.Verdict{pgtest.CutBefore, pgtest.CutAfter} {
		for at := int64(1); ; at++ {
			var count atomic.Int64
			through := func(string, int) pgtest.Verdict {
				if count.Add(1) == at {
					return verdict
				}
				return pgtest.Pass
			}
			what := fmt.Sprintf("cut off at statement %d (%d)", at, verdict)
			way.Watch(through)
			_, _, _ = cut.Users.SetPassword(t.Context(), p, s.ClusterID, "app", fmt.Sprint("password ", what), etag.Match{})
			set := count.Swap(0)
			way.Watch(func(string, int) pgtest.Verdict { return pgtest.Pass })
			look(t, s)
			if n := reports(t, s, "app"); n != changes {
				t.Fatalf("%s, a password of ours: %d reports, want %d", what, n, changes)
			}
			s.PG.Exec(t, `ALTER ROLE app PASSWORD 'by SQL'`)
			changes++
			way.Watch(through)
			_, _ = cut.Users.Look(t.Context(), s.ClusterID)
			looked := count.Load()
			way.Watch(func(string, int) pgtest.Verdict { return pgtest.Pass })
			look(t, cut)
			look(t, s)
			if n := reports(t, s, "app"); n != changes {
				t.Fatalf("%s, a password by SQL: %d reports, want %d", what, n, changes)
			}
			wantOutside(t, s, p, "app", "yes")
			if set < at && looked < at {
				break
			}
		}
	}
	if changes < 20 {
		t.Errorf("it was cut off %d times only", changes)
	}
}

// A control database that comes back from a backup of before the last passwords knows them as its own.
func TestObservationsOfABackup(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	ctx := t.Context()
	exec := func(sql string) {
		t.Helper()
		if _, err := s.DB.Pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"app", "web"} {
		if _, _, err := s.Users.CreateUser(ctx, p, s.ClusterID, name, password); err != nil {
			t.Fatal(err)
		}
	}
	s.PG.Exec(t, `CREATE ROLE old LOGIN PASSWORD 'x'`)
	look(t, s)
	exec(`CREATE TABLE kept AS TABLE observations`)
	for _, name := range []string{"app", "old"} {
		if _, _, err := s.Users.SetPassword(ctx, p, s.ClusterID, name, "after the backup", etag.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Users.CreateUser(ctx, p, s.ClusterID, "late", password); err != nil {
		t.Fatal(err)
	}
	look(t, s)
	s.PG.Exec(t, `ALTER ROLE web PASSWORD 'by SQL'`)
	exec(`DELETE FROM observations`)
	exec(`INSERT INTO observations TABLE kept`)
	look(t, s)
	for name, want := range map[string]string{"app": "no", "old": "no", "late": "no", "web": "yes"} {
		wantOutside(t, s, p, name, want)
		wantReports(t, s, name, map[string]int{"no": 0, "yes": 1}[want])
	}
}

// A cluster that was away, and a control database that was, report nothing when they are back.
func TestLookAway(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "app", password); err != nil {
		t.Fatal(err)
	}
	look(t, s)
	before := observation(t, s, p, "app")
	s.PG.Stop(t) // both are there
	if complete, err := s.Users.Look(t.Context(), s.ClusterID); err == nil || complete {
		t.Errorf("a look at nothing: complete %v, %v", complete, err)
	}
	s.PG.Start(t)
	if _, _, err := s.Users.SetPassword(t.Context(), p, s.ClusterID, "app", "another password", etag.Match{}); err != nil {
		t.Fatal(err)
	}
	look(t, s)
	wantReports(t, s, "app", 0)
	wantOutside(t, s, p, "app", "no")
	if after := observation(t, s, p, "app"); !after.LastSeenSince.Equal(*before.LastSeenSince) {
		t.Errorf("looked at since %s, and then %s", before.LastSeenSince, after.LastSeenSince)
	}
}

// A user that never had a session was not seen, also where verifiers are read.
func TestNeverSeen(t *testing.T) {
	t.Parallel()
	s, p := watched(t)
	s.PG.Exec(t, `CREATE ROLE app LOGIN PASSWORD 'x'`)
	look(t, s)
	look(t, s)
	if o := observation(t, s, p, "app"); o.LastSeen != nil || o.LastSeenSince == nil {
		t.Errorf("it was seen at %v, looked at since %v", o.LastSeen, o.LastSeenSince)
	}
	conn := s.PG.Connect(t, "app", "x", "postgres")
	defer conn.Close(t.Context())
	look(t, s)
	if o := observation(t, s, p, "app"); o.LastSeen == nil {
		t.Error("it was not seen")
	}
}
