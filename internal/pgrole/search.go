package pgrole

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
)

// Search chooses users of one cluster. Every condition that is set must match.
type Search struct {
	System        bool     // protected users as well
	Name          string   // * stands for any characters; "": any name
	CreatedBy     []string // guids; nil: anybody
	States        []string // nil: any
	PasswordKind  string
	ExpiresBefore time.Time // its VALID UNTIL is before that
	Lease         *bool
}

// States are the states of a user, and PasswordKinds the kinds of its password.
var (
	States        = []string{StateActive, StateExpired, StateDisabled, StateDeleting}
	PasswordKinds = []string{PasswordSCRAM, PasswordMD5, PasswordNone, PasswordUnknown}
)

// Stretch is the part of a search that is read at a time: the users behind a name, in the order of their names' bytes.
type Stretch struct {
	After      string // "": from the first one on
	Including  bool   // the name itself, too
	Descending bool
	Limit      int
}

// Hit is a user that a search has found: what is needed to put it in order.
type Hit struct {
	OID        uint32
	Name       string
	Created    time.Time // zero: not recorded
	ValidUntil time.Time // zero: none
	// Fingerprint is the one in its record; "": none.
	Fingerprint string
}

// maxScanned is how many rows are read at a time: with the longest comments 2 MB, of which pgwire lets a cluster have 32.
const maxScanned = 1000

// Search returns the first users that match in a stretch of the names, and says whether others follow.
func (s *Server) Search(ctx context.Context, q *Search, at Stretch) (hits []Hit, more bool, err error) {
	if at.After != "" && !nameable(at.After) {
		return nil, false, fault.New(fault.Malformed, "No page of users begins there.")
	}
	scan := min(at.Limit+1, maxScanned)
	if q.selective() {
		scan = maxScanned
	}
	for from := at; len(hits) <= at.Limit; {
		found, last, err := s.scan(ctx, q, from, scan)
		if err != nil {
			return nil, false, err
		}
		hits = append(hits, found...)
		if last == "" {
			break
		}
		from.After, from.Including = last, false
	}
	more = len(hits) > at.Limit
	return hits[:min(len(hits), at.Limit)], more, nil
}

// selective reports whether the condition in SQL may let through what does not match: then one row more than the limit is
// not enough.
func (q *Search) selective() bool {
	return q.CreatedBy != nil || q.States != nil || q.PasswordKind != "" || q.Lease != nil
}

// scan reads up to limit rows, and returns what matches and the name of the last row, "" if there is none behind it.
func (s *Server) scan(ctx context.Context, q *Search, at Stretch, limit int) (hits []Hit, last string, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// What is sent of names is in UTF-8, and in its order unless they are stored in another encoding.
		encoding := conn.PgConn().ParameterStatus("server_encoding")
		sql, args := q.statement(at, utf8.ValidString(at.After) && (encoding == "UTF8" || encoding == "SQL_ASCII"))
		rows, err := conn.Query(ctx, sql, s.protection(append([]any{limit}, args...)...)...)
		if err != nil {
			return err
		}
		page, err := collectPage(rows, limit, scanScanned)
		if err != nil {
			return err
		}
		hits, last = []Hit{}, "" // this may be another try
		for _, row := range page {
			if q.matches(row) {
				hits = append(hits, row.Hit)
			}
		}
		if len(page) == limit {
			last = page[limit-1].Name
		}
		if q.PasswordKind != "" {
			hits, err = havePasswordKind(ctx, conn, hits, q.PasswordKind)
		}
		return err
	})
	return hits, last, err
}

// scanned is a row of a search.
type scanned struct {
	Hit
	provenance Provenance
	expired    bool
}

func scanScanned(row pgx.CollectableRow) (*scanned, error) {
	var f scanned
	var comment []byte
	var validUntil *time.Time
	if err := row.Scan(&f.OID, &f.Name, &comment, &f.expired, &validUntil); err != nil {
		return nil, err
	}
	if len(comment) > maxListed || len(f.Name) > maxColumn {
		return nil, pgwire.Refuse("it shows a role that is longer than a role can be")
	}
	_, f.provenance = parseComment(string(comment))
	f.Created, f.Fingerprint = f.provenance.Created.UTC(), f.provenance.Fingerprint
	if validUntil != nil {
		f.ValidUntil = validUntil.UTC()
	}
	return &f, nil
}

