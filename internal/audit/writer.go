package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Every row carries a MAC of its writer over all columns but its id, which the database gives. So the owner of the control
// database cannot add a row without the master key: the sealer and the verification find it.

// row is a row before it is written, without its time.
type row struct {
	attempt uuid.UUID
	phase   string
	entry   Entry
	outcome Outcome
	detail  json.RawMessage
	limit   *time.Duration // of an attempt: how long until the settler resolves it
	soon    bool           // it may reach the disk after others can read it
	err     error          // why the detail cannot be encoded
}

// insertRow inserts nothing if there is a row of the same attempt and phase: the settler's, or one of the same statement.
// The time comes from the writer, because its MAC covers it. insertRow refuses a time that is far from the database's own,
// because the settler relies on the times. It also refuses a MAC whose key the table does not have: nobody could verify it.
const insertRow = `
	INSERT INTO audit (attempt, phase, time, action, outcome, account_guid, account_name, cluster_id, target, request_id,
	  address, detail, settle_after, writer_mac)
	SELECT $1::uuid, $2, $3::timestamptz, $4, $5, $6, $7, $8::uuid, $9, $10, $11, $12::jsonb, $13::timestamptz, $14::bytea
	WHERE $3::timestamptz BETWEEN clock_timestamp() - interval '10 seconds' AND clock_timestamp() + interval '10 seconds'
	  AND EXISTS (SELECT FROM audit_keys WHERE id = $15 AND key = $16)
	ON CONFLICT (attempt, phase) DO NOTHING
	RETURNING clock_timestamp()`

// writerVersion is the encoding that the MAC of a writer covers.
const writerVersion = 1

// arguments returns the row as insertRow takes it, with its MAC.
func (r *row) arguments(k *chainKey, now time.Time) ([]any, error) {
	if r.err != nil {
		return nil, r.err
	}
	now = now.UTC().Truncate(time.Microsecond)
	e := r.entry
	columns := []*string{new(r.attempt.String()), &r.phase, new(epoch(now)), &e.Action, nil, &e.AccountGUID,
		new(short(e.AccountName)), nil, new(short(e.Target)), &e.RequestID, &e.Address, nil, nil}
	if r.outcome != "" {
		columns[4] = (*string)(&r.outcome)
	}
	if e.Cluster != uuid.Nil {
		columns[7] = new(e.Cluster.String())
	}
	detail, err := plainJSON(r.detail)
	if err != nil {
		return nil, err
	}
	columns[detailColumn] = &detail
	var settleAfter *time.Time
	if r.limit != nil {
		settleAfter = new(now.Add(*r.limit).Truncate(time.Microsecond))
		columns[12] = new(epoch(*settleAfter))
	}
	mac := append(binary.BigEndian.AppendUint32(nil, uint32(k.id)), k.writerMAC(columns)...)
	return []any{columns[0], r.phase, now, e.Action, columns[4], e.AccountGUID, columns[6], columns[7], columns[8], e.RequestID,
		e.Address, r.detail, settleAfter, mac, k.id, k.sealed}, nil
}

// detailColumn is the index of the detail among the columns that a writer's MAC covers: those of canonical without the id.
const detailColumn = 11

func (k *chainKey) writerMAC(columns []*string) []byte {
	return sum(k.writer, appendRow([]byte{writerVersion}, columns))
}

// epoch is a time as canonical has it.
func epoch(t time.Time) string { return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000) }

// plainJSON is the one form of all texts of a JSON value that PostgreSQL's jsonb takes for equal.
func plainJSON(text []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return "", err
	}
	plain, err := json.Marshal(plainNumbers(v))
	return string(plain), err
}

func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return plainNumber(v)
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = plainNumbers(v[key])
		}
	}
	return v
}

// plainNumber writes a number with its significant digits and an exponent: 1.50 and 150e-2 become 15e-1.
func plainNumber(n json.Number) json.Number {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(n.String()), "e")
	e, err := strconv.Atoi(cmp.Or(exponent, "0"))
	if err != nil {
		return n
	}
	digits, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	e += len(digits) - len(fraction)
	digits = strings.TrimRight(digits, "0")
	e -= len(digits)
	switch {
	case digits == "":
		return "0"
	case negative:
		digits = "-" + digits
	}
	return json.Number(digits + "e" + strconv.Itoa(e))
}

