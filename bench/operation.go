package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// operation is a row of the table: one thing that is asked of Rolecall, the statement that PostgreSQL cannot do it
// without, and the same thing asked of the peer.
type operation struct {
	name  string // for -only
	title string
	of    string // what it is done to: roles or accounts
	// script is what pgbench runs, "" where nothing compares. It is prepared but for statements that PostgreSQL does not
	// prepare with parameters.
	script, protocol string
	writes           bool
	stock            bool                 // it uses up roles that are made for it
	flat             bool                 // it is to cost the same however many roles and accounts there are
	rolecall         func(r *run) request // nil: only pgbench is measured, to show what another row consists of
	peer             func(r *run) request // nil: the peer cannot do it
	// What is to be reached: the share of pgbench, and how many times the peer.
	share, times float64
	// p50 is the time in ms in which half of the answers are to come; 0: any.
	p50         float64
	connections []int // nil: those of -connections
}

// run is one measurement of an operation: what its requests are made of.
type run struct {
	*bench
	target
	connections int
	base        int      // what is made is numbered from here
	oids        []uint32 // of the roles, for the peer
	sent        []int    // by connection
	perConn     int      // how many of the stock each connection may use
}

const password = "correct horse battery staple"

var operations = []operation{
	{
		name: "get", title: "get one user", of: "roles", script: "get", protocol: "prepared", share: .25, times: 60, flat: true,
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.user.get(buf, "%s/%s%d", r.users, baseRole, r.any()) }
		},
		peer: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.peer.get(buf, "/roles/%d", r.oids[r.any()-1]) }
		},
	},
	{
		name: "list", title: "list 100, the first page", of: "roles", script: "list", protocol: "prepared", share: .25, times: 60,
		flat: true,
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.user.get(buf, "%s?limit=100", r.users) }
		},
		peer: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.peer.get(buf, "/roles?limit=100") }
		},
	},
	{
		name: "page", title: "list 100, any page", of: "roles", script: "page", protocol: "prepared", share: .25, times: 60,
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte {
				return r.user.get(buf, "%s?limit=100&offset=%d", r.users, 100*rand.IntN(r.roles/100))
			}
		},
		peer: func(r *run) request {
			return func(buf []byte, _ int) []byte {
				return r.peer.get(buf, "/roles?limit=100&offset=%d", 100*rand.IntN(r.roles/100))
			}
		},
	},
	{name: "get", title: "pgbench alone: get, with the comment", of: "roles", script: "getcomment", protocol: "prepared"},
	{name: "list", title: "pgbench alone: list 100, with the comments", of: "roles", script: "listcomment",
		protocol: "prepared"},
	{
		name: "create", title: "create a user", of: "roles", script: "create", protocol: "simple", writes: true, share: .85,
		times: 3,
		rolecall: func(r *run) request {
			return func(buf []byte, c int) []byte {
				return r.user.send(buf, "POST", r.users,
					fmt.Sprintf(`{"properties":{"username":"%s%d","password":"%s"}}`, madeRole, r.next(c), password))
			}
		},
		peer: func(r *run) request {
			return func(buf []byte, c int) []byte {
				return r.peer.send(buf, "POST", "/roles", fmt.Sprintf(`{"name":"%s%d","can_login":true,"password":"%s"}`, madeRole,
					r.next(c), password))
			}
		},
	},
	{
		name: "password", title: "change a password", of: "roles", script: "password", protocol: "simple", writes: true,
		share: .85, times: 3,
		rolecall: func(r *run) request {
			return func(buf []byte, c int) []byte {
				return r.user.send(buf, "PATCH", r.users+"/"+baseRole+strconv.Itoa(r.own(c, r.roles)),
					`{"properties":{"password":"`+password+`"}}`)
			}
		},
		peer: func(r *run) request {
			return func(buf []byte, c int) []byte {
				return r.peer.send(buf, "PATCH", fmt.Sprintf("/roles/%d", r.oids[r.own(c, r.roles)-1]), `{"password":"`+password+`"}`)
			}
		},
	},
	{
		name: "delete", title: "delete a user", of: "roles", script: "delete", protocol: "simple", writes: true, stock: true,
		share: .15, times: 10,
		rolecall: func(r *run) request {
			return func(buf []byte, c int) []byte {
				if n := r.ofStock(c); n > 0 {
					return r.user.send(buf, "DELETE", r.users+"/"+stockRole+strconv.Itoa(n), "")
				}
				return nil
			}
		},
		peer: func(r *run) request {
			return func(buf []byte, c int) []byte {
				if n := r.ofStock(c); n > 0 {
					return r.peer.send(buf, "DELETE", fmt.Sprintf("/roles/%d", r.oids[n-1]), "")
				}
				return nil
			}
		},
	},
	{
		name: "account", title: "get an account", of: "accounts", script: "account", protocol: "prepared", share: .25, flat: true,
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte {
				return r.admin.get(buf, "/v3/users/%s%012d", accountGUID, 1+rand.IntN(r.accounts))
			}
		},
	},
	{
		name: "labels", title: "change an account's labels", of: "accounts", script: "labels", protocol: "prepared", writes: true,
		share: .25,
		rolecall: func(r *run) request {
			return func(buf []byte, c int) []byte {
				return r.admin.send(buf, "PATCH", fmt.Sprintf("/v3/users/%s%012d", accountGUID, r.own(c, r.accounts)),
					fmt.Sprintf(`{"metadata":{"labels":{"round":"r%d"}}}`, r.next(c)))
			}
		},
	},
	selection("few", "list accounts by a label that 500 have, page 1", "project=apollo", 1),
	selection("few", "list accounts by a label that 500 have, page 10, the last", "project=apollo", 10),
	selection("many", "list accounts by a label that half of them have, page 1", "env=prod", 1),
	selection("many", "list accounts by a label that half of them have, the last page", "env=prod", -1),
}

