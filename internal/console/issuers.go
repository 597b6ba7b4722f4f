package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
)

// issuerCookie has the sign-in at an issuer that the browser has begun last, sealed.
const issuerCookie = "rolecall-issuer"

// proveField says in a form that the person is to prove who they are, also to an issuer at which they are signed in.
const proveField = "prove"

func (c *Console) issuerRoutes() []door.Route {
	return []door.Route{
		{Method: http.MethodPost, Pattern: signInPath + "/{issuer}", Public: true,
			Handle: c.fromAnySite(c.signInPage, c.signInAtIssuer)},
		{Method: http.MethodGet, Pattern: CallbackPath + "/{issuer}", Public: true, Handle: c.backFromIssuer},
	}
}

// signInAtIssuer sends the browser to an issuer.
func (c *Console) signInAtIssuer(w http.ResponseWriter, r *http.Request, _ *account.Principal, f *form) error {
	return c.goToIssuer(w, r, r.PathValue("issuer"), typedBefore(f), f.Values.Has(proveField))
}

// wantedIssuer is the issuer that a command line has named for its sign-in, "" for none.
func wantedIssuer(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Path != AuthorizePath {
		return ""
	}
	return u.Query().Get("issuer")
}

// goToIssuer sends the browser to an issuer, which sends it back to what the person wanted.
func (c *Console) goToIssuer(w http.ResponseWriter, r *http.Request, issuer string, s signInForm, prove bool) error {
	keep := url.Values{nextField: {s.Next}, typedField: {s.TypedText()}}
	location, sealed, err := c.Identity.StartIssuerSignIn(r.Context(), issuer, keep.Encode(), prove)
	if err != nil {
		return err
	}
	c.setCookie(w, issuerCookie, string(sealed))
	return c.redirect(w, location, "")
}

// backFromIssuer ends the sign-in of a browser that an issuer has sent back.
func (c *Console) backFromIssuer(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	var sealed secret.Text
	if cookie, err := r.Cookie(c.cookieName(issuerCookie)); err == nil {
		sealed = secret.Text(cookie.Value)
	}
	c.setCookie(w, issuerCookie, "")
	done, err := c.Identity.FinishIssuerSignIn(r.Context(), r.PathValue("issuer"), sealed, r.URL.Query(), addressOf(r))
	if err != nil {
		return err
	}
	kept, _ := url.ParseQuery(done.Keep) // it was written by us; nothing is kept if it was too long
	return c.begin(w, r, done.Account, done.Proven, typedBefore(&form{Values: kept}))
}

// issuerFailure answers a sign-in at an issuer that failed. The query of the page is not shown: it has a code.
func (c *Console) issuerFailure(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	err := c.show(w, r, nil, page{Template: "signin/issuer.html", Title: "You are not signed in",
		Status: statuses[fault.Unauthenticated], Data: f.Message})
	if err != nil {
		http.Error(w, f.Message, statuses[fault.Unauthenticated])
	}
}

// issuersOf are the issuers at which a principal proves who it is: that of its origin; all of them for nil.
func (c *Console) issuersOf(p *account.Principal) []identity.SignInIssuer {
	issuers := c.Identity.SignInIssuers()
	if p == nil {
		return issuers
	}
	return slices.DeleteFunc(issuers, func(i identity.SignInIssuer) bool { return i.Origin != p.Origin })
}

// issuerTargets is where the forms of a page lead that has buttons of issuers. Browsers hold redirects after a form to
// form-action, and an issuer may redirect to another one, as Dex does to its only connector. So it is every https URL.
func issuerTargets(issuers []identity.SignInIssuer) string {
	if len(issuers) == 0 {
		return ""
	}
	targets := []string{"https:"}
	for _, i := range issuers {
		if u, err := url.Parse(i.URL); err == nil && u.Scheme == "http" {
			targets = append(targets, "http://"+u.Host)
		}
	}
	return strings.Join(targets, " ")
}
