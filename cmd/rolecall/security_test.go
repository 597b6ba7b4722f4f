package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
	"rolecall/internal/server"
)

// issue makes a certificate that is signed by an authority, or by itself when there is none.
func issue(t *testing.T, by *tls.Certificate, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = &tls.Certificate{Leaf: template, PrivateKey: private}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Leaf, &private.PublicKey, by.PrivateKey)
	fail(err)
	leaf, err := x509.ParseCertificate(der)
	fail(err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}
}

func newAuthority(t *testing.T) *tls.Certificate {
	t.Helper()
	return issue(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: rand.Text()}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
}

func inPEM(t *testing.T, c *tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// Who shows no certificate of an authority that is named gets no answer, also when the authorities have changed since.
func TestClientCertificates(t *testing.T) {
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	if code, _, errOut := bootstrap(t, flags, "a good password"); code != 0 {
		t.Fatal(errOut)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own, first, second := newAuthority(t), newAuthority(t), newAuthority(t)
	ownPEM, _ := inPEM(t, own)
	firstPEM, _ := inPEM(t, first)
	secondPEM, _ := inPEM(t, second)
	cert, key := inPEM(t, issue(t, own, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}))
	_, address := beginServe(t, append(flags, "--public-url", "https://rolecall.example.org", "--tls-cert", file("cert",
		cert), "--tls-key", file("key", key),
		"--tls-client-ca", file("ca", firstPEM))...)
	address = "https://" + strings.TrimPrefix(address, "http://")

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ownPEM))
	shown := func(by *tls.Certificate, usage x509.ExtKeyUsage) *tls.Certificate {
		return issue(t, by, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{usage}})
	}
	// A client that may be let in by a session that it has had before, over a connection of its own each time.
	showing := func(c *tls.Certificate, version uint16) func() error {
		config := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: version}
		if c != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return c,
					nil
			} // asked for or not
		}
		return func() error {
			transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(address + "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Errorf("the answer comes over %s", resp.Proto)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}
	}
	client := shown(first, x509.ExtKeyUsageClientAuth)
	in, inBy12 := showing(client, 0), showing(client, tls.VersionTLS12)
	for range 2 {
		for _, get := range []func() error{in, inBy12} {
			if err := get(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]*tls.Certificate{
		"none": nil, "of another authority": shown(second, x509.ExtKeyUsageClientAuth), "of the server's authority": shown(own,
			x509.ExtKeyUsageClientAuth),
		"signed by itself": shown(nil, x509.ExtKeyUsageClientAuth), "of a server": shown(first, x509.ExtKeyUsageServerAuth),
	} {
		for _, version := range []uint16{0, tls.VersionTLS12} {
			if showing(c, version)() == nil {
				t.Errorf("a client with a certificate %s is let in", name)
			}
		}
	}
	// The command line has one, or is refused.
	rootsFile := file("roots", ownPEM)
	login := func(more ...string) (int, string) {
		code, _, errOut := execute(t, "a good password\n", append([]string{"login", address, "--username", "admin",
			"--password-stdin", "--ca-file", rootsFile}, more...)...)
		return code, errOut
	}
	t.Setenv("XDG_CONFIG_HOME", dir)
	if code, errOut := login(); code != term.ExitFailed || !strings.Contains(errOut, "cannot be reached") {
		t.Errorf("without a certificate: exit code %d: %s", code, errOut)
	}
	clientCert, clientKey := inPEM(t, client)
	t.Setenv(cli.ClientCertVariable, file("client", clientCert))
	if code, errOut := login(); code != term.ExitUsage || !isSentence(errOut) ||
		!strings.Contains(errOut, cli.ClientKeyVariable) {
		t.Errorf("without a key: exit code %d: %s", code, errOut)
	}
	t.Setenv(cli.ClientKeyVariable, file("client.key", clientKey))
	if code, errOut := login(); code != 0 {
		t.Errorf("with a certificate: exit code %d: %s", code, errOut)
	}
	// The authority of the server is that of the flag, else of the variable, else of the login.
	otherFile := file("other", secondPEM)
	whoami := func(code int, words string, flags ...string) {
		t.Helper()
		if got, _, errOut := execute(t, "", append([]string{"whoami"}, flags...)...); got != code ||
			!strings.Contains(errOut, words) {
			t.Errorf("whoami %q: exit code %d: %s, want %d and %q", flags, got, errOut, code, words)
		}
	}
	whoami(0, "")
	whoami(term.ExitFailed, "--ca-file", "--ca-file", otherFile)
	whoami(term.ExitUsage, "no certificate in PEM", "--ca-file", file("empty", "no certificate"))
	whoami(term.ExitUsage, "no such file", "--ca-file", otherFile+".none")
	t.Setenv(cli.CAVariable, otherFile)
	whoami(term.ExitFailed, "unknown authority")
	whoami(0, "", "--ca-file", rootsFile)
	os.Unsetenv(cli.CAVariable)

	file("ca", secondPEM)
	late := showing(shown(second, x509.ExtKeyUsageClientAuth), 0)
	eventually(t, func() error { return late() })
	for _, get := range []func() error{in, inBy12} {
		if err := get(); err == nil {
			t.Error("a client of the authority that was taken out is let in")
		}
	}
}

// What is asked of every answer, whatever it is the answer to.
func everyAnswer(t *testing.T, address string, check func(t *testing.T, what string, r response)) {
	t.Helper()
	// Each request comes from an address of its own, because an address may send only a few without a valid credential.
	var connections atomic.Uint32
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		n := connections.Add(1)
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
		return from.DialContext(ctx, network, address)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, path := range []string{
		"/", "/healthz", "/readyz", "/docs", "/docs/", "/docs/docs.css", "/docs/dbaas", "/docs/dbaas/usersList",
		"/openapi/dbaas.yaml", "/openapi/none", "/nothing",
		"/console/", "//evil.example", "/%2f%2fevil.example", "/docs/..//evil.example",
		"/uaa/login", "/uaa/login?redirect_uri=https://evil.example", "/uaa/token_keys",
		"/uaa/.well-known/openid-configuration", "/uaa/oauth/token", "/uaa/oauth/authorize?redirect_uri=https://evil.example",
		"/uaa/Users", "/uaa/nothing", "/v3", "/v3/info", "/v3/users", "/v3/nothing", "/rolecall/v1/whoami",
		"/rolecall/v1/clusters", "/rolecall/v1/audit",
		"/databases/postgresql/clusters", "/databases/postgresql/clusters/x/users", "/databases/postgresql/infos/version",
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			for _, authorization := range []string{"", basicAuth("admin", "a good password")} {
				req, err := http.NewRequest(method, address+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "evil.example"
				for name, value := range map[string]string{
					"Authorization": authorization, "Origin": "https://evil.example", "X-Forwarded-Host": "evil.example",
					"X-Forwarded-Proto": "javascript", "X-Original-URL": "//evil.example",
					"Forwarded": "host=evil.example;proto=http", "X-Forwarded-Prefix": "//evil.example", "Referer": "https://evil.example",
					"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization",
					"Access-Control-Request-Private-Network": "true",
				} {
					if value != "" {
						req.Header.Set(name, value)
					}
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("%s %s, signed in: %t", method, path, authorization != "")
				if resp.StatusCode == http.StatusTooManyRequests {
					t.Errorf("%s: a limit has answered", what)
				}
				check(t, what, response{resp.StatusCode, resp.Header, string(body)})
			}
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	_, behindTLS := beginServe(t, append(flags, "--public-url", "https://rolecall.example.org")...)
	_, plain := beginServe(t, flags...)
	everyAnswer(t, behindTLS, func(t *testing.T, what string, r response) {
		if got := r.header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
			t.Errorf("%s: Strict-Transport-Security is %q", what, got)
		}
		// No site may read an answer through a browser, run it, frame it, or be told where its reader came from.
		for name := range r.header {
			if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
				t.Errorf("%s: has %s", what, name)
			}
		}
		policy, referrer := r.header.Get("Content-Security-Policy"), r.header.Get("Referrer-Policy")
		// A page of the console says to this server alone where its reader came from.
		if !strings.HasPrefix(policy, "default-src 'none';") || !strings.Contains(policy, "frame-ancestors 'none'") ||
			strings.Contains(policy, "unsafe") || referrer != "no-referrer" && referrer != "same-origin" ||
			r.header.Get("X-Content-Type-Options") != "nosniff" ||
			r.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %v", what, r.header)
		}
		if cache := r.header.Get("Cache-Control"); cache != "no-store" && (cache != "no-cache" ||
			r.status == http.StatusUnauthorized) {
			t.Errorf("%s: Cache-Control is %q", what, cache)
		}
	})
	everyAnswer(t, plain, func(t *testing.T, what string, r response) {
		if got := r.header.Get("Strict-Transport-Security"); got != "" {
			t.Errorf("%s: Strict-Transport-Security is %q over plain HTTP", what, got)
		}
	})
}

// Links, issuer and redirects go by --public-url. What a client says about hosts is in no answer, and nobody is sent
// anywhere.
func TestHostIsNotTrusted(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	if code, _, errOut := bootstrap(t, flags, "a good password"); code != 0 {
		t.Fatal(errOut)
	}
	_, address := beginServe(t, append(flags, "--rate-limit", "0")...)
	links := 0
	everyAnswer(t, address, func(t *testing.T, what string, r response) {
		links += strings.Count(r.body, "http://rolecall.example.org")
		location, err := url.Parse(r.header.Get("Location"))
		if err != nil || location.Host != "" || r.status >= 300 && r.status < 400 && !strings.HasPrefix(location.Path, "/") {
			t.Errorf("%s: %d to %s", what, r.status, location)
		}
		// It may be quoted as the path that it was, and in the path to come back to after a sign-in.
		quoted := strings.NewReplacer("//evil.example", "", "%2F%2Fevil.example", "")
		if text := quoted.Replace(fmt.Sprint(r.header) + r.body); strings.Contains(text, "evil.example") &&
			!strings.Contains(what, "%2f") {
			t.Errorf("%s: %s", what, text)
		}
		if r.status >= 500 {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	})
	if links == 0 {
		t.Error("no answer has a link")
	}
}

// raw sends bytes as they are and returns all that comes back until the server hangs up.
func raw(t *testing.T, address, bytes string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, bytes); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn) // a reset ends it as well
	return string(answer)
}

// A request whose end two servers could see at different places is refused, and what follows it is not read as another.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	_, address := beginServe(t, flags...)
	const second = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
	statuses := regexp.MustCompile(`(?m)^HTTP/1\.1 (\d+)`)
	if answers := statuses.FindAllString(raw(t, address, "GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n"+second),
		-1); len(answers) != 2 {
		t.Fatalf("two requests get %q", answers)
	}
	for name, head := range map[string]string{
		"two lengths":                   "Host: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n",
		"two lengths in one":            "Host: h\r\nContent-Length: 0, 5\r\n",
		"a length with a sign":          "Host: h\r\nContent-Length: +0\r\n",
		"a length in another base":      "Host: h\r\nContent-Length: 0x0\r\n",
		"a length that is negative":     "Host: h\r\nContent-Length: -1\r\n",
		"an encoding that is not known": "Host: h\r\nTransfer-Encoding: xchunked\r\n",
		"two encodings":                 "Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"an encoding before a space":    "Host: h\r\nTransfer-Encoding : chunked\r\n",
		"a header that goes on":         " X: y\r\nHost: h\r\n",
		"no host":                       "X: y\r\n",
		"two hosts":                     "Host: h\r\nHost: g\r\n",
		"a host that is none":           "Host: h h\r\n",
		"a NUL":                         "Host: h\r\nX: \x00\r\n",
		"a return by itself":            "Host: h\r\nX: a\rContent-Length: 5\r\n",
	} {
		answers := statuses.FindAllStringSubmatch(raw(t, address, "POST /v3/users HTTP/1.1\r\n"+head+"\r\n"+second), -1)
		if len(answers) != 1 || answers[0][1] != "400" && answers[0][1] != "501" {
			t.Errorf("%s: got %q", name, answers)
		}
	}
	// Of a length and an encoding the encoding counts (RFC 9112, 6.3): the length takes nothing of what follows.
	head := fmt.Sprintf("POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n",
		5+len(second))
	if answers := statuses.FindAllString(raw(t, address, head+"0\r\n\r\n"+second), -1); len(answers) != 2 {
		t.Errorf("a length and an encoding: got %q", answers)
	}
}

