package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

const (
	databasesPath   = oneClusterPath + "/databases"
	oneDatabasePath = databasesPath + "/{database}"
)

func (c *Console) databaseRoutes() []door.Route {
	return slices.Concat(
		formPage(databasesPath, c.databasesPage, c.createDatabase),
		[]door.Route{read(oneDatabasePath, c.databasePage)},
		formPage(oneDatabasePath+"/access-roles", c.accessRolesPage, c.completeAccessRoles),
		formPage(oneDatabasePath+"/access-roles/remove", c.removeRolesPage, c.removeAccessRoles),
		formPage(oneDatabasePath+"/delete", c.deleteDatabasePage, c.deleteDatabase),
	)
}

type databaseList struct {
	Head      *clusterHead
	Databases []listedDatabase
	Pager     pager
	// Problem is why the databases cannot be read; "": they are shown.
	Problem string
	May     bool // create one
}

// listedDatabase is a database as a list and its page show it.
type listedDatabase struct {
	*pgrole.Database
	Path    string
	Size    string // "": not known
	Creator link
}

func (c *Console) databasesPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	head, err := c.clusterHead(r, p, "databases")
	if err != nil {
		return err
	}
	head.Self = pagePath("clusters", head.ID, "databases")
	l := databaseList{Head: head}
	if l.Databases, l.Pager, err = c.readDatabases(r, p, head); err != nil {
		if l.Problem, err = unreadable(err); err != nil {
			return err
		}
	}
	l.May = head.MayManage && l.Problem == ""
	return c.show(w, r, p, page{Template: "databases/list.html", Title: "Databases of " + head.Name, Area: "clusters",
		Crumbs: clusterCrumbs(head), Form: f, Data: l})
}

// unreadable is why a cluster could not be read now, which a page says in place of what is there. Other errors are returned.
func unreadable(err error) (string, error) {
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.TooMany) {
		return fault.Of(err).Message, nil
	}
	return "", err
}

func (c *Console) readDatabases(r *http.Request, p *account.Principal, head *clusterHead) ([]listedDatabase, pager, error) {
	found, more, err := c.Users.DatabasesAfter(r.Context(), p, head.ID, r.URL.Query().Get(afterField), pageSize)
	if err != nil {
		return nil, pager{}, err
	}
	shown, err := c.presentDatabases(r.Context(), p, head.Cluster, found)
	return shown, pagerAfter(r, found, more, func(d *pgrole.Database) string { return d.Name }), err
}

// presentDatabases adds the sizes, without which a page is of use as well, and the names of accounts.
func (c *Console) presentDatabases(ctx context.Context, p *account.Principal, in *cluster.Cluster,
	found []*pgrole.Database) ([]listedDatabase, error) {
	names, creators := make([]string, len(found)), []string{}
	for i, d := range found {
		names[i] = d.Name
		if d.Provenance.CreatedBy != "" {
			creators = append(creators, d.Provenance.CreatedBy)
		}
	}
	sizes, err := c.Users.DatabaseSizes(ctx, p, in.ID.String(), names)
	if err != nil {
		sizes = nil
	}
	accounts, err := c.Accounts.Names(ctx, p, creators)
	if err != nil {
		return nil, err
	}
	shown := make([]listedDatabase, 0, len(found))
	for _, d := range found {
		one := listedDatabase{Database: d, Path: pagePath("clusters", in.ID.String(), "databases", d.Name),
			Creator: linkAccount(accounts, d.Provenance.CreatedBy)}
		if bytes, known := sizes[d.Name]; known {
			one.Size = sizeText(bytes)
		}
		shown = append(shown, one)
	}
	return shown, nil
}

// sizeText is a number of bytes for people: 7.5 MB, with 1024 bytes to a kB, as PostgreSQL counts.
func sizeText(bytes int64) string {
	size, unit := float64(bytes), "bytes"
	for _, next := range []string{"kB", "MB", "GB", "TB", "PB"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, next
	}
	if unit == "bytes" || size >= 100 {
		return fmt.Sprintf("%.0f %s", size, unit)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}

func (c *Console) createDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	n := pgrole.NewDatabase{Name: f.Get("name"), Owner: f.Get("owner"), AccessRoles: f.Get("accessRoles") != ""}
	in, made, err := c.Users.CreateDatabase(r.Context(), p, r.PathValue("id"), n)
	if fault.Is(err, fault.Exists) {
		return fault.Of(err).At("name")
	}
	if err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", in.ID.String(), "databases", made.Name), fmt.Sprintf(
		"The database %s is created.", made.Name))
}

