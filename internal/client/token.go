package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"rolecall/internal/secret"
)

// Tokens is what a sign-in gives.
type Tokens struct {
	Access  secret.Text
	Expires time.Time
	// Refresh gets the next access token.
	Refresh secret.Text
}

// The OAuth clients of the command line. Both are public: they have no secret. A refresh token belongs to the client that
// got it.
const (
	// PasswordClient signs in with user names and passwords.
	PasswordClient = "cf"
	// BrowserClient signs in through a browser.
	BrowserClient = "rolecall"
)

// SignIn gets tokens for a user name and password.
func (c *Client) SignIn(ctx context.Context, username, password string) (*Tokens, error) {
	return c.grant(ctx, PasswordClient,
		url.Values{"grant_type": {"password"}, "username": {username}, "password": {password}})
}

// Renew gets tokens for a refresh token, with the client that got it.
func (c *Client) Renew(ctx context.Context, oauthClient, refresh string) (*Tokens, error) {
	return c.grant(ctx, oauthClient, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
}

// Revoke ends a refresh token and the access tokens that came with it, with the client that got it.
func (c *Client) Revoke(ctx context.Context, oauthClient, token string) error {
	_, err := c.form(ctx, "/uaa/oauth/revoke", url.Values{"client_id": {oauthClient}, "token": {token}})
	return err
}

// form sends a form without a token.
func (c *Client) form(ctx context.Context, path string, form url.Values) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := c.send(ctx, wire{
		method:    http.MethodPost,
		path:      path,
		accept:    "application/json",
		mediaType: "application/x-www-form-urlencoded",
		body:      []byte(form.Encode()),
	}, "")
	if err != nil {
		return nil, err
	}
	return c.read(resp)
}

func (c *Client) grant(ctx context.Context, oauthClient string, form url.Values) (*Tokens, error) {
	form.Set("client_id", oauthClient)
	asked := time.Now()
	answer, err := c.form(ctx, "/uaa/oauth/token", form)
	if err != nil {
		return nil, err
	}
	var t struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Seconds int    `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &t); err != nil || t.Access == "" {
		return nil, fmt.Errorf("%s does not issue tokens like Rolecall; check the URL", c.URL)
	}
	return &Tokens{secret.Text(t.Access), asked.Add(time.Duration(t.Seconds) * time.Second), secret.Text(t.Refresh)}, nil
}
