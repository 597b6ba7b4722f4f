package dbaas_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
)

// ends are the oldest and the newest major that Rolecall works with.
func ends(t *testing.T, f func(t *testing.T, major int)) {
	pgtest.EachMajor(t, []int{pgtest.Majors[0], pgtest.Majors[len(pgtest.Majors)-1]}, f)
}

// behind is a server of the dialect on a service of its own, whose cluster is pg, registered with the addresses of some
// proxies.
func behind(t testing.TB, pg *pgtest.Cluster, proxies ...*pgtest.Proxy) *fixture {
	t.Helper()
	s := ownService(t)
	s.Clusters.MaximumWaits.Failover = 12 * time.Second // on a busy machine a promotion takes seconds
	var hosts []string
	for _, p := range proxies {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", p.Port))
	}
	pg.Exec(t, `CREATE ROLE failover_admin LOGIN CREATEROLE PASSWORD 'administrator';
		GRANT pg_signal_backend TO failover_admin`)
	c := &cluster.Cluster{
		ID:          uuid.New(),
		DisplayName: "failing",
		Location:    "de/fra",
		Connection: cluster.Connection{
			URL:      "postgres://failover_admin@" + strings.Join(hosts, ",") + "/postgres",
			TLS:      cluster.TLS{Mode: "disable"},
			Password: "administrator",
		},
		SystemIdentifier: pgtest.Value[string](t, pg, `SELECT system_identifier::text FROM pg_control_system()`),
	}
	if err := s.Clusters.Ensure(t.Context(), c, audit.Entry{AccountGUID: "test", AccountName: "test"}); err != nil {
		t.Fatal(err)
	}
	s.ClusterID = c.ID.String()
	return fixtureOn(t, s, 10_000)
}

// admin is who may do all, for what this dialect cannot say.
var admin = &account.Principal{GUID: "admin", Username: "admin", Scopes: account.AdminScopes}

// together sends eight requests for the user at once, so that the pool is full.
func (f *fixture) together(t testing.TB, name string) {
	t.Helper()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { f.do(t, "GET", f.users(name), "") })
	}
	wg.Wait()
}

// unavailable fails the test unless the answer tells in words to come again, and nothing of SQLSTATEs.
func (a answer) unavailable(t testing.TB, part string) {
	t.Helper()
	message := a.refused(t, "paas-unavailable-1")
	if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
	if !strings.Contains(message, part) || strings.Contains(message, "25006") || strings.Contains(message, "read-only") {
		t.Errorf("the message is %q, want %q in it", message, part)
	}
}

// recovers sends changes until one is done, within a few seconds on an idle machine, and looks for it at the new primary.
func (f *fixture) recovers(t testing.TB, name, password string, primary *pgtest.Cluster) {
	t.Helper()
	start := time.Now()
	for {
		a := f.do(t, "PATCH", f.users(name), passwordBody(password))
		if a.Status == http.StatusOK {
			break
		}
		a.unavailable(t, "")
		if time.Since(start) > time.Minute {
			t.Fatalf("no primary after %s: %s", time.Since(start), a.Body)
		}
	}
	t.Logf("the primary was found after %s", time.Since(start).Round(time.Millisecond))
	if err := primary.Login(name, password); err != nil {
		t.Errorf("at the new primary: %v", err)
	}
	if a := f.do(t, "GET", f.users(name), ""); a.Status != http.StatusOK {
		t.Errorf("read again: %d %s", a.Status, a.Body)
	}
}

// waitUntil waits until sql selects true.
func waitUntil(t testing.TB, pg *pgtest.Cluster, sql string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !pgtest.Value[bool](t, pg, sql); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never true: %s", sql)
		}
	}
}

