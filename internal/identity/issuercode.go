package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// People sign in at an issuer with the authorization code flow (OpenID Connect Core 1.0, 3.1), with PKCE (RFC 7636).

// SignInIssuer is an issuer at which people sign in.
type SignInIssuer struct {
	Name, URL string
	Origin    string // of the accounts of its people
}

// IssuerSignIn is a sign-in at an issuer that succeeded.
type IssuerSignIn struct {
	Account *account.Account
	Keep    string // as it was given to StartIssuerSignIn
	// Proven is when the person last proved to the issuer who they are; zero: the issuer does not say. It may have signed them
	// in by a session of its own.
	Proven time.Time
}

// ErrIssuerSignIn is the cause of every sign-in at an issuer that failed.
var ErrIssuerSignIn = errors.New("the sign-in at the issuer failed")

// errIssuerSignIn is the one answer to every sign-in that failed. The log has the reason.
var errIssuerSignIn = fault.New(fault.Unauthenticated, "The sign-in did not succeed. Start it once more. If it fails "+
	"again, give an administrator the request id of this page: the log has the reason.").Because(ErrIssuerSignIn)

func signInFailed(cause error) error {
	return errIssuerSignIn.Because(fmt.Errorf("%w: %w", ErrIssuerSignIn, cause))
}

// authTime is the claim that says when a person proved who they are.
const authTime = "auth_time"

const (
	issuerSignInLifetime = 10 * time.Minute
	issuerCallback       = "/uaa/login/callback/"
	// maxKeep bounds what a sign-in keeps for its end, in bytes: a cookie holds about 4,000.
	maxKeep = 2400
)

// begunSignIn is a sign-in at an issuer that has begun. The browser keeps it, sealed.
type begunSignIn struct {
	ID       uuid.UUID `json:"id"` // the state, by which the browser that comes back is the one that left
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Keep     string    `json:"keep"`
	Prove    bool      `json:"prove"`
	Began    time.Time `json:"began"`
}

// SignInIssuers are the issuers at which people sign in, in the order of the settings.
func (s *Service) SignInIssuers() (issuers []SignInIssuer) {
	for _, e := range s.people {
		issuers = append(issuers, SignInIssuer{e.Name, e.URL, e.Origin()})
	}
	return issuers
}

func (s *Service) signInIssuer(name string) (*externalIssuer, error) {
	i := slices.IndexFunc(s.people, func(e *externalIssuer) bool { return e.Name == name })
	if i < 0 {
		return nil, fault.New(fault.NotFound, "There is no issuer %.100q at which people sign in.", name)
	}
	return s.people[i], nil
}

// StartIssuerSignIn returns where a browser goes to sign in at an issuer, and what it keeps until it comes back: within ten
// minutes, once. keep comes back, too, and is left out if it is long. With prove the person has to prove who they are, even
// if they are signed in at the issuer.
func (s *Service) StartIssuerSignIn(ctx context.Context, issuer, keep string, prove bool) (
	location string, sealed secret.Text, err error) {
	e, err := s.signInIssuer(issuer)
	if err != nil {
		return "", "", err
	}
	config, err := s.codeConfig(ctx, e)
	if err != nil {
		return "", "", signInFailed(err)
	}
	if len(keep) > maxKeep {
		keep = ""
	}
	b := begunSignIn{uuid.New(), rand.Text(), oauth2.GenerateVerifier(), keep, prove, s.now()}
	text, err := json.Marshal(b)
	if err != nil {
		return "", "", err
	}
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(b.Verifier), oidc.Nonce(b.Nonce)}
	if prove {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	sealed = secret.Text(base64.RawURLEncoding.EncodeToString(s.db.Keys.Seal(sealedFor(e), text)))
	return config.AuthCodeURL(b.ID.String(), options...), sealed, nil
}

func sealedFor(e *externalIssuer) string { return "sign-in at " + e.URL }

