package door

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzRouter: any names come out of a path as they were put into it, and any path is of one route, or of none.
func FuzzRouter(f *testing.F) {
	for _, s := range [][3]string{{"c", "u", "/c/x/u"}, {"..", ".", "//c/../u/."}, {"a/b", "a//b/", "/c/%2F/u/"},
		{"%2F", "\x00\xff", "/c/%zz"}, {"é ", "?#", "/c//u/x?y"}, {"", "", "*"}, {"special", "u", "http://h/c/special"},
		{"a", "b", ""}} {
		f.Add(s[0], s[1], s[2])
	}
	const user, special = "/c/{id}/u/{name...}", "/c/special"
	rt := NewRouter(Route{Method: "GET", Pattern: special}, Route{Method: "GET", Pattern: "/c/{id}"},
		Route{Method: "DELETE", Pattern: user}, Route{Method: "GET", Pattern: user})
	f.Fuzz(func(t *testing.T, id, name, raw string) {
		find := func(method string, u *url.URL) (*Route, *http.Request, []string) {
			r := &http.Request{Method: method, URL: u}
			route, methods := rt.Find(r)
			return route, r, methods
		}
		parse := func(raw string) *url.URL {
			u, err := url.ParseRequestURI(raw)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		route, r, methods := find("DELETE", parse("/c/"+url.PathEscape(id)+"/u/"+url.PathEscape(name)))
		if id == "" || name == "" {
			if route != nil || methods != nil {
				t.Errorf("%q and %q: %v, %v", id, name, route, methods)
			}
		} else if route == nil || route.Pattern != user || r.PathValue("id") != id || r.PathValue("name") != name {
			t.Errorf("%q and %q became %q and %q: %v", id, name, r.PathValue("id"), r.PathValue("name"), methods)
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		route, r, methods = find("GET", u)
		head, _, headMethods := find("HEAD", u)
		if head != route || !slices.Equal(methods, headMethods) {
			t.Errorf("%q: GET finds %v, HEAD %v", raw, route, head)
		}
		if route == nil {
			return
		}
		// The names that were found make the same path.
		again := strings.NewReplacer("{id}", url.PathEscape(r.PathValue("id")), "{name...}",
			url.PathEscape(r.PathValue("name"))).Replace(route.Pattern)
		if route.Pattern == special {
			again = special
		}
		if second, q, _ := find("GET", parse(again)); second != route || q.PathValue("id") != r.PathValue("id") ||
			q.PathValue("name") != r.PathValue("name") {
			t.Errorf("%q is %s with %q and %q, %q is not", raw, route.Pattern, r.PathValue("id"), r.PathValue("name"), again)
		}
	})
}
