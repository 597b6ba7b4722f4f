package dbuser

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/invisible"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
	"rolecall/internal/task"
)

// A lease is a role in the cluster, a row in the control database, and a task that ends it. The row and the task are there
// before the role: whatever is cut off, the task finds what is there and ends it. The clock of the cluster decides when a
// lease ends, so the task only says when to look.

// NewLease is what a lease is made with.
type NewLease struct {
	For         string
	TTL, MaxTTL time.Duration // 0: as the cluster is set
	Note        string
}

// maxNote is how many characters a note has at most.
const maxNote = 200

// unmade is how long after its row was written a lease is looked at whose role may not have been made: later than it can be.
const unmade = changeTimeout + settleMargin

// terms are how long the lease lasts at first, and with all renewals.
func (n *NewLease) terms(limits lease.Limits) (ttl, last time.Duration, err error) {
	last = cmp.Or(n.MaxTTL, limits.MaxTTL)
	ttl = cmp.Or(n.TTL, min(limits.DefaultTTL, last))
	switch {
	case last > limits.MaxTTL:
		err = fault.New(fault.Invalid, "The maximum of %s is too long: in this cluster a lease lasts at most %s.",
			moment.DurationText(last), moment.DurationText(limits.MaxTTL)).At("maxTtl")
	case ttl < lease.MinTTL || last < lease.MinTTL:
		err = fault.New(fault.Invalid, "A lease of %s is too short: it lasts %s or longer.",
			moment.DurationText(min(ttl, last)), moment.DurationText(lease.MinTTL)).At("ttl")
	case ttl > last:
		err = fault.New(fault.Invalid, "A lease of %s is too long: it lasts at most %s.", moment.DurationText(ttl),
			moment.DurationText(last)).At("ttl")
	}
	return ttl, last, err
}

// check refuses what no cluster makes a lease of.
func (n *NewLease) check() error {
	switch {
	case n.For == "":
		return fault.New(fault.Invalid, "Say which role the lease is for.").At("for")
	case pgrole.CheckStorable(n.For) != nil:
		return fault.New(fault.Invalid, "There is no role %.100q in this cluster.", n.For).At("for").Because(ErrNoRole)
	case utf8.RuneCountInString(n.Note) > maxNote:
		return fault.New(fault.Invalid, "The note has %d characters; it may have %d.", utf8.RuneCountInString(n.Note), maxNote).
			At("note")
	case !utf8.ValidString(n.Note) || invisible.In(n.Note):
		return fault.New(fault.Invalid, "The note has characters that are not shown. Leave out control characters and line ends.").
			At("note")
	}
	return nil
}

// CreateLease makes a lease. The password is known to the caller only.
func (s *Service) CreateLease(ctx context.Context, p *account.Principal, clusterID string, n NewLease) (
	c *cluster.Cluster, l *lease.Lease, password secret.Text, err error) {
	// Names are random, and few are taken.
	return s.createLeaseNamed(ctx, p, clusterID, n, []string{lease.NewName(n.For), lease.NewName(n.For), lease.NewName(n.For)})
}

// createLeaseNamed makes a lease with the first of the names that no role has.
func (s *Service) createLeaseNamed(ctx context.Context, p *account.Principal, clusterID string, n NewLease, names []string) (
	c *cluster.Cluster, l *lease.Lease, password secret.Text, err error) {
	for _, name := range names {
		c, l, password, err = s.createLease(ctx, p, clusterID, n, name)
		if !fault.Is(err, fault.Exists) {
			break
		}
	}
	return c, l, password, err
}

