package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

func TestPasscode(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	cf := publicClient(t, id)
	p, _ := inConsole(t, s, id)
	address := fmt.Sprintf("10.8.0.%d", networks.Add(1)%256)
	redeem := func(code string, scopes ...string) (*identity.Tokens, error) {
		return id.GrantWithPasscode(t.Context(), cf, code, scopes, address)
	}
	make := func() string {
		t.Helper()
		code, expires, err := id.NewPasscode(t.Context(), p)
		if err != nil || expires.Sub(c.now()).Round(time.Minute) != 10*time.Minute {
			t.Fatal(expires, err)
		}
		return string(code)
	}
	wrong := func(what, code string) {
		t.Helper()
		if tokens, err := redeem(code); !fault.Is(err, fault.Unauthenticated) || tokens != nil {
			t.Errorf("%s: got %+v, %v", what, tokens, err)
		}
	}
	code := make()
	tokens, err := redeem(code)
	if err != nil {
		t.Fatal(err)
	}
	got := signIn(t, id, "Bearer "+string(tokens.Access))
	if got.GUID != p.GUID || !slices.Equal(got.Scopes, account.DefaultScopes) {
		t.Errorf("it signs in as %+v", got)
	}
	if !mayRefresh(t, id, cf, string(tokens.Refresh)) {
		t.Error("its refresh token is not valid")
	}
	wrong("used twice", code)
	replaced, next := make(), make()
	wrong("one before the last", replaced)
	if narrow, err := redeem(next, account.ScopeRead); err != nil || !slices.Equal(narrow.Scopes, []string{account.ScopeRead}) {
		t.Errorf("got %+v, %v", narrow, err)
	}
	late := make()
	c.advance(10 * time.Minute)
	wrong("after ten minutes", late)
	for action, want := range map[string]int{audit.ApproveLogin: 4, audit.CreateLogin: 2} {
		rows := rowsOf(t, s, p.GUID, action)
		if len(rows) != want || !strings.Contains(rows[0], `"grant": "passcode"`) {
			t.Errorf("%s: %q", action, rows)
		}
	}

	// Wrong ones are throttled and counted as wrong passwords are.
	good, looked := make(), 0
	for range 100 {
		_, err := redeem("WRONG")
		switch {
		case fault.Is(err, fault.Unauthenticated):
			looked++
		case !fault.Is(err, fault.TooMany):
			t.Fatal(err)
		}
	}
	if looked > 6 {
		t.Errorf("%d of 100 guesses were looked at", looked)
	}
	if _, err := redeem(good); !fault.Is(err, fault.TooMany) {
		t.Errorf("the right one after wrong ones: %v", err)
	}
	var counted int
	err = s.DB.Pool.QueryRow(t.Context(), `SELECT sum(count) FROM failed_sign_ins WHERE account = 'unknown' AND address = $1`,
		address).Scan(&counted)
	if err != nil || counted < looked {
		t.Errorf("%d were counted, %v", counted, err)
	}
}

// An OAuth client with the password grant takes passcodes, too, and gets what users may have through it.
func TestPasscodeThroughAClient(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	p, _ := inConsole(t, s, x.Service)
	code, _, err := x.NewPasscode(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := x.GrantWithPasscode(t.Context(), x.client, string(code), nil, "10.0.0.1")
	if err != nil || !slices.Equal(tokens.Scopes, account.DefaultScopes) {
		t.Fatalf("got %+v, %v", tokens, err)
	}
	x.refresh(t, string(tokens.Refresh))
}
