package dbaas

import (
	"net/http"
	"slices"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type databaseResource struct {
	Type       string             `json:"type"`
	ID         string             `json:"id"`
	Href       string             `json:"href"`
	Metadata   metadata           `json:"metadata"`
	Properties databaseProperties `json:"properties"`
}

type databaseProperties struct {
	Name  string `json:"name"`
	Owner string `json:"owner"`
}

type databaseList struct {
	Type   string             `json:"type"`
	ID     string             `json:"id"`
	Href   string             `json:"href"`
	Items  []databaseResource `json:"items"`
	Offset int                `json:"offset"`
	Limit  int                `json:"limit"`
	Links  links              `json:"_links"`
}

func (col *collection) database(d *pgrole.Database) databaseResource {
	id, href := col.place(d.Name)
	return databaseResource{
		Type:       "database",
		ID:         id,
		Href:       href,
		Metadata:   col.metadata(&d.Provenance, d.System(), d.Name),
		Properties: databaseProperties{d.Name, d.Owner},
	}
}

func (a *API) listDatabases(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	page, err := q.page()
	if err != nil {
		return err
	}
	c, databases, more, err := a.Users.Databases(r.Context(), p, r.PathValue("clusterId"), page)
	if err != nil {
		return err
	}
	all := a.collection(c, "databases")
	list := databaseList{
		Type:   "collection",
		ID:     resourceID(c.ID, "databases"),
		Href:   all.href,
		Items:  make([]databaseResource, len(databases)),
		Offset: page.Offset,
		Limit:  page.Limit,
		Links:  pageLinks(all.href, page, more, q),
	}
	for i, d := range databases {
		list.Items[i] = all.database(d)
	}
	web.JSON(w, http.StatusOK, "application/json", list)
	return nil
}

func (a *API) createDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	props, err := properties(w, r)
	if err != nil {
		return err
	}
	name, err := required(props, "name")
	if err != nil {
		return err
	}
	owner, err := required(props, "owner")
	if err != nil {
		return err
	}
	c, d, err := a.Users.CreateDatabase(r.Context(), p, r.PathValue("clusterId"), name, owner)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", a.collection(c, "databases").database(d))
	return nil
}

func (a *API) getDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, d, err := a.Users.Database(r.Context(), p, r.PathValue("clusterId"), r.PathValue("databaseName"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", a.collection(c, "databases").database(d))
	return nil
}

func (a *API) deleteDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	// A database has no tag, so no condition on one holds: least of all is data destroyed that was meant to be kept.
	if tags := web.IfMatch(r); tags != nil && !slices.Contains(tags, "*") {
		return fault.New(fault.Stale, "Databases have no entity tags, so If-Match: * is the only condition that can hold.")
	}
	if err := a.Users.DeleteDatabase(r.Context(), p, r.PathValue("clusterId"), r.PathValue("databaseName")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
