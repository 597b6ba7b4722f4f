package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"

	"rolecall/internal/secret"
)

// The key of a credential is the same each time and no other credential's, also where scheme and value run into each other.
// It needs the secret of the process, and no memory.
func TestCredentialKey(t *testing.T) {
	s, other := &Service{}, &Service{}
	_, _ = rand.Read(s.cacheSecret[:])
	_, _ = rand.Read(other.cacheSecret[:])
	keys := map[credentialKey]Credential{{}: {}}
	for _, scheme := range []Scheme{"", "basi", Basic, Bearer, Session} {
		for _, value := range []secret.Text{"", "x", "cx", "\x00x", "c\x00x", "x\x00", secret.Text(strings.Repeat("x", 900)),
			secret.Text(strings.Repeat("x", 901)), secret.Text(strings.Repeat("x", 32<<10))} {
			c := Credential{Scheme: scheme, Value: value}
			key := s.cacheKey(c)
			if same, ok := keys[key]; ok {
				t.Errorf("%q %.9q has the key of %q %.9q", c.Scheme, string(c.Value), same.Scheme, string(same.Value))
			}
			keys[key] = c
			if with := s.WithKey(c); with.key != key || s.cacheKey(with) != key || with.Scheme != c.Scheme || with.Value != c.Value {
				t.Errorf("%q %.9q has another key each time", c.Scheme, string(c.Value))
			}
			if other.cacheKey(c) == key || sha256.Sum256([]byte(c.Value)) == key {
				t.Errorf("the key of %q %.9q does not depend on the secret", c.Scheme, string(c.Value))
			}
		}
	}
	c := Credential{Scheme: Bearer, Value: secret.Text(strings.Repeat("x", 900))}
	if n := testing.AllocsPerRun(10, func() { c.key = credentialKey{}; c = s.WithKey(c) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
