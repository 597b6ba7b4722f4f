package apitest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
	"rolecall/internal/web"
)

// Target is a dialect that Fuzz sends requests to, with all rights and with some.
type Target struct {
	Handler http.Handler
	// Authorization are values of that header that are right. None of them may be in an answer, or in the log.
	Authorization []string
	// Names stand for what is another in each run: {clusterId} in any part of a request becomes Names["clusterId"]. Then
	// may change them.
	Names map[string]string
	// Seeds are requests: a method and a target, header lines, an empty line, the body. Where they have no Authorization,
	// the first of the above is added. Fuzz has one for each operation anyway.
	Seeds []string
	// Spare, when set, reports the few requests that are not sent, because they would take seconds or reach other machines.
	Spare func(r *http.Request, body string) bool
	// Then, when set, is told of each exchange that has passed, to compare further, and to restore what was lost. What it
	// sends has the first Authorization, and is held against the document, too.
	Then func(t *testing.T, send Send, r *http.Request, a Answer)
}

// Send sends a request.
type Send func(method, target, body string) Answer

// In each request {secret} stands for a password.
const secretName = "secret"

// secretPlace is where a caller writes one. Elsewhere it is none: a fuzzer copies it into names, which answers repeat.
var secretPlace = regexp.MustCompile(`(?m)(^|[&{,]"?)(password|oldPassword|client_secret|secret|key)"?[:=]"?\{` +
	secretName + `\}`)

// Fuzz makes requests out of fuzzed parts, and fails unless each exchange is what the document says (see Transport), is
// no 5xx but 503, has a request id, is one line in the log, and repeats no secret.
//
// The operation and whose request it is are chosen by number; path has the parameters of its path, one a line. One number
// beyond the operations path is the whole request line, without its end. What net/http refuses, or could not have sent,
// is not tried.
func (d *Document) Fuzz(f *testing.F, x Target) {
	secret := rand.Text()
	operations := d.Operations()
	add := func(seed string, who int) {
		operation, path, query, headers, body := d.parts(f, operations, seed)
		f.Add(operation, byte(who), path, query, headers, body)
	}
	for _, seed := range d.seeds(operations) {
		for who := range len(x.Authorization) + 1 {
			add(seed, who)
		}
	}
	for _, seed := range x.Seeds {
		add(seed, 0)
	}
	served := &observed{doc: d}
	for _, authorization := range x.Authorization {
		_, credential, _ := strings.Cut(authorization, " ")
		served.credentials = append(served.credentials, credential)
	}
	served.edge = &web.Edge{
		Handler:        x.Handler,
		Log:            slog.New(slog.NewTextHandler(&served.log, nil)),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix(peer + "/32")},
	}
	f.Fuzz(func(t *testing.T, operation, who byte, path, query, headers, body string) {
		hidden, asSecret := secret, query+"\n"+body
		if strings.Count(path+headers+asSecret, "{"+secretName+"}") != len(secretPlace.FindAllString(asSecret, -1)) {
			hidden = ""
		}
		names := []string{"{" + secretName + "}", secret}
		for _, name := range slices.Sorted(maps.Keys(x.Names)) {
			names = append(names, "{"+name+"}", x.Names[name])
		}
		fill := strings.NewReplacer(names...).Replace
		body = fill(body)
		r := parseRequest(requestLine(operations, int(operation), fill(path), fill(query)), headerLines(fill(headers)), body)
		if r == nil {
			return
		}
		if n := int(who) % (len(x.Authorization) + 1); n < len(x.Authorization) && r.Header.Get("Authorization") == "" {
			r.Header.Set("Authorization", x.Authorization[n])
		}
		if x.Spare != nil && x.Spare(r, body) {
			return
		}
		a := served.serve(t, r, body, hidden)
		if x.Then == nil || t.Failed() {
			return
		}
		x.Then(t, func(method, target, body string) Answer {
			r := parseRequest(method+" "+target, "Authorization: "+x.Authorization[0]+"\r\n", body)
			if r == nil {
				t.Fatalf("%s %s cannot be sent", method, target)
			}
			return served.serve(t, r, body, hidden)
		}, r, a)
	})
}

// peer is where all requests come from: a proxy that is trusted.
const peer = "192.0.2.1"

// observed is a handler whose exchanges are held against the document, and whose log is read.
type observed struct {
	doc         *Document
	edge        *web.Edge
	log         bytes.Buffer
	credentials []string
}

