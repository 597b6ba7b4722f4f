package pgrole

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// selectStandbys says since when a COMMIT of the administering role has waited for synchronous standbys, which ones a
// COMMIT of
// this session waits for ("": none), and whether a standby is connected. Each COMMIT waits for a moment; only longer waits
// count.
const selectStandbys = `
	SELECT (SELECT min(query_start) FROM pg_stat_activity
	        WHERE usename = current_user AND wait_event = 'SyncRep' AND query_start < clock_timestamp() - interval '1 second'),
	       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN ''
	         ELSE left(current_setting('synchronous_standby_names'), 300) END,
	       EXISTS (SELECT FROM pg_stat_replication)`

// StandbyProblem says that changes wait for a synchronous standby, or will wait because none is connected; "" if they do
// not.
func StandbyProblem(ctx context.Context, conn *pgx.Conn) (string, error) {
	var since *time.Time
	var names string
	var connected bool
	err := conn.QueryRow(ctx, selectStandbys, pgx.QueryExecModeExec).Scan(&since, &names, &connected)
	if err != nil {
		return "", err
	}
	switch {
	case since != nil:
		problem := fmt.Sprintf("Changes wait for a synchronous standby (wait_event SyncRep), the first since %s.",
			since.UTC().Format(time.RFC3339))
		if connected {
			return problem + " pg_stat_replication shows what the connected standbys have confirmed.", nil
		}
		return problem + " No standby is connected.", nil
	case names != "" && !connected:
		return fmt.Sprintf("No standby is connected, and each change waits for one (wait_event SyncRep), because "+
			"synchronous_standby_names is '%.300s'.", valid(names)), nil
	}
	return "", nil
}
