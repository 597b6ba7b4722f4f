package account

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/label"
)

// PlatformFilter says which platform users to list, and which page of them. A nil list asks for nothing, an empty one
// for what nobody has.
type PlatformFilter struct {
	GUIDs            []string
	Usernames        []string // in any case
	PartialUsernames []string // parts of names, in any case
	Origins          []string
	Selector         label.Selector
	Created, Updated []Span
	// OrderBy is "" for the order of creation, else Created or Updated; ties go by guid.
	OrderBy       PlatformOrder
	Descending    bool
	Offset, Limit int64
}

// Span is the times from From, before Until. A zero time is no limit.
type Span struct{ From, Until time.Time }

// PlatformOrder is what a list is ordered by.
type PlatformOrder string

// The orders of a list.
const (
	OrderByCreated PlatformOrder = "created_at"
	OrderByUpdated PlatformOrder = "updated_at"
)

// orders are the ORDER BY clauses, each served by an index that holds for platform users only.
var orders = map[PlatformOrder]map[bool]string{
	"":             {false: `id`, true: `id DESC`},
	OrderByCreated: {false: `platform_created_at, guid`, true: `platform_created_at DESC, guid DESC`},
	OrderByUpdated: {false: `platform_updated_at, guid`, true: `platform_updated_at DESC, guid DESC`},
}

// ListPlatform lists the platform users that the principal may see and the filter lets through, and says how many there
// are on all pages. Both are of the same moment.
func (s *Store) ListPlatform(ctx context.Context, p *Principal, f PlatformFilter) (users []*PlatformUser, total int64, err error) {
	c := f.conditions()
	if !seesAll(p) {
		c.add(`guid = `, c.arg(p.GUID))
	}
	filtered := len(c.clauses) > 1
	matching := ` FROM accounts WHERE ` + strings.Join(c.clauses, ` AND `)
	counted := len(c.args)
	order := orders[f.OrderBy][f.Descending]
	// The rows before the page are skipped in an index, and none of them is fetched.
	page := `SELECT id` + matching
	if filtered {
		// PostgreSQL cannot know how many users have a label. Left to itself it walks the index of the order in the hope of
		// soon having met as many as the page needs, which for a rare label is all of it. So what matches is found first.
		page = `WITH matching AS MATERIALIZED (SELECT id, guid, platform_created_at, platform_updated_at` + matching + `) SELECT id FROM matching`
	}
	page += ` ORDER BY ` + order + ` OFFSET ` + c.arg(f.Offset) + ` LIMIT ` + c.arg(f.Limit)

	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.DB.Pool, options, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT count(*)`+matching, planned(c.args[:counted])...).Scan(&total); err != nil {
			return err
		}
		if total <= f.Offset {
			return nil
		}
		rows, err := tx.Query(ctx, `SELECT `+platformColumns+` FROM accounts WHERE id IN (`+page+`) ORDER BY `+order, planned(c.args)...)
		if err != nil {
			return err
		}
		users, err = pgx.CollectRows(rows, scanPlatform)
		return err
	})
	return users, total, control.Fault(err)
}

// planned has the statement planned for these arguments, each time: whether an index helps depends on the label.
func planned(args []any) []any { return append([]any{pgx.QueryExecModeCacheDescribe}, args...) }

// conditions is a WHERE clause. It is put together from fixed texts; all values are arguments.
type conditions struct {
	clauses []string
	args    []any
}

func (c *conditions) arg(value any) string {
	c.args = append(c.args, value)
	return "$" + strconv.Itoa(len(c.args))
}

func (c *conditions) add(parts ...string) { c.clauses = append(c.clauses, strings.Join(parts, "")) }

func (f *PlatformFilter) conditions() *conditions {
	c := &conditions{clauses: []string{`platform_created_at IS NOT NULL`}}
	if f.GUIDs != nil {
		c.any(f.GUIDs, `guid = `, ``)
	}
	// Names are lowered by PostgreSQL on both sides, whose idea of lower case the index has.
	if f.Usernames != nil {
		c.add(`username IS NOT NULL`)
		c.any(f.Usernames, `lower(username) = lower(`, `)`)
	}
	if f.PartialUsernames != nil {
		c.any(f.PartialUsernames, `strpos(lower(username), lower(`, `)) > 0`)
	}
	if f.Origins != nil {
		c.any(f.Origins, `origin = `, ``)
	}
	for _, r := range f.Selector {
		c.requirement(r)
	}
	c.spans(`platform_created_at`, f.Created)
	c.spans(`platform_updated_at`, f.Updated)
	return c
}

// any asks that before and after hold round one of the values. It leaves out what PostgreSQL cannot hold, and so no user
// has.
func (c *conditions) any(values []string, before, after string) {
	parts := []string{`false`}
	for _, v := range values {
		if storable(v) {
			parts = append(parts, before+c.arg(v)+`::text`+after)
		}
	}
	c.add(`(`, strings.Join(parts, ` OR `), `)`)
}

// requirement says a label requirement with the operators that the GIN index knows. Labels are never NULL, so the
// negations hold for a user that lacks the label.
func (c *conditions) requirement(r label.Requirement) {
	switch r.Op {
	case label.Exists:
		c.add(`labels ? `, c.arg(r.Key))
	case label.NotExists:
		c.add(`NOT labels ? `, c.arg(r.Key))
	case label.In:
		c.add(c.anyOf(r))
	case label.NotIn:
		c.add(`NOT `, c.anyOf(r))
	}
}

func (c *conditions) anyOf(r label.Requirement) string {
	if len(r.Values) == 0 {
		return `false`
	}
	parts := make([]string, len(r.Values))
	for i, v := range r.Values {
		parts[i] = `labels @> ` + c.arg(map[string]string{r.Key: v})
	}
	return `(` + strings.Join(parts, ` OR `) + `)`
}

func (c *conditions) spans(column string, spans []Span) {
	if spans == nil {
		return
	}
	parts := []string{`false`}
	for _, s := range spans {
		part := `true`
		if !s.From.IsZero() {
			part += ` AND ` + column + ` >= ` + c.arg(s.From)
		}
		if !s.Until.IsZero() {
			part += ` AND ` + column + ` < ` + c.arg(s.Until)
		}
		parts = append(parts, part)
	}
	c.add(`(`, strings.Join(parts, ` OR `), `)`)
}
