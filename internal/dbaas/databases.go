package dbaas

import (
	"net/http"
	"slices"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type databaseProperties struct {
	Name  string `json:"name"`
	Owner string `json:"owner"`
}

func presentDatabase(col *collection, d *pgrole.Database) resource[databaseProperties] {
	return present(col, d.Name, &d.Provenance, d.System(), databaseProperties{d.Name, d.Owner})
}

func (a *API) writeDatabase(w http.ResponseWriter, c *cluster.Cluster, d *pgrole.Database) {
	web.JSON(w, http.StatusOK, "application/json", presentDatabase(a.collection(c, "databases"), d))
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
	col := a.collection(c, "databases")
	l := presentList[databaseProperties](col, page, pageLinks(col.href, page, more, "", q))
	l.Items = presentItems(col, databases, presentDatabase)
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) createDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	props, err := readProperties(w, r)
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
	if owner == "" {
		return pgrole.CheckOwner(owner)
	}
	c, d, err := a.Users.CreateDatabase(r.Context(), p, r.PathValue("clusterId"), pgrole.NewDatabase{Name: name, Owner: owner})
	if err != nil {
		return err
	}
	a.writeDatabase(w, c, d)
	return nil
}

func (a *API) getDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, d, err := a.Users.Database(r.Context(), p, r.PathValue("clusterId"), r.PathValue("databaseName"))
	if err != nil {
		return err
	}
	a.writeDatabase(w, c, d)
	return nil
}

func (a *API) deleteDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	// A database has no tag, so no tag matches: data that was meant to be kept is not destroyed.
	if tags := web.IfMatch(r); tags != nil && !slices.Contains(tags, "*") {
		return fault.New(fault.Stale, "Databases have no entity tags, so the only condition that can match is If-Match: *.")
	}
	if err := a.Users.DeleteDatabase(r.Context(), p, r.PathValue("clusterId"), r.PathValue("databaseName")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
