package audit

import (
	"context"
	"time"

	"rolecall/internal/control"
)

// State is what an operator has to know of the log.
type State struct {
	Unsealed  int64         // rows that wait to be sealed
	OldestRow time.Duration // how long the oldest of them has waited
	Overdue   int64         // attempts without an outcome whose time is over: the settler has yet to resolve them
	OldestTry time.Duration // how long ago the oldest of them was made
}

// State reads the state of the log, for all replicas.
func (l *Log) State(ctx context.Context) (s State, err error) {
	var row, try float64
	err = l.DB.Pool.QueryRow(ctx, `
		WITH now AS (SELECT clock_timestamp() t),
		late AS MATERIALIZED (
		  SELECT a.attempt FROM audit a
		  WHERE a.phase = 'attempt' AND a.settle_after <= now()
		    AND a.settle_after > coalesce((SELECT time FROM watermarks WHERE name = $1), '-infinity') AND `+open+`
		  UNION SELECT attempt FROM overdue a WHERE `+open+`)
		SELECT (SELECT count(*) FROM audit_unsealed),
		  coalesce(extract(epoch FROM t - (SELECT time FROM audit WHERE id = (SELECT min(audit_id) FROM audit_unsealed)))::float8,
		    0),
		  (SELECT count(*) FROM late),
		  coalesce(extract(epoch FROM t - (SELECT min(time) FROM audit JOIN late USING (attempt) WHERE phase = 'attempt'))::float8,
		    0)
		FROM now`, settledUntil).Scan(&s.Unsealed, &row, &s.Overdue, &try)
	s.OldestRow, s.OldestTry = seconds(row), seconds(try)
	return s, control.Fault(err)
}

func seconds(n float64) time.Duration { return time.Duration(max(n, 0) * float64(time.Second)) }

// Forged is how many rows this process has sealed though Rolecall did not write them.
func (l *Log) Forged() int64 { return l.forged.Load() }

// LastPass is when Run of this process last found everything sealed, or sealed it; zero: not yet.
func (l *Log) LastPass() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passed
}
