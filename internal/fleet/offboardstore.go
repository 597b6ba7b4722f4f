package fleet

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

func (s *Service) insertOffboarding(ctx context.Context, tx pgx.Tx, o *Offboarding) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO offboardings (id, created_at, account_guid, account_name, by_guid, by_name, users, operation, report)
		VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, `+noID+`), $9)`,
		o.ID, o.Time, o.Account.GUID, o.Account.Name, o.By.GUID, o.By.Name, o.Users, o.Operation, o.Report)
	return err
}

const offboardingColumns = `o.id, o.created_at, o.account_guid, o.account_name, o.by_guid, o.by_name, o.users,
	coalesce(o.operation, ` + noID + `), coalesce((SELECT state FROM operations WHERE id = o.operation), '')`

func (o *Offboarding) columns() []any {
	return []any{&o.ID, &o.Time, &o.Account.GUID, &o.Account.Name, &o.By.GUID, &o.By.Name, &o.Users, &o.Operation, &o.State}
}

// Offboardings lists the reports, the newest first: up to limit of those after one. With an account, by its guid or name, it
// lists only those of the account. They are for those who may see the whole audit log.
func (s *Service) Offboardings(ctx context.Context, p *account.Principal, of string, after uuid.UUID, limit int) (
	list []*Offboarding, more bool, err error) {
	if !access.MayAudit(p) {
		return nil, false, access.ErrMayNotAudit
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT `+offboardingColumns+` FROM offboardings o
		WHERE ($1 = '' OR o.account_guid = $1 OR lower(o.account_name) = lower($1))
		  AND ($2 = `+noID+` OR o.id < $2)
		ORDER BY o.id DESC LIMIT $3`, of, after, limit+1)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Offboarding, error) {
		var o Offboarding
		return &o, row.Scan(o.columns()...)
	})
	if more = len(list) > limit; more {
		list = list[:limit]
	}
	return list, more, control.Fault(err)
}

// Offboarding returns a report.
func (s *Service) Offboarding(ctx context.Context, p *account.Principal, id string) (*Offboarding, error) {
	if !access.MayAudit(p) {
		return nil, access.ErrMayNotAudit
	}
	missing := fault.New(fault.NotFound, "There is no offboarding %.64q.", id)
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return nil, missing
	}
	o := &Offboarding{}
	err = s.DB.Pool.QueryRow(ctx, `SELECT `+offboardingColumns+`, o.report FROM offboardings o WHERE o.id = $1`, parsed).
		Scan(append(o.columns(), &o.Report)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, missing
	}
	if err == nil && o.State != "" {
		err = s.addResults(ctx, o)
	}
	return o, control.Fault(err)
}

// addResults adds what has become of the users. Those to whom something is done are the items of the operation, in its
// order.
func (s *Service) addResults(ctx context.Context, o *Offboarding) error {
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT `+shownState+`, i.detail FROM operation_items i WHERE i.operation_id = $1 ORDER BY i.position`, o.Operation)
	if err != nil {
		return err
	}
	next := 0
	var state, detail string
	_, err = pgx.ForEachRow(rows, []any{&state, &detail}, func() error {
		for next < len(o.Report.Users) && o.Report.Users[next].Action == Keep {
			next++
		}
		if next < len(o.Report.Users) {
			u := &o.Report.Users[next]
			u.State, u.Detail = state, detail
			next++
		}
		return nil
	})
	return err
}
