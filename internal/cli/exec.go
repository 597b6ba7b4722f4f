package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/format"
)

func execCommand() *cobra.Command {
	var n newLease
	cmd := &cobra.Command{
		Use:   "exec --for ROLE -- COMMAND [ARGUMENT]...",
		Short: "Run a command with a lease that lasts as long as the command",
		Long: `Exec takes a lease and runs COMMAND with PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE,
PGSSLMODE and DATABASE_URL in its environment. It renews the lease while COMMAND runs, and
ends it when COMMAND ends. The password is in no argument and in no file. COMMAND does not get
ROLECALL_TOKEN, or any other variable with the same value.

Signals are passed on to COMMAND. Ctrl-C reaches it directly, because it stays in the
foreground of the terminal.

The exit code is that of COMMAND, 128+N if signal N ended it, 126 if it is not executable, and
127 if it was not found. Without a lease, COMMAND is not started.`,
		Example: `  rolecall exec -c payments --for shop_write -- ./migrate up
  rolecall exec -c payments --for shop_read --ttl 10m -d shop -- pg_dump -f shop.sql`,
		Args: term.Arguments("COMMAND..."),
	}
	cmd.Flags().SetInterspersed(false) // the flags after COMMAND are its own
	n.bind(cmd)
	bindDatabase(cmd, &n.database, "connect to")
	return onCluster(cmd, func(c *call) error { return n.run(c, c.args) })
}

