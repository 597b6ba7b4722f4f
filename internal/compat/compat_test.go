// Package compat tries what Rolecall does on every PostgreSQL major under each kind of administering role, through the
// HTTP API, and holds docs/internals/compatibility.md to what it saw.
package compat

import (
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rolecall/internal/adminapi"
	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var update = flag.Bool("update", false, "write docs/internals/compatibility.md")

const document = "../../docs/internals/compatibility.md"

// administrators are the kinds of administering role, with the SQL that makes one after cloud.
var administrators = []struct{ kind, role, sql string }{
	{"superuser", "super_admin", `CREATE ROLE super_admin SUPERUSER LOGIN PASSWORD '` + rolePassword + `'`},
	{"least privilege", "least_admin", `
		CREATE ROLE least_admin LOGIN CREATEROLE CREATEDB PASSWORD '` + rolePassword + `';
		GRANT pg_signal_backend TO least_admin`},
	{"RDS-like", "master", `
		CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD '` + rolePassword + `' VALID UNTIL 'infinity';
		GRANT rds_superuser TO master WITH ADMIN OPTION`},
}

// cloud is what Amazon RDS has in a cluster beside its master user:
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Appendix.PostgreSQL.CommonDBATasks.Roles.rds_superuser.html
var cloud = []string{
	`CREATE ROLE rdsadmin SUPERUSER LOGIN`,
	`CREATE ROLE rds_password; CREATE ROLE rds_replication; CREATE ROLE rds_superuser`,
	`GRANT pg_monitor, pg_signal_backend, rds_password, rds_replication TO rds_superuser WITH ADMIN OPTION`,
	`CREATE DATABASE rdsadmin OWNER rdsadmin`,
	`REVOKE ALL ON DATABASE rdsadmin FROM PUBLIC`,
	`CREATE ROLE cloud_user LOGIN; GRANT rds_superuser TO cloud_user`,
}

const rolePassword = "administering-password"

func TestCompatibility(t *testing.T) {
	s := servicetest.Shared(t)
	edge := func(h http.Handler) *web.Edge {
		return &web.Edge{Handler: h, Log: slog.New(slog.NewTextHandler(s.Log, nil))}
	}
	entrance := s.Door(10_000)
	admin := (&adminapi.API{Accounts: s.Accounts, Users: s.Users, Fleet: s.Fleet, Identity: s.Identity,
		PublicURL: servicetest.PublicURL,
		Door:      entrance}).Handler()
	users := (&dbaas.API{Users: s.Users, PublicURL: servicetest.PublicURL, Door: entrance}).Handler()
	api := clients{apitest.Load(t, "rolecall.yaml").Serve(t, edge(admin)), apitest.Load(t, "dbaas.yaml").Serve(t, edge(users))}

	seen := make([]column, len(pgtest.Majors))
	t.Run("majors", func(t *testing.T) {
		for i, major := range pgtest.Majors {
			t.Run(strconv.Itoa(major), func(t *testing.T) {
				t.Parallel()
				seen[i] = see(t, api, major)
			})
		}
	})
	if t.Failed() || slices.ContainsFunc(seen, func(c column) bool { return c.cells == nil }) {
		for line := range strings.Lines(s.Log.String()) {
			if strings.Contains(line, "level=ERROR") {
				t.Log(line)
			}
		}
		return // or -run has left majors out
	}
	want := page(seen)
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if has := string(text); has != want {
		t.Errorf("docs/internals/compatibility.md is not what was seen; see what differs, and write it with: go test "+
			"./internal/compat -update\n%s", difference(has, want))
	}
}

// column is what was seen on a major: a cell for each capability and administrator.
type column struct {
	version string
	cells   [][]string
}

// see tries everything on one cluster, under one administrator after the other.
func see(t *testing.T, api clients, major int) column {
	pg := pgtest.NewMajor(t, major, nil)
	for _, sql := range cloud {
		pg.Exec(t, sql)
	}
	seen := column{version: pg.Version, cells: make([][]string, len(capabilities))}
	for _, a := range administrators {
		pg.Exec(t, a.sql)
		c := &cluster{Cluster: pg, clients: api, role: a.role}
		for i, capability := range capabilities {
			t.Run(a.kind+"/"+capability.name, func(t *testing.T) {
				seen.cells[i] = append(seen.cells[i], capability.try(t, c))
			})
		}
	}
	return seen
}

// page is docs/internals/compatibility.md.
func page(seen []column) string {
	var versions []string
	for _, s := range seen {
		versions = append(versions, s.version)
	}
	var b strings.Builder
	fmt.Fprintf(&b, head, strings.Join(versions, ", "))
	b.WriteString("\n| |")
	for _, a := range administrators {
		fmt.Fprintf(&b, " %s |", a.kind)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(administrators)) + "\n")
	for i, capability := range capabilities {
		fmt.Fprintf(&b, "| %s |", capability.name)
		for k := range administrators {
			b.WriteString(" " + merged(seen, i, k) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// merged is one cell for all majors, which names them where they differ.
func merged(seen []column, capability, administrator int) string {
	type group struct {
		text           string
		oldest, newest int
	}
	var groups []group
	for i, s := range seen {
		text := s.cells[capability][administrator]
		if n := len(groups); n > 0 && groups[n-1].text == text {
			groups[n-1].newest = pgtest.Majors[i]
		} else {
			groups = append(groups, group{text, pgtest.Majors[i], pgtest.Majors[i]})
		}
	}
	if len(groups) == 1 {
		return groups[0].text
	}
	var parts []string
	for _, g := range groups {
		majors := strconv.Itoa(g.oldest)
		if g.newest > g.oldest {
			majors += "–" + strconv.Itoa(g.newest)
		}
		parts = append(parts, majors+": "+g.text)
	}
	return strings.Join(parts, "<br>")
}

// difference is the lines of two texts that the other does not have.
func difference(has, want string) string {
	var b strings.Builder
	hasLines, wantLines := strings.Split(has, "\n"), strings.Split(want, "\n")
	for _, line := range hasLines {
		if !slices.Contains(wantLines, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	for _, line := range wantLines {
		if !slices.Contains(hasLines, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	return cmp.Or(b.String(), "the lines are the same, in another order")
}

const head = `# Compatibility

What Rolecall does with each kind of administering role, on PostgreSQL %s. Each cell has
the status of the HTTP API, and then what a query of the cluster showed, or the reason in the response. If majors
differ, they are named. A test makes this table in every run, and fails if anything has changed.

- **superuser**: a role with SUPERUSER.
- **least privilege**: the role of [Clusters](../clusters.md#the-administering-role), with LOGIN, CREATEROLE, CREATEDB and
  membership in ` + "`pg_signal_backend`" + `.
- **RDS-like**: the master user of Amazon RDS, rebuilt. It has LOGIN, CREATEROLE, CREATEDB and membership in
  ` + "`rds_superuser`" + `, which has ` + "`pg_monitor`, `pg_signal_backend` and `rds_password`" + `.
  Beside it there is a superuser ` + "`rdsadmin`" + ` with a database that no other role may connect to. The server is
  the published PostgreSQL; Amazon's changed version was not tried.

A *foreign* user or role was created with SQL by another role. *With ADMIN OPTION* means after
` + "`GRANT <role> TO <administering role> WITH ADMIN OPTION`" + `.
`
