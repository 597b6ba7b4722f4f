package client_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"rolecall/internal/client"
)

const leaseJSON = `{"id":"l","cluster":"c","for":"shop","username":"shop_k4m2x7qa",
	"connection":{"host":"h","port":5432,"databases":["shop"],"url":"postgresql://shop_k4m2x7qa@h:5432/shop"},
	"state":"active","createdAt":"2026-03-02T09:41:07Z","expiresAt":"2026-03-02T10:41:07Z",
	"maxExpiresAt":"2026-03-03T09:41:07Z","renewedAt":null,"endedAt":null,"endReason":null,"blockedBy":[],
	"account":{"guid":"g","username":"alice"},"credential":null,"note":"n","password":"p-secret"}`

// Every call sends what the API has, and returns what is answered.
func TestLeasesAndCredentials(t *testing.T) {
	t.Parallel()
	const credential = `{"name":"a/b","cluster":"c","for":"shop","rotateEvery":"720h","overlap":"24h",
		"window":{"days":["sat"],"from":"02:00","to":"04:00","timezone":"UTC"},"username":null,"state":"failing",
		"lastError":"no","rotatedAt":null,"rotatesAt":"2026-03-02T09:41:07Z","createdAt":"2026-03-02T09:41:07Z",
		"createdBy":"g"}`
	var sent, answer string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Method, strings.TrimPrefix(r.URL.RequestURI(), "/rolecall/v1"),
			r.Header.Get("If-Match"), body))
		if answer == "" {
			w.WriteHeader(http.StatusNoContent)
		}
		_, _ = io.WriteString(w, answer)
	}, "token")
	ctx, cl := t.Context(), &client.ClusterRef{ID: "c"}
	check := func(want string, err error) {
		t.Helper()
		if got := strings.Join(strings.Fields(sent), " "); err != nil || got != want {
			t.Errorf("sent %s, want %s: %v", got, want, err)
		}
	}

	answer = leaseJSON
	l, err := c.CreateLease(ctx, cl, client.NewLease{For: "shop", TTL: "1h", Note: "n"})
	check(`POST /clusters/c/leases {"for":"shop","ttl":"1h","note":"n"}`, err)
	if string(l.Password) != "p-secret" || l.Connection.Port != 5432 || l.Account.Username != "alice" ||
		l.ExpiresAt.Sub(l.CreatedAt) != time.Hour || l.RenewedAt != nil || l.EndReason != "" {
		t.Errorf("got %+v", l)
	}
	if printed, err := json.Marshal(l); err != nil || strings.Contains(fmt.Sprintf("%+v %s", l, printed), "p-secret") {
		t.Errorf("the password is printed: %+v, %v", l, err)
	}
	_, err = c.Lease(ctx, "l")
	check("GET /leases/l", err)
	_, err = c.RenewLease(ctx, "l", "2h")
	check(`POST /leases/l/renew {"ttl":"2h"}`, err)
	_, err = c.RenewLease(ctx, "l", "")
	check(`POST /leases/l/renew {}`, err)
	blocked, err := c.EndLease(ctx, "l")
	check("DELETE /leases/l", err)
	if blocked == nil || blocked.ID != "l" {
		t.Errorf("a blocked lease is %+v", blocked)
	}
	answer = ""
	if blocked, err := c.EndLease(ctx, "l"); err != nil || blocked != nil {
		t.Errorf("an ended lease is %+v, %v", blocked, err)
	}
	answer = `{"items":[` + leaseJSON + `],"next":null}`
	leases, err := c.Leases(ctx, cl, map[string][]string{"state": {"active", "blocked"}})
	check("GET /clusters/c/leases?state=active&state=blocked", err)
	if len(leases) != 1 || leases[0].ID != "l" {
		t.Errorf("got %+v", leases)
	}
	_, err = c.Leases(ctx, nil, nil)
	check("GET /leases", err)

	answer = credential
	settings := client.CredentialSettings{For: "shop", RotateEvery: "30d", Overlap: "24h"}
	cr, err := c.PutCredential(ctx, cl, "a/b", settings, "")
	check(`PUT /clusters/c/credentials/a%2Fb {"for":"shop","rotateEvery":"30d","overlap":"24h","window":null}`, err)
	if cr.Name != "a/b" || cr.Username != "" || cr.Window.Days[0] != "sat" || cr.LastError != "no" || cr.RotatedAt != nil {
		t.Errorf("got %+v", cr)
	}
	settings.Window = cr.Window
	_, err = c.PutCredential(ctx, cl, "x", settings, `"3"`)
	check(`PUT /clusters/c/credentials/x "3" {"for":"shop","rotateEvery":"30d","overlap":"24h","window":{"days":["sat"],`+
		`"from":"02:00","to":"04:00","timezone":"UTC"}}`, err)
	_, err = c.Credential(ctx, cl, "x")
	check("GET /clusters/c/credentials/x", err)
	_, err = c.RotateCredential(ctx, cl, "x")
	check("POST /clusters/c/credentials/x/rotate", err)
	answer = `{"items":[` + credential + `],"next":null}`
	credentials, err := c.Credentials(ctx, cl)
	check("GET /clusters/c/credentials", err)
	if len(credentials) != 1 || credentials[0].For != "shop" {
		t.Errorf("got %+v", credentials)
	}
	answer = `{"username":"u","password":"p-secret","connection":{"url":"postgresql://u@h/d"},"expiresAt":` +
		`"2026-03-02T09:41:07Z","rotatesAt":"2026-03-02T09:41:07Z"}`
	current, err := c.CurrentCredential(ctx, cl, "x")
	check("GET /clusters/c/credentials/x/current", err)
	if string(current.Password) != "p-secret" || strings.Contains(fmt.Sprintf("%+v", current), "p-secret") {
		t.Errorf("got %+v", current)
	}
	answer = ""
	check(`DELETE /clusters/c/credentials/x "4"`, c.DeleteCredential(ctx, cl, "x", `"4"`))

	answer = `{"id":"t","name":"n","secret":"p-secret","credentials":["c/x"]}`
	token, err := c.CreateToken(ctx, client.NewToken{Name: "n", Credentials: []string{"c/x"}})
	check(`POST /tokens {"name":"n","clusters":null,"credentials":["c/x"],"expiresAt":null}`, err)
	if string(token.Secret) != "p-secret" || strings.Contains(fmt.Sprintf("%+v", token), "p-secret") ||
		len(token.Credentials) != 1 {
		t.Errorf("got %+v", token)
	}
	answer = `[]`
	if _, err := c.Lease(ctx, "l"); err == nil {
		t.Error("another answer than a lease is no error")
	}
}
