// Package dev runs a Rolecall on one machine, together with a PostgreSQL of its own. Everything that the two need is in one
// data folder.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/localpg"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
	"rolecall/internal/server"
)

// Config is what a local server needs.
type Config struct {
	Server  server.Config // without DatabaseURL and Keys
	DataDir string
	PGBin   string // the folder with PostgreSQL's programs; "": found by itself
	// AdminPassword is the password of the account admin, used at the first start only; "": generated.
	AdminPassword string
}

// AdminPasswordVariable is the environment variable with Config.AdminPassword.
const AdminPasswordVariable = "ROLECALL_ADMIN_PASSWORD"

const (
	adminUsername     = "admin"
	controlRole       = "rolecall"
	administeringRole = "rolecall_admin"
)

// stopTimeout is how long PostgreSQL may take to stop.
const stopTimeout = 20 * time.Second

// Run starts PostgreSQL and the server, prints on out how to use them, and serves until ctx ends.
func Run(ctx context.Context, c Config, out io.Writer) (err error) {
	f, err := openFolder(c.DataDir)
	if err != nil {
		return err
	}
	defer f.close()
	if c.Server.Keys, err = f.keyring(); err != nil {
		return err
	}
	pg, err := localpg.Start(ctx, localpg.Options{Dir: filepath.Join(f.path, "postgresql"), BinDir: c.PGBin})
	if err != nil {
		return whyNotReady(ctx, err)
	}
	c.Server.Log.Info("PostgreSQL is running", "version", pg.Version, "port", pg.Port, "log", pg.LogFile)
	ctx, stop := keepRunning(ctx, pg, c.Server.Log)
	defer func() { err = errors.Join(err, stop()) }()
	st, err := f.prepare(ctx, pg)
	if err != nil {
		return whyNotReady(ctx, err)
	}
	c.Server.DatabaseURL = secret.Text(localURL(pg, controlRole, st.ControlPassword, controlRole))
	s, err := server.Open(ctx, c.Server)
	if err != nil {
		return whyNotReady(ctx, err)
	}
	defer s.Close()
	if err := f.fill(ctx, s, st, pg, c.AdminPassword); err != nil {
		return whyNotReady(ctx, err)
	}
	if err := f.announce(s, st, pg); err != nil {
		s.Log.Error("rolecall env will not find this server", "error", err)
	}
	defer f.retract()
	f.welcome(out, s, st, pg)
	err = s.Serve(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, errEnded) {
		return errors.Join(cause, err)
	}
	return err
}

// errEnded is that PostgreSQL has ended before the server, and cannot be started again.
var errEnded = errors.New("the local PostgreSQL ended and could not be started again")

// keepRunning starts PostgreSQL again whenever it ends. If that fails, the context that it returns ends: the server is of no
// use then. stop ends the context, and PostgreSQL.
func keepRunning(ctx context.Context, pg *localpg.Server, log *slog.Logger) (_ context.Context, stop func() error) {
	ctx, cancel := context.WithCancelCause(ctx)
	last := make(chan *localpg.Server, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				last <- pg
				return
			case <-pg.Done():
			}
			log.Warn("PostgreSQL ended, and is started again", "log", pg.LogFile)
			again, err := pg.Restart(ctx)
			if err != nil {
				cancel(fmt.Errorf("%w: %w", errEnded, err))
				last <- pg
				return
			}
			pg = again
			log.Info("PostgreSQL is running again", "port", pg.Port)
		}
	}()
	return ctx, func() error {
		cancel(nil)
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return (<-last).Stop(timeout)
	}
}

// whyNotReady is the reason for a failed start. If the context has ended, that is the reason, whatever has failed because
// of it.
func whyNotReady(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errEnded):
		return errors.Join(cause, err)
	case cause != nil:
		return errors.New("stopped before it was ready")
	}
	return err
}

// prepare returns the state of the folder. At the first start it creates the roles and the control database.
func (f *folder) prepare(ctx context.Context, pg *localpg.Server) (*state, error) {
	var st state
	if err := f.readJSON(stateFile, &st); err != nil || st.Prepared {
		return &st, err
	}
	st = state{
		Prepared:              true,
		ClusterID:             uuid.New(),
		ControlPassword:       randomPassword(),
		AdministeringPassword: randomPassword(),
	}
	if err := st.install(ctx, pg); err != nil {
		return nil, fmt.Errorf("the local PostgreSQL could not be set up: %w", err)
	}
	return &st, f.writeJSON(stateFile, &st)
}

