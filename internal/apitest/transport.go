package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// Transport sends requests through base (nil: http.DefaultTransport) and fails the test when an exchange is not what
// the document says:
//
//   - the document rejects the request: the status must be a 4xx (so what gets a 2xx, the document accepts);
//   - the response must have a documented status, the media type and the headers of that status, no others, and a body
//     that its schema accepts;
//   - a path that the document does not have is a 404, a method that the path does not have is a 405 whose Allow lists
//     those that it has, both as the document's components/responses describe them (see outside). In a document without
//     the response MethodNotAllowed such a method is a 404, too.
//
// Whether the credentials were right is the test's business. Responses are read to their end before they are handed on,
// so it is not for those that stream.
func (d *Document) Transport(t testing.TB, base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{t, d, base}
}

type transport struct {
	t    testing.TB
	doc  *Document
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (tr *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	tr.t.Helper()
	var sent []byte
	if req.Body != nil {
		var err error
		sent, err = io.ReadAll(req.Body)
		if closeErr := req.Body.Close(); err != nil || closeErr != nil {
			return nil, errors.Join(err, closeErr)
		}
	}
	out := req.Clone(req.Context())
	if out.Body = http.NoBody; len(sent) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(sent))
	}
	res, err := tr.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(res.Body)
	if closeErr := res.Body.Close(); err != nil || closeErr != nil {
		return nil, errors.Join(err, closeErr)
	}
	res.Body = io.NopCloser(bytes.NewReader(got))

	// Not Fatal: this may be another goroutine than the test's.
	if err := tr.doc.check(exchange{req, sent, res, got}); err != nil {
		tr.t.Errorf("%s: %s %s: %s: %v\nbody: %s", tr.doc.name, req.Method, req.URL.RequestURI(), res.Status, err, excerpt(got))
	}
	return res, nil
}

type exchange struct {
	req  *http.Request
	sent []byte
	res  *http.Response
	got  []byte
}

// outside names the components/responses for requests that belong to no operation. A server that asks for credentials
// first, has had enough of the caller, or sees a browser send for another site, says so before it looks at the path.
var outside = map[int]string{
	http.StatusUnauthorized:       "Unauthorized",
	http.StatusForbidden:          "Forbidden",
	http.StatusNotFound:           "NotFound",
	http.StatusMethodNotAllowed:   "MethodNotAllowed",
	http.StatusTooManyRequests:    "TooManyRequests",
	http.StatusServiceUnavailable: "Unavailable",
}

// check returns why the exchange is not what the document says.
func (d *Document) check(x exchange) error {
	hits := d.match(x.req.URL.EscapedPath())
	if len(hits) == 0 {
		if x.res.StatusCode == http.StatusMethodNotAllowed {
			return errors.New("the document does not have this path: want 404")
		}
		return d.checkOutside(x)
	}
	if x.req.Method != http.MethodHead || x.res.StatusCode != http.StatusMethodNotAllowed {
		for _, h := range hits {
			if op := h.operation(x.req.Method); op != nil {
				return errors.Join(d.checkAgreement(x, h, op), d.checkResponse(x, op.Responses.Status(x.res.StatusCode)))
			}
		}
	}
	if x.res.StatusCode == http.StatusNotFound && d.spec.Components.Responses["MethodNotAllowed"] != nil {
		return errors.New("the document has this path, without this method: want 405")
	}
	return errors.Join(d.checkOutside(x), checkAllow(x, hits))
}

func (d *Document) checkOutside(x exchange) error {
	name, ok := outside[x.res.StatusCode]
	if !ok {
		return errors.New("the document does not have this operation: want 404 or 405")
	}
	response := d.spec.Components.Responses[name]
	if response == nil {
		return fmt.Errorf("the document has no components/responses/%s to compare with", name)
	}
	return d.checkResponse(x, response)
}

// checkAllow holds the Allow of a 405 to the methods that the document has.
func checkAllow(x exchange, hits []hit) error {
	if x.res.StatusCode != http.StatusMethodNotAllowed {
		return nil
	}
	want, got := map[string]bool{}, map[string]bool{}
	for _, h := range hits {
		for method := range h.item.Operations() {
			want[method] = true
		}
	}
	for method := range strings.SplitSeq(x.res.Header.Get("Allow"), ",") {
		got[strings.TrimSpace(method)] = true
	}
	// A document has nothing to say of these.
	delete(got, http.MethodHead)
	delete(got, http.MethodOptions)
	if !maps.Equal(got, want) {
		methods := slices.Sorted(maps.Keys(want))
		return fmt.Errorf("the header Allow is %q, the document has %s", x.res.Header.Get("Allow"), strings.Join(methods, ", "))
	}
	return nil
}

// checkAgreement compares what the document and the server think of the request.
func (d *Document) checkAgreement(x exchange, h hit, op *openapi3.Operation) error {
	req := x.req.Clone(context.Background())
	req.Body = io.NopCloser(bytes.NewReader(x.sent))
	asJSON(req, op)
	asBooleans(req, op)
	err := openapi3filter.ValidateRequest(req.Context(), &openapi3filter.RequestValidationInput{
		Request:    req,
		PathParams: h.values,
		Route:      d.route(x.req.Method, h.path, op),
		Options:    options(),
	})
	if err == nil || x.res.StatusCode/100 == 4 {
		return nil
	}
	return fmt.Errorf("the document rejects the request, so want a 4xx: %w", err)
}

