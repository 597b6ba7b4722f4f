package console

import (
	"net/http"
	"strings"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

const accessPath = oneClusterPath + "/access"

func (c *Console) accessRoutes() []door.Route {
	return formPage(accessPath, c.accessPage, c.changeRules)
}

// accountField is the query parameter with the account whose access is tested.
const accountField = "account"

type clusterAccess struct {
	Head         *clusterHead
	ETag         string
	Manage, View []string // rules
	ManageText   string
	ViewText     string
	Own          ownAccess
	Compare      *comparison
	// Test is the form of a test, Found what it has found; nil: none was asked for.
	Test  *form
	Found *access.Explanation
}

// namedRight is a right with its name.
type namedRight struct {
	Name string
	access.Right
}

// Rights are what the tested account may do.
func (a clusterAccess) Rights() []namedRight {
	return []namedRight{{"view", a.Found.View}, {"manage", a.Found.Manage}}
}

// ownAccess is what the person may do in the cluster, and why.
type ownAccess struct{ View, Manage access.Right }

func (c *Console) accessPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "access")
	if err != nil {
		return err
	}
	now := head.Cluster
	shown := clusterAccess{Head: head, ETag: f.Tag(head.Cluster.Tag()), Manage: ruleTexts(now.Manage),
		View: ruleTexts(now.View), Test: filterForm(r)}
	shown.ManageText, shown.ViewText = strings.Join(shown.Manage, "\n"), strings.Join(shown.View, "\n")
	shown.Own.View, shown.Own.Manage = access.Rights(p, now)
	shown.Compare, err = c.compare(r.Context(), p, f, head, []setting{
		{manageField, "May manage", shown.ManageText}, {viewField, "May view", shown.ViewText}})
	if err != nil {
		return err
	}
	status := 0
	if who := shown.Test.Get(accountField); who != "" {
		shown.Found, err = c.Users.ExplainAccess(r.Context(), p, head.ID, who)
		if fault.Is(err, fault.NotFound) {
			shown.Test.refuse(fault.Of(err).At(accountField))
			status, err = shown.Test.Status, nil
		}
		if err != nil {
			return err
		}
	}
	return c.show(w, r, p, page{Template: "clusters/access.html", Title: "Access to " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head), Form: f, Data: shown, Status: status})
}

func (c *Console) changeRules(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	now, err := c.Users.Cluster(p, r.PathValue("id"))
	if err != nil {
		return err
	}
	s := cluster.Settings{Manage: otherList(f, manageField, ruleTexts(now.Manage)),
		View: otherList(f, viewField, ruleTexts(now.View))}
	changed, err := c.Users.UpdateCluster(r.Context(), p, now.ID.String(), f.Match(), s, nil)
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", changed.ID.String(), "access"), "The access rules are saved. They apply at once.")
}

func ruleTexts(selectors []label.Selector) []string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = s.String()
	}
	return texts
}
