// Package client is the HTTP client of the command line: one base URL, a bearer token, JSON, lists that are followed to
// their end, and failures of every dialect as one type. What a command prints or asks for does not belong here.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Client sends requests to one Rolecall.
type Client struct {
	// URL is the base of all paths, without a slash at the end.
	URL string
	// Token returns the bearer token. refused is one that the server has just rejected, "" at first; a function that has
	// no other returns it again.
	Token func(ctx context.Context, refused string) (string, error)
	// UserAgent is the name and version of the program.
	UserAgent string
	// Patient makes Do wait and send a request again that the server has throttled, as long as the server says.
	Patient bool

	http   *http.Client
	pauses []time.Duration // before each repetition of a request whose answer is missing
	pause  func(ctx context.Context, d time.Duration) error
}

// New returns a client. It follows no redirects: they could take a password or a token to another host.
func New(baseURL, userAgent string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return &Client{URL: baseURL, UserAgent: userAgent, pauses: []time.Duration{time.Second, 3 * time.Second}, pause: pause,
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}
}

// Show makes the client show the server a certificate, where that asks for one.
func (c *Client) Show(certificate tls.Certificate) {
	c.tls().Certificates = []tls.Certificate{certificate}
}

// Trust makes the client trust these authorities, in PEM, and no others. It reports whether there are any.
func (c *Client) Trust(authorities []byte) bool {
	c.tls().RootCAs = x509.NewCertPool()
	return c.tls().RootCAs.AppendCertsFromPEM(authorities)
}

func (c *Client) tls() *tls.Config {
	transport := c.http.Transport.(*http.Transport)
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{}
	}
	return transport.TLSClientConfig
}

// ParseURL reads a base URL, which holds no credentials.
func ParseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.ForceQuery ||
		u.Fragment != "" {
		return "", errors.New("this is not a URL like https://rolecall.example.org")
	}
	if u.User != nil {
		return "", errors.New("the URL must not contain a user name or password")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// Path puts a path together, of segments that are escaped here.
func Path(base string, segments ...string) string {
	for _, s := range segments {
		base += "/" + url.PathEscape(s)
	}
	return base
}

// The limits of one request. A deletion in a cluster may take the server 90 seconds, and a check of the whole audit log two
// minutes.
const (
	timeout   = 150 * time.Second
	maxAnswer = 64 << 20
)

// Request is what a server is asked for.
type Request struct {
	Method, Path string
	Query        url.Values
	Body         any    // sent as JSON; nil: none
	IfMatch      string // the ETag that the resource must have; "": any
}

// Answer is a success that the server has answered.
type Answer struct {
	JSON    json.RawMessage // nil: none
	ETag    string          // "": none
	Warning string          // "": none
}

// Get reads a resource.
func (c *Client) Get(ctx context.Context, path string, query url.Values) (Answer, error) {
	return c.Do(ctx, Request{Method: http.MethodGet, Path: path, Query: query})
}

// Do sends a request.
func (c *Client) Do(ctx context.Context, r Request) (a Answer, err error) {
	w := wire{method: r.Method, path: r.Path, query: r.Query, accept: "application/json", ifMatch: r.IfMatch}
	if r.Body != nil {
		if w.body, err = json.Marshal(r.Body); err != nil {
			return a, err
		}
		w.mediaType = "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if r.Method == http.MethodPost && strings.HasPrefix(r.Path, ownAPI) {
		w.key = uuid.NewString()
		return c.repeat(ctx, w)
	}
	return c.do(ctx, w)
}

// do sends a request once, and reads its answer.
func (c *Client) do(ctx context.Context, w wire) (a Answer, err error) {
	resp, err := c.authorized(ctx, w)
	for c.Patient && Status(err) == http.StatusTooManyRequests {
		if ended := waitAsTold(ctx, err); errors.Is(ended, context.DeadlineExceeded) {
			return a, err
		} else if ended != nil {
			return a, ended
		}
		resp, err = c.authorized(ctx, w)
	}
	if err != nil {
		return a, err
	}
	a.ETag, a.Warning = resp.Header.Get("ETag"), resp.Header.Get("Rolecall-Warning")
	a.JSON, err = c.read(resp)
	return a, err
}

// waitAsTold waits as long as an error says, or a second.
func waitAsTold(ctx context.Context, err error) error {
	wait := time.Second
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		wait = e.RetryAfter
	}
	return pause(ctx, wait)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Stream sends a GET and returns the body of the answer as it comes, however long that takes. The caller closes it.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, mediaType string) (io.ReadCloser, error) {
	resp, err := c.authorized(ctx, wire{method: http.MethodGet, path: path, query: query, accept: mediaType})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// wire is a request as it is sent, and sent again with another token.
type wire struct {
	method, path, accept, ifMatch string
	key                           string // with which it changes nothing a second time; "": none
	query                         url.Values
	mediaType                     string // of body
	body                          []byte // nil: none
}

// authorized sends a request with a token, and again with a new token if the server rejects the first.
func (c *Client) authorized(ctx context.Context, r wire) (*http.Response, error) {
	token, err := c.Token(ctx, "")
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, r, token)
	if Status(err) != http.StatusUnauthorized {
		return resp, err
	}
	renewed, renewErr := c.Token(ctx, token)
	if renewErr != nil {
		return nil, renewErr
	}
	if renewed == token {
		return nil, err
	}
	return c.send(ctx, r, renewed)
}

