package console

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
)

const (
	clustersPath   = Prefix + "/clusters"
	oneClusterPath = clustersPath + "/{id}"
)

func (c *Console) clusterRoutes() []door.Route {
	return slices.Concat(
		[]door.Route{
			read(clustersPath, c.clustersPage),
			read(oneClusterPath+"/activity", c.activityPage),
		},
		c.registerRoutes(),
		c.settingsRoutes(),
		c.accessRoutes(),
		c.databaseRoutes(),
	)
}

// The choices of the filter for the state.
const (
	stateAvailable = "available"
	stateProblem   = "problem"
)

var clusterStates = []option{{"", "Any"}, {stateAvailable, "Available"}, {stateProblem, "Unknown or stopped"}}

type clusterList struct {
	Clusters []listedCluster
	States   []option
	Pager    pager
	Admin    bool
	Filtered bool // by something
	// None says that the person may view no cluster at all. Keys are the labels to ask for then, and NoScope says that none
	// would help.
	None    bool
	Keys    []string
	NoScope bool
}

// listedCluster is a row of the list. Users is nil if they were not counted.
type listedCluster struct {
	*clusterHead
	Users *int
}

func (c *Console) clustersPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	f := filterForm(r)
	viewable := c.Users.ViewableClusters(p)
	l := clusterList{States: clusterStates, Admin: p.Has(account.ScopeAdmin), None: len(viewable) == 0,
		Filtered: f.Get("name")+f.Get("state")+f.Get("manage") != ""}
	if l.None {
		l.Keys = c.Users.OpeningKeys(p)
		l.NoScope = !p.Has(account.ScopeRead, account.ScopeWrite)
	}
	var shown []*cluster.Cluster
	for _, one := range viewable {
		if one.DisplayName > f.Values.Get(afterField) && chosen(f, p, one) {
			shown = append(shown, one)
		}
	}
	next := ""
	if len(shown) > pageSize {
		shown = shown[:pageSize]
		next = shown[pageSize-1].DisplayName
	}
	l.Pager = pagerOf(r, next)
	healths := cluster.Healths(r.Context(), shown)
	counts := c.Users.CountUsers(r.Context(), p, shown)
	for i, h := range healths {
		row := listedCluster{clusterHead: headOf(p, shown[i], h, "", "")}
		if n, counted := counts[shown[i].ID]; counted {
			row.Users = &n
		}
		l.Clusters = append(l.Clusters, row)
	}
	return c.show(w, r, p, page{Template: "clusters/list.html", Title: "Clusters", Area: "clusters", Form: f, Data: l})
}

// chosen reports whether a cluster matches the filter of the list. The state is the last that is known: to ask all clusters
// for the sake of one page would take too long.
func chosen(f *form, p *account.Principal, c *cluster.Cluster) bool {
	if !strings.Contains(strings.ToLower(c.DisplayName+"\n"+c.Location), strings.ToLower(f.Get("name"))) {
		return false
	}
	if f.Get("manage") != "" && !access.MayManage(p, c) {
		return false
	}
	switch f.Get("state") {
	case stateAvailable:
		return !c.Unreachable()
	case stateProblem:
		return c.Unreachable()
	}
	return true
}

type clusterActivity struct {
	Head  *clusterHead
	Rows  []historyRow // with their details indented
	Pager pager
	// All is the page of the audit log with the same rows. Own says that only the person's own rows are shown.
	All string
	Own bool
}

// ownRowsOnly reports whether the audit log shows a person of this cluster only what they did themselves.
func (c *Console) ownRowsOnly(p *account.Principal, clusterID uuid.UUID) bool {
	visible := c.Users.VisibleAudit(p)
	return visible != nil && !slices.Contains(visible.Clusters, clusterID)
}

func (c *Console) activityPage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	head, err := c.clusterHead(r, p, "activity")
	if err != nil {
		return err
	}
	after, err := afterSeq(filterForm(r))
	if err != nil {
		return err
	}
	rows, more, err := c.auditRows(r.Context(), p, audit.Filter{Cluster: head.Cluster.ID},
		audit.Page{After: after, Backward: true, Limit: pageSize})
	if err != nil {
		return err
	}
	shown := clusterActivity{Head: head, All: auditLink("cluster", head.ID), Own: c.ownRowsOnly(p, head.Cluster.ID),
		Pager: pagerAfter(r, rows, more, seqKey)}
	for _, row := range rows {
		shown.Rows = append(shown.Rows, historyRow{row, indented(row.Row.Detail)})
	}
	return c.show(w, r, p, page{Template: "clusters/activity.html", Title: "Activity of " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head), Data: shown})
}
