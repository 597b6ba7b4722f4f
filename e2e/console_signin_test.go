package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// dev is the admin of the shared server.
func dev(t *testing.T) *employee {
	return &employee{t: t, s: shared, username: shared.env["IONOS_USERNAME"], password: shared.env["IONOS_PASSWORD"],
		token: shared.env["IONOS_TOKEN"]}
}

// TestConsoleSignIn signs in with a password, wrong and right, goes on to the page that was wanted, and signs out.
func TestConsoleSignIn(t *testing.T) {
	t.Parallel()
	for _, h := range someHands(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			e := dev(t)
			b := openTab(t, shared.env["ROLECALL_URL"], h)
			b.open("/console/prove?next=/console/")
			b.arrives("/console/sign-in")
			b.fill("User name", e.username)
			b.fill("Password", "not the password")
			b.press("Sign in")
			b.refuses("The user name or the password is wrong.")
			if b.value("User name") != e.username || b.value("Password") != "" {
				t.Errorf("after a wrong password the form has %q and %q", b.value("User name"), b.value("Password"))
			}
			b.fill("Password", e.password)
			b.press("Sign in")
			b.arrives("/console/prove")
			b.follow("Start")
			b.arrives("/console/")
			b.press("Sign out")
			b.sees("You are signed out.")
			b.open("/console/")
			b.arrives("/console/sign-in")
			for _, kept := range b.visited() {
				if strings.Contains(kept, e.password) {
					t.Errorf("the browser keeps %s", kept)
				}
			}
		})
	}
}

// TestConsoleSession: a session is made by a sign-in alone and ends with the sign-out. The console takes no token, and no
// API takes the cookie.
func TestConsoleSession(t *testing.T) {
	t.Parallel()
	e := dev(t)
	base := shared.env["ROLECALL_URL"]
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	credentials := url.Values{"username": {e.username}, "password": {e.password}}
	withCookie := func(value string) *visitor {
		v := visit(t, base)
		v.http.Jar.SetCookies(u, []*http.Cookie{{Name: "rolecall", Value: value, Path: "/"}})
		return v
	}
	opens := func(what string, v *visitor, want int) {
		t.Helper()
		if a := v.get("/console/"); a.status != want {
			t.Errorf("%s: %d %s, want %d", what, a.status, a.body, want)
		}
	}

	// A session that somebody else has chosen is replaced at the sign-in, and so is one's own.
	v := withCookie("chosen")
	opens("a made-up session", v, 303)
	v.post("/console/sign-in", credentials)
	first := v.session()
	if len(first) < 40 {
		t.Errorf("the session is %q", first)
	}
	opens("after the sign-in", v, 200)
	opens("the made-up session, after the sign-in", withCookie("chosen"), 303)
	v.post("/console/sign-in", credentials)
	if v.session() == first {
		t.Error("a second sign-in goes on with the session of the first")
	}
	stolen := v.session()
	opens("the second session", withCookie(stolen), 200)

	for _, path := range []string{"/rolecall/v1/whoami", "/v3/users", "/uaa/Users", "/uaa/userinfo", clusterPath() + "/users",
		"/v1/auth/token/lookup-self"} {
		a := withCookie(stolen).get(path)
		if want := map[bool]int{true: 403, false: 401}[strings.HasPrefix(path, "/v1/")]; a.status != want {
			t.Errorf("GET %s with the cookie: %d %s, want %d", path, a.status, a.body, want)
		}
		a = withCookie("x").do("GET", path, "", http.Header{"Authorization": {"Bearer " + stolen}})
		if a.status == 200 {
			t.Errorf("GET %s with the session as a token: %s", path, a.body)
		}
	}
	for _, authorization := range []string{"Bearer " + e.token, "bearer " + stolen} {
		if a := visit(t, base).do("GET", "/console/", "", http.Header{"Authorization": {authorization}}); a.status != 303 {
			t.Errorf("the console with a token: %d %s", a.status, a.body)
		}
	}

	if a := v.post("/console/sign-out", nil); a.status != 303 {
		t.Errorf("sign out: %d %s", a.status, a.body)
	}
	opens("a session that was signed out", withCookie(stolen), 303)
}

