//go:build failpoint

package failpoint

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// The variable ROLECALL_FAILPOINT names a file that says where to break. While there is none, nothing is broken. It holds
// the number of a statement and a word. Statements are counted that requests have PostgreSQL execute, in the control
// database or in a cluster, since the file was written; a batch counts as one. When the number is reached, ".reached" is
// added to the name of the file. The words:
//
//	kill   the process kills itself when the statement is done
//	send   the process kills itself when the statement is sent
//	lose   the connection is lost before PostgreSQL gets the statement
//	cut    the connection is lost when the statement is done, before its answer comes
//	commit like cut, but only COMMITs are counted, and batches, which commit
//	wait   the process waits, when the statement is done, until the file is removed
var path = os.Getenv("ROLECALL_FAILPOINT")

const reached = ".reached"

// On puts failpoints into the connections that are made with config.
func On(config *pgx.ConnConfig) {
	if others, ok := config.Tracer.(pgx.QueryTracer); ok { // the limits of the product
		config.Tracer = multitracer.New(others, tracer{})
	} else {
		config.Tracer = tracer{}
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c}, nil
	}
}

// Soon is the time after which an attempt that was cut off may be judged: at once when it is about to be.
func Soon(limit time.Duration) time.Duration {
	if _, err := os.Stat(path); err == nil {
		return 0
	}
	return limit
}

var counting struct {
	sync.Mutex
	since time.Time // when the file was written
	done  int       // statements since then
}

// next counts a statement, "" for a batch, and returns what is to happen at it, "" for nothing. What goes on in the
// background is not counted; the context of a request is known by its server.
func next(ctx context.Context, sql string) (word string) {
	if ctx.Value(http.ServerContextKey) == nil {
		return ""
	}
	counting.Lock()
	defer counting.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var at int
	if _, err := fmt.Sscan(string(text), &at, &word); err != nil {
		panic(fmt.Sprintf("%s holds %q, which is not a number and a word", path, text))
	}
	if counting.since != info.ModTime() {
		counting.since, counting.done = info.ModTime(), 0
	}
	if word == "commit" && sql != "" && !strings.HasSuffix(strings.ToUpper(sql), "COMMIT") {
		return ""
	}
	if counting.done++; counting.done != at || os.Rename(path, path+reached) != nil {
		return ""
	}
	return word
}

func kill() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

type tracer struct{}

type wordKey struct{}

func start(ctx context.Context, on *pgx.Conn, sql string) context.Context {
	word := next(ctx, sql)
	if c, ok := on.PgConn().Conn().(*conn); ok {
		c.word = word
	}
	return context.WithValue(ctx, wordKey{}, word)
}

func end(ctx context.Context) {
	switch ctx.Value(wordKey{}) {
	case "kill":
		kill()
	case "wait":
		for waits := true; waits; time.Sleep(time.Millisecond) {
			_, err := os.Stat(path + reached)
			waits = err == nil
		}
	}
}

func (tracer) TraceQueryStart(ctx context.Context, on *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return start(ctx, on, data.SQL)
}
func (tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) { end(ctx) }

func (tracer) TraceBatchStart(ctx context.Context, on *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return start(ctx, on, "")
}
func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData)     {}
func (tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) { end(ctx) }

// conn is a connection without TLS.
type conn struct {
	net.Conn
	word string
	lost atomic.Bool // nothing that comes is passed on any more
}

// Read keeps the answer from pgx, which begins to read while a write takes long.
func (c *conn) Read(answer []byte) (int, error) {
	n, err := c.Conn.Read(answer)
	if c.lost.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// executes reports whether a statement is among the messages that is to be executed, and not only prepared: a text, or a
// bind. https://www.postgresql.org/docs/current/protocol-message-formats.html
func executes(messages []byte) bool {
	for len(messages) >= 5 {
		if messages[0] == 'Q' || messages[0] == 'B' {
			return true
		}
		messages = messages[min(len(messages), 1+int(binary.BigEndian.Uint32(messages[1:]))):]
	}
	return false
}

// Write sends messages, and breaks what is to be broken at those that execute the statement.
func (c *conn) Write(messages []byte) (int, error) {
	if c.word == "" || !executes(messages) {
		return c.Conn.Write(messages)
	}
	word := c.word
	c.word = ""
	switch word {
	case "lose":
		c.Conn.Close()
	case "cut", "commit":
		c.lost.Store(true)
	}
	n, err := c.Conn.Write(messages)
	switch word {
	case "send":
		kill()
	case "cut", "commit":
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.Conn) // PostgreSQL ends the session when it has done what was asked for
		c.Conn.Close()
	}
	return n, err
}
