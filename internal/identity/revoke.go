package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Revoke ends a token within 5 seconds on every replica: an access token, a refresh token with its family
// and their access tokens, or a personal access token. A token that is unknown, has ended, or is another issuer's is no
// failure (RFC 7009, 2.2): there is nothing to end here. A token that was issued to another client stays valid, and is no
// failure either: clients expect 200 for every token. The public clients end each other's tokens, because none of them
// proves which it is.
func (s *Service) Revoke(ctx context.Context, c *Client, token, address string) error {
	s.verified.drop(s.cacheKey(ParseCredential("Bearer " + token)))
	switch {
	case strings.HasPrefix(token, personalPrefix):
		return s.revokePersonal(ctx, token, address)
	case strings.Count(token, ".") == 2:
		return s.revokeAccess(ctx, c, token, address)
	}
	return s.revokeRefresh(ctx, c, token, address)
}

// mayRevoke reports whether the client ends tokens that were issued to a client.
func (c *Client) mayRevoke(issuedTo string) bool {
	return issuedTo == c.id || c.account == nil && slices.Contains(PublicClients, issuedTo)
}

func (s *Service) revokeAccess(ctx context.Context, c *Client, token, address string) error {
	unverified, _, err := jwt.NewParser().ParseUnverified(token, &jwt.RegisteredClaims{})
	if err != nil {
		return nil
	}
	t, err := s.ownClaims(ctx, token, unverified)
	if fault.Is(err, fault.Unauthenticated) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.mayRevoke(t.ClientID) {
		return nil
	}
	a, err := s.accounts.ByGUID(ctx, t.account())
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.endAccess(ctx, t, revoked(a.GUID, a.ShownName(), c.id, address))
}

// endAccess ends an access token that is verified, and records that unless it has ended before.
func (s *Service) endAccess(ctx context.Context, c *claims, e audit.Entry) error {
	id, err := uuid.Parse(c.ID)
	if err != nil {
		return nil
	}
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		fresh, err := revokeID(ctx, tx, id, c.ExpiresAt.Time)
		if err != nil || !fresh {
			return err
		}
		return s.audit.Record(ctx, tx, e)
	})
}

func (s *Service) revokeRefresh(ctx context.Context, c *Client, token, address string) error {
	r, err := findRefresh(ctx, s.db.Pool, token)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return control.Fault(err)
	}
	if !c.mayRevoke(r.clientID) {
		return nil
	}
	a, err := s.accounts.ByGUID(ctx, r.guid)
	if fault.Is(err, fault.NotFound) {
		return nil // its tokens went with it
	}
	if err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := s.endFamily(ctx, tx, r.family); err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, revoked(a.GUID, a.ShownName(), c.id, address))
	})
}

func (s *Service) revokePersonal(ctx context.Context, token, address string) error {
	v, err := s.personalBearer(ctx, token)
	if fault.Is(err, fault.Unauthenticated) {
		return nil
	}
	if err != nil {
		return err
	}
	p := s.principal(v)
	p.Address = address
	err = s.RevokePersonalToken(ctx, p, v.personal.ID.String())
	if fault.Is(err, fault.NotFound) {
		return nil // another request was faster
	}
	return err
}

func revoked(guid, name, client, address string) audit.Entry {
	return audit.Entry{Action: audit.RevokeTokens, AccountGUID: guid, AccountName: name, Target: guid, Address: address,
		Detail: revokedByHolder(client)}
}

func revokedByHolder(client string) map[string]any {
	return map[string]any{"client": client, "reason": "its holder revoked it"}
}

// endFamily ends the refresh tokens of one sign-in, and the access tokens that came with them.
func (s *Service) endFamily(ctx context.Context, tx pgx.Tx, family uuid.UUID) error {
	if err := lockFamily(ctx, tx, family); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM refresh_tokens WHERE family = $1`, family); err != nil {
		return err
	}
	_, err := revokeID(ctx, tx, family, s.now().Add(longestLifetime))
	return err
}

// familyLock is the class of the locks under which the tokens of a family are replaced or deleted: a deletion does not see
// the row that a concurrent refresh adds. The bytes of "fami".
const familyLock = 0x66616d69

func lockFamily(ctx context.Context, tx pgx.Tx, family uuid.UUID) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, hashtext($2))`, familyLock, family.String())
	return err
}

// revokeID notes the id of an access token or of a family, until what it ends has expired anyway. fresh says that it was not
// noted before.
func revokeID(ctx context.Context, tx pgx.Tx, id uuid.UUID, expires time.Time) (fresh bool, err error) {
	tag, err := tx.Exec(ctx, `INSERT INTO revoked_tokens (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, expires)
	return tag.RowsAffected() > 0, err
}

// revokedAmong returns which of the ids are revoked.
func revokedAmong(ctx context.Context, q control.Querier, ids []uuid.UUID) ([]uuid.UUID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := q.Query(ctx, `SELECT id FROM revoked_tokens WHERE id = ANY ($1)`, ids)
	if err != nil {
		return nil, control.Fault(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	return found, control.Fault(err)
}

// issued is when the token was made, as it says.
func (c *claims) issued() (at time.Time) {
	if c.IssuedAt != nil {
		at = c.IssuedAt.Time
	}
	return at
}

// account is the guid of the account whose token it is.
func (c *claims) account() string {
	if c.UserID != "" {
		return c.UserID
	}
	return c.ClientID
}

// revocable are the ids under which the token may have been revoked.
func (c *claims) revocable() []uuid.UUID {
	var ids []uuid.UUID
	for _, text := range []string{c.ID, c.Family} {
		if id, err := uuid.Parse(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
