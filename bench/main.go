// Package main is the harness behind "make bench". It measures the built program, run as docs/operating.md says, beside
// pgbench, which shows what PostgreSQL itself can do, and beside postgres-meta, a peer: all on one private PostgreSQL,
// over as many connections, one after the other. docs/internals/performance.md has the method,
// docs/performance.md the results.
//
// Nothing here makes Rolecall faster, and nothing of it may be told that it is being measured.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rolecall/internal/scram"
)

// options are the settings of a run.
type options struct {
	program string
	// alternatives are further programs, measured in the same rounds; what differs between them by a few percent is lost
	// between two runs.
	alternatives []alternative
	peerFolder   string
	dir          string
	seconds      time.Duration
	rounds       int
	connections  []int
	only         []string // nil: everything
	rate         string
	json, write  string
	profiles     string
	quick        bool

	verifier string // that pgbench sets as the password of roles
	cheap    string // the same with a single iteration
}

// scramIterations is PostgreSQL's default.
const scramIterations = 4096

type alternative struct{ name, program string }

func (o *options) addAlternative(value string) (err error) {
	a := alternative{}
	var named bool
	a.name, a.program, named = strings.Cut(value, "=")
	if !named || !alternativeName.MatchString(a.name) || slices.Contains(sides, a.name) ||
		slices.ContainsFunc(o.alternatives, func(b alternative) bool { return b.name == a.name }) {
		return errors.New("it takes name=program, the name of lower case letters and digits, another one each time")
	}
	a.program, err = filepath.Abs(a.program)
	o.alternatives = append(o.alternatives, a)
	return err
}

var alternativeName = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// extras are what -only takes besides the names of operations.
var extras = []string{"flat", "effective", "isolated", "small", "search", "fleet"}

func parseOptions(args []string, errOut io.Writer) (*options, error) {
	o := &options{}
	seconds := os.Getenv("BENCH_SECONDS")
	if seconds == "" {
		seconds = "2"
	}
	names := slices.Concat(operationNames(), extras)
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errOut)
	f.StringVar(&o.program, "rolecall", "bin/rolecall", "the `program` to measure")
	f.Func("alt", "`name=program`: one more Rolecall to measure in the same rounds, with a control database of its own; "+
		"may be repeated", o.addAlternative)
	f.StringVar(&o.peerFolder, "peer", "", "`folder` that scripts/install-bench-peer has printed; without it there is no peer")
	f.StringVar(&o.dir, "dir", "/var/tmp", "`folder` on the disk to measure, in which a new one is made for everything and "+
		"removed at the end")
	f.StringVar(&seconds, "seconds", seconds, "`how long` each measurement takes, after a fifth of that to warm up "+
		"[$BENCH_SECONDS]")
	f.IntVar(&o.rounds, "rounds", 3, "`how often` each is made; the medians count")
	connections := f.String("connections", "8,32", "`numbers` of connections")
	only := f.String("only", "", "measure these `names` only, of "+strings.Join(names, ","))
	f.StringVar(&o.rate, "rate-limit", "1000000", "the --rate-limit of Rolecall: all requests here are of one account, and "+
		"its default is 200 a second")
	f.StringVar(&o.json, "json", "bench/results.json", "`file` for all that was measured")
	f.StringVar(&o.write, "write", "", "`folder` of the documents: puts the tables into performance.md and "+
		"internals/performance.md, between their two lines that say measured")
	f.BoolVar(&o.quick, "quick", false, "measure what shows a factor on any machine, and fail if there is one")
	f.StringVar(&o.profiles, "profiles", "", "`folder` for a CPU profile of Rolecall of each measurement, the last of "+
		"several rounds")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	s, err := strconv.ParseFloat(seconds, 64)
	if err != nil || s < .1 || s > 600 {
		return nil, fmt.Errorf("-seconds is %q; it takes a number from 0.1 to 600", seconds)
	}
	o.seconds = time.Duration(s * float64(time.Second))
	if o.rounds < 1 {
		return nil, errors.New("-rounds is less than 1")
	}
	for n := range strings.SplitSeq(*connections, ",") {
		c, err := strconv.Atoi(n)
		if err != nil || c < 1 || c > 64 {
			return nil, fmt.Errorf("-connections has %q; it takes numbers from 1 to 64", n)
		}
		o.connections = append(o.connections, c)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
		for _, name := range o.only {
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("-only has %q; it takes %s", name, strings.Join(names, ", "))
			}
		}
	}
	if o.write != "" && (o.only != nil || o.quick) {
		return nil, errors.New("-write takes a whole run, without -only and -quick")
	}
	if o.quick {
		o.setQuick()
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return nil, err
		}
	}
	o.program, err = filepath.Abs(o.program)
	if err != nil {
		return nil, err
	}
	if o.verifier, err = scram.NewVerifier(password, scramIterations); err != nil {
		return nil, err
	}
	o.cheap, err = scram.NewVerifier(password, 1)
	return o, err
}

