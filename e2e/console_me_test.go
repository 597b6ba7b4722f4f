package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
)

// TestConsoleToken makes a personal access token, uses it and revokes it. It is shown once: it is in no later page, title,
// address or storage of the browser. In between the session ends while the form is open, and what was typed is kept.
func TestConsoleToken(t *testing.T) {
	t.Parallel()
	for _, h := range someHands(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			e := dev(t)
			name := "pipeline " + h.name
			b := openTab(t, shared.env["ROLECALL_URL"], h)
			b.signIn(e)
			b.follow(e.username)
			b.follow("Tokens")
			b.follow("New token")
			b.fill("Name", name)
			b.check("Read-only: it changes nothing")

			call(b, network.ClearBrowserCookies, cdp.Empty{})
			b.press("Create the token")
			b.sees("Your session has ended.")
			b.fill("User name", e.username)
			b.fill("Password", e.password)
			b.press("Sign in")
			b.press("Go on with what you typed")
			b.arrives("/console/me/tokens/new")
			if got := b.value("Name"); got != name {
				t.Errorf("after the sign-in the name is %q", got)
			}
			if !eval[bool](b, `document.querySelector("[name=read-only]").checked`) {
				t.Error("after the sign-in the box is not checked")
			}
			b.press("Create the token")
			b.sees("Copy the token now.")
			token := eval[string](b, `document.querySelector(".secret").textContent`)
			whoami := "/rolecall/v1/whoami"
			if r := send(t, "GET", whoami, map[string]string{"Authorization": "Bearer " + token}, ""); r.status != 200 {
				t.Errorf("the token that is shown: %d %s", r.status, r.body)
			}

			b.follow("I have copied it")
			b.arrives("/console/me/tokens")
			b.sees(name)
			b.keepsNot(token)
			b.follow("Revoke " + name)
			b.press("Revoke the token")
			b.arrives("/console/me/tokens")
			waitFor(t, "the token is revoked", func() bool {
				return send(t, "GET", whoami, map[string]string{"Authorization": "Bearer " + token}, "").status == 401
			})
		})
	}
}

// keepsNot fails the test if the browser has a secret in the page, in its history or in its storage.
func (b *tab) keepsNot(secret string) {
	b.t.Helper()
	if secret == "" {
		b.t.Fatal("there is no secret")
	}
	if strings.Contains(eval[string](b, `document.documentElement.outerHTML`), secret) {
		b.t.Errorf("%s has the secret", b.path())
	}
	if slices.ContainsFunc(b.visited(), func(kept string) bool { return strings.Contains(kept, secret) }) {
		b.t.Errorf("the history has the secret: %q", b.visited())
	}
	if kept := eval[int](b, `localStorage.length + sessionStorage.length`); kept != 0 {
		b.t.Errorf("the browser keeps %d values for the console", kept)
	}
}
