package account

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
)

// Ended is what EndAllTokens has ended.
type Ended struct {
	Accounts, RefreshTokens, PersonalTokens int64
	Operations                              int64     // that were in progress
	Since                                   time.Time // of the newest row of the audit log before; zero: there was none
}

// EndAllTokens ends what every account is signed in with, its personal access tokens unless they are to be kept, and all
// operations in progress. It is for a control database that was restored from a backup: what was revoked since would be
// valid again, and what was done since would be done again.
func (s *Store) EndAllTokens(ctx context.Context, keepPersonal bool, by audit.Entry) (e Ended, err error) {
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '10min'`); err != nil {
			return err
		}
		var newest *time.Time
		if err := tx.QueryRow(ctx, `SELECT max(time) FROM audit`).Scan(&newest); err != nil {
			return err
		}
		if newest != nil {
			e.Since = *newest
		}
		for _, do := range []struct {
			sql   string
			count *int64
		}{
			{`UPDATE accounts SET epoch = gen_random_uuid()`, &e.Accounts},
			{`DELETE FROM refresh_tokens`, &e.RefreshTokens},
			{`DELETE FROM personal_tokens`, &e.PersonalTokens},
			{`UPDATE operations SET state = 'failed', reason = 'The control database was restored from a backup.'
			  WHERE state = 'running'`, &e.Operations},
		} {
			if keepPersonal && do.count == &e.PersonalTokens {
				continue
			}
			tag, err := tx.Exec(ctx, do.sql)
			if err != nil {
				return err
			}
			*do.count = tag.RowsAffected()
		}
		by.Action = audit.Restore
		by.Detail = map[string]any{"accounts": e.Accounts, "refreshTokens": e.RefreshTokens, "personalTokens": e.PersonalTokens,
			"operations": e.Operations}
		return s.Audit.Record(ctx, tx, by)
	})
	return e, err
}
