package vaultapi_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/identity"
)

// The current value of a stored credential, for those who may read it, and for a token that reads nothing else.
func TestStaticCredentials(t *testing.T) {
	f, role := leaseFixture(t)
	guid, username, manager := f.person(t, "leases")
	_, _, reader := f.person(t, "readers")
	_, _, stranger := f.person(t, "none")
	admin := &account.Principal{GUID: "test", Scopes: account.AdminScopes}
	name, other := unique("shop web"), unique("other")
	for _, n := range []string{name, other} {
		if _, _, _, err := f.Users.PutCredential(t.Context(), admin, f.ClusterID, n, dbuser.CredentialSettings{For: role,
			RotateEvery: 24 * time.Hour, Overlap: time.Hour}, nil); err != nil {
			t.Fatal(err)
		}
	}
	path := "/main/static-creds/" + url.PathEscape(name)
	first := f.send(t, manager, "GET", path, "").envelope(t)
	rotated, err := time.Parse(time.RFC3339, first.Data["last_vault_rotation"].(string))
	if err != nil || time.Since(rotated).Abs() > time.Minute || first.Data["rotation_period"] != 86400.0 ||
		first.Data["ttl"].(float64) > 86400 || first.Data["ttl"].(float64) < 80000 || len(first.Data) != 5 ||
		first.LeaseID != "" || first.LeaseDuration != 0 || first.Renewable {
		t.Errorf("got %+v, %v", first, err)
	}
	if as := f.logsIn(t, first); as != role {
		t.Errorf("it acts as %q", as)
	}
	if byID := f.send(t, manager, "GET", "/"+f.ClusterID+"/static-creds/"+url.PathEscape(name),
		"").envelope(t); byID.Data["password"] !=
		first.Data["password"] {
		t.Errorf("by the id of the cluster: %v", byID.Data)
	}
	f.send(t, reader, "GET", path, "").want(t, 403, "permission denied")
	f.send(t, stranger, "GET", path, "").want(t, 404)
	f.send(t, manager, "GET", "/main/static-creds/no-such", "").want(t, 400, "unknown role: no-such")

	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+username+"-password"))
	p, err := f.id.Authenticate(t.Context(), identity.ParseCredential(basic), f.address)
	if err != nil {
		t.Fatal(err)
	}
	make := func(n identity.NewPersonalToken) string {
		t.Helper()
		n.Name = unique("token")
		_, token, err := f.id.CreatePersonalToken(t.Context(), p, n)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	limited := make(identity.NewPersonalToken{Credentials: []string{f.ClusterID + "/" + name}})
	if e := f.send(t, limited, "GET", path, "").envelope(t); e.Data["password"] != first.Data["password"] {
		t.Errorf("the token that is limited to it reads %v", e.Data)
	}
	f.send(t, limited, "GET", "/main/static-creds/"+other, "").want(t, 403, "permission denied")
	f.send(t, limited, "GET", "/main/static-creds/no-such", "").want(t, 403, "permission denied")
	f.send(t, make(identity.NewPersonalToken{ReadOnly: true}), "GET", path, "").want(t, 403, "permission denied")
	reads := 0
	for _, row := range f.AuditRows(t, name) {
		if row.Action == "credential.read" && row.Account == guid {
			reads++
		}
	}
	if reads < 3 {
		t.Errorf("%d reads are recorded", reads)
	}

	if _, _, err := f.Users.RotateStored(t.Context(), admin, f.ClusterID, name); err != nil {
		t.Fatal(err)
	}
	second := f.send(t, limited, "GET", path, "").envelope(t)
	if second.Data["username"] == first.Data["username"] || f.logsIn(t, second) != role || f.logsIn(t, first) != role {
		t.Errorf("after a rotation it is %v", second.Data["username"])
	}
	for _, e := range []envelope{first, second} {
		if strings.Contains(f.Log.String(), e.Data["password"].(string)) {
			t.Error("a password is in the log")
		}
	}
}
