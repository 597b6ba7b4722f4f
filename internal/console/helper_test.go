package console_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"rolecall/internal/console"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// site is the console of a service behind a real listener.
type site struct {
	*servicetest.Service
	URL string
}

func newSite(t testing.TB, s *servicetest.Service) *site {
	t.Helper()
	listener := httptest.NewUnstartedServer(nil)
	public := "http://" + listener.Listener.Addr().String()
	front := s.Door(0)
	front.Origin = public
	pages := &console.Console{Accounts: s.Accounts, Users: s.Users, Fleet: s.Fleet, Identity: s.Identity, Events: s.Events,
		Idempotency: s.Idempotency, Door: front,
		PublicURL: public, Version: "test"}
	listener.Config.Handler = &web.Edge{Log: slog.New(slog.NewTextHandler(s.Log, nil)), Handler: pages.Handler()}
	listener.Start()
	t.Cleanup(listener.Close)
	return &site{s, public}
}

// browser is a browser without JavaScript: it keeps cookies, says where its forms come from, and follows no redirect.
type browser struct {
	t    testing.TB
	site *site
	http *http.Client
}

func (s *site) browser(t testing.TB) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, s, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// signedIn is a browser with a session of an account of this name and password.
func (s *site) signedIn(t testing.TB, username, password string) *browser {
	t.Helper()
	b := s.browser(t)
	b.post("/console/sign-in", "username", username, "password", password).is(http.StatusSeeOther)
	return b
}

// answer is what a browser got.
type answer struct {
	t        testing.TB
	Status   int
	Location string
	Header   http.Header
	Body     string
}

func (b *browser) get(path string) *answer {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodGet, b.site.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

// post sends a form of these names and values, as from a page of the site.
func (b *browser) post(path string, pairs ...string) *answer {
	b.t.Helper()
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	req, err := http.NewRequest(http.MethodPost, b.site.URL+path, strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", b.site.URL)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(req)
}

func (b *browser) do(req *http.Request) *answer {
	b.t.Helper()
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return &answer{b.t, resp.StatusCode, resp.Header.Get("Location"), resp.Header, string(body)}
}

func (a *answer) is(status int) *answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Fatalf("the answer is %d, not %d; Location %q\n%s", a.Status, status, a.Location, a.Body)
	}
	return a
}

func (a *answer) shows(texts ...string) *answer {
	a.t.Helper()
	for _, text := range texts {
		if !strings.Contains(a.Body, text) {
			a.t.Fatalf("the page lacks %q:\n%s", text, a.Body)
		}
	}
	return a
}

func (a *answer) hides(texts ...string) *answer {
	a.t.Helper()
	for _, text := range texts {
		if strings.Contains(a.Body, text) {
			a.t.Fatalf("the page has %q:\n%s", text, a.Body)
		}
	}
	return a
}

// hidden is the value of a hidden field.
func (a *answer) hidden(name string) string {
	a.t.Helper()
	m := regexp.MustCompile(`<input type="hidden" name="` + name + `" value="([^"]*)"`).FindStringSubmatch(a.Body)
	if m == nil {
		a.t.Fatalf("there is no hidden field %s:\n%s", name, a.Body)
	}
	return strings.NewReplacer("&amp;", "&", "&#34;", `"`, "&#39;", "'", "&#43;", "+", "&lt;", "<", "&gt;", ">").Replace(m[1])
}

// eventually waits until something is the case.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute not yet: %s", what)
		}
	}
}
