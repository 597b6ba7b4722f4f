package uaa_test

import (
	"net/url"
	"testing"

	"rolecall/internal/servicetest"
)

// TestRevocation: the endpoint of RFC 7009, as its clients use it. That a token ends everywhere: identity: TestRevoke.
func TestRevocation(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	id := f.program(t, map[string]any{"authorized_grant_types": []string{"password", "refresh_token", "client_credentials"},
		"scope": []string{"cloud_controller.read"}})
	program := basic(id, id+"-secret")
	revoke := func(token string, headers ...string) answer {
		t.Helper()
		return f.send(t, "POST", "/oauth/revoke", url.Values{"token": {token}}.Encode(), append(headers, form)...)
	}
	signIn := []string{"grant_type", "password", "username", bob.UserName, "password", bob.UserName + "-password"}
	refresh := func(token, authorization string) answer {
		t.Helper()
		return f.token(t, authorization, "grant_type", "refresh_token", "refresh_token", token)
	}
	// By Basic and by the form, with each kind of token; the answer has no body.
	tok := f.token(t, cf, signIn...).token(t)
	if a := revoke(tok.RefreshToken, cf).want(t, 200, ""); a.Body != "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %q, %v", a.Body, a.Header)
	}
	refresh(tok.RefreshToken, cf).want(t, 400, "invalid_grant")
	f.as(t, tok.AccessToken, "GET", "/Users/"+bob.ID, "").want(t, 401, "invalid_token")

	tok = f.token(t, program, signIn...).token(t)
	f.send(t, "POST", "/oauth/revoke", url.Values{"token": {tok.AccessToken}, "token_type_hint": {"refresh_token"},
		"client_id": {id}, "client_secret": {id + "-secret"}}.Encode(), form).want(t, 200, "")
	f.as(t, tok.AccessToken, "GET", "/Users/"+bob.ID, "").want(t, 401, "invalid_token")
	refresh(tok.RefreshToken, program).token(t)

	own := f.token(t, program, "grant_type", "client_credentials").token(t)
	revoke(own.AccessToken, program).want(t, 200, "")
	f.as(t, own.AccessToken, "GET", "/Users/"+id, "").want(t, 401, "invalid_token")

	// Without a client that authenticates nothing ends, and a token in the URL is not even looked at.
	tok = f.token(t, cf, signIn...).token(t)
	revoke(tok.RefreshToken).want(t, 401, "invalid_client")
	revoke(tok.RefreshToken, basic(id, "wrong")).want(t, 401, "invalid_client")
	if a := revoke("x", basic("cf", "a secret")).want(t, 401, "invalid_client"); a.Header.Get("WWW-Authenticate") !=
		`Basic realm="rolecall", charset="UTF-8"` {
		t.Errorf("the challenge is %q", a.Header.Get("WWW-Authenticate"))
	}
	for _, token := range []string{tok.AccessToken, tok.RefreshToken} { // of another client
		revoke(token, program).want(t, 200, "")
	}
	f.send(t, "POST", "/oauth/revoke?token="+tok.RefreshToken, "", form, cf).want(t, 400, "invalid_request")
	revoke("", cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/revoke", `{"token":"x"}`, "Content-Type: application/json", cf).want(t, 415, "invalid_request")
	f.send(t, "GET", "/oauth/revoke", "", cf).want(t, 405, "method_not_allowed")
	f.as(t, tok.AccessToken, "GET", "/Users/"+bob.ID, "").want(t, 200, "")
	refresh(tok.RefreshToken, cf).token(t)
	revoke("nonsense", cf).want(t, 200, "")

	var discovery struct {
		Revocation string   `json:"revocation_endpoint"`
		Methods    []string `json:"revocation_endpoint_auth_methods_supported"`
	}
	f.send(t, "GET", "/.well-known/openid-configuration", "").Into(t, &discovery)
	if discovery.Revocation != servicetest.PublicURL+"/uaa/oauth/revoke" || len(discovery.Methods) != 3 {
		t.Errorf("got %+v", discovery)
	}
}
