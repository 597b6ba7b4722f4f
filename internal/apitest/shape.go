package apitest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// Shape compares v, a struct that a handler sends, with a schema of components/schemas, and what it contains with what
// the schema contains: the same names of fields, the same basic types, required where the field is always sent (no
// omitempty, no omitzero), and nullable where it may be sent as null (a pointer that is always sent).
func (d *Document) Shape(t testing.TB, schema string, v any) {
	t.Helper()
	d.shape(t, schema, v, false)
}

// RequestShape compares v, a struct that a handler decodes into, with a schema. Required and nullable are left out: they
// are about values, and show in the answers. A readOnly field is ignored by servers and may be missing from v.
func (d *Document) RequestShape(t testing.TB, schema string, v any) {
	t.Helper()
	d.shape(t, schema, v, true)
}

func (d *Document) shape(t testing.TB, schema string, v any, request bool) {
	t.Helper()
	ref := d.spec.Components.Schemas[schema]
	if ref == nil {
		t.Errorf("%s: there is no schema %s", d.name, schema)
		return
	}
	c := comparison{request: request, seen: map[visit]bool{}}
	c.compare(schema, reflect.TypeOf(v), ref.Value)
	for _, problem := range c.problems {
		t.Errorf("%s: %s", d.name, problem)
	}
}

type comparison struct {
	request  bool
	seen     map[visit]bool // a type may contain itself
	problems []string
}

type visit struct {
	typ    reflect.Type
	schema *openapi3.Schema
}

func (c *comparison) problem(at, format string, args ...any) {
	c.problems = append(c.problems, at+": "+fmt.Sprintf(format, args...))
}

func (c *comparison) compare(at string, typ reflect.Type, schema *openapi3.Schema) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if c.seen[visit{typ, schema}] {
		return
	}
	c.seen[visit{typ, schema}] = true

	want := jsonType(typ)
	if want == "" || schema.Type == nil {
		return // json.RawMessage, any, a type that marshals itself; or a schema that takes anything
	}
	if !schema.Type.Is(want) {
		c.problem(at, "%s is sent as %s, the schema says %s", typ, want, strings.Join(schema.Type.Slice(), " or "))
		return
	}
	if typ == reflect.TypeFor[time.Time]() && schema.Format != "date-time" {
		c.problem(at, "a time needs format date-time, the schema says %q", schema.Format)
	}
	switch {
	case want == openapi3.TypeArray && schema.Items != nil:
		c.compare(at+"[]", typ.Elem(), schema.Items.Value)
	case want == openapi3.TypeObject && typ.Kind() == reflect.Struct:
		c.fields(at, typ, schema)
	case want == openapi3.TypeObject && schema.AdditionalProperties.Schema != nil:
		c.compare(at+"{}", typ.Elem(), schema.AdditionalProperties.Schema.Value)
	}
}

// fields compares the fields of a struct with the properties of an object.
func (c *comparison) fields(at string, typ reflect.Type, schema *openapi3.Schema) {
	fields := map[string]field{}
	collect(typ, fields)
	for name, ref := range schema.Properties {
		if _, ok := fields[name]; !ok && !(c.request && ref.Value.ReadOnly) {
			c.problem(at, "the schema has %q, %s does not", name, typ)
		}
	}
	for name, f := range fields {
		ref := schema.Properties[name]
		if ref == nil {
			c.problem(at, "%s has %q, the schema does not", typ, name)
			continue
		}
		if !c.request {
			if required := slices.Contains(schema.Required, name); required && f.optional {
				c.problem(at+"."+name, "the schema requires it, %s may leave it out", typ)
			} else if !required && !f.optional {
				c.problem(at+"."+name, "%s always sends it, the schema does not require it", typ)
			}
			if mayBeNull := f.typ.Kind() == reflect.Pointer && !f.optional; mayBeNull != ref.Value.Nullable && ref.Value.Type != nil {
				c.problem(at+"."+name, "sent as null: %t, nullable in the schema: %t", mayBeNull, ref.Value.Nullable)
			}
		}
		if f.quoted {
			if !ref.Value.Type.Is(openapi3.TypeString) {
				c.problem(at+"."+name, "is sent as a string, the schema says otherwise")
			}
			continue
		}
		c.compare(at+"."+name, f.typ, ref.Value)
	}
	slices.Sort(c.problems)
}

type field struct {
	typ      reflect.Type
	optional bool // omitempty or omitzero
	quoted   bool // the option "string"
}

// collect gathers the fields that encoding/json would send, those of embedded structs included. What is there already,
// from further out, wins.
func collect(typ reflect.Type, into map[string]field) {
	var embedded []reflect.Type
	for f := range typ.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && opts == "" {
			continue
		}
		if f.Anonymous && name == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				embedded = append(embedded, inner)
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if _, taken := into[name]; taken {
			continue
		}
		options := strings.Split(opts, ",")
		into[name] = field{
			typ:      f.Type,
			optional: slices.Contains(options, "omitempty") || slices.Contains(options, "omitzero"),
			quoted:   slices.Contains(options, "string"),
		}
	}
	for _, inner := range embedded {
		collect(inner, into)
	}
}

// jsonType is what encoding/json makes of the type, and "" where only its values can tell.
func jsonType(typ reflect.Type) string {
	implements := func(i reflect.Type) bool { return typ.Implements(i) || reflect.PointerTo(typ).Implements(i) }
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return openapi3.TypeString
	case implements(reflect.TypeFor[json.Marshaler]()), implements(reflect.TypeFor[json.Unmarshaler]()):
		return ""
	case implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return openapi3.TypeString
	}
	switch typ.Kind() {
	case reflect.String:
		return openapi3.TypeString
	case reflect.Bool:
		return openapi3.TypeBoolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return openapi3.TypeInteger
	case reflect.Float32, reflect.Float64:
		return openapi3.TypeNumber
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return openapi3.TypeString // base64
		}
		return openapi3.TypeArray
	case reflect.Array:
		return openapi3.TypeArray
	case reflect.Struct, reflect.Map:
		return openapi3.TypeObject
	}
	return ""
}
