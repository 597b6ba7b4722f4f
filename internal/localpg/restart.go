package localpg

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// otherStarts is how long Restart waits for a server that another process starts. `pg_ctl restart` looks ten times a second
// whether the old one has ended.
const otherStarts = 500 * time.Millisecond

// Restart runs a server that has ended again, on the same port. If another process has started one on its data and port, as
// `pg_ctl restart` does, Restart keeps that one. The settings of such a server are those that it was started with.
//
// If ctx ends before the server is ready, Restart fails, and stops what it has started itself. Later, ctx has no effect.
func (s *Server) Restart(ctx context.Context) (*Server, error) {
	release, err := s.folder.lock(ctx)
	if err != nil {
		return nil, err
	}
	again, err := s.restart(ctx, release)
	if err != nil {
		release()
	}
	return again, err
}

func (s *Server) restart(ctx context.Context, release func()) (*Server, error) {
	for attempt := 1; ; attempt++ {
		other, err := s.awaitOther(ctx)
		if err != nil {
			return nil, err
		}
		if other.ready && other.port == s.Port {
			return s.adopt(other, release)
		}
		again, err := start(ctx, s.options, s.folder, binaries{s.BinDir, s.Major, s.Version}, s.Port, release)
		if err == nil || ctx.Err() != nil || attempt == 5 {
			return again, err
		}
	}
}

// awaitOther returns the pid file of a server that runs on the data, once it is ready, or an empty one if none starts.
func (s *Server) awaitOther(ctx context.Context) (pidFile, error) {
	for end := time.Now().Add(otherStarts); ; {
		p, err := readPIDFile(s.DataDir)
		runs := err == nil && p.runs(s.DataDir)
		switch {
		case runs && p.ready:
			return p, nil
		case !runs && time.Now().After(end):
			return pidFile{}, nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return pidFile{}, context.Cause(ctx)
		}
	}
}

// adopt is the server that another process has started. It is no child of this one, so its end is polled for.
func (s *Server) adopt(other pidFile, release func()) (*Server, error) {
	process, err := os.FindProcess(other.pid)
	if err != nil {
		return nil, fmt.Errorf("the PostgreSQL that was started on %s (process %d): %w", s.DataDir, other.pid, err)
	}
	adopted := *s
	adopted.process, adopted.done = process, make(chan struct{})
	go func() {
		for process.Signal(syscall.Signal(0)) == nil {
			if _, ok := postgresArguments(other.pid); !ok {
				break // it has ended, and its parent does not ask for its exit code
			}
			time.Sleep(10 * pollInterval)
		}
		release()
		close(adopted.done)
	}()
	return &adopted, nil
}
