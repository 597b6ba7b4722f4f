package identity

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// Scheme is a scheme of HTTP authentication, in lower case.
type Scheme string

// The schemes of credentials.
const (
	Basic  Scheme = "basic"
	Bearer Scheme = "bearer"
	// Session is no scheme of HTTP: a browser proves its session with a cookie.
	Session Scheme = "session"
)

// Credential is what a request proves its account with.
type Credential struct {
	Scheme Scheme
	Value  secret.Text

	key credentialKey // under which the service remembers it; zero: WithKey has not computed it
}

// ParseCredential reads the value of an Authorization header.
func ParseCredential(authorization string) Credential {
	scheme, value, _ := strings.Cut(authorization, " ")
	return Credential{Scheme: Scheme(strings.ToLower(scheme)), Value: secret.Text(strings.TrimSpace(value))}
}

// signed reports whether the credential is a token with a signature, if it is anything.
func (c Credential) signed() bool {
	return c.Scheme == Bearer && !strings.HasPrefix(string(c.Value), personalPrefix)
}

// Stranger reports whether the work that it takes to verify the credential is more than a stranger may cause without end.
// That is so for a password hash or a query, not for a signature alone. A credential that was verified within the last
// minute is no stranger's; a token that was refused within the last minute is.
func (s *Service) Stranger(c Credential) bool {
	key, now := s.cacheKey(c), s.now()
	if _, ok := s.verified.get(key, now); ok {
		return false
	}
	_, refused := s.refused.get(key, now)
	return refused || !c.signed()
}

// Remote reports whether verifying the credential may take a request to another server: it is a token that names another
// issuer, and was not verified within the last minute. Anybody may have written it.
func (s *Service) Remote(c Credential) bool {
	if !c.signed() {
		return false
	}
	if _, ok := s.verified.get(s.cacheKey(c), s.now()); ok {
		return false
	}
	var unverified jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(string(c.Value), &unverified)
	return err == nil && s.external[unverified.Issuer] != nil
}

const (
	freshFor = 5 * time.Second
	// FreshWhileAway is how long a verified credential stays valid while the control database is unreachable.
	FreshWhileAway = time.Minute
	// After a lookup that takes longer than lookupTimeout the control database counts as unreachable, and for awayFor no
	// other request waits for one.
	lookupTimeout = 2 * time.Second
	awayFor       = time.Second
)

// verifiedCredential is what is remembered of a credential.
type verifiedCredential struct {
	account  *account.Account
	whole    bool      // it carries every scope that its account has
	scopes   []string  // else what it carries; the account itself may have fewer in the meantime
	issued   time.Time // of a token or session
	session  uuid.UUID // in a browser; zero: it is none
	family   uuid.UUID // of the refresh token that an access token of ours came with; zero: it came with none
	proven   time.Time // when the person of the session last proved who they are
	expires  time.Time // zero: never
	checked  time.Time
	external bool // another issuer's token
	// revocable are the ids under which an access token of ours, or a session, may be revoked.
	revocable []uuid.UUID
	// personal is the personal access token that the credential is, nil for any other.
	personal *PersonalToken
	// binding is the part of the account that the credential depends on: bound was its value when it was verified.
	binding func(*account.Account) string
	bound   string
}

// passwordBinding contains the name and origin, because Basic finds the account by these.
func passwordBinding(a *account.Account) string {
	return string(a.PasswordHash) + "\x00" + strings.ToLower(a.Username) + "\x00" + a.Origin
}

func epochBinding(a *account.Account) string { return a.Epoch.String() }

// principal is the principal of a request with the credential.
func (s *Service) principal(v *verifiedCredential) *account.Principal {
	a := v.account
	p := &account.Principal{GUID: a.GUID, Username: a.Username, Origin: a.Origin, Epoch: a.Epoch,
		Labels: a.Labels, LabelSources: a.LabelSources, Issued: v.issued, Expires: v.expires}
	if v.whole {
		p.Scopes = a.Scopes
	} else {
		p.Scopes = common(a.Scopes, v.scopes)
	}
	if len(v.revocable) > 0 {
		p.AccessToken = v.revocable[0]
	}
	if v.family != uuid.Nil {
		p.Family = v.family
		s.tokenUse.note(v.family, s.now())
	}
	if v.session != uuid.Nil {
		p.Session, p.Proven = v.session, v.proven
		s.tokenUse.note(v.session, s.now())
	}
	if t := v.personal; t != nil {
		p.Limit(t.ID, t.ReadOnly, t.Clusters)
		p.Credentials = t.Credentials
		s.tokenUse.note(t.ID, s.now())
	}
	return p
}