// serve has a request answered. The secret is one that it holds, "" for none.
func (o *observed) serve(t *testing.T, r *http.Request, body, secret string) Answer {
	o.log.Reset()
	got := httptest.NewRecorder()
	// The handler gets a request of its own, because it changes it.
	served := r.Clone(t.Context())
	served.Body = io.NopCloser(strings.NewReader(body))
	o.edge.ServeHTTP(got, served)
	if r.Method == http.MethodHead {
		got.Body.Reset() // as net/http does
	}
	res := got.Result()
	a := Answer{res.StatusCode, res.Header, got.Body.String()}
	failed := func(format string, args ...any) {
		t.Helper()
		header := r.Header.Clone()
		if authorization := header.Get("Authorization"); len(authorization) > 100 {
			header.Set("Authorization", authorization[:100]+"…")
		}
		t.Errorf("%s %s\n%v\n%s\n\n%s\n\n%d %v\n%s\n%s", r.Method, r.URL.RequestURI(), header, excerpt([]byte(body)),
			fmt.Sprintf(format, args...), a.Status, a.Header, excerpt([]byte(a.Body)), o.log.String())
	}
	if err := o.doc.check(exchange{r, []byte(body), res, []byte(a.Body)}); err != nil {
		failed("%v", err)
	}
	if a.Status >= 500 && a.Status != http.StatusServiceUnavailable {
		failed("the server failed")
	}
	if a.Header.Get("X-Request-Id") == "" {
		failed("the answer has no request id")
	}
	if n := strings.Count(o.log.String(), "\n"); n != 1 {
		failed("the log has %d lines of one request", n)
	}
	told := fmt.Sprint(a.Header) + a.Body + o.log.String()
	for _, s := range o.credentials {
		if strings.Contains(told, s) {
			failed("the answer or the log has a credential")
		}
	}
	if secret != "" && pgtest.Leak(told, secret) != "" {
		failed("the answer or the log has a secret")
	}
	return a
}

// requestLine is the beginning of a request: the method and the target.
func requestLine(operations []Operation, number int, path, query string) string {
	line := path
	if number %= len(operations) + 1; number < len(operations) {
		values := strings.Split(path, "\n")
		segments := strings.Split(operations[number].Path, "/")
		for i, s := range segments {
			if isParameter(s) {
				segments[i] = ""
				if len(values) > 0 {
					segments[i], values = url.PathEscape(values[0]), values[1:]
				}
			}
		}
		line = operations[number].Method + " " + strings.Join(segments, "/")
	}
	if query == "" {
		return line
	}
	var escaped strings.Builder
	for _, c := range []byte(query) {
		if c <= ' ' || c == 0x7f {
			escaped.WriteString(url.QueryEscape(string(rune(c))))
		} else {
			escaped.WriteByte(c)
		}
	}
	return line + "?" + escaped.String()
}

// readHeaders are those that somebody reads.
var readHeaders = []string{"Accept", "Authorization", "Content-Type", "If-Match", "Origin", "Sec-Fetch-Site",
	"X-Forwarded-For", "X-Request-Id"}

var headerLine = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+:")

// headerLines turns any lines into header lines: a line that is not a header becomes the value of a header that is read.
// Characters that net/http refuses in a value are removed.
func headerLines(text string) string {
	var lines strings.Builder
	for line := range strings.Lines(text) {
		if !headerLine.MatchString(line) {
			line = readHeaders[len(line)%len(readHeaders)] + ": " + line
		}
		for _, c := range []byte(line) {
			if c >= ' ' && c != 0x7f || c == '\t' {
				lines.WriteByte(c)
			}
		}
		lines.WriteString("\r\n")
	}
	return lines.String()
}

// parseRequest is what net/http makes of a request: nil where it would not hand it on.
func parseRequest(line, headers, body string) *http.Request {
	if len(line)+len(headers) > 16<<10 {
		return nil
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: rolecall.test\r\n" + headers +
		"\r\n")))
	if err != nil {
		return nil
	}
	r.RemoteAddr = peer + ":1234"
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(len(body)), nil
	r.Header.Del("Content-Length")
	return r
}

// seeds are a request for each operation, with the examples that the document has.
func (d *Document) seeds(operations []Operation) (seeds []string) {
	for _, p := range d.paths {
		for method, op := range p.item.Operations() {
			query := url.Values{}
			for _, parameter := range slices.Concat(p.item.Parameters, op.Parameters) {
				if v := parameter.Value; v.In == "query" && v.Example != nil {
					query.Set(v.Name, text(v.Example))
				}
			}
			seed := method + " " + d.prefix + p.template + "?" + query.Encode() + "\n\n"
			if op.RequestBody == nil {
				seeds = append(seeds, seed)
				continue
			}
			for _, media := range op.RequestBody.Value.Content {
				examples := []any{media.Example, media.Schema.Value.Example}
				for _, e := range media.Examples {
					examples = append(examples, e.Value.Value)
				}
				for _, e := range examples {
					seeds = append(seeds, seed+text(e))
				}
			}
		}
	}
	slices.Sort(seeds)
	return slices.Compact(seeds)
}

// text is an example as it is sent.
func text(example any) string {
	switch v := example.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	b, _ := json.Marshal(example)
	return string(b)
}

// parts cuts a seed into what Fuzz takes.
func (d *Document) parts(t testing.TB, operations []Operation,
	seed string) (operation byte, path, query, headers, body string) {
	t.Helper()
	if len(operations) > 255 {
		t.Fatal("a byte does not number the operations")
	}
	head, body, _ := strings.Cut(seed, "\n\n")
	line, headers, _ := strings.Cut(head, "\n")
	line, query, _ = strings.Cut(line, "?")
	method, target, _ := strings.Cut(line, " ")
	for _, h := range d.match(target) {
		for i, op := range operations {
			if op.Method != method || op.Path != d.prefix+h.template {
				continue
			}
			var values []string
			for _, s := range h.segments {
				if isParameter(s) {
					values = append(values, h.values[s[1:len(s)-1]])
				}
			}
			return byte(i), strings.Join(values, "\n"), query, headers, body
		}
	}
	return byte(len(operations)), line, query, headers, body
}
