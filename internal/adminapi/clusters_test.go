package adminapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// The data of pgtest are made once and copied, so all its clusters have one system identifier: each is to the others what
// a restored backup is to the original.

func TestRegister(t *testing.T) {
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	administering := role(t, pg, "adm_orders", "CREATEROLE CREATEDB")
	pg.Exec(t, `CREATE ROLE app ADMIN adm_orders; CREATE ROLE app_read ADMIN adm_orders`)
	a := f.want(t, 201, "POST", "/clusters", registration("orders", pg, administering,
		`,"location":"de/fra","access":{"manage":["team = payments","team=payments"],"view":["role in `+
			`(dba,sre)"]},"grantable":["app_read"],"memberOf":["app"],"systemRoles":["own_*"]`))
	var c clusterResource
	a.Into(t, &c)
	if a.Header.Get("Location") != servicetest.PublicURL+"/rolecall/v1/clusters/"+c.ID || a.Header.Get("ETag") != `"1"` {
		t.Errorf("the headers are %s", a.Header)
	}
	if c.DisplayName != "orders" || c.Location != "de/fra" || c.Version != pg.Version || c.State != "AVAILABLE" ||
		!c.Reachable || c.LastError != nil ||
		!c.Capabilities.ManageUsers || c.Capabilities.Superuser || c.Capabilities.Role != administering ||
		len(c.Capabilities.Problems) > 0 ||
		!slices.Equal(c.Access.Manage, []string{"team=payments"}) || !slices.Equal(c.Access.View, []string{"role in (dba,sre)"}) ||
		!slices.Equal(c.SystemRoles, []string{"own_*"}) || !slices.Equal(c.MemberOf, []string{"app"}) ||
		!slices.Equal(c.Grantable, []string{"app_read"}) ||
		c.Connection.URL != fmt.Sprintf("postgres://adm_orders@127.0.0.1:%d/postgres", pg.Port) ||
		c.Connection.TLS.Mode != "disable" || !c.MayManage {
		t.Errorf("got %s", a.Body)
	}
	for _, path := range []string{"", "/access?account=root", "/users/x", "/users"} {
		f.do(t, "GET", "/clusters/orders"+path, "").refused(t, 404, `There is no cluster with the id "orders"`, c.ID)
	}
	f.do(t, "PATCH", "/clusters/orders", `{"location":"x"}`).refused(t, 404, c.ID)
	if pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname ~ 'probe')`) {
		t.Error("the probe left a role behind")
	}
	if rows := f.AuditRows(t, "orders"); len(rows) != 1 || rows[0].Action != audit.RegisterCluster ||
		rows[0].Outcome != "done" || !strings.Contains(rows[0].Detail, "team=payments") {
		t.Errorf("recorded %+v", rows)
	}
	path := "/clusters/" + c.ID
	if got := f.want(t, 200, "GET", path, ""); got.Body != a.Body {
		t.Errorf("read again: %s\nwas %s", got.Body, a.Body)
	}

	// A change, and one that comes too late.
	var changed clusterResource
	f.want(t, 200, "PATCH", path, `{"displayName":"Orders","access":{"view":[]},"memberOf":[]}`, `If-Match: "1"`).
		Into(t, &changed)
	if changed.DisplayName != "Orders" || len(changed.Access.View)+len(changed.MemberOf) != 0 ||
		len(changed.Access.Manage) != 1 || changed.UpdatedAt <= c.UpdatedAt || changed.CreatedAt != c.CreatedAt {
		t.Errorf("changed to %+v", changed)
	}
	f.do(t, "PATCH", path, `{"displayName":"late"}`, `If-Match: "1"`).refused(t, 412)
	f.do(t, "DELETE", path, "", `If-Match: "1"`).refused(t, 412)
	f.do(t, "PATCH", path, `{"displayName":"late"}`, `If-Match: W/"2"`).refused(t, 412)
	f.do(t, "PATCH", path, `{"displayName":"main"}`).refused(t, 409, `"main"`)
	f.want(t, 200, "PATCH", path, `{"location":"de/txl"}`, `If-Match: *`)
	// What is so already is no change.
	for _, same := range []string{`{}`, `{"location":"de/txl","displayName":"Orders","access":{"manage":["team=payments"]},` +
		`"grantable":["app_read"]}`} {
		if a := f.want(t, 200, "PATCH", path, same); a.Header.Get("ETag") != `"3"` {
			t.Errorf("%s: the tag is %s", same, a.Header.Get("ETag"))
		}
	}
	if rows := f.AuditRows(t, "Orders"); len(rows) != 1 || rows[0].Action != audit.UpdateCluster {
		t.Errorf("recorded %+v", rows)
	}
	if rows := f.AuditRows(t, "orders"); len(rows) != 2 || !strings.Contains(rows[1].Detail,
		`"viewBefore": ["role in (dba,sre)"]`) {
		t.Errorf("recorded %+v", rows)
	}

	// It is worked with, under rules that the probe of a moment ago has refreshed.
	pg.Exec(t, `ALTER ROLE adm_orders NOCREATEDB`)
	f.want(t, 200, "POST", path+"/probe", "").Into(t, &changed)
	if len(changed.Capabilities.Problems) != 1 || !strings.Contains(changed.Capabilities.Problems[0],
		`ALTER ROLE "adm_orders" CREATEDB`) {
		t.Errorf("the problems are %q", changed.Capabilities.Problems)
	}
	f.want(t, 204, "DELETE", path, "", `If-Match: "3"`)
	f.do(t, "GET", path, "").refused(t, 404)
	f.do(t, "DELETE", path, "").refused(t, 404)
	if rows := f.AuditRows(t, "Orders"); len(rows) != 2 || rows[1].Action != audit.RemoveCluster || rows[1].Outcome != "done" {
		t.Errorf("recorded %+v", rows)
	}
	f.want(t, 201, "POST", "/clusters", registration("orders", pg, administering, ""))
	f.hidesSecrets(t, rolePassword)
}

// hidesSecrets looks for secrets where nobody should find them.
func (f *fixture) hidesSecrets(t testing.TB, secrets ...string) {
	t.Helper()
	var rows string
	err := f.DB.Pool.QueryRow(t.Context(), `SELECT (SELECT coalesce(string_agg(c::text, ''), '') FROM clusters c) || (SELECT `+
		`coalesce(string_agg(a::text, ''), '') FROM audit a)`).Scan(&rows)
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"log": f.Log.String(), "control database": rows,
		"list": f.want(t, 200, "GET", "/clusters", "").Body} {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has the password %s", place, secret)
			}
		}
	}
}

func TestRegisterRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	role(t, pg, "adm", "CREATEROLE")
	role(t, pg, "plain", "")
	role(t, pg, `"read only"`, "CREATEROLE")
	role(t, pg, "outside", "CREATEROLE")
	pg.Exec(t, `CREATE ROLE nologin CREATEROLE PASSWORD '`+rolePassword+`'`)
	pg.Exec(t, `ALTER ROLE "read only" SET default_transaction_read_only = on`)
	pg.Exec(t, `CREATE DATABASE closed`)
	pg.Exec(t, `REVOKE CONNECT ON DATABASE closed FROM PUBLIC`)
	standby := pgtest.New(t, nil)
	role(t, standby, "adm", "CREATEROLE")
	standby.Stop(t)
	signal := filepath.Join(standby.DataDir, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	standby.Start(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()

	at := func(user, rest string) string {
		return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", user, pg.Port, rest)
	}
	for name, test := range map[string]struct {
		body   string
		status int
		parts  []string
	}{
		"nobody listens": {connection("x", "postgres://adm@"+closed.Addr().String()+"/postgres", rolePassword, ""), 422,
			[]string{"cannot be reached", closed.Addr().String(), "refused"}},
		"nobody answers": {connection("x", "postgres://adm@"+silent.Addr().String()+"/postgres", rolePassword, ""), 422,
			[]string{"does not answer at " + silent.Addr().String()}},
		"no such host": {`{"displayName":"x","connection":{"url":"postgres://adm@nowhere.invalid/postgres",` +
			`"password":"x"}}`, 422, []string{"cannot be reached", "nowhere.invalid"}},
		"no TLS": {fmt.Sprintf(`{"displayName":"x","connection":{"url":%q,"password":%q}}`, at("adm", "postgres"),
			rolePassword), 422, []string{"cannot be reached", "TLS"}},
		"replica": {registration("x", standby, "adm", ""), 422,
			[]string{fmt.Sprintf("127.0.0.1:%d is a replica", standby.Port), "primary"}},
		"replica, the second of two": {connection("x", fmt.Sprintf("postgres://adm@%s,127.0.0.1:%d/postgres",
			closed.Addr(), standby.Port), rolePassword, ""), 422, []string{fmt.Sprintf("127.0.0.1:%d is a replica", standby.Port)}},
		"replica, wanted": {connection("x", fmt.Sprintf("postgres://adm@127.0.0.1:%d/postgres?target_session_attrs=any",
			standby.Port), rolePassword, ""), 422, []string{fmt.Sprintf("127.0.0.1:%d is a replica", standby.Port)}},
		"read only": {connection("x", at("read%20only", "postgres"), rolePassword, ""), 422,
			[]string{"takes no writes", `ALTER ROLE "read only" SET default_transaction_read_only = off`}},
		"wrong password": {connection("x", at("adm", "postgres"), "wrong-password-0", ""), 422, []string{"password", `"adm"`}},
		"unknown role":   {connection("x", at("nobody", "postgres"), rolePassword, ""), 422, []string{"password", `"nobody"`}},
		"no login": {connection("x", at("nologin", "postgres"), rolePassword, ""), 422,
			[]string{`"nologin"`, "not permitted to log in"}},
		"unknown database": {connection("x", at("adm", "nothing"), rolePassword, ""), 422, []string{`no database "nothing"`}},
		"closed database": {connection("x", at("outside", "closed"), rolePassword, ""), 422,
			[]string{`GRANT CONNECT ON DATABASE "closed" TO "outside"`}},
		"no CREATEROLE": {connection("x", at("plain", "postgres"), rolePassword, ""), 422,
			[]string{`"plain"`, `ALTER ROLE "plain" CREATEROLE`}},
		"display name":     {registration("main", pg, "adm", ""), 409, []string{`"main"`}},
		"looks like an id": {registration(uuid.NewString(), pg, "adm", ""), 422, []string{"displayName"}},
		"blank name":       {registration(" x", pg, "adm", ""), 422, []string{"displayName"}},
		"selector": {registration("x", pg, "adm", `,"access":{"manage":["team=a","team=a,role in (x"]}`), 422,
			[]string{"access.manage[1]", "at character 8"}},
		"negative selector": {registration("x", pg, "adm", `,"access":{"view":["!team"]}`), 422,
			[]string{"access.view[0]", "negatives alone"}},
		"selector, no value": {registration("x", pg, "adm", `,"access":{"view":["team="]}`), 422,
			[]string{"access.view[0]", "a value is missing"}},
		"passfile": {connection("x", at("adm", "postgres?passfile=/etc/passwd"), rolePassword, ""), 422,
			[]string{`"passfile"`}},
		"sslcert": {connection("x", at("adm", "postgres?sslcert=/etc/passwd"), rolePassword, ""), 422,
			[]string{`"sslcert"`, "tls.cert", "--tls-cert"}},
		"sslmode": {connection("x", at("adm", "postgres?sslmode=require"), rolePassword, ""), 422,
			[]string{`"sslmode"`, "tls.mode", "--tls-mode"}},
		"sslrootcert": {connection("x", at("adm", "postgres?sslrootcert=ca.pem"), rolePassword, ""), 422,
			[]string{`"sslrootcert"`, "tls.ca", "--tls-ca"}},
		"sslkey": {connection("x", at("adm", "postgres?sslkey=key.pem"), rolePassword, ""), 422,
			[]string{`"sslkey"`, "tls.key", "--tls-key"}},
		"service":     {connection("x", at("adm", "postgres?service=x"), rolePassword, ""), 422, []string{`"service"`}},
		"unix socket": {connection("x", "postgres://adm@%2Ftmp/postgres", rolePassword, ""), 422, []string{"unix socket"}},
		"password in URL": {connection("x", "postgres://adm:"+rolePassword+"@127.0.0.1/postgres", "", ""), 422,
			[]string{"holds a password"}},
		"no password": {connection("x", at("adm", "postgres"), "", ""), 422, []string{"no password"}},
		"plain, far away": {connection("x", "postgres://adm@db.example.test/postgres", rolePassword, ""), 422,
			[]string{"loopback"}},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			a := f.do(t, "POST", "/clusters", test.body)
			a.refused(t, test.status, test.parts...)
			if strings.Contains(a.Body, rolePassword) || strings.Contains(a.Body, "wrong-password-0") {
				t.Errorf("the answer has the password: %s", a.Body)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if n := len(f.Clusters.All()); n != 1 {
		t.Errorf("%d clusters are registered", n)
	}
	if rows := f.AuditRows(t, "x"); len(rows) > 0 {
		t.Errorf("recorded %+v", rows)
	}
	f.hidesSecrets(t, rolePassword)
}

// The same cluster is known again by whatever name it comes; a copy of it is another one.
func TestSameCluster(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg, copied := pgtest.New(t, nil), pgtest.New(t, nil)
	first := f.register(t, "first", pg, "")
	role(t, pg, "other", "CREATEROLE")
	pg.Exec(t, `CREATE DATABASE other`)
	for _, url := range []string{
		fmt.Sprintf("postgres://adm_5_first@127.0.0.1:%d/postgres", pg.Port),
		fmt.Sprintf("postgres://other@localhost:%d/postgres", pg.Port),
		fmt.Sprintf("postgres://other@127.0.0.1:%d/other", pg.Port),
	} {
		f.do(t, "POST", "/clusters", connection("again", url, rolePassword, "")).refused(t, 409, `registered already, as "first"`)
	}
	second := f.register(t, "second", copied, "")
	if f.want(t, 200, "GET", "/clusters/"+second.ID, ""); second.ID == first.ID {
		t.Error("the copy is the same cluster")
	}

	// Two that register one cluster at once.
	third := pgtest.New(t, nil)
	role(t, third, "adm", "CREATEROLE")
	var wg sync.WaitGroup
	statuses := make([]int, 4)
	for i := range statuses {
		wg.Go(func() {
			statuses[i] = f.do(t, "POST", "/clusters", registration(fmt.Sprint("third-", i), third, "adm", "")).Status
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	if !slices.Equal(statuses, []int{201, 409, 409, 409}) {
		t.Errorf("four registrations of one cluster: %v", statuses)
	}

	// While a registered one does not answer, a copy cannot be told from it.
	copied.Stop(t)
	fourth := pgtest.New(t, nil)
	role(t, fourth, "adm", "CREATEROLE")
	f.do(t, "POST", "/clusters", registration("fourth", fourth, "adm", "")).refused(t, 422, `"second"`, "does not answer")
	f.want(t, 204, "DELETE", "/clusters/"+second.ID, "")
	f.want(t, 201, "POST", "/clusters", registration("fourth", fourth, "adm", ""))
}

func TestUpdateConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg, copied := pgtest.New(t, nil), pgtest.New(t, nil)
	c := f.register(t, "moving", pg, "")
	f.register(t, "copied", copied, "")
	path := "/clusters/" + c.ID
	patch := func(format string, args ...any) answer {
		t.Helper()
		return f.do(t, "PATCH", path, fmt.Sprintf(format, args...))
	}
	url := func(host string, port int, rest string) string {
		return fmt.Sprintf("postgres://adm_6_moving@%s:%d/postgres%s", host, port, rest)
	}
	patch(`{"connection":{"password":"wrong-password-0"}}`).refused(t, 422, "rejects the password")
	patch(`{"connection":{"url":%q}}`, url("127.0.0.1", 1, "")).refused(t, 422, "cannot be reached")
	patch(`{"connection":{"url":%q}}`, url("127.0.0.1", pg.Port, "?passfile=/x")).refused(t, 422, "passfile")
	patch(`{"connection":{"url":%q}}`, url("127.0.0.1", pg.Port, "?require_auth=none")).
		refused(t, 422, "needs the password again")
	patch(`{"connection":{"url":"postgres://adm_6_copied@127.0.0.1:%d/postgres"}}`, copied.Port).refused(t, 409, `"copied"`)

	// A cluster of another system identifier.
	other := pgtest.Other(t)
	patch(`{"connection":{"url":"postgres://%s@127.0.0.1:%d/postgres","password":%q}}`, other.User, other.Port, other.Password).
		refused(t, 422, "another cluster", "system identifier")
	if now := f.want(t, 200, "GET", path, ""); !strings.Contains(now.Body, c.Connection.URL) {
		t.Errorf("after refusals: %s", now.Body)
	}

	if a := patch(`{"connection":{"url":%q}}`, url("localhost", pg.Port, "")); a.Status != 200 ||
		!strings.Contains(a.Body, "localhost") {
		t.Errorf("another host: %d %s", a.Status, a.Body)
	}
	pg.Exec(t, `ALTER ROLE adm_6_moving PASSWORD 'given-by-the-dba'`)
	f.do(t, "POST", path+"/probe", "").refused(t, 422, "rejects the password")
	if a := patch(`{"connection":{"password":"given-by-the-dba"}}`); a.Status != 200 {
		t.Errorf("another password: %d %s", a.Status, a.Body)
	}
	f.want(t, 200, "POST", path+"/probe", "")
	f.hidesSecrets(t, rolePassword, "given-by-the-dba", "wrong-password-0")
}

// credential is the password that the registry has for a cluster.
func (f *fixture) credential(t testing.TB, id string) string {
	t.Helper()
	c, err := f.Clusters.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Connection.Password)
}

func TestRotate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	pg.LogStatements(t)
	c := f.register(t, "rotated", pg, "")
	path := "/clusters/" + c.ID
	secrets := []string{rolePassword}
	for range 2 {
		f.want(t, 200, "POST", path+"/rotate-credential", "")
		now := f.credential(t, c.ID)
		if err := pg.Login("adm_7_rotated", now); err != nil || now == secrets[len(secrets)-1] {
			t.Errorf("the new password: %v", err)
		}
		if pg.Login("adm_7_rotated", secrets[len(secrets)-1]) == nil {
			t.Error("the old password is good still")
		}
		secrets = append(secrets, now)
		f.want(t, 200, "POST", path+"/probe", "")
	}
	var recorded []string
	for _, row := range f.AuditRows(t, "rotated") {
		recorded = append(recorded, strings.TrimSpace(row.Phase+" "+row.Action+" "+row.Outcome))
	}
	if want := []string{"outcome cluster.register done", "attempt cluster.rotate", "outcome cluster.rotate done",
		"attempt cluster.rotate", "outcome cluster.rotate done"}; !slices.Equal(recorded, want) {
		t.Errorf("recorded %q", recorded)
	}

	// By the role of the control database's URL Rolecall reaches that, too.
	f.do(t, "POST", "/clusters/"+f.ClusterID+"/rotate-credential", "").refused(t, 422, "control database")

	// A cluster that is away keeps its credential, and is rotated later.
	pg.Stop(t)
	f.do(t, "POST", path+"/rotate-credential", "").refused(t, 503)
	f.do(t, "POST", path+"/probe", "").refused(t, 422, "cannot be reached")
	var seen clusterResource
	f.want(t, 200, "GET", path, "").Into(t, &seen)
	if seen.State != "UNKNOWN" || seen.Reachable || seen.LastError == nil ||
		!strings.Contains(*seen.LastError, "cannot be reached") || seen.Version != pg.Version {
		t.Errorf("a stopped cluster is %+v", seen)
	}
	pg.Start(t)
	f.want(t, 200, "POST", path+"/probe", "")
	f.want(t, 200, "POST", path+"/rotate-credential", "")
	secrets = append(secrets, f.credential(t, c.ID))

	// The cluster refuses: it keeps the password that it has, and so does Rolecall. (Another role holds its row locked.)
	blocker := pg.Connect(t, pg.User, pg.Password, "postgres")
	mustExec(t, blocker, `BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE`)
	f.do(t, "POST", path+"/rotate-credential", "").refused(t, 503)
	mustExec(t, blocker, `ROLLBACK`)
	f.want(t, 200, "POST", path+"/probe", "")
	f.want(t, 200, "POST", path+"/rotate-credential", "")
	f.hidesSecrets(t, append(secrets, f.credential(t, c.ID))...)
	if log := pg.ReadLog(t); strings.Contains(log, f.credential(t, c.ID)) || strings.Contains(log, secrets[1]) {
		t.Error("PostgreSQL's log has the password")
	}
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Two replicas that rotate one credential at once: what they do leaves one that works.
func TestRotateAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	c := f.register(t, "both", pg, "")
	other, err := cluster.Open(t.Context(), f.DB, f.Users.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	second := *f.Service
	second.Clusters, second.Users = other, &dbuser.Service{Clusters: other, Audit: f.Audit, Accounts: f.Users.Accounts,
		LeaseStore: f.Users.LeaseStore, Log: f.Users.Log}
	replicas := []*fixture{f, fixtureOn(t, &second, 10_000)}
	path := "/clusters/" + c.ID + "/rotate-credential"

	release, err := other.LockCredential(t.Context(), uuid.MustParse(c.ID))
	if err != nil {
		t.Fatal(err)
	}
	f.do(t, "POST", path, "").refused(t, 409, "another request")
	f.do(t, "DELETE", "/clusters/"+c.ID, "").refused(t, 409)
	f.do(t, "PATCH", "/clusters/"+c.ID, `{"connection":{"password":"x"}}`).refused(t, 409)
	release()

	var wg sync.WaitGroup
	statuses := make([]int, 10)
	for i := range statuses {
		wg.Go(func() { statuses[i] = replicas[i%2].do(t, "POST", path, "").Status })
	}
	wg.Wait()
	for _, status := range statuses {
		if status != 200 && status != 409 {
			t.Errorf("rotations were answered with %v", statuses)
		}
	}
	if !slices.Contains(statuses, 200) {
		t.Errorf("none was done: %v", statuses)
	}
	for _, r := range replicas {
		if err := r.Clusters.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := pg.Login("adm_4_both", r.credential(t, c.ID)); err != nil {
			t.Error(err)
		}
	}
}

// A cluster that is removed while a request works on it lets the request end.
func TestRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	c := f.register(t, "going", pg, "")
	blocker := pg.Connect(t, pg.User, pg.Password, "postgres")
	mustExec(t, blocker, `BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE`)
	p, err := f.Identity.Authenticate(t.Context(), identity.ParseCredential("Basic cm9vdDpyb290LXBhc3N3b3Jk"), "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, _, err := f.Users.CreateUser(context.Background(), p, c.ID, "meanwhile", "a-good-password")
		done <- err
	}()
	for !pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pg_authid'::regclass AND NOT `+
		`granted)`) {
	}
	f.want(t, 204, "DELETE", "/clusters/"+c.ID, "")
	f.do(t, "GET", "/clusters/"+c.ID, "").refused(t, 404)
	mustExec(t, blocker, `COMMIT`)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := pg.Login("meanwhile", "a-good-password"); err != nil {
		t.Error(err)
	}
	if rows := f.AuditRows(t, "meanwhile"); len(rows) != 2 || rows[1].Outcome != "done" {
		t.Errorf("recorded %+v", rows)
	}
}

