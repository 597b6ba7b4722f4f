package web

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// Connections bounds how many connections a server has open: each takes memory and a file, and the pools to PostgreSQL
// need files, too. At the bound a new one takes the place of the one that has been without a request for longest: a
// client that kept it in reserve opens another when it needs it, and one that is slow on purpose gains nothing.
type Connections struct {
	Max int

	mu      sync.Mutex
	waiting list.List // of net.Conn: idle connections, the one that is idle for longest first
	open    map[net.Conn]*list.Element
}

// Track is for http.Server.ConnState.
func (c *Connections) Track(conn net.Conn, state http.ConnState) {
	if out := c.note(conn, state); out != nil {
		// Without TLS's close notification, which would wait for a client that does not read.
		if wrapped, ok := out.(interface{ NetConn() net.Conn }); ok {
			out = wrapped.NetConn()
		}
		_ = out.Close()
	}
}

// note returns the connection that must go.
func (c *Connections) note(conn net.Conn, state http.ConnState) (out net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]*list.Element{}
	}
	place, known := c.open[conn]
	if place != nil {
		c.waiting.Remove(place)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		if !known && state != http.StateNew {
			return nil // it has been closed
		}
		if state == http.StateNew && len(c.open) >= c.Max {
			out = conn
			if oldest := c.waiting.Front(); oldest != nil {
				out = c.waiting.Remove(oldest).(net.Conn)
				delete(c.open, out)
			}
		}
		if out != conn {
			c.open[conn] = c.waiting.PushBack(conn)
		}
	case http.StateActive:
		if known {
			c.open[conn] = nil
		}
	default:
		delete(c.open, conn)
	}
	return out
}
