// Package pgwire bounds what the servers of a cluster make this process hold and compute. A server sends messages before it
// has proven anything, and the driver alone accepts a gigabyte for each.
package pgwire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The bounds. What PostgreSQL sends to Rolecall's statements stays far below each.
const (
	maxMessage     = 1 << 20   // of a message, such as a row
	maxText        = 64 << 10  // of an error or a notice, and of a message before the session is ready
	maxShape       = 16 << 10  // of the description of a statement, which the driver keeps
	maxSetting     = 8 << 10   // of the report of one setting, which the driver keeps
	maxSettings    = 64        // how many settings a server may report
	maxStart       = 256 << 10 // of all that comes before the session is ready
	maxHeld        = 32 << 20  // of the responses that are being read from one cluster
	overhead       = 256       // what a message takes in memory besides its bytes: many are short
	maxIterations  = 1_000_000 // of a SCRAM verifier; PostgreSQL's own default is 4096
	manyIterations = 10_000
	collectPause   = 5 * time.Second
)

// Refused says what a server sent that was not accepted. It is a net.Error: the connection is lost.
type Refused struct{ why string }

func (r *Refused) Error() string { return r.why }

// Timeout and Temporary are those of a net.Error.
func (*Refused) Timeout() bool   { return false }
func (*Refused) Temporary() bool { return false }

// Refuse returns the error for a response that is within the bounds here, and not within those of its reader.
func Refuse(format string, args ...any) *Refused { return &Refused{fmt.Sprintf(format, args...)} }

// Guard is shared by all connections to one cluster.
type Guard struct {
	held      atomic.Int64
	collected atomic.Int64  // when collect last did something, in nanoseconds
	deriving  chan struct{} // holds one while a key is derived from a password
	wait      time.Duration // at most, for another connection that derives
}

// NewGuard returns one for a cluster.
func NewGuard() *Guard {
	return &Guard{deriving: make(chan struct{}, 1), wait: 4 * time.Second}
}

// collect finds out what closed connections hold no longer, at most once in collectPause: else a cluster that has recovered
// would be refused until the next collection, which may be two minutes away.
func (g *Guard) collect() {
	last := g.collected.Load()
	if now := time.Now().UnixNano(); now-last >= int64(collectPause) && g.collected.CompareAndSwap(last, now) {
		go runtime.GC()
	}
}

// Frontend is for pgconn.Config.BuildFrontend.
func (g *Guard) Frontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	s := &stream{guard: g, in: bufio.NewReaderSize(r, 8192), out: w, settings: map[string]bool{}, response: new(atomic.Int64)}
	// A connection that was closed in the middle of a response counts until what it holds is collected.
	runtime.AddCleanup(s, func(response *atomic.Int64) { g.held.Add(-response.Load()) }, s.response)
	f := pgproto3.NewFrontend(s, s)
	f.SetMaxBodyLen(maxMessage)
	return f
}

// stream is one connection, between the network and the driver.
type stream struct {
	guard    *Guard
	in       *bufio.Reader
	out      io.Writer
	ready    bool            // the session has begun
	settings map[string]bool // that were reported
	response *atomic.Int64   // bytes since the session was ready last
	whole    []byte          // a message that was inspected and is to be passed on
	left     int             // how much of another message is to be passed on
	derived  func()          // called when the driver has derived its key
	err      error
}

