package identity_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"rolecall/internal/identity"
)

func TestParseOIDCIssuer(t *testing.T) {
	for s, want := range map[string]identity.OIDCIssuer{
		"https://login.example.org,audience=rolecall": {Name: "login.example.org", URL: "https://login.example.org",
			Audience: "rolecall"},
		"https://login.example.org/realms/a,username=upn,audience=b": {Name: "login.example.org",
			URL: "https://login.example.org/realms/a", Audience: "b", UsernameClaim: "upn"},
		"https://tenant.example.org/,audience=https://api/": {Name: "tenant.example.org", URL: "https://tenant.example.org/",
			Audience: "https://api/"},
		"https://login.example.org,link=username,audience=a": {Name: "login.example.org", URL: "https://login.example.org",
			Audience: "a", Links: true},
		"http://127.0.0.1:5556/dex,audience=a": {Name: "127.0.0.1", URL: "http://127.0.0.1:5556/dex", Audience: "a"},
		"http://[::1]:5556,audience=a":         {Name: "::1", URL: "http://[::1]:5556", Audience: "a"},
		"http://localhost,audience=a":          {Name: "localhost", URL: "http://localhost", Audience: "a"},
		"https://login.example.org,client-id=c,name=corp": {Name: "corp", URL: "https://login.example.org",
			ClientID: "c"},
		"https://login.example.org,audience=a,client-id=c,client-secret-file=/run/s,label=team:groups:rc-," +
			"label=group.*:roles,label=unit:department:a:b": {Name: "login.example.org", URL: "https://login.example.org",
			Audience: "a", ClientID: "c", ClientSecretFile: "/run/s", Labels: []identity.LabelClaim{
				{Key: "team", Claim: "groups", Prefix: "rc-"}, {Key: "group.*", Claim: "roles"},
				{Key: "unit", Claim: "department", Prefix: "a:b"}}},
	} {
		if got, err := identity.ParseOIDCIssuer(s); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "login.example.org,audience=a", "https://login.example.org", "https://login.example.org,audience=",
		"https://login.example.org,audience=a,audience=b", "https://login.example.org,audience=a,link=username,link=username",
		"https://login.example.org,audience=a,link=email", "https://login.example.org,audience=a,link",
		"https://" + strings.Repeat("x", 300) + ",audience=a",
		"https://login.example.org,audience=a,secret=b", "https://login.example.org,audience=a,",
		"ftp://login.example.org,audience=a",
		"http://login.example.org,audience=a", "http://10.0.0.1,audience=a", "https://user:password@login.example.org,audience=a",
		"https://login.example.org?x=y,audience=a", "https://login.example.org#x,audience=a", "https://uaa,audience=a",
		"https://uaa/,audience=a", ",audience=a",
		"https://login.example.org,name=a", "https://login.example.org,audience=a,client-secret-file=/run/s",
		"https://login.example.org,audience=a,name=a/b", "https://login.example.org,audience=a,name=..",
		"https://login.example.org,audience=a,name=a b", "https://login.example.org,audience=a,name=" + strings.Repeat("n", 64),
		"https://login.example.org,audience=a,label=team", "https://login.example.org,audience=a,label=team:",
		"https://login.example.org,audience=a,label=:groups", "https://login.example.org,audience=a,label=-x:groups",
		"https://login.example.org,audience=a,label=.*:groups", "https://login.example.org,audience=a,groups=groups",
		"https://login.example.org,audience=a,label=team:groups:a-,label=team:groups:b-",
		"https://login.example.org,audience=a,label=group.*:groups,label=group.admin:admin",
		"https://login.example.org,audience=a,label=group.admin:admin,label=group.*:groups",
		"https://login.example.org,audience=a,label=group.*:groups,label=group.sub.*:groups",
		"https://login.example.org,audience=a,label=team:https://example.org/groups",
	} {
		if got, err := identity.ParseOIDCIssuer(s); err == nil {
			t.Errorf("%s: got %+v", s, got)
		}
	}
	for url, want := range map[string]string{
		"https://login.example.org": "login.example.org", "https://login.example.org/": "login.example.org",
		"https://login.example.org/realms/a": "login.example.org/realms/a", "http://127.0.0.1:5556/dex": "127.0.0.1:5556/dex",
	} {
		if got := (identity.OIDCIssuer{URL: url}).Origin(); got != want {
			t.Errorf("%s has the origin %s", url, got)
		}
	}
	a, b := identity.OIDCIssuer{URL: "https://a"}, identity.OIDCIssuer{URL: "https://a/"}
	client := identity.OIDCIssuer{Name: "corp", URL: "https://b", ClientID: "c"}
	labels := identity.OIDCIssuer{Name: "corp", URL: "https://c", Labels: []identity.LabelClaim{{Key: "a", Claim: "b"}}}
	for _, issuers := range [][]identity.OIDCIssuer{{a, a}, {a, b}, {{URL: issuer}}, {client, labels}} {
		if identity.CheckOIDCIssuers(issuer, issuers) == nil {
			t.Errorf("%v are accepted", issuers)
		}
	}
	// Nobody meets the name of an issuer whose bearer tokens are accepted, and no more: realms of one host may share it.
	realms := []identity.OIDCIssuer{{Name: "h", URL: "https://h/a", Audience: "a"},
		{Name: "h", URL: "https://h/b", Audience: "a"}}
	if err := identity.CheckOIDCIssuers(issuer, realms); err != nil {
		t.Error(err)
	}
}

