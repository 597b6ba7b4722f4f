package control

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// Keyring holds the master keys that seal secrets at rest. The first seals; all open, so that a key can be replaced
// while secrets sealed by the previous one are still stored.
type Keyring struct {
	keys []masterKey
}

// Format implements fmt.Formatter: no key is printed by mistake.
func (*Keyring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

type masterKey struct {
	id  [keyIDSize]byte
	key []byte
}

const keyIDSize = 8

// NewMasterKey returns a fresh master key, 32 random bytes in base64.
func NewMasterKey() string {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKeyring reads master keys, one a line in base64, the sealing one first. Empty lines and lines that start with #
// are skipped. No error quotes a key.
func ParseKeyring(text string) (*Keyring, error) {
	ring := &Keyring{}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("line %d of the master key is not 32 bytes in base64; generate one with: openssl rand -base64 32",
				n+1)
		}
		sum := sha256.Sum256(key)
		ring.keys = append(ring.keys, masterKey{[keyIDSize]byte(sum[:keyIDSize]), key})
	}
	if len(ring.keys) == 0 {
		return nil, errors.New("the master key is empty; generate one with: openssl rand -base64 32")
	}
	return ring, nil
}

// sealVersion is the first byte of a sealed value: version, key id, nonce, XChaCha20-Poly1305 ciphertext. The nonce has
// 24 bytes, so it can be random for any number of values.
const sealVersion = 1

// Seal encrypts a secret for one place, for instance "clusters/<id>/credential". Only that place opens it again, so a
// value copied to another row is worthless.
func (k *Keyring) Seal(place string, secret []byte) []byte {
	key := k.keys[0]
	head := append([]byte{sealVersion}, key.id[:]...)
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce)
	aead, err := chacha20poly1305.NewX(key.key)
	if err != nil {
		panic(err) // only for a wrong key size, which ParseKeyring excludes
	}
	sealed := append(bytes.Clone(head), nonce...)
	return aead.Seal(sealed, nonce, secret, additional(head, place))
}

// Open decrypts what Seal made for the place. The error names the key that is missing.
func (k *Keyring) Open(place string, sealed []byte) ([]byte, error) {
	const headSize = 1 + keyIDSize
	if len(sealed) < headSize+chacha20poly1305.NonceSizeX || sealed[0] != sealVersion {
		return nil, fmt.Errorf("%s is not a sealed value", place)
	}
	head, rest := sealed[:headSize], sealed[headSize:]
	for _, key := range k.keys {
		if !bytes.Equal(key.id[:], head[1:]) {
			continue
		}
		aead, err := chacha20poly1305.NewX(key.key)
		if err != nil {
			return nil, err
		}
		nonce, ciphertext := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
		secret, err := aead.Open(nil, nonce, ciphertext, additional(head, place))
		if err != nil {
			return nil, fmt.Errorf("%s was altered, or moved from another place: it cannot be decrypted", place)
		}
		return secret, nil
	}
	return nil, fmt.Errorf("%s is encrypted with the master key %s, which is missing (present: %s): add it to the "+
		"master key file", place, hex.EncodeToString(head[1:]), k.ids())
}

func (k *Keyring) ids() string {
	ids := make([]string, len(k.keys))
	for i, key := range k.keys {
		ids[i] = hex.EncodeToString(key.id[:])
	}
	return strings.Join(ids, ", ")
}

func additional(head []byte, place string) []byte {
	return append(bytes.Clone(head), place...)
}
