package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
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
	goals            goals
	// p50 is the time in ms in which half of the answers are to come; 0: any.
	p50 float64
	// p50Times is the same in times of the operation with the same name before it; 0: any.
	p50Times    float64
	connections []int // nil: a single one, and those of -connections
}

// goals are what is to be reached. Those by the number of connections hold for no other number.
type goals struct {
	share map[int]float64 // of pgbench
	bare  map[int]float64 // the CPU time of Rolecall, in that of a bare HTTP server
	// keys is the CPU time of Rolecall and PostgreSQL in that of two SCRAM keys, one of PostgreSQL and one of Rolecall.
	keys  float64
	times float64 // the peer
	// quick is the CPU time of Rolecall and PostgreSQL, in that of a bare HTTP server, above which a quick run fails: two to
	// four times what it was on a busy machine when this was written. With keys, quickKeys is the limit. 0: a quick run
	// leaves it out.
	quick float64
}

// run is one measurement of an operation: what its requests are made of.
type run struct {
	*bench
	target
	verifier    string // that pgbench sets
	connections int
	answered    func(c int, answer []byte) // set by an operation that needs the answers
	links       []string                   // by connection: the path of the next page
	leases      []string                   // by connection: the path of a lease
	base        int                        // what is made is numbered from here
	oids        []uint32                   // of the roles, for the peer
	sent        []int                      // by connection
	perConn     int                        // how many of the stock each connection may use
}

func (b *bench) newRun(connections int) *run {
	return &run{bench: b, target: b.target, verifier: b.verifier, connections: connections, sent: make([]int, connections),
		links: make([]string, connections), leases: make([]string, connections)}
}

const password = "correct horse battery staple"

