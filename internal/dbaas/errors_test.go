package dbaas_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestRoutes(t *testing.T) {
	f := newFixture(t)
	cluster := "/clusters/" + f.ClusterID
	for _, path := range []string{
		"", "/", "/nothing", "/clusters/", "/clusters/x/y", cluster + "/users/", cluster + "/logs/x", cluster + "/backups/x",
		cluster + "/restore", "/CLUSTERS",
		"/clusters/backups/x", "/infos", "/infos/version/", "/versions/15", "/%63lusters/x/y",
	} {
		f.refuses(t, "paas-notfound-1", "GET", path, "")
		f.refuses(t, "paas-notfound-1", "DELETE", path, "")
	}
	for _, id := range []string{"unknown", "00000000-0000-0000-0000-000000000000", strings.ReplaceAll(f.ClusterID, "-", ""),
		"{" + f.ClusterID + "}", "urn:uuid:" + f.ClusterID, "backups", strings.Repeat("x", 5000)} {
		if id != "backups" { // it is a list
			f.refuses(t, "paas-notfound-1", "GET", "/clusters/"+id, "")
		}
		f.refuses(t, "paas-notfound-1", "GET", "/clusters/"+id+"/backups", "")
		f.refuses(t, "paas-notfound-1", "GET", "/clusters/"+id+"/logs", "")
		f.refuses(t, "paas-notfound-1", "GET", "/clusters/"+id+"/users", "")
		f.refuses(t, "paas-notfound-1", "POST", "/clusters/"+id+"/users", userBody("x", password))
		f.refuses(t, "paas-notfound-1", "DELETE", "/clusters/"+id+"/users/x", "")
	}
	for path, allow := range map[string]string{
		cluster + "/users":           "GET, POST",
		cluster + "/users/postgres":  "GET, PATCH, DELETE",
		"/clusters":                  "GET",
		cluster:                      "GET",
		cluster + "/databases":       "GET, POST",
		cluster + "/databases/x":     "GET, DELETE",
		"/clusters/postgresversions": "GET",
		"/infos/version":             "GET",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"} {
			if strings.Contains(allow, method) {
				continue
			}
			a := f.do(t, method, path, `{"malformed`)
			a.refused(t, "paas-method-1")
			if got := a.Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
		if a := f.do(t, "HEAD", path, ""); a.Body != "" || (a.Status != 200) != (path == cluster+"/databases/x") {
			t.Errorf("HEAD %s: %d %q", path, a.Status, a.Body)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, "body")
	good := passwordBody(password)
	for name, test := range map[string]struct{ body, contentType, code string }{
		"malformed":              {`{"properties":{"password":"1234567890"`, "", "paas-parse-1"},
		"no JSON":                {`password=1234567890`, "", "paas-parse-1"},
		"empty":                  {"", "", "paas-parse-1"},
		"blank":                  {" \n", "", "paas-parse-1"},
		"two values":             {good + good, "", "paas-parse-1"},
		"trailing":               {good + "x", "", "paas-parse-1"},
		"comma at the end":       {`{"properties":{},}`, "", "paas-parse-1"},
		"comment":                {`{/**/"properties":{}}`, "", "paas-parse-1"},
		"byte order mark":        {"\ufeff" + good, "", "paas-parse-1"},
		"key twice":              {`{"properties":{},"properties":{}}`, "", "paas-parse-1"},
		"key twice, escaped":     {`{"properties":{"password":"1234567890","pass\u0077ord":"0987654321"}}`, "", "paas-parse-1"},
		"key twice, ignored one": {`{"properties":{},"x":{"y":1,"y":1}}`, "", "paas-parse-1"},
		"deep": {`{"properties":{},"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}", "",
			"paas-parse-1"},
		"very deep":              {strings.Repeat("[", 60_000), "", "paas-parse-1"},
		"no UTF-8":               {"{\"properties\":{\"password\":\"12345678\xff90\"}}", "", "paas-parse-1"},
		"half a surrogate":       {`{"properties":{"password":"12345678\ud83d90"}}`, "", "paas-parse-1"},
		"the other half":         {`{"properties":{"password":"12345678\ude4290"}}`, "", "paas-parse-1"},
		"halves in wrong order":  {`{"properties":{"password":"12345678\ude42\ud83d90"}}`, "", "paas-parse-1"},
		"2 MB":                   {`{"properties":{"password":"` + strings.Repeat("x", 2<<20) + `"}}`, "", "paas-toolarge-1"},
		"just too large":         {`{"properties":{}}` + strings.Repeat(" ", 64<<10), "", "paas-toolarge-1"},
		"as text":                {good, "text/plain", "paas-media-1"},
		"as a form":              {good, "application/x-www-form-urlencoded", "paas-media-1"},
		"as a suffix of nothing": {good, "text/x+json", "paas-media-1"},
		"as nothing known":       {good, "json", "paas-media-1"},
		"as nothing valid":       {good, "application/json;;", "paas-media-1"},
		"as text, and malformed": {"{", "text/plain", "paas-media-1"},

		"a surrogate pair":     {`{"properties":{"password":"12345678\ud83d\ude4290"}}`, "", ""},
		"an escaped backslash": {`{"properties":{"password":"12345678\\ud83d90"}}`, "", ""},
		"without a type":       {good, "", ""},
		"as JSON":              {good, "application/json", ""},
		"as JSON, capitals":    {good, "Application/JSON", ""},
		"with a charset":       {good, "application/json; charset=utf-8", ""},
		"with another charset": {good, "application/json;charset=\"ISO-8859-1\"", ""},
		"as +json":             {good, "application/merge-patch+json", ""},
		"as text/json":         {good, "text/json", ""},
		"with blanks":          {" \n" + good + "\t\r\n", "", ""},
		"with a big number":    {`{"properties":{"password":"1234567890"},"x":1e999999}`, "", ""},
		"nested": {`{"properties":{"password":"1234567890"},"x":` + strings.Repeat("[", 30) +
			strings.Repeat("]", 30) + "}", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if test.contentType != "" {
				headers = []string{"Content-Type: " + test.contentType}
			}
			if test.code == "" {
				f.want(t, 200, "PATCH", f.users("body"), test.body, headers...)
				return
			}
			f.refuses(t, test.code, "PATCH", f.users("body"), test.body, headers...)
			f.refuses(t, test.code, "POST", f.users(), test.body, headers...)
			f.refuses(t, test.code, "POST", "/clusters/"+f.ClusterID+"/databases", test.body, headers...)
		})
	}
	// One client says a Content-Type with every request.
	for _, contentType := range []string{"text/plain", "application/json", ";;;"} {
		f.want(t, 200, "GET", f.users("body"), "{malformed", "Content-Type: "+contentType)
		f.refuses(t, "paas-notfound-1", "DELETE", f.users("body-none"), "{malformed", "Content-Type: "+contentType)
	}
	f.want(t, 204, "DELETE", f.users("body"), strings.Repeat("x", 1000), "Content-Type: text/plain")
}

func TestTooMany(t *testing.T) {
	shared := newFixture(t)
	shared.want(t, 200, "GET", "/clusters", "") // later requests with this credential are not those of a stranger
	f := fixtureOn(t, shared.Service, 0.5)      // one at once, the next in two seconds
	wait := func(a answer) {
		t.Helper()
		a.refused(t, "paas-rate-1")
		if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 || n > 2 {
			t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
	}
	f.want(t, 200, "GET", f.users(), "")
	wait(f.do(t, "GET", f.users(), ""))
	wait(f.do(t, "GET", "/nothing", ""))
	f.as(t, "", "GET", f.users(), "").refused(t, "paas-auth-1")
	wait(f.as(t, "", "GET", f.users(), ""))
	for _, sdk := range sdks {
		f.do(t, "GET", f.users(), "", sdk).empty(t, 429)
		f.do(t, "POST", f.users(), "", sdk).empty(t, 429)
		f.as(t, "", "GET", f.users(), "", sdk).empty(t, 429)
	}

	// Guessing has to wait, whatever the limits.
	shared.Account(t, "guessed", nil, nil)
	guess := func() answer {
		return shared.as(t, "", "GET", "/clusters", "", "Authorization: "+basic("guessed", "wrong"))
	}
	for range 6 {
		guess().refused(t, "paas-auth-1")
	}
	a := guess()
	a.refused(t, "paas-rate-1")
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
}

// sdks are headers of clients that repeat a request after some statuses, and do not close the body of the answer.
var sdks = []string{
	"User-Agent: ionos-cloud-sdk-go-dbaas-postgres/v1.1.3",
	"User-Agent: ionosctl/6.10.3_sdk-go-bundle/products/dbaas/psql/v2.0.5",
	"User-Agent: terraform-provider/6.7.34_Ionos-Cloud-SDK-Go-bundle/v2.1.0",
}

// empty fails the test unless the answer has the status, and nothing but headers.
func (a answer) empty(t testing.TB, status int) {
	t.Helper()
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 || a.Status != status || a.Body != "" ||
		a.Header.Get("Content-Length") != "0" {
		t.Errorf("got %d %v %s, want %d without a body", a.Status, a.Header, a.Body, status)
	}
}

// unavailable is a 503 that says when to come back.
func (f *fixture) unavailable(t testing.TB, method, path, body string) {
	t.Helper()
	a := f.do(t, method, path, body)
	a.refused(t, "paas-unavailable-1")
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
}

func TestClusterDown(t *testing.T) {
	t.Parallel()
	f := newFixture(t).ownCluster(t, nil)
	f.create(t, "down")
	state := func() string {
		var c struct{ Metadata struct{ State string } }
		f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "").Into(t, &c)
		return c.Metadata.State
	}
	f.PG.Stop(t)
	f.unavailable(t, "GET", f.users(), "")
	f.unavailable(t, "GET", f.users("down"), "")
	f.unavailable(t, "POST", f.users(), userBody("down-more", password))
	f.unavailable(t, "PATCH", f.users("down"), passwordBody("while-it-is-down"))
	f.unavailable(t, "PATCH", f.users("down"), `{"properties":{}}`)
	f.unavailable(t, "DELETE", f.users("down"), "")
	f.unavailable(t, "GET", "/clusters/"+f.ClusterID+"/databases", "")
	f.unavailable(t, "POST", "/clusters/"+f.ClusterID+"/databases", `{"properties":{"name":"down","owner":"down"}}`)
	// The Go SDK stops at 500, and would repeat 503 for an hour.
	for _, sdk := range sdks {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			f.do(t, method, f.users("down"), passwordBody(password), sdk).fails(t, 500, "paas-unavailable-1")
		}
		f.do(t, "POST", f.users(), userBody("down-more", password), sdk).refused(t, "paas-unavailable-1")
	}
	if got := state(); got != "UNKNOWN" {
		t.Errorf("the state of a stopped cluster is %s", got)
	}
	// What can be said without the cluster is said.
	f.refuses(t, "paas-validation-1", "POST", f.users(), userBody("pg_x", password))
	f.want(t, 200, "GET", "/clusters/"+f.ClusterID+"/versions", "")

	f.PG.Start(t)
	f.want(t, 200, "GET", f.users("down"), "")
	if err := f.PG.Login("down", password); err != nil {
		t.Error(err)
	}
	f.want(t, 200, "PATCH", f.users("down"), passwordBody("after-it-was-down"))
	f.want(t, 204, "DELETE", f.users("down"), "")
}

// A request on a connection that a restart has broken is answered as if nothing had been.
func TestClusterRestarted(t *testing.T) {
	t.Parallel()
	f := newFixture(t).ownCluster(t, nil)
	f.create(t, "restarted")
	f.PG.Stop(t)
	f.PG.Start(t)
	f.want(t, 200, "PATCH", f.users("restarted"), passwordBody("another-password"))
	f.PG.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rolecall'`)
	f.want(t, 200, "GET", f.users(), "")
	f.PG.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rolecall'`)
	f.want(t, 204, "DELETE", f.users("restarted"), "")
}

func TestClusterFull(t *testing.T) {
	f := newFixture(t).ownCluster(t, map[string]string{"max_connections": "8", "superuser_reserved_connections": "1",
		"max_wal_senders": "0"})
	f.PG.Exec(t, `SELECT 1`)
	var held []*pgx.Conn
	for {
		config, err := pgx.ParseConfig(f.PG.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			break
		}
		defer conn.Close(context.Background())
		held = append(held, conn)
	}
	f.unavailable(t, "GET", f.users(), "")
	f.unavailable(t, "POST", f.users(), userBody("full", password))
	for _, sdk := range sdks {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			f.do(t, method, f.users("full"), passwordBody(password), sdk).empty(t, 503)
		}
		f.do(t, "POST", f.users(), userBody("full", password), sdk).refused(t, "paas-unavailable-1")
	}
	for _, conn := range held {
		conn.Close(t.Context())
	}
	// A session is gone a moment after its connection.
	for n := -1; n != 1; {
		n = pgtest.Value[int](t, f.PG, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'`)
	}
	f.want(t, 200, "POST", f.users(), userBody("full", password))
}

// What cannot be recorded is not done.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	f := fixtureOn(t, ownService(t), 10_000)
	f.create(t, "recorded")
	roles := func() string {
		return pgtest.Value[string](t, f.PG, `SELECT string_agg(concat_ws(' ', rolname, rolcanlogin, rolpassword), ',' ORDER `+
			`BY oid) FROM pg_authid WHERE rolname ~ 'recorded'`)
	}
	before := roles()
	attempts := func(t *testing.T) {
		t.Helper()
		f.unavailable(t, "POST", f.users(), userBody("unrecorded", password))
		f.unavailable(t, "PATCH", f.users("recorded"), passwordBody("another-password"))
		f.unavailable(t, "DELETE", f.users("recorded"), "")
		f.unavailable(t, "POST", "/clusters/"+f.ClusterID+"/databases", `{"properties":{"name":"unrecorded","owner":"recorded"}}`)
		if roles() != before {
			t.Error("the cluster was changed")
		}
		if pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'unrecorded')`) {
			t.Error("the database was made")
		}
		f.want(t, 200, "GET", f.users("recorded"), "")
	}
	control := f.PG.Connect(t, f.PG.User, f.PG.Password, f.DB.Identity.Database)
	t.Run("no table", func(t *testing.T) {
		mustExec(t, control, `ALTER TABLE rolecall.audit RENAME TO elsewhere`)
		attempts(t)
		mustExec(t, control, `ALTER TABLE rolecall.elsewhere RENAME TO audit`)
	})
	t.Run("locked", func(t *testing.T) {
		mustExec(t, control, `BEGIN; LOCK TABLE rolecall.audit`)
		f.unavailable(t, "POST", f.users(), userBody("unrecorded", password))
		mustExec(t, control, `ROLLBACK`)
		if roles() != before {
			t.Error("the cluster was changed")
		}
	})
	t.Run("read-only", func(t *testing.T) {
		mustExec(t, control, fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_read_only = on`, f.DB.Identity.Database))
		f.DB.Pool.Reset()
		attempts(t)
		mustExec(t, control, fmt.Sprintf(`ALTER DATABASE %s RESET default_transaction_read_only`, f.DB.Identity.Database))
		f.DB.Pool.Reset()
	})
	f.create(t, "unrecorded")
}

