package door

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rolecall/internal/account"
)

// HandlerFunc answers a request of a principal or returns an error, which it never writes itself. The principal of a public
// route is nil.
type HandlerFunc func(w http.ResponseWriter, r *http.Request, p *account.Principal) error

// A Route is one operation: a method and a pattern of literal segments and parameters (`/users/{username}`). The last
// segment may be `{name...}`, which takes the rest of the path.
type Route struct {
	Method  string
	Pattern string
	Handle  HandlerFunc
	// Public routes need no credential.
	Public bool
	// ForCredentials routes are the only ones for a token that is limited to stored credentials.
	ForCredentials bool
}

// Router finds the route of a request. Unlike http.ServeMux it never cleans a path and never redirects: with it,
// `DELETE /users/..` would come back as a DELETE of the parent. Each segment is unescaped by itself, so a name may hold
// an escaped slash. Doubled slashes at the start, which some clients make of a base URL that ends in one, count as one.
type Router struct {
	routes []compiled
}

type compiled struct {
	Route
	segments []string
}

// NewRouter compiles the routes. The first that matches wins, so literals stand before parameters.
func NewRouter(routes ...Route) *Router {
	rt := &Router{}
	for _, r := range routes {
		rt.routes = append(rt.routes, compiled{r, strings.Split(strings.TrimPrefix(r.Pattern, "/"), "/")})
	}
	return rt
}

// Routes returns the routes in order, for tests and documents.
func (rt *Router) Routes() []Route {
	routes := make([]Route, len(rt.routes))
	for i, c := range rt.routes {
		routes[i] = c.Route
	}
	return routes
}

// Find returns the request's route and sets its path values. Without a route it returns the methods that the path has,
// none for an unknown path. HEAD is served by GET.
func (rt *Router) Find(r *http.Request) (route *Route, methods []string) {
	segments := split(r.URL)
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range rt.routes {
		c := &rt.routes[i]
		values, ok := match(c.segments, segments)
		if !ok {
			continue
		}
		if c.Method != method {
			if !slices.Contains(methods, c.Method) {
				methods = append(methods, c.Method)
			}
			continue
		}
		for j := 0; j < len(values); j += 2 {
			r.SetPathValue(values[j], values[j+1])
		}
		return &c.Route, nil
	}
	return nil, methods
}

// Path is the path of a request in its escaped form, with the slashes at its start collapsed to one.
func Path(u *url.URL) string {
	return "/" + strings.TrimLeft(u.EscapedPath(), "/")
}

func split(u *url.URL) []string {
	segments := strings.Split(Path(u)[1:], "/")
	for i, s := range segments {
		segments[i], _ = url.PathUnescape(s) // never fails: EscapedPath returns only what it can unescape
	}
	return segments
}

// Below reports whether the path is the prefix or lies below it.
func Below(path, prefix string) bool {
	rest, found := strings.CutPrefix(path, prefix)
	return found && (rest == "" || rest[0] == '/')
}

func match(pattern, path []string) (values []string, ok bool) {
	for i, p := range pattern {
		name, isParam := strings.CutPrefix(p, "{")
		if !isParam {
			if i >= len(path) || path[i] != p {
				return nil, false
			}
			continue
		}
		name = strings.TrimSuffix(name, "}")
		if rest, isRest := strings.CutSuffix(name, "..."); isRest {
			value := strings.Join(path[min(i, len(path)):], "/")
			return append(values, rest, value), value != ""
		}
		if i >= len(path) || path[i] == "" {
			return nil, false
		}
		values = append(values, name, path[i])
	}
	return values, len(pattern) == len(path)
}
