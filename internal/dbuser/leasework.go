package dbuser

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
	"rolecall/internal/task"
)

// rolecall is the principal of what is done in the background.
var rolecall = &account.Principal{GUID: audit.ActorRolecall, Username: audit.ActorRolecall, Scopes: account.AdminScopes}

// inBackground reports that a principal works without a client: what is cut off is done again.
func inBackground(p *account.Principal) bool { return p == rolecall || p.Operation != uuid.Nil }

// The kinds of tasks, whose keys are the ids of a lease and of a cluster.
const (
	endLeases   = "lease.end"
	sweepLeases = "lease.sweep"
)

// Tasks are the kinds of work in the background.
func (s *Service) Tasks() []task.Kind {
	return []task.Kind{{Name: endLeases, Do: s.endDue}, {Name: sweepLeases, Do: s.sweep},
		{Name: rotateStored, Do: s.tendCredential}, {Name: lookAtRoles, Do: s.look}}
}

const (
	blockedRetry = 30 * time.Second // after which it is tried again to drop a role
	sweepEvery   = 30 * time.Second
	// endedKept is how long a lease is shown after it has ended.
	endedKept = 7 * 24 * time.Hour
)

// scheduleEnd has a lease looked at in so long.
func scheduleEnd(ctx context.Context, tx pgx.Tx, l *lease.Lease, in time.Duration) error {
	return task.Set(ctx, tx, endOf(l, in))
}

// endOf is the task that looks at a lease in so long.
func endOf(l *lease.Lease, in time.Duration) task.Task {
	return task.Task{Kind: endLeases, Key: l.ID, Cluster: l.Cluster, In: max(0, in)}
}

// endDue ends a lease that has expired, or that was marked to be ended.
func (s *Service) endDue(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	const done = -1
	l, err := s.LeaseStore.Get(ctx, id)
	if fault.Is(err, fault.NotFound) || err == nil && l.State == lease.Ended {
		return done, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := s.Clusters.Get(l.Cluster.String())
	if err != nil {
		return 0, err // it was registered a moment ago, or is gone with its rows
	}
	do := change{action: audit.EndLease, target: l.Username, detail: detail{Lease: l.ID, For: l.For}}
	reason := l.Reason
	switch l.State {
	case lease.Active:
		do.ifExpired, reason = true, lease.Expired
		if l.Credential != "" {
			reason = lease.ByCredential
		}
	case lease.Blocked:
		blocked, err := s.stillBlocked(ctx, c, l)
		if err != nil || blocked {
			return blockedRetry, err
		}
	}
	left, err := s.endLease(ctx, rolecall, c, l, do, reason)
	switch {
	case err != nil:
		return 0, err
	case left > 0:
		return left, nil
	case l.State == lease.Blocked:
		return blockedRetry, nil
	}
	return done, nil
}

// stillBlocked looks whether something still keeps the role of a blocked lease from being dropped, without an attempt: that
// would be two rows of the audit log each time.
func (s *Service) stillBlocked(ctx context.Context, c *cluster.Cluster, l *lease.Lease) (bool, error) {
	server, err := c.Server(ctx, nil)
	if err != nil {
		return false, err
	}
	found, err := server.FindLease(ctx, keyOf(l))
	switch {
	case err != nil || found.Gone:
		return false, err
	case len(found.BlockedBy) > 0:
		return true, s.stillBlockedBy(ctx, l, found.BlockedBy)
	}
	server.WithMembers = true
	plan, err := server.Plan(ctx, l.Username, l.For)
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.Forbidden) { // nothing can go to that role any more
		plan, err = server.Plan(ctx, l.Username, "")
	}
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil || len(plan.Blockers) == 0 {
		return false, err
	}
	return true, s.stillBlockedBy(ctx, l, plan.Blockers)
}

// stillBlockedBy stores what blocks a lease if that is something else than before.
func (s *Service) stillBlockedBy(ctx context.Context, l *lease.Lease, blockers []string) error {
	if slices.Equal(blockers, l.BlockedBy) {
		return nil
	}
	return s.leaseIs(ctx, l, lease.Blocked, l.Reason, blockers)
}

