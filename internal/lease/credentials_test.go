package lease_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/secret"
)

func credential(t *testing.T, s *lease.Store, id uuid.UUID) *lease.Credential {
	t.Helper()
	c, err := s.CredentialByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func insertCredential(t *testing.T, s *lease.Store, cluster uuid.UUID, name string) *lease.Credential {
	t.Helper()
	c := &lease.Credential{ID: uuid.New(), Cluster: cluster, Name: name, For: "shop", RotateEvery: 30 * 24 * time.Hour,
		Overlap: time.Hour, CreatedBy: "alice"}
	inTx(t, s, func(tx pgx.Tx) error { return s.InsertCredential(t.Context(), tx, c) })
	return c
}

// A rotation stores the next password, then makes it the current one. A password opens for its lease and credential only.
func TestCredential(t *testing.T) {
	t.Parallel()
	s, cluster := open(t)
	c := insertCredential(t, s, cluster, "nightly")
	if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		return s.InsertCredential(t.Context(), tx, &lease.Credential{
			ID: uuid.New(), Cluster: cluster, Name: "nightly", For: "x", CreatedBy: "bob"})
	}); !fault.Is(err, fault.Exists) {
		t.Errorf("a second one of the name: %v", err)
	}
	got, err := s.GetCredential(t.Context(), cluster, "nightly")
	if err != nil || got.ID != c.ID || got.RotateEvery != c.RotateEvery || got.Overlap != c.Overlap || got.Window != nil ||
		got.For != "shop" || got.CreatedBy != "alice" || got.Revision != 1 || got.CreatedAt.IsZero() || !got.RotatedAt.IsZero() ||
		got.Lease != uuid.Nil || got.Username != "" || got.State() != "active" {
		t.Errorf("it is read as %+v: %v", got, err)
	}
	if _, err := s.GetCredential(t.Context(), uuid.New(), "nightly"); !fault.Is(err, fault.NotFound) ||
		fault.Of(err).Message != `There is no credential "nightly".` {
		t.Errorf("in another cluster: %v", err)
	}

	got.For, got.Window = "billing", &lease.Window{Days: []string{"sat"}, From: "02:00", To: "04:00", Timezone: "UTC"}
	got.RotatesAt = time.Now().Add(time.Hour).Truncate(time.Microsecond)
	inTx(t, s, func(tx pgx.Tx) error { return s.UpdateCredential(t.Context(), tx, got) })
	changed := credential(t, s, c.ID)
	if changed.For != "billing" || fmt.Sprint(*changed.Window) != fmt.Sprint(*got.Window) ||
		!changed.RotatesAt.Equal(got.RotatesAt) || changed.Revision != 2 {
		t.Errorf("changed it is %+v", changed)
	}

	if err := s.SetError(t.Context(), c.ID, "The cluster does not answer."); err != nil {
		t.Fatal(err)
	}
	if failing := credential(t, s, c.ID); failing.State() != "failing" {
		t.Errorf("after an error it is %s", failing.State())
	}
	first, second := newLease(t, cluster, ""), newLease(t, cluster, "")
	for i, next := range []*lease.Lease{first, second} {
		next.Credential, next.AccountName = "nightly", ""
		insert(t, s, next)
		password := fmt.Sprint("secret ", i)
		inTx(t, s, func(tx pgx.Tx) error { return s.SetNext(t.Context(), tx, c.ID, next.ID, secret.Text(password)) })
		waiting := credential(t, s, c.ID)
		if waiting.Next != next.ID {
			t.Errorf("the next lease is %s, want %s", waiting.Next, next.ID)
		}
		at := time.Now().Truncate(time.Microsecond)
		if err := s.DB.Tx(t.Context(), func(tx pgx.Tx) error {
			_, err := s.Promote(t.Context(), tx, c.ID, uuid.New(), at)
			return err
		}); !fault.Is(err, fault.Stale) {
			t.Errorf("another lease becomes the current one: %v", err)
		}
		inTx(t, s, func(tx pgx.Tx) error {
			before, err := s.Promote(t.Context(), tx, c.ID, next.ID, at.Add(time.Hour))
			if want := []uuid.UUID{uuid.Nil, first.ID}[i]; before != want {
				t.Errorf("before it was %s, not %s", before, want)
			}
			return err
		})
		now := credential(t, s, c.ID)
		if opened, err := s.Password(now); string(opened) != password || err != nil {
			t.Errorf("the current password is wrong: %v", err)
		}
		if now.Lease != next.ID || now.Username != next.Username || now.Next != uuid.Nil || now.State() != "active" ||
			now.LeaseSince.IsZero() || !now.LeaseSince.Equal(waiting.NextSince) || now.RotatedAt.Before(now.LeaseSince) ||
			now.Clock.Until(now.RotatedAt) > 0 || !now.NextSince.IsZero() || !now.RotatesAt.Equal(at.Add(time.Hour)) {
			t.Errorf("rotated it is %+v", now)
		}
	}
	inTx(t, s, func(tx pgx.Tx) error { return s.SetNext(t.Context(), tx, c.ID, uuid.New(), "never used") })
	waiting := credential(t, s, c.ID)
	inTx(t, s, func(tx pgx.Tx) error { return s.ClearNext(t.Context(), tx, c.ID, uuid.New()) })
	if credential(t, s, c.ID).Next != waiting.Next {
		t.Error("another lease that is next was cleared")
	}
	inTx(t, s, func(tx pgx.Tx) error { return s.ClearNext(t.Context(), tx, c.ID, waiting.Next) })
	if credential(t, s, c.ID).Next != uuid.Nil {
		t.Error("the next lease was not cleared")
	}

	// A sealed password that is copied to another credential, or to another lease of the same one, is worthless.
	other := insertCredential(t, s, cluster, "other")
	for name, sql := range map[string]string{
		"another credential": `UPDATE credentials o SET lease_id = c.lease_id, password = c.password FROM credentials c
			WHERE c.name = 'nightly' AND o.name = 'other'`,
		"another lease": `UPDATE credentials o SET lease_id = gen_random_uuid(), password = c.password FROM credentials c
			WHERE c.name = 'nightly' AND o.name = 'other'`,
	} {
		if _, err := s.DB.Pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		if opened, err := s.Password(credential(t, s, other.ID)); err == nil {
			t.Errorf("%s: it opens as %d characters", name, len(opened))
		}
	}
	var stored []byte
	if err := s.DB.Pool.QueryRow(t.Context(), `
		SELECT convert_to(string_agg(c::text, ''), 'UTF8') || (SELECT password FROM credentials WHERE name = 'nightly')
		FROM credentials c`).Scan(&stored); err != nil || bytes.Contains(stored, []byte("secret")) {
		t.Errorf("a password is stored in clear: %v", err)
	}

	inTx(t, s, func(tx pgx.Tx) error { return s.DeleteCredential(t.Context(), tx, c.ID) })
	if _, err := s.CredentialByID(t.Context(), c.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted: %v", err)
	}
	if get(t, s, second.ID).State != lease.Active {
		t.Error("its lease has ended with it")
	}
}

// Lists have the order of the names' bytes, and no credentials whose first lease is being made.
func TestListCredentials(t *testing.T) {
	t.Parallel()
	s, cluster := open(t)
	for _, name := range []string{"b", "a-b", "B", "ab", "é"} {
		insertCredential(t, s, cluster, name)
	}
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE credentials SET lease_id = gen_random_uuid(), password = ''`); err != nil {
		t.Fatal(err)
	}
	insertCredential(t, s, cluster, "has no lease yet")
	for _, test := range []struct {
		after string
		limit int
		want  string
		more  bool
	}{
		{"", 0, "[B a-b ab b é]", false}, {"", 2, "[B a-b]", true}, {"a-b", 3, "[ab b é]", false}, {"é", 3, "[]", false},
	} {
		list, more, err := s.ListCredentials(t.Context(), cluster, test.after, test.limit)
		names := []string{}
		for _, c := range list {
			names = append(names, c.Name)
		}
		if fmt.Sprint(names) != test.want || more != test.more || err != nil {
			t.Errorf("after %q the names are %v, more %t: %v", test.after, names, more, err)
		}
	}
}
