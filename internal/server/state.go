package server

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/task"
)

// state is what is read when Prometheus asks: of the clusters, the control database and the background work.
type state struct {
	db       *control.DB
	users    *dbuser.Service
	fleet    *fleet.Service
	identity *identity.Service
	events   *event.Service
	tls      *tls.Config   // nil: plain HTTP
	age      time.Duration // for which what was read from the control database is used again

	mu     sync.Mutex
	stored stored
}

// stored is what the control database said last.
type stored struct {
	at      time.Time
	samples samples
	leases  map[uuid.UUID]lease.Count
}

const (
	// stateTimeout bounds a scrape while the control database does not answer.
	stateTimeout = 2 * time.Second
	// stateAge bounds what scrapes cost the control database, however many there are.
	stateAge = 5 * time.Second
)

var (
	byCluster   = []string{"cluster"}
	clusterInfo = prometheus.NewDesc("rolecall_cluster_info", "Always 1: the id of the cluster with this name.",
		[]string{"cluster", "id"}, nil)
	clusterUp = prometheus.NewDesc("rolecall_cluster_up",
		"Whether the cluster answered the last check and takes changes; no sample before the first.", byCluster, nil)
	clusterStopped = prometheus.NewDesc("rolecall_cluster_stopped",
		"Whether another cluster answers in its place, so that nothing is done there; no sample before the first probe.",
		byCluster, nil)
	clusterProblems = prometheus.NewDesc("rolecall_cluster_problems",
		"Problems that clusters show lists.", byCluster, nil)
	clusterConns = prometheus.NewDesc("rolecall_cluster_connections",
		"Connections to the cluster, by state.", []string{"cluster", "state"}, nil)
	clusterWaits = prometheus.NewDesc("rolecall_cluster_connection_wait_seconds",
		"How long requests waited for a connection to the cluster.", byCluster, nil)
	clusterExpiring = prometheus.NewDesc("rolecall_cluster_users_expiring",
		"Active users that expire within 14 days, without leases, as the last comparison has found.", byCluster, nil)
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
		"Whether the control database answered when it was last asked; if not, the samples that are read from it are missing.",
		nil, nil)
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
	auditUnverified = prometheus.NewDesc("rolecall_audit_unverified_seconds",
		"For how long nobody has verified the audit log, on any replica.", nil, nil)
	receiverBacklog = prometheus.NewDesc("rolecall_receiver_backlog_rows",
		"Rows of the audit log that a webhook or an export of the log has not accepted.", []string{"kind", "name"}, nil)
	receiverFailing = prometheus.NewDesc("rolecall_receiver_failing",
		"Whether a webhook or an export of the log did not accept the last rows.", []string{"kind", "name"}, nil)
	signIns = prometheus.NewDesc("rolecall_sign_ins_total",
		"Sign-ins with a password, client secret or passcode, by result.", []string{"result"}, nil)
	certificateExpiry = prometheus.NewDesc("rolecall_tls_certificate_expiry_timestamp_seconds",
		"When the certificate that this replica presents expires; no sample without TLS.", nil, nil)
	masterKeyFirstUsed = prometheus.NewDesc("rolecall_master_key_first_used_timestamp_seconds",
		"When the master key that encrypts was first used by this installation.", nil, nil)
)

// Describe sends nothing: so the registry does not check samples that depend on a database.
func (*state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	read := s.read()
	for _, m := range read.samples {
		ch <- m
	}
	var c samples
	c.gauge(registeredDesc, float64(len(s.users.Clusters.All())))
	for _, cl := range s.users.Clusters.All() {
		s.collectCluster(&c, cl, read.leases)
	}
	pool, signIn := s.db.Pool.Stat(), s.db.SignIn.Stat()
	c.connections(controlConns, pool.AcquiredConns()+signIn.AcquiredConns(), pool.IdleConns()+signIn.IdleConns())
	c.counter(controlWaits, pool.EmptyAcquireCount()+signIn.EmptyAcquireCount())
	n := s.identity.SignIns()
	c.counter(signIns, n.Succeeded, "succeeded")
	c.counter(signIns, n.Failed, "failed")
	c.counter(signIns, n.Throttled, "throttled")
	c.counter(forgedRows, s.users.Audit.Forged())
	c.time(sealerSuccess, s.users.Audit.LastPass())
	c.time(settlerSuccess, s.users.LastSettled())
	c.time(certificateExpiry, expiry(s.tls))
	c.time(masterKeyFirstUsed, s.db.KeyFirstUsed)
	for _, m := range c {
		ch <- m
	}
}

// read is what the control database says, or has just said: a scrape while another one asks waits for its answer.
func (s *state) read() stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored.at.IsZero() || time.Since(s.stored.at) >= s.age {
		s.stored = s.ask()
		s.stored.at = time.Now()
	}
	return s.stored
}

