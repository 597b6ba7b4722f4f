// Package trace gives each request the id of its trace, as W3C Trace Context defines it, and exports spans with
// OpenTelemetry if that is configured. A span holds names that are in this program, numbers, and ids of requests and
// clusters; it never holds SQL, arguments, names that clients choose, or messages of errors.
package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracer exports spans; nil: requests have ids of traces, and no spans.
type Tracer struct {
	provider *sdk.TracerProvider
	exporter *exporter
}

// Request is the trace of one request.
type Request struct {
	// ID is that of the trace: 32 hexadecimal digits.
	ID string
	// Known says that the trace is known elsewhere: the client has sent the id, or spans are exported.
	Known bool

	span trace.Span // nil: none
}

// Request begins the trace of a request. It continues the trace of the header traceparent; an invalid one is ignored.
func (t *Tracer) Request(ctx context.Context, header http.Header) (context.Context, *Request) {
	// tracestate is not read: it may be anything, and nothing here uses it.
	if sent := header.Values("Traceparent"); len(sent) == 1 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": sent[0]})
	}
	r := &Request{}
	if t != nil {
		ctx, r.span = t.provider.Tracer("rolecall").Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	}
	id := trace.SpanContextFromContext(ctx).TraceID()
	if r.Known = id.IsValid(); !r.Known {
		_, _ = rand.Read(id[:]) // never fails since Go 1.24
	}
	r.ID = hex.EncodeToString(id[:])
	return ctx, r
}

// End ends the span of the request. The method and the route are names that the program knows, so that no name of a span
// depends on what a client sends; route "": none was found.
func (r *Request) End(requestID, method, route string, status int) {
	if r.span == nil {
		return
	}
	r.span.SetName(strings.TrimSpace(method + " " + route))
	r.span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route),
		attribute.Int("http.response.status_code", status), attribute.String("rolecall.request.id", requestID))
	if status >= 500 {
		r.span.SetStatus(codes.Error, "")
	}
	r.span.End()
}
