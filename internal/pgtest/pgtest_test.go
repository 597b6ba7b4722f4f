package pgtest_test

import (
	"context"
	"strings"
	"testing"

	"rolecall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestShared(t *testing.T) {
	c := pgtest.Shared(t)
	if c != pgtest.Shared(t) {
		t.Error("a second call of Shared gives another cluster")
	}
	c.LogStatements(t)
	c.Exec(t, "SELECT 'in the log'")
	if !strings.Contains(c.ReadLog(t), "SELECT 'in the log'") {
		t.Error("the log lacks a statement")
	}
	c.Exec(t, "CREATE EXTENSION pg_stat_statements")
	if n := pgtest.Value[int](t, c, "SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'SELECT %'"); n == 0 {
		t.Error("pg_stat_statements is empty")
	}
}

func TestLogin(t *testing.T) {
	c := pgtest.Shared(t)
	// Names and passwords that a URL or a conninfo string would misread.
	for _, user := range []string{"pgtest_login", "a b=c/@:%27'", "-d postgres"} {
		const password = `p w'"\@:/?%41=`
		c.Exec(t, `CREATE ROLE "`+user+`" LOGIN PASSWORD 'p w''"\@:/?%41='`)
		if err := c.Login(user, password); err != nil {
			t.Errorf("Login(%q): %v", user, err)
		}
		for _, wrong := range []string{"", "wrong"} {
			if err := c.Login(user, wrong); err == nil {
				t.Errorf("Login(%q) with password %q succeeded", user, wrong)
			}
			if out, err := c.Psql(user, wrong, "SELECT 1"); err == nil {
				t.Errorf("Psql(%q) with password %q = %q", user, wrong, out)
			}
		}
		if got, err := c.Psql(user, password, "SELECT current_user"); err != nil || got != user {
			t.Errorf("Psql(%q) = %q, %v", user, got, err)
		}
		var got string
		conn := c.Connect(t, user, password, "template1")
		if err := conn.QueryRow(t.Context(), "SELECT current_user || current_database()").Scan(&got); err != nil ||
			got != user+"template1" {
			t.Errorf("Connect as %q is %q, %v", user, got, err)
		}
	}
}

func TestPsqlFailure(t *testing.T) {
	c := pgtest.Shared(t)
	_, err := c.Psql(c.User, c.Password, "SELECT nonsense")
	if err == nil || !strings.Contains(err.Error(), `column "nonsense" does not exist`) {
		t.Errorf("got %v, want psql's error", err)
	}
}

func TestOutage(t *testing.T) {
	c := pgtest.New(t, map[string]string{"work_mem": "5MB"})
	c.Exec(t, "CREATE ROLE kept LOGIN PASSWORD 'secret'")
	conn := c.Connect(t, "kept", "secret", "postgres")
	c.Stop(t)
	if err := conn.Ping(context.Background()); err == nil {
		t.Error("a session outlived Stop")
	}
	if err := c.Login("kept", "secret"); err == nil {
		t.Error("Login succeeded after Stop")
	}
	port := c.Port
	c.Start(t)
	if err := c.Login("kept", "secret"); err != nil || c.Port != port {
		t.Errorf("after Start: %v; port %d, was %d", err, c.Port, port)
	}
	if got := pgtest.Value[string](t, c, "SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem is %s, want the 5MB of New", got)
	}
}
