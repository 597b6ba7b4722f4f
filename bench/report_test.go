package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rounds(perSecond ...float64) (all []sample) {
	for _, v := range perSecond {
		all = append(all, sample{PerSecond: v, P50: 1, P99: 2, Requests: int(v), Seconds: 1,
			CPU: usage{Within: 1, Server: .5, Postgres: .25, Others: .01}})
	}
	return all
}

// TestRow: ratios are of rounds, and what failed once counts for nothing.
func TestRow(t *testing.T) {
	t.Parallel()
	r := &row{Title: "get", Connections: 8, Share: .25, Times: 60, Bare: 3, Sides: map[string][]sample{
		sideRolecall: rounds(1000, 4000, 3000), sidePgbench: rounds(10_000, 10_000, 10_000), sidePeer: rounds(10, 50, 100),
		sideBare: rounds(2000, 20_000, 15_000),
	}}
	if got, want := strings.Join(r.cells(), "|"),
		"get|8|3,000|1.00|2.00|10,000|30 % (≥ 25 %)|50.0|80.0 × (≥ 60 ×)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := strings.Join(r.cost(), "|"),
		"get|8|167|83.3|0.0|33.3|**5 ×** (≤ 3 ×)|–|25.0|0.0|10,000|5,000"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.Share = .5
	if got, want := r.ofLimit(), "**30 %** (≥ 50 %)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.Sides[sidePeer][1].Failed = map[string]int{"500": 2, "404": 1}
	if got, want := strings.Join(r.cells()[7:], "|"), "void: 1 × 404, 2 × 500|–"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.Sides[sideRolecall][0].Failed = map[string]int{"429": 7}
	if got, want := strings.Join(r.cells()[2:7], "|"), "void: 7 × 429|1.00|2.00|10,000|–"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestAlternatives: each build has a line, and its CPU time stands against that of the first in the same rounds.
func TestAlternatives(t *testing.T) {
	t.Parallel()
	r := &report{Alternatives: []string{"old"}, Rows: []*row{{Title: "get", Connections: 8,
		Sides: map[string][]sample{sideRolecall: rounds(1000, 2000, 1000), "old": rounds(500, 1000, 500)}}}}
	text := r.markdown()
	for _, want := range []string{"| get | 8 | rolecall | 1,000 | 1.00 | 2.00 | 500 | 250 | 750 |",
		"| get | 8 | old | 500 | 1.00 | 2.00 | 1,000 (+100 %) | 500 (+100 %) | 1,500 (+100 %) |"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
}

// TestPgbench: what pgbench does before the first mark counts nowhere. A machine that is busy with something else costs
// a row its figures, and not the run.
func TestPgbench(t *testing.T) {
	t.Parallel()
	at := func(within, perSecond, postgres, load float64) mark {
		return mark{perSecond, usage{Within: within, Postgres: postgres, Load: load}}
	}
	const fine = "number of failed transactions: 0 (0.000%)\n"
	s := sampleOfMarks([]mark{at(10, 1, 5, 2), at(11, 400, 5.5, 2.25), at(13, 100, 6.25, 2.5)}, []byte(fine))
	if s.PerSecond != 200 || s.Requests != 600 || s.Seconds != 3 || s.Failed != nil ||
		s.CPU.Postgres != 1.25 || s.CPU.Load != .5 {
		t.Errorf("%+v", s)
	}
	if s := sampleOfMarks(nil, []byte(fine)); s.Failed[nothingDone] != 1 {
		t.Errorf("%+v without a mark", s)
	}
	for want, s := range map[string]*sample{
		"1 × nothing done in time": sampleOfMarks([]mark{at(10, 500, 1, 1), at(11, 0, 1, 1)}, []byte(fine)),
		"2 × failed": sampleOfMarks([]mark{at(10, 9, 1, 1), at(11, 9, 1, 1)},
			[]byte("number of failed transactions: 2 (0.4%)\n")),
	} {
		r := &report{Rows: []*row{{Title: "get", Connections: 8, Share: .25,
			Sides: map[string][]sample{sideRolecall: rounds(1000), sidePgbench: {*s}}}}}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		want, got := "| get | 8 | 1,000 | 1.00 | 2.00 | void: "+want+" | – |", r.markdown()
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
}

// TestProgress: pgbench reports failures from version 15 on.
func TestProgress(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"progress: 1.0 s, 21834.9 tps, lat 0.366 ms stddev 0.120, 0 failed": "21834.9",
		"progress: 2.0 s, 0.0 tps, lat 0.000 ms stddev 0.000":               "0.0",
		"pgbench: error: connection to server failed":                       "",
	} {
		got := ""
		if m := progressLine.FindStringSubmatch(line); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q of %q, want %q", got, line, want)
		}
	}
}

// TestKeys: the CPU time of a password change stands in the one of two SCRAM keys. PostgreSQL's is what a verifier of
// 4096 iterations costs more than one of a single iteration.
func TestKeys(t *testing.T) {
	t.Parallel()
	costs := func(server, postgres float64) []sample {
		return []sample{{Requests: 1000, CPU: usage{Server: server, Postgres: postgres}}}
	}
	r := &row{Keys: 1.5, Key: []float64{1000}, Sides: map[string][]sample{
		sideRolecall: costs(2, 6), sidePgbench: costs(0, 4.5), sideCheap: costs(0, .5)}} // 8 ms; 4 ms and 1 ms
	if got, want := r.ofKeys(), "**1.6 ×** (≤ 1.5 ×)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r.Sides[sideCheap][0].Failed = map[string]int{nothingDone: 1}
	if got := r.ofKeys(); got != "–" {
		t.Errorf("got %s without a figure for the cheap verifier", got)
	}
}

// TestKeyCost: a key of 4096 iterations takes neither nothing nor a second.
func TestKeyCost(t *testing.T) {
	t.Parallel()
	if cost, err := keyCost(); err != nil || cost < 50 || cost > 1e6 {
		t.Errorf("a SCRAM key takes %g µs, %v", cost, err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	r := &report{Machine: machine{Cores: 2, Filesystem: "ext4"},
		Rows: []*row{{Sides: map[string][]sample{sideRolecall: rounds(1, 2, 3)}}}}
	if got := r.warnings(); got != nil {
		t.Errorf("got %q of an idle machine", got)
	}
	r.Rows[0].Sides[sideRolecall][1].CPU.Others = 1
	r.Rows[0].Sides[sideRolecall][2].CPU.Stolen = .2
	r.Machine.Filesystem = inMemory
	if got := strings.Join(r.warnings(), " "); !strings.Contains(got, "in 1 of 3 measurements, up to 50 %") ||
		!strings.Contains(got, "the host took") || !strings.Contains(got, "in memory") {
		t.Errorf("got %q", got)
	}
}

// TestWriteBetween replaces the tables, twice, and nothing else.
func TestWriteBetween(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(path, []byte("# Before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two"} {
		if err := writeBetween(path, text); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if want := "# Before\n" + beginMark + "\n" + text + "\n" + endMark + "after\n"; err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if err := os.WriteFile(path, []byte("# No marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBetween(path, "x"); err == nil {
		t.Error("a document without the two lines was written")
	}
	for _, document := range []string{"../docs/performance.md", "../docs/internals/performance.md"} {
		page, err := os.ReadFile(document)
		if err != nil || !strings.Contains(string(page), beginMark) || !strings.Contains(string(page), endMark) {
			t.Errorf("%s cannot be written: %v", document, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-seconds=0.5", "-only=get,flat", "-connections=1,2", "-alt=old=x", "-alt=new=y"},
		os.Stderr)
	if err != nil || len(o.alternatives) != 2 || o.alternatives[1].name != "new" ||
		o.seconds.Milliseconds() != 500 || !o.wants("flat") || o.wants("list") || len(o.connections) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-seconds=x"}, {"-rounds=0"}, {"-connections=0"}, {"-only=nothing"},
		{"-only=get", "-write=x"}, {"-quick", "-write=x"}, {"more"}, {"-alt=old"}, {"-alt=pgbench=x"}, {"-alt=a=x", "-alt=a=y"}} {
		if _, err := parseOptions(args, os.Stderr); err == nil {
			t.Errorf("%q are taken", args)
		}
	}
}

// TestUsage: the time of this process is counted, and of its children when they have ended.
func TestUsage(t *testing.T) {
	t.Parallel()
	before, err := family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after < before+.05; {
		if after, err = family(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := readMemory(os.Getpid()); err != nil || m.Resident <= 0 || m.Highest < m.Resident || m.Own <= 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if busy, _, err := machineCPU(); err != nil || busy < before {
		t.Errorf("the machine was busy for %g s, this process for %g s: %v", busy, before, err)
	}
}
