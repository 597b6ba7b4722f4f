package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/identity"
	"rolecall/internal/localpg"
)

// site is what runs: one PostgreSQL with its settings as they come, and on it Rolecall, further builds of it, and the peer.
type site struct {
	dir                  string
	rate                 string // the --rate-limit of every Rolecall
	pg                   *localpg.Server
	pgPID                int
	*installation                        // the one that everything is about
	alternatives         []*installation // that are measured in the same rounds
	bare                 *server
	peer                 *peer // nil: none
	superuser, adminRole login
}

// installation is a program with its control database, and with the cluster registered. Each has a control database of
// its own: of several servers on one, any may seal the log of another, and a newer one may change the schema of an older.
type installation struct {
	site     *site
	name     string // in tables
	program  string // its file
	rolecall *replica

	controlRole login
	keys        *control.Keyring
	cluster     string // id
	account     string // guid of the account that drives Rolecall
	user, admin string // tokens of it, and of an admin
}

// newInstallation names the control database and all files by the name.
func (s *site) newInstallation(name, program string) *installation {
	role := "rolecall"
	if name != sideRolecall {
		role += "_" + name
	}
	return &installation{site: s, name: name, program: program, controlRole: login{role, rand.Text(), role}}
}

// installations are all of them.
func (s *site) installations() []*installation {
	return append([]*installation{s.installation}, s.alternatives...)
}

// of returns the one that a side of the measurement is, nil if the side is no Rolecall.
func (s *site) of(side string) *installation {
	for _, i := range s.installations() {
		if i.name == side {
			return i
		}
	}
	return nil
}

// target returns where requests to it go.
func (i *installation) target() target {
	return target{
		clusterID: i.cluster,
		users:     "/databases/postgresql/clusters/" + i.cluster + "/users",
		user:      newEndpoint(i.rolecall.address, i.user),
		admin:     newEndpoint(i.rolecall.address, i.admin),
	}
}

// login is a way into the PostgreSQL.
type login struct{ role, password, database string }

// openSite starts everything in a new folder below parent. It is to be closed even when it fails.
func openSite(ctx context.Context, o *options, settings map[string]string) (s *site, err error) {
	s = &site{rate: o.rate}
	s.installation = s.newInstallation(sideRolecall, o.program)
	if s.dir, err = os.MkdirTemp(o.dir, "rolecall-bench-"); err != nil {
		return s, err
	}
	// As root, PostgreSQL runs as another user, which has to pass through.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return s, err
	}
	s.pg, err = localpg.Start(ctx, localpg.Options{Dir: filepath.Join(s.dir, "pg"), Settings: settings,
		DieWithParent: true})
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(filepath.Join(s.pg.BinDir, "pgbench")); err != nil {
		return s, fmt.Errorf("%w; it comes with PostgreSQL's packages: apt-get install postgresql", err)
	}
	s.superuser = login{s.pg.User, s.pg.Password, "postgres"}
	s.adminRole = login{"rolecall_admin", rand.Text(), "postgres"} // with the rights that docs/clusters.md asks for
	conn, err := s.connect(ctx, s.superuser)
	if err != nil {
		return s, err
	}
	session, err := readStat(int(conn.PgConn().PID()))
	if err != nil {
		return s, err
	}
	s.pgPID = session.parent
	if err := conn.Close(ctx); err != nil {
		return s, err
	}
	if err := s.exec(ctx, s.superuser, `CREATE ROLE %1$I LOGIN PASSWORD %2$L CREATEROLE CREATEDB; `+
		`GRANT pg_signal_backend TO %1$I`, s.adminRole.role, s.adminRole.password); err != nil {
		return s, err
	}
	if err := s.openRolecall(ctx); err != nil {
		return s, err
	}
	for _, a := range o.alternatives {
		i := s.newInstallation(a.name, a.program)
		s.alternatives = append(s.alternatives, i)
		if err := i.openRolecall(ctx); err != nil {
			return s, fmt.Errorf("%s: %w", a.name, err)
		}
	}
	if s.bare, err = s.startBare(ctx); err != nil {
		return s, err
	}
	if o.peerFolder != "" {
		s.peer, err = s.startPeer(ctx, o.peerFolder)
	}
	return s, err
}

// close ends everything that runs, and removes the folder.
func (s *site) close() error {
	var all []error
	if s.peer != nil {
		all = append(all, s.peer.stop())
	}
	if s.bare != nil {
		all = append(all, s.bare.stop())
	}
	for _, i := range s.installations() {
		if i.rolecall != nil {
			all = append(all, i.rolecall.stop())
		}
	}
	if s.pg != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		all = append(all, s.pg.Stop(ctx))
		if data := filepath.Dir(s.pg.DataDir); !strings.HasPrefix(data, s.dir) {
			all = append(all, os.RemoveAll(data))
		}
	}
	if s.dir != "" {
		all = append(all, os.RemoveAll(s.dir))
	}
	return errors.Join(all...)
}

