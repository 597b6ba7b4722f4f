package identity

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// SessionKind is how an account is signed in.
type SessionKind string

// The kinds of sessions.
const (
	ConsoleSession SessionKind = "console" // in a browser
	LoginSession   SessionKind = "login"   // through an OAuth client, with a refresh token
	TokenSession   SessionKind = "token"   // of a client of Vault
)

// SignedIn is a session of an account: a sign-in that has not ended. Personal access tokens are none.
type SignedIn struct {
	ID       uuid.UUID
	Kind     SessionKind
	Created  time.Time
	LastUsed time.Time // up to a minute late; Created, if it was not used since
	Address  string    // that it began at; of a login, that refreshed it last; "": not known
	Client   string    // the OAuth client, or the browser as it names itself
	Current  bool      // that of the request
}

// vaultClient stands for the clients of Vault, which name none.
const vaultClient = "vault"

// sessions are those of the account with the guid $1 at the time $2. A session of the console has ended if it was last used
// before $3.
const sessions = `
	SELECT c.id, 'console' AS kind, c.created_at AS created, c.last_used_at AS used, c.address, c.client
	FROM console_sessions c JOIN accounts a ON a.id = c.account_id
	WHERE a.guid = $1 AND a.active AND c.epoch = a.epoch AND c.expires_at > $2 AND c.last_used_at > $3
	UNION ALL
	SELECT r.family, 'login', min(r.created_at), max(greatest(r.created_at, r.last_used_at)),
	  (array_agg(r.address ORDER BY r.created_at DESC))[1], min(r.client_id)
	FROM refresh_tokens r JOIN accounts a ON a.id = r.account_id
	WHERE a.guid = $1 AND a.active AND r.epoch = a.epoch AND r.expires_at > $2
	GROUP BY r.family HAVING bool_or(r.replaced_at IS NULL)
	UNION ALL
	SELECT t.id, 'token', t.created_at, coalesce(t.last_used_at, t.created_at), t.address, '` + vaultClient + `'
	FROM personal_tokens t JOIN accounts a ON a.id = t.account_id
	WHERE a.guid = $1 AND a.active AND t.renewable_until IS NOT NULL AND t.epoch = a.epoch AND t.expires_at > $2`

// Sessions lists up to limit sessions of an account, by its guid or name; "": of the principal's. The newest come first,
// behind the session after, if there is one. more says whether others follow. Those of another account are for admins and
// auditors.
func (s *Service) Sessions(ctx context.Context, p *account.Principal, who string, after *SignedIn, limit int) (
	found []SignedIn, more bool, err error) {
	guid, err := s.sessionsOf(ctx, p, who, account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor)
	if err != nil {
		return nil, false, err
	}
	now := s.now()
	behind, args := "", []any{guid, now, now.Add(-SessionIdle)}
	if after != nil {
		behind, args = `WHERE (created, id) < ($4, $5)`, append(args, after.Created, after.ID)
	}
	rows, err := s.db.Pool.Query(ctx, `SELECT id, kind, created, used, address, client FROM (`+sessions+`) s `+behind+`
		ORDER BY created DESC, id DESC LIMIT `+strconv.Itoa(limit+1), args...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (in SignedIn, err error) {
		err = row.Scan(&in.ID, &in.Kind, &in.Created, &in.LastUsed, &in.Address, &in.Client)
		return in, err
	})
	if err != nil {
		return nil, false, control.Fault(err)
	}
	for i := range found {
		found[i].Current = found[i].ID == p.Session || found[i].ID == p.Family || found[i].ID == p.Token
	}
	if more = len(found) > limit; more {
		found = found[:limit]
	}
	return found, more, nil
}

