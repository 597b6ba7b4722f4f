package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Row is a sealed row of the log.
type Row struct {
	Point
	ID                       int64
	Attempt                  uuid.UUID // what an attempt and its outcome share
	Phase                    string    // attempt or outcome
	Time                     time.Time
	Action                   string
	Outcome                  Outcome // "" for an attempt
	AccountGUID, AccountName string
	Cluster                  uuid.UUID
	Target                   string
	RequestID, Address       string
	Detail                   json.RawMessage
}

// Filter picks rows; what is zero does not count.
type Filter struct {
	Account      string // guid or user name, which is found in any case
	Cluster      uuid.UUID
	Target       string
	Action       string
	Outcome      Outcome
	Since, Until time.Time // from the first on, before the second
	Visible      *Visible  // nil: everything
}

// Visible limits what somebody sees to the rows about them and those of some clusters.
type Visible struct {
	Account  string // guid; "" for nobody's
	Clusters []uuid.UUID
}

// Page is a part of the log in the order of seq. After is the seq behind which it begins; 0 is the beginning, or the end
// when it runs backward.
type Page struct {
	After    int64
	Backward bool
	Limit    int
}

// manyClusters is up to how many clusters each is looked up in the index by itself. Who sees more than that sees so much
// of the log that going through it finds a page soon.
const manyClusters = 30

// lateBy is how much later than a younger row a row may be sealed: more than any transaction lives.
const (
	lateBy   = "10 minutes"
	lateness = 10 * time.Minute // the same
)

// Rows returns a page of the sealed rows, and whether more follow. Rows that are sealed concurrently come after all others,
// so paging by seq neither misses nor repeats one.
func (l *Log) Rows(ctx context.Context, f Filter, p Page) (rows []*Row, more bool, err error) {
	sql, args := query(f, p)
	// The statement is planned for its values: a plan for any account is a bad one for most.
	found, err := l.DB.Pool.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	rows, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (*Row, error) {
		var r Row
		return &r, row.Scan(&r.Seq, &r.MAC, &r.ID, &r.Attempt, &r.Phase, &r.Time, &r.Action, &r.Outcome, &r.AccountGUID,
			&r.AccountName,
			&r.Cluster, &r.Target, &r.RequestID, &r.Address, &r.Detail)
	})
	if err != nil {
		return nil, false, control.Fault(err)
	}
	if more = len(rows) > p.Limit; more {
		rows = rows[:p.Limit]
	}
	return rows, more, nil
}

// query writes the statement for a page. An OR would defeat the indexes, which give a filter together with the order; so
// each of its sides is a query of its own, limited by itself, and PostgreSQL merges them. No side holds a row of another.
func query(f Filter, p Page) (sql string, args []any) {
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	var all []string // conditions of every side
	where := func(format string, v any) { all = append(all, fmt.Sprintf(format, arg(v))) }
	order, beyond := "seq", "seq > %s"
	if p.Backward {
		order, beyond = "seq DESC", "seq < %s"
	}
	if p.After > 0 || !p.Backward {
		where(beyond, p.After)
	}
	// Times are almost in the order of seq. The second condition of each pair says so to PostgreSQL, which then need not
	// go through all rows that are too old or too young.
	if !f.Since.IsZero() {
		where("time >= %s", f.Since)
		all = append(all, fmt.Sprintf(`seq > coalesce((SELECT seq FROM audit_seals WHERE time < $%d::timestamptz - interval '`+
			lateBy+`' ORDER BY time DESC, seq DESC LIMIT 1), 0)`, len(args)))
	}
	if !f.Until.IsZero() {
		where("time < %s", f.Until)
		all = append(all, fmt.Sprintf(`seq < coalesce((SELECT seq FROM audit_seals WHERE time > $%d::timestamptz + interval '`+
			lateBy+`' ORDER BY time, seq LIMIT 1), 9223372036854775807)`, len(args)))
	}
	if f.Target != "" {
		where("target = left(%s, 200)", f.Target)
	}
	if f.Action != "" {
		where("action = %s", f.Action)
	}
	if f.Outcome != "" {
		where("outcome = %s", string(f.Outcome))
	}
	if f.Cluster != uuid.Nil {
		where("cluster_id = %s", f.Cluster)
	}
	sides := []string{"true"}
	if f.Account != "" {
		account := arg(f.Account)
		sides = []string{
			"account_guid = left(" + account + ", 200)",
			"lower(account_name) = lower(left(" + account + ", 200)) AND account_guid <> left(" + account + ", 200)",
		}
	}
	if f.Visible != nil {
		var product []string
		for _, side := range sides {
			for _, visible := range f.Visible.sides(f.Cluster, arg) {
				product = append(product, side+" AND "+visible)
			}
		}
		sides = product
	}
	limit := arg(p.Limit + 1)
	for i, side := range sides {
		sides[i] = "(SELECT seq, mac, audit_id FROM audit_seals WHERE " + strings.Join(append(slices.Clone(all), side), " AND ") +
			" ORDER BY " + order + " LIMIT " + limit + ")"
	}
	// A row that somebody removed still counts for the page, and shows as an empty one.
	return `SELECT s.seq, s.mac, s.audit_id, coalesce(a.attempt, '00000000-0000-0000-0000-000000000000'), coalesce(a.phase, ''),
		  coalesce(a.time, 'epoch'), coalesce(a.action, ''), coalesce(a.outcome, ''), coalesce(a.account_guid, ''),
		    coalesce(a.account_name, ''),
		  coalesce(a.cluster_id, '00000000-0000-0000-0000-000000000000'), coalesce(a.target, ''), coalesce(a.request_id, ''),
		  coalesce(a.address, ''), coalesce(a.detail, '{}')
		FROM (SELECT * FROM (` + strings.Join(sides, " UNION ALL ") + `) u ORDER BY ` + order + ` LIMIT ` + limit + `) s
		LEFT JOIN audit a ON a.id = s.audit_id ORDER BY s.` + order, args
}

