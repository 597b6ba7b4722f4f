// Package access is the rules: who may view and manage a cluster, and why. It decides and reads nothing.
//
// An account's scopes give the platform-wide rights. Its labels, which only admins set, and issuers as far as admins allow,
// give rights on single clusters, as far as its scopes let it read and write at all. A personal access token may reach fewer
// clusters, or change nothing.
package access

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// viewAll are the scopes that show every cluster, and its whole part of the audit log.
var viewAll = []string{account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor}

// ErrNoView is a cause: the cluster exists, but the principal may not view it.
var ErrNoView = errors.New("the principal may not view the cluster")

// ErrAdminOnly refuses what is for admins.
var ErrAdminOnly = fault.New(fault.Forbidden, "This needs the scope %s.", account.ScopeAdmin)

// MayView reports whether the principal may see a cluster, its users and its databases.
func MayView(p *account.Principal, c *cluster.Cluster) bool {
	return p.HasOn(c.ID, viewAll...) ||
		p.Reaches(c.ID) && (p.CouldWrite || p.Has(account.ScopeRead, account.ScopeWrite)) &&
			(anyMatches(c.View, p.Labels) || anyMatches(c.Manage, p.Labels))
}

// MayManage reports whether the principal may change the users and databases of a cluster.
func MayManage(p *account.Principal, c *cluster.Cluster) bool {
	return !p.ReadOnly && (p.HasOn(c.ID, account.ScopeAdmin) || p.HasOn(c.ID, account.ScopeWrite) &&
		anyMatches(c.Manage, p.Labels))
}

// Refusal is why the principal, who may view a cluster, may not change its users and databases; nil when it may.
func Refusal(p *account.Principal, c *cluster.Cluster) error {
	switch {
	case MayManage(p, c):
		return nil
	case p.ReadOnly:
		return fault.New(fault.Forbidden, "The personal access token is read-only.")
	}
	return fault.New(fault.Forbidden, "You may view this cluster, but not change its users and databases.")
}

// MayAudit reports whether the principal may see the whole audit log.
func MayAudit(p *account.Principal) bool { return p.Has(viewAll...) }

// ErrMayNotAudit refuses what is for those who may see the whole audit log.
var ErrMayNotAudit = fault.New(fault.Forbidden, "This is for admins and auditors: it needs one of the scopes %s.",
	strings.Join(viewAll, ", "))

// Audited returns those of the clusters whose audit rows the principal may see without MayAudit: those that it manages. A
// read-only token reads what its account manages.
func Audited(p *account.Principal, viewable []*cluster.Cluster) []uuid.UUID {
	var ids []uuid.UUID
	for _, c := range viewable {
		if MayManage(p, c) || p.HasOn(c.ID, viewAll...) || p.ReadOnly && p.CouldWrite && anyMatches(c.Manage, p.Labels) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// OpeningKeys are the keys of labels that the access rules of the clusters name, so that an account which views none of them
// knows what to ask for; nil if no label would open a cluster, because the account lacks the scopes. Values stay hidden, and
// so do the clusters.
func OpeningKeys(p *account.Principal, clusters []*cluster.Cluster) []string {
	if !p.CouldWrite && !p.Has(account.ScopeRead, account.ScopeWrite) {
		return nil
	}
	var keys []string
	for _, c := range clusters {
		for _, rule := range slices.Concat(c.Manage, c.View) {
			for _, requirement := range rule {
				keys = append(keys, requirement.Key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func anyMatches(rules []label.Selector, labels map[string]string) bool {
	return slices.ContainsFunc(rules, func(rule label.Selector) bool { return rule.Matches(labels) })
}
