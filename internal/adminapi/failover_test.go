package adminapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
)

// show reads a cluster.
func (f *fixture) show(t testing.TB, path string) (c clusterResource) {
	t.Helper()
	f.want(t, 200, "GET", path, "").Into(t, &c)
	return c
}

func TestAnotherClusterInItsPlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one, other := pgtest.New(t, nil), pgtest.Other(t)
	p := pgtest.NewProxy(t, one)
	role(t, one, "adm", "CREATEROLE")
	role(t, other, "adm", "CREATEROLE")
	var c clusterResource
	f.want(t, 201, "POST", "/clusters", connection("placed", fmt.Sprintf("postgres://adm@127.0.0.1:%d/postgres", p.Port),
		rolePassword, "")).Into(t, &c)
	const identifier = `SELECT system_identifier::text FROM pg_control_system()`
	was, is := pgtest.Value[string](t, one, identifier), pgtest.Value[string](t, other, identifier)
	if c.Connection.SystemIdentifier != was {
		t.Errorf("the system identifier is %s, want %s", c.Connection.SystemIdentifier, was)
	}
	f.Account(t, "viewer", []string{"cloud_controller.read"}, map[string]string{"team": "placed"})
	path := "/clusters/" + c.ID
	f.want(t, 200, "PATCH", path, `{"access":{"view":["team=placed"]}}`)

	p.Point(other)
	f.do(t, "POST", path+"/probe", "").refused(t, 422, "its system identifier is "+is+", not "+was,
		"with the system identifier "+is)
	if c := f.show(t, path); c.State != "STOPPED" || c.Reachable || c.LastError == nil ||
		!strings.Contains(*c.LastError, is) || c.Connection.SystemIdentifier != was {
		t.Errorf("for an admin it is %+v", c)
	}
	var seen clusterResource
	f.as(t, "viewer", "GET", path, "").Into(t, &seen)
	if seen.State != "STOPPED" || seen.LastError == nil || strings.Contains(*seen.LastError, is) || seen.Connection != nil {
		t.Errorf("for others it is %+v", seen)
	}
	if a := f.do(t, "GET", path+"/users/adm", ""); strings.Contains(a.Body, is) || strings.Contains(a.Body, was) {
		t.Errorf("everybody is told %s", a.Body)
	} else {
		a.refused(t, 503, "Another PostgreSQL cluster answers")
	}
	f.do(t, "PATCH", path, `{"connection":{"systemIdentifier":""}}`).refused(t, 422, "connection.systemIdentifier is empty")
	f.do(t, "PATCH", path, `{"connection":{"systemIdentifier":"1"}}`).refused(t, 422, "its system identifier is "+is+", not 1")
	f.as(t, "viewer", "PATCH", path, `{"connection":{"systemIdentifier":"`+is+`"}}`).refused(t, 403)
	f.do(t, "POST", "/clusters", connection("x", "postgres://a@b/c", "x", `,"connection":{"systemIdentifier":"1"}`)).
		refused(t, 400)

	f.want(t, 200, "PATCH", path, `{"connection":{"systemIdentifier":"`+is+`"}}`).Into(t, &c)
	if c.State != "AVAILABLE" || c.Connection.SystemIdentifier != is || c.LastError != nil {
		t.Errorf("confirmed it is %+v", c)
	}
	f.want(t, 200, "GET", path+"/users/adm", "")
	f.want(t, 200, "POST", path+"/probe", "")
	var recorded bool
	for _, row := range f.AuditRows(t, "placed") {
		recorded = recorded || row.Action == audit.UpdateCluster &&
			strings.Contains(row.Detail, `"systemIdentifierBefore": "`+was+`"`) &&
			strings.Contains(row.Detail, `"systemIdentifier": "`+is+`"`)
	}
	if !recorded {
		t.Error("it was not recorded")
	}
}

func TestSynchronousCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	c := f.register(t, "commits", pg, `,"synchronousCommit":"remote_write"`)
	path := "/clusters/" + c.ID
	is := func(want, setting string) {
		t.Helper()
		a := f.want(t, 200, "GET", path, "")
		if !strings.Contains(a.Body, `"synchronousCommit":`+want) {
			t.Errorf("it is %s, want %s", a.Body, want)
		}
		registered, err := f.Clusters.Get(c.ID)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := registered.Pool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := pool.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&got); err != nil || got != setting {
			t.Errorf("the sessions have %s, want %s; %v", got, setting, err)
		}
	}
	is(`"remote_write"`, "remote_write")
	f.want(t, 200, "PATCH", path, `{"location":"de/txl"}`)
	is(`"remote_write"`, "remote_write")
	if a := f.want(t, 200, "PATCH", path, `{"synchronousCommit":"local"}`); a.Header.Get("ETag") != `"3"` {
		t.Errorf("the tag is %s", a.Header.Get("ETag"))
	}
	is(`"local"`, "local")
	f.want(t, 200, "POST", path+"/rotate-credential", "")
	f.want(t, 200, "PATCH", path, `{"connection":{"password":"`+f.credential(t, c.ID)+`"}}`)
	is(`"local"`, "local")
	f.want(t, 200, "PATCH", path, `{"synchronousCommit":null}`)
	is(`null`, "on")
	for _, value := range []string{`"off"`, `""`, `"LOCAL"`, `true`, `[]`} {
		f.do(t, "PATCH", path, `{"synchronousCommit":`+value+`}`).refused(t, 422, "synchronousCommit")
	}
	if rows := f.AuditRows(t, "commits"); !strings.Contains(rows[0].Detail, `"synchronousCommit": "remote_write"`) {
		t.Errorf("recorded %+v", rows)
	}
}

// A standby that is connected, and does not confirm what it was sent, is shown while a change waits for it.
func TestChangeWaitsForAStandby(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	standby := pg.Standby(t, nil)
	c := f.register(t, "waits", pg, `,"synchronousCommit":"remote_apply"`)
	path := "/clusters/" + c.ID
	p := &account.Principal{GUID: "me", Scopes: account.AdminScopes}
	if _, _, err := f.Users.CreateUser(t.Context(), p, c.ID, "waits", "a-good-password"); err != nil {
		t.Fatal(err)
	}
	pg.Set(t, "synchronous_standby_names", pgtest.StandbyName)
	f.Clusters.CheckEvery = 50 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Clusters.Watch(ctx) })
	defer running.Wait()
	defer stop()
	until := func(problem bool, what string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			got := f.show(t, path)
			all := strings.Join(got.Capabilities.Problems, " ")
			if got.State == "AVAILABLE" && strings.Contains(all, "waits for a synchronous standby (wait_event SyncRep)") == problem {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s, and it is %s, with %q", what, got.State, all)
			}
		}
	}
	setPassword := func() error {
		_, _, err := f.Users.SetPassword(t.Context(), p, c.ID, "waits", "another-password", nil)
		return err
	}
	standby.Exec(t, `SELECT pg_wal_replay_pause()`)
	changed := make(chan error, 1)
	go func() { changed <- setPassword() }()
	until(true, "a change waits")
	// The wait is ended, but not its cause.
	for ended := false; !ended; ended = pgtest.Value[bool](t, pg, `SELECT coalesce(bool_and(pg_cancel_backend(pid)), false)
		FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%COMMIT%'`) {
	}
	if err := <-changed; err != nil {
		t.Error(err)
	}
	registered, err := f.Clusters.Get(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for last := registered.LastHealth(); registered.LastHealth() == last; time.Sleep(10 * time.Millisecond) {
		}
		until(true, "the next change will wait")
	}
	if err := setPassword(); err == nil || !strings.Contains(fault.Of(err).Message,
		"Each change waits for a synchronous standby") {
		t.Errorf("not confirmed: %v", err)
	}
	standby.Exec(t, `SELECT pg_wal_replay_resume()`)
	until(false, "no change waits")
}

