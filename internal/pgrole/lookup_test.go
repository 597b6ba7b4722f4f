package pgrole_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// Many reads at once are answered by few queries, each with its own user.
func TestLookupsTogether(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "lookups_0", "lookups_1", "lookups_2")
	before := s.Pool.Stat().AcquireCount()
	const n = 200
	for i, err := range together(n, func(i int) error {
		name := fmt.Sprintf("lookups_%d", i%4)
		u, err := s.User(t.Context(), name)
		if i%4 == 3 {
			if !fault.Is(err, fault.NotFound) {
				return fmt.Errorf("%s: %v, %v", name, u, err)
			}
			return nil
		}
		if err == nil && u.Name != name {
			return fmt.Errorf("%s: got %s", name, u.Name)
		}
		return err
	}) {
		if err != nil {
			t.Errorf("read %d: %v", i, err)
		}
	}
	if queries := s.Pool.Stat().AcquireCount() - before; queries >= n {
		t.Errorf("%d reads took %d queries", n, queries)
	}
}

// A read that is given up neither waits nor takes the others with it.
func TestLookupGivenUp(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "lookup_given_up")
	given, cancel := context.WithCancel(t.Context())
	cancel()
	for i, err := range together(40, func(i int) error {
		if i%2 == 0 {
			_, err := s.User(given, "lookup_given_up")
			if err == nil || fault.Is(err, fault.Unavailable) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		_, err := s.User(t.Context(), "lookup_given_up")
		return err
	}) {
		if err != nil {
			t.Errorf("read %d: %v", i, err)
		}
	}
}

// A list of names may hold some that no role can have. They are found as little as others that are not there.
func TestUsersNamedUnusable(t *testing.T) {
	t.Parallel()
	s := superuser(t, pgtest.Shared(t))
	mustCreate(t, s, "named_0")
	names := []string{"named_0", "", "nul\x00", strings.Repeat("n", pgrole.MaxName+1), "named_1",
		strings.Repeat("é", pgrole.MaxName)}
	users, err := s.UsersNamed(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range users {
		if (u != nil) != (i == 0) {
			t.Errorf("%q: %+v", names[i], u)
		}
	}
	if users, err = s.UsersNamed(t.Context(), names[1:4]); err != nil || len(users) != 3 {
		t.Errorf("names that no role can have: %v, %v", users, err)
	}
}
