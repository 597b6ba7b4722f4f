package pgrole_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/primary"
)

const (
	password  = "first password"
	password2 = "second password"
	account   = "7c4b1d1e-0000-4000-8000-00000000000a"
)

// batchWait is longer than any query takes, on a busy machine as well.
const batchWait = 2 * time.Minute

// serverAs is the Server of a cluster under an administering role.
func serverAs(t testing.TB, c *pgtest.Cluster, role, password string) *pgrole.Server {
	t.Helper()
	return serverAt(t, net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), role, password)
}

// serverAt connects as package cluster does.
func serverAt(t testing.TB, address, role, password string) *pgrole.Server {
	t.Helper()
	config, err := pgxpool.ParseConfig("postgres://" + address + "/postgres?sslmode=disable&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	own := config.ConnConfig
	own.User, own.Password, own.ConnectTimeout = role, password, 4*time.Second
	own.RuntimeParams, own.ValidateConnect = pgrole.SessionSettings(), primary.Prefer
	// On a busy machine this process may get no processor for long, and each statement takes several times as long.
	own.RuntimeParams["idle_in_transaction_session_timeout"] = "2min"
	own.RuntimeParams["lock_timeout"], own.RuntimeParams["statement_timeout"] = "16s", "32s"
	return &pgrole.Server{
		Pool: pool(t, config),
		Connect: func(ctx context.Context, database, encoding string) (*pgx.Conn, error) {
			return pgrole.ConnectTo(ctx, own, database, encoding)
		},
		SystemRoles: []string{"postgres", "admin", "standby"},
		Batcher:     pgrole.NewBatcher(batchWait),
		Waits:       pgrole.Waits{Acquire: batchWait},
	}
}

// impatient is a Server that waits for locks and a new primary as briefly as a test can wait them out.
func impatient(t testing.TB, s *pgrole.Server) *pgrole.Server {
	t.Helper()
	config := s.Pool.Config()
	config.ConnConfig.RuntimeParams["lock_timeout"] = "2s"
	brief := *s
	brief.Pool, brief.Batcher = pool(t, config), pgrole.NewBatcher(batchWait)
	brief.Waits = pgrole.Waits{Lock: 2 * time.Second, Failover: time.Second}
	return &brief
}

// superuser is the Server of a cluster under its superuser.
func superuser(t testing.TB, c *pgtest.Cluster) *pgrole.Server {
	t.Helper()
	return serverAs(t, c, c.User, c.Password)
}

var administrators atomic.Int64

// administrator is the Server of a cluster under a new role that may no more than it must.
func administrator(t testing.TB, c *pgtest.Cluster) (s *pgrole.Server, role string) {
	t.Helper()
	role = fmt.Sprintf("adm_%d", administrators.Add(1))
	c.Exec(t, `CREATE ROLE `+role+` LOGIN CREATEROLE CREATEDB PASSWORD 'administrator'`)
	return serverAs(t, c, role, "administrator"), role
}

// rdsAdministrator is what a cloud gives instead of a superuser: a role that has its rights through a group.
func rdsAdministrator(t testing.TB, c *pgtest.Cluster) *pgrole.Server {
	t.Helper()
	s, role := administrator(t, c)
	c.Exec(t, `CREATE ROLE `+role+`_group; GRANT pg_signal_backend, pg_monitor TO `+role+`_group WITH ADMIN OPTION; GRANT `+
		role+`_group TO `+role)
	return s
}

// asBoth runs a test under a superuser and under the least that an administering role may be.
func asBoth(t *testing.T, f func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string)) {
	as(t, []string{"superuser", "administrator"}, pgtest.Shared, f)
}

// asEach is asBoth, and runs it under an administrator as clouds have it.
func asEach(t *testing.T, f func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string)) {
	as(t, []string{"superuser", "administrator", "rds"}, pgtest.Shared, f)
}

