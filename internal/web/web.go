// Package web is HTTP mechanics without a dialect: request ids, bodies, limits, and one log line a request. Authentication
// belongs to package door; statuses of errors and envelopes belong to the dialects.
package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/jsonlog"
	"rolecall/internal/remote"
	"rolecall/internal/trace"
)

// Info is what is known of one request beyond its bytes. Handlers fill in Route, Account and Err for the log line.
type Info struct {
	// ID is a UUID made here. Incoming is what a proxy or client called the request, reduced to safe characters.
	ID, Incoming string
	// TraceID is the id of the trace. KnownTrace is the same if the client has sent it, or if spans are exported; else "".
	TraceID, KnownTrace string
	// Address is the client's IP address, without a port.
	Address string
	// Route is the pattern that matched, and Dialect the surface that answered.
	Route, Dialect string
	// Account is the guid of the authenticated account.
	Account string
	// Err is the failure that was answered, with its causes.
	Err error

	refused  error          // why the request is answered with nothing else
	inFlight *InFlight      // nil: there is no bound
	slotOf   map[string]int // of which its address has one slot for it; nil: it has none
	signedIn bool           // it counts as signed in
	large    bool           // it has one of the slots for large bodies
	account  bool           // it has one of the slots of its account
}

type infoKey struct{}

// InfoOf returns the request's Info, which Edge put there.
func InfoOf(ctx context.Context) *Info {
	if info, ok := ctx.Value(infoKey{}).(*Info); ok {
		return info
	}
	return &Info{}
}

// Edge is the outermost handler of the public listener.
type Edge struct {
	Handler http.Handler
	Log     *slog.Logger
	// Lines, if set, is where Log writes JSON without attributes of its own. Most lines of requests go there directly.
	Lines *jsonlog.Writer
	// TrustedProxies are the networks whose X-Forwarded-For is used.
	TrustedProxies []netip.Prefix
	// InFlight bounds the requests in flight; nil: nothing does.
	InFlight *InFlight
	// Tracer exports the spans of requests; nil: they have none.
	Tracer *trace.Tracer
	// Observe, if set, is called for each answered request.
	Observe func(info *Info, method string, status int, took time.Duration)
}

// AsData sets the headers of an answer that is data: a browser must neither run, frame nor embed it, whatever it contains.
func AsData(h http.Header) {
	h["X-Content-Type-Options"] = noSniffing
	h["Cache-Control"] = noStore
	h["Content-Security-Policy"] = noContent
	h["Cross-Origin-Resource-Policy"] = sameOrigin
	h["Referrer-Policy"] = noReferrer
}

// The values of headers of all answers, which share them: nobody may change them in place. Header.Add copies them, because
// they have no room for more, and Header.Set puts others in their place.
var (
	noSniffing = []string{"nosniff"}
	noStore    = []string{"no-store"}
	noContent  = []string{"default-src 'none'; frame-ancestors 'none'"}
	sameOrigin = []string{"same-origin"}
	noReferrer = []string{"no-referrer"}
)

// ServeHTTP gives the request its id and address, and logs one line when it is answered.
func (e *Edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	info := &Info{
		ID:       uuid.NewString(),
		Incoming: incomingID(r.Header),
		Address:  remote.Address(r, e.TrustedProxies),
	}
	ctx, traced := e.Tracer.Request(r.Context(), r.Header)
	if info.TraceID = traced.ID; traced.Known {
		info.KnownTrace = traced.ID
	}
	w.Header()["X-Request-Id"] = []string{info.ID}
	rec := &recorder{ResponseWriter: w}
	defer func() {
		took := time.Since(start)
		rec.begin(http.StatusOK)
		e.log(r, info, rec, start, took)
		traced.End(info.ID, KnownMethod(r.Method), info.Route, rec.status)
		if e.Observe != nil {
			e.Observe(info, r.Method, rec.status, took)
		}
	}()
	if e.InFlight != nil {
		info.inFlight = e.InFlight
		info.refused = e.InFlight.enter(info)
		defer e.InFlight.leave(info)
	}
	r = r.WithContext(context.WithValue(ctx, infoKey{}, info))
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		rec.sent = &sentBody{ReadCloser: r.Body}
		r.Body = rec.sent
	}
	e.Handler.ServeHTTP(rec, r)
}

// KnownMethod is the method of a request, or "other": a client may send any word.
func KnownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions:
		return method
	}
	return "other"
}

type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	sent   *sentBody // nil: there is none, or it delays nothing
}

// begin notes the status with the first byte of the answer. A body that no handler reads must delay neither the answer nor
// the next request: net/http reads it to its end, to use the connection again, for as long as a body may take.
func (r *recorder) begin(status int) {
	if r.status != 0 {
		return
	}
	r.status = status
	if r.sent != nil && !r.sent.ended {
		_ = http.NewResponseController(r.ResponseWriter).SetReadDeadline(time.Now().Add(bodyGrace)) // a recorder has none
	}
}

// bodyGrace is for the rest of a body that is on its way.
const bodyGrace = 100 * time.Millisecond

// sentBody is the body of a request, and whether it was read to its end.
type sentBody struct {
	io.ReadCloser
	ended bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

func (r *recorder) WriteHeader(status int) {
	r.begin(status)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begin(http.StatusOK)
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// incomingID keeps at most 255 of [A-Za-z0-9_-], so that a log line and a header can contain what a client sends.
func incomingID(h http.Header) string {
	id := h.Get("X-Vcap-Request-Id")
	if id == "" {
		id = h.Get("X-Request-Id")
	}
	id = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
			return r
		}
		return -1
	}, id)
	return id[:min(len(id), 255)]
}