type whoami struct {
	Account  struct{ GUID, Username string }
	Scopes   []string
	Labels   map[string]string
	Clusters []struct {
		ID, DisplayName string
		Manage          bool
	}
}

type right struct {
	Allowed bool
	Why     string
	Scope   *string
	Rules   []struct {
		Rule    string
		Matches bool
		Labels  map[string]string
	}
}

// Each account sees its own clusters and does what the rules allow, and a rule that is changed counts at once.
func TestAccess(t *testing.T) {
	f := newFixture(t)
	write := []string{"cloud_controller.read", "cloud_controller.write"}
	f.Account(t, "alice", write, map[string]string{"team": "payments"})
	f.Account(t, "bob", write, map[string]string{"team": "search", "role": "dba"})
	f.Account(t, "carol", write, nil)
	f.Account(t, "dave", []string{"cloud_controller.read"}, map[string]string{"team": "payments"})
	f.Account(t, "erin", nil, map[string]string{"team": "payments"})
	f.Account(t, "frank", nil, map[string]string{"role": "dba"})
	guid := f.Account(t, "auditor", []string{"cloud_controller.global_auditor"}, nil)
	payments := f.register(t, "payments", pgtest.New(t, nil),
		`,"access":{"manage":["team=payments"],"view":["role in (dba,sre)"]}`)
	search := f.register(t, "search", pgtest.New(t, nil), `,"access":{"manage":["team=search"]}`)
	sees := func(who string) (names []string) {
		t.Helper()
		var l struct{ Items []clusterResource }
		f.as(t, who, "GET", "/clusters", "").Into(t, &l)
		var me whoami
		f.as(t, who, "GET", "/whoami", "").Into(t, &me)
		for i, c := range l.Items {
			if len(me.Clusters) != len(l.Items) || me.Clusters[i].ID != c.ID || me.Clusters[i].Manage != c.MayManage {
				t.Errorf("%s is told %+v and %+v", who, l.Items, me.Clusters)
			}
			if admin := who == "root"; (c.Connection != nil) != admin {
				t.Errorf("%s is told the connection %+v", who, c.Connection)
			}
			names = append(names, fmt.Sprint(c.DisplayName, " ", c.MayManage))
		}
		return names
	}
	for who, want := range map[string][]string{
		"root":    {"main true", "payments true", "search true"},
		"auditor": {"main false", "payments false", "search false"},
		"alice":   {"payments true"},
		"bob":     {"payments false", "search true"},
		"dave":    {"payments false"},
		"carol":   nil,
		"erin":    nil,
		"frank":   nil,
	} {
		if got := sees(who); !slices.Equal(got, want) {
			t.Errorf("%s sees %q, want %q", who, got, want)
		}
		if who == "root" {
			continue
		}
		status := 403
		if want == nil {
			status = 404
		}
		path := "/clusters/" + payments.ID
		f.as(t, who, "PATCH", path, `{"location":"mine"}`).refused(t, status)
		f.as(t, who, "DELETE", path, "").refused(t, status)
		f.as(t, who, "POST", path+"/probe", "").refused(t, status)
		f.as(t, who, "POST", path+"/rotate-credential", "").refused(t, status)
		f.as(t, who, "GET", path+"/access?account=alice", "").refused(t, status)
		f.as(t, who, "POST", "/clusters", registration("mine", f.PG, "x", "")).refused(t, 403)
	}
	denied := 0
	for _, row := range f.AuditRows(t, "payments") {
		if row.Outcome == "denied" {
			denied++
		}
	}
	if denied != 4*3 {
		t.Errorf("%d denied changes are recorded", denied)
	}

	access := func(who, of string) (view, manage right) {
		t.Helper()
		var x struct{ View, Manage right }
		f.want(t, 200, "GET", "/clusters/"+of+"/access?account="+who, "").Into(t, &x)
		return x.View, x.Manage
	}
	for _, test := range []struct {
		who, of       string
		view, manage  bool
		why, whyWrite string
	}{
		{"alice", payments.ID, true, true, "An account that may manage may also view: the rule team=payments",
			"team=payments of manage matches the account's labels team=payments"},
		{"BOB", payments.ID, true, false, "The rule role in (dba,sre) of view matches the account's labels role=dba",
			"no rule of manage matches"},
		{"carol", payments.ID, false, false, "no rule of view or manage matches", "no rule of manage matches"},
		{"dave", payments.ID, true, false, "", "lacks the scope cloud_controller.write"},
		{"erin", payments.ID, false, false, "An account that may manage may also view: the rule team=payments of manage matches " +
			"the account's labels team=payments. But the account lacks the scope cloud_controller.read.",
			"lacks the scope cloud_controller.write"},
		{"frank", payments.ID, false, false, "of view matches the account's labels role=dba. But the account lacks the scope " +
			"cloud_controller.read.", "no rule of manage matches"},
		{"root", payments.ID, true, true, "cloud_controller.admin gives it in every cluster", "cloud_controller.admin gives it"},
		{guid, search.ID, true, false, "cloud_controller.global_auditor gives it", "no rule of manage matches"},
	} {
		view, manage := access(test.who, test.of)
		if view.Allowed != test.view || manage.Allowed != test.manage || !strings.Contains(view.Why, test.why) ||
			!strings.Contains(manage.Why, test.whyWrite) {
			t.Errorf("%s: view %+v, manage %+v", test.who, view, manage)
		}
	}
	if view, _ := access("bob", payments.ID); len(view.Rules) != 1 || !view.Rules[0].Matches ||
		view.Rules[0].Labels["role"] != "dba" || view.Scope != nil {
		t.Errorf("the rules that decide for bob: %+v", view.Rules)
	}

	f.want(t, 200, "PATCH", "/clusters/"+payments.ID, `{"access":{"manage":["team=search"],"view":[]}}`)
	for who, want := range map[string][]string{"alice": nil, "bob": {"payments true", "search true"}, "dave": nil} {
		if got := sees(who); !slices.Equal(got, want) {
			t.Errorf("after the change %s sees %q, want %q", who, got, want)
		}
	}
}

