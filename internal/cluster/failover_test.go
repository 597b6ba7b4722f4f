package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
	"rolecall/internal/sqlstate"
)

// put registers a cluster of a system identifier without a look at it.
func put(t testing.TB, s *servicetest.Service, hosts, query, role, password, identifier string) *cluster.Cluster {
	t.Helper()
	c := &cluster.Cluster{
		ID:          uuid.New(),
		DisplayName: t.Name() + uuid.NewString(),
		Connection: cluster.Connection{URL: "postgres://" + role + "@" + hosts + "/postgres" + query,
			TLS: cluster.TLS{Mode: "disable"}, Password: secret.Text(password)},
		SystemIdentifier: identifier,
	}
	if err := s.Clusters.Ensure(t.Context(), c, audit.Entry{AccountGUID: "g", AccountName: "g"}); err != nil {
		t.Fatal(err)
	}
	return get(t, s.Clusters, c.ID.String())
}

// replica asks a cluster over its pool whether it is one.
func replica(t testing.TB, c *cluster.Cluster) (is bool, err error) {
	t.Helper()
	pool, err := c.Pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = pool.QueryRow(t.Context(), `SELECT pg_is_in_recovery()`).Scan(&is)
	return is, err
}

// A host that hangs costs the first connection its share of the time, and the next ones nothing.
func TestHostThatHangs(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.New(t, nil)
	hanging, good := pgtest.NewProxy(t, pg), pgtest.NewProxy(t, pg)
	hanging.Hang()
	c := put(t, s, fmt.Sprintf("localhost:%d,127.0.0.1:%d", hanging.Port, good.Port), "", pg.User, pg.Password, "")
	if _, err := replica(t, c); err != nil {
		t.Fatal(err)
	}
	taken := hanging.Taken()
	conn, err := c.Connect(t.Context(), "template1", "UTF8")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if taken == 0 || hanging.Taken() != taken {
		t.Errorf("the host that hangs was tried %d times, and %d times more by another connection", taken, hanging.Taken()-taken)
	}
	// The good one hangs in its turn, under a pool full of its connections, and the other one is back.
	hanging.Point(pg)
	good.Hang()
	eventually(t, "no connection was used a moment ago", func() bool {
		return pgtest.Value[bool](t, pg, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'rolecall' `+
			`AND state_change > clock_timestamp() - interval '1.1 s')`)
	})
	start := time.Now()
	if _, err := replica(t, c); err != nil {
		t.Error(err)
	}
	// A second for the ping and two for the share of the host that hangs; as much again is for a busy machine.
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("the other host was found after %s", took)
	}
}

// Whatever the URL asks for, nothing is read from or written to a replica.
func TestReplicaIsNotUsed(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.New(t, nil)
	standby := pg.Standby(t, nil)
	for _, attrs := range []string{"any", "standby", "prefer-standby", "read-only", "primary"} {
		hosts := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", standby.Port, pg.Port)
		if is, err := replica(t, put(t, s, hosts, "?target_session_attrs="+attrs, pg.User, pg.Password, "")); err != nil || is {
			t.Errorf("%s: a replica %t, %v", attrs, is, err)
		}
	}
	alone := put(t, s, fmt.Sprintf("127.0.0.1:%d", standby.Port), "?target_session_attrs=any", pg.User, pg.Password, "")
	if h := alone.Health(t.Context()); h.Reachable || h.Stopped ||
		h.Error != fmt.Sprintf("The cluster has no primary at the moment: of 127.0.0.1:%d none takes writes.", standby.Port) {
		t.Errorf("a replica alone: %+v", h)
	}
}

// A primary that is set to read only is used only while no other host takes writes.
func TestReadOnlyPrimaryIsUsedLast(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	old := pgtest.New(t, nil)
	next := old.Standby(t, nil)
	old.Set(t, "default_transaction_read_only", "on")
	var clusters []*cluster.Cluster
	for _, ports := range [][2]int{{int(old.Port), int(next.Port)}, {int(next.Port), int(old.Port)}} {
		hosts := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", ports[0], ports[1])
		clusters = append(clusters, put(t, s, hosts, "", old.User, old.Password, ""))
	}
	port := func(c *cluster.Cluster) (port int) {
		t.Helper()
		pool, err := c.Pool(t.Context())
		if err == nil {
			err = pool.QueryRow(t.Context(), `SELECT inet_server_port()`).Scan(&port)
		}
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	for _, c := range clusters {
		for range 3 {
			if got := port(c); got != int(old.Port) {
				t.Errorf("before the promotion %d is read from, want %d", got, old.Port)
			}
		}
		if h := c.Health(t.Context()); h.Reachable || !strings.Contains(h.Error, "default_transaction_read_only is on") {
			t.Errorf("got %+v", h)
		}
	}
	next.Promote(t)
	for _, c := range clusters {
		for range 3 {
			if got := port(c); got != int(next.Port) {
				t.Errorf("after the promotion %d is read from, want %d", got, next.Port)
			}
		}
	}
}

// Each connection asks which cluster it leads to, and is refused where the role may not know.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE ROLE blind LOGIN PASSWORD 'blind'; CREATE ROLE sees LOGIN PASSWORD 'sees'`)
	for _, database := range []string{"postgres", "template1"} {
		conn := pg.Connect(t, pg.User, pg.Password, database)
		if _, err := conn.Exec(t.Context(), `REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; GRANT EXECUTE ON `+
			`FUNCTION pg_control_system() TO sees`); err != nil {
			t.Fatal(err)
		}
	}
	hosts := fmt.Sprintf("127.0.0.1:%d", pg.Port)
	identifier := pgtest.Value[string](t, pg, `SELECT system_identifier::text FROM pg_control_system()`)
	for _, test := range []struct {
		role, identifier string
		refused          bool
	}{{"sees", identifier, false}, {"sees", "1", true}, {"sees", "", false}, {"blind", identifier, true}, {"blind", "1", true},
		{"blind", "", false}} {
		c := put(t, s, hosts, "", test.role, test.role, test.identifier)
		_, err := replica(t, c)
		if fault.Is(err, fault.Unavailable) != test.refused || !test.refused && err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		if message := fault.Of(err).Message; test.refused &&
			strings.Contains(message, "GRANT EXECUTE ON FUNCTION pg_control_system() TO \"blind\"") != (test.role == "blind") ||
			test.refused && strings.Contains(message, identifier) {
			t.Errorf("%+v: told %s", test, message)
		}
		conn, err := c.Connect(t.Context(), "template1", "UTF8")
		if fault.Is(err, fault.Unavailable) != test.refused || !test.refused && err != nil {
			t.Errorf("another database, %+v: %v", test, err)
		}
		if err == nil {
			conn.Close(context.Background())
		}
		if h := c.Health(t.Context()); h.Stopped != test.refused || h.Reachable == test.refused {
			t.Errorf("%+v: %+v", test, h)
		}
	}
}

// TestTransactionTimeoutOfRegisteredDatabase has the owner of the registered database end all transactions at once. Rolecall
// registers the cluster, watches it and makes changes in it.
func TestTransactionTimeoutOfRegisteredDatabase(t *testing.T) {
	t.Parallel()
	pgtest.EachMajor(t, []int{17, 18}, func(t *testing.T, major int) {
		pg := pgtest.NewMajor(t, major, nil)
		pg.Exec(t, `ALTER DATABASE postgres SET transaction_timeout = '1ms'`)
		s := servicetest.New(t, pgtest.Shared(t))
		admin := &account.Principal{GUID: "g", Scopes: account.AdminScopes}
		for i := range 5 { // each with a pool that has not learned the server's version yet
			c := get(t, s.Clusters, s.Register(t, fmt.Sprintf("timeouts_%d_%d", major, i), pg, pg.User, pg.Password))
			if h := c.Health(t.Context()); !h.Reachable {
				t.Fatalf("try %d: %+v", i, h)
			}
			conn, _, err := c.Connection.Open(t.Context()) // as when it is registered and probed
			if err != nil {
				t.Fatalf("try %d: %v", i, err)
			}
			_ = conn.Close(t.Context())
			name := fmt.Sprintf("timeouts_%d", i)
			if _, _, err := s.Users.CreateUser(t.Context(), admin, c.ID.String(), name, "a-good-password"); err != nil {
				t.Fatalf("try %d: %v", i, err)
			}
			if err := s.Users.DeleteUser(t.Context(), admin, c.ID.String(), name, dbuser.Deletion{}, nil); err != nil {
				t.Fatalf("try %d: %v", i, err)
			}
		}
	})
}

// The owner of a database sets what its sessions have; visits have their own, on every PostgreSQL.
func TestSettingsOfDatabase(t *testing.T) {
	t.Parallel()
	pgtest.EachMajor(t, []int{16, 17}, func(t *testing.T, major int) {
		pg := pgtest.NewMajor(t, major, nil)
		s := servicetest.New(t, pgtest.Shared(t))
		pg.Exec(t, `CREATE DATABASE timeouts`)
		names := []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"}
		if major >= 17 {
			names = append(names, "transaction_timeout")
		}
		for _, name := range names {
			pg.Exec(t, `ALTER DATABASE timeouts SET `+name+` = '1ms'`)
		}
		c := put(t, s, fmt.Sprintf("127.0.0.1:%d", pg.Port), "", pg.User, pg.Password, "")
		if _, err := replica(t, c); err != nil {
			t.Fatal(err)
		}
		conn, err := c.Connect(t.Context(), "timeouts", "UTF8")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, name := range names {
			var got string
			if err := conn.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&got); err != nil || got == "1ms" {
				t.Errorf("%s is %s, %v", name, got, err)
			}
		}
	})
}

