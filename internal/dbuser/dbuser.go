// Package dbuser is what a principal does to the users and databases of a cluster: it is authorised, recorded, done, and
// its outcome recorded, in this order and for every transport. No SQL of a managed cluster and nothing of HTTP is here.
package dbuser

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/pgrole"
)

// Service manages users and databases.
type Service struct {
	Clusters *cluster.Registry
	Audit    *audit.Log
	Log      *slog.Logger

	mu          sync.Mutex
	shared      map[*cluster.Cluster]*shared
	comparisons map[uuid.UUID]comparison // by id of the cluster
}

// shared is what the requests to a cluster share.
type shared struct {
	together *pgrole.Together
	bulkhead *bulkhead
}

// ViewableClusters returns the clusters that the principal may view, in the order of their display names.
func (s *Service) ViewableClusters(p *account.Principal) []*cluster.Cluster {
	var viewable []*cluster.Cluster
	for _, c := range s.Clusters.All() {
		if mayView(p, c) {
			viewable = append(viewable, c)
		}
	}
	return viewable
}

// Cluster returns a cluster that the principal may view. Any other does not exist as far as it can tell.
func (s *Service) Cluster(p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.Clusters.Get(id)
	if err != nil {
		return nil, err
	}
	if !mayView(p, c) {
		return nil, fault.Of(cluster.NotFound(id)).Because(errNoView)
	}
	return c, nil
}

// errNoView is a cause: the cluster is there, but not for the principal.
var errNoView = errors.New("the principal may not view the cluster")

// mayView and mayManage are the access rules: an account's scopes give the platform-wide rights, and its labels, which
// only admins set, the rights on single clusters, as far as the scopes let it read and write at all. A personal access token
// may reach fewer clusters, or change nothing.
func mayView(p *account.Principal, c *cluster.Cluster) bool {
	return p.HasOn(c.ID, account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor) ||
		p.Reaches(c.ID) && (p.CouldWrite || p.Has(account.ScopeRead, account.ScopeWrite)) && (anyMatches(c.View, p.Labels) || anyMatches(c.Manage, p.Labels))
}

func mayManage(p *account.Principal, c *cluster.Cluster) bool {
	return !p.ReadOnly && (p.HasOn(c.ID, account.ScopeAdmin) || p.HasOn(c.ID, account.ScopeWrite) && anyMatches(c.Manage, p.Labels))
}

// refusal is why the principal, who may view a cluster, may not manage it.
func refusal(p *account.Principal) error {
	if p.ReadOnly {
		return fault.New(fault.Forbidden, "The personal access token is a read-only one.")
	}
	return fault.New(fault.Forbidden, "You may view this cluster, but not change its users and databases.")
}

func anyMatches(rules []label.Selector, labels map[string]string) bool {
	for _, rule := range rules {
		if rule.Matches(labels) {
			return true
		}
	}
	return false
}

// server is the cluster as pgrole works on it.
func (s *Service) server(ctx context.Context, c *cluster.Cluster, p *account.Principal) (*pgrole.Server, error) {
	pool, err := c.Pool(ctx)
	if err != nil {
		return nil, err
	}
	database, role := s.Clusters.Control(c)
	var reassignable []string // nil: any
	if !p.HasOn(c.ID, account.ScopeAdmin) {
		reassignable = slices.Concat([]string{}, c.Grantable, c.MemberOf)
	}
	return &pgrole.Server{
		Pool:            pool,
		Connect:         c.Connect,
		SystemRoles:     c.SystemRoles,
		MemberOf:        c.MemberOf,
		Reassignable:    reassignable,
		ControlDatabase: database,
		ControlRole:     role,
		Together:        s.sharedOf(c).together,
	}, nil
}

