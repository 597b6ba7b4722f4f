package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"rolecall/internal/fault"
)

// FuzzClientAddress: it is one address and nothing else, and what stands left of the last address that is not a proxy's
// does not count.
func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{"", "198.51.100.1", "203.0.113.9, 198.51.100.1", "198.51.100.1, 10.0.0.2", "10.0.0.3,10.0.0.2", "garbage, 10.0.0.2", "198.51.100.1:80", "[2001:db8::2]", "2001:db8::2%eth0", "::ffff:10.0.0.1", "1.2.3.4\n5.6.7.8", ",,", "010.0.0.1"} {
		f.Add(s)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, forwarded string) {
		from := func(peer string, forwarded ...string) string {
			return clientAddress(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": forwarded}}, proxies)
		}
		if got := from("198.51.100.7:1", forwarded); got != "198.51.100.7" {
			t.Errorf("somebody who is no proxy is %s for writing %q", got, forwarded)
		}
		got := from("10.0.0.1:1", forwarded)
		address, err := netip.ParseAddr(got)
		if err != nil || address.String() != got || address.Is4In6() || address.Zone() != "" {
			t.Fatalf("%q: %q is not an address as we write them: %v", forwarded, got, err)
		}
		if !contains(proxies, address) {
			if !strings.Contains(forwarded, ":") && !strings.Contains(forwarded, got) {
				t.Errorf("%s is not in %q", got, forwarded)
			}
			for _, more := range [][]string{{"203.0.113.9", forwarded}, {"203.0.113.9," + forwarded}, {forwarded, "10.0.0.9"}, {forwarded + ",10.0.0.9"}} {
				if again := from("10.0.0.1:1", more...); again != got {
					t.Errorf("%q: got %s, want %s", more, again, got)
				}
			}
		}
	})
}

// FuzzIncomingID: only what is safe in a line and a header is left, in its order.
func FuzzIncomingID(f *testing.F) {
	for _, s := range []string{"", "abc-DEF_123", "a b\tc\"d", "é", "a\x00\n", "\xff", strings.Repeat("xé", 300)} {
		f.Add(s, "")
		f.Add("", s)
	}
	good := regexp.MustCompile(`\A[A-Za-z0-9_-]{0,255}\z`)
	f.Fuzz(func(t *testing.T, id, vcapID string) {
		got := incomingID(http.Header{"X-Request-Id": {id}, "X-Vcap-Request-Id": {vcapID}})
		if vcapID != "" {
			id = vcapID
		}
		if !good.MatchString(got) {
			t.Errorf("%q became %q", id, got)
		}
		for _, c := range got {
			at := strings.IndexRune(id, c)
			if at < 0 {
				t.Fatalf("%q became %q", id, got)
			}
			id = id[at+1:]
		}
	})
}

// FuzzRouter: any names come out of a path as they were put into it, and any path is of one route, or of none.
func FuzzRouter(f *testing.F) {
	for _, s := range [][3]string{{"c", "u", "/c/x/u"}, {"..", ".", "//c/../u/."}, {"a/b", "a//b/", "/c/%2F/u/"}, {"%2F", "\x00\xff", "/c/%zz"}, {"é ", "?#", "/c//u/x?y"}, {"", "", "*"}, {"special", "u", "http://h/c/special"}, {"a", "b", ""}} {
		f.Add(s[0], s[1], s[2])
	}
	const user, special = "/c/{id}/u/{name...}", "/c/special"
	rt := NewRouter(Route{Method: "GET", Pattern: special}, Route{Method: "GET", Pattern: "/c/{id}"}, Route{Method: "DELETE", Pattern: user}, Route{Method: "GET", Pattern: user})
	f.Fuzz(func(t *testing.T, id, name, raw string) {
		find := func(method string, u *url.URL) (*Route, *http.Request, error) {
			r := &http.Request{Method: method, URL: u}
			route, err := rt.Find(httptest.NewRecorder(), r)
			return route, r, err
		}
		parse := func(raw string) *url.URL {
			u, err := url.ParseRequestURI(raw)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		route, r, err := find("DELETE", parse("/c/"+url.PathEscape(id)+"/u/"+url.PathEscape(name)))
		if id == "" || name == "" {
			if !fault.Is(err, fault.UnknownRoute) {
				t.Errorf("%q and %q: %v", id, name, err)
			}
		} else if err != nil || route.Pattern != user || r.PathValue("id") != id || r.PathValue("name") != name {
			t.Errorf("%q and %q became %q and %q: %v", id, name, r.PathValue("id"), r.PathValue("name"), err)
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		route, r, err = find("GET", u)
		head, _, headErr := find("HEAD", u)
		if head != route || fault.Is(err, fault.UnknownRoute) != fault.Is(headErr, fault.UnknownRoute) {
			t.Errorf("%q: GET finds %v, HEAD %v", raw, route, head)
		}
		if err != nil {
			if !fault.Is(err, fault.UnknownRoute) && !fault.Is(err, fault.UnknownMethod) {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		// The names that were found make the same path.
		again := strings.NewReplacer("{id}", url.PathEscape(r.PathValue("id")), "{name...}", url.PathEscape(r.PathValue("name"))).Replace(route.Pattern)
		if route.Pattern == special {
			again = special
		}
		if second, q, err := find("GET", parse(again)); err != nil || second != route || q.PathValue("id") != r.PathValue("id") || q.PathValue("name") != r.PathValue("name") {
			t.Errorf("%q is %s with %q and %q, %q is not: %v", raw, route.Pattern, r.PathValue("id"), r.PathValue("name"), again, err)
		}
	})
}

// FuzzBody: a body is taken when it is JSON, small enough, and not said to be something else; and for nothing else than
// that it is refused.
func FuzzBody(f *testing.F) {
	for _, s := range [][2]string{{"", "{}"}, {"application/json", "[]"}, {"APPLICATION/JSON; charset=utf-16", `{"a":{}}`}, {"text/json", `"`}, {"application/problem+json", "1"}, {"application/json;", ""},
		{"text/plain", "{}"}, {"application/json; x", "{}"}, {",", "{}"}, {"", strings.Repeat(" ", 100)}, {"", strings.Repeat("[", 99)}, {"", `{"a":1,"a":2}`}, {"", "\xff"}, {"application/x+json", "-0.0e1"}} {
		f.Add(s[0], s[1])
	}
	const limit = 100
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		if r.Header["Content-Type"] = nil; contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		v, err := Body(httptest.NewRecorder(), r, limit)
		switch {
		case err == nil:
			if len(body) > limit || !json.Valid([]byte(body)) || !utf8.ValidString(body) {
				t.Errorf("%q is taken: %#v", body, v)
			}
			if contentType != "" && !strings.Contains(strings.ToLower(contentType), "json") {
				t.Errorf("%q is taken", contentType)
			}
		case fault.Is(err, fault.TooLarge):
			if len(body) <= limit {
				t.Errorf("%d bytes are too many", len(body))
			}
		case fault.Is(err, fault.MediaType):
			if contentType == "" || contentType == "application/json" {
				t.Errorf("%q is not taken", contentType)
			}
		case !fault.Is(err, fault.Malformed):
			t.Errorf("%q, %q: %v", contentType, body, err)
		}
	})
}
