package uaa_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// inConsole is a new person, in a session of the console.
func (f *fixture) inConsole(t testing.TB) *account.Principal {
	t.Helper()
	username := unique("person")
	f.Account(t, username, account.DefaultScopes, nil)
	a, err := f.Identity.VerifyPassword(t.Context(), username, username+"-password", f.address)
	if err != nil {
		t.Fatal(err)
	}
	token, err := f.Identity.StartSession(t.Context(), a, time.Now(), f.address, "a browser")
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Identity.Authenticate(t.Context(), identity.Credential{Scheme: identity.Session, Value: token}, f.address)
	if err != nil {
		t.Fatal(err)
	}
	p.Address = f.address
	return p
}

// The words of RFC 8628, over HTTP. What they mean: identity: TestDeviceGrant, TestDeviceIsRefused.
func TestDeviceFlow(t *testing.T) {
	f := newFixture(t)
	p := f.inConsole(t)
	type codes struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		Page       string `json:"verification_uri"`
		WholePage  string `json:"verification_uri_complete"`
		Lifetime   int    `json:"expires_in"`
		Interval   int    `json:"interval"`
	}
	begin := func(headers ...string) (c codes) {
		t.Helper()
		body := "client_id=rolecall"
		if len(headers) > 0 {
			body = ""
		}
		a := f.send(t, "POST", "/oauth/device_authorization", body, append(headers, form)...).want(t, 200, "")
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("Cache-Control is %q", a.Header.Get("Cache-Control"))
		}
		a.Into(t, &c)
		return c
	}
	poll := func(c codes) answer {
		t.Helper()
		return f.token(t, "", "client_id", "rolecall", "grant_type", deviceGrant, "device_code", c.DeviceCode)
	}
	c := begin()
	page := servicetest.PublicURL + "/console/device"
	if c.Page != page || c.WholePage != page+"?user_code="+c.UserCode || c.Lifetime != 600 || c.Interval != 5 {
		t.Errorf("got %+v", c)
	}
	poll(c).want(t, 400, "authorization_pending")
	poll(c).want(t, 400, "slow_down")
	if err := f.Identity.ApproveDevice(t.Context(), p, c.UserCode); err != nil {
		t.Fatal(err)
	}
	tok := poll(c).token(t)
	if tok.RefreshToken == "" || tok.ExpiresIn != 1200 || tok.claims(t)["client_id"] != "rolecall" ||
		tok.claims(t)["grant_type"] != deviceGrant || tok.claims(t)["sub"] != p.GUID {
		t.Errorf("got %+v", tok)
	}
	f.as(t, tok.AccessToken, "GET", "/Users/"+p.GUID, "").want(t, 200, "")
	poll(c).want(t, 400, "invalid_grant")

	denied := begin()
	if err := f.Identity.DenyDevice(t.Context(), p, denied.UserCode); err != nil {
		t.Fatal(err)
	}
	poll(denied).want(t, 400, "access_denied")
	late := begin()
	if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE device_codes SET expires_at = now() WHERE state = 'pending'`); err != nil {
		t.Fatal(err)
	}
	poll(late).want(t, 400, "expired_token")

	begin(cf)
	device := func(body string, headers ...string) answer {
		t.Helper()
		return f.send(t, "POST", "/oauth/device_authorization", body, append(headers, form)...)
	}
	device("").want(t, 401, "invalid_client")
	device("client_id=no-such").want(t, 401, "invalid_client")
	device("client_id=cf&client_secret=x").want(t, 401, "invalid_client")
	device("client_id=cf&scope=openid").want(t, 400, "invalid_scope")
	device("client_id=cf&client_id=cf").want(t, 400, "invalid_request")
	id := f.program(t, nil)
	device("", basic(id, id+"-secret")).want(t, 400, "unauthorized_client")
	f.send(t, "GET", "/oauth/device_authorization", "").want(t, 405, "method_not_allowed")
	f.send(t, "POST", "/oauth/device_authorization", "{}", "Content-Type: application/json", cf).want(t, 415, "invalid_request")
	f.token(t, basic(id, id+"-secret"), "grant_type", deviceGrant, "device_code", "x").want(t, 400, "unauthorized_client")
	f.send(t, "POST", "/oauth/token?device_code=x", "grant_type="+url.QueryEscape(deviceGrant), form, cf).want(t, 400,
		"invalid_request")
}

// The grant authorization_code over HTTP. What a code is bound to: identity: TestCodeIsRefused.
func TestAuthorizationCode(t *testing.T) {
	f := newFixture(t)
	p := f.inConsole(t)
	const uri, verifier = "http://127.0.0.1:43210/callback", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	sum := sha256.Sum256([]byte(verifier))
	a, err := identity.ReadAuthorization(url.Values{"response_type": {"code"}, "client_id": {"cf"}, "redirect_uri": {uri},
		"state": {"s"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}})
	if err != nil {
		t.Fatal(err)
	}
	location, err := f.Identity.Authorize(t.Context(), p, a)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	fetch := []string{"grant_type", "authorization_code", "code", u.Query().Get("code"), "redirect_uri", uri, "code_verifier",
		verifier}
	tok := f.token(t, cf, fetch...).token(t)
	if tok.RefreshToken == "" || tok.claims(t)["grant_type"] != "authorization_code" || tok.claims(t)["sub"] != p.GUID {
		t.Errorf("got %+v", tok)
	}
	f.token(t, cf, fetch...).want(t, 400, "invalid_grant")
	f.token(t, cf, "grant_type", "refresh_token", "refresh_token", tok.RefreshToken).want(t, 400, "invalid_grant")
	id := f.program(t, nil)
	f.token(t, basic(id, id+"-secret"), fetch...).want(t, 400, "unauthorized_client")
	f.send(t, "POST", "/oauth/token?code=x", "grant_type=authorization_code", form, cf).want(t, 400, "invalid_request")
}

// What cf login --sso sends. UAA answers a wrong passcode as a wrong password.
func TestPasscodeGrant(t *testing.T) {
	f := newFixture(t)
	p := f.inConsole(t)
	code, _, err := f.Identity.NewPasscode(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	sent := []string{"grant_type", "password", "passcode", string(code)}
	tok := f.token(t, cf, sent...).token(t)
	if c := tok.claims(t); c["grant_type"] != "password" || c["user_name"] != p.Username || c["origin"] != "uaa" ||
		tok.RefreshToken == "" {
		t.Errorf("got %+v", tok)
	}
	again := f.token(t, cf, sent...).want(t, 401, "unauthorized")
	wrong := f.token(t, cf, "grant_type", "password", "passcode", "x").want(t, 401, "unauthorized")
	if wrong.Body != again.Body {
		t.Errorf("a used one gets %s, a wrong one %s", again.Body, wrong.Body)
	}
	if strings.Contains(f.Log.String(), string(code)) {
		t.Error("the passcode is in the log")
	}
	f.send(t, "POST", "/oauth/token?passcode=x", "grant_type=password", form, cf).want(t, 400, "invalid_request")
}

func TestDiscovery(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/.well-known/openid-configuration", "/oauth/token/.well-known/openid-configuration"} {
		var d struct {
			Authorization string   `json:"authorization_endpoint"`
			Device        string   `json:"device_authorization_endpoint"`
			Revocation    string   `json:"revocation_endpoint"`
			Grants        []string `json:"grant_types_supported"`
			Responses     []string `json:"response_types_supported"`
			Challenges    []string `json:"code_challenge_methods_supported"`
		}
		f.send(t, "GET", path, "").want(t, 200, "").Into(t, &d)
		base := servicetest.PublicURL + "/uaa/oauth/"
		if d.Authorization != base+"authorize" || d.Device != base+"device_authorization" || d.Revocation != base+"revoke" ||
			!slices.Equal(d.Responses, []string{"code"}) || !slices.Equal(d.Challenges, []string{"S256"}) ||
			!slices.Contains(d.Grants, "authorization_code") || !slices.Contains(d.Grants, deviceGrant) {
			t.Errorf("%s: %+v", path, d)
		}
	}
}
