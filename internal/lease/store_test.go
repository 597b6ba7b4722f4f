package lease_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open returns a store on a control database of the test's own, with a cluster.
func open(t *testing.T) (*lease.Store, uuid.UUID) {
	t.Helper()
	db := servicetest.Control(t, pgtest.Shared(t), strings.ToLower(t.Name()))
	return &lease.Store{DB: db}, cluster(t, db, "main")
}

func cluster(t *testing.T, db *control.DB, name string) uuid.UUID {
	t.Helper()
	id := uuid.New()
	if _, err := db.Pool.Exec(t.Context(),
		`INSERT INTO clusters (id, display_name, url, tls, credential, system_identifier) VALUES ($1, $2, '', '{}', '', '')`,
		id, name); err != nil {
		t.Fatal(err)
	}
	return id
}

func inTx(t *testing.T, s *lease.Store, f func(tx pgx.Tx) error) {
	t.Helper()
	if err := s.DB.Tx(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func newLease(t *testing.T, cluster uuid.UUID, account string) *lease.Lease {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Microsecond)
	return &lease.Lease{ID: id, Cluster: cluster, Username: lease.NewName("shop"), For: "shop", Account: account,
		AccountName: account + "@example.com", Note: "a note", TTL: 90 * time.Minute, Databases: []string{"shop"},
		CreatedAt: now, ExpiresAt: now.Add(time.Hour), MaxExpiresAt: now.Add(24 * time.Hour), State: lease.Active}
}

// insert stores leases.
func insert(t *testing.T, s *lease.Store, leases ...*lease.Lease) {
	t.Helper()
	inTx(t, s, func(tx pgx.Tx) error {
		for _, l := range leases {
			if err := s.Insert(t.Context(), tx, l); err != nil {
				return err
			}
		}
		return nil
	})
}

func get(t *testing.T, s *lease.Store, id uuid.UUID) *lease.Lease {
	t.Helper()
	l, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// show is a lease in a form that compares: pointers and the zones of times aside.
func show(l *lease.Lease) string {
	c := *l
	for _, at := range []*time.Time{&c.CreatedAt, &c.ExpiresAt, &c.MaxExpiresAt, &c.RenewedAt, &c.EndedAt} {
		*at = at.UTC()
	}
	return fmt.Sprintf("%+v", c)
}

// A lease is read as it was stored, and goes one way: to its end.
func TestLease(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	l := newLease(t, c, "alice")
	l.Token = uuid.New()
	insert(t, s, l)
	l.BlockedBy = []string{}
	if got := show(get(t, s, l.ID)); got != show(l) {
		t.Errorf("it is read as\n%s, not\n%s", got, show(l))
	}
	at := l.CreatedAt.Add(time.Second)
	made := *l
	made.CreatedAt, made.ExpiresAt, made.MaxExpiresAt = at, at.Add(time.Hour), at.Add(2*time.Hour)
	made.Databases, made.RoleOID = []string{"a", "b"}, 4_000_000_000
	inTx(t, s, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		s.QueueMade(batch, &made)
		return tx.SendBatch(t.Context(), batch).Close()
	})
	inTx(t, s, func(tx pgx.Tx) error {
		return s.Renewed(t.Context(), tx, l.ID, at.Add(90*time.Minute), at.Add(time.Minute))
	})
	got := get(t, s, l.ID)
	if !got.CreatedAt.Equal(at) || !got.ExpiresAt.Equal(at.Add(90*time.Minute)) ||
		!got.MaxExpiresAt.Equal(at.Add(2*time.Hour)) ||
		!got.RenewedAt.Equal(at.Add(time.Minute)) || !slices.Equal(got.Databases, []string{"a", "b"}) ||
		got.RoleOID != made.RoleOID {
		t.Errorf("renewed it is %s", show(got))
	}
	for _, step := range []struct {
		state   lease.State
		reason  lease.Reason
		blocked []string
		want    lease.State
		changed bool
	}{
		{lease.Ending, lease.Expired, nil, lease.Ending, true},
		{lease.Blocked, lease.Deleted, []string{"It owns a database."}, lease.Blocked, true},
		{lease.Ending, lease.Deleted, nil, lease.Blocked, false},
		{lease.Ended, lease.Gone, nil, lease.Ended, true},
		{lease.Blocked, lease.Deleted, []string{"late"}, lease.Ended, false},
	} {
		inTx(t, s, func(tx pgx.Tx) error {
			changed, err := s.SetState(t.Context(), tx, l.ID, step.state, step.reason, step.blocked)
			if changed != step.changed {
				t.Errorf("to %s: changed is %t", step.state, changed)
			}
			return err
		})
		got := get(t, s, l.ID)
		if got.State != step.want || got.Reason != lease.Expired || (len(got.BlockedBy) > 0) != (step.want == lease.Blocked) ||
			got.EndedAt.IsZero() != (step.want != lease.Ended) {
			t.Errorf("after %s it is %s", step.state, show(got))
		}
	}
	if n, err := s.DeleteEnded(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("%d leases were deleted: %v", n, err)
	}
	if n, err := s.DeleteEnded(t.Context(), 0); n != 1 || err != nil {
		t.Errorf("%d leases were deleted: %v", n, err)
	}
	if _, err := s.Get(t.Context(), l.ID); !fault.Is(err, fault.NotFound) ||
		fault.Of(err).Message != fmt.Sprintf("There is no lease %q.", l.ID) {
		t.Errorf("deleted: %v", err)
	}
}

// Lists are filtered, the newest first, and go on after a lease.
func TestList(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	other := cluster(t, s.DB, "other")
	var all []*lease.Lease
	for i := range 6 {
		l := newLease(t, []uuid.UUID{c, other}[i%2], []string{"alice", "bob", "carol"}[i%3])
		all = append([]*lease.Lease{l}, all...)
	}
	// The newest first: 5 other carol, 4 main bob, 3 other alice, 2 main carol, 1 other bob, 0 main alice.
	all[0].For, all[1].Token = "billing", uuid.New()
	all[2].ExpiresAt = all[2].CreatedAt.Add(time.Minute)
	all[3].Account, all[3].AccountName, all[3].Credential = "", "", "nightly"
	insert(t, s, all...)
	inTx(t, s, func(tx pgx.Tx) error {
		_, err := s.SetState(t.Context(), tx, all[5].ID, lease.Ended, lease.Deleted, nil)
		return err
	})
	for name, test := range map[string]struct {
		filter lease.Filter
		want   []int
		more   bool
	}{
		"all":             {lease.Filter{}, []int{0, 1, 2, 3, 4, 5}, false},
		"limit":           {lease.Filter{Limit: 2}, []int{0, 1}, true},
		"all of a limit":  {lease.Filter{Limit: 6}, []int{0, 1, 2, 3, 4, 5}, false},
		"after":           {lease.Filter{Limit: 3, After: all[2].ID}, []int{3, 4, 5}, false},
		"cluster":         {lease.Filter{Clusters: []uuid.UUID{c}}, []int{1, 3, 5}, false},
		"no cluster":      {lease.Filter{Clusters: []uuid.UUID{}}, nil, false},
		"own":             {lease.Filter{Clusters: []uuid.UUID{}, Own: "alice"}, []int{2, 5}, false},
		"cluster and own": {lease.Filter{Clusters: []uuid.UUID{c}, Own: "alice"}, []int{1, 2, 3, 5}, false},
		"guid":            {lease.Filter{Account: "bob"}, []int{1, 4}, false},
		"user name":       {lease.Filter{Account: "bob@example.com", Clusters: []uuid.UUID{c}, Own: "x"}, []int{1}, false},
		"for":             {lease.Filter{For: "billing"}, []int{0}, false},
		"its name":        {lease.Filter{Username: all[4].Username, Clusters: []uuid.UUID{other}}, []int{4}, false},
		"credential":      {lease.Filter{Credential: "nightly"}, []int{3}, false},
		"token":           {lease.Filter{Token: all[1].Token}, []int{1}, false},
		"live":            {lease.Filter{Live: true, Clusters: []uuid.UUID{c}}, []int{1, 3}, false},
		"ended":           {lease.Filter{States: []lease.State{lease.Ended, lease.Blocked}}, []int{5}, false},
		"expires before":  {lease.Filter{ExpiresBefore: all[2].ExpiresAt.Add(time.Second)}, []int{2}, false},
	} {
		list, more, err := s.List(t.Context(), test.filter)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []int
		for _, l := range list {
			got = append(got, slices.IndexFunc(all, func(one *lease.Lease) bool { return one.ID == l.ID }))
		}
		if !slices.Equal(got, test.want) || more != test.more {
			t.Errorf("%s: the list is %v, more %t, not %v", name, got, more, test.want)
		}
	}
	inTx(t, s, func(tx pgx.Tx) error {
		leases, credentials, err := lease.InUse(t.Context(), tx, c)
		if leases != 2 || credentials != 0 {
			t.Errorf("%d leases and %d credentials are in use", leases, credentials)
		}
		return err
	})
	live, err := s.Live(t.Context(), c)
	if err != nil || len(live) != 2 {
		t.Errorf("%d are live: %v", len(live), err)
	}
	inTx(t, s, func(tx pgx.Tx) error {
		for account, want := range map[string]int{"alice": 0, "bob": 1, "nobody": 0} {
			if n, err := s.CountLive(t.Context(), tx, account, c); n != want || err != nil {
				t.Errorf("%s has %d leases: %v", account, n, err)
			}
		}
		return nil
	})
}

// A name has what the lease acts for, cut between characters, and at most 63 bytes.
func TestNewName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ of, begins string }{
		{"shop", "shop_"},
		{strings.Repeat("x", 54), strings.Repeat("x", 54) + "_"},
		{strings.Repeat("x", 63), strings.Repeat("x", 54) + "_"},
		{strings.Repeat("ü", 31), strings.Repeat("ü", 27) + "_"},
		{"x" + strings.Repeat("ü", 31), "x" + strings.Repeat("ü", 26) + "_"},
		{strings.Repeat("😀", 15), strings.Repeat("😀", 13) + "_"},
		{strings.Repeat("\x80", 60), "_"}, // not text, as a URL may have it
	} {
		name := lease.NewName(test.of)
		random, ok := strings.CutPrefix(name, test.begins)
		if !ok || len(random) != 8 || strings.Trim(random, "abcdefghijklmnopqrstuvwxyz234567") != "" || len(name) > 63 {
			t.Errorf("for %q the name is %q", test.of, name)
		}
		if name == lease.NewName(test.of) {
			t.Errorf("%q came twice", name)
		}
	}
}