// While the control database is away, who was known a moment ago may read, and nothing is changed.
func TestControlDatabaseDown(t *testing.T) {
	t.Parallel()
	control := pgtest.New(t, nil)
	s := servicetest.New(t, control)
	s.Admin(t, "root")
	s.PG = pgtest.Shared(t)
	f := fixtureOn(t, s, 10_000)
	f.ClusterID = f.register(t, "elsewhere", s.PG)
	f.create(t, "control-down")
	control.Stop(t)
	f.want(t, 200, "GET", f.users("control-down"), "")
	f.want(t, 200, "GET", f.users(), "")
	f.unavailable(t, "PATCH", f.users("control-down"), passwordBody("while-it-is-down"))
	f.unavailable(t, "DELETE", f.users("control-down"), "")
	f.as(t, "somebody", "GET", f.users(), "").refused(t, "paas-unavailable-1")
	f.as(t, "", "GET", f.users(), "").refused(t, "paas-auth-1")
	if err := f.PG.Login("control-down", password); err != nil {
		t.Error(err)
	}
	control.Start(t)
	f.want(t, 204, "DELETE", f.users("control-down"), "")
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Half a change is worse than one that nobody waits for: it goes on when its client hangs up.
func TestClientHangsUp(t *testing.T) {
	f := newFixture(t)
	f.create(t, "hangup")
	blocker := f.PG.Connect(t, f.PG.User, f.PG.Password, "postgres")
	mustExec(t, blocker, `BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE`)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "PATCH", f.URL+"/databases/postgresql"+f.users("hangup"),
		strings.NewReader(passwordBody("after-hanging-up")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", basic("root", "root-password"))
	done := make(chan error)
	go func() {
		_, err := f.HTTP.Do(req)
		done <- err
	}()
	for !pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pg_authid'::regclass AND NOT `+
		`granted)`) {
	}
	cancel()
	<-done
	mustExec(t, blocker, `COMMIT`)
	for rows := []servicetest.AuditRow(nil); len(rows) < 4; {
		rows = f.AuditRows(t, "hangup")
		if len(rows) == 4 && rows[3].Outcome != "done" {
			t.Errorf("the outcome is %+v", rows[3])
		}
	}
	if err := f.PG.Login("hangup", "after-hanging-up"); err != nil {
		t.Error(err)
	}
}
