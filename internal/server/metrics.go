package server

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/fleet"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/task"
	"rolecall/internal/web"
)

// metrics are what Prometheus reads. No label has a value that a client can invent.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
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

// state is what is read when Prometheus asks: of the clusters, the control database and the background work.
type state struct {
	db       *control.DB
	users    *dbuser.Service
	fleet    *fleet.Service
	identity *identity.Service
}

// stateTimeout bounds a scrape while the control database does not answer.
const stateTimeout = 2 * time.Second

var (
	byCluster   = []string{"cluster"}
	clusterInfo = prometheus.NewDesc("rolecall_cluster_info", "Always 1: the name of the cluster with this id.",
		[]string{"cluster", "name"}, nil)
	clusterUp = prometheus.NewDesc("rolecall_cluster_up",
		"Whether the cluster answered the last check and takes changes; no sample before the first.", byCluster, nil)
	clusterStopped = prometheus.NewDesc("rolecall_cluster_stopped",
		"Whether another cluster answers in its place, so that nothing is done there; no sample before the first probe.",
		byCluster, nil)
	clusterProblems = prometheus.NewDesc("rolecall_cluster_problems",
		"Problems that clusters show lists.", byCluster, nil)
	clusterConns = prometheus.NewDesc("rolecall_cluster_connections",
		"Connections to the cluster, by state.", []string{"cluster", "state"}, nil)
	clusterWaits = prometheus.NewDesc("rolecall_cluster_connection_waits_total",
		"Requests that had to wait for a connection to the cluster.", byCluster, nil)
	clusterUnrecorded = prometheus.NewDesc("rolecall_cluster_unrecorded_users",
		"Users whose last change is missing from the audit log; no sample before the first comparison.", byCluster, nil)
	changedOutside = prometheus.NewDesc("rolecall_passwords_changed_outside_total",
		"Passwords of users that this replica has found changed by SQL.", byCluster, nil)
	clusterCompared = prometheus.NewDesc("rolecall_cluster_comparison_last_success_timestamp_seconds",
		"When the cluster was last compared with the audit log, which is done every hour; no sample before the first comparison.",
		byCluster, nil)
	leasesDesc = prometheus.NewDesc("rolecall_leases", "Leases that have not ended, by state.",
		[]string{"cluster", "state"}, nil)
	lateLeases = prometheus.NewDesc("rolecall_leases_late",
		"Leases that should have ended more than a minute ago, and are neither ended nor blocked.", byCluster, nil)
	failingCredentials = prometheus.NewDesc("rolecall_credentials_failing",
		"Stored credentials whose last rotation has failed, or whose cluster is unreachable.", byCluster, nil)
	operationsDesc = prometheus.NewDesc("rolecall_operations_running", "Operations that have not ended.", nil, nil)
	operationUsers = prometheus.NewDesc("rolecall_operation_users_waiting",
		"Users of these operations that have no result yet.", byCluster, nil)
	dueTasks = prometheus.NewDesc("rolecall_tasks_due",
		"Work in the background that is due, by kind.", []string{"kind"}, nil)
	lateTasks = prometheus.NewDesc("rolecall_tasks_late",
		"Work in the background that has been due for more than a minute, by kind.", []string{"kind"}, nil)
	controlConns = prometheus.NewDesc("rolecall_control_connections",
		"Connections to the control database, by state.", []string{"state"}, nil)
	controlWaits = prometheus.NewDesc("rolecall_control_connection_waits_total",
		"Requests that had to wait for a connection to the control database.", nil, nil)
	controlUp = prometheus.NewDesc("rolecall_control_up",
		"Whether the control database answered this scrape; if not, the samples that are read from it are missing.", nil, nil)
	newerMigrations = prometheus.NewDesc("rolecall_control_newer_migrations",
		"Migrations of a newer release in the control database.", nil, nil)
	registeredDesc = prometheus.NewDesc("rolecall_clusters", "Registered clusters.", nil, nil)
	unsealedRows   = prometheus.NewDesc("rolecall_audit_unsealed_rows",
		"Rows of the audit log that wait to be sealed.", nil, nil)
	unsealedAge = prometheus.NewDesc("rolecall_audit_oldest_unsealed_row_age_seconds",
		"How long the oldest of these rows has waited; 0 if there is none.", nil, nil)
	overdueAttempts = prometheus.NewDesc("rolecall_audit_overdue_attempts",
		"Attempts without an outcome whose time is over, and that the settler has yet to resolve.", nil, nil)
	overdueAge = prometheus.NewDesc("rolecall_audit_oldest_overdue_attempt_age_seconds",
		"How long ago the oldest of these attempts was made; 0 if there is none.", nil, nil)
	forgedRows = prometheus.NewDesc("rolecall_audit_forged_rows_total",
		"Rows of the audit log that this replica has sealed though Rolecall did not write them.", nil, nil)
	sealerSuccess = prometheus.NewDesc("rolecall_audit_sealer_last_success_timestamp_seconds",
		"When the sealer of this replica last worked, or saw that there was nothing to do; no sample before that.", nil, nil)
	settlerSuccess = prometheus.NewDesc("rolecall_audit_settler_last_success_timestamp_seconds",
		"When the settler of this replica last worked, or saw that another replica's does; no sample before that.", nil, nil)
	failedSignIns = prometheus.NewDesc("rolecall_sign_ins_failed_total",
		"Failed sign-ins with a password or client secret.", nil, nil)
	throttledSignIns = prometheus.NewDesc("rolecall_sign_ins_throttled_total",
		"Sign-ins that were refused because of failed ones before.", nil, nil)
)

