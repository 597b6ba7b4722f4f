package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
)

// The limits of a plan.
const (
	// MaxUsers is how many users an operation has, at most.
	MaxUsers = 100_000
	// planAtOnce is how many clusters are read at a time, namesAtOnce how many users in one query, and clusterTime is how
	// long one cluster may take.
	planAtOnce, namesAtOnce = 16, 1000
	clusterTime             = 10 * time.Second
	// maxChecked is for how many users a plan says what blocks their deletion, checkAtOnce how many are checked at a time, and
	// checkTime how long all of it may take: one check may visit many databases.
	maxChecked, checkAtOnce = 20, 4
	checkTime               = 10 * time.Second
)

// Plan is what an operation will do, in the order in which it is shown.
type Plan struct {
	Users       []Planned
	ValidUntil  time.Time // of Expire: the new one
	Unchecked   int       // users to be deleted of which it is not known what would block that
	Unreachable []Unreachable
}

// Plan returns what Start would do, and stores nothing.
func (s *Service) Plan(ctx context.Context, p *account.Principal, r Request) (*Plan, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if p.ReadOnly {
		return nil, fault.New(fault.Forbidden, "The personal access token is read-only.")
	}
	plan := &Plan{ValidUntil: r.ValidUntil}
	if r.After != 0 {
		now, err := clock(ctx, s.DB.Pool)
		if err != nil {
			return nil, control.Fault(err)
		}
		plan.ValidUntil = now.Add(r.After)
	}
	if err := s.choose(ctx, p, &r, plan); err != nil {
		return nil, err
	}
	if len(plan.Users) > MaxUsers {
		return nil, fault.New(fault.Invalid,
			"The filter matches more than %d users, which is the most of one operation. Give more "+
				"conditions.", MaxUsers)
	}
	if r.Action != RotateCredential {
		s.read(ctx, p, &r, plan)
	}
	if r.Action == Delete {
		s.checkDeletions(ctx, p, &r, plan)
	}
	return plan, nil
}

// choose puts the users or credentials into a plan that the filter or the list names.
func (s *Service) choose(ctx context.Context, p *account.Principal, r *Request, plan *Plan) (err error) {
	if r.Filter != nil && r.Filter.Cluster != "" {
		named, err := s.clusters(p, r.Filter)
		if err != nil {
			return inBody(err)
		}
		if err := access.Refusal(p, named[0]); err != nil {
			return err
		}
	}
	switch {
	case r.Filter != nil && r.Action == RotateCredential:
		return s.chooseCredentials(ctx, p, r.Filter, plan)
	case r.Filter != nil:
		return s.chooseMatches(ctx, p, r, plan)
	}
	seen := map[Target]bool{}
	for _, t := range r.Targets {
		c, err := s.Users.Cluster(p, t.Cluster)
		if err != nil || !access.MayManage(p, c) {
			return fault.New(fault.Forbidden, "There is no cluster with the id %.64q, or you may not manage it.", t.Cluster)
		}
		if t.Cluster = c.ID.String(); seen[t] {
			continue
		}
		seen[t] = true
		u := Planned{Cluster: c, Name: t.Name, Action: r.Action}
		if r.Action == RotateCredential {
			_, cr, err := s.Users.Credential(ctx, p, t.Cluster, t.Name)
			switch {
			case fault.Is(err, fault.NotFound):
				u.Skipped = fault.Of(err).Message
			case err != nil:
				return err
			default:
				u.Blockers = credentialBlockers(cr)
			}
		}
		plan.Users = append(plan.Users, u)
	}
	return nil
}

// chooseMatches puts the users into a plan that match a filter, in the clusters that the principal may manage.
func (s *Service) chooseMatches(ctx context.Context, p *account.Principal, r *Request, plan *Plan) error {
	matches, unreachable, err := s.Matches(ctx, p, *r.Filter, MaxUsers)
	if err != nil {
		return inBody(err)
	}
	for _, m := range matches {
		plan.Users = append(plan.Users, Planned{Cluster: m.Cluster, Name: m.Name, OID: m.OID, Action: r.Action})
	}
	plan.Unreachable = unreachable
	return nil
}

// inBody makes an error of a value of a filter that of a field of a body.
func inBody(err error) error {
	if f := fault.Of(err); f.Kind == fault.NotFound || f.Kind == fault.Malformed {
		return fault.New(fault.Invalid, "%s", f.Message)
	}
	return err
}

// chooseCredentials puts the stored credentials into a plan that match a filter.
func (s *Service) chooseCredentials(ctx context.Context, p *account.Principal, f *Filter, plan *Plan) error {
	clusters, err := s.clusters(p, f)
	if err != nil {
		return inBody(err)
	}
	for _, c := range clusters {
		if !access.MayManage(p, c) {
			continue
		}
		_, list, _, err := s.Users.Credentials(ctx, p, c.ID.String(), "", 0)
		if err != nil {
			return err
		}
		for _, cr := range list {
			if f.Name == "" || matchesName(f.Name, cr.Name) {
				plan.Users = append(plan.Users, Planned{Cluster: c, Name: cr.Name, Action: RotateCredential,
					Blockers: credentialBlockers(cr)})
			}
		}
	}
	return nil
}

