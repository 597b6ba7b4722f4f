package uaa

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"` // lower-case, else cf refreshes before each command
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	Scope        string `json:"scope"`
	ID           string `json:"jti"`
}

// token is the token endpoint (RFC 6749, 3.2).
func (a *API) token(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	form, err := tokenForm(w, r)
	if err != nil {
		return err
	}
	if err := offered(form.Get("grant_type")); err != nil {
		return err
	}
	client, err := a.client(r, form)
	if err != nil {
		return err
	}
	t, err := a.grant(r, form, client)
	if fault.Is(err, fault.Unauthenticated) {
		return fault.New(fault.Unauthenticated, badCredentials)
	}
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", tokenResponse{
		AccessToken:  string(t.Access),
		TokenType:    "bearer",
		RefreshToken: string(t.Refresh),
		ExpiresIn:    int(t.Lifetime.Seconds()),
		Scope:        strings.Join(t.Scopes, " "),
		ID:           t.ID,
	})
	return nil
}

// badCredentials is the message of the UAA for a wrong password, an unknown user, a wrong secret and an unknown client.
const badCredentials = "Bad credentials"

var errBadClient = fault.New(fault.Unauthenticated, badCredentials).Because(identity.ErrClient)

func (a *API) grant(r *http.Request, form url.Values, client *identity.Client) (*identity.Tokens, error) {
	scopes, address := strings.Fields(form.Get("scope")), web.InfoOf(r.Context()).Address
	switch form.Get("grant_type") {
	case identity.GrantPassword:
		if form.Has("passcode") {
			code, err := needed(form, "passcode")
			if err != nil {
				return nil, err
			}
			return a.Identity.GrantWithPasscode(r.Context(), client, code, scopes, address)
		}
		if err := localOrigin(r, form); err != nil {
			return nil, err
		}
		username, err := needed(form, "username")
		if err != nil {
			return nil, err
		}
		password, err := needed(form, "password")
		if err != nil {
			return nil, err
		}
		return a.Identity.GrantWithPassword(r.Context(), client, username, password, scopes, address)
	case identity.GrantCredentials:
		return a.Identity.GrantToClient(r.Context(), client, scopes)
	case identity.GrantRefresh:
		token, err := needed(form, "refresh_token")
		if err != nil {
			return nil, err
		}
		return a.Identity.GrantWithRefresh(r.Context(), client, token, scopes, address)
	case identity.GrantAssertion:
		assertion, err := needed(form, "assertion")
		if err != nil {
			return nil, err
		}
		return a.Identity.GrantWithAssertion(r.Context(), client, assertion, scopes, address)
	case identity.GrantCode:
		proof, err := codeProof(form)
		if err != nil {
			return nil, err
		}
		return a.Identity.GrantWithCode(r.Context(), client, proof, address)
	case identity.GrantDevice:
		code, err := needed(form, "device_code")
		if err != nil {
			return nil, err
		}
		return a.Identity.GrantWithDevice(r.Context(), client, code, address)
	}
	return nil, offered(form.Get("grant_type"))
}

// codeProof reads what proves an authorization code.
func codeProof(form url.Values) (p identity.CodeProof, err error) {
	if p.Code, err = needed(form, "code"); err != nil {
		return p, err
	}
	if p.RedirectURI, err = needed(form, "redirect_uri"); err != nil {
		return p, err
	}
	p.Verifier, err = needed(form, "code_verifier")
	return p, err
}

// clientGrants are those that an OAuth client may be given. The public clients have the others, which need a browser.
var clientGrants = []string{identity.GrantPassword, identity.GrantCredentials, identity.GrantRefresh,
	identity.GrantAssertion}

var grants = append(slices.Clone(clientGrants), identity.GrantCode, identity.GrantDevice)

// offered refuses a grant that is not offered to any client.
func offered(grant string) error {
	switch {
	case grant == "":
		return fault.New(fault.Malformed, "The parameter grant_type is missing.")
	case !slices.Contains(grants, grant):
		return fault.New(fault.Malformed, "The grant type %.80q is not offered; offered: %s.", grant,
			strings.Join(grants, ", ")).Because(errGrantType)
	}
	return nil
}

func needed(form url.Values, name string) (string, error) {
	if value := form.Get(name); value != "" {
		return value, nil
	}
	return "", fault.New(fault.Malformed, "The parameter %s is missing.", name)
}