func TestPages(t *testing.T) {
	f := newFixture(t)
	for _, name := range []string{"a", "b", "é", "z"} {
		f.Register(t, name, f.PG, f.PG.User, f.PG.Password)
	}
	var names []string
	next := ""
	for pages := 0; pages < 10; pages++ {
		var l struct {
			Items []clusterResource
			Next  *string
		}
		f.want(t, 200, "GET", "/clusters?limit=2"+next, "").Into(t, &l)
		for _, c := range l.Items {
			names = append(names, c.DisplayName)
		}
		if l.Next == nil {
			break
		}
		next = "&cursor=" + *l.Next
		// What is removed or added before the place where the page ended moves nothing.
		if pages == 0 {
			if _, err := f.DB.Pool.Exec(t.Context(), `DELETE FROM clusters WHERE display_name = 'b'`); err != nil {
				t.Fatal(err)
			}
			f.Register(t, "aa", f.PG, f.PG.User, f.PG.Password)
		}
	}
	if want := []string{"a", "b", "main", "z", "é"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, found := range map[string]int{"main": 1, "MAIN": 0, "mai": 0, "%C3%A9": 1} {
		var l struct{ Items []clusterResource }
		if f.want(t, 200, "GET", "/clusters?name="+name, "").Into(t, &l); len(l.Items) != found {
			t.Errorf("%s: got %+v", name, l)
		}
	}
	for _, query := range []string{"name=", "name=%00", "name=a&name=b"} {
		f.do(t, "GET", "/clusters?"+query, "").refused(t, 400)
	}
}

// A cluster whose host swallows everything costs only its own requests.
func TestSilentCluster(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	id := uuid.New()
	err = f.Clusters.Ensure(t.Context(), &cluster.Cluster{
		ID:          id,
		DisplayName: "silent",
		Connection: cluster.Connection{URL: "postgres://role@" + silent.Addr().String() + "/postgres", Password: "x",
			TLS: cluster.TLS{Mode: "disable"}},
	}, audit.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, 200, "GET", "/whoami", "") // a first sign-in takes its time
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { f.do(t, "POST", "/clusters/"+id.String()+"/probe", "").refused(t, 422) })
		wg.Go(func() { f.want(t, 200, "GET", "/clusters/"+id.String(), "") })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	answered := 0
	for waiting := true; waiting && answered < 20; {
		f.want(t, 200, "POST", "/clusters/"+f.ClusterID+"/probe", "")
		f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "")
		select {
		case <-done:
			waiting = false
		default:
			answered++
		}
	}
	<-done
	if answered == 0 {
		t.Error("another cluster did not answer before the silent one had timed out")
	}
}

