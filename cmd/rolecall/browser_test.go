package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
	"rolecall/internal/pgtest"
)

// asBrowser is an argument that makes the test binary a browser, in which a person signs in and approves. The user name, the
// password and the page follow it.
const asBrowser = "browse"

// publicServer is the variable with the address of the server whose public URL is that of the tests.
const publicServer = "ROLECALL_TEST_PUBLIC_SERVER"

// browse signs in on a page as a person does: it follows links of the server, fills in forms and sends them, and prints the
// text of the last page.
func browse(username, password, page string) {
	jar, _ := cookiejar.New(nil)
	transport := http.DefaultTransport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	if server := os.Getenv(publicServer); server != "" {
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "rolecall.example.org:") {
				address = server
			}
			return dial(ctx, network, address)
		}
	}
	browser := &http.Client{Jar: jar, Timeout: patience}
	resp, err := browser.Get(page)
	for sent := 0; err == nil; sent++ {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		action, fields := theForm(string(text), username, password)
		if fields == nil || sent == 5 {
			fmt.Println(resp.StatusCode, resp.Header.Get("Content-Security-Policy"), string(text))
			os.Exit(0)
		}
		target, parseErr := resp.Request.URL.Parse(action)
		if parseErr != nil {
			break
		}
		var req *http.Request
		if req, err = http.NewRequest(http.MethodPost, target.String(), strings.NewReader(fields.Encode())); err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", target.Scheme+"://"+target.Host)
			resp, err = browser.Do(req)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

var (
	formPattern  = regexp.MustCompile(`(?s)<form([^>]*)>(.*?)</form>`)
	fieldPattern = regexp.MustCompile(`<(?:input|button)([^>]*)>`)
	attributes   = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
)

// theForm is the form of a page in which a person signs in or approves: the one with a password, else the first one that is
// neither for signing out nor for a question.
func theForm(page, username, password string) (action string, fields url.Values) {
	for _, form := range formPattern.FindAllStringSubmatch(page, -1) {
		if strings.Contains(form[1], "sign-out") || strings.Contains(form[1], `"get"`) {
			continue
		}
		typed := url.Values{}
		for _, field := range fieldPattern.FindAllStringSubmatch(form[2], -1) {
			name := attribute(field[1], "name")
			if name != "" && !typed.Has(name) { // of two buttons, the first
				typed.Set(name, attribute(field[1], "value"))
			}
		}
		if typed.Has("password") {
			typed.Set("username", username)
			typed.Set("password", password)
			return attribute(form[1], "action"), typed
		}
		if fields == nil {
			action, fields = attribute(form[1], "action"), typed
		}
	}
	return action, fields
}

func attribute(tag, name string) string {
	for _, a := range attributes.FindAllStringSubmatch(tag, -1) {
		if a[1] == name {
			return html.UnescapeString(a[2])
		}
	}
	return ""
}

// useBrowser makes the commands of the test open pages in a browser where that person signs in. What it prints is the answer
// of the command to the browser, once that has come.
func useBrowser(t *testing.T, username, password string) (printed func() string) {
	t.Helper()
	dir := t.TempDir()
	script, out := filepath.Join(dir, "browser"), filepath.Join(dir, "out")
	write(t, script, fmt.Sprintf("#!/bin/sh\n%q %s %q %q \"$1\" >%q.new 2>&1; code=$?; mv %[5]q.new %[5]q; exit $code\n",
		executable(t), asBrowser, username, password, out))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BROWSER", script)
	return func() string {
		var text []byte
		eventually(t, func() (err error) {
			text, err = os.ReadFile(out)
			return err
		})
		return string(text)
	}
}

// oauthServer is a server with the endpoints of a sign-in in a browser, which can be made to fail.
type oauthServer struct {
	*httptest.Server
	mu        sync.Mutex
	challenge string
	code      string     // the one code, "" when it is used
	query     url.Values // of the authorization request
	refusal   string     // the answer of the page, in place of a code
	tokens    string     // the refusal of the token endpoint
	polls     []string   // the errors of the next polls
	rotated   int        // refresh tokens that were used
	ended     []string   // what was revoked, and the sessions that were ended
	whoami    int        // the status of whoami, 0: 200
}

func newOAuthServer(t *testing.T, start func(http.Handler) *httptest.Server) *oauthServer {
	t.Helper()
	s := &oauthServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /uaa/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"authorization_endpoint": s.URL + "/uaa/oauth/authorize",
			"device_authorization_endpoint": s.URL + "/uaa/oauth/device_authorization"})
	})
	mux.HandleFunc("GET /uaa/oauth/authorize", func(w http.ResponseWriter, r *http.Request) {
		s.query, s.challenge = r.URL.Query(), r.URL.Query().Get("code_challenge")
		_, _ = io.WriteString(w, `<form method="post" action="`+html.EscapeString(r.URL.RequestURI())+`">`+
			`<input name="username"><input name="password" type="password"><button>Sign in</button></form>`)
	})
	mux.HandleFunc("POST /uaa/oauth/authorize", s.approve)
	mux.HandleFunc("POST /uaa/oauth/device_authorization", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"device_code":"the-device-code","user_code":"BCDF-GHJK","expires_in":600,"interval":1,`+
			`"verification_uri":"`+s.URL+`/console/device","verification_uri_complete":"`+s.URL+
			`/console/device?user_code=BCDF-GHJK"}`)
	})
	mux.HandleFunc("POST /uaa/oauth/token", s.token)
	mux.HandleFunc("POST /uaa/oauth/revoke", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, r.PostFormValue("client_id")+" "+r.PostFormValue("token"))
	})
	mux.HandleFunc("GET /rolecall/v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		if s.whoami != 0 {
			w.WriteHeader(s.whoami)
			return
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer access-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"account":{"guid":"g","username":"eve","origin":"login.example.org"}}`)
	})
	mux.HandleFunc("GET /rolecall/v1/sessions", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"items":[{"id":"s1","kind":"login","createdAt":"2026-11-29T10:00:00Z","lastUsedAt":null,`+
			`"address":"192.0.2.1","client":"rolecall","current":%t},{"id":"s2","kind":"console","createdAt":`+
			`"2026-11-29T10:00:00Z","lastUsedAt":"2026-11-29T10:05:00Z","address":"192.0.2.2","client":"","current":false}],`+
			`"next":null}`, r.URL.Query().Get("account") == "")
	})
	mux.HandleFunc("DELETE /rolecall/v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.ended = append(s.ended, strings.TrimSpace(r.PathValue("id")+" "+r.URL.Query().Get("account")))
		if r.PathValue("id") == "gone" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"detail":"There is no session."}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.Server = start(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *oauthServer) approve(w http.ResponseWriter, r *http.Request) {
	answer := url.Values{"state": {r.URL.Query().Get("state")}}
	switch {
	case s.refusal != "":
		more, _ := url.ParseQuery(s.refusal)
		for name := range more {
			answer.Set(name, more.Get(name))
		}
	case r.PostFormValue("password") != "evesecret":
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	default:
		s.mu.Lock()
		s.code = "the-code"
		s.mu.Unlock()
		answer.Set("code", "the-code")
	}
	http.Redirect(w, r, r.URL.Query().Get("redirect_uri")+"?"+answer.Encode(), http.StatusSeeOther)
}

