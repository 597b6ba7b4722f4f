package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"rolecall/internal/secret"
)

// The sign-in through a browser: the authorization code with PKCE, RFC 7636, and the device flow, RFC 8628.

// endpoints are those of the server's discovery document; "": the server has no such endpoint.
type endpoints struct {
	Authorization string `json:"authorization_endpoint"`
	Device        string `json:"device_authorization_endpoint"`
}

func (c *Client) discover(ctx context.Context) (*endpoints, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := c.send(ctx, wire{
		method: http.MethodGet, path: "/uaa/.well-known/openid-configuration", accept: "application/json",
	}, "")
	if err != nil {
		return nil, err
	}
	answer, err := c.read(resp)
	if err != nil {
		return nil, err
	}
	var found endpoints
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, fmt.Errorf("%s does not answer like Rolecall; check the URL", c.URL)
	}
	return &found, nil
}

// errNoBrowser is the error of a server that knows the sign-in with a password only.
var errNoBrowser = errors.New("does not offer the sign-in through a browser; " +
	"update the server, or sign in with a user name and a password")

// signInPage checks an address that a browser is to open. The server names it, and it may be handed to a program.
func (c *Client) signInPage(address string) (*url.URL, error) {
	if address == "" {
		return nil, fmt.Errorf("%s %w", c.URL, errNoBrowser)
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("%s names %q as its page for the sign-in, which is no URL like https://rolecall.example.org; "+
			"check the --public-url of the server", c.URL, address)
	}
	return u, nil
}

// Authorization is one sign-in by an authorization code.
type Authorization struct {
	// URL is the page that the person opens.
	URL string
	// State comes back with the code. An answer with another one belongs to another sign-in.
	State string

	// Verifier proves that the code goes to who asked for it.
	Verifier secret.Text

	redirect string
}

// Authorize begins a sign-in whose code is sent to the URL redirect. With an issuer, the page goes on to that issuer without
// asking.
//
// The page is where the server's discovery says, because people reach it by its public URL. The requests of this client go
// to c.URL as all others.
func (c *Client) Authorize(ctx context.Context, redirect, issuer string) (*Authorization, error) {
	found, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	page, err := c.signInPage(found.Authorization)
	if err != nil {
		return nil, err
	}
	a := &Authorization{State: random(), redirect: redirect, Verifier: secret.Text(random())}
	challenge := sha256.Sum256([]byte(a.Verifier))
	query := page.Query()
	query.Set("response_type", "code")
	query.Set("client_id", BrowserClient)
	query.Set("redirect_uri", redirect)
	query.Set("state", a.State)
	query.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
	query.Set("code_challenge_method", "S256")
	if issuer != "" {
		query.Set("issuer", issuer)
	}
	page.RawQuery = query.Encode()
	a.URL = page.String()
	return a, nil
}

// random is 256 bits as text, of the length that RFC 7636, 4.1 asks of a verifier.
func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// Exchange gets the tokens for the code of an authorization.
func (c *Client) Exchange(ctx context.Context, a *Authorization, code string) (*Tokens, error) {
	return c.grant(ctx, BrowserClient, url.Values{"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {a.redirect}, "code_verifier": {string(a.Verifier)}})
}

// Device is one sign-in that a person confirms in any browser.
type Device struct {
	// UserCode is what the person enters at Page.
	UserCode, Page string
	// PageWithCode is Page with the code in it; "" if the server names none.
	PageWithCode string
	// Lifetime is how long the code is valid.
	Lifetime time.Duration
	// Code is what this client polls with.
	Code secret.Text

	expires  time.Time
	interval time.Duration
}

// The times of RFC 8628, 3.2 and 3.5.
const (
	defaultInterval = 5 * time.Second
	slowDown        = 5 * time.Second
)

// StartDevice begins a sign-in by the device flow.
func (c *Client) StartDevice(ctx context.Context) (*Device, error) {
	found, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	if found.Device == "" {
		return nil, fmt.Errorf("%s %w", c.URL, errNoBrowser)
	}
	asked := time.Now()
	answer, err := c.form(ctx, "/uaa/oauth/device_authorization", url.Values{"client_id": {BrowserClient}})
	if err != nil {
		return nil, err
	}
	var a struct {
		DeviceCode   string `json:"device_code"`
		UserCode     string `json:"user_code"`
		Page         string `json:"verification_uri"`
		PageWithCode string `json:"verification_uri_complete"`
		Seconds      int    `json:"expires_in"`
		Interval     int    `json:"interval"`
	}
	if err := json.Unmarshal(answer, &a); err != nil || a.DeviceCode == "" || a.UserCode == "" || a.Seconds <= 0 {
		return nil, fmt.Errorf("%s does not issue codes like Rolecall; check the URL", c.URL)
	}
	if _, err := c.signInPage(a.Page); err != nil {
		return nil, err
	}
	d := &Device{UserCode: a.UserCode, Page: a.Page, PageWithCode: a.PageWithCode, Code: secret.Text(a.DeviceCode),
		Lifetime: time.Duration(a.Seconds) * time.Second, interval: time.Duration(a.Interval) * time.Second}
	d.expires = asked.Add(d.Lifetime)
	if d.interval <= 0 {
		d.interval = defaultInterval
	}
	return d, nil
}

// The ends of a device flow without tokens.
var (
	ErrDenied  = errors.New("the sign-in was denied in the browser")
	ErrExpired = errors.New("the code has expired before it was confirmed in the browser")
)

// failedPolls is how many polls in a row may bring no answer.
const failedPolls = 3

// AwaitDevice polls until the person has confirmed the code, and gets the tokens. It ends with ErrDenied, ErrExpired, or the
// failure of the server.
func (c *Client) AwaitDevice(ctx context.Context, d *Device) (*Tokens, error) {
	for failed := 0; ; {
		pause := d.interval
		if time.Until(d.expires) < pause {
			return nil, ErrExpired
		}
		if err := c.pause(ctx, pause); err != nil {
			return nil, err
		}
		tokens, err := c.grant(ctx, BrowserClient, url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {string(d.Code)}})
		if err == nil || ctx.Err() != nil {
			return tokens, err
		}
		e, answered := errors.AsType[*Error](err)
		switch {
		case answered && e.Code == "authorization_pending":
			failed = 0
		case answered && e.Code == "slow_down":
			failed = 0
			d.interval += slowDown
		case answered && e.Code == "access_denied":
			return nil, ErrDenied
		case answered && e.Code == "expired_token":
			return nil, ErrExpired
		case answered && e.Status < 500 && e.Status != http.StatusTooManyRequests:
			return nil, err
		default: // no answer, throttled, or a proxy's failure: less often, as RFC 8628, 3.5 says
			if failed++; failed == failedPolls {
				return nil, err
			}
			d.interval *= 2
			if answered {
				d.interval = max(d.interval, e.RetryAfter)
			}
		}
	}
}