func TestFailover(t *testing.T) {
	ends(t, func(t *testing.T, major int) {
		one := pgtest.NewMajor(t, major, nil)
		first, second := pgtest.NewProxy(t, one), pgtest.NewProxy(t, one)
		f := behind(t, one, first, second)
		two := one.Standby(t, nil)
		second.Point(two)
		f.create(t, "moving")
		two.WaitForReplay(t, one)

		// A switch-over: the old primary comes back as a standby, under the first address.
		f.together(t, "moving")
		one.Stop(t)
		two.Promote(t)
		one.Follow(t, two)
		f.recovers(t, "moving", "after-a-switch-over", two)
		f.create(t, "made-at-two")
		if a := f.do(t, "GET", f.users("made-at-two"), ""); a.Status != http.StatusOK {
			t.Errorf("a read of what was just made: %d %s", a.Status, a.Body)
		}

		// A crash, found out about by a pool full of dead connections; the promotion comes while a request waits.
		one.WaitForReplay(t, two)
		f.together(t, "moving")
		two.Kill(t)
		waiting := make(chan answer)
		go func() { waiting <- f.do(t, "PATCH", f.users("moving"), passwordBody("during-a-failover")) }()
		one.Promote(t)
		if a := <-waiting; a.Status != http.StatusOK || one.Login("moving", "during-a-failover") != nil {
			t.Errorf("the request that waited for the failover: %d %s", a.Status, a.Body)
		}
		f.recovers(t, "moving", "after-a-crash", one)

		// The primary takes no more writes, though its sessions live: first there is no other, then there is.
		three := one.Standby(t, nil)
		second.Point(three)
		f.together(t, "moving")
		one.Set(t, "default_transaction_read_only", "on")
		var wg sync.WaitGroup
		f.want(t, 200, "GET", f.users("moving"), "")
		for method, body := range map[string]string{"PATCH": passwordBody("on-a-fenced-one"), "DELETE": ""} {
			wg.Go(func() {
				f.do(t, method, f.users("moving"), body).unavailable(t, "The cluster is set to read only")
			})
		}
		wg.Wait()
		go func() { waiting <- f.do(t, "PATCH", f.users("moving"), passwordBody("after-fencing")) }()
		three.Promote(t)
		if a := <-waiting; a.Status != http.StatusOK || three.Login("moving", "after-fencing") != nil {
			t.Errorf("the request that waited for the promotion: %d %s", a.Status, a.Body)
		}
		f.create(t, "made-at-three")

		// The primary hangs: it takes connections, and does not say a word.
		four := three.Standby(t, nil)
		first.Point(four)
		f.together(t, "moving")
		four.WaitForReplay(t, three)
		// What was used a moment ago is not asked whether it lives.
		waitUntil(t, three, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'failover_admin' AND state_change `+
			`> clock_timestamp() - interval '1.1 s')`)
		second.Hang()
		four.Promote(t)
		f.recovers(t, "moving", "after-a-hang", four)
	})
}

// A primary whose provider has turned writes off is read as before. Changes are refused without a Retry-After; the state of
// the cluster says why.
func TestReadOnlyPrimary(t *testing.T) {
	ends(t, func(t *testing.T, major int) {
		pg := pgtest.NewMajor(t, major, nil)
		p := pgtest.NewProxy(t, pg)
		f := behind(t, pg, p)
		f.create(t, "kept")
		for _, sql := range []string{`ALTER SYSTEM SET default_transaction_read_only = on`,
			`ALTER ROLE failover_admin SET default_transaction_read_only = on`,
			`ALTER DATABASE postgres SET default_transaction_read_only = on`} {
			conn := pg.Connect(t, pg.User, pg.Password, "template1")
			for _, sql := range []string{sql, `SELECT pg_reload_conf()`,
				`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'failover_admin'`} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			waitUntil(t, pg, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'failover_admin')`)
			for _, path := range []string{f.users(), f.users("kept"), "/clusters/" + f.ClusterID + "/databases"} {
				f.want(t, 200, "GET", path, "")
			}
			for _, request := range [][3]string{{"POST", f.users(), userBody("new", password)},
				{"PATCH", f.users("kept"), passwordBody(password)}, {"DELETE", f.users("kept"), ""},
				{"DELETE", "/clusters/" + f.ClusterID + "/databases/none", ""}} {
				a := f.do(t, request[0], request[1], request[2])
				if message := a.refused(t, "paas-unavailable-1"); a.Header.Get("Retry-After") != "" ||
					!strings.Contains(message, "The cluster is set to read only: default_transaction_read_only is on") {
					t.Errorf("%s: %s, Retry-After %q", request[0], message, a.Header.Get("Retry-After"))
				}
			}
			_, err := f.Users.ProbeCluster(t.Context(), admin, f.ClusterID)
			c, getErr := f.Clusters.Get(f.ClusterID)
			if getErr != nil || err == nil || c.LastHealth().Error != fault.Of(err).Message {
				t.Errorf("%s: the probe says %v, the state %+v", sql, err, c.LastHealth())
			}
			undo := strings.NewReplacer("SET", "RESET", " = on", "").Replace(sql)
			for _, sql := range []string{`SET default_transaction_read_only = off`, undo, `SELECT pg_reload_conf()`} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			waitUntil(t, pg, `SELECT current_setting('default_transaction_read_only') = 'off'`)
			f.want(t, 200, "PATCH", f.users("kept"), passwordBody("writes-again"))
		}
	})
}