func (s *Service) createLease(ctx context.Context, p *account.Principal, clusterID string, n NewLease, name string) (
	*cluster.Cluster, *lease.Lease, secret.Text, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, "", err
	}
	limits := c.Leases
	ttl, last, invalid := n.terms(limits)
	l := &lease.Lease{ID: uuid.Must(uuid.NewV7()), Cluster: c.ID, Username: name, For: n.For, Account: p.GUID,
		AccountName: p.Entry("", "", nil).AccountName, Token: cmp.Or(p.Token, p.AccessToken), Note: n.Note,
		TTL: ttl, State: lease.Active}
	op, err := s.begin(ctx, p, c, change{
		action:         audit.CreateLease,
		target:         name,
		detail:         detail{Lease: l.ID, For: l.For, TTL: moment.DurationText(ttl), Note: l.Note},
		limit:          changeTimeout,
		oneTransaction: true,
	}, cmp.Or(n.check(), invalid))
	if err != nil {
		return nil, nil, "", err
	}
	defer op.release()
	password := newPassword()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		err = op.makeLease(changing, l, last, limits.MaxPerAccount, password)
	}
	if err = op.end(ctx, uuid.Nil, detail{ExpiresAt: l.ExpiresAt}, err); err != nil {
		return nil, nil, "", err
	}
	return op.cluster, l, password, nil
}

// newPassword generates the password of a lease.
func newPassword() secret.Text { return secret.Text(strings.ToLower(rand.Text())) }

// makeLease makes a lease with its role. It lasts for its TTL, and with all renewals for last. most is how many leases an
// account may have. The lease gets its times from the clock of the cluster.
func (op *operation) makeLease(ctx context.Context, l *lease.Lease, last time.Duration, most int,
	password secret.Text) error {
	s := op.service
	l.CreatedAt = time.Now().UTC()
	l.ExpiresAt, l.MaxExpiresAt = l.CreatedAt.Add(l.TTL), l.CreatedAt.Add(last)
	err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		if l.Account != "" {
			if err := s.mayTake(ctx, tx, op.principal, l, most); err != nil {
				return err
			}
		}
		batch := &pgx.Batch{}
		s.LeaseStore.QueueInsert(batch, l)
		task.QueueSet(batch, endOf(l, unmade))
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return err
	}
	role, err := op.server.CreateLease(ctx, pgrole.NewLease{ID: l.ID, For: l.For, Name: l.Username, TTL: l.TTL,
		Credential: l.Credential, Installation: s.LeaseStore.DB.Installation}, string(password), op.by())
	if err != nil {
		if !pgrole.Uncertain(err) {
			op.forgetLease(ctx, l)
		}
		return err
	}
	l.RoleOID, l.CreatedAt, l.ExpiresAt, l.Databases = role.OID, role.Created, role.Ends, role.Databases
	l.MaxExpiresAt = role.Created.Add(last)
	err = s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		now, err := s.LeaseStore.Lock(ctx, tx, l.ID)
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		s.LeaseStore.QueueMade(batch, l)
		if now.State == lease.Active { // else somebody has ended it already
			task.QueueSet(batch, endOf(l, role.Ends.Sub(role.Now)))
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		// The task is there, and finds out when the lease ends.
		s.Log.Warn("the times of a lease were not recorded", "cluster", l.Cluster, "lease", l.ID, "error", err)
	}
	return nil
}

// mayTake refuses an account that has as many leases as it may have, or that is no longer active, and a token that was
// revoked. Until the transaction ends, the account is not deactivated and its other calls wait.
func (s *Service) mayTake(ctx context.Context, tx pgx.Tx, p *account.Principal, l *lease.Lease, most int) error {
	n, err := s.LeaseStore.CountLive(ctx, tx, l.Account, l.Cluster)
	if err != nil {
		return err
	}
	if n >= most {
		return fault.New(fault.Invalid, "You have %d leases in this cluster; the limit is %d. End one, or wait until one ends.",
			n, most)
	}
	return s.Accounts.CheckActive(ctx, tx, p)
}

// forgetLease removes the row and the task of a lease whose role was not made. If it cannot, the task ends the lease.
func (op *operation) forgetLease(ctx context.Context, l *lease.Lease) {
	s := op.service
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := s.LeaseStore.Delete(ctx, tx, l.ID); err != nil {
			return err
		}
		return task.Remove(ctx, tx, endLeases, l.ID)
	})
	if err != nil {
		s.Log.Warn("the row of a lease that was not made is left to its task", "cluster", l.Cluster, "lease", l.ID, "error", err)
	}
}

