package console

import (
	"net/http"
	"net/url"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
)

const (
	signInPath  = Prefix + "/sign-in"
	signOutPath = Prefix + "/sign-out"
	provePath   = Prefix + "/prove"
	startPath   = Prefix + "/"
)

func (c *Console) signInRoutes() []door.Route {
	show, act := c.signInPage, c.signIn
	return append(formPage(provePath, c.provePage, c.prove),
		door.Route{Method: http.MethodGet, Pattern: signInPath, Public: true, Handle: unsent(show)},
		door.Route{Method: http.MethodPost, Pattern: signInPath, Public: true, Handle: c.fromAnySite(show, act)},
		action(signOutPath, c.signInPage, c.signOut),
	)
}

// signInForm is what the pages to sign in, and to prove who one is, show.
type signInForm struct {
	Next string
	// Typed is the form that was sent when the session had ended, nil if none was. Ended says so.
	Typed url.Values
	Ended bool
	// Issuers are those at which the person may prove who they are, and Password says that a password proves it as well.
	Issuers  []identity.SignInIssuer
	Password bool
	Prove    bool // once more, on the page for that
}

func typedBefore(f *form) signInForm {
	shown := signInForm{Next: ownPath(f.Get(nextField)), Ended: f.Values.Has(typedField)}
	shown.Typed, _ = parseForm(f.Get(typedField)) // it was written by us; if it is damaged, nothing was typed
	return shown
}

// TypedText is the form that was sent, for a hidden field.
func (s signInForm) TypedText() string { return s.Typed.Encode() }

func (c *Console) signInPage(w http.ResponseWriter, r *http.Request, _ *account.Principal, f *form) error {
	shown := typedBefore(f)
	if r.Method == http.MethodGet {
		shown.Next = ownPath(r.URL.Query().Get(nextField))
		if r.URL.Query().Get(cookiesField) == "none" {
			f.Problem = "Your browser did not keep the cookie of the session. Allow cookies for this site, then sign in."
		} else if issuer := wantedIssuer(shown.Next); issuer != "" {
			err := c.goToIssuer(w, r, issuer, shown, false)
			if err == nil {
				return nil
			}
			f.refuse(err)
		}
	}
	return c.showSignIn(w, r, nil, shown, f)
}

func (c *Console) showSignIn(w http.ResponseWriter, r *http.Request, _ *account.Principal, s signInForm, f *form) error {
	s.Issuers, s.Password = c.issuersOf(nil), true
	return c.show(w, r, nil, page{Template: "signin/signin.html", Title: "Sign in", Form: f, Data: s,
		FormTarget: issuerTargets(s.Issuers)})
}

// fromAnySite is action for the page to sign in, where there is no session yet: a page of another site must not sign its
// visitor in as somebody else.
func (c *Console) fromAnySite(show, act formHandler) door.HandlerFunc {
	handle := action("", show, act).Handle
	return func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
		if err := c.Door.SameOrigin(r); err != nil {
			return err
		}
		return handle(w, r, p)
	}
}

var errWrongSignIn = fault.New(fault.Invalid, "The user name or the password is wrong.")

func (c *Console) signIn(w http.ResponseWriter, r *http.Request, _ *account.Principal, f *form) error {
	address := addressOf(r)
	a, err := c.Identity.VerifyPassword(r.Context(), f.Get("username"), f.Values.Get("password"), address)
	if fault.Is(err, fault.Unauthenticated) {
		return errWrongSignIn.Because(err)
	}
	if err != nil {
		return err
	}
	return c.begin(w, r, a, time.Now(), typedBefore(f))
}

// begin starts a session of an account that has proved at that time who it is, and leads to the page that the person wanted.
// It takes the place of the session that the browser had.
func (c *Console) begin(w http.ResponseWriter, r *http.Request, a *account.Account, proven time.Time, s signInForm) error {
	if err := c.Identity.EndOwnSession(r.Context(), c.ownSession(r)); err != nil {
		return err
	}
	token, err := c.Identity.StartSession(r.Context(), a, proven, addressOf(r), r.UserAgent())
	if fault.Is(err, fault.Unauthenticated) {
		return errWrongSignIn.Because(err)
	}
	if err != nil {
		return err
	}
	c.setCookie(w, "rolecall", string(token))
	return c.goOn(w, r, s)
}

// goOn leads to the page that a person wanted before they had to prove who they are. A form that they had sent is shown to
// them again there.
func (c *Console) goOn(w http.ResponseWriter, r *http.Request, s signInForm) error {
	if len(s.Typed) == 0 {
		return c.redirect(w, s.Next, "")
	}
	return c.show(w, r, nil, page{Template: "signin/continue.html", Title: "You are signed in", Data: s})
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request, _ *account.Principal, _ *form) error {
	if err := c.Identity.EndOwnSession(r.Context(), c.ownSession(r)); err != nil {
		return err
	}
	c.setCookie(w, "rolecall", "")
	w.Header().Set("Clear-Site-Data", `"cache"`)
	return c.redirect(w, signInPath, "You are signed out.")
}

func (c *Console) provePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	shown := typedBefore(f)
	if r.Method == http.MethodGet {
		shown.Next = ownPath(r.URL.Query().Get(nextField))
	}
	return c.showProve(w, r, p, shown, f)
}

func (c *Console) showProve(w http.ResponseWriter, r *http.Request, p *account.Principal, s signInForm, f *form) error {
	s.Prove, s.Issuers, s.Password = true, c.issuersOf(p), p == nil || p.Origin == account.LocalOrigin
	return c.show(w, r, p, page{Template: "signin/prove.html", Title: "Is it you?", Form: f, Data: s,
		FormTarget: issuerTargets(s.Issuers)})
}

func (c *Console) prove(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	err := c.Identity.ProveWithPassword(r.Context(), p, c.ownSession(r), f.Values.Get("password"))
	if fault.Is(err, fault.Unauthenticated) {
		return wrongField("password", "The password is wrong.")
	}
	if err != nil {
		return err
	}
	return c.goOn(w, r, typedBefore(f))
}
