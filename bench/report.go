package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// report is all that a run showed, as it is written in JSON.
type report struct {
	Began    time.Time `json:"began"`
	Took     float64   `json:"took"` // seconds
	Machine  machine   `json:"machine"`
	Settings settings  `json:"settings"`
	// Alternatives are the names of other builds of Rolecall.
	Alternatives []string    `json:"alternatives,omitempty"`
	Rows         []*row      `json:"rows"`
	Flat         []flatness  `json:"flat"`
	Isolated     []isolation `json:"isolated"`
	Timings      []timing    `json:"timings"`
	Small        small       `json:"small"`
	Fleet        fleet       `json:"fleet"`
}

type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Memory     int64  `json:"memory"` // bytes
	Kernel     string `json:"kernel"`
	Filesystem string `json:"filesystem"` // of PostgreSQL's data
	PostgreSQL string `json:"postgresql"`
	Rolecall   string `json:"rolecall"`
	Go         string `json:"go"`
	Peer       string `json:"peer"`
}

type settings struct {
	Seconds   float64           `json:"seconds"`
	Rounds    int               `json:"rounds"`
	RateLimit string            `json:"rateLimit"`
	Postgres  map[string]string `json:"postgres"` // settings
	Tuning    map[string]string `json:"tuning"`   // environment variables
}

// row is an operation at a number of connections, measured in rounds on each side.
type row struct {
	Operation   string              `json:"operation"`
	Title       string              `json:"title"`
	Connections int                 `json:"connections"`
	Share       float64             `json:"share,omitempty"`    // of pgbench, to be reached
	Bare        float64             `json:"bare,omitempty"`     // times the CPU of a bare HTTP server, to be kept
	Keys        float64             `json:"keys,omitempty"`     // times the CPU of two SCRAM keys, to be kept
	Quick       float64             `json:"quick,omitempty"`    // times the CPU of a bare HTTP server, where a quick run fails
	Times       float64             `json:"times,omitempty"`    // the peer, to be reached
	P50         float64             `json:"p50,omitempty"`      // ms, to be kept
	P50Times    float64             `json:"p50Times,omitempty"` // times that of the operation's first row, to be kept
	Sides       map[string][]sample `json:"sides"`
	Key         []float64           `json:"key,omitempty"` // by round: µs that a SCRAM key takes Rolecall
}

type flatness struct {
	Title  string   `json:"title"`
	Size   int      `json:"size"`
	Rounds []sample `json:"rounds"`
}

type isolation struct {
	Title    string   `json:"title"`
	Beside   string   `json:"beside"`
	Share    float64  `json:"share,omitempty"` // of pgbench's p99, to be kept; 0: nothing was promised
	Alone    []sample `json:"alone"`
	Together []sample `json:"together"`
	Pgbench  []sample `json:"pgbench,omitempty"` // its gets, beside as many writers of its own
}

// timing is how long a request takes, one at a time.
type timing struct {
	Title  string   `json:"title"`
	Limit  float64  `json:"limit"` // ms, to be kept
	Rounds []sample `json:"rounds"`
}

type small struct {
	Memory     memory  `json:"memory"`
	PeerMemory memory  `json:"peerMemory"`
	Program    int64   `json:"program"` // bytes
	Ready      float64 `json:"ready"`   // ms
}

type fleet struct {
	Clusters    int     `json:"clusters"`
	Ready       float64 `json:"ready"`    // ms
	Compared    float64 `json:"compared"` // seconds from then until each cluster has been compared with the audit log
	Memory      memory  `json:"memory"`
	Seconds     float64 `json:"seconds"` // idle
	CPU         usage   `json:"cpu"`     // during the measurement
	Connections int     `json:"connections"`
}

