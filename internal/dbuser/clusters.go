package dbuser

import (
	"context"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
)

// ViewableClusters returns the clusters that the principal may view, in the order of their display names.
func (s *Service) ViewableClusters(p *account.Principal) []*cluster.Cluster {
	var viewable []*cluster.Cluster
	for _, c := range s.Clusters.All() {
		if access.MayView(p, c) {
			viewable = append(viewable, c)
		}
	}
	return viewable
}

// OpeningKeys are the keys of labels that could open clusters to an account that views none.
func (s *Service) OpeningKeys(p *account.Principal) []string {
	return access.OpeningKeys(p, s.Clusters.All())
}

// Cluster returns a cluster that the principal may view. Any other does not exist as far as it can tell.
func (s *Service) Cluster(p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.Clusters.Get(id)
	if err != nil {
		for _, c := range s.ViewableClusters(p) {
			if c.DisplayName == id {
				return nil, fault.New(fault.NotFound, "There is no cluster with the id %.64q, but one with that name. Use its id, %s.",
					id, c.ID)
			}
		}
		return nil, err
	}
	if !access.MayView(p, c) {
		return nil, fault.Of(cluster.NotFound(id)).Because(access.ErrNoView)
	}
	return c, nil
}

// WhyUnreachable is what the principal may know of why nothing can be done in a cluster; "" if it answers. Errors that name
// hosts are for admins.
func WhyUnreachable(p *account.Principal, h cluster.Health) string {
	switch {
	case h.Reachable:
		return ""
	case p.Has(account.ScopeAdmin):
		return h.Error
	case h.Stopped:
		return "Nothing is done in the cluster until an admin confirms or corrects its registration."
	}
	return "The cluster does not answer, or takes no changes."
}

// ExplainAccess says what an account, by its guid or, of a local one, its user name, may do in a cluster, and why. It is
// for admins.
func (s *Service) ExplainAccess(ctx context.Context, p *account.Principal, id, who string) (*access.Explanation, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	a, err := s.Accounts.ByGUID(ctx, who)
	if fault.Is(err, fault.NotFound) {
		a, err = s.Accounts.ByUsername(ctx, who, account.LocalOrigin)
	}
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "There is no account %.100q. Give its guid, or its user name of origin %s.", who,
			account.LocalOrigin)
	}
	if err != nil {
		return nil, err
	}
	return access.Explain(a, c), nil
}

// ClusterAccess is what an account may do in a cluster.
type ClusterAccess struct {
	Cluster *cluster.Cluster
	*access.Explanation
}

// AccessOf is ExplainAccess for every cluster that the principal may view, in the order of their display names. The account
// is given by its guid.
func (s *Service) AccessOf(ctx context.Context, p *account.Principal, guid string) ([]ClusterAccess, error) {
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	a, err := s.Accounts.ByGUID(ctx, guid)
	if err != nil {
		return nil, err
	}
	var all []ClusterAccess
	for _, c := range s.ViewableClusters(p) {
		all = append(all, ClusterAccess{c, access.Explain(a, c)})
	}
	return all, nil
}

// OwnAccess says of each cluster that the principal may view what it may do there, and why. Account is nil.
func (s *Service) OwnAccess(p *account.Principal) []ClusterAccess {
	var all []ClusterAccess
	for _, c := range s.ViewableClusters(p) {
		view, manage := access.Rights(p, c)
		all = append(all, ClusterAccess{c, &access.Explanation{View: view, Manage: manage}})
	}
	return all
}

// RegisterCluster puts a cluster under management.
func (s *Service) RegisterCluster(ctx context.Context, p *account.Principal, settings cluster.Settings,
	to cluster.Connection) (*cluster.Cluster, error) {
	entry := p.Entry(audit.RegisterCluster, "", nil)
	if err := s.MayRegisterCluster(ctx, p); err != nil {
		return nil, err
	}
	return s.Clusters.Register(ctx, settings, to, entry)
}

// PreviewCluster says what is at a connection, and whether RegisterCluster would register it. It takes the right to do that,
// and changes nothing.
func (s *Service) PreviewCluster(ctx context.Context, p *account.Principal, settings cluster.Settings,
	to cluster.Connection) (*cluster.Preview, error) {
	if err := s.MayRegisterCluster(ctx, p); err != nil {
		return nil, err
	}
	return s.Clusters.Preview(ctx, settings, to, p.GUID)
}

