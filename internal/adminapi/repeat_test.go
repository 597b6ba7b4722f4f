package adminapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"

	"rolecall/internal/adminapi"
	"rolecall/internal/client"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

const key = "Idempotency-Key: "

// newKey is the header with a key of nobody else.
func newKey() string { return key + `"` + uuid.NewString() + `"` }

// same fails the test unless the second answer is the first one, repeated.
func same(t testing.TB, first, second answer) {
	t.Helper()
	if first.Header.Get("Idempotency-Replayed") != "" || second.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the answers are repeated: %q, %q", first.Header.Get("Idempotency-Replayed"),
			second.Header.Get("Idempotency-Replayed"))
	}
	if first.Status != second.Status || first.Body != second.Body {
		t.Errorf("the answers are %d %s and %d %s", first.Status, first.Body, second.Status, second.Body)
	}
	for _, name := range []string{"Content-Type", "Location", "ETag", "Rolecall-Warning"} {
		if got, want := second.Header.Get(name), first.Header.Get(name); got != want {
			t.Errorf("%s is %q and %q", name, want, got)
		}
	}
	if first.Header.Get("X-Request-Id") == second.Header.Get("X-Request-Id") {
		t.Error("both have the same request id")
	}
}

// count is the value of a query of a number in the control database.
func (f *fixture) count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := f.DB.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A second replica with the same control database.
func (f *fixture) replica(t testing.TB) *fixture {
	t.Helper()
	return fixtureOn(t, f.Service.Replica(t), 10_000)
}

// Each POST has the header in its document, with all that may be answered because of it.
func TestEveryPOSTMayBeRepeated(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile("../../api/rolecall.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for path, item := range doc.Paths.Map() {
		if item.Post == nil {
			continue
		}
		found++
		if item.Post.Parameters.GetByInAndName("header", "Idempotency-Key") == nil {
			t.Errorf("POST %s lacks the parameter Idempotency-Key", path)
		}
		for status, response := range item.Post.Responses.Map() {
			if status[0] == '2' && response.Value.Headers["Idempotency-Replayed"] == nil {
				t.Errorf("POST %s: %s lacks the header Idempotency-Replayed", path, status)
			}
		}
		for _, status := range []string{"400", "403", "409", "413", "422", "429", "503"} {
			if item.Post.Responses.Value(status) == nil {
				t.Errorf("POST %s lacks %s", path, status)
			}
		}
	}
	if found < 15 {
		t.Errorf("the document has %d POSTs", found)
	}
}

