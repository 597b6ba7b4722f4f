package dbuser_test

import (
	"context"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// Sessions are ended also when another role keeps the limits from being set.
func TestEndSessionsWithoutLimits(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	create(t, s, "held")
	session := pg.Connect(t, "held", password, "postgres")
	other := pg.Connect(t, pg.User, pg.Password, "postgres")
	exec(t, other, `BEGIN; ALTER ROLE held CONNECTION LIMIT 3`)
	none := pgrole.Limits{ConnectionLimit: new(0)}
	_, _, _, err := s.Users.SetLimits(t.Context(), admin, s.ClusterID, "held", none, true, nil)
	wantKind(t, err, fault.Unavailable)
	for _, part := range []string{` of the role "` + pg.User + `"`, "Its open sessions were ended all the same: 1."} {
		if message := fault.Of(err).Message; !strings.Contains(message, part) {
			t.Errorf("the message lacks %q: %s", part, message)
		}
	}
	if err := session.Ping(context.Background()); err == nil {
		t.Error("the session is still there")
	}
	rows := s.AuditRows(t, "held")
	if last := rows[len(rows)-1]; last.Outcome != "not_done" || !strings.Contains(last.Detail, `"ended": 1`) {
		t.Errorf("recorded: %+v", last)
	}
	exec(t, other, `ROLLBACK`)
	_, _, ended, err := s.Users.SetLimits(t.Context(), admin, s.ClusterID, "held", none, true, nil)
	if err != nil || ended != 0 {
		t.Errorf("%d ended, %v", ended, err)
	}
}
