package vaultapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/vaultapi"
)

// Every route has exactly one operation in the document, and the other way round.
func TestParity(t *testing.T) {
	var routes, operations []string
	for _, r := range (&vaultapi.API{}).Handler().Routes() {
		routes = append(routes, fmt.Sprintf("%s %s public=%t", r.Method, strings.ReplaceAll(r.Pattern, "...}", "}"), r.Public))
	}
	for _, op := range apitest.Load(t, "vault.yaml").Operations() {
		operations = append(operations, fmt.Sprintf("%s %s public=%t", op.Method, op.Path, op.Public))
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes:\n%s\noperations:\n%s", strings.Join(routes, "\n"), strings.Join(operations, "\n"))
	}
}
