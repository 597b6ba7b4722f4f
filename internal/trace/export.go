package trace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Config says where spans go.
type Config struct {
	URL     string      // of the collector, with its path; "": nothing is exported
	Headers http.Header // of each request to it; they may hold secrets
	Timeout time.Duration
}

// exportTimeout is how long the collector may take, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise.
const exportTimeout = 10 * time.Second

// ReadConfig returns the configuration of an endpoint, to which /v1/traces is added, and of the standard variables:
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/. A given endpoint takes precedence. The variables of the
// sampler, the batches and the resource are read by the library.
func ReadConfig(endpoint string) (c Config, err error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return c, nil
	}
	name, path := "--otlp-endpoint", "/v1/traces"
	if endpoint == "" {
		name, endpoint = variable("ENDPOINT")
		if strings.Contains(name, "TRACES") {
			path = "" // it is the whole URL
		}
	}
	if endpoint == "" {
		return c, nil
	}
	u, err := url.Parse(endpoint)
	if err == nil && u.User != nil {
		return c, fmt.Errorf("%s contains a user name or password; send it as a header with OTEL_EXPORTER_OTLP_HEADERS", name)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		// It is not quoted, because a malformed URL may hide a password anywhere.
		return c, fmt.Errorf("%s is not a URL like http://localhost:4318", name)
	}
	if name, protocol := variable("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return c, fmt.Errorf("%s is %q; only http/protobuf is supported", name, protocol)
	}
	c.URL, c.Timeout = strings.TrimRight(endpoint, "/")+path, exportTimeout
	if name, text := variable("TIMEOUT"); text != "" {
		milliseconds, err := strconv.Atoi(text)
		if err != nil || milliseconds < 1 || milliseconds > 60_000 {
			return c, fmt.Errorf("%s is %q; use a number of milliseconds from 1 to 60000", name, text)
		}
		c.Timeout = time.Duration(milliseconds) * time.Millisecond
	}
	name, text := variable("HEADERS")
	if c.Headers, err = readHeaders(text); err != nil {
		return c, fmt.Errorf("%s %w", name, err)
	}
	return c, nil
}

// variable is the value of a standard variable; the one for traces takes precedence over the one for all signals.
func variable(what string) (name, value string) {
	for _, name = range []string{"OTEL_EXPORTER_OTLP_TRACES_" + what, "OTEL_EXPORTER_OTLP_" + what} {
		if value = os.Getenv(name); value != "" {
			return name, value
		}
	}
	return name, ""
}

// readHeaders reads key=value pairs, separated by commas, with percent-encoded values. No error quotes them.
func readHeaders(text string) (http.Header, error) {
	headers := http.Header{}
	for i, pair := range strings.Split(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !found || key == "" || err != nil || strings.ContainsAny(key, "\r\n \t\x00") ||
			strings.ContainsAny(value, "\r\n\x00") {
			return nil, fmt.Errorf("is not like key=value,key=value: entry %d cannot be read", i+1)
		}
		headers.Set(key, value)
	}
	return headers, nil
}

// Open returns the tracer of a configuration; nil if nothing is exported. The caller closes it.
func Open(ctx context.Context, c Config, version string, log *slog.Logger) (*Tracer, error) {
	if c.URL == "" {
		return nil, nil
	}
	// The library reports its own troubles to a global handler, by default on standard error.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("tracing has failed", "error", err) }))
	e := &exporter{config: c, log: log, client: &http.Client{
		Timeout:       c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	spans, err := otlptrace.New(ctx, e)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "rolecall"),
		attribute.String("service.version", version)), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Tracer{sdk.NewTracerProvider(sdk.WithBatcher(spans), sdk.WithResource(about)), e}, nil
}

// Close exports the spans that wait, within the time that an export may take.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.exporter.config.Timeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.exporter.log.Warn("the last spans were not exported", "error", err)
	}
}

// exporter sends spans as OTLP over HTTP. The usual exporter, otlptracehttp, links all of gRPC for the type of one message,
// and makes the program larger by a tenth.
type exporter struct {
	config Config
	client *http.Client
	log    *slog.Logger

	mu     sync.Mutex
	warned time.Time
	lost   int // exports since the last warning
}

// Start implements otlptrace.Client.
func (*exporter) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (*exporter) Stop(context.Context) error { return nil }

// UploadTraces implements otlptrace.Client. Spans that cannot be exported are lost, which is logged.
func (e *exporter) UploadTraces(ctx context.Context, spans []*otlp.ResourceSpans) error {
	// TracesData has the same encoding as ExportTraceServiceRequest, whose package imports gRPC.
	body, err := proto.Marshal(&otlp.TracesData{ResourceSpans: spans})
	if err == nil {
		err = e.send(ctx, body)
	}
	if err != nil {
		e.warn(err)
	}
	return nil
}

// exportAttempts is how often spans are sent while the collector asks to try again, with a second between the attempts.
const exportAttempts = 3

func (e *exporter) send(ctx context.Context, body []byte) error {
	for attempt := 1; ; attempt++ {
		status, err := e.post(ctx, body)
		if err != nil {
			return err
		}
		switch {
		case status/100 == 2:
			return nil
		case attempt == exportAttempts || status != http.StatusTooManyRequests && status < 502 || status > 504:
			return fmt.Errorf("the collector answered %d %s", status, http.StatusText(status))
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *exporter) post(ctx context.Context, body []byte) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.config.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for key, values := range e.config.Headers {
		r.Header[key] = values
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	answer, err := e.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection is used again
	return answer.StatusCode, nil
}

// warnEvery is how often lost spans are logged at most.
const warnEvery = time.Minute

func (e *exporter) warn(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost++
	if time.Since(e.warned) < warnEvery {
		return
	}
	e.log.Warn("traces were not exported", "exports", e.lost, "error", err)
	e.warned, e.lost = time.Now(), 0
}
