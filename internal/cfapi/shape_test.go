package cfapi

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/fault"
)

func TestShape(t *testing.T) {
	d := apitest.Load(t, "platform.yaml")
	for schema, v := range map[string]any{
		"User":          user{},
		"UserList":      userList{},
		"EmptyList":     emptyList{},
		"RoleList":      roleList{},
		"Job":           job{},
		"Root":          rootResponse{},
		"Index":         indexResponse{},
		"Info":          infoResponse{},
		"ErrorResponse": errorResponse{},
	} {
		d.Shape(t, schema, v)
	}
}

// Every kind of failure has an answer, and the table of the document has the same ones.
func TestErrorTable(t *testing.T) {
	written := map[string]bool{}
	row := func(a answer) string { return fmt.Sprintf("%d %d %s", a.status, a.code, a.title) }
	for _, kind := range fault.Kinds() {
		a, ok := answers[kind]
		if !ok || a.status < 400 {
			t.Errorf("the kind %d is answered with %+v", kind, a)
			continue
		}
		w := httptest.NewRecorder()
		fail(w, nil, fault.New(kind, "why"))
		if w.Code != a.status || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("the kind %d is answered with %d %s", kind, w.Code, w.Header())
		}
		written[row(a)] = true
	}
	for _, e := range exceptions {
		if got := answerOf(fault.New(fault.Internal, "why").Because(e.cause)); got.title != e.title || got.detail == "" {
			t.Errorf("the cause %q is answered with %+v", e.cause, got)
		}
		written[row(e.answer)] = true
	}
	if len(answers) != len(fault.Kinds()) {
		t.Errorf("%d answers for %d kinds", len(answers), len(fault.Kinds()))
	}

	spec := apitest.Load(t, "platform.yaml").Spec()
	documented := map[string]bool{}
	var codes, titles []string
	rows := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| (\\d+) \\| `([^`]+)` \\|")
	for _, r := range rows.FindAllStringSubmatch(spec.Info.Description, -1) {
		documented[r[1]+" "+r[2]+" "+r[3]] = true
		codes, titles = append(codes, r[2]), append(titles, r[3])
	}
	for r := range written {
		if !documented[r] {
			t.Errorf("the document lacks %s", r)
		}
	}
	for r := range documented {
		if !written[r] {
			t.Errorf("nothing is answered with %s", r)
		}
	}
	properties := spec.Components.Schemas["Error"].Value.Properties
	for _, code := range properties["code"].Value.Enum {
		if !slices.Contains(codes, strconv.Itoa(int(code.(float64)))) {
			t.Errorf("the code %v is not explained", code)
		}
	}
	for _, title := range properties["title"].Value.Enum {
		if !slices.Contains(titles, title.(string)) {
			t.Errorf("the title %v is not explained", title)
		}
	}
}
