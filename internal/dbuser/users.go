package dbuser

import (
	"cmp"
	"context"
	"unicode/utf8"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
)

// Users lists the database users of a cluster, protected ones only if system is set.
func (s *Service) Users(ctx context.Context, p *account.Principal, clusterID string, page pgrole.Page,
	system bool) (*cluster.Cluster, *pgrole.Listed, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	users, err := r.server.Users(ctx, page, system)
	return r.cluster, users, err
}

// User returns one database user.
func (s *Service) User(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *pgrole.User, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	u, err := r.server.User(ctx, name)
	return r.cluster, u, err
}

// UsersNamed returns the database users of these names, nil where there is none.
func (s *Service) UsersNamed(ctx context.Context, p *account.Principal, clusterID string, names []string) (
	[]*pgrole.User, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.UsersNamed(ctx, names)
}

// UserDetails returns all about one database user.
func (s *Service) UserDetails(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *pgrole.Details, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	d, err := r.server.Details(ctx, name)
	return r.cluster, d, err
}

// DetailsList returns all about the database users of a cluster after a name, protected ones only if system is set, and says
// whether more follow.
func (s *Service) DetailsList(ctx context.Context, p *account.Principal, clusterID string, system bool, after string,
	limit int) (
	c *cluster.Cluster, list []*pgrole.Details, more bool, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, false, err
	}
	defer r.end()
	list, more, err = r.server.DetailsList(ctx, system, after, limit)
	return r.cluster, list, more, err
}

// CreateUser makes a database user.
func (s *Service) CreateUser(ctx context.Context, p *account.Principal, clusterID, name, password string) (
	*cluster.Cluster, *pgrole.User, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	invalid := cmp.Or(pgrole.CheckName(name, c.SystemRoles), pgrole.CheckPassword(password))
	op, err := s.begin(ctx, p, c, change{action: audit.CreateUser, target: name, limit: changeTimeout, oneTransaction: true},
		invalid)
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var u *pgrole.User
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		u, err = op.server.Create(changing, name, password, op.by())
	}
	return op.cluster, u, op.end(ctx, uuid.Nil, detail{}, err)
}

// SetPassword gives a database user a new password.
func (s *Service) SetPassword(ctx context.Context, p *account.Principal, clusterID, name, password string,
	match etag.Match) (*cluster.Cluster, *pgrole.User, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	invalid := cmp.Or(s.checkUserName(ctx, p, clusterID, name), pgrole.CheckPassword(password))
	op, err := s.begin(ctx, p, c, change{action: audit.ChangePassword, target: name, limit: changeTimeout,
		oneTransaction: true}, invalid)
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var u *pgrole.User
	var previous uuid.UUID
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		u, err = op.server.SetPassword(changing, name, password, match, op.by())
	}
	if err == nil {
		previous = u.Provenance.Previous
	}
	return op.cluster, u, op.end(ctx, previous, detail{}, err)
}

// checkUserName refuses a change of a user that has a name which no role can have, or none that can be recorded.
func (s *Service) checkUserName(ctx context.Context, p *account.Principal, clusterID, name string) error {
	if err := pgrole.CheckStorable(name); err == nil || utf8.ValidString(name) {
		return err
	}
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return err
	}
	defer r.end()
	_, err = r.server.Changeable(ctx, name, nil)
	return err
}

// KeepUser is a change of a user that changes nothing: it is refused as SetPassword is, and only refusals are recorded.
func (s *Service) KeepUser(ctx context.Context, p *account.Principal, clusterID, name string,
	match etag.Match) (*cluster.Cluster, *pgrole.User, error) {
	reading, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	u, err := r.server.Changeable(reading, name, match)
	if err == nil {
		err = access.Refusal(p, r.cluster)
	}
	if fault.Is(err, fault.Forbidden) {
		entry := p.Entry(audit.ChangePassword, name, nil)
		entry.Cluster = r.cluster.ID
		err = s.Audit.Refuse(ctx, entry, err)
	}
	if err != nil {
		return nil, nil, err
	}
	return r.cluster, u, nil
}

// Deletion is how a database user is deleted.
type Deletion struct {
	ReassignTo  string // the role that gets what the user owns; if it is empty, a user that owns something is refused
	WithMembers bool   // the members of the user lose what they have by it; else a user that has such members is refused
}

