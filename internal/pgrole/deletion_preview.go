package pgrole

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// DeletionPlan is what a Delete would do, as far as it can be seen before.
type DeletionPlan struct {
	Blockers  []string // why it would be refused, as sentences
	Databases []DatabasePlan
	Unvisited int // databases that there was no time to look into: something depends on the user there, too
	Sessions  int // that are open now, and would be ended
}

// DatabasePlan is the part of a DeletionPlan in one database. Databases and tablespaces themselves are with the
// registered one.
type DatabasePlan struct {
	Name       string
	Objects    Listing // that the user owns: they would be reassigned, or they block
	Definers   Listing // of those, what would then run with the rights of the new owner; only with one
	Privileges Listing // that would be revoked
	Defaults   Listing // default privileges that would be revoked
}

// Listing is the first few of a number of things.
type Listing struct {
	Count int
	First []string
}

func (l *Listing) add(format string, args ...any) {
	if l.Count++; l.Count <= maxNamed {
		l.First = append(l.First, valid(fmt.Sprintf(format, args...)))
	}
}

// join adds what another listing has, as far as it names it.
func (l *Listing) join(more Listing) {
	l.Count += more.Count
	l.First = slices.Concat(l.First, more.First[:min(len(more.First), maxNamed-len(l.First))])
}

// Plan says what Delete would do, and changes nothing. It refuses what Delete refuses before it looks. Of a deletion that
// has begun it shows what is left to do.
func (s *Server) Plan(ctx context.Context, name, reassignTo string) (dp *DeletionPlan, err error) {
	if reassignTo != "" {
		if err := CheckReassign(name, reassignTo); err != nil {
			return nil, err
		}
	}
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		d := &deletion{s: s, of: drop{name: name}, conn: conn, reassignTo: reassignTo}
		if err := d.readUser(ctx); err != nil {
			return err
		}
		p, err := d.plan(ctx)
		if err != nil {
			return err
		}
		err = d.visitDatabases(ctx, p.databases, maxVisitors, nil)
		t, late := errors.AsType[*outOfTime](err)
		if err != nil && !late {
			return err
		}
		if dp = p.forPeople(); late {
			dp.Unvisited = t.of - t.visited
		}
		held, err := d.awaitHolders(ctx, d.s.Waits.lockTry())
		if err != nil {
			return err
		}
		if held != nil {
			dp.Blockers = append(dp.Blockers, sentence(held.Error()))
		}
		return conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1`, d.user.oid).Scan(&dp.Sessions)
	})
	if err != nil {
		return nil, err
	}
	return dp, nil
}

func (p *plan) forPeople() *DeletionPlan {
	dp := &DeletionPlan{}
	if b := p.blocked(); b != nil {
		for _, reason := range b.reasons {
			dp.Blockers = append(dp.Blockers, sentence(reason))
		}
	}
	for _, in := range p.databases {
		if !in.visited {
			continue
		}
		one := DatabasePlan{Name: valid(in.name), Objects: in.owned, Definers: in.definers}
		one.Objects.join(in.shared)
		for _, g := range in.grants {
			one.Privileges.add("%s, granted by %q", g.target, g.grantor)
		}
		for _, def := range in.defaults {
			where := ""
			if def.schema != "" {
				where = " in schema " + def.schema
			}
			one.Defaults.add("on %s that %q makes%s", strings.ToLower(defaultKinds[def.objects]), def.owner, where)
		}
		dp.Databases = append(dp.Databases, one)
	}
	return dp
}

func sentence(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + strings.TrimSuffix(s[n:], ".") + "."
}
