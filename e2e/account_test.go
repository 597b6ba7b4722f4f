package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// replica starts a rolecall serve in front of the shared server's control database, and returns its URL.
func replica(t *testing.T) string {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(shared.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var running struct{ DatabaseURL string }
	if err := json.Unmarshal(read("running.json"), &running); err != nil {
		t.Fatal(err)
	}
	// The port may be taken again before the program does, then it says so and the test fails.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	output, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(rolecall, "serve", "--listen="+address, "--metrics-listen=", "--public-url="+shared.env["ROLECALL_URL"],
		"--rate-limit=0", "--drain-delay=0s")
	cmd.Env = append(os.Environ(), "ROLECALL_DATABASE_URL="+running.DatabaseURL,
		"ROLECALL_MASTER_KEY="+strings.TrimSpace(string(read("master.key"))))
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		output.Close()
		if log, _ := os.ReadFile(output.Name()); err != nil {
			t.Errorf("rolecall serve: %v\n%s", err, log)
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		if time.Now().After(end) {
			t.Fatalf("rolecall serve is not ready: %v", err)
		}
	}
}

// grant makes a person a member of a group, which is a scope.
func grant(t *testing.T, guid, scope string) {
	t.Helper()
	var groups struct{ Resources []struct{ ID string } }
	admin(t, 200, "GET", "/uaa/Groups?filter="+url.QueryEscape(fmt.Sprintf("displayName eq %q", scope)), "", &groups)
	if len(groups.Resources) != 1 {
		t.Fatalf("groups %s: %v", scope, groups)
	}
	admin(t, 201, "POST", "/uaa/Groups/"+groups.Resources[0].ID+"/members", fmt.Sprintf(`{"value":%q}`, guid), nil)
}

