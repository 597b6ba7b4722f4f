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
