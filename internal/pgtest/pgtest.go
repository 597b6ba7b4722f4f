// Package pgtest gives tests a real, throwaway PostgreSQL. It is for _test files only.
//
// A cluster costs about 0.2 s. Without a PostgreSQL on the machine the test fails; nothing is skipped. Roles belong to
// a cluster, not to a database: tests that share one keep apart by the names of their roles.
//
// Fixtures of Rolecall, and anything that knows its packages, must not enter here: each of them may be tested with it.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/localpg"
	"rolecall/internal/sqlstate"
)

// stepTimeout is how long one step may take before the test fails.
const stepTimeout = 2 * time.Minute

// Cluster is a running PostgreSQL. The embedded Server has its host, port, superuser and password.
type Cluster struct {
	*localpg.Server
	options localpg.Options

	mu    sync.Mutex // guards admin
	admin *pgx.Conn  // to database postgres, made at first use
}

var shared struct {
	usable bool // Main will stop it
	once   sync.Once
	folder *folder
	*Cluster
	err error
}

// Main is for TestMain of a package that uses Shared: it runs the tests, removes the shared cluster, calls cleanup and
// exits.
func Main(m *testing.M, cleanup ...func()) {
	shared.usable = true
	code := m.Run()
	if shared.Cluster != nil {
		shared.stop()
	}
	if shared.folder != nil {
		shared.folder.remove()
	}
	for _, clean := range cleanup {
		clean()
	}
	os.Exit(code)
}

// Shared returns the cluster that all tests of this process share, started at first use. It collects pg_stat_statements
// where that is installed.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	if !shared.usable {
		t.Fatal("pgtest.Shared needs: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	shared.once.Do(func() {
		shared.folder, shared.Cluster, shared.err = start(0, nil)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Cluster
}

// New returns a cluster of its own for t, which is removed when t ends. The settings come on top of those of Shared.
func New(t testing.TB, settings map[string]string) *Cluster {
	t.Helper()
	return NewMajor(t, 0, settings)
}

// NewMajor is New with the PostgreSQL of a major, such as 16, which scripts/install-majors has installed.
func NewMajor(t testing.TB, major int, settings map[string]string) *Cluster {
	t.Helper()
	f, c, err := start(major, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stop()
		if err := f.remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// start starts a cluster on a copy of the template.
func start(major int, settings map[string]string) (*folder, *Cluster, error) {
	bin, err := findBinaries(major)
	if err != nil {
		return nil, nil, err
	}
	f, err := newFolder(bin)
	if err != nil {
		return nil, nil, err
	}
	all := map[string]string{"max_wal_size": "256MB"} // the data may be in memory
	if hasLibrary(bin, "pg_stat_statements") {
		all["shared_preload_libraries"] = "pg_stat_statements"
	}
	for name, value := range settings {
		all[name] = value
	}
	c := &Cluster{options: localpg.Options{Dir: f.path, BinDir: bin, Settings: all, NoSync: true, DieWithParent: true}}
	if err := c.start(); err != nil {
		return nil, nil, errors.Join(err, f.remove())
	}
	return f, c, nil
}

// hasLibrary looks in the folders that Debian's packages and upstream's own installation use.
func hasLibrary(bin, name string) bool {
	for _, dir := range []string{"../lib", "../lib/postgresql"} {
		if _, err := os.Stat(filepath.Join(bin, dir, name+".so")); err == nil {
			return true
		}
	}
	return false
}

func (c *Cluster) start() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	c.Server, err = localpg.Start(ctx, c.options)
	return err
}

// stop does not wait for a checkpoint: the data are thrown away.
func (c *Cluster) stop() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	c.disconnect()
	c.Server.Stop(now)
}

// Stop shuts the server down, as in an outage, and ends all its sessions.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	c.disconnect()
	if err := c.Server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again after Stop, on the same port. It must not run at the same time as other methods.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	port := c.Port
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	if c.Port != port {
		t.Fatalf("the server came back on port %d: somebody took its port %d", c.Port, port)
	}
}

// URL is the superuser's, for a database.
func (c *Cluster) URL(db string) string {
	return c.url(c.User, c.Password, db)
}

