package apitest

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
)

type inner struct {
	On bool `json:"on"`
}

type base struct {
	Text string `json:"text"`
}

// The struct that the schema Shapes describes.
type shapes struct {
	base
	Many   []int32    `json:"many"`
	Maybe  *string    `json:"maybe"`
	Inner  inner      `json:"inner"`
	Since  *time.Time `json:"since,omitempty"`
	Size   float64    `json:"size,omitzero"`
	Hidden string     `json:"-"`
	local  int        //nolint:unused // must be ignored
}

func TestShape(t *testing.T) {
	d := mustParse(t, tiny)
	_ = shapes{}.local
	for _, test := range []struct {
		name string
		v    any
		want string
	}{
		{"the same", shapes{}, ""},
		{"a pointer to the same", &shapes{}, ""},
		{"a field too few", struct {
			base
			Many  []int           `json:"many"`
			Maybe *string         `json:"maybe"`
			Inner inner           `json:"inner"`
			Size  float32         `json:"size,omitempty"`
			Since json.RawMessage `json:"-"`
		}{}, `the schema has "since"`},
		{"a field too many", struct {
			shapes
			More int `json:"more"`
		}{}, `has "more", the schema does not`},
		{"a name without a tag", struct {
			shapes
			Text string
		}{}, `has "Text", the schema does not`},
		{"required, may be left out", struct {
			shapes
			Text string `json:"text,omitempty"`
		}{}, "the schema requires it"},
		{"always sent, not required", struct {
			shapes
			Size float64 `json:"size"`
		}{}, "the schema does not require it"},
		{"null, not nullable", struct {
			shapes
			Text *string `json:"text"`
		}{}, "sent as null: true, nullable in the schema: false"},
		{"nullable, never null", struct {
			shapes
			Maybe string `json:"maybe"`
		}{}, "sent as null: false, nullable in the schema: true"},
		{"another type", struct {
			shapes
			Text int `json:"text"`
		}{}, "is sent as integer, the schema says string"},
		{"a number as text", struct {
			shapes
			Size float64 `json:"size,omitempty,string"`
		}{}, "is sent as a string"},
		{"text by its own method", struct {
			shapes
			Text netip.Addr `json:"text"`
		}{}, ""},
		{"another type within an array", struct {
			shapes
			Many []string `json:"many"`
		}{}, "Shapes.many[]: string is sent as string, the schema says integer"},
		{"another type within an object", struct {
			shapes
			Inner struct {
				On string `json:"on"`
			} `json:"inner"`
		}{}, "Shapes.inner.on: string is sent as string, the schema says boolean"},
		{"a time without its format", struct {
			shapes
			Text time.Time `json:"text"`
		}{}, "a time needs format date-time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rec := &recorder{TB: t}
			d.Shape(rec, "Shapes", test.v)
			expect(t, rec, test.want)
		})
	}
}

func TestRequestShape(t *testing.T) {
	d := mustParse(t, tiny)
	for _, test := range []struct {
		name string
		v    any
		want string
	}{
		{"presence by pointers, the ignored left out", struct {
			Name   *string `json:"name"`
			Secret *string `json:"secret"`
		}{}, ""},
		{"a field too few", struct {
			Name *string `json:"name"`
		}{}, `the schema has "secret"`},
		{"a field too many", struct {
			Name   *string `json:"name"`
			Secret *string `json:"secret"`
			More   *string `json:"more"`
		}{}, `has "more", the schema does not`},
		{"another type", struct {
			Name   *bool   `json:"name"`
			Secret *string `json:"secret"`
		}{}, "is sent as boolean, the schema says string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rec := &recorder{TB: t}
			d.RequestShape(rec, "NewThing", test.v)
			expect(t, rec, test.want)
		})
	}
	rec := &recorder{TB: t}
	d.Shape(rec, "Gone", 0)
	expect(t, rec, "there is no schema Gone")
}

// A type that contains itself ends the comparison where it began.
func TestShapeOfRecursiveType(t *testing.T) {
	type node struct {
		Next *node `json:"next,omitempty"`
	}
	d := mustParse(t, tiny+`    Node: {type: object, properties: {next: {$ref: '#/components/schemas/Node'}}}`)
	d.Shape(t, "Node", node{})
}

func expect(t *testing.T, rec *recorder, want string) {
	t.Helper()
	switch {
	case want == "" && len(rec.failures) > 0:
		t.Errorf("got %q, want no failure", rec.failures)
	case want != "" && (len(rec.failures) != 1 || !strings.Contains(rec.failures[0], want)):
		t.Errorf("got %q, want one failure with %q", rec.failures, want)
	}
}
