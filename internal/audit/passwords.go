package audit

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// passwordWrites are the actions that give a database user its password.
var passwordWrites = []string{CreateUser, ChangePassword}

// passwordRows are the actions of an account by which it knows passwords, or verifiers.
var passwordRows = append([]string{DeleteUser, ReadVerifiers, ReadCredential}, passwordWrites...)

// UserName is the name of a database user in a cluster.
type UserName struct {
	Cluster uuid.UUID
	Name    string
}

// Passwords are what an account has done by which it may know passwords. An attempt counts whose outcome is unknown, or not
// recorded yet.
type Passwords struct {
	Written     map[UserName]Written
	Verifiers   map[uuid.UUID]time.Time // when it last read the verifiers of a cluster
	Credentials map[uuid.UUID]time.Time // when it last read the password of a stored credential, by the lease
}

// Written is a user whose password an account has written.
type Written struct {
	Made bool // the account has created it as well

	row int64 // the newest one
}

// passwordPage is how many rows of an account are read at a time.
const passwordPage = 20000

// selectPasswordRows reads rows of an account. The last column says whether a row counts: its attempt is not known to have
// failed.
const selectPasswordRows = `
	SELECT s.seq, a.id, a.action, a.cluster_id, a.target, a.time, coalesce(a.detail ->> 'lease', ''),
	  (a.cluster_id IS NOT NULL AND (a.outcome IN ('done', 'unknown') OR a.phase = 'attempt' AND
	    NOT EXISTS (SELECT FROM audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome'))) IS TRUE
	FROM (`

// PasswordsOf returns what an account has done by which it may know passwords.
func (l *Log) PasswordsOf(ctx context.Context, guid string) (*Passwords, error) {
	p := &Passwords{Written: map[UserName]Written{}, Verifiers: map[uuid.UUID]time.Time{},
		Credentials: map[uuid.UUID]time.Time{}}
	// What is not sealed first: it may be sealed a moment later.
	_, _, err := l.passwordRows(ctx, p, selectPasswordRows+`
		SELECT 0::bigint AS seq, u.audit_id FROM audit_unsealed u) s
		JOIN audit a ON a.id = s.audit_id WHERE a.account_guid = $1 AND a.action = ANY ($2)`, guid, passwordRows)
	for after, more := int64(0), true; err == nil && more; {
		var read int
		after, read, err = l.passwordRows(ctx, p, selectPasswordRows+`
			SELECT seq, audit_id FROM audit_seals
			WHERE account_guid = $1 AND action = ANY ($2) AND seq > $3 ORDER BY seq LIMIT $4) s
			JOIN audit a ON a.id = s.audit_id ORDER BY s.seq`, guid, passwordRows, after, passwordPage)
		more = read == passwordPage
	}
	return p, control.Fault(err)
}

func (l *Log) passwordRows(ctx context.Context, p *Passwords, sql string, args ...any) (last int64, read int, err error) {
	rows, err := l.DB.Pool.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
	if err != nil {
		return 0, 0, err
	}
	var id int64
	var action, lease string
	var cluster *uuid.UUID
	var name string
	var at time.Time
	var counts bool
	_, err = pgx.ForEachRow(rows, []any{&last, &id, &action, &cluster, &name, &at, &lease, &counts}, func() error {
		if read++; counts {
			p.add(id, action, UserName{*cluster, name}, at, lease)
		}
		return nil
	})
	return last, read, err
}

func (p *Passwords) add(id int64, action string, user UserName, at time.Time, lease string) {
	switch action {
	case CreateUser, ChangePassword:
		w := p.Written[user]
		p.Written[user] = Written{w.Made || action == CreateUser, max(w.row, id)}
	case ReadVerifiers:
		if at.After(p.Verifiers[user.Cluster]) {
			p.Verifiers[user.Cluster] = at
		}
	case ReadCredential:
		if id, err := uuid.Parse(lease); err == nil && at.After(p.Credentials[id]) {
			p.Credentials[id] = at
		}
	}
}

// Write is the newest row of the log about the password of a database user.
type Write struct {
	Account string // guid
	Deletes bool   // the user was deleted
	Time    time.Time

	row int64
}

// After reports whether the write is newer than that of an account.
func (w Write) After(own Written) bool { return w.row > own.row }

// namesAtOnce is how many users are looked up by one statement.
const namesAtOnce = 2000