// databaseHead is the head of each page about one database.
type databaseHead struct {
	Head     *clusterHead
	Database listedDatabase
	Path     string // of its page
	// Problem is why the database cannot be read; "": it is.
	Problem string
	May     bool // change it
}

// databaseOf reads the database of the path. If the cluster does not answer, it is all that is known, and Problem says so.
func (c *Console) databaseOf(r *http.Request, p *account.Principal) (*databaseHead, error) {
	head, err := c.clusterHead(r, p, "databases")
	if err != nil {
		return nil, err
	}
	name := r.PathValue("database")
	d := &databaseHead{Head: head, Path: pagePath("clusters", head.ID, "databases", name)}
	d.Database.Database = &pgrole.Database{Name: name}
	_, found, err := c.Users.Database(r.Context(), p, head.ID, name)
	if err != nil {
		d.Problem, err = unreadable(err)
		return d, err
	}
	one, err := c.presentDatabases(r.Context(), p, head.Cluster, []*pgrole.Database{found})
	if err != nil {
		return nil, err
	}
	d.Database, d.May = one[0], head.MayManage && !found.System()
	return d, nil
}

// crumbs are the pages above a page about the database; its own page is above the others.
func (d *databaseHead) crumbs(own bool) []crumb {
	above := []crumb{{"Databases", pagePath("clusters", d.Head.ID, "databases")}}
	if !own {
		above = append(above, crumb{d.Database.Name, d.Path})
	}
	return clusterCrumbs(d.Head, above...)
}

type databasePage struct {
	*databaseHead
	Roles *shownAccessRoles // nil: there are none
	// RolesProblem is why they cannot be read; "": they are, or there are none.
	RolesProblem string
}

// shownAccessRoles are the access roles of a database.
type shownAccessRoles struct {
	*pgrole.AccessRoles
	Schemas string
	States  []accessRoleState
}

// accessRoleState is an access role and what its members may do.
type accessRoleState struct {
	pgrole.AccessRoleState
	May string
}

var levelMeanings = map[pgrole.Level]string{
	pgrole.Own:   "create, change and drop tables; what they create belongs to the role",
	pgrole.Write: "read, insert, update and delete rows, and use sequences",
	pgrole.Read:  "read tables and sequences",
}

func presentAccessRoles(roles *pgrole.AccessRoles) *shownAccessRoles {
	shown := &shownAccessRoles{AccessRoles: roles, Schemas: strings.Join(roles.Schemas, ", ")}
	if slices.Equal(roles.Schemas, []string{"*"}) {
		shown.Schemas = "all, also those that are created later"
	}
	for _, role := range roles.Roles {
		shown.States = append(shown.States, accessRoleState{role, levelMeanings[role.Level]})
	}
	return shown
}

func (c *Console) databasePage(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	d, err := c.databaseOf(r, p)
	if err != nil {
		return err
	}
	shown := databasePage{databaseHead: d}
	if d.Problem == "" {
		roles, err := c.Users.AccessRoles(r.Context(), p, d.Head.ID, d.Database.Name)
		switch {
		case err == nil:
			shown.Roles = presentAccessRoles(roles)
		case !fault.Is(err, fault.NotFound):
			if shown.RolesProblem, err = unreadable(err); err != nil {
				return err
			}
		}
	}
	return c.show(w, r, p, page{Template: "databases/database.html", Title: d.Database.Name + " of " + d.Head.Name,
		Area: "clusters", Crumbs: d.crumbs(true), Data: shown})
}

// allSchemas stands for every schema.
const allSchemas = "*"

type accessRolesPlan struct {
	*databaseHead
	Plan *shownAccessRoles // nil: it could not be made
	// Asked is the wish that the plan was made from, which the form that carries it out has in hidden fields.
	Asked   *form
	Schemas string // in a new form: those that the roles cover now
	Adopt   bool
}

