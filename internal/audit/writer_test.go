package audit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// entry uses every column of a row.
func entry() audit.Entry {
	return audit.Entry{Action: audit.ChangePassword, AccountGUID: "g", AccountName: "Gwen", Token: uuid.New(),
		Cluster: uuid.New(), Target: "user", RequestID: "r", Address: "::1",
		Detail: map[string]any{"n": 1.50, "list": []any{-0.5, 1e30, "ü<&>\u2028"}}}
}

// mustReport seals, and expects that exactly the row with this id was reported: by the sealer and by the verification.
func mustReport(t *testing.T, l *audit.Log, rows, id int64, reason string) {
	t.Helper()
	logged := &text{}
	must(t, l.SealPending(t.Context(), slog.New(slog.NewTextHandler(logged, nil))))
	if n := strings.Count(logged.String(), "that Rolecall did not write"); n != 1 ||
		!strings.Contains(logged.String(), fmt.Sprintf("id=%d reason=", id)) || !strings.Contains(logged.String(), reason) {
		t.Errorf("want one line about the row %d (%s), got\n%s", id, reason, logged)
	}
	v := verify(t, l, audit.Point{})
	if v.Problem == nil || v.Problem.ID != id || v.Problem.Seq == 0 || !strings.Contains(v.Problem.Reason, reason) {
		t.Errorf("the verification found %v, want %q of the row %d", v.Problem, reason, id)
	}
	if v.Checked != rows-1 || v.Forged != 1 || v.Head.Seq != rows || v.Unsealed != 0 {
		t.Errorf("%d rows hold, %d were forged, the head is %s; %d rows wait", v.Checked, v.Forged, v.Head, v.Unsealed)
	}
}

// The owner of the control database, who has no master key, adds and alters rows before they are sealed.
func TestForgedRows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sql, reason string }{
		"no MAC": {`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES (gen_random_uuid(),
			'outcome', 'user.password', 'done', 'g', 'Gwen')`, "has no MAC"},
		"no MAC, long ago": {`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name, time) VALUES
			(gen_random_uuid(), 'outcome', 'user.password', 'done', 'g', 'Gwen', '-infinity')`, "has no MAC"},
		"the MAC of another row": {`INSERT INTO audit (attempt, phase, time, action, outcome, account_guid, account_name,
			writer_mac) SELECT gen_random_uuid(), phase, time, action, outcome, account_guid, account_name, writer_mac
			FROM audit WHERE id = 1`,
			"Its MAC is wrong"},
		"an unknown key": {`UPDATE audit SET writer_mac = '\x00000009' || substr(writer_mac, 5) WHERE id = 2`, "Its MAC is wrong"},
		"a short MAC":    {`UPDATE audit SET writer_mac = '' WHERE id = 2`, "Its MAC is wrong"},
		"a MAC removed":  {`UPDATE audit SET writer_mac = NULL WHERE id = 2`, "has no MAC"},
		"attempt":        {`UPDATE audit SET attempt = gen_random_uuid() WHERE id = 2`, "Its MAC is wrong"},
		"phase":          {`UPDATE audit SET phase = 'outcome', outcome = 'done' WHERE id = 2`, "Its MAC is wrong"},
		"time":           {`UPDATE audit SET time = time - interval '1 microsecond' WHERE id = 2`, "Its MAC is wrong"},
		"action":         {`UPDATE audit SET action = 'user.delete' WHERE id = 2`, "Its MAC is wrong"},
		"account":        {`UPDATE audit SET account_guid = 'G' WHERE id = 2`, "Its MAC is wrong"},
		"account name":   {`UPDATE audit SET account_name = 'gwen' WHERE id = 2`, "Its MAC is wrong"},
		"cluster":        {`UPDATE audit SET cluster_id = NULL WHERE id = 2`, "Its MAC is wrong"},
		"target":         {`UPDATE audit SET target = 'x' WHERE id = 2`, "Its MAC is wrong"},
		"request":        {`UPDATE audit SET request_id = 'x' WHERE id = 2`, "Its MAC is wrong"},
		"address":        {`UPDATE audit SET address = '::2' WHERE id = 2`, "Its MAC is wrong"},
		"a number":       {`UPDATE audit SET detail = jsonb_set(detail, '{n}', '1.5000001') WHERE id = 2`, "Its MAC is wrong"},
		"a number for a text": {`UPDATE audit SET detail = jsonb_set(detail, '{n}', '"number 3/2"') WHERE id = 2`,
			"Its MAC is wrong"},
		"a key":       {`UPDATE audit SET detail = detail - 'token' WHERE id = 2`, "Its MAC is wrong"},
		"no settling": {`UPDATE audit SET settle_after = NULL WHERE id = 2`, "Its MAC is wrong"},
		"settling":    {`UPDATE audit SET settle_after = settle_after - interval '50 seconds' WHERE id = 2`, "Its MAC is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			must(t, l.Refused(t.Context(), entry()))
			seal(t, l)
			mustHold(t, l, 1)
			a, err := l.Begin(t.Context(), entry(), time.Minute)
			must(t, err)
			rows, id := int64(3), int64(2)
			tamper(t, l, c.sql)
			if strings.HasPrefix(c.sql, "INSERT") { // its trigger does not run
				rows, id = 4, 3
				tamper(t, l, `INSERT INTO audit_unsealed SELECT 3`)
			}
			if err := l.End(t.Context(), a, audit.Result{Outcome: audit.Done, Previous: uuid.New()}); name == "phase" {
				if rows = 2; err == nil {
					t.Error("a forged outcome that has taken the place of the true one is not noticed")
				}
			} else {
				must(t, err)
			}
			mustReport(t, l, rows, id, c.reason)
		})
	}
}

