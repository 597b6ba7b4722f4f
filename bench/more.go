package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/secret"
)

// flat measures what is to cost the same however many roles and accounts there are.
func (b *bench) flat(ctx context.Context, size int) error {
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
// 3 ms, and a cluster that takes connections and never says a word. Once as many gets as are answered, which is a busy
// server already, and once a few of them, whose times are those of a server that has time.
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
		perSecond float64
		beside    string
		other     request
		limit     float64
	}{
		{"gets over 8 connections", 0, "32 connections that set passwords", passwords, 3},
		{"200 gets a second", few, "32 connections that set passwords", passwords, 3},
		{"gets over 8 connections", 0, "32 connections that want a cluster which hangs", silence, 0},
		{"200 gets a second", few, "32 connections that want a cluster which hangs", silence, 0},
	} {
		i := isolation{Title: c.title, Beside: c.beside, Limit: c.limit}
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
			if err := b.site.settle(ctx, true); err != nil {
				return err
			}
		}
		b.report.Isolated = append(b.report.Isolated, i)
	}
	return remove()
}

func (b *bench) operation(name string) *operation {
	return &operations[slices.IndexFunc(operations, func(op operation) bool { return op.name == name })]
}

// gets measures gets, at the given rate, or as fast as they are answered.
func (b *bench) gets(ctx context.Context, connections int, perSecond float64) (*sample, error) {
	r := b.newRun(connections)
	request := b.operation("get").rolecall(r)
	if perSecond == 0 {
		return b.drive(ctx, &b.site.rolecall.server, r, request, b.seconds)
	}
	l := &load{request: request, perSecond: perSecond}
	defer l.close()
	if err := l.connect(b.user.address, connections); err != nil {
		return nil, err
	}
	a, err := l.run(ctx, b.seconds)
	if err != nil {
		return nil, err
	}
	return &sample{PerSecond: float64(len(a.times)) / a.Took.Seconds(), P50: a.quantile(.5), P99: a.quantile(.99),
		Requests: len(a.times), Failed: a.failed(), Seconds: a.Took.Seconds()}, nil
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
		return r.Ensure(ctx, b.clusterAt(id, "hung", l.Addr().(*net.TCPAddr).Port), by)
	})
	return id, func() error {
		err := b.site.exec(ctx, b.site.controlRole, `DELETE FROM rolecall.clusters WHERE id = %L`, id.String())
		return errors.Join(err, l.Close())
	}, err
}

func (b *bench) clusterAt(id uuid.UUID, name string, port int) *cluster.Cluster {
	return &cluster.Cluster{
		ID:          id,
		DisplayName: name,
		Location:    "local",
		Connection: cluster.Connection{
			URL:      fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", b.site.adminRole.role, port, b.site.adminRole.database),
			TLS:      cluster.TLS{Mode: "disable"},
			Password: secret.Text(b.site.adminRole.password),
		},
		SystemIdentifier: id.String(),
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

// fleet measures a Rolecall that has 1,000 clusters, of which nobody wants anything.
func (b *bench) fleet(ctx context.Context) (err error) {
	const clusters = 1000
	fmt.Fprintf(b.out, "\r\x1b[Kfleet: %d clusters", clusters)
	if err := b.site.rolecall.stop(); err != nil {
		return err
	}
	err = b.register(ctx, func(r *cluster.Registry, by audit.Entry) error {
		for i := 2; i <= clusters; i++ {
			if err := r.Ensure(ctx, b.clusterAt(uuid.New(), fmt.Sprintf("cluster %d", i), b.site.pg.Port), by); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if b.site.rolecall, err = b.site.serve(ctx); err != nil {
		return err
	}
	if err := b.site.settle(ctx, true); err != nil {
		return err
	}
	f := &b.report.Fleet
	f.Clusters, f.Ready = clusters, ms(b.site.rolecall.ready)
	began := time.Now()
	for busy := true; busy; {
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
	before, err := b.usage(&b.site.rolecall.server)
	if err != nil {
		return usage{}, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return usage{}, context.Cause(ctx)
	}
	after, err := b.usage(&b.site.rolecall.server)
	if err != nil {
		return usage{}, err
	}
	return after.minus(before), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
