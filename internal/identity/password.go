package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"rolecall/internal/fault"
)

// PasswordCost is what argon2id spends on one account password. The zero value is the cost in production; tests that do
// not measure it choose less.
type PasswordCost struct {
	Memory uint32 // KiB
	Passes uint32
}

// productionCost is OWASP's first recommendation, with one lane: about 30 ms of one core.
// https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
var productionCost = PasswordCost{Memory: 19 << 10, Passes: 2}

const (
	argonLanes = 1
	argonKey   = 32
	argonSalt  = 16
)

// derive is a variable for the test that counts how often a sign-in costs it.
var derive = argon2.IDKey

// The shortest and longest new password of an account, or secret of an OAuth client, in characters. Shorter ones that
// exist still sign in.
const (
	MinPassword = 10
	MaxPassword = 255
)

// CheckPassword refuses what no account gets as a new password. HTTP Basic has no control characters (RFC 7617, 2).
func CheckPassword(password string) error {
	n := utf8.RuneCountInString(password)
	switch {
	case n < MinPassword || n > MaxPassword:
		return fault.New(fault.Invalid, "A password has %d to %d characters, this one %d.", MinPassword, MaxPassword, n)
	case !utf8.ValidString(password):
		return fault.New(fault.Invalid, "A password must be valid UTF-8.")
	case strings.ContainsFunc(password, unicode.IsControl):
		return fault.New(fault.Invalid, "A password must not contain control characters.")
	}
	return nil
}

// hasher computes argon2id, two at a time and never on all cores, so that sign-ins can take neither all memory nor all of
// the processor. Sign-ins wait in two queues: accounts that have signed in from this address before, and all others. Of the
// others no more than can work at once wait where both queues meet, so a flood of guesses delays no known account.
type hasher struct {
	cost             PasswordCost
	nobody           string // a hash that no password has: an unknown account is checked against it, and takes as long
	known, strangers *queue
}

// queue is where sign-ins wait: a bounded number, for a slot at each of the gates.
type queue struct {
	slots chan struct{}
	gates []chan struct{}
}

func newHasher(cost PasswordCost) *hasher {
	if cost == (PasswordCost{}) {
		cost = productionCost
	}
	atOnce := min(2, max(1, runtime.GOMAXPROCS(0)-1))
	last := make(chan struct{}, atOnce)
	return &hasher{
		cost:      cost,
		nobody:    cost.format(make([]byte, argonSalt), make([]byte, argonKey)),
		known:     &queue{make(chan struct{}, hashQueue), []chan struct{}{last}},
		strangers: &queue{make(chan struct{}, hashQueue), []chan struct{}{make(chan struct{}, atOnce), last}},
	}
}

// maxHashWait is how long a sign-in waits before it is refused, and hashQueue how many wait in a queue: one core computes
// that many hashes in about that time.
const (
	maxHashWait = 5 * time.Second
	hashQueue   = 128
)

var errCrowded = fault.New(fault.Unavailable, "Too many concurrent sign-ins.").After(time.Second)

// join takes a slot in the queue, or is refused at once.
func (q *queue) join() (leave func(), err error) {
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots }, nil
	default:
		return nil, errCrowded
	}
}

// wait runs f once the gates are free, for a sign-in that has joined the queue.
func (q *queue) wait(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, maxHashWait)
	defer cancel()
	for _, gate := range q.gates {
		select {
		case gate <- struct{}{}:
			defer func() { <-gate }()
		case <-ctx.Done():
			return errCrowded.Because(ctx.Err())
		}
	}
	return f()
}

// hash returns the PHC form of a new argon2id hash, with a random salt.
func (h *hasher) hash(ctx context.Context, password string) (phc string, err error) {
	leave, err := h.known.join()
	if err != nil {
		return "", err
	}
	defer leave()
	err = h.known.wait(ctx, func() error {
		salt := make([]byte, argonSalt)
		_, _ = rand.Read(salt) // never fails since Go 1.24
		phc = h.cost.format(salt, derive([]byte(password), salt, h.cost.Passes, h.cost.Memory, argonLanes, argonKey))
		return nil
	})
	return phc, err
}

// format returns the PHC form of a hash.
func (c PasswordCost) format(salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Passes, argonLanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// matches reports whether the password has the hash. It always computes one argon2id, and belongs into a queue.
func (h *hasher) matches(phc, password string) (bool, error) {
	if phc == "" {
		phc = h.nobody
	}
	var version, memory, passes, lanes int
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("a stored password hash is not argon2id")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &lanes); err != nil ||
		version != argon2.Version {
		return false, errors.New("the parameters of a stored password hash cannot be read")
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2); err != nil {
		return false, errors.New("a stored password hash cannot be decoded")
	}
	got := derive([]byte(password), salt, uint32(passes), uint32(memory), uint8(lanes), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && phc != h.nobody, nil
}
