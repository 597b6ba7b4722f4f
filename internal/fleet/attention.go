package fleet

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/pgrole"
)

// How far attention looks.
const (
	// ExpiresSoon is in how long a user expires that needs attention.
	ExpiresSoon = dbuser.ExpiresSoon
	// FailedLately is for how long an operation that failed needs attention after its end.
	FailedLately = 7 * 24 * time.Hour
	// VerifyEvery is how often the audit log should be verified at least.
	VerifyEvery = 7 * 24 * time.Hour
	// lateSeal is how long the oldest row of the audit log may wait for its seal.
	lateSeal = 5 * time.Minute
	// MaxCounted is how many users are counted for one concern.
	MaxCounted = 1000
)

// Attention is what people should look at in the clusters that a principal may view, as the control database and the last
// looks at the clusters show it. No cluster is asked for it.
type Attention struct {
	Viewable           int
	Unreachable        []*cluster.Cluster // did not answer the last time, or nothing is done in it until it is corrected
	Limited            []*cluster.Cluster // in which the last probe has found problems
	BlockedLeases      []Tally
	FailingCredentials []Tally
	Running, Failed    int             // operations that the principal may see; failed ones ended not long ago
	Audit              *AuditAttention // nil: nothing, or the principal may not see the whole log
	// Steps are the first steps on a new server; nil: they are done, or the principal is no admin.
	Steps *FirstSteps
}

// Tally is how many of something a cluster has.
type Tally struct {
	Cluster *cluster.Cluster
	N       int
}

// AuditAttention is what should be looked at in the audit log.
type AuditAttention struct {
	Unverified   bool          // for VerifyEvery
	LastVerified time.Time     // when it was last found intact; zero: never
	Unsealed     int64         // rows, if the oldest of them has waited for too long
	OldestRow    time.Duration // how long that is
	Forged       int64         // rows that Rolecall did not write, as this replica has sealed them
}

// FirstSteps are what an admin does on a new server, and whether it is done.
type FirstSteps struct {
	Registered bool // a cluster
	Labeled    bool // an account
	First      *cluster.Cluster
}

// Attention returns what people should look at, without the users of the clusters.
func (s *Service) Attention(ctx context.Context, p *account.Principal) (*Attention, error) {
	a := &Attention{}
	counts, err := s.Users.LeaseStore.Counts(ctx)
	if err != nil {
		return nil, err
	}
	viewable := s.Users.ViewableClusters(p)
	a.Viewable = len(viewable)
	for _, c := range viewable {
		n := counts[c.ID]
		failing := n.Failing
		if c.Unreachable() {
			a.Unreachable = append(a.Unreachable, c)
			failing = n.Credentials // none of them rotates until it answers
		}
		if len(c.Capabilities.Problems) > 0 {
			a.Limited = append(a.Limited, c)
		}
		if n.Blocked > 0 {
			a.BlockedLeases = append(a.BlockedLeases, Tally{c, n.Blocked})
		}
		if failing > 0 {
			a.FailingCredentials = append(a.FailingCredentials, Tally{c, failing})
		}
	}
	if a.Running, a.Failed, err = s.unfinished(ctx, p); err != nil {
		return nil, err
	}
	if access.MayAudit(p) {
		if a.Audit, err = s.auditAttention(ctx); err != nil {
			return nil, err
		}
	}
	if p.Has(account.ScopeAdmin) {
		a.Steps, err = s.firstSteps(ctx, viewable)
	}
	return a, err
}