// No path leaves what is served: there are no files behind it but those that are built in.
func TestPathsLeadNowhere(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	_, address := beginServe(t, flags...)
	for _, path := range []string{
		"/docs/../../../../etc/passwd", "/docs/..%2f..%2f..%2fetc/passwd", "/docs/%2e%2e/%2e%2e/etc/passwd",
		"/openapi/../api.go", "/openapi/..%5c..%5cetc%5cpasswd", "/openapi/dbaas.yaml/..",
		"/openapi/dbaas.yaml%00.html", "/docs//etc/passwd", "/..", "/%2e%2e", "/./docs/../healthz", "//docs/../etc/passwd",
		"/uaa/../docs/docs.html", "/debug/pprof/", "/metrics", "/docs/../metrics",
	} {
		answer := raw(t, address, "GET "+path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 40") || strings.Contains(answer, "root:") ||
			strings.Contains(answer, "Location:") {
			t.Errorf("%s: %.200s", path, answer)
		}
	}
}

// Whatever callers write into paths, names and headers, a line of the log is one line, and text to a terminal.
func TestLogInjection(t *testing.T) {
	t.Parallel()
	const evil = "\r\ntime=2026-01-01T00:00:00Z level=INFO " +
		"msg=forged\x1b[31m\u009b31m\u202e\u2028\x7f\U000e0001{\"msg\":\"forged\"}"
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	if code, _, errOut := bootstrap(t, flags, "a good password"); code != 0 {
		t.Fatal(errOut)
	}
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			p := begin(t, append([]string{"serve", "--public-url", "http://rolecall.example.org", "--listen", "127.0.0.1:0",
				"--metrics-listen=", "--log-level", "debug", "--log-format", format}, flags...)...)
			p.awaits(t, p.errOut, "serving")
			address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.errOut.String())
			admin := basicAuth("admin", "a good password")
			escaped := url.PathEscape(evil)
			quoted, err := json.Marshal(evil)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []struct{ method, path, authorization, body string }{
				{"GET", "/" + escaped, admin, ""},
				{"GET", "/?x=" + url.QueryEscape(evil), admin, ""},
				{"GET", "/databases/postgresql/clusters/" + escaped + "/users/" + escaped, admin, ""},
				{"GET", "/databases/postgresql/clusters", basicAuth(evil, evil), ""},
				{"POST", "/rolecall/v1/clusters", admin, fmt.Sprintf(`{"displayName":%s}`, quoted)},
				{"POST", "/rolecall/v1/clusters", admin, fmt.Sprintf(`{"displayName":"x","connection":{"url":%s,"password":%[1]s}}`,
					quoted)},
				{"POST", "/rolecall/v1/clusters", admin,
					fmt.Sprintf(`{"displayName":"x","access":{"manage":[%s]},"connection":`+
						`{"url":"postgres://a@127.0.0.1:1/x","password":"x","tls":{"mode":%[1]s}}}`, quoted)},
				{"POST", "/rolecall/v1/tokens", admin, fmt.Sprintf(`{"name":%s}`, quoted)},
				{"GET", "/rolecall/v1/audit?account=" + url.QueryEscape(evil), admin, ""},
				{"POST", "/uaa/oauth/token?grant_type=" + url.QueryEscape(evil), basicAuth(url.QueryEscape(evil), "x"), ""},
			} {
				req, err := http.NewRequest(x.method, "http://"+address+x.path, strings.NewReader(x.body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"Authorization": {x.authorization}, "X-Request-Id": {"in\u202e=forged"},
					"User-Agent": {"\u009b31m"}, "X-Forwarded-For": {"forged"}}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			raw(t, address, "GET /\x1b[31m HTTP/1.1\r\nHost: h\r\n\r\n")
			raw(t, address, "G\x1b[31mT / HTTP/1.1\r\nHost: h\r\n\r\n")
			if p.end(t) != 0 {
				t.Error(p.errOut)
			}
			requests := 0
			for s := bufio.NewScanner(strings.NewReader(p.errOut.String())); s.Scan(); {
				line := s.Text()
				for _, r := range line {
					if !unicode.IsPrint(r) {
						t.Errorf("the line has %U: %s", r, line)
						break
					}
				}
				if m := map[string]any{}; format == "json" && json.Unmarshal([]byte(line), &m) != nil || format == "text" &&
					!strings.HasPrefix(line, "time=") || strings.HasPrefix(line, "time=2026-01-01") {
					t.Errorf("this is no line of the log: %s", line)
				} else if strings.Contains(line, "msg=request") || m["msg"] == "request" {
					requests++
				}
			}
			if requests < 10 {
				t.Errorf("%d requests were logged:\n%s", requests, p.errOut)
			}
		})
	}
}

// The configuration of a server contains passwords and keys, which no printing of it shows.
func TestServerIsNotPrinted(t *testing.T) {
	line := control.NewMasterKey()
	keys, err := control.ParseKeyring(line)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	s := &server.Config{PublicURL: "https://rolecall.example.org", DatabaseURL: "postgres://rolecall:opensesame@db/rolecall",
		Keys: keys}
	var log buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("server", "database", s.DatabaseURL, "keys", s.Keys)
	slog.New(slog.NewTextHandler(&log, nil)).Info("server", "server", s)
	for _, text := range []string{fmt.Sprintf("%v %+v", s, s), fmt.Sprintf("%#v", *s), log.String()} {
		if !strings.Contains(text, "[secret]") || strings.Contains(text, "opensesame") ||
			strings.Contains(text, strings.Trim(fmt.Sprint(key[:8]), "[]")) || strings.Contains(text, line) {
			t.Error(text)
		}
	}
}
