// Package identity proves who somebody is: passwords and tokens become a Principal. What a principal may do is decided
// elsewhere, and how a credential travels over HTTP is the business of package door and the dialects.
package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/batch"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Config is the configuration of a Service.
type Config struct {
	// Issuer is the issuer of its own tokens.
	Issuer string
	// PublicURL is the base URL under which browsers reach this server, without a slash at the end.
	PublicURL string
	// OIDC are the other issuers whose tokens are accepted.
	OIDC         []OIDCIssuer
	PasswordCost PasswordCost // zero: production's
	Log          *slog.Logger
}

// Service authenticates people and OAuth clients.
type Service struct {
	db       *control.DB
	accounts *account.Store
	audit    *audit.Log
	log      *slog.Logger
	issuer   string
	// publicURL is the base of absolute URLs, without a slash at the end.
	publicURL string
	external  map[string]*externalIssuer // by issuer URL
	people    []*externalIssuer          // at which people sign in
	now       func() time.Time
	hasher    *hasher
	keys      keySet
	throttle  throttle
	tokenUse  tokenUse

	cacheSecret    [32]byte
	verified       credentialCache
	refused        credentialCache // tokens that failed verification lately
	accountLookups batch.Group[*verifiedCredential, *account.Account]

	awayUntil atomic.Int64 // in Unix milliseconds: until then the control database counts as unreachable
}

// New returns a service. It makes the first signing key if there is none.
func New(ctx context.Context, db *control.DB, c Config) (*Service, error) {
	issuers := make([]account.Issuer, len(c.OIDC))
	for i, o := range c.OIDC {
		issuers[i] = account.Issuer{Name: o.Name, Origin: o.Origin(), Links: o.Links}
		for _, l := range o.Labels {
			issuers[i].LabelKeys = append(issuers[i].LabelKeys, l.Key)
		}
	}
	accounts := account.NewStore(db, issuers...)
	s := &Service{
		db:        db,
		accounts:  accounts,
		audit:     accounts.Audit,
		log:       c.Log,
		issuer:    c.Issuer,
		publicURL: c.PublicURL,
		external:  map[string]*externalIssuer{},
		now:       time.Now,
		hasher:    newHasher(c.PasswordCost),
	}
	s.throttle.now = func() time.Time { return s.now() }
	s.accountLookups.Parallel, s.accountLookups.Longest, s.accountLookups.Timeout = control.SignInLooks, 64, lookupTimeout
	_, _ = rand.Read(s.cacheSecret[:]) // never fails since Go 1.24
	external, err := externalIssuers(c, func() time.Time { return s.now() })
	if err != nil {
		return nil, err
	}
	for _, e := range external {
		s.external[e.URL] = e
		if e.ClientID != "" {
			s.people = append(s.people, e)
		}
	}
	return s, s.loadKeys(ctx)
}

// Accounts returns the accounts and, in them, the audit log that the service uses.
func (s *Service) Accounts() *account.Store { return s.accounts }

// Issuer returns the issuer of the service's own tokens.
func (s *Service) Issuer() string { return s.issuer }

// errWrong is the one answer to every credential that fails verification. It does not say which part was wrong.
var errWrong = fault.New(fault.Unauthenticated, "The user name, password or token is wrong, or has expired.")

// Authenticate returns the principal of a credential.
func (s *Service) Authenticate(ctx context.Context, c Credential, address string) (*account.Principal, error) {
	key := s.cacheKey(c)
	v, ok := s.verified.get(key, s.now())
	again := ok && (v.external || v.session != uuid.Nil || v.personal != nil && v.personal.ofSignIn())
	var err error
	if ok {
		v, err = s.recheck(ctx, key, v, address)
	} else {
		v, err = s.verify(ctx, key, c, address)
	}
	// The account is gone or was inactive for a moment. The token of another issuer still says whose it is: the answer is the
	// one that a request gets which comes first. And the token of a sign-in may have been renewed, as a session is by each use.
	if again && fault.Is(err, fault.Unauthenticated) {
		v, err = s.verify(ctx, key, c, address)
	}
	if fault.Is(err, fault.Unauthenticated) {
		s.verified.drop(key)
		if c.signed() {
			s.refused.put(key, &verifiedCredential{checked: s.now()})
		}
	}
	if err != nil {
		return nil, err
	}
	return s.principal(v), nil
}

