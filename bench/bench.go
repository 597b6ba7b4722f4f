package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// bench is a run of the harness.
type bench struct {
	options
	site            *site
	target          // of Rolecall
	peer            endpoint
	roles, accounts int // how many there are
	made            int // how often something was measured that makes something
	report          *report
	out             io.Writer // where it says how far it is
}

// target is where requests to a Rolecall go.
type target struct {
	clusterID   string
	users       string // the path of the cluster's users
	user, admin endpoint
}

// What is measured, in the order in which a round goes through it. Other builds of Rolecall come behind the first.
const (
	sideRolecall = "rolecall"
	sideBare     = "bare" // an HTTP server that answers the same requests with a constant
	sidePgbench  = "pgbench"
	sideCheap    = "cheap" // pgbench, setting verifiers whose check costs PostgreSQL nothing
	sidePeer     = "peer"
)

var sides = []string{sideRolecall, sideBare, sidePgbench, sideCheap, sidePeer}

func (b *bench) sides() []string {
	all := []string{sideRolecall}
	for _, a := range b.alternatives {
		all = append(all, a.name)
	}
	return append(all, sides[1:]...)
}

// measures reports whether the operation can be measured on a side.
func (b *bench) measures(op *operation, side string, connections int) bool {
	switch {
	case connections == 1 && slices.Contains(sides[1:], side):
		return false // how long one request takes has nothing to compare with
	case side == sideBare:
		return op.goals.bare != nil || b.quick && op.goals.keys == 0
	case side == sidePgbench && b.quick:
		return op.goals.keys > 0
	case side == sidePgbench:
		return op.script != ""
	case side == sideCheap:
		return op.goals.keys > 0
	case side == sidePeer:
		return op.peer != nil && b.site.peer != nil
	}
	return op.rolecall != nil
}

// compare measures operations, in rounds that go through all sides one after the other, so that what changes on the
// machine while it goes on changes for all of them.
func (b *bench) compare(ctx context.Context, of string) error {
	for i := range operations {
		op := &operations[i]
		if op.of != of || !b.wants(op.name) || b.quick && op.goals.quick == 0 {
			continue
		}
		connections := op.connections
		if connections == nil {
			connections = b.connections
			if op.rolecall != nil && !b.quick {
				connections = append([]int{1}, connections...)
			}
		}
		for _, n := range connections {
			row := &row{Operation: op.name, Title: op.title, Connections: n, Share: op.goals.share[n], Bare: op.goals.bare[n],
				Keys: op.goals.keys, Quick: op.goals.quick, Times: op.goals.times, P50: op.p50, P50Times: op.p50Times,
				Sides: map[string][]sample{}}
			for round := range b.rounds {
				for _, side := range b.sides() {
					if !b.measures(op, side, n) {
						continue
					}
					fmt.Fprintf(b.out, "\r\x1b[K%s, %d connections, round %d of %d: %s", op.title, n, round+1, b.rounds, side)
					d := b.seconds
					if n == 1 || side == sideCheap {
						d /= 3
					}
					s, err := b.measure(ctx, op, n, side, d)
					if err != nil {
						return fmt.Errorf("%s, %d connections, %s: %w", op.title, n, side, err)
					}
					row.Sides[side] = append(row.Sides[side], *s)
				}
				if row.Keys > 0 {
					key, err := keyCost()
					if err != nil {
						return err
					}
					row.Key = append(row.Key, key)
				}
			}
			b.report.Rows = append(b.report.Rows, row)
			fmt.Fprintf(b.out, "\r\x1b[K%s\n", row)
		}
	}
	return nil
}

// sample is what one measurement showed.
type sample struct {
	PerSecond float64        `json:"perSecond"`
	P50       float64        `json:"p50,omitempty"` // ms
	P99       float64        `json:"p99,omitempty"` // ms
	Requests  int            `json:"requests"`
	Failed    map[string]int `json:"failed,omitempty"` // by status; any makes the row void
	Seconds   float64        `json:"seconds"`
	CPU       usage          `json:"cpu"` // seconds
}