func (s *oauthServer) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":"It is refused."}`, code)
	}
	digest := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch grant := r.PostFormValue("grant_type"); {
	case s.tokens != "":
		refuse(s.tokens)
		return
	case r.PostFormValue("client_id") != "rolecall":
		refuse("invalid_client")
		return
	case grant == "authorization_code":
		if r.PostFormValue("code") != s.code || s.code == "" || base64.RawURLEncoding.EncodeToString(digest[:]) != s.challenge ||
			r.PostFormValue("redirect_uri") != s.query.Get("redirect_uri") {
			refuse("invalid_grant")
			return
		}
		s.code = ""
	case grant == "refresh_token":
		if r.PostFormValue("refresh_token") != fmt.Sprintf("refresh-%d", s.rotated) {
			refuse("invalid_grant")
			return
		}
		s.rotated++
	case grant == "urn:ietf:params:oauth:grant-type:device_code":
		if len(s.polls) > 0 {
			refuse(s.polls[0])
			s.polls = s.polls[1:]
			return
		}
	default:
		refuse("unsupported_grant_type")
		return
	}
	_, _ = fmt.Fprintf(w, `{"access_token":"access-%d","refresh_token":"refresh-%[1]d","expires_in":1200}`, s.rotated)
}

// TestLoginInABrowser: the sign-in with a code, at a server that can be made to fail.
func TestLoginInABrowser(t *testing.T) {
	s := newShell(t)
	server := newOAuthServer(t, httptest.NewServer)
	printed := useBrowser(t, "eve", "evesecret")

	_, _, errOut := s.run(t, "", "login", server.URL, "--issuer", "okta", "--context", "prod")
	if !strings.Contains(errOut, server.URL+"/uaa/oauth/authorize?") || !strings.Contains(errOut, "as eve.\n") {
		t.Fatalf("printed %q", errOut)
	}
	if page := printed(); !strings.Contains(page, "You are signed in; close this window.") ||
		!strings.Contains(page, "default-src 'none'") {
		t.Errorf("the browser shows %q", page)
	}
	redirect, err := url.Parse(server.query.Get("redirect_uri"))
	if err != nil || redirect.Hostname() != "127.0.0.1" || redirect.Path != "/callback" || redirect.Scheme != "http" ||
		server.query.Get("issuer") != "okta" || server.query.Get("client_id") != "rolecall" {
		t.Errorf("the page was asked for %v", server.query)
	}
	if _, err := http.Get(redirect.String()); err == nil {
		t.Error("the port is still open")
	}
	stored := s.login(t)
	if stored["username"] != "eve" || stored["origin"] != "login.example.org" || stored["accessToken"] != "access-0" ||
		stored["refreshToken"] != "refresh-0" || stored["name"] != "prod" {
		t.Errorf("stored %v", stored)
	}

	t.Run("renewal", func(t *testing.T) {
		renew := func(with string) {
			write(t, s.loginFile(t), regexp.MustCompile(`"expires": "[^"]*"`).ReplaceAllString(with,
				`"expires": "2026-01-01T00:00:00Z"`))
		}
		renew(read(t, s.loginFile(t)))
		s.has(t, []string{"user name eve"}, "whoami")
		if stored := s.login(t); stored["refreshToken"] != "refresh-1" {
			t.Errorf("stored %v", stored)
		}
		server.tokens = "invalid_grant"
		renew(read(t, s.loginFile(t)))
		s.fails(t, term.ExitDenied, "rolecall login "+server.URL+" --context prod --sso --issuer okta", "", "whoami")
		server.tokens = ""
	})

	t.Run("sessions", func(t *testing.T) {
		s.has(t, []string{"ID KIND CLIENT CURRENT CREATED LAST USED ADDRESS", "s1 login rolecall yes .* 192.0.2.1",
			"s2 console no .* 192.0.2.2"}, "sessions", "list")
		if out := s.ok(t, "", "sessions", "list", "-o", "name", "--account", "alice", "--filter", "current=no"); out !=
			"s1\ns2\n" {
			t.Errorf("listed %q", out)
		}
		var list []map[string]any
		if err := json.Unmarshal([]byte(s.ok(t, "", "sessions", "list", "-o", "json")), &list); err != nil || len(list) != 2 ||
			list[0]["current"] != true {
			t.Errorf("got %v, %v", list, err)
		}
		server.ended = nil
		s.ok(t, "", "sessions", "end", "s2", "s3")
		s.ok(t, "", "sessions", "end", "s2", "--account", "alice")
		s.ok(t, "", "sessions", "end", "--others")
		s.ok(t, "", "sessions", "end", "--others", "--account", "alice")
		if got := strings.Join(server.ended, ","); got != "s2,s3,s2 alice,s2,s1 alice,s2 alice" {
			t.Errorf("ended %s", got)
		}
		s.fails(t, term.ExitNotFound, "There is no session", "", "sessions", "end", "gone")
		s.fails(t, term.ExitUsage, "SESSION is missing", "", "sessions", "end")
		s.fails(t, term.ExitUsage, `omit "s2"`, "", "sessions", "end", "--others", "s2")
		if out := s.ok(t, "", "__complete", "sessions", "end", ""); !strings.HasPrefix(out, "s1\ns2\n") {
			t.Errorf("offered %q", out)
		}
	})

	t.Run("logout", func(t *testing.T) {
		server.ended = nil
		s.ok(t, "", "logout")
		if got := strings.Join(server.ended, ","); got != "rolecall refresh-2" {
			t.Errorf("revoked %s", got)
		}
	})

	// refused signs in in vain: the page is printed, then one sentence.
	refused := func(t *testing.T, wantCode int, words string) {
		t.Helper()
		code, out, errOut := s.run(t, "", "login", server.URL, "--sso", "-q")
		sentence := authorizePage.ReplaceAllString(strings.TrimPrefix(errOut, "To sign in, open this page in a browser on this "+
			"machine:\n"), "")
		if sentence = strings.TrimPrefix(sentence, "\n"); code != wantCode || !isSentence(sentence) || out != "" ||
			!strings.Contains(sentence, words) {
			t.Errorf("exit code %d, printed %q and %q; want %d and one sentence with %q", code, out, errOut, wantCode, words)
		}
	}
	t.Run("refusals", func(t *testing.T) {
		for refusal, want := range map[string]string{
			"error=access_denied&error_description=No.":                "denied in the browser; to sign in, run the command again",
			"error=server_error&error_description=The+issuer+is+down.": "failed in the browser: The issuer is down; to sign in",
			"error=unauthorized_client":                                "unauthorized_client",
		} {
			server.refusal = refusal
			printed := useBrowser(t, "eve", "evesecret")
			refused(t, term.ExitDenied, want)
			if page := printed(); !strings.Contains(page, "You are not signed in. The terminal shows why") {
				t.Errorf("%s: the browser shows %q", refusal, page)
			}
		}
		server.refusal = "nothing=0"
		useBrowser(t, "eve", "evesecret")
		refused(t, term.ExitFailed, "brought no code")
		server.refusal = ""
		server.tokens = "invalid_grant"
		useBrowser(t, "eve", "evesecret")
		refused(t, term.ExitFailed, "It is refused.")
		server.tokens = ""
		server.whoami, server.ended = http.StatusForbidden, nil
		useBrowser(t, "eve", "evesecret")
		refused(t, term.ExitDenied, "403")
		if got := strings.Join(server.ended, ","); got != "rolecall refresh-2" {
			t.Errorf("revoked %s", got)
		}
		server.whoami = 0
		s.fails(t, term.ExitDenied, "not signed in", "", "whoami")
	})

	t.Run("usage", func(t *testing.T) {
		for flags, want := range map[string]string{
			"--sso -u eve": "accepts no --username", "--no-browser --password-stdin": "accepts no --password-stdin",
			"--issuer okta --no-browser": "exclude each other",
		} {
			s.fails(t, term.ExitUsage, want, "", append([]string{"login", server.URL}, strings.Fields(flags)...)...)
		}
		old := serveText(t, `{"issuer":"x"}`)
		s.fails(t, term.ExitFailed, "does not offer the sign-in through a browser", "", "login", old, "--sso")
		s.fails(t, term.ExitFailed, "does not offer the sign-in through a browser", "", "login", old, "--no-browser")
		s.fails(t, term.ExitFailed, "cannot be reached", "", "login", "http://127.0.0.1:1", "--sso")
	})
	if strings.Contains(s.printed.String(), "refresh-") || strings.Contains(s.printed.String(), "the-code") {
		t.Errorf("a secret is printed: %s", s.printed)
	}
}