// DeleteUser deletes a database user.
func (s *Service) DeleteUser(ctx context.Context, p *account.Principal, clusterID, name string, how Deletion,
	match etag.Match) error {
	if _, l, err := s.deleteLease(ctx, p, clusterID, name, match); err != nil || l != nil {
		return cmp.Or(err, leaseInUse(l))
	}
	op, err := s.beginDeletion(ctx, p, clusterID, name, detail{ReassignTo: how.ReassignTo, WithMembers: how.WithMembers})
	if err != nil {
		return err
	}
	defer op.release()
	var members []string
	deleting, previous, gone, err := op.dropUnused(ctx, match)
	if err == nil && !gone {
		if members, err = op.waitToDelete(ctx, deleting); err == nil {
			previous, err = op.server.Delete(deleting, name, how.ReassignTo, match, op.by())
		}
	}
	return op.end(ctx, previous, detail{Members: members}, err)
}

// DeleteOrDisableUser is DeleteUser, but a user that cannot be deleted is disabled, and returned.
func (s *Service) DeleteOrDisableUser(ctx context.Context, p *account.Principal, clusterID, name string, how Deletion,
	match etag.Match) (*cluster.Cluster, *pgrole.User, error) {
	if c, l, err := s.deleteLease(ctx, p, clusterID, name, match); err != nil || l != nil {
		if err != nil || l.State == lease.Ended {
			return c, nil, err
		}
		return s.User(ctx, p, clusterID, name)
	}
	op, err := s.beginDeletion(ctx, p, clusterID, name, detail{ReassignTo: how.ReassignTo, WithMembers: how.WithMembers,
		OnBlocked: "disable"})
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var why string
	var disabled *pgrole.User
	var members []string
	var readErr error // the user is disabled; reading it afterwards has failed
	deleting, previous, gone, err := op.dropUnused(ctx, match)
	if err == nil && !gone {
		if members, err = op.waitToDelete(ctx, deleting); err == nil {
			why, previous, err = op.server.DeleteOrDisable(deleting, name, how.ReassignTo, match, op.by())
		}
	}
	if err == nil && why != "" {
		disabled, readErr = op.server.User(deleting, name)
	}
	outcome := detail{Disabled: why, Members: members}
	if why != "" {
		outcome.Members = nil
		s.endLeasesFor(ctx, op.cluster, name)
	}
	return op.cluster, disabled, cmp.Or(op.end(ctx, previous, outcome, err), readErr)
}

// beginDeletion is begin for a deletion of a user.
func (s *Service) beginDeletion(ctx context.Context, p *account.Principal, clusterID, name string, d detail) (
	*operation, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	invalid := s.checkUserName(ctx, p, clusterID, name)
	if pgrole.IsForeign(invalid) {
		invalid = nil // it may be dropped, if nothing depends on it
	}
	if invalid == nil && d.ReassignTo != "" {
		invalid = pgrole.CheckReassign(name, d.ReassignTo)
	}
	return s.begin(ctx, p, c, change{action: audit.DeleteUser, target: name, detail: d, limit: deleteTimeout}, invalid)
}

// dropUnused begins a deletion with the short way, which needs no turn. If the user is not gone then, the context is for
// the four phases.
func (op *operation) dropUnused(ctx context.Context, match etag.Match) (
	deleting context.Context, previous uuid.UUID, gone bool, err error) {
	if deleting, err = op.detach(ctx); err != nil || op.do.detail.ReassignTo != "" {
		return deleting, uuid.Nil, false, err
	}
	was, err := op.server.DropUnused(deleting, op.do.target, match)
	if err != nil || was == nil {
		return deleting, uuid.Nil, false, err
	}
	return deleting, was.Provenance.Attempt, true, nil
}

// waitToDelete is wait for the four phases. members are those that lose something by it.
func (op *operation) waitToDelete(ctx, deleting context.Context) (members []string, err error) {
	if err := op.wait(ctx); err != nil || !op.do.detail.WithMembers {
		return nil, err
	}
	server := *op.server
	server.WithMembers = true
	op.server = &server
	return server.Members(deleting, op.do.target)
}

// DeletionPlan says what DeleteUser would do. It takes the right to do it, and records nothing.
func (s *Service) DeletionPlan(ctx context.Context, p *account.Principal, clusterID, name string,
	how Deletion) (*pgrole.DeletionPlan, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	if err := access.Refusal(p, c); err != nil {
		return nil, err
	}
	ctx, r, err := s.plan(ctx, p, c)
	if err != nil {
		return nil, err
	}
	defer r.end()
	server := *r.server
	server.WithMembers = how.WithMembers
	return server.Plan(ctx, name, how.ReassignTo)
}
