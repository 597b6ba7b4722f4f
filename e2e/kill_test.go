package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// settled is how long the audit log may take to know the outcome of what a kill cut off: the limit of a change, the
// settler's margin and its pause come to 40 s.
const settled = 90 * time.Second

// TestKill kills the program under load, starts it again and holds it to what it had acknowledged.
func TestKill(t *testing.T) {
	t.Parallel()
	s, err := start(newFolder(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("%v\n%s", err, s.log())
		}
	})
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
				if len(acknowledged) == 100 {
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
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	load.Wait()

	began := time.Now()
	if s, err = start(s.dir); err != nil {
		t.Fatal(err)
	}
	if s.cluster() != cluster {
		t.Errorf("the cluster is %s, was %s", s.cluster(), cluster)
	}
	const unsettled = `SELECT count(*) FROM rolecall.audit a WHERE phase = 'attempt'
		AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')`
	open := s.query(t, "rolecall", unsettled)
	fmt.Printf("kill -9: %d users acknowledged, %s attempts cut off; ready again after %s\n", len(acknowledged), open, time.Since(began).Round(time.Millisecond))

	for _, name := range acknowledged {
		s.login(t, name, "password of "+name)
	}
	api := s.sdk(t, s.env["IONOS_API_URL"], "IONOS_USERNAME", "IONOS_PASSWORD")
	if _, resp, err := api.UsersApi.UsersPost(t.Context(), cluster).User(newUser("after", "password of after")).Execute(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("create a user after the kill: %v", err)
	}

	for end := time.Now().Add(settled); open != "0"; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("%s attempts have no outcome\n%s", open, s.log())
		}
		open = s.query(t, "rolecall", unsettled)
	}
	fmt.Printf("idle: %.1f MB resident, of which %.1f MB are not the program's file\n",
		float64(s.memory(t, "VmRSS"))/1024, float64(s.memory(t, "RssAnon"))/1024)

	done := map[string]bool{}
	for name := range strings.Lines(s.query(t, "rolecall", `SELECT target FROM rolecall.audit WHERE phase = 'outcome' AND outcome = 'done' AND action = 'user.create'`)) {
		done[strings.TrimSpace(name)] = true
	}
	for _, name := range acknowledged {
		if !done[name] {
			t.Errorf("%s was acknowledged, but is not done in the audit log", name)
		}
	}
	roles := map[string]bool{}
	for name := range strings.Lines(s.query(t, "postgres", `SELECT rolname FROM pg_roles WHERE rolcanlogin AND (rolname LIKE 'user %' OR rolname = 'after')`)) {
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
	if n := s.query(t, "rolecall", `SELECT count(*) FROM rolecall.audit WHERE phase = 'attempt' AND target = ''`); n != "0" {
		t.Errorf("%s attempts without a target", n)
	}
}

// TestRestart measures how soon a server is ready. It is not asserted: it depends on the machine.
func TestRestart(t *testing.T) {
	dir := newFolder(t)
	for _, which := range []string{"first", "second"} {
		began := time.Now()
		s, err := start(dir)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s start: ready after %s\n", which, time.Since(began).Round(time.Millisecond))
		if err := s.stop(); err != nil {
			t.Fatalf("%v\n%s", err, s.log())
		}
	}
}

// newFolder names a data folder that PostgreSQL's OS user can reach.
func newFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rolecall-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}
