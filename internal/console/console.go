// Package console is the dialect of people: pages in HTML at /console/, which are complete without JavaScript. A handler
// decodes, makes one call of a domain package, and presents; it decides nothing. A browser proves its session with a cookie,
// which no API takes; the console takes no token.
//
// Each area has a file, with its routes, and a folder of templates. A page is a method that fills in a page and shows it:
//
//	page.go    what a page is, and how it is shown; templates/frame has what all pages share
//	form.go    what a person typed, and how a refused form is shown again
//	list.go    the filter and the pages of a list
//	once.go    a form whose answer shows a secret
//	refuse.go  what is answered instead of a page
//	cookie.go  the session and the notice in the browser
package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/idempotency"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is where the pages are.
const Prefix = "/console"

// The pages outside of Prefix. They belong to the protocols by which people sign in, and take the session of the browser.
const (
	AuthorizePath = "/uaa/oauth/authorize"
	CallbackPath  = "/uaa/login/callback"
	PasscodePath  = "/uaa/passcode"
)

// Console serves the pages.
type Console struct {
	Accounts *account.Store
	Users    *dbuser.Service
	Fleet    *fleet.Service
	Identity *identity.Service
	Events   *event.Service
	// Idempotency keeps which forms were carried out, of those that are carried out once.
	Idempotency *idempotency.Store
	Door        *door.Door
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
	Version   string // of the program
	// Metrics is the address of the metrics of this replica; "": they are not served.
	Metrics string
	// AuditRetention is how long rows of the audit log are kept; 0: for ever.
	AuditRetention time.Duration
}

// Handler returns the handler of all pages.
func (c *Console) Handler() *door.Handler {
	return c.Door.Handler(door.Surface{
		Name: "console", Schemes: []identity.Scheme{identity.Session}, Cookie: c.sessionCookie(), Private: Prefix,
		Headers: c.headers, Fail: c.fail,
		Routes: slices.Concat(
			c.staticRoutes(),
			c.signInRoutes(),
			c.issuerRoutes(),
			c.startRoutes(),
			c.clusterRoutes(),
			c.systemRoutes(),
			c.webhookRoutes(),
			c.operationRoutes(),
			c.leaseRoutes(),
			c.credentialRoutes(),
			c.meRoutes(),
			c.authorizeRoutes(),
			c.deviceRoutes(),
			c.passcodeRoutes(),
			c.accountsRoutes(),
			c.auditRoutes(),
			c.userRoutes(),
		),
	})
}

// headers are those of every page. What a page may load and where its forms may go is this server alone.
func (c *Console) headers(h http.Header, _ *web.Info) {
	web.AsData(h)
	h.Set("Content-Security-Policy", policy(""))
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// policy is the content security policy of a page whose form may be answered with a redirect to target as well; "": to none.
func policy(target string) string {
	return strings.TrimSpace("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' " + target)
}
