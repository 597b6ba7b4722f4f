package dbuser

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/label"
)

// BenchmarkMayView asks for each of 1,000 clusters whether an account may view it, as a list of clusters does.
func BenchmarkMayView(b *testing.B) {
	rules := func(texts ...string) (selectors []label.Selector) {
		for _, text := range texts {
			s, err := label.ParseRule(text)
			if err != nil {
				b.Fatal(err)
			}
			selectors = append(selectors, s)
		}
		return selectors
	}
	var clusters []*cluster.Cluster
	for i := range 1000 {
		clusters = append(clusters, &cluster.Cluster{
			ID:     uuid.New(),
			Manage: rules(fmt.Sprintf("team=team-%d,role in (dba,sre)", i%50)),
			View:   rules(fmt.Sprintf("team=team-%d", i%50), "auditor"),
		})
	}
	p := &account.Principal{
		GUID:   "1c7f3d0e-8a52-4d2b-9c0f-3a1b2c3d4e5f",
		Scopes: []string{account.ScopeRead, account.ScopeWrite},
		Labels: map[string]string{"team": "team-7", "role": "sre", "region": "eu", "env": "prod"},
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, c := range clusters {
			if access.MayView(p, c) {
				n++
			}
		}
		if n != 20 {
			b.Fatalf("%d clusters, want 20", n)
		}
	}
}
