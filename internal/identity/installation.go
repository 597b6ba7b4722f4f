package identity

import (
	"context"
	"time"

	"rolecall/internal/audit"
	"rolecall/internal/control"
)

// Installation is what this Rolecall stands on, for an operator. It has no secret.
type Installation struct {
	Control *control.Status
	// SigningKeys are those that verify access tokens, the newest first.
	SigningKeys []SigningKey
	// Head is the last sealed row of the audit log, and Log what waits in it.
	Head audit.Point
	Log  audit.State
}

// SigningKey is a key that signs access tokens, or has signed those that are still valid.
type SigningKey struct {
	ID      string
	Created time.Time
	Signs   bool // now
}

// Installation reads what this Rolecall stands on. It checks no right.
func (s *Service) Installation(ctx context.Context) (i *Installation, err error) {
	i = &Installation{}
	if i.Control, err = s.db.Status(ctx); err != nil {
		return nil, err
	}
	if i.Head, err = s.audit.ReadHead(ctx); err != nil {
		return nil, err
	}
	if i.Log, err = s.audit.State(ctx); err != nil {
		return nil, err
	}
	keys, err := s.currentKeys(ctx)
	if err != nil {
		return nil, err
	}
	signs := signer(keys, s.now())
	for _, k := range keys {
		i.SigningKeys = append(i.SigningKeys, SigningKey{k.kid, k.created, k == signs})
	}
	return i, nil
}
