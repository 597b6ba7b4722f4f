package adminapi

import (
	"maps"
	"net/http"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/web"
)

type whoami struct {
	Account accountRef        `json:"account"`
	Scopes  []string          `json:"scopes"`
	Labels  map[string]string `json:"labels"`
	// LabelSources are the names of the issuers that set labels, by the keys of these.
	LabelSources map[string]string `json:"labelSources"`
	Clusters     []clusterAccess   `json:"clusters"`
}

type accountRef struct {
	GUID     string `json:"guid"`
	Username string `json:"username"`
	Origin   string `json:"origin"`
}

type clusterAccess struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName"`
	Manage      bool   `json:"manage"`
}

func (a *API) whoami(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	me := whoami{
		Account: accountRef{p.GUID, p.Username, p.Origin},
		Scopes:  append([]string{}, p.Scopes...),
		Labels:  map[string]string{}, LabelSources: map[string]string{},
		Clusters: []clusterAccess{},
	}
	maps.Copy(me.Labels, p.Labels)
	maps.Copy(me.LabelSources, p.LabelSources)
	for _, c := range a.Users.ViewableClusters(p) {
		me.Clusters = append(me.Clusters, clusterAccess{c.ID.String(), c.DisplayName, access.MayManage(p, c)})
	}
	web.JSON(w, http.StatusOK, "application/json", me)
	return nil
}
