package identity_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// labelled is the issuer of the provider with settings of labels, by the name corp.
func (p *provider) labelled(labels ...identity.LabelClaim) identity.OIDCIssuer {
	i := p.issuer()
	i.Name, i.Labels = "corp", labels
	return i
}

func texts(n int, format string) (all []any) {
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return all
}

// TestLabelsFromClaims: which claims give which labels, and what is logged of the others.
func TestLabelsFromClaims(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	team := identity.LabelClaim{Key: "team", Claim: "groups", Prefix: "rc-"}
	each := identity.LabelClaim{Key: "group.*", Claim: "groups", Prefix: "rc-"}
	for n, test := range []struct {
		setting identity.LabelClaim
		groups  any
		want    string // the labels
		logged  string // of the reason; "": nothing
	}{
		{team, "rc-payments", "map[team:payments]", ""},
		{team, []any{"rc-payments", "staff"}, "map[team:payments]", ""},
		{team, []any{"rc-payments", "rc-payments"}, "map[team:payments]", ""},
		{team, nil, "map[]", ""},
		{team, []any{}, "map[]", ""},
		{team, "payments", "map[]", ""},
		{team, []any{"rc-a", "rc-b"}, "map[]", "it has 2 values"},
		{team, []any{"rc-a b", "rc-b"}, "map[team:b]", "a value is not valid"},
		{team, "rc-a b", "map[]", "a value is not valid"},
		{team, []any{"rc-" + strings.Repeat("x", 64)}, "map[]", "a value is not valid"},
		{team, []any{7, "rc-a"}, "map[team:a]", "a value is not text"},
		{team, true, "map[]", "a value is not text"},
		{team, map[string]any{"rc-a": "rc-b"}, "map[]", "a value is not text"},
		{identity.LabelClaim{Key: "team", Claim: "groups"}, "payments", "map[team:payments]", ""},
		{each, []any{"rc-a", "rc-b", "staff"}, "map[group.a:true group.b:true]", ""},
		{each, []any{"rc-a", "rc-b c", "rc-"}, "map[group.a:true]", "a value is not valid in the key"},
		{each, nil, "map[]", ""},
		{each, texts(50, "rc-%d"), "50", ""},
		{each, texts(200, "rc-%d"), "map[]", "it gives 200 labels, and an account has at most 50"},
		{each, texts(200, "%d"), "map[]", ""},
		{team, append(texts(200, "%d"), "rc-a"), "map[team:a]", ""},
	} {
		var c clock
		id := replica(t, s, &c, p.labelled(test.setting))
		before := len(s.Log.String())
		claims := jwt.MapClaims{}
		if test.groups != nil {
			claims["groups"] = test.groups
		}
		got := signIn(t, id, p.sign(t, k, unique("claims"), claims))
		if labels := fmt.Sprint(got.Labels); labels != test.want && fmt.Sprint(len(got.Labels)) != test.want {
			t.Errorf("%d: %v gives %v, want %s", n, test.groups, labels, test.want)
		}
		for key := range got.Labels {
			if got.LabelSources[key] != "corp" || len(got.LabelSources) != len(got.Labels) {
				t.Errorf("%d: the sources are %v", n, got.LabelSources)
			}
		}
		log := s.Log.String()[before:]
		if strings.Contains(log, "a claim gave no label") != (test.logged != "") || !strings.Contains(log, test.logged) {
			t.Errorf("%d: want %q, logged %s", n, test.logged, log)
		}
	}
	// Entra ID leaves the claim out when it is long.
	var c clock
	before := len(s.Log.String())
	got := signIn(t, replica(t, s, &c, p.labelled(team)), p.sign(t, k, unique("claims"), jwt.MapClaims{
		"_claim_names":   map[string]string{"groups": "src1"},
		"_claim_sources": map[string]any{"src1": map[string]string{"endpoint": p.URL + "/groups"}}}))
	log := s.Log.String()[before:]
	if len(got.Labels) != 0 || !strings.Contains(log, "left the claim out because it is too long") {
		t.Errorf("got %v, logged %s", got.Labels, log)
	}
}