// measure lets one side work at an operation: first for a while that does not count, then for d.
func (b *bench) measure(ctx context.Context, op *operation, connections int, side string,
	d time.Duration) (s *sample, err error) {
	r := b.newRun(connections)
	if side == sideCheap {
		r.verifier = b.cheap
	}
	rolecall := b.site.of(side)
	if rolecall != nil {
		r.target = rolecall.target()
	}
	if op.writes {
		b.made++
		r.base = 100_000_000 * b.made
	}
	if op.stock {
		if r.perConn, err = b.stockFor(ctx, side, connections, d); err != nil {
			return nil, err
		}
	}
	if side == sidePeer {
		prefix, n := baseRole, b.roles
		if op.stock {
			prefix, n = stockRole, r.perConn*connections
		}
		if r.oids, err = b.site.oids(ctx, prefix, n); err != nil {
			return nil, err
		}
	}
	if err := b.site.settle(ctx, op.writes); err != nil {
		return nil, err
	}
	// A line a request comes to gigabytes in a whole run.
	for _, i := range b.site.installations() {
		if err := os.Truncate(i.rolecall.log, 0); err != nil {
			return nil, err
		}
	}
	switch side {
	case sidePgbench, sideCheap:
		s, err = b.pgbench(ctx, op, r, d)
	case sidePeer:
		s, err = b.drive(ctx, &b.site.peer.server, r, op.peer(r), d)
	case sideBare:
		s, err = b.drive(ctx, b.site.bare, r, op.rolecall(r), d)
	default:
		stop := b.profileInto(ctx, rolecall, fmt.Sprintf("%s-%d", op.name, connections), d)
		s, err = b.drive(ctx, &rolecall.rolecall.server, r, op.rolecall(r), d)
		err = errors.Join(err, stop())
	}
	if err != nil {
		return nil, err
	}
	if err := r.endLeases(ctx); err != nil {
		return nil, err
	}
	if op.of == "roles" && op.writes {
		err = b.site.dropRoles(ctx, madeRole, stockRole)
	}
	return s, err
}

func (b *bench) warmUp(d time.Duration) time.Duration { return max(d/5, 200*time.Millisecond) }

// drive sends requests over connections that are the same while it warms up and while it measures.
func (b *bench) drive(ctx context.Context, to *server, r *run, request request, d time.Duration) (*sample, error) {
	l := &load{request: request, answered: r.answered}
	defer l.close()
	if err := l.connect(to.address, r.connections); err != nil {
		return nil, err
	}
	if _, err := l.run(ctx, b.warmUp(d)); err != nil {
		return nil, err
	}
	runtime.GC()
	before, err := b.usage(to, os.Getpid())
	if err != nil {
		return nil, err
	}
	a, err := l.run(ctx, d)
	if err != nil {
		return nil, err
	}
	after, err := b.usage(to, os.Getpid())
	if err != nil {
		return nil, err
	}
	s := a.sample()
	s.CPU = after.minus(before)
	return s, nil
}

// sample is what the answers show: all but the CPU time.
func (a *answers) sample() *sample {
	if len(a.times) == 0 {
		return &sample{Failed: map[string]int{nothingDone: 1}}
	}
	return &sample{
		PerSecond: float64(len(a.times)) / a.Took.Seconds(),
		P50:       a.quantile(.5),
		P99:       a.quantile(.99),
		Requests:  len(a.times),
		Failed:    a.failed(),
		Seconds:   a.Took.Seconds(),
	}
}

var began = time.Now()

// usage is the CPU time that all have had until now. No server: pgbench is measured. load is the process that drives.
func (b *bench) usage(measured *server, load int) (u usage, err error) {
	busy, stolen, err := machineCPU()
	if err != nil {
		return u, err
	}
	u.Within, u.Stolen = time.Since(began).Seconds(), stolen
	if measured != nil {
		if u.Server, err = family(measured.cmd.Process.Pid); err != nil {
			return u, err
		}
	}
	if u.Postgres, err = family(b.site.pgPID); err != nil {
		return u, err
	}
	driver, err := readStat(load)
	u.Load = driver.own
	u.Others = busy - u.Server - u.Postgres - u.Load
	return u, err
}

//go:embed *.sql
var scripts embed.FS

var (
	progressLine = regexp.MustCompile(`^progress: [0-9.]+ s, ([0-9.]+) tps`)
	failedLine   = regexp.MustCompile(`(?m)^number of failed transactions: ([1-9]\d*)`)
)

// mark is how far pgbench was at the end of a second.
type mark struct {
	perSecond float64 // in that second
	usage
}

// pgbench asks PostgreSQL directly, over as many connections. Its first second does not count: the sessions load their
// catalogs. Neither does what comes after d, rounded to seconds. It ends early if it has used up a stock.
func (b *bench) pgbench(ctx context.Context, op *operation, r *run, d time.Duration) (*sample, error) {
	args := []string{"--progress=1", "--time=" + strconv.Itoa(pgbenchSeconds(d))}
	if op.stock {
		r.base = 0
		args[1] = "--transactions=" + strconv.Itoa(r.perConn)
		args = append(args, "--define=per="+strconv.Itoa(r.perConn))
	}
	cmd, err := b.pgbenchCommand(ctx, op, r, args...)
	if err != nil {
		return nil, err
	}
	var summary, complaints bytes.Buffer
	cmd.Stdout = &summary
	progress, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	runtime.GC()
	runtime.LockOSThread() // Pdeathsig goes by the thread that forked
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var marks []mark
	lines := bufio.NewScanner(progress)
	for lines.Scan() {
		m := progressLine.FindSubmatch(lines.Bytes())
		if m == nil {
			fmt.Fprintln(&complaints, lines.Text())
			continue
		}
		u, err := b.usage(nil, cmd.Process.Pid)
		if err != nil {
			return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
		perSecond, _ := strconv.ParseFloat(string(m[1]), 64) // digits, as the expression has it
		marks = append(marks, mark{perSecond, u})
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, complaints.Bytes())
	}
	return sampleOfMarks(marks[:min(len(marks), 1+wholeSeconds(d))], summary.Bytes()), nil
}