// A row is neither added twice nor again after the retention has removed it.
func TestReplayedRows(t *testing.T) {
	t.Parallel()
	const columns = `attempt, phase, time, action, outcome, account_guid, account_name, cluster_id, target, request_id, ` +
		`address, detail, settle_after, writer_mac`
	l := newLog(t)
	fill(t, l, 3)
	tamper(t, l, `CREATE TABLE kept AS SELECT * FROM audit WHERE id = 2`)
	_, err := l.DB.Pool.Exec(t.Context(), `ALTER TABLE audit DROP CONSTRAINT audit_attempt_phase_key`)
	must(t, err)
	_, err = l.DB.Pool.Exec(t.Context(), `INSERT INTO audit (`+columns+`) SELECT `+columns+` FROM kept`)
	must(t, err)
	logged := &text{}
	must(t, l.SealPending(t.Context(), slog.New(slog.NewTextHandler(logged, nil))))
	if !strings.Contains(logged.String(), "It is a copy") {
		t.Errorf("a copy was sealed without a word: %s", logged)
	}
	if v := verify(t, l, audit.Point{}); v.Problem == nil || v.Forged != 2 ||
		!strings.Contains(v.Problem.Reason, "It is a copy") {
		t.Errorf("a copy: %+v", v.Problem)
	}

	l = newLog(t)
	fill(t, l, 2)
	tamper(t, l, `CREATE TABLE kept AS SELECT * FROM audit WHERE id = 1`)
	_, err = l.Remove(t.Context(), 0)
	must(t, err)
	l.LateBy(time.Microsecond)
	_, err = l.DB.Pool.Exec(t.Context(), `INSERT INTO audit (`+columns+`) SELECT `+columns+` FROM kept`)
	must(t, err)
	logged = &text{}
	must(t, l.SealPending(t.Context(), slog.New(slog.NewTextHandler(logged, nil))))
	v := verify(t, l, audit.Point{})
	if !strings.Contains(logged.String(), "a removed row was inserted again") || v.Problem == nil || v.Problem.ID != 3 ||
		v.Checked != 1 || !strings.Contains(v.Problem.Reason, "a removed row was inserted again") {
		t.Errorf("a removed row that is inserted again: %v, logged %s", v.Problem, logged)
	}
}

