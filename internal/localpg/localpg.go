// Package localpg runs a private PostgreSQL on this machine, for "rolecall dev" and for tests: one folder, one server
// on a loopback port, one superuser with a generated password.
//
// It runs no SQL and knows nothing of the databases. It never touches a server that somebody else runs or has created.
package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say where and how a server runs. Only Dir is required.
type Options struct {
	// Dir is the folder for everything of this server; its files there begin with "pg". It is created with mode 0700 if it is
	// missing.
	//
	// PostgreSQL refuses root. Run as root, Start uses the OS user rolecall, which it creates, else nobody, and creates Dir
	// 0710 with that user's group. An existing Dir keeps its mode; if that user cannot pass through it or a folder
	// above it, the data is stored below /var/lib/rolecall, and the symbolic link pg.elsewhere in Dir points there.
	Dir string
	// BinDir holds postgres and initdb. Empty: see FindBinaries. Data that another major created is served by the
	// binaries of that major.
	BinDir string
	// Settings are further server settings. They are given on the command line, so ALTER SYSTEM cannot change them.
	Settings map[string]string
	// NoSync trades durability for speed. For tests.
	NoSync bool
	// DieWithParent stops the server when this process ends, however it ends. For tests: without it a killed process
	// leaves the server running, until the next Start on the folder stops it.
	DieWithParent bool
}

// Server is a running PostgreSQL.
type Server struct {
	Host     string // always 127.0.0.1
	Port     int    // the same at each start, unless another program uses it
	User     string // always postgres, a superuser
	Password string
	Major    int    // such as 15
	Version  string // such as 15.18
	BinDir   string // of postgres and initdb, symbolic links resolved
	DataDir  string
	LogFile  string // appended to by each start

	options Options
	folder  *folder
	process *os.Process
	done    chan struct{}
}

const pollInterval = 10 * time.Millisecond

// Start starts the server of o.Dir and returns when it accepts connections. The first start on a folder creates its data,
// which takes about a second. If a killed process has left a server running on the folder, Start shuts it down first. Start
// fails if another process uses the folder, if it finds no PostgreSQL, or if the major that created the data is not
// installed.
//
// If ctx ends before the server is ready, Start stops the server and fails. Later, ctx has no effect.
func Start(ctx context.Context, o Options) (*Server, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	bin, err := find(os.Getenv("PATH"), debianRoot, o.BinDir, f.major)
	if err != nil {
		if f.major != 0 {
			return nil, fmt.Errorf("the data in %s was created by PostgreSQL %d, whose server is not installed; "+
				"install it: apt-get install postgresql-%[2]d", f.data(), f.major)
		}
		return nil, err
	}
	if err := f.prepare(ctx, bin); err != nil {
		return nil, err
	}
	release, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, o, f, bin, 0, release)
	if err != nil {
		release()
	}
	return s, err
}

// start runs the server of a locked folder. It calls release when the server has ended, unless it fails. If port is 0, it is
// that of the last start if that is free, or another one.
func start(ctx context.Context, o Options, f *folder, bin binaries, port int, release func()) (*Server, error) {
	if f.major == 0 {
		if err := f.initialize(ctx, bin, o.NoSync); err != nil {
			return nil, err
		}
	}
	password, err := os.ReadFile(f.password())
	if err != nil {
		return nil, fmt.Errorf("read the superuser's password: %w", err)
	}
	if err := endLeftover(ctx, f.data()); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(f.log(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	s := &Server{
		Host:     "127.0.0.1",
		User:     "postgres",
		Password: strings.TrimSpace(string(password)),
		Major:    bin.major,
		Version:  bin.version,
		BinDir:   bin.dir,
		DataDir:  f.data(),
		LogFile:  f.log(),
		options:  o,
		folder:   f,
		done:     make(chan struct{}),
	}
	s.Port = cmp.Or(port, f.keptPort())
	for attempt := 1; ; attempt++ {
		if port == 0 && !free(s.Port) {
			if s.Port, err = freePort(); err != nil {
				return nil, err
			}
		}
		ended, err := s.run(ctx, o, f, log)
		if err == nil {
			go func() {
				<-ended
				release()
				close(s.done)
			}()
			break
		}
		// Another program may have taken the port since it was found free.
		if ctx.Err() != nil || port != 0 || free(s.Port) || attempt == 5 {
			return nil, err
		}
	}
	if err := f.keepPort(s.Port); err != nil {
		s.Stop(ctx)
		return nil, err
	}
	return s, nil
}

// run starts the postmaster and waits until it is ready. The channel is closed when the postmaster has ended.
func (s *Server) run(ctx context.Context, o Options, f *folder, log *os.File) (<-chan struct{}, error) {
	logged, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := f.account.command(context.Background(), filepath.Join(s.BinDir, "postgres"), s.arguments(o)...)
	cmd.Dir = s.DataDir
	cmd.Stdout, cmd.Stderr = log, log
	if o.DieWithParent {
		endWithParent(cmd.SysProcAttr, syscall.SIGQUIT)
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// For the kernel, the end of the thread that forked is the end of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // its log says how it ended
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start PostgreSQL as the OS user %s in %s: %w", f.account.name, s.DataDir, err)
	}
	s.process = cmd.Process

	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if p, err := readPIDFile(s.DataDir); err == nil && p.pid == s.process.Pid && p.ready {
			return ended, nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return nil, fmt.Errorf("PostgreSQL %s did not start on %s; the end of %s:\n%s",
				s.Version, s.DataDir, s.LogFile, tail(io.NewSectionReader(log, logged, 1<<20)))
		case <-ctx.Done():
			s.process.Signal(syscall.SIGQUIT)
			<-ended
			return nil, fmt.Errorf("wait until PostgreSQL on %s is ready: %w", s.DataDir, context.Cause(ctx))
		}
	}
}

// arguments are the server's. The last of several values of a setting takes precedence.
func (s *Server) arguments(o Options) []string {
	args := []string{"-D", s.DataDir, "-c", "password_encryption=scram-sha-256"}
	if o.NoSync {
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		args = append(args, "-c", name+"="+o.Settings[name])
	}
	// Without a Unix socket no path can be too long or have wrong permissions, and there is no peer authentication.
	return append(args, "-c", "listen_addresses="+s.Host, "-c", "port="+strconv.Itoa(s.Port), "-c", "unix_socket_directories=")
}

// Stop shuts the server down and returns after it has ended. It ends sessions and rolls their transactions back. If ctx ends
// earlier, Stop ends the server at once and fails. No committed data is lost: the next start recovers it.
func (s *Server) Stop(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := s.process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.process.Signal(syscall.SIGQUIT)
	<-s.done // PostgreSQL kills its remaining processes after 5 s
	return fmt.Errorf("PostgreSQL did not shut down in time and was stopped at once: %w", context.Cause(ctx))
}

// Done is closed when the server has ended, whatever ended it.
func (s *Server) Done() <-chan struct{} { return s.done }

func free(port int) bool {
	if port == 0 {
		return false
	}
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// freePort chooses below Linux's range of ephemeral ports (32768 and up): from there any outgoing connection could
// take the port while the server is down.
func freePort() (int, error) {
	for range 1000 {
		if port := 20000 + rand.IntN(12000); free(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port found on 127.0.0.1 between 20000 and 32000")
}

// tail returns the last lines of what PostgreSQL wrote, for an error.
func tail(r io.Reader) string {
	text, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
