// Package identity proves who somebody is: passwords and tokens become a Principal. What a principal may do is decided
// elsewhere, and where dialects differ in how a credential travels over HTTP, that is their business.
package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"sync"
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

// Config is what a Service is told.
type Config struct {
	// Issuer is the URL that its own tokens are issued by.
	Issuer string
	// OIDC are the other issuers whose tokens are taken.
	OIDC         []OIDCIssuer
	PasswordCost PasswordCost // zero: production's
	Log          *slog.Logger
}

// Service signs people and programs in.
type Service struct {
	db       *control.DB
	accounts *account.Store
	audit    *audit.Log
	log      *slog.Logger
	issuer   string
	external map[string]*externalIssuer // by issuer URL
	now      func() time.Time
	hasher   *hasher
	keys     keySet
	guard    guard
	known    knownCredentials
	uses     uses
	looks    batch.Group[*knownCredential, *account.Account]

	awayUntil atomic.Int64 // in Unix milliseconds: until then the control database is taken to be away
}

// New returns a service. It makes the first signing key when there is none.
func New(ctx context.Context, db *control.DB, c Config) (*Service, error) {
	s := &Service{
		db:       db,
		accounts: &account.Store{DB: db},
		audit:    &audit.Log{DB: db},
		log:      c.Log,
		issuer:   c.Issuer,
		now:      time.Now,
		hasher:   newHasher(c.PasswordCost),
	}
	s.guard.now = func() time.Time { return s.now() }
	s.looks.Parallel, s.looks.Longest, s.looks.Timeout = control.SignInLooks, 64, lookTimeout
	s.looks.SplitOn = func(error) bool { return false }
	_, _ = rand.Read(s.known.secret[:]) // never fails since Go 1.24
	var err error
	if s.external, err = externalIssuers(c, func() time.Time { return s.now() }); err != nil {
		return nil, err
	}
	return s, s.loadKeys(ctx)
}

// Issuer returns the URL that the service's own tokens are issued by.
func (s *Service) Issuer() string { return s.issuer }

// errWrong is the one answer to every credential that does not hold. Which part was wrong is nobody's business.
var errWrong = fault.New(fault.Unauthenticated, "The user name, password or token is wrong, or has expired.")

// SignIn takes the value of an Authorization header, Basic or Bearer, and returns whose it is.
func (s *Service) SignIn(ctx context.Context, authorization, address string) (*account.Principal, error) {
	if authorization == "" {
		return nil, fault.New(fault.Unauthenticated, "Sign in: send user name and password (Basic) or a token (Bearer) in the Authorization header.")
	}
	scheme, credential, _ := strings.Cut(authorization, " ")
	credential = strings.TrimSpace(credential)
	key := s.known.key(scheme, credential)
	if c, ok := s.known.get(key, s.now()); ok {
		return s.recheck(ctx, key, c, address)
	}
	var c *knownCredential
	var err error
	switch strings.ToLower(scheme) {
	case "basic":
		c, err = s.basic(ctx, credential, address)
	case "bearer":
		c, err = s.bearer(ctx, credential, address)
	default:
		return nil, fault.New(fault.Unauthenticated, "The scheme of the Authorization header is not taken; send Basic or Bearer.")
	}
	if err != nil {
		return nil, err
	}
	if err := s.accounts.FirstUse(ctx, c.account, address); err != nil {
		return nil, err
	}
	s.known.put(key, c, s.now())
	return s.principal(c), nil
}

func (s *Service) basic(ctx context.Context, credential, address string) (*knownCredential, error) {
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
	return &knownCredential{account: a, whole: true, binding: passwordBinding, bound: passwordBinding(a)}, nil
}

// VerifyPassword returns the local account of that name if the password is its own. Unknown accounts, accounts without
// a password and wrong passwords take the same time and get the same answer; repeated failures have to wait.
func (s *Service) VerifyPassword(ctx context.Context, username, password, address string) (*account.Account, error) {
	return s.prove(ctx, username, address, func() (*account.Account, error) {
		return s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	}, password)
}

