package main

import (
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