func (s *state) ask() (st stored) {
	c := &st.samples
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	log, err := s.users.Audit.State(ctx)
	if err != nil {
		c.gauge(controlUp, 0)
		return st
	}
	c.gauge(controlUp, 1)
	c.gauge(unsealedRows, float64(log.Unsealed))
	c.gauge(unsealedAge, log.OldestRow.Seconds())
	c.gauge(overdueAttempts, float64(log.Overdue))
	c.gauge(overdueAge, log.OldestTry.Seconds())
	if newer, err := s.db.Newer(ctx); err == nil {
		c.gauge(newerMigrations, float64(newer))
	}
	if age, _, err := s.users.Audit.Unverified(ctx); err == nil {
		c.gauge(auditUnverified, age.Seconds())
	}
	if leases, err := s.users.LeaseStore.Counts(ctx); err == nil {
		st.leases = leases
	}
	s.askTasks(ctx, c)
	s.askOperations(ctx, c)
	s.askReceivers(ctx, c)
	return st
}

func (s *state) askTasks(ctx context.Context, c *samples) {
	tasks, err := task.Counts(ctx, s.db)
	if err != nil {
		return
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
}

func (s *state) askOperations(ctx context.Context, c *samples) {
	running, waiting, err := s.fleet.Numbers(ctx)
	if err != nil {
		return
	}
	c.gauge(operationsDesc, float64(running))
	for _, cl := range s.users.Clusters.All() {
		c.gauge(operationUsers, float64(waiting[cl.ID]), cl.DisplayName)
	}
}

func (s *state) askReceivers(ctx context.Context, c *samples) {
	list, err := s.events.Backlogs(ctx)
	if err != nil {
		return
	}
	for _, b := range list {
		c.gauge(receiverBacklog, float64(b.Rows), b.Kind, b.Name)
		c.gauge(receiverFailing, number(b.Failing || b.State == event.Failed), b.Kind, b.Name)
	}
}

func (s *state) collectCluster(c *samples, cl *cluster.Cluster, leases map[uuid.UUID]lease.Count) {
	name := cl.DisplayName
	c.gauge(clusterInfo, 1, name, cl.ID.String())
	h := cl.LastHealth()
	if !h.Checked.IsZero() {
		c.gauge(clusterUp, number(h.Reachable), name)
		c.gauge(clusterStopped, number(h.Stopped), name)
	}
	problems := len(cl.Capabilities.Problems) + len(s.users.ClusterProblems(cl, h))
	if leases != nil {
		n := leases[cl.ID]
		collectLeases(c, cl, n)
		problems += dbuser.CountProblems(n)
	}
	if found := s.users.Unrecorded(cl); found != nil {
		c.gauge(clusterUnrecorded, float64(found.Count), name)
		c.gauge(clusterExpiring, float64(s.users.Expiring(cl)), name)
	}
	c.gauge(clusterProblems, float64(problems), name)
	c.counter(changedOutside, s.users.ChangedOutside(cl), name)
	c.time(clusterCompared, s.users.LastCompared(cl), name)
	if stat := cl.Stat(); stat != nil {
		c.connections(clusterConns, stat.AcquiredConns(), stat.IdleConns(), name)
		c.waits(clusterWaits, cl.Waits(), name)
	}
}

func collectLeases(c *samples, cl *cluster.Cluster, n lease.Count) {
	name := cl.DisplayName
	c.gauge(leasesDesc, float64(n.Active), name, string(lease.Active))
	c.gauge(leasesDesc, float64(n.Ending), name, string(lease.Ending))
	c.gauge(leasesDesc, float64(n.Blocked), name, string(lease.Blocked))
	c.gauge(lateLeases, float64(n.Late), name)
	failing := n.Failing
	if cl.Unreachable() {
		failing = n.Credentials
	}
	c.gauge(failingCredentials, float64(failing), name)
}

// expiry is when the certificate expires that is presented now; zero: there is none.
func expiry(c *tls.Config) time.Time {
	if c == nil || c.GetConfigForClient == nil {
		return time.Time{}
	}
	current, err := c.GetConfigForClient(nil)
	if err != nil || len(current.Certificates) == 0 || current.Certificates[0].Leaf == nil {
		return time.Time{}
	}
	return current.Certificates[0].Leaf.NotAfter
}

// samples are those of one scrape.
type samples []prometheus.Metric

func (c *samples) gauge(d *prometheus.Desc, v float64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
}

func (c *samples) counter(d *prometheus.Desc, v int64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...))
}

// time is a gauge that has no sample before the first time.
func (c *samples) time(d *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		c.gauge(d, float64(at.UnixMilli())/1000, labels...)
	}
}

func (c *samples) connections(d *prometheus.Desc, used, idle int32, labels ...string) {
	c.gauge(d, float64(used), append(labels, "used")...)
	c.gauge(d, float64(idle), append(labels, "idle")...)
}

func (c *samples) waits(d *prometheus.Desc, w *cluster.Waits, labels ...string) {
	count, sum, upTo := w.Histogram()
	*c = append(*c, prometheus.MustNewConstHistogram(d, count, sum, upTo, labels...))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
