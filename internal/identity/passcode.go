package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/secret"
)

// grantPasscode is what the audit log calls the password grant with a passcode, which RFC 6749 does not know: it is the
// UAA's.
const grantPasscode = "passcode"

const passcodeLifetime = 10 * time.Minute

// NewPasscode gives the principal a code with which it signs in to a command line, once, until it expires. It replaces the
// one before.
func (s *Service) NewPasscode(ctx context.Context, p *account.Principal) (code secret.Text, expires time.Time, err error) {
	text := rand.Text()
	expires = s.now().Add(passcodeLifetime)
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		scopes, err := s.mayApprove(ctx, tx, p, nil)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO passcodes (account_id, code_hash, epoch, session_id, scopes, expires_at)
			SELECT id, $2, $3, $4, $5, $6 FROM accounts WHERE guid = $1
			ON CONFLICT (account_id) DO UPDATE SET code_hash = excluded.code_hash, epoch = excluded.epoch,
			  session_id = excluded.session_id, scopes = excluded.scopes, expires_at = excluded.expires_at`,
			p.GUID, tokenHash(text), p.Epoch, p.Session, scopes, expires)
		if err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, p.Entry(audit.ApproveLogin, p.GUID,
			loginDetail{Client: PublicClient, Grant: grantPasscode}))
	})
	return secret.Text(text), expires, err
}

// GrantWithPasscode signs in the person who got the passcode in the console.
func (s *Service) GrantWithPasscode(ctx context.Context, c *Client, code string, scopes []string, address string) (
	*Tokens, error) {
	if err := c.may(GrantPassword); err != nil {
		return nil, err
	}
	guesser := "passcode\x00" + address
	if err := s.throttle.wait(guesser, address); err != nil {
		return nil, err
	}
	ap := approval{}
	hash := tokenHash(code)
	err := s.db.Pool.QueryRow(ctx, `
		SELECT a.guid, k.epoch, EXISTS (SELECT FROM console_sessions WHERE id = k.session_id), k.scopes, k.expires_at
		FROM passcodes k JOIN accounts a ON a.id = k.account_id WHERE k.code_hash = $1 AND k.expires_at > $2`, hash, s.now()).
		Scan(&ap.guid, &ap.epoch, &ap.session, &ap.scopes, &ap.expires)
	if errors.Is(err, pgx.ErrNoRows) {
		s.throttle.failed(guesser, address)
		if err := s.audit.FailedSignIn(ctx, audit.ActorUnknown, address); err != nil {
			s.log.Warn("a failed sign-in was not counted", "error", err)
		}
		return nil, errWrong
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := s.approver(ctx, &ap)
	if errors.Is(err, errEnded) {
		return nil, errWrong.Because(err)
	}
	if err != nil {
		return nil, err
	}
	granted, err := narrow(common(c.through(a.Scopes), ap.scopes), scopes)
	if err != nil {
		return nil, err
	}
	l := &login{a, c, GrantPassword, granted, uuid.New(), address}
	t, taken, err := s.fetch(ctx, l, `DELETE FROM passcodes WHERE code_hash = $1`, hash)
	if err == nil && !taken {
		err = errWrong
	}
	return t, err
}
