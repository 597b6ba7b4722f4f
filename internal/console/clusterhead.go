package console

import (
	"net/http"
	"strings"
	"time"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
)

// clusterHead is the head of the pages of one cluster: what it is, how it is, and what the person may do there. The template
// "clusterHead" shows it with the tabs; "clusterAway" shows only what is wrong, on pages that have another head.
type clusterHead struct {
	ID, Name, Location, Version string
	State                       badge
	MayManage, Admin            bool
	// Why is why the cluster cannot be used; "" if it answers. Since is when it was first seen so, Checked when it was last
	// asked.
	Why            string
	Since, Checked time.Time
	Stopped        bool
	Tabs           []tab
	Tab            string // the name of the tab that is shown
	// Self is the path of the page that is shown, to try it again.
	Self    string
	Cluster *cluster.Cluster
	Health  cluster.Health
}

// Known reports whether it is known since when the cluster cannot be used.
func (h *clusterHead) Known() bool { return !h.Since.IsZero() }

// tabsOf are the pages of a cluster.
func tabsOf(id string) []tab {
	return []tab{
		{"users", "Users", pagePath("clusters", id)},
		{"databases", "Databases", pagePath("clusters", id, "databases")},
		{"leases", "Leases", pagePath("clusters", id, "leases")},
		{"credentials", "Credentials", pagePath("clusters", id, "credentials")},
		{"access", "Access", pagePath("clusters", id, "access")},
		{"settings", "Settings", pagePath("clusters", id, "settings")},
		{"activity", "Activity", pagePath("clusters", id, "activity")},
	}
}

// clusterHead loads the cluster of the path, {id}, and asks it whether it answers. The error is the same for a cluster that
// does not exist and one that the person may not see. tab is the name of one of the tabs.
func (c *Console) clusterHead(r *http.Request, p *account.Principal, tab string) (*clusterHead, error) {
	found, err := c.Users.Cluster(p, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return headOf(p, found, found.Health(r.Context()), tab, r.URL.RequestURI()), nil
}

// headOf presents a cluster whose health is known.
func headOf(p *account.Principal, c *cluster.Cluster, h cluster.Health, tab, self string) *clusterHead {
	id := c.ID.String()
	head := &clusterHead{
		ID: id, Name: c.DisplayName, Location: c.Location, Version: versionOf(c, h), State: badge{"Available", "good"},
		MayManage: access.MayManage(p, c), Admin: p.Has(account.ScopeAdmin),
		Why: dbuser.WhyUnreachable(p, h), Since: h.Since, Checked: h.Checked, Stopped: h.Stopped,
		Tabs: tabsOf(id), Tab: tab, Self: self, Cluster: c, Health: h,
	}
	switch {
	case h.Stopped:
		head.State = badge{"Stopped", "bad"}
	case !h.Reachable:
		head.State = badge{"Unknown", "warn"}
	}
	return head
}

// versionOf is the version without what its packagers add; as the last probe saw it, if the cluster was not asked since.
func versionOf(c *cluster.Cluster, h cluster.Health) string {
	version, _, _ := strings.Cut(h.Version, " ")
	if version == "" {
		version, _, _ = strings.Cut(c.Capabilities.VersionName, " ")
	}
	return version
}

// clusterCrumbs are the pages above a page of a cluster; above lead to pages between the cluster's and the page.
func clusterCrumbs(head *clusterHead, above ...crumb) []crumb {
	if len(above) == 0 {
		return []crumb{{"Clusters", clustersPath}}
	}
	return belowCluster(head.Cluster, above...)
}

// belowCluster are the pages above a page of a cluster that is no tab.
func belowCluster(c *cluster.Cluster, above ...crumb) []crumb {
	return append([]crumb{{"Clusters", clustersPath}, {c.DisplayName, pagePath("clusters", c.ID.String())}}, above...)
}
