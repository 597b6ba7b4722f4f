package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ownName keeps web pages off a listener on loopback. A page in a browser of this machine may send requests to a name of its
// own that resolves to loopback, and read the responses (DNS rebinding), but it cannot have an address as its name.
func ownName(l net.Listener, h http.Handler) http.Handler {
	if l == nil {
		return h
	}
	if at, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !at.Addr().Unmap().IsLoopback() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocalName(r.Host) {
			http.Error(w, fmt.Sprintf("This listener does not serve the host %.100q. Use localhost or an IP address.", r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isLocalName reports whether a Host header is an address, or localhost. HTTP/1.0 needs none.
func isLocalName(header string) bool {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	}
	_, err = netip.ParseAddr(host)
	return err == nil || host == "" || strings.EqualFold(host, "localhost")
}
