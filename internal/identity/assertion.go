package identity

import (
	"context"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/fault"
)

// GrantAssertion is the grant of RFC 7523: a token of another issuer is exchanged for one of ours.
const GrantAssertion = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// GrantWithAssertion signs in the account of a token of another issuer, through a client. The access token does not outlive
// the token of the issuer, and there is no refresh token (RFC 7521, 4.1): the issuer decides how long somebody is signed in.
func (s *Service) GrantWithAssertion(ctx context.Context, c *Client, assertion string, scopes []string,
	address string) (*Tokens, error) {
	if err := c.may(GrantAssertion); err != nil {
		return nil, err
	}
	var unverified jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(assertion, &unverified)
	e := s.external[unverified.Issuer]
	if err != nil || e == nil {
		return nil, fault.New(fault.Invalid, "The assertion is not a token of an issuer that this server is configured with.").
			Because(ErrGrant)
	}
	v, err := s.externalBearer(ctx, e, assertion, address)
	if fault.Is(err, fault.Unauthenticated) {
		s.log.Info("an assertion was refused", "issuer", e.URL, "error", err)
		return nil, fault.New(fault.Invalid, "The assertion is not valid here, or has expired.").Because(ErrGrant)
	}
	if err != nil {
		return nil, err
	}
	granted, err := narrow(c.through(v.account.Scopes), scopes)
	if err != nil {
		return nil, err
	}
	t := &Tokens{Scopes: granted, Lifetime: min(c.access(userTokenLifetime), v.expires.Sub(s.now()))}
	t.Access, t.ID, err = s.mint(ctx, v.account, c.id, GrantAssertion, granted, uuid.Nil, t.Lifetime)
	return t, err
}
