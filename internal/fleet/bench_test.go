package fleet_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fleet"
	"rolecall/internal/lease"
	"rolecall/internal/observe"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// The size of the fleet of BenchmarkSearch. A server is registered several times, so that each registration has its own
// connections; a search reads it as often.
const (
	benchServers  = 4
	benchClusters = 100
	benchUsers    = 1000
	benchCreators = 20
)

// benchFleet registers the clusters.
func benchFleet(b *testing.B) *servicetest.Service {
	var s *servicetest.Service
	for i := range benchServers {
		pg := pgtest.New(b, map[string]string{"max_connections": "400"})
		if i == 0 {
			s = servicetest.New(b, pg)
		}
		pg.UsualIterations(b)
		role, password := servicetest.Administrator(b, pg)
		for n := i; n < benchClusters-1; n += benchServers { // the first server is registered already, as main
			s.Register(b, fmt.Sprintf("cluster-%03d", n), pg, role, password)
		}
		var sql strings.Builder
		for n := range benchUsers {
			u := user{name: fmt.Sprintf("app-%04d", n), createdBy: fmt.Sprintf("d0e5b2a7-3f0c-4c8e-9b1d-5a6e7f8091%02d",
				n%benchCreators),
				createdAt: time.Now().Add(-time.Duration(n*7919%benchUsers) * time.Hour)}
			if n%10 == 0 {
				u.validUntil = time.Now().Add(time.Duration(n) * time.Hour)
			}
			sql.WriteString(u.statements())
		}
		pg.Exec(b, sql.String())
		pg.Exec(b, `VACUUM ANALYZE`)
	}
	return s
}

// BenchmarkSearch measures a page of 100 users out of 100 clusters of 1,000 users: cold without an open connection, warm
// with one to each cluster.
func BenchmarkSearch(b *testing.B) {
	s := benchFleet(b)
	no := false
	for _, search := range []struct {
		name   string
		filter fleet.Filter
		order  string
	}{
		{"all", fleet.Filter{}, "cluster"},
		{"name", fleet.Filter{Name: "*-0042"}, "cluster"},
		{"creator", fleet.Filter{CreatedBy: "d0e5b2a7-3f0c-4c8e-9b1d-5a6e7f809107"}, "cluster"},
		{"creatorByName", fleet.Filter{CreatedBy: "d0e5b2a7-3f0c-4c8e-9b1d-5a6e7f809107"}, "name"},
		{"creatorByAge", fleet.Filter{CreatedBy: "d0e5b2a7-3f0c-4c8e-9b1d-5a6e7f809107"}, "createdAt"},
		{"expiring", fleet.Filter{ExpiresBefore: time.Now().Add(100 * time.Hour)}, "validUntil"},
		{"allByName", fleet.Filter{}, "name"},
		{"allByAge", fleet.Filter{}, "createdAt"},
		{"noLeaseByAge", fleet.Filter{Lease: &no}, "createdAt"},
	} {
		run := func(b *testing.B, f *fleet.Service) {
			page, err := f.Search(b.Context(), admin, search.filter, fleet.Sort{By: search.order}, "", 100)
			if err != nil || len(page.Users) < 99 || len(page.Unreachable) > 0 {
				b.Fatal(err, len(page.Users), len(page.Unreachable))
			}
		}
		b.Run(search.name+"/cold", func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				clusters, err := cluster.Open(b.Context(), s.DB, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				users := &dbuser.Service{Clusters: clusters, Audit: s.Audit, Accounts: s.Accounts,
					LeaseStore: &lease.Store{DB: s.DB}, ObserveStore: &observe.Store{DB: s.DB}, Log: slog.New(slog.DiscardHandler)}
				cold := &fleet.Service{DB: s.DB, Users: users, Log: users.Log}
				b.StartTimer()
				run(b, cold)
				b.StopTimer()
				clusters.Close()
				b.StartTimer()
			}
		})
		b.Run(search.name+"/warm", func(b *testing.B) {
			run(b, s.Fleet)
			b.ReportAllocs()
			for b.Loop() {
				run(b, s.Fleet)
			}
		})
	}
	b.Run("matches/warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			matches, _, err := s.Fleet.Matches(b.Context(), admin, fleet.Filter{Name: "app-*"}, fleet.MaxUsers)
			if err != nil || len(matches) != benchClusters*benchUsers {
				b.Fatal(err, len(matches))
			}
		}
	})
}
