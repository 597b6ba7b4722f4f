package adminapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type databaseResource struct {
	Name        string     `json:"name"`
	Owner       string     `json:"owner"`
	AccessRoles bool       `json:"accessRoles"`
	System      bool       `json:"system"`
	CreatedBy   *string    `json:"createdBy"`
	CreatedAt   *time.Time `json:"createdAt"`
}

func presentDatabase(d *pgrole.Database) databaseResource {
	return databaseResource{d.Name, d.Owner, d.AccessRoles, d.System(), given(d.Provenance.CreatedBy),
		known(d.Provenance.Created)}
}

type accessRolesResource struct {
	Database string               `json:"database"`
	Roles    []accessRoleResource `json:"roles"`
	Schemas  []string             `json:"schemas"`
	Adopt    bool                 `json:"adopt"`
	Complete bool                 `json:"complete"`
	Problems []string             `json:"problems"`
}

type accessRoleResource struct {
	Level   string   `json:"level"`
	Role    string   `json:"role"`
	Members []string `json:"members"`
}

// completedAccessRoles is what was done to complete access roles, or would be.
type completedAccessRoles struct {
	accessRolesResource
	Statements []statement `json:"statements"`
}

type statement struct {
	Database string `json:"database"`
	SQL      string `json:"sql"`
}

func presentAccessRoles(a *pgrole.AccessRoles) accessRolesResource {
	res := accessRolesResource{Database: a.Database, Roles: []accessRoleResource{}, Schemas: append([]string{}, a.Schemas...),
		Adopt: a.Adopt, Complete: a.Complete, Problems: append([]string{}, a.Problems...)}
	for _, role := range a.Roles {
		res.Roles = append(res.Roles, accessRoleResource{string(role.Level), role.Name, append([]string{}, role.Members...)})
	}
	return res
}

