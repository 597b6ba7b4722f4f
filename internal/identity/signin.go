package identity

import (
	"context"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// The lifetimes of the token that a sign-in gives: one that is not renewed, and one that is.
const (
	signInLifetime = time.Hour
	signInLongest  = 24 * time.Hour
)

// maxSignInTokens is how many of these tokens an account has at once.
const maxSignInTokens = 1000

// SignIn is the token that a sign-in gives. It is stored like a personal access token, and every API accepts it as one; but
// it is not among those that its account has made, and it ends with the account's other sign-ins.
type SignIn struct {
	Token    secret.Text
	ID       uuid.UUID
	Account  *account.Account
	Lifetime time.Duration
}

// SignInWithPassword signs the local account of that name in.
func (s *Service) SignInWithPassword(ctx context.Context, username, password, address string) (*SignIn, error) {
	a, err := s.VerifyPassword(ctx, username, password, address)
	if err != nil {
		return nil, err
	}
	return s.signInToken(ctx, a, address)
}

// SignInWithToken signs in the account of a token of another issuer. The token that it gives may outlive that one: a program
// that renews it need not have another one of its issuer for a day.
func (s *Service) SignInWithToken(ctx context.Context, token, address string) (*SignIn, error) {
	var unverified jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(token, &unverified)
	e := s.external[unverified.Issuer]
	if err != nil || e == nil {
		return nil, errWrong.Because(errors.New("it is not a token of an issuer that this server is configured with"))
	}
	v, err := s.externalBearer(ctx, e, token, address)
	if err != nil {
		return nil, err
	}
	return s.signInToken(ctx, v.account, address)
}

var errManySignIns = fault.New(fault.TooMany,
	"The account has %d tokens of sign-ins. Revoke those that are no longer used, or "+
		"wait until they expire.", maxSignInTokens)

// lockToSignIn locks an account that is about to get a sign-in: so the limit of its sign-ins holds, and none is from before
// the account has ended them.
func lockToSignIn(ctx context.Context, tx pgx.Tx, a *account.Account) error {
	tag, err := tx.Exec(ctx, `
		SELECT FROM accounts WHERE id = $1 AND epoch = $2 AND active AND identity_created_at IS NOT NULL FOR NO KEY UPDATE`,
		a.ID, a.Epoch)
	if err == nil && tag.RowsAffected() == 0 {
		err = errWrong.Because(errEnded)
	}
	return err
}

func (s *Service) signInToken(ctx context.Context, a *account.Account, address string) (*SignIn, error) {
	if err := s.accounts.EnsurePlatformUser(ctx, a, address); err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	token, now := newPersonalToken(id), s.now().Truncate(time.Microsecond)
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := lockToSignIn(ctx, tx, a); err != nil {
			return err
		}
		var live int
		err = tx.QueryRow(ctx, `
			SELECT count(*) FROM personal_tokens WHERE account_id = $1 AND renewable_until IS NOT NULL AND expires_at > $2`,
			a.ID, now).Scan(&live)
		if err != nil {
			return err
		}
		if live >= maxSignInTokens {
			return errManySignIns
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO personal_tokens (id, account_id, name, secret_hash, scopes, read_only, created_at, expires_at,
			  renewable_until, epoch, address)
			VALUES ($1, $2, $3, $4, $5, false, $6, $7, $8, $9, $10)`,
			id, a.ID, "sign-in "+id.String(), tokenHash(token), a.Scopes, now, now.Add(signInLifetime), now.Add(signInLongest),
			a.Epoch, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &SignIn{secret.Text(token), id, a, signInLifetime}, nil
}

// OwnToken is what is known of the token of a request.
type OwnToken struct {
	ID      uuid.UUID // zero: it is not stored
	Issued  time.Time
	Expires time.Time // zero: never
	// RenewableUntil is zero if the token is not renewed.
	RenewableUntil time.Time
}

// OwnToken returns what is known of the principal's token.
func (s *Service) OwnToken(ctx context.Context, p *account.Principal) (*OwnToken, error) {
	if p.Token == uuid.Nil {
		return &OwnToken{Issued: p.Issued, Expires: p.Expires}, nil
	}
	t, err := s.personalToken(ctx, p.Token)
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong
	}
	if err != nil {
		return nil, err
	}
	return &OwnToken{t.ID, t.Created, t.Expires, t.RenewableUntil}, nil
}

// ErrNotRenewable is a cause: a sign-in did not give the token.
var ErrNotRenewable = errors.New("the token is not renewed")

// RenewSignIn moves the end of the principal's token, which a sign-in gave, to the usual time from now; not beyond its last
// end. cut says that the last end was nearer.
func (s *Service) RenewSignIn(ctx context.Context, p *account.Principal) (t *OwnToken, cut bool, err error) {
	if t, err = s.OwnToken(ctx, p); err != nil {
		return nil, false, err
	}
	if t.RenewableUntil.IsZero() {
		return nil, false, fault.New(fault.Invalid, "Only the token of a sign-in can be renewed.").Because(ErrNotRenewable)
	}
	end := s.now().Add(signInLifetime).Truncate(time.Microsecond)
	if cut = end.After(t.RenewableUntil); cut {
		end = t.RenewableUntil
	}
	err = s.db.Pool.QueryRow(ctx, `
		UPDATE personal_tokens t SET expires_at = greatest(t.expires_at, $2) FROM accounts a
		WHERE t.id = $1 AND t.expires_at > $3 AND a.id = t.account_id AND a.epoch = t.epoch AND a.active
		RETURNING t.expires_at`, p.Token, end, s.now()).Scan(&t.Expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, false, errWrong
	}
	return t, cut, control.Fault(err)
}

// RevokeOwn ends the principal's token within 5 seconds on every replica. The token of another issuer is not ended here.
func (s *Service) RevokeOwn(ctx context.Context, p *account.Principal, token secret.Text) error {
	s.verified.drop(s.cacheKey(Credential{Scheme: Bearer, Value: token}))
	if p.Token != uuid.Nil {
		err := s.RevokePersonalToken(ctx, p, p.Token.String())
		if fault.Is(err, fault.NotFound) {
			return nil // another request was faster
		}
		return err
	}
	var unverified jwt.RegisteredClaims
	t, _, err := jwt.NewParser().ParseUnverified(string(token), &unverified)
	if err != nil || unverified.Issuer != s.issuer {
		return fault.New(fault.Invalid, "The token is another issuer's, and can be ended only there.")
	}
	c, err := s.ownClaims(ctx, string(token), t)
	if err != nil {
		return err
	}
	return s.endAccess(ctx, c, p.Entry(audit.RevokeTokens, p.GUID, revokedByHolder(c.ClientID)))
}