// describe notes what it is all measured on.
func (b *bench) describe(ctx context.Context) error {
	m := &b.report.Machine
	m.CPU, m.Cores, m.Go = cpuModel(), runtime.NumCPU(), runtime.Version()
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return err
	}
	m.Memory = int64(info.Totalram) * int64(info.Unit)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.site.dir, &fs); err != nil {
		return err
	}
	m.Filesystem = filesystem(int64(fs.Type))
	m.PostgreSQL = b.site.pg.Version
	out, err := b.site.command(ctx, "", "version")
	if err != nil {
		return err
	}
	m.Rolecall, _, _ = strings.Cut(string(out), "\n")
	if b.site.peer != nil {
		m.Peer = b.site.peer.version
	}
	b.report.Settings = settings{Seconds: b.seconds.Seconds(), Rounds: b.rounds, RateLimit: b.rate,
		Postgres: map[string]string{}, Tuning: map[string]string{}}
	for _, a := range b.alternatives {
		b.report.Alternatives = append(b.report.Alternatives, a.name)
	}
	for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_connections"} {
		if b.report.Settings.Postgres[name], err = query[string](ctx, b.site, b.site.superuser, `SELECT current_setting($1)`,
			name); err != nil {
			return err
		}
	}
	for _, name := range tuning {
		if value, set := os.LookupEnv(name); set {
			b.report.Settings.Tuning[name] = value
		}
	}
	return nil
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// filesystem names what statfs calls by a number.
func filesystem(magic int64) string {
	names := map[int64]string{0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x2FC12FC1: "zfs", 0x794C7630: "overlay",
		0x01021994: inMemory}
	return cmp.Or(names[magic], fmt.Sprintf("filesystem %#x", magic))
}

const inMemory = "tmpfs"

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// of is the median over rounds of what f takes from a sample.
func of(rounds []sample, f func(s sample) float64) float64 {
	values := make([]float64, len(rounds))
	for i, s := range rounds {
		values[i] = f(s)
	}
	return median(values)
}

func perSecond(s sample) float64 { return s.PerSecond }
func p50(s sample) float64       { return s.P50 }
func p99(s sample) float64       { return s.P99 }

// void says which failures make the rounds count for nothing, "" when there were none.
func void(rounds []sample) string {
	failed := map[string]int{}
	for _, s := range rounds {
		for status, n := range s.Failed {
			failed[status] += n
		}
	}
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(failed)) {
		parts = append(parts, fmt.Sprintf("%d × %s", failed[status], status))
	}
	if parts == nil {
		return ""
	}
	return "void: " + strings.Join(parts, ", ")
}

// against is the median of the ratios to another side, each of one round: what slowed down a whole round is in both.
func (r *row) against(side string) float64 {
	return ratio(r.Sides[sideRolecall], r.Sides[side], perSecond)
}

// ratio is the median of the ratios of what f takes from a sample, 0 when there is nothing to compare with.
func ratio(ours, theirs []sample, f func(s sample) float64) float64 {
	return median(ratios(ours, theirs, f))
}

// ratios are those of the rounds.
func ratios(ours, theirs []sample, f func(s sample) float64) []float64 {
	if len(theirs) == 0 || len(theirs) != len(ours) || void(ours) != "" || void(theirs) != "" {
		return nil
	}
	all := make([]float64, len(ours))
	for i := range ours {
		all[i] = f(ours[i]) / f(theirs[i])
	}
	return all
}

// rate is how much a side did, for people.
func (r *row) rate(side string) string {
	rounds := r.Sides[side]
	if len(rounds) == 0 {
		return "–"
	}
	return cmp.Or(void(rounds), count(of(rounds, perSecond)))
}

// goal is a figure beside what it is to be, bold where it is not; "–" for none.
func goal(have string, met bool, promise string) string {
	switch {
	case promise == "":
		return have
	case met:
		return have + " (" + promise + ")"
	}
	return "**" + have + "** (" + promise + ")"
}

func (r *row) ofLimit() string {
	share := r.against(sidePgbench)
	if share == 0 {
		return "–"
	}
	promise := ""
	if r.Share > 0 {
		promise = "≥ " + percent(r.Share)
	}
	return goal(percent(share), share >= r.Share, promise)
}

func (r *row) ofPeer() string {
	times := r.against(sidePeer)
	if times == 0 {
		return "–"
	}
	promise := ""
	if r.Times > 0 {
		promise = fmt.Sprintf("≥ %.0f ×", r.Times)
	}
	return goal(multiple(times), times >= r.Times, promise)
}

