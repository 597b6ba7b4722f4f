package dbuser

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"strconv"
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

// CredentialSettings are what a manager says of a stored credential.
type CredentialSettings struct {
	For                  string
	RotateEvery, Overlap time.Duration
	Window               *lease.Window
}

func settingsOf(cr *lease.Credential) CredentialSettings {
	return CredentialSettings{For: cr.For, RotateEvery: cr.RotateEvery, Overlap: cr.Overlap, Window: cr.Window}
}

// The limits of a credential.
const (
	minRotateEvery    = time.Second
	maxRotateEvery    = 3650 * 24 * time.Hour
	maxCredentialName = 63 // characters
)

// check refuses settings that no cluster takes.
func (set *CredentialSettings) check() error {
	switch {
	case set.RotateEvery < minRotateEvery || set.RotateEvery > maxRotateEvery:
		return fault.New(fault.Invalid, "The field rotateEvery is %s; use %s to %s.", moment.DurationText(set.RotateEvery),
			moment.DurationText(minRotateEvery), moment.DurationText(maxRotateEvery)).At("rotateEvery")
	case set.Overlap < 0 || set.Overlap > set.RotateEvery:
		return fault.New(fault.Invalid, "The field overlap is %s; use at most rotateEvery, which is %s.",
			moment.DurationText(set.Overlap), moment.DurationText(set.RotateEvery)).At("overlap")
	}
	if set.Window != nil {
		if err := set.Window.Check(); err != nil {
			return err
		}
		if err := set.Window.TooRare(set.RotateEvery); err != nil {
			return err
		}
	}
	return (&NewLease{For: set.For}).check()
}

func checkCredentialName(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxCredentialName:
		return fault.New(fault.Invalid, "The name of a credential has 1 to %d characters, this one %d.", maxCredentialName,
			utf8.RuneCountInString(name)).At("name")
	case !utf8.ValidString(name) || invisible.In(name):
		return fault.New(fault.Invalid, "The name %+q has a character that is not shown. Leave it out.", name).At("name")
	case strings.Contains(name, "/") || name == "." || name == "..":
		return fault.New(fault.Invalid, "The name %q cannot stand in a URL. Choose another.", name).At("name")
	}
	return nil
}

// lead is how long before rotateEvery is over a credential rotates. A rotation that is late, or that is tried again, still
// finds a password that is valid.
func (set *CredentialSettings) lead() time.Duration {
	return min(max(set.RotateEvery/10, 2*time.Second), time.Minute, set.RotateEvery/2)
}

// spread is by how much the rotations of credentials differ that were made at the same time.
func (set *CredentialSettings) spread() time.Duration { return min(set.RotateEvery/20, 10*time.Minute) }

// next is when a credential that was rotated at a time rotates again. share is random, from 0 to 1: so the credentials of a
// cluster that were made at once do not all rotate at once.
func (set *CredentialSettings) next(rotated time.Time, share float64) time.Time {
	part := time.Duration(share * float64(set.spread()))
	at := rotated.Add(set.RotateEvery - set.lead() - part)
	if set.Window == nil {
		return at
	}
	opens := set.Window.Next(at)
	if !opens.After(at) {
		return at
	}
	if later := opens.Add(part); set.Window.Next(later).Equal(later) {
		return later
	}
	return opens
}

// nextWithin is next, but early enough that a lease that ends at a time lasts for the overlap after the rotation.
func (set *CredentialSettings) nextWithin(ends, rotated time.Time, share float64) time.Time {
	at, last := set.next(rotated, share), ends.Add(-set.Overlap-set.lead())
	if at.After(last) {
		return last
	}
	return at
}

// detail is what the audit log keeps of the settings.
func (set *CredentialSettings) detail() detail {
	return detail{For: set.For, RotateEvery: moment.DurationText(set.RotateEvery), Overlap: moment.DurationText(set.Overlap),
		Window: set.Window}
}

func credentialNotFound(name string) *fault.Error {
	return fault.New(fault.NotFound, "There is no credential %q in this cluster.", name)
}

// errRotating is the cause of a fault: another rotation of the credential is in progress.
var errRotating = errors.New("another rotation of the credential is in progress")

