package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func TestParseWindow(t *testing.T) {
	t.Parallel()
	weekend := &client.Window{Days: []string{"sat", "sun"}, From: "02:00", To: "04:00", Timezone: "Europe/Berlin"}
	for text, want := range map[string]*client.Window{
		"sat,sun 02:00-04:00 Europe/Berlin":     weekend,
		"  sat,sun  02:00-04:00 Europe/Berlin ": weekend,
		"":                                      nil,
		" ":                                     nil,
	} {
		if got, err := parseWindow(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
	}
	if got := windowText(weekend); got != "sat,sun 02:00-04:00 Europe/Berlin" {
		t.Errorf("the window is written %q", got)
	}
	for _, text := range []string{"sat", "sat 02:00-04:00", "sat 02:00 UTC", "sat, sun 02:00-04:00 UTC"} {
		if got, err := parseWindow(text); term.ExitCode(err) != term.ExitUsage {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

// TestCredentialSettings: what is not given stays as it is stored, on the condition that nobody has changed it since.
func TestCredentialSettings(t *testing.T) {
	t.Parallel()
	stored := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !stored {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", `"3"`)
		_ = json.NewEncoder(w).Encode(client.Credential{For: "shop", RotateEvery: "720h", Overlap: "24h",
			Window: &client.Window{Days: []string{"sat"}, From: "02:00", To: "04:00", Timezone: "UTC"}})
	}))
	defer server.Close()
	merge := func(flags ...string) (client.CredentialSettings, string, error) {
		t.Helper()
		c := &call{cmd: &cobra.Command{}, args: []string{"a"}, client: client.New(server.URL, "test"),
			cluster: &client.ClusterRef{ID: "c", Name: "payments"}}
		c.client.Token = token
		c.cmd.SetContext(t.Context())
		var s credentialSettings
		f := c.cmd.Flags()
		f.StringVar(&s.role, "for", "", "")
		f.StringVar(&s.rotateEvery, "rotate-every", "", "")
		f.StringVar(&s.overlap, "overlap", "", "")
		f.StringVar(&s.window, "window", "", "")
		if err := f.Parse(flags); err != nil {
			t.Fatal(err)
		}
		return s.merge(c)
	}
	body, etag, err := merge("--overlap", "1h")
	if err != nil || etag != `"3"` || body.For != "shop" || body.RotateEvery != "720h" || body.Overlap != "1h" ||
		body.Window == nil {
		t.Errorf("with another overlap: %+v, %s, %v", body, etag, err)
	}
	if body, _, err := merge("--window", ""); err != nil || body.Window != nil || body.Overlap != "24h" {
		t.Errorf("without a window: %+v, %v", body, err)
	}
	if _, _, err := merge("--window", "never"); term.ExitCode(err) != term.ExitUsage {
		t.Errorf("with a wrong window: %v", err)
	}
	stored = false
	if body, etag, err := merge("--for", "a", "--rotate-every", "1h", "--overlap", "0s"); err != nil || etag != "" ||
		body != (client.CredentialSettings{For: "a", RotateEvery: "1h", Overlap: "0s"}) {
		t.Errorf("a new one: %+v, %s, %v", body, etag, err)
	}
	if _, _, err := merge("--for", "a", "--rotate-every", "1h"); term.ExitCode(err) != term.ExitUsage {
		t.Errorf("a new one without an overlap: %v", err)
	}
}

// TestFindClusterByID: a token that is limited to stored credentials reads no clusters, and knows theirs by the id.
func TestFindClusterByID(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	c := client.New(server.URL, "test")
	c.Token = token
	const id = "4c2f0d5e-8a5b-4c1e-9d0a-6f1f2b7c9e21"
	if cl, err := findCluster(t.Context(), c, "4C2F0D5E-8a5b-4c1e-9d0a-6f1f2b7c9e21"); err != nil || cl.ID != id {
		t.Errorf("by id: %+v, %v", cl, err)
	}
	if cl, err := findCluster(t.Context(), c, "payments"); client.Status(err) != http.StatusForbidden {
		t.Errorf("by name: %+v, %v", cl, err)
	}
}