// PreviewedConnection returns the connection of a preview that the principal has made.
func (s *Service) PreviewedConnection(p *account.Principal, sealed string) (cluster.Connection, error) {
	return s.Clusters.Previewed(sealed, p.GUID)
}

// MayRegisterCluster says whether the principal may register clusters. A refusal is recorded.
func (s *Service) MayRegisterCluster(ctx context.Context, p *account.Principal) error {
	if p.Has(account.ScopeAdmin) {
		return nil
	}
	return s.Audit.Refuse(ctx, p.Entry(audit.RegisterCluster, "", nil), access.ErrAdminOnly)
}

// MayUpdateCluster says whether the principal may change the registration of a cluster. A refusal is recorded.
func (s *Service) MayUpdateCluster(ctx context.Context, p *account.Principal, id string) error {
	_, _, err := s.administer(ctx, p, id, audit.UpdateCluster)
	return err
}

// administer returns a cluster whose registration the principal may change, which no token may that is limited to some
// clusters, and the entry that records the change. A denied change is recorded.
func (s *Service) administer(ctx context.Context, p *account.Principal, id, action string) (
	*cluster.Cluster, audit.Entry, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, audit.Entry{}, err
	}
	entry := p.Entry(action, c.DisplayName, nil)
	entry.Cluster = c.ID
	if !p.Has(account.ScopeAdmin) {
		return nil, entry, s.Audit.Refuse(ctx, entry, access.ErrAdminOnly)
	}
	return c, entry, nil
}

// UpdateCluster changes the registration of a cluster.
func (s *Service) UpdateCluster(ctx context.Context, p *account.Principal, id string, match etag.Match,
	settings cluster.Settings, change *cluster.ConnectionChange) (*cluster.Cluster, error) {
	c, entry, err := s.administer(ctx, p, id, audit.UpdateCluster)
	if err != nil {
		return nil, err
	}
	c, err = s.Clusters.Update(ctx, c, match, settings, change, entry)
	if err == nil && (settings.MemberOf != nil || settings.Grantable != nil) {
		// A probe finds out whether these roles can be granted. Without an answer, the change is done all the same.
		if probed, err := s.probe(ctx, c); err == nil {
			return probed, nil
		}
	}
	return c, err
}

// RemoveCluster ends the management of a cluster, which itself is not touched. endLeases says what becomes of its leases and
// stored credentials: true ends them first, false leaves their roles to expire; with nil there must be none.
func (s *Service) RemoveCluster(ctx context.Context, p *account.Principal, id string, match etag.Match,
	endLeases *bool) error {
	c, entry, err := s.administer(ctx, p, id, audit.RemoveCluster)
	if err != nil {
		return err
	}
	if endLeases != nil && *endLeases {
		if err := c.CheckMatch(match); err != nil {
			return err
		}
		if err := s.endAllLeases(ctx, p, c); err != nil {
			return err
		}
	}
	leave := endLeases != nil && !*endLeases
	return s.Clusters.Remove(ctx, c.ID, match, leave, entry)
}

// ProbeCluster finds out again whether a cluster can be managed and what its administering role can do.
func (s *Service) ProbeCluster(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	return s.probe(ctx, c)
}

// probe is ProbeCluster once the principal's right to it is known.
func (s *Service) probe(ctx context.Context, c *cluster.Cluster) (*cluster.Cluster, error) {
	c, err := s.Clusters.Probe(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := s.compare(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// RotateCredential gives the administering role of a cluster a random password, which only Rolecall knows. It goes on if its
// client hangs up.
func (s *Service) RotateCredential(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, error) {
	c, entry, err := s.administer(ctx, p, id, audit.RotateCluster)
	if err != nil {
		return nil, err
	}
	if err := c.CheckRotatable(); err != nil {
		return nil, err
	}
	unlock, err := s.Clusters.LockCredential(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	attempt, err := s.Audit.Begin(ctx, entry, cluster.RotationTimeout+settleMargin)
	if err != nil {
		return nil, err
	}
	rotating, cancel := context.WithTimeout(context.WithoutCancel(ctx), cluster.RotationTimeout)
	defer cancel()
	err = s.Clusters.Rotate(rotating, c.ID, attempt.ID)
	if !leavesOpen(err) {
		s.record(ctx, attempt, uuid.Nil, detail{}, detail{}, err)
	}
	if err != nil {
		return nil, err
	}
	return s.Cluster(p, id)
}
