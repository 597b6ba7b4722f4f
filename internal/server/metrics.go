package server

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rolecall/internal/web"
)

// metrics are what Prometheus reads. No label has a value that a client can invent.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec

	mu     sync.RWMutex
	counts map[answer]counts
}

// answer is what requests have in common that are counted together.
type answer struct {
	route, method string
	status        int
}

// counts are where requests are counted. To find them among the metrics by their labels takes longer than to count.
type counts struct {
	requests prometheus.Counter
	took     prometheus.Observer
}

func newMetrics(st *state, version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rolecall_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rolecall_http_request_duration_seconds", Help: "Time to answer a request, by route and method.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
		counts: map[answer]counts{},
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rolecall_build_info",
		Help: "Always 1: the version of the program."}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.requests, m.took, build, st,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(info *web.Info, method string, status int, took time.Duration) {
	route := info.Route
	if route == "" {
		route = "unknown"
	}
	c := m.countsOf(answer{route, web.KnownMethod(method), status})
	c.requests.Inc()
	c.took.Observe(took.Seconds())
}

func (m *metrics) countsOf(a answer) counts {
	m.mu.RLock()
	c, ok := m.counts[a]
	m.mu.RUnlock()
	if ok {
		return c
	}
	c = counts{m.requests.WithLabelValues(a.route, a.method, strconv.Itoa(a.status)), m.took.WithLabelValues(a.route, a.method)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[a] = c
	return c
}

// handler serves the metrics on a listener of their own. It serves the probes as well: a prober may have no client
// certificate for the public listener.
func (m *metrics) handler(ready *readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", healthz)
	mux.Handle("/readyz", ready)
	// What one collector gets wrong costs its samples only.
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}