func isRotating(name string) error {
	return fault.New(fault.Unavailable, "The credential %q is being rotated by another call. Try again.", name).
		After(time.Second).Because(errRotating)
}

// rotatingTries and rotatingPause are how often and after what pause a request tries again while another call rotates.
const (
	rotatingTries = 50
	rotatingPause = 100 * time.Millisecond
)

// waitsForOther waits after an error that says that another call rotates the credential. It returns false when it is time
// to answer.
func waitsForOther(ctx context.Context, err error, try int) bool {
	if !errors.Is(err, errRotating) || try >= rotatingTries {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(rotatingPause):
		return true
	}
}

// onCredential returns a cluster that the principal may manage, and the entry that records what it does to a credential
// there. A refusal is recorded.
func (s *Service) onCredential(ctx context.Context, p *account.Principal, clusterID, name, action string, d detail) (
	*cluster.Cluster, audit.Entry, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, audit.Entry{}, err
	}
	entry := p.Entry(action, name, d)
	entry.Cluster = c.ID
	if refused := CredentialRefusal(p, c, name); refused != nil {
		return nil, entry, s.Audit.Refuse(ctx, entry, refused)
	}
	return c, entry, nil
}

// CredentialRefusal is why the principal, who may view a cluster, may not change or read a stored credential there; nil when
// it may.
func CredentialRefusal(p *account.Principal, c *cluster.Cluster, name string) error {
	if err := access.Refusal(p, c); err != nil {
		return err
	}
	if !p.ReachesCredential(c.ID, name) {
		return fault.New(fault.Forbidden, "The personal access token is limited to other credentials.")
	}
	return nil
}

// Credentials lists the stored credentials of a cluster after a name, in the order of their names' bytes.
func (s *Service) Credentials(ctx context.Context, p *account.Principal, clusterID, after string, limit int) (
	c *cluster.Cluster, list []*lease.Credential, more bool, err error) {
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, false, err
	}
	list, more, err = s.LeaseStore.ListCredentials(ctx, c.ID, after, limit)
	for _, cr := range list {
		showUnreachable(c, cr)
	}
	return c, list, more, err
}

// showUnreachable shows a credential as failing that cannot rotate because its cluster does not answer.
func showUnreachable(c *cluster.Cluster, cr *lease.Credential) {
	if cr.LastError == "" && c.Unreachable() {
		cr.LastError = "The cluster does not answer, or takes no changes. The credential rotates as soon as it does."
	}
}

// Credential returns a stored credential, without its password.
func (s *Service) Credential(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *lease.Credential, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	cr, err := s.credential(ctx, c, name)
	if err == nil {
		showUnreachable(c, cr)
	}
	return c, cr, err
}

// credential returns a credential that has its first lease.
func (s *Service) credential(ctx context.Context, c *cluster.Cluster, name string) (*lease.Credential, error) {
	if pgrole.CheckStorable(name) != nil {
		return nil, credentialNotFound(name)
	}
	cr, err := s.LeaseStore.GetCredential(ctx, c.ID, name)
	if fault.Is(err, fault.NotFound) || err == nil && cr.Lease == uuid.Nil {
		return nil, credentialNotFound(name)
	}
	return cr, err
}

// CurrentCredential returns the current password of a stored credential. Each read is recorded.
func (s *Service) CurrentCredential(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *lease.Current, error) {
	c, entry, err := s.onCredential(ctx, p, clusterID, name, audit.ReadCredential, detail{})
	if err != nil {
		return nil, nil, err
	}
	cr, l, err := s.currentLease(ctx, c, name)
	if err != nil {
		return nil, nil, err
	}
	current := &lease.Current{Credential: cr, Databases: l.Databases, ExpiresAt: cr.RotatesAt.Add(cr.Overlap)}
	if l.ExpiresAt.Before(current.ExpiresAt) {
		current.ExpiresAt = l.ExpiresAt
	}
	if current.Password, err = s.LeaseStore.Password(cr); err != nil {
		return nil, nil, err
	}
	entry.Detail = detail{Lease: l.ID, For: l.For, Username: l.Username}
	if err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error { return s.Audit.Record(ctx, tx, entry) }); err != nil {
		return nil, nil, err
	}
	return c, current, nil
}

