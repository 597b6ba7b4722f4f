package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rolecall/internal/client"
)

// newClient returns a client of a handler, whose tokens are first and then the others, in turn.
func newClient(t *testing.T, h http.HandlerFunc, tokens ...string) *client.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c := client.New(server.URL, "test/1")
	c.Token = func(_ context.Context, refused string) (string, error) {
		if i := slices.Index(tokens, refused); refused != "" && i+1 < len(tokens) {
			return tokens[i+1], nil
		}
		return tokens[0], nil
	}
	return c
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		status     int
		retryAfter string
		body       string
		want       client.Error
	}{
		"DBaaS": {422, "", `{"httpStatus":422,"messages":[{"errorCode":"paas-validation-1","message":"The name is reserved."}]}`,
			client.Error{Status: 422, Code: "paas-validation-1", Message: "The name is reserved."}},
		"Cloud Foundry": {404, "", `{"errors":[{"code":10010,"title":"CF-ResourceNotFound","detail":"User not found"}]}`,
			client.Error{Status: 404, Code: "CF-ResourceNotFound", Message: "User not found."}},
		"problem": {409, "", `{"title":"Conflict","status":409,"detail":"There is a cluster \"a\" already.","requestId":"r"}`,
			client.Error{Status: 409, Message: `There is a cluster "a" already.`}},
		"problem without detail": {500, "", `{"title":"Internal error","status":500}`,
			client.Error{Status: 500, Message: "Internal error."}},
		"OAuth": {401, "", `{"error":"unauthorized","error_description":"Bad credentials"}`,
			client.Error{Status: 401, Code: "unauthorized", Message: "Bad credentials."}},
		"rate limit": {429, "7", `{"title":"Too many requests","detail":"Too many requests."}`,
			client.Error{Status: 429, Message: "Too many requests.", RetryAfter: 7 * time.Second}},
		"a proxy's page": {502, "", `<html><h1>Bad Gateway</h1>`,
			client.Error{Status: 502, Message: "The server answered 502 Bad Gateway without a reason."}},
		"other types": {400, "", `{"messages":"no","errors":{"a":1},"error":["x"],"detail":7}`,
			client.Error{Status: 400, Message: "The server answered 400 Bad Request without a reason."}},
		"nothing": {503, "never", ``,
			client.Error{Status: 503, Message: "The server answered 503 Service Unavailable without a reason."}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Request-Id", "r-1")
				if test.retryAfter != "" {
					w.Header().Set("Retry-After", test.retryAfter)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}, "secret-token")
			_, err := c.Do(t.Context(), client.Request{
				Method: http.MethodPost, Path: "/x", Body: map[string]string{"password": "secret-password"},
			})
			e, ok := err.(*client.Error)
			test.want.RequestID = "r-1"
			if !ok || *e != test.want {
				t.Fatalf("got %#v, want %#v", err, test.want)
			}
			if client.Status(err) != test.status {
				t.Errorf("Status is %d", client.Status(err))
			}
			if s := err.Error(); strings.Contains(s, "secret") || !strings.Contains(s, fmt.Sprintf("(HTTP %d, request r-1)",
				test.status)) {
				t.Errorf("the error says %q", s)
			}
		})
	}
}

func TestWarning(t *testing.T) {
	warning := "The password has characters."
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		if warning != "" {
			w.Header().Set("Rolecall-Warning", warning)
		}
		_, _ = io.WriteString(w, "{}")
	}, "secret-token")
	for _, want := range []string{warning, ""} {
		warning = want
		if answer, err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/x"}); err != nil ||
			answer.Warning != want {
			t.Errorf("the warning is %q, %v, want %q", answer.Warning, err, want)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"unreachable": {nil, "cannot be reached"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.test/", http.StatusTemporaryRedirect)
		}, `redirects to "http://elsewhere.test/"`},
		"not JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "check the URL"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, test.handler, "secret-token")
			if test.handler == nil {
				c.URL = closed.URL
			}
			_, err := c.Do(t.Context(), client.Request{
				Method: http.MethodPost, Path: "/x", Query: url.Values{"q": {"in-the-query"}},
				Body: map[string]string{"password": "secret-password"},
			})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") ||
				strings.Contains(err.Error(), "query") {
				t.Errorf("got %v, want %q without secrets", err, test.want)
			}
			if client.Status(err) != 0 {
				t.Errorf("Status is %d, want 0", client.Status(err))
			}
		})
	}
	c := newClient(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "t")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Get(ctx, "/x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
	changing, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	c = newClient(t, func(_ http.ResponseWriter, r *http.Request) { interrupt(); <-r.Context().Done() }, "t")
	if _, err := c.Do(changing, client.Request{Method: http.MethodPost, Path: "/x"}); !errors.Is(err, context.Canceled) ||
		!strings.Contains(err.Error(), "may still complete") {
		t.Errorf("after an interrupt of a change: %v", err)
	}
}

