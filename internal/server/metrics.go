package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/web"
)

// metrics are what Prometheus reads. No label has a value that a client can invent.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newMetrics(db *control.DB, users *dbuser.Service) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rolecall_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rolecall_http_request_duration_seconds", Help: "Time to answer a request, by route and method.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
	}
	m.registry.MustRegister(m.requests, m.took, &poolCollector{db, users},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(info *web.Info, method string, status int, took time.Duration) {
	route := info.Route
	if route == "" {
		route = "unknown"
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(route, method).Observe(took.Seconds())
}

// handler serves the metrics on a listener of their own. It serves the probes as well: a prober may have no client
// certificate for the public listener.
func (m *metrics) handler(ready *readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", healthz)
	mux.Handle("/readyz", ready)
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// poolCollector reads the state of clusters and pools when Prometheus asks for it.
type poolCollector struct {
	db    *control.DB
	users *dbuser.Service
}

var (
	byCluster = []string{"cluster"}
	clusterUp = prometheus.NewDesc("rolecall_cluster_up",
		"Whether the cluster answered the last probe; no sample before the first.", byCluster, nil)
	clusterConns = prometheus.NewDesc("rolecall_cluster_connections",
		"Connections to the cluster, by state.", []string{"cluster", "state"}, nil)
	clusterWaits = prometheus.NewDesc("rolecall_cluster_connection_waits_total",
		"Requests that had to wait for a connection to the cluster.", byCluster, nil)
	clusterUnrecorded = prometheus.NewDesc("rolecall_cluster_unrecorded_users",
		"Users whose last change is missing from the audit log; no sample before the first comparison.", byCluster, nil)
	controlConns = prometheus.NewDesc("rolecall_control_connections",
		"Connections to the control database, by state.", []string{"state"}, nil)
	registeredDesc = prometheus.NewDesc("rolecall_clusters", "Registered clusters.", nil, nil)
)

func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{clusterUp, clusterConns, clusterWaits, clusterUnrecorded, controlConns,
		registeredDesc} {
		ch <- d
	}
}

func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	connections := func(d *prometheus.Desc, used, idle int32, labels ...string) {
		gauge(d, float64(used), append(labels, "used")...)
		gauge(d, float64(idle), append(labels, "idle")...)
	}
	pool, signIn := c.db.Pool.Stat(), c.db.SignIn.Stat()
	connections(controlConns, pool.AcquiredConns()+signIn.AcquiredConns(), pool.IdleConns()+signIn.IdleConns())
	all := c.users.Clusters.All()
	gauge(registeredDesc, float64(len(all)))
	for _, cl := range all {
		id := cl.ID.String()
		if h := cl.LastHealth(); !h.Checked.IsZero() {
			up := 0.0
			if h.Reachable {
				up = 1
			}
			gauge(clusterUp, up, id)
		}
		if found := c.users.Unrecorded(cl); found != nil {
			gauge(clusterUnrecorded, float64(found.Count), id)
		}
		if stat := cl.Stat(); stat != nil {
			connections(clusterConns, stat.AcquiredConns(), stat.IdleConns(), id)
			ch <- prometheus.MustNewConstMetric(clusterWaits, prometheus.CounterValue, float64(stat.EmptyAcquireCount()), id)
		}
	}
}