// asJSON sets the Content-Type application/json, because OpenAPI cannot express what all our JSON dialects accept: a body
// without a Content-Type is JSON, and so is one of text/json or of any application/…+json.
func asJSON(req *http.Request, op *openapi3.Operation) {
	if op.RequestBody == nil || op.RequestBody.Value.Content["application/json"] == nil {
		return
	}
	contentType := req.Header.Get("Content-Type")
	m := mediaType(contentType)
	if contentType == "" || m == "text/json" || strings.HasPrefix(m, "application/") && strings.HasSuffix(m, "+json") {
		req.Header.Set("Content-Type", "application/json")
	}
}

// asBooleans writes boolean query parameters in lower case: our servers take True and FALSE, because clients send them.
func asBooleans(req *http.Request, op *openapi3.Operation) {
	query := req.URL.Query()
	for _, p := range op.Parameters {
		if p.Value.In == openapi3.ParameterInQuery && p.Value.Schema.Value.Type.Is(openapi3.TypeBoolean) {
			for i, value := range query[p.Value.Name] {
				query[p.Value.Name][i] = strings.ToLower(value)
			}
		}
	}
	u := *req.URL
	u.RawQuery = query.Encode()
	req.URL = &u
}

// mayBeEmpty marks a response that some clients get without a body. OpenAPI has no way to say that.
const mayBeEmpty = "x-may-be-empty"

// checkResponse compares a response with its description in the document.
func (d *Document) checkResponse(x exchange, ref *openapi3.ResponseRef) error {
	if ref == nil {
		return errors.New("the operation does not document this status")
	}
	response := ref.Value
	var problems []error
	for name := range x.res.Header {
		if !usual[name] && !documents(response, name) {
			problems = append(problems, fmt.Errorf("the header %s is not documented for this status", name))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })

	if response.Extensions[mayBeEmpty] == true && len(x.got) == 0 && x.res.Header.Get("Content-Length") == "0" {
		return errors.Join(problems...)
	}
	head := x.req.Method == http.MethodHead
	contentType := x.res.Header.Get("Content-Type")
	switch {
	case len(response.Content) == 0 && (len(x.got) > 0 || contentType != ""):
		problems = append(problems, fmt.Errorf("no content is documented for this status, got %d bytes as %q", len(x.got),
			contentType))
	case strings.HasSuffix(mediaType(contentType), "json") && !head:
		if !json.Valid(x.got) {
			problems = append(problems, errors.New("the body is not one JSON value"))
		}
		problems = append(problems, checkStatusInBody(x))
	}

	// An operation of this response alone, because the library validates by operation and skips some statuses of it.
	op := &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(http.StatusOK, ref))}
	opts := options()
	opts.ExcludeResponseBody = head
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			// Not the request's method: the library validates nothing of an answer to HEAD.
			Request: &http.Request{Method: http.MethodGet, URL: x.req.URL},
			Route:   d.route(http.MethodGet, nil, op),
		},
		Status:  http.StatusOK,
		Header:  x.res.Header,
		Options: opts,
	}
	input.SetBodyBytes(x.got)
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// usual are the headers that a response may always have: they belong to HTTP or to the browser, not to an API.
var usual = map[string]bool{
	"Cache-Control":                true,
	"Connection":                   true,
	"Content-Length":               true,
	"Content-Security-Policy":      true,
	"Content-Type":                 true, // compared with the documented media types
	"Cross-Origin-Resource-Policy": true,
	"Date":                         true,
	"Pragma":                       true,
	"Referrer-Policy":              true,
	"Strict-Transport-Security":    true,
	"Vary":                         true,
	"X-Content-Type-Options":       true,
}

func documents(response *openapi3.Response, header string) bool {
	for name := range response.Headers {
		if http.CanonicalHeaderKey(name) == header {
			return true
		}
	}
	return false
}

// checkStatusInBody: the envelopes that repeat the status must repeat the right one.
func checkStatusInBody(x exchange) error {
	var body struct {
		HTTPStatus *json.Number `json:"httpStatus"` // DBaaS
		Status     *json.Number `json:"status"`     // RFC 9457
	}
	// A body of another shape, or a status that is not a number, is the schema's business.
	if x.res.StatusCode < 400 || json.Unmarshal(x.got, &body) != nil {
		return nil
	}
	for _, n := range []*json.Number{body.HTTPStatus, body.Status} {
		if n != nil && n.String() != fmt.Sprint(x.res.StatusCode) {
			return fmt.Errorf("the body says status %s", n)
		}
	}
	return nil
}

func (d *Document) route(method string, p *path, op *openapi3.Operation) *routers.Route {
	r := &routers.Route{Spec: d.spec, Method: method, Operation: op, PathItem: &openapi3.PathItem{}}
	if p != nil {
		r.Path, r.PathItem = p.template, p.item
	}
	return r
}

func options() *openapi3filter.Options {
	o := &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		// OpenAPI says that a client SHOULD NOT send a readOnly field; our servers ignore one.
		ExcludeReadOnlyValidations: true,
		SkipSettingDefaults:        true,
		MultiError:                 true,
		SchemaValidationOptions:    []openapi3.SchemaValidationOption{openapi3.WithStringFormatValidators(formats)},
	}
	o.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string {
		// The reason quotes no value, so no password gets into the test's output.
		return fmt.Sprintf("at /%s: %s", strings.Join(e.JSONPointer(), "/"), e.Reason)
	})
	return o
}

func mediaType(contentType string) string {
	m, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType
	}
	return m
}

func excerpt(b []byte) string {
	const limit = 2000
	if len(b) > limit {
		return fmt.Sprintf("%s… (%d bytes)", b[:limit], len(b))
	}
	return string(b)
}
