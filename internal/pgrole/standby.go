package pgrole

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// selectStandbys says which standbys a COMMIT of this session waits for ("": none), whether one is connected, and whether a
// COMMIT waits, as far as the role may see: it sees those of its own sessions, and of all if it is a superuser. Each COMMIT
// waits for a moment; only longer waits count.
const selectStandbys = `
	SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN ''
	         ELSE left(current_setting('synchronous_standby_names'), 300) END,
	       EXISTS (SELECT FROM pg_stat_replication),
	       EXISTS (SELECT FROM pg_stat_activity
	               WHERE wait_event = 'SyncRep' AND query_start < clock_timestamp() - interval '1 second')`

// confirmTimeout is how long a standby may take to confirm a COMMIT that changes nothing.
const confirmTimeout = time.Second

// StandbyProblem says that changes wait for a synchronous standby; "" if they do not. If it is suspected that they do,
// though none waits at the moment, it commits something itself. The connection may be closed after that.
func StandbyProblem(ctx context.Context, conn *pgx.Conn, suspected bool) (string, error) {
	var names string
	var connected, waits bool
	err := conn.QueryRow(ctx, selectStandbys, pgx.QueryExecModeExec).Scan(&names, &connected, &waits)
	if err != nil || names == "" {
		return "", err
	}
	if !connected {
		return fmt.Sprintf("No standby is connected, and each change waits for one (wait_event SyncRep), because "+
			"synchronous_standby_names is '%.300s'.", valid(names)), nil
	}
	if suspected && !waits {
		try, cancel := context.WithTimeout(ctx, confirmTimeout)
		defer cancel()
		_, err := conn.Exec(try, emitMessage)
		if waits = errors.Is(err, context.DeadlineExceeded); !waits && sqlstate.Lost(err) {
			return "", err
		}
	}
	if waits {
		return "Each change waits for a synchronous standby (wait_event SyncRep), and none confirms it: pg_stat_replication " +
			"shows what the connected standbys have confirmed.", nil
	}
	return "", nil
}