func (a *API) listDatabases(w http.ResponseWriter, r *http.Request, p *account.Principal, _ query, page page) error {
	databases, more, err := a.Users.DatabasesAfter(r.Context(), p, r.PathValue("clusterId"), page.After, page.Limit)
	if err != nil {
		return err
	}
	l := list[databaseResource]{Items: []databaseResource{}}
	for _, d := range databases {
		l.Items = append(l.Items, presentDatabase(d))
	}
	if more {
		l.Next = cursor(databases[len(databases)-1].Name)
	}
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

func (a *API) getDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	_, d, err := a.Users.Database(r.Context(), p, r.PathValue("clusterId"), r.PathValue("database"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentDatabase(d))
	return nil
}

func (a *API) createDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	name, owner, accessRoles := o.text("name"), o.text("owner"), o.flag("accessRoles")
	if err := o.done(); err != nil {
		return err
	}
	switch {
	case name == nil:
		return fault.New(fault.Invalid, "The field name is missing: the name of the database.")
	case owner != nil && *owner == "":
		return pgrole.CheckOwner("")
	}
	n := pgrole.NewDatabase{Name: *name, Owner: orEmpty(owner), AccessRoles: accessRoles != nil && *accessRoles}
	c, d, err := a.Users.CreateDatabase(r.Context(), p, r.PathValue("clusterId"), n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", a.PublicURL+Prefix+"/clusters/"+c.ID.String()+"/databases/"+url.PathEscape(d.Name))
	web.JSON(w, http.StatusCreated, "application/json", presentDatabase(d))
	return nil
}

func (a *API) deleteDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	// A database has no tag, so no tag matches: data that was meant to be kept is not destroyed.
	if tags := web.IfMatch(r); tags != nil && !slices.Contains(tags, "*") {
		return fault.New(fault.Stale, "Databases have no entity tags, so the only condition that can match is If-Match: *.")
	}
	if err := a.Users.DeleteDatabase(r.Context(), p, r.PathValue("clusterId"), r.PathValue("database")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) getAccessRoles(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	roles, err := a.Users.AccessRoles(r.Context(), p, r.PathValue("clusterId"), r.PathValue("database"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", presentAccessRoles(roles))
	return nil
}

func (a *API) putAccessRoles(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	plan, err := q.yes("plan")
	if err != nil {
		return err
	}
	o, err := optionalBody(w, r)
	if err != nil {
		return err
	}
	wish := pgrole.AccessRolesWish{Database: r.PathValue("database"), Adopt: o.flag("adopt")}
	if schemas := o.texts("schemas"); schemas != nil {
		wish.Schemas = *schemas
	}
	if err := o.done(); err != nil {
		return err
	}
	change := a.Users.CompleteAccessRoles
	if plan {
		change = a.Users.PlanAccessRoles
	}
	roles, err := change(r.Context(), p, r.PathValue("clusterId"), wish)
	if err != nil {
		return err
	}
	web.Warn(w, roles.Warning)
	answer := completedAccessRoles{presentAccessRoles(roles), []statement{}}
	for _, s := range roles.Statements {
		answer.Statements = append(answer.Statements, statement{s.Database, s.SQL})
	}
	web.JSON(w, http.StatusOK, "application/json", answer)
	return nil
}

func (a *API) deleteAccessRoles(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
	how, err := q.deletion()
	if err != nil {
		return err
	}
	if err := a.Users.RemoveAccessRoles(r.Context(), p, r.PathValue("clusterId"), r.PathValue("database"),
		how.ReassignTo); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// accessResource is a level of a user in a database.
type accessResource struct {
	Database string `json:"database"`
	Level    string `json:"level"`
}

func (a *API) setAccess(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := body(w, r)
	if err != nil {
		return err
	}
	level := o.text("level")
	if err := o.done(); err != nil {
		return err
	}
	if level == nil {
		return fault.New(fault.Invalid, "The field level is missing: own, write or read.")
	}
	database := r.PathValue("database")
	d, err := a.Users.SetAccess(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), database,
		(*pgrole.Level)(level), web.IfMatch(r))
	if err != nil {
		return err
	}
	if role, err := pgrole.AccessRole(database, pgrole.Level(*level)); err == nil && *level != string(pgrole.Own) {
		web.Warn(w, notInherited([]string{role}, d))
	}
	w.Header().Set("ETag", strconv.Quote(d.Revision()))
	web.JSON(w, http.StatusOK, "application/json", accessResource{database, *level})
	return nil
}

func (a *API) removeAccess(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	d, err := a.Users.SetAccess(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"),
		r.PathValue("database"), nil, web.IfMatch(r))
	if err != nil {
		return err
	}
	answerChanged(w, d)
	return nil
}

// userAccess is what a user can do, and why.
type userAccess struct {
	Username    string           `json:"username"`
	Memberships []membership     `json:"memberships"`
	Databases   []databaseAccess `json:"databases"`
}

type membership struct {
	Role    string   `json:"role"`
	Path    []string `json:"path"`
	Inherit bool     `json:"inherit"`
	Set     bool     `json:"set"`
}

type databaseAccess struct {
	Database string       `json:"database"`
	Level    *string      `json:"level"`
	Via      []string     `json:"via"`
	Connect  bool         `json:"connect"`
	Grants   []grantCount `json:"grants"`
	Problem  *string      `json:"problem"`
}

type grantCount struct {
	Kind      string `json:"kind"`
	Privilege string `json:"privilege"`
	Count     int    `json:"count"`
}

func (a *API) getUserAccess(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	found, err := a.Users.EffectiveAccess(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"))
	if err != nil {
		return err
	}
	answer := userAccess{Username: found.Username, Memberships: []membership{}, Databases: []databaseAccess{}}
	for _, m := range found.Memberships {
		answer.Memberships = append(answer.Memberships, membership{m.Role, append([]string{}, m.Path...), m.Inherit, m.Set})
	}
	for _, in := range found.Databases {
		d := databaseAccess{Database: in.Database, Level: given(string(in.Level)), Via: append([]string{}, in.Via...),
			Connect: in.Connect, Grants: []grantCount{}, Problem: given(in.Problem)}
		for _, g := range in.Grants {
			d.Grants = append(d.Grants, grantCount{g.Kind, g.Privilege, g.Count})
		}
		answer.Databases = append(answer.Databases, d)
	}
	web.JSON(w, http.StatusOK, "application/json", answer)
	return nil
}
