package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

// company is a server with what a company has in it: clusters, accounts, database users, leases and stored credentials. The
// tests of the console walk through it, and its pages are those of the pictures in the documentation.
type company struct {
	*server
	clusters map[string]string // the id of each cluster, by its name
	pg       map[string]*pgtest.Cluster
	people   map[string]*employee
}

// employee is an account, and what it signs in with.
type employee struct {
	t        *testing.T
	s        *server
	guid     string
	username string
	password string
	token    string
}

// names are those of a company's things. The pictures have plain ones, the tests names that a page must escape.
type names struct {
	clusters [3]string // the last one is unreachable
	worker   string    // a database user
	remark   string    // a free text: a note, an annotation, the comment of a role
}

const personPassword = "the password of a person"

// newCompany starts the server of a company.
func newCompany(t *testing.T, n names) *company {
	t.Helper()
	c := &company{server: newServer(t), clusters: map[string]string{}, pg: map[string]*pgtest.Cluster{},
		people: map[string]*employee{}}
	c.people["admin"] = &employee{t: t, s: c.server, username: c.env["IONOS_USERNAME"], password: c.env["IONOS_PASSWORD"],
		token: c.env["IONOS_TOKEN"]}
	admin := c.people["admin"]
	none := map[string]string{}
	read, write := "cloud_controller.read", "cloud_controller.write"
	c.employ("auditor", []string{"cloud_controller.admin_read_only"}, none, n.remark)
	c.employ("alice", []string{read, write}, map[string]string{"team": "orders", "oncall": "true"}, n.remark)
	c.employ("bob", []string{read, write}, map[string]string{"team": "support"}, n.remark)
	c.employ("nobody", []string{read}, none, n.remark)
	c.employ("dave", []string{read, write}, map[string]string{"team": "analytics"}, n.remark)

	shared := []map[string]any{
		{"manage": []string{"team=orders"}, "view": []string{"team in (orders,support)"}},
		{"manage": []string{"team=analytics"}},
		{"manage": []string{"team=billing"}},
	}
	for i, name := range n.clusters {
		pg := pgtest.New(t, nil)
		c.pg[name] = pg
		pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administrator';
			GRANT pg_signal_backend TO rolecall_admin; GRANT SELECT ON pg_authid TO rolecall_admin;
			CREATE ROLE everybody; CREATE ROLE readers; GRANT everybody, readers TO rolecall_admin WITH ADMIN OPTION`)
		var made struct{ ID string }
		admin.does(201, "POST", "/rolecall/v1/clusters", map[string]any{
			"displayName": name, "location": []string{"eu-central", "eu-west", "eu-central"}[i], "access": shared[i],
			"connection": map[string]any{"url": fmt.Sprintf("postgres://rolecall_admin@127.0.0.1:%d/postgres", pg.Port),
				"password": "administrator", "tls": map[string]any{"mode": "disable"}},
			"memberOf": []string{"everybody"}, "grantable": []string{"readers"},
		}, &made)
		c.clusters[name] = made.ID
	}
	c.furnish(n)
	// The third cluster becomes unreachable, and Rolecall knows it.
	c.pg[n.clusters[2]].Stop(t)
	waitFor(t, "the cluster is unreachable", func() bool {
		var is struct{ Reachable bool }
		admin.does(200, "GET", "/rolecall/v1/clusters/"+c.clusters[n.clusters[2]], nil, &is)
		return !is.Reachable
	})
	return c
}

// furnish makes what is in the clusters.
func (c *company) furnish(n names) {
	t, alice, dave, admin := c.people["alice"].t, c.people["alice"], c.people["dave"], c.people["admin"]
	at := func(i int, path ...string) string {
		all := "/rolecall/v1/clusters/" + c.clusters[n.clusters[i]]
		for _, segment := range path {
			all += "/" + url.PathEscape(segment)
		}
		return all
	}
	user := func(by *employee, cluster int, name, database, level string, more map[string]any) {
		body := map[string]any{"username": name}
		if database != "" {
			body["access"] = []map[string]string{{"database": database, "level": level}}
		}
		for k, v := range more {
			body[k] = v
		}
		by.does(201, "POST", at(cluster, "users"), body, nil)
	}
	soon := time.Now().AddDate(0, 0, 5).Format(time.DateOnly)
	for i, databases := range [][]string{{"orders", "payments"}, {"warehouse"}, {"invoices"}} {
		for _, database := range databases {
			by := []*employee{alice, dave, admin}[i]
			by.does(201, "POST", at(i, "databases"), map[string]any{"name": database, "accessRoles": true}, nil)
		}
	}
	user(alice, 0, "orders-app", "orders", "write", map[string]any{"connectionLimit": 40})
	user(alice, 0, n.worker, "orders", "write", map[string]any{"connectionLimit": 10})
	user(alice, 0, "orders-migrations", "orders", "own", nil)
	user(alice, 0, "payments-app", "payments", "write", nil)
	user(alice, 0, "reporting", "orders", "read", map[string]any{"validUntil": soon})
	user(alice, 0, "support-desk", "orders", "read", map[string]any{"roles": []string{"readers"}})
	user(admin, 0, "backup-check", "payments", "read", nil)
	user(admin, 0, "former-app", "orders", "write", nil)
	alice.does(200, "POST", at(0, "users", "former-app", "disable"), nil, nil)
	for _, name := range []string{"warehouse-loader", "dashboards", "experiments", "quarterly-report", "etl-nightly"} {
		level := "read"
		if name == "warehouse-loader" || name == "etl-nightly" {
			level = "write"
		}
		user(dave, 1, name, "warehouse", level, nil)
	}
	dave.does(200, "PATCH", at(1, "users", "experiments"), map[string]any{"validUntil": soon}, nil)
	for _, name := range []string{"invoices-app", "invoices-export", "tax-export"} {
		user(admin, 2, name, "invoices", "write", nil)
	}
	// A role that Rolecall did not make, and one whose password was changed by SQL.
	c.pg[n.clusters[0]].Exec(t, `CREATE ROLE "legacy-batch" LOGIN PASSWORD 'made by hand'`)
	c.pg[n.clusters[0]].Exec(t, `COMMENT ON ROLE "legacy-batch" IS `+pgQuote(n.remark))
	c.pg[n.clusters[1]].Exec(t, `CREATE ROLE "notebook" LOGIN PASSWORD 'made by hand'`)
	orders, err := pgx.Connect(t.Context(), c.pg[n.clusters[0]].URL("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close(t.Context())
	if _, err := orders.Exec(t.Context(), `CREATE SCHEMA legacy AUTHORIZATION "legacy-batch"; SET ROLE "legacy-batch";
		CREATE TABLE legacy.imports (id int); CREATE TABLE legacy.runs (id int);
		CREATE VIEW legacy.recent AS SELECT * FROM legacy.runs; RESET ROLE; SET ROLE orders_owner;
		CREATE TABLE orders (id int); GRANT SELECT ON orders TO "legacy-batch"`); err != nil {
		t.Fatal(err)
	}

	var ended struct{ ID string }
	lease := func(by *employee, cluster int, role, ttl, note string, into any) {
		by.does(201, "POST", at(cluster, "leases"), map[string]any{"for": role, "ttl": ttl, "note": note}, into)
	}
	lease(alice, 0, "orders_write", "2h", "INC-2041: slow checkout", nil)
	lease(alice, 0, "orders_read", "30m", n.remark, nil)
	lease(alice, 0, "payments_read", "8h", "month-end reconciliation", &ended)
	lease(dave, 1, "warehouse_read", "4h", "ad hoc analysis", nil)
	alice.does(204, "DELETE", "/rolecall/v1/leases/"+ended.ID, nil, nil)
	alice.does(201, "PUT", at(0, "credentials", "orders-web"),
		map[string]any{"for": "orders_write", "rotateEvery": "30d", "overlap": "1d"}, nil)
	dave.does(201, "PUT", at(1, "credentials", "loader"), map[string]any{"for": "warehouse_write", "rotateEvery": "7d",
		"overlap": "12h", "window": map[string]any{"days": []string{"sat"}, "from": "02:00", "to": "04:00",
			"timezone": "Europe/Berlin"}}, nil)
	alice.does(201, "POST", "/rolecall/v1/tokens", map[string]any{"name": "deploy pipeline", "readOnly": true}, nil)
	alice.does(201, "POST", "/rolecall/v1/tokens", map[string]any{"name": n.remark}, nil)
	dave.does(202, "POST", "/rolecall/v1/operations", map[string]any{"action": "endSessions",
		"filter": map[string]any{"cluster": c.clusters[n.clusters[1]], "name": "e*"}}, nil)
}

// pgQuote is a text as a literal of SQL.
func pgQuote(text string) string {
	quoted := ""
	for _, r := range text {
		if r == '\'' {
			quoted += "'"
		}
		quoted += string(r)
	}
	return "'" + quoted + "'"
}

// employ makes an account, which signs in for a token of the APIs.
func (c *company) employ(name string, scopes []string, labels map[string]string, remark string) {
	e := &employee{t: c.people["admin"].t, s: c.server, username: name, password: personPassword}
	var made struct{ GUID string }
	c.people["admin"].does(201, "POST", "/rolecall/v1/accounts", map[string]any{"username": name, "password": e.password,
		"scopes": scopes, "labels": labels, "annotations": map[string]string{"remark": remark}}, &made)
	e.guid = made.GUID
	form := url.Values{"grant_type": {"password"}, "username": {name}, "password": {e.password}}
	r := send(e.t, "POST", c.env["ROLECALL_URL"]+"/uaa/oauth/token", map[string]string{"Authorization": "Basic Y2Y6",
		"Content-Type": "application/x-www-form-urlencoded"}, form.Encode())
	e.token, _ = r.object(e.t)["access_token"].(string)
	if e.token == "" {
		e.t.Fatalf("a token for %s: %d %s", name, r.status, r.body)
	}
	c.people[name] = e
}

// does makes a request with the token, and expects a status.
func (e *employee) does(want int, method, path string, body, into any) {
	e.t.Helper()
	text := ""
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			e.t.Fatal(err)
		}
		text = string(encoded)
	}
	header := map[string]string{"Authorization": "Bearer " + e.token, "Content-Type": "application/json"}
	if method == http.MethodPatch {
		header["If-Match"] = "*"
	}
	r := send(e.t, method, e.s.env["ROLECALL_URL"]+path, header, text)
	if r.status != want {
		e.t.Fatalf("%s: %s %s %s: %d %s, want %d", e.username, method, path, text, r.status, r.body, want)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(r.body), into); err != nil {
			e.t.Fatalf("%s %s: %s: %v", method, path, r.body, err)
		}
	}
}

// plain are the names of the pictures.
var plain = names{clusters: [3]string{"orders (production)", "analytics", "billing (production)"}, worker: "orders-worker",
	remark: "owned by the platform team"}