// A repetition gets the same answer, on another replica too, and changes nothing: each POST that makes something new.
func TestRepeat(t *testing.T) {
	f := newFixture(t)
	other := f.replica(t)
	pg := pgtest.Shared(t)
	cluster := "/clusters/" + f.ClusterID
	pg.Exec(t, `CREATE ROLE repeated_group NOLOGIN; CREATE ROLE repeated_renewed NOLOGIN`)
	f.want(t, 200, "PATCH", cluster, `{"grantable":["repeated_group","repeated_renewed"]}`)
	f.want(t, 201, "POST", cluster+"/users", `{"username":"repeated_for"}`)
	f.want(t, 201, "PUT", cluster+"/credentials/repeated", `{"for":"repeated_for","rotateEvery":"7d","overlap":"1h"}`)
	var lease struct{ ID string }
	f.want(t, 201, "POST", cluster+"/leases", `{"for":"repeated_renewed"}`).Into(t, &lease)
	roles := func(pattern string) int {
		return pgtest.Value[int](t, pg, `SELECT count(*)::int FROM pg_roles WHERE rolname LIKE '`+pattern+`'`)
	}
	for _, c := range []struct {
		path, body string
		status     int
		made       func() int
	}{
		{cluster + "/users", `{"username":"repeated"}`, 201, func() int { return roles("repeated") }},
		{cluster + "/users/repeated/password", ``, 200, nil},
		{cluster + "/users/repeated/disable", ``, 200, nil},
		{cluster + "/users/repeated/enable", ``, 200, nil},
		{cluster + "/leases", `{"for":"repeated_group"}`, 201, func() int { return roles(`repeated\_group\_%`) }},
		{cluster + "/databases", `{"name":"repeated_db"}`, 201, nil},
		{cluster + "/probe", ``, 200, nil},
		{"/accounts", `{"username":"repeated-account"}`, 201,
			func() int { return f.count(t, `SELECT count(*) FROM accounts WHERE username = 'repeated-account'`) }},
		{"/tokens", `{"name":"repeated-token"}`, 201,
			func() int { return f.count(t, `SELECT count(*) FROM personal_tokens WHERE name = 'repeated-token'`) }},
		{cluster + "/credentials/repeated/rotate", ``, 200, func() int { return roles(`repeated\_for\_%`) - 1 }},
		{"/leases/" + lease.ID + "/renew", `{"ttl":"2h"}`, 200, nil},
		{"/operations", `{"action":"disable","users":[{"cluster":"` + f.ClusterID + `","username":"repeated"}]}`, 202,
			func() int { return f.count(t, `SELECT count(*) FROM operations`) }},
		{"/accounts/" + f.Account(t, "repeated-leaver", nil, nil) + "/offboard", ``, 200,
			func() int { return f.count(t, `SELECT count(*) FROM offboardings`) }},
		{"/keys/rotate", `{"signingKey":true}`, 200,
			func() int { return f.count(t, `SELECT count(*) - 1 FROM signing_keys`) }},
	} {
		t.Run(c.path, func(t *testing.T) {
			header := newKey()
			before := f.count(t, `SELECT count(*) FROM audit`)
			first := f.want(t, c.status, "POST", c.path, c.body, header)
			rows := f.count(t, `SELECT count(*) FROM audit`)
			if rows == before && !strings.HasSuffix(c.path, "probe") {
				t.Errorf("the log has no row of it")
			}
			same(t, first, other.do(t, "POST", c.path, c.body, header))
			same(t, first, f.do(t, "POST", c.path, c.body, strings.ReplaceAll(header, `"`, "")))
			other.do(t, "POST", c.path, `{"another":1}`, header).refused(t, 422, "used for another request")
			other.do(t, "POST", c.path+"?x=1", c.body, header).refused(t, 422, "used for another request")
			f.do(t, "POST", c.path+"/", c.body, header).refused(t, 404)
			if now := f.count(t, `SELECT count(*) FROM audit`); now != rows {
				t.Errorf("the repetitions have written %d rows into the log", now-rows)
			}
			if c.made != nil && c.made() != 1 {
				t.Errorf("there are %d", c.made())
			}
		})
	}
	// The repeated answer has the password that logs in.
	var user struct{ Username, Password string }
	header := newKey()
	f.want(t, 201, "POST", cluster+"/users", `{"username":"repeated_login"}`, header)
	other.want(t, 201, "POST", cluster+"/users", `{"username":"repeated_login"}`, header).Into(t, &user)
	if err := pg.Login(user.Username, user.Password); err != nil || user.Password == "" {
		t.Errorf("the repeated password: %v", err)
	}
	if strings.Contains(f.Log.String(), user.Password) {
		t.Error("the password is in the log")
	}
}

// What is stored shows neither password nor key, also as a hash, and is encrypted again with other master keys.
func TestRepeatIsSealed(t *testing.T) {
	f := newFixture(t)
	path := "/clusters/" + f.ClusterID + "/users"
	header := newKey()
	first := f.want(t, 201, "POST", path, `{"username":"sealed_repeat"}`, header)
	var user struct{ Password string }
	first.Into(t, &user)
	var row string
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT k::text || convert_from(decode(encode(sealed, 'hex'), 'escape'), 'LATIN1')
		FROM idempotency_keys k`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{user.Password, strings.Trim(header[len(key):], `"`), "sealed_repeat"} {
		if strings.Contains(row, secret) {
			t.Errorf("%q is in %s", secret, row)
		}
	}
	use := func(keys string) {
		t.Helper()
		ring, err := control.ParseKeyring(keys)
		if err != nil {
			t.Fatal(err)
		}
		*f.DB.Keys = *ring
	}
	next := control.NewMasterKey()
	use(next + "\n" + f.MasterKey)
	f.want(t, 200, "POST", "/keys/rotate", ``)
	use(next)
	same(t, first, f.do(t, "POST", path, `{"username":"sealed_repeat"}`, header))
}

