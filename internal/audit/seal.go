package audit

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// The sealer gives recorded rows their seq and links them into the chain. The order of seqs is the order of sealing: a
// row that is committed later than one with a greater id just gets a later seq, so a reader by seq misses nothing.
//
// It looks for rows several times a second instead of being notified: NOTIFY makes the commits of all who record wait
// for each other, while looking costs a fraction of a millisecond.
const (
	sealEvery   = 250 * time.Millisecond
	sealRetry   = 5 * time.Second
	sealRows    = 1000 // in a transaction
	retainEvery = time.Hour
	// logHeadEvery is how often the head of the chain is logged, when it has moved: a log that is shipped elsewhere is an
	// anchor out of reach of someone who controls the control database.
	logHeadEvery = 10 * time.Minute
)

// sealerLock keeps the sealers of other replicas out. The bytes of "sealer".
const sealerLock = 0x7365616c6572

// Run seals until ctx ends, and then what was recorded until then. Rows older than the retention are removed; 0 keeps
// them for ever.
func (l *Log) Run(ctx context.Context, retention time.Duration, log *slog.Logger) {
	var logged int64
	var loggedAt, retained time.Time
	logHead := func() {
		if head := l.Head(); head.Seq != logged {
			log.Info("head of the audit chain", "seq", head.Seq, "anchor", head.String())
			logged = head.Seq
		}
		loggedAt = time.Now()
	}
	failing := false
	removed := 0
	for {
		wait := sealEvery
		err := l.sealPending(ctx, log)
		if err == nil && time.Since(retained) > retainEvery {
			var n int
			var more bool
			n, more, err = l.retain(ctx, retention, log)
			if removed += n; !more {
				if removed > 0 {
					log.Info("removed old rows of the audit log", "rows", removed)
				}
				removed, retained = 0, time.Now()
			}
		}
		if err != nil && ctx.Err() == nil {
			wait = cmp.Or(l.retry, sealRetry)
			if !failing {
				log.Error("the audit log cannot be sealed; retrying", "error", err)
			}
		}
		failing = err != nil
		if time.Since(loggedAt) > logHeadEvery {
			logHead()
		}
		select {
		case <-time.After(wait):
			continue
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := l.sealPending(end, log); err != nil {
			log.Warn("the last rows of the audit log will be sealed by another replica", "error", err)
		}
		logHead()
		return
	}
}

// sealPending seals all pending rows, if no other replica does, and wakes those who wait for the chain to move.
func (l *Log) sealPending(ctx context.Context, log *slog.Logger) error {
	head, waiting, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	for sealed := sealRows; waiting && sealed == sealRows; {
		var forged []link
		if sealed, forged, err = l.sealBatch(ctx); err != nil {
			return err
		}
		for _, k := range forged {
			log.Error("the audit log has a row that Rolecall did not write", "seq", k.point.Seq, "id", k.id, "reason", k.forged)
		}
		if head, _, err = l.readHead(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if head.Seq < l.head.Seq {
		log.Error("rows are missing at the end of the audit log: its head was further on", "seq", head.Seq, "anchor",
			l.head.String())
	}
	if head.Seq != l.head.Seq && l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
	l.head, l.passed = head, time.Now()
	return nil
}

// readHead returns the head of the chain, and whether rows wait to be sealed.
func (l *Log) readHead(ctx context.Context) (head Point, waiting bool, err error) {
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce(h.seq, 0), coalesce(h.mac, ''), EXISTS (SELECT FROM audit_unsealed)
		FROM (VALUES (1)) one LEFT JOIN (
		  (SELECT seq, mac FROM audit_seals ORDER BY seq DESC LIMIT 1) UNION ALL (SELECT seq, mac FROM audit_checkpoint)
		  ORDER BY seq DESC LIMIT 1) h ON true`).Scan(&head.Seq, &head.MAC, &waiting)
	return head, waiting, err
}

// ReadHead returns the head of the chain.
func (l *Log) ReadHead(ctx context.Context) (Point, error) {
	head, _, err := l.readHead(ctx)
	return head, control.Fault(err)
}

// Head returns the head of the chain as Run has last seen it.
func (l *Log) Head() Point {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Wait returns when the chain goes beyond seq, as Run sees it, or when ctx ends.
func (l *Log) Wait(ctx context.Context, seq int64) {
	for {
		l.mu.Lock()
		if l.head.Seq > seq {
			l.mu.Unlock()
			return
		}
		if l.moved == nil {
			l.moved = make(chan struct{})
		}
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// Seal seals one batch of rows, and says how many. It does nothing while another sealer works.
func (l *Log) Seal(ctx context.Context) (sealed int, err error) {
	sealed, _, err = l.sealBatch(ctx)
	return sealed, err
}

// sealBatch is Seal, and also returns those of the rows that Rolecall did not write. They are sealed as well: evidence of
// what was done to the log, which does not stop the log.
func (l *Log) sealBatch(ctx context.Context) (sealed int, forged []link, err error) {
	err = l.DB.Tx(ctx, func(tx pgx.Tx) error {
		sealed, forged, err = l.seal(ctx, tx)
		return err
	})
	if err == nil {
		l.forged.Add(int64(len(forged)))
	}
	return sealed, forged, err
}

func (l *Log) seal(ctx context.Context, tx pgx.Tx) (sealed int, forged []link, err error) {
	if ours, err := lockChain(ctx, tx); err != nil || !ours {
		return 0, nil, err
	}
	key, keys, err := l.sealingKey(ctx, tx)
	if err != nil {
		return 0, nil, err
	}
	head, err := headOf(ctx, tx, keys)
	if err != nil {
		return 0, nil, err
	}
	origin, err := l.origin(ctx, tx, keys)
	if err != nil {
		return 0, nil, err
	}
	again, err := repeated(ctx, tx)
	if err != nil {
		return 0, nil, err
	}
	rows, err := tx.Query(ctx, `
		SELECT a.id, `+canonical+`, a.writer_mac, `+plainTime+`, `+again+`
		FROM audit_unsealed u JOIN audit a ON a.id = u.audit_id ORDER BY u.audit_id LIMIT $1`, sealRows)
	if err != nil {
		return 0, nil, err
	}
	var ids, seqs []int64
	var macs [][]byte
	var id int64
	var row []*string
	var writerMAC []byte
	var at time.Time
	var isCopy bool
	_, err = pgx.ForEachRow(rows, []any{&id, &row, &writerMAC, &at, &isCopy}, func() error {
		seq := head.Seq + 1
		head = Point{seq, key.mac(head, seq, row)}
		ids, seqs, macs = append(ids, id), append(seqs, seq), append(macs, head.MAC)
		sealed := link{point: head, id: id, keyID: key.id, time: at, forged: origin.judge(keys, row, writerMAC, at, isCopy)}
		origin.pass(keys, &sealed)
		if sealed.forged != "" {
			forged = append(forged, sealed)
		}
		return nil
	})
	if err != nil || len(ids) == 0 {
		return 0, nil, err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO audit_seals (seq, audit_id, key_id, version, mac, time, action, outcome, account_guid, account_name,
		  cluster_id, target)
		SELECT n.seq, a.id, $4, $5, n.mac, a.time, `+copied+`
		FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) n(seq, id, mac) JOIN audit a ON a.id = n.id`,
		seqs, ids, macs, key.id, chainVersion)
	if err != nil {
		return 0, nil, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM audit_unsealed WHERE audit_id = ANY($1)`, ids)
	return len(ids), forged, err
}

// origin returns what is known at the end of the chain. It is not verified here: the verification reads the whole chain.
func (l *Log) origin(ctx context.Context, tx pgx.Tx, keys []*chainKey) (*origin, error) {
	o := &origin{late: cmp.Or(l.late, lateness)}
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM audit_checkpoint)`).Scan(&o.removed)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		(SELECT key_id, least(greatest(time, 'epoch'), '9999-01-01') FROM audit_seals ORDER BY seq LIMIT 1) UNION ALL
		(SELECT key_id, least(greatest(time, 'epoch'), '9999-01-01') FROM audit_seals ORDER BY seq DESC LIMIT 1)`)
	if err != nil {
		return nil, err
	}
	var end link
	_, err = pgx.ForEachRow(rows, []any{&end.keyID, &end.time}, func() error { o.pass(keys, &end); return nil })
	return o, err
}

// lockChain makes this transaction the only one that moves an end of the chain, until it ends.
func lockChain(ctx context.Context, tx pgx.Tx) (ours bool, err error) {
	err = tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, int64(sealerLock)).Scan(&ours)
	return ours, err
}

// signInAge is how long counts of failed sign-ins are kept, at the longest.
const signInAge = 90 * 24 * time.Hour

// retain removes one batch of what is older than the retention, so that the sealing goes on between two. It says how many
// rows of the log were among it, and whether there may be more.
func (l *Log) retain(ctx context.Context, retention time.Duration, log *slog.Logger) (removed int, more bool, err error) {
	age := signInAge
	if retention > 0 {
		age = min(age, retention)
		if removed, err = l.Remove(ctx, retention); err != nil {
			// Sealing goes on: what is recorded now is worth more.
			log.Error("no old rows are removed from the audit log", "error", err)
		}
	}
	tag, err := l.DB.Pool.Exec(ctx, `
		DELETE FROM failed_sign_ins WHERE ctid = ANY(ARRAY(
		  SELECT ctid FROM failed_sign_ins WHERE minute < clock_timestamp() - $1::interval LIMIT 10000))`, age)
	return removed, removed > 0 || tag.RowsAffected() > 0, control.Fault(err)
}

// removeBatch is how many rows are removed in a transaction.
const removeBatch = 2000

// Remove removes a batch of the rows that are older than age, from the beginning of the chain up to the first one that is
// younger, and leaves a checkpoint from which the rest can be verified. The last row of the chain always stays: it shows
// that a removed row, which somebody inserts again, is too old. Rows that are not as they were sealed are evidence: they are
// an error, and stay.
func (l *Log) Remove(ctx context.Context, age time.Duration) (removed int, err error) {
	err = l.DB.Tx(ctx, func(tx pgx.Tx) error {
		removed, err = l.remove(ctx, tx, age)
		return err
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

func (l *Log) remove(ctx context.Context, tx pgx.Tx, age time.Duration) (int, error) {
	if ours, err := lockChain(ctx, tx); err != nil || !ours {
		return 0, err
	}
	key, keys, err := l.sealingKey(ctx, tx)
	if err != nil {
		return 0, err
	}
	begin, err := checkpoint(ctx, tx, keys)
	if err != nil {
		return 0, err
	}
	var now time.Time
	if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return 0, err
	}
	links, problem, err := walk(ctx, tx, keys, begin.Point, &origin{}, removeBatch+1)
	if err != nil {
		return 0, err
	}
	if problem == nil && len(links) > 0 {
		links = links[:len(links)-1]
	}
	var ids []int64
	last := begin.Point
	for _, k := range links {
		if !k.time.Before(now.Add(-age)) {
			problem = nil // further on than this goes
			break
		}
		ids, last = append(ids, k.id), k.point
	}
	if problem != nil && len(ids) == 0 {
		return 0, problem
	}
	if len(ids) == 0 {
		return 0, nil
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO audit_checkpoint (seq, mac, time, key_id, proof) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, mac = excluded.mac, time = excluded.time, key_id = excluded.key_id,
		  proof = excluded.proof`,
		last.Seq, last.MAC, now, key.id, key.proof(last, now))
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `SET LOCAL rolecall.retention = 'on'`); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM audit WHERE id = ANY($1)`, ids); err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM audit_seals WHERE seq <= $1`, last.Seq)
	return len(ids), err
}