// KeepSweeping sees to it that the leases of each cluster are compared with its roles, and its roles
// are looked at, until ctx ends.
func (s *Service) KeepSweeping(ctx context.Context) {
	ticker := time.NewTicker(sweepsTick)
	defer ticker.Stop()
	scheduled := map[uuid.UUID]time.Time{} // when a cluster's sweep was last seen to be
	for {
		if err := s.scheduleSweeps(ctx, scheduled); err != nil && ctx.Err() == nil {
			s.Log.Warn("the sweeps of leases could not be scheduled", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// How often new registrations are looked for, and how often it is made sure that a cluster has its sweep.
const (
	sweepsTick = 5 * time.Second
	sweepsSure = time.Minute
)

// scheduleSweeps schedules the sweeps and looks of the clusters that have none.
func (s *Service) scheduleSweeps(ctx context.Context, scheduled map[uuid.UUID]time.Time) error {
	for _, c := range s.Clusters.All() {
		if time.Since(scheduled[c.ID]) < sweepsSure {
			continue
		}
		err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
			return errors.Join(task.Ensure(ctx, tx, task.Task{Kind: sweepLeases, Key: c.ID, Cluster: c.ID}),
				task.Ensure(ctx, tx, task.Task{Kind: lookAtRoles, Key: c.ID, Cluster: c.ID}))
		})
		if err != nil {
			return err
		}
		scheduled[c.ID] = time.Now()
	}
	return nil
}

// sweep compares the leases of a cluster with its roles and with what their accounts may do, and sets right what differs.
func (s *Service) sweep(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	c, err := s.Clusters.Get(id.String())
	if err != nil {
		return -1, nil // it is no longer registered; if it is, it is scheduled again
	}
	if err := s.sweepCluster(ctx, c); err != nil {
		return 0, err
	}
	_, err = s.LeaseStore.DeleteEnded(ctx, endedKept)
	return sweepEvery, err
}

func (s *Service) sweepCluster(ctx context.Context, c *cluster.Cluster) error {
	server, err := c.Server(ctx, nil)
	if err != nil {
		return err
	}
	// The roles first: a row is there before its role, so a role without one is no lease that is being made.
	clock, err := s.LeaseStore.Clock(ctx)
	if err != nil {
		return err
	}
	seen := seen{cluster: c, installation: s.LeaseStore.DB.Installation, now: clock.Now()}
	if seen.roles, err = server.LeaseRoles(ctx); err != nil {
		return err
	}
	if seen.rows, err = s.LeaseStore.Live(ctx, c.ID); err != nil {
		return err
	}
	if err := s.seeEnded(ctx, &seen); err != nil {
		return err
	}
	if seen.accounts, err = s.holders(ctx, seen.rows); err != nil {
		return err
	}
	if seen.credentials, err = s.LeaseStore.CredentialNames(ctx, c.ID); err != nil {
		return err
	}
	findings := seen.judge()
	for batch := range slices.Chunk(findings, 200) {
		err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
			for _, f := range batch {
				if err := s.setRight(ctx, tx, f); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// seeEnded adds the rows of roles whose leases have ended: something has brought the roles back.
func (s *Service) seeEnded(ctx context.Context, seen *seen) error {
	live := make(map[uuid.UUID]bool, len(seen.rows))
	for _, l := range seen.rows {
		live[l.ID] = true
	}
	var ids []uuid.UUID
	for _, role := range seen.roles {
		if !live[role.ID] {
			ids = append(ids, role.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ended, err := s.LeaseStore.WithIDs(ctx, seen.cluster.ID, ids)
	seen.rows = append(seen.rows, ended...)
	return err
}

// holders are the accounts that have leases, by their guids.
func (s *Service) holders(ctx context.Context, rows []*lease.Lease) (map[string]*account.Account, error) {
	var guids []string
	for _, l := range rows {
		if l.Account != "" {
			guids = append(guids, l.Account)
		}
	}
	slices.Sort(guids)
	guids = slices.Compact(guids)
	accounts, err := s.Accounts.Again(ctx, guids)
	if err != nil {
		return nil, err
	}
	byGUID := make(map[string]*account.Account, len(guids))
	for i, guid := range guids {
		byGUID[guid] = accounts[i]
	}
	return byGUID, nil
}

// seen is what a sweep has read.
type seen struct {
	cluster *cluster.Cluster
	// installation is this one: the leases of others, which manage the same cluster, have no row here.
	installation uuid.UUID
	now          time.Time                   // by the clock of the control database
	roles        []*pgrole.LeaseRole         // read before the rows
	rows         []*lease.Lease              // those that live, and ended ones whose roles are there
	accounts     map[string]*account.Account // by guid, of the rows; nil: gone
	// credentials are the names of all, read after the rows: one whose lease is being made is among them.
	credentials map[string]bool
}

// finding is what is to be set right.
type finding struct {
	what  what
	lease *lease.Lease
	role  *pgrole.LeaseRole // nil: there is none
	// reason is why the lease is to end.
	reason lease.Reason
}

type what string

const (
	end    what = "end"    // the lease
	find   what = "find"   // the lease again, of which there is no row
	reopen what = "reopen" // the row of an ended lease whose role is there
	// identify the role in the row: it has another name now, or its OID was not known.
	identify what = "identify"
	move     what = "move" // the end in the row: that of the role is another one
)

// comesLate is how much later something of a lease may be seen than it was done: a role is made at most this long after its
// row, and the clocks of replicas differ.
const comesLate = unmade + time.Minute

// judge decides what is to be set right.
func (s *seen) judge() (findings []finding) {
	rows := make(map[uuid.UUID]*lease.Lease, len(s.rows))
	for _, l := range s.rows {
		rows[l.ID] = l
	}
	roles := make(map[uuid.UUID]*pgrole.LeaseRole, len(s.roles))
	for _, role := range s.roles {
		// A record may have been copied to another role. The role of the lease has its OID or, if that is not known, its name.
		l, other := rows[role.ID], roles[role.ID]
		if l != nil && l.RoleOID != 0 && l.RoleOID != role.OID {
			continue
		}
		if other == nil || l != nil && role.Name == l.Username {
			roles[role.ID] = role
		}
	}
	for _, l := range s.rows {
		role := roles[l.ID]
		if role != nil && l.State != lease.Ended && (role.Name != l.Username || role.OID != l.RoleOID) {
			findings = append(findings, finding{what: identify, lease: l, role: role})
		}
		if f := s.judgeRow(l, role); f.what != "" {
			f.lease, f.role = l, role
			findings = append(findings, f)
		}
	}
	for _, role := range s.roles {
		others := role.Installation != uuid.Nil && role.Installation != s.installation
		if rows[role.ID] == nil && roles[role.ID] == role && !others {
			findings = append(findings, finding{what: find, role: role, lease: s.found(role)})
		}
	}
	return findings
}

func (s *seen) judgeRow(l *lease.Lease, role *pgrole.LeaseRole) finding {
	made := time.Unix(l.ID.Time().UnixTime())
	switch {
	case l.State == lease.Ended && (role == nil || s.now.Sub(l.EndedAt) < comesLate):
		return finding{} // the roles were read before it had ended, or another role has its record
	case l.State == lease.Ended:
		return finding{what: reopen, reason: l.Reason}
	case l.State != lease.Active:
		return finding{} // its task sees to it
	case role == nil && s.now.Sub(made) < comesLate:
		return finding{}
	case role == nil || role.ForGone:
		return finding{what: end, reason: lease.Gone}
	case role.ForProblem != "":
		return finding{what: end, reason: lease.AccessEnded}
	}
	if reason := s.holderProblem(l); reason != "" {
		return finding{what: end, reason: reason}
	}
	// An earlier end may have been read before a renewal. Else the renewal was lost in a failover of the cluster.
	settled := role.Now.Sub(l.RenewedAt) > comesLate
	if role.Ends.After(l.ExpiresAt) || settled && role.Ends.Before(l.ExpiresAt) {
		return finding{what: move}
	}
	return finding{}
}

// holderProblem is why the account or the credential of a lease no longer may have it; "" if it may.
func (s *seen) holderProblem(l *lease.Lease) lease.Reason {
	if l.Account == "" {
		if !s.credentials[l.Credential] {
			return lease.ByCredential // it was deleted while the lease was made, or the control database was restored
		}
		return ""
	}
	a := s.accounts[l.Account]
	if a == nil || !a.Active || a.IdentityCreatedAt.IsZero() {
		return lease.AccountEnded
	}
	p := &account.Principal{GUID: a.GUID, Scopes: a.Scopes, Labels: a.Labels}
	if !access.MayManage(p, s.cluster) {
		return lease.AccessEnded
	}
	return ""
}

// found is the lease of a role of which there is no row: the control database was restored from an older backup.
func (s *seen) found(role *pgrole.LeaseRole) *lease.Lease {
	l := &lease.Lease{ID: role.ID, Cluster: s.cluster.ID, Username: role.Name, RoleOID: role.OID, For: role.For,
		Credential: role.Credential, TTL: max(lease.MinTTL, role.Ends.Sub(role.Created)), CreatedAt: role.Created,
		ExpiresAt:    role.Ends,
		MaxExpiresAt: role.Ends, State: lease.Active}
	if last := role.Created.Add(s.cluster.Leases.MaxTTL); last.After(l.MaxExpiresAt) {
		l.MaxExpiresAt = last
	}
	if l.Credential != "" {
		l.MaxExpiresAt = role.Ends
	} else if l.Account = role.CreatedBy; l.Account == "" {
		l.Account = audit.ActorUnknown
	}
	return l
}

// setRight does what a finding asks for.
func (s *Service) setRight(ctx context.Context, tx pgx.Tx, f finding) error {
	switch f.what {
	case end:
		return s.endSoon(ctx, tx, f.lease, f.reason)
	case find:
		if found, err := s.LeaseStore.FoundAgain(ctx, tx, f.lease); err != nil || !found {
			return err
		}
		s.Log.Warn("a lease was found again: the control database was restored from an older backup",
			"cluster", f.lease.Cluster, "lease", f.lease.ID, "user", f.lease.Username)
		if err := s.rotateFound(ctx, tx, f.lease); err != nil {
			return err
		}
		return scheduleEnd(ctx, tx, f.lease, f.role.Ends.Sub(f.role.Now))
	case reopen:
		if err := s.LeaseStore.Reopen(ctx, tx, f.lease.ID, f.role.Name, f.role.OID); err != nil {
			return err
		}
		return scheduleEnd(ctx, tx, f.lease, 0)
	case identify:
		return s.LeaseStore.Identify(ctx, tx, f.lease.ID, f.role.Name, f.role.OID)
	case move:
		if err := s.LeaseStore.Renewed(ctx, tx, f.lease.ID, f.role.Ends, time.Time{}); err != nil {
			return err
		}
		return scheduleEnd(ctx, tx, f.lease, f.role.Ends.Sub(f.role.Now))
	}
	return nil
}
