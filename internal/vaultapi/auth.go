package vaultapi

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

// auth is what a sign-in, or a renewal of its token, gives.
type auth struct {
	ClientToken   string            `json:"client_token"`
	Accessor      string            `json:"accessor"`
	Policies      []string          `json:"policies"`
	TokenPolicies []string          `json:"token_policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int64             `json:"lease_duration"` // in seconds
	Renewable     bool              `json:"renewable"`
	EntityID      string            `json:"entity_id"`
	TokenType     string            `json:"token_type"`
	Orphan        bool              `json:"orphan"`
}

// policies are those of every token: Vault has them, and here labels and scopes decide.
var policies = []string{"default"}

// service is Vault's type of tokens that are stored and can be revoked.
const service = "service"

func metadata(guid, username string) map[string]string {
	return map[string]string{"account": guid, "username": username}
}

func presentAuth(token secret.Text, accessor, guid, username string, left time.Duration) auth {
	return auth{
		ClientToken:   string(token),
		Accessor:      accessor,
		Policies:      policies,
		TokenPolicies: policies,
		Metadata:      metadata(guid, username),
		LeaseDuration: max(seconds(left), 1),
		Renewable:     true,
		TokenType:     service,
		Orphan:        true,
	}
}

func signedIn(w http.ResponseWriter, r *http.Request, in *identity.SignIn) error {
	return answer(w, r, response[null, auth]{
		Auth: presentAuth(in.Token, in.ID.String(), in.Account.GUID, in.Account.Username, in.Lifetime),
	})
}

func (a *API) logInWithPassword(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	password, err := text(o, "password")
	if err != nil {
		return err
	}
	if password == "" {
		return fault.New(fault.Malformed, "missing password")
	}
	in, err := a.Identity.SignInWithPassword(r.Context(), r.PathValue("user"), password, web.InfoOf(r.Context()).Address)
	if fault.Is(err, fault.Unauthenticated) {
		return fault.New(fault.Malformed, "invalid username or password").Because(err)
	}
	if err != nil {
		return err
	}
	return signedIn(w, r, in)
}

// logInWithToken signs in with a token of another issuer, which may be that of a Kubernetes cluster. The role that clients
// name is not used: what an account may do depends on its labels.
func (a *API) logInWithToken(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	token, err := text(o, "jwt")
	if err != nil {
		return err
	}
	if token == "" {
		return fault.New(fault.Malformed, "missing token: send it as jwt")
	}
	in, err := a.Identity.SignInWithToken(r.Context(), token, web.InfoOf(r.Context()).Address)
	if fault.Is(err, fault.Unauthenticated) {
		return fault.New(fault.Malformed, "invalid token: it is not one of an issuer of this server, or is no longer valid").
			Because(err)
	}
	if err != nil {
		return err
	}
	return signedIn(w, r, in)
}

// token is the token of a request.
func token(r *http.Request) secret.Text {
	return (&door.Surface{TokenHeader: tokenHeader}).Credential(r.Header).Value
}

// accessor names a token without being it; "": it has no name.
func accessor(t *identity.OwnToken) string {
	if t.ID == uuid.Nil {
		return ""
	}
	return t.ID.String()
}

// ownToken is what a token learns of itself.
type ownToken struct {
	ID             string            `json:"id"` // always ""
	Accessor       string            `json:"accessor"`
	CreationTime   int64             `json:"creation_time"` // Unix; 0: not known
	CreationTTL    int64             `json:"creation_ttl"`
	ExpireTime     *string           `json:"expire_time"` // null: never
	ExplicitMaxTTL int64             `json:"explicit_max_ttl"`
	TTL            int64             `json:"ttl"` // 0: without end
	Renewable      bool              `json:"renewable"`
	Policies       []string          `json:"policies"`
	DisplayName    string            `json:"display_name"`
	Path           string            `json:"path"`
	Meta           map[string]string `json:"meta"`
	EntityID       string            `json:"entity_id"`
	NumUses        int               `json:"num_uses"`
	Orphan         bool              `json:"orphan"`
	Type           string            `json:"type"`
}

func (a *API) lookUpSelf(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	t, err := a.Identity.OwnToken(r.Context(), p)
	if err != nil {
		return err
	}
	res := ownToken{
		Accessor:    accessor(t),
		Renewable:   !t.RenewableUntil.IsZero(),
		Policies:    policies,
		DisplayName: p.Username,
		Path:        "auth/token/create",
		Meta:        metadata(p.GUID, p.Username),
		Orphan:      true,
		Type:        service,
	}
	if !t.Issued.IsZero() {
		res.CreationTime = t.Issued.Unix()
	}
	if !t.Expires.IsZero() {
		expires := clock(t.Expires)
		res.ExpireTime = &expires
		res.TTL = max(seconds(time.Until(t.Expires)), 1)
		res.CreationTTL = seconds(t.Expires.Sub(t.Issued))
	}
	if res.Renewable {
		res.ExplicitMaxTTL = seconds(t.RenewableUntil.Sub(t.Issued))
		if res.Path = "auth/jwt/login"; p.Origin == account.LocalOrigin {
			res.Path = "auth/userpass/login/" + p.Username
		}
	}
	return answer(w, r, response[ownToken, null]{Data: res})
}

// renewSelf renews the token of a sign-in. The increment that clients send is not used.
func (a *API) renewSelf(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	if _, err := increment(o); err != nil {
		return err
	}
	t, cut, err := a.Identity.RenewSignIn(r.Context(), p)
	if errors.Is(err, identity.ErrNotRenewable) {
		return fault.New(fault.Malformed, "lease is not renewable").Because(err)
	}
	if err != nil {
		return err
	}
	res := response[null, auth]{
		Auth: presentAuth(token(r), accessor(t), p.GUID, p.Username, time.Until(t.Expires)),
	}
	if cut {
		res.Warnings = &[]string{"The token expires at " + clock(t.RenewableUntil) +
			", and is not renewed beyond that. Sign in again."}
	}
	return answer(w, r, res)
}

// revokeSelf ends the token, and the leases that were made with it: first these, so that a client which gets no answer can
// repeat the request, and again those that concurrent requests have made.
func (a *API) revokeSelf(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if _, err := body(w, r); err != nil {
		return err
	}
	id := cmp.Or(p.Token, p.AccessToken)
	if err := a.Users.EndLeasesOfToken(r.Context(), id); err != nil {
		return err
	}
	if err := a.Identity.RevokeOwn(r.Context(), p, token(r)); err != nil {
		return err
	}
	if err := a.Users.EndLeasesOfToken(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
