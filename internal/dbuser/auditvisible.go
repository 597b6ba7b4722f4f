package dbuser

import (
	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
)

// VisibleAudit is what the principal may see of the audit log: everything (nil), or its own rows and those of the clusters
// that it manages. A token that is limited to some clusters shows nothing beyond them.
func (s *Service) VisibleAudit(p *account.Principal) *audit.Visible {
	if access.MayAudit(p) {
		return nil
	}
	v := &audit.Visible{Clusters: access.Audited(p, s.ViewableClusters(p))}
	if p.Clusters == nil {
		v.Account = p.GUID
	}
	return v
}
