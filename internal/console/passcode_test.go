package console_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/servicetest"
)

// The page of cf login --sso shows a code once, and the code signs in once.
func TestPasscodePage(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	guid := s.Account(t, "passcode", account.DefaultScopes, nil)
	if to := s.browser(t).get("/uaa/passcode").is(http.StatusSeeOther).Location; to != "/console/sign-in?next="+
		url.QueryEscape("/uaa/passcode") {
		t.Errorf("a stranger is led to %s", to)
	}
	b := s.signedIn(t, "passcode", "passcode-password")
	page := b.get("/uaa/passcode").is(http.StatusOK).shows("cf login --sso", "passcode").hides(`id="secret"`)
	once := page.hidden("_once")
	shown := b.post("/uaa/passcode", "_once", once).is(http.StatusOK)
	m := regexp.MustCompile(`id="secret">([A-Z2-7]{26})<`).FindStringSubmatch(shown.Body)
	if m == nil || shown.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the page has no code: %v\n%s", shown.Header, shown.Body)
	}
	b.post("/uaa/passcode", "_once", once).is(http.StatusConflict).hides(m[1], `id="secret"`)
	b.get("/uaa/passcode").is(http.StatusOK).hides(m[1])
	tokens, err := s.Identity.GrantWithPasscode(t.Context(), s.client(t, "cf"), m[1], nil, "10.0.0.1")
	s.signsIn(t, tokens, err, guid)
	if strings.Contains(s.Log.String(), m[1]) {
		t.Error("the passcode is in the log")
	}
}
