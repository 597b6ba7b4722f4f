package dbuser_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

// attemptAt is the id of an attempt that no audit log has.
func attemptAt(t time.Time) string {
	id := uuid.Must(uuid.NewV7())
	for i, ms := 5, t.UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		id[i] = byte(ms)
	}
	return id.String()
}

// commented makes a role that carries a record, or gives one another record.
func commented(t testing.TB, pg *pgtest.Cluster, name, attempt string) {
	t.Helper()
	pg.Exec(t, `DROP ROLE IF EXISTS "`+name+`"`)
	pg.Exec(t, `CREATE ROLE "`+name+`" LOGIN`)
	pg.Exec(t, `COMMENT ON ROLE "`+name+`"`+record(attempt, ""))
}

// compare looks at a cluster as a server that has just started does, and returns what that has found.
func compare(t testing.TB, s *dbuser.Service, clusterID string) *dbuser.Unrecorded {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() { s.Compare(ctx); close(done) }()
	c, err := s.Clusters.Get(clusterID)
	if err != nil {
		t.Fatal(err)
	}
	for s.Unrecorded(c) == nil && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	<-done
	found := s.Unrecorded(c)
	if found == nil {
		t.Fatal("the cluster was not compared")
	}
	return found
}

func TestCompare(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	create(t, s, "compare-ours")
	now := time.Now()
	// From before the registration, with a mangled record, and with an id of something else.
	commented(t, pg, "compare-before", attemptAt(now.Add(-time.Hour)))
	commented(t, pg, "compare-mangled", `\"`)
	commented(t, pg, "compare-other", uuid.NewString())
	if found := compare(t, restarted(t, s), s.ClusterID); found.Count != 0 || found.Problem() != "" {
		t.Errorf("found %+v: %s", found, found.Problem())
	}

	// Another Rolecall on the same cluster makes a change, and the roles stay as they are.
	other := servicetest.NewAs(t, pg, pg.User, pg.Password)
	create(t, other, "compare-theirs")
	roles := func() string {
		return pgtest.Value[string](t, pg, `SELECT string_agg(concat_ws('|', to_jsonb(a), shobj_description(oid, `+
			`'pg_authid')), ' ' ORDER BY oid) FROM pg_authid a`)
	}
	before := roles()
	replica := restarted(t, s)
	found := compare(t, replica, s.ClusterID)
	if found.Count != 1 || !slices.Equal(found.Users, []string{"compare-theirs"}) ||
		!strings.Contains(found.Problem(), `("compare-theirs", at 2`) {
		t.Errorf("found %+v: %s", found, found.Problem())
	}
	if roles() != before {
		t.Error("the roles were changed")
	}
	if n := strings.Count(s.Log.String(), "the last changes of users are not in the audit log"); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, s.Log)
	}
	// What they find belongs to others: theirs is a registration that is younger than compare-ours.
	if found := compare(t, restarted(t, other), other.ClusterID); found.Count != 0 {
		t.Errorf("the other one found %+v", found)
	}

	for i := range 12 {
		commented(t, pg, fmt.Sprintf("compare-%02d", i), attemptAt(now.Add(time.Duration(i)*time.Minute)))
	}
	if _, err := replica.ProbeCluster(t.Context(), admin, s.ClusterID); err != nil {
		t.Fatal(err)
	}
	c, err := replica.Clusters.Get(s.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	found = replica.Unrecorded(c)
	if found.Count != 13 || len(found.Users) != 10 || found.Users[0] != "compare-11" ||
		found.Latest.Sub(now.Add(11*time.Minute)).Abs() > time.Millisecond ||
		!strings.Contains(found.Problem(), `(of 13, the latest being "compare-11", "compare-10", `) {
		t.Errorf("found %+v: %s", found, found.Problem())
	}
	if n := strings.Count(s.Log.String(), "the last changes of users are not in the audit log"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// What the retention has removed is not missing.
func TestCompareAfterRetention(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE clusters SET created_at = now() - interval '1 y'`); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, s, "retention-ours")
	for {
		if n, err := s.Audit.Seal(t.Context()); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			break
		}
	}
	removed, err := s.Audit.Remove(t.Context(), 0)
	if err != nil || removed == 0 {
		t.Fatalf("%d rows were removed, %v", removed, err)
	}
	commented(t, pg, "retention-later", attemptAt(time.Now().Add(time.Hour)))
	if found := compare(t, restarted(t, s), s.ClusterID); !slices.Equal(found.Users, []string{"retention-later"}) {
		t.Errorf("found %+v", found)
	}
	create(t, s, "retention-recorded") // now the log begins with a row, and not behind the last that was removed
	if _, err := s.Audit.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := compare(t, restarted(t, s), s.ClusterID); !slices.Equal(found.Users, []string{"retention-later"}) {
		t.Errorf("found %+v", found)
	}
}

// An attempt that was cut off is not taken for undone where the cluster is ahead of the audit log.
func TestSettleInOldControlDatabase(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	commented(t, pg, "old-password", uuid.NewString())
	commented(t, pg, "old-before", attemptAt(time.Now().Add(-time.Hour)))
	before := cutOff(t, s, s.ClusterID, audit.ChangePassword, "old-password", 1)
	settle(t, s)
	if got, why := outcome(t, s, before); got != "not_done" {
		t.Errorf("before: %s, %s", got, why)
	}

	attempts := []string{
		cutOff(t, s, s.ClusterID, audit.ChangePassword, "old-password", 0),
		cutOff(t, s, s.ClusterID, audit.CreateUser, "old-create", 0),
		cutOff(t, s, s.ClusterID, audit.DeleteUser, "old-before", 0),
		cutOff(t, s, s.ClusterID, audit.CreateDatabase, "old-database", 0),
	}
	gone := cutOff(t, s, s.ClusterID, audit.DeleteUser, "old-gone", 0)
	commented(t, pg, "old-elsewhere", attemptAt(time.Now().Add(time.Minute)))
	if err := restarted(t, s).SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range attempts {
		if got, why := outcome(t, s, id); got != "unknown" ||
			why != "the cluster has later changes that the audit log does not have" {
			t.Errorf("%s, %s", got, why)
		}
	}
	if got, why := outcome(t, s, gone); got != "done" {
		t.Errorf("what is gone: %s, %s", got, why)
	}
}

// A rotation that a control database from yesterday wants to finish is only looked at.
func TestStaleRotation(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	const current, third = rolePassword, "a-third-password"
	for name, test := range map[string]struct {
		takes         func(r *cluster.Rotation) string
		want          string
		adopted, left bool
	}{
		"current": {func(*cluster.Rotation) string { return current }, "not_done", false, false},
		"next":    {func(r *cluster.Rotation) string { return string(r.Next.Password) }, "done", true, false},
		"neither": {func(*cluster.Rotation) string { return third }, "unknown", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			role := "stale_" + name
			s.PG.Exec(t, `CREATE ROLE `+role+` LOGIN CREATEROLE PASSWORD '`+current+`'`)
			id := uuid.MustParse(s.Register(t, role, s.PG, role, current))
			attempt := uuid.NewString()
			if _, err := s.DB.Pool.Exec(t.Context(), `
				INSERT INTO audit (attempt, phase, time, action, account_guid, account_name, cluster_id, target, settle_after)
				VALUES ($1, 'attempt', now() - interval '1 d', $2, 'g', 'g', $3, $4, clock_timestamp())`, attempt,
				audit.RotateCluster, id, role); err != nil {
				t.Fatal(err)
			}
			r, err := s.Clusters.Propose(t.Context(), id, uuid.MustParse(attempt))
			if err != nil {
				t.Fatal(err)
			}
			taken := test.takes(r)
			s.PG.Exec(t, `ALTER ROLE `+role+` PASSWORD '`+taken+`'`)
			verifier := func() string {
				return pgtest.Value[string](t, s.PG, `SELECT rolpassword FROM pg_authid WHERE rolname = $1`, role)
			}
			before := verifier()
			if err := restarted(t, s).SettleOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if verifier() != before {
				t.Error("the password of the role was changed")
			}
			if got, why := outcome(t, s, attempt); got != test.want {
				t.Errorf("the outcome is %s, %s", got, why)
			}
			pending, madeBy, err := s.Clusters.Rotation(t.Context(), id)
			if err != nil || (pending != nil) != test.left || (madeBy.String() == attempt) != test.adopted {
				t.Errorf("pending %t, made by %q, %v", pending != nil, madeBy, err)
			}
			if taken != third {
				works(t, restarted(t, s), id.String())
				return
			}
			// Rolecall says so, and what to do.
			c, err := s.Clusters.Get(id.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Users.ProbeCluster(t.Context(), admin, id.String()); err == nil ||
				!strings.Contains(err.Error(), "restored from a backup") {
				t.Errorf("a probe: %v", err)
			}
			if h := c.LastHealth(); h.Reachable || !strings.Contains(h.Error, "update the registration with it") {
				t.Errorf("health: %+v", h)
			}
		})
	}
}

// The session of a rotation whose replica was killed may still be about to commit, while it waits for a standby. Until it
// has ended, the next password is not forgotten: neither by the settler nor by an admin who gives the one that counts now.
func TestRotationUnderWay(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_under_way LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := uuid.MustParse(s.Register(t, "under way", s.PG, "rotate_under_way", rolePassword))
	attempt := uuid.NewString()
	if _, err := s.DB.Pool.Exec(t.Context(), `
		INSERT INTO audit (attempt, phase, time, action, account_guid, account_name, cluster_id, target, settle_after)
		VALUES ($1, 'attempt', now() - interval '1 d', $2, 'g', 'g', $3, 'under way', clock_timestamp())`, attempt,
		audit.RotateCluster, id); err != nil {
		t.Fatal(err)
	}
	r, err := s.Clusters.Propose(t.Context(), id, uuid.MustParse(attempt))
	if err != nil {
		t.Fatal(err)
	}
	slow := s.PG.Connect(t, s.PG.User, s.PG.Password, "postgres")
	exec(t, slow, `BEGIN; ALTER ROLE rotate_under_way PASSWORD '`+string(r.Next.Password)+`'`)
	settle(t, s)
	if got, why := outcome(t, s, attempt); got != "" {
		t.Errorf("settled as %s, %s", got, why)
	}
	_, err = s.Users.UpdateCluster(t.Context(), admin, id.String(), nil, cluster.Settings{},
		&cluster.ConnectionChange{Password: new(secret.Text(rolePassword))})
	wantKind(t, err, fault.InUse)
	if pending, _, err := s.Clusters.Rotation(t.Context(), id); err != nil || pending == nil {
		t.Errorf("the next password was forgotten; %v", err)
	}
	exec(t, slow, `COMMIT`)
	settle(t, s)
	if got, why := outcome(t, s, attempt); got != "done" {
		t.Errorf("settled as %q, %s", got, why)
	}
	works(t, restarted(t, s), id.String())
}