// VerifySecret is VerifyPassword for a program. The secret is given in each way in which it may have been meant.
func (s *Service) VerifySecret(ctx context.Context, clientID, address string, secrets ...string) (*account.Account, error) {
	return s.prove(ctx, "program\x00"+clientID, address, func() (*account.Account, error) {
		a, err := s.accounts.ByGUID(ctx, clientID)
		if err == nil && !a.Program {
			return nil, fault.New(fault.NotFound, "There is no such program.")
		}
		return a, err
	}, secrets...)
}

// prove returns the account that find finds if one of the secrets is its own. All that it does and how long that takes
// is the same whether there is an account or not.
func (s *Service) prove(ctx context.Context, who, address string, find func() (*account.Account, error), secrets ...string) (*account.Account, error) {
	if err := s.guard.wait(who, address); err != nil {
		return nil, err
	}
	line := s.hasher.strangers
	if s.guard.knows(who, address) {
		line = s.hasher.known
	}
	leave, err := line.join()
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
	err = line.turn(ctx, func() error {
		// Hundreds may have waited for their turn, and must not be as many guesses.
		if err := s.guard.wait(who, address); err != nil {
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
			s.guard.succeeded(who, address)
		} else {
			s.guard.failed(who, address)
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

// Hash returns what is stored of a new password or client secret.
func (s *Service) Hash(ctx context.Context, password string) (string, error) {
	return s.hasher.hash(ctx, password)
}

// recheck answers for a credential that was verified before. Its account is looked up again every 5 seconds, so that
// what was taken from it ends within that time; while the control database is away, a minute.
func (s *Service) recheck(ctx context.Context, key credentialKey, c *knownCredential, address string) (*account.Principal, error) {
	now := s.now()
	age := now.Sub(c.checked)
	if !c.expires.IsZero() && now.After(c.expires) {
		s.known.drop(key)
		return nil, errWrong
	}
	if age < freshFor || s.away() && age < FreshWhileAway {
		return s.principal(c), nil
	}
	a, err := s.looks.Do(ctx, c, s.lookAgain)
	if fault.Is(err, fault.Unavailable) && age < FreshWhileAway {
		return s.principal(c), nil
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	if a == nil || !a.Active || c.binding(a) != c.bound {
		s.known.drop(key)
		return nil, errWrong
	}
	if err := s.accounts.FirstUse(ctx, a, address); err != nil {
		return nil, err
	}
	fresh := *c
	fresh.account = a
	s.known.put(key, &fresh, now)
	return s.principal(&fresh), nil
}

// away reports that the control database did not answer a moment ago.
func (s *Service) away() bool { return s.now().Before(time.UnixMilli(s.awayUntil.Load())) }

var errAway = fault.New(fault.Unavailable, "The control database does not answer. Nothing was changed.").After(5 * time.Second)

// lookAgain reads the accounts of credentials that were verified before, nil for each credential that is gone. Whoever
// waits for their turn has not seen the control database away, and whoever hangs up ends no look: only the looks themselves
// tell.
func (s *Service) lookAgain(ctx context.Context, cs []*knownCredential) ([]*account.Account, error) {
	if s.away() {
		return nil, errAway
	}
	guids, tokens := make([]string, len(cs)), make([]uuid.UUID, 0, len(cs))
	for i, c := range cs {
		guids[i] = c.account.GUID
		if c.personal != nil {
			tokens = append(tokens, c.personal.ID)
		}
	}
	left, err := s.personalTokensLeft(ctx, tokens)
	var accounts []*account.Account
	if err == nil {
		accounts, err = s.accounts.Again(ctx, guids)
	}
	if fault.Is(err, fault.Unavailable) {
		s.awayUntil.Store(s.now().Add(awayFor).UnixMilli())
	}
	if err != nil {
		return nil, err
	}
	for i, c := range cs {
		if c.personal != nil && !slices.Contains(left, c.personal.ID) {
			accounts[i] = nil
		}
	}
	return accounts, nil
}

const (
	freshFor = 5 * time.Second
	// FreshWhileAway is how long a credential that was verified goes on being taken while the control database is away.
	FreshWhileAway = time.Minute
	// A look that takes longer than lookTimeout counts as the control database being away, and for awayFor no other
	// request waits for one.
	lookTimeout = 2 * time.Second
	awayFor     = time.Second
)

// knownCredentials remembers verified credentials under a keyed hash, so that neither argon2id nor a signature is
// computed for each request. Neither the credential nor a plain hash of it is kept.
type knownCredentials struct {
	secret  [32]byte
	mu      sync.RWMutex
	entries map[credentialKey]*knownCredential
	swept   time.Time
}

type credentialKey [sha256.Size]byte

type knownCredential struct {
	account *account.Account
	whole   bool      // it carries every scope that its account has
	scopes  []string  // else what it carries; the account's own may be fewer by now
	expires time.Time // zero: never
	checked time.Time
	// personal is the personal access token that the credential is, nil for any other.
	personal *PersonalToken
	// binding is the part of the account that the credential depends on: bound was its value when it was verified.
	binding func(*account.Account) string
	bound   string
}

// passwordBinding holds the name and origin, because Basic is taken of an account by these.
func passwordBinding(a *account.Account) string {
	return string(a.PasswordHash) + "\x00" + strings.ToLower(a.Username) + "\x00" + a.Origin
}

func epochBinding(a *account.Account) string { return a.Epoch.String() }

// principal is whose request it is that came with the credential.
func (s *Service) principal(c *knownCredential) *account.Principal {
	p := &account.Principal{GUID: c.account.GUID, Username: c.account.Username, Origin: c.account.Origin, Labels: c.account.Labels, Epoch: c.account.Epoch}
	if c.whole {
		p.Scopes = c.account.Scopes
	} else {
		p.Scopes = common(c.account.Scopes, c.scopes)
	}
	if t := c.personal; t != nil {
		p.Limit(t.ID, t.ReadOnly, t.Clusters)
		s.uses.note(t.ID, s.now())
	}
	return p
}

func (k *knownCredentials) key(scheme, credential string) credentialKey {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte(strings.ToLower(scheme)))
	mac.Write([]byte{0})
	mac.Write([]byte(credential))
	return credentialKey(mac.Sum(nil))
}

func (k *knownCredentials) get(key credentialKey, now time.Time) (*knownCredential, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, ok := k.entries[key]
	return c, ok && now.Sub(c.checked) < FreshWhileAway
}

// maxKnown bounds the memory of remembered credentials, a few hundred bytes each.
const maxKnown = 10_000

func (k *knownCredentials) put(key credentialKey, c *knownCredential, now time.Time) {
	c.checked = now
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries == nil {
		k.entries = map[credentialKey]*knownCredential{}
	}
	keep := FreshWhileAway
	full := len(k.entries) >= maxKnown
	if full {
		keep = freshFor
	}
	if since := now.Sub(k.swept); since > FreshWhileAway || full && since > time.Second {
		for old, e := range k.entries {
			if now.Sub(e.checked) > keep {
				delete(k.entries, old)
			}
		}
		k.swept = now
	}
	if _, known := k.entries[key]; known || len(k.entries) < maxKnown {
		k.entries[key] = c
	}
}

func (k *knownCredentials) drop(key credentialKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, key)
}

// Bootstrap makes an account with every right, or gives an existing one a new password and every right. It works on the
// control database alone, for the first start and for when nobody can sign in any more.
func (s *Service) Bootstrap(ctx context.Context, username, password string) (guid string, created bool, err error) {
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return "", false, err
	}
	a, err := s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", false, err
	}
	entry := audit.Entry{AccountGUID: audit.ActorBootstrap, AccountName: audit.ActorBootstrap, Target: username}
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		if a != nil {
			entry.Action, guid = audit.ResetAccount, a.GUID
			if err := s.accounts.Reset(ctx, tx, a.ID, hash, account.AdminScopes); err != nil {
				return err
			}
			return audit.Record(ctx, tx, entry)
		}
		created = true
		entry.Action = audit.CreateAccount
		if guid, err = s.accounts.Create(ctx, tx, username, hash, account.AdminScopes); err != nil {
			return err
		}
		return audit.Record(ctx, tx, entry)
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