func operationNames() (names []string) {
	for _, op := range operations {
		if !slices.Contains(names, op.name) {
			names = append(names, op.name)
		}
	}
	return names
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == bareCommand {
		fmt.Fprintln(os.Stderr, "bench:", serveBare(os.Args[2]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\nbench:", err)
		os.Exit(1)
	}
}

func realMain(ctx context.Context, args []string, out, errOut io.Writer) error {
	o, err := parseOptions(args, errOut)
	if err != nil {
		return err
	}
	b := &bench{options: *o, out: errOut, report: &report{Began: time.Now().UTC().Truncate(time.Second)}}
	// What was measured before something failed is not lost, but it is in no document.
	failed := b.onSite(ctx)
	b.report.Took = time.Since(b.report.Began).Seconds()
	fmt.Fprint(errOut, "\r\x1b[K")
	text := b.report.markdown()
	fmt.Fprintln(out, text)
	data, err := json.MarshalIndent(b.report, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(failed, os.WriteFile(o.json, append(data, '\n'), 0o644)); err != nil {
		return err
	}
	if o.quick {
		return b.report.verdict()
	}
	if o.write == "" {
		return nil
	}
	return errors.Join(writeBetween(filepath.Join(o.write, "performance.md"), b.report.page()),
		writeBetween(filepath.Join(o.write, "internals", "performance.md"), text))
}

// onSite does it all on a site, which is gone afterwards.
func (b *bench) onSite(ctx context.Context) (err error) {
	b.site, err = openSite(ctx, &b.options, nil)
	defer func() { err = errors.Join(err, b.site.close()) }()
	if err != nil {
		return err
	}
	return b.all(ctx)
}

// all goes through everything, the number of roles and accounts growing.
func (b *bench) all(ctx context.Context) error {
	s := b.site
	b.target = s.target()
	if s.peer != nil {
		b.peer = newEndpoint(s.peer.address, "")
	}
	// What pgbench records, in a table like the audit log that nobody seals.
	if err := s.exec(ctx, s.controlRole,
		`CREATE SCHEMA bench CREATE TABLE audit (LIKE rolecall.audit INCLUDING ALL)`); err != nil {
		return err
	}
	if err := b.describe(ctx); err != nil {
		return err
	}
	if b.quick {
		return b.quickly(ctx)
	}
	const few, usual = 1_000, 10_000
	if err := b.flat(ctx, few); err != nil {
		return err
	}
	if err := b.grow(ctx, usual, 0); err != nil {
		return err
	}
	if err := b.check(ctx); err != nil {
		return err
	}
	if err := b.compare(ctx, "roles"); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		do   func(ctx context.Context) error
	}{{"small", b.small}, {"effective", b.effective}, {"isolated", b.isolated}} {
		if b.wants(part.name) {
			if err := part.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	if err := b.flat(ctx, usual); err != nil {
		return err
	}
	if b.wantsAny("accounts") {
		if err := b.grow(ctx, 0, many); err != nil {
			return err
		}
		if err := b.compare(ctx, "accounts"); err != nil {
			return err
		}
	}
	if err := b.flat(ctx, many); err != nil {
		return err
	}
	if b.wantsAny("many roles") {
		if err := b.grow(ctx, many, 0); err != nil {
			return err
		}
		if err := b.compare(ctx, "many roles"); err != nil {
			return err
		}
	}
	if b.wants("search") || b.wants("fleet") {
		return b.fleet(ctx)
	}
	return nil
}

// many is how many roles and accounts there are in the end.
const many = 100_000

// wantsAny reports whether an operation on such things is to be measured.
func (b *bench) wantsAny(of string) bool {
	return slices.ContainsFunc(operations, func(op operation) bool { return op.of == of && b.wants(op.name) })
}

// check makes sure that the roles made here look to Rolecall as those do that it made itself.
func (b *bench) check(ctx context.Context) error {
	body, err := b.user.do(ctx, http.MethodGet, b.users+"/"+baseRole+"1")
	if err == nil && !bytes.Contains(body, []byte(`"createdByUserId":"`+b.site.account+`"`)) {
		err = fmt.Errorf("the role %s1 does not look like one of Rolecall's: %s", baseRole, body)
	}
	return err
}
