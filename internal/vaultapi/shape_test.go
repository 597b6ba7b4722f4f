package vaultapi

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"rolecall/internal/apitest"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

func TestShapes(t *testing.T) {
	d := apitest.Load(t, "vault.yaml")
	for schema, v := range map[string]any{
		"Health":                  health{},
		"SealStatus":              sealStatus{},
		"Login":                   response[null, auth]{},
		"OwnTokenAnswer":          response[ownToken, null]{},
		"CredentialsAnswer":       response[credentials, null]{},
		"StaticCredentialsAnswer": response[staticCredentials, null]{},
		"RenewalAnswer":           renewal{},
		"LeaseAnswer":             response[leaseData, null]{},
		"Errors":                  errorResponse{},
	} {
		d.Shape(t, schema, v)
	}
}

// Every kind has a status, none of them 401: see statuses.
func TestErrorTable(t *testing.T) {
	for _, kind := range fault.Kinds() {
		w := httptest.NewRecorder()
		fail(w, httptest.NewRequest("GET", "/v1/x", nil), fault.New(kind, "why"))
		if w.Code < 400 || w.Code == 401 || w.Code == 422 {
			t.Errorf("the kind %d is answered with %d", kind, w.Code)
		}
		want := `{"errors":["why"]}`
		switch kind {
		case fault.Unauthenticated:
			want = `{"errors":["permission denied"]}`
		case fault.Forbidden:
			want = `{"errors":["permission denied","why"]}`
		}
		if got := w.Body.String(); got != want && got != want+"\n" {
			t.Errorf("the kind %d is answered with %s", kind, got)
		}
	}
	if len(statuses) != len(fault.Kinds()) {
		t.Errorf("%d statuses for %d kinds", len(statuses), len(fault.Kinds()))
	}
}

func TestIncrement(t *testing.T) {
	for value, want := range map[string]time.Duration{
		`null`: 0, `0`: 0, `""`: 0, `"0"`: 0, `90`: 90 * time.Second, `"90"`: 90 * time.Second, `"90s"`: 90 * time.Second,
		`"1h30m"`: 90 * time.Minute, `"7d"`: 168 * time.Hour, `9223372036854775807`: longest, `"100000000h"`: longest / 10,
	} {
		got, err := increment(object(t, value))
		if value == `"100000000h"` { // more than a duration can be
			if !fault.Is(err, fault.Malformed) {
				t.Errorf("%s: %s, %v", value, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", value, got, err, want)
		}
	}
	for _, value := range []string{`-1`, `"-1"`, `"-1s"`, `1.5`, `"x"`, `true`, `[]`, `{}`, `1e3`, `92233720368547758070`} {
		if got, err := increment(object(t, value)); !fault.Is(err, fault.Malformed) {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
}

func object(t *testing.T, increment string) *web.Object {
	t.Helper()
	v, err := web.ParseJSON(json.RawMessage(`{"increment":` + increment + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return v.(*web.Object)
}
