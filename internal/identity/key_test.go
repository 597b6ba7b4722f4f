package identity_test

import (
	"sync"
	"testing"
	"time"

	"rolecall/internal/audit"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func published(t testing.TB, id *identity.Service) (signs string, all map[string]bool) {
	t.Helper()
	keys, err := id.PublicKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all = map[string]bool{}
	for _, k := range keys {
		all[k.ID] = true
	}
	return keys[0].ID, all
}

// Two replicas through a rotation: no token that was made ever meets a server that does not know its key.
func TestRotation(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "rotating")
	var c clock
	replicas := []*identity.Service{replica(t, s, &c), replica(t, s, &c)}
	first, _ := published(t, replicas[0])

	// By age, one of them makes the next key, once.
	c.advance(identity.KeyAge)
	var group sync.WaitGroup
	for _, id := range replicas {
		group.Go(func() {
			if err := id.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	c.advance(time.Minute)
	for _, id := range replicas {
		if signs, all := published(t, id); signs != first || len(all) != 2 {
			t.Fatalf("%s signs, published are %v", signs, all)
		}
	}
	// A minute before it signs the old one does, and its tokens are good until they end.
	c.advance(identity.KeyLead - 2*time.Minute)
	old, err := replicas[0].MintFor(t.Context(), "rotating", identity.LongestLifetime)
	if err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Minute)
	var second string
	for _, id := range replicas {
		signs, all := published(t, id)
		if second = signs; signs == first || len(all) != 2 {
			t.Fatalf("%s signs, published are %v", signs, all)
		}
	}
	for n, id := range replicas {
		signIn(t, replicas[1-n], bearer(t, id, "rotating"))
	}
	c.advance(identity.LongestLifetime - 3*time.Minute)
	for _, id := range replicas {
		if err := id.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		signIn(t, id, "Bearer "+old)
	}
	// Then it goes.
	c.advance(2 * time.Hour)
	for _, id := range replicas {
		if err := id.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if signs, all := published(t, id); signs != second || len(all) != 1 {
			t.Errorf("%s signs, published are %v", signs, all)
		}
		refused(t, id, "Bearer "+old)
	}
	// Each of this once in the audit log.
	for kid, want := range map[string][]string{first: {"key.retire"}, second: {"key.create"}} {
		var got []string
		for _, row := range s.AuditRows(t, kid) {
			got = append(got, row.Action)
		}
		if len(got) != len(want) || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("the audit log has %v of %s, want %v", got, kid, want)
		}
	}

	// On request, at any age, and a server that has not read the keys since meets no token of it within the hour.
	third, err := replicas[0].RotateKey(t.Context(), audit.Entry{AccountGUID: "me", AccountName: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if signs, all := published(t, replicas[0]); signs != second || !all[third] {
		t.Errorf("%s signs, published are %v", signs, all)
	}
	c.advance(identity.KeyLead)
	if signs, _ := published(t, replicas[0]); signs != third {
		t.Errorf("%s signs", signs)
	}
	signIn(t, replicas[1], bearer(t, replicas[0], "rotating"))
	if rows := s.AuditRows(t, third); len(rows) != 1 || rows[0].Account != "me" {
		t.Errorf("the audit log has %+v", rows)
	}
}

// Replicas that start at once on a new control database have one key.
func TestFirstKey(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM signing_keys`); err != nil {
		t.Fatal(err)
	}
	var c clock
	var group sync.WaitGroup
	var mu sync.Mutex
	kids := map[string]bool{}
	for range 4 {
		group.Go(func() {
			id := replica(t, s, &c)
			signs, all := published(t, id)
			mu.Lock()
			defer mu.Unlock()
			if kids[signs] = true; len(all) != 1 {
				t.Errorf("published are %v", all)
			}
		})
	}
	group.Wait()
	if len(kids) != 1 {
		t.Errorf("the replicas sign with %v", kids)
	}
	for kid := range kids {
		if rows := s.AuditRows(t, kid); len(rows) != 1 || rows[0].Action != audit.MakeSigningKey {
			t.Errorf("the audit log has %+v of %s", rows, kid)
		}
	}
}

// While the control database is away, the keys at hand go on.
func TestKeysWithoutTheControlDatabase(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	var c clock
	id := replica(t, s, &c)
	signs, _ := published(t, id)
	s.DB.Close()
	c.advance(10 * time.Minute)
	if got, _ := published(t, id); got != signs {
		t.Errorf("%s signs", got)
	}
}
