package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// statuses is the whole table.
var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Malformed:       http.StatusBadRequest,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.MediaType:       http.StatusUnsupportedMediaType,
	fault.UnknownRoute:    http.StatusNotFound,
	fault.UnknownMethod:   http.StatusMethodNotAllowed,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Forbidden:       http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Invalid:         http.StatusUnprocessableEntity,
	fault.Exists:          http.StatusConflict,
	fault.InUse:           http.StatusConflict,
	fault.Stale:           http.StatusPreconditionFailed,
	fault.TooMany:         http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
}

// titles are the headings of pages that say a failure.
var titles = map[fault.Kind]string{
	fault.Internal:        "Something went wrong here",
	fault.Malformed:       "The request is malformed",
	fault.TooLarge:        "The form is too large",
	fault.MediaType:       "The form has an unknown type",
	fault.UnknownRoute:    "There is no such page",
	fault.UnknownMethod:   "There is no such page",
	fault.Unauthenticated: "You are not signed in",
	fault.Forbidden:       "You may not do that",
	fault.NotFound:        "Not found",
	fault.Invalid:         "That is not acceptable",
	fault.Exists:          "It exists already",
	fault.InUse:           "It is still in use",
	fault.Stale:           "It has changed in the meantime",
	fault.TooMany:         "Too many requests",
	fault.Unavailable:     "Not available now",
}

type failure struct {
	Message    string
	RetryAfter int // seconds; 0: it is not said
	Retry      string
}

// fail answers with a page that says the failure. A person who is not signed in gets the page to sign in, and comes back.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, f *fault.Error) {
	// The door takes a session for a credential and says so; a person has a page to sign in.
	switch {
	case errors.Is(f, identity.ErrIssuerSignIn):
		c.issuerFailure(w, r, f)
		return
	case f.Kind == fault.Unauthenticated:
		c.comeBack(w, r, signInPath)
		return
	case errors.Is(f, errNotProven):
		c.comeBack(w, r, provePath)
		return
	}
	web.RetryAfter(w, f)
	told := failure{Message: f.Message, RetryAfter: int(f.RetryAfter.Seconds())}
	// The query with which an issuer sends a browser back is of use once, and has a code.
	if read := r.Method == http.MethodGet || r.Method == http.MethodHead; read && !strings.HasPrefix(r.URL.Path, CallbackPath) {
		told.Retry = r.URL.RequestURI()
	}
	err := c.show(w, r, nil, page{Template: "signin/failure.html", Title: titles[f.Kind], Status: statuses[f.Kind], Data: told})
	if err != nil {
		http.Error(w, f.Message, statuses[f.Kind])
	}
}

// comeBack sends a browser to a page where the person proves who they are, and which leads back. A form that was sent stays
// in that page, without its secrets.
func (c *Console) comeBack(w http.ResponseWriter, r *http.Request, to string) {
	next := r.URL.RequestURI()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		query := url.Values{nextField: {next}}
		if to == signInPath && c.ownSession(r) == "" && c.cameFromSignIn(r) {
			query.Set(cookiesField, "none")
		}
		target := to + "?" + query.Encode()
		if r.Header.Get("HX-Request") != "" { // it asks for a part of a page, and the whole is to change
			w.Header().Set("HX-Redirect", target)
			return
		}
		http.Redirect(w, r, target, http.StatusSeeOther)
		return
	}
	typed, err := readForm(w, r)
	if err != nil || c.Door.SameOrigin(r) != nil { // what another site filled in is nobody's work
		typed = &form{Values: url.Values{}}
	}
	for name := range typed.Values {
		if isSecret(name) {
			typed.Values.Del(name)
		}
	}
	show := c.showSignIn
	if to == provePath {
		show = c.showProve
	}
	shown := signInForm{Next: ownPath(r.URL.RequestURI()), Typed: typed.Values, Ended: true}
	if err := show(w, r, nil, shown, &form{Status: http.StatusUnauthorized, Values: url.Values{}}); err != nil {
		http.Error(w, "Sign in.", http.StatusUnauthorized)
	}
}

// cameFromSignIn reports whether the request follows a sign-in.
func (c *Console) cameFromSignIn(r *http.Request) bool {
	from, err := url.Parse(r.Referer())
	return err == nil && from.Path == signInPath
}

var errNotProven = errors.New("the person has not proved lately who they are")

// proven refuses what takes a fresh proof of who the person is.
func (c *Console) proven(ctx context.Context, p *account.Principal) error {
	if proven, err := c.Identity.Proven(ctx, p); proven || err != nil {
		return err
	}
	return fault.New(fault.Forbidden, "Prove first that it is you.").Because(errNotProven)
}

// ownPath is the path of a page of ours that a request asks to be led to, else that of the start page: no other host, and
// nothing that a browser could take for one.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || len(next) > 2000 {
		return startPath
	}
	path := u.EscapedPath()
	if strings.ContainsAny(next, "\\\r\n\t") || strings.Contains(path, "//") || strings.Contains(path, "/.") {
		return startPath
	}
	for _, ours := range []string{Prefix, AuthorizePath, PasscodePath} {
		if path == ours || strings.HasPrefix(path, ours+"/") {
			return path + query(u)
		}
	}
	return startPath
}

func query(u *url.URL) string {
	if u.RawQuery == "" {
		return ""
	}
	return "?" + u.RawQuery
}