// codeConfig is what the library needs to know of an issuer.
func (s *Service) codeConfig(ctx context.Context, e *externalIssuer) (*oauth2.Config, error) {
	d, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	password, err := e.ClientSecret()
	if err != nil {
		return nil, err
	}
	endpoint := d.provider.Endpoint()
	for _, text := range []string{endpoint.AuthURL, endpoint.TokenURL} {
		if u, err := url.Parse(text); err != nil || u.Host == "" || !private(u) {
			return nil, fmt.Errorf("the documents of %s name %q, where nothing secret can be sent: it is no https URL", e.URL, text)
		}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if password == "" || len(d.AuthMethods) > 0 && !slices.Contains(d.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	scopes := []string{oidc.ScopeOpenID, "profile", "email"}
	for _, l := range e.Labels {
		// Dex and Okta send groups to those who ask for the scope of that name; others do not know it.
		if slices.Contains(d.Scopes, l.Claim) && !slices.Contains(scopes, l.Claim) {
			scopes = append(scopes, l.Claim)
		}
	}
	return &oauth2.Config{ClientID: e.ClientID, ClientSecret: string(password), Endpoint: endpoint, Scopes: scopes,
		RedirectURL: s.publicURL + issuerCallback + url.PathEscape(e.Name)}, nil
}

// FinishIssuerSignIn signs in the person whom the issuer has sent back. sealed is what StartIssuerSignIn gave the browser,
// and answer is the query with which it came. Every failure of the sign-in has the cause ErrIssuerSignIn and one message.
func (s *Service) FinishIssuerSignIn(ctx context.Context, issuer string, sealed secret.Text, answer url.Values,
	address string) (*IssuerSignIn, error) {
	e, err := s.signInIssuer(issuer)
	if err != nil {
		return nil, err
	}
	b, err := s.begun(e, sealed)
	if err == nil {
		err = e.checkAnswer(ctx, b, answer)
	}
	if err != nil {
		return nil, signInFailed(err)
	}
	if err := s.useOnce(ctx, b); err != nil {
		return nil, err
	}
	t, claims, err := s.redeem(ctx, e, b, answer.Get("code"))
	if err != nil {
		return nil, signInFailed(err)
	}
	proven, err := s.proven(ctx, e, b, claims)
	if err != nil {
		return nil, signInFailed(err)
	}
	a, err := s.externalAccount(ctx, e, t, claims, address)
	if fault.Is(err, fault.Unauthenticated) {
		return nil, signInFailed(err)
	}
	if err != nil {
		return nil, err
	}
	return &IssuerSignIn{a, b.Keep, proven}, nil
}

// begun opens what the browser has kept.
func (s *Service) begun(e *externalIssuer, sealed secret.Text) (b begunSignIn, err error) {
	if sealed == "" {
		return b, errors.New("the browser has no sign-in that has begun: it keeps no cookies, or has ended it")
	}
	data, err := base64.RawURLEncoding.DecodeString(string(sealed))
	if err != nil {
		return b, errors.New("the cookie of the sign-in is damaged")
	}
	text, err := s.db.Keys.Open(sealedFor(e), data)
	if err != nil {
		return b, fmt.Errorf("the cookie of the sign-in: %w", err)
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, errors.New("the cookie of the sign-in is of another release")
	}
	if age := s.now().Sub(b.Began); age > issuerSignInLifetime {
		return b, fmt.Errorf("the sign-in began %s ago, and has to end within %s", age.Round(time.Second), issuerSignInLifetime)
	}
	return b, nil
}

// checkAnswer says what is wrong with the query with which the browser came back.
func (e *externalIssuer) checkAnswer(ctx context.Context, b begunSignIn, answer url.Values) error {
	if answer.Get("state") != b.ID.String() {
		return errors.New("the state is not that of the sign-in that this browser has begun last")
	}
	d, err := e.read(ctx)
	if err != nil {
		return err
	}
	// RFC 9207: the answer of one issuer must not end the sign-in at another.
	if from := answer.Get("iss"); from != e.URL && (from != "" || d.NamesIssuer) {
		return fmt.Errorf("the answer is of the issuer %.200q, and the sign-in began at %s", from, e.URL)
	}
	if refusal := answer.Get("error"); refusal != "" {
		return fmt.Errorf("%s refuses the sign-in: %.100q, %.300q", e.URL, refusal, answer.Get("error_description"))
	}
	if answer.Get("code") == "" {
		return fmt.Errorf("the answer of %s has no code", e.URL)
	}
	return nil
}

// useOnce refuses a sign-in that was ended before, on any replica: its code is of no more use.
func (s *Service) useOnce(ctx context.Context, b begunSignIn) error {
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		fresh, err := revokeID(ctx, tx, b.ID, b.Began.Add(issuerSignInLifetime))
		if err == nil && !fresh {
			err = signInFailed(errors.New("the sign-in was ended before: its answer came twice"))
		}
		return err
	})
}

