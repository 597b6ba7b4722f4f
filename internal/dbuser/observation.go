package dbuser

import (
	"context"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/observe"
	"rolecall/internal/pgrole"
)

// Observation is what looking at a cluster again and again has shown about one of its users.
type Observation struct {
	// PasswordChangedOutside says whether the password was changed by SQL since Rolecall last set it, or since the user was
	// first seen; nil: the administering role may not read verifiers, the user is protected, or was not looked at yet.
	PasswordChangedOutside *bool
	// ChangedOutsideAt is when that was noticed; nil: it was not changed.
	ChangedOutsideAt *time.Time
	// LastSeen is when a session of the user was last seen, and LastSeenSince when the cluster was first looked at; nil: not
	// yet. The user may have had sessions between two looks, a minute apart.
	LastSeen, LastSeenSince *time.Time
}

// Observed is what was observed in a cluster.
type Observed struct {
	cluster *observe.Cluster
	roles   map[uint32]*observe.Role
}

// Observations returns what was observed of the users of a cluster with these OIDs, of all if they are nil. It checks
// no access rule.
func (s *Service) Observations(ctx context.Context, clusterID uuid.UUID, oids []uint32) (*Observed, error) {
	cluster, roles, err := s.ObserveStore.Get(ctx, clusterID, oids)
	if err != nil {
		return nil, err
	}
	return &Observed{cluster, roles}, nil
}

// lastLook is what was observed of a user at the last look.
func (o *Observed) lastLook(oid uint32) Observation {
	var of Observation
	if o.cluster.Looks > 0 {
		of.LastSeenSince = &o.cluster.Since
	}
	role := o.roles[oid]
	if role == nil {
		return of
	}
	if o.cluster.Verifiers && role.Fingerprint != nil {
		of.PasswordChangedOutside = &role.Outside
		if role.Outside {
			of.ChangedOutsideAt = &role.OutsideAt
		}
	}
	if !role.LastSeen.IsZero() {
		of.LastSeen = &role.LastSeen
	}
	return of
}

// OfUser is what was observed of a user that may have changed since the last look: a password that Rolecall has set in
// between was not changed outside.
func (o *Observed) OfUser(u *pgrole.User) Observation {
	of := o.ofRecord(u.OID(), u.Provenance.Fingerprint)
	if u.System() {
		of.PasswordChangedOutside, of.ChangedOutsideAt = nil, nil
	}
	return of
}

// OfHit is OfUser for what a search has found, which does not say whether it has become protected since the last look.
func (o *Observed) OfHit(h *pgrole.Hit) Observation { return o.ofRecord(h.OID, h.Fingerprint) }

// ofRecord is what was observed of a user whose record has a fingerprint now; "": none.
func (o *Observed) ofRecord(oid uint32, recorded string) Observation {
	of := o.lastLook(oid)
	row := o.roles[oid]
	if o.cluster.Verifiers && recorded != "" && (row == nil || string(row.Recorded) != recorded) {
		of.PasswordChangedOutside, of.ChangedOutsideAt = new(bool), nil
	}
	return of
}
