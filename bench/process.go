package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that ends with this process, however that ends.
type process struct {
	cmd   *exec.Cmd
	log   string // file of all that it writes
	ended chan struct{}
	err   error // once ended
}

func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C is for this process alone
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel takes the end of the thread that forked for the end of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// stop ends the process, and waits for it.
func (p *process) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = p.cmd.Process.Signal(sig)
		select {
		case <-p.ended:
			return nil
		case <-time.After(10 * time.Second):
		}
	}
	return fmt.Errorf("%s (process %d) does not end", filepath.Base(p.cmd.Path), p.cmd.Process.Pid)
}

// waitFor returns once ready says so, and fails with the end of the log when the process ends first, or after a minute.
func (p *process) waitFor(ctx context.Context, pause time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !ready() {
		select {
		case <-time.After(pause):
		case <-p.ended:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.cmd, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready: %w\n%s", p.cmd, context.Cause(ctx), p.tail())
		}
	}
	return nil
}

func (p *process) tail() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-2000):]
}

// server is a process that takes requests.
type server struct {
	*process
	address string
}

// usage is CPU time in seconds, by what took it.
type usage struct {
	Within   float64 `json:"within"`   // so much time of the clock, more than what is measured where processes start and end
	Server   float64 `json:"server"`   // the one that is measured
	Postgres float64 `json:"postgres"` // all of its processes
	Load     float64 `json:"load"`     // what drives: this process, or pgbench
	Others   float64 `json:"others"`   // every other process of the machine
	Stolen   float64 `json:"stolen"`   // what the machine was not given by the one that it is a guest of
}

func (u usage) minus(v usage) usage {
	return usage{u.Within - v.Within, u.Server - v.Server, u.Postgres - v.Postgres, u.Load - v.Load,
		u.Others - v.Others, u.Stolen - v.Stolen}
}

// ticksPerSecond is USER_HZ, which Linux has fixed for what /proc shows.
const ticksPerSecond = 100

// procStat is what /proc/PID/stat says, times in seconds.
type procStat struct {
	parent        int
	own, children float64 // children: those that have ended
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name of the program, in parentheses, may hold anything. What follows begins with the state, field 3.
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("/proc/%d/stat cannot be read: %q", pid, text)
	}
	ticks := func(n int) float64 {
		v, err := strconv.ParseFloat(string(f[n-3]), 64)
		if err != nil {
			return 0
		}
		return v / ticksPerSecond
	}
	parent, err := strconv.Atoi(string(f[1]))
	return procStat{parent, ticks(14) + ticks(15), ticks(16) + ticks(17)}, err
}

// family is the CPU time of a process and of its children, those that have ended included.
func family(pid int) (total float64, err error) {
	// If a child ends concurrently, its time moves to its parent and could count twice or not at all.
	for range 100 {
		before, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		total, complete := before.own+before.children, true
		children, err := childrenOf(pid)
		if err != nil {
			return 0, err
		}
		for _, child := range children {
			s, err := readStat(child)
			complete = complete && err == nil
			total += s.own + s.children
		}
		again, err := childrenOf(pid)
		if err != nil {
			return 0, err
		}
		after, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		if complete && after.children == before.children && slices.Equal(again, children) {
			return total, nil
		}
	}
	return 0, fmt.Errorf("the children of process %d come and go too fast to be counted", pid)
}

func childrenOf(pid int) (children []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(child); err == nil && s.parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// machineCPU is the time that processes have had, and that was stolen, since the machine has run.
func machineCPU() (busy, stolen float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks [9]float64
	for i := 1; i < 9; i++ {
		if ticks[i], err = strconv.ParseFloat(f[i], 64); err != nil {
			return 0, 0, err
		}
	}
	// user, nice and system; not idle, waiting for disks, and interrupts, which are nobody's
	return (ticks[1] + ticks[2] + ticks[3]) / ticksPerSecond, ticks[8] / ticksPerSecond, nil
}

// memory is what a process has of it, in bytes.
type memory struct {
	Resident int64 `json:"resident"`
	Highest  int64 `json:"highest"` // that it ever was
	// Own is what is not mapped from files, such as the program itself.
	Own int64 `json:"own"`
}

func readMemory(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &m.Resident, "VmHWM": &m.Highest, "RssAnon": &m.Own}[name]
		if into == nil {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, err
		}
		*into = kB << 10
	}
	return m, nil
}
