package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/secret"
)

// flat measures, if that is wanted, what is to cost the same however many roles and accounts there are.
func (b *bench) flat(ctx context.Context, size int) error {
	if !b.wants("flat") {
		return nil
	}
	if err := b.grow(ctx, size, size); err != nil {
		return err
	}
	const connections = 8
	for i := range operations {
		op := &operations[i]
		if !op.flat {
			continue
		}
		f := flatness{Title: op.title, Size: size}
		for range b.rounds {
			fmt.Fprintf(b.out, "\r\x1b[Kflat: %s, of %d", op.title, size)
			s, err := b.measure(ctx, op, connections, sideRolecall, b.seconds/2)
			if err != nil {
				return fmt.Errorf("%s, of %d: %w", op.title, size, err)
			}
			f.Rounds = append(f.Rounds, *s)
		}
		b.report.Flat = append(b.report.Flat, f)
	}
	return nil
}

// isolated measures how long gets take while something else goes on: password changes, each of which costs PostgreSQL
// 3 ms, and a cluster that accepts connections and never answers. Once as many gets as are answered, which is a busy
// server already, and once a few of them, whose times are those of a server that has time. pgbench does the same beside
// as many password changes of its own.
func (b *bench) isolated(ctx context.Context) error {
	const gets, others, few = 8, 32, 200
	hung, remove, err := b.hungCluster(ctx)
	if err != nil {
		return err
	}
	passwords := b.operation("password").rolecall(b.newRun(others))
	silence := func(buf []byte, _ int) []byte {
		return b.admin.get(buf, "/databases/postgresql/clusters/%s/users/%s1", hung, baseRole)
	}
	for _, c := range []struct {
		title     string
		perSecond int
		beside    string
		other     request
		share     float64
	}{
		{"gets over 8 connections", 0, "32 connections that set passwords", passwords, .5},
		{"200 gets a second", few, "32 connections that set passwords", passwords, .5},
		{"gets over 8 connections", 0, "32 connections that want a cluster which hangs", silence, 0},
		{"200 gets a second", few, "32 connections that want a cluster which hangs", silence, 0},
	} {
		i := isolation{Title: c.title, Beside: c.beside, Share: c.share}
		for range b.rounds {
			fmt.Fprintf(b.out, "\r\x1b[Kisolated: %s beside %s", c.title, c.beside)
			alone, err := b.gets(ctx, gets, c.perSecond)
			if err != nil {
				return err
			}
			beside, err := b.beside(ctx, c.other, others, func() (*sample, error) { return b.gets(ctx, gets, c.perSecond) })
			if err != nil {
				return err
			}
			i.Alone, i.Together = append(i.Alone, *alone), append(i.Together, *beside)
			if c.share > 0 {
				s, err := b.pgbenchBeside(ctx, gets, others, c.perSecond)
				if err != nil {
					return err
				}
				i.Pgbench = append(i.Pgbench, *s)
			}
			if err := b.site.settle(ctx, true); err != nil {
				return err
			}
		}
		b.report.Isolated = append(b.report.Isolated, i)
	}
	return remove()
}

// pgbenchBeside measures gets of pgbench beside password changes of another pgbench.
func (b *bench) pgbenchBeside(ctx context.Context, gets, others, perSecond int) (*sample, error) {
	going, enough := context.WithCancel(ctx)
	defer enough()
	writers, err := b.pgbenchCommand(going, b.operation("password"), b.newRun(others), "--time=3600")
	if err != nil {
		return nil, err
	}
	if err := writers.Start(); err != nil {
		return nil, err
	}
	wait := sync.OnceValue(writers.Wait)
	defer func() { enough(); _ = wait() }() // it is killed
	if err := b.untilWriting(ctx, others); err != nil {
		return nil, err
	}
	prefix := filepath.Join(b.site.dir, "latency")
	// Its time includes that of connecting: a SCRAM key for each connection, beside writers that keep all processors busy.
	args := []string{"--time=" + strconv.Itoa(wholeSeconds(2*b.seconds+2*time.Second)), "--log", "--log-prefix=" + prefix}
	if perSecond > 0 {
		args = append(args, "--rate="+strconv.Itoa(perSecond))
	}
	cmd, err := b.pgbenchCommand(ctx, b.operation("get"), b.newRun(gets), args...)
	if err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	files, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return nil, err
	}
	a := &answers{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if a.times, err = appendLatencies(a.times, text); err != nil {
			return nil, err
		}
		if err := os.Remove(file); err != nil {
			return nil, err
		}
	}
	if len(a.times) == 0 {
		return &sample{Failed: map[string]int{nothingDone: 1}}, nil
	}
	slices.Sort(a.times)
	return &sample{P50: a.quantile(.5), P99: a.quantile(.99), Requests: len(a.times)}, nil
}

