package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// TestCredentialKilledAtAnyInstant kills the program after a statement of a rotation, and starts it again. The password
// that is current then logs in, and in the end there is one role for each credential.
func TestCredentialKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	step := 3
	if everyInstant || moreInstants {
		step = 1
	}
	w := newWorld(t, &counts{})
	w.want(t, nil, 200, createUser(w, "shop", passwordBefore))
	made := 0
	for at := 1; ; at += step {
		if made > 0 {
			w.restart(t)
		}
		path := fmt.Sprintf("/rolecall/v1/clusters/%s/credentials/c%d", w.cluster, at)
		w.want(t, nil, 201, request{"PUT", path,
			object(map[string]any{"for": "shop", "rotateEvery": "1h", "overlap": "0s"}), nil})
		made++
		w.signIn(t)
		if err := os.WriteFile(w.point+".new", fmt.Appendf(nil, "%d kill", at), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(w.point+".new", w.point); err != nil {
			t.Fatal(err)
		}
		status, body, err := w.sendBroken(t, request{"POST", path + "/rotate", "", nil}, "kill")
		if os.Remove(w.point) == nil { // it was not reached: the rotation has fewer statements
			if err != nil || status != 200 {
				t.Errorf("rotated: %d %s, %v", status, body, err)
			}
			break
		}
		if err := os.Remove(w.point + ".reached"); err != nil {
			t.Error(err)
		}
		soon(t, w.ended)
		w.restart(t)
		var current struct{ Username, Password string }
		w.want(t, &current, 200, request{"GET", path + "/current", "", nil})
		if err := w.pg.Login(current.Username, current.Password); err != nil {
			t.Errorf("killed after statement %d: %v", at, err)
		}
	}
	fmt.Printf("%s: killed at %d instants\n", t.Name(), made-1)
	for database, sql := range map[string]string{
		"postgres": `SELECT count(*)::text FROM pg_roles
			WHERE shobj_description(oid, 'pg_authid') LIKE '%"credential":%' AND rolname LIKE 'shop_%'`,
		"control": `SELECT count(*)::text FROM rolecall.credentials c JOIN rolecall.leases l ON l.id = c.lease_id
			WHERE next_lease_id IS NULL AND l.state = 'active' AND NOT EXISTS (SELECT FROM rolecall.audit a WHERE phase = 'attempt'
			AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome'))`,
	} {
		want := strconv.Itoa(made)
		for end := time.Now().Add(settled); ; time.Sleep(50 * time.Millisecond) {
			got := w.query(t, database, sql)[0]
			if got == want {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s, want %s\n%s", sql, got, want, w.logged())
			}
		}
	}
	if unowned := pgtest.Value[int](t, w.pg, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'shop_%'
		AND rolvaliduntil IS NULL`); unowned != 0 {
		t.Errorf("%d roles have no end", unowned)
	}
}
