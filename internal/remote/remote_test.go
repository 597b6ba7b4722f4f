package remote_test

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"rolecall/internal/remote"
)

func TestAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, test := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:1234", nil, "192.0.2.1"},
		{"[2001:db8::1]:1234", nil, "2001:db8::1"},
		{"[::ffff:192.0.2.1]:1234", nil, "192.0.2.1"},
		{"[fe80::1%eth0]:1234", nil, "fe80::1"},
		{"192.0.2.1:1234", []string{"198.51.100.1"}, "192.0.2.1"}, // a client that is no proxy
		{"10.0.0.1:1", nil, "10.0.0.1"},
		{"10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"[fd00::1]:1", []string{"2001:db8::2"}, "2001:db8::2"},
		{"[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},             // the left one is made up
		{"10.0.0.1:1", []string{"203.0.113.9", "198.51.100.1, 10.0.0.2"}, "198.51.100.1"}, // over two proxies and header fields
		{"10.0.0.1:1", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:1", []string{"198.51.100.1, garbage"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"garbage, 198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"198.51.100.1:80"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"203.0.113.9:1, 198.51.100.1:80, 10.0.0.2:443"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"[2001:db8::2]:80"}, "2001:db8::2"},
		{"10.0.0.1:1", []string{"[2001:db8::2]"}, "2001:db8::2"},
		{"10.0.0.1:1", []string{"2001:db8::2, [fd00::1]:443"}, "2001:db8::2"},
		{"10.0.0.1:1", []string{"[::ffff:198.51.100.1]:80"}, "198.51.100.1"},
		// Without brackets the last part of an IPv6 address is no port.
		{"10.0.0.1:1", []string{"2001:db8::2:80"}, "2001:db8::2:80"},
		{"10.0.0.1:1", []string{"198.51.100.9, 198.51.100.1:"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.9, 198.51.100.1:http"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.9, 198.51.100.1:80:81"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.9, [198.51.100.1]"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.9, [2001:db8::2"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.9, 2001:db8::2]"}, "10.0.0.1"},
		{"@", nil, "@"},
		{"", nil, ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.peer
		r.Header["X-Forwarded-For"] = test.forwarded
		if got := remote.Address(r, trusted); got != test.want {
			t.Errorf("%s, forwarded for %q: got %s, want %s", test.peer, test.forwarded, got, test.want)
		}
		r.Header.Set("X-Real-Ip", "203.0.113.7")
		r.Header.Set("Forwarded", "for=203.0.113.7")
		if got := remote.Address(r, nil); strings.Contains(test.peer, "10.0.0.1") && got != "10.0.0.1" {
			t.Errorf("without trusted proxies: got %s", got)
		}
	}
}
