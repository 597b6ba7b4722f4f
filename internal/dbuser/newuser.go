package dbuser

import (
	"cmp"
	"context"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// NewUser is what a database user is made with.
type NewUser struct {
	Name     string
	Password *secret.Text // nil: one is generated
	Access   []pgrole.Access
	Roles    []string // grantable ones
	Limits   pgrole.Limits
}

// maxAccess is how many levels a user is made with at most: each locks a database until the user is there.
const maxAccess = 100

// check refuses what no cluster with these rules makes.
func (n *NewUser) check(c *cluster.Cluster, made pgrole.NewUser) error {
	if len(n.Access) > maxAccess {
		return fault.New(fault.Invalid, "The user would get %d levels. Give it %d at most, and the others afterwards.",
			len(n.Access), maxAccess)
	}
	for _, a := range n.Access {
		if pgrole.CheckStorableDatabase(a.Database) != nil {
			return fault.New(fault.Invalid, "There is no database %.100q in this cluster.", a.Database)
		}
		if _, err := pgrole.AccessRole(a.Database, pgrole.Own); err != nil {
			return err
		}
	}
	return pgrole.CheckNewUser(made, c.SystemRoles, c.Grantable)
}

// orGenerated is the password that was given, or a generated one.
func orGenerated(password *secret.Text) (use, generated secret.Text) {
	if password != nil {
		return *password, ""
	}
	generated = newPassword()
	return generated, generated
}

// CreateUserWith makes a database user with its levels, roles and limits, all or nothing. generated is the password, if none
// was given.
func (s *Service) CreateUserWith(ctx context.Context, p *account.Principal, clusterID string, n NewUser) (
	c *cluster.Cluster, d *pgrole.Details, generated secret.Text, err error) {
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, "", err
	}
	password, generated := orGenerated(n.Password)
	n.Roles = unique(n.Roles)
	made := pgrole.NewUser{Name: n.Name, Password: string(password), Access: n.Access, Roles: n.Roles, Limits: n.Limits}
	attempt := detail{Roles: n.Roles, ValidUntil: n.Limits.ValidUntil, ConnectionLimit: n.Limits.ConnectionLimit}
	for _, a := range n.Access {
		attempt.Access = append(attempt.Access, userAccess{a.Database, a.Level})
	}
	op, err := s.begin(ctx, p, c, change{action: audit.CreateUser, target: n.Name, detail: attempt, limit: changeTimeout,
		oneTransaction: true}, n.check(c, made))
	if err != nil {
		return nil, nil, "", err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = op.server.CreateWith(changing, made, op.by())
	}
	if err := op.end(ctx, uuid.Nil, detail{}, err); err != nil {
		return nil, nil, "", err
	}
	return op.cluster, d, generated, nil
}

// ChangePassword gives a database user a new password; nil: one is generated.
func (s *Service) ChangePassword(ctx context.Context, p *account.Principal, clusterID, name string,
	password *secret.Text, match etag.Match) (c *cluster.Cluster, d *pgrole.Details, generated secret.Text, err error) {
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, "", err
	}
	use, generated := orGenerated(password)
	op, err := s.begin(ctx, p, c, change{action: audit.ChangePassword, target: name, limit: changeTimeout,
		oneTransaction: true}, cmp.Or(s.checkUserName(ctx, p, clusterID, name), pgrole.CheckPassword(string(use))))
	if err != nil {
		return nil, nil, "", err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = op.server.ChangePassword(changing, name, string(use), match, op.by())
	}
	if d, err = op.endUser(ctx, d, detail{}, err); err != nil {
		return nil, nil, "", err
	}
	return op.cluster, d, generated, nil
}
