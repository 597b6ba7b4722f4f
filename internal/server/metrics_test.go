package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rolecall/internal/audit"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

// scrape returns the samples of /metrics, by name and labels.
func scrape(t *testing.T, h http.Handler) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.Contains(line, "} ") {
			name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		} else {
			name += "}"
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(line, "#") {
			samples[name] = n
		}
	}
	return samples
}

// Each state that needs somebody shows in the metrics, and is gone from them when it is over.
func TestMetrics(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	m := newMetrics(&state{db: s.DB, users: s.Users, fleet: s.Fleet, identity: s.Identity, events: s.Events,
		tls: certificateUntil(expires)}, "1.2.3")
	m.observe(&web.Info{Route: "/x"}, http.MethodGet, 200, time.Millisecond)
	handler := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	metric := func(name string) float64 {
		t.Helper()
		v, ok := scrape(t, handler)[strings.ReplaceAll(name, "ID", s.ClusterID)]
		if !ok {
			t.Errorf("there is no sample %s", name)
		}
		return v
	}
	expect := func(want map[string]float64) {
		t.Helper()
		for name, v := range want {
			if got := metric(name); got != v {
				t.Errorf("%s is %v, want %v", name, got, v)
			}
		}
	}
	logger := slog.New(slog.DiscardHandler)
	c, err := s.Clusters.Get(s.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	c.Health(t.Context())
	begin := func(limit time.Duration) {
		t.Helper()
		e := audit.Entry{Action: audit.CreateUser, Cluster: c.ID, Target: "x"}
		if _, err := s.Audit.Begin(t.Context(), e, limit); err != nil {
			t.Fatal(err)
		}
	}
	for name, until := range map[string]string{"soon": "tomorrow", "later": "2099-01-01", "over": "yesterday"} {
		pg.Exec(t, "CREATE ROLE "+name+" LOGIN VALID UNTIL '"+until+"'")
	}
	begin(0)
	before := scrape(t, handler)
	for _, name := range []string{"rolecall_audit_sealer_last_success_timestamp_seconds",
		"rolecall_audit_settler_last_success_timestamp_seconds"} {
		if _, ok := before[name]; ok {
			t.Errorf("%s has a sample before anything was done", name)
		}
	}
	if before["rolecall_audit_oldest_unsealed_row_age_seconds"] <= 0 ||
		before["rolecall_audit_oldest_overdue_attempt_age_seconds"] <= 0 {
		t.Errorf("ages are %v", before)
	}
	expect(map[string]float64{
		`rolecall_clusters`: 1, `rolecall_control_up`: 1, `rolecall_control_newer_migrations`: 0,
		`rolecall_cluster_info{cluster="main",id="ID"}`: 1, `rolecall_cluster_up{cluster="main"}`: 1,
		`rolecall_cluster_stopped{cluster="main"}`:          0,
		`rolecall_tls_certificate_expiry_timestamp_seconds`: float64(expires.Unix()), `rolecall_audit_overdue_attempts`: 1,
		`rolecall_sign_ins_total{result="failed"}`: 0, `rolecall_sign_ins_total{result="throttled"}`: 0,
		`rolecall_audit_forged_rows_total`: 0,
	})
	if before["rolecall_audit_unsealed_rows"] < 2 { // the admin's account, and the attempt
		t.Errorf("%v rows are not sealed", before["rolecall_audit_unsealed_rows"])
	}

	// What is overdue is resolved, and what waits is sealed.
	if err := s.Users.SettleOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(t.Context())
	stop() // so it seals once
	s.Audit.Run(running, 0, logger)
	expect(map[string]float64{`rolecall_audit_unsealed_rows`: 0, `rolecall_audit_oldest_unsealed_row_age_seconds`: 0,
		`rolecall_audit_overdue_attempts`: 0, `rolecall_audit_oldest_overdue_attempt_age_seconds`: 0,
		`rolecall_cluster_unrecorded_users{cluster="main"}`: 0, `rolecall_cluster_users_expiring{cluster="main"}`: 1})
	if metric(`rolecall_cluster_connection_wait_seconds_count{cluster="main"}`) < 1 ||
		metric(`rolecall_cluster_connection_wait_seconds_bucket{cluster="main",le="+Inf"}`) < 1 {
		t.Error("no wait for a connection was counted")
	}
	for _, name := range []string{"rolecall_audit_sealer_last_success_timestamp_seconds",
		"rolecall_audit_settler_last_success_timestamp_seconds", "rolecall_master_key_first_used_timestamp_seconds",
		`rolecall_cluster_comparison_last_success_timestamp_seconds{cluster="main"}`} {
		if at := time.UnixMilli(int64(1000 * metric(name))); time.Since(at).Abs() > time.Hour {
			t.Errorf("%s is %s", name, at)
		}
	}

	// Failed sign-ins, a row that Rolecall did not write, and a newer release.
	for range 7 {
		wrong := identity.Credential{Scheme: identity.Basic, Value: "cm9vdDp3cm9uZy1wYXNzd29yZA=="}
		if _, err := s.Identity.Authenticate(t.Context(), wrong, "192.0.2.1"); err == nil {
			t.Fatal("a wrong password is accepted")
		}
	}
	if failed, throttled := metric(`rolecall_sign_ins_total{result="failed"}`),
		metric(`rolecall_sign_ins_total{result="throttled"}`); failed < 5 ||
		throttled < 1 {
		t.Errorf("%v sign-ins failed, %v were throttled", failed, throttled)
	}
	for _, sql := range []string{
		`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES (gen_random_uuid(), 'outcome',
			'x', 'done', '', '')`,
		`INSERT INTO migrations (version, name) SELECT max(version) + 2, 'next' FROM migrations`} {
		if _, err := s.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	s.Audit.Run(running, 0, logger)
	expect(map[string]float64{"rolecall_audit_forged_rows_total": 1, "rolecall_control_newer_migrations": 2})

	// Leases, by state, and work that is not done.
	expect(map[string]float64{`rolecall_leases{cluster="main",state="active"}`: 0, `rolecall_leases_late{cluster="main"}`: 0,
		`rolecall_credentials_failing{cluster="main"}`: 0,
		`rolecall_tasks_due{kind="lease.end"}`:         0, `rolecall_tasks_late{kind="lease.end"}`: 0})
	problems := metric(`rolecall_cluster_problems{cluster="main"}`)
	for i, state := range []string{"active", "ending", "blocked", "blocked"} {
		if _, err := s.DB.Pool.Exec(t.Context(), `
			WITH l AS (
			  INSERT INTO leases (id, cluster_id, username, for_role, account_guid, ttl, created_at, expires_at, max_expires_at,
			    state, end_reason)
			  SELECT gen_random_uuid(), $1, 'app_' || $2, 'app', 'alice', '1h', t, t, t, $3,
			    CASE WHEN $3 <> 'active' THEN 'expired' END
			  FROM (SELECT now() - interval '2 minutes') AS past (t)
			  RETURNING id, cluster_id, expires_at)
			INSERT INTO tasks (kind, key, cluster_id, due) SELECT 'lease.end', id, cluster_id, expires_at FROM l`,
			c.ID, strconv.Itoa(i), state); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.DB.Pool.Exec(t.Context(), `INSERT INTO credentials (id, cluster_id, name, for_role, rotate_every, overlap,
		created_by, last_error) VALUES (gen_random_uuid(), $1, 'shop', 'app', '1h', '1h', 'alice', 'It does not answer.')`,
		c.ID); err != nil {
		t.Fatal(err)
	}
	expect(map[string]float64{`rolecall_leases{cluster="main",state="active"}`: 1,
		`rolecall_credentials_failing{cluster="main"}`:   1,
		`rolecall_leases{cluster="main",state="ending"}`: 1, `rolecall_leases{cluster="main",state="blocked"}`: 2,
		`rolecall_leases_late{cluster="main"}`: 2, `rolecall_tasks_due{kind="lease.end"}`: 4,
		`rolecall_tasks_late{kind="lease.end"}`: 4, `rolecall_cluster_problems{cluster="main"}`: problems + 3})

	// A webhook that does not accept what it gets.
	if _, err := s.DB.Pool.Exec(t.Context(), `
		WITH f AS (INSERT INTO followers (id, kind, seq, mac, failing_since)
		  VALUES (gen_random_uuid(), 'webhook', 0, '', now()) RETURNING id)
		INSERT INTO webhooks (id, name, url, events, secret, created_by)
		SELECT id, 'siem', 'https://siem.example.org', '{*}', '', 'root' FROM f`); err != nil {
		t.Fatal(err)
	}
	expect(map[string]float64{`rolecall_receiver_failing{kind="webhook",name="siem"}`: 1})
	if rows := metric(`rolecall_receiver_backlog_rows{kind="webhook",name="siem"}`); rows < 3 {
		t.Errorf("a webhook that has got nothing is %v rows behind", rows)
	}

	compareWithDocument(t, m.registry)

	// Without the control database a scrape still answers, and says so.
	pg.Stop(t)
	down := scrape(t, handler)
	if _, ok := down["rolecall_audit_unsealed_rows"]; ok || down["rolecall_control_up"] != 0 {
		t.Errorf("without the control database there is %v", down)
	}
}

// certificateUntil is the TLS configuration of a certificate that expires then.
func certificateUntil(expires time.Time) *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{{Leaf: &x509.Certificate{NotAfter: expires}}}}, nil
	}}
}

