package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"rolecall/internal/fault"
)

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

// FuzzBody: a body is taken when it is JSON, small enough, and not said to be something else; and for nothing else than
// that it is refused.
func FuzzBody(f *testing.F) {
	for _, s := range [][2]string{{"", "{}"}, {"application/json", "[]"}, {"APPLICATION/JSON; charset=utf-16", `{"a":{}}`},
		{"text/json", `"`}, {"application/problem+json", "1"}, {"application/json;", ""},
		{"text/plain", "{}"}, {"application/json; x", "{}"}, {",", "{}"}, {"", strings.Repeat(" ", 100)},
		{"", strings.Repeat("[", 99)}, {"", `{"a":1,"a":2}`}, {"", "\xff"}, {"application/x+json", "-0.0e1"}} {
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
