package idempotency_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/idempotency"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// newRequest is a request of root with a key of its own.
func newRequest(t *testing.T, s *servicetest.Service) *idempotency.Request {
	t.Helper()
	var guid string
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT guid FROM accounts WHERE username = 'root'`).Scan(&guid); err != nil {
		t.Fatal(err)
	}
	return &idempotency.Request{Principal: &account.Principal{GUID: guid, RequestID: uuid.NewString()}, Key: uuid.NewString(),
		Method: "POST", Path: "/x"}
}

// begin fails the test unless the request is to be carried out.
func begin(t *testing.T, s *servicetest.Service, r *idempotency.Request) *idempotency.Claim {
	t.Helper()
	claim, answer, err := s.Idempotency.Begin(t.Context(), r)
	if claim == nil || answer != nil || err != nil {
		t.Fatalf("it got %v, %v, %v", claim, answer, err)
	}
	return claim
}

// refused fails the test unless the request is refused.
func refused(t *testing.T, s *servicetest.Service, r *idempotency.Request, kind fault.Kind, part string) {
	t.Helper()
	claim, answer, err := s.Idempotency.Begin(t.Context(), r)
	if claim != nil || answer != nil || !fault.Is(err, kind) || !strings.Contains(err.Error(), part) {
		t.Errorf("it got %v, %v, %v; want the kind %d", claim, answer, err, kind)
	}
}

func exec(t *testing.T, s *servicetest.Service, sql string, args ...any) {
	t.Helper()
	if _, err := s.DB.Pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func keys(t *testing.T, s *servicetest.Service) (n int) {
	t.Helper()
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM idempotency_keys`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var answer = &idempotency.Answer{Status: 201, Header: http.Header{"Location": {"here"}}, Body: []byte("made")}

// After 24 hours a key is as new, before it is deleted too.
func TestAge(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "root")
	r := newRequest(t, s)
	begin(t, s, r).Done(t.Context(), answer)
	if _, got, err := s.Idempotency.Begin(t.Context(), r); err != nil || got == nil || got.Header.Get("Location") != "here" ||
		string(got.Body) != "made" || got.Status != 201 {
		t.Errorf("it is repeated as %+v, %v", got, err)
	}
	exec(t, s, `UPDATE idempotency_keys SET created_at = created_at - interval '23 hours 59 minutes'`)
	if err := s.Idempotency.Sweep(t.Context()); err != nil || keys(t, s) != 1 {
		t.Errorf("%d keys are left: %v", keys(t, s), err)
	}
	exec(t, s, `UPDATE idempotency_keys SET created_at = created_at - interval '2 minutes'`)
	other := *r
	other.Body = []byte("another")
	begin(t, s, &other).Done(t.Context(), answer)
	refused(t, s, r, fault.Invalid, "used for another request")
	exec(t, s, `UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'`)
	exec(t, s, `INSERT INTO idempotency_keys (id, account_guid, created_at, request_id, began, sealed)
		SELECT 'old ' || i, account_guid, created_at, '', began, '' FROM idempotency_keys, generate_series(1, 12000) i`)
	if err := s.Idempotency.Sweep(t.Context()); err != nil || keys(t, s) != 0 {
		t.Errorf("%d keys are left: %v", keys(t, s), err)
	}
}

// An account has 10,000 keys, and answers of 64 MiB. The oldest make room, unless they are not an hour old.
func TestRoom(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "root")
	s.Admin(t, "other")
	r := newRequest(t, s)
	exec(t, s, `INSERT INTO idempotency_keys (id, account_guid, request_id, began, sealed)
		SELECT 'key ' || i, $1, '', now(), '' FROM generate_series(1, 10000) i`, r.Principal.GUID)
	refused(t, s, r, fault.TooMany, "10000 requests")
	other := newRequest(t, s)
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT guid FROM accounts WHERE username = 'other'`).
		Scan(&other.Principal.GUID); err != nil {
		t.Fatal(err)
	}
	begin(t, s, other).Failed(t.Context())
	exec(t, s, `UPDATE idempotency_keys SET created_at = now() - interval '61 minutes' WHERE id < 'key 5'`)
	begin(t, s, r)
	if n := keys(t, s); n != 9_501 {
		t.Errorf("there are %d keys", n)
	}
	exec(t, s, `DELETE FROM idempotency_keys`)
	exec(t, s, `ALTER TABLE idempotency_keys ALTER sealed SET STORAGE EXTERNAL`) // to compress them takes longest
	for range 8 {
		exec(t, s, `INSERT INTO idempotency_keys (id, account_guid, request_id, began, sealed)
			VALUES (gen_random_uuid()::text, $1, '', now(), $2)`, r.Principal.GUID, make([]byte, 8<<20))
	}
	refused(t, s, r, fault.TooMany, "64 MiB")
}

// A long answer is not kept. A repetition is told so.
func TestLongAnswer(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "root")
	r := newRequest(t, s)
	begin(t, s, r).Done(t.Context(), &idempotency.Answer{Status: 202, Body: make([]byte, 256<<10+1)})
	refused(t, s, r, fault.Exists, "the status 202 and 262145 bytes")
}

// While a request is carried out its claim goes on. When the claim is lost, the request ends before another one begins.
func TestHold(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	s.Idempotency.Claim = 2 * time.Second // of which a busy machine may take half
	r := newRequest(t, s)
	claim := begin(t, s, r)
	ctx, release := claim.Hold(t.Context())
	var passed bool
	for !passed { // more than twice the claim
		if err := s.DB.Pool.QueryRow(t.Context(), `SELECT claimed_until > created_at + interval '5 s' FROM idempotency_keys`).
			Scan(&passed); err != nil {
			t.Fatal(err)
		}
		refused(t, s, r, fault.Exists, "in progress")
		if err := context.Cause(ctx); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, s, `UPDATE idempotency_keys SET request_id = 'another'`)
	<-ctx.Done()
	release()
	claim.Done(t.Context(), answer)
	claim.Failed(t.Context())
	var owner string
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT request_id FROM idempotency_keys WHERE claimed_until IS NOT NULL`).
		Scan(&owner); err != nil || owner != "another" {
		t.Errorf("the claim is that of %q: %v", owner, err)
	}

	// It cannot be renewed.
	r = newRequest(t, s)
	claim = begin(t, s, r)
	ctx, release = claim.Hold(t.Context())
	defer release()
	exec(t, s, `ALTER TABLE idempotency_keys RENAME TO gone`)
	<-ctx.Done()
	exec(t, s, `ALTER TABLE gone RENAME TO idempotency_keys`)
	for { // the claim is over soon
		if again, _, err := s.Idempotency.Begin(t.Context(), r); err == nil {
			again.Done(t.Context(), answer)
			break
		}
	}
}
