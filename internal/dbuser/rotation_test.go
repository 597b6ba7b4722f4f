package dbuser_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

const rolePassword = "administering-password"

// anAttempt is the id of an attempt that the audit log does not have.
var anAttempt = uuid.New()

// restarted is another replica that knows only what is stored.
func restarted(t testing.TB, s *servicetest.Service) *dbuser.Service {
	t.Helper()
	log := slog.New(slog.NewTextHandler(s.Log, nil))
	clusters, err := cluster.Open(t.Context(), s.DB, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clusters.Close)
	return &dbuser.Service{Clusters: clusters, Audit: s.Audit, Log: log}
}

// works looks at the cluster over fresh connections, to its own database and to another.
func works(t testing.TB, s *dbuser.Service, clusterID string) {
	t.Helper()
	if _, _, err := s.Users(t.Context(), admin, clusterID, pgrole.Page{Limit: 1}, false); err != nil {
		t.Errorf("users: %v", err)
	}
	c, err := s.Cluster(admin, clusterID)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context(), "template1", "UTF8")
	if err != nil {
		t.Errorf("another database: %v", err)
		return
	}
	_ = conn.Close(context.Background())
}

// A rotation that is cut off between any two of its steps loses nothing: a replica that is started then works with the
// cluster, the settler finishes the rotation, and the attempt gets its outcome.
func TestRotationCutOff(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	ctx := t.Context()
	steps := []struct {
		name string
		do   func(t *testing.T, r *cluster.Rotation)
		want string
	}{
		{"nothing is stored", nil, "not_done"},
		{"the next password is stored", func(*testing.T, *cluster.Rotation) {}, "done"},
		{"the cluster knows it", func(t *testing.T, r *cluster.Rotation) {
			conn, _, err := r.Current.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			if err := pgrole.SetOwnPassword(ctx, conn, string(r.Next.Password),
				func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}, "done"},
		{"it is the current one", func(t *testing.T, r *cluster.Rotation) {
			if err := s.Clusters.Adopt(ctx, r); err != nil {
				t.Fatal(err)
			}
		}, "done"},
	}
	for cut := range steps {
		t.Run(steps[cut].name, func(t *testing.T) {
			role := fmt.Sprintf("rotate_%d", cut)
			s.PG.Exec(t, `CREATE ROLE `+role+` LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
			id := s.Register(t, role, s.PG, role, rolePassword)
			attempt := cutOff(t, s, id, audit.RotateCluster, role, 0)
			if steps[cut].do != nil {
				r, err := s.Clusters.Propose(ctx, uuid.MustParse(id), uuid.MustParse(attempt))
				if err != nil {
					t.Fatal(err)
				}
				for _, step := range steps[1 : cut+1] {
					step.do(t, r)
				}
			}
			works(t, s.Users, id)
			replica := restarted(t, s)
			works(t, replica, id)
			if err := replica.SettleOnce(ctx); err != nil {
				t.Fatal(err)
			}
			if got, why := outcome(t, s, attempt); got != steps[cut].want {
				t.Errorf("the outcome is %q (%s), want %q", got, why, steps[cut].want)
			}
			pending, madeBy, err := s.Clusters.Rotation(ctx, uuid.MustParse(id))
			if err != nil || pending != nil || (madeBy.String() == attempt) != (steps[cut].want == "done") {
				t.Errorf("after settling: pending %t, made by %q, %v", pending != nil, madeBy, err)
			}
			if err := s.PG.Login(role, rolePassword); (err == nil) != (steps[cut].want == "not_done") {
				t.Errorf("the first password: %v", err)
			}
			works(t, restarted(t, s), id)
			// The replica that has not heard of it yet.
			if err := s.Clusters.Reload(ctx); err != nil {
				t.Fatal(err)
			}
			works(t, s.Users, id)
		})
	}
}

// The next rotation finishes the one that was cut off.
func TestRotateAfterCutOff(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_again LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "again", s.PG, "rotate_again", rolePassword)
	r, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), anAttempt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), uuid.New()); !fault.Is(err, fault.InUse) {
		t.Errorf("a second one was taken: %v", err)
	}
	// The cluster has got it, and a human has changed the password of the role at that moment.
	s.PG.Exec(t, `ALTER ROLE rotate_again PASSWORD 'of-a-human-0'`)
	if _, err := s.Users.RotateCredential(t.Context(), admin, id); !fault.Is(err, fault.Invalid) {
		t.Errorf("neither password is taken: %v", err)
	}
	if pending, _, err := s.Clusters.Rotation(t.Context(), uuid.MustParse(id)); err != nil || pending == nil ||
		pending.Next.Password != r.Next.Password {
		t.Errorf("what is pending was lost: %v", err)
	}
	s.PG.Exec(t, `ALTER ROLE rotate_again PASSWORD '`+string(r.Next.Password)+`'`)
	if _, err := s.Users.RotateCredential(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	works(t, restarted(t, s), id)
	if c, err := s.Clusters.Get(id); err != nil || c.Connection.Password == r.Next.Password ||
		s.PG.Login("rotate_again", string(c.Connection.Password)) != nil {
		t.Errorf("it was not rotated; %v", err)
	}
}

// What was dropped is not adopted by one who comes late, but it is not forgotten either: the cluster may know it.
func TestRotationDropped(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_dropped LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "dropped", s.PG, "rotate_dropped", rolePassword)
	r, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), anAttempt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Drop(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Adopt(t.Context(), r); !fault.Is(err, fault.InUse) {
		t.Errorf("adopted after it was dropped: %v", err)
	}
	if c, err := s.Clusters.Get(id); err != nil || c.Connection.Password != rolePassword {
		t.Errorf("a password that was dropped was adopted; %v", err)
	}
	works(t, s.Users, id)
	s.PG.Exec(t, `ALTER ROLE rotate_dropped PASSWORD '`+string(r.Next.Password)+`'`)
	works(t, restarted(t, s), id)
}

// The session that holds the lock of a rotation is lost, and at that moment an admin gives the credential anew, as which
// the cluster then has the one or the other. Rolecall gets in with either.
func TestRotationLosesItsLock(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE ROLE rotate_lost LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "lost", pg, "rotate_lost", rolePassword)
	release, err := s.Clusters.LockCredential(t.Context(), uuid.MustParse(id))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	r, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), anAttempt)
	if err != nil {
		t.Fatal(err)
	}
	const ofTheAdmin = "of-the-admin-0"
	pg.Exec(t, `ALTER ROLE rotate_lost PASSWORD '`+ofTheAdmin+`'`)
	patch := func() error {
		_, err := s.Users.UpdateCluster(t.Context(), admin, id, nil, cluster.Settings{},
			&cluster.ConnectionChange{Password: new(secret.Text(ofTheAdmin))})
		return err
	}
	if err := patch(); !fault.Is(err, fault.InUse) {
		t.Errorf("during the rotation: %v", err)
	}
	s.PG.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1919906913
		AND database = (SELECT oid FROM pg_database WHERE datname = $1)`, s.DB.Identity.Database)
	if err := patch(); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.StillPending(t.Context(), r); !fault.Is(err, fault.InUse) {
		t.Errorf("the rotation would go on: %v", err)
	}
	pg.Exec(t, `ALTER ROLE rotate_lost PASSWORD '`+string(r.Next.Password)+`'`)
	if err := s.Clusters.Adopt(t.Context(), r); !fault.Is(err, fault.InUse) ||
		!strings.Contains(err.Error(), "Both passwords are kept") {
		t.Errorf("adopted: %v", err)
	}
	for _, password := range []string{string(r.Next.Password), ofTheAdmin} {
		pg.Exec(t, `ALTER ROLE rotate_lost PASSWORD '`+password+`'`)
		works(t, s.Users, id)
		works(t, restarted(t, s), id)
	}
	if _, err := s.Users.RotateCredential(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	if pending, _, err := s.Clusters.Rotation(t.Context(), uuid.MustParse(id)); err != nil || pending != nil {
		t.Errorf("after another rotation %+v is pending; %v", pending, err)
	}
	works(t, restarted(t, s), id)
}

// One who rotates is overtaken by another, who finishes that rotation and makes one more. What the slow one sends then does
// not become the password of the cluster, even if it is killed before it sees that.
func TestRotationIsOvertaken(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_overtaken LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "overtaken", s.PG, "rotate_overtaken", rolePassword)
	slow, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), anAttempt)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := slow.Open(t.Context(), &slow.Current)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := s.Clusters.StillPending(t.Context(), slow); err != nil {
		t.Errorf("nobody has overtaken it yet: %v", err)
	}
	if _, err := s.Users.RotateCredential(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	err = pgrole.SetOwnPassword(t.Context(), conn, string(slow.Next.Password),
		func(ctx context.Context) error { return s.Clusters.StillPending(ctx, slow) })
	wantKind(t, err, fault.InUse)
	if s.PG.Login("rotate_overtaken", string(slow.Next.Password)) == nil {
		t.Error("the cluster has taken the password of the slow one")
	}
	works(t, restarted(t, s), id)
}

// A rotation under way is not disturbed when its password gets another seal.
func TestRotationResealed(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_resealed LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "resealed", s.PG, "rotate_resealed", rolePassword)
	r, err := s.Clusters.Propose(t.Context(), uuid.MustParse(id), anAttempt)
	if err != nil {
		t.Fatal(err)
	}
	if s.DB.Keys, err = control.ParseKeyring(control.NewMasterKey() + "\n" + s.MasterKey); err != nil {
		t.Fatal(err)
	}
	done, err := s.DB.Reseal(t.Context(), func(pgx.Tx, *control.Resealed) error { return nil })
	if err != nil || done.Counts["clusters.pending"] != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := s.Clusters.Adopt(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if pending, madeBy, err := s.Clusters.Rotation(t.Context(), uuid.MustParse(id)); err != nil || pending != nil ||
		madeBy != anAttempt {
		t.Errorf("after it was adopted: %+v, made by %q, %v", pending, madeBy, err)
	}
	if c, err := s.Clusters.Get(id); err != nil || c.Connection.Password != r.Next.Password {
		t.Errorf("the next password was not adopted; %v", err)
	}
}

// Ensure, by which dev registers its own cluster at each start, does not undo a rotation.
func TestEnsureKeepsRotation(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	s.PG.Exec(t, `CREATE ROLE rotate_put LOGIN CREATEROLE PASSWORD '`+rolePassword+`'`)
	id := s.Register(t, "put", s.PG, "rotate_put", rolePassword)
	before, err := s.Clusters.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Users.RotateCredential(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	moved := &cluster.Cluster{ID: before.ID, DisplayName: before.DisplayName, Connection: before.Connection,
		SystemIdentifier: before.SystemIdentifier}
	for _, query := range []string{"", "?connect_timeout=3"} {
		moved.Connection.URL = before.Connection.URL + query
		if err := s.Clusters.Ensure(t.Context(), moved, audit.Entry{AccountGUID: "g", AccountName: "g"}); err != nil {
			t.Fatal(err)
		}
		now, err := s.Clusters.Get(id)
		if err != nil || now.Connection.URL != moved.Connection.URL || now.Connection.Password == rolePassword {
			t.Errorf("got %s, the first password: %t; %v", now.Connection.URL, now.Connection.Password == rolePassword, err)
		}
		works(t, s.Users, id)
	}
}
