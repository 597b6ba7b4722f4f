package adminapi_test

import (
	"net/url"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/identity"
)

type sessionPage struct {
	Items []struct {
		ID, Kind, Address, Client, CreatedAt, LastUsedAt string
		Current                                          bool
	}
	Next *string
}

// TestSessions: sessions over HTTP. Whose they are, and that they end everywhere: identity: TestSessions, TestEndSession.
func TestSessions(t *testing.T) {
	f := newFixture(t)
	bob, eve := "bob", "eve"
	f.Account(t, bob, account.DefaultScopes, nil)
	f.Account(t, eve, account.DefaultScopes, nil)
	client, err := f.Identity.Client(t.Context(), identity.OwnClient, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	login := func(username string) tokenResource {
		t.Helper()
		tokens, err := f.Identity.GrantWithPassword(t.Context(), client, username, username+"-password", nil, "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return tokenResource{Secret: string(tokens.Access)}
	}
	first, second, hers := login(bob), login(bob), login(eve)
	read := func(a answer) (p sessionPage) {
		t.Helper()
		if a.Status != 200 {
			t.Fatalf("got %d %s", a.Status, a.Body)
		}
		a.Into(t, &p)
		return p
	}
	list := read(f.with(t, second, "GET", "/sessions", ""))
	if len(list.Items) != 2 || list.Next != nil || !list.Items[0].Current || list.Items[1].Current {
		t.Fatalf("got %+v", list)
	}
	in := list.Items[0]
	if in.Kind != "login" || in.Client != "rolecall" || in.Address != "10.0.0.1" || in.LastUsedAt < in.CreatedAt {
		t.Errorf("got %+v", in)
	}
	page := read(f.with(t, second, "GET", "/sessions?limit=1", ""))
	if len(page.Items) != 1 || page.Next == nil {
		t.Fatalf("got %+v", page)
	}
	rest := read(f.with(t, second, "GET", "/sessions?limit=1&cursor="+url.QueryEscape(*page.Next), ""))
	if len(rest.Items) != 1 || rest.Next != nil || rest.Items[0].ID != list.Items[1].ID {
		t.Errorf("the second page is %+v", rest)
	}
	of := read(f.do(t, "GET", "/sessions?account=BOB", ""))
	if len(of.Items) != 2 || of.Items[0].Current {
		t.Errorf("an admin sees %+v", of)
	}

	f.with(t, hers, "GET", "/sessions?account=bob", "").refused(t, 403, "cloud_controller.admin")
	f.with(t, hers, "DELETE", "/sessions/"+list.Items[0].ID, "").refused(t, 404, "no session")
	f.with(t, hers, "DELETE", "/sessions/"+list.Items[0].ID+"?account=bob", "").refused(t, 403, "cloud_controller.admin")
	f.do(t, "DELETE", "/sessions/"+list.Items[0].ID, "").refused(t, 404, "no session")
	f.do(t, "GET", "/sessions?account=nobody", "").refused(t, 404, "no account")
	f.do(t, "GET", "/sessions?account=", "").refused(t, 400, "account")
	f.do(t, "GET", "/sessions?cursor=eA", "").refused(t, 400, "cursor")
	f.do(t, "DELETE", "/sessions/x", "").refused(t, 404, "no session")
	f.with(t, first, "GET", "/whoami", "") // still

	if a := f.with(t, second, "DELETE", "/sessions/"+list.Items[1].ID, ""); a.Status != 204 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if a := f.do(t, "DELETE", "/sessions/"+list.Items[0].ID+"?account=bob", ""); a.Status != 204 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if left := read(f.do(t, "GET", "/sessions?account=bob", "")); len(left.Items) != 0 {
		t.Errorf("left are %+v", left)
	}
}