// currentLease returns a credential and its current lease, which is active.
func (s *Service) currentLease(ctx context.Context, c *cluster.Cluster, name string) (*lease.Credential, *lease.Lease,
	error) {
	for before := uuid.Nil; ; {
		cr, err := s.credential(ctx, c, name)
		if err != nil {
			return nil, nil, err
		}
		l, err := s.LeaseStore.Get(ctx, cr.Lease)
		switch {
		case err == nil && l.State == lease.Active:
			return cr, l, nil
		case err != nil && !fault.Is(err, fault.NotFound):
			return nil, nil, err
		case cr.Lease == before:
			return nil, nil, fault.New(fault.Unavailable, "The credential %q has no valid password at the moment: its lease has "+
				"ended, and another one is made as soon as possible. %s", name, cr.LastError).After(5 * time.Second)
		}
		before = cr.Lease // if it was replaced between the two reads, another one is the current one now
	}
}

// PutCredential makes a stored credential, with its first lease, or changes one.
func (s *Service) PutCredential(ctx context.Context, p *account.Principal, clusterID, name string, set CredentialSettings,
	match etag.Match) (c *cluster.Cluster, cr *lease.Credential, created bool, err error) {
	return s.putCredentialNow(ctx, p, clusterID, name, set, putOptions{match: match})
}

// NewCredential makes a stored credential, with its first lease. It refuses the name of one that is there.
func (s *Service) NewCredential(ctx context.Context, p *account.Principal, clusterID, name string, set CredentialSettings) (
	*cluster.Cluster, *lease.Credential, error) {
	c, cr, _, err := s.putCredentialNow(ctx, p, clusterID, name, set, putOptions{onlyNew: true})
	return c, cr, err
}

// putOptions say when a credential is not put.
type putOptions struct {
	match   etag.Match
	onlyNew bool // if there is one of the name
}

// putCredentialNow puts a credential, and waits for a concurrent rotation of it.
func (s *Service) putCredentialNow(ctx context.Context, p *account.Principal, clusterID, name string,
	set CredentialSettings, options putOptions) (c *cluster.Cluster, cr *lease.Credential, created bool, err error) {
	for try := 0; ; try++ {
		c, cr, created, err = s.putCredential(ctx, p, clusterID, name, set, options)
		if !waitsForOther(ctx, err, try) {
			return c, cr, created, err
		}
	}
}

func (s *Service) putCredential(ctx context.Context, p *account.Principal, clusterID, name string, set CredentialSettings,
	options putOptions) (c *cluster.Cluster, cr *lease.Credential, created bool, err error) {
	match := options.match
	c, entry, err := s.onCredential(ctx, p, clusterID, name, audit.PutCredential, set.detail())
	if err == nil {
		err = cmp.Or(checkCredentialName(name), set.check())
	}
	if err != nil {
		return nil, nil, false, err
	}
	cr, err = s.LeaseStore.GetCredential(ctx, c.ID, name)
	r := &rotation{action: audit.PutCredential, set: set, match: match}
	switch {
	case fault.Is(err, fault.NotFound) && len(match) > 0:
		return nil, nil, false, fault.New(fault.Stale, "There is no credential %q yet. Leave out If-Match to make it.", name)
	case fault.Is(err, fault.NotFound):
		r.created = true
		r.cr = &lease.Credential{ID: uuid.New(), Cluster: c.ID, Name: name, For: set.For, RotateEvery: set.RotateEvery,
			Overlap: set.Overlap, Window: set.Window, CreatedBy: p.GUID}
	case err != nil:
		return nil, nil, false, err
	case cr.Lease == uuid.Nil:
		return nil, nil, false, isRotating(name)
	case options.onlyNew:
		return nil, nil, false, fault.New(fault.Exists, "There is a credential %q already. Change that one, or choose another "+
			"name.", name).At("name")
	default:
		if err := checkMatch(cr, match); err != nil {
			return nil, nil, false, err
		}
		if r.cr = cr; set.For == cr.For {
			err = s.changeCredential(ctx, entry, cr, set)
			if err == nil {
				cr, err = s.credential(ctx, c, name)
			}
			return c, cr, false, err
		}
	}
	c, cr, err = s.rotate(ctx, p, c, r)
	return c, cr, r.created, err
}

