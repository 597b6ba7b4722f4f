// Package idempotency makes a request that has an Idempotency-Key once, however often it comes, on whichever replica. The
// control database keeps what the request is and its answer, encrypted. An interrupted request is carried out again only if
// the audit log has no trace of it.
package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/failpoint"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// The limits of what is kept.
const (
	// keptFor is how long a key and its answer are kept, unless the account has too many: then keptAtLeast.
	keptFor, keptAtLeast = 24 * time.Hour, time.Hour
	// mostKeys and mostBytes are what one account has at a time.
	mostKeys, mostBytes = 10_000, 64 << 20
	// evicted is how many of the oldest make room at a time.
	evicted = 500
	// longestAnswer is the most bytes of a body that is kept.
	longestAnswer = 256 << 10
	// deletedAtOnce is how many keys one statement deletes.
	deletedAtOnce = 5_000
)

const (
	// claimTime is the default of Store.Claim.
	claimTime = 30 * time.Second
	// storeTimeout ends a statement that stores what came of a request.
	storeTimeout = 5 * time.Second
)

// Store keeps the keys.
type Store struct {
	DB       *control.DB
	Accounts *account.Store
	Log      *slog.Logger
	// Claim is how long others wait for a replica that was killed while it carried a request out; 0: 30 seconds.
	Claim time.Duration
}

// Request is a request with a key.
type Request struct {
	Principal           *account.Principal
	Key                 string
	Method, Path, Query string
	Body                []byte
}

// id is the key's row. It is a hash, so nobody reads the keys, and those of two accounts never meet.
func (r *Request) id() string {
	sum := sha256.Sum256(joined(r.Principal.GUID, r.Key))
	return hex.EncodeToString(sum[:])
}

// digest sets the request apart from others. It is stored encrypted only: who can guess a password finds it by its hash.
func (r *Request) digest() []byte {
	sum := sha256.Sum256(joined(r.Method, r.Path, r.Query, string(r.Body)))
	return sum[:]
}

// joined joins texts so that no others give the same.
func joined(texts ...string) (b []byte) {
	for _, text := range texts {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(text))), text...)
	}
	return b
}

// Answer is what a request was answered with.
type Answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// record is what is stored of a request, encrypted.
type record struct {
	Digest []byte  `json:"digest"`
	Rights rights  `json:"rights"`
	Answer *Answer `json:"answer,omitempty"` // nil: there is none
	// TooLong is the length of a body that was not kept.
	TooLong int `json:"tooLong,omitempty"`
}

// rights are those of a credential. An answer may hold a password, so it is not repeated for a credential with fewer rights.
type rights struct {
	Scopes        []string    `json:"scopes"`
	Clusters      []uuid.UUID `json:"clusters"` // nil: no limit
	ClusterScopes []string    `json:"clusterScopes"`
	// Token says that it is a personal access token, which may do less to identities than a sign-in with the same scopes.
	Token bool `json:"token"`
}

func rightsOf(p *account.Principal) rights {
	return rights{p.Scopes, p.Clusters, p.ClusterScopes, p.Token != uuid.Nil}
}

// covers reports whether r includes all of the other rights.
func (r rights) covers(other rights) bool {
	onClusters := slices.Concat(r.Scopes, r.ClusterScopes)
	return (!r.Token || other.Token) && all(other.Scopes, r.Scopes) && all(other.ClusterScopes, onClusters) &&
		(r.Clusters == nil || other.Clusters != nil && all(other.Clusters, r.Clusters))
}

// all reports whether each element is in the list.
func all[T comparable](elements, list []T) bool {
	return !slices.ContainsFunc(elements, func(e T) bool { return !slices.Contains(list, e) })
}

// Claim is the right to carry a request out. It ends with Done or Failed.
type Claim struct {
	store *Store
	id    string
	by    *account.Principal
	began time.Time
	kept  record
}