// Read passes on messages that are within the bounds.
func (s *stream) Read(p []byte) (n int, err error) {
	for n < len(p) && s.err == nil {
		switch {
		case len(s.whole) > 0:
			m := copy(p[n:], s.whole)
			s.whole = s.whole[m:]
			n += m
		case s.left > 0:
			if n > 0 && s.in.Buffered() == 0 {
				return n, nil
			}
			m, err := s.in.Read(p[n:min(len(p), n+s.left)])
			s.left -= m
			n += m
			if err != nil {
				return n, err
			}
		case n > 0 && s.in.Buffered() < headerSize:
			return n, nil
		default:
			header, err := s.in.Peek(headerSize)
			if err != nil {
				return n, err
			}
			if n > 0 && (header[0] == authentication || header[0] == parameterStatus) {
				return n, nil // waits for the rest, or for other connections
			}
			s.err = s.begin(header[0], int(int32(binary.BigEndian.Uint32(header[1:])))-4)
			if conn, ok := s.out.(io.Closer); ok && s.err != nil {
				conn.Close() // the driver would read what else the server sends, past this stream and for 15 s
			}
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, s.err
}

// The kinds of messages that matter here:
// https://www.postgresql.org/docs/current/protocol-message-formats.html
const (
	headerSize           = 5
	authentication       = 'R'
	saslContinue         = 11
	parameterStatus      = 'S'
	readyForQuery        = 'Z'
	errorResponse        = 'E'
	noticeResponse       = 'N'
	rowDescription       = 'T'
	parameterDescription = 't'
)

// begin checks the next message, the body of which has length bytes.
func (s *stream) begin(kind byte, length int) error {
	limit := maxMessage
	switch kind {
	case parameterStatus:
		limit = maxSetting
	case rowDescription, parameterDescription:
		limit = maxShape
	case authentication, errorResponse, noticeResponse:
		limit = maxText
	}
	if !s.ready {
		limit = min(limit, maxText)
	}
	if length < 0 || length > limit {
		return Refuse("it began a message that is longer than %d bytes", limit) // a service that is no PostgreSQL is not quoted
	}
	size := headerSize + length
	response, held := s.response.Add(int64(size+overhead)), s.guard.held.Add(int64(size+overhead))
	if !s.ready && response > maxStart {
		return Refuse("it sent more than %d bytes before the session was ready", maxStart)
	}
	if held > maxHeld {
		s.guard.collect()
		return Refuse("it sent more than %d bytes at a time", maxHeld)
	}
	switch kind {
	case authentication, parameterStatus:
		s.whole = make([]byte, size)
		if _, err := io.ReadFull(s.in, s.whole); err != nil {
			return err
		}
		if kind == authentication {
			return s.authenticate(s.whole[headerSize:])
		}
		name, _, _ := bytes.Cut(s.whole[headerSize:], []byte{0})
		if s.settings[string(name)] = true; len(s.settings) > maxSettings {
			return Refuse("it reported more than %d settings", maxSettings)
		}
		return nil
	case readyForQuery:
		s.ready = true
		s.guard.held.Add(-s.response.Swap(0))
	}
	s.left = size
	return nil
}

// authenticate looks for the number of iterations that the server asks for. Keys are derived one at a time: many at once
// would keep the processors from other clusters, and no deadline ends one.
// https://www.rfc-editor.org/rfc/rfc5802#section-5.1
func (s *stream) authenticate(body []byte) error {
	if len(body) < 4 || binary.BigEndian.Uint32(body) != saslContinue {
		return nil
	}
	_, digits, _ := bytes.Cut(body[4:], []byte(",i="))
	iterations, err := strconv.Atoi(string(digits))
	if err != nil || iterations < 1 || iterations > maxIterations {
		return Refuse("it asks for %.20q iterations of SCRAM, and at most %d are accepted", digits, maxIterations)
	}
	select {
	case s.guard.deriving <- struct{}{}:
	case <-time.After(s.guard.wait):
		return Refuse("sign-ins on other connections to it took longer than %s", s.guard.wait)
	}
	begin := time.Now()
	s.derived = sync.OnceFunc(func() {
		leave := func() { <-s.guard.deriving }
		if iterations > manyIterations {
			time.AfterFunc(min(3*time.Since(begin), time.Second), leave) // a quarter of one processor at most
			return
		}
		leave()
	})
	time.AfterFunc(s.guard.wait, s.derived) // the driver may have refused the rest of the message
	return nil
}

// Write passes on what the driver sends. After a request to derive a key that is the proof.
func (s *stream) Write(p []byte) (int, error) {
	if s.derived != nil {
		s.derived()
		s.derived = nil
	}
	return s.out.Write(p)
}