// verify verifies a credential that is not remembered.
func (s *Service) verify(ctx context.Context, key credentialKey, c Credential, address string) (
	v *verifiedCredential, err error) {
	// What is read now may change while the rest is awaited: the account is read again by the time from here on.
	checked := s.now()
	switch c.Scheme {
	case Basic:
		v, err = s.basic(ctx, string(c.Value), address)
	case Bearer:
		v, err = s.bearer(ctx, string(c.Value), address)
	case Session:
		v, err = s.session(ctx, string(c.Value))
	default:
		err = errWrong
	}
	if err != nil {
		return nil, err
	}
	if err := s.accounts.EnsurePlatformUser(ctx, v.account, address); err != nil {
		return nil, err
	}
	v.checked = checked
	s.verified.put(key, v)
	return v, nil
}

func (s *Service) basic(ctx context.Context, credential, address string) (*verifiedCredential, error) {
	decoded, err := base64.StdEncoding.DecodeString(credential)
	if err != nil {
		return nil, errWrong
	}
	username, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return nil, errWrong
	}
	a, err := s.VerifyPassword(ctx, username, password, address)
	if err != nil {
		return nil, err
	}
	return &verifiedCredential{account: a, whole: true, binding: passwordBinding, bound: passwordBinding(a)}, nil
}

// VerifyPassword returns the local account of that name if the password is its own. Unknown accounts, accounts without
// a password and wrong passwords take the same time and get the same answer; repeated failures are throttled.
func (s *Service) VerifyPassword(ctx context.Context, username, password, address string) (*account.Account, error) {
	return s.prove(ctx, username, address, func() (*account.Account, error) {
		return s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	}, password)
}

// Proves reports whether a password is the principal's own or, of an OAuth client, its secret. A wrong one is
// fault.Unauthenticated; false is one of an account of another origin that has the same name.
func (s *Service) Proves(ctx context.Context, p *account.Principal, password string) (bool, error) {
	var a *account.Account
	var err error
	if p.Username == "" {
		a, err = s.VerifySecret(ctx, p.GUID, p.Address, password)
	} else {
		a, err = s.VerifyPassword(ctx, p.Username, password, p.Address)
	}
	return err == nil && a.GUID == p.GUID, err
}

// Unlock ends the wait of a local account after failed sign-ins, on this replica.
func (s *Service) Unlock(username string) { s.throttle.forgive(username) }

// VerifySecret is VerifyPassword for an OAuth client. The secret is given in each form in which it may have been encoded.
func (s *Service) VerifySecret(ctx context.Context, clientID, address string, secrets ...string) (*account.Account, error) {
	return s.prove(ctx, "client\x00"+clientID, address, func() (*account.Account, error) {
		a, err := s.accounts.ByGUID(ctx, clientID)
		if err == nil && !a.OAuthClient {
			return nil, fault.New(fault.NotFound, "There is no such OAuth client.")
		}
		return a, err
	}, secrets...)
}

