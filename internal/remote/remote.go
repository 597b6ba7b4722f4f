// Package remote is where a request comes from: the address of its client, and the network that limits count by.
package remote

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Address is the peer's IP address or, behind trusted proxies, the last address of X-Forwarded-For that is not one of
// theirs: the client could have written everything to the left of it.
func Address(r *http.Request, trusted []netip.Prefix) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if !contains(trusted, addr) {
		return plain(addr)
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(hops) {
		hop, ok := parseHop(strings.TrimSpace(text))
		if !ok {
			break
		}
		addr = hop
		if !contains(trusted, hop) {
			break
		}
	}
	return plain(addr)
}

// parseHop reads an address of X-Forwarded-For. Some gateways add the client's port, and some put IPv6 into brackets:
// https://learn.microsoft.com/en-us/azure/application-gateway/how-application-gateway-works
func parseHop(text string) (addr netip.Addr, ok bool) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr(), true
	}
	if inner, found := strings.CutPrefix(text, "["); found {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return addr, closed && err == nil && addr.Is6()
	}
	addr, err := netip.ParseAddr(text)
	return addr, err == nil
}

// plain is the one form of an address: a client that comes over IPv4 has the same one behind any listener and proxy.
func plain(addr netip.Addr) string { return addr.Unmap().WithZone("").String() }

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// Network is what limits count by: the address or, of IPv6, the /64 that one host or home has to itself.
func Network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || !addr.Is6() {
		return address
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}
