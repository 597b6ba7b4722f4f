package identity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// signedInThrice is an account with a session of each kind, by their credentials.
type signedInThrice struct {
	guid, username string
	credentials    map[identity.SessionKind]identity.Credential
}

func thrice(t testing.TB, s *servicetest.Service, id *identity.Service, client *identity.Client) signedInThrice {
	t.Helper()
	guid, username, vault := loggedIn(t, s, id)
	tokens, err := id.GrantWithPassword(t.Context(), client, username, username+"-password", nil, "10.0.0.4")
	if err != nil {
		t.Fatal(err)
	}
	a, err := id.VerifyPassword(t.Context(), username, username+"-password", "10.0.0.5")
	if err != nil {
		t.Fatal(err)
	}
	session, err := id.StartSession(t.Context(), a, time.Now(), "10.0.0.5", "a browser")
	if err != nil {
		t.Fatal(err)
	}
	return signedInThrice{guid, username, map[identity.SessionKind]identity.Credential{
		identity.TokenSession:   {Scheme: identity.Bearer, Value: vault.Token},
		identity.LoginSession:   {Scheme: identity.Bearer, Value: tokens.Access},
		identity.ConsoleSession: {Scheme: identity.Session, Value: session},
	}}
}

// with is the principal of a session, as id sees it.
func (x signedInThrice) with(t testing.TB, id *identity.Service, kind identity.SessionKind) *account.Principal {
	t.Helper()
	p, err := id.Authenticate(t.Context(), x.credentials[kind], "10.0.0.1")
	if err != nil {
		t.Fatal(kind, err)
	}
	return p
}

func sessionsOf(t testing.TB, id *identity.Service, p *account.Principal, who string) (
	kinds map[identity.SessionKind]identity.SignedIn) {
	t.Helper()
	found, more, err := id.Sessions(t.Context(), p, who, nil, 100)
	if err != nil || more {
		t.Fatal(more, err)
	}
	kinds = map[identity.SessionKind]identity.SignedIn{}
	for _, s := range found {
		kinds[s.Kind] = s
	}
	if len(kinds) != len(found) {
		t.Fatalf("got %+v", found)
	}
	return kinds
}