// Begin returns a claim if the request is to be carried out, or else its answer.
func (s *Store) Begin(ctx context.Context, r *Request) (*Claim, *Answer, error) {
	c := &Claim{store: s, id: r.id(), by: r.Principal, began: time.Now(),
		kept: record{Digest: r.digest(), Rights: rightsOf(r.Principal)}}
	for range 3 { // a key that is there may be gone a moment later
		made, err := c.insert(ctx)
		if err != nil {
			return nil, nil, err
		}
		if made {
			return c, nil, nil
		}
		answer, found, err := c.repeat(ctx)
		if err != nil {
			return nil, nil, err
		}
		if answer != nil {
			return nil, answer, nil
		}
		if found {
			return c, nil, nil
		}
		if err := s.makeRoom(ctx, r.Principal.GUID); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errInProgress
}

// claim is how long a claim is valid unless it is renewed.
func (s *Store) claim() time.Duration { return cmp.Or(s.Claim, claimTime) }

// claimed is claim as it is stored.
func (s *Store) claimed() time.Duration { return failpoint.Soon(s.claim()) }

func place(id string) string { return "idempotency_keys/" + id + "/sealed" }

func (c *Claim) seal() []byte {
	plain, err := json.Marshal(c.kept)
	if err != nil {
		panic(err) // texts and bytes only
	}
	return c.store.DB.Keys.Seal(place(c.id), plain)
}

// fits is a condition: an account, $2, may have one more key.
const fits = `(
	SELECT count(*) < $6 AND coalesce(sum(octet_length(sealed)), 0) < $7 FROM idempotency_keys WHERE account_guid = $2)`

// insert claims a key that is not there. Without an error, made is false if it is there, or if there is no room.
func (c *Claim) insert(ctx context.Context) (made bool, err error) {
	tag, err := c.store.DB.Pool.Exec(ctx, `
		INSERT INTO idempotency_keys (id, account_guid, request_id, began, claimed_until, sealed)
		SELECT $1, $2, $3, $4, clock_timestamp() + $5::interval, $8 WHERE `+fits+`
		ON CONFLICT (id) DO NOTHING`,
		c.id, c.by.GUID, c.by.RequestID, c.began, c.store.claimed(), mostKeys, mostBytes, c.seal())
	if sqlstate.Is(err, sqlstate.ForeignKeyViolation) {
		return false, fault.New(fault.Forbidden, "Your account was deleted.").Because(err)
	}
	return tag.RowsAffected() > 0, control.Fault(err)
}

// repeat finds the key's answer, or takes the claim over. Without an answer and an error, found is false if the key is not
// there.
func (c *Claim) repeat(ctx context.Context) (answer *Answer, found bool, err error) {
	err = c.store.DB.Tx(ctx, func(tx pgx.Tx) error {
		var first string
		var began time.Time
		var held, old bool
		var sealed []byte
		err := tx.QueryRow(ctx, `
			SELECT request_id, began, coalesce(claimed_until > clock_timestamp(), false),
			  created_at < clock_timestamp() - $2::interval, sealed
			FROM idempotency_keys WHERE id = $1 FOR UPDATE`, c.id, keptFor).Scan(&first, &began, &held, &old, &sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		found = true
		if !old {
			if answer, err = c.known(ctx, tx, first, began, held, sealed); err != nil || answer != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			UPDATE idempotency_keys SET request_id = $2, began = $3, claimed_until = clock_timestamp() + $4::interval,
			  sealed = $5, created_at = clock_timestamp()
			WHERE id = $1`, c.id, c.by.RequestID, c.began, c.store.claimed(), c.seal())
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return answer, found, nil
}

// known is the answer to a request whose key was used. Without an answer and an error, nothing came of the first request.
func (c *Claim) known(ctx context.Context, tx pgx.Tx, first string, began time.Time, held bool, sealed []byte) (*Answer,
	error) {
	plain, err := c.store.DB.Keys.Open(place(c.id), sealed)
	if err != nil {
		return nil, err
	}
	var kept record
	if err := json.Unmarshal(plain, &kept); err != nil {
		return nil, err
	}
	switch {
	case subtle.ConstantTimeCompare(kept.Digest, c.kept.Digest) == 0:
		return nil, errOtherRequest
	case held:
		return nil, errInProgress
	case kept.Answer == nil:
		return nil, c.trace(ctx, tx, first, began)
	case !c.kept.Rights.covers(kept.Rights):
		return nil, errFewerRights
	case kept.TooLong > 0:
		return nil, fault.New(fault.Exists, "The request with this Idempotency-Key was carried out, and answered with the "+
			"status %d and %d bytes, too many to be kept. Look up what it has made.", kept.Answer.Status, kept.TooLong)
	}
	// The credential was verified some seconds ago.
	return kept.Answer, c.store.Accounts.CheckActive(ctx, tx, c.by)
}

// trace returns why an interrupted request is not carried out again; nil: it changed nothing.
func (c *Claim) trace(ctx context.Context, q control.Querier, request string, began time.Time) error {
	outcome, pending, err := c.store.Accounts.Audit.Trace(ctx, q, c.by.GUID, request, began)
	switch {
	case err != nil:
		return err
	case pending:
		return errUndecided
	case outcome == audit.Done:
		return fault.New(fault.Exists, "The request with this Idempotency-Key has made a change, but was interrupted, and its "+
			"answer is lost. Look up what is there; the audit log has the change under the request id %s. Send what is missing "+
			"with a new key. If a password was generated, it cannot be shown: generate another one.", request)
	case outcome == audit.Unknown:
		return fault.New(fault.Exists, "The request with this Idempotency-Key was interrupted, and whether it has made its "+
			"change can no longer be read from the cluster. Look up what is there; the audit log has the attempt under the request "+
			"id %s. Send what is missing with a new key.", request)
	}
	return nil
}

var (
	errOtherRequest = fault.New(fault.Invalid, "This Idempotency-Key was used for another request. A repetition has the same "+
		"method, path, query and body; any other request needs a new key.")
	errInProgress = fault.New(fault.Exists, "A request with this Idempotency-Key is in progress. Send the same request again "+
		"to get its answer.").After(2 * time.Second)
	errUndecided = fault.New(fault.Exists, "The request with this Idempotency-Key was interrupted. Rolecall is finding out "+
		"whether it has made its change. Send the same request again to learn it.").After(5 * time.Second)
	errFewerRights = fault.New(fault.Forbidden, "The request with this Idempotency-Key was carried out with a credential that "+
		"has more rights. Repeat it with such a credential.")
	errClaimLost = errors.New("the claim of an Idempotency-Key could not be renewed")
)

// makeRoom removes the oldest keys of an account that has as many as it may.
func (s *Store) makeRoom(ctx context.Context, account string) error {
	var full bool
	var removed int
	err := s.DB.Pool.QueryRow(ctx, `
		WITH had AS (
		  SELECT count(*) AS keys, coalesce(sum(octet_length(sealed)), 0) AS bytes FROM idempotency_keys WHERE account_guid = $1),
		removed AS (
		  DELETE FROM idempotency_keys WHERE id IN (
		    SELECT id FROM idempotency_keys, had
		    WHERE account_guid = $1 AND created_at < clock_timestamp() - $2::interval AND (keys >= $3 OR bytes >= $4)
		    ORDER BY created_at LIMIT $5 FOR UPDATE OF idempotency_keys SKIP LOCKED)
		  RETURNING 1)
		SELECT keys >= $3 OR bytes >= $4, (SELECT count(*) FROM removed) FROM had`,
		account, keptAtLeast, mostKeys, mostBytes, evicted).Scan(&full, &removed)
	if err != nil {
		return control.Fault(err)
	}
	if full && removed == 0 {
		return fault.New(fault.TooMany, "Your account has sent %d requests with an Idempotency-Key, or answers of %d MiB, within "+
			"an hour. Send fewer, or send them without a key.", mostKeys, mostBytes>>20).After(time.Minute)
	}
	return nil
}

// Hold renews the claim until the returned function is called. The returned context ends if that fails for two thirds of the
// time, so that nothing is begun that another replica may have begun. The last third is for a statement in progress.
func (c *Claim) Hold(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopAfter := c.store.claim() * 2 / 3
	stop := time.AfterFunc(stopAfter, func() { cancel(errClaimLost) })
	go func() {
		tick := time.NewTicker(c.store.claim() / 4)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			asked := time.Now()
			if held, err := c.renew(ctx); err == nil && held && stop.Stop() {
				stop.Reset(stopAfter - time.Since(asked))
			} else if err == nil && !held {
				cancel(errClaimLost)
			}
		}
	}()
	return ctx, func() { stop.Stop(); cancel(nil) }
}

// renew keeps the claim from now on; held is false if it has ended.
func (c *Claim) renew(ctx context.Context) (held bool, err error) {
	tag, err := c.store.DB.Pool.Exec(ctx, `
		UPDATE idempotency_keys SET claimed_until = clock_timestamp() + $3::interval
		WHERE id = $1 AND request_id = $2 AND claimed_until IS NOT NULL`, c.id, c.by.RequestID, c.store.claimed())
	return tag.RowsAffected() > 0, err
}

// Done keeps the answer. One that cannot be kept is lost for repetitions, which are told so.
func (c *Claim) Done(ctx context.Context, a *Answer) {
	c.kept.Answer = a
	if len(a.Body) > longestAnswer {
		c.kept.TooLong, c.kept.Answer = len(a.Body), &Answer{Status: a.Status}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	_, err := c.store.DB.Pool.Exec(ctx, `
		UPDATE idempotency_keys SET sealed = $3, claimed_until = NULL WHERE id = $1 AND request_id = $2`,
		c.id, c.by.RequestID, c.seal())
	if err != nil {
		c.store.Log.Warn("an answer could not be kept for its Idempotency-Key", "request", c.by.RequestID, "error", err)
	}
}

// Failed ends the claim of a request that was refused, or whose outcome is not known. If it has changed nothing, the key can
// be used again, also for another request.
func (c *Claim) Failed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	s := c.store
	end := `DELETE FROM idempotency_keys WHERE id = $1 AND request_id = $2`
	err := c.trace(ctx, s.DB.Pool, c.by.RequestID, c.began)
	if fault.Is(err, fault.Exists) {
		end = `UPDATE idempotency_keys SET claimed_until = NULL WHERE id = $1 AND request_id = $2`
		err = nil
	}
	if err == nil {
		_, err = s.DB.Pool.Exec(ctx, end, c.id, c.by.RequestID)
	}
	if err != nil { // the claim ends by itself
		s.Log.Warn("an Idempotency-Key could not be released", "request", c.by.RequestID, "error", err)
	}
}

// Run deletes old keys, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("old Idempotency-Keys could not be deleted; this is repeated", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Sweep deletes the keys that are older than keptFor.
func (s *Store) Sweep(ctx context.Context) error {
	for {
		tag, err := s.DB.Pool.Exec(ctx, `
			DELETE FROM idempotency_keys WHERE id IN (
			  SELECT id FROM idempotency_keys WHERE created_at < clock_timestamp() - $1::interval
			  ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, keptFor, deletedAtOnce)
		if err != nil || tag.RowsAffected() < deletedAtOnce {
			return control.Fault(err)
		}
	}
}
