// Package door is the one way into every surface of the server. It authenticates each request and applies the limits, in one
// order for all surfaces. A surface declares the credentials that it accepts, its routes, its errors and its headers.
package door

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/remote"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

// Door is what all surfaces share.
type Door struct {
	Identity *identity.Service
	// PerAccount limits the requests of one account, PerAddress those of one address without a valid credential.
	PerAccount, PerAddress *web.Limiter
	// StrangerBody is how long the body of a request that needs no credential may take; zero: as long as any other.
	StrangerBody time.Duration
	// Origin is the scheme and host of the public URL, which a browser names as the origin of our own pages, also where a proxy
	// changes the Host header.
	Origin string
}

// Surface is what one dialect declares.
type Surface struct {
	// Name is the dialect's, for the metrics.
	Name string
	// Schemes are the schemes of credentials that it accepts.
	Schemes []identity.Scheme
	// Cookie is the name of the cookie that carries a session of a browser; "": the surface takes none, and no page of another
	// site can act as anybody on it.
	Cookie string
	// TokenHeader is a header that carries a token like Authorization with Bearer, and takes precedence; "": there is none.
	TokenHeader string
	Routes      []Route
	// Private is the path below which every request needs a valid credential, even one for an unknown path: a stranger does
	// not learn which paths exist. "": none.
	Private string
	// NoMethods answers a wrong method like an unknown path.
	NoMethods bool
	// Headers sets the headers of every answer; nil: web.AsData.
	Headers func(h http.Header, info *web.Info)
	// RateHeaders adds headers that say how much of its rate an account has left.
	RateHeaders bool
	Fail        web.FailFunc
}

// The causes of failures at the door. A dialect may have other words for them than for their kind.
var (
	ErrNoCredential    = errors.New("no credential of an accepted scheme")
	ErrWrongCredential = errors.New("the credential fails verification")
	ErrAddressLimit    = errors.New("too many requests of the address without a valid credential")
)

// Handler serves a surface.
type Handler struct {
	door    *Door
	surface Surface
	router  *Router
}

// Handler returns the handler of a surface.
func (d *Door) Handler(s Surface) *Handler {
	if s.Headers == nil {
		s.Headers = func(h http.Header, _ *web.Info) { web.AsData(h) }
	}
	return &Handler{d, s, NewRouter(s.Routes...)}
}

// Routes returns the surface's routes, for the tests that compare them with its document.
func (h *Handler) Routes() []Route { return h.router.Routes() }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info := web.InfoOf(r.Context())
	info.Dialect = h.surface.Name
	h.surface.Headers(w.Header(), info)
	route, methods := h.router.Find(r)
	private := h.surface.Private != "" && Below(Path(r.URL), h.surface.Private)
	if route != nil {
		info.Route, private = route.Pattern, !route.Public
	}
	var c presented
	if private {
		if c = h.presented(r.Header); h.seemsSignedIn(c) {
			info.SignedIn()
		}
	}
	web.Handle(w, r, func(w http.ResponseWriter, r *http.Request) error {
		return h.serve(w, r, route, methods, private, c)
	}, h.surface.Fail)
}

// presented is the credential of a request, which is read once.
type presented struct {
	identity.Credential
	missing  error // why the request has none
	stranger bool  // it has none, or a stranger's
}

func (h *Handler) presented(header http.Header) (p presented) {
	if p.Credential, p.missing = h.credential(header); p.missing == nil {
		p.Credential = h.door.Identity.WithKey(p.Credential)
	}
	p.stranger = p.missing != nil || h.door.Identity.Stranger(p.Credential)
	return p
}

// seemsSignedIn reports whether a request gets a slot of those who are signed in before its credential is verified. No body
// is read until then, so one that only seems valid holds the slot for a moment; not so if another server has to be asked.
func (h *Handler) seemsSignedIn(c presented) bool {
	return !c.stranger && !h.door.Identity.Remote(c.Credential)
}

var errForCredentials = fault.New(fault.Forbidden,
	"The personal access token is limited to reading stored credentials: it may do nothing else.")

// serve admits a request and passes it to its route. Without a valid credential a caller learns of a private path only that
// it is private.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, route *Route, methods []string, private bool,
	c presented) error {
	info := web.InfoOf(r.Context())
	var p *account.Principal
	var err error
	if private {
		if p, err = h.enter(w, r, info, c); err != nil {
			h.door.hurry(w, r) // the answer may read the body: the console keeps what was typed
		}
	} else {
		h.door.hurry(w, r)
		err = h.door.chargeAddress(info)
	}
	switch {
	case err != nil:
		return err
	case p != nil && p.Credentials != nil && (route == nil || !route.ForCredentials):
		return errForCredentials
	case route != nil:
		return route.Handle(w, r, p)
	case len(methods) == 0 || h.surface.NoMethods:
		return fault.New(fault.UnknownRoute, "There is nothing at %.200s.", r.URL.Path)
	}
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	return fault.New(fault.UnknownMethod, "%s is not offered on %.200s; offered: %s.", r.Method, r.URL.Path, allow)
}

