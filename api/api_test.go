package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"rolecall/api"
	"rolecall/internal/apitest"
)

func TestEveryFileIsListed(t *testing.T) {
	files, err := fs.Glob(os.DirFS("."), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(api.Names())); !slices.Equal(got, files) {
		t.Errorf("listed are %v, the folder has %v", got, files)
	}
}

// Loading checks the references and the examples. What remains is that nothing is left undescribed.
func TestDocuments(t *testing.T) {
	for _, name := range api.Names() {
		t.Run(name, func(t *testing.T) {
			doc := apitest.Load(t, name)
			spec := doc.Spec()
			public := map[string]bool{}
			for _, op := range doc.Operations() {
				if op.ID == "" {
					t.Errorf("%s %s has no operationId", op.Method, op.Path)
				}
				if _, taken := public[op.ID]; taken {
					t.Errorf("the operationId %s is taken twice", op.ID)
				}
				public[op.ID] = op.Public
			}
			for path, item := range spec.Paths.Map() {
				for method, op := range item.Operations() {
					at := method + " " + path
					if op.Summary == "" || op.Description == "" || len(op.Tags) == 0 {
						t.Errorf("%s lacks a summary, a description or a tag", at)
					}
					checkResponses(t, name, at, op, public[op.OperationID])
				}
			}
			for name, ref := range spec.Components.Schemas {
				describeProperties(t, name, ref.Value)
			}
			for name, ref := range spec.Components.Parameters {
				if ref.Value.Description == "" {
					t.Errorf("the parameter %s has no description", name)
				}
			}
			for name, ref := range spec.Components.Headers {
				if ref.Value.Description == "" {
					t.Errorf("the header %s has no description", name)
				}
			}
		})
	}
}

// errorTypes are the media types of errors, which go by the dialect.
var errorTypes = map[string]string{
	"dbaas.yaml":    "application/problem+json",
	"platform.yaml": "application/json",
	"uaa.yaml":      "application/json",
	"rolecall.yaml": "application/problem+json",
	"vault.yaml":    "application/json",
}

func checkResponses(t *testing.T, name, at string, op *openapi3.Operation, public bool) {
	t.Helper()
	if op.RequestBody != nil {
		needExamples(t, at+" request", op.RequestBody.Value.Content)
	}
	want := []string{"500"}
	unauthenticated := "401"
	if name == "vault.yaml" {
		unauthenticated = "403"
	}
	if !public {
		want = append(want, unauthenticated, "429", "503")
	}
	if op.RequestBody != nil {
		want = append(want, "400", "413")
		if name != "vault.yaml" { // where any media type is JSON
			want = append(want, "415")
		}
		if name != "uaa.yaml" && name != "vault.yaml" { // where a value that is not acceptable is a 400
			want = append(want, "422")
		}
	}
	var successes int
	for status, ref := range op.Responses.Map() {
		at := at + " " + status
		if ref.Value.Description == nil || *ref.Value.Description == "" {
			t.Errorf("%s has no description", at)
		}
		if strings.HasPrefix(status, "2") {
			successes++
		}
		if ref.Value.Headers["X-Request-Id"] == nil {
			t.Errorf("%s does not send X-Request-Id", at)
		}
		needExamples(t, at, ref.Value.Content)
		for mediaType := range ref.Value.Content {
			want := errorTypes[name]
			if strings.HasPrefix(status, "2") {
				want = "application/json"
			}
			if op.OperationID == "userlistGet" { // a file of PgBouncer's
				want = strings.Replace(want, "application/json", "text/plain", 1)
			}
			if mediaType != want && mediaType != "application/jsonl" { // of an export
				t.Errorf("%s is %s, want %s", at, mediaType, want)
			}
		}
	}
	wantSuccesses := 1
	if op.Extensions["x-never-succeeds"] == true { // a part of the reference's API that is there to say no
		wantSuccesses = 0
	}
	if op.Extensions["x-two-successes"] == true { // which a parameter of ours asks for
		wantSuccesses = 2
	}
	if successes != wantSuccesses {
		t.Errorf("%s has %d successes, want %d", at, successes, wantSuccesses)
	}
	for _, status := range want {
		if op.Responses.Value(status) == nil {
			t.Errorf("%s does not document %s", at, status)
		}
	}
}

func needExamples(t *testing.T, at string, content openapi3.Content) {
	t.Helper()
	for mediaType, m := range content {
		if m.Example == nil && len(m.Examples) == 0 {
			t.Errorf("%s %s has no example", at, mediaType)
		}
	}
}

