package cfapi_test

import (
	"context"
	"fmt"
	"testing"
	"time"
	"strings"
	"os"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestScratch(t *testing.T) {
	ctx := context.Background()
	pg := pgtest.New(t, map[string]string{"jit": "on", "shared_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on"})
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	f := fixtureOn(t, s, 0)
	start := time.Now()
	_, err := s.DB.Pool.Exec(ctx, `SET statement_timeout = 0`)
	for i := 0; i < 10; i++ {
	_, err = s.DB.Pool.Exec(ctx, `
		INSERT INTO accounts (guid, username, origin, platform_created_at, platform_updated_at, labels, annotations)
		SELECT gen_random_uuid()::text, 'user'||i||'@corp.example', 'corp', now() - i * interval '1 min', now() - (i%1000) * interval '1 min',
		  jsonb_build_object('team', 'team'||(i%1000), 'env', CASE WHEN i % 10 = 0 THEN 'test' ELSE 'prod' END, 'role', 'r'||(i%7)) || CASE WHEN i % 5000 = 0 THEN '{"rare":"x"}' ELSE '{}'::jsonb END,
		  jsonb_build_object('note', repeat('x', 200))
		FROM generate_series($1::int, $2::int) i`, i*10000+1, (i+1)*10000)
	if err != nil { t.Fatal(err) }
	}
	fmt.Println("inserted", time.Since(start))
	if os.Getenv("ANALYZE") != "" {
	_, err = s.DB.Pool.Exec(ctx, `VACUUM ANALYZE accounts`)
	if err != nil { t.Fatal(err) }
	}
	for _, q := range []string{
		"page=1", "page=1000", "page=2000", "per_page=5000&page=20",
		"order_by=-created_at&page=1", "order_by=-created_at&page=2000", "order_by=updated_at&page=1000",
		selecting("team=team7"), selecting("team=team7")+"&page=2", selecting("team in (team7,team8,team9)"), selecting("rare"), selecting("rare,team=team0"), selecting("team=team7,env!=test"), selecting("team=team7,!rare"),
		selecting("env=test"), selecting("env=test")+"&page=200", selecting("env=prod"), selecting("env=prod")+"&page=1800", selecting("env!=prod"), selecting("!env"), selecting("!rare"), selecting("nothing=x"),
		selecting("team=team7")+"&order_by=-created_at", selecting("env=prod")+"&order_by=-updated_at",
		"usernames=USER77@corp.example", "partial_usernames=user777", "guids=x", "created_ats[gt]=2030-01-01T00:00:00Z",
	} {
		var best time.Duration
		var l list
		for i := 0; i < 5; i++ {
			start := time.Now()
			l = f.list(t, q)
			if d := time.Since(start); best == 0 || d < best { best = d }
		}
		fmt.Printf("%8.1fms  total %6d  %s\n", float64(best.Microseconds())/1000, l.Pagination.TotalResults, q)
	}
	log := pg.ReadLog(t)
	i := strings.Index(log, "page ON id = page_id")
	_ = i
	os.WriteFile("/tmp/pg.log", []byte(log), 0600)
}
