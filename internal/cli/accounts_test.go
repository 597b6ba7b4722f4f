package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// token is one for a server that is not real.
func token(context.Context, string) (string, error) { return "t", nil }

// TestFindAccount: a user name may be the guid of the same account, or of another one.
func TestFindAccount(t *testing.T) {
	t.Parallel()
	const own, other = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa"
	all := []client.Account{
		{GUID: own, Username: own, Origin: "uaa"},
		{GUID: "b", Username: other, Origin: "uaa"},
		{GUID: other, Username: "alice", Origin: "uaa"},
		{GUID: "c", Username: "bob", Origin: "uaa"},
		{GUID: "d", Username: "bob", Origin: "https://issuer.example"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		items := []client.Account{}
		for _, a := range all {
			if q := r.URL.Query(); q.Get("guid") == a.GUID || q.Get("name") == a.Username {
				items = append(items, a)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": items, "next": nil})
	}))
	defer server.Close()
	c := client.New(server.URL, "test")
	c.Token = token
	for given, want := range map[string]string{own: own, other: other, "alice": other, "b": "b", "c": "c"} {
		if a, err := findAccount(t.Context(), c, given); err != nil || a.GUID != want {
			t.Errorf("%q: got %+v, %v, want %s", given, a, err, want)
		}
	}
	for given, want := range map[string]int{"bob": term.ExitUsage, "nobody": term.ExitNotFound} {
		if a, err := findAccount(t.Context(), c, given); err == nil || term.ExitCode(err) != want {
			t.Errorf("%q: got %+v, %v, want exit code %d", given, a, err, want)
		}
	}
}

func TestWithScopes(t *testing.T) {
	t.Parallel()
	got, err := withScopes([]string{"scim.read", "scim.write"}, []string{"scim.read-", "scim.write", "cloud_controller.admin"})
	if want := []string{"scim.write", "cloud_controller.admin"}; err != nil || len(got) != 2 || got[0] != want[0] ||
		got[1] != want[1] {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := withScopes(nil, []string{"nonsense-"}); err == nil {
		t.Error("an unknown scope was accepted")
	}
}