// A cluster in whose place another one answers is left alone until an admin says that this is meant.
func TestAnotherClusterInItsPlace(t *testing.T) {
	t.Parallel()
	one, other := pgtest.New(t, nil), pgtest.Other(t)
	p := pgtest.NewProxy(t, one)
	f := behind(t, one, p)
	f.create(t, "placed")
	other.Exec(t, `CREATE ROLE failover_admin LOGIN CREATEROLE PASSWORD 'administrator'; CREATE ROLE placed LOGIN ADMIN `+
		`failover_admin`)
	const identifier = `SELECT system_identifier::text FROM pg_control_system()`
	was, is := pgtest.Value[string](t, one, identifier), pgtest.Value[string](t, other, identifier)
	move := func(to *pgtest.Cluster) {
		t.Helper()
		p.Point(to)
		for _, pg := range []*pgtest.Cluster{one, other} {
			pg.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'failover_admin'`)
		}
	}
	state := func(want string) {
		t.Helper()
		var c clusterResource
		f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "").Into(t, &c)
		if c.Metadata.State != want {
			t.Errorf("the state is %s, want %s", c.Metadata.State, want)
		}
	}
	before := pgtest.Value[string](t, other, `SELECT json_agg(a ORDER BY oid)::text FROM pg_authid a`)
	move(other)
	for _, request := range [][3]string{
		{"GET", f.users(), ""}, {"GET", f.users("placed"), ""}, {"POST", f.users(), userBody("new", password)},
		{"PATCH", f.users("placed"), passwordBody(password)}, {"DELETE", f.users("placed"), ""},
		{"GET", "/clusters/" + f.ClusterID + "/databases", ""},
	} {
		f.do(t, request[0], request[1], request[2]).unavailable(t,
			"Another PostgreSQL cluster answers in the place of this one; an admin has to look at it.")
	}
	if pgtest.Value[string](t, other, `SELECT json_agg(a ORDER BY oid)::text FROM pg_authid a`) != before {
		t.Error("something was done in the other cluster")
	}
	if n := strings.Count(f.Log.String(), "nothing is done in it\" cluster="+f.ClusterID); n != 1 {
		t.Errorf("it was logged %d times", n)
	}

	// The right one is back, and nobody has to say anything.
	move(one)
	f.want(t, 200, "PATCH", f.users("placed"), passwordBody("back-again"))

	move(other)
	if _, err := f.Users.ProbeCluster(t.Context(), admin, f.ClusterID); !fault.Is(err, fault.Invalid) {
		t.Errorf("a probe: %v", err)
	}
	state("FAILED")
	_, err := f.DB.Pool.Exec(t.Context(), `
		INSERT INTO audit (attempt, phase, action, account_guid, account_name, cluster_id, target, settle_after)
		VALUES ($1, 'attempt', $2, 'g', 'g', $3, 'cut-off', now())`, uuid.Must(uuid.NewV7()), audit.CreateUser, f.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	confirm := func(identifier string) error {
		_, err = f.Users.UpdateCluster(t.Context(), admin, f.ClusterID, nil, cluster.Settings{},
			&cluster.ConnectionChange{SystemIdentifier: &identifier})
		return err
	}
	if err := confirm(was); !fault.Is(err, fault.Invalid) {
		t.Errorf("confirmed as the old one: %v", err)
	}
	if _, err := f.Users.RotateCredential(t.Context(), admin, f.ClusterID); !fault.Is(err, fault.Unavailable) ||
		other.Login("failover_admin", "administrator") != nil {
		t.Errorf("a rotation: %v", err)
	}
	if err := confirm(is); !fault.Is(err, fault.InUse) { // nobody knows which password the registered cluster has by now
		t.Errorf("with a rotation that was cut off: %v", err)
	}
	_, err = f.Users.UpdateCluster(t.Context(), admin, f.ClusterID, nil, cluster.Settings{},
		&cluster.ConnectionChange{SystemIdentifier: &is, Password: new(secret.Text("administrator"))})
	if err != nil {
		t.Fatal(err)
	}
	state("AVAILABLE")
	f.want(t, 200, "PATCH", f.users("placed"), passwordBody("in-the-new-one"))
	if err := other.Login("placed", "in-the-new-one"); err != nil {
		t.Error(err)
	}
	// What was cut off in the old one cannot be found out about in the new one.
	if err := f.Users.SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows := f.AuditRows(t, "cut-off"); len(rows) != 2 || rows[1].Outcome != "unknown" ||
		!strings.Contains(rows[1].Detail, "another cluster has taken the place") {
		t.Errorf("settled as %+v", rows)
	}

	move(one)
	f.do(t, "PATCH", f.users("placed"), passwordBody("in-the-old-one")).unavailable(t,
		"Another PostgreSQL cluster answers in the place of this one")
}

// A COMMIT whose answer never came is looked for in the cluster, and done again where it is not found.
func TestConnectionLostAtCommit(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	p := pgtest.NewProxy(t, pg)
	f := behind(t, pg, p)
	for i, verdict := range []pgtest.Verdict{pgtest.CutBefore, pgtest.CutAfter} {
		name := fmt.Sprintf("cut-%d", i)
		for _, request := range [][2]string{{"POST", userBody(name, password)}, {"PATCH", passwordBody("another-password")}} {
			var once sync.Once
			p.Watch(func(sql string, _ int) (do pgtest.Verdict) {
				if strings.EqualFold(sql, "commit") {
					once.Do(func() { do = verdict })
				}
				return do
			})
			path := f.users(name)
			if request[0] == "POST" {
				path = f.users()
			}
			f.want(t, 200, request[0], path, request[1])
		}
		if err := pg.Login(name, "another-password"); err != nil {
			t.Error(err)
		}
		var recorded []string
		for _, row := range f.AuditRows(t, name) {
			recorded = append(recorded, row.Phase+row.Outcome)
		}
		if !slices.Equal(recorded, []string{"attempt", "outcomedone", "attempt", "outcomedone"}) {
			t.Errorf("recorded %q", recorded)
		}
		if n := strings.Count(pgtest.Value[string](t, pg,
			`SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1`, name), `"revision":2`); n != 1 {
			t.Errorf("%s was changed another number of times than twice", name)
		}
	}
}

// A COMMIT that waits for a synchronous standby which is gone may hang for ever: what came of it is not known when the
// request ends, and found out later. With synchronous_commit = local nobody waits.
func TestSynchronousStandbyGone(t *testing.T) {
	ends(t, func(t *testing.T, major int) {
		pg := pgtest.NewMajor(t, major, nil)
		f := behind(t, pg, pgtest.NewProxy(t, pg))
		standby := pg.Standby(t, nil)
		pg.Set(t, "synchronous_standby_names", pgtest.StandbyName)
		waitUntil(t, pg, `SELECT sync_state = 'sync' FROM pg_stat_replication`)
		f.create(t, "synchronous")
		f.create(t, "terminated")
		standby.Kill(t)

		// One waits until its time is over. The session of the other is ended, and so its wait: what it has done can be seen
		// then, but the standby does not have it.
		var terminated sync.WaitGroup
		terminated.Go(func() {
			f.do(t, "PATCH", f.users("terminated"), passwordBody("nobody-knows")).unavailable(t,
				`Read "terminated" to see whether it was done`)
		})
		waitUntil(t, pg, `SELECT count(pg_terminate_backend(pid, 5000)) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
		waitUntil(t, pg, `SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%COMMIT%'`)
		if err := pg.Login("terminated", "nobody-knows"); err != nil {
			t.Errorf("it cannot be seen: %v", err)
		}
		f.do(t, "PATCH", f.users("synchronous"), passwordBody("nobody-knows")).unavailable(t,
			`Read "synchronous" to see whether it was done. No standby is connected`)
		terminated.Wait()
		nobodyKnows := func() {
			t.Helper()
			for _, user := range []string{"synchronous", "terminated"} {
				rows := f.AuditRows(t, user)
				if last := rows[len(rows)-1]; last.Phase != "attempt" {
					t.Errorf("recorded before anybody can know: %+v", rows)
				}
			}
		}
		nobodyKnows()
		// It is due in a while; the log itself lets nobody change a row.
		_, err := f.DB.Pool.Exec(t.Context(), `
			ALTER TABLE audit DISABLE TRIGGER audit_append_only;
			UPDATE audit SET settle_after = now() WHERE phase = 'attempt';
			ALTER TABLE audit ENABLE TRIGGER audit_append_only`)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Users.SettleOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		nobodyKnows()
		standby.Start(t)
		waitUntil(t, pg, `SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'`)
		if err := f.Users.SettleOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"synchronous", "terminated"} {
			rows := f.AuditRows(t, user)
			if last := rows[len(rows)-1]; last.Outcome != "done" || !strings.Contains(last.Detail, "settled") {
				t.Errorf("settled as %+v", last)
			}
			if err := pg.Login(user, "nobody-knows"); err != nil {
				t.Error(err)
			}
		}

		standby.Kill(t)
		if _, err := f.Users.UpdateCluster(t.Context(), admin, f.ClusterID, nil, cluster.Settings{SynchronousCommit: new("local")},
			nil); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		f.want(t, 200, "PATCH", f.users("synchronous"), passwordBody("done-at-once"))
		if took := time.Since(start); took > 14*time.Second { // it would wait for 15 s
			t.Errorf("with synchronous_commit = local it took %s", took)
		}
	})
}