func psqlCommand() *cobra.Command {
	var n newLease
	cmd := &cobra.Command{
		Use:   "psql --for ROLE [DATABASE] [-- ARGUMENT...]",
		Short: "Run psql with a lease that lasts as long as psql",
		Long: `Psql is "rolecall exec … -- psql": it takes a lease, renews it while psql runs, and ends it
when psql ends. Arguments after -- are passed to psql. The database is DATABASE or
--database, by default the one in the connection URL.`,
		Example: `  rolecall psql -c payments --for shop_read
  rolecall psql -c payments --for shop_write shop -- -c 'select current_user'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args = args[:dash]
			}
			return term.Arguments("[DATABASE]")(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	n.bind(cmd)
	bindDatabase(cmd, &n.database, "connect to")
	return onCluster(cmd, func(c *call) error {
		rest := c.args
		if len(rest) > 0 && c.cmd.ArgsLenAtDash() != 0 {
			if c.given("database") {
				return term.Usage("the database is given twice: %q and --database %q", rest[0], n.database)
			}
			n.database, rest = rest[0], rest[1:]
		}
		return n.run(c, append([]string{"psql"}, rest...))
	})
}

// passedOn are the signals that a command gets from exec.
var passedOn = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
}

// interruptedGrace is how long an interrupted request for a lease may still take. Its answer names the lease to end.
const interruptedGrace = 5 * time.Second

// endTimeout is how long exec waits for the end of its lease.
const endTimeout = 10 * time.Second

// run runs a command with a lease. It ends the lease in any case.
func (n *newLease) run(c *call, argv []string) error {
	if err := n.check(); err != nil {
		return err
	}
	command := exec.Command(argv[0], argv[1:]...)
	if command.Err != nil {
		return notStarted(argv[0], command.Err)
	}
	signals := make(chan os.Signal, 16)
	for _, s := range passedOn {
		if s != syscall.SIGHUP || !signal.Ignored(s) { // nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	l, err := n.take(c)
	if err != nil {
		return err
	}
	defer endLease(c, l.ID)
	if c.cmd.Context().Err() != nil {
		return term.Exit(term.ExitInterrupted, "interrupted; %s was not started", argv[0])
	}
	login, err := format.Parse(l.Connection.URL, n.database, l.Password)
	if err != nil {
		return err
	}
	command.Env = append(inherited(os.Environ()), login.Environment()...)
	command.Stdin, command.Stdout, command.Stderr = c.cmd.InOrStdin(), c.cmd.OutOrStdout(), c.cmd.ErrOrStderr()
	if err := command.Start(); err != nil {
		return notStarted(argv[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	ctx, stop := context.WithCancel(context.WithoutCancel(c.cmd.Context()))
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		keepRenewing(ctx, c, l, n.ttl)
	}()
	err = passOn(command.Process, signals, ended)
	stop()
	<-renewing // a renewal in flight must not come after the end
	return result(command, err)
}

// take takes the lease. An interrupt does not cut the request off at once: the lease would remain until it expires.
func (n *newLease) take(c *call) (*client.Lease, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.cmd.Context()))
	defer cancel()
	defer context.AfterFunc(c.cmd.Context(), func() {
		select {
		case <-time.After(interruptedGrace):
			cancel()
		case <-ctx.Done():
		}
	})()
	return c.client.CreateLease(ctx, c.cluster, n.request("rolecall "+c.cmd.Name()))
}

// passOn passes signals on to a process until it has ended. What the terminal sends reaches the process directly, because it
// is in the same process group, and must not reach it twice: a second Ctrl-C often means something else.
func passOn(process *os.Process, signals <-chan os.Signal, ended <-chan error) error {
	for {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			if (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground() {
				continue
			}
			_ = process.Signal(s) // an error means that it has ended
		}
	}
}

// inForeground reports whether this process is in the foreground of a terminal, which then sends it Ctrl-C. Linux says so in
// the fields pgrp and tpgid of proc(5).
func inForeground() bool {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third one on, state
	return len(fields) > 5 && fields[2] == fields[5]
}

// notStarted is the error of a command that cannot be started, with the exit code that shells have for it.
func notStarted(name string, err error) error {
	switch {
	case name == "psql" && errors.Is(err, exec.ErrNotFound):
		return term.Exit(term.ExitNoCommand, "psql was not found; install PostgreSQL's client programs, or put psql into PATH")
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return term.Exit(term.ExitNoCommand, "the command %q was not found", name)
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // without "fork/exec" and the name
	}
	return term.Exit(term.ExitNotExecutable, "the command %q cannot be run: %w", name, err)
}

// result is how the command ended, as an exit code of a shell.
func result(command *exec.Cmd, err error) error {
	if command.ProcessState == nil {
		return err
	}
	if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return term.Ended(128 + int(status.Signal()))
	}
	return term.Ended(command.ProcessState.ExitCode())
}

// overriding are the variables of libpq that would lead elsewhere than those of a login. A service file takes precedence
// over variables.
var overriding = []string{"PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS"}

// inherited is the environment of a command before that of its login: without the token of the caller, because the command
// gets a database user and not an account.
func inherited(environment []string) []string {
	token := os.Getenv(TokenVariable)
	return slices.DeleteFunc(environment, func(variable string) bool {
		name, value, _ := strings.Cut(variable, "=")
		return name == TokenVariable || token != "" && value == token || slices.Contains(overriding, name)
	})
}

// endLease ends a lease, and says so if it could not.
func endLease(c *call, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.cmd.Context()), endTimeout)
	defer cancel()
	blocked, err := c.client.EndLease(ctx, id)
	switch {
	case client.Status(err) == http.StatusNotFound: // it has ended, and is no longer listed
	case err != nil:
		c.warn("Warning: the lease %s could not be ended: %s It ends by itself when it expires. To end it now: "+
			"rolecall leases end %[1]s", id, sentence(err))
	case blocked != nil:
		reportBlocked(c, blocked)
	}
}

// The waits of the renewal: a part of the time that is left, so that several attempts fit in.
const (
	renewAfter = 2.0 / 3
	retryAfter = 1.0 / 8
	minRetry   = 200 * time.Millisecond
	maxRetry   = time.Minute
)

// keepRenewing renews a lease until ctx ends. It gives up, with a warning, when the lease has its last end, or when the
// server says that it cannot be renewed.
func keepRenewing(ctx context.Context, c *call, l *client.Lease, ttl string) {
	// Times are by the clock of the cluster. Only their differences are used.
	end := time.Now().Add(l.ExpiresAt.Sub(l.CreatedAt))
	wait, failed := part(time.Until(end), renewAfter), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if !l.ExpiresAt.Before(l.MaxExpiresAt) {
			c.warn("Warning: the lease %s ends at %s and cannot be renewed further. Its sessions end then.", l.ID,
				term.Time(&l.ExpiresAt))
			return
		}
		asked := time.Now()
		renewed, err := c.client.RenewLease(ctx, l.ID, ttl)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			l = renewed
			if l.RenewedAt != nil {
				end = asked.Add(l.ExpiresAt.Sub(*l.RenewedAt))
			}
			if failed {
				c.report("The lease %s is renewed again, until %s.", l.ID, term.Time(&l.ExpiresAt))
			}
			wait, failed = part(time.Until(end), renewAfter), false
			continue
		}
		left := time.Until(end)
		if isFinal(err) || left <= 0 {
			c.warn("Warning: the lease %s cannot be renewed: %s Its sessions end at %s.", l.ID, sentence(err),
				term.Time(&l.ExpiresAt))
			return
		}
		if !failed {
			c.warn("Warning: the lease %s could not be renewed yet: %s It is tried again until %s.", l.ID, sentence(err),
				term.Time(&l.ExpiresAt))
		}
		wait, failed = min(max(part(left, retryAfter), minRetry), maxRetry), true
	}
}

func part(d time.Duration, of float64) time.Duration { return time.Duration(float64(d) * of) }

// isFinal reports whether the server has refused for good. A sign-in may be renewed in another shell.
func isFinal(err error) bool {
	switch client.Status(err) {
	case http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// sentence ends a text with a full stop.
func sentence(err error) string { return strings.TrimRight(fmt.Sprint(err), ".") + "." }