var operations = []operation{
	{
		name: "get", title: "get one user", of: "roles", script: "get", protocol: "prepared", flat: true,
		goals: goals{share: map[int]float64{8: .25, 32: .38}, bare: map[int]float64{8: 3.2, 32: 3}, times: 80, quick: 25},
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.user.get(buf, "%s/%s%d", r.users, baseRole, r.any()) }
		},
		peer: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.peer.get(buf, "/roles/%d", r.oids[r.any()-1]) }
		},
	},
	{
		name: "list", title: "list 100, the first page", of: "roles", script: "list", protocol: "prepared", flat: true,
		goals: goals{share: map[int]float64{8: .22, 32: .45}, bare: map[int]float64{8: 5, 32: 4}, times: 40, quick: 80},
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.user.get(buf, "%s?limit=100", r.users) }
		},
		peer: func(r *run) request {
			return func(buf []byte, _ int) []byte { return r.peer.get(buf, "/roles?limit=100") }
		},
	},
	{
		name: "next", title: "list 100, the next page by its link", of: "roles", script: "page", protocol: "prepared",
		goals:    goals{share: map[int]float64{8: .15, 32: .15}, times: 25},
		rolecall: func(r *run) request { return r.follow("") },
		peer: func(r *run) request {
			return func(buf []byte, c int) []byte {
				r.sent[c]++
				return r.peer.get(buf, "/roles?limit=100&offset=%d", 100*(r.sent[c]%(r.roles/100)))
			}
		},
	},
	{
		name: "page", title: "list 100, any page", of: "roles", script: "page", protocol: "prepared",
		goals: goals{share: map[int]float64{8: .04, 32: .04}, times: 15},
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
		name: "create", title: "create a user", of: "roles", script: "create", protocol: "simple", writes: true,
		goals: goals{share: map[int]float64{8: .65, 32: .6}, keys: 1.5, times: 3},
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
		goals: goals{share: map[int]float64{8: .65, 32: .6}, keys: 1.5, times: 3, quick: 1},
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
		goals: goals{share: map[int]float64{8: .11, 32: .18}, times: 10, quick: 250},
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
		name: "lease", title: "take a lease, or end it", of: "roles", writes: true,
		rolecall: func(r *run) request {
			r.answered = func(c int, answer []byte) {
				if id := between(answer, `"id":"`, `"`); id != "" && r.leases[c] == "" {
					r.leases[c] = "/rolecall/v1/leases/" + id
				} else {
					r.leases[c] = ""
				}
			}
			return func(buf []byte, c int) []byte {
				if r.leases[c] != "" {
					return r.user.send(buf, "DELETE", r.leases[c], "")
				}
				return r.user.send(buf, "POST", "/rolecall/v1/clusters/"+r.clusterID+"/leases",
					fmt.Sprintf(`{"for":"%s%d"}`, baseRole, r.own(c, r.roles)))
			}
		},
	},
	deep("list 100 of 100,000, the first page", "", 0),
	deep("list 100 of 100,000, at 50,000 by its link", "link", 50_000),
	deep("list 100 of 100,000, at 99,900 by its link", "link", 99_900),
	deep("list 100 of 100,000, at 50,000 by offset", "offset", 50_000),
	deep("list 100 of 100,000, at 99,900 by offset", "offset", 99_900),
	{
		name: "account", title: "get an account", of: "accounts", script: "account", protocol: "prepared", flat: true,
		goals: goals{share: map[int]float64{8: .25, 32: .35}, quick: 25},
		rolecall: func(r *run) request {
			return func(buf []byte, _ int) []byte {
				return r.admin.get(buf, "/v3/users/%s%012d", accountGUID, 1+rand.IntN(r.accounts))
			}
		},
	},
	{
		name: "labels", title: "change an account's labels", of: "accounts", script: "labels", protocol: "prepared", writes: true,
		goals: goals{share: map[int]float64{8: .3, 32: .3}, quick: 150},
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

// deep lists a page of many roles, again and again: how long it takes to find where the page begins.
func deep(title, by string, offset int) operation {
	op := operation{name: "deep", title: title, of: "many roles", connections: []int{1}}
	if by == "link" {
		op.p50Times = 6
	}
	op.rolecall = func(r *run) request {
		if by == "link" {
			return r.follow(fmt.Sprintf("%s?limit=100&offset=%d", r.users, offset-100))
		}
		return func(buf []byte, _ int) []byte { return r.user.get(buf, "%s?limit=100&offset=%d", r.users, offset) }
	}
	return op
}

// follow asks for the next page by the link in the last one, and for the first one behind the last. If a page is given, all
// requests but the first are for the page that follows it.
func (r *run) follow(before string) request {
	first := before
	if first == "" {
		first = r.users + "?limit=100"
	}
	r.answered = func(c int, answer []byte) {
		if before == "" || r.links[c] == "" {
			r.links[c] = nextLink(answer)
		}
	}
	return func(buf []byte, c int) []byte {
		if r.links[c] == "" {
			return r.user.get(buf, "%s", first)
		}
		return r.user.get(buf, "%s", r.links[c])
	}
}

// nextLink is the path of the next page, "" on the last one.
func nextLink(answer []byte) string {
	link := between(answer[max(0, len(answer)-2000):], `"next":"`, `"`)
	link = strings.ReplaceAll(link, `\u0026`, "&")
	if i := strings.Index(link, "/databases/"); i >= 0 {
		return link[i:]
	}
	return ""
}

// between is the text after before until after, "" if there is none.
func between(text []byte, before, after string) string {
	_, rest, _ := bytes.Cut(text, []byte(before))
	found, _, ends := bytes.Cut(rest, []byte(after))
	if !ends {
		return ""
	}
	return string(found)
}

// endLeases ends the leases that a measurement has left: an account may have a hundred.
func (r *run) endLeases(ctx context.Context) error {
	for _, path := range r.leases {
		if path == "" {
			continue
		}
		if _, err := r.user.do(ctx, http.MethodDelete, path); err != nil {
			return err
		}
	}
	return nil
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
	token   string
	headers string // each with its end of line
}

func newEndpoint(address, token string) endpoint {
	e := endpoint{address: address, token: token, headers: "Accept: application/json\r\n"}
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

// do sends a single request, and returns the answer if it is a success.
func (e endpoint) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+e.address+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+e.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, body)
	}
	return body, err
}

func (e endpoint) end(buf []byte) []byte {
	buf = append(append(buf, " HTTP/1.1\r\nHost: "...), e.address...)
	buf = append(append(buf, "\r\n"...), e.headers...)
	return append(buf, "\r\n"...)
}

// stockFor makes the roles that a measurement of deletion may use up, and says how many each connection has: more than
// it gets through in the time. pgbench ends when it has dropped all.
func (b *bench) stockFor(ctx context.Context, side string, connections int, d time.Duration) (perConnection int,
	err error) {
	perSecond, seconds := 5000.0, (d + b.warmUp(d)).Seconds()
	switch side {
	case sidePeer:
		perSecond = 600
	case sidePgbench:
		perSecond, seconds = 20_000, float64(pgbenchSeconds(d))
	}
	perConnection = 1 + int(perSecond*seconds)/connections
	return perConnection, b.site.roles(ctx, stockRole, 1, perConnection*connections)
}
