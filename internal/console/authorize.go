package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
)

func (c *Console) authorizeRoutes() []door.Route {
	return formPage(AuthorizePath, c.authorizePage, c.authorize)
}

// decisionField is what a person decides about a client: approve or deny.
const (
	decisionField = "decision"
	approve       = "approve"
	deny          = "deny"
)

var errNoDecision = fault.New(fault.Invalid, "Choose one of the two buttons.")

// authorization is what the page about a client that asks for a sign-in shows.
type authorization struct {
	*identity.Authorization
	Self string // where the form goes: this page, with its parameters
}

// authorizePage asks a person whether a command line gets a sign-in of theirs.
func (c *Console) authorizePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	a, err := identity.ReadAuthorization(r.URL.Query())
	if err != nil && a != nil {
		return c.redirect(w, a.Refusal(err), "")
	}
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "authorize/authorize.html", Title: "Sign in " + a.ClientID, Area: "me", Form: f,
		FormTarget: sourceOf(a.RedirectURI), Data: authorization{a, r.URL.RequestURI()}})
}

// sourceOf is the place of a redirect URI as a content security policy names it, which has no form for addresses of IPv6.
func sourceOf(redirectURI string) string {
	u, err := url.Parse(redirectURI)
	if err != nil || strings.Contains(u.Host, "[") {
		return "http:"
	}
	return "http://" + u.Host
}

func (c *Console) authorize(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	a, err := identity.ReadAuthorization(r.URL.Query())
	if err != nil && a != nil {
		return c.redirect(w, a.Refusal(err), "")
	}
	if err != nil {
		return err
	}
	var location string
	switch f.Get(decisionField) {
	case approve:
		location, err = c.Identity.Authorize(r.Context(), p, a)
	case deny:
		location, err = c.Identity.Deny(r.Context(), p, a)
	default:
		return errNoDecision
	}
	if errors.Is(err, identity.ErrScope) {
		return c.redirect(w, a.Refusal(err), "")
	}
	if err != nil {
		return err
	}
	return c.redirect(w, location, "")
}