// send returns an answer of success; any other is an error.
func (c *Client) send(ctx context.Context, r wire, token string) (*http.Response, error) {
	target := c.URL + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var reader io.Reader
	if r.body != nil {
		reader = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("%s is not a valid URL", c.URL)
	}
	req.Header.Set("Accept", r.accept)
	req.Header.Set("User-Agent", c.UserAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", r.mediaType)
	}
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", strconv.Quote(r.key))
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	resp, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil && sent.Load() {
		return nil, lost{c.unreachable(req, err)}
	}
	if err != nil {
		return nil, c.unreachable(req, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return nil, fmt.Errorf("%s redirects to %q; use the URL of Rolecall itself", c.URL, resp.Header.Get("Location"))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, lost{c.unreachable(resp.Request, err)}
	}
	return nil, failure(resp, answer)
}

// read returns the JSON of an answer.
func (c *Client) read(resp *http.Response) (json.RawMessage, error) {
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, lost{c.unreachable(resp.Request, err)}
	}
	answer = bytes.TrimSpace(answer)
	if len(answer) == 0 {
		return nil, nil
	}
	if !json.Valid(answer) {
		return nil, fmt.Errorf("%s does not answer like Rolecall; check the URL", c.URL)
	}
	return answer, nil
}

// Interrupted is the error of a change whose context ended while the server worked on it.
type Interrupted struct{}

// Error implements error.
func (Interrupted) Error() string { return "interrupted; the server may still complete the request" }

// Unwrap makes it one of the errors of an ended context.
func (Interrupted) Unwrap() error { return context.Canceled }

// unreachable is the reason why there is no answer, without the URL of the request that net/http puts before it.
func (c *Client) unreachable(r *http.Request, err error) error {
	ctx := r.Context()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer within %s; the server may still complete the request", c.URL, timeout)
	}
	if ctx.Err() != nil && r.Method == http.MethodGet {
		return ctx.Err()
	}
	if ctx.Err() != nil {
		return Interrupted{}
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return fmt.Errorf("%s cannot be reached: %w; if you trust its authority, give that in PEM with --ca-file", c.URL, err)
	}
	return fmt.Errorf("%s cannot be reached: %w", c.URL, err)
}

// Error is a failure that the server has answered.
type Error struct {
	Status int
	// Code is the error's word in its dialect, such as paas-validation-1, CF-NotAuthorized or invalid_grant.
	Code string
	// Message is the server's, meant for people.
	Message string
	// Hint is the remedy that the server names by a stable word, such as reassign; "" without one.
	Hint string
	// RequestID finds the request in the server's log; "" where there was none.
	RequestID string
	// RetryAfter is when to try again. Zero: the server did not say.
	RetryAfter time.Duration
	// Repeated says that it answers a repetition: the request before it, whose answer is missing, may have been carried out.
	Repeated bool
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Message
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" Try again in %s.", e.RetryAfter)
	}
	if e.RequestID != "" {
		text += fmt.Sprintf(" (HTTP %d, request %s)", e.Status, e.RequestID)
	}
	return text
}

// Status is the HTTP status of a failure that the server has answered, or 0.
func Status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// failure reads the envelope of any of the dialects.
func failure(resp *http.Response, answer []byte) *Error {
	var envelope struct {
		Messages []struct { // DBaaS
			ErrorCode string `json:"errorCode"`
			Message   string `json:"message"`
		} `json:"messages"`
		Errors []struct { // Cloud Foundry
			Title  string `json:"title"`
			Detail string `json:"detail"`
		} `json:"errors"`
		Type        string `json:"type"` // problem+json, RFC 9457
		Title       string `json:"title"`
		Detail      string `json:"detail"`
		Hint        string `json:"hint"`
		Error       string `json:"error"` // OAuth2 and SCIM
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(answer, &envelope) // what cannot be read stays empty
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id")}
	var messages []string
	for _, m := range envelope.Messages {
		e.Code = m.ErrorCode
		messages = append(messages, m.Message)
	}
	for _, m := range envelope.Errors {
		e.Code = m.Title
		messages = append(messages, m.Detail)
	}
	switch {
	case messages != nil:
		e.Message = strings.Join(messages, " ")
	case envelope.Error != "":
		e.Code, e.Message = envelope.Error, envelope.Description
	default:
		e.Code, e.Message, e.Hint = envelope.Type, envelope.Detail, envelope.Hint
		if e.Message == "" {
			e.Message = envelope.Title
		}
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("The server answered %s without a reason.", strings.TrimSpace(resp.Status))
		if bytes.Contains(answer, []byte("HTTP request to an HTTPS server")) { // of Go's net/http
			e.Message = "The server speaks https only; use a URL that begins with https://"
		}
	}
	if !strings.ContainsAny(e.Message[len(e.Message)-1:], ".!?") {
		e.Message += "."
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