// matches decides by the record what the statement could decide by its text only.
func (q *Search) matches(f *scanned) bool {
	p := &f.provenance
	state := p.State
	switch {
	case state != "":
	case f.expired:
		state = StateExpired
	default:
		state = StateActive
	}
	return (q.CreatedBy == nil || p.CreatedBy != "" && slices.Contains(q.CreatedBy, p.CreatedBy)) &&
		(q.States == nil || slices.Contains(q.States, state)) &&
		(q.Lease == nil || *q.Lease == (p.Lease != uuid.Nil))
}

// havePasswordKind leaves those with a password of the kind.
func havePasswordKind(ctx context.Context, conn *pgx.Conn, hits []Hit, kind string) ([]Hit, error) {
	var readable bool
	if err := conn.QueryRow(ctx, `SELECT `+readsVerifiers).Scan(&readable); err != nil {
		return nil, err
	}
	kinds := make(map[uint32]string, len(hits))
	if readable {
		oids := make([]uint32, len(hits))
		for i, h := range hits {
			oids[i] = h.OID
		}
		rows, err := conn.Query(ctx, selectPasswordKinds, oids)
		if err != nil {
			return nil, err
		}
		var oid uint32
		var found string
		if _, err := pgx.ForEachRow(rows, []any{&oid, &found}, func() error { kinds[oid] = found; return nil }); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(hits, func(h Hit) bool {
		found, ok := kinds[h.OID]
		if !readable {
			found, ok = PasswordUnknown, true
		}
		return !ok || found != kind
	}), nil
}

// statement is the query for a stretch, and its arguments from $5 on. What it lets through need not match by its record.
func (q *Search) statement(at Stretch, asText bool) (sql string, args []any) {
	var conditions []string
	add := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(condition, 4+len(args)))
	}
	if at.After != "" {
		operator := map[bool]string{false: ">", true: "<"}[at.Descending]
		if at.Including {
			operator += "="
		}
		if asText {
			add(`r.rolname `+operator+` $%d::name`, at.After)
		} else {
			add(`namesend(r.rolname) `+operator+` $%d::bytea`, []byte(at.After))
		}
	}
	if q.Name != "" {
		add(opaque(`namesend(r.rolname) LIKE $%d::bytea`), likeBytes(q.Name))
	}
	if !q.ExpiresBefore.IsZero() {
		add(opaque(`r.rolvaliduntil < $%d::timestamptz`), q.ExpiresBefore)
	}
	if q.CreatedBy != nil && len(q.CreatedBy) <= maxCreators {
		add(opaque(commentLike), recordPatterns(q.CreatedBy...))
	}
	if q.Lease != nil && *q.Lease {
		add(opaque(commentLike), recordPatterns("lease"))
	}
	if q.States != nil {
		var states []string
		if slices.Contains(q.States, StateActive) {
			states = append(states, `(r.rolvaliduntil <= clock_timestamp()) IS NOT TRUE`)
		}
		if slices.Contains(q.States, StateExpired) {
			states = append(states, `r.rolvaliduntil <= clock_timestamp()`)
		}
		if slices.Contains(q.States, StateDisabled) || slices.Contains(q.States, StateDeleting) {
			add(opaque(strings.Join(append(states, commentLike), ` OR `)), recordPatterns(StateDisabled, StateDeleting))
		} else {
			conditions = append(conditions, opaque(strings.Join(states, ` OR `)))
		}
	}
	order := `r.rolname`
	if !asText {
		order = `namesend(r.rolname)`
	}
	if at.Descending {
		order += ` DESC`
	}
	return searchPage(q.System, conditions, order), args
}

// maxCreators is for how many accounts the comments are searched; the records of more are read and compared here.
const maxCreators = 100

// recordPatterns are those of LIKE for comments that may have a record with one of the values. One that was edited may have
// any character as an escape of JSON.
func recordPatterns(values ...string) [][]byte {
	patterns := [][]byte{[]byte(`%\\%`)}
	for _, v := range values {
		patterns = append(patterns, likeBytes("*"+v+"*"))
	}
	return patterns
}

// likeBytes makes a LIKE pattern of a name in which * stands for any characters.
func likeBytes(name string) []byte {
	return []byte(strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`).Replace(name))
}

// DetailsOf returns all about the users of these oids, in no order, without those that are no longer there.
func (s *Server) DetailsOf(ctx context.Context, oids []uint32) (list []*Details, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectRolesOfOIDs, s.protection(oids)...)
		if err != nil {
			return err
		}
		users, err := collectPage(rows, len(oids), scanUser)
		if err != nil {
			return err
		}
		users = slices.DeleteFunc(users, func(u *User) bool { return !u.isUser() })
		list, err = s.details(ctx, conn, users)
		return err
	})
	return list, err
}

// OID is the role's in its cluster, which no later role gets soon.
func (u *User) OID() uint32 { return u.oid }