// prove returns the account that find finds if one of the secrets is its own. It does the same work, in the same time,
// whether there is an account or not.
func (s *Service) prove(ctx context.Context, who, address string, find func() (*account.Account, error),
	secrets ...string) (*account.Account, error) {
	if err := s.throttle.wait(who, address); err != nil {
		return nil, err
	}
	queue := s.hasher.strangers
	if s.throttle.knows(who, address) {
		queue = s.hasher.known
	}
	leave, err := queue.join()
	if err != nil {
		return nil, err
	}
	defer leave()
	a, err := find()
	if fault.Is(err, fault.NotFound) {
		a, err = &account.Account{GUID: audit.ActorUnknown}, nil
	}
	if err != nil {
		return nil, err
	}
	proven := false
	err = queue.wait(ctx, func() error {
		// Hundreds may have waited in the queue, and must not become as many guesses.
		if err := s.throttle.wait(who, address); err != nil {
			return err
		}
		for _, secret := range secrets {
			ok, err := s.hasher.matches(string(a.PasswordHash), secret)
			if err != nil {
				return err
			}
			proven = proven || ok
		}
		proven = proven && a.Active
		if proven {
			s.throttle.succeeded(who, address)
		} else {
			s.throttle.failed(who, address)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !proven {
		if err := s.audit.FailedSignIn(ctx, a.GUID, address); err != nil {
			s.log.Warn("a failed sign-in was not counted", "error", err)
		}
		return nil, errWrong
	}
	return a, nil
}

// SignIns is how many sign-ins this process has seen, with a password, client secret or passcode.
type SignIns struct {
	Succeeded int64
	Failed    int64 // wrong user codes included
	Throttled int64 // refused because of failed ones before
}

// SignIns returns the sign-ins since the start.
func (s *Service) SignIns() SignIns {
	n := &s.throttle.counted
	return SignIns{n.succeeded.Load(), n.failed.Load(), n.throttled.Load()}
}

// Hash checks a new password or client secret, and returns what is stored of it.
func (s *Service) Hash(ctx context.Context, password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	return s.hasher.hash(ctx, password)
}

// Bootstrap creates an admin account, or resets the password and scopes of an existing account. It needs only the control
// database, for the first start and for the case that nobody can sign in.
func (s *Service) Bootstrap(ctx context.Context, username, password string) (guid string, created bool, err error) {
	return s.bootstrap(ctx, username, password, false)
}

// BootstrapIfMissing is Bootstrap, but changes nothing and returns no guid if somebody can sign in as an admin. Of several
// that run at once, one creates the account.
func (s *Service) BootstrapIfMissing(ctx context.Context, username, password string) (guid string, created bool, err error) {
	return s.bootstrap(ctx, username, password, true)
}

// HasAdmin reports whether somebody can sign in as an admin.
func (s *Service) HasAdmin(ctx context.Context) (bool, error) {
	return s.accounts.HasAdmin(ctx, s.db.Pool)
}

// lockBootstrap is the key of the advisory lock of BootstrapIfMissing. The bytes of "admin".
const lockBootstrap = 0x61646d696e

func (s *Service) bootstrap(ctx context.Context, username, password string, ifMissing bool) (
	guid string, created bool, err error) {
	hash, err := s.Hash(ctx, password)
	if err != nil {
		return "", false, err
	}
	entry := audit.Entry{AccountGUID: audit.ActorBootstrap, AccountName: audit.ActorBootstrap, Target: username}
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		if ifMissing {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockBootstrap)); err != nil {
				return err
			}
			if has, err := s.accounts.HasAdmin(ctx, tx); has || err != nil {
				return err
			}
		}
		a, err := s.accounts.ByUsername(ctx, username, account.LocalOrigin)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if a != nil {
			entry.Action, guid = audit.ResetAccount, a.GUID
			if err := s.accounts.Reset(ctx, tx, a.ID, hash, account.AdminScopes); err != nil {
				return err
			}
			return s.audit.Record(ctx, tx, entry)
		}
		created = true
		entry.Action = audit.CreateAccount
		if guid, err = s.accounts.Create(ctx, tx, username, hash, account.AdminScopes); err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, entry)
	})
	return guid, created, err
}

// GUID returns the guid of a local account.
func (s *Service) GUID(ctx context.Context, username string) (string, error) {
	a, err := s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	if err != nil {
		return "", err
	}
	return a.GUID, nil
}