// Lease returns a lease that is the principal's, or of a cluster that it may view.
func (s *Service) Lease(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, *lease.Lease, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return nil, nil, lease.NotFound(id)
	}
	l, err := s.LeaseStore.Get(ctx, parsed)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.Clusters.Get(l.Cluster.String())
	if err != nil || !ownLease(p, l) && !access.MayView(p, c) {
		return nil, nil, fault.Of(lease.NotFound(id)).Because(cmp.Or(err, access.ErrNoView))
	}
	return c, l, nil
}

// ownLease reports whether a lease is the principal's.
func ownLease(p *account.Principal, l *lease.Lease) bool {
	return l.Account != "" && l.Account == p.GUID && p.Reaches(l.Cluster)
}

// Leases lists the leases, the newest first, of one cluster, or with "" of all: those that are the principal's, and all of
// clusters that it may view.
func (s *Service) Leases(ctx context.Context, p *account.Principal, clusterID string, f lease.Filter) (
	list []*lease.Lease, more bool, err error) {
	f.Clusters, f.Own = []uuid.UUID{}, ""
	if clusterID == "" {
		for _, c := range s.ViewableClusters(p) {
			f.Clusters = append(f.Clusters, c.ID)
		}
		if p.Clusters == nil {
			f.Own = p.GUID
		}
		return s.LeaseStore.List(ctx, f)
	}
	c, err := s.Cluster(p, clusterID)
	if errors.Is(err, access.ErrNoView) {
		return s.ownLeases(ctx, p, clusterID, f, err)
	}
	if err != nil {
		return nil, false, err
	}
	f.Clusters = append(f.Clusters, c.ID)
	return s.LeaseStore.List(ctx, f)
}

// ownLeases lists the principal's leases of a cluster that it may not view. Without any, it is refused: noView.
func (s *Service) ownLeases(ctx context.Context, p *account.Principal, clusterID string, f lease.Filter, noView error) (
	list []*lease.Lease, more bool, err error) {
	c, err := s.Clusters.Get(clusterID)
	if err != nil || !p.Reaches(c.ID) {
		return nil, false, noView
	}
	own := lease.Filter{Clusters: []uuid.UUID{c.ID}, Account: p.GUID, Limit: 1}
	some, _, err := s.LeaseStore.List(ctx, own)
	if err != nil || len(some) == 0 {
		return nil, false, cmp.Or(err, noView)
	}
	if f.Account != "" && f.Account != p.GUID && f.Account != some[0].AccountName {
		return nil, false, nil
	}
	f.Clusters, f.Account = own.Clusters, p.GUID
	return s.LeaseStore.List(ctx, f)
}

// LeaseRefusal is why the principal, who sees a lease, may not renew or end it; nil when it may.
func LeaseRefusal(p *account.Principal, c *cluster.Cluster, l *lease.Lease) error {
	return (&change{own: ownLease(p, l)}).refusal(p, c)
}

// RenewalRefusal is why a lease is not renewed; nil if it is.
func RenewalRefusal(l *lease.Lease) error { return checkRenewal(l, max(l.TTL, lease.MinTTL)) }

// leaseToChange returns a lease that the principal may change, because it is its own or because it may manage the cluster,
// and what the change has to know of that.
func (s *Service) leaseToChange(ctx context.Context, p *account.Principal, id, action string) (
	c *cluster.Cluster, l *lease.Lease, do change, err error) {
	c, l, err = s.Lease(ctx, p, id)
	if err != nil {
		return nil, nil, change{}, err
	}
	do = change{action: action, target: l.Username, detail: detail{Lease: l.ID, For: l.For}, own: ownLease(p, l)}
	if refused := do.refusal(p, c); refused != nil {
		entry := p.Entry(do.action, do.target, do.detail)
		entry.Cluster = c.ID
		return nil, nil, do, s.Audit.Refuse(ctx, entry, refused)
	}
	return c, l, do, nil
}

