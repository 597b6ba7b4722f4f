package account

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
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
// are on all pages. Both are of the same moment. Fields that only the identity has are empty.
func (s *Store) ListPlatform(ctx context.Context, p *Principal, f PlatformFilter) (
	users []*Profile, total int64, err error) {
	c := f.conditions()
	if !seesAll(p) {
		c.add(`guid = `, c.arg(p.GUID))
	}
	where, order := strings.Join(c.clauses, ` AND `), orders[f.OrderBy][f.Descending]
	key := fmt.Sprintf("%s %s %q", where, order, c.args)
	if m := s.lists.get(key); m != nil {
		users, err := m.page(ctx, s.DB.Pool, order, f.Offset, f.Limit)
		if err != nil || len(users) > 0 {
			return users, int64(len(m.ids)), control.Fault(err)
		}
	}
	var m matches
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, s.DB.Pool, options, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT ARRAY(SELECT id FROM accounts WHERE `+where+` ORDER BY `+order+`), `+changes,
			planned(c.args)...).Scan(&m.ids, &m.changes)
		if err != nil {
			return err
		}
		users, err = m.page(ctx, tx, order, f.Offset, f.Limit)
		return err
	})
	if err == nil && seesAll(p) {
		s.lists.put(key, &m)
	}
	return users, int64(len(m.ids)), control.Fault(err)
}

// changes is a number that is another one after every change of what a list may show. A trigger counts.
const changes = `(SELECT coalesce(sum(n), 0)::bigint FROM account_changes)`

// matches are the users that a filter lets through, in an order, as they were at a certain number of changes. To find
// them takes time for each of them; to read a page of those that were found takes the same however many there are.
type matches struct {
	ids     []int64
	changes int64
}

// page reads the rows of a page. It is empty when there has been a change since.
func (m *matches) page(ctx context.Context, q control.Querier, order string, offset, limit int64) ([]*Profile, error) {
	offset = min(offset, int64(len(m.ids)))
	limit = min(limit, int64(len(m.ids))-offset)
	if limit == 0 {
		return nil, nil
	}
	rows, err := q.Query(ctx,
		`SELECT `+platformColumns+` FROM accounts WHERE id = ANY($1) AND `+changes+` = $2 ORDER BY `+order,
		m.ids[offset:offset+limit], m.changes)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanPlatform)
}

// lists keeps what was found, for requests of other pages and for repeated ones. Its users check that there was no
// change since. The zero value is ready.
type lists struct {
	mu    sync.Mutex
	byKey map[string]*matches
	size  int
}

// maxLists is how many bytes are kept: ten lists of half of 100,000 users.
const maxLists = 4 << 20

func (l *lists) get(key string) *matches {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byKey[key]
}

// put keeps a list. When there is no room others go, whichever come first.
func (l *lists) put(key string, m *matches) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = map[string]*matches{}
	}
	l.remove(key)
	size := listSize(key, m)
	if size > maxLists {
		return
	}
	for other := range l.byKey {
		if l.size+size <= maxLists {
			break
		}
		l.remove(other)
	}
	l.byKey[key] = m
	l.size += size
}

func (l *lists) remove(key string) {
	if m := l.byKey[key]; m != nil {
		l.size -= listSize(key, m)
		delete(l.byKey, key)
	}
}

func listSize(key string, m *matches) int { return len(key) + 8*len(m.ids) + 100 }

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
