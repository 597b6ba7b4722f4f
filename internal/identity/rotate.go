package identity

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Rotated is the result of RotateKeys.
type Rotated struct {
	MasterKey  string // id of the master key that encrypts everything now
	Resealed   int    // secrets that were encrypted with another one before
	SigningKey string // id of the new signing key; empty: none was asked for
}

var errKeysAdminOnly = fault.New(fault.Forbidden, "This needs the scope %s.", account.ScopeAdmin)

// RotateKeys re-encrypts every stored secret with the first master key, so that the others can be removed, and creates a new
// signing key if requested. After an interruption it can be repeated.
func (s *Service) RotateKeys(ctx context.Context, p *account.Principal, signingKey bool) (*Rotated, error) {
	entry := p.Entry(audit.RotateKeys, "", nil)
	if !p.Has(account.ScopeAdmin) {
		return nil, s.audit.Refuse(ctx, entry, errKeysAdminOnly)
	}
	done, err := s.db.Reseal(ctx, func(tx pgx.Tx, done *control.Resealed) error {
		entry.Target, entry.Detail = done.Key, map[string]any{"resealed": done.Counts}
		return s.audit.Record(ctx, tx, entry)
	})
	if err != nil {
		return nil, err
	}
	rotated := &Rotated{MasterKey: done.Key, Resealed: done.Total()}
	if signingKey {
		rotated.SigningKey, err = s.RotateKey(ctx, p.Entry("", "", nil))
	}
	if err != nil {
		return nil, err
	}
	return rotated, nil
}
