package uaa

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/fault"
)

// FuzzTokenForm: of a form that is taken each parameter has one value, and the URL holds no credential.
func FuzzTokenForm(f *testing.F) {
	const form = "application/x-www-form-urlencoded"
	for _, s := range [][3]string{
		{form, "", "grant_type=password&username=a&password=b"}, {form + "; charset=utf-8", "login_hint=%7B%7D", "a=1&a=2"},
		{form, "password=b", ""}, {form, "%70assword=b", ""}, {form, "x;password=b", ""}, {form, "a=1&a=2", ""},
		{"application/json", "", "{}"}, {"", "", ""}, {form, "", "a=%zz"}, {form, "", "a;b=1"}, {form, "", "=&=="},
		{form, "", "\x00=\xff"}, {form + ";", "", strings.Repeat("a", maxForm+1)},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, contentType, query, body string) {
		r := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		got, err := tokenForm(httptest.NewRecorder(), r)
		if err != nil {
			if !fault.Is(err, fault.Malformed) && !fault.Is(err, fault.MediaType) && !fault.Is(err, fault.TooLarge) {
				t.Errorf("%q, %q: %v", query, body, err)
			}
			return
		}
		for name, values := range got {
			if len(values) != 1 {
				t.Errorf("%q: %q has the values %q", body, name, values)
			}
		}
		lenient, _ := url.ParseQuery(query)
		for _, name := range []string{"username", "password", "client_id", "client_secret", "refresh_token", "grant_type"} {
			if lenient.Has(name) {
				t.Errorf("%q has %s", query, name)
			}
		}
		if !strings.Contains(strings.ToLower(contentType), form) || len(body) > maxForm {
			t.Errorf("%q and %d bytes are taken", contentType, len(body))
		}
	})
}

// FuzzPage: what is asked for is part of a list.
func FuzzPage(f *testing.F) {
	for _, s := range [][2]string{{"1", "100"}, {"0", "-1"}, {"99999999999", "501"}, {"+1", "٣"}, {"", ""},
		{"9223372036854775808", "1e3"}, {"-9223372036854775808", "0x10"}, {"1_0", " 1"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, start, count string) {
		p, err := parsePage(url.Values{"startIndex": {start}, "count": {count}})
		if err != nil {
			if !fault.Is(err, fault.Malformed) {
				t.Errorf("%q, %q: %v", start, count, err)
			}
			return
		}
		if p.start < 1 || p.start > maxStart || p.count < 0 || p.count > maxCount {
			t.Errorf("%q, %q: %+v", start, count, p)
		}
	})
}

// FuzzIfMatch: the version is that of the one tag, or one that nothing has.
func FuzzIfMatch(f *testing.F) {
	for _, s := range []string{"*", `"*"`, "0", `"0"`, `W/"0"`, `"0","1"`, "", `"`, "-1", "+1", " 7 ", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		match := ifMatch(&http.Request{Header: http.Header{"If-Match": {field}}})
		tag := strings.TrimSpace(field)
		for _, version := range []string{"0", "7"} {
			if tag == version && !match.Allows(version) || match.Allows(version) && strings.Trim(tag, `"`) != version &&
				strings.Trim(tag, `"`) != "*" {
				t.Errorf("%q allows %s: %t", field, version, match.Allows(version))
			}
		}
	})
}