// TestIssuerReplacesLabels: an issuer's labels follow its newest token, and no other label changes. An older token changes
// nothing, on any replica.
func TestIssuerReplacesLabels(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	settings := []identity.LabelClaim{{Key: "team", Claim: "team"}, {Key: "group.*", Claim: "groups"}}
	linking := p.labelled(settings...)
	linking.Links = true
	id, other := replica(t, s, &c, linking), replica(t, s, &c, linking)
	name := unique("lena")
	start := time.Now().Add(-time.Hour)
	// token is one that was issued some minutes after the start.
	token := func(minutes int, team string, groups ...string) string {
		claims := jwt.MapClaims{"preferred_username": name, "iat": start.Add(time.Duration(minutes) * time.Minute).Unix(),
			"groups": groups}
		if team != "" {
			claims["team"] = team
		}
		return p.sign(t, k, name, claims)
	}
	is := func(id *identity.Service, token, labels, sources string) *account.Principal {
		t.Helper()
		got := signIn(t, id, token)
		if fmt.Sprint(got.Labels) != labels || fmt.Sprint(got.LabelSources) != sources {
			t.Errorf("got %v of %v, want %s of %s", got.Labels, got.LabelSources, labels, sources)
		}
		return got
	}
	// Prepared before its first sign-in, with a label of an admin's.
	prepared, err := id.Accounts().CreateProfile(t.Context(), admin, account.NewProfile{Username: name,
		Origin: linking.Origin(), Labels: map[string]*string{"room": new("12")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := is(id, token(10, "a", "x", "y"), "map[group.x:true group.y:true room:12 team:a]",
		"map[group.x:corp group.y:corp team:corp]")
	if first.GUID != prepared.GUID {
		t.Fatalf("got %+v", first)
	}
	rows := s.AuditRows(t, first.GUID)
	last := rows[len(rows)-1]
	var detail struct {
		Issuer, Reason string
		Labels         map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(last.Detail), &detail); err != nil || last.Action != "account.update" ||
		last.Account != first.GUID || detail.Issuer != p.URL || detail.Reason != "claims of a token" ||
		fmt.Sprint(detail.Labels["team"]["to"]) != "a" || len(detail.Labels) != 3 {
		t.Errorf("the audit log has %+v, %v", last, err)
	}
	tag := func() string {
		t.Helper()
		profile, err := s.Accounts.Profile(t.Context(), admin, first.GUID)
		if err != nil {
			t.Fatal(err)
		}
		return profile.Tag()
	}
	before := tag()
	// The same labels of a newer token leave the account as it is.
	is(other, token(20, "a", "y", "x"), "map[group.x:true group.y:true room:12 team:a]",
		"map[group.x:corp group.y:corp team:corp]")
	if after := tag(); after != before || len(s.AuditRows(t, first.GUID)) != len(rows) {
		t.Errorf("the tag was %s, and is %s: %+v", before, after, s.AuditRows(t, first.GUID))
	}
	// One of before that, with a right that the person no longer has, changes nothing.
	is(id, token(15, "admins", "z"), "map[group.x:true group.y:true room:12 team:a]",
		"map[group.x:corp group.y:corp team:corp]")
	is(id, token(30, "b", "y"), "map[group.y:true room:12 team:b]", "map[group.y:corp team:corp]")
	is(other, token(29, "a"), "map[group.y:true room:12 team:b]", "map[group.y:corp team:corp]")
	// A token that does not say when it was issued may be older.
	timeless := jwt.NewWithClaims(k.method, jwt.MapClaims{"iss": p.URL, "sub": name, "aud": "rolecall", "team": "c",
		"exp": time.Now().Add(time.Hour).Unix()})
	timeless.Header["kid"] = k.id
	signed, err := timeless.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	is(id, "Bearer "+signed, "map[group.y:true room:12 team:b]",
		"map[group.y:corp team:corp]")
	// Many at once: the newest decides.
	var all sync.WaitGroup
	for n := range 8 {
		id, token := replica(t, s, &c, linking), token(31+n, fmt.Sprint("t", n))
		all.Go(func() {
			if _, err := id.Authenticate(t.Context(), identity.ParseCredential(token), ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	c.advance(identity.FreshFor)
	is(id, token(30, "b", "y"), "map[room:12 team:t7]", "map[team:corp]")
	// The claim is gone, and its label with it.
	is(id, token(40, ""), "map[room:12]", "map[]")
	// An issuer whose clock is ahead for once keeps its labels for five minutes, not for the year.
	is(id, p.sign(t, k, name, jwt.MapClaims{"iat": time.Now().AddDate(1, 0, 0).Unix(), "team": "early"}),
		"map[room:12 team:early]", "map[team:corp]")
	later := p.sign(t, k, name, jwt.MapClaims{"iat": time.Now().Add(6 * time.Minute).Unix(), "team": "d", "groups": "x"})
	is(id, later, "map[group.x:true room:12 team:d]", "map[group.x:corp team:corp]")

	// Without its setting a label goes at the next sign-in, because its source is known. Until then an admin may set it.
	fewer := p.labelled(settings[0])
	fewer.Name = "renamed"
	id = replica(t, s, &c, fewer)
	next := func(after time.Duration, team string) string {
		return p.sign(t, k, name, jwt.MapClaims{"iat": time.Now().Add(7*time.Minute + after).Unix(), "team": team,
			"exp": time.Now().Add(time.Hour).Unix()})
	}
	c.advance(10 * time.Minute)
	is(id, next(0, "d"), "map[room:12 team:d]", "map[team:renamed]")
	none := replica(t, s, &c, p.issuer())
	if _, err := none.Accounts().UpdateProfile(t.Context(), admin, first.GUID, nil,
		account.ProfileChange{Labels: map[string]*string{"room": new("13")}}); err != nil {
		t.Fatal(err)
	}
	is(none, next(time.Second, "d"), "map[room:13]", "map[]")
	is(id, next(2*time.Second, "e"), "map[room:13 team:e]", "map[team:renamed]")
	changed, err := none.Accounts().UpdateProfile(t.Context(), admin, first.GUID, nil,
		account.ProfileChange{Labels: map[string]*string{"team": new("admins")}})
	if err != nil || changed.LabelSources["team"] != "" {
		t.Fatalf("got %+v, %v", changed, err)
	}
	is(none, next(3*time.Second, "e"), "map[room:13 team:admins]", "map[]")
	// With the setting it is the issuer's again, also if an admin has set it.
	is(id, next(4*time.Second, "f"), "map[room:13 team:f]", "map[team:renamed]")

	// Without a platform user there are no labels, and the same token sets them again.
	kept := next(5*time.Second, "g")
	is(id, kept, "map[room:13 team:g]", "map[team:renamed]")
	if _, err := s.Accounts.DeletePlatform(t.Context(), admin, first.GUID, nil); err != nil {
		t.Fatal(err)
	}
	is(other, kept, "map[team:g]", "map[team:corp]")
	// The labels of the issuer go with the identity.
	if _, err := s.Accounts.UpdatePlatform(t.Context(), admin, first.GUID, nil,
		account.PlatformChange{Labels: map[string]*string{"room": new("14")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, first.GUID, nil); err != nil {
		t.Fatal(err)
	}
	left, err := s.Accounts.Profile(t.Context(), admin, first.GUID)
	if err != nil || !maps.Equal(left.Labels, map[string]string{"room": "14"}) || len(left.LabelSources) != 0 {
		t.Errorf("got %+v, %v", left, err)
	}
}

// TestInactiveKeepsLabels: a person who may not sign in changes nothing by trying.
func TestInactiveKeepsLabels(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.labelled(identity.LabelClaim{Key: "team", Claim: "team"}))
	name := unique("ina")
	got := signIn(t, id, p.sign(t, k, name, jwt.MapClaims{"team": "a"}))
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, got.GUID, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	refused(t, id, p.sign(t, k, name, jwt.MapClaims{"team": "b"}))
	if a, err := s.Accounts.ByGUID(t.Context(), got.GUID); err != nil || a.Labels["team"] != "a" {
		t.Errorf("got %+v, %v", a, err)
	}
}

// TestLabelsOfIssuersAreRefused: on an account of an issuer, no API sets a label that this sets. On any other it does.
func TestLabelsOfIssuersAreRefused(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	linking := p.labelled(identity.LabelClaim{Key: "team", Claim: "team"}, identity.LabelClaim{Key: "group.*", Claim: "groups"})
	linking.Links = true
	id := replica(t, s, &c, linking)
	accounts, origin := id.Accounts(), linking.Origin()
	got := signIn(t, id, p.sign(t, k, unique("mia"), jwt.MapClaims{"team": "a"}))
	for key, mine := range map[string]bool{"team": false, "group.x": false, "group.x.y": false, "group": true, "groups.x": true,
		"Team": true} {
		label := map[string]*string{key: new("b")}
		_, byCF := accounts.UpdatePlatform(t.Context(), admin, got.GUID, nil, account.PlatformChange{Labels: label})
		_, byOwn := accounts.UpdateProfile(t.Context(), admin, got.GUID, nil, account.ProfileChange{Labels: label})
		_, newByCF := accounts.CreatePlatform(t.Context(), admin, account.NewPlatformUser{Username: unique("new"), Origin: origin,
			Labels: label})
		_, newByOwn := accounts.CreateProfile(t.Context(), admin, account.NewProfile{Username: unique("new"), Origin: origin,
			Labels: label}, nil)
		for how, err := range map[string]error{"PATCH of /v3": byCF, "PATCH": byOwn, "POST of /v3": newByCF, "POST": newByOwn} {
			if mine && err != nil || !mine && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `"corp"`)) {
				t.Errorf("%s of %s: %v", how, key, err)
			}
		}
		if _, err := accounts.CreateProfile(t.Context(), admin, account.NewProfile{Username: unique("local"),
			Origin: account.LocalOrigin, Labels: label}, func(context.Context) (string, error) { return "", nil }); err != nil {
			t.Errorf("a local account with %s: %v", key, err)
		}
	}
	if _, err := accounts.UpdateProfile(t.Context(), admin, got.GUID, nil,
		account.ProfileChange{Labels: map[string]*string{"team": nil}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("removed: %v", err)
	}
	// What was read can be sent back.
	if _, err := accounts.UpdateProfile(t.Context(), admin, got.GUID, nil,
		account.ProfileChange{Labels: map[string]*string{"team": new("a"), "group.x": nil}}); err != nil {
		t.Errorf("sent back: %v", err)
	}
	// A local account does not become one of the issuer's with such a label of an admin's.
	local, err := accounts.CreateProfile(t.Context(), admin, account.NewProfile{Username: unique("moved"),
		Origin: account.LocalOrigin}, func(context.Context) (string, error) { return "", nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.UpdatePlatform(t.Context(), admin, local.GUID, nil, account.PlatformChange{Origin: &origin,
		Labels: map[string]*string{"team": new("a")}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("moved: %v", err)
	}
}
