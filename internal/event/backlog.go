package event

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Backlog is how far a receiver is behind the log.
type Backlog struct {
	Kind    string // webhook, syslog, https or file
	Name    string // of a webhook, which admins choose
	State   State  // of a webhook; the others are always active
	Rows    int64  // of the log that it has not accepted
	Failing bool   // it did not accept the last ones
}

// Backlogs returns how far each receiver is behind, for metrics. The file is that of this replica.
func (s *Service) Backlogs(ctx context.Context) ([]Backlog, error) {
	kinds := []string{"webhook"}
	for _, c := range s.Export.collectors() {
		kinds = append(kinds, c.kind)
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT f.kind, coalesce(w.name, ''), coalesce(w.state, 'ACTIVE'),
		  greatest(coalesce((SELECT max(seq) FROM audit_seals), (SELECT seq FROM audit_checkpoint), 0) - f.seq, 0),
		  f.failing_since IS NOT NULL
		FROM followers f LEFT JOIN webhooks w USING (id) WHERE f.kind = ANY($1) ORDER BY f.kind, w.name`, kinds)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Backlog])
	if err != nil {
		return nil, control.Fault(err)
	}
	if s.Export.File != "" {
		_, head, err := s.Audit.Ends(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, Backlog{Kind: "file", State: Active, Rows: max(head.Seq-s.fileSeq.Load(), 0)})
	}
	return list, nil
}