// RenewLease moves the end of a lease to ttl from now, 0: the ttl that it was made with, but not beyond its last end, and
// never to an earlier one. cut says that the last end was nearer.
func (s *Service) RenewLease(ctx context.Context, p *account.Principal, id string, ttl time.Duration) (
	c *cluster.Cluster, l *lease.Lease, cut bool, err error) {
	c, l, do, err := s.leaseToChange(ctx, p, id, audit.RenewLease)
	if err != nil {
		return nil, nil, false, err
	}
	ttl = cmp.Or(ttl, l.TTL)
	do.detail.TTL, do.limit, do.oneTransaction = moment.DurationText(ttl), changeTimeout, true
	op, err := s.begin(ctx, p, c, do, checkRenewal(l, ttl))
	if err != nil {
		return nil, nil, false, err
	}
	defer op.release()
	var role *pgrole.LeaseRole
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		role, err = op.server.ChangeLeaseEnd(changing, keyOf(l), pgrole.LeaseEnd{In: ttl, Max: l.MaxExpiresAt}, op.by())
		if fault.Is(err, fault.NotFound) {
			err = leaseIsOver(l).Because(err)
		}
	}
	over, previous := false, uuid.Nil
	if err == nil {
		previous = role.Previous
		cut = role.Now.Add(ttl).After(role.Ends)
		l.ExpiresAt, l.RenewedAt = role.Ends, role.Now
		over = s.recordRenewal(changing, l, role.Ends.Sub(role.Now))
	}
	if err = op.end(ctx, previous, detail{ExpiresAt: l.ExpiresAt}, err); err == nil && over {
		err = leaseIsOver(l)
	}
	if err != nil {
		return nil, nil, false, err
	}
	return op.cluster, l, cut, nil
}

// checkRenewal refuses to renew a lease whose row says that this is in vain.
func checkRenewal(l *lease.Lease, ttl time.Duration) error {
	switch {
	case l.State != lease.Active:
		return leaseIsOver(l)
	case l.Credential != "":
		return fault.New(fault.Invalid, "The lease %q belongs to the credential %q, which replaces it in time: it is not renewed.",
			l.ID, l.Credential)
	case ttl < lease.MinTTL:
		return fault.New(fault.Invalid, "A lease of %s is too short: it lasts %s or longer.",
			moment.DurationText(ttl), moment.DurationText(lease.MinTTL)).At("ttl")
	case !l.ExpiresAt.Before(l.MaxExpiresAt):
		return fault.New(fault.Invalid, "The lease %q ends at %s, and cannot be renewed beyond that. Take another one.", l.ID,
			l.MaxExpiresAt.UTC().Format(time.RFC3339))
	}
	return nil
}

func leaseIsOver(l *lease.Lease) *fault.Error {
	return fault.New(fault.Invalid, "The lease %q has ended. Take another one.", l.ID)
}

// recordRenewal records the new end of a lease and schedules its task, unless somebody has ended the lease in the meantime:
// then it is over. If that cannot be recorded, the task finds out itself.
func (s *Service) recordRenewal(ctx context.Context, l *lease.Lease, left time.Duration) (over bool) {
	err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		now, err := s.LeaseStore.Lock(ctx, tx, l.ID)
		if err != nil {
			return err
		}
		if over = now.State != lease.Active; over {
			return nil
		}
		if err := s.LeaseStore.Renewed(ctx, tx, l.ID, l.ExpiresAt, l.RenewedAt); err != nil {
			return err
		}
		return scheduleEnd(ctx, tx, l, left)
	})
	if err != nil {
		s.Log.Warn("the end of a lease was not recorded", "cluster", l.Cluster, "lease", l.ID, "error", err)
	}
	return over
}

