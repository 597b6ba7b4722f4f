package pgrole_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func probe(t testing.TB, conn *pgx.Conn) *pgrole.Capabilities {
	t.Helper()
	return probeFor(t, conn, pgrole.Purpose{})
}

func probeFor(t testing.TB, conn *pgx.Conn, purpose pgrole.Purpose) *pgrole.Capabilities {
	t.Helper()
	p, err := pgrole.Probe(t.Context(), conn, purpose)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// problems fails t unless p has as many problems as parts, in their order.
func problems(t testing.TB, p *pgrole.Capabilities, parts ...string) {
	t.Helper()
	if len(p.Problems) != len(parts) {
		t.Fatalf("the problems are %q, want %q", p.Problems, parts)
	}
	for i, part := range parts {
		if !strings.Contains(p.Problems[i], part) {
			t.Errorf("the problem lacks %q: %s", part, p.Problems[i])
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_connections": "33"})
	roles := pgtest.Value[string](t, c, `SELECT string_agg(rolname, ' ') FROM pg_authid`)
	p := probe(t, c.Connect(t, c.User, c.Password, "postgres"))
	problems(t, p)
	if !p.Superuser || !p.CreateRole || !p.CreateDB || !p.ManageUsers || !p.ForeignRoles || !p.SignalBackend ||
		!p.ReadVerifiers || p.Role != c.User ||
		p.Version/10000 != c.Major || !strings.HasPrefix(p.VersionName, c.Version) || p.MaxConnections != 33 {
		t.Errorf("got %+v", p)
	}
	if got := pgtest.Value[string](t, c, `SELECT string_agg(rolname, ' ') FROM pg_authid`); got != roles {
		t.Errorf("the roles were %s, are %s", roles, got)
	}

	// What a problem says to do mends it.
	c.Exec(t, `CREATE ROLE "pl""ain" LOGIN PASSWORD 'plain'; `+
		`REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`)
	p = probe(t, c.Connect(t, `pl"ain`, "plain", "postgres"))
	problems(t, p, "GRANT EXECUTE", `ALTER ROLE "pl""ain" CREATEROLE;`, `ALTER ROLE "pl""ain" CREATEDB;`)
	if p.Superuser || p.CreateRole || p.CreateDB || p.ManageUsers || p.ForeignRoles || p.SignalBackend || p.ReadVerifiers {
		t.Errorf("got %+v", p)
	}
	mend(t, c, p)
	p = probe(t, c.Connect(t, `pl"ain`, "plain", "postgres"))
	problems(t, p)
	if p.Superuser || !p.CreateRole || !p.CreateDB || !p.ManageUsers || p.ForeignRoles != (c.Major < 16) || p.SignalBackend ||
		p.ReadVerifiers {
		t.Errorf("got %+v", p)
	}

	// From PostgreSQL 16 on it is told of users that it cannot change, of system users it is not.
	c.Exec(t, `CREATE ROLE foreign_one LOGIN; CREATE ROLE foreign_group; CREATE ROLE foreign_super LOGIN SUPERUSER`)
	conn := c.Connect(t, `pl"ain`, "plain", "postgres")
	if c.Major < 16 {
		problems(t, probe(t, conn))
	} else {
		problems(t, probe(t, conn), `1 was not. For each that it is to change: GRANT <user> TO "pl""ain" WITH ADMIN OPTION;`)
		problems(t, probeFor(t, conn, pgrole.Purpose{SystemRoles: []string{"x*", "*_one"}}))
		problems(t, probeFor(t, conn, pgrole.Purpose{ControlRole: "foreign_one"}))
		c.Exec(t, `GRANT foreign_one TO "pl""ain" WITH ADMIN OPTION`)
		problems(t, probe(t, conn))
	}
	c.Exec(t, `GRANT pg_signal_backend TO "pl""ain"; GRANT SELECT ON pg_authid TO "pl""ain"`)
	if p := probe(t, conn); !p.SignalBackend || !p.ReadVerifiers || p.Superuser {
		t.Errorf("got %+v", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := pgrole.Probe(ctx, conn, pgrole.Purpose{}); err == nil {
		t.Errorf("got %+v", p)
	}
}

// mend does what the problems say.
func mend(t testing.TB, c *pgtest.Cluster, p *pgrole.Capabilities) {
	t.Helper()
	for _, problem := range p.Problems {
		if strings.Contains(problem, "may not connect") {
			continue // which databases it should look into is for people to decide
		}
		c.Exec(t, regexp.MustCompile(`: ([A-Z]{5,} .*;)$`).FindStringSubmatch(problem)[1])
	}
}

// Databases that it cannot look into, and roles that it cannot make users members of.
func TestProbeOfPurpose(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	_, role := administrator(t, c)
	conn := c.Connect(t, role, "administrator", "postgres")
	for _, name := range []string{`open`, `control`, `"clo""sed"`, `closed`, `rdsadmin`} {
		c.Exec(t, `CREATE DATABASE `+name)
	}
	c.Exec(t, `REVOKE CONNECT ON DATABASE control, "clo""sed", closed, rdsadmin FROM PUBLIC; CREATE ROLE "rea""d"; CREATE `+
		`ROLE own ADMIN `+role+`; CREATE ROLE reads_all IN ROLE pg_read_all_data ADMIN `+role)
	purpose := pgrole.Purpose{MemberOf: []string{"own", `abs"ent`, `rea"d`}, Grantable: []string{"own", `rea"d`},
		ControlDatabase: "control"}
	want := []string{`some databases: "clo""sed", "closed". `, `"abs\"ent"`}
	if c.Major >= 16 {
		want = append(want, `GRANT "rea""d" TO "`+role+`" WITH ADMIN OPTION;`)
	}
	p := probeFor(t, conn, purpose)
	problems(t, p, want...)
	mend(t, c, p)
	c.Exec(t, `GRANT CONNECT ON DATABASE "clo""sed", closed TO `+role)
	if p := probeFor(t, conn, purpose); c.Major < 16 {
		problems(t, p)
	} else {
		problems(t, p, `GRANT "abs""ent" TO "`+role+`" WITH ADMIN OPTION;`)
		mend(t, c, p)
		problems(t, probeFor(t, conn, purpose))
	}
	// What it says is so.
	s := serverAs(t, c, role, "administrator")
	s.MemberOf = purpose.MemberOf
	mustCreate(t, s, "of_purpose")
	problems(t, probeFor(t, c.Connect(t, c.User, c.Password, "postgres"), purpose))
	problems(t, probeFor(t, conn, pgrole.Purpose{Grantable: []string{"reads_all"}, ControlDatabase: "control"}),
		`Members of "reads_all" may read pg_authid`)

	for i := range 12 {
		c.Exec(t, fmt.Sprintf(`CREATE DATABASE many_%02d`, i))
		c.Exec(t, fmt.Sprintf(`REVOKE CONNECT ON DATABASE many_%02d FROM PUBLIC`, i))
	}
	p = probe(t, conn)
	problems(t, p, "13 databases") // the control database is not known here
	if strings.Contains(p.Problems[0], "many_09") || !strings.Contains(p.Problems[0], "many_08") {
		t.Errorf("not the first ten: %s", p.Problems[0])
	}
}
