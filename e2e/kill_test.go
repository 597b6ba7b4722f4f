package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settled is how long anything may take until it is as it should be. The audit log takes longest to know the outcome of
// what a kill cut off: the limit of a change, the settler's margin and its pause come to 40 s.
const settled = 90 * time.Second

// TestKill kills the program under load, starts it again and holds it to what it had acknowledged.
func TestKill(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cluster := s.cluster()

	// Workers create users until they get no answer.
	const workers = 4
	var mu sync.Mutex
	var acknowledged []string
	var load sync.WaitGroup
	enough := make(chan struct{})
	for w := range workers {
		api := s.sdk(t, s.env["IONOS_API_URL"], "IONOS_TOKEN")
		load.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("user %d-%d", w, i)
				_, resp, err := api.UsersApi.UsersPost(context.Background(), cluster).User(newUser(name, "password of "+name)).Execute()
				if err != nil {
					if resp != nil && resp.Response != nil {
						t.Errorf("create %s: %v", name, err)
					}
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, name)
				if len(acknowledged) == 40 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(patience):
		t.Error("the load is too slow to be killed")
	}
	// One change that is certain to be cut off: it waits for a session that has made the same role and does not commit.
	other, killed := make(chan error, 1), s
	go func() {
		_, err := killed.psql(killed.env["PGUSER"], killed.env["PGPASSWORD"], "postgres",
			`BEGIN; CREATE ROLE blocked; SELECT pg_sleep(60)`)
		other <- err
	}()
	s.waitFor(t, "postgres", `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`, "1")
	api := s.sdk(t, s.env["IONOS_API_URL"], "IONOS_TOKEN")
	load.Go(func() {
		_, resp, err := api.UsersApi.UsersPost(context.Background(),
			cluster).User(newUser("blocked", "password of blocked")).Execute()
		if err == nil || resp != nil && resp.Response != nil {
			t.Errorf("create blocked: %v, want no answer", err)
		}
	})
	s.waitFor(t, "rolecall", `SELECT count(*) FROM rolecall.audit WHERE target = 'blocked'`, "1")
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	load.Wait()

	began := time.Now()
	s, err := start(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stopFor(t) })
	if s.cluster() != cluster {
		t.Errorf("the cluster is %s, was %s", s.cluster(), cluster)
	}
	const unsettled = `SELECT count(*) FROM rolecall.audit a WHERE phase = 'attempt'
		AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')`
	open := s.query(t, "rolecall", unsettled)
	fmt.Printf("kill -9: %d users acknowledged, %s attempts cut off; ready again after %s\n", len(acknowledged), open,
		time.Since(began).Round(time.Millisecond))

	for _, name := range acknowledged {
		s.login(t, name, "password of "+name)
	}
	if err := soon(t, other); err == nil {
		t.Error("the session that was in the way has committed")
	}
	api = s.sdk(t, s.env["IONOS_API_URL"], "IONOS_USERNAME", "IONOS_PASSWORD")
	after := newUser("after", "password of after")
	if _, resp, err := api.UsersApi.UsersPost(t.Context(), cluster).User(after).Execute(); err != nil ||
		resp.StatusCode != http.StatusOK {
		t.Errorf("create a user after the kill: %v", err)
	}

	s.waitFor(t, "rolecall", unsettled, "0")
	fmt.Printf("idle: %.1f MB resident, of which %.1f MB are not the program's file\n",
		float64(s.memory(t, "VmRSS"))/1024, float64(s.memory(t, "RssAnon"))/1024)

	done := map[string]bool{}
	for name := range strings.Lines(s.query(t, "rolecall",
		`SELECT target FROM rolecall.audit WHERE phase = 'outcome' AND outcome = 'done' AND action = 'user.create'`)) {
		done[strings.TrimSpace(name)] = true
	}
	for _, name := range acknowledged {
		if !done[name] {
			t.Errorf("%s was acknowledged, but is not done in the audit log", name)
		}
	}
	roles := map[string]bool{}
	for name := range strings.Lines(s.query(t, "postgres",
		`SELECT rolname FROM pg_roles WHERE rolcanlogin AND (rolname LIKE 'user %' OR rolname IN ('after', 'blocked'))`)) {
		name = strings.TrimSpace(name)
		roles[name] = true
		if !done[name] {
			t.Errorf("the role %s exists, but is not done in the audit log", name)
		}
	}
	for name := range done {
		if !roles[name] {
			t.Errorf("%s is done in the audit log, but there is no such role", name)
		}
	}
	// PostgreSQL has the whole change, and carries it out if the session in the way ends before its own.
	if outcome := s.query(t, "rolecall", `SELECT outcome FROM rolecall.audit
		WHERE phase = 'outcome' AND target = 'blocked'`); outcome != "not_done" && !(outcome == "done" && roles["blocked"]) {
		t.Errorf("the outcome of the attempt that was cut off is %q", outcome)
	}
}

// waitFor waits until a query has an answer.
func (s *server) waitFor(t *testing.T, database, sql, want string) {
	t.Helper()
	conn := s.connect(t, database)
	defer conn.Close(context.Background())
	for end := time.Now().Add(settled); ; time.Sleep(50 * time.Millisecond) {
		got := rows(t, conn, sql)
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s, want %s\n%s", sql, got, want, s.log())
		}
	}
}