// EndLease ends a lease now. If something keeps its role from being dropped, the lease is returned, blocked.
func (s *Service) EndLease(ctx context.Context, p *account.Principal, id string) (
	*cluster.Cluster, *lease.Lease, error) {
	c, l, do, err := s.leaseToChange(ctx, p, id, audit.EndLease)
	if err != nil || l.State == lease.Ended {
		return c, l, err
	}
	if _, err = s.endLease(ctx, p, c, l, do, cmp.Or(l.Reason, lease.Deleted)); err != nil {
		if fault.Is(err, fault.Unavailable) && l.State == lease.Ending {
			err = fault.Of(err).Add("The lease ends as soon as possible.")
		}
		return nil, nil, err
	}
	return c, l, nil
}

// endLease drops the role of a lease, or disables it if something keeps it from being dropped, and changes l accordingly. An
// active lease that has expired is ended only if it has by the clock of the cluster; left is how long it lasts else.
func (s *Service) endLease(ctx context.Context, p *account.Principal, c *cluster.Cluster, l *lease.Lease, do change,
	reason lease.Reason) (left time.Duration, err error) {
	expired := do.ifExpired
	do.limit, do.detail.EndReason = deleteTimeout, string(reason)
	op, err := s.begin(ctx, p, c, do, nil)
	if err != nil {
		return 0, err
	}
	defer op.release()
	var e pgrole.EndedLease
	ending, err := op.detach(ctx)
	if err == nil && l.State == lease.Active && !expired {
		err = s.leaseIs(ending, l, lease.Ending, reason, nil)
	}
	if err == nil {
		e, err = op.dropLease(ending, ctx, l)
	}
	switch {
	case err != nil:
	case e.Remaining > 0:
		_ = op.end(ctx, uuid.Nil, detail{}, errLasts)
		return e.Remaining, nil
	case len(e.BlockedBy) > 0:
		err = s.leaseIs(ending, l, lease.Blocked, reason, e.BlockedBy)
	case e.Gone && l.State == lease.Active && time.Now().Before(l.ExpiresAt):
		err = s.leaseIs(ending, l, lease.Ended, lease.Gone, nil)
	default:
		err = s.leaseIs(ending, l, lease.Ended, reason, nil)
	}
	if err == nil && e.Gone {
		_ = op.end(ctx, uuid.Nil, detail{}, errRoleGone)
		return 0, nil
	}
	return 0, op.end(ctx, e.Previous, detail{BlockedBy: e.BlockedBy}, err)
}

// What became of attempts to end a lease that have changed nothing.
var (
	errLasts    = fault.New(fault.Invalid, "By the clock of the cluster it has not expired yet.")
	errRoleGone = fault.New(fault.NotFound, "Its role was gone.")
)

// keyOf says which role is that of a lease.
func keyOf(l *lease.Lease) pgrole.LeaseKey {
	return pgrole.LeaseKey{Name: l.Username, ID: l.ID, OID: l.RoleOID}
}

// dropLease drops the role of a lease. The short way needs no turn.
func (op *operation) dropLease(ending, ctx context.Context, l *lease.Lease) (e pgrole.EndedLease, err error) {
	e, done, err := op.server.DropLease(ending, keyOf(l), op.do.ifExpired)
	if err != nil || done {
		return e, err
	}
	if err := op.wait(ctx); err != nil {
		return e, err
	}
	return op.server.EndLease(ending, keyOf(l), op.do.ifExpired, op.by())
}

// leaseIs records the state of a lease on its way to the end, and schedules its task.
func (s *Service) leaseIs(ctx context.Context, l *lease.Lease, state lease.State, reason lease.Reason,
	blockedBy []string) error {
	batch := &pgx.Batch{}
	s.LeaseStore.QueueState(batch, l.ID, state, reason, blockedBy)
	switch state {
	case lease.Ended:
		task.QueueRemove(batch, endLeases, l.ID)
	case lease.Blocked:
		task.QueueSet(batch, endOf(l, blockedRetry))
	default:
		task.QueueSet(batch, endOf(l, settleMargin)) // if this process does not finish it
	}
	var err error
	if l.Account != "" { // rotateInstead has nothing to do
		err = s.LeaseStore.DB.Send(ctx, batch)
	} else {
		err = s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
			if err := tx.SendBatch(ctx, batch).Close(); err != nil {
				return err
			}
			return s.rotateInstead(ctx, tx, l)
		})
	}
	if err == nil {
		l.State, l.Reason, l.BlockedBy = state, cmp.Or(l.Reason, reason), blockedBy
		if state == lease.Ended {
			l.EndedAt = time.Now()
		}
	}
	return err
}

