package console_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/console"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

func TestSignIn(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "sign-in", account.DefaultScopes, nil)
	b := s.browser(t)
	for _, path := range []string{"/console/", "/console", "/console/me", "/console/no-such-page?a=b"} {
		a := b.get(path).is(http.StatusSeeOther)
		if want := "/console/sign-in?next=" + url.QueryEscape(path); a.Location != want {
			t.Errorf("%s leads to %s, not to %s", path, a.Location, want)
		}
	}
	b.post("/console/sign-in", "username", "sign-in", "password", "wrong").is(http.StatusUnprocessableEntity).
		shows("The user name or the password is wrong.", `value="sign-in"`).hides(`value="wrong"`)
	b.get("/console/").is(http.StatusSeeOther)
	a := b.post("/console/sign-in", "username", "sign-in", "password", "sign-in-password", "next", "/console/?a=1").
		is(http.StatusSeeOther)
	if a.Location != "/console/?a=1" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
	cookie := a.Header.Get("Set-Cookie")
	for _, part := range []string{"rolecall=", "Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie lacks %s: %s", part, cookie)
		}
	}
	for _, part := range []string{"Domain", "Max-Age", "Expires"} {
		if strings.Contains(cookie, part) {
			t.Errorf("the cookie has %s: %s", part, cookie)
		}
	}
	b.get("/console/").is(http.StatusOK).shows("sign-in")

	// The secret of a session that was signed out opens nothing.
	old := b.http.Jar.Cookies(mustURL(t, s.URL))
	b.post("/console/sign-out").is(http.StatusSeeOther)
	b.http.Jar.SetCookies(mustURL(t, s.URL), old)
	b.get("/console/").is(http.StatusSeeOther)
}

func mustURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A browser that keeps no cookies is told so, after the sign-in and not before.
func TestWithoutCookies(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	after := func(referer string) string {
		req, err := http.NewRequest(http.MethodGet, s.URL+"/console/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Referer", referer)
		return s.browser(t).do(req).is(http.StatusSeeOther).Location
	}
	s.browser(t).get(after("https://example.com/")).is(http.StatusOK).hides("cookie")
	s.browser(t).get(after(s.URL + "/console/sign-in?next=%2Fconsole%2F")).is(http.StatusOK).
		shows("Your browser did not keep the cookie")
}

// A page leads to another page of ours after the sign-in, and nowhere else.
func TestSignInLeadsToOwnPages(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "leads", account.DefaultScopes, nil)
	for _, next := range []string{
		"", "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "https:evil.example",
		"javascript:alert(1)", "/console//evil.example/../..//evil", "/console/../..//evil.example", "//evil.example/console/",
		"/consolex", "/rolecall/v1/users", "/console/\r\nSet-Cookie: a=b", "http:/console/", "/%2f/evil.example",
		"/.evil.example", strings.Repeat("/console/", 1000),
	} {
		a := s.browser(t).post("/console/sign-in", "username", "leads", "password", "leads-password", "next", next).
			is(http.StatusSeeOther)
		u := mustURL(t, a.Location)
		if u.Host != "" || u.Scheme != "" || !strings.HasPrefix(a.Location, "/console/") {
			t.Errorf("next %q leads to %q", next, a.Location)
		}
	}
}

// A form of another site changes nothing, and neither does one that does not say where it comes from.
func TestForeignForms(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "foreign", account.DefaultScopes, nil)
	b := s.signedIn(t, "foreign", "foreign-password")
	send := func(headers ...string) *answer {
		req, err := http.NewRequest(http.MethodPost, s.URL+"/console/sign-out", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		return b.do(req)
	}
	send().is(http.StatusForbidden)
	send("Origin", "https://evil.example").is(http.StatusForbidden)
	send("Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example").is(http.StatusForbidden)
	send("Sec-Fetch-Site", "same-site", "Origin", "http://x.127.0.0.1").is(http.StatusForbidden)
	b.get("/console/").is(http.StatusOK)
	send("Origin", s.URL).is(http.StatusSeeOther)
	b.get("/console/").is(http.StatusSeeOther)
}

// A token is not taken for a session.
func TestNoTokens(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "bearer", account.DefaultScopes, nil)
	token, err := s.Identity.MintFor(context.Background(), "bearer", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, s.URL+"/console/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	s.browser(t).do(req).is(http.StatusSeeOther)
}

