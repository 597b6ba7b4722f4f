package dbuser_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/dbuser"
	"rolecall/internal/lease"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

// skew gives the control database another clock than the cluster and this process have.
func skew(t testing.TB, s *servicetest.Service, by time.Duration) {
	t.Helper()
	execControl(t, s, `CREATE SCHEMA skewed;
		CREATE TABLE skewed.clock (by interval);
		CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
		  'SELECT pg_catalog.clock_timestamp() + by FROM skewed.clock';
		CREATE FUNCTION skewed.now() RETURNS timestamptz LANGUAGE sql AS
		  'SELECT pg_catalog.now() + by FROM skewed.clock'`)
	execControl(t, s, `INSERT INTO skewed.clock VALUES ($1)`, by)
	config := s.DB.Pool.Config()
	config.ConnConfig.RuntimeParams["search_path"] = "skewed, rolecall, pg_catalog"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	before := s.DB.Pool
	s.DB.Pool = pool
	t.Cleanup(func() { s.DB.Pool = before; pool.Close() })
}

// The clock of the control database alone decides when a credential rotates, whatever those of the replicas and of the
// cluster show.
func TestRotationClock(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			s, p := leaseService(t)
			skew(t, s, by)
			set := settings()
			set.Overlap = 0
			cr := put(t, s, p, set)
			if left := time.Until(cr.RotatesAt.Add(-by)); left < 50*time.Minute || left > time.Hour {
				t.Errorf("it rotates in %s", left)
			}
			due(t, s)
			if credential(t, s, p).Lease != cr.Lease {
				t.Error("it was rotated early")
			}
			wantLogin(t, s, current(t, s, p))
			execControl(t, s, `UPDATE skewed.clock SET by = by + interval '1 hour'`)
			due(t, s)
			rotated := credential(t, s, p)
			if rotated.Lease == cr.Lease {
				t.Error("it was not rotated in time")
			}
			wantLogin(t, s, current(t, s, p))

			// It is late, and its window opens in 10 minutes.
			now := time.Now().UTC().Add(by + time.Hour)
			set.RotateEvery = 2 * time.Hour
			set.Window = &lease.Window{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
				From: now.Add(10 * time.Minute).Format("15:04"), To: now.Add(-10 * time.Minute).Format("15:04"), Timezone: "UTC"}
			put(t, s, p, set)
			execControl(t, s, `UPDATE credentials SET rotates_at = now()`)
			due(t, s)
			if credential(t, s, p).Lease != rotated.Lease {
				t.Error("it was rotated outside of its window")
			}
			execControl(t, s, `UPDATE leases SET expires_at = created_at + interval '2 minutes' WHERE state = 'active'`)
			due(t, s)
			if credential(t, s, p).Lease == rotated.Lease {
				t.Error("it was not rotated though its password was about to end")
			}
			wantLogin(t, s, current(t, s, p))
		})
	}
}

// Replicas whose clocks differ make ids in another order than the leases. That is no reason to rotate again.
func TestRotationOfAReplicaAhead(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	cr := put(t, s, p, settings())
	_, rotated, err := s.Users.RotateStored(t.Context(), p, s.ClusterID, "shop")
	if err != nil {
		t.Fatal(err)
	}
	old := aged() // the later lease has the earlier id
	s.PG.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE `+rotated.Username+` IS %L', replace(
		shobj_description(to_regrole('`+rotated.Username+`'), 'pg_authid'),
		'`+rotated.Lease.String()+`', '`+old.String()+`')); END $$`)
	execControl(t, s, `UPDATE leases SET id = $2 WHERE id = $1`, rotated.Lease, old)
	execControl(t, s, `UPDATE credentials SET lease_id = $1`, old)
	due(t, s)
	if now := credential(t, s, p); now.Lease != old || len(leasesOf(t, s)) != 2 || now.Lease == cr.Lease {
		t.Errorf("it was rotated: %+v", now)
	}
}

// Two replicas that work on one control database end each lease once, and rotate a credential once for each time that it is
// due. Without an overlap, too, the current password is always accepted.
func TestTwoReplicas(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	set := settings()
	set.RotateEvery, set.Overlap = 12*time.Second, 12*time.Second // on a busy machine a rotation may come late
	put(t, s, p, set)
	var leases []*lease.Lease
	for range 20 {
		l, _ := take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Second})
		leases = append(leases, l)
	}
	replica := worker(s)
	replica.Kinds = (&dbuser.Service{Clusters: s.Clusters, Audit: s.Audit, Accounts: s.Accounts,
		LeaseStore: s.Users.LeaseStore, Log: s.Users.Log}).Tasks()
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for _, w := range []*task.Worker{worker(s), replica} {
		w.Every = 50 * time.Millisecond
		working.Go(func() { w.Run(ctx) })
	}
	seen := map[string]bool{}
	for taken := len(leases); len(seen) < 3 || taken > 0; time.Sleep(30 * time.Millisecond) {
		if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM leases WHERE account_guid IS NOT NULL AND state <> $1`,
			lease.Ended).Scan(&taken); err != nil {
			t.Fatal(err)
		}
		c := current(t, s, p)
		seen[c.Username] = true
		if err := s.PG.Login(c.Username, string(c.Password)); err != nil && current(t, s, p).Username == c.Username {
			t.Errorf("the current password: %v", err)
			break
		}
	}
	stop()
	working.Wait()
	for _, l := range leases {
		done := 0
		for _, row := range recorded(t, s, l.Username) {
			if strings.HasPrefix(row, "done lease.end") {
				done++
			}
		}
		wantState(t, s, l, lease.Ended, lease.Expired)
		if done != 1 {
			t.Errorf("%s was ended %d times", l.Username, done)
		}
	}
	rotations := 0
	for _, row := range recorded(t, s, "shop") {
		if strings.HasPrefix(row, "done credential.rotate") {
			rotations++
		}
	}
	var made int
	err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM leases WHERE credential = 'shop'`).Scan(&made)
	if err != nil || rotations != made-1 || made > len(seen)+1 {
		t.Errorf("%d leases and %d rotations, of which %d were seen; %v", made, rotations, len(seen), err)
	}
}
