package dbaas

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type clusterResource struct {
	Type       string            `json:"type"`
	ID         string            `json:"id"`
	Metadata   clusterMetadata   `json:"metadata"`
	Properties clusterProperties `json:"properties"`
}

type clusterMetadata struct {
	CreatedBy            string     `json:"createdBy,omitempty"`
	CreatedByUserID      string     `json:"createdByUserId,omitempty"`
	CreatedDate          *time.Time `json:"createdDate,omitempty"`
	LastModifiedBy       string     `json:"lastModifiedBy,omitempty"`
	LastModifiedByUserID string     `json:"lastModifiedByUserId,omitempty"`
	LastModifiedDate     *time.Time `json:"lastModifiedDate,omitempty"`
	State                string     `json:"state"`
}

type clusterProperties struct {
	DisplayName     string `json:"displayName,omitempty"`
	Location        string `json:"location,omitempty"`
	PostgresVersion string `json:"postgresVersion,omitempty"`
	Instances       int    `json:"instances,omitempty"`
	DNSName         string `json:"dnsName,omitempty"`
}

type clusterList struct {
	Type   string            `json:"type"`
	ID     string            `json:"id"`
	Items  []clusterResource `json:"items"`
	Offset int               `json:"offset"`
	Limit  int               `json:"limit"`
	Links  links             `json:"links"`
}

// presentCluster gives the state that clients wait for before they go on: AVAILABLE, UNKNOWN for a cluster that does not
// answer, or FAILED for one that an admin must review.
func presentCluster(c *cluster.Cluster, h cluster.Health) clusterResource {
	state := "AVAILABLE"
	switch {
	case h.Stopped:
		state = "FAILED"
	case !h.Reachable:
		state = "UNKNOWN"
	}
	m := clusterMetadata{State: state, CreatedDate: date(&c.CreatedAt), LastModifiedDate: date(&c.UpdatedAt)}
	if c.CreatedBy != "" {
		m.CreatedBy, m.CreatedByUserID = userURN+url.PathEscape(c.CreatedBy), accountUUID(c.CreatedBy)
	}
	return clusterResource{
		Type:     "cluster",
		ID:       c.ID.String(),
		Metadata: m,
		Properties: clusterProperties{
			DisplayName:     c.DisplayName,
			Location:        c.Location,
			PostgresVersion: major(h.Version),
			Instances:       1,
			DNSName:         c.Host(),
		},
	}
}

// major is the number that a version begins with: 18 of "18.4 (Debian 18.4-1)", 19 of "19rc1".
func major(version string) string {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return version
	}
	return version[:end]
}

func (a *API) listClusters(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	page, err := q.page()
	if err != nil {
		return err
	}
	filter, _, err := q.one("filter.name")
	if err != nil {
		return err
	}
	var clusters []*cluster.Cluster
	for _, c := range a.Users.ViewableClusters(p) {
		if strings.Contains(strings.ToLower(c.DisplayName), strings.ToLower(filter)) {
			clusters = append(clusters, c)
		}
	}
	total := len(clusters)
	clusters = clusters[min(page.Offset, total):min(page.Offset+page.Limit, total)]
	list := clusterList{
		Type:   "collection",
		ID:     resourceID(accounts, "clusters"),
		Items:  make([]clusterResource, len(clusters)),
		Offset: page.Offset,
		Limit:  page.Limit,
		Links:  pageLinks(a.href("clusters"), page, page.Offset+page.Limit < total, "", q, "filter.name"),
	}
	for i, h := range cluster.Healths(r.Context(), clusters) {
		list.Items[i] = presentCluster(clusters[i], h)
	}
	web.JSON(w, http.StatusOK, "application/json", list)
	return nil
}

func (a *API) getCluster(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.Cluster(p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentCluster(c, c.Health(r.Context())))
	return nil
}

type versionList struct {
	Data []version `json:"data"`
}

type version struct {
	Name string `json:"name"`
}

// allVersions lists the major versions that Rolecall supports.
func (a *API) allVersions(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	list := versionList{Data: []version{}}
	for _, major := range pgrole.Majors {
		list.Data = append(list.Data, version{major})
	}
	web.JSON(w, http.StatusOK, "application/json", list)
	return nil
}

// clusterVersions lists the major version of the cluster, the only one that can be chosen for it.
func (a *API) clusterVersions(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, err := a.Users.Cluster(p, r.PathValue("clusterId"))
	if err != nil {
		return err
	}
	list := versionList{Data: []version{}}
	if v := major(c.Health(r.Context()).Version); v != "" {
		list.Data = append(list.Data, version{v})
	}
	web.JSON(w, http.StatusOK, "application/json", list)
	return nil
}

type apiVersion struct {
	Name       string `json:"name"`
	SwaggerURL string `json:"swaggerUrl"`
}

func (a *API) version() apiVersion {
	return apiVersion{"v1.0.0", a.PublicURL + "/openapi/dbaas.yaml"}
}

func (a *API) apiVersion(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", a.version())
	return nil
}

func (a *API) apiVersions(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	web.JSON(w, http.StatusOK, "application/json", []apiVersion{a.version()})
	return nil
}