// sampleOfMarks is what was done from the first mark to the last. On a machine that is busy with something else, it may come
// to nothing; then there is no figure.
func sampleOfMarks(marks []mark, summary []byte) *sample {
	if failed := failedLine.FindSubmatch(summary); failed != nil {
		n, _ := strconv.Atoi(string(failed[1])) // digits, as the expression has it
		return &sample{Failed: map[string]int{"failed": n}}
	}
	var done float64
	for i := 1; i < len(marks); i++ {
		done += marks[i].perSecond * (marks[i].Within - marks[i-1].Within)
	}
	if done < 1 {
		return &sample{Failed: map[string]int{nothingDone: 1}}
	}
	cpu := marks[len(marks)-1].minus(marks[0].usage)
	return &sample{PerSecond: done / cpu.Within, Requests: int(done), Seconds: cpu.Within, CPU: cpu}
}

// wholeSeconds is what pgbench takes for a time.
func wholeSeconds(d time.Duration) int { return int(max(1, d.Seconds())) }

// pgbenchSeconds is how long pgbench runs to be measured for d. It reports nothing at its end, so it runs a second more.
func pgbenchSeconds(d time.Duration) int { return 1 + wholeSeconds(d) + 1 }

// pgbenchCommand is pgbench with the script of an operation. A variable that is defined twice has the last value.
func (b *bench) pgbenchCommand(ctx context.Context, op *operation, r *run, args ...string) (*exec.Cmd, error) {
	text, err := scripts.ReadFile(op.script + ".sql")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(b.site.dir, op.script+".sql")
	if err := os.WriteFile(script, text, 0o600); err != nil {
		return nil, err
	}
	as, count := b.site.adminRole, b.roles
	if op.of == "accounts" {
		as, count = b.site.controlRole, b.accounts
	}
	all := []string{"--no-vacuum", "--host=" + b.site.pg.Host, "--port=" + strconv.Itoa(b.site.pg.Port),
		"--username=" + as.role, "--protocol=" + op.protocol, "--file=" + script, "--client=" + strconv.Itoa(r.connections),
		"--jobs=" + strconv.Itoa(min(r.connections, runtime.NumCPU()))}
	for name, value := range map[string]string{"count": strconv.Itoa(count), "clients": strconv.Itoa(r.connections),
		"base": strconv.Itoa(r.base), "i": "0", "verifier": r.verifier} {
		all = append(all, "--define="+name+"="+value)
	}
	all = append(append(all, args...), as.database)
	cmd := exec.CommandContext(ctx, filepath.Join(b.site.pg.BinDir, "pgbench"), all...)
	cmd.Env = append(environment(), "PGPASSWORD="+as.password)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// nothingDone is a measurement, among the failures, in which nothing was completed.
const nothingDone = "nothing done in time"

// profileInto has Rolecall profile itself while it is measured, if that is asked for. The returned function waits for it.
func (b *bench) profileInto(ctx context.Context, of *installation, name string, d time.Duration) func() error {
	if b.profiles == "" {
		return func() error { return nil }
	}
	if of != b.site.installation {
		name = of.name + "-" + name
	}
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			seconds := int(max(1, d.Seconds()))
			req, err := http.NewRequestWithContext(ctx, http.MethodGet,
				fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", of.rolecall.profiles, seconds), nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			file, err := os.Create(filepath.Join(b.profiles, name+".pprof"))
			if err != nil {
				return err
			}
			_, err = io.Copy(file, resp.Body)
			return errors.Join(err, file.Close())
		}()
	}()
	return func() error { return <-done }
}

// grow creates roles and accounts until the given numbers exist.
func (b *bench) grow(ctx context.Context, roles, accounts int) error {
	fmt.Fprintf(b.out, "\r\x1b[K%d roles and %d accounts", max(roles, b.roles), max(accounts, b.accounts))
	if roles > b.roles {
		if err := b.site.roles(ctx, baseRole, b.roles+1, roles); err != nil {
			return err
		}
		b.roles = roles
	}
	if accounts > b.accounts {
		for _, i := range b.site.installations() {
			if err := i.accounts(ctx, b.accounts+1, accounts); err != nil {
				return err
			}
		}
		b.accounts = accounts
	}
	return b.site.vacuum(ctx)
}

// wants reports whether something is to be measured.
func (o *options) wants(name string) bool { return o.only == nil || slices.Contains(o.only, name) }