// WritesByName returns the newest write, or deletion, that is recorded as done of each user, by its name. A user without any
// is missing.
func (l *Log) WritesByName(ctx context.Context, users []UserName) (map[UserName]Write, error) {
	newest := make(map[UserName]Write, len(users))
	for start := 0; start < len(users); start += namesAtOnce {
		part := users[start:min(start+namesAtOnce, len(users))]
		clusters, names := make([]uuid.UUID, len(part)), make([]string, len(part))
		for i, u := range part {
			clusters[i], names[i] = u.Cluster, u.Name
		}
		rows, err := l.DB.Pool.Query(ctx, `
			SELECT u.cluster, u.name, w.id, w.account_guid, w.action = $4, w.time
			FROM unnest($1::uuid[], $2::text[]) u (cluster, name) CROSS JOIN LATERAL (
			  SELECT id, account_guid, action, time FROM audit
			  WHERE cluster_id = u.cluster AND target = u.name AND outcome = 'done' AND action = ANY ($3)
			    AND NOT detail ? 'disabled' -- a deletion that has only disabled the user
			  ORDER BY id DESC LIMIT 1) w`, clusters, names, append([]string{DeleteUser}, passwordWrites...), DeleteUser)
		if err != nil {
			return nil, control.Fault(err)
		}
		var u UserName
		var w Write
		_, err = pgx.ForEachRow(rows, []any{&u.Cluster, &u.Name, &w.row, &w.Account, &w.Deletes, &w.Time}, func() error {
			newest[u] = w
			return nil
		})
		if err != nil {
			return nil, control.Fault(err)
		}
	}
	return newest, nil
}

// Changed is the last two attempts that the record of a role names.
type Changed struct{ Last, Previous uuid.UUID }

// longestWalk is how many changes of a user are followed back to a write of its password.
const longestWalk = 1000

// WritesByHistory follows the history of each user back from its record to the newest write of its password, also through
// other names that it had. The write of a user at whose end the history does not have one is zero.
func (l *Log) WritesByHistory(ctx context.Context, users []Changed) ([]Write, error) {
	found := make([]Write, len(users))
	for start := 0; start < len(users); start += namesAtOnce {
		part := users[start:min(start+namesAtOnce, len(users))]
		last, previous := make([]uuid.UUID, len(part)), make([]uuid.UUID, len(part))
		for i, u := range part {
			last[i], previous[i] = u.Last, u.Previous
		}
		rows, err := l.DB.Pool.Query(ctx, `
			WITH RECURSIVE walk AS (
			  SELECT u.place, 1 AS step, a.id, a.action, a.account_guid, a.time,
			    coalesce(o.`+previousAttempt+`, u.previous::text) AS previous
			  FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY u (last, previous, place)
			  JOIN audit a ON a.attempt = u.last AND a.phase = 'attempt'
			  LEFT JOIN audit o ON o.attempt = u.last AND o.phase = 'outcome'
			  UNION ALL
			  SELECT w.place, w.step + 1, a.id, a.action, a.account_guid, a.time, o.`+previousAttempt+`
			  FROM walk w JOIN audit a ON a.attempt = w.previous::uuid AND a.phase = 'attempt'
			  LEFT JOIN audit o ON o.attempt = a.attempt AND o.phase = 'outcome'
			  WHERE w.action <> ALL ($3) AND w.step < $4)
			SELECT place, id, account_guid, time FROM walk WHERE action = ANY ($3)`, last, previous, passwordWrites, longestWalk)
		if err != nil {
			return nil, control.Fault(err)
		}
		var place int
		var w Write
		_, err = pgx.ForEachRow(rows, []any{&place, &w.row, &w.Account, &w.Time}, func() error {
			found[start+place-1] = w
			return nil
		})
		if err != nil {
			return nil, control.Fault(err)
		}
	}
	return found, nil
}

// CompleteSince is the time of the oldest row that the retention has kept; nil: it has removed none.
func (l *Log) CompleteSince(ctx context.Context) (since *time.Time, err error) {
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce((SELECT time FROM audit_seals ORDER BY seq LIMIT 1), c.time) FROM audit_checkpoint c`).Scan(&since)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if since != nil {
		*since = since.UTC()
	}
	return since, control.Fault(err)
}

// Newest returns the newest row of what an account did, sealed or not; 0: none.
func Newest(ctx context.Context, q control.Querier, guid string) (row int64, err error) {
	err = q.QueryRow(ctx, `
		SELECT greatest(
		  (SELECT audit_id FROM audit_seals WHERE account_guid = $1 ORDER BY seq DESC LIMIT 1),
		  (SELECT max(u.audit_id) FROM audit_unsealed u JOIN audit a ON a.id = u.audit_id WHERE a.account_guid = $1), 0)`,
		guid).Scan(&row)
	return row, err
}