// ofBare is the CPU time of Rolecall in that of a bare HTTP server.
func (r *row) ofBare() string {
	times := ratio(r.Sides[sideRolecall], r.Sides[sideBare], serverCost)
	return most(times, r.Bare)
}

// ofKeys is all CPU time in that of two SCRAM keys: the one that PostgreSQL computes to refuse the verifier of an empty
// password, and the one that Rolecall computes to make the verifier. What PostgreSQL's costs is the difference to a
// verifier of a single iteration.
func (r *row) ofKeys() string { return most(median(r.keyRatios()), r.Keys) }

// keyRatios are the ratios of the rounds, nil if there are none.
func (r *row) keyRatios() []float64 {
	ours, full, cheap := r.Sides[sideRolecall], r.Sides[sidePgbench], r.Sides[sideCheap]
	if len(r.Key) == 0 || len(ours) != len(r.Key) || len(full) != len(r.Key) || len(cheap) != len(r.Key) ||
		void(ours)+void(full)+void(cheap) != "" {
		return nil
	}
	ratios := make([]float64, len(r.Key))
	for i := range ratios {
		ratios[i] = sumCost(ours[i]) / (postgresCost(full[i]) - postgresCost(cheap[i]) + r.Key[i])
	}
	return ratios
}

// most is a number of times that is to stay below a limit; 0: any.
func most(times, limit float64) string {
	if times == 0 {
		return "–"
	}
	promise := ""
	if limit > 0 {
		promise = fmt.Sprintf("≤ %g ×", limit)
	}
	return goal(fmt.Sprintf("%.2g ×", times), times <= limit, promise)
}

func (r *row) middle() string {
	if len(r.Sides[sideRolecall]) == 0 {
		return "–"
	}
	t := of(r.Sides[sideRolecall], p50)
	promise := ""
	if r.P50 > 0 {
		promise = fmt.Sprintf("≤ %g", r.P50)
	}
	return goal(fmt.Sprintf("%.2f", t), t <= r.P50, promise)
}

func (r *row) longest() string {
	if len(r.Sides[sideRolecall]) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", of(r.Sides[sideRolecall], p99))
}

func (r *row) cells() []string {
	return []string{r.Title, strconv.Itoa(r.Connections), r.rate(sideRolecall), r.middle(), r.longest(),
		r.rate(sidePgbench), r.ofLimit(), r.rate(sidePeer), r.ofPeer()}
}

// String is the row as it is shown while the run goes on.
func (r *row) String() string { return strings.Join(r.cells(), " | ") }

// cost is the CPU time of a request in µs, by what took it.
func (r *row) cost() []string {
	cells := []string{r.Title, strconv.Itoa(r.Connections)}
	add := func(side string, costs ...func(s sample) float64) {
		for _, cost := range costs {
			cell := "–"
			if rounds := r.Sides[side]; len(rounds) > 0 && void(rounds) == "" {
				cell = count(of(rounds, cost))
			}
			cells = append(cells, cell)
		}
	}
	add(sideRolecall, serverCost, postgresCost, loadCost)
	add(sideBare, serverCost)
	cells = append(cells, r.ofBare(), r.ofKeys())
	add(sidePgbench, postgresCost, loadCost)
	add(sidePeer, serverCost, postgresCost)
	return cells
}

// count writes a number of three digits or more without decimals, and with commas.
func count(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// table is one in Markdown; numbers stand to the right.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	b.WriteString("| " + strings.Join(head, " | ") + " |\n|---|" + strings.Repeat("--:|", len(head)-1) + "\n")
	for _, r := range rows {
		b.WriteString("| " + strings.Join(r, " | ") + " |\n")
	}
	return b.String()
}