// asEachAlone is asEach with a cluster for each.
func asEachAlone(t *testing.T, settings map[string]string, f func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server,
	prefix string)) {
	as(t, []string{"superuser", "administrator", "rds"}, func(t testing.TB) *pgtest.Cluster { return pgtest.New(t, settings) },
		f)
}

// selected returns the kinds of administering role that ROLECALL_TEST_ADMINISTRATOR selects: all of them, or one. A test
// that has no rds runs as the administrator instead. Without a selection it is the administrator: the others are left to
// scripts/test-majors.
func selected(t testing.TB, kinds []string) []string {
	t.Helper()
	switch only := os.Getenv("ROLECALL_TEST_ADMINISTRATOR"); only {
	case "":
		if !pgtest.Full() {
			return kinds[1:2]
		}
		return kinds
	case "superuser":
		return kinds[:1]
	case "least":
		return kinds[1:2]
	case "rds":
		return kinds[len(kinds)-1:]
	default:
		t.Fatalf("ROLECALL_TEST_ADMINISTRATOR is %q; write superuser, least or rds", only)
		return nil
	}
}

// as runs f with each of the administering roles: superuser, administrator and perhaps rds, in this order.
func as(t *testing.T, administrators []string, cluster func(testing.TB) *pgtest.Cluster,
	f func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string)) {
	t.Parallel()
	for _, kind := range selected(t, administrators) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := cluster(t)
			var s *pgrole.Server
			switch kind {
			case "superuser":
				s = superuser(t, c)
			case "administrator":
				s, _ = administrator(t, c)
			case "rds":
				s = rdsAdministrator(t, c)
			}
			f(t, c, s, strings.ToLower(strings.Split(t.Name(), "/")[0])+"_"+kind[:1])
		})
	}
}

// through is the same Server behind a proxy.
func through(t testing.TB, s *pgrole.Server, address string) *pgrole.Server {
	t.Helper()
	config := s.Pool.Config().ConnConfig
	return serverAt(t, address, config.User, config.Password)
}

func actor() pgrole.Actor {
	return pgrole.Actor{Account: account, Attempt: uuid.New()}
}

func mustCreate(t testing.TB, s *pgrole.Server, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Create(t.Context(), name, password, actor()); err != nil {
			t.Fatalf("Create(%q): %v", name, err)
		}
	}
}

// remove deletes a user as the product does: the short way first, if nothing is to be reassigned.
func remove(t testing.TB, s *pgrole.Server, name, reassignTo string, match etag.Match, by pgrole.Actor) error {
	t.Helper()
	_, err := deleteUser(t.Context(), s, name, reassignTo, match, by)
	return err
}

// deleteUser is remove with the attempt that changed the user before.
func deleteUser(ctx context.Context, s *pgrole.Server, name, reassignTo string, match etag.Match,
	by pgrole.Actor) (previous uuid.UUID, err error) {
	if reassignTo == "" {
		if was, err := s.DropUnused(ctx, name, match); err != nil || was != nil {
			if was != nil {
				previous = was.Provenance.Attempt
			}
			return previous, err
		}
	}
	return s.Delete(ctx, name, reassignTo, match, by)
}

// setRoles is SetRoles where these roles are grantable.
func setRoles(ctx context.Context, s *pgrole.Server, name string, roles, grantable []string, match etag.Match,
	by pgrole.Actor) (*pgrole.Details, []string, error) {
	return granting(s, grantable...).SetRoles(ctx, name, roles, match, by)
}

// granting is the same server where these roles are grantable.
func granting(s *pgrole.Server, grantable ...string) *pgrole.Server {
	where := *s
	where.Grantable = grantable
	return &where
}

