package audit

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Ends returns the places between which the chain has rows: start is the last row that the retention has removed, the zero
// Point if it has removed none.
func (l *Log) Ends(ctx context.Context) (start, head Point, err error) {
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce(c.seq, 0), coalesce(c.mac, ''), coalesce(s.seq, c.seq, 0), coalesce(s.mac, c.mac, '')
		FROM (VALUES (1)) one LEFT JOIN audit_checkpoint c ON true
		LEFT JOIN (SELECT seq, mac FROM audit_seals ORDER BY seq DESC LIMIT 1) s ON true`).
		Scan(&start.Seq, &start.MAC, &head.Seq, &head.MAC)
	return start, head, control.Fault(err)
}

// PointAt returns the place of a row in the chain; of seq 0 the beginning.
func (l *Log) PointAt(ctx context.Context, q control.Querier, seq int64) (Point, error) {
	if seq == 0 {
		return Point{MAC: []byte{}}, nil // as Ends has it: no column takes NULL
	}
	p := Point{Seq: seq}
	err := q.QueryRow(ctx, `
		SELECT mac FROM audit_seals WHERE seq = $1 UNION ALL SELECT mac FROM audit_checkpoint WHERE seq = $1 LIMIT 1`, seq).
		Scan(&p.MAC)
	if errors.Is(err, pgx.ErrNoRows) {
		return Point{}, fault.New(fault.NotFound, "The audit log has no row %d.", seq)
	}
	return p, control.Fault(err)
}