// markdown is the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	m, s := r.Machine, r.Settings
	fmt.Fprintf(&b, "%s: %d cores of %s, %.0f GiB, Linux %s, data on %s. PostgreSQL %s (", r.Began.Format("2006-01-02"),
		m.Cores, m.CPU,
		float64(m.Memory)/(1<<30), m.Kernel, m.Filesystem, m.PostgreSQL)
	for i, name := range slices.Sorted(maps.Keys(s.Postgres)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", name, s.Postgres[name])
	}
	fmt.Fprintf(&b, "), %s with `--rate-limit %s`, %s", m.Rolecall, s.RateLimit, m.Go)
	if m.Peer != "" {
		fmt.Fprintf(&b, ", postgres-meta %s", m.Peer)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Tuning)) {
		fmt.Fprintf(&b, ", %s=%s", name, s.Tuning[name])
	}
	fmt.Fprintf(&b, ". Medians of %d rounds of %g s. In parentheses: the target; bold: the target is missed.\n", s.Rounds,
		s.Seconds)
	for _, w := range r.warnings() {
		fmt.Fprintf(&b, "\n**Warning:** %s\n", w)
	}
	if len(r.Rows) > 0 {
		var rows, costs [][]string
		for _, row := range r.Rows {
			if row.Connections > 1 { // a single one shows how long a request takes, and no more
				rows, costs = append(rows, row.cells()), append(costs, row.cost())
			}
		}
		b.WriteString("\n" + table([]string{"", "connections", "Rolecall, a second", "p50, ms", "p99, ms", "pgbench, a second",
			"of pgbench", "peer, a second", "of the peer"}, rows))
		b.WriteString("\nCPU time of a request, in µs:\n\n" + table([]string{"", "connections", "Rolecall", "its PostgreSQL",
			"its load", "bare net/http", "Rolecall of that", "both of two SCRAM keys", "pgbench's PostgreSQL", "pgbench", "peer",
			"its PostgreSQL"}, costs))
	}
	r.writeAlternatives(&b)
	r.writeFlat(&b)
	r.writeIsolated(&b)
	r.writeOne(&b)
	r.writeSmall(&b)
	return b.String()
}

// writeAlternatives compares the builds of Rolecall, line by line. By the CPU time of a request, and relative to the first.
func (r *report) writeAlternatives(b *strings.Builder) {
	if len(r.Alternatives) == 0 {
		return
	}
	var rows [][]string
	for _, row := range r.Rows {
		first := row.Sides[sideRolecall]
		for _, name := range append([]string{sideRolecall}, r.Alternatives...) {
			rounds := row.Sides[name]
			if len(rounds) == 0 || void(rounds) != "" {
				continue
			}
			cells := []string{row.Title, strconv.Itoa(row.Connections), name, row.rate(name),
				fmt.Sprintf("%.2f", of(rounds, p50)), fmt.Sprintf("%.2f", of(rounds, p99))}
			for _, cost := range []func(s sample) float64{serverCost, postgresCost, sumCost} {
				cell := count(of(rounds, cost))
				if than := ratio(rounds, first, cost); name != sideRolecall && than > 0 {
					cell += fmt.Sprintf(" (%+.0f %%)", 100*(than-1))
				}
				cells = append(cells, cell)
			}
			rows = append(rows, cells)
		}
	}
	b.WriteString("\n" + table([]string{"Programs, CPU in µs a request", "connections", "program", "a second", "p50, ms",
		"p99, ms", "Rolecall", "PostgreSQL", "both"}, rows))
}

// The CPU time of a request, in µs.
func serverCost(s sample) float64   { return 1e6 * s.CPU.Server / float64(s.Requests) }
func postgresCost(s sample) float64 { return 1e6 * s.CPU.Postgres / float64(s.Requests) }
func loadCost(s sample) float64     { return 1e6 * s.CPU.Load / float64(s.Requests) }
func sumCost(s sample) float64      { return serverCost(s) + postgresCost(s) }