// selection lists accounts by a label selector; page -1 is the last one.
func selection(name, title, selector string, page int) operation {
	return operation{
		name: name, title: title, of: "accounts", p50: 5, flat: page == 1, connections: []int{8},
		rolecall: func(r *run) request {
			n := page
			if n < 0 {
				n = r.accounts / 2 / 50
			}
			return func(buf []byte, _ int) []byte {
				return r.admin.get(buf, "/v3/users?label_selector=%s&per_page=50&page=%d", selector, n)
			}
		},
	}
}

// any is the number of any role.
func (r *run) any() int { return 1 + rand.IntN(r.roles) }

// own is the number of any of n roles or accounts that no other connection has: two changes of one would wait for each
// other.
func (r *run) own(c, n int) int { return 1 + c + r.connections*rand.IntN(n/r.connections) }

// next is a number that nothing else has.
func (r *run) next(c int) int {
	r.sent[c]++
	return r.base + c*1_000_000 + r.sent[c]
}

// ofStock is the next of the stock, 0 when the connection has used up its part.
func (r *run) ofStock(c int) int {
	if r.sent[c] == r.perConn {
		return 0
	}
	r.sent[c]++
	return c*r.perConn + r.sent[c]
}

// endpoint is where requests go, with the headers that all of them have.
type endpoint struct {
	address string
	headers string // each with its end of line
}

func newEndpoint(address, token string) endpoint {
	e := endpoint{address: address, headers: "Accept: application/json\r\n"}
	if token != "" {
		e.headers += "Authorization: Bearer " + token + "\r\n"
	}
	return e
}

func (e endpoint) get(buf []byte, path string, args ...any) []byte {
	buf = append(buf, "GET "...)
	buf = fmt.Appendf(buf, path, args...)
	return e.end(buf)
}

func (e endpoint) send(buf []byte, method, path, body string) []byte {
	buf = append(append(append(buf, method...), ' '), path...)
	if body == "" {
		return e.end(buf)
	}
	buf = e.end(buf)
	buf = fmt.Appendf(buf[:len(buf)-2], "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	return append(buf, body...)
}

func (e endpoint) end(buf []byte) []byte {
	buf = append(append(buf, " HTTP/1.1\r\nHost: "...), e.address...)
	buf = append(append(buf, "\r\n"...), e.headers...)
	return append(buf, "\r\n"...)
}

// stockFor makes the roles that a measurement of deletion may use up, and says how many each connection has: more than
// it gets through in the time. pgbench ends when it has dropped all.
func (b *bench) stockFor(ctx context.Context, side string, connections int) (perConnection int, err error) {
	perSecond := 4000.0
	if side == sidePeer {
		perSecond = 600
	}
	perConnection = 1 + int(perSecond*(b.seconds+b.warmUp(b.seconds)).Seconds())/connections
	return perConnection, b.site.roles(ctx, stockRole, 1, perConnection*connections)
}
