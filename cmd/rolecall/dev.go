package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/localpg"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

func devCommand() *cobra.Command {
	var c Config
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Serve on this machine, with a PostgreSQL of its own",
		Long: `Dev starts a private PostgreSQL in the data folder, keeps the control database in it,
registers it as the first cluster, makes the account admin and serves until it is
stopped. A second start on the same folder finds everything as it was.

ROLECALL_ADMIN_PASSWORD, when set at the first start, is the password of admin; else
one is made up. It is kept in the file admin-password of the data folder.`,
		Example: `  rolecall dev
  eval "$(rolecall env)"   # in another shell`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.dev(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.bindListen(f)
	f.BoolVar(&c.AllowRemote, "allow-remote", false, "let --listen and --metrics-listen be addresses that other machines reach")
	f.StringVar(&c.PublicURL, "public-url", "", "base `URL` under which clients reach this server (default: from --listen)")
	c.bindDataDir(f)
	f.StringVar(&c.PGBin, "pg-bin", "", "`folder` with PostgreSQL's programs (default: PATH, then /usr/lib/postgresql/*/bin, newest first)")
	c.bindServing(f, "", "text")
	fromEnvironment(cmd)
	return cmd
}

const (
	adminUsername = "admin"
	controlRole   = "rolecall"
	administering = "rolecall_admin"
)

func (c *Config) dev(ctx context.Context, out, errOut io.Writer) (err error) {
	s := &server{}
	ready := false
	defer func() {
		if err != nil && ctx.Err() != nil && !ready {
			err = errors.New("stopped before it was ready") // whatever it was that noticed
		}
	}()
	if s.RateLimit, err = c.rateLimit(); err != nil {
		return err
	}
	if s.AuditRetention, err = c.auditRetention(); err != nil {
		return err
	}
	if s.Log, err = c.logger(errOut); err != nil {
		return err
	}
	if err := c.checkLocal("listen", c.Listen); err != nil {
		return err
	}
	if c.MetricsListen != "" {
		if err := c.checkLocal("metrics-listen", c.MetricsListen); err != nil {
			return err
		}
	}
	if c.PGBin != "" {
		if _, _, err := localpg.FindBinaries(c.PGBin, 0); err != nil {
			return usage("--pg-bin: %w", err)
		}
	}
	if s.Listener, err = listen("listen", c.Listen); err != nil {
		return err
	}
	defer s.Listener.Close()
	if c.MetricsListen != "" {
		if s.MetricsListener, err = listen("metrics-listen", c.MetricsListen); err != nil {
			return err
		}
		defer s.MetricsListener.Close()
	}
	if c.PublicURL == "" {
		c.PublicURL = "http://" + reachable(s.Listener.Addr().(*net.TCPAddr))
	}
	if s.PublicURL, err = c.publicURL(); err != nil {
		return err
	}
	if s.OIDC, err = c.oidcIssuers(s.PublicURL); err != nil {
		return err
	}
	folder, err := openFolder(c.DataDir)
	if err != nil {
		return err
	}
	defer folder.close()
	if s.Keys, err = folder.keyring(); err != nil {
		return err
	}
	pg, err := localpg.Start(ctx, localpg.Options{Dir: filepath.Join(folder.path, "postgresql"), BinDir: c.PGBin})
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, pg.Stop(end))
	}()
	s.Log.Info("PostgreSQL is running", "version", pg.Version, "port", pg.Port, "log", pg.LogFile)
	state, err := folder.state()
	if err != nil {
		return err
	}
	if !state.Prepared {
		if err := state.prepare(ctx, pg); err != nil {
			return fmt.Errorf("the local PostgreSQL could not be set up: %w", err)
		}
		if err := folder.keep(state); err != nil {
			return err
		}
	}
	s.DatabaseURL = secret.Text(localURL(pg, controlRole, state.ControlPassword, controlRole))
	s.Prepare = func(ctx context.Context, db *control.DB, id *identity.Service, users *dbuser.Service) error {
		guid, err := folder.ensureAdmin(ctx, id, state, s.Log)
		if err != nil {
			return err
		}
		err = users.Clusters.Put(ctx, &cluster.Cluster{
			ID:          state.ClusterID,
			DisplayName: "local",
			Location:    "local",
			Connection: cluster.Connection{
				URL:      localURL(pg, administering, "", "postgres"),
				TLS:      cluster.TLS{Mode: "disable"},
				Password: secret.Text(state.AdministeringPassword),
			},
			SystemIdentifier: db.Identity.System,
			CreatedBy:        guid,
		}, audit.Entry{AccountGUID: guid, AccountName: adminUsername, Target: "local"})
		if err != nil {
			return err
		}
		c, err := users.Clusters.Get(state.ClusterID.String())
		if err != nil {
			return err
		}
		if _, err := users.Probe(ctx, c); err != nil {
			s.Log.Warn("the local PostgreSQL could not be probed", "error", err)
		}
		return nil
	}
	s.Ready = func() {
		ready = true
		if err := folder.announce(running{
			PID:         os.Getpid(),
			URL:         s.PublicURL,
			ClusterID:   state.ClusterID,
			DatabaseURL: string(s.DatabaseURL),
			PGHost:      pg.Host,
			PGPort:      pg.Port,
			PGUser:      pg.User,
			PGPassword:  pg.Password,
		}); err != nil {
			s.Log.Error("rolecall env will not find this server", "error", err)
		}
		fmt.Fprintf(out, `
Rolecall is ready at %s

  documentation  %s/docs
  cluster        %s  (PostgreSQL %s)
  account        %s, password in %s

In another shell, this sets what clients read (curl, psql, ionosctl, Terraform, cf):

  eval "$(%s env%s)"

`, s.PublicURL, s.PublicURL, state.ClusterID, pg.Version, adminUsername, folder.file("admin-password"), os.Args[0], folder.flag())
	}
	serving, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-pg.Done():
			cancel(errors.New("the local PostgreSQL ended; its log is " + pg.LogFile))
		case <-serving.Done():
		}
	}()
	defer folder.retract()
	err = s.run(serving)
	if cause := context.Cause(serving); ctx.Err() == nil && cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

