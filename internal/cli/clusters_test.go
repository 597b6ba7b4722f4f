package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
)

// TestUpdateKeepsTLS: an update of some TLS settings sends the others, too, on the condition that nobody has changed the
// cluster since they were read.
func TestUpdateKeepsTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cluster := map[string]any{"id": "c", "displayName": "payments",
			"connection": map[string]any{"tls": map[string]any{"mode": "disable", "ca": "the authority",
				"allowPlaintext": true}}}
		var sent struct {
			Connection struct{ TLS map[string]string }
		}
		switch r.Method {
		case http.MethodGet:
			w.Header().Set("ETag", `"read"`)
		case http.MethodPatch:
			if r.Header.Get("If-Match") != `"read"` {
				t.Errorf("If-Match is %q", r.Header.Get("If-Match"))
			}
			if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || sent.Connection.TLS["mode"] != "verify-ca" ||
				sent.Connection.TLS["ca"] != "the authority" || len(sent.Connection.TLS) != 2 {
				t.Errorf("sent were %v, %v", sent, err)
			}
			w.WriteHeader(http.StatusPreconditionFailed)
			cluster = map[string]any{"detail": "The cluster has changed."}
		}
		_ = json.NewEncoder(w).Encode(cluster)
	}))
	defer server.Close()
	c := &call{cmd: &cobra.Command{}, client: client.New(server.URL, "test"),
		cluster: &client.ClusterRef{ID: "c", Name: "payments"}}
	c.client.Token = token
	c.cmd.SetContext(t.Context())
	err := updateCluster(c, map[string]any{}, map[string]any{"tls": map[string]any{"mode": "verify-ca"}})
	if client.Status(err) != http.StatusPreconditionFailed {
		t.Errorf("a change in between: %v", err)
	}
}
