package door

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRouter(t *testing.T) {
	rt := NewRouter(
		Route{Method: "GET", Pattern: "/p/clusters/versions"},
		Route{Method: "GET", Pattern: "/p/clusters"},
		Route{Method: "GET", Pattern: "/p/clusters/{id}"},
		Route{Method: "GET", Pattern: "/p/clusters/{id}/users"},
		Route{Method: "POST", Pattern: "/p/clusters/{id}/users"},
		Route{Method: "GET", Pattern: "/p/clusters/{id}/users/{name...}"},
		Route{Method: "DELETE", Pattern: "/p/clusters/{id}/users/{name...}"},
		Route{Method: "GET", Pattern: "/"},
	)
	const user, clusters = "/p/clusters/{id}/users/{name...}", "/p/clusters"
	for _, test := range []struct{ method, path, pattern, id, name string }{
		{"GET", "/p/clusters", clusters, "", ""},
		{"HEAD", "/p/clusters", clusters, "", ""},
		{"GET", "//p/clusters", clusters, "", ""},
		{"GET", "////p/clusters", clusters, "", ""},
		{"GET", "/%70/clusters", clusters, "", ""},
		{"GET", "/", "/", "", ""},
		{"GET", "//", "/", "", ""},
		{"GET", "/p/clusters/versions", "/p/clusters/versions", "", ""},
		{"GET", "/p/clusters/Versions", "/p/clusters/{id}", "Versions", ""},
		{"GET", "/p/clusters/..", "/p/clusters/{id}", "..", ""},
		{"GET", "/p/clusters/c%2Fd", "/p/clusters/{id}", "c/d", ""},
		{"POST", "/p/clusters/c/users", "/p/clusters/{id}/users", "c", ""},
		{"GET", "/p/clusters/c/users/u", user, "c", "u"},
		{"DELETE", "/p/clusters/c/users/..", user, "c", ".."},
		{"DELETE", "/p/clusters/c/users/.", user, "c", "."},
		{"DELETE", "/p/clusters/c/users/%2e%2E", user, "c", ".."},
		{"DELETE", "/p/clusters/c/users/../..", user, "c", "../.."},
		{"GET", "/p/clusters/c/users/a/b", user, "c", "a/b"},
		{"GET", "/p/clusters/c/users/a%2Fb", user, "c", "a/b"},
		{"GET", "/p/clusters/c/users/a%252Fb", user, "c", "a%2Fb"},
		{"GET", "/p/clusters/c/users//a", user, "c", "/a"},
		{"GET", "/p/clusters/c/users/a/", user, "c", "a/"},
		{"GET", "/p/clusters/c/users/a//b", user, "c", "a//b"},
		{"GET", "/p/clusters/c/users/%20a+b%2B", user, "c", " a+b+"},
		{"GET", "/p/clusters/c/users/%00", user, "c", "\x00"},
		{"GET", "/p/clusters/c/users/%ff", user, "c", "\xff"},
		{"GET", "/p/clusters/c/users/x?y/z", user, "c", "x"},

		{"GET", "/p", "", "", ""},
		{"GET", "/p/", "", "", ""},
		{"GET", "/p/clusters/", "", "", ""},
		{"GET", "/p//clusters", "", "", ""},
		{"GET", "/p/clusters//users", "", "", ""},
		{"GET", "/p/clusters/c/users/", "", "", ""},
		{"GET", "/p/clusters/c/", "", "", ""},
		{"GET", "/p/./clusters", "", "", ""},
		{"GET", "/x/../p/clusters", "", "", ""},
		{"GET", "/P/clusters", "", "", ""},
		{"GET", "/p%2Fclusters", "", "", ""},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		route, methods := rt.Find(r)
		pattern := ""
		if route != nil {
			pattern = route.Pattern
		} else if methods != nil {
			t.Errorf("%s %s: offered are %v", test.method, test.path, methods)
		}
		if pattern != test.pattern || r.PathValue("id") != test.id || r.PathValue("name") != test.name {
			t.Errorf("%s %s: got %q with %q and %q, want %q with %q and %q", test.method, test.path,
				pattern, r.PathValue("id"), r.PathValue("name"), test.pattern, test.id, test.name)
		}
	}
	for request, allow := range map[[2]string]string{
		{"DELETE", "/p/clusters"}:            "GET",
		{"POST", "/p/clusters/versions"}:     "GET",
		{"PUT", "/p/clusters/c/users"}:       "GET, POST",
		{"OPTIONS", "/p/clusters/c/users/u"}: "GET, DELETE",
		{"get", "/p/clusters"}:               "GET",
	} {
		route, methods := rt.Find(httptest.NewRequest(request[0], request[1], nil))
		if got := strings.Join(methods, ", "); route != nil || got != allow {
			t.Errorf("%s: %v, offered are %q, want %q", request, route, got, allow)
		}
	}
}

// A path that no client could write is still a path without a route.
func TestRouterOddURL(t *testing.T) {
	rt := NewRouter(Route{Method: "GET", Pattern: "/{x}"})
	for _, path := range []string{"", "*", "%zz", "/a b%", "/\x00"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawPath = path, "%zz"
		if route, _ := rt.Find(r); route != nil && r.PathValue("x") != path && "/"+r.PathValue("x") != path {
			t.Errorf("%q matches %s with %q", path, route.Pattern, r.PathValue("x"))
		}
	}
	if got := rt.Routes(); len(got) != 1 || got[0].Pattern != "/{x}" || got[0].Method != http.MethodGet {
		t.Errorf("the routes are %+v", got)
	}
}
