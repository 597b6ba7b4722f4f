// Package servicetest is Rolecall without a dialect, for tests: a control database of its own, accounts, and a real
// cluster that is registered. It is for _test files only, and must not import a dialect.
package servicetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/idempotency"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/observe"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/web"
)

// PublicURL is the base URL that the service says it has.
const PublicURL = "http://rolecall.test"

// PasswordCost makes password hashes cheap, where no test is about what they cost.
var PasswordCost = identity.PasswordCost{Memory: 64, Passes: 1}

// Service is what the dialects stand on.
type Service struct {
	PG          *pgtest.Cluster
	DB          *control.DB
	Accounts    *account.Store
	Audit       *audit.Log
	Identity    *identity.Service
	Clusters    *cluster.Registry
	Users       *dbuser.Service
	Fleet       *fleet.Service
	Idempotency *idempotency.Store
	Events      *event.Service
	ClusterID   string
	Log         *Log
	// DatabaseURL is the control database's.
	DatabaseURL string
	// MasterKey is the key that seals, as a line of the master key file.
	MasterKey string
}

var made atomic.Int64

var shared struct {
	sync.Once
	*Service
}

// Shared returns the one service of this process on pgtest.Shared, made at first use: most of what New costs is keys and
// password hashes. It has the admin root. Tests keep apart by the names of their users.
func Shared(t testing.TB) *Service {
	t.Helper()
	shared.Do(func() {
		s := New(forever{t}, pgtest.Shared(t))
		s.Admin(t, "root")
		shared.Service = s
	})
	if shared.Service == nil {
		t.Fatal("the test that made the shared service failed")
	}
	return shared.Service
}

// forever leaves what lives as long as the process to its end.
type forever struct{ testing.TB }

func (forever) Cleanup(func()) {}

// New starts a service on a cluster, under its Administrator. Its control database lies in the cluster, too.
func New(t testing.TB, pg *pgtest.Cluster) *Service {
	role, password := Administrator(t, pg)
	return NewAs(t, pg, role, password)
}

var administrators sync.Mutex

