package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// How long a session in a browser lasts: without a request, and at most.
const (
	SessionIdle    = 30 * time.Minute
	SessionLongest = 12 * time.Hour
)

// ProvenFor is how long after a proof of who somebody is the most dangerous changes ask for no other.
const ProvenFor = 10 * time.Minute

// maxSessions is how many sessions an account has at once. One more ends the one that was used longest ago.
const maxSessions = 50

// maxBrowserName bounds what is kept of how a browser names itself, in bytes.
const maxBrowserName = 200

// StartSession signs an account in, in a browser, and returns the secret that the browser proves the session with. proven is
// when the person has proved who they are; zero: it is not known.
func (s *Service) StartSession(ctx context.Context, a *account.Account, proven time.Time, address, browser string) (
	secret.Text, error) {
	if err := s.accounts.EnsurePlatformUser(ctx, a, address); err != nil {
		return "", err
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails since Go 1.24
	token, now := base64.RawURLEncoding.EncodeToString(random), s.now()
	if proven.After(now) {
		proven = now
	}
	err := s.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := lockToSignIn(ctx, tx, a); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			DELETE FROM console_sessions WHERE id IN (
			  SELECT id FROM console_sessions WHERE account_id = $1 ORDER BY last_used_at DESC OFFSET $2)
			RETURNING id`, a.ID, maxSessions-1)
		if err != nil {
			return err
		}
		ended, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		for _, id := range ended {
			if _, err := revokeID(ctx, tx, signedOut(id), now.Add(SessionLongest)); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO console_sessions (id, secret_hash, account_id, epoch, address, client, created_at, proven_at, last_used_at,
			  expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $9, $7, $8)`,
			uuid.New(), tokenHash(token), a.ID, a.Epoch, address, browserName(browser), now, now.Add(SessionLongest), proven)
		return err
	})
	return secret.Text(token), err
}

// browserName is what is kept of how a browser names itself: what can be shown, and not too long.
func browserName(userAgent string) string {
	shown := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, userAgent)
	return shown[:min(len(shown), maxBrowserName)]
}

// session returns the account of a session's secret.
func (s *Service) session(ctx context.Context, token string) (*verifiedCredential, error) {
	if token == "" || !utf8.ValidString(token) {
		return nil, errWrong
	}
	var id, epoch uuid.UUID
	var guid string
	var created, proven, used, expires time.Time
	err := s.db.Pool.QueryRow(ctx, `
		SELECT c.id, c.epoch, a.guid, c.created_at, c.proven_at, c.last_used_at, c.expires_at
		FROM console_sessions c JOIN accounts a ON a.id = c.account_id WHERE c.secret_hash = $1`, tokenHash(token)).
		Scan(&id, &epoch, &guid, &created, &proven, &used, &expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errWrong.Because(errEnded)
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	if used = s.tokenUse.latest(id, used); used.Add(SessionIdle).Before(expires) {
		expires = used.Add(SessionIdle)
	}
	if !s.now().Before(expires) {
		return nil, errWrong.Because(errors.New("the session has expired"))
	}
	a, err := s.accounts.ByGUID(ctx, guid)
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong.Because(errEnded)
	}
	if err != nil {
		return nil, err
	}
	if !a.Active || a.IdentityCreatedAt.IsZero() || a.Epoch != epoch {
		return nil, errWrong.Because(errEnded)
	}
	return &verifiedCredential{account: a, whole: true, session: id, proven: proven, issued: created, expires: expires,
		revocable: []uuid.UUID{id, signedOut(id)}, binding: epochBinding, bound: epochBinding(a)}, nil
}

// signedOut is the id that is revoked when a session ends because its person signs out. The id of the session itself is
// revoked when somebody ends the session: that ends what was started in it as well, such as an operation.
func signedOut(session uuid.UUID) uuid.UUID { return uuid.NewSHA1(session, []byte("signed out")) }

// EndOwnSession signs out the session with that secret, if there is one, within 5 seconds on every replica. Operations that
// were started in it go on.
func (s *Service) EndOwnSession(ctx context.Context, token secret.Text) error {
	if token == "" {
		return nil
	}
	s.verified.drop(s.cacheKey(Credential{Scheme: Session, Value: token}))
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		var id uuid.UUID
		err := tx.QueryRow(ctx, `DELETE FROM console_sessions WHERE secret_hash = $1 RETURNING id`,
			tokenHash(string(token))).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = revokeID(ctx, tx, signedOut(id), s.now().Add(SessionLongest))
		return err
	})
}

// ProveWithPassword notes that the principal of a session has proved who it is once more, with the password of its account.
func (s *Service) ProveWithPassword(ctx context.Context, p *account.Principal, token secret.Text, password string) error {
	proven, err := s.Proves(ctx, p, password)
	if err != nil {
		return err
	}
	if !proven || p.Origin != account.LocalOrigin {
		return errWrong
	}
	_, err = s.db.Pool.Exec(ctx, `UPDATE console_sessions SET proven_at = $2 WHERE id = $1`, p.Session, s.now())
	s.verified.drop(s.cacheKey(Credential{Scheme: Session, Value: token}))
	return control.Fault(err)
}

// Proven reports whether the principal of a session has proved who it is so lately that no other proof is asked for.
func (s *Service) Proven(ctx context.Context, p *account.Principal) (bool, error) {
	at := p.Proven
	if s.now().Sub(at) >= ProvenFor { // or the proof was given to another replica, in the meantime
		err := s.db.Pool.QueryRow(ctx, `SELECT proven_at FROM console_sessions WHERE id = $1`, p.Session).Scan(&at)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return false, control.Fault(err)
		}
	}
	return s.now().Sub(at) < ProvenFor, nil
}
