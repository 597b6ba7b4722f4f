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
func TestLeases(t *testing.T) {
	t.Parallel()
	var sent, answer string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent = fmt.Sprintf("%s %s %s", r.Method, strings.TrimPrefix(r.URL.RequestURI(), "/rolecall/v1"), body)
		if answer == "" {
			w.WriteHeader(http.StatusNoContent)
		}
		_, _ = io.WriteString(w, answer)
	}, "token")
	ctx, cl := t.Context(), &client.ClusterRef{ID: "c"}
	check := func(want string, err error) {
		t.Helper()
		if got := strings.TrimSpace(sent); err != nil || got != want {
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
	answer = `[]`
	if _, err := c.RenewLease(ctx, "l", ""); err == nil {
		t.Error("another answer than a lease is no error")
	}
}
