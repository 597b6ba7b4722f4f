package console_test

import (
	"strings"
	"testing"

	"rolecall/internal/pgtest"
)

// A manager creates a database, completes and removes its access roles by a plan, and deletes it. A viewer sees no form.
func TestDatabasePages(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pg)
	s.Manager.get(s.Path+"/databases").is(200).shows("postgres", "system", "Create the database")
	s.Viewer.get(s.Path+"/databases").is(200).shows("postgres").hides("Create the database", `name="owner"`)
	s.Viewer.post(s.Path+"/databases", "name", "shop").is(403)
	s.Manager.post(s.Path+"/databases", "name", "postgres", "owner", "typed_owner").is(422).shows("is reserved", "typed_owner",
		`role="alert"`)
	s.Manager.post(s.Path+"/databases", "name", "shop", "owner", "absent_owner").is(422).shows("absent_owner", `value="shop"`)
	s.Manager.post(s.Path+"/databases", "name", "shop").is(303)
	s.Manager.post(s.Path+"/databases", "name", "shop").is(409).shows("There is a database", `id="error-name"`)
	s.Manager.get(s.Path+"/databases").is(200).shows(">shop</a>", " MB<", "manager")

	// Access roles: the plan first, then what it says.
	shop := s.Path + "/databases/shop"
	s.Manager.get(shop).is(200).shows("The database has no access roles", "Create access roles", "Delete shop")
	s.Viewer.get(shop).is(200).shows("The database has no access roles").hides("Create access roles", "Delete shop")
	s.Viewer.get(shop + "/access-roles").is(403)
	plan := s.Manager.get(shop+"/access-roles").is(200).shows("CREATE ROLE", "shop_owner", "Run ")
	if pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shop_owner')`) {
		t.Fatal("the plan was carried out")
	}
	s.Manager.get(shop + "/access-roles?schemas=absent_schema").is(422).shows("absent_schema").hides("CREATE ROLE")
	s.Manager.post(shop+"/access-roles", "schemas", plan.hidden("schemas")).is(303)
	s.Manager.get(shop).is(200).shows("shop_owner", "shop_write", "shop_read", ">complete<", "Change the access roles")
	s.Manager.get(shop + "/access-roles").is(200).shows("Nothing is to be run")

	// Members keep the roles from being removed, and are named before that is tried.
	pg.Exec(t, `CREATE ROLE reader LOGIN; GRANT shop_read TO reader`)
	s.Manager.get(shop+"/access-roles/remove").is(200).shows("reader", "this will be refused")
	s.Manager.post(shop+"/access-roles/remove", "reassignTo", "typed_role").is(422).shows("typed_role")
	s.Viewer.get(shop + "/access-roles/remove").is(403)
	pg.Exec(t, `REVOKE shop_read FROM reader`)
	s.Manager.post(shop+"/access-roles/remove", "reassignTo", "").is(303)
	s.Manager.get(shop).is(200).shows("The access roles are removed.", "The database has no access roles")
	s.Viewer.get(shop + "/delete").is(403)

	// Sessions keep the database from being deleted: the answer names them.
	conn := pg.Connect(t, pg.User, pg.Password, "shop")
	s.Manager.get(shop+"/delete").is(200).shows("A database with sessions is not deleted",
		"Type the name of the database: shop")
	s.Manager.post(shop+"/delete", "name", "sho").is(422).shows("not the name of the database", `value="sho"`)
	s.Manager.post(shop+"/delete", "name", "shop").is(409).shows("in use", pg.User)
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Manager.post(shop+"/delete", "name", "shop").is(303)
	s.Manager.get(s.Path + "/databases").is(200).shows("The database shop is deleted.")
	s.Manager.get(shop).is(404)
	if strings.Contains(s.Manager.get(s.Path+"/databases").Body, ">shop</a>") {
		t.Error("the deleted database is listed")
	}
}