func TestReadOIDCIssuers(t *testing.T) {
	got, err := identity.ReadOIDCIssuers(strings.NewReader(`# Who may sign in
issuers:
- name: corp
  url: https://login.example.org
  audience: rolecall
  clientId: c
  clientSecretFile: /run/s
  username: email
  link: username
  labels:
  - {key: team, claim: https://example.org/groups, prefix: "rc-"}
  - key: group.*
    claim: a,b
- {url: "https://ci.example.org", audience: x}
`))
	want := []identity.OIDCIssuer{
		{Name: "corp", URL: "https://login.example.org", Audience: "rolecall", ClientID: "c", ClientSecretFile: "/run/s",
			UsernameClaim: "email", Links: true, Labels: []identity.LabelClaim{
				{Key: "team", Claim: "https://example.org/groups", Prefix: "rc-"}, {Key: "group.*", Claim: "a,b"}}},
		{Name: "ci.example.org", URL: "https://ci.example.org", Audience: "x"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	const head = "issuers:\n- url: https://login.example.org\n  audience: a\n"
	for text, says := range map[string]string{
		"":                                         "empty",
		"- x":                                      "line 1: this must be a mapping with the keys issuers",
		head + "  audiense: x":                     `line 4: the key "audiense" is unknown; known are name, url, audience`,
		head + "issuer: x":                         `line 4: the key "issuer" is unknown`,
		head + "  labels: [{key: a, x: y}]":        `line 4: the key "x" is unknown; known are key, claim, prefix`,
		head + "  labels: [a]":                     "line 4: this must be a mapping",
		head + "  labels: {key: a}":                "line 4",
		head + "  labels: [{key: a}]":              "has no claim",
		head + "  name: [a]":                       "line 4",
		head + "  audience: b":                     `"audience" already defined at line 3`,
		head + "  labels: [{key: -, claim: c}]":    `line 2: the label "-"`,
		head + "  link: email":                     "line 2: https://login.example.org has link=email",
		head + "- url: http://example.org":         "line 4: ",
		head + "- url: https://uaa\n  audience: a": "line 4: ",
		head + "---\nissuers: []":                  "several documents",
		"issuers: [":                               "line 1",
		"issuers:\n- x":                            "line 2: this must be a mapping",
	} {
		if got, err := identity.ReadOIDCIssuers(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: want %q, got %+v, %v", text, says, got, err)
		}
	}
}

// TestClientSecretFile: the file is read each time, and errors hold nothing of it.
func TestClientSecretFile(t *testing.T) {
	i := identity.OIDCIssuer{ClientSecretFile: filepath.Join(t.TempDir(), "secret")}
	if _, err := i.ClientSecret(); err == nil {
		t.Error("a file that does not exist has a secret")
	}
	for text, want := range map[string]string{"": "", " \n": "", "one\n": "one", "two": "two"} {
		if err := os.WriteFile(i.ClientSecretFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := i.ClientSecret(); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, string(got), err)
		}
	}
	if got, err := (identity.OIDCIssuer{}).ClientSecret(); got != "" || err != nil {
		t.Errorf("without a file: %q, %v", string(got), err)
	}
}
