package localpg

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pidFile is the content of a data folder's postmaster.pid.
type pidFile struct {
	pid     int
	data    string    // as the server was given it
	started time.Time // of the postmaster, to the second
	port    int       // 0: not known
	shmID   string    // System V shared memory that all processes of the server have attached
	ready   bool
}

func readPIDFile(data string) (pidFile, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(lines[0])
	if err != nil {
		return pidFile{}, err
	}
	p := pidFile{pid: pid}
	if len(lines) > 3 {
		p.data = lines[1]
		seconds, _ := strconv.ParseInt(lines[2], 10, 64)
		p.started = time.Unix(seconds, 0)
		p.port, _ = strconv.Atoi(lines[3])
	}
	if len(lines) > 6 {
		if key := strings.Fields(lines[6]); len(key) == 2 {
			p.shmID = key[1]
		}
	}
	p.ready = len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
	return p, nil
}

// endLeftover shuts down the server that an earlier process may have left running on data. The caller has the lock.
func endLeftover(ctx context.Context, data string) error {
	p, err := readPIDFile(data)
	if err != nil {
		return nil // there is none, or PostgreSQL itself will report it
	}
	process, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if !p.runs(data) {
			break
		}
		if err := process.Signal(sig); err != nil && p.runs(data) {
			return fmt.Errorf("stop the PostgreSQL that still runs on %s (process %d): %w", data, p.pid, err)
		}
		if err := wait(ctx, 10*time.Second, func() bool { return !p.runs(data) }); err != nil {
			return err
		}
	}
	if p.runs(data) {
		return fmt.Errorf("PostgreSQL still runs on %s and does not stop; kill process %d", data, p.pid)
	}
	// PostgreSQL would take a zombie, or another process with that number, for the running server.
	if syscall.Kill(p.pid, 0) == nil {
		if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	// The children of a killed postmaster end a moment later. Until then PostgreSQL refuses to start.
	return wait(ctx, 10*time.Second, func() bool { return !attached(p.shmID) })
}

// wait returns when cond is true or limit has passed. It fails if ctx ends first.
func wait(ctx context.Context, limit time.Duration, cond func() bool) error {
	for end := time.Now().Add(limit); !cond() && time.Now().Before(end); {
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// runs reports whether the process is a postmaster on data. The number alone does not prove it: another process may have it.
// Of another user's process, neither the environment nor the working directory can be read without CAP_SYS_PTRACE, which
// root in a container lacks. The command line and the time of the start can be read.
func (p pidFile) runs(data string) bool {
	args, ok := postgresArguments(p.pid)
	if !ok {
		return false
	}
	if i := slices.Index(args, "-D") + 1; i > 0 && i < len(args) && filepath.IsAbs(args[i]) {
		return sameFile(args[i], data)
	}
	// `pg_ctl restart -o` passes the folder in the environment. A copied folder has the pid file of the original.
	started, err := startOf(p.pid)
	return err == nil && started.Sub(p.started).Abs() < startTolerance && sameFile(p.data, data)
}

// postgresArguments returns the command line of a process; false: it runs something else, or has ended.
func postgresArguments(pid int) (args []string, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, false
	}
	args = strings.Split(string(text), "\x00")
	return args, filepath.Base(args[0]) == "postgres"
}

// startTolerance is how much the start of a process may differ from the one in its pid file. Both are rounded, and the
// postmaster writes the file a moment after its start.
const startTolerance = 10 * time.Second

// startOf is when a process started.
func startOf(pid int) (time.Time, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, err
	}
	// The name, the second field, may contain anything. The start is field 22, in hundredths of a second since the boot.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	text, err = os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	seconds, _, _ := strings.Cut(string(text), " ")
	uptime, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(time.Duration(ticks)*10*time.Millisecond - uptime), nil
}

func sameFile(a, b string) bool {
	its, err := os.Stat(a)
	if err != nil {
		return false
	}
	ours, err := os.Stat(b)
	return err == nil && os.SameFile(its, ours)
}

// attached reports whether a process has the shared memory segment attached.
func attached(shmID string) bool {
	text, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		// key shmid perms size cpid lpid nattch …
		if f := strings.Fields(line); len(f) > 6 && f[1] == shmID {
			return f[6] != "0"
		}
	}
	return false
}