// sharedOf is kept as long as the cluster stays as it is: what is protected there is the same for all reads of one query.
func (s *Service) sharedOf(c *cluster.Cluster) *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.shared[c]; of != nil {
		return of
	}
	current := s.Clusters.All()
	if len(s.shared) > 2*len(current) || s.shared == nil {
		was := s.shared
		s.shared = make(map[*cluster.Cluster]*shared, len(current))
		for _, now := range current {
			if of := was[now]; of != nil {
				s.shared[now] = of
			}
		}
	}
	of := &shared{pgrole.NewTogether(), newBulkhead()}
	s.shared[c] = of
	return of
}

// readTimeout ends a read, and planTimeout one that may visit many databases; changeTimeout, deleteTimeout and
// databaseTimeout a change, which goes on when its client hangs up: half a change is worse than one that nobody waits for.
const (
	readTimeout     = 12 * time.Second
	planTimeout     = 40 * time.Second
	changeTimeout   = 15 * time.Second
	deleteTimeout   = 90 * time.Second
	databaseTimeout = 90 * time.Second
)

// view runs a read of a cluster that the principal may view.
func (s *Service) view(ctx context.Context, p *account.Principal, clusterID string, f func(ctx context.Context, on *pgrole.Server) error) (*cluster.Cluster, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	leave, err := s.sharedOf(c).bulkhead.reads.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	on, err := s.server(ctx, c, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return c, f(ctx, on)
}

// change is what is about to be done, for manage.
type change struct {
	action, target string
	detail         map[string]any
	outcome        map[string]any // what the change adds to the record of a good end
	limit          time.Duration
	admin          bool // for admins only
	asksForTurn    bool // by itself, if it needs one
	oneTransaction bool // nothing of it is done unless that is committed
	// check refuses what cannot be done in any cluster, and so is no attempt.
	check func(c *cluster.Cluster) error
}

// refusal is why the principal may not do it, nil when it may.
func (do *change) refusal(p *account.Principal, c *cluster.Cluster) error {
	switch {
	case !mayManage(p, c):
		return refusal(p)
	case do.admin && !p.HasOn(c.ID, account.ScopeAdmin):
		return fault.New(fault.Forbidden, "This is for admins: it needs the scope %s.", account.ScopeAdmin)
	}
	return nil
}

// manage runs a change of a cluster: the access rule, the attempt, the change, the outcome. f returns the attempt before it
// on the same role, which goes on record with it.
func (s *Service) manage(ctx context.Context, p *account.Principal, clusterID string, do change,
	f func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (previous string, err error)) (*cluster.Cluster, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	entry := p.Entry(do.action, do.target, do.detail)
	entry.Cluster = c.ID
	checkErr := do.check(c)
	if refused := do.refusal(p, c); refused != nil {
		return nil, s.Audit.Refuse(ctx, entry, refused)
	}
	if checkErr != nil {
		return nil, checkErr
	}
	on, err := s.server(ctx, c, p)
	if err != nil {
		return nil, err
	}
	queue := s.sharedOf(c).bulkhead.queueOf(do)
	turn := func() (*pgrole.Server, func(), error) {
		done, err := queue.turn(ctx)
		if err != nil {
			return nil, nil, err
		}
		// Access rules, and what is protected, may have changed in the meantime.
		now, err := s.Cluster(p, clusterID)
		if err == nil {
			err = cmp.Or(do.refusal(p, now), do.check(now))
		}
		if err == nil {
			c = now
			on, err = s.server(ctx, now, p)
		}
		if err != nil {
			done()
			return nil, nil, err
		}
		return on, done, nil
	}
	leave, err := queue.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	attempt, err := s.Audit.Begin(ctx, entry, queue.patience+do.limit+settleMargin)
	if err != nil {
		return nil, err
	}
	recorded, late := wallClock(), settleMargin/2
	outcome := map[string]any{}
	err = func() error {
		limit := do.limit
		if do.asksForTurn {
			on.Turn = turn
			limit += queue.patience
		} else {
			_, done, err := turn()
			if err != nil {
				return err
			}
			defer done() // the next change need not wait for the record of this one
			late += queue.patience
		}
		changing, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		if wallClock().Sub(recorded) > late {
			return errLate
		}
		previous, err := f(changing, on, pgrole.Stamp{Account: p.GUID, Attempt: attempt.ID.String()})
		if previous != "" {
			outcome[audit.Previous] = previous
		}
		return err
	}()
	if err == nil {
		maps.Copy(outcome, do.outcome)
	}
	if !leavesOpen(err) || do.oneTransaction && !pgrole.Uncertain(err) {
		s.end(ctx, attempt, err, outcome)
	}
	return c, err
}

// wallClock also goes on while the machine sleeps, which the clock that ends contexts does not.
func wallClock() time.Time { return time.Now().Round(0) }

// errLate keeps a change from being begun when the settler may have judged it already.
var errLate = fault.New(fault.Unavailable, "The server was stopped for a while, and the time for this request is over. Nothing was changed.").
	After(time.Second).Because(errNoTurn)

// settleMargin is how long after the limit of a change its attempt counts as cut off.
const settleMargin = 20 * time.Second

// leavesOpen reports that a failure does not tell whether what was tried was done. That is left to the settler.
func leavesOpen(err error) bool {
	if err == nil || errors.Is(err, errNoTurn) {
		return false
	}
	f := fault.Of(err)
	return f.Kind == fault.Unavailable || f.Kind == fault.Internal
}

// end records the outcome that the error tells. One that cannot be written is left to the settler: the answer to the caller
// stays what it is.
func (s *Service) end(ctx context.Context, attempt *audit.Attempt, err error, detail map[string]any) {
	outcome := audit.Done
	if err != nil {
		f := fault.Of(err)
		outcome = audit.NotDone
		detail["reason"] = f.Message
		if f.Kind == fault.Forbidden || errors.Is(err, errNoView) {
			outcome = audit.Denied
		}
	}
	s.record(ctx, attempt, outcome, detail)
}

func (s *Service) record(ctx context.Context, attempt *audit.Attempt, outcome audit.Outcome, detail map[string]any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Audit.End(ctx, attempt, outcome, detail); err != nil {
		s.Log.Warn("an outcome is left to the settler", "request", attempt.RequestID, "attempt", attempt.ID, "error", err)
	}
}

// Users lists the database users of a cluster, protected ones only if system is set, and says whether more follow.
func (s *Service) Users(ctx context.Context, p *account.Principal, clusterID string, page pgrole.Page, system bool) (c *cluster.Cluster, users []*pgrole.User, more bool, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		users, more, err = on.Users(ctx, page, system)
		return err
	})
	return c, users, more, err
}