// sides are the conditions of what is visible, no row being in two. Rows of one cluster are asked for, or of any.
func (v *Visible) sides(cluster uuid.UUID, arg func(v any) string) (sides []string) {
	clusters := v.Clusters
	if cluster != uuid.Nil {
		clusters = nil
		if slices.Contains(v.Clusters, cluster) {
			clusters = []uuid.UUID{cluster}
		}
	}
	self, others := "", ""
	if v.Account != "" {
		guid := arg(v.Account)
		self, others = "account_guid = "+guid, " AND account_guid <> "+guid
		sides = append(sides, self)
	}
	if len(clusters) > manyClusters {
		all := "cluster_id = ANY(" + arg(clusters) + ")"
		if self != "" {
			all = "(" + self + " OR " + all + ")"
		}
		return []string{all}
	}
	for _, c := range clusters {
		sides = append(sides, "cluster_id = "+arg(c)+others)
	}
	if len(sides) == 0 {
		return []string{"false"}
	}
	return sides
}

// Knows reports whether there is a row of what an account with this guid did, sealed or not.
func Knows(ctx context.Context, tx pgx.Tx, guid string) (known bool, err error) {
	err = tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM audit_seals WHERE account_guid = $1)
		  OR EXISTS (SELECT FROM audit_unsealed u JOIN audit a ON a.id = u.audit_id WHERE a.account_guid = $1)`, guid).Scan(&known)
	return known, err
}

// FailedSignIns is the failed sign-ins of an account from an address within a minute. They are counted, not chained:
// guesses come by the thousand.
type FailedSignIns struct {
	Minute           time.Time
	Account, Address string // the guid, or "unknown"
	Count            int
}

// FailedSignIns returns up to limit counts behind the last one that was seen, and whether more follow. They come in the
// order of their minutes, beginning with since.
func (l *Log) FailedSignIns(ctx context.Context, since time.Time, after FailedSignIns,
	limit int) (counts []FailedSignIns, more bool, err error) {
	return l.failedSignIns(ctx, limit, `
		WHERE minute >= $2 AND (minute, account, address) > ($3, $4, $5) ORDER BY minute, account, address`,
		since, after.Minute, after.Account, after.Address)
}

// NewestFailedSignIns is FailedSignIns from the newest one back to since: up to limit of those that come
// behind the last one that was seen, or from the newest one on if that is zero.
func (l *Log) NewestFailedSignIns(ctx context.Context, since time.Time, before FailedSignIns, limit int) (
	counts []FailedSignIns, more bool, err error) {
	return l.failedSignIns(ctx, limit, `
		WHERE minute >= $2 AND ($3 OR (minute, account, address) < ($4, $5, $6))
		ORDER BY minute DESC, account DESC, address DESC`,
		since, before == FailedSignIns{}, before.Minute, before.Account, before.Address)
}

// failedSignIns returns up to limit of the counts that a condition selects in its order, and whether more follow. The
// arguments of the condition begin with $2.
func (l *Log) failedSignIns(ctx context.Context, limit int, condition string, args ...any) (
	counts []FailedSignIns, more bool, err error) {
	rows, err := l.DB.Pool.Query(ctx, `
		SELECT minute, account, address, count FROM failed_sign_ins `+condition+` LIMIT $1`,
		append([]any{limit + 1}, args...)...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	counts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[FailedSignIns])
	if err != nil {
		return nil, false, control.Fault(err)
	}
	if more = len(counts) > limit; more {
		counts = counts[:limit]
	}
	return counts, more, nil
}