func describeProperties(t *testing.T, at string, schema *openapi3.Schema) {
	t.Helper()
	for name, ref := range schema.Properties {
		// A property that refers to an object is described by that object's own properties.
		if ref.Value.Description == "" && ref.Ref == "" {
			t.Errorf("%s.%s has no description", at, name)
		}
	}
}

// refuseUnknown are the documents of dialects in which an unknown field of a request is a mistake.
var refuseUnknown = map[string]bool{"platform.yaml": true, "rolecall.yaml": true}

// What is sent is closed, what is taken is open, unless the dialect refuses what it does not know.
func TestObjectsAreClosedInResponsesOnly(t *testing.T) {
	for _, name := range api.Names() {
		spec := apitest.Load(t, name).Spec()
		sent, taken := map[*openapi3.Schema]string{}, map[*openapi3.Schema]string{}
		for path, item := range spec.Paths.Map() {
			for method, op := range item.Operations() {
				at := method + " " + path
				if op.RequestBody != nil {
					objects(at, op.RequestBody.Value.Content, taken)
				}
				for _, ref := range op.Responses.Map() {
					objects(at, ref.Value.Content, sent)
				}
			}
		}
		for schema, at := range sent {
			if !closed(schema) {
				t.Errorf("%s: an object of the response is open", at)
			}
		}
		for schema, at := range taken {
			if got, want := closed(schema), refuseUnknown[name]; got != want {
				t.Errorf("%s: an object of the request is closed: %t, want %t", at, got, want)
			}
		}
	}
}

// closed reports whether the schema says something of every field: there are no others, or all are alike.
func closed(schema *openapi3.Schema) bool {
	more := schema.AdditionalProperties
	return more.Schema != nil || more.Has != nil && !*more.Has
}

func objects(at string, content openapi3.Content, into map[*openapi3.Schema]string) {
	var visit func(at string, ref *openapi3.SchemaRef)
	visit = func(at string, ref *openapi3.SchemaRef) {
		if ref == nil || into[ref.Value] != "" {
			return
		}
		if ref.Value.Type.Is(openapi3.TypeObject) {
			into[ref.Value] = at
		}
		visit(at+"[]", ref.Value.Items)
		for name, property := range ref.Value.Properties {
			visit(at+"."+name, property)
		}
	}
	for _, m := range content {
		visit(at, m.Schema)
	}
}

// A component that nothing refers to is a leftover. MethodNotAllowed belongs to no operation.
func TestComponentsAreUsed(t *testing.T) {
	for _, name := range api.Names() {
		b, err := api.File(name)
		if err != nil {
			t.Fatal(err)
		}
		c := apitest.Load(t, name).Spec().Components
		for kind, names := range map[string][]string{
			"schemas":       slices.Sorted(maps.Keys(c.Schemas)),
			"parameters":    slices.Sorted(maps.Keys(c.Parameters)),
			"headers":       slices.Sorted(maps.Keys(c.Headers)),
			"requestBodies": slices.Sorted(maps.Keys(c.RequestBodies)),
			"responses":     slices.Sorted(maps.Keys(c.Responses)),
			"examples":      slices.Sorted(maps.Keys(c.Examples)),
		} {
			for _, component := range names {
				ref := "'#/components/" + kind + "/" + component + "'"
				if !bytes.Contains(b, []byte(ref)) && component != "MethodNotAllowed" {
					t.Errorf("%s: nothing refers to %s", name, ref)
				}
			}
		}
	}
}