// A cluster that cannot be read is out of service until an admin mends it; the others stay, and are kept up to date.
func TestUnreadableCluster(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	c := f.register(t, "unreadable", pg, `,"access":{"manage":["team=a"]}`)
	path := "/clusters/" + c.ID
	url := c.Connection.URL
	if log := f.Log.String(); strings.Contains(log, "out of service") {
		t.Errorf("logged %s", log)
	}
	for i, test := range []struct{ broken, mend, why string }{
		{`credential = '\xdead'`, `{"connection":{"password":"` + rolePassword + `"}}`, "credential"},
		{`pending = '\xdead'`, `{"connection":{"password":"` + rolePassword + `"}}`, "pending"},
		{`url = 'mysql://x'`, `{"connection":{"url":"` + url + `","password":"` + rolePassword + `"}}`, "URL"},
		{`tls = '{"mode":"require","ca":"x"}'`, `{"connection":{"tls":{"mode":"disable"},"password":"` + rolePassword + `"}}`,
			"tls.ca"},
		{`manage = '{!team}'`, `{"access":{"manage":["team=a"]}}`, "negatives alone"},
	} {
		if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE clusters SET `+test.broken+` WHERE id = $1`, c.ID); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.Clusters.Reload(t.Context()); err != nil {
				t.Fatalf("%s: %v", test.broken, err)
			}
		}
		if got := f.show(t, path); got.State != "STOPPED" || got.Reachable || got.LastError == nil ||
			!strings.Contains(*got.LastError, "cannot be read") || !strings.Contains(*got.LastError, test.why) {
			t.Errorf("%s: it is %+v, %s", test.broken, got, *got.LastError)
		}
		for _, request := range [][2]string{{"GET", "/users/x"}, {"POST", "/probe"}, {"POST", "/rotate-credential"},
			{"GET", "/pgbouncer/userlist"}} {
			f.do(t, request[0], path+request[1], "").refused(t, 503, `"unreadable" cannot be read`)
		}
		if n := strings.Count(f.Log.String(), "a cluster is out of service"); n != i+1 {
			t.Errorf("%s: logged %d times, want %d", test.broken, n, i+1)
		}
		if _, err := cluster.Open(t.Context(), f.DB, slog.New(slog.DiscardHandler)); err == nil ||
			!strings.Contains(err.Error(), `"unreadable" cannot be read`) {
			t.Errorf("%s: a start: %v", test.broken, err)
		}
		// The others are kept up to date.
		name := fmt.Sprintf("main-%d", i)
		f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"displayName":"`+name+`"}`)
		if got := f.show(t, "/clusters/"+f.ClusterID); got.DisplayName != name || got.State != "AVAILABLE" {
			t.Errorf("%s: another one is %+v", test.broken, got)
		}
		f.do(t, "PATCH", path, `{"connection":{"tls":{"mode":"disable"}}}`).refused(t, 503, "cannot be read")
		f.want(t, 200, "PATCH", path, test.mend)
		f.want(t, 200, "POST", path+"/probe", "")
		if got := f.show(t, path); got.State != "AVAILABLE" || !slices.Equal(got.Access.Manage, []string{"team=a"}) {
			t.Errorf("%s: mended, it is %+v", test.broken, got)
		}
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE clusters SET credential = '\xdead' WHERE id = $1`, c.ID); err != nil {
		t.Fatal(err)
	}
	f.want(t, 204, "DELETE", path, "")
	f.do(t, "GET", path, "").refused(t, 404)
	f.hidesSecrets(t, rolePassword)
}

// Two clusters that are moved to one place at once, after each was found not to be the other.
func TestTwoMoveToOnePlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	place := pgtest.New(t, nil)
	role(t, place, "adm", "CREATEROLE")
	var paths []string
	for _, name := range []string{"left", "right"} {
		paths = append(paths, "/clusters/"+f.register(t, name, pgtest.New(t, nil), "").ID)
	}
	// What keeps one of them waiting is held for as long as both take to get there.
	const waiting = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1633903987
		AND database = (SELECT oid FROM pg_database WHERE datname = $1)`
	tx, err := f.DB.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(x'706c61636573'::bigint)`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	statuses := make([]int, 2)
	for i, path := range paths {
		wg.Go(func() {
			statuses[i] = f.do(t, "PATCH", path, fmt.Sprintf(`{"connection":{"url":"postgres://adm@127.0.0.1:%d/postgres",`+
				`"password":%q}}`, place.Port, rolePassword)).Status
		})
	}
	for end := time.Now().Add(30 * time.Second); pgtest.Value[int](t, f.PG, waiting,
		f.DB.Identity.Database) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("they do not wait for each other")
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{200, 409}) {
		t.Errorf("two moves to one place: %v", statuses)
	}
}