// authorizePage is the page that a command has printed.
var authorizePage = regexp.MustCompile(`(?m)^http\S+/uaa/oauth/authorize\?\S+$`)

// TestLoginWithoutABrowser: the page is printed in any case, and a person may open it.
func TestLoginWithoutABrowser(t *testing.T) {
	t.Parallel()
	server := newOAuthServer(t, httptest.NewServer)
	for name, test := range map[string]struct{ browser, path, want string }{
		"not there":    {"/does/not/exist", "", "The browser could not be opened: fork/exec /does/not/exist: no such file"},
		"fails":        {"/does/not/exist:false", "/usr/bin:/bin", "could not be opened: false ended with exit status 1"},
		"of the path":  {"", "/empty", `exec: "xdg-open": executable file not found`},
		"opens others": {"/does/not/exist:true %s x", "/usr/bin:/bin", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := beginProcess(t, []string{"BROWSER=" + test.browser, "PATH=" + test.path, "XDG_CONFIG_HOME=" + t.TempDir()},
				"login", server.URL, "--sso", "--quiet")
			if test.want != "" {
				p.awaits(t, p.errOut, test.want)
				p.awaits(t, p.errOut, "--no-browser.\n")
			}
			page := ""
			eventually(t, func() error {
				if page = authorizePage.FindString(p.errOut.String()); page == "" {
					return fmt.Errorf("printed %s", p.errOut)
				}
				return nil
			})
			if test.want == "" && strings.Contains(p.errOut.String(), "could not") {
				t.Errorf("printed %s", p.errOut)
			}
			query, err := url.Parse(page)
			if err != nil {
				t.Fatal(err)
			}
			callback := query.Query().Get("redirect_uri")

			// Answers that are not the one are no end.
			for path, status := range map[string]int{"?code=x&state=x": 400, "?code=x": 400, "?error=access_denied": 400} {
				if r := get(t, callback+path, ""); r.status != status || !strings.Contains(r.body, "another sign-in") {
					t.Errorf("%s: got %v", path, r)
				}
			}
			state := query.Query().Get("state")
			if r := get(t, strings.TrimSuffix(callback, "callback")+"favicon.ico?state="+state, ""); r.status != 404 {
				t.Errorf("got %v", r)
			}
			if r := request(t, http.DefaultClient, "POST", callback+"?code=x&state="+state, "", ""); r.status != 405 {
				t.Errorf("got %v", r)
			}
			p.awaits(t, p.errOut, "its state is wrong")
			if n := strings.Count(p.errOut.String(), "its state is wrong"); n != 1 {
				t.Errorf("%d warnings: %s", n, p.errOut)
			}
			if err := p.process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(t); code != term.ExitInterrupted || !strings.HasSuffix(p.errOut.String(),
				"rolecall: interrupted; you are not signed in\n") {
				t.Errorf("exit code %d, printed %s", code, p.errOut)
			}
		})
	}
}

