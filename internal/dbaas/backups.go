package dbaas

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

// Rolecall makes no backups and keeps no logs of clusters. Clients list both in their overviews, so the lists are there, and
// empty.

type backupList struct {
	Type   string     `json:"type"`
	ID     string     `json:"id"`
	Items  []struct{} `json:"items"`
	Offset int        `json:"offset"`
	Limit  int        `json:"limit"`
	Links  links      `json:"links"`
}

type clusterLogs struct {
	Instances []struct{} `json:"instances"`
}

func (a *API) allBackups(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	return a.writeBackups(w, r, "clusters", "backups")
}

func (a *API) clusterBackups(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.Cluster(p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	return a.writeBackups(w, r, "clusters", c.ID.String(), "backups")
}

func (a *API) writeBackups(w http.ResponseWriter, r *http.Request, place ...string) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	page, err := q.page()
	if err != nil {
		return err
	}
	href := a.href(place...)
	web.JSON(w, http.StatusOK, "application/json", backupList{
		Type:   "collection",
		ID:     resourceID(accounts, href),
		Items:  []struct{}{},
		Offset: page.Offset,
		Limit:  page.Limit,
		Links:  pageLinks(href, page, false, "", q),
	})
	return nil
}

func (a *API) logs(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	if _, err := a.Users.Cluster(p, r.PathValue("clusterId")); err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", clusterLogs{[]struct{}{}})
	return nil
}