// reachable is where clients on this machine find a listener. One on every address has no address of its own.
func reachable(addr *net.TCPAddr) string {
	if addr.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
	}
	return addr.String()
}

// checkLocal refuses an address that other machines reach: the local server has one known account.
func (c *Config) checkLocal(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usage("--%s %q is not an address like 127.0.0.1:8080", flag, address)
	}
	addr, err := netip.ParseAddr(host)
	if c.AllowRemote || host == "localhost" || err == nil && addr.IsLoopback() {
		return nil
	}
	return usage("--%s %s can be reached from other machines; if that is meant, say --allow-remote", flag, address)
}

// localURL is a connection to the local server.
func localURL(pg *localpg.Server, user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: net.JoinHostPort(pg.Host, strconv.Itoa(pg.Port)), Path: "/" + database}
	if password != "" {
		u.User = url.UserPassword(user, password)
		u.RawQuery = "sslmode=disable"
	}
	return u.String()
}

// localState is what the local server has been given, kept in the data folder.
type localState struct {
	Prepared              bool
	ClusterID             uuid.UUID
	ControlPassword       string
	AdministeringPassword string
}

// prepare makes the roles and the control database in a new local server. It may be repeated.
func (st *localState) prepare(ctx context.Context, pg *localpg.Server) error {
	st.ClusterID = uuid.New()
	st.ControlPassword, st.AdministeringPassword = randomPassword(), randomPassword()
	conn, err := pgx.Connect(ctx, localURL(pg, pg.User, pg.Password, "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := pgrole.Install(ctx, conn, administering, st.AdministeringPassword, true); err != nil {
		return err
	}
	if err := pgrole.Install(ctx, conn, controlRole, st.ControlPassword, false); err != nil {
		return err
	}
	if err := pgrole.InstallDatabase(ctx, conn, controlRole, controlRole); err != nil {
		return err
	}
	st.Prepared = true
	return nil
}

func randomPassword() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// folder is the data folder of a local server. It holds secrets, so its files are for its owner alone; the folder itself
// may be passed through, because PostgreSQL may run as another user.
type folder struct {
	path string
	lock *os.File
	// asGiven is the folder as it was named.
	asGiven string
}

const defaultDataDir = "./rolecall-data"

// openFolder makes the folder, and makes sure that one server works on it.
func openFolder(path string) (*folder, error) {
	f, err := findFolder(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.path, 0o711); err != nil {
		return nil, fmt.Errorf("the data folder cannot be made: %w", err)
	}
	if f.lock, err = os.OpenFile(f.file("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("the data folder cannot be used: %w", err)
	}
	// The lock ends with the process, however that ends. A rolecall env holds it for a moment when it looks.
	for try := 0; syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; try++ {
		if try == 5 {
			f.lock.Close()
			return nil, fmt.Errorf("another rolecall dev is running on %s; stop it, or choose another folder with --data-dir", f.path)
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.retract() // what a server that was killed has left
	return f, nil
}

// findFolder names a folder, and neither makes nor locks it.
func findFolder(path string) (*folder, error) {
	if path == "" {
		return nil, usage("--data-dir is empty; it takes the name of a folder")
	}
	absolute, err := filepath.Abs(path)
	return &folder{path: absolute, asGiven: path}, err
}

func (f *folder) close() { f.lock.Close() }

// inUse reports whether a server has the folder.
func (f *folder) inUse() bool {
	lock, err := os.Open(f.file("lock"))
	if err != nil {
		return false
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// flag is how other commands are told of the folder.
func (f *folder) flag() string {
	if f.asGiven == defaultDataDir {
		return ""
	}
	return " --data-dir " + quote(f.asGiven)
}

// write replaces a file as a whole, so that a crash leaves the old one or the new one.
func (f *folder) write(name string, data []byte) error {
	temporary := f.file("." + name + ".new")
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, f.file(name))
}

func (f *folder) keyring() (*control.Keyring, error) {
	data, err := os.ReadFile(f.file("master.key"))
	if errors.Is(err, fs.ErrNotExist) {
		data = []byte(control.NewMasterKey() + "\n")
		err = f.write("master.key", data)
	}
	if err != nil {
		return nil, err
	}
	return control.ParseKeyring(string(data))
}

func (f *folder) state() (*localState, error) {
	var st localState
	return &st, f.read("state.json", &st)
}

func (f *folder) keep(st *localState) error { return f.writeJSON("state.json", st) }

func (f *folder) read(name string, v any) error {
	data, err := os.ReadFile(f.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s cannot be read: %w", f.file(name), err)
	}
	return nil
}

func (f *folder) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.write(name, append(data, '\n'))
}

// ensureAdmin makes the account admin at the first start. Later its password may have been changed, and is left alone.
func (f *folder) ensureAdmin(ctx context.Context, id *identity.Service, st *localState, log *slog.Logger) (guid string, err error) {
	given := os.Getenv(adminPasswordVariable)
	guid, err = id.GUID(ctx, adminUsername)
	if err == nil {
		if kept, readErr := f.adminPassword(); given != "" && (readErr != nil || kept != given) {
			log.Warn(adminPasswordVariable + " counts at the first start only; the account admin keeps its password")
		}
		return guid, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if given == "" {
		given = randomPassword()
	}
	if err := f.write("admin-password", []byte(given+"\n")); err != nil {
		return "", err
	}
	guid, _, err = id.Bootstrap(ctx, adminUsername, given)
	return guid, err
}

func (f *folder) adminPassword() (string, error) {
	text, err := os.ReadFile(f.file("admin-password"))
	return strings.TrimSuffix(string(text), "\n"), err
}

// running is what a serving dev tells rolecall env. It holds secrets.
type running struct {
	PID         int
	URL         string
	ClusterID   uuid.UUID
	DatabaseURL string
	PGHost      string
	PGPort      int
	PGUser      string
	PGPassword  string
}

func (f *folder) announce(r running) error { return f.writeJSON("running.json", r) }

func (f *folder) retract() { _ = os.Remove(f.file("running.json")) }
