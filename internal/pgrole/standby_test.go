package pgrole_test

import (
	"strings"
	"testing"

	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// A primary without its synchronous standby lets each change wait, which is known before the first change.
func TestStandbyProblem(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	_, role := administrator(t, c)
	c.Exec(t, `CREATE ROLE other LOGIN PASSWORD 'administrator'`)
	conn := c.Connect(t, role, "administrator", "postgres")
	says := func(want string) {
		t.Helper()
		got, err := pgrole.StandbyProblem(t.Context(), conn)
		if err != nil || !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	says("")
	c.Set(t, "synchronous_standby_names", "nobody")
	const absent = "No standby is connected, and each change waits for one (wait_event SyncRep), because " +
		"synchronous_standby_names is 'nobody'."
	says(absent)
	for _, setting := range []string{"off", "local"} {
		exec(t, conn, `SET synchronous_commit = `+setting)
		says("")
	}
	exec(t, conn, `RESET synchronous_commit`)

	// What another role waits for is not shown to every role, and so not considered.
	const waits = `SELECT count(*) = $1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' ` +
		`AND query_start < clock_timestamp() - interval '1 second'`
	for i, user := range []string{"other", role} {
		waiting := c.Connect(t, user, "administrator", "postgres")
		done := make(chan error, 1)
		go func() {
			_, err := waiting.Exec(t.Context(), `SELECT pg_logical_emit_message(true, 'waits', '')`)
			done <- err
		}()
		t.Cleanup(func() { <-done })
		waitFor(t, c, waits, i+1)
		if user == "other" {
			says(absent)
		}
	}
	says("Changes wait for a synchronous standby (wait_event SyncRep), the first since 20")
	says("Z. No standby is connected.")
	c.Set(t, "synchronous_standby_names", "")
	waitFor(t, c, waits, 0)
	says("")
}
