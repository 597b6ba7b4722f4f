package identity_test

import (
	"testing"
	"time"

	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// BenchmarkSignIn takes a bearer token that was verified within the last seconds, as nearly every request has one.
func BenchmarkSignIn(b *testing.B) {
	s, token := tokenFor(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Identity.Authenticate(b.Context(), identity.ParseCredential("Bearer "+token), "192.0.2.1"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify verifies the signature of a token and looks its account up.
func BenchmarkVerify(b *testing.B) {
	s, token := tokenFor(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Identity.VerifyToken(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func tokenFor(b *testing.B) (*servicetest.Service, string) {
	b.Helper()
	s := servicetest.Shared(b)
	username := unique("bench")
	s.Admin(b, username)
	token, err := s.Identity.MintFor(b.Context(), username, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	return s, token
}
