package api

import (
	"encoding/json"
	"fmt"
	"html/template"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a part of an OpenAPI document, with its root to follow references in; the zero node is one that is missing. Unlike
// a map it has its fields in the order of the document.
type node struct{ at, root *yaml.Node }

// read returns the root of a document.
func read(data []byte) (node, error) {
	var file yaml.Node
	if err := yaml.Unmarshal(data, &file); err != nil {
		return node{}, err
	}
	return node{file.Content[0], file.Content[0]}, nil
}

func (n node) exists() bool { return n.at != nil }

// get is the part of that name, or below several.
func (n node) get(names ...string) node {
	for _, name := range names {
		found := node{root: n.root}
		for key, value := range n.fields() {
			if key == name {
				found = value
				break
			}
		}
		n = found
	}
	return n
}

// fields are the fields of an object, in order.
func (n node) fields() func(yield func(string, node) bool) {
	return func(yield func(string, node) bool) {
		if n.at == nil || n.at.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.at.Content); i += 2 {
			if !yield(n.at.Content[i].Value, node{n.at.Content[i+1], n.root}) {
				return
			}
		}
	}
}

// items are the elements of a list.
func (n node) items() (items []node) {
	if n.at != nil && n.at.Kind == yaml.SequenceNode {
		for _, item := range n.at.Content {
			items = append(items, node{item, n.root})
		}
	}
	return items
}

// text is a scalar as it is written; "" for what is missing.
func (n node) text() string {
	if n.at == nil || n.at.Kind != yaml.ScalarNode {
		return ""
	}
	return n.at.Value
}

// texts are the scalars of a list.
func (n node) texts() (texts []string) {
	for _, item := range n.items() {
		texts = append(texts, item.text())
	}
	return texts
}

// reference is what the node refers to, like "#/components/schemas/User"; "": it is no reference.
func (n node) reference() string { return n.get("$ref").text() }

// followed is what the node refers to, else itself.
func (n node) followed() node {
	reference := n.reference()
	if reference == "" {
		return n
	}
	return node{n.root, n.root}.get(strings.Split(strings.TrimPrefix(reference, "#/"), "/")...)
}

// json is the node as JSON has it, with its fields in the order of the document.
func (n node) json(indent string) string {
	if n.at == nil {
		return "null"
	}
	deeper := indent + "  "
	var parts []string
	switch n.at.Kind {
	case yaml.MappingNode:
		for key, value := range n.fields() {
			parts = append(parts, quoted(key)+": "+value.json(deeper))
		}
		return enclosed("{", parts, "}", indent)
	case yaml.SequenceNode:
		for _, item := range n.items() {
			parts = append(parts, item.json(deeper))
		}
		return enclosed("[", parts, "]", indent)
	}
	switch n.at.Tag {
	case "!!int", "!!float", "!!bool":
		return n.at.Value
	case "!!null":
		return "null"
	}
	return quoted(n.at.Value)
}

func enclosed(begin string, parts []string, end, indent string) string {
	if len(parts) == 0 {
		return begin + end
	}
	return begin + "\n" + indent + "  " + strings.Join(parts, ",\n"+indent+"  ") + "\n" + indent + end
}

