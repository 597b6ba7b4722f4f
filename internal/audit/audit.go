// Package audit records who tried what, and what came of it. An attempt is committed before anything is done, its
// outcome after; rows are only ever added. What is recorded never holds a password or a token.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/batch"
	"rolecall/internal/control"
	"rolecall/internal/failpoint"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// The actions that are recorded.
const (
	CreateUser      = "user.create"
	ChangePassword  = "user.password"
	ChangeLimits    = "user.limits"
	ChangeRoles     = "user.roles"
	DeleteUser      = "user.delete"
	ReadVerifiers   = "user.verifiers" // of all users of a cluster
	CreateDatabase  = "database.create"
	DeleteDatabase  = "database.delete"
	CreateAccount   = "account.create"
	ResetAccount    = "account.reset"
	UpdateAccount   = "account.update"
	DeleteAccount   = "account.delete"
	ChangeSecret    = "account.password" // of a person, or the secret of a program
	GrantScope      = "account.grant"
	RevokeScope     = "account.revoke"
	RevokeTokens    = "account.tokens"
	CreateToken     = "token.create" // a personal access token
	RevokeToken     = "token.revoke"
	RegisterCluster = "cluster.register"
	UpdateCluster   = "cluster.update"
	RemoveCluster   = "cluster.remove"
	RotateCluster   = "cluster.rotate"
	MakeSigningKey  = "key.create"
	RetireKey       = "key.retire"
	RotateKeys      = "keys.rotate" // all secrets are sealed with the first master key
	Restore         = "control.restore"
)

// Actors stand in rows of the log in the place of an account's guid. No account gets one: it would be shown their rows.
const (
	ActorRolecall  = "rolecall"  // the service, of its own accord
	ActorBootstrap = "bootstrap" // someone with access to the control database
	ActorRestored  = "restored"
	ActorUnknown   = "unknown" // of a failed sign-in
)

// IsActor reports whether a guid is that of no account, in whatever case.
func IsActor(guid string) bool {
	return slices.ContainsFunc([]string{ActorRolecall, ActorBootstrap, ActorRestored, ActorUnknown}, func(actor string) bool {
		return strings.EqualFold(guid, actor)
	})
}

// Outcome is what came of an attempt.
type Outcome string

// The outcomes. Unknown means that the truth can no longer be read from the cluster.
const (
	Done    Outcome = "done"
	NotDone Outcome = "not_done"
	Unknown Outcome = "unknown"
	Denied  Outcome = "denied"
)

// Outcomes lists the outcomes.
var Outcomes = []Outcome{Done, NotDone, Unknown, Denied}

// Entry says who does what to what.
type Entry struct {
	Action                   string
	AccountGUID, AccountName string
	Token                    uuid.UUID // the personal access token that it is done with, which goes into the detail; zero: none
	Cluster                  uuid.UUID // zero: no cluster is concerned
	Target                   string    // database user, database or account
	RequestID, Address       string
	Detail                   any // what else the log keeps, a struct or a map that becomes a JSON object; nil: nothing
}

// Attempt is a recorded intention. Its id goes with the change itself, as proof that it was done.
type Attempt struct {
	ID uuid.UUID
	Entry
	Time time.Time
	// Stored is Entry.Detail as the log has it. Only attempts that the settler reads have it.
	Stored json.RawMessage

	row int64 // in the table, for the settler
}

// Result is what became of an attempt.
type Result struct {
	Outcome Outcome
	// Previous is the attempt that changed the same user before this one, as its role said under the role's lock; zero: none,
	// or not known. So the changes of a user form a history, which tells what became of an attempt without an outcome. It is
	// stored in the detail, which the chain seals.
	Previous uuid.UUID
	Detail   any
}

// Log is the audit log in the control database.
type Log struct {
	DB *control.DB

	once      sync.Once
	rows      *batch.Group[[]any, struct{}] // made at first use
	retry     time.Duration                 // of Run, if it could not seal; 0: sealRetry
	verifying sync.Mutex
	mu        sync.Mutex
	head      Point         // as Run has last seen it
	moved     chan struct{} // for Wait: closed and replaced when head moves; nil until a call waits
}

// insertRow takes a second row of the same phase for the first: an outcome that the settler was quicker with.
const insertRow = `
	INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name, cluster_id, target, request_id, address,
	  detail, settle_after)
	VALUES ($1, $2, $3, nullif($4, ''), $5, $6, $7, $8, $9, $10, $11, clock_timestamp() + $12)
	ON CONFLICT (attempt, phase) DO NOTHING`