// recheck verifies a remembered credential against its account, which is looked up again every 5 seconds: what the account
// has lost ends within that time. While the control database is unreachable, it ends within a minute.
func (s *Service) recheck(ctx context.Context, key credentialKey, v *verifiedCredential,
	address string) (*verifiedCredential, error) {
	now := s.now()
	age := now.Sub(v.checked)
	if !v.expires.IsZero() && now.After(v.expires) {
		return nil, errWrong
	}
	if age < freshFor || s.away() && age < FreshWhileAway {
		return v, nil
	}
	a, err := s.accountLookups.Do(ctx, v, s.lookUpAccounts)
	if fault.Is(err, fault.Unavailable) && age < FreshWhileAway {
		return v, nil
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	if a == nil || !a.Active || v.binding(a) != v.bound {
		return nil, errWrong
	}
	if err := s.accounts.EnsurePlatformUser(ctx, a, address); err != nil {
		return nil, err
	}
	fresh := *v
	fresh.account, fresh.checked = a, now
	s.verified.put(key, &fresh)
	return &fresh, nil
}

// away reports that the control database did not answer a moment ago.
func (s *Service) away() bool { return s.now().Before(time.UnixMilli(s.awayUntil.Load())) }

var errAway = fault.New(fault.Unavailable, "The control database does not answer. Nothing was changed.").AsOutage().
	After(5 * time.Second)

// lookUpAccounts reads the accounts of remembered credentials, nil for each credential that has ended. Only the lookup
// itself finds out that the control database is unreachable: a caller that waits in line has not, and one that hangs up
// does not end the lookup.
func (s *Service) lookUpAccounts(ctx context.Context, vs []*verifiedCredential) ([]*account.Account, error) {
	if s.away() {
		return nil, errAway
	}
	guids, tokens, revocable := make([]string, len(vs)), make([]uuid.UUID, 0, len(vs)), make([]uuid.UUID, 0, 2*len(vs))
	for i, v := range vs {
		guids[i] = v.account.GUID
		revocable = append(revocable, v.revocable...)
		if v.personal != nil {
			tokens = append(tokens, v.personal.ID)
		}
	}
	left, err := s.personalTokensLeft(ctx, tokens)
	var revoked []uuid.UUID
	if err == nil {
		revoked, err = revokedAmong(ctx, s.db.SignIn, revocable)
	}
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
	for i, v := range vs {
		ended := slices.ContainsFunc(v.revocable, func(id uuid.UUID) bool { return slices.Contains(revoked, id) })
		if ended || v.personal != nil && !slices.Contains(left, v.personal.ID) {
			accounts[i] = nil
		}
	}
	return accounts, nil
}

// credentialCache remembers credentials for a minute, so that neither argon2id nor a signature is computed for each
// request. Neither the credential nor a plain hash of it is kept.
type credentialCache struct {
	mu      sync.RWMutex
	entries map[credentialKey]*verifiedCredential
	swept   time.Time
}

// credentialKey is a hash of a secret of this process and a credential. Keys are compared, and never leave the process. So
// the secret in front of the credential is enough, without HMAC. HMAC prevents that somebody who sees the hash of one text
// extends it to that of a longer text.
type credentialKey [sha256.Size]byte

// WithKey returns the credential with its key. Everything that this service does with it then computes no key.
func (s *Service) WithKey(c Credential) Credential {
	c.key = s.cacheKey(c)
	return c
}

// cacheKey hashes the secret, which is of one length, the scheme, which has no zero byte, and the value. So no two
// credentials give the same text.
func (s *Service) cacheKey(c Credential) credentialKey {
	if c.key != (credentialKey{}) {
		return c.key
	}
	text := append(make([]byte, 0, 1024), s.cacheSecret[:]...) // on the stack, if the credential is not a long one
	text = append(append(text, c.Scheme...), 0)
	return sha256.Sum256(append(text, c.Value...))
}

func (k *credentialCache) get(key credentialKey, now time.Time) (*verifiedCredential, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	v, ok := k.entries[key]
	return v, ok && now.Sub(v.checked) < FreshWhileAway
}

// maxCached bounds the memory of a cache, a few hundred bytes an entry.
const maxCached = 10_000

func (k *credentialCache) put(key credentialKey, v *verifiedCredential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries == nil {
		k.entries = map[credentialKey]*verifiedCredential{}
	}
	keep, now := FreshWhileAway, v.checked
	full := len(k.entries) >= maxCached
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
	if _, there := k.entries[key]; there || len(k.entries) < maxCached {
		k.entries[key] = v
	}
}

func (k *credentialCache) drop(key credentialKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, key)
}
