package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
)

// TestConsoleLive: a row appears in an open live view of the audit log by itself, once, above those that are there.
func TestConsoleLive(t *testing.T) {
	t.Parallel()
	e := dev(t)
	header := map[string]string{"Content-Type": "application/json",
		"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(e.username+":"+e.password))}
	made := send(t, "POST", "/rolecall/v1/accounts", header, `{"username":"live view"}`)
	var account struct{ GUID string }
	if err := json.Unmarshal([]byte(made.body), &account); err != nil || made.status != 201 {
		t.Fatalf("a new account: %d %s %v", made.status, made.body, err)
	}
	b := openTab(t, shared.env["ROLECALL_URL"], anyHands[0])
	b.signIn(e)
	b.open("/console/audit?live=1&action=account.update&user=" + account.GUID)
	for i := range 3 {
		body := fmt.Sprintf(`{"annotations":{"note":"%d"}}`, i)
		if r := send(t, "PATCH", "/rolecall/v1/accounts/"+account.GUID, header, body); r.status != 200 {
			t.Fatalf("a change: %d %s", r.status, r.body)
		}
		b.until("the row appears", fmt.Sprintf(`document.querySelectorAll("tbody tr").length === %d`, i+1))
	}
	sorted := `(times => times.every((t, i) => i === 0 || t <= times[i-1]))(
		[...document.querySelectorAll("tbody time")].map(t => Date.parse(t.dateTime)))`
	if !eval[bool](b, sorted) {
		t.Error("the newest row is not above the others")
	}
	b.noProblems()
}
