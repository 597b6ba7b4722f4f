package dbuser

import (
	"context"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/pgrole"
)

// Userlist returns the users of a cluster and their verifiers, without protected users. It is for admins, and recorded
// like a change: a verifier lets its reader try passwords against it, and impersonate the server.
func (s *Service) Userlist(ctx context.Context, p *account.Principal, clusterID string) (
	list []pgrole.Credential, err error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	op, err := s.begin(ctx, p, c, change{action: audit.ReadVerifiers, limit: changeTimeout, adminOnly: true}, nil)
	if err != nil {
		return nil, err
	}
	defer op.release()
	reading, err := op.waitAndDetach(ctx)
	if err == nil {
		list, err = op.server.Userlist(reading)
	}
	count := len(list)
	return list, op.end(ctx, uuid.Nil, detail{Users: &count}, err)
}

// PasswordProblems returns the users of a cluster whose passwords should be renewed: up to limit of those after a name, and
// whether more follow. It is for those who can renew them. Protected users, whose passwords are set in SQL, are shown to
// admins only.
func (s *Service) PasswordProblems(ctx context.Context, p *account.Principal, clusterID, after string,
	limit int) (problems []pgrole.PasswordProblem, more bool, err error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, false, err
	}
	if err := access.Refusal(p, c); err != nil {
		return nil, false, err
	}
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, false, err
	}
	defer r.end()
	return r.server.PasswordProblems(ctx, p.HasOn(c.ID, account.ScopeAdmin), after, limit)
}
