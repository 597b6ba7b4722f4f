package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// approval is what a person in the console has given a client: a sign-in of the person, which the client fetches with a
// code.
type approval struct {
	guid    string
	epoch   uuid.UUID // of the account at the approval
	session bool      // that it was given in goes on
	client  string
	scopes  []string
	expires time.Time
}

// errNoSession refuses a credential that is no person in the console: a leaked token could become a sign-in that outlives
// it.
var errNoSession = fault.New(fault.Forbidden, "Only a person who is signed in to the console gives a sign-in to a client.")

// mayApprove returns the scopes that the principal may give a client that asks for these; for none: all that it has. The
// principal's account stays as it is until the transaction ends.
func (s *Service) mayApprove(ctx context.Context, tx pgx.Tx, p *account.Principal, asked []string) ([]string, error) {
	if p.Session == uuid.Nil {
		return nil, errNoSession
	}
	if err := s.accounts.CheckActive(ctx, tx, p); err != nil {
		return nil, err
	}
	return narrow(p.Scopes, asked)
}

// approver returns the account of an approval. It is errEnded if the account has ended its sign-ins since, or the session
// has ended; the account is nil then if it is gone.
func (s *Service) approver(ctx context.Context, ap *approval) (*account.Account, error) {
	a, err := s.accounts.ByGUID(ctx, ap.guid)
	if fault.Is(err, fault.NotFound) {
		return nil, errEnded
	}
	if err != nil {
		return nil, err
	}
	if !a.Active || a.IdentityCreatedAt.IsZero() || a.Epoch != ap.epoch || !ap.session {
		return a, errEnded
	}
	return a, nil
}

// login is a sign-in of an account through a client.
type login struct {
	account *account.Account
	client  *Client
	grant   string
	scopes  []string
	family  uuid.UUID // of its refresh tokens
	address string
}

// loginDetail is what the audit log keeps of a sign-in that was approved, denied or given.
type loginDetail struct {
	Client string `json:"client"`
	Grant  string `json:"grant"`
	Device string `json:"device,omitempty"` // its address, if another one approves
}

func (l *login) entry() audit.Entry {
	grant := l.grant
	if grant == GrantPassword { // that with the password itself is not recorded
		grant = grantPasscode
	}
	return audit.Entry{Action: audit.CreateLogin, AccountGUID: l.account.GUID, AccountName: l.account.ShownName(),
		Target: l.account.GUID, Address: l.address, Detail: loginDetail{Client: l.client.id, Grant: grant}}
}

// store stores the first refresh token of the sign-in and returns it; "" if the client may have none.
func (s *Service) store(ctx context.Context, q interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, l *login) (secret.Text, error) {
	if l.client.may(GrantRefresh) != nil {
		return "", nil
	}
	now, refresh := s.now(), newRefreshToken()
	_, err := q.Exec(ctx, insertRefresh, tokenHash(refresh), l.family, l.account.ID, l.account.Epoch, l.client.id, l.scopes,
		now, now.Add(l.client.refresh()), l.address)
	return secret.Text(refresh), err
}

// tokens returns an access token of the sign-in beside its refresh token.
func (s *Service) tokens(ctx context.Context, l *login, refresh secret.Text) (*Tokens, error) {
	family := l.family
	if refresh == "" {
		family = uuid.Nil
	}
	t, err := s.userTokens(ctx, l.account, l.client, l.grant, l.scopes, family)
	if err != nil {
		return nil, err
	}
	t.Refresh = refresh
	return t, nil
}

// fetch gives a client the sign-in whose code it has proven. The statement take takes the code with that hash; taken is
// false if another request was faster.
func (s *Service) fetch(ctx context.Context, l *login, take string, hash []byte) (t *Tokens, taken bool, err error) {
	var refresh secret.Text
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, take, hash)
		if taken = err == nil && tag.RowsAffected() > 0; !taken {
			return err
		}
		if refresh, err = s.store(ctx, tx, l); err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, l.entry())
	})
	if err != nil || !taken {
		return nil, false, err
	}
	t, err = s.tokens(ctx, l, refresh)
	return t, true, err
}

// also adds a cause, for the log, to a fault that has one.
func also(f *fault.Error, cause error) *fault.Error {
	return f.Because(fmt.Errorf("%w: %w", f.Cause, cause))
}
