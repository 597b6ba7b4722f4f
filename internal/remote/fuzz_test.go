package remote_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"rolecall/internal/remote"
)

// FuzzAddress: it is one address and nothing else, and what stands left of the last address that is not a proxy's
// does not count.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"", "198.51.100.1", "203.0.113.9, 198.51.100.1", "198.51.100.1, 10.0.0.2", "10.0.0.3,10.0.0.2",
		"garbage, 10.0.0.2", "198.51.100.1:80", "[2001:db8::2]", "2001:db8::2%eth0", "::ffff:10.0.0.1", "1.2.3.4\n5.6.7.8", ",,",
		"010.0.0.1"} {
		f.Add(s)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, forwarded string) {
		from := func(peer string, forwarded ...string) string {
			return remote.Address(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": forwarded}}, proxies)
		}
		if got := from("198.51.100.7:1", forwarded); got != "198.51.100.7" {
			t.Errorf("somebody who is no proxy is %s for writing %q", got, forwarded)
		}
		got := from("10.0.0.1:1", forwarded)
		address, err := netip.ParseAddr(got)
		if err != nil || address.String() != got || address.Is4In6() || address.Zone() != "" {
			t.Fatalf("%q: %q is not an address as we write them: %v", forwarded, got, err)
		}
		if !proxies[0].Contains(address) {
			if !strings.Contains(forwarded, ":") && !strings.Contains(forwarded, got) {
				t.Errorf("%s is not in %q", got, forwarded)
			}
			for _, more := range [][]string{{"203.0.113.9", forwarded}, {"203.0.113.9," + forwarded}, {forwarded, "10.0.0.9"},
				{forwarded + ",10.0.0.9"}} {
				if again := from("10.0.0.1:1", more...); again != got {
					t.Errorf("%q: got %s, want %s", more, again, got)
				}
			}
		}
	})
}