// What cannot be recorded is not done, however the owner of the control database prevents it.
func TestRowsThatDoNotArrive(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"swallowed": `RETURN NULL;`,
		"replaced": `IF NEW.writer_mac IS NULL THEN RETURN NEW; END IF;
			INSERT INTO rolecall.audit (attempt, phase, action, outcome, account_guid, account_name)
			VALUES (NEW.attempt, NEW.phase, NEW.action, NEW.outcome, 'somebody', ''); RETURN NULL;`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			good, err := l.Begin(t.Context(), entry(), time.Minute)
			must(t, err)
			for _, sql := range []string{
				`CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + body + ` END $$`,
				`CREATE TRIGGER swallow BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION swallow()`,
			} {
				_, err := l.DB.Pool.Exec(t.Context(), sql)
				must(t, err)
			}
			if _, err := l.Begin(t.Context(), entry(), time.Minute); !fault.Is(err, fault.Unavailable) {
				t.Errorf("an attempt: %v", err)
			}
			if err := l.End(t.Context(), good, audit.Result{Outcome: audit.Done}); !fault.Is(err, fault.Unavailable) ||
				!strings.Contains(err.Error(), "may have been made") {
				t.Errorf("an outcome: %v", err)
			}
			why := errors.New("no")
			if err := l.Refuse(t.Context(), entry(), why); err == nil || err.Error() == why.Error() {
				t.Errorf("a refusal: %v", err)
			}
			for change, record := range map[string]func(tx pgx.Tx) error{
				"a transaction": func(tx pgx.Tx) error { return l.Record(t.Context(), tx, entry()) },
				"a batch":       func(tx pgx.Tx) error { return l.Send(t.Context(), tx, &pgx.Batch{}, entry()) },
			} {
				err := l.DB.Tx(t.Context(), func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), `INSERT INTO watermarks VALUES ($1, now())`, change); err != nil {
						return err
					}
					return record(tx)
				})
				if err == nil {
					t.Errorf("%s commits without its row", change)
				}
			}
			var done int
			must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM watermarks WHERE name LIKE 'a %'`).Scan(&done))
			if done != 0 {
				t.Errorf("%d changes were made without a record", done)
			}
		})
	}
}

// A row that is there already is no failure: the settler was quicker, or a lost connection made the insert be repeated.
func TestRowsThatAreThere(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	a, err := l.Begin(t.Context(), entry(), time.Minute)
	must(t, err)
	settler := &audit.Log{DB: l.DB}
	must(t, settler.End(t.Context(), a, audit.Result{Outcome: audit.Unknown}))
	must(t, l.End(t.Context(), a, audit.Result{Outcome: audit.Done}))
	seal(t, l)
	mustHold(t, l, 2)
}