// TestConsoleForeignSite: a page of another site gets the browser of a person who is signed in neither to change something
// nor to show the console in a frame. The site is as near as one can be: another port of the same host, which gets the
// cookie.
func TestConsoleForeignSite(t *testing.T) {
	t.Parallel()
	base := shared.env["ROLECALL_URL"]
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		switch r.URL.Path {
		case "/form":
			fmt.Fprintf(w, `<!doctype html><title>Form</title><form method="post" action="%s/console/sign-out">
				<button>Win a prize</button></form>`, base)
		case "/frame":
			fmt.Fprintf(w, `<!doctype html><title>Frame</title><iframe title="Prize" src="%s/console/"></iframe>`, base)
		}
	}))
	t.Cleanup(site.Close)
	b := openTab(t, base, anyHands[0])
	b.signIn(dev(t))
	b.noProblems()

	b.open(site.URL + "/form")
	b.press("Win a prize")
	b.arrives("/console/sign-out")
	if b.status() != 403 {
		t.Errorf("a form of another site: %d %s", b.status(), b.text())
	}
	b.open("/console/")
	b.find("Sign out", pressable)

	b.found()
	b.open(site.URL + "/frame")
	waitFor(t, "the browser refuses the frame", func() bool {
		return slices.ContainsFunc(b.found(), func(problem string) bool { return strings.Contains(problem, "frame-ancestors") })
	})
}

// TestConsoleLeadsNowhereElse: what stands in next is a page of the console, whatever a browser makes of it.
func TestConsoleLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	e := dev(t)
	base := shared.env["ROLECALL_URL"]
	b := openTab(t, base, anyHands[0])
	b.open("/console/sign-in")
	for _, next := range []string{"//evil.example", `/\evil.example`, `\\evil.example`, "https:evil.example",
		"https://evil.example/",
		"///evil.example", "/console/..//evil.example", "/console/../../evil.example", "/console/%2e%2e//evil.example",
		"/console/\t/evil.example", "\t//evil.example", "/\t/evil.example", "javascript:alert(1)", "data:text/html,x",
		"/console/@evil.example", "@evil.example", "/console\\..\\..\\evil.example", "%2f%2fevil.example", "/%5cevil.example",
		"/console/sign-in?next=//evil.example", "\u2028//evil.example", "http:/console/", "/rolecall/v1/whoami"} {
		v := visit(t, base)
		page := v.get("/console/sign-in?next=" + url.QueryEscape(next))
		if page.status != 200 {
			t.Errorf("next %q: %d", next, page.status)
		}
		a := v.post("/console/sign-in", url.Values{"username": {e.username}, "password": {e.password}, "next": {next}})
		if a.status != 303 {
			t.Errorf("sign in with next %q: %d", next, a.status)
		}
		for _, location := range []string{page.forms()[0].values.Get("next"), a.header.Get("Location")} {
			leads := eval[string](b, `new URL(`+literal(location)+`, location.href).href`)
			if !strings.HasPrefix(leads, base+"/console/") && leads != base+"/console" {
				t.Errorf("next %q leads to %q, which is %s", next, location, leads)
			}
		}
	}
}

// TestConsoleWithoutCookies: a browser that keeps no cookies gets a sentence, not the same page again and again.
func TestConsoleWithoutCookies(t *testing.T) {
	t.Parallel()
	e := dev(t)
	target, err := url.Parse(shared.env["ROLECALL_URL"])
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewUnstartedServer(nil)
	here := "http://" + site.Listener.Addr().String()
	site.Config.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = target.Host
			for _, name := range []string{"Origin", "Referer"} {
				if value := r.In.Header.Get(name); value != "" {
					r.Out.Header.Set(name, strings.Replace(value, here, target.String(), 1))
				}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Set-Cookie")
			return nil
		},
	}
	site.Start()
	t.Cleanup(site.Close)
	b := openTab(t, here, anyHands[0])
	b.open("/console/clusters")
	b.fill("User name", e.username)
	b.fill("Password", e.password)
	b.press("Sign in")
	b.sees("cookie")
}