// compareWithDocument compares what is gathered with docs/metrics.md, both ways: names, labels and help.
func compareWithDocument(t *testing.T, registry *prometheus.Registry) {
	t.Helper()
	document, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(rolecall_[^`]+)` \\|").FindAllStringSubmatch(string(document), -1) {
		documented[row[1]] = true
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rolecall_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		name := f.GetName()
		if len(labels) > 0 {
			name += "{" + strings.Join(labels, ",") + "}"
		}
		if !documented[name] {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/metrics.md has %s, but there is no such metric", name)
	}
}

// However many scrapes there are, they ask the control database once in a while.
func TestScrapesAreCheap(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	st := &state{db: s.DB, users: s.Users, fleet: s.Fleet, identity: s.Identity, events: s.Events, age: time.Hour}
	handler := promhttp.HandlerFor(newMetrics(st, "1.2.3").registry, promhttp.HandlerOpts{})
	first := scrape(t, handler)
	asked := s.DB.Pool.Stat().AcquireCount()
	for range 20 {
		scrape(t, handler)
	}
	if now := s.DB.Pool.Stat().AcquireCount(); now != asked || first["rolecall_control_up"] != 1 {
		t.Errorf("20 scrapes used %d connections to the control database, and control_up is %v", now-asked,
			first["rolecall_control_up"])
	}
}

// Each request is counted once under its own route, method and status, also the first of several that come at once.
func TestCounts(t *testing.T) {
	m := newMetrics(&state{}, "1.2.3")
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.requests, m.took)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				m.observe(&web.Info{Route: "/x"}, http.MethodGet, 200, time.Millisecond)
				m.observe(&web.Info{Route: "/x"}, http.MethodGet, 404, time.Millisecond)
				m.observe(&web.Info{Route: "/y"}, http.MethodPut, 200, time.Millisecond)
				m.observe(&web.Info{}, "INVENTED", 404, time.Millisecond)
			}
		})
	}
	all.Wait()
	samples := scrape(t, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	for name, want := range map[string]float64{
		`rolecall_http_requests_total{method="GET",route="/x",status="200"}`:                40,
		`rolecall_http_requests_total{method="GET",route="/x",status="404"}`:                40,
		`rolecall_http_requests_total{method="PUT",route="/y",status="200"}`:                40,
		`rolecall_http_requests_total{method="other",route="unknown",status="404"}`:         40,
		`rolecall_http_request_duration_seconds_count{method="GET",route="/x"}`:             80,
		`rolecall_http_request_duration_seconds_count{method="PUT",route="/y"}`:             40,
		`rolecall_http_request_duration_seconds_count{method="other",route="unknown"}`:      40,
		`rolecall_http_request_duration_seconds_bucket{method="PUT",route="/y",le="0.001"}`: 40,
	} {
		if got := samples[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
