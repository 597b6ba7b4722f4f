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
	"sync/atomic"
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
	ChangeAccess    = "user.access" // its level in a database
	DisableUser     = "user.disable"
	EnableUser      = "user.enable"
	DeleteUser      = "user.delete"
	ReadVerifiers   = "user.verifiers" // of all users of a cluster
	ChangedOutside  = "user.password_changed_outside"
	CreateLease     = "lease.create"
	RenewLease      = "lease.renew"
	EndLease        = "lease.end"
	PutCredential   = "credential.put" // made or changed
	ReadCredential  = "credential.read"
	RotateStored    = "credential.rotate"
	DropCredential  = "credential.delete"
	CreateDatabase  = "database.create"
	DeleteDatabase  = "database.delete"
	MakeAccessRoles = "database.access" // of a database, or what they lack
	DropAccessRoles = "database.access.remove"
	CreateAccount   = "account.create"
	ResetAccount    = "account.reset"
	UpdateAccount   = "account.update"
	DeleteAccount   = "account.delete"
	OffboardAccount = "account.offboard"
	ChangeSecret    = "account.password" // of a person, or the secret of a program
	GrantScope      = "account.grant"
	RevokeScope     = "account.revoke"
	RevokeTokens    = "account.tokens"
	CreateToken     = "token.create" // a personal access token
	RevokeToken     = "token.revoke"
	ApproveLogin    = "login.approve" // a person gives a client one of their sign-ins
	DenyLogin       = "login.deny"
	CreateLogin     = "login.create" // the client has fetched it
	EndSession      = "session.end"
	RegisterCluster = "cluster.register"
	UpdateCluster   = "cluster.update"
	RemoveCluster   = "cluster.remove"
	RotateCluster   = "cluster.rotate"
	MakeSigningKey  = "key.create"
	RetireKey       = "key.retire"
	RotateKeys      = "keys.rotate" // all secrets are sealed with the first master key
	StartOperation  = "operation.start"
	CancelOperation = "operation.cancel"
	CreateWebhook   = "webhook.create"
	UpdateWebhook   = "webhook.update"
	DeleteWebhook   = "webhook.delete"
	ReplayWebhook   = "webhook.replay"        // it gets the events from a seq on
	RotateWebhook   = "webhook.rotate_secret" // its signing secret
	Restore         = "control.restore"
)

// Actions are all of them, in the order of their names.
var Actions = slices.Sorted(slices.Values([]string{
	CreateUser, ChangePassword, ChangeLimits, ChangeRoles, ChangeAccess, DisableUser, EnableUser, DeleteUser, ReadVerifiers,
	ChangedOutside,
	CreateLease, RenewLease, EndLease, PutCredential, ReadCredential, RotateStored, DropCredential,
	CreateDatabase, DeleteDatabase, MakeAccessRoles, DropAccessRoles,
	CreateAccount, ResetAccount, UpdateAccount, DeleteAccount, OffboardAccount, ChangeSecret, GrantScope, RevokeScope,
	RevokeTokens, CreateToken,
	RevokeToken, ApproveLogin, DenyLogin, CreateLogin, EndSession, RegisterCluster,
	UpdateCluster, RemoveCluster, RotateCluster, MakeSigningKey, RetireKey, RotateKeys,
	StartOperation, CancelOperation, CreateWebhook, UpdateWebhook, DeleteWebhook, ReplayWebhook, RotateWebhook, Restore,
}))

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
	Session                  uuid.UUID // of the console that it is done in, which goes into the detail; zero: none
	Operation                uuid.UUID // that it is a part of, which goes into the detail; zero: none
	Cluster                  uuid.UUID // zero: no cluster is concerned
	Target                   string    // database user, database or account
	RequestID, Address       string
	Trace                    string // id of the trace of the request, which goes into the detail; "": none
	Detail                   any    // what else the log keeps, a struct or a map that becomes a JSON object; nil: nothing
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