// accessRolesPage shows what completing the access roles would run. The wish is the query, so that a plan changes nothing
// and has a URL; a refused change has it in its form.
func (c *Console) accessRolesPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	d, err := c.databaseOf(r, p)
	if err != nil {
		return err
	}
	shown := accessRolesPlan{databaseHead: d, Asked: f, Schemas: allSchemas}
	if !f.Typed() {
		shown.Asked = filterForm(r)
	}
	if d.Problem == "" {
		plan, err := c.Users.PlanAccessRoles(r.Context(), p, d.Head.ID, accessRolesWish(d.Database.Name, shown.Asked))
		switch {
		case err == nil:
			shown.Plan = presentAccessRoles(plan)
			shown.Schemas, shown.Adopt = strings.Join(plan.Schemas, "\n"), plan.Adopt
		case !mendable(err) || fault.Is(err, fault.Forbidden):
			return err
		case f.Problem == "":
			f.refuse(err)
		}
	}
	return c.show(w, r, p, page{Template: "databases/accessroles.html", Title: "Access roles of " + d.Database.Name,
		Area: "clusters", Crumbs: d.crumbs(false), Form: f, Data: shown})
}

// accessRolesWish is what a form asks for. Without a schema and without a choice it is as it is now.
func accessRolesWish(database string, f *form) pgrole.AccessRolesWish {
	wish := pgrole.AccessRolesWish{Database: database}
	if f.Values.Has("schemas") {
		if wish.Schemas = *lines(f, "schemas"); len(wish.Schemas) == 0 {
			wish.Schemas = []string{allSchemas}
		}
		wish.Adopt = new(f.Get("adopt") != "")
	}
	return wish
}

func (c *Console) completeAccessRoles(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	database := r.PathValue("database")
	done, err := c.Users.CompleteAccessRoles(r.Context(), p, r.PathValue("id"), accessRolesWish(database, f))
	if err != nil {
		return err
	}
	notice := fmt.Sprintf("The access roles are complete: %d %s run.", len(done.Statements),
		plural(len(done.Statements), "statement was", "statements were"))
	if !done.Complete {
		notice = "The access roles are not complete. What is missing is named below."
	}
	if done.Warning != "" {
		notice += " " + done.Warning
	}
	return c.redirect(w, pagePath("clusters", r.PathValue("id"), "databases", database), notice)
}

type rolesRemoval struct {
	*databaseHead
	Roles *shownAccessRoles
	// Members are the users that keep the roles from being removed.
	Members []string
}

func (c *Console) removeRolesPage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	d, err := c.databaseOf(r, p)
	if err == nil {
		err = access.Refusal(p, d.Head.Cluster)
	}
	if err != nil {
		return err
	}
	shown := rolesRemoval{databaseHead: d}
	if d.Problem == "" {
		roles, err := c.Users.AccessRoles(r.Context(), p, d.Head.ID, d.Database.Name)
		if err != nil {
			return err
		}
		shown.Roles = presentAccessRoles(roles)
		for _, role := range roles.Roles {
			shown.Members = append(shown.Members, role.Members...)
		}
		slices.Sort(shown.Members)
		shown.Members = slices.Compact(shown.Members)
	}
	return c.show(w, r, p, page{Template: "databases/removeroles.html", Title: "Remove the access roles of " +
		d.Database.Name, Area: "clusters", Crumbs: d.crumbs(false), Form: f, Data: shown})
}

func (c *Console) removeAccessRoles(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	database := r.PathValue("database")
	if err := c.Users.RemoveAccessRoles(r.Context(), p, r.PathValue("id"), database, f.Get("reassignTo")); err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", r.PathValue("id"), "databases", database), "The access roles are removed.")
}

func (c *Console) deleteDatabasePage(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	d, err := c.databaseOf(r, p)
	if err == nil {
		err = access.Refusal(p, d.Head.Cluster)
	}
	if err != nil {
		return err
	}
	return c.show(w, r, p, page{Template: "databases/delete.html", Title: "Delete " + d.Database.Name, Area: "clusters",
		Crumbs: d.crumbs(false), Form: f, Data: d})
}

func (c *Console) deleteDatabase(w http.ResponseWriter, r *http.Request, p *account.Principal, f *form) error {
	database := r.PathValue("database")
	if !f.repeats("name", database) {
		return wrongField("name", "This is not the name of the database. Type %s.", database)
	}
	if err := c.Users.DeleteDatabase(r.Context(), p, r.PathValue("id"), database); err != nil {
		return err
	}
	return c.redirect(w, pagePath("clusters", r.PathValue("id"), "databases"), fmt.Sprintf("The database %s is deleted.",
		database))
}
