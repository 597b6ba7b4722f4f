package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// GrantCode is the grant of RFC 6749, 4.1: a command line sends a person to the console, and gets a code from there.
const GrantCode = "authorization_code"

// codeLifetime is how long an authorization code is valid. A used one is remembered for codeMemory: its second use shows
// that somebody has copied it.
const (
	codeLifetime = time.Minute
	codeMemory   = time.Hour
)

// Authorization is what a command line asks a person in the console for: a sign-in of that person.
type Authorization struct {
	ClientID    string
	RedirectURI string
	state       string
	challenge   string   // of PKCE (RFC 7636)
	Scopes      []string // that it asks for; none: all
}

var (
	// loopback is the only kind of redirect URI: a port of the person's own machine (RFC 8252, 7.3).
	loopback = regexp.MustCompile(`^http://(127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}/callback$`)
	// challenge is the form of a SHA-256 in RFC 7636, 4.2.
	challenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// The causes of a refused authorization, which RFC 6749, 4.1.2.1 has words for.
var (
	ErrResponseType = errors.New("the response type is not offered")
	ErrDenied       = errors.New("the person denied it")
)

var errDenied = fault.New(fault.Forbidden, "The person denied the sign-in.").Because(ErrDenied)

// ReadAuthorization reads the parameters of the authorization endpoint. An error without a request is for the person alone:
// where the browser would go is not known to be the client. An error with a request is for the client, too: see Refusal.
func ReadAuthorization(query url.Values) (*Authorization, error) {
	for name, given := range query {
		if len(given) > 1 {
			return nil, fault.New(fault.Malformed, "The parameter %.40q was given %d times.", name, len(given))
		}
	}
	a := &Authorization{ClientID: query.Get("client_id"), RedirectURI: query.Get("redirect_uri"), state: query.Get("state"),
		challenge: query.Get("code_challenge"), Scopes: strings.Fields(query.Get("scope"))}
	switch {
	case !slices.Contains(PublicClients, a.ClientID):
		return nil, fault.New(fault.Invalid, "The client %.80q may not ask for a sign-in in the browser; only %s may.", a.ClientID,
			strings.Join(PublicClients, " and ")).Because(ErrClient)
	case !loopback.MatchString(a.RedirectURI):
		return nil, fault.New(fault.Invalid, "The redirect URI %.200q is not accepted. It must be "+
			"http://127.0.0.1:PORT/callback, with any port: the command line waits there, on the machine of the browser.",
			a.RedirectURI)
	case query.Get("response_type") != "code":
		return a, fault.New(fault.Invalid, "The response_type %.40q is not offered; send code.", query.Get("response_type")).
			Because(ErrResponseType)
	case a.state == "":
		return a, fault.New(fault.Invalid, "The parameter state is missing. Send a random value, and compare it at the callback.")
	case query.Get("code_challenge_method") != "S256":
		return a, fault.New(fault.Invalid, "The code_challenge_method %.40q is not accepted; send S256.",
			query.Get("code_challenge_method"))
	case !challenge.MatchString(a.challenge):
		return a, fault.New(fault.Invalid, "The code_challenge is not the SHA-256 of a code_verifier in base64url, unpadded.")
	}
	return a, nil
}

// Refusal is where the browser takes an error to the client.
func (a *Authorization) Refusal(err error) string {
	word := "invalid_request"
	switch {
	case errors.Is(err, ErrDenied):
		word = "access_denied"
	case errors.Is(err, ErrScope):
		word = "invalid_scope"
	case errors.Is(err, ErrResponseType):
		word = "unsupported_response_type"
	}
	return a.callback(url.Values{"error": {word}, "error_description": {fault.Of(err).Message}})
}

func (a *Authorization) callback(answer url.Values) string {
	if a.state != "" {
		answer.Set("state", a.state)
	}
	return a.RedirectURI + "?" + answer.Encode()
}

// Authorize gives the client of the request a sign-in of the principal, and returns where the browser takes the code for it.
// The code is valid for a minute, and once.
func (s *Service) Authorize(ctx context.Context, p *account.Principal, a *Authorization) (location string, err error) {
	code := randomID() + randomID()
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		scopes, err := s.mayApprove(ctx, tx, p, a.Scopes)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO authorization_codes (code_hash, family, account_id, epoch, session_id, client_id, redirect_uri, challenge,
			  scopes, expires_at)
			SELECT $1, $2, id, $3, $4, $5, $6, $7, $8, $9 FROM accounts WHERE guid = $10`,
			tokenHash(code), uuid.New(), p.Epoch, p.Session, a.ClientID, a.RedirectURI, a.challenge, scopes,
			s.now().Add(codeLifetime), p.GUID)
		if err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, p.Entry(audit.ApproveLogin, p.GUID, loginDetail{Client: a.ClientID, Grant: GrantCode}))
	})
	if err != nil {
		return "", err
	}
	return a.callback(url.Values{"code": {code}}), nil
}

// Deny records that the principal does not give the client of the request a sign-in, and returns where the browser takes
// that.
func (s *Service) Deny(ctx context.Context, p *account.Principal, a *Authorization) (location string, err error) {
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		return s.audit.Record(ctx, tx, p.Entry(audit.DenyLogin, p.GUID, loginDetail{Client: a.ClientID, Grant: GrantCode}))
	})
	return a.Refusal(errDenied), err
}

// CodeProof is what a client fetches tokens with for an authorization code.
type CodeProof struct {
	Code, Verifier, RedirectURI string
}

// authorizationCode is a stored one.
type authorizationCode struct {
	approval
	hash                   []byte
	family                 uuid.UUID
	redirectURI, challenge string
}

// errCode is the one answer to every authorization code that fails verification.
var errCode = fault.New(fault.Invalid, "The authorization code is unknown, expired or used, or its client, redirect_uri or "+
	"code_verifier is another. Sign in again.").Because(ErrGrant)

// The reasons of refused codes, for the log.
var (
	errOtherClient = errors.New("it was given to another client")
	errExpired     = errors.New("it has expired")
	errRedirect    = errors.New("the redirect_uri is another")
	errVerifier    = errors.New("the code_verifier is another")
	errUsedAgain   = errors.New("it was used again")
)

// takeCode takes the code with a hash, once.
const takeCode = `UPDATE authorization_codes SET used_at = clock_timestamp() WHERE code_hash = $1 AND used_at IS NULL`

// GrantWithCode gives the client the sign-in of the person who approved it. A code is used up by whatever request names it,
// also one that is refused. Its second use ends the tokens that the first one gave (RFC 6749, 4.1.2).
func (s *Service) GrantWithCode(ctx context.Context, c *Client, proof CodeProof, address string) (*Tokens, error) {
	if err := c.may(GrantCode); err != nil {
		return nil, err
	}
	k, err := s.findCode(ctx, proof.Code)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errCode
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := s.approver(ctx, &k.approval)
	if a == nil && errors.Is(err, errEnded) {
		return nil, errCode
	}
	if err != nil && !errors.Is(err, errEnded) {
		return nil, err
	}
	l := &login{a, c, GrantCode, nil, k.family, address}
	if wrong := errors.Join(k.wrong(c, proof, s.now()), err); wrong != nil {
		tag, err := s.db.Pool.Exec(ctx, takeCode, k.hash)
		if err != nil {
			return nil, control.Fault(err)
		}
		if tag.RowsAffected() == 0 {
			return nil, s.usedAgain(ctx, l, k)
		}
		return nil, s.audit.Refuse(ctx, l.entry(), also(errCode, wrong))
	}
	l.scopes = common(a.Scopes, k.scopes)
	t, taken, err := s.fetch(ctx, l, takeCode, k.hash)
	if err == nil && !taken {
		err = s.usedAgain(ctx, l, k)
	}
	return t, err
}

// findCode returns a stored code; pgx.ErrNoRows if there is none.
func (s *Service) findCode(ctx context.Context, code string) (*authorizationCode, error) {
	k := authorizationCode{hash: tokenHash(code)}
	err := s.db.Pool.QueryRow(ctx, `
		SELECT a.guid, k.epoch, EXISTS (SELECT FROM console_sessions WHERE id = k.session_id), k.client_id, k.scopes, k.expires_at,
		  k.family, k.redirect_uri, k.challenge
		FROM authorization_codes k JOIN accounts a ON a.id = k.account_id WHERE k.code_hash = $1`, k.hash).
		Scan(&k.guid, &k.epoch, &k.session, &k.client, &k.scopes, &k.expires, &k.family, &k.redirectURI, &k.challenge)
	return &k, err
}

// wrong says why the code gives the client nothing.
func (k *authorizationCode) wrong(c *Client, proof CodeProof, now time.Time) error {
	sum := sha256.Sum256([]byte(proof.Verifier))
	switch {
	case k.client != c.id:
		return errOtherClient
	case !now.Before(k.expires):
		return errExpired
	case k.redirectURI != proof.RedirectURI:
		return errRedirect
	case subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(k.challenge)) != 1:
		return errVerifier
	}
	return nil
}

// usedAgain ends what the first use of a code gave, and returns the answer to the second.
func (s *Service) usedAgain(ctx context.Context, l *login, k *authorizationCode) error {
	err := s.db.Tx(ctx, func(tx pgx.Tx) error {
		// The third use finds nothing.
		tag, err := tx.Exec(ctx, `DELETE FROM authorization_codes WHERE code_hash = $1`, k.hash)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if err := s.endFamily(ctx, tx, k.family); err != nil {
			return err
		}
		e := l.entry()
		e.Action = audit.RevokeTokens
		e.Detail = map[string]any{"client": k.client, "reason": "an authorization code was used again"}
		return s.audit.Record(ctx, tx, e)
	})
	if err != nil {
		return err
	}
	return also(errCode, errUsedAgain)
}