// EndLeasesOfToken ends, soon, the leases that were made with a token.
func (s *Service) EndLeasesOfToken(ctx context.Context, token uuid.UUID) error {
	if token == uuid.Nil {
		return nil
	}
	return s.endLeasesOf(ctx, lease.Filter{Token: token, States: []lease.State{lease.Active}}, lease.Deleted)
}

// endLeasesOf has the leases that a filter chooses ended, soon.
func (s *Service) endLeasesOf(ctx context.Context, f lease.Filter, reason lease.Reason) error {
	list, _, err := s.LeaseStore.List(ctx, f)
	if err != nil || len(list) == 0 {
		return err
	}
	return s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		for _, l := range list {
			if err := s.endSoon(ctx, tx, l, reason); err != nil {
				return err
			}
		}
		return nil
	})
}

// endSoon has a lease ended by its task.
func (s *Service) endSoon(ctx context.Context, tx pgx.Tx, l *lease.Lease, reason lease.Reason) error {
	changed, err := s.LeaseStore.SetState(ctx, tx, l.ID, lease.Ending, reason, nil)
	if err != nil || !changed {
		return err
	}
	if err := s.rotateInstead(ctx, tx, l); err != nil {
		return err
	}
	return scheduleEnd(ctx, tx, l, 0)
}

// leaseNamed returns the live lease whose role has a name, nil if there is none.
func (s *Service) leaseNamed(ctx context.Context, cluster uuid.UUID, name string) (*lease.Lease, error) {
	if !lease.IsName(name) {
		return nil, nil
	}
	list, _, err := s.LeaseStore.List(ctx, lease.Filter{Clusters: []uuid.UUID{cluster}, Username: name, Live: true})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// deleteLease ends the lease whose role is to be deleted as a user. Without a lease it does nothing.
func (s *Service) deleteLease(ctx context.Context, p *account.Principal, clusterID, name string, match etag.Match) (
	c *cluster.Cluster, l *lease.Lease, err error) {
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	l, err = s.leaseNamed(ctx, c.ID, name)
	if err != nil || l == nil {
		return c, nil, err
	}
	if match != nil {
		reading, r, err := s.read(ctx, p, clusterID)
		if err != nil {
			return nil, nil, err
		}
		defer r.end()
		if _, err := r.server.Changeable(reading, name, match); err != nil {
			return nil, nil, err
		}
	}
	c, l, err = s.EndLease(ctx, p, l.ID.String())
	return c, l, err
}

// leaseInUse is the answer to the deletion of a user that is a lease whose role cannot be dropped; nil if it was.
func leaseInUse(l *lease.Lease) error {
	if l == nil || l.State != lease.Blocked {
		return nil
	}
	return fault.New(fault.InUse, "The user %q is a lease, which has ended. Something keeps it from being dropped, "+
		"which is tried again: %s", l.Username, strings.Join(l.BlockedBy, " "))
}

// endLeasesFor has the leases ended, soon, that act for a user that was disabled: nobody is to come in by that door. If it
// cannot, the next sweep does.
func (s *Service) endLeasesFor(ctx context.Context, c *cluster.Cluster, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.endLeasesOf(ctx, lease.Filter{Clusters: []uuid.UUID{c.ID}, For: name, States: []lease.State{lease.Active}},
		lease.AccessEnded)
	if err != nil {
		s.Log.Warn("the leases for a disabled user are left to the next sweep", "cluster", c.ID, "user", name, "error", err)
	}
}
