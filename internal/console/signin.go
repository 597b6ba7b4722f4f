package console

import (
	"net/http"
	"net/url"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
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
		door.Route{Method: http.MethodGet, Pattern: signInPath, Public: true,
			Handle: func(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
				return show(w, r, nil, &form{Values: url.Values{}})
			}},
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
}

func typedBefore(f *form) signInForm {
	shown := signInForm{Next: ownPath(f.Get(nextField)), Ended: f.Values.Has("typed")}
	shown.Typed, _ = url.ParseQuery(f.Get("typed")) // it was written by us; if it is damaged, nothing was typed
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
		}
	}
	return c.showSignIn(w, r, nil, shown, f)
}

func (c *Console) showSignIn(w http.ResponseWriter, r *http.Request, _ *account.Principal, s signInForm, f *form) error {
	return c.show(w, r, nil, page{Template: "signin/signin.html", Title: "Sign in", Form: f, Data: s})
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
	return c.begin(w, r, a, typedBefore(f))
}

// begin starts a session of an account that has just proved who it is, and leads to the page that the person wanted.
func (c *Console) begin(w http.ResponseWriter, r *http.Request, a *account.Account, s signInForm) error {
	token, err := c.Identity.StartSession(r.Context(), a, addressOf(r), r.UserAgent())
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

func (c *Console) signOut(w http.ResponseWriter, r *http.Request, p *account.Principal, _ *form) error {
	if err := c.Identity.EndOwnSession(r.Context(), p, c.ownSession(r)); err != nil {
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
	return c.show(w, r, p, page{Template: "signin/prove.html", Title: "Is it you?", Form: f, Data: s})
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