// sessionsOf returns the guid of an account whose sessions the principal wants; one of the scopes is for those of others.
func (s *Service) sessionsOf(ctx context.Context, p *account.Principal, who string, scopes ...string) (string, error) {
	own := who == "" || who == p.GUID || p.Origin == account.LocalOrigin && strings.EqualFold(who, p.Username)
	switch {
	case own:
		return p.GUID, nil
	case !p.Has(scopes...):
		return "", fault.New(fault.Forbidden, "The sessions of another account require the scope %s.",
			strings.Join(scopes, " or "))
	}
	a, err := s.accounts.ByGUID(ctx, who)
	if err == nil {
		return a.GUID, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return "", err
	}
	named, err := s.accounts.GUIDsNamed(ctx, who)
	if err != nil {
		return "", err
	}
	if len(named) == 0 {
		return "", fault.New(fault.NotFound, "There is no account %.100q. Give its guid or its user name.", who)
	}
	return named[0], nil
}

var errSessionsByToken = fault.New(fault.Forbidden, "A token may end its own session only. Sign in to end others.")

// EndSession ends a session of an account, by the account's guid or name; "": of the principal's. All its tokens end within
// 5 seconds on every replica. To end those of another account requires the scope of an admin.
func (s *Service) EndSession(ctx context.Context, p *account.Principal, who, id string) error {
	guid, err := s.sessionsOf(ctx, p, who, account.ScopeAdmin)
	if fault.Is(err, fault.Forbidden) {
		return s.audit.Refuse(ctx, p.Entry(audit.EndSession, "", nil), err)
	}
	if err != nil {
		return err
	}
	missing := fault.New(fault.NotFound, "There is no session %.64q of this account. It may have ended.", id)
	session, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return missing
	}
	if p.Token != uuid.Nil && p.Token != session {
		return s.audit.Refuse(ctx, p.Entry(audit.EndSession, guid, nil), errSessionsByToken)
	}
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		kind, err := s.endSession(ctx, tx, guid, session)
		if err != nil {
			return err
		}
		if kind == "" {
			return missing
		}
		return s.audit.Record(ctx, tx, p.Entry(audit.EndSession, guid, map[string]any{"kind": kind, "ended": session}))
	})
}

// endAtOnce is how many sessions are read at a time to end them.
const endAtOnce = 100

// EndOtherSessions ends all sessions of the principal's account except that of the request, and returns how many it has
// ended.
func (s *Service) EndOtherSessions(ctx context.Context, p *account.Principal) (ended int, err error) {
	var last *SignedIn
	for more := true; more; {
		var found []SignedIn
		if found, more, err = s.Sessions(ctx, p, "", last, endAtOnce); err != nil {
			return ended, err
		}
		for _, in := range found {
			last = &in
			if in.Current {
				continue
			}
			err := s.EndSession(ctx, p, "", in.ID.String())
			if fault.Is(err, fault.NotFound) { // ended in the meantime
				continue
			}
			if err != nil {
				return ended, err
			}
			ended++
		}
	}
	return ended, nil
}

// endSession ends a session and returns its kind, "" if the account has none of that id.
func (s *Service) endSession(ctx context.Context, tx pgx.Tx, guid string, id uuid.UUID) (SessionKind, error) {
	tag, err := tx.Exec(ctx, `
		DELETE FROM console_sessions c USING accounts a WHERE c.id = $1 AND a.id = c.account_id AND a.guid = $2`, id, guid)
	if err != nil {
		return "", err
	}
	if tag.RowsAffected() > 0 {
		_, err := revokeID(ctx, tx, id, s.now().Add(SessionLongest))
		return ConsoleSession, err
	}
	tag, err = tx.Exec(ctx, `
		DELETE FROM personal_tokens t USING accounts a
		WHERE t.id = $1 AND t.renewable_until IS NOT NULL AND a.id = t.account_id AND a.guid = $2`, id, guid)
	if err != nil {
		return "", err
	}
	if tag.RowsAffected() > 0 {
		return TokenSession, nil
	}
	var found bool
	err = tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM refresh_tokens r JOIN accounts a ON a.id = r.account_id WHERE r.family = $1 AND a.guid = $2)`,
		id, guid).Scan(&found)
	if err != nil || !found {
		return "", err
	}
	return LoginSession, s.endFamily(ctx, tx, id)
}
