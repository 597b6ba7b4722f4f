package label_test

import (
	"testing"

	"rolecall/internal/label"
)

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := label.Parse("team=payments,role in (dba,sre),!suspended"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	selector, err := label.Parse("team=payments,role in (dba,sre),!suspended")
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"team": "payments", "role": "sre", "region": "eu", "env": "prod", "cost-center": "4711"}
	b.ReportAllocs()
	for b.Loop() {
		if !selector.Matches(labels) {
			b.Fatal("the labels do not match")
		}
	}
}
