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
	conn := c.Connect(t, role, "administrator", "postgres")
	says := func(want string) {
		t.Helper()
		got, err := pgrole.StandbyProblem(t.Context(), conn, true)
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
	c.Set(t, "synchronous_standby_names", "")
	says("")
}
