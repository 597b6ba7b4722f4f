package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/fault"
)

// The limits of requests to an issuer.
const (
	issuerTimeout  = 5 * time.Second
	issuerPause    = time.Second // between two requests for the same thing
	issuerMaxBytes = 1 << 20
)

// signatures are the accepted algorithms (RFC 8725, 3.1): none that is symmetric, and not "none".
var signatures = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

type externalIssuer struct {
	OIDCIssuer
	client *http.Client // for its documents and keys
	once   *http.Client // for everything else
	now    func() time.Time
	log    *slog.Logger

	mu        sync.Mutex
	documents *issuerDocuments // nil: they were not read yet
}

// issuerDocuments are what discovery says of an issuer, as far as it is needed here.
type issuerDocuments struct {
	provider *oidc.Provider
	keys     oidc.KeySet

	Keys        string   `json:"jwks_uri"`
	Scopes      []string `json:"scopes_supported"`
	Claims      []string `json:"claims_supported"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	NamesIssuer bool     `json:"authorization_response_iss_parameter_supported"`
}

// externalIssuers are the issuers of a configuration, in its order.
func externalIssuers(c Config, now func() time.Time) ([]*externalIssuer, error) {
	var issuers []*externalIssuer
	for _, i := range c.OIDC {
		issuers = append(issuers, &externalIssuer{
			OIDCIssuer: i,
			client:     &http.Client{Timeout: issuerTimeout, Transport: &sparing{now: now, last: map[string]asked{}}},
			once:       sentOnce(),
			now:        now,
			log:        c.Log,
		})
	}
	return issuers, CheckOIDCIssuers(c.Issuer, c.OIDC)
}

// sparing sends a request for the same URL at most once a second: anybody can send tokens with unknown key ids, and each
// would ask the issuer for its keys. In between, the last error is returned again.
type sparing struct {
	now  func() time.Time
	mu   sync.Mutex
	last map[string]asked
}

type asked struct {
	at  time.Time
	err error
}

var errSparing = errors.New("the issuer was asked a moment ago")

// RoundTrip implements http.RoundTripper.
func (t *sparing) RoundTrip(req *http.Request) (*http.Response, error) {
	target := req.URL.String()
	t.mu.Lock()
	last, now := t.last[target], t.now()
	soon := now.Sub(last.at) < issuerPause
	if !soon {
		t.last[target] = asked{at: now}
	}
	t.mu.Unlock()
	if soon {
		return nil, cmp.Or(last.err, errSparing)
	}
	resp, err := bounded{}.RoundTrip(req)
	if err != nil {
		t.mu.Lock()
		t.last[target] = asked{t.now(), err} // it may have taken its time
		t.mu.Unlock()
	}
	return resp, err
}

// bounded reads no answer that is long. A failure of the issuer is an error.
type bounded struct{}

// RoundTrip implements http.RoundTripper.
func (bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 500 {
		resp.Body.Close()
		return nil, fmt.Errorf("the issuer answered %s", resp.Status)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, issuerMaxBytes), resp.Body}
	return resp, nil
}

// read returns the issuer's documents. They are read when they are first needed, and until that succeeds.
func (e *externalIssuer) read(ctx context.Context) (*issuerDocuments, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.documents != nil {
		return e.documents, nil
	}
	ctx = oidc.ClientContext(ctx, e.client)
	provider, err := oidc.NewProvider(ctx, e.URL)
	if err != nil {
		return nil, e.away(err)
	}
	d := &issuerDocuments{provider: provider}
	if err := provider.Claims(d); err != nil {
		return nil, e.away(err)
	}
	d.keys = oidc.NewRemoteKeySet(ctx, d.Keys)
	e.documents = d
	return d, nil
}

// ErrIssuerUnreachable is a cause: the token may be anybody's.
var ErrIssuerUnreachable = errors.New("the issuer cannot be reached")

func (e *externalIssuer) away(err error) error {
	return fault.New(fault.Unavailable, "The issuer of the token does not answer, so the token cannot be verified.").AsOutage().
		After(issuerPause).Because(errors.Join(ErrIssuerUnreachable, err))
}

// fetchedKeys are the keys of an issuer for one token. The library does not tell keys that could not be fetched from a
// wrong signature: unreachable is the error of the fetch, nil if the keys were there.
type fetchedKeys struct {
	oidc.KeySet
	unreachable error
}

// VerifySignature implements oidc.KeySet.
func (k *fetchedKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	if _, isURL := errors.AsType[*url.Error](err); isURL && !errors.Is(err, errSparing) || ctx.Err() != nil {
		k.unreachable = err
	}
	return payload, err
}

// verify returns a token of the issuer for an audience, and its claims.
func (e *externalIssuer) verify(ctx context.Context, token, audience string) (*oidc.IDToken, map[string]any, error) {
	d, err := e.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	fetched := &fetchedKeys{KeySet: d.keys}
	config := &oidc.Config{ClientID: audience, SupportedSigningAlgs: signatures, Now: e.now}
	t, err := oidc.NewVerifier(e.URL, fetched, config).Verify(ctx, token)
	if fetched.unreachable != nil {
		return nil, nil, e.away(fetched.unreachable)
	}
	if err != nil {
		return nil, nil, errWrong.Because(e.whyRefused(token, audience))
	}
	if t.Subject == "" {
		return nil, nil, errWrong.Because(fmt.Errorf("the token of %s has no subject", e.URL))
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil {
		return nil, nil, errWrong.Because(fmt.Errorf("the claims of the token of %s cannot be read", e.URL))
	}
	return t, claims, nil
}

// username is the name that the account of a token's subject should have. An e-mail address is one only if the issuer has
// verified that it is the subject's: else anybody could be called like anybody.
func (e *externalIssuer) username(named map[string]any) string {
	claims := []string{"preferred_username", "email", "sub"}
	if e.UsernameClaim != "" {
		claims = []string{e.UsernameClaim, "sub"}
	}
	for _, claim := range claims {
		// Amazon Cognito sends the text.
		if verified := named["email_verified"]; claim == "email" && verified != true && verified != "true" {
			continue
		}
		if username, _ := named[claim].(string); username != "" {
			return serviceAccount(username)
		}
	}
	return ""
}

// serviceAccount is the name for a service account of Kubernetes, whose subject is system:serviceaccount:NAMESPACE:NAME: no
// user name has a colon. Any other name stays as it is.
func serviceAccount(name string) string {
	if place, found := strings.CutPrefix(name, "system:serviceaccount:"); found {
		return strings.Replace(place, ":", "/", 1)
	}
	return name
}

// whyRefused is for the log: what is wrong with a token whose verification failed. Its signature is the last thing to be
// checked, so anybody may have written the rest; nothing long is quoted.
func (e *externalIssuer) whyRefused(token, audience string) error {
	var c jwt.RegisteredClaims
	t, _, err := jwt.NewParser().ParseUnverified(token, &c)
	if err != nil {
		return fmt.Errorf("the token of %s cannot be read", e.URL)
	}
	kid, _ := t.Header["kid"].(string)
	algorithm, _ := t.Header["alg"].(string)
	now := e.now().UTC().Truncate(time.Second)
	at := func(d *jwt.NumericDate) string { return d.UTC().Format(time.RFC3339) }
	switch {
	case !slices.Contains(signatures, algorithm):
		err = fmt.Errorf("is signed with %.40q; accepted are %s", algorithm, strings.Join(signatures, ", "))
	case !slices.Contains(c.Audience, audience):
		err = fmt.Errorf("has the audience %.200s, not %q; configure the client at the issuer, or audience= of --oidc-issuer",
			fmt.Sprintf("%q", []string(c.Audience)), audience)
	case c.ExpiresAt == nil:
		err = errors.New("does not say when it expires")
	case !now.Before(c.ExpiresAt.Time):
		err = fmt.Errorf("expired at %s, and it is %s now; if it is new, compare the clocks", at(c.ExpiresAt),
			now.Format(time.RFC3339))
	case c.NotBefore != nil && now.Before(c.NotBefore.Time):
		err = fmt.Errorf("is valid from %s on, and it is %s now; compare the clocks", at(c.NotBefore), now.Format(time.RFC3339))
	default:
		err = fmt.Errorf("has a signature that fails verification with the issuer's keys; it names the key %.100q", kid)
	}
	return fmt.Errorf("the token of %s %w", e.URL, err)
}

// maxSkew is how far the clock of an issuer may be ahead.
const maxSkew = 5 * time.Minute

// externalAccount returns the account of a token that is verified, with the labels that its claims give.
func (s *Service) externalAccount(
	ctx context.Context, e *externalIssuer, t *oidc.IDToken, claims map[string]any, address string,
) (*account.Account, error) {
	issued := t.IssuedAt
	if latest := s.now().Add(maxSkew); issued.After(latest) {
		issued = latest // a clock that is wrong once must not keep the labels for years
	}
	a, err := s.accounts.External(ctx, account.External{
		Issuer: e.URL, Subject: t.Subject, Origin: e.Origin(), Username: e.username(claims), Links: e.Links, Address: address,
		Labels: e.labels(claims), Issued: issued,
	})
	if err != nil {
		return nil, err
	}
	if !a.Active {
		return nil, errWrong.Because(errInactive)
	}
	return a, nil
}

// externalBearer returns the account of a token's issuer and subject, and creates it at the first use. The user name in the
// token names a new account, and decides nothing unless the issuer links.
func (s *Service) externalBearer(
	ctx context.Context, e *externalIssuer, token, address string,
) (*verifiedCredential, error) {
	if e.Audience == "" {
		return nil, errWrong.Because(fmt.Errorf("people sign in at %s, but its bearer tokens are not accepted; add audience= to "+
			"--oidc-issuer", e.URL))
	}
	t, claims, err := e.verify(ctx, token, e.Audience)
	if err != nil {
		return nil, err
	}
	a, err := s.externalAccount(ctx, e, t, claims, address)
	if err != nil {
		return nil, err
	}
	return &verifiedCredential{account: a, whole: true, external: true, issued: t.IssuedAt, expires: t.Expiry,
		binding: epochBinding, bound: epochBinding(a)}, nil
}
