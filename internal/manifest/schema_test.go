package manifest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"rolecall/internal/manifest"
)

var update = flag.Bool("update", false, "write api/fleet.schema.json")

const schemaFile = "../../api/fleet.schema.json"

// TestSchemaFile holds the served schema to the grammar. After a change of it: go test ./internal/manifest -update
func TestSchemaFile(t *testing.T) {
	want, err := json.MarshalIndent(manifest.Schema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("api/fleet.schema.json differs; write it with: go test ./internal/manifest -run TestSchemaFile -update")
	}
}

// compiled is the schema, which is itself verified against its draft.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("fleet.json", schema); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("fleet.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// generic is a file as a program that knows YAML 1.2 has it, in which dates are texts.
func generic(t *testing.T, text string) any {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	datesAsTexts(&root)
	var v any
	if err := root.Decode(&v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func datesAsTexts(n *yaml.Node) {
	if n.Tag == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, c := range n.Content {
		datesAsTexts(c)
	}
}

// in is a file with a part: of the whole, of an account, a cluster, a database, a user, a credential or a retired thing.
func in(part, text string) string {
	prefix := map[string]string{
		"file": "version: 1\n", "account": "version: 1\naccounts:\n- username: a\n  ",
		"cluster":  "version: 1\nclusters:\n- name: c\n  ",
		"database": "version: 1\nclusters:\n- name: c\n  databases:\n  - name: d\n    ",
		"user":     "version: 1\nclusters:\n- name: c\n  users:\n  - name: u\n    ",
		"retired":  "version: 1\nmode: authoritative\nclusters: [{name: c}]\nretired:\n- ",
	}
	return prefix[part] + text
}

// TestSchemaAndParser: over a corpus of files, the parser and the schema accept and refuse the same. What no schema can say
// is listed apart.
func TestSchemaAndParser(t *testing.T) {
	schema := compiled(t)
	for _, test := range []struct{ part, good, bad, beyond string }{
		{"file", `
accounts: []|clusters: []|mode: adopt|mode: authoritative|retired: []`, `
mode: all|mode: 1|mode: [additive]|accounts: {}|accounts: x|clusters: {a: b}|clusters: [x]|clusters: [{}]|unknown: 1|
accounts: [{}]|accounts: [[]]|accounts: ~|clusters:|retired: [x]`, `
clusters: [{name: c}, {name: c}]|accounts: [{username: A}, {username: a}]|accounts: [{username: no}]`},
		{"account", `
origin: corp|active: true|active: false|scopes: []|scopes: [a, b]|labels: {}|labels: {team: x}|labels: {team: ""}|
annotations: {note: "a b"}|password: generate|password: keep|password: {env: X}|password: {file: a/b}`, `
origin: ""|active: "true"|active: 1|active: yes|scopes: a|scopes: [a, a]|scopes: [1]|labels: [a]|labels: {a: 1}|
labels: {a: true}|
labels: {a: [b]}|password: secret|password: ""|password: 5|password: {}|password: {env: ""}|password: {env: 1}|
password: {env: X, file: y}|password: {is: x}|password: [generate]|name: x`, `
labels: {a: no}|labels: {"a b": c}`},
		{"cluster", `
location: de|connection: {url: "postgres://r@h/d"}|connection: {url: "postgresql://r@h:1,i:2/d", password: {env: X}}|
connection: {url: "postgres://r@h/d", tls: {mode: require, ca: {file: x}, cert: {file: y}, key: {env: Z}}}|
access: {}|access: {manage: [a=b], view: []}|memberOf: []|grantable: [a, b]|systemRoles: ["a*"]|synchronousCommit: on|
synchronousCommit: default|synchronousCommit: local|leases: {}|leases: {defaultTtl: 1h, maxTtl: 7d, maxPerAccount: 5}|
leases: {defaultTtl: 1.5h}|leases: {maxTtl: 1d12h}|databases: []|users: []|credentials: []`, `
location: 5|connection: x|connection: {}|connection: {password: {env: X}}|connection: {url: "http://x"}|
connection: {url: ""}|
connection: {url: "postgres://r@h/d", password: generate}|connection: {url: "postgres://r@h/d", password: x}|
connection: {url: "postgres://r@h/d", tls: {mode: on}}|connection: {url: "postgres://r@h/d", tls: {ca: x}}|
access: []|access: {manage: a=b}|access: {both: []}|memberOf: a|grantable: [1]|systemRoles: [[a]]|synchronousCommit: off|
synchronousCommit: true|leases: {defaultTtl: 5}|leases: {defaultTtl: "5"}|leases: {defaultTtl: -1h}|
leases: {maxPerAccount: 0}|
leases: {maxPerAccount: 1.5}|leases: {maxPerAccount: "5"}|leases: {maxPerAccount: 100001}|leases: {x: 1h}|
databases: {a: {}}|
users: [a]|credentials: [{name: x}]`, `
connection: {url: "postgres://r:p@h/d"}|connection: {url: "postgres://r@h/d?password=x"}|access: {manage: [a==]}|
leases: {defaultTtl: 2h, maxTtl: 1h}|leases: {defaultTtl: 9999999999999999999h}|databases: [{name: d}, {name: d}]|
users: [{name: u}, {name: u}]`},
		{"database", `
owner: o|accessRoles: {}|accessRoles: {schemas: ["*"]}|accessRoles: {schemas: [a, b], adopt: true}`, `
owner: ~|accessRoles: true|accessRoles:|accessRoles: {schemas: []}|accessRoles: {schemas: "*"}|accessRoles: {adopt: 1}|
accessRoles: {levels: []}`, `
accessRoles: {schemas: ["*", a]}`},
		{"user", `
access: {}|access: {shop: write}|access: {"a b": own}|roles: []|roles: [a]|validUntil: never|validUntil: 2027-01-31|
validUntil: "2027-01-31"|validUntil: 2027-01-31T18:00:00Z|validUntil: "2027-01-31T18:00:00.5+01:00"|connectionLimit: 0|
connectionLimit: 5|connectionLimit: none|connectionLimit: 2147483647|disabled: true|disabled: false|password: generate|
password: keep|password: {env: X}`, `
access: [shop]|access: {"": read}|access: {shop: admin}|access: {shop: [write]}|access: {shop: ~}|roles: a|roles: [a, a]|
roles: [""]|validUntil: 7d|
validUntil: ""|validUntil: 2027|validUntil: infinity|validUntil: 2027-01-31T18:00Z|connectionLimit: -1|connectionLimit: ~|
connectionLimit: many|connectionLimit: 5.5|connectionLimit: 2147483648|connectionLimit: "5"|disabled: "no"|disabled: 0|
password: {value: x}|password: p|comment: x`, `
validUntil: 2027-02-30|validUntil: "2027-01-31T25:00:00Z"|validUntil: 0000-01-01|roles: [no]|roles: [2027-01-31]|
access: {no: read}`},
		{"credential", `
{for: f, rotateEvery: 30d}|{for: f, rotateEvery: 30d, overlap: 24h}|
{for: f, rotateEvery: 30d, window: {days: [sat, sun], from: "02:00", to: "04:00", timezone: Europe/Berlin}}`, `
{for: f}|{rotateEvery: 1d}|{for: f, rotateEvery: soon}|{for: f, rotateEvery: 1d, overlap: x}|
{for: f, rotateEvery: 1d, window: {}}|
{for: f, rotateEvery: 1d, window: {days: [], from: "02:00", to: "04:00", timezone: UTC}}|
{for: f, rotateEvery: 1d, window: {days: [sat, sat], from: "02:00", to: "04:00", timezone: UTC}}|
{for: f, rotateEvery: 1d, window: {days: [saturday], from: "02:00", to: "04:00", timezone: UTC}}|
{for: f, rotateEvery: 1d, window: {days: [sat], from: "2:00", to: "04:00", timezone: UTC}}|
{for: f, rotateEvery: 1d, window: {days: [sat], from: "24:00", to: "04:00", timezone: UTC}}|
{for: f, rotateEvery: 1d, window: {days: [sat], from: "02:00", to: "04:00"}}`, `
{for: f, rotateEvery: 1h, overlap: 2h}|{for: f, rotateEvery: 0s}`},
		{"retired", `
{account: a}|{account: a, origin: o}|{cluster: c, user: u}|{cluster: c, user: u, reassignTo: v}|
{cluster: c, database: d, destroyData: true}|{cluster: c, credential: x}`, `
a|{account: ""}|{account: 1}|{cluster: c, user: [u]}|{cluster: c, role: r}|{cluster: c, database: d, destroyData: "yes"}`, `
{}|{cluster: c}|{user: u}|{cluster: other, user: u}|{account: a, user: u, cluster: c}|{account: a, cluster: c}|
{cluster: c, user: u, origin: o}|{cluster: c, user: u, reassignTo: u}|{cluster: c, database: d}|
{cluster: c, database: d, destroyData: false}|{cluster: c, credential: x, destroyData: true}|
{cluster: c, database: d, destroyData: true, reassignTo: u}`},
	} {
		for _, kind := range []struct {
			name, cases    string
			schema, parser bool
		}{{"good", test.good, true, true}, {"bad", test.bad, false, false}, {"beyond", test.beyond, true, false}} {
			for text := range strings.SplitSeq(strings.ReplaceAll(kind.cases, "\n", ""), "|") {
				file := in(test.part, text)
				if test.part == "credential" { // its required keys stand in the case
					file = in("cluster", "credentials:\n  - ") + strings.Replace(text, "{", "{name: x, ", 1)
				}
				_, err := manifest.Parse("fleet.yaml", []byte(file), "")
				if invalid := schema.Validate(generic(t, file)); (invalid == nil) != kind.schema {
					t.Errorf("%s: the schema says of\n%s\n%v", kind.name, file, invalid)
				}
				if (err == nil) != kind.parser {
					t.Errorf("%s: the parser says of\n%s\n%v", kind.name, file, err)
				}
			}
		}
	}
}

// TestSchemaDescribesAll: an editor shows what each key is.
func TestSchemaDescribesAll(t *testing.T) {
	var look func(path string, v any)
	look = func(path string, v any) {
		schema, _ := v.(map[string]any)
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			property := p.(map[string]any)
			if property["description"] == nil {
				t.Errorf("%s.%s has no description", path, name)
			}
			look(path+"."+name, p)
		}
		if items := schema["items"]; items != nil {
			look(path+"[]", items)
		}
	}
	look("", manifest.Schema())
}
