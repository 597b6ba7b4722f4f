// Package apitest holds the handlers to the OpenAPI documents of package api. It is for the tests of all dialects.
//
//   - Parity: compare Operations with the routes.
//   - Exchange and Agreement: send the requests of a test through Transport.
//   - Bad input: have Fuzz make requests.
//   - Shape: compare the wire structs with the schemas.
//
// It must not know a dialect: what it checks stands in the documents, or holds for all of them.
package apitest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"rolecall/api"
)

// Document is an OpenAPI document that is known to be valid.
type Document struct {
	name   string
	prefix string // the path of the server URL: "" or "/databases/postgresql"
	spec   *openapi3.T
	paths  []path // most literal first
}

// path is one path of the document, with its template cut at the slashes.
type path struct {
	template string
	segments []string
	item     *openapi3.PathItem
	rest     bool // the last parameter takes slashes, too: see takesRest
}

// takesRest marks a path parameter, the last one, that takes the rest of the path with its slashes. OpenAPI has no way
// to say that.
const takesRest = "x-takes-rest"

// Operation is what a route has to match.
type Operation struct {
	Method string
	Path   string // with the server's prefix and the parameters in braces, as http.ServeMux writes them
	ID     string
	Public bool // takes no credentials
}

// loaded keeps documents by name: to check one takes longer than most tests that use it.
var loaded sync.Map

// Load reads the document of that name from package api and fails the test unless it is valid, its examples included.
func Load(t testing.TB, name string) *Document {
	t.Helper()
	if d, ok := loaded.Load(name); ok {
		return d.(*Document)
	}
	data, err := api.File(name)
	if err != nil {
		t.Fatal(err)
	}
	d, err := parse(name, data)
	if err != nil {
		t.Fatal(err)
	}
	loaded.Store(name, d)
	return d
}

func parse(name string, data []byte) (*Document, error) {
	spec, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := spec.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(spec.Servers) != 1 {
		return nil, fmt.Errorf("%s: has %d servers, want one", name, len(spec.Servers))
	}
	server, err := url.Parse(spec.Servers[0].URL)
	if err != nil {
		return nil, fmt.Errorf("%s: server: %w", name, err)
	}
	d := &Document{name: name, prefix: strings.TrimRight(server.Path, "/"), spec: spec}
	for template, item := range spec.Paths.Map() {
		p := path{template: template, segments: strings.Split(d.prefix+template, "/"), item: item}
		for _, parameter := range item.Parameters {
			if parameter.Value.Extensions[takesRest] == true {
				p.rest = p.segments[len(p.segments)-1] == "{"+parameter.Value.Name+"}"
			}
		}
		d.paths = append(d.paths, p)
	}
	// A literal segment goes before a parameter, as it does in http.ServeMux: /clusters/versions is not a cluster.
	slices.SortFunc(d.paths, func(a, b path) int {
		if n := cmp.Compare(len(a.segments), len(b.segments)); n != 0 {
			return n
		}
		for i := range a.segments {
			switch pa, pb := isParameter(a.segments[i]), isParameter(b.segments[i]); {
			case pa && !pb:
				return 1
			case pb && !pa:
				return -1
			}
		}
		return strings.Compare(a.template, b.template)
	})
	return d, nil
}

// Spec is the parsed document, for tests of the document itself.
func (d *Document) Spec() *openapi3.T { return d.spec }

// Operations returns all operations of the document, ordered by path and method.
func (d *Document) Operations() []Operation {
	var all []Operation
	for _, p := range d.paths {
		for method, op := range p.item.Operations() {
			security := &d.spec.Security
			if op.Security != nil {
				security = op.Security
			}
			all = append(all, Operation{
				Method: method,
				Path:   d.prefix + p.template,
				ID:     op.OperationID,
				Public: len(*security) == 0,
			})
		}
	}
	slices.SortFunc(all, func(a, b Operation) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	return all
}

// A hit is a path that a request's path matches, with the decoded values of its parameters.
type hit struct {
	*path
	values map[string]string
}

// match finds the paths that a request's escaped path belongs to, most literal first. It works on the escaped path, so
// that a %2F in a name does not end the segment; and several slashes at the start count as one, as they do for
// the server.
func (d *Document) match(escaped string) []hit {
	segments := strings.Split("/"+strings.TrimLeft(escaped, "/"), "/")
	for i := range segments {
		var err error
		if segments[i], err = url.PathUnescape(segments[i]); err != nil {
			return nil
		}
	}
	var hits []hit
	for i := range d.paths {
		if values, ok := d.paths[i].match(segments); ok {
			hits = append(hits, hit{&d.paths[i], values})
		}
	}
	return hits
}

func (p *path) match(segments []string) (values map[string]string, ok bool) {
	if last := len(p.segments) - 1; p.rest && len(segments) > last {
		segments = append(slices.Clone(segments[:last]), strings.Join(segments[last:], "/"))
	}
	if len(p.segments) != len(segments) {
		return nil, false
	}
	values = map[string]string{}
	for i, want := range p.segments {
		got := segments[i]
		switch {
		case !isParameter(want):
			if got != want {
				return nil, false
			}
		case got == "":
			return nil, false
		default:
			values[want[1:len(want)-1]] = got
		}
	}
	return values, true
}

func isParameter(segment string) bool { return strings.HasPrefix(segment, "{") }

// operation returns the operation that answers the method. HEAD is answered where GET is.
func (p *path) operation(method string) *openapi3.Operation {
	op := p.item.GetOperation(method)
	if op == nil && method == http.MethodHead {
		op = p.item.Get
	}
	return op
}

// formats that kin-openapi knows by name only.
var formats = map[string]openapi3.StringFormatValidator{
	"uuid": openapi3.NewRegexpFormatValidator(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
	"uri": openapi3.NewCallbackValidator(func(s string) error {
		u, err := url.Parse(s)
		if err == nil && !u.IsAbs() {
			err = errors.New("not an absolute URL")
		}
		return err
	}),
}
