package dbuser

import (
	"context"
	"unicode/utf8"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// Databases lists the databases of a cluster, and says whether more follow.
func (s *Service) Databases(ctx context.Context, p *account.Principal, clusterID string,
	page pgrole.Page) (c *cluster.Cluster, databases []*pgrole.Database, more bool, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, false, err
	}
	defer r.end()
	databases, more, err = r.server.Databases(ctx, page)
	return r.cluster, databases, more, err
}

// Database returns one database.
func (s *Service) Database(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *pgrole.Database, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	d, err := r.server.Database(ctx, name)
	return r.cluster, d, err
}

// DatabasesAfter lists the databases of a cluster after a name, and says whether more follow.
func (s *Service) DatabasesAfter(ctx context.Context, p *account.Principal, clusterID, after string,
	limit int) (list []*pgrole.Database, more bool, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, false, err
	}
	defer r.end()
	return r.server.DatabasesAfter(ctx, after, limit)
}

// DatabaseSizes returns how many bytes databases of a cluster have on disk, by name, without those whose size is not known.
func (s *Service) DatabaseSizes(ctx context.Context, p *account.Principal, clusterID string, names []string) (
	map[string]int64, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.DatabaseSizes(ctx, names)
}

// CreateDatabase makes a database.
func (s *Service) CreateDatabase(ctx context.Context, p *account.Principal, clusterID string, n pgrole.NewDatabase) (
	*cluster.Cluster, *pgrole.Database, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	invalid := pgrole.CheckDatabaseName(n.Name)
	if invalid == nil && n.Owner != "" {
		invalid = pgrole.CheckOwner(n.Owner)
	}
	if invalid == nil && n.AccessRoles {
		_, invalid = pgrole.AccessRole(n.Name, pgrole.Own)
	}
	op, err := s.begin(ctx, p, c, change{action: audit.CreateDatabase, target: n.Name,
		detail: detail{Owner: n.Owner, AccessRoles: n.AccessRoles}, limit: databaseTimeout}, invalid)
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var d *pgrole.Database
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = op.server.CreateDatabase(changing, n, op.by())
	}
	return op.cluster, d, op.end(ctx, uuid.Nil, detail{}, err)
}

// DeleteDatabase drops a database.
func (s *Service) DeleteDatabase(ctx context.Context, p *account.Principal, clusterID, name string) error {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return err
	}
	op, err := s.begin(ctx, p, c, change{action: audit.DeleteDatabase, target: name, limit: databaseTimeout},
		s.checkDatabaseName(ctx, p, clusterID, name))
	if err != nil {
		return err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		err = op.server.DropDatabase(changing, name, op.by())
	}
	return op.end(ctx, uuid.Nil, detail{}, err)
}

// checkDatabaseName is checkUserName for a database.
func (s *Service) checkDatabaseName(ctx context.Context, p *account.Principal, clusterID, name string) error {
	if err := pgrole.CheckStorableDatabase(name); err == nil || utf8.ValidString(name) {
		return err
	}
	_, d, err := s.Database(ctx, p, clusterID, name)
	if err != nil {
		return err
	}
	return d.CheckName()
}