func (s *site) url(l login) string {
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", l.role, l.password, s.pg.Host, s.pg.Port, l.database)
}

func (s *site) connect(ctx context.Context, l login) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.url(l))
}

// exec runs a statement that PostgreSQL's function format makes of the text and the arguments.
func (s *site) exec(ctx context.Context, l login, text string, args ...string) error {
	conn, err := s.connect(ctx, l)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return execFormat(ctx, conn, `SELECT format($1, VARIADIC $2::text[])`, text, args)
}

// execFormat runs the statements that a query makes.
func execFormat(ctx context.Context, conn *pgx.Conn, maker string, args ...any) error {
	var sql *string
	if err := conn.QueryRow(ctx, maker, args...).Scan(&sql); err != nil || sql == nil {
		return err
	}
	if _, err := conn.Exec(ctx, *sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%.40q: %w", *sql, err)
	}
	return nil
}

// query returns one value.
func query[T any](ctx context.Context, s *site, l login, sql string, args ...any) (value T, err error) {
	conn, err := s.connect(ctx, l)
	if err != nil {
		return value, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return value, conn.QueryRow(ctx, sql, args...).Scan(&value)
}

// replica is a rolecall serve.
type replica struct {
	server
	profiles string        // the address of its profiles
	ready    time.Duration // from its start until it takes requests
}

// serve starts a replica as docs/operating.md says. Beyond the defaults are the addresses, and the limit of requests:
// the bucket of one account lets 200 a second pass, and all requests are of one account.
func (i *installation) serve(ctx context.Context) (*replica, error) {
	r := &replica{}
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	r.address, r.profiles = local(port), local(port+1)
	cmd := exec.Command(i.program, "serve", "--listen="+r.address, "--public-url=http://"+r.address,
		"--metrics-listen=", "--pprof-listen="+r.profiles,
		"--database-url-file="+i.databaseURLFile(), "--master-key-file="+i.masterKeyFile(), "--rate-limit="+i.site.rate,
		"--drain-delay=0s")
	cmd.Env = environment()
	start := time.Now()
	if r.process, err = startProcess(cmd, i.file("log")); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	err = r.waitFor(ctx, time.Millisecond, func() bool { return isOK(client, "http://"+r.address+"/readyz") })
	if err != nil {
		return nil, errors.Join(err, r.stop())
	}
	r.ready = time.Since(start)
	return r, nil
}

func (i *installation) file(extension string) string {
	return filepath.Join(i.site.dir, i.name+"."+extension)
}
func (i *installation) databaseURLFile() string { return i.file("url") }
func (i *installation) masterKeyFile() string   { return i.file("key") }

// openRolecall makes the control database, starts the server and registers a cluster with the command line, and creates
// an account that an access rule allows to manage it.
func (i *installation) openRolecall(ctx context.Context) error {
	l, s := i.controlRole, i.site
	err := s.exec(ctx, s.superuser, `CREATE ROLE %I LOGIN PASSWORD %L`, l.role, l.password)
	if err != nil {
		return err
	}
	if err := s.exec(ctx, s.superuser, `CREATE DATABASE %I OWNER %I`, l.database, l.role); err != nil {
		return err
	}
	key := control.NewMasterKey()
	if i.keys, err = control.ParseKeyring(key); err != nil {
		return err
	}
	if err := os.WriteFile(i.databaseURLFile(), []byte(s.url(l)), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(i.masterKeyFile(), []byte(key), 0o600); err != nil {
		return err
	}
	files := []string{"--database-url-file=" + i.databaseURLFile(), "--master-key-file=" + i.masterKeyFile()}
	if _, err := i.command(ctx, rand.Text(), append([]string{"bootstrap", "--password-stdin"}, files...)...); err != nil {
		return err
	}
	if i.rolecall, err = i.serve(ctx); err != nil {
		return err
	}
	if i.admin, err = i.token(ctx, "admin"); err != nil {
		return err
	}
	const account = "bench"
	if _, err := i.command(ctx, rand.Text(), "accounts", "create", account, "--label=team="+account,
		"--password-stdin"); err != nil {
		return err
	}
	out, err := i.command(ctx, s.adminRole.password, "clusters", "register", "main", "--tls-mode=disable",
		"--manage=team="+account,
		fmt.Sprintf("--url=postgres://%s@%s:%d/%s", s.adminRole.role, s.pg.Host, s.pg.Port, s.adminRole.database),
		"--password-stdin", "--output=json")
	if err != nil {
		return err
	}
	var registered struct{ ID string }
	if err := json.Unmarshal(out, &registered); err != nil {
		return fmt.Errorf("rolecall clusters register printed %q: %w", out, err)
	}
	i.cluster = registered.ID
	if i.user, err = i.token(ctx, account); err != nil {
		return err
	}
	i.account, err = query[string](ctx, s, l, `SELECT guid FROM rolecall.accounts WHERE username = $1`, account)
	return err
}

// command runs a command of Rolecall, as admin, and returns what it prints.
func (i *installation) command(ctx context.Context, input string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, i.program, args...)
	cmd.Env = environment()
	if i.rolecall != nil {
		cmd.Env = append(cmd.Env, "ROLECALL_URL=http://"+i.rolecall.address, "ROLECALL_TOKEN="+i.admin)
	}
	cmd.Stdin = strings.NewReader(input + "\n")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rolecall %s: %w: %s", args[0], err, &errOut)
	}
	return out, nil
}