// Log is the audit log in the control database. A process may have several, which write rows with a key and a clock of their
// own: each row is written only if the database has its key and a similar time. One of them seals, in Run.
type Log struct {
	DB *control.DB

	once      sync.Once
	rows      *batch.Group[*row, error] // made at first use, as soon is
	soon      *batch.Group[*row, error] // rows of EndSoon
	key       atomic.Pointer[chainKey]  // of the MACs of rows; nil until the first row
	clock     clock
	forged    atomic.Int64  // rows that this process has sealed though Rolecall did not write them
	retry     time.Duration // of Run, if it could not seal; 0: sealRetry
	late      time.Duration // of rows; 0: lateness
	verifying sync.Mutex
	mu        sync.Mutex
	passed    time.Time     // when Run last sealed, or saw that all is sealed
	head      Point         // as Run has last seen it
	moved     chan struct{} // for Wait: closed and replaced when head moves; nil until a call waits
}

// write commits a row, together with those of other requests that come while one is being committed.
func (l *Log) write(ctx context.Context, r *row) error {
	l.once.Do(func() { l.rows, l.soon = newGroup(), newGroup() })
	rows := l.rows
	if r.soon {
		rows = l.soon
	}
	failed, err := rows.Do(ctx, r, func(ctx context.Context, rows []*row) ([]error, error) {
		failed, err := l.insert(ctx, rows)
		if sqlstate.Lost(err) && ctx.Err() == nil {
			// The rows may be there or not, and insert ignores those that are. The idle connections are as dead as this one.
			l.DB.Pool.Reset()
			failed, err = l.insert(ctx, rows)
		}
		return failed, err
	})
	return errors.Join(err, failed)
}

// newGroup commits rows, a second batch of them only beside a slow one.
func newGroup() *batch.Group[*row, error] {
	return &batch.Group[*row, error]{
		Parallel: 2,
		Slow:     batch.Slow,
		Longest:  64,
		Timeout:  10 * time.Second,
		SplitOn:  func(err error) bool { return sqlstate.Code(err) != "" && !sqlstate.Away(err) },
	}
}

// insert commits the rows, which are all soon or none is, in one transaction. It returns for each row why it is not there;
// nil: it is.
func (l *Log) insert(ctx context.Context, rows []*row) (failed []error, err error) {
	k, err := l.writerKey(ctx, l.DB.Pool)
	if err != nil {
		return nil, err
	}
	failed = make([]error, len(rows))
	times := make([]time.Time, len(rows)) // of the database; zero: the row was not inserted
	batch := &pgx.Batch{}
	if rows[0].soon {
		batch.Queue(`SELECT set_config('synchronous_commit', 'off', true)`)
	}
	for i, r := range rows {
		args, err := r.arguments(k, l.clock.now())
		if err != nil {
			failed[i] = err
			continue
		}
		batch.Queue(insertRow, args...).QueryRow(func(inserted pgx.Row) error {
			if err := inserted.Scan(&times[i]); !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			return nil
		})
	}
	if err := l.DB.Pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, err
	}
	for i, r := range rows {
		switch {
		case !times[i].IsZero():
			l.clock.set(times[i])
		case failed[i] == nil:
			failed[i] = l.addAgain(ctx, l.DB.Pool, r)
		}
	}
	return failed, nil
}

// outcomeRow is an outcome without an attempt before it.
func outcomeRow(e Entry, outcome Outcome) *row {
	return newRow(uuid.Must(uuid.NewV7()), "outcome", e, Result{Outcome: outcome, Detail: e.Detail})
}

func newRow(id uuid.UUID, phase string, e Entry, r Result) *row {
	detail, err := stored(e, r)
	return &row{attempt: id, phase: phase, entry: e, outcome: r.Outcome, detail: detail, err: err}
}

// viaConsole is the detail's word for what a person did in the console.
const viaConsole = "console"

