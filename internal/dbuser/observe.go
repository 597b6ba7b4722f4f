package dbuser

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/observe"
	"rolecall/internal/pgrole"
)

// lookAtRoles is a kind of task, whose key is the id of a cluster.
const lookAtRoles = "observe.look"

const (
	lookEvery = 30 * time.Second
	// maxReported is how many passwords that were changed by SQL one look reports. The next look, which follows at once,
	// reports the others.
	maxReported = 100
)

// look compares the verifiers of a cluster with what they should be, and sees who has sessions.
func (s *Service) look(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	c, err := s.Clusters.Get(id.String())
	if err != nil {
		return -1, nil // it is no longer registered; if it is, it is scheduled again
	}
	complete, err := s.lookAt(ctx, c)
	if err != nil || !complete {
		return 0, err
	}
	return lookEvery, nil
}

// lookAt reports whether nothing was left for another look.
func (s *Service) lookAt(ctx context.Context, c *cluster.Cluster) (complete bool, err error) {
	server, err := c.Server(ctx, nil)
	if err != nil {
		return false, err
	}
	// The rows first: Store refuses them once another replica has stored a look, so none is older than the roles.
	before, rows, err := s.ObserveStore.Get(ctx, c.ID, nil)
	if err != nil {
		return false, err
	}
	seen, err := server.Look(ctx)
	if err != nil {
		return false, err
	}
	l := &observe.Look{Before: before, Verifiers: seen.Readable}
	l.Active = observe.SeenLongAgo(seen.Active, rows, before.Read)
	unseen := make(map[uint32]*observe.Role, len(rows))
	for oid, row := range rows {
		unseen[oid] = row
	}
	var reported []string
	complete = true
	for i := range seen.Roles {
		now := &seen.Roles[i]
		row := unseen[now.OID]
		delete(unseen, now.OID)
		changed, report, err := s.compareVerifier(ctx, row, now)
		if err != nil {
			return false, err
		}
		if report && len(reported) == maxReported {
			complete = false
			continue
		}
		if report {
			reported = append(reported, now.Name)
		}
		if changed != nil {
			l.Changed = append(l.Changed, changed)
		}
	}
	if err := s.unseen(ctx, server, l, unseen); err != nil {
		return false, err
	}
	if before.Looks > 0 && before.Verifiers == l.Verifiers && len(l.Changed)+len(l.Active)+len(l.Gone) == 0 {
		return complete, nil
	}
	return complete, s.storeLook(ctx, c, l, reported)
}

// unseen decides about the roles that were known and not shown: they are gone, or have become protected.
func (s *Service) unseen(ctx context.Context, server *pgrole.Server, l *observe.Look,
	unseen map[uint32]*observe.Role) error {
	if len(unseen) == 0 {
		return nil
	}
	oids := make([]uint32, 0, len(unseen))
	for oid := range unseen {
		oids = append(oids, oid)
	}
	gone, err := server.Gone(ctx, oids)
	if err != nil {
		return err
	}
	l.Gone = gone
	// One that was dropped since its sessions were read is not stored again.
	l.Active = slices.DeleteFunc(l.Active, func(oid uint32) bool { return slices.Contains(gone, oid) })
	if !l.Verifiers {
		return nil
	}
	for _, oid := range gone {
		delete(unseen, oid)
	}
	for oid, row := range unseen {
		if row.Fingerprint != nil {
			l.Changed = append(l.Changed, &observe.Role{OID: oid})
		}
	}
	return nil
}

// storeLook stores a look and what it reports in one transaction, so that nothing is reported twice, or stored and not
// reported.
func (s *Service) storeLook(ctx context.Context, c *cluster.Cluster, l *observe.Look, reported []string) error {
	stored := false
	err := s.ObserveStore.DB.Tx(ctx, func(tx pgx.Tx) (err error) {
		if stored, err = s.ObserveStore.Store(ctx, tx, c.ID, l); err != nil || !stored {
			return err
		}
		for _, name := range reported {
			entry := rolecall.Entry(audit.ChangedOutside, name, detail{})
			entry.Cluster = c.ID
			if err := s.Audit.Record(ctx, tx, entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !stored {
		return err
	}
	for _, name := range reported {
		s.Log.Warn("the password of a user was changed by SQL", "cluster", c.ID, "user", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changedOutside == nil {
		s.changedOutside = map[uuid.UUID]int64{}
	}
	s.changedOutside[c.ID] += int64(len(reported))
	return nil
}

// ChangedOutside is how many passwords of a cluster this replica has found changed by SQL since its start.
func (s *Service) ChangedOutside(c *cluster.Cluster) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changedOutside[c.ID]
}

// compareVerifier judges a role. row is what is known of it, nil: nothing. changed is its new row; nil: it stays. report is
// true if its password was changed by SQL since the look before.
func (s *Service) compareVerifier(ctx context.Context, row *observe.Role, now *pgrole.Sight) (changed *observe.Role,
	report bool, err error) {
	is := &observe.Role{OID: now.OID, Name: []byte(now.Name), Attempt: now.Attempt, Recorded: []byte(now.Recorded),
		Fingerprint: []byte(now.Fingerprint)}
	// A role with the OID of another one, which may also be that one renamed: then PostgreSQL has removed an md5 password.
	known := row != nil && row.Fingerprint != nil && bytes.Equal(row.Name, is.Name)
	same := known && bytes.Equal(row.Fingerprint, is.Fingerprint)
	if known {
		is.Good = row.Good
	}
	switch {
	case now.Own:
		is.Outside = now.Recorded != now.Fingerprint
	case !known:
	case same:
		is.Outside = row.Outside
	default:
		if is.Outside, err = s.setBySQL(ctx, row, now); err != nil {
			return nil, false, err
		}
	}
	if !is.Outside && (len(is.Good) == 0 || !bytes.Equal(is.Good[0], is.Fingerprint)) {
		is.Good = slices.Insert(slices.Clone(is.Good), 0, is.Fingerprint)
		is.Good = is.Good[:min(len(is.Good), 2)]
	}
	if same && is.Outside == row.Outside && row.Attempt == is.Attempt && bytes.Equal(row.Recorded, is.Recorded) {
		return nil, false, nil
	}
	return is, is.Outside && !(same && row.Outside), nil
}

// setBySQL reports whether SQL has set the verifier of a known role whose record has no fingerprint of ours.
func (s *Service) setBySQL(ctx context.Context, row *observe.Role, now *pgrole.Sight) (bool, error) {
	switch {
	case slices.ContainsFunc(row.Good, func(good []byte) bool { return string(good) == now.Fingerprint }):
		return false, nil // a failover has lost the latest password
	case now.Recorded != "" && now.Recorded != string(row.Recorded):
		return false, nil // another Rolecall has set it
	case now.Attempt == row.Attempt || now.Attempt == uuid.Nil:
		return true, nil
	}
	// A release that makes no fingerprints may have set it: our own, whose attempts say so, or that of another Rolecall.
	actions, err := s.Audit.ActionsOf(ctx, []uuid.UUID{now.Attempt, now.Previous})
	if err != nil {
		return false, err
	}
	if actions[now.Attempt] == "" {
		return false, nil // the comparison with the audit log reports it as unrecorded
	}
	for _, action := range actions {
		if slices.Contains(setsPassword, action) {
			return false, nil
		}
	}
	return true, nil
}

// setsPassword are the actions that set a password, or may remove one.
var setsPassword = []string{audit.CreateUser, audit.ChangePassword, audit.CreateLease, audit.RotateStored,
	audit.PutCredential, audit.DeleteUser, audit.EndLease}
