package apitest

import (
	"slices"
	"strings"
	"testing"

	"rolecall/api"
)

// tiny is a document that has one of each thing that is checked.
const tiny = `
openapi: 3.0.3
info: {title: tiny, version: 1.0.0}
servers: [{url: /base}]
security: [{basic: []}]
paths:
  /things:
    get:
      operationId: list
      parameters:
        - {name: limit, in: query, schema: {type: integer, minimum: 1}}
      responses:
        '200':
          description: ok
          headers:
            X-Count: {required: true, schema: {type: integer}}
          content:
            application/json:
              schema: {type: array, items: {$ref: '#/components/schemas/Thing'}}
        '400': {$ref: '#/components/responses/NotFound'}
    post:
      operationId: create
      requestBody:
        required: true
        content:
          application/json:
            schema: {$ref: '#/components/schemas/NewThing'}
      responses:
        '200':
          description: ok
          content:
            application/json:
              schema: {$ref: '#/components/schemas/Thing'}
        '422': {$ref: '#/components/responses/NotFound'}
  /things/{name}:
    delete:
      operationId: delete
      parameters:
        - {name: name, in: path, required: true, schema: {type: string, maxLength: 5}}
      responses:
        '204': {description: gone}
        '404': {$ref: '#/components/responses/NotFound'}
  /things/special:
    get:
      operationId: special
      security: []
      responses:
        '204': {description: nothing}
components:
  securitySchemes:
    basic: {type: http, scheme: basic}
  responses:
    NotFound:
      description: not found
      content: {application/problem+json: {schema: {$ref: '#/components/schemas/ErrorResponse'}}}
    MethodNotAllowed:
      description: not allowed
      headers:
        Allow: {required: true, schema: {type: string}}
      content: {application/problem+json: {schema: {$ref: '#/components/schemas/ErrorResponse'}}}
  schemas:
    Thing:
      type: object
      additionalProperties: false
      required: [name, href]
      properties:
        name: {type: string}
        href: {type: string, format: uri}
        id: {type: string, format: uuid}
        made: {type: string, format: date-time}
    NewThing:
      type: object
      required: [name]
      properties:
        name: {type: string, minLength: 2}
        secret: {type: string, minLength: 10, writeOnly: true}
        system: {readOnly: true, nullable: true}
    ErrorResponse:
      type: object
      additionalProperties: false
      required: [httpStatus]
      properties:
        httpStatus: {type: integer}
    Shapes:
      type: object
      required: [text, many, maybe, inner]
      properties:
        text: {type: string}
        many: {type: array, items: {type: integer}}
        maybe: {type: string, nullable: true}
        inner: {type: object, required: [on], properties: {on: {type: boolean}}}
        since: {type: string, format: date-time}
        size: {type: number}
`

func mustParse(t *testing.T, data string) *Document {
	t.Helper()
	d, err := parse("tiny.yaml", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLoadEveryDocument(t *testing.T) {
	for _, name := range api.Names() {
		if ops := Load(t, name).Operations(); len(ops) == 0 {
			t.Errorf("%s: no operations", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ name, old, new, want string }{
		{"not YAML", "openapi: 3.0.3", "openapi: [", "yaml"},
		{"a dangling reference", "schemas/NewThing", "schemas/Gone", "Gone"},
		{"two servers", "[{url: /base}]", "[{url: /base}, {url: /other}]", "2 servers"},
		{"an example that its schema rejects", "{type: string, minLength: 2}", "{type: string, minLength: 2, example: x}",
			"minimum string length"},
		{"a path parameter that is not declared", "/things/special:", "/things/{name}/{other}:", "path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(tiny, test.old, test.new, 1)
			if changed == tiny {
				t.Fatal("the test changes nothing")
			}
			if _, err := parse("tiny.yaml", []byte(changed)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestOperations(t *testing.T) {
	got := mustParse(t, tiny).Operations()
	want := []Operation{
		{"GET", "/base/things", "list", false},
		{"POST", "/base/things", "create", false},
		{"GET", "/base/things/special", "special", true},
		{"DELETE", "/base/things/{name}", "delete", false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestMatch(t *testing.T) {
	d := Load(t, "dbaas.yaml")
	const users = "/clusters/{clusterId}/users/{username}"
	for _, test := range []struct{ path, want, name string }{
		{"/databases/postgresql/clusters/c/users/plain", users, "plain"},
		{"/databases/postgresql/clusters/c/users/we%2Fird%20n%C3%A9", users, "we/ird né"},
		{"/databases/postgresql/clusters/c/users/%252F", users, "%2F"},
		{"/databases/postgresql/clusters/c/users/..", users, ".."},
		{"/databases/postgresql/clusters/c/users/%2E%2E", users, ".."},
		{"//databases/postgresql/clusters/c/users/x", users, "x"},
		{"/databases/postgresql//clusters/c/users/x", "", ""},
		{"/databases/postgresql/clusters/c/users/", "", ""},
		{"/databases/postgresql/clusters/c/users/a/b", users, "a/b"},
		{"/databases/postgresql/clusters/c/users//a/", users, "/a/"},
		{"/databases/postgresql/clusters/c/versions/a", "", ""},
		{"/databases/postgresql/clusters/c/users/%zz", "", ""},
		{"/databases/postgresql/clusters/postgresversions", "/clusters/postgresversions", ""},
		{"/databases/postgresql/clusters/backups", "/clusters/backups", ""},
		{"/databases/postgresql/clusters/restores", "/clusters/{clusterId}", ""},
		{"/databases/postgresql/clusters", "/clusters", ""},
		{"/databases/postgresql", "", ""},
		{"/clusters", "", ""},
		{"", "", ""},
	} {
		var got, name string
		if hits := d.match(test.path); len(hits) > 0 {
			got, name = hits[0].template, hits[0].values["username"]
		}
		if got != test.want || name != test.name {
			t.Errorf("%s: got %q with the name %q, want %q with %q", test.path, got, name, test.want, test.name)
		}
	}
}
