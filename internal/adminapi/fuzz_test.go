package adminapi_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/adminapi"
	"rolecall/internal/apitest"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

// FuzzRequest holds whole requests against the document.
func FuzzRequest(f *testing.F) {
	pg := pgtest.Shared(f)
	administrator := role(f, pg, "fuzz_admin", "CREATEROLE CREATEDB")
	service := servicetest.NewAs(f, pg, administrator, rolePassword)
	service.Admin(f, "root")
	service.Account(f, "fuzz-auditor", []string{account.ScopeAuditor}, nil)
	other := service.Account(f, "fuzz-other", account.DefaultScopes, nil)
	service.Account(f, "fuzz-manager", []string{account.ScopeWrite}, map[string]string{"team": "fuzz"})
	s := fixtureOn(f, service, 0)
	owner := pg.Connect(f, administrator, rolePassword, "postgres")
	if _, err := owner.Exec(f.Context(), `CREATE ROLE "fuzz-ann" LOGIN; CREATE ROLE "fuzz-group"`); err != nil {
		f.Fatal(err)
	}
	if _, _, err := s.Users.CreateDatabase(f.Context(), &account.Principal{GUID: "fuzz", Scopes: account.AdminScopes},
		s.ClusterID, pgrole.NewDatabase{Name: "fuzz-shop", AccessRoles: true}); err != nil {
		f.Fatal(err)
	}
	const rules = `{"access":{"manage":["team=fuzz"]},"grantable":["fuzz-group"]}`
	s.want(f, 200, "PATCH", "/clusters/"+s.ClusterID, rules)
	if n, err := s.Audit.Seal(f.Context()); err != nil || n == 0 {
		f.Fatal("nothing is sealed", err)
	}
	port := strconv.Itoa(pg.Port)
	names := map[string]string{"clusterId": s.ClusterID, "username": "fuzz-ann", "database": "fuzz-shop",
		"tokenId": "0199c2a4-7d3e-7c51-a0de-5f4b8e21c963", "other": other, "port": port, "head": s.Audit.Head().String()}
	mint := func(username string) string {
		token, err := s.Identity.MintFor(f.Context(), username, 12*time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		return "Bearer " + token
	}

	const (
		cluster  = " /rolecall/v1/clusters/{clusterId}"
		ann      = cluster + "/users/fuzz-ann"
		shop     = cluster + "/databases/fuzz-shop"
		register = "POST /rolecall/v1/clusters\nContent-Type: application/json\n\n"
		update   = "PATCH" + cluster + "\nIf-Match: *\n\n"
		limit    = "PATCH" + ann + "\n\n"
		token    = "POST /rolecall/v1/tokens\n\n"
		log      = "GET /rolecall/v1/audit?"
	)
	seeds := []string{
		"GET" + cluster, "HEAD" + cluster, "DELETE" + cluster, "DELETE" + cluster + "\nIf-Match: \"0\", W/\"1\"",
		"POST" + cluster + "/probe", "POST" + cluster + "/rotate-credential", "GET" + cluster + "/access?account=fuzz-manager",
		"GET" + cluster + "/access?account=%00", "GET" + cluster + "/access?account=", "GET" + ann,
		"GET" + cluster + "/users/%00", "GET" + cluster + "/users?system=true&limit=2",
		"GET" + cluster + "/users?system=x&cursor=AA", "GET" + cluster + "/users?cursor=_w",
		"GET /rolecall/v1/clusters?name=main", "GET /rolecall/v1/clusters?name=", "GET" + cluster + "/users/postgres",
		"GET" + cluster + "/users/a/b",
		"PUT" + ann + "/roles\nIf-Match: \"x\"\n\n{\"roles\":[]}", "PUT" + ann + "/roles\n\n{\"roles\":[\"fuzz-group\"]}",
		"PUT" + ann + "/roles\n\n{\"roles\":[\"postgres\",\"\",\"\\u0000\",1]}", "PUT" + ann + "/roles\n\n{}",
		"PUT" + ann + "/roles/fuzz-group", "PUT" + ann + "/roles/%00\nIf-Match: \"x\"\n", "PUT" + ann + "/roles/postgres\n\n{}",
		"DELETE" + ann + "/roles/fuzz-group", "DELETE" + ann + "/roles/a%2Fb",
		"DELETE" + ann, "DELETE" + ann + "?reassignTo=fuzz-group&onBlocked=disable", "DELETE" + ann + "?reassignTo=",
		"DELETE" + ann + "?onBlocked=x\nIf-Match: \"0\"", "GET" + ann + "/deletion-plan?reassignTo=fuzz-group", "GET" + ann +
			"/deletion-plan?reassignTo=",
		"GET" + ann + "/deletion-plan?reassignTo=%00&x=1", "GET" + cluster + "/password-problems?limit=1&cursor=YQ",
		"GET" + cluster + "/pgbouncer/userlist", "GET /rolecall/v1/clusters?limit=1&cursor=bWFpbg",
		"GET /rolecall/v1/clusters?limit=0", "GET /rolecall/v1/clusters?cursor=",
		"GET /rolecall/v1/clusters?cursor=%FF&cursor=x", "GET /rolecall/v1/clusters?cursor=AA",
		"GET" + cluster + "/password-problems?cursor=AA", "GET" + cluster + "/password-problems?cursor=_w",
		"POST /rolecall/v1/keys/rotate\n\n{\"signingKey\":false}", "POST /rolecall/v1/keys/rotate\n\n[]",
		"POST /rolecall/v1/keys/rotate",
		"GET /rolecall/v1/audit/verify?anchor={head}", "GET /rolecall/v1/audit/verify?anchor=1:00",
		"GET /rolecall/v1/audit/verify?anchor=", "GET /rolecall/v1/audit/failed-sign-ins?since=2026-01-31T12:00:00Z&limit=1",
		"GET /rolecall/v1/audit/failed-sign-ins?cursor=MjAyNi0wMS0zMVQxMjowMDowMFoKYQpi",
		"GET /rolecall/v1/audit/failed-sign-ins?since=0000-01-01T00:00:00Z&cursor=MAoKMQ", "GET /rolecall/v1/whoami?x",
		"PUT /rolecall/v1/whoami", "GET //rolecall/v1/whoami",
		"GET /rolecall/v1/whoami\nAuthorization: Basic cm9vdDpyb290", "GET /rolecall/v1/whoami\nAuthorization: Digest x",
		"GET /rolecall/v1/tokens\nSec-Fetch-Site: cross-site", "DELETE /rolecall/v1/tokens/x",
		"DELETE /rolecall/v1/tokens/{tokenId}", "OPTIONS *",
	}
	for _, body := range []string{
		`{"displayName":"fuzz","connection":{"url":"postgres://fuzz_admin@127.0.0.1:{port}/postgres","password":"{secret}",` +
			`"tls":{"mode":"disable"}}}`,
		`{"displayName":"fuzz","connection":{"url":"postgres://fuzz_admin@127.0.0.1:{port}/postgres?target_session_attrs=any",` +
			`"password":"` + rolePassword + `","tls":{"mode":"disable"}},"access":{"manage":["a in (b,c)"],"view":["!x"]}}`,
		`{"displayName":"fuzz","connection":{"url":"postgres://a:{secret}@127.0.0.1:{port}/postgres?service=x","password":"x"}}`,
		`{"displayName":"fuzz","connection":{"url":"postgres://a@%2Ftmp/postgres","password":"x"}}`,
		`{"displayName":"fuzz","connection":{"url":"postgres://a@127.0.0.1:1,127.0.0.1:{port}/postgres","password":"x",` +
			`"tls":{"mode":"verify-ca","ca":"-----BEGIN CERTIFICATE-----","cert":"x","key":"{secret}"}}}`,
		`{"displayName":"","connection":{}}`, `{"displayName":"a\u0000b","location":"\n","connection":{"url":"host=127.0.0.1"}}`,
		`{"connection":null}`, `{"connection":{"url":"postgres://[::1]:99999/x"}}`, `{}`, `[]`, `{"a":1,"a":2}`,
	} {
		seeds = append(seeds, register+body)
	}
	for _, body := range []string{
		rules, `{"displayName":"main"}`, `{"displayName":"main\u0000"}`,
		`{"location":"de/fra","systemRoles":["postgres","*_x?"],"memberOf":[],"grantable":["fuzz-group","é"]}`,
		`{"synchronousCommit":null}`, `{"synchronousCommit":"remote_apply"}`, `{"synchronousCommit":""}`,
		`{"access":{"manage":["!a"],"view":["a=b"]}}`, `{"access":{"manage":["a in ("]}}`, `{"access":null}`,
		`{"leases":{"defaultTtl":"90s","maxTtl":"1d12h","maxPerAccount":7}}`, `{"leases":{"maxTtl":null}}`, `{"leases":null}`,
		`{"leases":{"defaultTtl":"-1s","maxPerAccount":1e9}}`, `{"leases":{"maxTtl":"106752d","x":1}}`,
		`{"memberOf":["postgres"]}`, `{"systemRoles":["\u0000"]}`, `{"connection":{"password":"` + rolePassword + `"}}`,
		`{"connection":{"systemIdentifier":"1","password":"{secret}"}}`,
		`{"connection":{"url":"postgres://fuzz_admin@127.0.0.1:{port}/postgres","tls":{"mode":"disable"},"x":1}}`, `{}`,
	} {
		seeds = append(seeds, update+body)
	}
	for _, body := range []string{
		`{"validUntil":"2027-01-31T18:00:00.123456+01:00","connectionLimit":3}`,
		`{"validUntil":null,"connectionLimit":-1,"endSessions":true}`, `{"validUntil":"0000-01-01T00:00:00Z"}`,
		`{"validUntil":"9999-12-31T23:59:59.9999999-23:59"}`, `{"validUntil":"2027-01-31T24:00:00Z"}`,
		`{"validUntil":"2027-01-31t18:00:00z"}`, `{"validUntil":"2027-01-31T18:00:00,5Z"}`, `{"validUntil":"infinity"}`,
		`{"connectionLimit":-2}`, `{"connectionLimit":2147483648}`, `{"connectionLimit":1.0}`, `{"connectionLimit":1e2}`,
		`{"connectionLimit":"1"}`, `{"connectionLimit":null}`, `{"endSessions":false}`, `{}`,
	} {
		seeds = append(seeds, limit+body)
	}
	for _, body := range []string{
		`{"name":"fuzz","readOnly":true,"clusters":["{clusterId}"],"expiresAt":"2100-01-01T00:00:00Z"}`,
		`{"name":"fuzz","expiresAt":"2000-01-01T00:00:00Z"}`, `{"name":"\n"}`, `{"name":"x","clusters":[]}`,
		`{"name":"x","clusters":["x"]}`, `{"name":"x","expiresAt":"99999-01-01T00:00:00Z"}`, `{}`,
	} {
		seeds = append(seeds, token+body)
	}
	for _, body := range []string{
		`{"for":"fuzz-ann","ttl":"90s","maxTtl":"1d","note":"é"}`, `{"for":"fuzz-group"}`, `{"for":"postgres","ttl":"-1s"}`,
		`{"for":"\u0000","ttl":"106752d"}`, `{"for":"","note":"\n"}`, `{"for":1}`, `{}`,
	} {
		seeds = append(seeds, "POST"+cluster+"/leases\n\n"+body)
	}
	for _, body := range []string{
		`{"username":"fuzz-new","password":"{secret}-long-enough","access":[{"database":"fuzz-shop","level":"own"}],` +
			`"roles":["fuzz-group"],"validUntil":"2027-01-31","connectionLimit":3}`, `{"username":"fuzz-new"}`,
		`{"username":"fuzz-new","access":[{"database":"\u0000","level":"x"},{"database":"a","level":"own","x":1},1]}`,
		`{"username":"\n","password":"x","roles":[""],"validUntil":null}`, `{"username":"x","access":{}}`, `{}`,
	} {
		seeds = append(seeds, "POST"+cluster+"/users\n\n"+body)
	}
	for _, body := range []string{
		`{"schemas":["*"],"adopt":true}`, `{"schemas":[]}`, `{"schemas":["*","public"]}`,
		`{"schemas":["\u0000",1],"adopt":null}`, ``,
	} {
		seeds = append(seeds, "PUT"+shop+"/access-roles\n\n"+body, "PUT"+shop+"/access-roles?plan=true\n\n"+body,
			"PUT"+cluster+"/databases/%00/access-roles\n\n"+body)
	}
	seeds = append(seeds, "GET"+cluster+"/databases?limit=1&cursor=AA", "GET"+cluster+"/databases?cursor=ZnV6eg", "GET"+shop,
		"GET"+shop+"/access-roles", "GET"+cluster+"/databases/%FF/access-roles", "PUT"+shop+"/access-roles?plan=x&plan=y",
		"DELETE"+shop+"/access-roles?reassignTo=fuzz-group", "DELETE"+shop+"/access-roles?reassignTo=%00",
		"DELETE"+shop+"\nIf-Match: \"1\"", "DELETE"+cluster+"/databases/postgres", "DELETE"+cluster+"/databases/%FF",
		"POST"+cluster+"/databases\n\n{\"name\":\"postgres\",\"owner\":\"fuzz-ann\",\"accessRoles\":true}",
		"POST"+cluster+"/databases\n\n{\"name\":\"\\u0000\",\"owner\":\"\"}", "POST"+cluster+"/databases\n\n{}",
		"POST"+ann+"/password", "POST"+ann+"/password\nIf-Match: \"x\"\n\n{\"password\":\"{secret}\"}",
		"POST"+ann+"/disable", "POST"+ann+"/enable\nIf-Match: *\n", "POST"+ann+"/enable\n\n{", "GET"+ann+"/access",
		"GET"+cluster+"/users/%FF/access", "PUT"+ann+"/access/fuzz-shop\n\n{\"level\":\"write\"}",
		"PUT"+ann+"/access/a%2Fb\nIf-Match: \"x\"\n\n{\"level\":\"\\u0000\"}", "PUT"+ann+"/access/postgres\n\n{}",
		"DELETE"+ann+"/access/fuzz-shop", "DELETE"+ann+"/access/%00")
	for _, query := range []string{"", "?state=active&state=ended&account=root&for=fuzz-ann&expiresBefore=2100-01-01&limit=1",
		"?state=", "?for=%00", "?account=%FF", "?expiresBefore=0000-01-01T00:00:00Z", "?cursor=AA",
		"?cursor=MDE5OWMyYTQtN2QzZS03YzUxLWEwZGUtNWY0YjhlMjFjOTYz"} {
		seeds = append(seeds, "GET"+cluster+"/leases"+query, "GET /rolecall/v1/leases"+query)
	}
	for _, id := range []string{"{tokenId}", "x", "%00"} {
		seeds = append(seeds, "GET /rolecall/v1/leases/"+id, "DELETE /rolecall/v1/leases/"+id,
			"POST /rolecall/v1/leases/"+id+"/renew", "POST /rolecall/v1/leases/"+id+"/renew\n\n{\"ttl\":\"1h\"}",
			"POST /rolecall/v1/leases/"+id+"/renew\n\n{\"ttl\":0}")
	}
	for _, body := range []string{
		`{"username":"fuzz-new","labels":{"team":"fuzz","a/b":null},"annotations":{"note":"é"},` +
			`"scopes":["cloud_controller.read"]}`, `{"username":"a:b"}`, `{"username":"x","password":"","origin":""}`,
		`{"username":"fuzz-new","origin":"ldap"}`,
		`{"username":"x","password":"x","origin":"ldap"}`, `{"username":"x","scopes":["a",1]}`,
		`{"username":"x","labels":{"-":"x"}}`, `{"username":"\u0000"}`, `{"username":null}`, `{}`,
	} {
		seeds = append(seeds, "POST /rolecall/v1/accounts\n\n"+body)
	}
	for _, body := range []string{
		`{"active":true,"scopes":["cloud_controller.write","cloud_controller.read"],"labels":{"team":"fuzz"},` +
			`"annotations":{"a":null},"username":"fuzz-other","presentationName":null}`, `{"presentationName":"A"}`,
		`{"presentationName":""}`, `{"labels":null}`, `{"scopes":[],"active":null}`, `{"x":1}`, `{}`,
	} {
		seeds = append(seeds, "PATCH /rolecall/v1/accounts/{other}\nIf-Match: *\n\n"+body,
			"PATCH /rolecall/v1/accounts/%00\nIf-Match: \"1\"\n\n"+body)
	}
	seeds = append(seeds, "GET /rolecall/v1/accounts/{other}", "POST /rolecall/v1/accounts/{other}/password",
		"POST /rolecall/v1/accounts/{other}/password\n\n{\"password\":\"{secret}\"}",
		"POST /rolecall/v1/accounts/%FF/password\n\n{\"currentPassword\":1}", "DELETE /rolecall/v1/accounts/x\nIf-Match: \"x\"",
		"GET /rolecall/v1/accounts?name=fuzz-other&origin=uaa&selector=team%20in%20(fuzz)&scope=cloud_controller.read"+
			"&active=true&limit=1&cursor=MQ", "GET /rolecall/v1/accounts?guid={other}", "GET /rolecall/v1/accounts?name=&active=x",
		"GET /rolecall/v1/accounts?selector=(&scope=x", "GET /rolecall/v1/accounts?cursor=AA")
	for _, query := range []string{
		"account=root&cluster={clusterId}&user=fuzz-ann&action=user.create&outcome=done&since=2026-01-31T12:00:00Z" +
			"&until=2100-01-31T12:00:00Z&limit=1&order=asc", "order=desc&limit=1", "cursor=MQ&limit=2", "cursor=MA", "cursor=LTE",
		"after=1", "after=-1",
		"after=9223372036854775808", "after=0&cursor=MQ", "wait=0", "wait=-1", "wait=21", "order=", "outcome=x",
		"cluster=urn:uuid:00000000-0000-0000-0000-000000000000", "since=0001-01-01T00:00:00Z", "since=2026-01-31T12:00:00,5Z",
		"user=%FF", "user=%00", "account=",
	} {
		seeds = append(seeds, log+query)
	}
	seeds = append(seeds, "GET /rolecall/v1/audit?after=1\nAccept: text/html, application/jsonl;q=0.5",
		"GET /rolecall/v1/audit?limit=1\nAccept: application/jsonl")

	slow := 0
	apitest.Load(f, "rolecall.yaml").Fuzz(f, apitest.Target{
		Handler:       newAPI(s.Service, 0),
		Authorization: []string{mint("root"), mint("fuzz-manager"), mint("fuzz-auditor")},
		Names:         names,
		Seeds:         seeds,
		Spare: func(r *http.Request, body string) bool {
			// These take a tenth of a second, and look at little of a request.
			if strings.HasSuffix(r.URL.Path, "/probe") || strings.HasSuffix(r.URL.Path, "/rotate-credential") {
				slow++
				return slow%20 > 2
			}
			if r.Method == "DELETE" && strings.Contains(r.URL.Path, "/databases/fuzz-shop") || r.Method == "POST" &&
				strings.HasSuffix(r.URL.Path, "/databases") && strings.Contains(body, "name") {
				return !strings.Contains(body, "postgres") && !strings.Contains(body, "u0000") && r.Header.Get("If-Match") == ""
			}
			wait, _ := strconv.Atoi(r.URL.Query().Get("wait"))
			return wait > 0 || strings.HasSuffix(r.URL.Path, "/rotate") && strings.Contains(body, "true") || leadsAway(body, port)
		},
		Then: func(t *testing.T, send apitest.Send, r *http.Request, a apitest.Answer) {
			switch {
			case r.Method == "POST" && a.Status == 201 && strings.HasSuffix(r.URL.Path, "/tokens"):
				var made struct{ ID string }
				a.Into(t, &made)
				// It may be another's than the admin's.
				if tag, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM personal_tokens WHERE id = $1`, made.ID); err != nil ||
					tag.RowsAffected() != 1 {
					t.Errorf("%s: %v, %v", a.Body, tag, err)
				}
			case r.Method == "POST" && a.Status == 201 && strings.HasSuffix(r.URL.Path, "/leases"):
				var made struct{ ID string }
				a.Into(t, &made)
				send("DELETE", adminapi.Prefix+"/leases/"+made.ID, "")
			case r.Method == "POST" && a.Status == 201 && strings.HasSuffix(r.URL.Path, "/users"):
				var made struct{ Username string }
				a.Into(t, &made)
				send("DELETE", adminapi.Prefix+"/clusters/"+names["clusterId"]+"/users/"+url.PathEscape(made.Username), "")
			case r.Method == "DELETE" && a.Status == 204 && (strings.Contains(r.URL.EscapedPath(), "/roles/") ||
				strings.Contains(r.URL.EscapedPath(), "/access/")):
			case r.Method == "DELETE" && a.Status == 204 && strings.Contains(r.URL.Path, "/users/"):
				pg.Exec(t, `CREATE ROLE "fuzz-ann" LOGIN`)
			case r.Method == "DELETE" && a.Status == 204 && strings.Contains(r.URL.Path, "/clusters/"):
				pg.Exec(t, `ALTER ROLE fuzz_admin PASSWORD '`+rolePassword+`'`)
				names["clusterId"] = s.Register(t, "main", pg, administrator, rolePassword)
				send("PATCH", adminapi.Prefix+"/clusters/"+names["clusterId"], rules)
			}
		},
	})
}

// leadsAway reports whether a body would have Rolecall connect to anything else than the test's own PostgreSQL.
func leadsAway(body, port string) bool {
	v, err := web.ParseJSON([]byte(body))
	o, _ := v.(*web.Object)
	if err != nil || o == nil {
		return false
	}
	connection, _ := o.Values["connection"].(*web.Object)
	if connection == nil {
		return false
	}
	text, _ := connection.Values["url"].(string)
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if host != "" && host != "127.0.0.1:"+port && host != "127.0.0.1:1" {
			return true
		}
	}
	return false
}
