package e2e

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// bill runs scripts/sbom on the program.
func bill(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"run", "./scripts/sbom"}, args...), rolecall)...)
	cmd.Dir = ".."
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	return out
}

// Every module in the program stands in docs/internals/dependencies.md with its version and license, and no other.
func TestLicenses(t *testing.T) {
	doc, err := os.ReadFile("../docs/internals/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(doc), "| module | version | license |\n|---|---|---|\n")
	table, _, _ := strings.Cut(after, "\n\n")
	if want := string(bill(t, "-table")); table+"\n" != want {
		t.Errorf("docs/internals/dependencies.md has\n%s\nand the program\n%s", table, want)
	}
}

func TestSBOM(t *testing.T) {
	first := bill(t, "-version", "v1.2.3")
	if !bytes.Equal(first, bill(t, "-version", "v1.2.3")) {
		t.Error("the same program has two bills of materials")
	}
	type component struct {
		Ref      string `json:"bom-ref"`
		Type     string
		Name     string
		Version  string
		PURL     string
		Hashes   []struct{ Alg, Content string }
		Licenses []struct{ Expression string }
	}
	var bom struct {
		BOMFormat    string
		SpecVersion  string
		Version      int
		Metadata     struct{ Component component }
		Components   []component
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	d := json.NewDecoder(bytes.NewReader(first))
	if err := d.Decode(&bom); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(rolecall)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	own := bom.Metadata.Component
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.6" || bom.Version != 1 || own.Name != "rolecall" ||
		own.Version != "v1.2.3" ||
		own.Type != "application" || len(own.Hashes) != 1 || own.Hashes[0].Content != hex.EncodeToString(sum[:]) {
		t.Errorf("the head of the document: %+v", own)
	}
	info, err := buildinfo.ReadFile(rolecall)
	if err != nil {
		t.Fatal(err)
	}
	if len(bom.Components) != len(info.Deps)+1 {
		t.Fatalf("%d components, but %d modules and the standard library", len(bom.Components), len(info.Deps))
	}
	if len(bom.Dependencies) != 1 || bom.Dependencies[0].Ref != own.Ref ||
		len(bom.Dependencies[0].DependsOn) != len(bom.Components) {
		t.Errorf("the dependencies are %+v", bom.Dependencies)
	}
	license := regexp.MustCompile(`^[A-Z][A-Za-z0-9.-]+( AND [A-Z][A-Za-z0-9.-]+)*$`)
	for i, c := range bom.Components {
		name, version, sums := "std", strings.TrimPrefix(info.GoVersion, "go"), 0
		if i < len(info.Deps) {
			name, version, sums = info.Deps[i].Path, info.Deps[i].Version, 1
		}
		if c.Type != "library" || c.Name != name || c.Version != version || c.PURL != "pkg:golang/"+name+"@"+version ||
			c.Ref != c.PURL ||
			len(c.Hashes) != sums || len(c.Licenses) != 1 || !license.MatchString(c.Licenses[0].Expression) {
			t.Errorf("component %+v, want %s %s", c, name, version)
		}
	}
}
