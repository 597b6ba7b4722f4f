package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	cfconfig "github.com/cloudfoundry/go-cfclient/v3/config"
	"golang.org/x/net/html"
	"golang.org/x/oauth2"
)

// newPerson is somebody who can sign in to the shared server.
func newPerson(t *testing.T, name string) *employee {
	t.Helper()
	guid := person(t, name, personPassword)
	return &employee{t: t, s: shared, guid: guid, username: name, password: personPassword}
}

// discovered is the configuration of golang.org/x/oauth2 for the client rolecall, as the server's document has it.
func discovered(t *testing.T) *oauth2.Config {
	t.Helper()
	var found struct {
		Issuer        string   `json:"issuer"`
		Authorization string   `json:"authorization_endpoint"`
		Device        string   `json:"device_authorization_endpoint"`
		Token         string   `json:"token_endpoint"`
		Challenges    []string `json:"code_challenge_methods_supported"`
	}
	r := send(t, "GET", "/uaa/oauth/token/.well-known/openid-configuration", nil, "")
	issuer := shared.env["ROLECALL_URL"] + "/uaa/oauth/token"
	if err := json.Unmarshal([]byte(r.body), &found); err != nil || found.Issuer != issuer ||
		fmt.Sprint(found.Challenges) != "[S256]" {
		t.Fatalf("%d %s, %v", r.status, r.body, err)
	}
	return &oauth2.Config{ClientID: "rolecall", Endpoint: oauth2.Endpoint{AuthURL: found.Authorization,
		DeviceAuthURL: found.Device, TokenURL: found.Token}}
}

// whoami is the account of a client's token, by its user name.
func whoami(t *testing.T, c *http.Client) string {
	t.Helper()
	resp, err := c.Get(shared.env["ROLECALL_URL"] + "/rolecall/v1/whoami")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var me struct{ Account struct{ Username string } }
	if err := json.NewDecoder(resp.Body).Decode(&me); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.Status, err)
	}
	return me.Account.Username
}

// actsAs fails the test unless tokens are those of a person, now and once the access token has expired.
func actsAs(t *testing.T, conf *oauth2.Config, token *oauth2.Token, username string) {
	t.Helper()
	if got := whoami(t, conf.Client(t.Context(), token)); got != username {
		t.Errorf("the token is that of %s", got)
	}
	expired := *token
	expired.Expiry = time.Now().Add(-time.Minute)
	if got := whoami(t, conf.Client(t.Context(), &expired)); got != username {
		t.Errorf("the refreshed token is that of %s", got)
	}
}

// callbacks is a command line that waits on a port of the person's machine. It returns what the browser brings there.
func callbacks(t *testing.T) (redirectURI string, brought <-chan url.Values) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan url.Values, 1)
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback" {
			w.Header().Set("Content-Type", "image/svg+xml")
			_, _ = w.Write([]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`))
			return
		}
		answers <- r.URL.Query()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>Done</title><p>Back at the command line.</p>`))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String() + "/callback", answers
}

// TestOAuth2CodeFlow: golang.org/x/oauth2 signs a person in through a real browser, whose policy lets the code out to the
// command line and nowhere else.
func TestOAuth2CodeFlow(t *testing.T) {
	t.Parallel()
	for i, h := range someHands(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			e := newPerson(t, fmt.Sprintf("code-flow-%d", i))
			conf := discovered(t)
			var brought <-chan url.Values
			conf.RedirectURL, brought = callbacks(t)
			verifier := oauth2.GenerateVerifier()
			b := openTab(t, shared.env["ROLECALL_URL"], h)
			b.open(conf.AuthCodeURL("the state", oauth2.S256ChallengeOption(verifier)))
			b.arrives("/console/sign-in")
			b.fill("User name", e.username)
			b.fill("Password", e.password)
			b.press("Sign in")
			b.sees("Sign in the command line?")
			b.press("Sign in rolecall")
			b.sees("Back at the command line.")
			answer := soon(t, brought)
			if answer.Get("state") != "the state" || answer.Has("error") {
				t.Fatalf("the browser brings %v", answer)
			}
			token, err := conf.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			actsAs(t, conf, token, e.username)
			// Used twice, the code ends what it gave.
			if _, err := conf.Exchange(t.Context(), answer.Get("code"), oauth2.VerifierOption(verifier)); err == nil ||
				!strings.Contains(err.Error(), "invalid_grant") {
				t.Errorf("the second use of the code: %v", err)
			}
			if _, err := conf.TokenSource(t.Context(), &oauth2.Token{RefreshToken: token.RefreshToken}).Token(); err == nil {
				t.Error("the refresh token is valid after a second use of the code")
			}

			b.open(conf.AuthCodeURL("again", oauth2.S256ChallengeOption(verifier)))
			b.press("Deny")
			b.sees("Back at the command line.")
			if answer := soon(t, brought); answer.Get("error") != "access_denied" || answer.Get("state") != "again" {
				t.Errorf("after the denial the browser brings %v", answer)
			}
		})
	}
}

