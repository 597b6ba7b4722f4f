package event_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rolecall/internal/event"
)

// Addresses that only the server reaches are refused in each form.
func TestInternalAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9", "168.63.129.16",
		"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
		"255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378::1",
		"fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1",
		"::ffff:0:127.0.0.1", "100::1", "3fff::1", "4000::1", "5f00::1",
	} {
		if !event.Internal(netip.MustParseAddr(address)) {
			t.Errorf("%s is taken for a public address", address)
		}
	}
	for _, address := range []string{"1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111",
		"2a00:1450::1", "::ffff:8.8.8.8"} {
		if event.Internal(netip.MustParseAddr(address)) {
			t.Errorf("%s is taken for a private address", address)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://8.8.8.8/":                       "https://",
		"ftp://8.8.8.8/":                        "https://",
		"https://":                              "must be one like",
		"https:///path":                         "must be one like",
		"https:8.8.8.8":                         "must be one like",
		"//8.8.8.8":                             "https://",
		"https://user:secret@8.8.8.8/":          "user name or password",
		"https://8.8.8.8/#part":                 "fragment",
		"https://8.8.8.8/\u200b":                "must be one like",
		"https://8.8.8.8/" + long:               "at most",
		"https://127.0.0.1/":                    "private address 127.0.0.1",
		"https://localhost/":                    "private address",
		"https://[::1]:8443/":                   "private address ::1",
		"https://[::ffff:127.0.0.1]/":           "private address 127.0.0.1",
		"https://0.0.0.0/":                      "private address",
		"https://169.254.169.254/latest":        "private address",
		"https://[fd00:ec2::254]/":              "private address",
		"https://no-such-host.invalid/":         "cannot be resolved",
		"https://8.8.8.8:8443/hook?tenant=one":  "",
		"https://[2606:4700:4700::1111]/events": "",
	} {
		err := event.CheckURL(t.Context(), url, false)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error quotes a password: %v", err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:8080/hook", "https://localhost/"} {
		if err := event.CheckURL(t.Context(), url, true); err != nil {
			t.Errorf("%s, where private addresses are allowed: %v", url, err)
		}
	}
	if err := event.CheckURL(t.Context(), "gopher://127.0.0.1", true); err == nil {
		t.Error("gopher is allowed")
	}
}

var long = strings.Repeat("x", 2000)

// The address is checked at each connection, behind the name, whatever was found when the webhook was created.
func TestConnectionsToPrivateAddresses(t *testing.T) {
	t.Parallel()
	reached := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	client := event.NewClient(10*time.Second, false)
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"} {
		response, err := client.Get("http://" + host + ":" + port)
		if err == nil {
			response.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "is private") && !strings.Contains(err.Error(), "::") || reached {
			t.Errorf("%s: reached %t, %v", host, reached, err)
		}
	}
	response, err := event.NewClient(10*time.Second, true).Get(server.URL)
	if err != nil || !reached {
		t.Fatalf("where private addresses are allowed: %v", err)
	}
	response.Body.Close()
}

// A receiver that accepts connections and says nothing keeps none of them open.
func TestSilentReceiver(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	response, err := event.NewClient(100*time.Millisecond, true).Get("https://" + silent.Addr().String())
	if err == nil {
		response.Body.Close()
		t.Fatal("it has answered")
	}
	conn, err := silent.Accept()
	must(t, err)
	defer conn.Close()
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection is still open: %v", err)
	}
}