// What cannot be recorded is not done.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pg := pgtest.New(t, nil)
	c := f.register(t, "kept", pg, "")
	more := pgtest.New(t, nil)
	role(t, more, "adm", "CREATEROLE")
	conn := f.PG.Connect(t, f.PG.User, f.PG.Password, f.DB.Identity.Database)
	mustExec(t, conn, `ALTER TABLE rolecall.audit RENAME TO elsewhere`)
	path := "/clusters/" + c.ID
	f.do(t, "POST", "/clusters", registration("more", more, "adm", "")).refused(t, 503)
	f.do(t, "PATCH", path, `{"displayName":"changed"}`).refused(t, 503)
	f.do(t, "DELETE", path, "").refused(t, 503)
	f.do(t, "POST", path+"/rotate-credential", "").refused(t, 503)
	mustExec(t, conn, `ALTER TABLE rolecall.elsewhere RENAME TO audit`)
	var now clusterResource
	f.want(t, 200, "GET", path, "").Into(t, &now)
	if now.DisplayName != "kept" || len(f.Clusters.All()) != 2 || pg.Login("adm_4_kept", rolePassword) != nil {
		t.Errorf("it was changed: %+v", now)
	}
}

// Without the master key nothing is opened, and the message says which key is missing.
func TestForeignMasterKey(t *testing.T) {
	f := newFixture(t)
	keys, err := control.ParseKeyring(control.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Open(t.Context(), &control.DB{Pool: f.DB.Pool, Keys: keys}, f.Users.Log)
	if err == nil || !strings.Contains(err.Error(), "is encrypted with the master key ") ||
		!strings.Contains(err.Error(), "which is missing (present: ") {
		t.Errorf("got %v", err)
	}
}

// An admin limits the leases of a cluster; what was not said of them keeps its value, and null restores the default.
func TestLeaseLimits(t *testing.T) {
	f := newFixture(t)
	limits := func(a answer) string {
		var c struct{ Leases json.RawMessage }
		a.Into(t, &c)
		return string(c.Leases)
	}
	path := "/clusters/" + f.ClusterID
	if got := limits(f.want(t, 200, "GET", path, "")); got != `{"defaultTtl":"1h","maxTtl":"24h","maxPerAccount":100}` {
		t.Errorf("without a setting: %s", got)
	}
	for _, change := range [][2]string{
		{`{"defaultTtl":"90s"}`, `{"defaultTtl":"90s","maxTtl":"24h","maxPerAccount":100}`},
		{`{"maxTtl":"7d","maxPerAccount":3}`, `{"defaultTtl":"90s","maxTtl":"168h","maxPerAccount":3}`},
		{`{}`, `{"defaultTtl":"90s","maxTtl":"168h","maxPerAccount":3}`},
		{`{"defaultTtl":null,"maxTtl":"1h"}`, `{"defaultTtl":"1h","maxTtl":"1h","maxPerAccount":3}`},
		{`{"defaultTtl":"1s","maxTtl":"1s","maxPerAccount":null}`, `{"defaultTtl":"1s","maxTtl":"1s","maxPerAccount":100}`},
		{`{"maxTtl":null,"maxPerAccount":100000}`, `{"defaultTtl":"1s","maxTtl":"24h","maxPerAccount":100000}`},
		{`null`, `{"defaultTtl":"1h","maxTtl":"24h","maxPerAccount":100}`},
		{`{"defaultTtl":"1d12h","maxTtl":"1d12h"}`, `{"defaultTtl":"36h","maxTtl":"36h","maxPerAccount":100}`},
	} {
		got := limits(f.want(t, 200, "PATCH", path, `{"leases":`+change[0]+`}`))
		if read := limits(f.want(t, 200, "GET", path, "")); got != change[1] || read != got {
			t.Errorf("after %s: %s, read %s", change[0], got, read)
		}
	}
	tag := f.want(t, 200, "GET", path, "").Header.Get("ETag")
	if a := f.want(t, 200, "PATCH", path, `{"leases":{"maxTtl":"36h"}}`); a.Header.Get("ETag") != tag {
		t.Error("what was so already is a change")
	}
	for body, part := range map[string]string{
		`{"defaultTtl":"0s"}`:      "leases.defaultTtl is 0s",
		`{"defaultTtl":"999ms"}`:   "leases.defaultTtl is 999ms",
		`{"defaultTtl":"37h"}`:     "leases.defaultTtl is 37h, longer than leases.maxTtl, which is 36h",
		`{"maxTtl":"35h"}`:         "leases.maxTtl, which is 35h",
		`{"maxTtl":null}`:          "leases.maxTtl, which is 24h",
		`{"maxTtl":"-1h"}`:         "leases.maxTtl must be a duration",
		`{"defaultTtl":3600}`:      "leases.defaultTtl must be a duration like 90s, 36h or 7d, not a number",
		`{"defaultTtl":""}`:        "leases.defaultTtl must be",
		`{"maxPerAccount":0}`:      "leases.maxPerAccount is 0",
		`{"maxPerAccount":-1}`:     "leases.maxPerAccount is -1",
		`{"maxPerAccount":100001}`: "leases.maxPerAccount is 100001; it must be between 1 and 100000",
		`{"maxPerAccount":"5"}`:    "leases.maxPerAccount must be",
		`{"minTtl":"1s"}`:          "unknown",
		`[]`:                       "leases must be",
	} {
		f.do(t, "PATCH", path, `{"leases":`+body+`}`).refused(t, 422, part)
	}
	if a := f.want(t, 200, "GET", path, ""); a.Header.Get("ETag") != tag {
		t.Errorf("a refused change has changed the limits to %s", limits(a))
	}
	if rows := f.AuditRows(t, "main"); !slices.ContainsFunc(rows, func(row servicetest.AuditRow) bool {
		return strings.Contains(row.Detail, `"leases": {"maxTtl": "168h", "maxPerAccount": 3}`)
	}) {
		t.Errorf("recorded %+v", rows)
	}

	pg := pgtest.New(t, nil)
	administering := role(t, pg, "adm_orders", "CREATEROLE CREATEDB")
	f.do(t, "POST", "/clusters", registration("orders", pg, administering, `,"leases":{"maxTtl":"59m"}`)).
		refused(t, 422, "leases.defaultTtl is 1h, longer than leases.maxTtl, which is 59m")
	a := f.want(t, 201, "POST", "/clusters", registration("orders", pg, administering,
		`,"leases":{"defaultTtl":"30m","maxPerAccount":null}`))
	if got := limits(a); got != `{"defaultTtl":"30m","maxTtl":"24h","maxPerAccount":100}` {
		t.Errorf("registered with %s", got)
	}
}

// A cluster shows which leases are blocked and why, and is not removed while it has leases.
func TestClusterWithLeases(t *testing.T) {
	f := newFixture(t)
	path := "/clusters/" + f.ClusterID
	root := &account.Principal{GUID: f.Admin(t, "root-of-leases"), Username: "root-of-leases", Scopes: account.AdminScopes}
	if _, _, err := f.Users.CreateUser(t.Context(), root, f.ClusterID, "for_leases", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	take := func() *lease.Lease {
		t.Helper()
		_, l, _, err := f.Users.CreateLease(t.Context(), root, f.ClusterID, dbuser.NewLease{For: "for_leases"})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	problems := func(a answer) []string {
		t.Helper()
		var c clusterResource
		a.Into(t, &c)
		return c.Capabilities.Problems
	}
	before := problems(f.want(t, 200, "GET", path, ""))
	blocked, live := take(), take()
	f.PG.Exec(t, `CREATE DATABASE of_a_lease`)
	conn := f.PG.Connect(t, f.PG.User, f.PG.Password, "of_a_lease")
	mustExec(t, conn, fmt.Sprintf(`CREATE SCHEMA made AUTHORIZATION %q`, blocked.Username))
	_ = conn.Close(t.Context())
	f.PG.Exec(t, `ALTER DATABASE of_a_lease ALLOW_CONNECTIONS false`)
	_, ended, err := f.Users.EndLease(t.Context(), root, blocked.ID.String())
	if err != nil || ended.State != lease.Blocked {
		t.Fatalf("it is %+v: %v", ended, err)
	}
	sentence := fmt.Sprintf(`The lease %s (user %q) has ended but its role cannot be dropped: `, blocked.ID, blocked.Username)
	got := problems(f.want(t, 200, "GET", path, ""))
	if len(got) != len(before)+1 || !strings.HasPrefix(got[len(before)], sentence+ended.BlockedBy[0]) {
		t.Errorf("the problems are %q", got)
	}
	if a := f.want(t, 200, "GET", "/clusters", ""); !strings.Contains(a.Body, blocked.ID.String()) {
		t.Errorf("the list is %s", a.Body)
	}

	for _, name := range []string{"stored", "other"} {
		f.want(t, 201, "PUT", path+"/credentials/"+name, `{"for":"for_leases","rotateEvery":"30d","overlap":"1h"}`)
	}
	f.want(t, 200, "POST", path+"/credentials/stored/rotate", "")
	_, current, err := f.Users.CurrentCredential(t.Context(), root, f.ClusterID, "stored")
	if err != nil {
		t.Fatal(err)
	}
	f.do(t, "DELETE", path, "").refused(t, 422, "leases that have not ended (5)", "stored credentials (2)", "endLeases=true")
	f.do(t, "DELETE", path+"?endLeases=yes", "").refused(t, 400, "endLeases")
	f.do(t, "DELETE", path+"?endLeases=true", "", `If-Match: "99"`).refused(t, 412)
	if now, err := f.Users.LeaseStore.Get(t.Context(), live.ID); err != nil || now.State != lease.Active {
		t.Errorf("a refused removal has ended a lease: %v", err)
	}
	f.do(t, "DELETE", path+"?endLeases=true", "").refused(t, 422, sentence)
	if now, err := f.Users.LeaseStore.Get(t.Context(), live.ID); err != nil || now.State != lease.Ended {
		t.Errorf("the other lease has not ended: %v", err)
	}
	if f.PG.Login(current.Username, string(current.Password)) == nil {
		t.Error("the password of a stored credential is accepted")
	}
	f.want(t, 404, "GET", path+"/credentials/stored", "")
	f.PG.Exec(t, `DROP DATABASE of_a_lease`)
	f.want(t, 204, "DELETE", path+"?endLeases=true", "")
	if pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname LIKE 'for\_leases\_%')`) {
		t.Error("a role of a lease is left")
	}

	// If it is lost, it is removed, and the roles of leases stay in it.
	f.ClusterID = f.Register(t, "again", f.PG, f.PG.User, f.PG.Password)
	left := take()
	f.want(t, 204, "DELETE", "/clusters/"+f.ClusterID+"?endLeases=false", "")
	if rows := f.AuditRows(t, "again"); !strings.Contains(rows[len(rows)-1].Detail, `"leases": 1`) {
		t.Errorf("recorded %+v", rows[len(rows)-1])
	}
	if !pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, left.Username) {
		t.Error("the role of a lease was dropped")
	}
	f.PG.Exec(t, fmt.Sprintf(`DROP ROLE %q`, left.Username))
}