// TestOneAccount follows an account through both APIs, and past its end, on two replicas.
func TestOneAccount(t *testing.T) {
	t.Parallel()
	replicas := []string{shared.env["ROLECALL_URL"], replica(t)}
	users := clusterPath() + "/users"
	call := func(replica, authorization, method, path, body string) response {
		t.Helper()
		return send(t, method, replica+path, map[string]string{"Authorization": authorization, "Content-Type": "application/json"},
			body)
	}
	basic := func(name, password string) string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth(name, password)
		return r.Header.Get("Authorization")
	}
	// ended waits until a credential does not work on any replica, in either dialect.
	ended := func(t *testing.T, authorization string) {
		t.Helper()
		began := time.Now()
		for _, replica := range replicas {
			for _, path := range []string{users, "/v3/users"} {
				for call(replica, authorization, "GET", path, "").status != 401 {
					if time.Since(began) > stale {
						t.Fatalf("GET %s%s still works after %s", replica, path, time.Since(began))
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		}
	}
	me := shared.env["CF_USERNAME"]

	t.Run("deleted", func(t *testing.T) {
		t.Parallel()
		const name, database = "one-account", "made by one account"
		guid := person(t, name, "a password")
		grant(t, guid, "cloud_controller.admin")
		access, refresh := token(t, name, "a password")
		bearer := "bearer " + access

		// The database user that it makes on one replica is its own on the other, and in the cluster.
		created := call(replicas[1], bearer, "POST", users, fmt.Sprintf(`{"properties":{"username":%q,"password":"a password"}}`,
			database))
		if created.status != 200 {
			t.Fatalf("create: %d %s", created.status, created.body)
		}
		path := users + "/" + url.PathEscape(database)
		discard(t, path)
		provenance := func(by, modifiedBy string) {
			t.Helper()
			for _, replica := range replicas {
				o := call(replica, "Bearer "+shared.env["IONOS_TOKEN"], "GET", path, "").object(t)
				if urn, _ := member(o, "metadata", "createdBy").(string); member(o, "metadata", "createdByUserId") != by ||
					!strings.Contains(urn, by) {
					t.Errorf("created by %v, want %s", o["metadata"], by)
				}
				if member(o, "metadata", "lastModifiedByUserId") != modifiedBy {
					t.Errorf("modified by %v, want %s", o["metadata"], modifiedBy)
				}
			}
			const comments = `SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '%s'`
			if comment := shared.query(t, "postgres", fmt.Sprintf(comments, database)); !strings.Contains(comment, by) {
				t.Errorf("the role's comment is %q", comment)
			}
		}
		provenance(guid, guid)
		// The guid is that of the platform user, which the token's first use has made.
		u := call(replicas[0], bearer, "GET", "/v3/users/"+guid, "").object(t)
		if u["guid"] != guid || u["username"] != name {
			t.Errorf("the account: %v", u)
		}
		shared.login(t, database, "a password")
		var admins struct{ Resources []struct{ GUID string } }
		admin(t, 200, "GET", "/v3/users?usernames="+me, "", &admins)
		admin(t, 200, "PATCH", path, `{"properties":{"password":"another password"}}`, nil)
		provenance(guid, admins.Resources[0].GUID)

		for _, replica := range replicas { // so that each has seen the credentials a moment ago
			for _, authorization := range []string{bearer, basic(name, "a password")} {
				if r := call(replica, authorization, "GET", users, ""); r.status != 200 {
					t.Errorf("%s: %d %s", replica, r.status, r.body)
				}
			}
		}
		admin(t, 202, "DELETE", "/v3/users/"+guid, "", nil)
		// Without the platform user, earlier tokens are rejected; the identity could sign in again.
		ended(t, bearer)
		admin(t, 200, "DELETE", "/uaa/Users/"+guid, "", nil)
		ended(t, basic(name, "a password"))
		refusesRefresh(t, refresh)
		shared.login(t, database, "another password")
		provenance(guid, admins.Resources[0].GUID)

		// Who gets the name gets nothing else.
		again := person(t, name, "a password")
		if again == guid {
			t.Error("the guid was given again")
		}
		access, _ = token(t, name, "a password")
		if r := call(replicas[1], "Bearer "+access, "GET", path, ""); r.status != 404 {
			t.Errorf("the next of that name sees the database user: %d %s", r.status, r.body)
		}
		ended(t, bearer)
	})

	t.Run("deactivated", func(t *testing.T) {
		t.Parallel()
		const name = "one-account-deactivated"
		guid := person(t, name, "a password")
		grant(t, guid, "cloud_controller.admin_read_only")
		access, refresh := token(t, name, "a password")
		for _, replica := range replicas {
			for _, authorization := range []string{"Bearer " + access, basic(name, "a password")} {
				if r := call(replica, authorization, "GET", users, ""); r.status != 200 {
					t.Errorf("%s: %d %s", replica, r.status, r.body)
				}
			}
		}
		admin(t, 200, "PATCH", "/uaa/Users/"+guid, `{"active":false}`, nil)
		ended(t, "Bearer "+access)
		ended(t, basic(name, "a password"))
		refusesRefresh(t, refresh)
		// Active again, it signs in again; what was issued before stays ended.
		admin(t, 200, "PATCH", "/uaa/Users/"+guid, `{"active":true}`, nil)
		ended(t, "Bearer "+access)
		refusesRefresh(t, refresh)
		fresh, _ := token(t, name, "a password")
		if r := call(replicas[1], "Bearer "+fresh, "GET", users, ""); r.status != 200 {
			t.Errorf("active again: %d %s", r.status, r.body)
		}
	})

	t.Run("program", func(t *testing.T) {
		t.Parallel()
		const database = "made by a program"
		program(t, "one-program!b1|x", everything)
		r := send(t, "POST", "/uaa/oauth/token", map[string]string{"Authorization": "",
			"Content-Type": "application/x-www-form-urlencoded"},
			url.Values{"grant_type": {"client_credentials"}, "client_id": {"one-program!b1|x"}, "client_secret": {secret}}.Encode())
		access, _ := r.object(t)["access_token"].(string)
		created := call(replicas[1], "Bearer "+access, "POST", users,
			fmt.Sprintf(`{"properties":{"username":%q,"password":"a password"}}`, database)).object(t)
		discard(t, users+"/"+url.PathEscape(database))
		// An id that is no UUID stands in the URN, and the user id is a UUID made of it.
		urn, _ := member(created, "metadata", "createdBy").(string)
		id, _ := member(created, "metadata", "createdByUserId").(string)
		if !strings.Contains(urn, url.PathEscape("one-program!b1|x")) || len(id) != 36 {
			t.Errorf("created by %q, %q", urn, id)
		}
		admin(t, 200, "DELETE", "/uaa/oauth/clients/"+url.PathEscape("one-program!b1|x"), "", nil)
		ended(t, "Bearer "+access)
		shared.login(t, database, "a password")
	})
}

func refusesRefresh(t *testing.T, refresh string) {
	t.Helper()
	r := send(t, "POST", "/uaa/oauth/token", map[string]string{"Authorization": "Basic Y2Y6",
		"Content-Type": "application/x-www-form-urlencoded"},
		url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}.Encode())
	if r.status != 400 || !strings.Contains(r.body, "invalid_grant") {
		t.Errorf("refresh: %d %s", r.status, r.body)
	}
}
