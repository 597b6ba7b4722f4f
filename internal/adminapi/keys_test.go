package adminapi_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/adminapi"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

func TestRotateKeys(t *testing.T) {
	f := newFixture(t)
	old, next := f.MasterKey, control.NewMasterKey()
	ring := func(keys ...string) *control.Keyring {
		t.Helper()
		k, err := control.ParseKeyring(strings.Join(keys, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	type rotation struct {
		MasterKey, SigningKey string
		Resealed              int
	}
	rotate := func(body string) (r rotation) {
		t.Helper()
		f.want(t, 200, "POST", "/keys/rotate", body).Into(t, &r)
		return r
	}
	if _, err := f.Audit.Seal(t.Context()); err != nil { // makes the first key of the chain
		t.Fatal(err)
	}

	// Under the key that seals already there is nothing to do. Then the keyring of the server is exchanged, as by a restart.
	if r := rotate(""); r.Resealed != 0 || r.SigningKey != "" {
		t.Errorf("got %+v", r)
	}
	empty, err := http.NewRequestWithContext(t.Context(), "POST", f.URL+adminapi.Prefix+"/keys/rotate", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	empty.Body, empty.TransferEncoding = io.NopCloser(strings.NewReader("")), []string{"chunked"}
	empty.SetBasicAuth("root", "root-password")
	if res, err := http.DefaultClient.Do(empty); err != nil || res.StatusCode != 200 {
		t.Errorf("an empty body in chunks: %+v, %v", res, err)
	}
	f.DB.Keys = ring(next, old)
	c, err := f.Clusters.Get(f.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := c.Pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	etag := f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "").Header.Get("ETag")

	f.Account(t, "anna", slices.Concat(account.DefaultScopes, []string{account.ScopeAdminReadOnly, account.ScopeSCIMWrite}),
		nil)
	f.as(t, "anna", "POST", "/keys/rotate", "").refused(t, 403, account.ScopeAdmin)
	for _, body := range []string{`{"name":"r","readOnly":true}`, `{"name":"c","clusters":["` + f.ClusterID + `"]}`} {
		f.with(t, f.token(t, "root", body), "POST", "/keys/rotate", "").refused(t, 403, account.ScopeAdmin)
	}
	for body, status := range map[string]int{`{`: 400, `[]`: 422, `null`: 422, `{"signingKey":null}`: 422,
		`{"signingKey":"yes"}`: 422, `{"signingkey":true}`: 422} {
		f.do(t, "POST", "/keys/rotate", body).refused(t, status)
	}
	f.do(t, "POST", "/keys/rotate?x=1", "").refused(t, 400)
	f.do(t, "POST", "/keys/rotate", `{}`, "Content-Type: text/plain").refused(t, 415)
	if err := f.start(t, ring(old)); err != nil {
		t.Errorf("a refused request has re-encrypted values: %v", err)
	}

	r := rotate(`{"signingKey":true}`)
	if r.Resealed != 4 || !strings.HasPrefix(r.SigningKey, "rolecall-") {
		t.Errorf("got %+v", r)
	}
	if again := rotate(`{}`); again.Resealed != 0 || again.MasterKey != r.MasterKey || again.SigningKey != "" {
		t.Errorf("again: %+v", again)
	}
	rows := f.AuditRows(t, r.MasterKey)
	if len(rows) != 2 || rows[0].Action != audit.RotateKeys || rows[0].Outcome != "done" ||
		!strings.Contains(rows[0].Detail, `"signing_keys.private_key": 1`) {
		t.Errorf("recorded is %+v", rows)
	}
	if rows := f.AuditRows(t, r.SigningKey); len(rows) != 1 || rows[0].Action != audit.MakeSigningKey ||
		rows[0].Account == "rolecall" {
		t.Errorf("recorded is %+v", rows)
	}
	var denied int
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM audit WHERE action = 'keys.rotate' AND outcome = 'denied'`).
		Scan(&denied); err != nil || denied != 3 {
		t.Errorf("%d refusals are recorded; %v", denied, err)
	}

	// The cluster is the same to everybody, and keeps its pool.
	if err := f.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := f.Clusters.Get(f.ClusterID)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := now.Pool(t.Context()); err != nil || p != pool {
		t.Errorf("the pool is another one: %v", err)
	}
	if got := f.want(t, 200, "GET", "/clusters/"+f.ClusterID, "").Header.Get("ETag"); got != etag {
		t.Errorf("the ETag was %s and is %s", etag, got)
	}

	// The new key alone opens everything, the old one alone nothing.
	if err := f.start(t, ring(next)); err != nil {
		t.Errorf("with the new key alone: %v", err)
	}
	for name, open := range f.starts(t, ring(old)) {
		if err := open(); err == nil || !strings.Contains(err.Error(), "master key "+r.MasterKey) {
			t.Errorf("%s with the old key alone: %v", name, err)
		}
	}
}

// starts is what opens seals when a server starts, with other master keys.
func (f *fixture) starts(t *testing.T, keys *control.Keyring) map[string]func() error {
	t.Helper()
	other := &control.DB{Pool: f.DB.Pool, Keys: keys}
	log := slog.New(slog.DiscardHandler)
	return map[string]func() error{
		"control": func() error { return other.CheckKeys(context.Background()) },
		"identity": func() error {
			_, err := identity.New(context.Background(), other, identity.Config{Issuer: servicetest.PublicURL, Log: log})
			return err
		},
		"clusters": func() error {
			r, err := cluster.Open(context.Background(), other, log)
			if err == nil {
				r.Close()
			}
			return err
		},
	}
}

// start says why a server does not start with these master keys.
func (f *fixture) start(t *testing.T, keys *control.Keyring) error {
	t.Helper()
	for _, open := range f.starts(t, keys) {
		if err := open(); err != nil {
			return err
		}
	}
	return nil
}