func checkMatch(cr *lease.Credential, match etag.Match) error {
	if match.Allows(strconv.FormatInt(cr.Revision, 10)) {
		return nil
	}
	return fault.New(fault.Stale, "The credential %q has changed: it is at revision %d. Read it again before you change it.",
		cr.Name, cr.Revision)
}

// changeCredential stores settings that need no other lease.
func (s *Service) changeCredential(ctx context.Context, entry audit.Entry, cr *lease.Credential,
	set CredentialSettings) error {
	return s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		now, err := s.LeaseStore.LockCredential(ctx, tx, cr.ID)
		if err != nil || now.Revision != cr.Revision || now.Lease != cr.Lease || now.Next != uuid.Nil {
			return cmp.Or(err, isRotating(cr.Name))
		}
		if !reflect.DeepEqual(settingsOf(now), set) {
			l, err := s.LeaseStore.Lock(ctx, tx, now.Lease)
			if err != nil {
				return err
			}
			now.RotateEvery, now.Overlap, now.Window = set.RotateEvery, set.Overlap, set.Window
			now.RotatesAt = set.nextWithin(now.Ends(l), now.RotatedAt, rand.Float64())
			if err := s.LeaseStore.UpdateCredential(ctx, tx, now); err != nil {
				return err
			}
			if err := scheduleRotation(ctx, tx, now, now.Clock.Until(now.RotatesAt)); err != nil {
				return err
			}
		}
		return s.Audit.Record(ctx, tx, entry)
	})
}

// RotateStored gives a stored credential a new lease now. The password before it is accepted for the overlap.
func (s *Service) RotateStored(ctx context.Context, p *account.Principal, clusterID, name string) (
	c *cluster.Cluster, cr *lease.Credential, err error) {
	for try := 0; ; try++ {
		if c, _, err = s.onCredential(ctx, p, clusterID, name, audit.RotateStored, detail{}); err != nil {
			return nil, nil, err
		}
		if cr, err = s.credential(ctx, c, name); err != nil {
			return nil, nil, err
		}
		c, cr, err = s.rotate(ctx, p, c, &rotation{action: audit.RotateStored, cr: cr, set: settingsOf(cr)})
		if !waitsForOther(ctx, err, try) {
			return c, cr, err
		}
	}
}

// DeleteCredential ends a stored credential and its leases.
func (s *Service) DeleteCredential(ctx context.Context, p *account.Principal, clusterID, name string,
	match etag.Match) error {
	c, entry, err := s.onCredential(ctx, p, clusterID, name, audit.DropCredential, detail{})
	if err != nil {
		return err
	}
	cr, err := s.credential(ctx, c, name)
	if err != nil {
		return err
	}
	entry.Detail = detail{For: cr.For, Username: cr.Username}
	var leases []*lease.Lease
	err = s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		now, err := s.LeaseStore.LockCredential(ctx, tx, cr.ID)
		if fault.Is(err, fault.NotFound) {
			return credentialNotFound(name)
		}
		if err == nil {
			err = checkMatch(now, match)
		}
		if err != nil {
			return err
		}
		if err := s.removeCredential(ctx, tx, now); err != nil {
			return err
		}
		if leases, err = s.LeaseStore.LeasesOf(ctx, tx, now); err != nil {
			return err
		}
		for _, l := range leases {
			if err := s.endSoon(ctx, tx, l, lease.ByCredential); err != nil {
				return err
			}
		}
		return s.Audit.Record(ctx, tx, entry)
	})
	if err != nil {
		return err
	}
	for _, l := range leases {
		// If it cannot, the task of the lease does.
		l.State, l.Reason = lease.Ending, lease.ByCredential
		do := change{action: audit.EndLease, target: l.Username, detail: detail{Lease: l.ID, For: l.For}}
		if _, err := s.endLease(ctx, p, c, l, do, lease.ByCredential); err != nil {
			s.Log.Warn("a lease of a deleted credential is left to its task", "cluster", c.ID, "lease", l.ID, "error", err)
		}
	}
	return nil
}

// removeCredential removes the row and the task of a credential.
func (s *Service) removeCredential(ctx context.Context, tx pgx.Tx, cr *lease.Credential) error {
	if err := s.LeaseStore.DeleteCredential(ctx, tx, cr.ID); err != nil {
		return err
	}
	return task.Remove(ctx, tx, rotateStored, cr.ID)
}

