package vaultapi_test

import (
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/dbuser"
)

// FuzzRequest holds whole requests against the document.
func FuzzRequest(f *testing.F) {
	x, role := leaseFixture(f)
	_, username, token := x.person(f, "leases")
	_, readersName, _ := x.person(f, "readers")
	// Not the tokens that the sign-ins gave: a renewal repeats these.
	manager, err := x.id.MintFor(f.Context(), username, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	reader, err := x.id.MintFor(f.Context(), readersName, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	admin := &account.Principal{GUID: "test", Scopes: account.AdminScopes}
	if _, _, _, err := x.Users.PutCredential(f.Context(), admin, x.ClusterID, "fuzz", dbuser.CredentialSettings{For: role,
		RotateEvery: 24 * time.Hour}, nil); err != nil {
		f.Fatal(err)
	}
	names := map[string]string{"mount": "main", "role": role, "name": "fuzz", "user": username,
		"leaseId": x.take(f, token, role).LeaseID}
	seeds := []string{
		"GET /v1/sys/health?sealedcode=x", "HEAD /v1/sys/health", "GET /v1/sys/health?list=true", "LIST /v1/main/creds",
		"GET //v1/main/creds/%00", "GET /v1/%ff/creds/x", "GET /v1/main/creds/x/", "GET /v1/main/static-creds/%2F",
		"GET /v1/sys/mounts", "DELETE /v1/main/creds/x", "GET /v1/auth/token/lookup-self\nX-Vault-Wrap-TTL: 5m",
		"GET /v1/auth/token/lookup-self\nX-Vault-Namespace: \u00e4", "GET /v1/auth/token/lookup-self\nX-Vault-Token: x",
		"POST /v1/auth/userpass/login/{user}\n\n{\"password\":\"{secret}\"}",
		"POST /v1/auth/userpass/login/%00\n\n{\"password\":\"x\"}",
		"PUT /v1/auth/jwt/login\n\n{\"jwt\":\"a.b.c\",\"role\":[]}", "POST /v1/auth/kubernetes/login\n\n{\"jwt\":null}",
		"PUT /v1/auth/token/renew-self\n\n{\"increment\":[]}", "PUT /v1/auth/token/renew-self\n\n[]",
	}
	for _, body := range []string{
		`{"lease_id":"{leaseId}","increment":60}`, `{"lease_id":"{leaseId}","increment":"7d"}`,
		`{"lease_id":"{leaseId}","increment":-1}`,
		`{"lease_id":"{leaseId}","increment":1e400}`, `{"lease_id":"{leaseId}","increment":null}`, `{"lease_id":"\u0000"}`,
		`{"lease_id":"x/creds/y/00000000-0000-0000-0000-000000000000"}`, `{"lease_id":[]}`, `{}`, `null`, "\xff", "",
	} {
		for _, path := range []string{"leases/renew", "leases/lookup", "leases/lookup/{leaseId}", "renew/{leaseId}"} {
			seeds = append(seeds, "PUT /v1/sys/"+path+"\n\n"+body)
		}
	}
	apitest.Load(f, "vault.yaml").Fuzz(f, apitest.Target{
		Handler:       x.api,
		Authorization: []string{"Bearer " + manager, "Bearer " + reader},
		Names:         names,
		Seeds:         seeds,
		// A body is JSON here, whatever its media type: OpenAPI cannot say that. And only some requests may end the lease or
		// the token that the others use, or make another lease, which costs a role.
		Spare: func(r *http.Request, _ string) bool {
			media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			json := media == "" || strings.HasSuffix(media, "json")
			return err != nil && r.Header.Get("Content-Type") != "" || !json || strings.Contains(r.URL.Path, "revoke") ||
				strings.Contains(r.URL.Path, "/creds/")
		},
	})
}
