package adminapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rolecall/internal/account"
)

type webhookResource struct {
	ID, Name, URL, State, Secret string
	Events                       []string
	DeliveredSeq, Backlog        int64
	LastError                    *string
	PreviousSecretUntil          *string
}

// TestWebhooks walks through all operations. What is delivered is tested in package event.
func TestWebhooks(t *testing.T) {
	f := newFixture(t)
	f.seal(t)
	status, got := 204, make(chan http.Header, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		got <- r.Header
	}))
	defer receiver.Close()
	body := fmt.Sprintf(`{"name":"siem","url":%q}`, receiver.URL)
	var made, w webhookResource
	a := f.want(t, 201, "POST", "/webhooks", body, "Idempotency-Key: one-webhook")
	a.Into(t, &made)
	if !strings.HasSuffix(a.Header.Get("Location"), "/webhooks/"+made.ID) || !strings.HasPrefix(made.Secret, "whsec_") ||
		made.State != "ACTIVE" || fmt.Sprint(made.Events) != "[*]" || made.DeliveredSeq == 0 || made.Backlog != 0 {
		t.Errorf("it was created as %s", a.Body)
	}
	if again := f.want(t, 201, "POST", "/webhooks", body, "Idempotency-Key: one-webhook"); again.Body != a.Body {
		t.Errorf("the repeated request was answered with %s", again.Body)
	}
	f.do(t, "POST", "/webhooks", body).refused(t, 409, "siem")
	f.do(t, "POST", "/webhooks", `{"name":"x"}`).refused(t, 422, "url")
	f.do(t, "POST", "/webhooks", `{"url":"https://8.8.8.8"}`).refused(t, 422, "name")
	f.do(t, "POST", "/webhooks", `{"name":"x","url":"https://u:hunter2@8.8.8.8"}`).refused(t, 422, "user name or password")
	f.do(t, "POST", "/webhooks", `{"name":"x","url":"https://8.8.8.8","events":["nothing.*"]}`).refused(t, 422, "nothing.*")
	at := "/webhooks/" + made.ID
	f.want(t, 200, "PATCH", at, `{"state":"PAUSED","events":["user.*"],"name":"renamed"}`).Into(t, &w)
	if w.State != "PAUSED" || w.Name != "renamed" || fmt.Sprint(w.Events) != "[user.*]" || w.Secret != "" {
		t.Errorf("it was changed to %+v", w)
	}
	f.do(t, "PATCH", at, `{"state":"FAILED"}`).refused(t, 422, "ACTIVE or PAUSED")
	f.seal(t)
	f.want(t, 200, "GET", at, "").Into(t, &w)
	if w.Backlog == 0 {
		t.Errorf("it is %+v", w)
	}
	var test struct {
		Accepted bool
		Error    *string
	}
	f.want(t, 200, "POST", at+"/test", "").Into(t, &test)
	if header := <-got; !test.Accepted || test.Error != nil || header.Get("Webhook-Signature") == "" {
		t.Errorf("the test: %+v, %v", test, header)
	}
	status = 500
	f.want(t, 200, "POST", at+"/test", "").Into(t, &test)
	if <-got; test.Accepted || test.Error == nil || !strings.Contains(*test.Error, "500") {
		t.Errorf("the failed test: %+v", test)
	}
	f.want(t, 200, "POST", at+"/replay", `{"fromSeq":1}`).Into(t, &w)
	if w.State != "ACTIVE" || w.DeliveredSeq != 0 {
		t.Errorf("after the replay it is %+v", w)
	}
	f.do(t, "POST", at+"/replay", `{"fromSeq":1000000}`).refused(t, 422, "1000000")
	f.do(t, "POST", at+"/replay", `{}`).refused(t, 422, "fromSeq")
	var rotated webhookResource
	f.want(t, 200, "POST", at+"/rotate-secret", "").Into(t, &rotated)
	if rotated.Secret == made.Secret || !strings.HasPrefix(rotated.Secret, "whsec_") || rotated.PreviousSecretUntil == nil {
		t.Errorf("after the rotation it is %+v", rotated)
	}
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	var l struct{ Items []webhookResource }
	f.as(t, "auditor", "GET", "/webhooks", "").Into(t, &l)
	if len(l.Items) != 1 || l.Items[0].ID != made.ID {
		t.Errorf("the list is %+v", l)
	}
	f.as(t, "auditor", "DELETE", at, "").refused(t, 403, account.ScopeAdmin)
	f.want(t, 204, "DELETE", at, "")
	f.do(t, "GET", at, "").refused(t, 404, made.ID)
	f.seal(t)
	actions := []string{}
	for _, row := range f.audit(t, "root", "?limit=1000").Items {
		if strings.HasPrefix(row.Action, "webhook.") {
			detail, _ := json.Marshal(row.Detail)
			actions = append(actions, row.Action+" "+row.User+" "+*row.Outcome)
			if strings.Contains(string(detail), "whsec_") {
				t.Errorf("the detail has a secret: %s", detail)
			}
		}
	}
	want := "webhook.create siem done, webhook.update renamed done, webhook.replay renamed done, " +
		"webhook.rotate_secret renamed done, webhook.delete " + made.ID + " denied, webhook.delete renamed done"
	if strings.Join(actions, ", ") != want {
		t.Errorf("the audit log has\n%s, want\n%s", strings.Join(actions, ", "), want)
	}
	if log := f.Log.String(); strings.Contains(log, made.Secret) || strings.Contains(log, rotated.Secret) ||
		strings.Contains(log, "hunter2") {
		t.Error("the log has a secret")
	}
}