func TestLoginByDevice(t *testing.T) {
	s := newShell(t)
	t.Setenv("BROWSER", "/does/not/exist") // is not looked for
	server := newOAuthServer(t, httptest.NewTLSServer)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	s.fails(t, term.ExitFailed, "--ca-file", "", "login", server.URL, "--no-browser")

	server.polls = []string{"authorization_pending"}
	login := []string{"login", server.URL, "--no-browser", "--ca-file", ca}
	code, out, errOut := s.run(t, "", append(login, "-q")...)
	if want := fmt.Sprintf("To sign in, open %s/console/device in any browser and enter the code BCDF-GHJK.\n"+
		"Or open %[1]s/console/device?user_code=BCDF-GHJK and compare the code.\nThe code is valid for 10m.\n",
		server.URL); code != 0 || errOut != want || out != "" {
		t.Errorf("exit code %d, printed %q and %q, want %q", code, out, errOut, want)
	}
	s.has(t, []string{"server " + server.URL, "user name eve", "origin login.example.org"}, "whoami") // knows the file
	s.has(t, []string{"s1 .*"}, "sessions", "list")

	for word, want := range map[string]string{"access_denied": "denied in the browser", "expired_token": "code has expired"} {
		server.polls = []string{word}
		code, _, errOut := s.run(t, "", append(login, "-q")...)
		if code != term.ExitDenied || !strings.Contains(errOut, "rolecall: ") || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit code %d, printed %q", word, code, errOut)
		}
	}

	p := beginProcess(t, []string{"XDG_CONFIG_HOME=" + t.TempDir(), cli.CAVariable + "=" + ca},
		"login", server.URL, "--no-browser")
	server.mu.Lock()
	server.polls = make([]string, 1000)
	for i := range server.polls {
		server.polls[i] = "authorization_pending"
	}
	server.mu.Unlock()
	p.awaits(t, p.errOut, "The code is valid")
	if err := p.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 143 || !strings.HasSuffix(p.errOut.String(),
		"rolecall: interrupted; you are not signed in\n") {
		t.Errorf("exit code %d, printed %s", code, p.errOut)
	}
}