func TestTokens(t *testing.T) {
	var sent []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = append(sent, r.Header.Get("Authorization")+" "+string(body))
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"ok":true}`)
	}, "stale", "good")
	if _, err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/x", Body: 1}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"Bearer stale 1", "Bearer good 1"}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q", sent, want)
	}
	// A token that there is no other for is sent once.
	sent = nil
	c.Token = func(context.Context, string) (string, error) { return "bad", nil }
	if _, err := c.Get(t.Context(), "/x", nil); client.Status(err) != http.StatusUnauthorized || len(sent) != 1 {
		t.Errorf("got %v after %q", err, sent)
	}
}

func TestSignIn(t *testing.T) {
	const password = "a &=+%\u00e9 b"
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" || r.URL.Path != "/uaa/oauth/token" {
			t.Errorf("the request is %s %v", r.URL, r.Header)
		}
		switch {
		case r.PostFormValue("client_id") != "cf":
			w.WriteHeader(http.StatusUnauthorized)
		case r.PostFormValue("grant_type") == "password" && r.PostFormValue("username") == "alice" &&
			r.PostFormValue("password") == password,
			r.PostFormValue("grant_type") == "refresh_token" && r.PostFormValue("refresh_token") == "r1":
			_, _ = io.WriteString(w, `{"access_token":"a1","refresh_token":"r1","expires_in":1200}`)
		default:
			_, _ = io.WriteString(w, `{"hello":1}`)
		}
	}, "none")
	for _, get := range []func() (*client.Tokens, error){
		func() (*client.Tokens, error) { return c.SignIn(t.Context(), "alice", password) },
		func() (*client.Tokens, error) { return c.Renew(t.Context(), client.PasswordClient, "r1") },
	} {
		tokens, err := get()
		if err != nil || tokens.Access != "a1" || tokens.Refresh != "r1" ||
			time.Until(tokens.Expires).Round(time.Minute) != 20*time.Minute {
			t.Errorf("got %+v, %v", tokens, err)
		}
	}
	if _, err := c.SignIn(t.Context(), "bob", password); err == nil || strings.Contains(err.Error(), "&=") {
		t.Errorf("an answer without a token: %v", err)
	}
}

// TestLists reads lists of several pages in the form of each dialect.
func TestLists(t *testing.T) {
	const total = 2500
	number := func(r *http.Request, name string) int {
		n, err := strconv.Atoi(r.FormValue(name))
		if err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
		return n
	}
	numbers := func(from, size int) []int {
		page := []int{}
		for n := from; n < min(from+size, total); n++ {
			page = append(page, n)
		}
		return page
	}
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("filter") != "kept" {
			t.Errorf("%s has lost the filter", r.URL)
		}
		var answer any
		switch r.URL.Path {
		case "/cf":
			size := number(r, "per_page")
			page := numbers((number(r, "page")-1)*size, size)
			var next any
			if number(r, "page")*size < total {
				next = map[string]string{"href": "http://public.test/cf?page=9"}
			}
			answer = map[string]any{"pagination": map[string]any{"next": next}, "resources": page}
		case "/own":
			from := 0
			if r.FormValue("cursor") != "" {
				from = number(r, "cursor")
			}
			var next any
			if from+700 < total {
				next = strconv.Itoa(from + 700)
			}
			answer = map[string]any{"items": numbers(from, 700), "next": next}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}, "t")
	query := url.Values{"filter": {"kept"}}
	for path, list := range map[string]func(context.Context, string, url.Values) ([]json.RawMessage, error){
		"/cf": c.Pages, "/own": c.Items,
	} {
		items, err := list(t.Context(), path, query)
		if err != nil || len(items) != total {
			t.Errorf("%s: %d items, %v", path, len(items), err)
			continue
		}
		for i, item := range items {
			if string(item) != strconv.Itoa(i) {
				t.Fatalf("%s: item %d is %s", path, i, item)
			}
		}
	}
	if len(query) != 1 {
		t.Errorf("the query of the caller was changed: %v", query)
	}
}

func TestParseURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://rolecall.example.org/":        "https://rolecall.example.org",
		"http://127.0.0.1:8080":                "http://127.0.0.1:8080",
		"https://example.org/rolecall//":       "https://example.org/rolecall",
		"":                                     "",
		"rolecall.example.org":                 "",
		"127.0.0.1:8080":                       "",
		"ftp://example.org":                    "",
		"https://example.org/?a=b":             "",
		"https://alice:secret@example.org":     "",
		"https://example.org/#fragment":        "",
		"https:///path":                        "",
		"https://exa mple.org":                 "",
		"postgres://rolecall@127.0.0.1/secret": "",
	} {
		got, err := client.ParseURL(given)
		if got != want || (err == nil) != (want != "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseURL(%q) = %q, %v, want %q", given, got, err, want)
		}
	}
	if got := client.Path("/users", "a/b", "c d", "%"); got != "/users/a%2Fb/c%20d/%25" {
		t.Errorf("Path is %s", got)
	}
}