// unfinished is how many operations run that a principal may see, and how many have failed lately, for one user at least.
func (s *Service) unfinished(ctx context.Context, p *account.Principal) (running, failed int, err error) {
	err = s.DB.Pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE o.state = 'running'), count(*) FILTER (WHERE `+failedLately+`)
		FROM operations o WHERE `+visible+` AND (o.state = 'running' OR o.ended_at > clock_timestamp() - $4::interval)`,
		append(visibleTo(p), FailedLately)...).Scan(&running, &failed)
	return running, failed, control.Fault(err)
}

// failedLately is the condition on operations that have failed, the duration $4 ago or later.
const failedLately = `o.ended_at > clock_timestamp() - $4::interval AND ` + withFailures

func (s *Service) auditAttention(ctx context.Context) (*AuditAttention, error) {
	log := s.Users.Audit
	state, err := log.State(ctx)
	if err != nil {
		return nil, err
	}
	age, last, err := log.Unverified(ctx)
	if err != nil {
		return nil, err
	}
	a := &AuditAttention{Unverified: age > VerifyEvery, LastVerified: last, Forged: log.Forged()}
	if state.OldestRow > lateSeal {
		a.Unsealed, a.OldestRow = state.Unsealed, state.OldestRow
	}
	if !a.Unverified && a.Unsealed == 0 && a.Forged == 0 {
		return nil, nil
	}
	return a, nil
}

// firstSteps returns nil once a cluster is registered and a database user was created in one. An admin who works alone
// labels no account.
func (s *Service) firstSteps(ctx context.Context, viewable []*cluster.Cluster) (*FirstSteps, error) {
	steps := &FirstSteps{Registered: len(viewable) > 0}
	if steps.Registered {
		steps.First = viewable[0]
		created, _, err := s.Users.Audit.Rows(ctx, audit.Filter{Action: audit.CreateUser, Outcome: audit.Done},
			audit.Page{Limit: 1})
		if err != nil || len(created) > 0 {
			return nil, err
		}
	}
	var err error
	steps.Labeled, err = s.Users.Accounts.AnyLabeled(ctx)
	return steps, err
}

// Count is how many users match a filter.
type Count struct {
	N    int
	More bool // there are more than that
}

// UserAttention is how many users of the clusters that a principal may view need attention, without leases, which end by
// themselves.
type UserAttention struct {
	Expiring       Count // they expire before ExpiresBefore
	ExpiresBefore  time.Time
	MD5            Count
	WithoutAny     Count // users that may log in and have no password
	ChangedOutside Count
	Disabled       Count
	HalfDeleted    Count
	Unreachable    []Unreachable // clusters whose users are not counted, or not all of them
}

// UserAttention asks all clusters. One that does not answer delays it by at most 5 seconds, and is named.
func (s *Service) UserAttention(ctx context.Context, p *account.Principal) (*UserAttention, error) {
	a := &UserAttention{ExpiresBefore: time.Now().Add(ExpiresSoon).UTC().Truncate(time.Minute)}
	yes, no := true, false
	active := []string{pgrole.StateActive}
	concerns := []struct {
		count  *Count
		filter Filter
	}{
		{&a.Expiring, Filter{ExpiresBefore: a.ExpiresBefore, States: active, Lease: &no}},
		{&a.MD5, Filter{PasswordKind: pgrole.PasswordMD5}},
		{&a.WithoutAny, Filter{PasswordKind: pgrole.PasswordNone, States: active}},
		{&a.ChangedOutside, Filter{ChangedOutside: &yes}},
		{&a.Disabled, Filter{States: []string{pgrole.StateDisabled}}},
		{&a.HalfDeleted, Filter{States: []string{pgrole.StateDeleting}}},
	}
	missing := make([][]Unreachable, len(concerns))
	var group errgroup.Group
	for i, concern := range concerns {
		group.Go(func() (err error) {
			*concern.count, missing[i], err = s.count(ctx, p, concern.filter)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // nobody waits for it, and no cluster is to blame
		return nil, err
	}
	a.Unreachable = mergeUnreachable(missing)
	return a, nil
}

// count returns how many users match in the clusters that the principal may view.
func (s *Service) count(ctx context.Context, p *account.Principal, f Filter) (Count, []Unreachable, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit())
	defer cancel()
	clusters, conditions, err := s.resolve(ctx, p, &f)
	if err != nil {
		return Count{}, nil, err
	}
	q := &search{conditions: conditions, order: Sort{By: SortCluster}, most: MaxCounted}
	found, unreachable := s.gather(ctx, p, q, clusters)
	return Count{min(len(found), MaxCounted), len(found) > MaxCounted}, unreachable, nil
}

// mergeUnreachable names each cluster once, in the order of their names.
func mergeUnreachable(lists [][]Unreachable) (merged []Unreachable) {
	seen := map[*cluster.Cluster]bool{}
	for _, list := range lists {
		for _, u := range list {
			if !seen[u.Cluster] {
				seen[u.Cluster] = true
				merged = append(merged, u)
			}
		}
	}
	sortUnreachable(merged)
	return merged
}