// liveOf returns the leases of a credential that have not ended, the newest first.
func (s *Service) liveOf(ctx context.Context, cr *lease.Credential) ([]*lease.Lease, error) {
	list, _, err := s.LeaseStore.List(ctx, lease.Filter{Clusters: []uuid.UUID{cr.Cluster}, Credential: cr.Name, Live: true})
	return list, err
}

// rotation is a new lease of a credential that is being made.
type rotation struct {
	action   string
	cr       *lease.Credential // as it was read, or as it is to be made
	set      CredentialSettings
	match    etag.Match
	created  bool // the credential is made with it
	lease    *lease.Lease
	Password secret.Text
	rotates  time.Time // when it is replaced, by the clock
	clock    lease.Clock
}

// A rotation has these steps, and whatever is cut off, tend finishes it or takes it back: the next lease and its password
// are stored; its role is made; in one transaction the next lease becomes the current one, and the outcome is recorded; the
// end of the lease before it is moved. So the stored current password is always that of a role that is there.

// rotate makes a new lease the current one of a credential.
func (s *Service) rotate(ctx context.Context, p *account.Principal, c *cluster.Cluster, r *rotation) (
	*cluster.Cluster, *lease.Credential, error) {
	var err error
	for range 3 { // names are random, and few are taken
		if err = s.rotateOnce(ctx, p, c, r); !fault.Is(err, fault.Exists) {
			break
		}
	}
	if err != nil {
		return nil, nil, err
	}
	cr, err := s.LeaseStore.CredentialByID(ctx, r.cr.ID)
	return c, cr, err
}

func (s *Service) rotateOnce(ctx context.Context, p *account.Principal, c *cluster.Cluster, r *rotation) error {
	var err error
	if r.clock, err = s.LeaseStore.Clock(ctx); err != nil {
		return err
	}
	now := r.clock.Now()
	r.rotates, r.Password = r.set.next(now, rand.Float64()), newPassword()
	r.lease = &lease.Lease{ID: uuid.Must(uuid.NewV7()), Cluster: c.ID, Username: lease.NewName(r.set.For), For: r.set.For,
		Credential: r.cr.Name, TTL: r.rotates.Sub(now) + r.set.lead() + r.set.Overlap, State: lease.Active}
	op, err := s.begin(ctx, p, c, r.change(), nil)
	if err != nil {
		return err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		err = op.reserve(changing, r)
	}
	if err == nil {
		if err = op.makeLease(changing, r.lease, r.lease.TTL, 0, r.Password); err != nil && !pgrole.Uncertain(err) {
			op.takeBack(changing, r)
		}
	}
	if err == nil {
		err = op.promote(changing, r)
	}
	if err != nil {
		return op.end(ctx, uuid.Nil, detail{}, err)
	}
	op.endOthers(changing, r)
	return nil
}

func (r *rotation) change() change {
	d := r.set.detail()
	d.Lease, d.Username, d.Replaces = r.lease.ID, r.lease.Username, r.cr.Username
	return change{action: r.action, target: r.cr.Name, detail: d, limit: changeTimeout, oneTransaction: true}
}

// reserve stores the next lease of a credential, unless another call has stored one.
func (op *operation) reserve(ctx context.Context, r *rotation) error {
	s := op.service
	return s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		if r.created {
			if err := s.LeaseStore.InsertCredential(ctx, tx, r.cr); err != nil {
				if fault.Is(err, fault.Exists) {
					return isRotating(r.cr.Name) // another call makes it, and this one then changes it
				}
				return err
			}
		} else {
			now, err := s.LeaseStore.LockCredential(ctx, tx, r.cr.ID)
			if fault.Is(err, fault.NotFound) {
				return credentialNotFound(r.cr.Name)
			}
			if err == nil {
				err = checkMatch(now, r.match)
			}
			if err != nil {
				return err
			}
			if now.Next != uuid.Nil || now.Lease != r.cr.Lease || now.Revision != r.cr.Revision {
				return isRotating(r.cr.Name)
			}
		}
		if err := s.LeaseStore.SetNext(ctx, tx, r.cr.ID, r.lease.ID, r.Password); err != nil {
			return err
		}
		return op.scheduleTending(ctx, tx, r)
	})
}

