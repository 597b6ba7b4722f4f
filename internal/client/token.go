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

// publicClient is the OAuth client that needs no secret.
const publicClient = "cf"

// SignIn gets tokens for a user name and password.
func (c *Client) SignIn(ctx context.Context, username, password string) (*Tokens, error) {
	return c.grant(ctx, url.Values{"grant_type": {"password"}, "username": {username}, "password": {password}})
}

// Renew gets tokens for a refresh token.
func (c *Client) Renew(ctx context.Context, refresh string) (*Tokens, error) {
	return c.grant(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
}

// Revoke ends a refresh token and the access tokens that came with it.
func (c *Client) Revoke(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := c.send(ctx, wire{
		method:    http.MethodPost,
		path:      "/uaa/oauth/revoke",
		accept:    "application/json",
		mediaType: "application/x-www-form-urlencoded",
		body:      []byte(url.Values{"client_id": {publicClient}, "token": {token}}.Encode()),
	}, "")
	if err != nil {
		return err
	}
	_, err = c.read(resp)
	return err
}

func (c *Client) grant(ctx context.Context, form url.Values) (*Tokens, error) {
	form.Set("client_id", publicClient)
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := c.send(ctx, wire{
		method:    http.MethodPost,
		path:      "/uaa/oauth/token",
		accept:    "application/json",
		mediaType: "application/x-www-form-urlencoded",
		body:      []byte(form.Encode()),
	}, "")
	if err != nil {
		return nil, err
	}
	answer, err := c.read(resp)
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
