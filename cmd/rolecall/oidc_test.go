package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolecall/internal/cli/term"
)

func TestOIDCIssuers(t *testing.T) {
	const a, b = "https://a.example,audience=rolecall", "https://b.example/x,audience=rolecall,username=upn"
	cmd := command(t, "serve")
	t.Setenv("ROLECALL_OIDC_ISSUER", a+" "+b)
	if err := term.FromEnvironment(cmd, nil); err != nil {
		t.Fatal(err)
	}
	given, err := cmd.Flags().GetStringArray("oidc-issuer")
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := (&settings{oidcIssuers: given}).checkedOIDCIssuers("https://rolecall.example")
	if err != nil || len(issuers) != 2 || issuers[1].UsernameClaim != "upn" {
		t.Errorf("got %+v, %v", issuers, err)
	}
	for _, wrong := range [][]string{{"https://a.example"}, {a, a}, {"https://rolecall.example/uaa/oauth/token,audience=x"}} {
		_, err := (&settings{oidcIssuers: wrong}).checkedOIDCIssuers("https://rolecall.example")
		if err == nil || term.ExitCode(err) != term.ExitUsage {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

// TestOIDCFile: the flag and the file can be given together, and both are held to the same rules.
func TestOIDCFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	secret := write("secret", "s3cret")
	file := write("issuers.yaml", "issuers:\n- {name: corp, url: https://b.example, clientId: c, clientSecretFile: "+secret+
		"}\n")
	s := settings{oidcIssuers: []string{"https://a.example,audience=rolecall"}, oidcFile: file}
	issuers, err := s.checkedOIDCIssuers("https://rolecall.example")
	if err != nil || len(issuers) != 2 || issuers[0].Audience != "rolecall" || issuers[1].Name != "corp" {
		t.Errorf("got %+v, %v", issuers, err)
	}
	for _, wrong := range []settings{
		{oidcFile: filepath.Join(dir, "missing")},
		{oidcFile: write("unknown.yaml", "issuers:\n- {url: https://b.example, audience: a, groups: g}\n")},
		{oidcFile: file, oidcIssuers: []string{"https://b.example,audience=rolecall"}},
		{oidcFile: file, oidcIssuers: []string{"https://c.example,client-id=c,name=corp"}},
		{oidcIssuers: []string{"https://c.example,client-id=c,client-secret-file=" + filepath.Join(dir, "missing")}},
		{oidcIssuers: []string{"https://c.example,client-id=c,client-secret-file=" + write("empty", "")}},
		{oidcIssuers: []string{"https://c.example,audience=a,groups=groups"}},
	} {
		_, err := wrong.checkedOIDCIssuers("https://rolecall.example")
		if err == nil || term.ExitCode(err) != term.ExitUsage || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