// TestPeopleSignInAtATerminal: the same with a server, from the page to sign in to the end of the session.
func TestPeopleSignInAtATerminal(t *testing.T) {
	s := newShell(t)
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	if code, _, errOut := bootstrap(t, flags, "a good password"); code != 0 {
		t.Fatal(errOut)
	}
	server, url := beginServe(t, flags...)
	t.Setenv(publicServer, strings.TrimPrefix(url, "http://"))
	printed := useBrowser(t, "admin", "a good password")
	s.ok(t, "", "login", url, "--sso")
	if page := printed(); !strings.Contains(page, "You are signed in; close this window.") {
		t.Errorf("the browser shows %s", page)
	}
	s.has(t, []string{"server " + url, "user name admin", "origin uaa"}, "whoami")
	s.has(t, []string{uuidPattern + " login rolecall yes .* 127.0.0.1", uuidPattern + " console .* no .* 127.0.0.1"},
		"sessions", "list")

	// The tokens are renewed by the client that got them.
	write(t, s.loginFile(t), regexp.MustCompile(`"expires": "[^"]*"`).ReplaceAllString(read(t, s.loginFile(t)),
		`"expires": "2026-01-01T00:00:00Z"`))
	s.has(t, []string{"user name admin"}, "whoami")

	// By a code, in another browser.
	other := t.TempDir()
	p := beginProcess(t, []string{"XDG_CONFIG_HOME=" + other}, "login", url, "--no-browser")
	page := regexp.MustCompile(`Or open (\S+) and`).FindStringSubmatch(p.awaits(t, p.errOut, "The code is valid"))
	if out, err := exec.Command(executable(t), asBrowser, "admin", "a good password", page[1]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code := p.wait(t); code != 0 || !strings.Contains(p.errOut.String(), "as admin.") {
		t.Fatalf("exit code %d: %s", code, p.errOut)
	}
	by := &shell{config: other, printed: s.printed}
	by.has(t, []string{"user name admin"}, "whoami")

	// One ends the other, and itself.
	s.ok(t, "", "sessions", "end", "--others")
	eventually(t, func() error {
		if code, _, errOut := by.run(t, "", "whoami"); code != term.ExitDenied || !strings.Contains(errOut,
			"has ended; to sign in again: rolecall login "+url+" --sso") {
			return fmt.Errorf("whoami has the exit code %d: %s", code, errOut)
		}
		return nil
	})
	var sessions []struct {
		ID      string `json:"id"`
		Current bool   `json:"current"`
	}
	err := json.Unmarshal([]byte(s.ok(t, "", "sessions", "list", "-o", "json")), &sessions)
	if err != nil || len(sessions) != 1 || !sessions[0].Current {
		t.Fatalf("got %v, %v", sessions, err)
	}
	s.has(t, []string{sessions[0].ID + " login .*"}, "sessions", "list", "--account", "admin")
	s.ok(t, "", "sessions", "end", sessions[0].ID)
	eventually(t, func() error {
		if code, _, errOut := s.run(t, "", "whoami"); code != term.ExitDenied {
			return fmt.Errorf("whoami has the exit code %d: %s", code, errOut)
		}
		return nil
	})
	server.end(t)
	if log := server.errOut.String(); strings.Contains(log, "code=") || strings.Contains(log, "a good password") {
		t.Errorf("the log has a secret: %s", log)
	}
}
