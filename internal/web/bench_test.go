package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkEdge is what every request costs around its handler: ids, headers and the line in the log.
func BenchmarkEdge(b *testing.B) {
	edge := &Edge{Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	r := httptest.NewRequest(http.MethodGet, "/databases/postgresql/clusters/3f8f8a6e-5ac2-4c5f-9c3e-0d7a1b2c3d4e/users/app",
		nil)
	b.ReportAllocs()
	for b.Loop() {
		edge.ServeHTTP(httptest.NewRecorder(), r)
	}
}