// install creates the roles and the control database in a new PostgreSQL. It may be repeated.
func (st *state) install(ctx context.Context, pg *localpg.Server) error {
	conn, err := pgx.Connect(ctx, localURL(pg, pg.User, pg.Password, "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := pgrole.Install(ctx, conn, administeringRole, st.AdministeringPassword, true); err != nil {
		return err
	}
	if err := pgrole.Install(ctx, conn, controlRole, st.ControlPassword, false); err != nil {
		return err
	}
	return pgrole.InstallDatabase(ctx, conn, controlRole, controlRole)
}

// fill makes sure that the account admin exists, and that PostgreSQL is registered as the first cluster.
func (f *folder) fill(ctx context.Context, s *server.Server, st *state, pg *localpg.Server, adminPassword string) error {
	guid, err := f.ensureAdmin(ctx, s, adminPassword)
	if err != nil {
		return err
	}
	err = s.Users.Clusters.Ensure(ctx, &cluster.Cluster{
		ID:          st.ClusterID,
		DisplayName: "local",
		Location:    "local",
		Connection: cluster.Connection{
			URL:      localURL(pg, administeringRole, "", "postgres"),
			TLS:      cluster.TLS{Mode: "disable"},
			Password: secret.Text(st.AdministeringPassword),
		},
		SystemIdentifier: s.DB.Identity.System,
		CreatedBy:        guid,
	}, audit.Entry{AccountGUID: guid, AccountName: adminUsername, Target: "local"})
	if err != nil {
		return err
	}
	c, err := s.Users.Clusters.Get(st.ClusterID.String())
	if err != nil {
		return err
	}
	if _, err := s.Users.Clusters.Probe(ctx, c); err != nil {
		s.Log.Warn("the local PostgreSQL could not be probed", "error", err)
	}
	return nil
}

// ensureAdmin creates the account admin at the first start. Its password may have been changed since, so it is left alone.
func (f *folder) ensureAdmin(ctx context.Context, s *server.Server, password string) (guid string, err error) {
	guid, err = s.Identity.GUID(ctx, adminUsername)
	if err == nil {
		f.warnIfIgnored(password, s.Log)
		return guid, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if password == "" {
		password = randomPassword()
	}
	if err := f.write(adminPasswordFile, []byte(password+"\n")); err != nil {
		return "", err
	}
	guid, _, err = s.Identity.Bootstrap(ctx, adminUsername, password)
	if fault.Is(err, fault.Invalid) {
		err = fmt.Errorf("%s: %w", AdminPasswordVariable, err)
	}
	return guid, err
}

func (f *folder) warnIfIgnored(password string, log *slog.Logger) {
	if password == "" {
		return
	}
	if kept, err := f.adminPassword(); err != nil || kept != password {
		log.Warn(AdminPasswordVariable + " is used at the first start only; the account admin keeps its password")
	}
}

// welcome prints what people need next.
func (f *folder) welcome(out io.Writer, s *server.Server, st *state, pg *localpg.Server) {
	fmt.Fprintf(out, `
Rolecall is ready at %s

  console        %s/console/
  documentation  %s/docs
  cluster        %s  (PostgreSQL %s)
  account        %s, password in %s

In another shell, set the variables that clients read (rolecall, curl, psql, ionosctl, Terraform, cf):

  eval "$(%s env%s)"

`, s.PublicURL, s.PublicURL, s.PublicURL, st.ClusterID,
		pg.Version, adminUsername, f.file(adminPasswordFile), os.Args[0], f.flag())
}

// localURL is the URL of a connection to the local PostgreSQL.
func localURL(pg *localpg.Server, user, password, database string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.User(user),
		Host:   net.JoinHostPort(pg.Host, strconv.Itoa(pg.Port)),
		Path:   "/" + database,
	}
	if password != "" {
		u.User = url.UserPassword(user, password)
		u.RawQuery = "sslmode=disable"
	}
	return u.String()
}
