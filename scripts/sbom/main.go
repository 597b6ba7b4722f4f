// Command sbom prints the software bill of materials of a Go program, in CycloneDX 1.6, from what the linker recorded in it
// and the licenses in the module cache. The same program gives the same bytes. With -table it prints the table of
// docs/internals/dependencies.md. It runs in the folder of the module that the program was built from.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	version := flag.String("version", "", "version of the program")
	table := flag.Bool("table", false, "print the table of docs/internals/dependencies.md")
	flag.Parse()
	if err := run(flag.Arg(0), *version, *table, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(program, version string, table bool, out io.Writer) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	folders, err := folders()
	if err != nil {
		return err
	}
	var all []module
	for _, m := range info.Deps {
		dir := folders[m.Path+" "+m.Version]
		if dir == "" {
			return fmt.Errorf("%s was built with %s %s, which go.mod does not ask for: build it again", program, m.Path, m.Version)
		}
		license, err := licenseIn(dir)
		if err != nil {
			return err
		}
		all = append(all, module{m.Path, m.Version, m.Sum, license})
	}
	if table {
		for _, m := range all {
			if _, err := fmt.Fprintf(out, "| `%s` | %s | %s |\n", m.path, m.version, m.license); err != nil {
				return err
			}
		}
		return nil
	}
	all = append(all, module{"std", strings.TrimPrefix(info.GoVersion, "go"), "", "BSD-3-Clause"})
	bom, err := document(program, info.Main.Path, version, all)
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(bom)
}

type module struct{ path, version, sum, license string }

// folders is where the module cache has each module, by path and version.
func folders() (map[string]string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}\t{{.Dir}}", "all")
	cmd.Stderr = os.Stderr
	listed, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m all: %w", err)
	}
	folders := map[string]string{}
	for line := range strings.Lines(string(listed)) {
		name, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		folders[name] = dir
	}
	return folders, nil
}

// licenseIn returns the license of the module in a folder.
func licenseIn(dir string) (string, error) {
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if expression := license(string(text)); expression != "" {
			return expression, nil
		}
		return "", fmt.Errorf("the license in %s/%s is not known: read it, and teach it to scripts/sbom", dir, name)
	}
	return "", fmt.Errorf("%s has no license: it may not be used", dir)
}

var spaces = regexp.MustCompile(`\s+`)

// license returns the licenses of a text, recognized by a sentence of each, as an SPDX expression; "" if none is known.
func license(text string) string {
	text = spaces.ReplaceAllString(text, " ")
	var all []string
	for _, known := range []struct{ id, says string }{
		{"Apache-2.0", "www.apache.org/licenses/"},
		{"BSD-3-Clause", "Neither the name"},
		{"MIT", "Permission is hereby granted, free of charge"},
		{"MPL-2.0", "Mozilla Public License"},
	} {
		if strings.Contains(text, known.says) {
			all = append(all, known.id)
		}
	}
	if len(all) == 0 && strings.Contains(text, "Redistribution and use in source and binary forms") {
		return "BSD-2-Clause"
	}
	return strings.Join(all, " AND ")
}

// The document is of https://cyclonedx.org/docs/1.6/json/.
type bom struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref      string      `json:"bom-ref"`
	Type     string      `json:"type"`
	Name     string      `json:"name"`
	Version  string      `json:"version,omitempty"`
	Hashes   []hash      `json:"hashes,omitempty"`
	Licenses []licensing `json:"licenses"`
	PURL     string      `json:"purl,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licensing struct {
	Expression string `json:"expression"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

func document(program, name, version string, modules []module) (*bom, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	own, err := licenseIn(".")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	b := &bom{
		Schema:      "http://cyclonedx.org/schema/bom-1.6.schema.json",
		Format:      "CycloneDX",
		SpecVersion: "1.6",
		Version:     1,
		Metadata: metadata{component{
			Ref:      name,
			Type:     "application",
			Name:     name,
			Version:  version,
			Hashes:   []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
			Licenses: []licensing{{own}},
		}},
	}
	on := dependency{Ref: name}
	for _, m := range modules {
		c := component{
			Type:     "library",
			Name:     m.path,
			Version:  m.version,
			Licenses: []licensing{{m.license}},
			// https://github.com/package-url/purl-spec/blob/main/types-doc/golang-definition.md
			PURL: "pkg:golang/" + m.path + "@" + strings.ReplaceAll(m.version, "+", "%2B"),
		}
		c.Ref = c.PURL
		if encoded, ok := strings.CutPrefix(m.sum, "h1:"); ok { // SHA-256 of the module's files, as in go.sum
			decoded, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				return nil, fmt.Errorf("%s: the sum %s: %w", m.path, m.sum, err)
			}
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(decoded)}}
		}
		b.Components = append(b.Components, c)
		on.On = append(on.On, c.Ref)
	}
	b.Dependencies = []dependency{on}
	return b, nil
}