// TestOAuth2DeviceFlow: golang.org/x/oauth2 signs a device in, while a person approves in a browser.
func TestOAuth2DeviceFlow(t *testing.T) {
	t.Parallel()
	for i, h := range someHands(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			e := newPerson(t, fmt.Sprintf("device-flow-%d", i))
			conf := discovered(t)
			device, err := conf.DeviceAuth(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			type result struct {
				token *oauth2.Token
				err   error
			}
			polled := make(chan result, 1)
			go func() {
				token, err := conf.DeviceAccessToken(t.Context(), device)
				polled <- result{token, err}
			}()
			b := openTab(t, shared.env["ROLECALL_URL"], h)
			if h.keyboard { // the person types the code
				b.open(device.VerificationURI)
			} else {
				b.open(device.VerificationURIComplete)
			}
			b.arrives("/console/sign-in")
			b.fill("User name", e.username)
			b.fill("Password", e.password)
			b.press("Sign in")
			b.arrives("/console/device")
			if h.keyboard {
				b.fill("Code", strings.ToLower(device.UserCode))
				b.press("Show the device")
			}
			b.sees("Sign in this device?")
			b.sees(device.UserCode)
			b.press("Approve")
			b.sees("The device is signed in as " + e.username)
			got := soon(t, polled)
			if got.err != nil {
				t.Fatal(got.err)
			}
			actsAs(t, conf, got.token, e.username)
		})
	}
}

// textOf is the text of the element with an id.
func (p *webPage) textOf(id string) string {
	for n := range p.root.Descendants() {
		if got, _ := attribute(n, "id"); n.Type == html.ElementNode && got == id && n.FirstChild != nil {
			return n.FirstChild.Data
		}
	}
	return ""
}

// value is that of a hidden field.
func (p *webPage) value(name string) string {
	for n := range p.root.Descendants() {
		if got, _ := attribute(n, "name"); n.Type == html.ElementNode && got == name {
			value, _ := attribute(n, "value")
			return value
		}
	}
	return ""
}

// passcode is what the page of cf login --sso shows.
func (v *visitor) passcode() string {
	v.t.Helper()
	page := v.get("/uaa/passcode")
	shown := v.post("/uaa/passcode", url.Values{"_once": {page.value("_once")}})
	code := shown.textOf("secret")
	if page.status != 200 || shown.status != 200 || code == "" {
		v.t.Fatalf("%d, %d: %s", page.status, shown.status, shown.body)
	}
	return code
}

// TestCFSingleSignOn is cf login --sso of the command line, and go-cfclient with the tokens that it stores.
func TestCFSingleSignOn(t *testing.T) {
	t.Parallel()
	e := newPerson(t, "cf-sso")
	c := newCFCommand(t)
	login := c.api()
	info := c.does(200, "GET", login+"/login", "").object(t)
	prompt, _ := member(info, "prompts", "passcode").([]any)
	if len(prompt) != 2 || prompt[0] != "password" {
		t.Fatalf("prompts: %v", info)
	}
	page := regexp.MustCompile(`https?://\S+`).FindString(fmt.Sprint(prompt[1])) // what a person opens
	if page != shared.env["CF_API_URL"]+"/uaa/passcode" {
		t.Fatalf("the prompt names %q", page)
	}
	code := e.visits(t).passcode()
	form := func(code string) url.Values { return url.Values{"grant_type": {"password"}, "passcode": {code}} }
	refused := c.grant(401, login+"/oauth/token", form("wrong"), "Basic Y2Y6").object(t)
	if refused["error"] != "unauthorized" { // else it prints the answer in place of "Credentials were rejected"
		t.Errorf("a wrong passcode: %v", refused)
	}
	c.signIn(c.grant(200, login+"/oauth/token", form(code), "Basic Y2Y6"))
	c.grant(401, login+"/oauth/token", form(code), "Basic Y2Y6")

	users, err := cf(t, cfconfig.Token(c.access, c.refresh)).Users.ListAll(t.Context(), nil)
	if err != nil || len(users) != 1 || users[0].GUID != e.guid {
		t.Errorf("go-cfclient sees %v, %v", users, err)
	}
	users, err = cf(t, cfconfig.Token("", c.refresh)).Users.ListAll(t.Context(), nil)
	if err != nil || len(users) != 1 {
		t.Errorf("go-cfclient with the refresh token alone sees %v, %v", users, err)
	}
}

// TestLoginWithoutBrowser is rolecall login --no-browser: the person approves in a browser elsewhere.
func TestLoginWithoutBrowser(t *testing.T) {
	t.Parallel()
	e := newPerson(t, "no-browser")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, rolecall, "login", shared.env["ROLECALL_URL"], "--sso", "--no-browser")
	cmd.Env = []string{"XDG_CONFIG_HOME=" + t.TempDir(), "HOME=" + t.TempDir()}
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := func() string {
		text, err := os.ReadFile(output.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var code string
	for code == "" {
		if ctx.Err() != nil {
			t.Fatalf("it prints no code: %s", printed())
		}
		code = regexp.MustCompile(`[B-Z]{4}-[B-Z]{4}`).FindString(printed())
		time.Sleep(20 * time.Millisecond)
	}
	v := e.visits(t)
	if a := v.post("/console/device", url.Values{"user_code": {code}, "decision": {"approve"}}); a.status != 303 {
		t.Fatalf("the approval: %d %s", a.status, a.body)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, printed())
	}
	list := exec.CommandContext(ctx, rolecall, "sessions", "list", "-o", "json")
	list.Env = cmd.Env
	out, err := list.Output()
	var sessions []struct {
		Kind, Client string
		Current      bool
	}
	if err != nil || json.Unmarshal(out, &sessions) != nil || len(sessions) != 2 {
		t.Fatalf("sessions: %s, %v", out, err)
	}
	for _, s := range sessions {
		if s.Current != (s.Kind == "login" && s.Client == "rolecall") {
			t.Errorf("sessions: %s", out)
		}
	}
}
