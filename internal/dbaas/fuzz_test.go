package dbaas_test

import (
	"net/http"
	"testing"
	"time"

	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
	"rolecall/internal/identity"
)

// FuzzRequest holds whole requests against the document. What is created is read at its own URL, and deleted.
func FuzzRequest(f *testing.F) {
	s := newFixture(f)
	s.Account(f, "fuzz-nobody", nil, nil)
	mint := func(username string) string {
		token, err := s.Identity.MintFor(f.Context(), username, 12*time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		return "Bearer " + token
	}
	admin, err := s.Identity.Authenticate(f.Context(), identity.ParseCredential(mint("root")), "")
	if err != nil {
		f.Fatal(err)
	}
	_, readOnly, err := s.Identity.CreatePersonalToken(f.Context(), admin,
		identity.NewPersonalToken{Name: "fuzz", ReadOnly: true})
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"fuzz-ann", "fuzz-bob"} {
		s.do(f, "POST", s.users(), userBody(name, password))
	}

	const (
		postUser = "POST /databases/postgresql/clusters/{clusterId}/users\nContent-Type: application/json\n\n"
		ann      = " /databases/postgresql/clusters/{clusterId}/users/fuzz-ann"
		patchAnn = "PATCH" + ann + "\nIf-Match: *\n\n"
		list     = "GET /databases/postgresql/clusters/{clusterId}/users?"
		postDB   = "POST /databases/postgresql/clusters/{clusterId}/databases\n\n"
	)
	seeds := []string{
		"GET" + ann, "HEAD" + ann, "PUT" + ann, "DELETE" + ann, "DELETE" + ann + "?reassignTo=fuzz-bob",
		"DELETE" + ann + "?reassignTo=fuzz-bob&onBlocked=disable",
		"DELETE" + ann + "?reassignTo=postgres", "DELETE" + ann + "?onBlocked=x&reassignTo=", "DELETE" + ann + "\nIf-Match: \"0\"",
		"PATCH" + ann + "\nIf-Match: W/\"1\", \"2\n\n{}",
		"PATCH" + ann + "\nContent-Type: text/plain\n\n{}", "GET /databases/postgresql/clusters/{clusterId}/users/..",
		"GET /databases/postgresql/clusters/{clusterId}/users/postgres",
		"GET //databases/postgresql/clusters//users/%2F", "DELETE /databases/postgresql/clusters/{clusterId}/users/",
		"GET /databases/postgresql/clusters/{clusterId}/users/a%00%FF",
		"OPTIONS *", "GET http://rolecall.test/databases/postgresql/clusters",
		"GET /databases/postgresql/clusters?limit=1&offset=x&filter.name=m",
		"GET /databases/postgresql/clusters\nAuthorization: Basic Og==",
		"GET /databases/postgresql/clusters\nAuthorization: bearer rolecall_pat_",
		"GET /\nOrigin: https://evil.example\nSec-Fetch-Site: cross-site",
		"POST /databases/postgresql/clusters\nX-Forwarded-For: 10.0.0.1, 192.0.2.7\nX-Request-Id: a\\nb\nX-Forwarded-For: \n\n{}",
		"DELETE /databases/postgresql/clusters/{clusterId}/databases/postgres",
		"DELETE /databases/postgresql/clusters/{clusterId}/databases/template1",
		postDB + `{"properties":{"name":"fuzz-db","owner":"fuzz-ann"}}`,
		postDB + `{"properties":{"name":"postgres","owner":"fuzz-ann"}}`,
		postDB + `{"properties":{"name":"fuzz\n","owner":"fuzz-nobody"}}`,
	}
	for _, body := range []string{
		`{"properties":{"username":"fuzz","password":"{secret}"}}`, `{"properties":{"username":"pg_x","password":"{secret}"}}`,
		`{"properties":{"username":"postgres","password":"{secret}"}}`,
		`{"properties":{"username":"..","password":"1234567890"}}`,
		`{"properties":{"username":"a\u0000","password":"1234567890"}}`,
		`{"properties":{"username":"\u0085","password":"1234567890"}}`,
		`{"properties":{"username":"none","password":"123456789é"}}`,
		`{"properties":{"username":"ééééééééééééééééééééééééééééééééé","password":"1234567890"}}`,
		`{"properties":{"username":"we/ird %2F","password":"{secret}"}}`,
		`{"properties":{"username":"x","password":"🙂🙂🙂🙂🙂🙂🙂🙂🙂"}}`, `{"properties":{"username":"pg_\n","password":"1234567890"}}`,
		`{"properties":{"username":"x","password":null}}`, `{"properties":{}}`, `{"properties":[]}`, `[]`, `{}`, ``,
		`{"properties":{"username":"x","password":"1234567890","system":[]}}`,
		`{"properties":{"username":"x","password":"1234567890"},"properties":1}`, "\xff", `1`, `"`,
		`{"properties":{"username":"\ud800","password":"1234567890"}}`,
	} {
		seeds = append(seeds, postUser+body)
	}
	for _, body := range []string{
		`{"properties":{"password":"{secret}"}}`, `{"properties":{}}`, `{"properties":{"username":"fuzz-ann"}}`,
		`{"properties":{"username":"other"}}`,
		`{"properties":{"password":""}}`, `{"properties":{"password":null}}`, `{"properties":null}`, `{"x":{}}`, `null`,
		`{"properties":{"username":1}}`,
		`{"properties":{"password":"\t234567890"}}`, `{"properties":{"password":"1234567890","x":{"a":1,"a":2}}}`,
		`{"properties":{"password":"{secret}`,
	} {
		seeds = append(seeds, patchAnn+body)
	}
	for _, query := range []string{
		"limit=1&offset=0&system=true", "limit=1000&offset=5&system=False", "limit=0&offset=-1&system=1",
		"limit=1001&offset=99999999999&system=t", "limit=abc&offset=1e3&system=FALSE", "limit=&offset=&system=",
		"limit=%2B1&offset=0x10&system=yes", "limit=1.0&offset=1.&system=truE", "limit=%201&offset=1%20&system=%20true",
		"limit=1_0&offset=٣&system=ſalse", "limit=007&offset=-0&system=T",
		"after=a&limit=1", "after=%FF&offset=7", "after=", "after=%00", "after='&system=true",
		"limit=1,2&offset=1;2&system=true,false", "limit=1&limit=2", "%zz", "password={secret}",
	} {
		seeds = append(seeds, list+query)
	}

	apitest.Load(f, "dbaas.yaml").Fuzz(f, apitest.Target{
		Handler:       newAPI(s.Service, 0),
		Authorization: []string{basic("root", "root-password"), mint("root"), mint("fuzz-nobody"), "Bearer " + readOnly},
		Names:         map[string]string{"clusterId": s.ClusterID, "username": "fuzz-ann", "databaseName": "postgres"},
		Seeds:         seeds,
		Then: func(t *testing.T, send apitest.Send, r *http.Request, a apitest.Answer) {
			switch {
			case r.Method == "POST" && a.Status == 200:
				var made, read resource
				a.Into(t, &made)
				place := dbaas.Prefix + s.local(t, made.Href)
				send("GET", place, "").Into(t, &read)
				if read.ID != made.ID || read.Properties.Username != made.Properties.Username ||
					read.Properties.Name != made.Properties.Name {
					t.Errorf("made %+v, read %+v", made, read)
				}
				if a := send("DELETE", place, ""); a.Status != 204 {
					t.Errorf("%s cannot be deleted: %s", place, a.Body)
				}
			case r.Method == "DELETE" && a.Status == 204:
				for _, name := range []string{"fuzz-ann", "fuzz-bob"} {
					send("POST", dbaas.Prefix+s.users(), userBody(name, password))
				}
			}
		},
	})
}
