package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rolecall/internal/scram"
)

// bareCommand is the argument that makes this program a bare HTTP server; its address follows.
const bareCommand = "bare"

// bareBody is as long as the answer to a get of one user.
var bareBody = []byte(strings.Repeat("x", 760))

// serveBare answers every request with the same bytes. It costs what Go's HTTP server costs, on this machine and at this
// moment: a ratio to it stays the same when the machine gets slower.
func serveBare(address string) error {
	s := &http.Server{Addr: address, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(bareBody)))
			_, _ = w.Write(bareBody)
		})}
	return s.ListenAndServe()
}

// startBare runs it as a process of its own, so that its CPU time can be told from that of the load.
func (s *site) startBare(ctx context.Context) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	port, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	b := &server{address: local(port)}
	cmd := exec.Command(program, bareCommand, b.address)
	cmd.Env = environment()
	if b.process, err = startProcess(cmd, filepath.Join(s.dir, "bare.log")); err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 5 * time.Second}
	return b, b.waitFor(ctx, 10*time.Millisecond, func() bool { return isOK(client, "http://"+b.address) })
}

// keyCost is the CPU time in µs that one SCRAM key takes Rolecall, while all cores compute some.
func keyCost() (float64, error) {
	const each = 100
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	n := runtime.NumCPU()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for range each {
				if _, err := scram.NewVerifier(password, scramIterations); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	after, err := ownCPU()
	return (after - before).Seconds() * 1e6 / float64(n*each), err
}

// ownCPU is the CPU time of this process, finer than in /proc.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