// untilWriting waits until a number of sessions of pgbench are through with connecting, and set passwords.
func (b *bench) untilWriting(ctx context.Context, sessions int) error {
	for end := time.Now().Add(time.Minute); ; {
		writing, err := query[int](ctx, b.site, b.site.superuser, `SELECT count(*) FROM pg_stat_activity
			WHERE application_name = 'pgbench' AND query LIKE 'ALTER ROLE%'`)
		if err != nil || writing >= sessions {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("pgbench has connected %d of %d sessions in a minute", writing, sessions)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// appendLatencies reads what pgbench logs: a line for each transaction, whose third field is its time in µs.
func appendLatencies(times []time.Duration, log []byte) ([]time.Duration, error) {
	for line := range strings.Lines(string(log)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			return nil, fmt.Errorf("pgbench has logged %q", line)
		}
		us, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("pgbench has logged %q", line)
		}
		times = append(times, time.Duration(us)*time.Microsecond)
	}
	return times, nil
}

func (b *bench) operation(name string) *operation {
	return &operations[slices.IndexFunc(operations, func(op operation) bool { return op.name == name })]
}

// gets measures gets, at the given rate, or as fast as they are answered.
func (b *bench) gets(ctx context.Context, connections, perSecond int) (*sample, error) {
	r := b.newRun(connections)
	request := b.operation("get").rolecall(r)
	if perSecond == 0 {
		return b.drive(ctx, &b.site.rolecall.server, r, request, b.seconds)
	}
	l := &load{request: request, perSecond: float64(perSecond)}
	defer l.close()
	if err := l.connect(b.user.address, connections); err != nil {
		return nil, err
	}
	a, err := l.run(ctx, b.seconds)
	if err != nil {
		return nil, err
	}
	return a.sample(), nil
}

// beside measures while other requests are sent, whose answers do not matter.
func (b *bench) beside(ctx context.Context, other request, connections int,
	measure func() (*sample, error)) (*sample, error) {
	l := &load{request: other}
	defer l.close()
	if err := l.connect(b.user.address, connections); err != nil {
		return nil, err
	}
	going, enough := context.WithCancel(ctx)
	defer enough()
	ended := make(chan error, 1)
	go func() {
		_, err := l.run(going, time.Hour)
		ended <- err
	}()
	// They have come to what they wait for: a turn, or an answer that does not come.
	select {
	case <-time.After(b.warmUp(b.seconds)):
	case err := <-ended:
		return nil, err
	}
	s, err := measure()
	enough()
	if other := <-ended; !errors.Is(other, context.Canceled) {
		err = errors.Join(err, other)
	}
	return s, err
}

// hungCluster registers a server that takes connections and says nothing.
func (b *bench) hungCluster(ctx context.Context) (id uuid.UUID, remove func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return id, nil, err
	}
	go func() {
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			open = append(open, c)
		}
		for _, c := range open {
			c.Close()
		}
	}()
	id = uuid.New()
	err = b.register(ctx, func(r *cluster.Registry, by audit.Entry) error {
		return r.Ensure(ctx, b.clusterAt(id, "hung", l.Addr().(*net.TCPAddr).Port, id.String()), by)
	})
	return id, func() error {
		err := b.site.exec(ctx, b.site.controlRole, `DELETE FROM rolecall.clusters WHERE id = %L`, id.String())
		return errors.Join(err, l.Close())
	}, err
}

func (b *bench) clusterAt(id uuid.UUID, name string, port int, identity string) *cluster.Cluster {
	return &cluster.Cluster{
		ID:          id,
		DisplayName: name,
		Location:    "local",
		Connection: cluster.Connection{
			URL:      fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", b.site.adminRole.role, port, b.site.adminRole.database),
			TLS:      cluster.TLS{Mode: "disable"},
			Password: secret.Text(b.site.adminRole.password),
		},
		SystemIdentifier: identity,
	}
}

