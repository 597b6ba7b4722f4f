package server

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestOwnName: on loopback the metrics and profiles are served for addresses and localhost, not for the name of a web page.
// On other addresses Prometheus may use any name.
func TestOwnName(t *testing.T) {
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer loopback.Close()
	everywhere, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	get := func(l net.Listener, host string) int {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/healthz", nil)
		r.Host = host
		ownName(l, http.HandlerFunc(healthz)).ServeHTTP(w, r)
		return w.Code
	}
	for host, want := range map[string]int{
		"127.0.0.1:9180": 200, "127.0.0.1": 200, "[::1]:9180": 200, "[::1]": 200, "localhost:9180": 200, "LOCALHOST": 200,
		"10.0.0.7:9180": 200, "": 200,
		"evil.example:9180": 421, "evil.example": 421, "localhost.evil.example:9180": 421, "127.0.0.1.evil.example": 421,
		"127.0.0.1:80:80": 421, "localhost\x00": 421,
	} {
		if got := get(loopback, host); got != want {
			t.Errorf("%q: got %d, want %d", host, got, want)
		}
		if got := get(everywhere, host); got != 200 {
			t.Errorf("%q, on every address: got %d", host, got)
		}
		if got := get(nil, host); got != 200 {
			t.Errorf("%q, without a listener: got %d", host, got)
		}
	}
}
