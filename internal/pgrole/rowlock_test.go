package pgrole_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// changeOwnRow logs in as the user again and again, n times at once, and each time changes the user's row of pg_authid in a
// transaction, once and then again and again, with pause (SQL) between the change and the end of the transaction. It returns
// once the row is locked; stop ends it.
func changeOwnRow(t *testing.T, c *pgtest.Cluster, name, password, pause string, n int) (stop func()) {
	t.Helper()
	config, err := pgx.ParseConfig(c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = name, password
	ctx, cancel := context.WithCancel(context.Background())
	locked := make(chan struct{})
	var once sync.Once
	var logins sync.WaitGroup
	for range n {
		logins.Go(func() {
			for ctx.Err() == nil {
				conn, err := pgx.ConnectConfig(ctx, config)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				_, _ = conn.Exec(ctx, `SET lock_timeout = 0`)
				for !conn.IsClosed() && ctx.Err() == nil {
					if _, err := conn.Exec(ctx, `BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '1MB'; `+
						`ALTER ROLE CURRENT_USER PASSWORD 'its own password'`); err == nil {
						once.Do(func() { close(locked) })
						_, _ = conn.Exec(ctx, pause)
					}
					_, _ = conn.Exec(ctx, `ROLLBACK`)
				}
				_ = conn.Close(context.Background())
			}
		})
	}
	select {
	case <-locked:
	case <-time.After(time.Minute):
		t.Fatal("the row was never locked")
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			logins.Wait()
		}
	}
	t.Cleanup(stop)
	return stop
}

// A user may lock its own row with plain SQL, and come again as often as it likes, in one long transaction or in many short
// ones: that holds up no change of it.
func TestOwnRowLocked(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		c.Exec(t, `CREATE ROLE `+name+`_group`)
		if user := s.Pool.Config().ConnConfig.User; user != c.User {
			c.Exec(t, `GRANT `+name+`_group TO `+user+` WITH ADMIN OPTION`)
		}
		past := new(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
		for change, f := range map[string]func(ctx context.Context) error{
			"password": func(ctx context.Context) error {
				_, err := s.SetPassword(ctx, name, password2, nil, actor())
				return err
			},
			"expiry": func(ctx context.Context) error {
				_, err := s.SetLimits(ctx, name, pgrole.Limits{ValidUntil: &past}, nil, actor())
				return err
			},
			"connection limit": func(ctx context.Context) error {
				_, err := s.SetLimits(ctx, name, pgrole.Limits{ConnectionLimit: new(0)}, nil, actor())
				return err
			},
			"membership": func(ctx context.Context) error {
				_, _, err := setRoles(ctx, s, name, []string{name + "_group"}, []string{name + "_group"}, nil, actor())
				return err
			},
			"disable": func(ctx context.Context) error {
				_, _, err := s.DeleteOrDisable(ctx, name, "", nil, actor())
				return err
			},
			"delete": func(ctx context.Context) error { return remove(t, s, name, "", nil, actor()) },
		} {
			for how, pause := range map[string]string{"one long transaction": `SELECT pg_sleep(600)`,
				"short transactions": `SELECT pg_sleep(0.1); COMMIT`} {
				mustCreate(t, s, name)
				stop := changeOwnRow(t, c, name, password, pause, 10)
				if err := f(t.Context()); err != nil {
					t.Errorf("%s, %s: %v", change, how, err)
				}
				stop()
				if exists(t, c, name) {
					mustDelete(t, s, name)
				}
			}
		}
	})
}

// A session of another role is never ended for it, and the answer says which it is.
func TestRowLockedByAnother(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		other := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, other, `BEGIN; ALTER ROLE `+name+` CONNECTION LIMIT 5`)
		_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		refused(t, err, fault.Unavailable, `"`+name+`" cannot be changed`, fmt.Sprintf(`it is locked by process %d of `+
			`the role "%s"`, other.PgConn().PID(), c.User), "Nothing was changed")
		exec(t, other, `COMMIT`)
		mayLogin(t, c, name, password)
		mustDelete(t, s, name)
	})
}

// A prepared transaction of the user itself is rolled back where the administering role may.
func TestOwnRowLockedByPrepared(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_prepared_transactions": "2"})
	s := superuser(t, c)
	mustCreate(t, s, "prepared")
	exec(t, c.Connect(t, "prepared", password, "postgres"), `BEGIN`, `ALTER ROLE prepared SET work_mem = '1MB'`,
		`ALTER ROLE prepared PASSWORD 'its own password'`, `PREPARE TRANSACTION 'held'`)
	if _, err := s.SetPassword(t.Context(), "prepared", password2, nil, actor()); err != nil {
		t.Error(err)
	}
	mayLogin(t, c, "prepared", password2)
}

// In another database it is rolled back there, and the answer of who may not names the database.
func TestOwnRowLockedByPreparedElsewhere(t *testing.T) {
	asEachAlone(t, map[string]string{"max_prepared_transactions": "2"}, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server,
		name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		database(t, c, "elsewhere")
		exec(t, c.Connect(t, name, password, "elsewhere"), `BEGIN`, `ALTER ROLE CURRENT_USER PASSWORD 'its own password'`,
			`PREPARE TRANSACTION 'held'`)
		_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		if s.Pool.Config().ConnConfig.User == c.User {
			if err != nil {
				t.Fatal(err)
			}
			mayLogin(t, c, name, password2)
			return
		}
		refused(t, err, fault.Unavailable, `the prepared transaction "held" of the role "`+name+`" in database "elsewhere"`,
			"ROLLBACK PREPARED", "Nothing was changed")
		mayLogin(t, c, name, password)
		exec(t, c.Connect(t, c.User, c.Password, "elsewhere"), `ROLLBACK PREPARED 'held'`)
	})
}