// quoted is a text as JSON has it. Unlike json.Marshal it leaves < as it is: the page escapes it.
func quoted(text string) string {
	var out strings.Builder
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(text); err != nil {
		return `""` // never: it is a string
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// manual is a document as its pages show it.
type manual struct {
	document
	Version     string
	Description template.HTML
	Base        string // of all paths
	Tags        []*tag
	Schemas     []*schemaPage

	operations map[string]*operation
	schemas    map[string]*schemaPage
}

// Path is the page of the document.
func (m *manual) Path() string { return docsPath + "/" + m.slug() }

// slug names the document in paths.
func (d document) slug() string { return strings.TrimSuffix(d.name, path.Ext(d.name)) }

// File is the path of the document itself.
func (m *manual) File() string { return "/openapi/" + m.name }

// tag is a group of operations.
type tag struct {
	Name        string
	ID          string // of its heading
	Description template.HTML
	Operations  []*operation
}

// operation is a method of a path.
type operation struct {
	ID, Method, Path, Summary string
	Description               template.HTML
	Credentials               []string // empty: it needs none
	Parameters                []parameter
	Body                      *body
	Responses                 []response
	In                        *manual
}

// Page is the page of the operation.
func (o *operation) Page() string { return o.In.Path() + "/" + o.ID }

type parameter struct {
	Name, In    string
	Required    bool
	Description template.HTML
	Schema      *schema
	Example     string
}

type body struct {
	Required    bool
	Description template.HTML
	Contents    []content
}

// content is a body of one media type.
type content struct {
	MediaType string
	Schema    *schema
	Examples  []example
}

type example struct{ Name, Text string }

type response struct {
	Status      string
	Description template.HTML
	Headers     []parameter
	Contents    []content
}

// schema is what a value may be.
type schema struct {
	Name, Page  string // of one that has a page of its own; "": it has none
	Type        string
	Description template.HTML
	Facts       []string // such as its limits
	Properties  []property
	Items, Map  *schema // of a list, and of an object with any names
	Words       string  // how the variants are meant
	Variants    []*schema
}

type property struct {
	Name     string
	Required bool
	Schema   *schema
}

type schemaPage struct {
	Name   string
	Schema *schema
	In     *manual
}

// Page is the page of the schema.
func (s *schemaPage) Page() string { return s.In.Path() + "/schemas/" + s.Name }

// methods are in the order in which a path shows them.
var methods = []string{"get", "post", "put", "patch", "delete"}

func newManual(d document, data []byte) (*manual, error) {
	root, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	m := &manual{document: d, Version: root.get("info", "version").text(),
		Description: markdown(root.get("info", "description").text()), operations: map[string]*operation{},
		schemas: map[string]*schemaPage{}}
	if servers := root.get("servers").items(); len(servers) > 0 {
		m.Base = strings.TrimSuffix(servers[0].get("url").text(), "/")
	}
	tags := map[string]*tag{}
	for _, t := range root.get("tags").items() {
		named := &tag{Name: t.get("name").text(), Description: markdown(t.get("description").text())}
		named.ID = strings.ToLower(strings.ReplaceAll(named.Name, " ", "-"))
		m.Tags = append(m.Tags, named)
		tags[named.Name] = named
	}
	for at, item := range root.get("paths").fields() {
		for _, method := range methods {
			n := item.get(method)
			if !n.exists() {
				continue
			}
			o := m.newOperation(root, at, method, item, n)
			m.operations[o.ID] = o
			for _, name := range n.get("tags").texts() {
				if tags[name] == nil {
					return nil, fmt.Errorf("%s: the operation %s has the unknown tag %q", d.name, o.ID, name)
				}
				tags[name].Operations = append(tags[name].Operations, o)
			}
		}
	}
	for name, n := range root.get("components", "schemas").fields() {
		s := &schemaPage{Name: name, Schema: m.newSchema(n), In: m}
		m.Schemas = append(m.Schemas, s)
		m.schemas[name] = s
	}
	return m, nil
}

func (m *manual) newOperation(root node, at, method string, item, n node) *operation {
	o := &operation{ID: n.get("operationId").text(), Method: strings.ToUpper(method), Path: m.Base + at,
		Summary: n.get("summary").text(), Description: markdown(n.get("description").text()), In: m}
	security := n.get("security")
	if !security.exists() {
		security = root.get("security")
	}
	for _, alternative := range security.items() {
		for name := range alternative.fields() {
			o.Credentials = append(o.Credentials, credential(root.get("components", "securitySchemes", name)))
		}
	}
	for _, p := range append(item.get("parameters").items(), n.get("parameters").items()...) {
		o.Parameters = append(o.Parameters, m.newParameter(p.followed().get("name").text(), p))
	}
	if b := n.get("requestBody").followed(); b.exists() {
		o.Body = &body{Required: b.get("required").text() == "true", Description: markdown(b.get("description").text()),
			Contents: m.newContents(b)}
	}
	for status, r := range n.get("responses").fields() {
		r = r.followed()
		shown := response{Status: status, Description: markdown(r.get("description").text()), Contents: m.newContents(r)}
		for name, h := range r.get("headers").fields() {
			shown.Headers = append(shown.Headers, m.newParameter(name, h))
		}
		o.Responses = append(o.Responses, shown)
	}
	return o
}

// credential says what a security scheme asks for.
func credential(scheme node) string {
	switch scheme.get("type").text() {
	case "http":
		return "HTTP " + strings.ToUpper(scheme.get("scheme").text()[:1]) + scheme.get("scheme").text()[1:]
	case "apiKey":
		return "the " + scheme.get("in").text() + " " + scheme.get("name").text()
	}
	return scheme.get("type").text()
}

func (m *manual) newParameter(name string, n node) parameter {
	n = n.followed()
	p := parameter{Name: name, In: n.get("in").text(), Required: n.get("required").text() == "true",
		Description: markdown(n.get("description").text()), Schema: m.newSchema(n.get("schema"))}
	if e := n.get("example"); e.exists() {
		p.Example = plainOrJSON(e)
	}
	return p
}

// plainOrJSON is an example: a text as it is, anything else as JSON.
func plainOrJSON(n node) string {
	if n.at.Kind == yaml.ScalarNode {
		return n.text()
	}
	return n.json("")
}

const form = "application/x-www-form-urlencoded"

func (m *manual) newContents(n node) (contents []content) {
	for mediaType, c := range n.get("content").fields() {
		shown := content{MediaType: mediaType, Schema: m.newSchema(c.get("schema"))}
		if e := c.get("example"); e.exists() {
			shown.Examples = append(shown.Examples, example{"", exampleText(mediaType, e)})
		}
		for name, e := range c.get("examples").fields() {
			e = e.followed()
			if summary := e.get("summary").text(); summary != "" {
				name = summary
			}
			shown.Examples = append(shown.Examples, example{name, exampleText(mediaType, e.get("value"))})
		}
		contents = append(contents, shown)
	}
	return contents
}

// exampleText is an example as it is sent.
func exampleText(mediaType string, n node) string {
	if mediaType != form {
		return plainOrJSON(n)
	}
	var fields []string
	for name, value := range n.fields() {
		fields = append(fields, name+"="+plainOrJSON(value))
	}
	return strings.Join(fields, "\n&")
}

// newSchema is nil for one that is missing. One with a page of its own is named, and not shown again.
func (m *manual) newSchema(n node) *schema {
	if !n.exists() {
		return nil
	}
	if reference := n.reference(); reference != "" {
		name := path.Base(reference)
		return &schema{Name: name, Page: m.Path() + "/schemas/" + name}
	}
	s := &schema{Type: n.get("type").text(), Description: markdown(n.get("description").text()), Facts: factsOf(n),
		Items: m.newSchema(n.get("items"))}
	required := n.get("required").texts()
	for name, p := range n.get("properties").fields() {
		s.Properties = append(s.Properties, property{name, slices.Contains(required, name), m.newSchema(p)})
	}
	if more := n.get("additionalProperties"); more.exists() && more.at.Kind == yaml.MappingNode {
		s.Map = m.newSchema(more)
	}
	for _, several := range []struct{ name, words string }{
		{"oneOf", "one of these"}, {"anyOf", "any of these"}, {"allOf", "all of these"},
	} {
		for _, variant := range n.get(several.name).items() {
			s.Words = several.words
			s.Variants = append(s.Variants, m.newSchema(variant))
		}
	}
	if format := n.get("format").text(); format != "" {
		s.Type += " (" + format + ")"
	}
	return s
}

// limits are the rules of a schema that one word and a value say.
var limits = []struct{ name, words string }{
	{"minLength", "at least %s characters"}, {"maxLength", "at most %s characters"}, {"minimum", "at least %s"},
	{"maximum", "at most %s"}, {"minItems", "at least %s elements"}, {"maxItems", "at most %s elements"},
	{"minProperties", "at least %s fields"}, {"pattern", "matches %s"}, {"default", "by default %s"},
	{"example", "for example %s"},
}

func factsOf(n node) (facts []string) {
	for _, limit := range limits {
		if value := n.get(limit.name); value.exists() {
			facts = append(facts, fmt.Sprintf(limit.words, plainOrJSON(value)))
		}
	}
	if values := n.get("enum").texts(); len(values) > 0 {
		facts = append(facts, "one of "+strings.Join(values, ", "))
	}
	if pattern := n.get("not", "pattern").text(); pattern != "" {
		facts = append(facts, "does not match "+pattern)
	}
	if values := n.get("not", "enum").texts(); len(values) > 0 {
		facts = append(facts, "none of "+strings.Join(values, ", "))
	}
	for _, flag := range []struct{ name, words string }{
		{"nullable", "may be null"}, {"readOnly", "only in answers"}, {"writeOnly", "only in requests"},
	} {
		if n.get(flag.name).text() == "true" {
			facts = append(facts, flag.words)
		}
	}
	return facts
}