// The clock of a replica does not matter: neither for its rows nor for when its attempts are settled.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{-time.Hour, time.Hour} {
		l := newLog(t)
		l.ShiftClock(wrong)
		_, err := l.Begin(t.Context(), entry(), time.Minute)
		must(t, err)
		l.ShiftClock(wrong)
		must(t, l.DB.Tx(t.Context(), func(tx pgx.Tx) error { return l.Record(t.Context(), tx, entry()) }))
		l.ShiftClock(wrong)
		must(t, sendBatch(t, l))
		seal(t, l)
		mustHold(t, l, 3)
		var near bool
		must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT bool_and(abs(extract(epoch FROM clock_timestamp() - time)) < 60) AND
			bool_and(settle_after - time = interval '1 minute' OR settle_after IS NULL) FROM audit`).Scan(&near))
		if !near {
			t.Errorf("rows have the time of a clock that is wrong by %s", wrong)
		}
	}
}

// sendBatch records a change in the batch that makes it.
func sendBatch(t *testing.T, l *audit.Log) error {
	return l.DB.Tx(t.Context(), func(tx pgx.Tx) error { return l.Send(t.Context(), tx, &pgx.Batch{}, entry()) })
}

// writes are the ways to write a row.
var writes = map[string]func(t *testing.T, l *audit.Log) error{
	"an attempt and its outcome": func(t *testing.T, l *audit.Log) error {
		a, err := l.Begin(t.Context(), entry(), time.Minute)
		must(t, err)
		return l.End(t.Context(), a, audit.Result{Outcome: audit.Done})
	},
	"a transaction": func(t *testing.T, l *audit.Log) error {
		return l.DB.Tx(t.Context(), func(tx pgx.Tx) error { return l.Record(t.Context(), tx, entry()) })
	},
	"a refusal": func(t *testing.T, l *audit.Log) error { return l.Refused(t.Context(), entry()) },
	"a batch":   sendBatch,
}

// A new master key re-encrypts the key of the log. No call of a running replica notices it.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := control.NewMasterKey(), control.NewMasterKey()
			l := newLog(t)
			rotated := *l.DB
			var err error
			l.DB.Keys, err = control.ParseKeyring(old + "\n" + next)
			must(t, err)
			rotated.Keys, err = control.ParseKeyring(next + "\n" + old)
			must(t, err)
			tamper(t, l, `DELETE FROM fingerprint_keys`)         // is encrypted with neither
			must(t, l.ReplaceKey(t.Context(), make([]byte, 40))) // is encrypted with the old one
			must(t, write(t, l))
			must(t, write(t, l))
			done, err := rotated.Reseal(t.Context(), func(pgx.Tx, *control.Resealed) error { return nil })
			if err != nil || done.Total() != 1 {
				t.Fatalf("re-encrypted: %+v, %v", done, err)
			}
			must(t, write(t, l))
			must(t, write(t, l))
			seal(t, l)
			if v := verify(t, l, audit.Point{}); v.Problem != nil || v.Checked < 4 {
				t.Errorf("%d rows are intact; %v", v.Checked, v.Problem)
			}
		})
	}
}

// A failover to an asynchronous standby loses the newest key and the rows since then. Running replicas write rows that can
// be verified all the same, also after a restart.
func TestLostKey(t *testing.T) {
	t.Parallel()
	for name, write := range writes {
		for _, c := range []struct {
			name     string
			upgraded bool // key 1 is of a release without MACs, and key 2 is lost; else key 1 is lost
			started  bool // another replica has made a new key
			restored bool // the key is as before
		}{
			{"new", false, false, true}, {"upgraded", true, false, true}, {"new, started", false, true, false},
			{"upgraded, started", true, true, false},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				l := newLog(t)
				open := func() *audit.Log {
					t.Helper()
					db, err := control.Open(t.Context(), l.DB.Pool.Config().ConnString(), l.DB.Keys, servicetest.Patient)
					must(t, err)
					t.Cleanup(db.Close)
					return &audit.Log{DB: db}
				}
				id := 1
				if c.upgraded {
					id = 2
					must(t, l.ReplaceKey(t.Context(), []byte(strings.Repeat("k", 32))))
				}
				first, second, idle := open(), open(), open()
				must(t, first.Refused(t.Context(), entry()))
				must(t, second.Refused(t.Context(), entry()))
				key := func() (secret []byte) {
					t.Helper()
					var newest int
					must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT id, key FROM audit_keys ORDER BY id DESC LIMIT 1`).
						Scan(&newest, &secret))
					secret, err := l.DB.Keys.OpenAuditKey(newest, secret)
					must(t, err)
					if newest != id {
						t.Fatalf("the newest key is %d, want %d", newest, id)
					}
					return secret
				}
				before := key()
				tamper(t, l, fmt.Sprintf(`DELETE FROM audit; DELETE FROM audit_unsealed; DELETE FROM audit_keys WHERE id = %d`, id))
				if c.started {
					open()
				}
				must(t, write(t, first))
				must(t, write(t, second))
				must(t, write(t, idle))
				if got := bytes.Equal(key(), before); got != c.restored {
					t.Errorf("the key is the same: %t, want %t", got, c.restored)
				}
				if _, signs := control.MACsRequired(key()); !signs {
					t.Error("no key requires MACs")
				}
				l = open()
				seal(t, l)
				if v := verify(t, l, audit.Point{}); v.Problem != nil || v.Checked < 3 {
					t.Errorf("%d rows hold; %v", v.Checked, v.Problem)
				}
			})
		}
	}
}