// Describe sends nothing: so the registry does not check samples that depend on a database.
func (*state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	c := collected{ch}
	s.collectControl(c)
	leases := s.collectLeases(c)
	s.collectOperations(c)
	c.gauge(registeredDesc, float64(len(s.users.Clusters.All())))
	for _, cl := range s.users.Clusters.All() {
		s.collectCluster(c, cl, leases[cl.ID])
	}
	failed, throttled := s.identity.SignIns()
	c.counter(failedSignIns, failed)
	c.counter(throttledSignIns, throttled)
	c.counter(forgedRows, s.users.Audit.Forged())
	c.time(sealerSuccess, s.users.Audit.LastPass())
	c.time(settlerSuccess, s.users.LastSettled())
}

func (s *state) collectControl(c collected) {
	pool, signIn := s.db.Pool.Stat(), s.db.SignIn.Stat()
	c.connections(controlConns, pool.AcquiredConns()+signIn.AcquiredConns(), pool.IdleConns()+signIn.IdleConns())
	c.counter(controlWaits, pool.EmptyAcquireCount()+signIn.EmptyAcquireCount())
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	log, err := s.users.Audit.State(ctx)
	if err != nil {
		c.gauge(controlUp, 0)
		return
	}
	c.gauge(controlUp, 1)
	c.gauge(unsealedRows, float64(log.Unsealed))
	c.gauge(unsealedAge, log.OldestRow.Seconds())
	c.gauge(overdueAttempts, float64(log.Overdue))
	c.gauge(overdueAge, log.OldestTry.Seconds())
	if newer, err := s.db.Newer(ctx); err == nil {
		c.gauge(newerMigrations, float64(newer))
	}
}

// collectLeases returns how many leases each cluster has.
func (s *state) collectLeases(c collected) map[uuid.UUID]lease.Count {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	tasks, err := task.Counts(ctx, s.db)
	if err != nil {
		return nil
	}
	leases, err := s.users.LeaseStore.Counts(ctx)
	if err != nil {
		return nil
	}
	for _, kind := range append(s.users.Tasks(), s.fleet.Tasks()...) {
		due, late := 0, 0
		for _, n := range tasks {
			if n.Kind == kind.Name {
				due, late = due+n.Due, late+n.Late
			}
		}
		c.gauge(dueTasks, float64(due), kind.Name)
		c.gauge(lateTasks, float64(late), kind.Name)
	}
	for _, cl := range s.users.Clusters.All() {
		id, n := cl.ID.String(), leases[cl.ID]
		c.gauge(leasesDesc, float64(n.Active), id, string(lease.Active))
		c.gauge(leasesDesc, float64(n.Ending), id, string(lease.Ending))
		c.gauge(leasesDesc, float64(n.Blocked), id, string(lease.Blocked))
		c.gauge(lateLeases, float64(n.Late), id)
		failing := n.Failing
		if cl.Unreachable() {
			failing = n.Credentials
		}
		c.gauge(failingCredentials, float64(failing), id)
	}
	return leases
}

func (s *state) collectOperations(c collected) {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	running, waiting, err := s.fleet.Numbers(ctx)
	if err != nil {
		return
	}
	c.gauge(operationsDesc, float64(running))
	for _, cl := range s.users.Clusters.All() {
		c.gauge(operationUsers, float64(waiting[cl.ID]), cl.ID.String())
	}
}

func (s *state) collectCluster(c collected, cl *cluster.Cluster, leases lease.Count) {
	id := cl.ID.String()
	c.gauge(clusterInfo, 1, id, cl.DisplayName)
	h := cl.LastHealth()
	if !h.Checked.IsZero() {
		c.gauge(clusterUp, number(h.Reachable), id)
		c.gauge(clusterStopped, number(h.Stopped), id)
	}
	problems := len(cl.Capabilities.Problems) + int(number(h.Problem != "")) + dbuser.CountProblems(leases) +
		int(number(cl.Connection.PlaintextProblem() != ""))
	if found := s.users.Unrecorded(cl); found != nil {
		c.gauge(clusterUnrecorded, float64(found.Count), id)
		problems += int(number(found.Problem() != ""))
	}
	c.gauge(clusterProblems, float64(problems), id)
	c.counter(changedOutside, s.users.ChangedOutside(cl), id)
	c.time(clusterCompared, s.users.LastCompared(cl), id)
	if stat := cl.Stat(); stat != nil {
		c.connections(clusterConns, stat.AcquiredConns(), stat.IdleConns(), id)
		c.counter(clusterWaits, stat.EmptyAcquireCount(), id)
	}
}

// collected takes the samples of one scrape.
type collected struct{ ch chan<- prometheus.Metric }

func (c collected) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c collected) counter(d *prometheus.Desc, v int64, labels ...string) {
	c.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// time is a gauge that has no sample before the first time.
func (c collected) time(d *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		c.gauge(d, float64(at.UnixMilli())/1000, labels...)
	}
}

func (c collected) connections(d *prometheus.Desc, used, idle int32, labels ...string) {
	c.gauge(d, float64(used), append(labels, "used")...)
	c.gauge(d, float64(idle), append(labels, "idle")...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