// Counts has the leases that have not ended, and Blocked the oldest of those that are blocked.
func TestCounts(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	other := cluster(t, s.DB, "other")
	var in []*lease.Lease
	for range 5 {
		l, elsewhere := newLease(t, c, "alice"), newLease(t, other, "alice")
		in = append(in, l)
		insert(t, s, l, elsewhere)
	}
	late := time.Now().Add(-2 * time.Minute)
	inTx(t, s, func(tx pgx.Tx) error {
		for i, l := range in {
			if i > 0 {
				if err := s.Renewed(t.Context(), tx, l.ID, late, time.Time{}); err != nil {
					return err
				}
			}
			if state := []lease.State{"", lease.Ending, lease.Blocked, lease.Blocked, lease.Ended}[i]; state != "" {
				if _, err := s.SetState(t.Context(), tx, l.ID, state, lease.Expired, []string{"It owns a database."}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, name := range []string{"b", "a", "c"} {
		credential := insertCredential(t, s, c, name)
		if name == "c" {
			continue
		}
		if err := s.SetError(t.Context(), credential.ID, "It does not answer."); err != nil {
			t.Fatal(err)
		}
	}
	failing, err := s.Failing(t.Context(), []uuid.UUID{other, c}, 1)
	if err != nil || len(failing) != 1 || failing[0].Name != "a" {
		t.Errorf("failing are %+v: %v", failing, err)
	}
	counts, err := s.Counts(t.Context())
	if err != nil || counts[c] != (lease.Count{Active: 1, Ending: 1, Blocked: 2, Late: 1, Credentials: 3, Failing: 2}) ||
		counts[other] != (lease.Count{Active: 5}) {
		t.Errorf("the counts are %+v: %v", counts, err)
	}
	for most, want := range [][]*lease.Lease{{}, {in[2]}, {in[2], in[3]}, {in[2], in[3]}} {
		list, err := s.Blocked(t.Context(), []uuid.UUID{other, c}, most)
		if err != nil || !slices.EqualFunc(list, want, func(a, b *lease.Lease) bool { return a.ID == b.ID }) {
			t.Errorf("%d of the blocked leases are %d: %v", most, len(list), err)
		}
	}
}