// A replica that has not written yet makes the key that a failover has lost.
func TestLostKeyUnused(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	must(t, l.ReplaceKey(t.Context(), []byte(strings.Repeat("k", 32)))) // as if key 2 had been lost
	must(t, l.Refused(t.Context(), entry()))
	var keys int
	must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_keys`).Scan(&keys))
	if keys != 2 {
		t.Errorf("there are %d keys", keys)
	}
	tamper(t, l, `DELETE FROM audit; DELETE FROM audit_unsealed; DELETE FROM audit_keys`)
	l = &audit.Log{DB: l.DB}
	must(t, l.Refused(t.Context(), entry()))
	seal(t, l)
	mustHold(t, l, 1)
}

// A row that Rolecall did not write, and that an operator knows of, does not hide that rows are cut off.
func TestForgedRowAndAnchor(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	fill(t, l, 3)
	tamper(t, l, `INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES (gen_random_uuid(),
		'outcome', 'x', 'done', '', ''); INSERT INTO audit_unsealed SELECT 4`)
	fill(t, l, 1)
	head := verify(t, l, audit.Point{}).Head
	if v := verify(t, l, head); v.Problem == nil || v.Problem.ID != 4 || v.Head.Seq != 5 {
		t.Errorf("found %v", v.Problem)
	}
	tamper(t, l, `DELETE FROM audit_seals WHERE seq = 5; DELETE FROM audit WHERE id = 5`)
	if v := verify(t, l, head); v.Problem == nil || v.Problem.Seq != 5 ||
		!strings.Contains(v.Problem.Reason, "Rows are missing") {
		t.Errorf("found %v", v.Problem)
	}
}

// An attempt whose time is none gets an outcome as well: it does not stop the settler.
func TestSettleForgedTime(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	_, err := l.DB.Pool.Exec(t.Context(), `INSERT INTO audit (attempt, phase, time, action, account_guid, account_name,
		settle_after) VALUES (gen_random_uuid(), 'attempt', 'infinity', 'user.password', '', '', now())`)
	must(t, err)
	settled, left, err := l.Settle(t.Context(), func(context.Context, *audit.Attempt) (audit.Result, error) {
		return audit.Result{Outcome: audit.Unknown}, nil
	})
	if settled != 1 || left != 0 || err != nil {
		t.Errorf("settled %d, left %d, %v", settled, left, err)
	}
}

// The time for the upgrade ends by the clock of the control database, from which the times of rows are.
func TestUpgradeWindowClock(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	must(t, l.ReplaceKey(t.Context(), []byte(strings.Repeat("k", 32))))
	for _, sql := range []string{
		`ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock`,
		`CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql AS
			$$ SELECT pg_catalog.true_clock() + interval '1000 days' $$`,
	} {
		_, err := l.DB.Pool.Exec(t.Context(), sql)
		must(t, err)
	}
	db, err := control.Open(t.Context(), l.DB.Pool.Config().ConnString(), l.DB.Keys, servicetest.Patient)
	must(t, err)
	t.Cleanup(db.Close)
	var sealed []byte
	must(t, db.Pool.QueryRow(t.Context(), `SELECT key FROM audit_keys WHERE id = 2`).Scan(&sealed))
	secret, err := db.Keys.OpenAuditKey(2, sealed)
	must(t, err)
	required, _ := control.MACsRequired(secret)
	if by := time.Until(required); by < 999*24*time.Hour {
		t.Errorf("MACs are required in %s, by the clock of this machine", by)
	}
}

// Rows of a release that makes no MACs stay valid: those from before the upgrade, and those that its replicas write beside
// this release until the time for the upgrade is over.
func TestUpgradeToMACs(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	former := func(at string) {
		t.Helper()
		_, err := l.DB.Pool.Exec(t.Context(), `INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name,
			time) VALUES (gen_random_uuid(), 'outcome', 'x', 'done', '', '', clock_timestamp() + $1::interval)`, at)
		must(t, err)
	}
	// As the former release has left it: a key without a time, and rows without a MAC.
	must(t, l.ReplaceKey(t.Context(), []byte(strings.Repeat("k", 32))))
	former("-1 hour")
	db, err := control.Open(t.Context(), l.DB.Pool.Config().ConnString(), l.DB.Keys, servicetest.Patient)
	must(t, err)
	t.Cleanup(db.Close)
	l = &audit.Log{DB: db}
	seal(t, l)
	must(t, l.Refused(t.Context(), entry()))
	former("0 seconds") // beside this release
	seal(t, l)
	mustHold(t, l, 3)
	var key int
	must(t, db.Pool.QueryRow(t.Context(), `SELECT key_id FROM audit_seals ORDER BY seq DESC LIMIT 1`).Scan(&key))
	if key != 2 {
		t.Errorf("sealed with the key %d", key)
	}
	// A start makes no further key, so that the time for the upgrade is not longer.
	again, err := control.Open(t.Context(), l.DB.Pool.Config().ConnString(), l.DB.Keys, servicetest.Patient)
	must(t, err)
	again.Close()
	var keys int
	must(t, db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit_keys`).Scan(&keys))
	if keys != 2 {
		t.Errorf("there are %d keys", keys)
	}
	// After that time.
	former((control.UpgradeWindow + time.Hour).String())
	mustReport(t, l, 4, 4, "has no MAC")

	// Nor does an old time help, once the chain has a row from after that time.
	l = newLog(t)
	over := binary.BigEndian.AppendUint64([]byte(strings.Repeat("k", 32)), uint64(time.Now().Add(-time.Hour).Unix()))
	must(t, l.ReplaceKey(t.Context(), over))
	former("-2 hours")
	must(t, l.Refused(t.Context(), entry()))
	seal(t, l)
	mustHold(t, l, 2)
	former("-2 hours")
	mustReport(t, l, 3, 3, "has no MAC")
}

