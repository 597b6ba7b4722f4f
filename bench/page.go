package main

import (
	"cmp"
	"fmt"
	"strings"
)

// page is the report for users: what a request takes and how many there can be, then what Rolecall takes itself, then
// how that compares.
func (r *report) page() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Measured on %s with %d cores of %s for everything, PostgreSQL %s and the load included; %.0f GiB, "+
		"data on %s. %s, medians of %d rounds.\n", r.Began.Format("2006-01-02"), m.Cores, m.CPU, m.PostgreSQL,
		float64(m.Memory)/(1<<30), m.Filesystem, m.Rolecall, r.Settings.Rounds)
	for _, w := range r.warnings() {
		fmt.Fprintf(&b, "\n**Warning:** %s\n", w)
	}
	var times, shares [][]string
	seen := map[string]bool{}
	for _, row := range r.Rows {
		if row.Operation == "deep" || len(row.Sides[sideRolecall]) == 0 || seen[row.Title] {
			continue
		}
		seen[row.Title] = true
		cells, compared := []string{row.Title}, []string{row.Title}
		for _, n := range []int{1, 8, 32} {
			at := r.titled(row.Title, n)
			cell, ofPgbench, ofPeer := "–", "–", "–"
			if at != nil {
				cell = at.rate(sideRolecall)
				if n == 1 {
					cell = fmt.Sprintf("%.2f", of(at.Sides[sideRolecall], p50))
				}
				ofPgbench, ofPeer = percent(at.against(sidePgbench)), multiple(at.against(sidePeer))
			}
			if cells = append(cells, cell); n > 1 {
				compared = append(compared, ofPgbench, ofPeer)
			}
		}
		times = append(times, cells)
		if strings.Join(compared[1:], "") != "––––" {
			shares = append(shares, compared)
		}
	}
	b.WriteString("\n" + table([]string{"Request", "ms, on an idle server", "a second, 8 connections",
		"a second, 32 connections"}, times))
	r.writeResources(&b)
	b.WriteString("\n" + table([]string{"Compared", "of PostgreSQL alone, 8 connections", "of postgres-meta, 8 connections",
		"of PostgreSQL alone, 32 connections", "of postgres-meta, 32 connections"}, shares))
	return b.String()
}

// writeResources tells what larger things take, and what the program takes.
func (r *report) writeResources(b *strings.Builder) {
	var rows [][]string
	add := func(title, format string, args ...any) {
		rows = append(rows, []string{title, fmt.Sprintf(format, args...)})
	}
	for _, t := range r.Timings {
		add(t.Title, "%s", cmp.Or(void(t.Rounds), count(of(t.Rounds, p50))+" ms"))
	}
	if s := r.Small; s.Program > 0 {
		add("memory after the load", "%s", mib(s.Memory.Resident))
		add("most memory during the load", "%s", mib(s.Memory.Highest))
		add("from the start until it is ready", "%.0f ms", s.Ready)
		add("size of the program", "%.1f MB", float64(s.Program)/1e6)
	}
	if f := r.Fleet; f.Clusters > 0 {
		add(count(float64(f.Clusters))+" clusters: memory", "%s", mib(f.Memory.Resident))
		add(count(float64(f.Clusters))+" clusters: CPU of one core while idle", "%.1f %%", 100*f.CPU.Server/f.Seconds)
	}
	b.WriteString("\n" + table([]string{"More", ""}, rows))
}

// titled returns the row of a title and a number of connections, nil if it was not measured.
func (r *report) titled(title string, connections int) *row {
	for _, row := range r.Rows {
		if row.Title == title && row.Connections == connections {
			return row
		}
	}
	return nil
}

// percent and multiple write a ratio, "–" where there is none.
func percent(ratio float64) string {
	if ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*ratio)
}

func multiple(ratio float64) string {
	if ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f ×", ratio)
}
