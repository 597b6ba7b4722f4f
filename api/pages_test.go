package api_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rolecall/api"
	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/door"
)

// served finds the pages as the server does.
func served() *door.Router {
	var routes []door.Route
	for _, f := range api.Files() {
		routes = append(routes, door.Route{Method: http.MethodGet, Pattern: f.Path,
			Handle: func(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
				f.Handler.ServeHTTP(w, r)
				return nil
			}})
	}
	return door.NewRouter(routes...)
}

func get(t testing.TB, router *door.Router, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	route, _ := router.Find(r)
	if route == nil {
		w.WriteHeader(http.StatusNotFound)
		return w
	}
	if err := route.Handle(w, r, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// maxPage is the size of a page in bytes.
const maxPage = 60_000

var (
	links = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	ids   = regexp.MustCompile(` id="([^"]*)"`)
	// loose is what the policy of the pages forbids.
	loose = regexp.MustCompile(`(?i)<script|<style|\sstyle=|\son[a-z]+=|javascript:`)
)

// Every page that another one leads to is there, small and without what the policy forbids, and so is each of its anchors.
func TestPages(t *testing.T) {
	router := served()
	pages := map[string]string{}
	queue := []string{"/docs"}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if _, seen := pages[path]; seen {
			continue
		}
		w := get(t, router, path)
		body := w.Body.String()
		pages[path] = body
		if w.Code != http.StatusOK {
			t.Errorf("%s is a %d", path, w.Code)
		}
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			continue
		}
		if len(body) > maxPage || strings.Count(body, "<h1>") != 1 {
			t.Errorf("%s has %d bytes and %d headings", path, len(body), strings.Count(body, "<h1>"))
		}
		if found := loose.FindString(body); found != "" || strings.Contains(body, "$ref") || strings.Contains(body, "ZgotmplZ") {
			t.Errorf("%s has %q", path, found)
		}
		seen := map[string]bool{}
		for _, id := range ids.FindAllStringSubmatch(body, -1) {
			if seen[id[1]] {
				t.Errorf("%s has the id %s twice", path, id[1])
			}
			seen[id[1]] = true
		}
		for _, m := range links.FindAllStringSubmatch(body, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if strings.HasPrefix(target, "/") && target != "/console/" {
				queue = append(queue, target)
			}
		}
	}
	for path, body := range pages {
		for _, m := range links.FindAllStringSubmatch(body, -1) {
			target, anchor, has := strings.Cut(m[1], "#")
			if target == "" {
				target = path
			}
			if has && !strings.Contains(pages[target], ` id="`+anchor+`"`) {
				t.Errorf("%s leads to %s, which has no such place", path, m[1])
			}
		}
	}
	for _, name := range api.Names() {
		slug := strings.TrimSuffix(name, ".yaml")
		doc := apitest.Load(t, name)
		for _, op := range doc.Operations() {
			page, there := pages["/docs/"+slug+"/"+op.ID]
			if !there {
				t.Errorf("no page leads to the operation %s of %s", op.ID, name)
				continue
			}
			if needs := strings.Contains(page, "It needs a credential"); needs == op.Public {
				t.Errorf("%s: the page says that it needs a credential: %t", op.ID, needs)
			}
		}
		for path, item := range doc.Spec().Paths.Map() {
			for method, op := range item.Operations() {
				page := pages["/docs/"+slug+"/"+op.OperationID]
				want := []string{method, path, op.Summary}
				for status := range op.Responses.Map() {
					want = append(want, `id="status-`+status+`"`)
				}
				for _, p := range slices.Concat(item.Parameters, op.Parameters) {
					want = append(want, "<dt><code>"+p.Value.Name+"</code>")
				}
				for _, text := range want {
					if !strings.Contains(page, text) && !strings.Contains(page, strings.ReplaceAll(text, "'", "&#39;")) {
						t.Errorf("the page of %s lacks %q", op.OperationID, text)
					}
				}
			}
		}
		for schema := range doc.Spec().Components.Schemas {
			if _, there := pages["/docs/"+slug+"/schemas/"+schema]; !there {
				t.Errorf("no page leads to the schema %s of %s", schema, name)
			}
		}
	}
}

// A page has a tag, and what is unknown is a page, too.
func TestPageAnswers(t *testing.T) {
	router := served()
	first := get(t, router, "/docs/dbaas")
	tag := first.Header().Get("ETag")
	if first.Code != http.StatusOK || tag == "" {
		t.Fatalf("got %d with the tag %q", first.Code, tag)
	}
	if again := get(t, router, "/docs/dbaas", "If-None-Match", tag); again.Code != http.StatusNotModified {
		t.Errorf("an unchanged page is a %d", again.Code)
	}
	for _, path := range []string{"/docs/none", "/docs/dbaas/none", "/docs/none/usersList", "/docs/dbaas/schemas/none",
		"/docs/dbaas/%3Cscript%3E", "/docs/dbaas.yaml", "/docs/../etc"} {
		w := get(t, router, path)
		if w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%s is a %d: %s", path, w.Code, w.Body)
		}
	}
	if css := get(t, router, "/docs/docs.css"); css.Header().Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("the style sheet is %s", css.Header().Get("Content-Type"))
	}
	h := http.Header{}
	api.SetHeaders(h)
	if csp := h.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") ||
		!strings.HasPrefix(csp, "default-src 'none';") {
		t.Errorf("the policy is %s", csp)
	}
}