func TestSessions(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	x := thrice(t, s, id, own(t, id))
	// What is no session: a personal access token, and an access token alone.
	personal(t, id, x.guid, identity.NewPersonalToken{})
	bearer(t, id, x.username)
	for kind := range x.credentials {
		p := x.with(t, id, kind)
		found := sessionsOf(t, id, p, "")
		if len(found) != 3 {
			t.Fatalf("got %+v", found)
		}
		for _, in := range found {
			if in.Current != (in.Kind == kind) {
				t.Errorf("with the %s session, current of %s is %t", kind, in.Kind, in.Current)
			}
		}
	}
	p := x.with(t, id, identity.LoginSession)
	found := sessionsOf(t, id, p, x.username)
	for kind, want := range map[identity.SessionKind]string{
		identity.TokenSession: "10.0.0.1 vault", identity.LoginSession: "10.0.0.4 rolecall",
		identity.ConsoleSession: "10.0.0.5 a browser",
	} {
		if got := found[kind].Address + " " + found[kind].Client; got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
	newest, more, err := id.Sessions(t.Context(), p, "", nil, 1)
	if err != nil || !more || len(newest) != 1 {
		t.Fatal(newest, more, err)
	}
	rest, more, err := id.Sessions(t.Context(), p, "", &newest[0], 2)
	if err != nil || more || len(rest) != 2 || slices.Contains(rest, newest[0]) || rest[0].Created.After(newest[0].Created) {
		t.Errorf("behind the first: %+v, %t, %v", rest, more, err)
	}

	// Expired ones are none.
	c.advance(identity.SessionIdle)
	if found := sessionsOf(t, id, p, ""); found[identity.ConsoleSession].ID != uuid.Nil || len(found) != 2 {
		t.Errorf("after half an hour: %+v", found)
	}
	c.advance(time.Hour)
	if found := sessionsOf(t, id, p, ""); found[identity.TokenSession].ID != uuid.Nil || len(found) != 1 {
		t.Errorf("after two hours: %+v", found)
	}
}

// TestSessionUse: when a session was used last is known within a minute, and from where a login was refreshed.
func TestSessionUse(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	x := signedIn(t, s)
	for name, client := range map[string]*identity.Client{"public": own(t, id), "with a secret": x.client} {
		username := unique("use")
		s.Admin(t, username)
		tokens := signInWith(t, id, client, username)
		p := signIn(t, id, "Bearer "+string(tokens.Access))
		login := func() identity.SignedIn { return sessionsOf(t, id, p, "")[identity.LoginSession] }
		began := login()
		c.advance(10 * time.Minute)
		signIn(t, id, "Bearer "+string(tokens.Access))
		if err := id.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		used := login()
		if used.ID != began.ID || used.Created != began.Created || used.LastUsed.Sub(began.Created) < 10*time.Minute-time.Second {
			t.Errorf("%s: began %+v, used %+v", name, began, used)
		}
		c.advance(time.Hour)
		if _, err := id.GrantWithRefresh(t.Context(), client, string(tokens.Refresh), nil, "10.0.0.9"); err != nil {
			t.Fatal(err)
		}
		if err := id.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		refreshed := login()
		if refreshed.ID != began.ID || refreshed.Created != began.Created || refreshed.Address != "10.0.0.9" ||
			refreshed.LastUsed.Sub(used.LastUsed) < time.Hour-time.Second {
			t.Errorf("%s: refreshed %+v", name, refreshed)
		}
	}
}

// TestEndSession: a session that one replica ends has ended on every other within 5 seconds, and no other session has.
func TestEndSession(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	one, two := replica(t, s, &c), replica(t, s, &c)
	client := own(t, one)
	root := one.Principal(t, s.Admin(t, unique("root")), account.AdminScopes...)
	for _, kind := range []identity.SessionKind{identity.TokenSession, identity.LoginSession, identity.ConsoleSession} {
		for by, end := range map[string]func(x signedInThrice, session string) error{
			"itself": func(x signedInThrice, session string) error {
				return one.EndSession(t.Context(), x.with(t, one, kind), "", session)
			},
			"an admin": func(x signedInThrice, session string) error {
				return one.EndSession(t.Context(), root, x.username, session)
			},
		} {
			x := thrice(t, s, one, client)
			for other := range x.credentials {
				x.with(t, two, other)
			}
			session := sessionsOf(t, two, x.with(t, two, kind), "")[kind]
			if err := end(x, session.ID.String()); err != nil {
				t.Fatalf("%s by %s: %v", kind, by, err)
			}
			c.advance(identity.FreshFor)
			for _, id := range []*identity.Service{one, two, replica(t, s, &c)} {
				for other, credential := range x.credentials {
					_, err := id.Authenticate(t.Context(), credential, "10.0.0.1")
					if ended := fault.Is(err, fault.Unauthenticated); ended != (other == kind) {
						t.Errorf("%s ended by %s: %s: %v", kind, by, other, err)
					}
				}
			}
			if found := sessionsOf(t, two, root, x.guid); len(found) != 2 || found[kind].ID != uuid.Nil {
				t.Errorf("left are %+v", found)
			}
			rows := rowsOf(t, s, x.guid, audit.EndSession)
			want := fmt.Sprintf(`"kind": %q`, kind)
			if len(rows) != 1 || !strings.Contains(rows[0], want) || !strings.Contains(rows[0], session.ID.String()) {
				t.Errorf("the audit log has %q", rows)
			}
			if err := one.EndSession(t.Context(), root, x.guid, session.ID.String()); !fault.Is(err, fault.NotFound) {
				t.Errorf("once more: %v", err)
			}
		}
	}
}

func TestSessionsOfOthers(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	x, y := thrice(t, s, id, client), thrice(t, s, id, client)
	p := y.with(t, id, identity.LoginSession)
	theirs := sessionsOf(t, id, x.with(t, id, identity.LoginSession), "")
	for _, who := range []string{x.guid, x.username, "nobody"} {
		if _, _, err := id.Sessions(t.Context(), p, who, nil, 10); !fault.Is(err, fault.Forbidden) {
			t.Errorf("the list of %s: %v", who, err)
		}
		if err := id.EndSession(t.Context(), p, who, uuid.NewString()); !fault.Is(err, fault.Forbidden) {
			t.Errorf("to end one of %s: %v", who, err)
		}
	}
	root := id.Principal(t, s.Admin(t, unique("root")), account.AdminScopes...)
	reader := id.Principal(t, s.Account(t, unique("auditor"), []string{account.ScopeAuditor}, nil), account.ScopeAuditor)
	for _, in := range theirs {
		// One's own is asked for, also by an admin.
		for _, p := range []*account.Principal{p, root} {
			if err := id.EndSession(t.Context(), p, "", in.ID.String()); !fault.Is(err, fault.NotFound) {
				t.Errorf("the %s session of another account: %v", in.Kind, err)
			}
		}
		if err := id.EndSession(t.Context(), root, y.guid, in.ID.String()); !fault.Is(err, fault.NotFound) {
			t.Errorf("the %s session of a third account: %v", in.Kind, err)
		}
		if err := id.EndSession(t.Context(), reader, x.guid, in.ID.String()); !fault.Is(err, fault.Forbidden) {
			t.Errorf("an auditor ends one: %v", err)
		}
	}
	for _, p := range []*account.Principal{root, reader} {
		if found := sessionsOf(t, id, p, strings.ToUpper(x.username)); len(found) != 3 || found[identity.LoginSession].Current {
			t.Errorf("got %+v", found)
		}
	}
	for _, bad := range []string{"", "x", strings.ToUpper(theirs[identity.LoginSession].ID.String()) + "0", "%00"} {
		if err := id.EndSession(t.Context(), root, "", bad); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, err := id.Sessions(t.Context(), root, "nobody", nil, 10); !fault.Is(err, fault.NotFound) {
		t.Errorf("the list of nobody: %v", err)
	}

	// A token, which may have leaked, does not sign its owner out.
	made, pat := personal(t, id, y.guid, identity.NewPersonalToken{})
	limited := signIn(t, id, pat)
	mine := sessionsOf(t, id, limited, "")
	if len(mine) != 3 {
		t.Errorf("a personal access token sees %+v", mine)
	}
	vault := y.with(t, id, identity.TokenSession)
	for _, p := range []*account.Principal{limited, vault} {
		if err := id.EndSession(t.Context(), p, "", mine[identity.LoginSession].ID.String()); !fault.Is(err, fault.Forbidden) {
			t.Errorf("a token ends a login: %v", err)
		}
	}
	if err := id.EndSession(t.Context(), limited, "", made.ID.String()); !fault.Is(err, fault.NotFound) {
		t.Errorf("a personal access token is no session: %v", err)
	}
}

// A session that is signed out on one replica ends within 5 seconds on another that has just verified it.
func TestSignOutOnOtherReplica(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id, other := replica(t, s, &c), replica(t, s, &c)
	x := thrice(t, s, id, own(t, id))
	session := x.credentials[identity.ConsoleSession]
	x.with(t, other, identity.ConsoleSession)
	if err := id.EndOwnSession(t.Context(), session.Value); err != nil {
		t.Fatal(err)
	}
	c.advance(5 * time.Second)
	if _, err := other.Authenticate(t.Context(), session, "10.0.0.1"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("5 seconds after the sign-out on another replica: %v", err)
	}
}

// A proof of who somebody is holds on each replica, also on one that has verified the session before.
func TestProofOnOtherReplica(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id, other := replica(t, s, &c), replica(t, s, &c)
	x := thrice(t, s, id, own(t, id))
	c.advance(identity.ProvenFor + time.Minute)
	p := x.with(t, other, identity.ConsoleSession)
	if proven, err := other.Proven(t.Context(), p); proven || err != nil {
		t.Fatal("before the proof:", proven, err)
	}
	err := id.ProveWithPassword(t.Context(), x.with(t, id, identity.ConsoleSession),
		x.credentials[identity.ConsoleSession].Value, x.username+"-password")
	if err != nil {
		t.Fatal(err)
	}
	if proven, err := other.Proven(t.Context(), x.with(t, other, identity.ConsoleSession)); !proven || err != nil {
		t.Error("after the proof on another replica:", proven, err)
	}
}