func (c *Cluster) url(user, password, db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     c.Host + ":" + strconv.Itoa(c.Port),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (c *Cluster) connect(user, password, db string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	// The password is set apart: an error about the URL would quote it, and an empty one would be looked for elsewhere.
	config, err := pgx.ParseConfig(c.url("", "", "") + "&require_auth=scram-sha-256&passfile=/dev/null")
	if err != nil {
		return nil, err
	}
	config.User, config.Password, config.Database = user, password, db
	return pgx.ConnectConfig(ctx, config)
}

// Connect connects until the end of t.
func (c *Cluster) Connect(t testing.TB, user, password, db string) *pgx.Conn {
	t.Helper()
	conn, err := c.connect(user, password, db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Login returns nil when user can log in to database postgres over TCP, with SCRAM and this password. It prepares the
// password as pgx does, which differs from libpq for some characters beyond ASCII: see Psql.
func (c *Cluster) Login(user, password string) error {
	conn, err := c.connect(user, password, "postgres")
	if err != nil {
		return err
	}
	return conn.Close(context.Background())
}

// Psql runs sql in database postgres through psql, and so logs in as libpq does. It returns what psql prints, unaligned
// and without headers; the error has psql's own text.
func (c *Cluster) Psql(user, password, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	psql, err := findPsql(c.BinDir)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, psql, "--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--quiet",
		"--set=ON_ERROR_STOP=1", "--command="+sql)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C",
		"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(c.Port), "PGSSLMODE=disable", "PGCLIENTENCODING=UTF8",
		"PGUSER=" + user, "PGPASSWORD=" + password, "PGDATABASE=postgres", "PGPASSFILE=/dev/null",
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("psql as %s: %w: %s", user, err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// findPsql prefers the server's own psql. Not all have one.
func findPsql(bin string) (string, error) {
	if psql := filepath.Join(bin, "psql"); isFile(psql) {
		return psql, nil
	}
	return anyPsql()
}

// anyPsql prefers that of the PostgreSQL that Rolecall would find: Debian's in the PATH is a script, which takes longer to
// choose one than that takes to run.
var anyPsql = sync.OnceValues(func() (string, error) {
	bin, _, _ := localpg.FindBinaries("", 0)
	if psql := filepath.Join(bin, "psql"); isFile(psql) {
		return psql, nil
	}
	return exec.LookPath("psql")
})

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Exec runs sql as the superuser in database postgres, in one session for all calls. Several statements may be given
// when there are no args.
func (c *Cluster) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	for end := time.Now().Add(stepTimeout); ; {
		err := c.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, sql, args...)
			return err
		})
		// Another test may visit template1 while a database is made of it.
		if sqlstate.Is(err, sqlstate.ObjectInUse) && time.Now().Before(end) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return
	}
}

// Value returns the one value that sql selects, as Exec runs it. No row, or more than one, fails t.
func Value[T any](t testing.TB, c *Cluster, sql string, args ...any) (value T) {
	t.Helper()
	err := c.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		value, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func (c *Cluster) asAdmin(do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.admin == nil || c.admin.IsClosed() {
		conn, err := c.connect(c.User, c.Password, "postgres")
		if err != nil {
			return err
		}
		c.admin = conn
	}
	return do(ctx, c.admin)
}

func (c *Cluster) disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.admin != nil {
		c.admin.Close(context.Background())
		c.admin = nil
	}
}

// Set changes a setting of the whole cluster, and returns when each session obeys it: those that come, and those that are
// there, which the server tells before it lets the next one in.
func (c *Cluster) Set(t testing.TB, name, value string) {
	t.Helper()
	loaded := func() (at time.Time) {
		conn := c.Connect(t, c.User, c.Password, "postgres")
		defer conn.Close(context.Background())
		if err := conn.QueryRow(context.Background(), `SELECT pg_conf_load_time()`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	before := loaded()
	c.Exec(t, fmt.Sprintf(`ALTER SYSTEM SET %s = '%s'`, name, value))
	c.Exec(t, `SELECT pg_reload_conf()`)
	for end := time.Now().Add(stepTimeout); !loaded().After(before); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s = %s has no effect", name, value)
		}
	}
}

// UsualIterations has the cluster store passwords with as many iterations as PostgreSQL does without a setting.
func (c *Cluster) UsualIterations(t testing.TB) {
	t.Helper()
	if c.Major >= 16 {
		c.Set(t, "scram_iterations", "4096")
		c.Exec(t, `ALTER ROLE `+c.User+` PASSWORD '`+c.Password+`'`)
	}
}

// LogStatements has the cluster log every statement from now on, and how long it took.
func (c *Cluster) LogStatements(t testing.TB) {
	t.Helper()
	c.Set(t, "log_min_duration_statement", "0")
	c.Set(t, "log_statement", "all")
}

// ReadLog returns PostgreSQL's whole log since the cluster was made.
func (c *Cluster) ReadLog(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(c.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