// The table for people and the enum for programs are one list.
func TestErrorCodesAreExplained(t *testing.T) {
	spec := apitest.Load(t, "dbaas.yaml").Spec()
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| \\d{3} \\| `([^`]+)` \\|").
		FindAllStringSubmatch(spec.Info.Description, -1) {
		listed = append(listed, row[1])
	}
	var enum []string
	for _, code := range spec.Components.Schemas["ErrorMessage"].Value.Properties["errorCode"].Value.Enum {
		enum = append(enum, code.(string))
	}
	slices.Sort(listed)
	slices.Sort(enum)
	if !slices.Equal(listed, enum) {
		t.Errorf("the table has %v\nthe enum has %v", listed, enum)
	}
}

// The rules of names and passwords, as far as a schema can say them. It must not refuse what the server takes.
func TestDBaaSRequests(t *testing.T) {
	schemas := apitest.Load(t, "dbaas.yaml").Spec().Components.Schemas
	user := func(name string) string {
		b, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		return `{"properties":{"username":` + string(b) + `,"password":"0123456789"}}`
	}
	for _, test := range []struct {
		schema, body string
		want         bool
	}{
		{"CreateUserRequest", user("payments"), true},
		{"CreateUserRequest", user(strings.Repeat("x", 63)), true},
		{"CreateUserRequest", user(strings.Repeat("é", 63)), true}, // too many bytes: that, only the server can say
		{"CreateUserRequest", user(strings.Repeat("x", 64)), false},
		{"CreateUserRequest", user(""), false},
		{"CreateUserRequest", user(`we/ird "né" \ 'x'; --`), true},
		{"CreateUserRequest", user("a\x00b"), false},
		{"CreateUserRequest", user("a\nb"), false},
		{"CreateUserRequest", user("a\n"), false},
		{"CreateUserRequest", user("a\x7f"), false},
		{"CreateUserRequest", user("."), false},
		{"CreateUserRequest", user(".."), false},
		{"CreateUserRequest", user("..."), true},
		{"CreateUserRequest", user("pg_monitor"), false},
		{"CreateUserRequest", user("PG_monitor"), true},
		{"CreateUserRequest", user("my_pg_user"), true},
		{"CreateUserRequest", user("public"), false},
		{"CreateUserRequest", user("publicity"), true},
		{"CreateUserRequest", user("none"), false},
		{"CreateUserRequest", `{"properties":{"username":"a"}}`, false},
		{"CreateUserRequest", `{"properties":{"username":"a","password":null}}`, false},
		{"CreateUserRequest", `{"properties":{"username":"a","password":"012345678"}}`, false},
		{"CreateUserRequest", `{"properties":{"username":"a","password":"éééééééééé"}}`, true},
		{"CreateUserRequest", `{"properties":{"username":"a","password":"0123456789","system":"x","more":{}},"type":"user"}`,
			true},
		{"CreateUserRequest", `{"properties":{"username":"a","password":"0123456789","system":null}}`, true},
		{"CreateUserRequest", `{"properties":[]}`, false},
		{"CreateUserRequest", `{}`, false},
		{"CreateUserRequest", `null`, false},
		{"PatchUserRequest", `{}`, false},
		{"PatchUserRequest", `{"properties":null}`, false},
		{"PatchUserRequest", `{"properties":{}}`, true},
		{"PatchUserRequest", `{"properties":{"password":"0123456789"}}`, true},
		{"PatchUserRequest", `{"properties":{"password":""}}`, false},
		{"PatchUserRequest", `{"properties":{"password":null}}`, false},
		{"PatchUserRequest", `{"properties":{"username":7}}`, false},
		{"PatchUserRequest", `{"properties":{"system":true,"username":"a"}}`, true},
		{"CreateDatabaseRequest", `{"properties":{"name":"a"}}`, false},
		{"CreateDatabaseRequest", `{"properties":{"name":"pg_a","owner":"b"}}`, true},
		{"CreateDatabaseRequest", `{"properties":{"name":"..","owner":"b"}}`, false},
	} {
		var v any
		if err := json.Unmarshal([]byte(test.body), &v); err != nil {
			t.Fatal(err)
		}
		err := schemas[test.schema].Value.VisitJSON(v, openapi3.VisitAsRequest(), openapi3.DisableReadOnlyValidation())
		if got := err == nil; got != test.want {
			t.Errorf("%s %s: accepted %t, want %t (%v)", test.schema, test.body, got, test.want, err)
		}
	}
}

func TestFiles(t *testing.T) {
	files := map[string]http.Handler{}
	for _, f := range api.Files() {
		files[f.Path] = f.Handler
	}
	do := func(method, path string, header ...string) *http.Response {
		req := httptest.NewRequest(method, path, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		if h, ok := files[path]; ok {
			h.ServeHTTP(rec, req)
		} else {
			rec.Code = http.StatusNotFound
		}
		return rec.Result()
	}
	body := func(res *http.Response) []byte {
		t.Helper()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := func(res *http.Response, status int, header, value string) {
		t.Helper()
		if got := res.Header.Get(header); res.StatusCode != status || got != value {
			t.Errorf("got %d with %s %q, want %d with %q", res.StatusCode, header, got, status, value)
		}
	}

	for _, name := range api.Names() {
		res := do("GET", "/openapi/"+name)
		want(res, 200, "Content-Type", "application/yaml")
		file, err := api.File(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body(res), file) {
			t.Errorf("%s is not served as it is", name)
		}
		tag := res.Header.Get("ETag")
		want(do("GET", "/openapi/"+name, "If-None-Match", tag), 304, "ETag", tag)
		want(do("HEAD", "/openapi/"+name), 200, "Content-Type", "application/yaml")
	}
}
