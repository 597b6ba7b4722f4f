package uaa_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/uaa"
)

// FuzzRequest holds whole requests against the document. What is created is read, and deleted.
func FuzzRequest(f *testing.F) {
	s := newFixture(f)
	reader, _ := s.holder(f, "scim.read")
	nobody, _ := s.holder(f)
	program := s.program(f, map[string]any{
		"authorized_grant_types": []string{"client_credentials", "password", "refresh_token"},
		"scope":                  []string{account.ScopeRead}})
	person := s.person(f, unique("fuzz"))
	names := map[string]string{
		"id":       person.ID,
		"user":     person.UserName,
		"memberId": person.ID,
		"group":    s.group(f, "scim.read"),
		"client":   program,
		"refresh": s.token(f, cf, "grant_type", "password", "username", person.UserName, "password",
			person.UserName+"-password").token(f).RefreshToken,
	}

	const (
		post       = "POST /uaa/Users\nContent-Type: application/json\n\n"
		put        = "PUT /uaa/Users/{id}\nIf-Match: *\n\n"
		postClient = "POST /uaa/oauth/clients\n\n"
		token      = "POST /uaa/oauth/token\nContent-Type: application/x-www-form-urlencoded\n"
		asCF       = "Authorization: Basic Y2Y6\n\n"
	)
	seeds := []string{
		"GET /uaa/Users/{id}", "HEAD /uaa/Users/{id}", "DELETE /uaa/Users/{id}",
		"PATCH /uaa/Users/{id}\nIf-Match: 0\n\n{\"active\":false}",
		"PATCH /uaa/Users/{id}\nIf-Match: \"*\"\n\n{\"active\":true,\"emails\":[{}]}",
		"PUT /uaa/Users/{id}\n\n{}", "PUT /uaa/Users/{id}/password\n\n{\"password\":\"{secret}\"}",
		"PUT /uaa/Users/{id}/password\n\n{\"password\":\"\",\"oldPassword\":[]}", "POST /uaa/Users/{id}/password\n\n{}",
		"GET /uaa/Groups/{group}", "GET /uaa/Groups/{group}/members?returnEntities=true",
		"POST /uaa/Groups/{group}/members\n\n{\"value\":\"{id}\",\"type\":\"USER\",\"origin\":\"uaa\"}",
		"POST /uaa/Groups/{group}/members\n\n{\"value\":\"\"}", "DELETE /uaa/Groups/{group}/members/{id}",
		"GET /uaa/oauth/clients/{client}", "DELETE /uaa/oauth/clients/cf", "GET /uaa/oauth/clients/cf",
		"PUT /uaa/oauth/clients/{client}\n\n{\"client_id\":\"{client}\",\"authorized_grant_types\":[\"client_credentials\"]," +
			"\"scope\":[\"uaa.none\"]}",
		"PUT /uaa/oauth/clients/{client}/secret\n\n{\"secret\":\"{secret}\",\"oldSecret\":null}", "GET /uaa/oauth/authorize",
		"GET //uaa/login", "GET /uaa/Users/%00", "DELETE /uaa/oauth/token", "OPTIONS *",
		"GET /uaa/Users\nAuthorization: Basic cm9vdDpyb290LXBhc3N3b3Jk", "GET /uaa/Users\nAuthorization: Bearer ..",
		"GET /uaa/Users\nAuthorization: bearer " +
			"rolecall_pat_00000000000000000000000000000000_0000000000000000000000000000000000000000",
	}
	for _, body := range []string{
		`{"userName":"fuzz","emails":[{"value":"a","primary":null}],"name":{"givenName":"\u0085"}}`,
		`{"userName":"\u00a0","origin":""}`, `{"userName":"x","emails":[]}`,
		`{"userName":"\u2028x","active":null,"verified":true}`, `{"userName":"x","emails":[{"primary":true}]}`,
		`{"userName":"x","password":""}`, `{"userName":"x","password":"{secret}"}`, `[{}]`, `null`, "\xff",
		`{"userName":"😀","origin":"😀","emails":[{"value":"\t"}]}`, `{"userName":"{user}"}`,
	} {
		seeds = append(seeds, post+body, put+body)
	}
	for _, body := range []string{
		`{"client_id":"fuzz-new","client_secret":"{secret}","authorized_grant_types":["client_credentials"],` +
			`"authorities":["cloud_controller.read"],` +
			`"scope":["scim.read"],"name":"x"}`,
		`{"client_id":"a/b%","client_secret":"its-secret","authorized_grant_types":["password","refresh_token"]}`,
		`{"client_id":"cf","client_secret":"its-secret","authorized_grant_types":["password"]}`,
		`{"client_id":"x","authorized_grant_types":["implicit"]}`,
		`{"client_id":"{client}","client_secret":"its-secret","authorized_grant_types":["client_credentials"],"authorities":"x"}`,
	} {
		seeds = append(seeds, postClient+body)
	}
	for _, filter := range []string{
		`userName eq "{user}" and (origin eq "uaa" or id eq "\u00e9")`, `(((`, `userName eq "\`, `id EQ "1"OR(id eq "2")`,
		`id eq "\u0000"`, `userName eq ""`, `externalId eq "x" and active eq "true"`,
	} {
		for _, path := range []string{"Users", "Groups", "oauth/clients"} {
			seeds = append(seeds, "GET /uaa/"+path+"?filter="+strings.ReplaceAll(url.QueryEscape(filter), "%7Buser%7D",
				"{user}")+"&startIndex=1&count=2&sortBy=x")
		}
	}
	for _, query := range []string{"startIndex=0&count=-1", "startIndex=99999999999&count=x", "count=501&count=1",
		"startIndex=+1&count=٣", "password={secret}", "%zz"} {
		seeds = append(seeds, "GET /uaa/Users?"+query)
	}
	for _, form := range []string{
		"grant_type=password&username={user}&password={secret}&scope=cloud_controller.read",
		"grant_type=password&username={user}&password={secret}&login_hint=%7B%22origin%22%3A%22ldap%22%7D",
		"grant_type=refresh_token&refresh_token={refresh}&scope=", "grant_type=refresh_token&refresh_token=x",
		"grant_type=client_credentials", "grant_type=", "grant_type=authorization_code&code=x",
		"grant_type=password&grant_type=password", "a=%zz", "grant_type=password&username=%00&password=%FF",
		"client_id=cf&client_secret=&grant_type=password", "=&=;", "",
	} {
		seeds = append(seeds, token+asCF+form, token+"\n"+form+"&client_id={client}&client_secret={secret}",
			token+"Authorization: Basic Og==\n\n"+form)
	}
	seeds = append(seeds, "POST /uaa/oauth/token?password={secret}\n"+asCF,
		"POST /uaa/oauth/token?login_hint=x&grant_type=\n"+asCF,
		"POST /uaa/oauth/token\nContent-Type: application/json\n"+asCF+"{}")

	apitest.Load(f, "uaa.yaml").Fuzz(f, apitest.Target{
		Handler:       newAPI(s.Service, 0),
		Authorization: []string{"Bearer " + s.root(f), "Bearer " + reader, "Bearer " + nobody},
		Names:         names,
		Seeds:         seeds,
		Then: func(t *testing.T, send apitest.Send, r *http.Request, a apitest.Answer) {
			switch {
			case r.Method == "POST" && a.Status == 201 && strings.Contains(a.Body, `"client_id"`):
				var made struct {
					ID string `json:"client_id"`
				}
				a.Into(t, &made)
				place := uaa.Prefix + "/oauth/clients/" + url.PathEscape(made.ID)
				if read := send("GET", place, ""); read.Body != a.Body {
					t.Errorf("made %s, read %s", a.Body, read.Body)
				}
				if a := send("DELETE", place, ""); a.Status != 200 {
					t.Errorf("%s cannot be deleted: %s", place, a.Body)
				}
			case r.Method == "POST" && a.Status == 201 && strings.Contains(a.Body, `"userName"`):
				made := answer{a}.user(t)
				place := uaa.Prefix + "/Users/" + made.ID
				if read := (answer{send("GET", place, "")}).user(t); read.ID != made.ID || read.UserName != made.UserName {
					t.Errorf("made %+v, read %+v", made, read)
				}
				if a := send("DELETE", place, ""); a.Status != 200 {
					t.Errorf("%s cannot be deleted: %s", place, a.Body)
				}
			case r.Method == "DELETE" && a.Status == 200 && strings.Contains(r.URL.Path, "/Users/"):
				person := answer{send("POST", uaa.Prefix+"/Users", object(map[string]any{"userName": unique("fuzz")}))}.user(t)
				names["id"], names["memberId"], names["user"] = person.ID, person.ID, person.UserName
			case r.Method == "DELETE" && a.Status == 200 && strings.Contains(r.URL.Path, "/clients/"):
				send("POST", uaa.Prefix+"/oauth/clients", object(
					map[string]any{"client_id": program, "client_secret": "its-secret",
						"authorized_grant_types": []string{"client_credentials"}}))
			}
		},
	})
}
