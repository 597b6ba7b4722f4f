package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// fill records n rows and seals them.
func fill(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser, AccountGUID: "g", AccountName: "Gwen",
			Target: fmt.Sprint("user", i)}))
	}
	seal(t, l)
}

func seal(t testing.TB, l *audit.Log) {
	t.Helper()
	for {
		n, err := l.Seal(t.Context())
		must(t, err)
		if n == 0 {
			return
		}
	}
}

// tamper does what only a superuser can: the triggers do not run.
func tamper(t testing.TB, l *audit.Log, sql string) {
	t.Helper()
	err := l.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		for statement := range strings.SplitSeq(sql, "; ") {
			if tag, err := tx.Exec(t.Context(), statement); err != nil || tag.RowsAffected() == 0 {
				return fmt.Errorf("%s: %w", tag, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func verify(t testing.TB, l *audit.Log, anchor audit.Point) *audit.Verification {
	t.Helper()
	v, err := l.Verify(t.Context(), anchor)
	must(t, err)
	return v
}

func mustHold(t testing.TB, l *audit.Log, rows int64) *audit.Verification {
	t.Helper()
	v := verify(t, l, audit.Point{})
	if v.Problem != nil || v.Checked != rows {
		t.Fatalf("%d rows hold, want %d; problem: %v", v.Checked, rows, v.Problem)
	}
	return v
}

// Twenty writers, whose transactions end in any order, and two replicas that seal meanwhile.
func TestSealersAndWriters(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	other := &audit.Log{DB: l.DB}
	const writers, each = 20, 30
	sealing, stop := context.WithCancel(t.Context())
	var sealers, writing sync.WaitGroup
	for _, s := range []*audit.Log{l, other} {
		sealers.Go(func() {
			for sealing.Err() == nil {
				if _, err := s.Seal(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				err := l.DB.Tx(t.Context(), func(tx pgx.Tx) error {
					err := l.Record(t.Context(), tx, audit.Entry{Action: audit.CreateAccount, AccountGUID: fmt.Sprint(w),
						Target: fmt.Sprint(i)})
					if i%7 == 6 {
						_, err = tx.Exec(t.Context(), `SELECT pg_sleep(0.01)`)
					}
					if err == nil && i%10 == 9 {
						return fault.New(fault.Stale, "rolled back")
					}
					return err
				})
				if err != nil && !fault.Is(err, fault.Stale) {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	stop()
	sealers.Wait()
	seal(t, l)
	const want = writers * each * 9 / 10
	v := mustHold(t, l, want)
	if v.Head.Seq != want || v.Unsealed != 0 {
		t.Errorf("the head is %s and %d rows wait", v.Head, v.Unsealed)
	}
	var late int
	must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_seals s JOIN audit_seals n ON n.seq = s.seq + 1 `+
		`WHERE n.audit_id < s.audit_id`).Scan(&late))
	t.Logf("%d rows were sealed behind one with a greater id", late)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql    string
		seq    int64
		id     int64
		reason string
	}{
		"a column":       {`UPDATE audit SET target = 'somebody' WHERE id = 5`, 5, 5, "altered"},
		"a null":         {`UPDATE audit SET cluster_id = gen_random_uuid() WHERE id = 5`, 5, 5, "altered"},
		"detail":         {`UPDATE audit SET detail = '{"a": 1}' WHERE id = 5`, 5, 5, "altered"},
		"moved a letter": {`UPDATE audit SET account_guid = 'gG', account_name = 'wen' WHERE id = 5`, 5, 5, "altered"},
		"a time":         {`UPDATE audit SET time = time + interval '1 microsecond' WHERE id = 5`, 5, 5, "altered"},
		"no time":        {`UPDATE audit SET time = 'infinity' WHERE id = 5`, 5, 5, "altered"},
		"a mac":          {`UPDATE audit_seals SET mac = sha256('x') WHERE seq = 5`, 5, 5, "altered"},
		"no mac":         {`UPDATE audit_seals SET mac = '' WHERE seq = 5`, 5, 5, "altered"},
		"a row":          {`DELETE FROM audit WHERE id = 5`, 5, 5, "The row is missing"},
		"a seal":         {`DELETE FROM audit_seals WHERE seq = 5`, 5, 0, "Its seal is missing"},
		"row and seal": {`WITH a AS (DELETE FROM audit WHERE id = 5) DELETE FROM audit_seals WHERE seq = 5`, 5, 0,
			"Its seal is missing"},
		"closed gap": {`DELETE FROM audit WHERE id = 5; DELETE FROM audit_seals WHERE seq = 5; UPDATE audit_seals SET seq = ` +
			`-seq WHERE seq > 5; UPDATE audit_seals SET seq = -seq - 1 WHERE seq < 0`, 5, 6, "altered"},
		"the first": {`WITH a AS (DELETE FROM audit WHERE id < 3) DELETE FROM audit_seals WHERE seq < 3`, 1, 0,
			"Its seal is missing"},
		"swapped rows": {`UPDATE audit SET target = CASE id WHEN 5 THEN 'user6' ELSE 'user5' END WHERE id IN (5, 6)`, 5, 5,
			"altered"},
		"swapped seals": {`WITH n AS (SELECT seq, mac FROM audit_seals) UPDATE audit_seals s SET mac = n.mac FROM n WHERE ` +
			`n.seq = 11 - s.seq AND s.seq IN (5, 6)`, 5, 5, "altered"},
		"the last seal": {`DELETE FROM audit_seals WHERE seq = 10`, 0, 10, "has no seal"},
		"a slipped in": {`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES ` +
			`(gen_random_uuid(), 'outcome', 'x', 'done', '', '')`, 0, 11, "it was inserted"},
		"what is found": {`UPDATE audit_seals SET account_guid = 'other' WHERE seq = 5`, 5, 5, "found differ"},
		"another key": {`WITH k AS (INSERT INTO audit_keys VALUES (2, 'x') RETURNING id) UPDATE audit_seals SET key_id = id ` +
			`FROM k WHERE seq = 5`, 5, 5, "is missing"},
		"a checkpoint": {`INSERT INTO audit_checkpoint SELECT true, seq, mac, now(), key_id, mac FROM audit_seals WHERE seq = ` +
			`3`, 3, 0, "checkpoint was altered"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			fill(t, l, 10)
			head := mustHold(t, l, 10).Head
			tamper(t, l, c.sql)
			v := verify(t, l, head)
			if v.Problem == nil || v.Problem.Seq != c.seq || v.Problem.ID != c.id || !strings.Contains(v.Problem.Reason, c.reason) {
				t.Errorf("found %v, want %q at seq %d, id %d", v.Problem, c.reason, c.seq, c.id)
			}
		})
	}
}

// A tail that is gone together with its seals leaves no trace in the database.
func TestCutOff(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 10)
	head := mustHold(t, l, 10).Head
	tamper(t, l, `WITH a AS (DELETE FROM audit WHERE id > 8) DELETE FROM audit_seals WHERE seq > 8`)
	mustHold(t, l, 8)
	if v := verify(t, l, head); v.Problem == nil || v.Problem.Seq != 9 ||
		!strings.Contains(v.Problem.Reason, "Rows are missing") {
		t.Errorf("cut off: %v", v.Problem)
	}
	fill(t, l, 5) // and it goes on, as if nothing had happened
	mustHold(t, l, 13)
	if v := verify(t, l, head); v.Problem == nil || v.Problem.Seq != 10 ||
		!strings.Contains(v.Problem.Reason, "another chain") {
		t.Errorf("replaced: %v", v.Problem)
	}
	p, err := audit.ParsePoint(head.String())
	if err != nil || p.Seq != head.Seq || !slices.Equal(p.MAC, head.MAC) {
		t.Errorf("%s is read as %s, %v", head, p, err)
	}
	for _, bad := range []string{"", "1", "1:", "1:ab", "x:" + strings.Repeat("ab", 32), "0:" + strings.Repeat("ab", 32),
		"-1:" + strings.Repeat("ab", 32), "1:" + strings.Repeat("ab", 33)} {
		if _, err := audit.ParsePoint(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUnsealed(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	if v := mustHold(t, l, 0); v.Head.Seq != 0 {
		t.Errorf("the head of nothing is %s", v.Head)
	}
	fill(t, l, 3)
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser}))
	v := mustHold(t, l, 3)
	if v.Unsealed != 1 || time.Since(v.Oldest).Abs() > time.Minute {
		t.Errorf("%d wait, the oldest since %s", v.Unsealed, v.Oldest)
	}
	tamper(t, l, `DELETE FROM audit WHERE id = 4`)
	if v := verify(t, l, audit.Point{}); v.Problem == nil || v.Problem.ID != 4 ||
		!strings.Contains(v.Problem.Reason, "before it was sealed") {
		t.Errorf("found %v", v.Problem)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	const day = 24 * time.Hour
	fill(t, l, 10)
	old := mustHold(t, l, 10).Head
	if n, err := l.Remove(t.Context(), day); n != 0 || err != nil {
		t.Errorf("removed %d young rows, %v", n, err)
	}
	age := 300 * time.Millisecond
	time.Sleep(age)
	fill(t, l, 5)
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser})) // not sealed
	head := mustHold(t, l, 15).Head
	n, err := l.Remove(t.Context(), age)
	if n < 10 || err != nil {
		t.Errorf("removed %d rows, %v", n, err)
	}
	v := mustHold(t, l, int64(15-n))
	if v.Checkpoint.Seq != int64(n) || time.Since(v.Checkpoint.Time).Abs() > time.Minute || v.Head.String() != head.String() ||
		v.Unsealed != 1 {
		t.Errorf("got %+v", v)
	}
	if v := verify(t, l, head); v.Problem != nil || v.AnchorRemoved {
		t.Errorf("the head is no anchor any more: %v", v.Problem)
	}
	if v := verify(t, l, old); v.Problem != nil || n > 10 && !v.AnchorRemoved {
		t.Errorf("an anchor before the checkpoint: %+v", v)
	}
	time.Sleep(age)
	_, err = l.Remove(t.Context(), age)
	must(t, err)
	v = mustHold(t, l, 1) // the last one always stays
	if v.Head.Seq != 15 || v.Checkpoint.Seq != 14 {
		t.Errorf("got %+v", v)
	}
	seal(t, l)
	if v := mustHold(t, l, 2); v.Head.Seq != 16 {
		t.Errorf("the next row is sealed as %d", v.Head.Seq)
	}
	// Nobody moves the beginning of the chain: not by hand, and not back.
	tamper(t, l, `WITH s AS (DELETE FROM audit_seals RETURNING seq, mac), a AS (DELETE FROM audit) UPDATE audit_checkpoint c `+
		`SET seq = s.seq, mac = s.mac FROM s WHERE s.seq = 16`)
	if v := verify(t, l, audit.Point{}); v.Problem == nil || !strings.Contains(v.Problem.Reason, "checkpoint was altered") {
		t.Errorf("found %v", v.Problem)
	}
}

// The retention removes a bounded number of rows at a time, and new rows are sealed in between.
func TestSealingBetweenRemovals(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	const rows = 2500 // more than one step removes
	must(t, l.DB.Tx(t.Context(), func(tx pgx.Tx) error {
		for range rows {
			if err := l.Record(t.Context(), tx, audit.Entry{Action: audit.CreateAccount}); err != nil {
				return err
			}
		}
		return nil
	}))
	log := slog.New(slog.DiscardHandler)
	must(t, l.SealPending(t.Context(), log))
	left := rows
	for step := range 2 {
		must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser}))
		must(t, l.SealPending(t.Context(), log))
		if left++; l.Head().Seq != int64(rows+step+1) {
			t.Fatalf("after %d steps of the retention a new row is not sealed: the head is %s", step, l.Head())
		}
		removed, more, err := l.Retain(t.Context(), time.Nanosecond, log)
		must(t, err)
		if left -= removed; !more || removed > 2000 {
			t.Errorf("%d rows were removed in one step; more to remove: %t", removed, more)
		}
	}
	if left != 1 {
		t.Errorf("%d rows are left", left)
	}
}

// What was altered is evidence, and stays.
func TestRetentionKeepsEvidence(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 10)
	tamper(t, l, `UPDATE audit SET target = 'x' WHERE id = 4`)
	if n, err := l.Remove(t.Context(), 0); n != 3 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if n, err := l.Remove(t.Context(), 0); n != 0 || err == nil || !strings.Contains(err.Error(), "damaged at seq 4, id 4") {
		t.Errorf("removed %d, %v", n, err)
	}
	if v := verify(t, l, audit.Point{}); v.Problem == nil || v.Problem.Seq != 4 {
		t.Errorf("found %v", v.Problem)
	}
	// Nor does damage stop the sealer.
	tamper(t, l, `UPDATE audit_checkpoint SET mac = ''`)
	fill(t, l, 3)
	if v := verify(t, l, audit.Point{}); v.Problem == nil || v.Unsealed != 0 {
		t.Errorf("found %v, and %d rows wait", v.Problem, v.Unsealed)
	}
}

func TestRowsAreOnlyRemovedByTheRetention(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 3)
	for _, sql := range []string{`DELETE FROM audit`, `DELETE FROM audit_seals`, `UPDATE audit_seals SET seq = seq`,
		`TRUNCATE audit_seals`,
		`SET LOCAL rolecall.retention = 'on'; UPDATE audit SET target = ''`, `SET LOCAL rolecall.retention = 'on'; TRUNCATE ` +
			`audit`} {
		_, err := l.DB.Pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		if err == nil || !strings.Contains(err.Error(), "are only ever added") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	_, err := l.Remove(t.Context(), 0)
	must(t, err)
	if _, err := l.DB.Pool.Exec(t.Context(), `DELETE FROM audit`); err == nil {
		t.Error("after the retention, anybody may remove rows")
	}
}

// A key that the master key does not open stops the sealer, and is said; no new chain begins.
func TestAnotherMasterKey(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 3)
	keys, err := control.ParseKeyring(control.NewMasterKey())
	must(t, err)
	db := *l.DB
	db.Keys = keys
	stranger := &audit.Log{DB: &db}
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser}))
	if n, err := stranger.Seal(t.Context()); n != 0 || err == nil ||
		!strings.Contains(err.Error(), "is encrypted with the master key") {
		t.Errorf("sealed %d, %v", n, err)
	}
	if v := verify(t, stranger, audit.Point{}); v.Problem == nil || v.Problem.Seq != 1 ||
		!strings.Contains(v.Problem.Reason, "is missing") {
		t.Errorf("found %v", v.Problem)
	}
	seal(t, l)
	mustHold(t, l, 4)
}

func TestRun(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	other := &audit.Log{DB: l.DB} // of another replica
	logged := &text{}
	logger := slog.New(slog.NewTextHandler(logged, nil))
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, r := range []*audit.Log{l, other} {
		running.Go(func() { r.Run(ctx, 0, logger) })
	}
	for i := range 3 {
		must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser}))
		for _, r := range []*audit.Log{l, other} {
			waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
			r.Wait(waiting, int64(i))
			cancel()
		}
		if l.Head().Seq != int64(i+1) || other.Head().Seq != int64(i+1) {
			t.Fatalf("the heads are %s and %s", l.Head(), other.Head())
		}
	}
	tamper(t, l, `WITH a AS (DELETE FROM audit WHERE id = 3) DELETE FROM audit_seals WHERE seq = 3`)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(logged.String(),
		"rows are missing"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody noticed a cut:\n%s", logged)
		}
	}
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser})) // sealed at the latest while it stops
	stop()
	running.Wait()
	if v := mustHold(t, l, 3); v.Unsealed != 0 || !strings.Contains(logged.String(), v.Head.String()) {
		t.Errorf("%d rows are left unsealed; head %s; log:\n%s", v.Unsealed, v.Head, logged)
	}
}

// The sealer survives an outage, and tells it once.
func TestRunThroughAnOutage(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	l := &audit.Log{DB: servicetest.Control(t, pg, "outage")}
	l.RetryAfter(100 * time.Millisecond)
	logged := &text{}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx, 0, slog.New(slog.NewTextHandler(logged, nil))); close(done) }()
	pg.Stop(t)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(logged.String(),
		"cannot be sealed"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the outage is not logged")
		}
	}
	pg.Start(t)
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.DeleteUser}))
	waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.Wait(waiting, 0)
	stop()
	<-done
	mustHold(t, l, 1)
	if n := strings.Count(logged.String(), "cannot be sealed"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged)
	}
}

type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// A replaced key seals what follows; the chain goes on.
func TestNextKey(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 3)
	_, err := l.DB.Pool.Exec(t.Context(), `INSERT INTO audit_keys (id, key) VALUES (2, $1)`,
		l.DB.Keys.Seal("audit_keys/2/key", []byte(strings.Repeat("k", 40))))
	must(t, err)
	fill(t, l, 3)
	mustHold(t, l, 6)
	var keys []int
	must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT array_agg(key_id ORDER BY seq) FROM audit_seals`).Scan(&keys))
	if !slices.Equal(keys, []int{1, 1, 1, 2, 2, 2}) {
		t.Errorf("sealed with %v", keys)
	}
}