// redeem exchanges a code for the verified ID token of a person, with the claims that the issuer says of them.
func (s *Service) redeem(ctx context.Context, e *externalIssuer, b begunSignIn, code string) (*oidc.IDToken,
	map[string]any, error) {
	config, err := s.codeConfig(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	ctx = oidc.ClientContext(ctx, e.once)
	tokens, err := config.Exchange(ctx, code, oauth2.VerifierOption(b.Verifier))
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		// The rest of the answer may hold anything.
		return nil, nil, fmt.Errorf("%s does not accept the code: %s, %.100q, %.300q", e.URL, refused.Response.Status,
			refused.ErrorCode, refused.ErrorDescription)
	}
	if _, unreachable := errors.AsType[*url.Error](err); unreachable {
		return nil, nil, e.away(err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the answer of %s to the code cannot be read: %.300q", e.URL, err.Error())
	}
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return nil, nil, fmt.Errorf("%s has given no ID token; is the scope openid allowed for the client %q?", e.URL, e.ClientID)
	}
	t, claims, err := e.verify(ctx, raw, e.ClientID)
	if err != nil {
		return nil, nil, err
	}
	if err := e.checkIDToken(t, claims, b.Nonce, s.now()); err != nil {
		return nil, nil, err
	}
	if t.AccessTokenHash != "" {
		if err := t.VerifyAccessToken(tokens.AccessToken); err != nil {
			return nil, nil, fmt.Errorf("the ID token of %s is not that of its access token", e.URL)
		}
	}
	return t, claims, e.addUserInfo(ctx, t, claims, tokens)
}

// checkIDToken says what is wrong with an ID token that is verified, as far as it concerns this sign-in (OpenID Connect Core
// 1.0, 3.1.3.7).
func (e *externalIssuer) checkIDToken(t *oidc.IDToken, claims map[string]any, nonce string, now time.Time) error {
	party, named := claims["azp"]
	switch {
	case t.Nonce != nonce:
		return fmt.Errorf("the nonce of the ID token of %s is not that of this sign-in", e.URL)
	case named && party != e.ClientID, len(t.Audience) > 1 && !named:
		return fmt.Errorf("the ID token of %s is for %q with the authorized party %.100q, not for the client %q", e.URL,
			t.Audience, fmt.Sprint(party), e.ClientID)
	case t.IssuedAt.After(now.Add(maxSkew)):
		return fmt.Errorf("the ID token of %s was issued at %s, and it is %s now; compare the clocks", e.URL,
			t.IssuedAt.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// addUserInfo adds claims that are needed and are not in the ID token.
func (e *externalIssuer) addUserInfo(
	ctx context.Context, t *oidc.IDToken, claims map[string]any, tokens *oauth2.Token,
) error {
	d, err := e.read(ctx)
	if err != nil {
		return err
	}
	place := d.provider.UserInfoEndpoint()
	if place == "" || !e.lacks(claims) {
		return nil
	}
	if u, err := url.Parse(place); err != nil || !private(u) {
		return fmt.Errorf("the documents of %s name %q, where nothing secret can be sent: it is no https URL", e.URL, place)
	}
	// A failure ends the sign-in: without the claims it would take labels from the person.
	info, err := d.provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil {
		return fmt.Errorf("%s does not say more of the person: %.300q", e.URL, err.Error())
	}
	if info.Subject != t.Subject {
		return fmt.Errorf("%s says more of another subject than that of the ID token", e.URL)
	}
	var more map[string]any
	if err := info.Claims(&more); err != nil {
		return fmt.Errorf("the claims of %s cannot be read", e.URL)
	}
	for claim, value := range more {
		if _, known := claims[claim]; !known {
			claims[claim] = value
		}
	}
	return nil
}

// lacks reports whether a claim is missing that labels or the user name come from.
func (e *externalIssuer) lacks(claims map[string]any) bool {
	if slices.ContainsFunc(e.Labels, func(l LabelClaim) bool { return claims[l.Claim] == nil }) {
		return true
	}
	if e.UsernameClaim != "" {
		return claims[e.UsernameClaim] == nil
	}
	return claims["preferred_username"] == nil && claims["email"] == nil
}

// proven is when the person proved who they are. It fails if they were to prove that now, and have not.
func (s *Service) proven(ctx context.Context, e *externalIssuer, b begunSignIn, claims map[string]any) (time.Time, error) {
	d, err := e.read(ctx)
	if err != nil {
		return time.Time{}, err
	}
	seconds, said := claims[authTime].(float64)
	if !said && b.Prove && len(d.Claims) > 0 && !slices.Contains(d.Claims, authTime) {
		// Dex and Google never say when. That they were asked, and the person came back, is the proof that they can give.
		return s.now(), nil
	}
	if !said && b.Prove {
		return time.Time{}, errors.New("the person was to prove who they are, but the ID token has no claim auth_time, which " +
			"says when they did; configure the issuer to send it")
	}
	if !said {
		return time.Time{}, nil
	}
	at := time.Unix(int64(seconds), 0)
	if b.Prove && at.Before(b.Began.Add(-maxSkew)) {
		return at, fmt.Errorf("the person was to prove who they are, but did so last at %s", at.UTC().Format(time.RFC3339))
	}
	return at, nil
}

// sentOnce sends what must reach an issuer once, and nobody else: it follows no redirect.
func sentOnce() *http.Client {
	return &http.Client{Timeout: issuerTimeout, Transport: bounded{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
