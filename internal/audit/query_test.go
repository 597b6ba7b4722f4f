package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
)

func seqs(t testing.TB, l *audit.Log, f audit.Filter, p audit.Page) []int64 {
	t.Helper()
	rows, _, err := l.Rows(t.Context(), f, p)
	must(t, err)
	seqs := []int64{}
	for _, r := range rows {
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

func TestRows(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	ctx := t.Context()
	payments, search := uuid.New(), uuid.New()
	long := strings.Repeat("ü", 300)
	entry := func(account string, cluster uuid.UUID, target string) audit.Entry {
		return audit.Entry{Action: audit.CreateUser, AccountGUID: account, AccountName: strings.ToUpper(account) + "-name",
			Cluster: cluster, Target: target,
			RequestID: "r", Address: "::1", Detail: map[string]any{"k": "v"}}
	}
	a, err := l.Begin(ctx, entry("a", payments, "x"), time.Minute) // 1
	must(t, err)
	must(t, l.End(ctx, a, audit.Result{Outcome: audit.Done})) // 2
	must(t, l.Refused(ctx, entry("b", payments, "y")))        // 3
	must(t, l.Refused(ctx, entry("b", search, "x")))          // 4
	must(t, l.Refused(ctx, entry("a", uuid.Nil, long)))       // 5
	must(t, l.Refused(ctx, entry("a-name", uuid.Nil, "'%")))  // 6
	seal(t, l)
	mustHold(t, l, 6)
	rows, more, err := l.Rows(ctx, audit.Filter{}, audit.Page{Limit: 1})
	must(t, err)
	if r := rows[0]; !more || r.Seq != 1 || r.ID != 1 || len(r.MAC) != 32 || r.Attempt != a.ID || r.Phase != "attempt" ||
		time.Since(r.Time).Abs() > time.Minute ||
		r.Action != audit.CreateUser || r.Outcome != "" || r.AccountGUID != "a" || r.AccountName != "A-name" ||
		r.Cluster != payments || r.Target != "x" ||
		r.RequestID != "r" || r.Address != "::1" || string(r.Detail) != `{"k": "v"}` {
		t.Errorf("got %+v, more %t", r, more)
	}
	me := func(guid string, clusters ...uuid.UUID) *audit.Visible {
		return &audit.Visible{Account: guid, Clusters: clusters}
	}
	many := []uuid.UUID{payments}
	for range 40 {
		many = append(many, uuid.New())
	}
	for _, c := range []struct {
		f    audit.Filter
		want []int64
	}{
		{audit.Filter{}, []int64{1, 2, 3, 4, 5, 6}},
		{audit.Filter{Account: "a"}, []int64{1, 2, 5}},
		{audit.Filter{Account: "A-NAME"}, []int64{1, 2, 5}},
		{audit.Filter{Account: "a-name"}, []int64{1, 2, 5, 6}}, // the guid of one, the name of another
		{audit.Filter{Account: "nobody"}, nil},
		{audit.Filter{Account: "' OR true --"}, nil},
		{audit.Filter{Cluster: payments}, []int64{1, 2, 3}},
		{audit.Filter{Target: "x"}, []int64{1, 2, 4}},
		{audit.Filter{Target: long}, []int64{5}},
		{audit.Filter{Target: "x", Cluster: search}, []int64{4}},
		{audit.Filter{Action: audit.DeleteUser}, nil},
		{audit.Filter{Action: audit.CreateUser, Outcome: audit.Done}, []int64{2}},
		{audit.Filter{Outcome: audit.Denied}, []int64{3, 4, 5, 6}},
		{audit.Filter{Since: rows[0].Time}, []int64{1, 2, 3, 4, 5, 6}},
		{audit.Filter{Since: rows[0].Time.Add(time.Microsecond)}, []int64{2, 3, 4, 5, 6}},
		{audit.Filter{Until: rows[0].Time}, nil},
		{audit.Filter{Until: rows[0].Time.Add(time.Microsecond)}, []int64{1}},
		{audit.Filter{Since: time.Now().Add(time.Hour)}, nil},
		{audit.Filter{Visible: me("a")}, []int64{1, 2, 5}},
		{audit.Filter{Visible: me("nobody")}, nil},
		{audit.Filter{Visible: me("")}, nil},
		{audit.Filter{Visible: me("", search)}, []int64{4}},
		{audit.Filter{Visible: me("", many...)}, []int64{1, 2, 3}},
		{audit.Filter{Visible: me("nobody", payments)}, []int64{1, 2, 3}},
		{audit.Filter{Visible: me("a", payments, search)}, []int64{1, 2, 3, 4, 5}},
		{audit.Filter{Visible: me("a", many...)}, []int64{1, 2, 3, 5}},
		{audit.Filter{Visible: me("b", payments), Account: "a"}, []int64{1, 2}},
		{audit.Filter{Visible: me("b", payments), Account: "a-name"}, []int64{1, 2}},
		{audit.Filter{Visible: me("b"), Cluster: payments}, []int64{3}},
		{audit.Filter{Visible: me("b", payments), Cluster: search}, []int64{4}},
		{audit.Filter{Visible: me("a", many...), Cluster: payments}, []int64{1, 2, 3}},
	} {
		for limit := 1; limit < 8; limit += 3 {
			for _, backward := range []bool{false, true} {
				var got []int64
				for after := int64(0); ; {
					rows, more, err := l.Rows(ctx, c.f, audit.Page{After: after, Limit: limit, Backward: backward})
					must(t, err)
					for _, r := range rows {
						got, after = append(got, r.Seq), r.Seq
					}
					if !more {
						break
					}
				}
				if backward {
					slices.Reverse(got)
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%+v, %d a page, backward %t: got %v, want %v", c.f, limit, backward, got, c.want)
				}
			}
		}
	}
}

// Paging sees each row once while others arrive.
func TestPagingWhileRowsArrive(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 50)
	var writing sync.WaitGroup
	for range 4 {
		writing.Go(func() {
			for range 50 {
				if err := l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser, AccountGUID: "g"}); err != nil {
					t.Error(err)
				}
				if _, err := l.Seal(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var forward []int64
	for len(forward) < 250 {
		after := int64(len(forward))
		forward = append(forward, seqs(t, l, audit.Filter{Account: "g"}, audit.Page{After: after, Limit: 7})...)
		if int64(len(forward)) == after {
			_, err := l.Seal(t.Context())
			must(t, err)
		}
	}
	writing.Wait()
	for i, seq := range forward {
		if seq != int64(i+1) {
			t.Fatalf("row %d has seq %d", i+1, seq)
		}
	}
}

func TestFailedSignInCounts(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	ctx := t.Context()
	for range 3 {
		must(t, l.FailedSignIn(ctx, "g", "::1"))
	}
	must(t, l.FailedSignIn(ctx, "unknown", "::1"))
	_, err := l.DB.Pool.Exec(ctx, `INSERT INTO failed_sign_ins VALUES ('old', '', now() - interval '1 hour', 7)`)
	must(t, err)
	var got []string
	var after audit.FailedSignIns
	for {
		counts, more, err := l.FailedSignIns(ctx, time.Time{}, after, 1)
		must(t, err)
		for _, c := range counts {
			got, after = append(got, fmt.Sprint(c.Account, c.Address, c.Count)), c
		}
		if !more {
			break
		}
	}
	counts, _, err := l.FailedSignIns(ctx, time.Now().Add(-30*time.Minute), audit.FailedSignIns{}, 10)
	must(t, err)
	if len(got) != 3 || got[0] != "old7" || len(counts) == 0 ||
		slices.ContainsFunc(counts, func(c audit.FailedSignIns) bool { return c.Account == "old" }) {
		t.Errorf("got %q, and %v of the last half hour", got, counts)
	}
}

// BenchmarkSeal seals 10,000 rows.
func BenchmarkSeal(b *testing.B) {
	l := newLog(b)
	for b.Loop() {
		b.StopTimer()
		grow(b, l, 10_000)
		b.StartTimer()
		seal(b, l)
	}
}

// grow records n rows at once.
func grow(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	err := l.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
			INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name, cluster_id, target, request_id, address,
			  time)
			SELECT gen_random_uuid(), 'outcome', (ARRAY['user.create', 'user.password', 'user.delete'])[1 + i % 3], CASE WHEN i %
			  1000 = 0 THEN 'denied' ELSE 'done' END,
			  'guid' || i % 500, 'name' || i % 500, md5((i % 50)::text)::uuid, 'user' || i % 10000, gen_random_uuid(), '10.0.0.1',
			    now() - interval '1 second' * ($1 - i)
			FROM generate_series(1, $1::int) i`, n)
		return err
	})
	must(t, err)
}

// BenchmarkMillion asks for pages of a log of a million rows, and verifies it.
func BenchmarkMillion(b *testing.B) {
	l := newLog(b)
	const n = 1_000_000
	grow(b, l, n)
	start := time.Now()
	seal(b, l)
	b.Logf("sealed %d rows in %s", n, time.Since(start).Round(time.Millisecond))
	// As autovacuum does within a minute.
	_, err := l.DB.Pool.Exec(b.Context(), `VACUUM ANALYZE audit_unsealed, audit, audit_seals`, pgx.QueryExecModeSimpleProtocol)
	must(b, err)
	cluster := uuid.MustParse("c4ca4238-a0b9-2382-0dcc-509a6f75849b") // md5 of 1
	middle := time.Now().Add(-n / 2 * time.Second)
	for name, c := range map[string]struct {
		f audit.Filter
		p audit.Page
	}{
		"all":             {audit.Filter{}, audit.Page{}},
		"last":            {audit.Filter{}, audit.Page{Backward: true}},
		"account":         {audit.Filter{Account: "guid7"}, audit.Page{After: n / 2}},
		"name":            {audit.Filter{Account: "NAME7"}, audit.Page{Backward: true}},
		"nobody":          {audit.Filter{Account: "nobody"}, audit.Page{}},
		"cluster":         {audit.Filter{Cluster: cluster}, audit.Page{After: n / 2}},
		"cluster+user":    {audit.Filter{Cluster: cluster, Target: "user1"}, audit.Page{}},
		"cluster+account": {audit.Filter{Cluster: cluster, Account: "guid1"}, audit.Page{}},
		"cluster+nobody":  {audit.Filter{Cluster: cluster, Account: "guid2"}, audit.Page{}},
		"denied":          {audit.Filter{Outcome: audit.Denied}, audit.Page{After: n / 2}},
		"unknown":         {audit.Filter{Outcome: audit.Unknown}, audit.Page{}},
		"since":           {audit.Filter{Since: middle}, audit.Page{}},
		"until":           {audit.Filter{Until: middle}, audit.Page{After: n/2 - 50}},
		"hour":            {audit.Filter{Since: middle, Until: middle.Add(time.Hour)}, audit.Page{}},
		"hour+action":     {audit.Filter{Since: middle, Until: middle.Add(time.Hour), Action: audit.CreateUser}, audit.Page{}},
		"visible": {audit.Filter{Visible: &audit.Visible{Account: "guid3", Clusters: []uuid.UUID{cluster}}},
			audit.Page{After: n / 2}},
		"visible+denied": {audit.Filter{Outcome: audit.Denied,
			Visible: &audit.Visible{Account: "guid3", Clusters: []uuid.UUID{cluster}}}, audit.Page{}},
	} {
		c.p.Limit = 100
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _, err := l.Rows(b.Context(), c.f, c.p)
				must(b, err)
			}
		})
	}
	b.Run("idle", func(b *testing.B) { // what the sealer asks four times a second
		for b.Loop() {
			_, err := l.ReadHead(b.Context())
			must(b, err)
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			mustHold(b, l, n)
		}
	})
}