// credentialBlockers are why a stored credential might not rotate now.
func credentialBlockers(cr *lease.Credential) []string {
	if cr.LastError == "" {
		return nil
	}
	return []string{cr.LastError}
}

// matchesName reports whether a name is of a pattern, in which * stands for any characters.
func matchesName(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return name == pattern
	}
	first, last := parts[0], parts[len(parts)-1]
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return strings.HasSuffix(name, last)
}

// read reads the users of a plan in their clusters. Those of an unreachable cluster stay in the plan if they were listed;
// the operation changes them when the cluster answers.
func (s *Service) read(ctx context.Context, p *account.Principal, r *Request, plan *Plan) {
	type part struct {
		cluster *cluster.Cluster
		users   []*Planned
		err     error
	}
	var parts []*part
	byCluster := map[uuid.UUID]*part{}
	for i := range plan.Users {
		u := &plan.Users[i]
		if byCluster[u.Cluster.ID] == nil {
			byCluster[u.Cluster.ID] = &part{cluster: u.Cluster}
			parts = append(parts, byCluster[u.Cluster.ID])
		}
		byCluster[u.Cluster.ID].users = append(byCluster[u.Cluster.ID].users, u)
	}
	var group errgroup.Group
	group.SetLimit(planAtOnce)
	for _, part := range parts {
		group.Go(func() error {
			part.err = s.readPart(ctx, p, part.cluster, part.users)
			return nil
		})
	}
	_ = group.Wait() // each part has its own error
	unreachable := map[uuid.UUID]bool{}
	for _, part := range parts {
		if part.err != nil {
			plan.Unreachable = append(plan.Unreachable, s.unreachable(part.cluster, part.err))
			unreachable[part.cluster.ID] = true
		}
	}
	if r.Filter != nil { // only a cluster that answers says who matches
		plan.Users = slices.DeleteFunc(plan.Users, func(u Planned) bool { return unreachable[u.Cluster.ID] })
		return
	}
	for i := range plan.Users {
		if u := &plan.Users[i]; unreachable[u.Cluster.ID] {
			u.OID, u.Skipped = 0, ""
			u.Blockers = []string{"The cluster does not answer. It is tried again until it does, for 24 hours at most."}
		}
	}
}

// readPart reads the users of a plan in one cluster.
func (s *Service) readPart(ctx context.Context, p *account.Principal, c *cluster.Cluster, planned []*Planned) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	for batch := range slices.Chunk(planned, namesAtOnce) {
		names := make([]string, len(batch))
		for i, u := range batch {
			names[i] = u.Name
		}
		found, err := s.Users.UsersNamed(ctx, p, c.ID.String(), names)
		if err != nil {
			return err
		}
		for i, u := range batch {
			u.see(found[i])
		}
	}
	return nil
}

// see completes the plan of a user with how it was found; nil: there is none.
func (u *Planned) see(found *pgrole.User) {
	if found == nil || u.OID != 0 && u.OID != found.OID() {
		u.Skipped = fmt.Sprintf("There is no user %q in this cluster.", u.Name)
		return
	}
	refused := found.Protection()
	if refused == nil && u.Action != Delete && u.Action != EndSessions {
		refused = found.Unchangeable()
	}
	if refused == nil {
		refused = pgrole.CheckStorable(u.Name)
	}
	if refused != nil {
		u.Skipped = fault.Of(refused).Message
		return
	}
	u.OID, u.lease = found.OID(), found.Provenance.Lease != uuid.Nil
	if u.Action == Expire {
		u.ValidUntil = found.ValidUntil()
	}
	if found.Provenance.State == pgrole.StateDeleting && u.Action != Delete {
		u.Blockers = append(u.Blockers, "It is being deleted. Delete it again to finish that.")
	}
	if p := found.Provenance; u.Action == Enable && p.State == pgrole.StateDisabled && p.Password != pgrole.PasswordKept {
		u.Blockers = append(u.Blockers, "It was disabled without its password. Set a password: that enables it.")
	}
}

// checkDeletions finds what blocks the deletion of the first users of a plan.
func (s *Service) checkDeletions(ctx context.Context, p *account.Principal, r *Request, plan *Plan) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(checkAtOnce)
	unchecked := make([]bool, len(plan.Users))
	checked := 0
	for i := range plan.Users {
		u := &plan.Users[i]
		if u.Skipped != "" || u.lease { // a lease ends in any case
			continue
		}
		if checked == maxChecked || u.OID == 0 {
			unchecked[i] = true
			continue
		}
		checked++
		group.Go(func() error {
			found, err := s.Users.DeletionPlan(ctx, p, u.Cluster.ID.String(), u.Name, dbuser.Deletion{ReassignTo: r.ReassignTo})
			switch {
			case err == nil:
				u.Blockers, unchecked[i] = found.Blockers, found.Unvisited > 0
			case fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Internal):
				unchecked[i] = true
			default:
				u.Blockers = []string{fault.Of(err).Message}
			}
			return nil
		})
	}
	_ = group.Wait() // each user has its own error
	for _, is := range unchecked {
		if is {
			plan.Unchecked++
		}
	}
}