// Administrator returns the administering role of a cluster: its superuser or, where ROLECALL_TEST_ADMINISTRATOR is
// "least", the role that docs/clusters.md says to make, which is made at first use.
func Administrator(t testing.TB, pg *pgtest.Cluster) (role, password string) {
	t.Helper()
	switch kind := os.Getenv("ROLECALL_TEST_ADMINISTRATOR"); kind {
	case "", "superuser":
		return pg.User, pg.Password
	case "least":
	default:
		t.Fatalf("ROLECALL_TEST_ADMINISTRATOR is %q; it may be superuser or least", kind)
	}
	administrators.Lock()
	defer administrators.Unlock()
	if !pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rolecall_admin')`) {
		pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administrator';
			GRANT pg_signal_backend TO rolecall_admin`)
	}
	return "rolecall_admin", "administrator"
}

// Patient waits several times as long for the control database as a server does: on a busy machine each statement takes
// longer.
var Patient = control.Waits{Lock: 12 * time.Second, Statement: 20 * time.Second, Connect: 20 * time.Second,
	Hang: 30 * time.Second}

// Control makes a control database of a name, without a service.
func Control(t testing.TB, pg *pgtest.Cluster, name string) *control.DB {
	t.Helper()
	return openControl(t, pg, name, control.NewMasterKey())
}

func openControl(t testing.TB, pg *pgtest.Cluster, name, masterKey string) *control.DB {
	t.Helper()
	copied := copyMigrated(t, pg, name)
	if !copied {
		pg.Exec(t, `CREATE DATABASE `+name)
	}
	keys, err := control.ParseKeyring(masterKey)
	must(t, err)
	db, err := control.Open(context.Background(), pg.URL(name), keys, Patient)
	must(t, err)
	t.Cleanup(db.Close)
	if copied {
		must(t, db.Pool.QueryRow(context.Background(), `UPDATE installation SET id = DEFAULT RETURNING id`).Scan(&db.Installation))
	}
	return db
}

var migrated struct {
	sync.Mutex
	times map[*pgtest.Cluster]int // how often each was asked for a control database
}

// copyMigrated makes a control database as a copy of one that has the schema, its installation and no key: that costs a
// fifth of what the migrations do. It makes none if it is the first of the cluster, which is often the only one.
func copyMigrated(t testing.TB, pg *pgtest.Cluster, name string) bool {
	t.Helper()
	migrated.Lock()
	defer migrated.Unlock()
	if migrated.times == nil {
		migrated.times = map[*pgtest.Cluster]int{}
	}
	migrated.times[pg]++
	if migrated.times[pg] == 1 {
		return false
	}
	const template = "servicetest_migrated"
	if migrated.times[pg] == 2 {
		pg.Exec(t, `CREATE DATABASE `+template)
		keys, err := control.ParseKeyring(control.NewMasterKey())
		must(t, err)
		db, err := control.Open(context.Background(), pg.URL(template), keys, Patient)
		must(t, err)
		_, err = db.Pool.Exec(context.Background(), `DO $$ DECLARE keys regclass; BEGIN
			FOR keys IN SELECT oid FROM pg_class WHERE relnamespace = 'rolecall'::regnamespace AND relname LIKE '%\_keys'
				AND relkind = 'r' LOOP
				EXECUTE 'DELETE FROM ' || keys;
			END LOOP; END $$`)
		db.Close()
		must(t, err)
	}
	strategy := "" // up to 14 there is only the one that copies files
	if pg.Major >= 15 {
		strategy = " STRATEGY file_copy"
	}
	pg.Exec(t, `CREATE DATABASE `+name+` TEMPLATE `+template+strategy)
	return true
}

// NewAs is New with another administering role.
func NewAs(t testing.TB, pg *pgtest.Cluster, role, password string) *Service {
	t.Helper()
	ctx := context.Background()
	name := fmt.Sprintf("control_%d", made.Add(1))
	s := &Service{PG: pg, Log: &Log{}, DatabaseURL: pg.URL(name), MasterKey: control.NewMasterKey()}
	s.DB = openControl(t, pg, name, s.MasterKey)
	must(t, shareSigningKey(ctx, s.DB))
	s.open(t)
	s.ClusterID = s.Register(t, "main", pg, role, password)
	return s
}

// Replica is another service with the same control database.
func (s *Service) Replica(t testing.TB) *Service {
	t.Helper()
	replica := *s
	keys, err := control.ParseKeyring(s.MasterKey)
	must(t, err)
	replica.DB, err = control.Open(context.Background(), s.DatabaseURL, keys, Patient)
	must(t, err)
	t.Cleanup(replica.DB.Close)
	replica.open(t)
	return &replica
}

// open opens what a service has over its control database.
func (s *Service) open(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(s.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	s.Identity, err = identity.New(ctx, s.DB, identity.Config{Issuer: PublicURL + "/uaa/oauth/token", PublicURL: PublicURL,
		PasswordCost: PasswordCost, Log: logger})
	must(t, err)
	s.Accounts = s.Identity.Accounts()
	s.Audit = s.Accounts.Audit
	s.Clusters, err = cluster.Open(ctx, s.DB, logger)
	must(t, err)
	t.Cleanup(s.Clusters.Close)
	s.Users = &dbuser.Service{Clusters: s.Clusters, Audit: s.Audit, Accounts: s.Accounts,
		LeaseStore: &lease.Store{DB: s.DB}, ObserveStore: &observe.Store{DB: s.DB}, Log: logger}
	s.Fleet = &fleet.Service{DB: s.DB, Users: s.Users, Log: logger}
	s.Events = &event.Service{DB: s.DB, Audit: s.Audit, Log: logger, AllowPrivate: true}
	s.Idempotency = &idempotency.Store{DB: s.DB, Accounts: s.Accounts, Log: logger}
}

var signingKey struct {
	sync.Mutex
	private []byte // PKCS #8
}

// shareSigningKey stores the signing key that all services of this process share. To generate one costs more than the rest
// of a service.
func shareSigningKey(ctx context.Context, db *control.DB) error {
	signingKey.Lock()
	defer signingKey.Unlock()
	if signingKey.private == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		if signingKey.private, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return err
		}
	}
	const kid = "rolecall-servicetest"
	_, err := db.Pool.Exec(ctx, `INSERT INTO signing_keys (kid, private_key) VALUES ($1, $2)`,
		kid, db.Keys.Seal("signing_keys/"+kid+"/private_key", signingKey.private))
	return err
}

// Door returns a door with the given limits in requests a second; 0: none.
func (s *Service) Door(perSecond float64) *door.Door {
	return &door.Door{Identity: s.Identity, PerAccount: &web.Limiter{PerSecond: perSecond},
		PerAddress: &web.Limiter{PerSecond: perSecond}}
}

// Register registers a cluster under an administering role and returns its id.
func (s *Service) Register(t testing.TB, displayName string, pg *pgtest.Cluster, role, password string) string {
	t.Helper()
	c := &cluster.Cluster{
		ID:          uuid.New(),
		DisplayName: displayName,
		Location:    "de/fra",
		Connection: cluster.Connection{
			URL:      fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, pg.Port),
			TLS:      cluster.TLS{Mode: "disable"},
			Password: secret.Text(password),
		},
		SystemIdentifier: pgtest.Value[string](t, pg, `SELECT system_identifier::text FROM pg_control_system()`),
		CreatedBy:        "test",
	}
	by := audit.Entry{AccountGUID: "test", AccountName: "test", Target: displayName}
	must(t, s.Clusters.Ensure(context.Background(), c, by))
	return c.ID.String()
}

// Access sets the access rules of a cluster.
func (s *Service) Access(t testing.TB, clusterID string, manage, view []string) {
	t.Helper()
	ctx := context.Background()
	_, err := s.DB.Pool.Exec(ctx, `UPDATE clusters
		SET manage = coalesce($2::text[], '{}'), view = coalesce($3::text[], '{}'), updated_at = clock_timestamp()
		WHERE id = $1`, clusterID, manage, view)
	must(t, err)
	must(t, s.Clusters.Reload(ctx))
}

// Admin makes an account with every right, whose password is its name and "-password".
func (s *Service) Admin(t testing.TB, username string) (guid string) {
	t.Helper()
	guid, _, err := s.Identity.Bootstrap(context.Background(), username, username+"-password")
	must(t, err)
	return guid
}

// Account makes an account with the scopes and labels, whose password is its name and "-password".
func (s *Service) Account(t testing.TB, username string, scopes []string, labels map[string]string) (guid string) {
	t.Helper()
	ctx := context.Background()
	guid = s.Admin(t, username)
	_, err := s.DB.Pool.Exec(ctx, `UPDATE accounts SET scopes = coalesce($2::text[], '{}'), labels = coalesce($3::jsonb, '{}')
		WHERE guid = $1`, guid, scopes, labels)
	must(t, err)
	return guid
}

// AuditRow is a row of the audit log.
type AuditRow struct {
	Phase, Action, Outcome, Account, Target, Detail string
}

// AuditRows returns the rows about a target, in order.
func (s *Service) AuditRows(t testing.TB, target string) []AuditRow {
	t.Helper()
	rows, err := s.DB.Pool.Query(context.Background(), `
		SELECT phase, action, coalesce(outcome, ''), account_guid, target, detail::text FROM audit
		WHERE target = $1 ORDER BY id`, target)
	must(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[AuditRow])
	must(t, err)
	return found
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Log is what the service has logged.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Clone(l.buf.String())
}