// maxForm is far above any request that makes sense.
const maxForm = 64 << 10

// tokenForm reads the body. The query string may contain harmless parameters, such as login_hint. A credential in it would
// be in the logs of every proxy on the way, so it is refused before it is verified.
func tokenForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	inURL, err := query(r)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"username", "password", "client_id", "client_secret", "refresh_token", "token", "assertion",
		"client_assertion", "passcode", "code", "code_verifier", "device_code", "grant_type"} {
		if inURL.Has(name) {
			return nil, fault.New(fault.Malformed,
				"Send the parameter %s in the body, not in the URL, where it would be logged.", name)
		}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		media != "application/x-www-form-urlencoded" {
		return nil, fault.New(fault.MediaType, "Send the parameters as application/x-www-form-urlencoded.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, fault.New(fault.TooLarge, "The body is larger than %d bytes.", maxForm)
		}
		return nil, fault.New(fault.Malformed, "The body could not be read.").Because(err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		// The cause is left out, because it quotes the body.
		return nil, fault.New(fault.Malformed, "The body is not a valid form.")
	}
	return form, once(form)
}

// client authenticates the client, by Basic or by the form (RFC 6749, 2.3.1).
func (a *API) client(r *http.Request, form url.Values) (*identity.Client, error) {
	id, secrets := form.Get("client_id"), []string{form.Get("client_secret")}
	if r.Header.Get("Authorization") != "" {
		basicID, secret, ok := r.BasicAuth()
		if !ok {
			return nil, errBadClient
		}
		// RFC 6749 encodes both as in a form; libraries do so, people with curl do not. Decoding does not change any id of
		// ours. It may change a secret, so both forms are always tried.
		secrets = []string{secret}
		if decoded, err := url.QueryUnescape(secret); err == nil && decoded != secret {
			secrets = append(secrets, decoded)
		}
		if decoded, err := url.QueryUnescape(basicID); err == nil {
			basicID = decoded
		}
		// cf auth --assertion sends the same twice.
		sent := form.Get("client_secret")
		if form.Has("client_id") && id != basicID || form.Has("client_secret") && !slices.Contains(secrets, sent) {
			return nil, fault.New(fault.Malformed,
				"Authenticate the client once: the Authorization header and the body name different clients or secrets.")
		}
		id = basicID
	}
	if form.Has("client_assertion") {
		return nil, fault.New(fault.Unauthenticated, "A client authenticates with its secret here, not with client_assertion.").
			Because(identity.ErrClient)
	}
	if id == "" {
		return nil, fault.New(fault.Unauthenticated, "No client was named. The public clients are %s, without a secret.",
			strings.Join(identity.PublicClients, " and ")).
			Because(identity.ErrClient)
	}
	client, err := a.Identity.Client(r.Context(), id, web.InfoOf(r.Context()).Address, secrets...)
	if errors.Is(err, identity.ErrClient) {
		return nil, errBadClient
	}
	return client, err
}

// localOrigin refuses a login_hint for another origin than the one whose passwords are stored here.
func localOrigin(r *http.Request, form url.Values) error {
	hint := form.Get("login_hint")
	if hint == "" {
		hint = r.URL.Query().Get("login_hint")
	}
	if hint == "" {
		return nil
	}
	var asked struct {
		Origin string `json:"origin"`
	}
	if err := json.Unmarshal([]byte(hint), &asked); err != nil {
		return fault.New(fault.Malformed, `The parameter login_hint is not of the form {"origin":"%s"}.`, account.LocalOrigin)
	}
	if asked.Origin != account.LocalOrigin {
		return fault.New(fault.Invalid, "Only the origin %s signs in with a password here, not %.80q. Sign in with a token of "+
			"that origin.",
			account.LocalOrigin, asked.Origin).Because(identity.ErrGrant)
	}
	return nil
}

// infoResponse is the first document that a client reads.
type infoResponse struct {
	App       infoApp             `json:"app"`
	Links     infoLinks           `json:"links"`
	Prompts   map[string][]string `json:"prompts"`
	ZoneName  string              `json:"zone_name"`
	EntityID  string              `json:"entityID"`
	CommitID  string              `json:"commit_id"`
	Timestamp string              `json:"timestamp"`
}

type infoApp struct {
	Version string `json:"version"`
}

type infoLinks struct {
	UAA   string `json:"uaa"`
	Login string `json:"login"`
}

// spokenVersion is the version of the UAA that this dialect follows. cf sends an origin from 4.26.0 on.
const spokenVersion = "77.0.0"

func (a *API) info(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", infoResponse{
		App:   infoApp{spokenVersion},
		Links: infoLinks{UAA: a.href(""), Login: a.href("")},
		// Type and label; cf panics on shorter arrays.
		Prompts: map[string][]string{
			"username": {"text", "User name"},
			"password": {"password", "Password"},
			"passcode": {"password", "Temporary Authentication Code ( Get one at " + a.href("/passcode") + " )"}, // the UAA's words
		},
		ZoneName:  account.LocalOrigin,
		EntityID:  a.href(""),
		CommitID:  "rolecall",
		Timestamp: "2026-01-01T00:00:00+0000",
	})
	return nil
}