// Appender encodes itself: some answers are so frequent, or so long, that reflection is too slow.
type Appender interface {
	AppendJSON(b []byte) []byte
}

// JSON writes v. A value that cannot be encoded is a bug and panics.
func JSON(w http.ResponseWriter, status int, contentType string, v any) {
	var body []byte
	if a, ok := v.(Appender); ok {
		buffer := buffers.Get().(*[]byte)
		defer func() { *buffer = body[:0]; buffers.Put(buffer) }()
		body = append(a.AppendJSON(*buffer), '\n')
	} else {
		body = encode(v)
	}
	Write(w, status, contentType, body)
}

// Write writes a response.
func Write(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	values := [...]string{contentType, strconv.Itoa(len(body))}
	h["Content-Type"], h["Content-Length"] = values[0:1:1], values[1:2:2]
	w.WriteHeader(status)
	if size := int64(len(body)); size > atOnce {
		limit := maxReadTime
		if unread.Add(size) > maxUnread {
			limit = shortReadTime
		}
		defer unread.Add(-size)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit)) // a recorder has none
	}
	_, _ = w.Write(body) // an error is a client that hung up
}

// An answer of up to atOnce bytes fits into the buffers of the system. A longer one stays in memory until the client has
// read it, for at most maxReadTime. While such answers have more than maxUnread bytes together, a new one stays for at most
// shortReadTime.
const (
	atOnce        = 64 << 10
	maxReadTime   = 30 * time.Second
	maxUnread     = 64 << 20
	shortReadTime = 5 * time.Second
)

// unread is how many bytes of answers longer than atOnce are being written.
var unread atomic.Int64

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func encode(v any) []byte {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // links stay readable; nothing is served as HTML
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return body.Bytes()
}

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	if !isPlain(s) {
		return append(b, bytes.TrimSuffix(encode(s), []byte("\n"))...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// isPlain reports whether JSON writes s as it is, because it is ASCII without anything that is escaped.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// NewServer returns an http.Server with the limits of a public listener: 10 s for headers, 30 s for a body, 32 KiB of
// headers, 100 requests at once on a connection that speaks HTTP/2. An answer may take 3 minutes, because a delete may.
func NewServer(h http.Handler, log *slog.Logger, tlsConfig *tls.Config) *http.Server {
	return &http.Server{
		Handler:           h,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      3 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReceiveBufferPerStream:     128 << 10, // what a client may send before it is read
			MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout:               time.Minute,
			WriteByteTimeout:              30 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// HandlerFunc answers a request or returns why not. It never writes an error itself.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// FailFunc writes a failure in a dialect's envelope.
type FailFunc func(w http.ResponseWriter, r *http.Request, f *fault.Error)

// Handle runs h and lets fail write the failure that it returns. A panic becomes an internal failure. h is not called for
// a request that is refused for lack of capacity.
func Handle(w http.ResponseWriter, r *http.Request, h HandlerFunc, fail FailFunc) {
	info := InfoOf(r.Context())
	err := info.refused
	if err == nil {
		err = guarded(h, w, r)
	}
	if err == nil {
		return
	}
	info.Err = err
	fail(w, r, fault.Of(err))
}

func guarded(h HandlerFunc, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h(w, r)
}

// streamWait is how long a client may take for one part of a stream.
const streamWait = time.Minute

// Stream answers with a body of any length. send writes it, and calls next before each part, for which the client then has a
// minute. The status is sent by the time that send fails, so a broken connection is all that can be said; its error goes to
// the log, unless it is gone: the client has hung up.
func Stream(w http.ResponseWriter, r *http.Request, gone error, send func(next func()) error) {
	next := func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(streamWait)) } // a recorder has none
	next()
	err := send(next)
	if err == nil {
		return
	}
	if !errors.Is(err, gone) {
		InfoOf(r.Context()).Err = err
	}
	panic(http.ErrAbortHandler)
}

// Warn adds the header Rolecall-Warning with those of the sentences, in ASCII, that are not empty.
func Warn(w http.ResponseWriter, sentences ...string) {
	sentences = slices.DeleteFunc(sentences, func(s string) bool { return s == "" })
	if len(sentences) > 0 {
		w.Header().Set("Rolecall-Warning", strings.Join(sentences, " "))
	}
}

// RetryAfter sets the header of that name when the failure says when to try again, or is one that passes. It counts whole
// seconds, at least one: clients in the field parse an integer only.
func RetryAfter(w http.ResponseWriter, f *fault.Error) {
	after := f.RetryAfter
	if after == 0 && f.Kind == fault.Unavailable {
		after = 2 * time.Second
	}
	if after > 0 {
		w.Header().Set("Retry-After", seconds(after))
	}
}

// IfMatch reads the If-Match header.
func IfMatch(r *http.Request) etag.Match { return etag.Parse(r.Header.Values("If-Match")) }

var crossOrigin = http.NewCrossOriginProtection()

// SameOrigin refuses changes that a browser sends for another site, with a password or session that it remembers for this
// one. Our own origin is that of the Host header, and the one that is given, if any: a proxy may change the header. Clients
// that are no browsers send none of the headers that it goes by.
func SameOrigin(r *http.Request, origin string) error {
	if origin != "" && r.Header.Get("Origin") == origin {
		return nil
	}
	if err := crossOrigin.Check(r); err != nil {
		return fault.New(fault.Forbidden, "A browser sent this request for another site.").Because(err)
	}
	return nil
}