// What was typed into a form survives the end of the session, and its secrets do not.
func TestTypedSurvivesSignIn(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "typed", account.DefaultScopes, nil)
	b := s.browser(t)
	a := b.post("/console/prove", "next", "/console/", "note", `a "note" & more`, "password", "typed-password").
		is(http.StatusUnauthorized).shows("Your session has ended").hides("typed-password")
	a = b.post("/console/sign-in", "username", "typed", "password", "typed-password", "next", a.hidden("next"),
		"typed", a.hidden("typed")).is(http.StatusOK).shows(`action="/console/prove"`, "a &#34;note&#34; &amp; more")
	if a.hidden("note") != `a "note" & more` || a.hidden("_restore") != "1" {
		t.Errorf("what was typed is lost:\n%s", a.Body)
	}
}

// A session ends with what ends the tokens of its account.
func TestSessionEnds(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	guid := s.Account(t, "ends", account.DefaultScopes, nil)
	b := s.signedIn(t, "ends", "ends-password")
	b.get("/console/").is(http.StatusOK)
	if _, err := s.DB.Pool.Exec(context.Background(), `UPDATE console_sessions SET last_used_at = now() - interval '31 minutes',
		created_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	other := newSite(t, s.Replica(t))
	moved := other.browser(t)
	moved.http.Jar.SetCookies(mustURL(t, other.URL), b.http.Jar.Cookies(mustURL(t, s.URL)))
	moved.get("/console/").is(http.StatusSeeOther) // it was idle for too long, as this replica knows

	b = s.signedIn(t, "ends", "ends-password")
	moved.http.Jar.SetCookies(mustURL(t, other.URL), b.http.Jar.Cookies(mustURL(t, s.URL)))
	moved.get("/console/").is(http.StatusOK)
	_, err := s.DB.Pool.Exec(context.Background(), `UPDATE accounts SET epoch = gen_random_uuid() WHERE guid = $1`, guid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); moved.get("/console/").Status == http.StatusOK; {
		if time.Now().After(deadline) {
			t.Fatal("the session goes on")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A form of somebody without a session, whose body does not come, is answered after the time that strangers have.
func TestSlowFormOfStranger(t *testing.T) {
	s := servicetest.Shared(t)
	front := s.Door(0)
	front.StrangerBody = 50 * time.Millisecond
	pages := &console.Console{Accounts: s.Accounts, Users: s.Users, Fleet: s.Fleet, Identity: s.Identity,
		Idempotency: s.Idempotency, Door: front, PublicURL: servicetest.PublicURL}
	server := httptest.NewServer(&web.Edge{Log: slog.New(slog.DiscardHandler), Handler: pages.Handler()})
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "POST /console/clusters/new HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if strings.TrimSpace(line) != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("the answer is %q: %v", line, err)
	}
}

// What anybody may send to the page to sign in takes little memory: a form has no thousands of fields, and only as many long
// ones are read at once as other large bodies.
func TestLargeForms(t *testing.T) {
	s := servicetest.Shared(t)
	pages := &console.Console{Accounts: s.Accounts, Users: s.Users, Fleet: s.Fleet, Identity: s.Identity,
		Idempotency: s.Idempotency, Door: s.Door(0), PublicURL: servicetest.PublicURL}
	server := httptest.NewServer(&web.Edge{Log: slog.New(slog.DiscardHandler), Handler: pages.Handler(),
		InFlight: &web.InFlight{LargeBodies: 1, LargeBodyWait: 50 * time.Millisecond}})
	defer server.Close()
	b := (&site{s, server.URL}).browser(t)
	many := make([]string, 2*5000)
	for i := range many {
		many[i] = "x"
	}
	b.post("/console/sign-in", many...).is(http.StatusRequestEntityTooLarge)
	b.post("/console/sign-in", "typed", strings.Repeat("x&", 5000)).is(http.StatusUnprocessableEntity).hides("x=&amp;x=")

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := "POST /console/sign-in HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Length: 200000\r\n" +
		"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
	if _, err := io.WriteString(conn, head+strings.Repeat("x", 100_000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second long form waits for the first", func() bool {
		return b.post("/console/sign-in", "username", strings.Repeat("x", 100_000)).Status == http.StatusServiceUnavailable
	})
	b.post("/console/sign-in", "username", "short", "password", "x").is(http.StatusUnprocessableEntity)
}
