package client_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// discovered answers discovery, and hands everything else to h.
func discovered(document string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/uaa/.well-known/openid-configuration" {
			h(w, r)
			return
		}
		_, _ = io.WriteString(w, document)
	}
}

func TestAuthorizationCode(t *testing.T) {
	t.Parallel()
	var got url.Values
	c := newClient(t, discovered(`{"authorization_endpoint":"https://rolecall.test/uaa/oauth/authorize?x=1"}`,
		func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			got = r.PostForm
			_, _ = io.WriteString(w, `{"access_token":"a","refresh_token":"r","expires_in":60}`)
		}))
	a, err := c.Authorize(t.Context(), "http://127.0.0.1:7/callback", "okta&dex")
	if err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	query := page.Query()
	challenge := query.Get("code_challenge")
	query.Del("code_challenge")
	page.RawQuery = query.Encode()
	if want := "https://rolecall.test/uaa/oauth/authorize?client_id=rolecall&code_challenge_method=S256&issuer=okta%26dex&" +
		"redirect_uri=http%3A%2F%2F127.0.0.1%3A7%2Fcallback&response_type=code&state=" + a.State + "&x=1"; page.String() != want {
		t.Errorf("got %s, want %s", page, want)
	}
	if other, err := c.Authorize(t.Context(), "http://127.0.0.1:7/callback", ""); err != nil || other.State == a.State ||
		strings.Contains(other.URL, challenge) || strings.Contains(other.URL, "issuer") || len(a.State) < 43 {
		t.Errorf("another sign-in has the page %s: %v", other.URL, err)
	}

	tokens, err := c.Exchange(t.Context(), a, "the code")
	if err != nil || tokens.Access != "a" || tokens.Refresh != "r" {
		t.Errorf("got %v, %v", tokens, err)
	}
	digest := sha256.Sum256([]byte(got.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(digest[:]) != challenge || got.Get("code") != "the code" ||
		got.Get("grant_type") != "authorization_code" || got.Get("client_id") != "rolecall" ||
		got.Get("redirect_uri") != "http://127.0.0.1:7/callback" {
		t.Errorf("sent %v for the challenge %s", got, challenge)
	}
	if text := fmt.Sprintf("%+v", a); strings.Contains(text, got.Get("code_verifier")) {
		t.Errorf("the verifier is printed: %s", text)
	}
}

// TestPagesOfTheServer: a page is handed to a program, so it is a page of the web.
func TestPagesOfTheServer(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`{}`: "does not offer the sign-in through a browser",
		`{"authorization_endpoint":"file:///etc/passwd"}`: `names "file:///etc/passwd" as its page`,
		`{"authorization_endpoint":"--version"}`:          `names "--version" as its page`,
		`{"authorization_endpoint":"https:///x"}`:         "as its page",
		`{"authorization_endpoint":7}`:                    "does not answer like Rolecall",
	} {
		c := newClient(t, discovered(document, http.NotFound))
		a, err := c.Authorize(t.Context(), "http://127.0.0.1:7/callback", "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v", document, a, err)
		}
	}
	for answer, want := range map[string]string{
		`{}`: "does not issue codes",
		`{"device_code":"d","user_code":"U","expires_in":0,"verification_uri":"https://a.test"}`:     "does not issue codes",
		`{"device_code":"d","user_code":"U","expires_in":9,"verification_uri":"javascript:alert()"}`: "as its page",
	} {
		c := newClient(t, discovered(`{"device_authorization_endpoint":"x"}`, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, answer)
		}))
		if d, err := c.StartDevice(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v", answer, d, err)
		}
	}
	c := newClient(t, discovered(`{"authorization_endpoint":"https://a.test"}`, http.NotFound))
	if d, err := c.StartDevice(t.Context()); err == nil || !strings.Contains(err.Error(), "does not offer") {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestDeviceFlow(t *testing.T) {
	t.Parallel()
	const s = time.Second
	tokens := `200 {"access_token":"a","refresh_token":"r","expires_in":60}`
	pending := `400 {"error":"authorization_pending"}`
	slower := `400 {"error":"slow_down"}`
	for name, test := range map[string]struct {
		device string // the times in the answer of the device endpoint
		polls  []string
		pauses []time.Duration
		want   string // in the error; "": tokens
	}{
		"confirmed": {`"expires_in":600,"interval":2`, []string{pending, pending, tokens},
			[]time.Duration{2 * s, 2 * s, 2 * s}, ""},
		"default interval":  {`"expires_in":600`, []string{tokens}, []time.Duration{5 * s}, ""},
		"nonsense interval": {`"expires_in":600,"interval":-1`, []string{tokens}, []time.Duration{5 * s}, ""},
		"slower": {`"expires_in":600,"interval":1`, []string{slower, pending, slower, tokens},
			[]time.Duration{s, 6 * s, 6 * s, 11 * s}, ""},
		"denied": {`"expires_in":600`, []string{`400 {"error":"access_denied"}`}, []time.Duration{5 * s}, "denied"},
		"expired": {`"expires_in":600`, []string{pending, `400 {"error":"expired_token"}`},
			[]time.Duration{5 * s, 5 * s}, "expired"},
		"expires too soon": {`"expires_in":4`, nil, nil, "expired"},
		"another refusal": {`"expires_in":600`, []string{`400 {"error":"invalid_grant","error_description":"No."}`},
			[]time.Duration{5 * s}, "No."},
		"a restart": {`"expires_in":600`, []string{`503 `, "cut", pending, tokens},
			[]time.Duration{5 * s, 10 * s, 20 * s, 20 * s}, ""},
		"throttled": {`"expires_in":600`, []string{`429 60`, tokens}, []time.Duration{5 * s, 60 * s}, ""},
		"a server that ends": {`"expires_in":600`, []string{"cut", "502 ", "cut"},
			[]time.Duration{5 * s, 10 * s, 20 * s}, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			polls := make(chan string, len(test.polls)) // a connection that is cut orders nothing
			for _, poll := range test.polls {
				polls <- poll
			}
			c := newClient(t, discovered(`{"device_authorization_endpoint":"x"}`, func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				if r.PostForm.Get("client_id") != "rolecall" {
					t.Errorf("sent %v", r.PostForm)
				}
				if r.URL.Path == "/uaa/oauth/device_authorization" {
					_, _ = fmt.Fprintf(w, `{"device_code":"the device","user_code":"ABCD","verification_uri":"https://a.test/device",`+
						`"verification_uri_complete":"https://a.test/device?user_code=ABCD",%s}`, test.device)
					return
				}
				if r.PostForm.Get("device_code") != "the device" ||
					r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" || len(polls) == 0 {
					t.Errorf("sent %v to %s with %d polls to come", r.PostForm, r.URL, len(polls))
					return
				}
				poll := <-polls
				if poll == "cut" {
					panic(http.ErrAbortHandler)
				}
				status, body, _ := strings.Cut(poll, " ")
				if status == "429" {
					w.Header().Set("Retry-After", body)
				}
				var code int
				_, _ = fmt.Sscan(status, &code)
				w.WriteHeader(code)
				_, _ = io.WriteString(w, body)
			}))
			var pauses []time.Duration
			c.Pauses(func(d time.Duration) { pauses = append(pauses, d) })
			d, err := c.StartDevice(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d.UserCode != "ABCD" || d.Page != "https://a.test/device" ||
				d.PageWithCode != "https://a.test/device?user_code=ABCD" || strings.Contains(fmt.Sprintf("%+v", d), "the device") {
				t.Errorf("got %+v", d)
			}
			got, err := c.AwaitDevice(t.Context(), d)
			if test.want == "" && (err != nil || got.Access != "a" || got.Refresh != "r") ||
				test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, %v, want %q", got, err, test.want)
			}
			if !slices.Equal(pauses, test.pauses) || len(polls) > 0 {
				t.Errorf("paused %v with %d polls to come, want %v", pauses, len(polls), test.pauses)
			}
		})
	}
}

func TestDeviceFlowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newClient(t, discovered(`{"device_authorization_endpoint":"x"}`, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"device_code":"d","user_code":"U","verification_uri":"https://a.test","expires_in":600}`)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	d, err := c.StartDevice(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := c.AwaitDevice(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