// A server that fails each sign-in, or ends each session, gets few of them. Its clients get the same error as before.
func TestSignInsArePaced(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE ROLE paced SUPERUSER LOGIN PASSWORD 'before'`)
	p := pgtest.NewProxy(t, pg)
	c := put(t, s, fmt.Sprintf("127.0.0.1:%d", p.Port), "", "paced", "password", "")
	start := time.Now()
	for range 200 {
		if _, err := replica(t, c); !sqlstate.Is(err, sqlstate.InvalidPassword) {
			t.Fatal(err)
		}
	}
	wantFewSignIns(t, p.Taken(), start)

	// A probe that succeeds ends it at once.
	pg.Exec(t, `ALTER ROLE paced PASSWORD 'password'`)
	if _, err := s.Clusters.Probe(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := replica(t, c); err != nil {
		t.Error(err)
	}

	// Failures in another database, which its owner can cause, are not counted.
	for range 20 {
		if conn, err := c.Connect(t.Context(), "no_such_database", "UTF8"); err == nil {
			conn.Close(t.Context())
			t.Fatal("a database was found")
		}
	}
	if _, err := replica(t, c); err != nil {
		t.Error(err)
	}
	var signedIn atomic.Int64
	p.Watch(func(sql string, _ int) pgtest.Verdict {
		switch {
		case strings.Contains(sql, "pg_is_in_recovery"):
			return pgtest.CutBefore
		case strings.Contains(sql, "pg_control_system"): // the last statement of a sign-in
			signedIn.Add(1)
		}
		return pgtest.Pass
	})
	c = put(t, s, fmt.Sprintf("127.0.0.1:%d", p.Port), "", "paced", "password", "")
	start = time.Now()
	for range 30 {
		if _, err := replica(t, c); !sqlstate.Lost(err) {
			t.Fatal(err)
		}
	}
	wantFewSignIns(t, int(signedIn.Load()), start)
}

// wantFewSignIns allows a burst, and ten sign-ins a second since the start.
func wantFewSignIns(t testing.TB, got int, start time.Time) {
	t.Helper()
	if most := 18 + 1 + int(time.Since(start)/(100*time.Millisecond)); got > most {
		t.Errorf("%d sign-ins, and not at most %d", got, most)
	}
}