// Keys of different accounts never meet, nor those of an account that was deleted and another with its guid.
func TestRepeatOfAnotherAccount(t *testing.T) {
	f := newFixture(t)
	f.Admin(t, "second")
	header := newKey()
	first := f.want(t, 201, "POST", "/tokens", `{"name":"mine"}`, header)
	second := f.as(t, "second", "POST", "/tokens", `{"name":"mine"}`, header)
	if second.Status != 201 || second.Body == first.Body || second.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the other account got %d %s", second.Status, second.Body)
	}
	same(t, first, f.do(t, "POST", "/tokens", `{"name":"mine"}`, header))
	var guid string
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT guid FROM accounts WHERE username = 'second'`).Scan(&guid); err != nil {
		t.Fatal(err)
	}
	f.want(t, 200, "PATCH", "/accounts/"+guid, `{"active":false}`)
	// For a few seconds the server takes its password as verified.
	a := f.as(t, "second", "POST", "/tokens", `{"name":"mine"}`, header)
	if a.Status == 403 {
		a.refused(t, 403, "deactivated")
	} else {
		a.refused(t, 401)
	}
	f.want(t, 204, "DELETE", "/accounts/"+guid, ``)
	if n := f.count(t, `SELECT count(*) FROM idempotency_keys WHERE account_guid = $1`, guid); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// A token with fewer rights than the first request had does not get its answer, which may hold a password.
func TestRepeatWithFewerRights(t *testing.T) {
	f := newFixture(t)
	path, body := "/clusters/"+f.ClusterID+"/users", `{"username":"rights_repeat"}`
	token := func(more string) string {
		var made struct{ Secret string }
		f.want(t, 201, "POST", "/tokens", `{"name":"`+uuid.NewString()+`"`+more+`}`).Into(t, &made)
		return "Authorization: Bearer " + made.Secret
	}
	header := newKey()
	first := f.want(t, 201, "POST", path, body, header)
	for _, less := range []string{`,"readOnly":true`, `,"clusters":["` + f.ClusterID + `"]`} {
		a := f.as(t, "", "POST", path, body, header, token(less))
		a.refused(t, 403, "more rights")
		if strings.Contains(a.Body, "password") {
			t.Errorf("the refusal is %s", a.Body)
		}
	}
	// A token has fewer rights than a sign-in, also without limits: it cannot make accounts, whose answers have passwords.
	f.as(t, "", "POST", path, body, header, token("")).refused(t, 403, "more rights")
	same(t, first, f.do(t, "POST", path, body, header))
	// With more rights than before it is repeated.
	limited, next := token(`,"clusters":["`+f.ClusterID+`"]`), newKey()
	first = f.as(t, "", "POST", path, `{"username":"rights_repeat_2"}`, next, limited)
	same(t, first, f.as(t, "", "POST", path, `{"username":"rights_repeat_2"}`, next, limited))
	same(t, first, f.do(t, "POST", path, `{"username":"rights_repeat_2"}`, next))
	// An answer is that of its own request: an account that has lost the cluster since then gets it again.
	f.Account(t, "leaver", []string{"cloud_controller.read", "cloud_controller.write"}, map[string]string{"team": "x"})
	f.Access(t, f.ClusterID, []string{"team=x"}, nil)
	first = f.as(t, "leaver", "POST", path, `{"username":"rights_repeat_3"}`, next)
	f.Access(t, f.ClusterID, nil, nil)
	same(t, first, f.as(t, "leaver", "POST", path, `{"username":"rights_repeat_3"}`, next))
	f.as(t, "leaver", "POST", path, `{"username":"rights_repeat_4"}`, newKey()).refused(t, 404)
}

// A refusal has changed nothing. Its key can be used again, corrected too.
func TestRepeatOfARefusal(t *testing.T) {
	f := newFixture(t)
	path := "/clusters/" + f.ClusterID + "/users"
	header := newKey()
	for _, c := range []struct {
		body   string
		status int
	}{{`{`, 400}, {``, 400}, {`{"username":7}`, 422}, {`{"username":"pg_x"}`, 422}, {`{"username":"x","roles":["absent"]}`,
		422},
		{`{"username":"x","password":"` + strings.Repeat("x", 300<<10) + `"}`, 413}} {
		if a := f.do(t, "POST", path, c.body, header); a.Status != c.status {
			t.Errorf("%.40s: got %d %s", c.body, a.Status, a.Body)
		}
	}
	f.do(t, "POST", path, `{"username":"x"}`, header, "Content-Type: text/plain").refused(t, 415)
	if n := f.count(t, `SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	first := f.want(t, 201, "POST", path, `{"username":"refused_repeat"}`, header)
	same(t, first, f.do(t, "POST", path, `{"username":"refused_repeat"}`, header))
	next := newKey()
	f.do(t, "POST", path, `{"username":"refused_repeat"}`, next).refused(t, 409)
	f.want(t, 204, "DELETE", path+"/refused_repeat", ``)
	f.want(t, 201, "POST", path, `{"username":"refused_repeat"}`, next)
}