func (r *report) writeFlat(b *strings.Builder) {
	if len(r.Flat) == 0 {
		return
	}
	var sizes []int
	var titles []string
	cells := map[string]map[int]flatness{}
	for _, f := range r.Flat {
		if !slices.Contains(sizes, f.Size) {
			sizes = append(sizes, f.Size)
		}
		if cells[f.Title] == nil {
			titles = append(titles, f.Title)
			cells[f.Title] = map[int]flatness{}
		}
		cells[f.Title][f.Size] = f
	}
	head := []string{"Flat: p50 in ms (requests a second), 8 connections"}
	for _, size := range sizes {
		head = append(head, "of "+count(float64(size)))
	}
	var rows [][]string
	for _, title := range titles {
		row := []string{title}
		for _, size := range sizes {
			rounds := cells[title][size].Rounds
			row = append(row, cmp.Or(void(rounds), fmt.Sprintf("%.2f (%s)", of(rounds, p50), count(of(rounds, perSecond)))))
		}
		// The load does the same for every size: what it takes tells how fast the machine was just then.
		cost := func(s sample) float64 { return (s.CPU.Server + s.CPU.Postgres) / s.CPU.Load }
		more := of(cells[title][sizes[len(sizes)-1]].Rounds, cost)/of(cells[title][sizes[0]].Rounds, cost) - 1
		rows = append(rows, append(row, goal(fmt.Sprintf("%+.0f %%", 100*more), more <= .2, "≤ 20 %")))
	}
	b.WriteString("\n" + table(append(head, "CPU time, in that of the load, of the last against the first"), rows))
}

func (r *report) writeIsolated(b *strings.Builder) {
	if len(r.Isolated) == 0 {
		return
	}
	var rows [][]string
	for _, i := range r.Isolated {
		row := []string{i.Title + " beside " + i.Beside}
		for _, rounds := range [][]sample{i.Alone, i.Together} {
			row = append(row, cmp.Or(void(rounds), fmt.Sprintf("%.2f / %.2f", of(rounds, p50), of(rounds, p99))))
		}
		row = append(row, most(ratio(i.Together, i.Alone, p99), 0))
		if i.Pgbench == nil {
			row = append(row, "–", "–")
		} else {
			share, cell := ratio(i.Together, i.Pgbench, p99), "–"
			if share > 0 {
				cell = goal(percent(share), share <= i.Share, "≤ "+percent(i.Share))
			}
			row = append(row, cmp.Or(void(i.Pgbench), fmt.Sprintf("%.2f", of(i.Pgbench, p99))), cell)
		}
		rows = append(rows, row)
	}
	b.WriteString("\n" + table([]string{"Isolated: p50 / p99 in ms", "alone", "beside", "p99 of alone",
		"p99 of pgbench beside as many of its own", "of that"}, rows))
}

// writeOne shows how long one request takes, where that is what matters.
func (r *report) writeOne(b *strings.Builder) {
	var rows [][]string
	var first *row
	for _, row := range r.Rows {
		if row.Operation != "deep" {
			continue
		}
		if first == nil {
			first = row
		}
		times := most(ratio(row.Sides[sideRolecall], first.Sides[sideRolecall], p50), row.P50Times)
		rows = append(rows, []string{row.Title, row.middle(), times})
	}
	for _, t := range r.Timings {
		have := cmp.Or(void(t.Rounds), count(of(t.Rounds, p50)))
		rows = append(rows, []string{t.Title, goal(have, of(t.Rounds, p50) <= t.Limit, "≤ "+count(t.Limit)), "–"})
	}
	if rows != nil {
		b.WriteString("\n" + table([]string{"One request at a time", "ms", "of the first page"}, rows))
	}
}

// row returns that of an operation and a number of connections, nil if it was not measured.
func (r *report) row(operation string, connections int) *row {
	for _, row := range r.Rows {
		if row.Operation == operation && row.Connections == connections && len(row.Sides[sideRolecall]) > 0 {
			return row
		}
	}
	return nil
}

// leaseShare is the CPU time of a lease, taken and ended, in that of a user created and deleted over as many connections.
func (r *report) leaseShare(connections int) float64 {
	var costs []float64
	for _, name := range []string{"lease", "create", "delete"} {
		row := r.row(name, connections)
		if row == nil || void(row.Sides[sideRolecall]) != "" {
			return 0
		}
		costs = append(costs, of(row.Sides[sideRolecall], sumCost))
	}
	return 2 * costs[0] / (costs[1] + costs[2]) // half of the requests take, half end
}