// write commits a row, together with those of other requests that come while one is being committed.
func (l *Log) write(ctx context.Context, row []any) error {
	l.once.Do(func() {
		l.rows = &batch.Group[[]any, struct{}]{
			Parallel: 2,
			Longest:  64,
			Timeout:  10 * time.Second,
			SplitOn:  func(err error) bool { return sqlstate.Code(err) != "" && !sqlstate.Away(err) },
		}
	})
	_, err := l.rows.Do(ctx, row, func(ctx context.Context, rows [][]any) ([]struct{}, error) {
		err := l.insert(ctx, rows)
		if sqlstate.Lost(err) && ctx.Err() == nil {
			// The rows may be there or not, and insert ignores those that are. The idle connections are as dead as this one.
			l.DB.Pool.Reset()
			err = l.insert(ctx, rows)
		}
		return make([]struct{}, len(rows)), err
	})
	return err
}

// insert commits the rows in one transaction.
func (l *Log) insert(ctx context.Context, rows [][]any) error {
	batch := &pgx.Batch{}
	for _, row := range rows {
		batch.Queue(insertRow, row...)
	}
	return l.DB.Pool.SendBatch(ctx, batch).Close()
}

func arguments(id uuid.UUID, phase string, e Entry, r Result, settleAfter *time.Duration) []any {
	var cluster *uuid.UUID
	if e.Cluster != uuid.Nil {
		cluster = &e.Cluster
	}
	return []any{id, phase, e.Action, string(r.Outcome), e.AccountGUID, short(e.AccountName), cluster, short(e.Target),
		e.RequestID, e.Address, stored(e, r), settleAfter}
}

// outcomeRow is the arguments of an outcome without an attempt before it.
func outcomeRow(e Entry, outcome Outcome) []any {
	return arguments(uuid.Must(uuid.NewV7()), "outcome", e, Result{Outcome: outcome, Detail: e.Detail}, nil)
}

// stored is the detail of a row, with what every row may have. One that cannot be encoded makes the statement fail.
func stored(e Entry, r Result) any {
	var common struct {
		Token    uuid.UUID `json:"token,omitzero"`
		Previous uuid.UUID `json:"previous,omitzero"`
	}
	common.Token, common.Previous = e.Token, r.Previous
	detail, err := json.Marshal(r.Detail)
	if err != nil {
		return r.Detail
	}
	shared, _ := json.Marshal(common) // ids only
	switch {
	case string(detail) == "null" || string(detail) == "{}":
		detail = shared
	case string(shared) != "{}": // one object of the two
		detail = append(append(detail[:len(detail)-1], ','), shared[1:]...)
	}
	if r.Outcome != Done {
		return bounded(detail)
	}
	return json.RawMessage(detail)
}

// short cuts what a denied request may have made as long as it liked; the column is indexed, and an index has its limits.
// What PostgreSQL does not store is replaced.
func short(s string) string {
	const longest = 255
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}

// longDetail is the size in bytes from which on a detail is cut, and mostDetail how many elements of each list are left.
const (
	longDetail = 8 << 10
	mostDetail = 100
)

// bounded is the detail of something that is not done, or not yet: rows are for good, and it may be as long as a request.
func bounded(detail json.RawMessage) any {
	if len(detail) <= longDetail {
		return detail
	}
	var plain any
	_ = json.Unmarshal(detail, &plain) // it was encoded a moment ago
	return cut(plain)
}

// cut shortens the texts, lists and objects in v, and says how much of them is missing.
func cut(v any) any {
	switch v := v.(type) {
	case string:
		return short(v)
	case []any:
		kept := []any{}
		for _, element := range v[:min(len(v), mostDetail)] {
			kept = append(kept, cut(element))
		}
		if more := len(v) - mostDetail; more > 0 {
			kept = append(kept, fmt.Sprintf("… and %d more", more))
		}
		return kept
	case map[string]any:
		kept := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(v))[:min(len(v), mostDetail)] {
			kept[short(key)] = cut(v[key])
		}
		if more := len(v) - mostDetail; more > 0 {
			kept["…"] = fmt.Sprintf("and %d more", more)
		}
		return kept
	}
	return v
}

// beginTimeout is how long an attempt waits to be recorded, behind others too.
const beginTimeout = 8 * time.Second