// clock is the clock of the control database, as far as this replica knows it. Without an answer of the database yet it is
// this machine's own.
type clock struct {
	mu     sync.Mutex
	theirs time.Time
	ours   time.Time // when it was theirs there
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours.IsZero() {
		return time.Now()
	}
	return c.theirs.Add(time.Since(c.ours))
}

// set keeps a time that the database has just said. Of two that differ little, the one that was on its way for less time is
// kept, so that rows of one replica have times in their order.
func (c *clock) set(theirs time.Time) {
	ours := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if behind := c.theirs.Add(ours.Sub(c.ours)).Sub(theirs); c.ours.IsZero() || behind < 0 || behind > 5*time.Second {
		c.theirs, c.ours = theirs, ours
	}
}

// writerKey returns the key that makes the MACs of this log. It was the newest at the first row, or when a row was refused.
func (l *Log) writerKey(ctx context.Context, q control.Querier) (*chainKey, error) {
	if k := l.key.Load(); k != nil {
		return k, nil
	}
	return l.renewKey(ctx, q)
}

// renewKey reads the key that makes the MACs again. If a failover has lost the key, it is inserted again as this log has it:
// rows of other replicas may have MACs of it. Without a key that requires MACs, a new one is made, as at the start.
func (l *Log) renewKey(ctx context.Context, q control.Querier) (*chainKey, error) {
	keys, err := l.keys(ctx, q)
	if err != nil {
		return nil, err
	}
	newest := &chainKey{}
	if len(keys) > 0 {
		newest = keys[len(keys)-1]
	}
	held := l.key.Load()
	switch {
	case newest.err != nil:
	case held != nil && newest.id < held.id:
		err = l.DB.RestoreAuditKey(ctx, q, held.id, held.sealed)
	case !newest.signs:
		err = l.DB.PrepareAuditKey(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	k, _, err := l.sealingKey(ctx, q)
	if err != nil {
		return nil, err
	}
	l.key.Store(k)
	return k, nil
}

// A row that the database did not accept, though it reports no error.
var (
	errNotWritten = errors.New("the control database did not accept the row")
	errPrevented  = fmt.Errorf("%w: a trigger or a rule of its owner prevents it", errNotWritten)
)

// add writes a row, and makes sure that it is there.
func (l *Log) add(ctx context.Context, q control.Querier, r *row) error {
	k, err := l.writerKey(ctx, q)
	if err != nil {
		return err
	}
	args, err := r.arguments(k, l.clock.now())
	if err != nil {
		return err
	}
	var now time.Time
	err = q.QueryRow(ctx, insertRow, args...).Scan(&now)
	if errors.Is(err, pgx.ErrNoRows) {
		return l.addAgain(ctx, q, r)
	}
	if err == nil {
		l.clock.set(now)
	}
	return err
}

// addAgain finds out why a row was not inserted. If the reason was the time of this replica or its key, it inserts the row
// with the time of the database and the key that the database has.
func (l *Log) addAgain(ctx context.Context, q control.Querier, r *row) error {
	found, err := l.written(ctx, q, r)
	if err != nil || found {
		return err
	}
	k, err := l.renewKey(ctx, q)
	if err != nil {
		return err
	}
	args, err := r.arguments(k, l.clock.now())
	if err != nil {
		return err
	}
	err = q.QueryRow(ctx, insertRow, args...).Scan(new(time.Time))
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if found, err = l.written(ctx, q, r); err == nil && !found {
		err = errPrevented
	}
	return err
}

// written reports whether the row, or another outcome of its attempt, is there, and was written by Rolecall. It also asks
// the database for its time.
func (l *Log) written(ctx context.Context, q control.Querier, r *row) (bool, error) {
	if err := l.askTime(ctx, q); err != nil {
		return false, err
	}
	var columns []*string
	var mac []byte
	var at time.Time
	err := q.QueryRow(ctx, `
		SELECT `+canonical+`, a.writer_mac, `+plainTime+` FROM audit a WHERE attempt = $1 AND phase = $2`,
		r.attempt, r.phase).Scan(&columns, &mac, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	keys, err := l.keys(ctx, q)
	if err != nil {
		return false, err
	}
	if why := (&origin{}).judge(keys, columns, mac, at, false); why != "" {
		return false, fmt.Errorf("%w: another row has taken its place: %s", errNotWritten, why)
	}
	return true, nil
}

func (l *Log) askTime(ctx context.Context, q control.Querier) error {
	var now time.Time
	err := q.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	if err == nil {
		l.clock.set(now)
	}
	return err
}

// Record writes a change of the control database in the transaction that makes it.
func (l *Log) Record(ctx context.Context, tx pgx.Tx, e Entry) error {
	return notRecorded(l.add(ctx, tx, outcomeRow(e, Done)))
}

// EndWith is End in the transaction that makes the change, which is in the control database.
func (l *Log) EndWith(ctx context.Context, tx pgx.Tx, a *Attempt, r Result) error {
	return notRecorded(l.add(ctx, tx, newRow(a.ID, "outcome", a.Entry, r)))
}

// Send sends the batch that makes a change, with the row as its last statement, in the transaction of the change.
func (l *Log) Send(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, e Entry) error {
	k, err := l.writerKey(ctx, tx)
	if err != nil {
		return err
	}
	r := outcomeRow(e, Done)
	args, err := r.arguments(k, l.clock.now())
	if err != nil {
		return err
	}
	var now time.Time // zero: the row was not inserted
	batch.Queue(insertRow, args...).QueryRow(func(inserted pgx.Row) error {
		if err := inserted.Scan(&now); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	if now.IsZero() {
		return notRecorded(l.addAgain(ctx, tx, r))
	}
	l.clock.set(now)
	return nil
}

// origin decides whether the rows of a chain, in its order, were written by Rolecall.
type origin struct {
	keyID   int           // the key of the row before
	removed bool          // the retention has removed rows
	oldest  time.Time     // the first row that it has kept; zero before that
	late    time.Duration // how much later than a younger row a row may be sealed
	current bool          // a row was written after the upgrade to MACs was over
}

// judge says why a row cannot have been written by Rolecall; "": it was. Columns are those of canonical.
func (o *origin) judge(keys []*chainKey, columns []*string, mac []byte, at time.Time, repeated bool) string {
	required, known := requiredFrom(keys)
	switch {
	case repeated:
		return "It is a copy: another row has the same attempt and phase."
	case o.removed && !o.oldest.IsZero() && at.Before(o.oldest.Add(-o.late)):
		return "It is older than all rows that the retention has kept: a removed row was inserted again."
	case mac == nil && known && (o.current || !at.Before(required)):
		return "It has no MAC: Rolecall did not write it, or a replica did that runs a release without MACs."
	case mac == nil || signed(keys, columns, mac):
		return ""
	}
	return "Its MAC is wrong: Rolecall did not write the row, or it was altered before it was sealed."
}

// pass remembers a row of which the next ones are judged.
func (o *origin) pass(keys []*chainKey, l *link) {
	o.keyID = l.keyID
	if l.forged != "" {
		return
	}
	if o.oldest.IsZero() {
		o.oldest = l.time
	}
	required, known := requiredFrom(keys)
	o.current = o.current || known && !l.time.Before(required.Add(o.late))
}

// requiredFrom is the time from which on every row needs a MAC; false: no key is of a release that makes them.
func requiredFrom(keys []*chainKey) (from time.Time, known bool) {
	for _, k := range keys {
		if k.signs && (!known || k.required.Before(from)) {
			from, known = k.required, true
		}
	}
	return from, known
}

// signed reports whether mac was made by a writer over the columns of canonical.
func signed(keys []*chainKey, columns []*string, mac []byte) bool {
	if len(mac) < 4 || len(columns) < 2+detailColumn || columns[1+detailColumn] == nil {
		return false
	}
	k, err := keyOf(keys, int(binary.BigEndian.Uint32(mac)))
	if err != nil {
		return false
	}
	detail, err := plainJSON([]byte(*columns[1+detailColumn]))
	if err != nil {
		return false
	}
	covered := append([]*string(nil), columns[1:]...)
	covered[detailColumn] = &detail
	return hmac.Equal(mac[4:], k.writerMAC(covered))
}

// errNotRecorded is the answer to a change that the audit log did not accept.
var errNotRecorded = fault.New(fault.Unavailable, "The audit log cannot be written, so nothing was done.").AsOutage().
	After(5 * time.Second)

func notRecorded(err error) error {
	if errors.Is(err, errNotWritten) {
		return errNotRecorded.Because(err)
	}
	return err
}

// errNoOutcome is of an outcome that the audit log did not accept: its attempt may have made the change.
var errNoOutcome = fault.New(fault.Unavailable, "The audit log cannot be written, so the outcome of the change is not "+
	"recorded yet. The change may have been made.").AsOutage().After(5 * time.Second)
