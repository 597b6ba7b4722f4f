package term

import (
	"bytes"
	"slices"
	"testing"
)

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := NewTable(&out, Head{{Title: "NAME", Least: 5}, {Title: "ON", Gives: Most}})
	for _, rows := range [][][]string{{{"a\x1b[2Jb\u202e", "x"}}, {{"é", ""}}} {
		if err := table.Print(rows); err != nil {
			t.Fatal(err)
		}
	}
	if want := "NAME             ON\na\\x1b[2Jb\\u202e  x\né\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if got := cut("abcdef", 4); got != "abc…" {
		t.Errorf("cut to %q", got)
	}
}

func TestNarrowTerminals(t *testing.T) {
	t.Parallel()
	head := Head{
		{Title: "TIME"}, {Title: "ACCOUNT", Gives: Some}, {Title: "ACTION"}, {Title: "OUTCOME"},
		{Title: "CLUSTER", Gives: Some}, {Title: "ON", Gives: Some}, {Title: "DETAIL", Gives: Most},
	}
	widths := []int{22, 16, 16, 8, 12, 36, 200}
	for line, want := range map[int][]int{
		400: widths,
		140: {22, 16, 16, 8, 12, 36, 18},
		120: {22, 16, 16, 8, 12, 36, 0},
		100: {22, 16, 16, 8, 12, 16, 0},
		80:  {22, 8, 16, 8, 8, 8, 0},
		60:  {22, 8, 16, 8, 0, 0, 0},
		40:  {22, 0, 16, 8, 0, 0, 0},
	} {
		got := head.fit(widths, line)
		if !slices.Equal(got, want) {
			t.Errorf("on %d columns %v becomes %v, want %v", line, widths, got, want)
		}
	}
}