// setLimitsAndEnd is SetLimits, and then EndSessions.
func setLimitsAndEnd(ctx context.Context, s *pgrole.Server, name string, limits pgrole.Limits, match etag.Match,
	by pgrole.Actor) (d *pgrole.Details, ended int, err error) {
	if d, err = s.SetLimits(ctx, name, limits, match, by); err != nil {
		return nil, 0, err
	}
	ended, err = s.EndSessions(ctx, d.User)
	return d, ended, err
}

func mustDelete(t testing.TB, s *pgrole.Server, name string) {
	t.Helper()
	if err := remove(t, s, name, "", nil, actor()); err != nil {
		t.Fatalf("Delete(%q): %v", name, err)
	}
}

// refused fails t unless err is of the kind and its message has all the parts.
func refused(t testing.TB, err error, kind fault.Kind, parts ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v, of kind %d, want kind %d", err, fault.Of(err).Kind, kind)
		return
	}
	for _, part := range parts {
		if message := fault.Of(err).Message; !strings.Contains(message, part) {
			t.Errorf("the message lacks %q: %s", part, message)
		}
	}
}

func exists(t testing.TB, c *pgtest.Cluster, role string) bool {
	t.Helper()
	return pgtest.Value[bool](t, c, `SELECT EXISTS (SELECT FROM pg_authid WHERE rolname = $1)`, role)
}

// state is all that a role is, its verifier and comment included.
func state(t testing.TB, c *pgtest.Cluster, role string) string {
	t.Helper()
	return pgtest.Value[string](t, c, `
		SELECT coalesce((SELECT to_jsonb(r)::text || ' ' || coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_authid r
		  WHERE rolname = $1), 'none')`, role)
}

func comment(t testing.TB, c *pgtest.Cluster, role string) string {
	t.Helper()
	return pgtest.Value[string](t, c, `SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_authid WHERE `+
		`rolname = $1`, role)
}

func mayLogin(t testing.TB, c *pgtest.Cluster, user, password string) {
	t.Helper()
	if err := c.Login(user, password); err != nil {
		t.Errorf("%q cannot log in: %v", user, err)
	}
}

func mayNotLogin(t testing.TB, c *pgtest.Cluster, user, password string) {
	t.Helper()
	if err := c.Login(user, password); err == nil {
		t.Errorf("%q can log in", user)
	}
}

// database makes a database, dropped at the end of t with all that is in it, and connects to it as the superuser.
func database(t testing.TB, c *pgtest.Cluster, name string, options ...string) *pgx.Conn {
	t.Helper()
	c.Exec(t, `CREATE DATABASE `+name+` `+strings.Join(options, " "))
	t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) })
	return c.Connect(t, c.User, c.Password, name)
}

func exec(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func value[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	rows, err := conn.Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// waitFor fails t unless sql becomes true.
func waitFor(t testing.TB, c *pgtest.Cluster, sql string, args ...any) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !pgtest.Value[bool](t, c, sql, args...); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never true: %s", sql)
		}
	}
}

// together runs f n times at once and returns what each returned.
func together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	done := make(chan int)
	for i := range n {
		go func() {
			errs[i] = f(i)
			done <- i
		}()
	}
	for range n {
		<-done
	}
	return errs
}

// onPage is what a page has, and whether others follow.
func onPage(l *pgrole.Listed, err error) (users []*pgrole.User, more bool, failed error) {
	if err != nil {
		return nil, false, err
	}
	return l.Users, l.More, nil
}

func names(users []*pgrole.User) []string {
	var all []string
	for _, u := range users {
		all = append(all, u.Name)
	}
	return all
}

// allUsers lists every user, system users too, whose names begin with prefix. Its pages are long: after a deletion by
// another test, the next page skips a user.
func allUsers(t testing.TB, s *pgrole.Server, prefix string) []string {
	t.Helper()
	var all []string
	const limit = 500
	for offset := 0; ; offset += limit {
		users, more, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: limit, Offset: offset}, true))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names(users)...)
		if !more {
			return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
		}
	}
}

func pool(t testing.TB, config *pgxpool.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := primary.NewPool(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
