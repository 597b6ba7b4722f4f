package adminapi_test

import (
	"log/slog"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/task"
)

type operationAnswer struct {
	ID, State   string
	Plan        []struct{ Username, Skipped, ValidUntil, NewValidUntil string }
	Counts      struct{ Total, Done, Failed, Skipped int }
	Account     struct{ GUID, Username string }
	EndedAt     string
	Total       int
	Unreachable []struct{ Error string }
}

// work does what is due.
func (f *fixture) work(t testing.TB) {
	t.Helper()
	w := &task.Worker{DB: f.DB, Log: slog.New(slog.NewTextHandler(f.Log, nil)), Kinds: f.Fleet.Tasks()}
	if _, err := w.RunDue(t.Context()); err != nil {
		t.Error(err)
	}
}

// A plan changes nothing. An operation is started, carried out, listed and canceled.
func TestOperation(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "many_one")
	f.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	if _, _, err := f.Users.CreateUser(t.Context(), f.principal("manager"), f.ClusterID, "many_two", rolePassword); err != nil {
		t.Fatal(err)
	}
	const filter = `{"action": "disable", "filter": {"name": "many_*"}}`
	a := f.as(t, "manager", "POST", "/operations?plan=true", filter)
	var o operationAnswer
	if a.Into(t, &o); a.Status != 200 || o.Total != 2 || len(o.Plan) != 2 || o.ID != "" {
		t.Fatalf("the plan: %d %s", a.Status, a.Body)
	}
	a = f.as(t, "manager", "GET", "/operations", "")
	if a.Status != 200 || strings.Contains(string(a.Body), `"id"`) {
		t.Errorf("after a plan there are operations: %s", a.Body)
	}
	a = f.as(t, "manager", "POST", "/operations", filter)
	if a.Into(t, &o); a.Status != 202 || o.ID == "" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	path := "/operations/" + o.ID
	f.work(t)
	a = f.as(t, "manager", "GET", path, "")
	if a.Into(t, &o); a.Status != 200 || o.State != "done" || o.Counts.Done != 2 || o.Account.Username != "manager" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for username, status := range map[string]int{"viewer": 404, "foreign": 404, "auditor": 200, "root": 200} {
		if a := f.as(t, username, "GET", path+"/results?state=done&limit=1", ""); a.Status != status {
			t.Errorf("the results for %s: %d %s", username, a.Status, a.Body)
		}
	}
	if a := f.as(t, "auditor", "POST", path+"/cancel", ""); a.Status != 403 {
		t.Errorf("an auditor cancels: %d %s", a.Status, a.Body)
	}
	a = f.as(t, "manager", "POST", "/operations",
		`{"action": "expire", "users": [{"cluster": "`+f.ClusterID+`", "username": "many_two"}], "options": {"after": "7d"}}`)
	if a.Into(t, &o); a.Status != 202 || o.Plan[0].ValidUntil != "" || o.Plan[0].NewValidUntil == "" {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	a = f.as(t, "root", "POST", "/operations/"+o.ID+"/cancel", "")
	if a.Into(t, &o); a.Status != 200 || o.State != "cancelled" || o.Counts.Skipped != 1 || o.EndedAt == "" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// What is refused is refused before anything is stored.
func TestOperationRefusals(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "refused_one")
	user := `"users": [{"cluster": "` + f.ClusterID + `", "username": "refused_one"}]`
	for body, status := range map[string]int{
		`{}`:                                  422,
		`{"action": "disable"}`:               422,
		`{"action": "disable", "filter": {}}`: 422,
		`{"action": "disable", "filter": {"system": true}}`:                                            422,
		`{"action": "disable", "filter": {"nmae": "x"}}`:                                               422,
		`{"action": "disable", "filter": {"name": ""}}`:                                                422,
		`{"action": "disable", "filter": {"name": "x", "state": "gone"}}`:                              422,
		`{"action": "disable", "filter": {"cluster": "nowhere"}}`:                                      422,
		`{"action": "disable", "filter": {"name": "x"}, ` + user + `}`:                                 422,
		`{"action": "disable", "users": []}`:                                                           422,
		`{"action": "explode", ` + user + `}`:                                                          422,
		`{"action": "expire", ` + user + `}`:                                                           422,
		`{"action": "expire", ` + user + `, "options": {"after": "0s"}}`:                               422,
		`{"action": "expire", ` + user + `, "options": {"validUntil": null}}`:                          422,
		`{"action": "disable", ` + user + `, "options": {"after": "1d"}}`:                              422,
		`{"action": "delete", ` + user + `, "options": {"onBlocked": "explode"}}`:                      422,
		`{"action": "rotateCredential", ` + user + `}`:                                                 422,
		`{"action": "rotateCredential", "filter": {"state": "active"}}`:                                422,
		`{"action": "disable", "credentials": []}`:                                                     422,
		`{"action": "disable", "users": [{"cluster": "` + f.ClusterID + `"}]}`:                         422,
		`{"action": "disable", "users": [{"cluster": "nowhere", "username": "x"}]}`:                    403,
		`{"action": "disable", "filter": {"creatorSelector": "team=a", "name": "x"}}`:                  403,
		`{"action": "delete", ` + user + `, "options": {"reassignTo": "a\u0000b"}}`:                    422,
		`{"action": "expire", ` + user + `, "options": {"validUntil": "9999-12-31T23:59:59-12:00"}}`:   422,
		`{"action": "disable", "filter": {"name": "x", "expiresBefore": "9999-12-31T23:59:59-12:00"}}`: 200,
		`{"action": "rotateCredential", "filter": {"name": "none"}}`:                                   200,
		`{"action": "delete", ` + user + `, "options": {"onBlocked": "disable"}}`:                      200,
		`{"action": "disable", "filter": {"state": ["active"], "notSeenFor": "90d"}}`:                  200,
		`{"action": "disable", "filter": {"expiresBefore": "2026-01-01", "lease": false}}`:             200,
	} {
		if a := f.as(t, "manager", "POST", "/operations?plan=true", body); a.Status != status {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	for _, chosen := range []string{user, `"filter": {"cluster": "` + f.ClusterID + `", "name": "refused_*"}`} {
		if a := f.as(t, "viewer", "POST", "/operations", `{"action": "disable", `+chosen+`}`); a.Status != 403 {
			t.Errorf("an account that may only view: %s: %d %s", chosen, a.Status, a.Body)
		}
	}
}

// An operation ends with the sign-in that started it: a new password of its account ends both, as does a restored backup.
// One
// that was started with a personal access token goes on.
func TestOperationOfASignInThatEnded(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "ended_one")
	var token struct{ Secret string }
	a := f.as(t, "manager", "POST", "/tokens", `{"name": "many"}`)
	if a.Into(t, &token); a.Status != 201 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	const body = `{"action": "endSessions", "filter": {"name": "ended_one"}}`
	var ended, kept operationAnswer
	if a := f.as(t, "manager", "POST", "/operations", body); a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Body)
	} else {
		a.Into(t, &ended)
	}
	if a := f.as(t, "", "POST", "/operations", body, "Authorization: Bearer "+token.Secret); a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Body)
	} else {
		a.Into(t, &kept)
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE accounts SET epoch = gen_random_uuid() WHERE username = 'manager'`); err !=
		nil {
		t.Fatal(err)
	}
	f.work(t)
	if a := f.do(t, "GET", "/operations/"+ended.ID, ""); !strings.Contains(a.Body, `"state":"failed"`) ||
		!strings.Contains(a.Body, "signed out") || !strings.Contains(a.Body, `"skipped":1`) {
		t.Errorf("the operation of the sign-in: %s", a.Body)
	}
	if a := f.do(t, "GET", "/operations/"+kept.ID, ""); !strings.Contains(a.Body, `"state":"done"`) {
		t.Errorf("the operation of the token: %s", a.Body)
	}
}

// An account has so many operations in progress, at most. An operation that ends makes room.
func TestMostOperations(t *testing.T) {
	t.Parallel()
	f := leaseFixture(t, "most_one")
	const body = `{"action": "endSessions", "filter": {"name": "most_one"}}`
	for range 100 {
		if a := f.as(t, "manager", "POST", "/operations", body); a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	f.as(t, "manager", "POST", "/operations", body).refused(t, 422, "100 operations in progress")
	if a := f.do(t, "POST", "/operations", body); a.Status != 202 {
		t.Errorf("another account: %d %s", a.Status, a.Body)
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `UPDATE operations SET ended_at = now() WHERE id = (SELECT id FROM operations
		WHERE account_name = 'manager' LIMIT 1)`); err != nil {
		t.Fatal(err)
	}
	if a := f.as(t, "manager", "POST", "/operations", body); a.Status != 202 {
		t.Errorf("after one has ended: %d %s", a.Status, a.Body)
	}
}