// User returns one database user.
func (s *Service) User(ctx context.Context, p *account.Principal, clusterID, name string) (c *cluster.Cluster, u *pgrole.User, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		u, err = on.User(ctx, name)
		return err
	})
	return c, u, err
}

// CreateUser makes a database user.
func (s *Service) CreateUser(ctx context.Context, p *account.Principal, clusterID, name, password string) (c *cluster.Cluster, u *pgrole.User, err error) {
	c, err = s.manage(ctx, p, clusterID, change{
		action:         audit.CreateUser,
		target:         name,
		limit:          changeTimeout,
		oneTransaction: true,
		check: func(c *cluster.Cluster) error {
			return cmp.Or(pgrole.CheckName(name, c.SystemRoles), pgrole.CheckPassword(password))
		},
	}, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		u, err = on.Create(ctx, name, password, stamp)
		return "", err
	})
	return c, u, err
}

// SetPassword gives a database user a new password.
func (s *Service) SetPassword(ctx context.Context, p *account.Principal, clusterID, name, password string, match etag.Match) (c *cluster.Cluster, u *pgrole.User, err error) {
	c, err = s.manage(ctx, p, clusterID, change{
		action:         audit.ChangePassword,
		target:         name,
		limit:          changeTimeout,
		oneTransaction: true,
		check: func(*cluster.Cluster) error {
			return cmp.Or(pgrole.CheckStorable(name), pgrole.CheckPassword(password))
		},
	}, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		if u, err = on.SetPassword(ctx, name, password, match, stamp); err != nil {
			return "", err
		}
		return u.Provenance.Previous, nil
	})
	return c, u, err
}

