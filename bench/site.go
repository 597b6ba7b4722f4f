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

// site is what runs: one PostgreSQL with its settings as they come, and on it Rolecall and the peer.
type site struct {
	dir      string
	program  string // bin/rolecall
	rate     string // its --rate-limit
	pg       *localpg.Server
	pgPID    int
	rolecall *replica
	peer     *peer // nil: none

	keys        *control.Keyring
	cluster     string // id
	account     string // guid of the account that drives Rolecall
	user, admin string // tokens of it, and of an admin

	superuser, controlRole, adminRole login
}

// login is a way into the PostgreSQL.
type login struct{ role, password, database string }

// openSite starts everything in a new folder below parent. It is to be closed even when it fails.
func openSite(ctx context.Context, parent, program, rate, peerFolder string) (s *site, err error) {
	s = &site{program: program, rate: rate}
	if s.dir, err = os.MkdirTemp(parent, "rolecall-bench-"); err != nil {
		return s, err
	}
	// As root, PostgreSQL runs as another user, which has to pass through.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return s, err
	}
	s.pg, err = localpg.Start(ctx, localpg.Options{Dir: filepath.Join(s.dir, "pg"), DieWithParent: true})
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(filepath.Join(s.pg.BinDir, "pgbench")); err != nil {
		return s, fmt.Errorf("%w; it comes with PostgreSQL's packages: apt-get install postgresql", err)
	}
	s.superuser = login{s.pg.User, s.pg.Password, "postgres"}
	s.controlRole = login{"rolecall", rand.Text(), "rolecall"}
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
	for _, l := range []login{s.controlRole, s.adminRole} {
		if err := s.exec(ctx, s.superuser, `CREATE ROLE %I LOGIN PASSWORD %L`, l.role, l.password); err != nil {
			return s, err
		}
	}
	if err := s.exec(ctx, s.superuser, `CREATE DATABASE %I OWNER %I`, s.controlRole.database, s.controlRole.role); err != nil {
		return s, err
	}
	if err := s.exec(ctx, s.superuser, `ALTER ROLE %1$I CREATEROLE CREATEDB; GRANT pg_signal_backend TO %1$I`,
		s.adminRole.role); err != nil {
		return s, err
	}
	if err := s.openRolecall(ctx); err != nil {
		return s, err
	}
	if peerFolder != "" {
		s.peer, err = s.startPeer(ctx, peerFolder)
	}
	return s, err
}

// close ends everything that runs, and removes the folder.
func (s *site) close() error {
	var all []error
	if s.peer != nil {
		all = append(all, s.peer.stop())
	}
	if s.rolecall != nil {
		all = append(all, s.rolecall.stop())
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
	return fmt.Sprintf("postgres://%s:%s@%s:%d/%s", l.role, l.password, s.pg.Host, s.pg.Port, l.database)
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
	*process
	address, profiles string        // that it listens on
	ready             time.Duration // from its start until it takes requests
}

// serve starts a replica as docs/operating.md says. Beyond the defaults are the addresses, and the limit of requests:
// the bucket of one account lets 200 a second pass, and all requests are of one account.
func (s *site) serve(ctx context.Context) (*replica, error) {
	r := &replica{}
	port, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	r.address, r.profiles = local(port), local(port+1)
	cmd := exec.Command(s.program, "serve", "--listen="+r.address, "--public-url=http://"+r.address,
		"--metrics-listen=", "--pprof-listen="+r.profiles,
		"--database-url-file="+s.databaseURLFile(), "--master-key-file="+s.masterKeyFile(), "--rate-limit="+s.rate,
		"--drain-delay=0s")
	cmd.Env = environment()
	start := time.Now()
	if r.process, err = startProcess(cmd, filepath.Join(s.dir, "rolecall.log")); err != nil {
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

func (s *site) databaseURLFile() string { return filepath.Join(s.dir, "database-url") }
func (s *site) masterKeyFile() string   { return filepath.Join(s.dir, "master.key") }

// openRolecall makes the control database, starts the server and registers a cluster with the command line, and creates
// an account that an access rule allows to manage it.
func (s *site) openRolecall(ctx context.Context) error {
	key := control.NewMasterKey()
	var err error
	if s.keys, err = control.ParseKeyring(key); err != nil {
		return err
	}
	if err := os.WriteFile(s.databaseURLFile(), []byte(s.url(s.controlRole)), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(s.masterKeyFile(), []byte(key), 0o600); err != nil {
		return err
	}
	files := []string{"--database-url-file=" + s.databaseURLFile(), "--master-key-file=" + s.masterKeyFile()}
	if _, err := s.command(ctx, rand.Text(), append([]string{"bootstrap", "--password-stdin"}, files...)...); err != nil {
		return err
	}
	if s.rolecall, err = s.serve(ctx); err != nil {
		return err
	}
	if s.admin, err = s.token(ctx, "admin"); err != nil {
		return err
	}
	const account = "bench"
	if _, err := s.command(ctx, rand.Text(), "accounts", "create", account, "--label=team="+account,
		"--password-stdin"); err != nil {
		return err
	}
	out, err := s.command(ctx, s.adminRole.password, "clusters", "register", "main", "--tls-mode=disable",
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
	s.cluster = registered.ID
	if s.user, err = s.token(ctx, account); err != nil {
		return err
	}
	s.account, err = query[string](ctx, s, s.controlRole, `SELECT guid FROM rolecall.accounts WHERE username = $1`, account)
	return err
}

// command runs a command of Rolecall, as admin, and returns what it prints.
func (s *site) command(ctx context.Context, input string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = environment()
	if s.rolecall != nil {
		cmd.Env = append(cmd.Env, "ROLECALL_URL=http://"+s.rolecall.address, "ROLECALL_TOKEN="+s.admin)
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

// inControl opens the control database for f, as the program does.
func (s *site) inControl(ctx context.Context, f func(db *control.DB) error) error {
	db, err := control.Open(ctx, s.url(s.controlRole), s.keys)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}

// token issues a token that is valid for a whole run; those of the token endpoint expire after 20 minutes. It has the same
// claims, and is signed with the same key.
func (s *site) token(ctx context.Context, username string) (token string, err error) {
	err = s.inControl(ctx, func(db *control.DB) error {
		issuer := "http://" + s.rolecall.address + "/uaa/oauth/token"
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
	*process
	address string
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
	p := &peer{address: local(port), version: strings.TrimSpace(string(version))}
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
