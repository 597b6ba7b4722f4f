package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

// TestConsoleFlow is what a person does who has never seen the product: register a cluster, create a database and a user
// that writes to it, copy the password, log in with psql, and delete the user by its plan. The console alone leads there.
func TestConsoleFlow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, h := range someHands(t) {
		// It outlives its own subtest: Rolecall cannot tell copies of one cluster apart if one of them does not answer.
		pg := pgtest.New(t, nil)
		pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administrator';
			GRANT pg_signal_backend TO rolecall_admin`)
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			e := &employee{t: t, s: s, username: s.env["IONOS_USERNAME"], password: s.env["IONOS_PASSWORD"]}
			name := "shop " + h.name
			b := openTab(t, s.env["ROLECALL_URL"], h)
			b.signIn(e)

			b.follow("Clusters")
			b.follow("Register a cluster")
			b.fill("Name", name)
			b.fill("URL", fmt.Sprintf("postgres://rolecall_admin@127.0.0.1:%d/postgres", pg.Port))
			b.fill("Password of this role", "not the password")
			b.choose("TLS", "disable: no TLS, for this machine only")
			b.press("Connect and show what is there")
			b.refuses("password")
			if b.value("Name") != name || b.value("Password of this role") != "" {
				t.Errorf("with a wrong password the form has %q and %q", b.value("Name"), b.value("Password of this role"))
			}
			b.fill("Password of this role", "administrator")
			b.press("Connect and show what is there")
			b.sees("Step 2 of 2.")
			b.keepsNot("administrator")
			b.press("Register " + name)
			b.sees("is registered")

			b.follow("Databases")
			b.fill("Name of the database", "shop")
			b.press("Create the database")
			b.sees("shop_write")
			b.follow(name)

			b.follow("New user")
			b.fill("Name", "pg_app")
			b.choose("shop", "write")
			b.press("Create the user")
			b.refuses("pg_app")
			if b.value("Name") != "pg_app" || b.value("shop") != "write" {
				t.Errorf("after a refused name the form has %q and %q", b.value("Name"), b.value("shop"))
			}
			b.fill("Name", "app")
			b.press("Create the user")
			b.sees("Copy the password now.")
			password := eval[string](b, `document.querySelector(".secret").textContent`)
			b.usesOrders(pg, password)
			if h.script {
				b.find("Copy", []string{"button"}, 2)
			}
			b.follow("I have copied it: go to the user")
			b.sees("Where it comes from")
			b.keepsNot(password)

			b.follow("Delete…")
			b.sees("What the deletion does")
			b.fill("Type the name of the user", "another")
			b.press("Delete the user")
			b.refuses("app")
			b.fill("Type the name of the user", "app")
			b.press("Delete the user")
			b.sees("was deleted")
			if n := pgtest.Value[int](t, pg, `SELECT count(*) FROM pg_roles WHERE rolname = 'app'`); n != 0 {
				t.Error("the role is still there")
			}
		})
	}
}

// usesOrders writes to a table as the user that the page shows.
func (b *tab) usesOrders(pg *pgtest.Cluster, password string) {
	b.t.Helper()
	conn := pg.Connect(b.t, "app", password, "shop")
	ctx := b.t.Context()
	if _, err := conn.Exec(ctx, `CREATE TABLE mine ()`); err == nil {
		b.t.Error("a user that writes creates a table")
	}
	owner, err := pgx.Connect(ctx, pg.URL("shop"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer owner.Close(ctx)
	if _, err := owner.Exec(ctx, `SET ROLE shop_owner; CREATE TABLE IF NOT EXISTS orders (id int)`); err != nil {
		b.t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `INSERT INTO orders VALUES (1)`); err != nil {
		b.t.Errorf("a user that writes: %v", err)
	}
}

// TestConsoleTwoTabs: of two tabs that change one thing, the second one gets a 412 with both versions, keeps what was typed,
// and may send it again.
func TestConsoleTwoTabs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	e := &employee{t: t, s: s, username: s.env["IONOS_USERNAME"], password: s.env["IONOS_PASSWORD"],
		token: s.env["IONOS_TOKEN"]}
	e.does(201, "POST", "/rolecall/v1/clusters/"+s.cluster()+"/users", map[string]any{"username": "tabs"}, nil)
	first := openTab(t, s.env["ROLECALL_URL"], anyHands[0])
	first.signIn(e)
	second := first.another()

	user := "/console/clusters/" + s.cluster() + "/users/tabs"
	limit := "Connection limit (optional)"
	first.open(user)
	second.open(user)
	first.fill(limit, "5")
	first.press("Change the limits")
	first.sees("5 at most")
	second.fill(limit, "7")
	second.press("Change the limits")
	second.sees("The user has changed since you opened the form.")
	if second.status() != 412 || second.value(limit) != "7" {
		t.Errorf("the second tab: %d, the form has %q", second.status(), second.value(limit))
	}
	second.sees("What you typed")
	second.press("Change the limits")
	second.sees("7 at most")

	settings := "/console/clusters/" + s.cluster() + "/settings"
	first.open(settings)
	second.open(settings)
	first.fill("Location", "de/fra")
	first.press("Save the settings")
	first.sees("The settings are saved.")
	second.fill("Location", "de/ber")
	second.press("Save the settings")
	second.sees("Two versions")
	if text := second.text(); second.status() != 412 || second.value("Location") != "de/ber" ||
		!strings.Contains(text, "de/fra") || !strings.Contains(text, e.username) {
		t.Errorf("the second tab: %d, the form has %q: %s", second.status(), second.value("Location"), text)
	}
	second.press("Save what you typed all the same")
	second.sees("The settings are saved.")
}
