package manifest_test

import (
	"os"
	"strings"
	"testing"

	"rolecall/internal/manifest"
)

// TestDocumentedExample: the example of docs/fleet-file.md is a file for the parser and for the schema. In an empty fleet it
// has a step for each thing, and no conflict but that of a password to keep.
func TestDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/fleet-file.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	m, err := manifest.Parse("docs/fleet-file.md", []byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled(t).Validate(generic(t, text)); err != nil {
		t.Error(err)
	}
	p := manifest.MakePlan(m, []byte(text), &manifest.Observed{})
	if len(p.Steps) != 10 || len(p.Conflicts) != 1 || p.Conflicts[0].Name != "report" {
		t.Errorf("the plan is\n%s", summary(p))
	}
	// Every key that the schema has is in the example.
	for _, key := range keys(manifest.Schema()) {
		if !strings.Contains(text, key+":") && key != "cert" && key != "key" {
			t.Errorf("the example has no %s", key)
		}
	}
}

// keys are the keys of objects in a schema.
func keys(v any) (all []string) {
	schema, _ := v.(map[string]any)
	properties, _ := schema["properties"].(map[string]any)
	for name, p := range properties {
		all = append(all, name)
		all = append(all, keys(p)...)
	}
	if items := schema["items"]; items != nil {
		all = append(all, keys(items)...)
	}
	return all
}
