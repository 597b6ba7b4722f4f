package audit_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func newLog(t testing.TB) *audit.Log {
	t.Helper()
	return &audit.Log{DB: servicetest.Control(t, pgtest.Shared(t), fmt.Sprint("audit_", made.Add(1)))}
}

var made atomic.Int64 // a test may have several logs, and -count runs it several times

// rows is the log in short.
func rows(t testing.TB, l *audit.Log) string {
	t.Helper()
	var text string
	err := l.DB.Pool.QueryRow(t.Context(), `
		SELECT coalesce(string_agg(concat_ws(' ', phase, action, outcome, account_guid, cluster_id, target, detail), E'\n' ORDER
		  BY id), '') FROM audit`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	ctx := t.Context()
	cluster := uuid.New()
	e := audit.Entry{Action: audit.CreateUser, AccountGUID: "g", AccountName: "n", Cluster: cluster, Target: "ü'\"",
		RequestID: "r", Address: "::1", Detail: map[string]any{"a": "b"}}
	a, err := l.Begin(ctx, e, time.Minute)
	must(t, err)
	if a.ID.Version() != 7 {
		t.Errorf("the attempt has the id %s", a.ID)
	}
	must(t, l.End(ctx, a, audit.Result{Outcome: audit.Done}))
	// a second outcome is ignored
	must(t, l.End(ctx, a, audit.Result{Outcome: audit.NotDone, Detail: map[string]any{"reason": "late"}}))
	must(t, l.Refused(ctx, audit.Entry{Action: audit.DeleteUser, AccountGUID: "g2", Target: "x"}))
	no := errors.New("no")
	err = l.DB.Tx(ctx, func(tx pgx.Tx) error {
		must(t, l.Record(ctx, tx, audit.Entry{Action: audit.CreateAccount, Target: "rolled back"}))
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	must(t, l.DB.Tx(ctx, func(tx pgx.Tx) error {
		return l.Record(ctx, tx, audit.Entry{Action: audit.CreateAccount, Target: "kept"})
	}))
	want := strings.ReplaceAll(`attempt user.create g CLUSTER ü'" {"a": "b"}
outcome user.create done g CLUSTER ü'" {}
outcome user.delete denied g2 x {}
outcome account.create done  kept {}`, "CLUSTER", cluster.String())
	if got := rows(t, l); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What somebody only asked for takes a bounded place; what was done is there as a whole.
func TestLongDetail(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	long := strings.Repeat("ü", 5000)
	list := slices.Repeat([]string{"r"}, 5000)
	object := map[string]any{}
	for n := range 200 {
		object[fmt.Sprint(long[:600], n)] = map[string][]string{"deep": {long[:600]}}
	}
	e := audit.Entry{Action: audit.CreateUser, Detail: map[string]any{"text": long, "list": list, "object": object,
		"number": 1}}
	must(t, l.Refused(t.Context(), e))
	a, err := l.Begin(t.Context(), e, time.Minute)
	must(t, err)
	must(t, l.End(t.Context(), a, audit.Result{Outcome: audit.NotDone, Detail: e.Detail}))
	var longest, texts, lists int
	must(t, l.DB.Pool.QueryRow(t.Context(), `
		SELECT max(length(detail::text)), max(length(detail ->> 'text')), max(jsonb_array_length(detail -> 'list'))
		FROM audit WHERE detail ->> 'number' = '1' AND detail #>> '{list,100}' =
		  '… and 4900 more'`).Scan(&longest, &texts, &lists))
	if longest > 60_000 || texts != 256 || lists != 101 {
		t.Errorf("rows have up to %d characters, texts %d, lists %d elements", longest, texts, lists)
	}
	must(t, l.DB.Tx(t.Context(), func(tx pgx.Tx) error { return l.Record(t.Context(), tx, e) }))
	var whole bool
	must(t, l.DB.Pool.QueryRow(t.Context(), `
		SELECT detail ->> 'text' = $1 AND jsonb_array_length(detail -> 'list') = 5000 FROM audit WHERE outcome =
		  'done'`, long).Scan(&whole))
	if !whole {
		t.Error("what was done is cut")
	}
}

// The first refusals of an account in a minute are recorded, on whatever replica; then it is told to wait, and nothing is
// added. Others are not held up, and neither is the account later.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	replicas := []*audit.Log{l, {DB: l.DB}}
	why := fault.New(fault.Forbidden, "no")
	refuse := func(account string) error {
		return replicas[time.Now().UnixNano()%2].Refuse(t.Context(), audit.Entry{Action: audit.DeleteUser, AccountGUID: account},
			why)
	}
	recorded := func(account string) (n int) {
		must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit WHERE outcome = 'denied' AND account_guid = $1`,
			account).Scan(&n))
		return n
	}
	refused := 0
	var err error
	for err = refuse("a"); fault.Is(err, fault.Forbidden) && refused < 10*audit.MaxRefusals; err = refuse("a") {
		refused++
	}
	if f := fault.Of(err); f.Kind != fault.TooMany || f.RetryAfter <= 0 || f.RetryAfter > time.Minute || !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if n := recorded("a"); n != refused || n < audit.MaxRefusals {
		t.Errorf("%d of %d refusals are recorded", n, refused)
	}
	if err := refuse("b"); !fault.Is(err, fault.Forbidden) || recorded("b") != 1 {
		t.Errorf("somebody else: %v, %d rows", err, recorded("b"))
	}
	_, err = l.DB.Pool.Exec(t.Context(), `UPDATE refusals SET minute = minute - interval '1 minute'`)
	must(t, err)
	if err := refuse("a"); !fault.Is(err, fault.Forbidden) || recorded("a") != refused+1 {
		t.Errorf("a minute later: %v, %d rows", err, recorded("a"))
	}
	_, err = l.DB.Pool.Exec(t.Context(), `DROP TABLE audit CASCADE`)
	must(t, err)
	if err := refuse("a"); !fault.Is(err, fault.Forbidden) || err.Error() == why.Error() {
		t.Errorf("not recorded: %v", err)
	}
}

func TestRowsAreOnlyAdded(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	_, err := l.Begin(t.Context(), audit.Entry{Action: audit.CreateUser, Target: "x"}, time.Minute)
	must(t, err)
	before := rows(t, l)
	for _, sql := range []string{`UPDATE audit SET target = 'y'`, `UPDATE audit SET target = 'y' WHERE false`,
		`DELETE FROM audit`, `TRUNCATE audit`} {
		if _, err := l.DB.Pool.Exec(t.Context(), sql); err == nil ||
			!strings.Contains(err.Error(), "rows of audit are only ever added") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{
		`INSERT INTO audit (attempt, phase, action, account_guid, account_name) VALUES (gen_random_uuid(), 'outcome', 'x', '', ` +
			`'')`,
		`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES (gen_random_uuid(), 'attempt', ` +
			`'x', 'done', '', '')`,
		`INSERT INTO audit (attempt, phase, action, outcome, account_guid, account_name) VALUES (gen_random_uuid(), 'outcome', ` +
			`'x', 'perhaps', '', '')`,
		`INSERT INTO audit (attempt, phase, action, account_guid, account_name) SELECT attempt, 'attempt', 'x', '', '' FROM audit`,
	} {
		if _, err := l.DB.Pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: taken", sql)
		}
	}
	if got := rows(t, l); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
}

func TestBeginFails(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	_, err := l.DB.Pool.Exec(t.Context(), `DROP TABLE audit`)
	must(t, err)
	_, err = l.Begin(t.Context(), audit.Entry{}, time.Minute)
	if f := fault.Of(err); f.Kind != fault.Unavailable || f.RetryAfter == 0 || strings.Contains(f.Message, "relation") {
		t.Errorf("got %v", err)
	}
}

func TestLater(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	cluster, elsewhere := uuid.New(), uuid.New()
	begin := func(cluster uuid.UUID, target string) *audit.Attempt {
		a, err := l.Begin(t.Context(), audit.Entry{Action: audit.CreateUser, Cluster: cluster, Target: target}, time.Minute)
		must(t, err)
		return a
	}
	first := begin(cluster, "x")
	begin(elsewhere, "x")
	begin(cluster, "y")
	must(t, l.Refused(t.Context(), audit.Entry{Action: audit.CreateUser, Cluster: cluster, Target: "x"}))
	must(t, l.End(t.Context(), first, audit.Result{Outcome: audit.Done}))
	if later, err := l.Later(t.Context(), first); err != nil || later {
		t.Errorf("got %t, %v, want none later", later, err)
	}
	last := begin(cluster, "x")
	if later, err := l.Later(t.Context(), first); err != nil || !later {
		t.Errorf("got %t, %v, want one later", later, err)
	}
	if later, err := l.Later(t.Context(), last); err != nil || later {
		t.Errorf("got %t, %v, want none later than the last", later, err)
	}
}

func TestFailedSignIns(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	for range 3 {
		must(t, l.FailedSignIn(t.Context(), "g", "::1"))
	}
	must(t, l.FailedSignIn(t.Context(), "unknown", "::1"))
	var total, most int
	must(t, l.DB.Pool.QueryRow(t.Context(), `SELECT sum(count), count(DISTINCT account) FROM failed_sign_ins`).Scan(&total,
		&most))
	if total != 4 || most != 2 {
		t.Errorf("%d failures of %d accounts are counted, want 4 of 2", total, most)
	}
}
