package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A request appends the next request of connection c to buf, or returns nil when that has no more to send.
type request func(buf []byte, c int) []byte

// load sends requests over connections that stay open, each the next when the last is answered. One thread serves them
// all with epoll, as wrk does: it shares the machine with what is measured, so it must take little. Measured side by
// side, a request cost wrk 8.1 µs of CPU, this 8.1 µs and a goroutine for each net.Conn 9 to 10 µs, most of it the kernel's.
type load struct {
	request request
	// perSecond is how many requests are due in a second, answered or not; 0: the next one when the last is answered. If a
	// request waits for a connection, its time starts when it was due.
	perSecond float64
	// answered is given each answer before the connection sends its next request; nil: nobody wants it.
	answered func(c int, answer []byte)

	epoll       int
	connections []*connection
	due         []time.Time // requests that wait for a connection
}

type connection struct {
	number, fd int
	sent       time.Time // zero: no request is in flight
	out, in    []byte
	read       int // of in
}

// answers are what came back.
type answers struct {
	Took     time.Duration
	Statuses map[int]int
	times    []time.Duration
}

// giveUp is how long the last answers may take: longer than any limit of the servers.
const giveUp = 100 * time.Second

// connect opens n connections. The caller closes them.
func (l *load) connect(address string, n int) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	for i := range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		l.connections = append(l.connections, &connection{number: i, fd: fd, in: make([]byte, 1<<16)})
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
			return fmt.Errorf("connect to %s: %w", address, err)
		}
		err = errors.Join(
			syscall.SetNonblock(fd, true),
			syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
			syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *load) close() {
	for _, c := range l.connections {
		syscall.Close(c.fd)
	}
	syscall.Close(l.epoll)
}

// run sends requests for d, or until there are none left, and returns when all are answered.
func (l *load) run(ctx context.Context, d time.Duration) (*answers, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := &answers{Statuses: map[int]int{}}
	start := time.Now()
	end, next, underWay := start.Add(d), start, 0
	send := func(c *connection, now time.Time) error {
		c.out = l.request(c.out[:0], c.number)
		if len(c.out) == 0 {
			return nil
		}
		if n, err := syscall.Write(c.fd, c.out); err != nil || n < len(c.out) {
			return fmt.Errorf("send a request: %d of %d bytes: %w", n, len(c.out), err)
		}
		c.sent, c.read = now, 0
		underWay++
		return nil
	}
	// fill sends what has fallen due over the connections that have nothing to do.
	fill := func(now time.Time) error {
		for ; l.perSecond > 0 && !next.After(now) &&
			next.Before(end); next = next.Add(time.Duration(float64(time.Second) / l.perSecond)) {
			l.due = append(l.due, now)
		}
		for _, c := range l.connections {
			if len(l.due) == 0 || !c.sent.IsZero() {
				continue
			}
			if err := send(c, l.due[0]); err != nil {
				return err
			}
			l.due = l.due[1:]
		}
		return nil
	}
	if l.perSecond == 0 {
		for _, c := range l.connections {
			if err := send(c, time.Now()); err != nil {
				return nil, err
			}
		}
	}
	events := make([]syscall.EpollEvent, len(l.connections))
	for {
		now := time.Now()
		if err := fill(now); err != nil {
			return nil, err
		}
		waits := l.perSecond > 0 && (next.Before(end) || len(l.due) > 0)
		if underWay == 0 && !waits {
			break
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if now.After(end.Add(giveUp)) {
			return nil, fmt.Errorf("%d requests have had no answer for %s", underWay, giveUp)
		}
		patience := 100 // ms
		if waits {
			patience = 1
		}
		n, err := syscall.EpollWait(l.epoll, events, patience)
		if err != nil && err != syscall.EINTR {
			return nil, os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(0, n)] {
			c := l.connections[e.Fd]
			status, err := c.receive()
			if err != nil {
				return nil, err
			}
			if status == 0 {
				continue
			}
			now := time.Now()
			a.Statuses[status]++
			a.times = append(a.times, now.Sub(c.sent))
			c.sent = time.Time{}
			underWay--
			if l.answered != nil {
				l.answered(c.number, c.in[:c.read])
			}
			if l.perSecond == 0 && now.Before(end) {
				if err := send(c, now); err != nil {
					return nil, err
				}
			}
		}
	}
	a.Took = time.Since(start)
	slices.Sort(a.times)
	return a, nil
}

// receive reads what has come, and returns the status once the answer is complete, 0 before.
func (c *connection) receive() (status int, err error) {
	if c.read == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := syscall.Read(c.fd, c.in[c.read:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read an answer: %w", err)
	case n == 0:
		return 0, errors.New("read an answer: the server has closed the connection")
	case c.sent.IsZero():
		return 0, fmt.Errorf("the server has sent what nobody asked for: %.200q", c.in[:n])
	}
	c.read += n
	status, size, err := parseAnswer(c.in[:c.read])
	if err == nil && size > 0 && size < c.read {
		err = fmt.Errorf("an answer is followed by %.200q", c.in[size:c.read])
	}
	return status, err
}

// parseAnswer returns the status and the size of an HTTP/1.1 response, 0 and 0 while it is not complete.
func parseAnswer(b []byte) (status, size int, err error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return 0, 0, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) || head < len("HTTP/1.1 200") {
		return 0, 0, fmt.Errorf("%.40q is not the start of an HTTP/1.1 response", b)
	}
	if status, err = strconv.Atoi(string(b[9:12])); err != nil {
		return 0, 0, err
	}
	length, chunked := -1, false
	for line := range bytes.SplitSeq(b[:head], []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	size = head + 4
	switch {
	case status == 204 || status == 304:
		return status, size, nil
	case chunked:
		for {
			line := bytes.Index(b[size:], []byte("\r\n"))
			if line < 0 {
				return 0, 0, nil
			}
			chunk, err := strconv.ParseUint(string(b[size:size+line]), 16, 31)
			if err != nil {
				return 0, 0, err
			}
			size += line + 2 + int(chunk) + 2
			switch {
			case size > len(b):
				return 0, 0, nil
			case chunk == 0:
				return status, size, nil
			}
		}
	case length < 0:
		return 0, 0, fmt.Errorf("a response says nothing of its length: %.200q", b[:head])
	}
	if size += length; size > len(b) {
		return 0, 0, nil
	}
	return status, size, nil
}

// failed are the answers that are no success, by status.
func (a *answers) failed() map[string]int {
	failed := map[string]int{}
	for status, n := range a.Statuses {
		if status < 200 || status > 299 {
			failed[strconv.Itoa(status)] += n
		}
	}
	return failed
}

// quantile is the time in ms that a share of the answers took at most.
func (a *answers) quantile(share float64) float64 {
	if len(a.times) == 0 {
		return 0
	}
	i := min(len(a.times)-1, int(share*float64(len(a.times))))
	return float64(a.times[i]) / float64(time.Millisecond)
}
