package cfapi_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// Users that are read at the same time are read together: each reader gets the one it asked for, as a value of its own, or
// learns that there is none.
func TestReadTogether(t *testing.T) {
	f := newFixture(t)
	const many = 8
	for n := range many {
		body := fmt.Sprintf(`{"guid":"together-%d","metadata":{"labels":{"n":"%d"},"annotations":{"n":"%d"}}}`, n, n, n)
		if a := f.do(t, http.MethodPost, "/v3/users", body); a.Status != http.StatusCreated {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	admin := &account.Principal{Scopes: []string{account.ScopeAdmin}}
	before := f.do(t, http.MethodGet, "/v3/users/together-0", "").user(t)
	var all sync.WaitGroup
	for n := range 4 * many {
		all.Go(func() {
			guid := fmt.Sprintf("together-%d", n%(many+1))
			for range 20 {
				u, err := f.Accounts.Platform(t.Context(), admin, guid)
				if n%(many+1) == many {
					if u != nil || !fault.Is(err, fault.NotFound) {
						t.Errorf("%s: %+v, %v", guid, u, err)
					}
					continue
				}
				value := fmt.Sprint(n % (many + 1))
				if err != nil || u.GUID != guid || u.Labels["n"] != value || u.Annotations["n"] != value || u.PlatformCreated.IsZero() {
					t.Errorf("%s: %+v, %v", guid, u, err)
					return
				}
				u.GUID, u.ID = "changed", 0
			}
		})
	}
	all.Wait()
	if after := f.do(t, http.MethodGet, "/v3/users/together-0", "").user(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got %+v, want %+v", after, before)
	}
	if _, err := f.Accounts.Platform(t.Context(), admin, "\x00"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a guid that PostgreSQL cannot hold: %v", err)
	}
}

// The plan of the query is kept: to make it takes PostgreSQL longer than to read a user.
func TestPlanOfAUserIsKept(t *testing.T) {
	f := servicetest.New(t, pgtest.Shared(t))
	for _, sql := range []string{
		`INSERT INTO accounts (guid, platform_created_at, platform_updated_at) SELECT 'planned-' || i, now(), now()
		 FROM generate_series(1, 5000) i`, // so many that the planner sees a difference between one guid and several
		`ANALYZE accounts`,
	} {
		if _, err := f.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	admin := &account.Principal{Scopes: []string{account.ScopeAdmin}}
	for range 30 * int(f.DB.Pool.Config().MaxConns) {
		if _, err := f.Accounts.Platform(t.Context(), admin, "planned-7"); err != nil {
			t.Fatal(err)
		}
	}
	kept, made := 0, 0
	for _, c := range f.DB.Pool.AcquireAllIdle(t.Context()) {
		var k, m int
		err := c.QueryRow(t.Context(), `SELECT coalesce(sum(generic_plans), 0), coalesce(sum(custom_plans), 0)
			FROM pg_prepared_statements WHERE statement LIKE '%WHERE guid = ANY%platform_created_at IS NOT NULL'`).Scan(&k, &m)
		c.Release()
		if err != nil {
			t.Fatal(err)
		}
		kept, made = kept+k, made+m
	}
	if kept <= made {
		t.Errorf("a plan was kept for %d queries, and made for %d", kept, made)
	}
}