// KeepUser is a change that changes nothing: the same rights and refusals as SetPassword, and nothing but those to record.
func (s *Service) KeepUser(ctx context.Context, p *account.Principal, clusterID, name string, match etag.Match) (c *cluster.Cluster, u *pgrole.User, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		u, err = on.Changeable(ctx, name, match)
		return err
	})
	if err == nil && !mayManage(p, c) {
		err = refusal(p)
	}
	if fault.Is(err, fault.Forbidden) {
		entry := p.Entry(audit.ChangePassword, name, nil)
		entry.Cluster = c.ID
		err = s.Audit.Refuse(ctx, entry, err)
	}
	if err != nil {
		return nil, nil, err
	}
	return c, u, nil
}

// DeleteUser deletes a database user; what it owns goes to reassignTo, if that is not empty.
func (s *Service) DeleteUser(ctx context.Context, p *account.Principal, clusterID, name, reassignTo string, match etag.Match) error {
	_, err := s.manage(ctx, p, clusterID, deleteUser(name, reassignTo), func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		return on.Delete(ctx, name, reassignTo, match, stamp)
	})
	return err
}

func deleteUser(name, reassignTo string) change {
	do := change{
		action:      audit.DeleteUser,
		target:      name,
		detail:      map[string]any{},
		limit:       deleteTimeout,
		asksForTurn: true,
		check:       func(*cluster.Cluster) error { return pgrole.CheckStorable(name) },
	}
	if reassignTo != "" {
		do.detail["reassignTo"] = reassignTo
		do.check = func(*cluster.Cluster) error {
			return cmp.Or(pgrole.CheckStorable(name), pgrole.CheckReassign(name, reassignTo))
		}
	}
	return do
}

// Databases lists the databases of a cluster, and says whether more follow.
func (s *Service) Databases(ctx context.Context, p *account.Principal, clusterID string, page pgrole.Page) (c *cluster.Cluster, databases []*pgrole.Database, more bool, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		databases, more, err = on.Databases(ctx, page)
		return err
	})
	return c, databases, more, err
}

// Database returns one database.
func (s *Service) Database(ctx context.Context, p *account.Principal, clusterID, name string) (c *cluster.Cluster, d *pgrole.Database, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		d, err = on.Database(ctx, name)
		return err
	})
	return c, d, err
}

// CreateDatabase makes a database that belongs to owner.
func (s *Service) CreateDatabase(ctx context.Context, p *account.Principal, clusterID, name, owner string) (c *cluster.Cluster, d *pgrole.Database, err error) {
	c, err = s.manage(ctx, p, clusterID, change{
		action: audit.CreateDatabase,
		target: name,
		detail: map[string]any{"owner": owner},
		limit:  databaseTimeout,
		check: func(*cluster.Cluster) error {
			return cmp.Or(pgrole.CheckDatabaseName(name), pgrole.CheckOwner(owner))
		},
	}, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		d, err = on.CreateDatabase(ctx, name, owner, stamp)
		return "", err
	})
	return c, d, err
}

// DeleteDatabase drops a database.
func (s *Service) DeleteDatabase(ctx context.Context, p *account.Principal, clusterID, name string) error {
	_, err := s.manage(ctx, p, clusterID, change{
		action: audit.DeleteDatabase,
		target: name,
		limit:  databaseTimeout,
		check:  func(*cluster.Cluster) error { return pgrole.CheckStorableDatabase(name) },
	}, func(ctx context.Context, on *pgrole.Server, _ pgrole.Stamp) (string, error) {
		return "", on.DropDatabase(ctx, name)
	})
	return err
}