// A newer key that is taken away does not bring back the rules of an older one.
func TestHiddenKey(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	must(t, l.ReplaceKey(t.Context(), []byte(strings.Repeat("k", 32))))
	_, err := l.DB.Pool.Exec(t.Context(), `INSERT INTO audit_keys (id, key) VALUES (2, $1)`,
		l.DB.Keys.Seal("audit_keys/2/key", make([]byte, 40)))
	must(t, err)
	fill(t, l, 2)
	tamper(t, l, `UPDATE audit_keys SET id = -2 WHERE id = 2`)
	_, err = l.DB.Pool.Exec(t.Context(), `INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name)
		VALUES (gen_random_uuid(), 'outcome', 'x', 'done', '', '')`)
	must(t, err)
	seal(t, l)
	tamper(t, l, `UPDATE audit_keys SET id = 2 WHERE id = -2`)
	if v := verify(t, l, audit.Point{}); v.Problem == nil || v.Problem.ID != 3 ||
		!strings.Contains(v.Problem.Reason, "the newer key was hidden") {
		t.Errorf("found %v", v.Problem)
	}
}

// PostgreSQL keeps a detail as jsonb, which has another text; the MAC covers what the two have in common.
func TestPlainJSON(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	for _, v := range []any{nil, true, "", "ü\u2028<>&\"\\\u0001", 0, -1, 1 << 53, 0.1, 1e-7, 1e21, -1.5e300, 12345.678,
		[]any{}, map[string]any{}, map[string]any{"b": 1, "a": []any{1.0, "1"}, "aa": nil, "": map[string]any{"x": 2.50}},
		json.RawMessage(`{"a":1,"a":2,"b":1.10e2,"c":-0,"d":-0.0,"e":0.10}`)} {
		sent, err := json.Marshal(v)
		must(t, err)
		stored := pgtest.Value[string](t, pg, `SELECT '`+strings.ReplaceAll(string(sent), "'", "''")+`'::jsonb::text`)
		want, err := audit.PlainJSON(sent)
		must(t, err)
		got, err := audit.PlainJSON([]byte(stored))
		if err != nil || got != want {
			t.Errorf("%s is stored as %s: %s and %s, %v", sent, stored, want, got, err)
		}
	}
	a, errA := audit.PlainJSON([]byte(`{"a":1.0}`))
	b, errB := audit.PlainJSON([]byte(`{"a":"1.0"}`))
	if a == b || errA != nil || errB != nil {
		t.Errorf("a number and a text are both %s", a)
	}
	if _, err := audit.PlainJSON(bytes.Repeat([]byte("["), 20000)); err == nil {
		t.Error("a bottomless list is accepted")
	}
}

func BenchmarkBegin(b *testing.B) {
	l := newLog(b)
	for b.Loop() {
		_, err := l.Begin(b.Context(), entry(), time.Minute)
		must(b, err)
	}
}

func BenchmarkBeginParallel(b *testing.B) {
	l := newLog(b)
	b.SetParallelism(16)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			_, err := l.Begin(b.Context(), entry(), time.Minute)
			must(b, err)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	l := newLog(b)
	for b.Loop() {
		must(b, l.DB.Tx(b.Context(), func(tx pgx.Tx) error { return l.Record(b.Context(), tx, entry()) }))
	}
}

func BenchmarkSealAndVerify(b *testing.B) {
	l := newLog(b)
	const rows = 1000
	for range rows {
		must(b, l.Refused(b.Context(), entry()))
	}
	seal(b, l)
	for _, table := range []string{"audit", "audit_seals"} {
		_, err := l.DB.Pool.Exec(b.Context(), `ALTER TABLE `+table+` DISABLE TRIGGER USER`)
		must(b, err)
	}
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			_, err := l.DB.Pool.Exec(b.Context(), `INSERT INTO audit_unsealed SELECT id FROM audit`)
			must(b, err)
			_, err = l.DB.Pool.Exec(b.Context(), `DELETE FROM audit_seals`)
			must(b, err)
			b.StartTimer()
			seal(b, l)
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			verify(b, l, audit.Point{})
		}
	})
}