// stored is the detail of a row, with what every row may have.
func stored(e Entry, r Result) (json.RawMessage, error) {
	var common struct {
		Token     uuid.UUID `json:"token,omitzero"`
		Session   uuid.UUID `json:"session,omitzero"`
		Via       string    `json:"via,omitempty"`
		Operation uuid.UUID `json:"operation,omitzero"`
		Trace     string    `json:"trace,omitempty"`
		Previous  uuid.UUID `json:"previous,omitzero"`
	}
	common.Token, common.Session, common.Operation, common.Previous = e.Token, e.Session, e.Operation, r.Previous
	common.Trace = e.Trace
	if e.Session != uuid.Nil {
		common.Via = viaConsole
	}
	detail, err := json.Marshal(r.Detail)
	if err != nil {
		return nil, err
	}
	shared, _ := json.Marshal(common) // ids and fixed words only
	switch {
	case string(detail) == "null" || string(detail) == "{}":
		detail = shared
	case string(shared) != "{}": // one object of the two
		detail = append(append(detail[:len(detail)-1], ','), shared[1:]...)
	}
	if r.Outcome != Done {
		return bounded(detail)
	}
	return detail, nil
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
func bounded(detail json.RawMessage) (json.RawMessage, error) {
	if len(detail) <= longDetail {
		return detail, nil
	}
	var plain any
	_ = json.Unmarshal(detail, &plain) // it was encoded a moment ago
	return json.Marshal(cut(plain))
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

// Begin commits an attempt. What cannot be recorded must not be done: the caller stops on an error. An attempt whose
// outcome is still missing after the limit is left to the settler.
func (l *Log) Begin(ctx context.Context, e Entry, limit time.Duration) (*Attempt, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	limit = failpoint.Soon(limit)
	ctx, cancel := context.WithTimeout(ctx, l.DB.Hang()) // behind others, too
	defer cancel()
	attempt := newRow(id, "attempt", e, Result{Detail: e.Detail})
	attempt.limit = &limit
	if err := l.write(ctx, attempt); err != nil {
		return nil, errNotRecorded.Because(err)
	}
	return &Attempt{ID: id, Entry: e}, nil
}

// End adds the outcome of an attempt, once: a second outcome is ignored.
func (l *Log) End(ctx context.Context, a *Attempt, r Result) error {
	if err := l.write(ctx, newRow(a.ID, "outcome", a.Entry, r)); err != nil {
		return errNoOutcome.Because(err)
	}
	return nil
}

// EndSoon is End without the wait for the disk and for a standby. The outcome is there for all who look, and is lost only if
// the control database crashes in the next second, and nothing was committed to it since. So it is for an outcome that says
// nothing but what the settler would find. Whatever comes after it keeps it: a commit of the next attempt, or of a seal,
// brings to the disk what was written before. https://www.postgresql.org/docs/current/wal-async-commit.html
func (l *Log) EndSoon(ctx context.Context, a *Attempt, r Result) error {
	outcome := newRow(a.ID, "outcome", a.Entry, r)
	outcome.soon = true
	if err := l.write(ctx, outcome); err != nil {
		return errNoOutcome.Because(err)
	}
	return nil
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
		return notRecorded(l.add(ctx, tx, outcomeRow(e, Denied)))
	})
	if fault.Is(err, fault.TooMany) {
		return err
	}
	return errors.Join(why, err)
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

// ActionsOf returns the actions of the attempts that the log has.
func (l *Log) ActionsOf(ctx context.Context, attempts []uuid.UUID) (map[uuid.UUID]string, error) {
	rows, err := l.DB.Pool.Query(ctx, `SELECT attempt, action FROM audit WHERE attempt = ANY($1)`, attempts)
	if err != nil {
		return nil, control.Fault(err)
	}
	actions := map[uuid.UUID]string{}
	var attempt uuid.UUID
	var action string
	_, err = pgx.ForEachRow(rows, []any{&attempt, &action}, func() error {
		actions[attempt] = action
		return nil
	})
	return actions, control.Fault(err)
}

// FailedSignIn counts a failed sign-in of an account's guid, or of ActorUnknown.
func (l *Log) FailedSignIn(ctx context.Context, accountGUID, address string) error {
	_, err := l.DB.Pool.Exec(ctx, `
		INSERT INTO failed_sign_ins VALUES ($1, $2, date_trunc('minute', now()), 1)
		ON CONFLICT (minute, account, address) DO UPDATE SET count = failed_sign_ins.count + 1`, accountGUID, address)
	return control.Fault(err)
}