// Begin commits an attempt. What cannot be recorded must not be done: the caller stops on an error. An attempt whose
// outcome is still missing after the limit is left to the settler.
func (l *Log) Begin(ctx context.Context, e Entry, limit time.Duration) (*Attempt, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	limit = failpoint.Soon(limit)
	ctx, cancel := context.WithTimeout(ctx, beginTimeout)
	defer cancel()
	if err := l.write(ctx, arguments(id, "attempt", e, Result{Detail: e.Detail}, &limit)); err != nil {
		return nil, fault.New(fault.Unavailable, "The audit log cannot be written, so nothing was done.").AsOutage().
			After(5 * time.Second).Because(err)
	}
	return &Attempt{ID: id, Entry: e}, nil
}

// End adds the outcome of an attempt, once: a second outcome is ignored.
func (l *Log) End(ctx context.Context, a *Attempt, r Result) error {
	return control.Fault(l.write(ctx, arguments(a.ID, "outcome", a.Entry, r, nil)))
}

// MaxRefusals is how many refusals of an account are recorded in a minute. They show what it is after; what comes on top
// would only fill the log, which is for good.
const MaxRefusals = 60

// Refuse records what was never attempted, because the principal may not do it, and returns the answer: why, or TooMany when
// the account has been refused too often to record it once more. That it could not be recorded is for the log; the answer
// stays no.
func (l *Log) Refuse(ctx context.Context, e Entry, why error) error {
	err := l.DB.Tx(ctx, func(tx pgx.Tx) error {
		var count int
		var left time.Duration
		err := tx.QueryRow(ctx, `
			INSERT INTO refusals AS r VALUES ($1, date_trunc('minute', clock_timestamp()), 1)
			ON CONFLICT (account) DO UPDATE SET minute = excluded.minute,
			  count = CASE WHEN r.minute = excluded.minute THEN r.count + 1 ELSE 1 END
			RETURNING count, minute + interval '1 minute' - clock_timestamp()`, e.AccountGUID).Scan(&count, &left)
		if err != nil {
			return err
		}
		if count > MaxRefusals {
			return fault.New(fault.TooMany, "You were refused %d times within a minute. Send fewer such requests, or ask an admin "+
				"for the right.", MaxRefusals).After(left).Because(why)
		}
		_, err = tx.Exec(ctx, insertRow, outcomeRow(e, Denied)...)
		return err
	})
	if fault.Is(err, fault.TooMany) {
		return err
	}
	return errors.Join(why, err)
}

// Record writes a change of the control database in the transaction that makes it.
func Record(ctx context.Context, tx pgx.Tx, e Entry) error {
	_, err := tx.Exec(ctx, insertRow, outcomeRow(e, Done)...)
	return err
}

// Queue adds the row to a batch that makes the change, as Record does to a transaction.
func Queue(batch *pgx.Batch, e Entry) {
	batch.Queue(insertRow, outcomeRow(e, Done)...)
}

// Missing returns those of the attempts, given by their ids of version 7, that the log does not have. What is older than
// the rows that the retention has left is not missing.
func (l *Log) Missing(ctx context.Context, attempts []uuid.UUID) ([]uuid.UUID, error) {
	// Replicas' clocks, which ids are made of, differ a little from the one of the control database.
	const skew = time.Minute
	var missing []uuid.UUID
	var from *time.Time
	err := l.DB.Pool.QueryRow(ctx, `
		SELECT ARRAY(SELECT a.id FROM unnest($1::uuid[]) a(id) WHERE NOT EXISTS (SELECT FROM audit WHERE attempt = a.id)),
		       (SELECT coalesce((SELECT time FROM audit_seals ORDER BY seq LIMIT 1), c.time) FROM audit_checkpoint
		         c)`, attempts).Scan(&missing, &from)
	if err != nil {
		return nil, control.Fault(err)
	}
	if from != nil {
		missing = slices.DeleteFunc(missing, func(id uuid.UUID) bool {
			return time.Unix(id.Time().UnixTime()).Before(from.Add(skew))
		})
	}
	return missing, nil
}

// FailedSignIn counts a failed sign-in of an account's guid, or of ActorUnknown.
func (l *Log) FailedSignIn(ctx context.Context, accountGUID, address string) error {
	_, err := l.DB.Pool.Exec(ctx, `
		INSERT INTO failed_sign_ins VALUES ($1, $2, date_trunc('minute', now()), 1)
		ON CONFLICT (minute, account, address) DO UPDATE SET count = failed_sign_ins.count + 1`, accountGUID, address)
	return control.Fault(err)
}
