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
	pid   int
	port  int    // 0: not known
	shmID string // System V shared memory that all processes of the server have attached
	ready bool
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
		if !isPostmaster(p.pid, data) {
			break
		}
		if err := process.Signal(sig); err != nil && isPostmaster(p.pid, data) {
			return fmt.Errorf("stop the PostgreSQL that still runs on %s (process %d): %w", data, p.pid, err)
		}
		if err := wait(ctx, 10*time.Second, func() bool { return !isPostmaster(p.pid, data) }); err != nil {
			return err
		}
	}
	if isPostmaster(p.pid, data) {
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

// isPostmaster reports whether pid is a server on data. The pid file alone does not prove it. Of another user's process,
// only the command line can be read without CAP_SYS_PTRACE, which root in a container lacks.
func isPostmaster(pid int, data string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(text), "\x00")
	i := slices.Index(args, "-D") + 1
	if filepath.Base(args[0]) != "postgres" || i == 0 || i == len(args) {
		return false
	}
	its, err := os.Stat(args[i])
	if err != nil {
		return false
	}
	ours, err := os.Stat(data)
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