// inControl opens the control database for f, as the program does. The server of a fleet may just be busy with connections
// to all clusters, so it waits longer.
func (i *installation) inControl(ctx context.Context, f func(db *control.DB) error) error {
	db, err := control.Open(ctx, i.site.url(i.controlRole), i.keys, control.Waits{Connect: 30 * time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}

// token issues a token that is valid for a whole run; those of the token endpoint expire after 20 minutes. It has the same
// claims, and is signed with the same key.
func (i *installation) token(ctx context.Context, username string) (token string, err error) {
	err = i.inControl(ctx, func(db *control.DB) error {
		issuer := "http://" + i.rolecall.address + "/uaa/oauth/token"
		id, err := identity.New(ctx, db, identity.Config{Issuer: issuer, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		token, err = id.MintFor(ctx, username, 12*time.Hour)
		return err
	})
	return token, err
}

// peer is a postgres-meta.
type peer struct {
	server
	version string // of it, and of what it runs on
}

// startPeer runs postgres-meta as its package says, as the administering role.
func (s *site) startPeer(ctx context.Context, folder string) (*peer, error) {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	node := filepath.Join(folder, "node_modules", "node-linux-"+arch, "bin", "node")
	home := filepath.Join(folder, "node_modules", "@supabase", "postgres-meta")
	version, err := exec.CommandContext(ctx, node, "-p", `require(process.argv[1]).version + " on Node.js " + `+
		`process.versions.node`, filepath.Join(home, "package.json")).Output()
	if err != nil {
		return nil, fmt.Errorf("the peer is not in %s: %w; scripts/install-bench-peer puts it there", folder, err)
	}
	port, err := freePorts(2) // the second is for its metrics
	if err != nil {
		return nil, err
	}
	p := &peer{server: server{address: local(port)}, version: strings.TrimSpace(string(version))}
	cmd := exec.Command(node, filepath.Join(home, "dist", "server", "server.js"))
	cmd.Dir = home
	cmd.Env = append(environment(), "NODE_ENV=production", "PG_META_HOST=127.0.0.1", "PG_META_PORT="+strconv.Itoa(port),
		"PG_META_DB_HOST="+s.pg.Host, "PG_META_DB_PORT="+strconv.Itoa(s.pg.Port), "PG_META_DB_NAME="+s.adminRole.database,
		"PG_META_DB_USER="+s.adminRole.role, "PG_META_DB_PASSWORD="+s.adminRole.password)
	if p.process, err = startProcess(cmd, filepath.Join(s.dir, "peer.log")); err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 5 * time.Second}
	err = p.waitFor(ctx, 20*time.Millisecond, func() bool { return isOK(client, "http://"+p.address+"/health") })
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// tuning are the variables that a program is given where they are set: how Go's runtime works is worth trying out.
var tuning = []string{"GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG"}

// environment is that of every program: of the caller's it has what the programs need, and no setting of theirs.
func environment() (env []string) {
	for _, name := range append([]string{"PATH", "HOME", "LD_LIBRARY_PATH"}, tuning...) {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func isOK(client *http.Client, url string) bool {
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// freePorts returns the first of n ports in a row on which nobody listens. They are below the range of Linux's ephemeral
// ports, from which any outgoing connection could take one.
func freePorts(n int) (first int, err error) {
	free := func(port int) bool {
		l, err := net.Listen("tcp", local(port))
		if err != nil {
			return false
		}
		return l.Close() == nil
	}
	for range 1000 {
		first, found := 20000+mathrand.IntN(12000-n), 0
		for found < n && free(first+found) {
			found++
		}
		if found == n {
			return first, nil
		}
	}
	return 0, fmt.Errorf("there are no %d free ports in a row on 127.0.0.1 between 20000 and 32000", n)
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