type jsonWebKey struct {
	Type      string `json:"kty"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
	ID        string `json:"kid"`
	Value     string `json:"value"` // PEM
	N         string `json:"n"`
	E         string `json:"e"`
}

type jsonWebKeys struct {
	Keys []jsonWebKey `json:"keys"`
}

func (a *API) tokenKeys(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	keys, err := a.keys(r)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", jsonWebKeys{keys})
	return nil
}

func (a *API) tokenKey(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	keys, err := a.keys(r)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", keys[0])
	return nil
}

// keys are the public keys (RFC 7517), the one that signs first.
func (a *API) keys(r *http.Request) ([]jsonWebKey, error) {
	keys, err := a.Identity.PublicKeys(r.Context())
	if err != nil {
		return nil, err
	}
	var all []jsonWebKey
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k.Key)
		if err != nil {
			return nil, err
		}
		all = append(all, jsonWebKey{
			Type:      "RSA",
			Algorithm: "RS256",
			Use:       "sig",
			ID:        k.ID,
			Value:     string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			N:         base64.RawURLEncoding.EncodeToString(k.Key.N.Bytes()),
			E:         base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.Key.E)).Bytes()),
		})
	}
	return all, nil
}

type discoveryResponse struct {
	Issuer            string   `json:"issuer"`
	Authorization     string   `json:"authorization_endpoint"`
	DeviceEndpoint    string   `json:"device_authorization_endpoint"`
	TokenEndpoint     string   `json:"token_endpoint"`
	Revocation        string   `json:"revocation_endpoint"`
	RevocationMethods []string `json:"revocation_endpoint_auth_methods_supported"`
	UserInfoEndpoint  string   `json:"userinfo_endpoint"`
	JWKSURI           string   `json:"jwks_uri"`
	TokenAuthMethods  []string `json:"token_endpoint_auth_methods_supported"`
	GrantTypes        []string `json:"grant_types_supported"`
	ResponseTypes     []string `json:"response_types_supported"`
	ChallengeMethods  []string `json:"code_challenge_methods_supported"`
	SubjectTypes      []string `json:"subject_types_supported"`
	SigningAlgorithms []string `json:"id_token_signing_alg_values_supported"`
	Scopes            []string `json:"scopes_supported"`
	Claims            []string `json:"claims_supported"`
}

// clientMethods are how clients authenticate; none: a public client names itself.
var clientMethods = []string{"client_secret_basic", "client_secret_post", "none"}

func (a *API) discovery(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", discoveryResponse{
		Issuer:            a.Identity.Issuer(),
		Authorization:     a.href("/oauth/authorize"), // a page of the console
		DeviceEndpoint:    a.href("/oauth/device_authorization"),
		TokenEndpoint:     a.href("/oauth/token"),
		Revocation:        a.href("/oauth/revoke"),
		RevocationMethods: clientMethods,
		UserInfoEndpoint:  a.href("/userinfo"),
		JWKSURI:           a.href("/token_keys"),
		TokenAuthMethods:  clientMethods,
		GrantTypes:        slices.Clone(grants),
		ResponseTypes:     []string{"code"},
		ChallengeMethods:  []string{"S256"},
		SubjectTypes:      []string{"public"},
		SigningAlgorithms: []string{"RS256"},
		Scopes:            account.Scopes,
		Claims: []string{"sub", "user_name", "origin", "iss", "aud", "iat", "exp", "jti", "scope", "client_id",
			"user_id"},
	})
	return nil
}
