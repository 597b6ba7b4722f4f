package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
)

// TestNoAnswerOfTheBrowser: a person who closes the page does not leave a command that waits for ever.
func TestNoAnswerOfTheBrowser(t *testing.T) {
	t.Setenv(browserVariable, "true")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"authorization_endpoint":"https://rolecall.test/uaa/oauth/authorize"}`)
	}))
	defer server.Close()
	cmd := &cobra.Command{}
	cmd.SetContext(context.Background())
	cmd.SetErr(io.Discard)
	_, err := signInByCode(cmd, client.New(server.URL, "test"), "", time.Second/4)
	if !errors.Is(err, errNobody) || !strings.Contains(err.Error(), "no answer came from the browser within 250ms") {
		t.Errorf("got %v", err)
	}
}

func TestCommandToSignInAgain(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]login{
		"rolecall login https://a.test":                                    {Name: "https://a.test"},
		"rolecall login https://a.test --context prod":                     {Name: "prod"},
		"rolecall login https://a.test --sso":                              {Name: "https://a.test", SSO: true},
		"rolecall login https://a.test --context prod --sso --issuer okta": {Name: "prod", SSO: true, Issuer: "okta"},
	} {
		if l.URL = "https://a.test"; l.again() != want {
			t.Errorf("got %q, want %q", l.again(), want)
		}
	}
}

// TestSignInAgain: after a new password, the logins of that account get new tokens, and nobody else's: an account of an
// issuer may have the same name.
func TestSignInAgain(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") != "password" || r.PostFormValue("password") != "a new password" {
			t.Errorf("got %v", r.PostForm)
		}
		_, _ = io.WriteString(w, `{"access_token":"new","refresh_token":"new","expires_in":1200}`)
	}))
	defer server.Close()
	s, err := openLogins()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"by password": "new", "by browser": "new", "of an issuer": "old", "of bob": "old",
		"elsewhere": "old"}
	for _, l := range []*login{
		{Name: "by password", URL: server.URL, Username: "Alice"},
		{Name: "by browser", URL: server.URL, Username: "alice", SSO: true, Origin: client.LocalOrigin},
		{Name: "of an issuer", URL: server.URL, Username: "alice", SSO: true, Origin: "login.example.org"},
		{Name: "of bob", URL: server.URL, Username: "bob"},
		{Name: "elsewhere", URL: "http://elsewhere.test", Username: "alice"},
	} {
		l.AccessToken, l.RefreshToken = "old", "old"
		if err := s.write(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := signInAgain(t.Context(), client.New(server.URL, "test"), "alice", "a new password"); err != nil {
		t.Fatal(err)
	}
	for name, token := range want {
		l, err := s.read(name)
		if err != nil || l.AccessToken != token || l.RefreshToken != token || l.SSO != (name == "of an issuer") {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}
