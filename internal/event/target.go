package event

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/invisible"
)

// A webhook must not reach what only the server can reach: other services of its machine and network, and the metadata of
// the cloud. The address of each connection is checked after the name was resolved, so a name whose address changes is no
// way in.

// internalNetworks are those that netip does not count as private, loopback, link-local or multicast.
var internalNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this machine
	netip.MustParsePrefix("100.64.0.0/10"),    // between providers and customers, RFC 6598; metadata of Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"), // the platform service of Azure, on a public address
	netip.MustParsePrefix("192.0.0.0/24"),     // protocols, RFC 6890; metadata of Oracle Cloud
	netip.MustParsePrefix("192.0.2.0/24"),     // documentation
	netip.MustParsePrefix("192.88.99.0/24"),   // relays of 6to4
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"),  // documentation
	netip.MustParsePrefix("203.0.113.0/24"),   // documentation
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved, and broadcast
	netip.MustParsePrefix("2001::/23"),        // Teredo, which has an IPv4 address in it, and other protocols
	netip.MustParsePrefix("2001:db8::/32"),    // documentation
	netip.MustParsePrefix("2002::/16"),        // 6to4, which has an IPv4 address in it
	netip.MustParsePrefix("3fff::/20"),        // documentation
}

// publicIPv6 has all public IPv6 addresses that exist. Beyond it are those that gateways translate to any IPv4 address, such
// as 64:ff9b::/96 and ::ffff:0:0:0/96, and those that routers handle on their own.
var publicIPv6 = netip.MustParsePrefix("2000::/3")

// internal reports whether an address is not one of the public internet.
func internal(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() { // not unspecified, loopback, link-local, multicast or broadcast
		return true
	}
	if addr.Is6() && !publicIPv6.Contains(addr) {
		return true
	}
	for _, network := range internalNetworks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// errInternal is why no connection to an address is made.
type errInternal struct{ address netip.Addr }

func (e errInternal) Error() string {
	return fmt.Sprintf("the address %s is private; the operator can allow it with serve --webhook-allow-private", e.address)
}

// onlyPublic refuses a connection to an internal address. net.Dialer calls it when the name is resolved, for each address.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if internal(at.Addr()) {
		return errInternal{at.Addr().Unmap()}
	}
	return nil
}

// newClient returns the client that delivers to webhooks. It uses no proxy, whose address would be checked in place of the
// receiver's, and follows no redirect.
func newClient(timeout time.Duration, allowPrivate bool) *http.Client {
	dialer := &net.Dialer{Timeout: timeout}
	if !allowPrivate {
		dialer.Control = onlyPublic
	}
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: followNone,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    timeout, // it goes on without the request, so that of the client does not end it
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
		},
	}
}

// followNone follows no redirect: neither an admin nor the operator has chosen where it leads.
func followNone(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// maxURL is the longest URL of a webhook.
const maxURL = 2000

// checkURL refuses a URL to which nothing may be delivered.
func checkURL(ctx context.Context, text string, allowPrivate bool) error {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURL:
		return fault.New(fault.Invalid, "The url has at most %d bytes.", maxURL).At("url")
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "" || invisible.In(text):
		return fault.New(fault.Invalid, "The url must be one like https://example.org/rolecall.").At("url")
	case u.User != nil:
		return fault.New(fault.Invalid, "The url must not have a user name or password. The receiver checks the signature "+
			"instead.").At("url")
	case u.Fragment != "":
		return fault.New(fault.Invalid, "The url must not have a fragment.").At("url")
	case u.Scheme != "https" && (u.Scheme != "http" || !allowPrivate):
		return fault.New(fault.Invalid, "The url must begin with https://.").At("url")
	case allowPrivate:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fault.New(fault.Invalid, "The host %.253q of the url cannot be resolved. Check its name.", u.Hostname()).
			At("url").Because(err)
	}
	for _, address := range addresses {
		if internal(address) {
			return fault.New(fault.Invalid, "The host %.253q of the url has the private address %s. Give a public one, or ask "+
				"the operator to start the server with --webhook-allow-private.", u.Hostname(), address.Unmap()).At("url")
		}
	}
	return nil
}

// resolveTimeout ends the resolution of a name in a request.
const resolveTimeout = 3 * time.Second

// plain is an error of a request without its URL, which may have a token in it.
func plain(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// hostOf is the scheme and host of a URL.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
