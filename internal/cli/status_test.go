package cli

import (
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/client"
)

func TestStatusFields(t *testing.T) {
	t.Parallel()
	c := &call{client: client.New("https://rolecall.example.org", "test")}
	s := &client.ServerStatus{Version: "0.2.0", Replicas: []string{"10.0.0.1", "10.0.0.2"}}
	s.Control.Migration, s.Control.NewerMigrations, s.Control.Bytes = 23, 2, 20<<20
	s.Audit.UnsealedRows, s.Audit.OldestUnsealedRowSeconds = 7, 90.4
	s.Clusters.Registered, s.Clusters.Unreachable = 3, []string{"search"}
	var lines []string
	for _, field := range statusFields(c, s) {
		lines = append(lines, strings.Join(field, ": "))
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"server: https://rolecall.example.org", "replicas: 10.0.0.1, 10.0.0.2", "20 MiB",
		"schema: migration 23, of a newer release: 2", "clusters: 3 registered, 1 unreachable: search",
		"unsealed audit rows: 7, the oldest for 90s", "changes without outcome: none"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status has no %q:\n%s", want, text)
		}
	}
	if text := fmt.Sprint(statusFields(c, &client.ServerStatus{})); !strings.Contains(text, "all reachable") ||
		!strings.Contains(text, "replicas none") {
		t.Errorf("the empty status is %s", text)
	}
}