// enter returns the principal of a request, unless its account or its address is over a limit.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, info *web.Info, c presented) (*account.Principal, error) {
	p, err := h.authenticate(r, info, c)
	if err != nil {
		return nil, err
	}
	p.RequestID, p.Trace, p.Address = info.ID, info.KnownTrace, info.Address
	if err := info.TakeAccountSlot(p.GUID); err != nil {
		return nil, err
	}
	limited := h.door.PerAccount.Take(p.GUID)
	if h.surface.RateHeaders {
		setRateHeaders(w.Header(), h.door.PerAccount, p.GUID)
	}
	if limited != nil {
		return nil, limited
	}
	return p, h.door.SameOrigin(r)
}

// SameOrigin refuses a change that a browser sends for a page of another site.
func (d *Door) SameOrigin(r *http.Request) error { return web.SameOrigin(r, d.Origin) }

// authenticate returns the principal of a request. Without a valid credential the request is charged to its address: before
// a stranger's credential is verified, or after a credential that seemed valid was refused.
func (h *Handler) authenticate(r *http.Request, info *web.Info, c presented) (*account.Principal, error) {
	if c.stranger {
		if err := h.door.chargeAddress(info); err != nil {
			return nil, err
		}
	}
	if c.missing != nil {
		return nil, c.missing
	}
	p, err := h.door.Identity.Authenticate(r.Context(), c.Credential, info.Address)
	refused, unverified := fault.Is(err, fault.Unauthenticated), errors.Is(err, identity.ErrIssuerUnreachable)
	if (refused || unverified) && !c.stranger {
		if err := h.door.chargeAddress(info); err != nil {
			return nil, err
		}
	}
	if !refused {
		return p, err
	}
	wrong := fault.Of(err)
	if wrong.Cause == nil {
		return nil, wrong.Because(ErrWrongCredential)
	}
	return nil, wrong.Because(fmt.Errorf("%w: %w", ErrWrongCredential, wrong.Cause))
}

// hurry gives a stranger's body less time than others have, so that slow bodies do not occupy the slots of an address for
// long. The server reads behind a request without a body, to notice a client that hangs up: a deadline would end that
// request.
func (d *Door) hurry(w http.ResponseWriter, r *http.Request) {
	if d.StrangerBody > 0 && r.Body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d.StrangerBody)) // a recorder has none
	}
}

func (d *Door) chargeAddress(info *web.Info) error {
	if err := d.PerAddress.Take(remote.Network(info.Address)); err != nil {
		return fault.Of(err).Because(ErrAddressLimit)
	}
	return nil
}

// credential reads the credential of a request. A scheme that the surface does not accept counts as no credential.
func (h *Handler) credential(header http.Header) (c identity.Credential, err error) {
	c = h.surface.Credential(header)
	if h.surface.Cookie != "" {
		c = session(header, h.surface.Cookie)
	}
	if c.Value != "" && slices.Contains(h.surface.Schemes, c.Scheme) {
		return c, nil
	}
	hint := "a token (Bearer)"
	if slices.Contains(h.surface.Schemes, identity.Basic) {
		hint = "a user name and password (Basic) or " + hint
	}
	return c, fault.New(fault.Unauthenticated, "Sign in: send %s in the Authorization header.", hint).Because(ErrNoCredential)
}

// session is the session that a browser proves with the cookie of a name. A cookie that is there twice is nobody's: a host
// beside ours may have set one of them.
func session(header http.Header, name string) identity.Credential {
	found := (&http.Request{Header: header}).CookiesNamed(name)
	if len(found) != 1 {
		return identity.Credential{}
	}
	return identity.Credential{Scheme: identity.Session, Value: secret.Text(found[0].Value)}
}

// Credential is what a request with these headers proves its account with.
func (s *Surface) Credential(header http.Header) identity.Credential {
	if token := header.Get(s.TokenHeader); s.TokenHeader != "" && token != "" {
		return identity.ParseCredential("Bearer " + token)
	}
	return identity.ParseCredential(header.Get("Authorization"))
}

// setRateHeaders tells the account how many requests it may send at once, how many are left, and when it has all again.
func setRateHeaders(h http.Header, l *web.Limiter, account string) {
	if limit, remaining, full, ok := l.Standing(account); ok {
		values := [...]string{strconv.Itoa(limit), strconv.Itoa(remaining), strconv.FormatInt(full.Unix()+1, 10)}
		h["X-Ratelimit-Limit"], h["X-Ratelimit-Remaining"], h["X-Ratelimit-Reset"] = values[0:1:1], values[1:2:2], values[2:3:3]
	}
}

// A Mount is a handler and the prefix of its paths.
type Mount struct {
	Prefix  string
	Handler http.Handler
}

// Mounts pass a request to the first mount with a prefix of its path. The prefix "" is one of every path.
type Mounts []Mount

// ServeHTTP implements http.Handler.
func (ms Mounts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := Path(r.URL)
	for _, m := range ms {
		if m.Prefix == "" || Below(path, m.Prefix) {
			m.Handler.ServeHTTP(w, r)
			return
		}
	}
}