// tendSoon is after what time a rotation of a request is looked at, in case that it was cut off.
const tendSoon = 5 * time.Second

// scheduleTending has a rotation looked at that may be cut off. A task is there in any case if this is done by it.
func (op *operation) scheduleTending(ctx context.Context, tx pgx.Tx, r *rotation) error {
	if op.principal == rolecall {
		return nil
	}
	return scheduleRotation(ctx, tx, r.cr, min(tendSoon, r.clock.Until(r.rotates)))
}

// takeBack removes the next lease, whose role was not made. If it cannot, the task of the credential does.
func (op *operation) takeBack(ctx context.Context, r *rotation) {
	s := op.service
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		if r.created {
			return s.removeCredential(ctx, tx, r.cr)
		}
		return s.LeaseStore.ClearNext(ctx, tx, r.cr.ID, r.lease.ID)
	})
	if err != nil {
		s.Log.Warn("a rotation that failed is left to its task", "cluster", r.cr.Cluster, "credential", r.cr.Name, "error", err)
	}
}

// promote makes the next lease the current one, and records the outcome with it.
func (op *operation) promote(ctx context.Context, r *rotation) error {
	s := op.service
	err := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		before, err := s.LeaseStore.Promote(ctx, tx, r.cr.ID, r.lease.ID, r.rotates)
		if err != nil {
			return err
		}
		if !r.created && !reflect.DeepEqual(settingsOf(r.cr), r.set) {
			now := *r.cr
			now.For, now.RotateEvery, now.Overlap, now.Window = r.set.For, r.set.RotateEvery, r.set.Overlap, r.set.Window
			now.RotatesAt = r.rotates
			if err := s.LeaseStore.UpdateCredential(ctx, tx, &now); err != nil {
				return err
			}
		}
		if before != uuid.Nil && r.set.Overlap == 0 {
			old := &lease.Lease{ID: before, Cluster: r.cr.Cluster}
			if err := s.endSoon(ctx, tx, old, lease.ByCredential); err != nil {
				return err
			}
		}
		if err := op.scheduleTending(ctx, tx, r); err != nil {
			return err
		}
		return s.Audit.EndWith(ctx, tx, op.attempt, audit.Result{Outcome: audit.Done, Detail: op.do.detail})
	})
	if fault.Is(err, fault.Stale) || fault.Is(err, fault.NotFound) {
		// Its task has finished it, or has taken it back because it took so long, or the credential was deleted.
		now, readErr := s.LeaseStore.CredentialByID(ctx, r.cr.ID)
		if readErr == nil && now.Lease == r.lease.ID {
			return op.end(ctx, uuid.Nil, op.do.detail, nil)
		}
		if endErr := s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
			return s.endSoon(ctx, tx, r.lease, lease.ByCredential)
		}); endErr != nil {
			return endErr
		}
		if fault.Is(err, fault.NotFound) {
			return credentialNotFound(r.cr.Name)
		}
	}
	return err
}

// endOthers has the other leases of the credential end when the overlap is over, also if Rolecall does not run then. If it
// cannot, the task of the credential ends them at that time.
func (op *operation) endOthers(ctx context.Context, r *rotation) {
	if r.created {
		return
	}
	s := op.service
	others, err := s.liveOf(ctx, r.cr)
	over := r.lease.CreatedAt.Add(r.set.Overlap)
	for _, l := range others {
		if l.ID == r.lease.ID || l.State != lease.Active || !l.ExpiresAt.After(over) { // such as one that was replaced before
			continue
		}
		role, endErr := op.server.ChangeLeaseEnd(ctx, keyOf(l), pgrole.LeaseEnd{In: r.set.Overlap, Shorten: true}, op.by())
		if fault.Is(endErr, fault.NotFound) || fault.Is(endErr, fault.Invalid) {
			continue // it has ended
		}
		if endErr == nil {
			l.ExpiresAt = role.Ends
			s.recordRenewal(ctx, l, role.Ends.Sub(role.Now))
		}
		err = errors.Join(err, endErr)
	}
	if err != nil {
		s.Log.Warn("the end of a replaced lease is left to the task of its credential", "cluster", r.cr.Cluster,
			"credential", r.cr.Name, "error", err)
	}
}
