package main

import (
	"strings"
	"testing"
	"time"
)

// costs are rounds of 1,000 requests with these CPU times of the server and of PostgreSQL, in ms a request.
func costs(each ...[2]float64) (all []sample) {
	for _, c := range each {
		all = append(all, sample{Requests: 1000, CPU: usage{Server: c[0], Postgres: c[1]}})
	}
	return all
}

// TestProblems: a factor is found, by the best round, and so is a row without figures.
func TestProblems(t *testing.T) {
	t.Parallel()
	get := &row{Title: "get", Quick: 20, Sides: map[string][]sample{
		sideRolecall: costs([2]float64{90, 30}, [2]float64{9, 3}), sideBare: costs([2]float64{1, 0}, [2]float64{1, 0})}}
	password := &row{Title: "password", Keys: 1.5, Key: []float64{1000}, Sides: map[string][]sample{
		sideRolecall: costs([2]float64{4, 6}), sidePgbench: costs([2]float64{0, 4.5}), sideCheap: costs([2]float64{0, .5})}}
	r := &report{Rows: []*row{get, password}}
	if err := r.verdict(); err != nil {
		t.Errorf("12 and 2 times are refused: %v", err)
	}
	get.Quick, password.Sides[sideRolecall] = 10, costs([2]float64{10, 6})
	r.Small = small{Program: 31e6, Memory: memory{Resident: 65 << 20}, Ready: 1001}
	got := r.problems()
	const both = "the CPU time of Rolecall and PostgreSQL, in that of "
	for i, want := range []string{"get: " + both + "a bare HTTP request, is 12; at most 10",
		"password: " + both + "two SCRAM keys, is 3.2; at most 3 ", "memory", "size", "ready"} {
		if len(got) != 5 || !strings.Contains(got[i], want) {
			t.Fatalf("got %q, want %q among them", got, want)
		}
	}
	get.Sides[sideBare][0].Failed = map[string]int{nothingDone: 1}
	if got := r.problems(); !strings.Contains(got[0], "get: nothing was measured: void: 1 × "+nothingDone) {
		t.Errorf("got %q", got)
	}
}

// TestQuick: a quick run measures some operations, each against a limit.
func TestQuick(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-quick"}, t.Output())
	if err != nil || o.rounds != 2 || o.seconds != time.Second || len(o.connections) != 1 || len(o.only) < 5 ||
		!o.wants("password") || o.wants("flat") {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestPage: a user finds the time of one request, how many there are in a second, and the ratios.
func TestPage(t *testing.T) {
	t.Parallel()
	one, eight := rounds(900), rounds(3000)
	r := &report{Rows: []*row{
		{Operation: "get", Title: "get", Connections: 1, Sides: map[string][]sample{sideRolecall: one}},
		{Operation: "get", Title: "get", Connections: 8, Sides: map[string][]sample{sideRolecall: eight,
			sidePgbench: rounds(12_000), sidePeer: rounds(100)}},
		{Operation: "get", Title: "pgbench alone", Connections: 8, Sides: map[string][]sample{sidePgbench: eight}},
		{Operation: "deep", Title: "deep", Connections: 1, Sides: map[string][]sample{sideRolecall: one}},
		{Operation: "deep", Title: "deeper", Connections: 1, P50Times: 6, Sides: map[string][]sample{sideRolecall: {{P50: 7}}}},
	}, Timings: []timing{{Title: "search", Limit: 500, Rounds: []sample{{P50: 123}}}}}
	page := r.page()
	for _, want := range []string{"| get | 1.00 | 3,000 | – |", "| get | 25 % | 30.0 × | – | – |", "| search | 123 ms |"} {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %s in\n%s", want, page)
		}
	}
	if strings.Contains(page, "deep") || strings.Contains(page, "alone |") {
		t.Errorf("the page shows what no user asks for:\n%s", page)
	}
	text := r.markdown()
	for _, want := range []string{"| deeper | 7.00 | **7 ×** (≤ 6 ×) |", "| search | 123 (≤ 500) | – |"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
}

// TestLeaseShare: of the requests for leases half take one and half end it.
func TestLeaseShare(t *testing.T) {
	t.Parallel()
	of := func(name string, cost float64) *row {
		return &row{Operation: name, Connections: 8, Sides: map[string][]sample{sideRolecall: costs([2]float64{cost, 0})}}
	}
	r := &report{Rows: []*row{of("create", 8), of("delete", 2), of("lease", 6)}}
	if got := r.leaseShare(8); got != 1.2 {
		t.Errorf("got %g", got)
	}
	if got := r.leaseShare(32); got != 0 {
		t.Errorf("got %g of rows that do not exist", got)
	}
}

// TestIsolated: the p99 beside writers stands against pgbench's.
func TestIsolated(t *testing.T) {
	t.Parallel()
	r := &report{Isolated: []isolation{{Title: "gets", Beside: "writers", Share: .5, Alone: []sample{{P50: 1, P99: 2}},
		Together: []sample{{P50: 3, P99: 12}}, Pgbench: []sample{{P99: 20}}}}}
	want, got := "| gets beside writers | 1.00 / 2.00 | 3.00 / 12.00 | 6 × | 20.00 | **60 %** (≤ 50 %) |", r.markdown()
	if !strings.Contains(got, want) {
		t.Errorf("there is no %s in\n%s", want, got)
	}
}

func TestAppendLatencies(t *testing.T) {
	t.Parallel()
	times, err := appendLatencies(nil, []byte("0 1 1234 0 1764000000 123456\n3 2 99 0 1764000000 123457 10\n"))
	if err != nil || len(times) != 2 || times[0] != 1234*time.Microsecond || times[1] != 99*time.Microsecond {
		t.Errorf("%v, %v", times, err)
	}
	for _, log := range []string{"0 1 1234\n", "0 1 skipped 0 1764000000 123456\n"} {
		if _, err := appendLatencies(nil, []byte(log)); err == nil {
			t.Errorf("%q is taken", log)
		}
	}
}
