package pgrole

import (
	"context"
	"math"
	"time"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
)

// Limits is a change of what limits a user's logins. What is nil stays as it is.
type Limits struct {
	ValidUntil      **time.Time // what Details.ValidUntil is to be: nil lets the password be taken for ever
	ConnectionLimit *int        // -1: none
}

// CheckLimits refuses limits that no user can have.
func CheckLimits(l Limits) error {
	if l.ValidUntil != nil && *l.ValidUntil != nil {
		if year := (*l.ValidUntil).UTC().Year(); year < 1 || year > 9999 {
			return fault.New(fault.Invalid, "A time until which a user is valid lies in the years 1 to 9999.")
		}
	}
	if l.ConnectionLimit != nil && (*l.ConnectionLimit < -1 || *l.ConnectionLimit > math.MaxInt32) {
		return fault.New(fault.Invalid, "A connection limit is -1, which is none, or 0 to %d.", math.MaxInt32)
	}
	return nil
}

// SetLimits changes what limits a user's logins.
func (s *Server) SetLimits(ctx context.Context, name string, limits Limits, match etag.Match,
	by Actor) (d *Details, err error) {
	if err := CheckLimits(limits); err != nil {
		return nil, err
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkChangeable(u, name, match); err != nil {
			return err
		}
		if err := checkNotDeleting(u); err != nil {
			return err
		}
		if limits.ValidUntil != nil {
			if err := checkNoLease(u); err != nil {
				return err
			}
		}
		old, err := s.detailsOf(ctx, tx, u)
		if err != nil {
			return err
		}
		d, err = s.alterAndRecord(ctx, tx, u, alterLimits(name, old.otherValidUntil(limits),
			old.otherConnectionLimit(limits)), u.Provenance, by)
		return err
	})
	return d, err
}

// otherValidUntil is the time to set in PostgreSQL's form, nil when it is set already.
func (d *Details) otherValidUntil(l Limits) *string {
	if l.ValidUntil == nil {
		return nil
	}
	at, literal := *l.ValidUntil, "infinity"
	switch {
	case at == nil && d.ValidUntil == nil:
		return nil
	case at != nil:
		precise := at.UTC().Truncate(time.Microsecond) // PostgreSQL's own precision; it would round
		if d.ValidUntil != nil && d.ValidUntil.Equal(precise) {
			return nil
		}
		literal = timestamp(precise)
	}
	return &literal
}

// timestamp is a time in UTC as PostgreSQL reads it.
func timestamp(t time.Time) string { return t.Format("2006-01-02 15:04:05.000000Z07:00") }

func (d *Details) otherConnectionLimit(l Limits) *int {
	if l.ConnectionLimit == nil || *l.ConnectionLimit == d.ConnectionLimit {
		return nil
	}
	return l.ConnectionLimit
}

// alterAndRecord changes a user by SQL, records that with p in its comment, and reads the user back.
func (s *Server) alterAndRecord(ctx context.Context, tx *transaction, u *User, sql string, p Provenance, by Actor) (*Details,
	error) {
	if err := s.alter(ctx, tx, u, sql+commentOnRole(u.Name, p.changed(tx.now, by).comment(u.userComment))); err != nil {
		return nil, err
	}
	return s.readDetailsBack(ctx, tx, u)
}

func (s *Server) readDetailsBack(ctx context.Context, tx *transaction, old *User) (*Details, error) {
	u, err := s.readBack(ctx, tx, old)
	if err != nil {
		return nil, err
	}
	return s.detailsOf(ctx, tx, u)
}
