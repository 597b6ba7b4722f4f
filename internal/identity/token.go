package identity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// Audience is the `aud` that a token for this product must have. The name is the one that resource servers of the
// ecosystem look for.
const Audience = "cloud_controller"

// The lifetimes are those of the UAA in the ecosystem: its client cf, and its default.
const (
	userTokenLifetime   = 20 * time.Minute
	clientTokenLifetime = account.MaxAccessValidity
	// longestLifetime is how long a signing key must verify after it last signed.
	longestLifetime = account.MaxAccessValidity
)

// claims are those of the UAA, which its clients and resource servers read, and the epoch that binds a token to its account.
type claims struct {
	jwt.RegisteredClaims
	UserID    string   `json:"user_id,omitempty"`
	UserName  string   `json:"user_name,omitempty"`
	Origin    string   `json:"origin,omitempty"`
	ClientID  string   `json:"client_id"`
	CID       string   `json:"cid"`
	ZoneID    string   `json:"zid"`
	GrantType string   `json:"grant_type"`
	Scope     []string `json:"scope"`
	Epoch     string   `json:"rolecall_epoch"`
	// Family is that of the refresh token that it came with, "" without one.
	Family string `json:"rolecall_family,omitempty"`
}

// MintFor returns a token of a local account, for a caller that has the signing keys anyway.
func (s *Service) MintFor(ctx context.Context, username string, lifetime time.Duration) (string, error) {
	a, err := s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	if err != nil {
		return "", err
	}
	token, _, err := s.mint(ctx, a, PublicClient, "password", a.Scopes, uuid.Nil, lifetime)
	return string(token), err
}

// mint returns a token of the account, and the token's id. The family is that of the refresh token beside it; zero: none.
func (s *Service) mint(ctx context.Context, a *account.Account, clientID, grantType string, scopes []string,
	family uuid.UUID, lifetime time.Duration) (token secret.Text, id string, err error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", "", err
	}
	now := s.now()
	id = randomID()
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    s.issuer,
			Subject:   a.GUID,
			Audience:  audience(scopes, clientID),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(min(lifetime, longestLifetime))),
			ID:        id,
		},
		ClientID:  clientID,
		CID:       clientID,
		ZoneID:    account.LocalOrigin,
		GrantType: grantType,
		Scope:     append([]string{}, scopes...), // never null
		Epoch:     a.Epoch.String(),
	}
	if family != uuid.Nil {
		c.Family = family.String()
	}
	if !a.OAuthClient {
		c.UserID, c.UserName, c.Origin = a.GUID, a.Username, a.Origin
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = key.kid
	signed, err := t.SignedString(key.private)
	return secret.Text(signed), id, err
}

// audience is whom a token is meant for: the part of each scope before its last dot, as in the UAA, and this product.
func audience(scopes []string, clientID string) jwt.ClaimStrings {
	aud := jwt.ClaimStrings{Audience}
	for _, scope := range scopes {
		if i := strings.LastIndex(scope, "."); i > 0 && !slices.Contains(aud, scope[:i]) {
			aud = append(aud, scope[:i])
		}
	}
	if !slices.Contains(aud, clientID) {
		aud = append(aud, clientID)
	}
	return aud
}

func randomID() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails since Go 1.24
	return hex.EncodeToString(random)
}

// bearer verifies a personal access token, or a token of this service or of one of the other issuers. Until its signature is
// verified, the issuer and the key that it names decide only which key it is verified with.
func (s *Service) bearer(ctx context.Context, token, address string) (*verifiedCredential, error) {
	if strings.HasPrefix(token, personalPrefix) {
		return s.personalBearer(ctx, token)
	}
	var unverified jwt.RegisteredClaims
	t, _, err := jwt.NewParser().ParseUnverified(token, &unverified)
	if err != nil {
		return nil, errWrong.Because(errNoToken)
	}
	if e := s.external[unverified.Issuer]; e != nil {
		return s.externalBearer(ctx, e, token, address)
	}
	if unverified.Issuer != s.issuer {
		return nil, errWrong.Because(fmt.Errorf("the token is of the issuer %.200q, which is neither this server (%s) nor one of "+
			"--oidc-issuer", unverified.Issuer, s.issuer))
	}
	return s.ownBearer(ctx, token, t)
}

// The causes of refused tokens that are alike for all issuers, for the log.
var (
	errNoToken  = errors.New("it is neither a personal access token nor a JWT")
	errInactive = errors.New("the account is not active")
	errEnded    = errors.New("the account is gone, or has ended its sign-ins")
	errRevoked  = errors.New("the token was revoked")
)

// ownReason is for the log: what is wrong with a token of ours.
func ownReason(err error) error {
	for _, e := range []error{jwt.ErrTokenExpired, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenInvalidAudience} {
		if errors.Is(err, e) {
			return e
		}
	}
	return errors.New("the token fails verification")
}

// ownClaims verifies an access token that was issued here: all but what has become of it and of its account.
func (s *Service) ownClaims(ctx context.Context, token string, unverified *jwt.Token) (*claims, error) {
	kid, _ := unverified.Header["kid"].(string)
	key, err := s.verifyingKey(ctx, kid)
	if fault.Is(err, fault.Unavailable) {
		return nil, err
	}
	if err != nil {
		return nil, errWrong.Because(err)
	}
	var c claims
	_, err = jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"RS256"}), // RFC 8725, 3.1: the token does not choose its algorithm
		jwt.WithIssuer(s.issuer), jwt.WithAudience(Audience), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.now))
	if err != nil {
		return nil, errWrong.Because(ownReason(err))
	}
	// A jti that ends in -r marks a refresh token in the UAA's convention.
	if strings.HasSuffix(c.ID, "-r") {
		return nil, errWrong.Because(errors.New("it is a refresh token"))
	}
	return &c, nil
}

// ownBearer returns the account of an access token that was issued here.
func (s *Service) ownBearer(ctx context.Context, token string, unverified *jwt.Token) (*verifiedCredential, error) {
	c, err := s.ownClaims(ctx, token, unverified)
	if err != nil {
		return nil, err
	}
	gone, err := revokedAmong(ctx, s.db.Pool, c.revocable())
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 {
		return nil, errWrong.Because(errRevoked)
	}
	a, err := s.accounts.ByGUID(ctx, c.account())
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong.Because(errEnded)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case !a.Active:
		return nil, errWrong.Because(errInactive)
	case a.IdentityCreatedAt.IsZero() || a.OAuthClient != (c.UserID == "") || epochBinding(a) != c.Epoch:
		return nil, errWrong.Because(errEnded)
	}
	family, _ := uuid.Parse(c.Family) // zero: there is none
	return &verifiedCredential{
		account: a, family: family, scopes: c.Scope, issued: c.issued(), expires: c.ExpiresAt.Time, revocable: c.revocable(),
		binding: epochBinding, bound: c.Epoch,
	}, nil
}