// The header is one string of 1 to 255 characters.
func TestKeys(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	for value, why := range map[string]string{
		``: "It is empty", `""`: "It is empty", `"a`: "one string in quotes", `"a"b`: "one string in quotes",
		`"a";p=1`: "one string in quotes", `"\a"`: "one string in quotes", `a b`: "byte 2", `a,b`: "byte 2", `a"`: "byte 2",
		`ü`: "byte 1", strings.Repeat("x", 256): "at most 255", `"` + strings.Repeat("x", 256) + `"`: "at most 255",
	} {
		f.do(t, "POST", "/tokens", `{"name":"x"}`, key+value).refused(t, 400, why)
	}
	f.do(t, "POST", "/tokens", `{"name":"x"}`, key+"a", key+"a").refused(t, 400, "2 times")
	for i, value := range []string{`x`, `"a \"b\\ c"`, strings.Repeat("x", 255), `"` + strings.Repeat("y", 255) + `"`,
		`'{}~!:/`} {
		f.want(t, 201, "POST", "/tokens", fmt.Sprintf(`{"name":"keys-%d"}`, i), key+value)
	}
	f.want(t, 200, "GET", "/whoami", ``, key+"a b") // for POST only
}

// Of many at once one is carried out. The others get its answer or are told to wait.
func TestRepeatsAtOnce(t *testing.T) {
	f := newFixture(t)
	other := f.replica(t)
	path, header := "/clusters/"+f.ClusterID+"/users", newKey()
	answers := make([]answer, 12)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() {
			answers[i] = []*fixture{f, other}[i%2].do(t, "POST", path, `{"username":"at_once_repeat"}`, header)
		})
	}
	group.Wait()
	carried := slices.IndexFunc(answers, func(a answer) bool {
		return a.Status == 201 && a.Header.Get("Idempotency-Replayed") == ""
	})
	if carried < 0 {
		t.Fatalf("none was carried out: %v", answers)
	}
	for i, a := range answers {
		switch {
		case i == carried:
		case a.Status == http.StatusConflict:
			a.refused(t, 409, "in progress")
			if a.Header.Get("Retry-After") == "" {
				t.Error("it does not say when to try again")
			}
		default:
			same(t, answers[carried], a)
		}
	}
	same(t, answers[carried], other.do(t, "POST", path, `{"username":"at_once_repeat"}`, header))
	if rows := f.AuditRows(t, "at_once_repeat"); len(rows) != 2 {
		t.Errorf("the log has %+v", rows)
	}
}

// The client of the commands repeats a request whose connection is lost after the server has carried it out: it gets the
// lease that was made, and no second one is.
func TestClientRepeats(t *testing.T) {
	f := newFixture(t)
	f.PG.Exec(t, `CREATE ROLE cut_group NOLOGIN`)
	f.want(t, 200, "PATCH", "/clusters/"+f.ClusterID, `{"grantable":["cut_group"]}`)
	var token struct{ Secret string }
	f.want(t, 201, "POST", "/tokens", `{"name":"client"}`).Into(t, &token)
	edge := &web.Edge{Handler: newAPI(f.Service, 10_000), Log: slog.New(slog.NewTextHandler(f.Log, nil))}
	var sent atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sent.Add(1) == 1 {
			edge.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		edge.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	c := client.New(server.URL, "test/1")
	c.Token = func(context.Context, string) (string, error) { return token.Secret, nil }
	a, err := c.Do(t.Context(), client.Request{Method: "POST", Path: adminapi.Prefix + "/clusters/" + f.ClusterID + "/leases",
		Body: map[string]string{"for": "cut_group"}})
	if err != nil || sent.Load() != 2 {
		t.Fatalf("sent %d times: %v", sent.Load(), err)
	}
	var lease struct{ Username, Password string }
	if err := json.Unmarshal(a.JSON, &lease); err != nil {
		t.Fatal(err)
	}
	if err := f.PG.Login(lease.Username, lease.Password); err != nil {
		t.Error(err)
	}
	if n := f.count(t, `SELECT count(*) FROM leases`); n != 1 {
		t.Errorf("there are %d leases", n)
	}
}
