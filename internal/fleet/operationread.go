package fleet

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// visible is the condition on operations that a principal may see, by its arguments $1 to $3: all of them if it may see the
// whole audit log, else its own; with a token that is limited to clusters only those that were started with it.
const visible = `($1 OR o.account_guid = $2 AND ($3 = ` + noID + ` OR o.token = $3))`

func visibleTo(p *account.Principal) []any {
	token := uuid.Nil
	if p.Clusters != nil {
		token = p.Token
	}
	return []any{access.MayAudit(p), p.GUID, token}
}

// OperationFilter chooses operations. Every condition that is set must match.
type OperationFilter struct {
	State    string // "": any
	Failures bool   // it has failed, or was not done to one of its users at least
}

// OperationStates are the states of operations.
var OperationStates = []string{stateRunning, stateDone, stateFailed, stateCanceled}

// withFailures is the condition on operations that have failed, for one user at least.
const withFailures = `(o.state = 'failed'
	OR EXISTS (SELECT FROM operation_parts p WHERE p.operation_id = o.id AND p.failed > 0))`

// Operations returns up to limit of the operations that the principal may see and the filter chooses, the newest first,
// before an id; zero: from the newest one. more says whether others follow.
func (s *Service) Operations(ctx context.Context, p *account.Principal, f OperationFilter, before uuid.UUID, limit int) (
	list []*Operation, more bool, err error) {
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+operationColumns+` FROM operations o
		WHERE `+visible+` AND ($4 = `+noID+` OR o.id < $4) AND ($6 = '' OR o.state = $6) AND (NOT $7 OR `+withFailures+`)
		ORDER BY o.id DESC LIMIT $5`, append(visibleTo(p), before, limit+1, f.State, f.Failures)...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	list, err = pgx.CollectRows(rows, scanOperation)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	return list[:min(len(list), limit)], len(list) > limit, nil
}

// Operation returns an operation that the principal may see.
func (s *Service) Operation(ctx context.Context, p *account.Principal, id string) (*Operation, error) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, notFound(id)
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+operationColumns+` FROM operations o WHERE `+visible+` AND o.id = $4`,
		append(visibleTo(p), parsed)...)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, scanOperation)
	if err == nil && len(list) == 0 {
		return nil, notFound(id)
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	return list[0], nil
}

// Result is what came of one user of an operation.
type Result struct {
	Position      int
	Cluster       uuid.UUID
	ClusterName   string // as of the start
	Name          string
	State, Detail string
}

// ResultStates are the states of results.
var ResultStates = []string{"pending", itemDone, itemFailed, itemSkipped}

// shownState is the state of an item i as it is shown.
const shownState = `CASE i.state WHEN 'running' THEN 'pending' ELSE i.state END`

// Results returns up to limit of the results of an operation that the principal may see, after a position; -1: the first.
// With states only those are returned. more says whether others follow.
func (s *Service) Results(ctx context.Context, p *account.Principal, id string, states []string, after, limit int) (
	list []Result, more bool, err error) {
	o, err := s.Operation(ctx, p, id)
	if err != nil {
		return nil, false, err
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT i.position, p.cluster_id, p.cluster_name, i.name, `+shownState+`, i.detail
		FROM operation_items i JOIN operation_parts p ON p.id = i.part_id
		WHERE i.operation_id = $1 AND i.position > $2
		  AND ($3::text[] IS NULL OR `+shownState+` = ANY($3))
		ORDER BY i.position LIMIT $4`, o.ID, after, states, limit+1)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Result])
	if err != nil {
		return nil, false, control.Fault(err)
	}
	return list[:min(len(list), limit)], len(list) > limit, nil
}

// CancelRefusal is why the principal may not cancel an operation that it may see; nil when it may.
func CancelRefusal(p *account.Principal, o *Operation) error {
	switch {
	case p.ReadOnly:
		return fault.New(fault.Forbidden, "The personal access token is read-only.")
	case o.Account != p.GUID && !p.Has(account.ScopeAdmin):
		return fault.New(fault.Forbidden, "You may see this operation, but only its account and admins may cancel it.")
	}
	return nil
}

// Cancel ends an operation before all is done. What is in progress goes on to its end. One that has ended stays as it is.
func (s *Service) Cancel(ctx context.Context, p *account.Principal, id string) (*Operation, error) {
	o, err := s.Operation(ctx, p, id)
	if err != nil {
		return nil, err
	}
	entry := p.Entry(audit.CancelOperation, o.ID.String(), nil)
	entry.Operation = o.ID
	if refused := CancelRefusal(p, o); refused != nil {
		return nil, s.Users.Audit.Refuse(ctx, entry, refused)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		stopped, err := stop(ctx, tx, o.ID, stateCanceled, "", (&Operation{State: stateCanceled}).rest())
		if err != nil || !stopped {
			return err
		}
		return s.Users.Audit.Record(ctx, tx, entry)
	})
	if err != nil {
		return nil, err
	}
	if err := s.finish(ctx, o.ID); err != nil {
		return nil, err
	}
	return s.Operation(ctx, p, id)
}

// Numbers are what the metrics say of operations: how many run, and how many users wait in each cluster.
func (s *Service) Numbers(ctx context.Context) (running int, waiting map[uuid.UUID]int, err error) {
	waiting = map[uuid.UUID]int{}
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*) FROM operations WHERE ended_at IS NULL`).Scan(&running); err != nil {
		return 0, nil, control.Fault(err)
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT p.cluster_id, sum(p.total - p.done - p.failed - p.skipped)::int
		FROM operations o JOIN operation_parts p ON p.operation_id = o.id
		WHERE o.ended_at IS NULL GROUP BY p.cluster_id`)
	if err != nil {
		return 0, nil, control.Fault(err)
	}
	var id uuid.UUID
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		waiting[id] = n
		return nil
	})
	return running, waiting, control.Fault(err)
}