// register registers clusters without a look at them.
func (b *bench) register(ctx context.Context, f func(r *cluster.Registry, by audit.Entry) error) error {
	return b.site.inControl(ctx, func(db *control.DB) error {
		r, err := cluster.Open(ctx, db, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer r.Close()
		return f(r, audit.Entry{AccountGUID: "bench", AccountName: "bench"})
	})
}

// small measures what Rolecall takes when it has been worked with, and how soon it is there.
func (b *bench) small(ctx context.Context) (err error) {
	fmt.Fprint(b.out, "\r\x1b[Ksmall: memory, start")
	s := &b.report.Small
	if s.Memory, err = readMemory(b.site.rolecall.cmd.Process.Pid); err != nil {
		return err
	}
	if b.site.peer != nil {
		if s.PeerMemory, err = readMemory(b.site.peer.cmd.Process.Pid); err != nil {
			return err
		}
	}
	info, err := os.Stat(b.site.program)
	if err != nil {
		return err
	}
	s.Program = info.Size()
	var starts []float64
	for range 5 {
		r, err := b.site.serve(ctx)
		if err != nil {
			return err
		}
		starts = append(starts, ms(r.ready))
		if err := r.stop(); err != nil {
			return err
		}
	}
	s.Ready = median(starts)
	return nil
}

// effective measures how long it takes to tell what a user may do that was granted something on many tables.
func (b *bench) effective(ctx context.Context) error {
	const tables, batch = 5000, 500
	fmt.Fprintf(b.out, "\r\x1b[Keffective access: %d tables", tables)
	s := b.site
	wide := login{s.adminRole.role, s.adminRole.password, "wide"}
	if err := s.exec(ctx, s.superuser, `CREATE DATABASE %I OWNER %I`, wide.database, wide.role); err != nil {
		return err
	}
	conn, err := s.connect(ctx, wide)
	if err != nil {
		return err
	}
	for first := 1; first <= tables && err == nil; first += batch {
		err = execFormat(ctx, conn, `
			SELECT string_agg(format('CREATE TABLE t%1$s (id int); GRANT SELECT, INSERT ON t%1$s TO %2$I;', n, $1::text), '')
			FROM generate_series($2::int, $3::int) n`, baseRole+"1", first, first+batch-1)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if err := s.exec(ctx, login{s.superuser.role, s.superuser.password, wide.database}, `VACUUM ANALYZE`); err != nil {
		return err
	}
	path := "/rolecall/v1/clusters/" + b.clusterID + "/users/" + baseRole + "1/access"
	body, err := b.user.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	if !bytes.Contains(body, fmt.Appendf(nil, `"count":%d`, tables)) {
		return fmt.Errorf("the effective access lacks %d tables: %s", tables, body)
	}
	err = b.time(ctx, "effective access of a user over 5,000 tables", 1000, func(buf []byte, _ int) []byte {
		return b.user.get(buf, "%s", path)
	})
	return errors.Join(err, s.exec(ctx, s.superuser, `DROP DATABASE %I WITH (FORCE)`, wide.database))
}

// time measures how long one request at a time takes.
func (b *bench) time(ctx context.Context, title string, limit float64, request request) error {
	t := timing{Title: title, Limit: limit}
	for range b.rounds {
		s, err := b.drive(ctx, &b.site.rolecall.server, b.newRun(1), request, b.seconds/3)
		if err != nil {
			return fmt.Errorf("%s: %w", title, err)
		}
		t.Rounds = append(t.Rounds, *s)
	}
	b.report.Timings = append(b.report.Timings, t)
	return nil
}

// fleet measures a Rolecall with many clusters, on a PostgreSQL of its own that has few roles and room for a connection
// of each cluster. All are that one server.
func (b *bench) fleet(ctx context.Context) (err error) {
	f := &bench{options: b.options, out: b.out, report: b.report}
	f.alternatives, f.peerFolder = nil, ""
	fmt.Fprint(b.out, "\r\x1b[Kfleet")
	f.site, err = openSite(ctx, &f.options, map[string]string{"max_connections": "400"})
	defer func() { err = errors.Join(err, f.site.close()) }()
	if err != nil {
		return err
	}
	f.target = f.site.target()
	const users, some, most = 1000, 100, 1000
	if err := f.grow(ctx, users, 0); err != nil {
		return err
	}
	if err := f.growFleet(ctx, 2, some); err != nil {
		return err
	}
	if b.wants("search") {
		if err := f.search(ctx, some, users/2); err != nil {
			return err
		}
	}
	if !b.wants("fleet") {
		return nil
	}
	if err := f.growFleet(ctx, some+1, most); err != nil {
		return err
	}
	return f.idle(ctx, most)
}

// growFleet registers further clusters, with the server stopped, and starts it again.
func (b *bench) growFleet(ctx context.Context, first, last int) error {
	fmt.Fprintf(b.out, "\r\x1b[Kfleet: %d clusters, being registered", last)
	if err := b.site.rolecall.stop(); err != nil {
		return err
	}
	// Rolecall works with no server but the one that was registered.
	identity, err := query[string](ctx, b.site, b.site.controlRole,
		`SELECT system_identifier FROM rolecall.clusters WHERE id = $1`, b.site.cluster)
	if err != nil {
		return err
	}
	err = b.register(ctx, func(r *cluster.Registry, by audit.Entry) error {
		var group errgroup.Group
		group.SetLimit(8)
		for i := first; i <= last; i++ {
			c := b.clusterAt(uuid.New(), fmt.Sprintf("cluster %d", i), b.site.pg.Port, identity)
			group.Go(func() error { return r.Ensure(ctx, c, by) })
		}
		return group.Wait()
	})
	if err != nil {
		return err
	}
	return b.restart(ctx)
}

// restart serves again, at another address.
func (b *bench) restart(ctx context.Context) (err error) {
	if b.site.rolecall, err = b.site.serve(ctx); err != nil {
		return err
	}
	if b.site.admin, err = b.site.token(ctx, "admin"); err != nil { // a token names the address
		return err
	}
	b.target = b.site.target()
	return b.site.settle(ctx, true)
}

// search finds a user of each cluster: right after a start, when there is no connection to any of them, and again. An answer
// may lack clusters that did not answer in time; then the search is repeated, and all of the time counts.
func (b *bench) search(ctx context.Context, clusters, user int) error {
	title := fmt.Sprintf("fleet search, %d clusters × 1,000 users, one page", clusters)
	fmt.Fprintf(b.out, "\r\x1b[K%s", title)
	path := fmt.Sprintf("/rolecall/v1/users?name=%s%d&limit=100", baseRole, user)
	cold := timing{Title: title + ": cold", Limit: 2000}
	for range b.rounds {
		if err := b.site.rolecall.stop(); err != nil {
			return err
		}
		if err := b.restart(ctx); err != nil {
			return err
		}
		start := time.Now()
		for found := 0; found < clusters; {
			var err error
			if found, err = b.found(ctx, path); err != nil {
				return err
			}
			if found != clusters && time.Since(start) > 3*time.Minute {
				return fmt.Errorf("a search found %d users in %d clusters", found, clusters)
			}
		}
		cold.Rounds = append(cold.Rounds, sample{P50: ms(time.Since(start)), Requests: 1})
	}
	b.report.Timings = append(b.report.Timings, cold)
	return b.time(ctx, title+": warm", 500, func(buf []byte, _ int) []byte { return b.admin.get(buf, "%s", path) })
}

// found is how many users a search finds.
func (b *bench) found(ctx context.Context, path string) (int, error) {
	body, err := b.admin.do(ctx, http.MethodGet, path)
	if err != nil {
		return 0, err
	}
	var page struct {
		Items []struct{ Username string }
	}
	err = json.Unmarshal(body, &page)
	return len(page.Items), err
}

// idle measures a Rolecall that has clusters of which nobody wants anything.
func (b *bench) idle(ctx context.Context, clusters int) error {
	f := &b.report.Fleet
	f.Clusters, f.Ready = clusters, ms(b.site.rolecall.ready)
	began := time.Now()
	for busy := true; busy; {
		fmt.Fprintf(b.out, "\r\x1b[Kfleet: %d clusters, being compared", clusters)
		f.Compared = time.Since(began).Seconds()
		used, err := b.during(ctx, 2*time.Second)
		if err != nil {
			return err
		}
		busy = used.Postgres > .2 && f.Compared < 300 // it reads all comments of each cluster
	}
	idle := min(30*time.Second, 8*b.seconds)
	fmt.Fprintf(b.out, "\r\x1b[Kfleet: %d clusters, idle for %s", clusters, idle)
	f.Seconds = idle.Seconds()
	var err error
	if f.CPU, err = b.during(ctx, idle); err != nil {
		return err
	}
	if f.Memory, err = readMemory(b.site.rolecall.cmd.Process.Pid); err != nil {
		return err
	}
	f.Connections, err = query[int](ctx, b.site, b.site.superuser,
		`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rolecall' AND usename = $1`, b.site.adminRole.role)
	return err
}

// during is what is used for a while.
func (b *bench) during(ctx context.Context, d time.Duration) (usage, error) {
	before, err := b.usage(&b.site.rolecall.server, os.Getpid())
	if err != nil {
		return usage{}, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return usage{}, context.Cause(ctx)
	}
	after, err := b.usage(&b.site.rolecall.server, os.Getpid())
	if err != nil {
		return usage{}, err
	}
	return after.minus(before), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