func (r *report) writeSmall(b *strings.Builder) {
	var rows [][]string
	add := func(title, have string, met bool, promise string) {
		rows = append(rows, []string{title, goal(have, met, promise)})
	}
	for _, n := range []int{8, 32} {
		if share := r.leaseShare(n); share > 0 {
			add(fmt.Sprintf("%d connections: CPU of a lease taken and ended, in that of a user created and deleted", n),
				percent(share), share <= 1.15, "≤ 115 %")
		}
	}
	if s := r.Small; s.Program > 0 {
		add("memory after the load above, of that its own", mib(s.Memory.Resident)+", "+mib(s.Memory.Own),
			s.Memory.Resident <= 64<<20, "≤ 64 MiB")
		add("most memory during the load", mib(s.Memory.Highest), true, "")
		if s.PeerMemory.Resident > 0 {
			add("memory of the peer after the load, the most", mib(s.PeerMemory.Resident)+", "+mib(s.PeerMemory.Highest), true, "")
		}
		add("from the start of `rolecall serve` until it is ready", fmt.Sprintf("%.0f ms", s.Ready), s.Ready <= 300, "≤ 300 ms")
		add("size of the program", fmt.Sprintf("%.1f MB", float64(s.Program)/1e6), s.Program <= 30e6, "≤ 30 MB")
	}
	if f := r.Fleet; f.Clusters > 0 {
		n := count(float64(f.Clusters)) + " clusters: "
		add(n+"from the start until it is ready", fmt.Sprintf("%.0f ms", f.Ready), true, "")
		add(n+"from then until each has been compared with the audit log", fmt.Sprintf("%.0f s", f.Compared), true, "")
		add(n+"memory, of that its own", mib(f.Memory.Resident)+", "+mib(f.Memory.Own), true, "")
		add(fmt.Sprintf("%sCPU of one core while idle for %.0f s", n, f.Seconds),
			fmt.Sprintf("%.2f %%", 100*f.CPU.Server/f.Seconds), true, "")
		add(n+"connections to them while idle", strconv.Itoa(f.Connections), true, "")
	}
	if rows != nil {
		b.WriteString("\n" + table([]string{"Other", ""}, rows))
	}
}

// tooMuch is the share of the machine that something else may take without a word.
const tooMuch = .05

// warnings are what makes the figures doubtful.
func (r *report) warnings() (all []string) {
	if r.Machine.Filesystem == inMemory {
		all = append(all, "PostgreSQL's data were in memory, so a commit cost nothing; name a folder on a disk with -dir.")
	}
	disturbed, stolen, measured, most := 0, 0, 0, 0.0
	look := func(rounds []sample) {
		for _, s := range rounds {
			capacity := s.CPU.Within * float64(r.Machine.Cores)
			measured++
			if share := s.CPU.Others / capacity; share > tooMuch {
				disturbed++
				most = max(most, share)
			}
			if s.CPU.Stolen/capacity > tooMuch {
				stolen++
			}
		}
	}
	for _, row := range r.Rows {
		for _, rounds := range row.Sides {
			look(rounds)
		}
	}
	for _, f := range r.Flat {
		look(f.Rounds)
	}
	if disturbed > 0 {
		all = append(all, fmt.Sprintf("something else used the CPU in %d of %d measurements, up to %.0f %% of it.", disturbed,
			measured, 100*most))
	}
	if stolen > 0 {
		all = append(all, fmt.Sprintf("the host took CPU from this machine in %d of %d measurements.", stolen, measured))
	}
	return all
}

// The lines of a document between which the tables stand.
const (
	beginMark = "<!-- measured: begin -->\n"
	endMark   = "<!-- measured: end -->\n"
)

// writeBetween puts the tables into a document.
func writeBetween(path, text string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(document, []byte(beginMark))
	_, after, ends := bytes.Cut(rest, []byte(endMark))
	if !begins || !ends {
		return fmt.Errorf("%s has not the lines %q and %q", filepath.Base(path), beginMark, endMark)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(beginMark+"\n"+text+"\n"+endMark), after), 0o644)
}
