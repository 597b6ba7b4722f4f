package api

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"sync"
)

// docsPath is where the pages are.
const docsPath = "/docs"

//go:embed docs
var pageFiles embed.FS

// pageTemplates are parsed when the first page is asked for: most commands of the program serve none.
var pageTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.ParseFS(pageFiles, "docs/*.html"))
})

// manuals reads the documents when the first page is asked for. They are embedded, and tests read all of them.
var manuals = sync.OnceValue(func() []*manual {
	all := make([]*manual, len(documents))
	for i, d := range documents {
		data, err := File(d.name)
		if err == nil {
			all[i], err = newManual(d, data)
		}
		if err != nil {
			panic(err)
		}
	}
	return all
})

// manualOf is the manual of a name in a path, nil if there is none.
func manualOf(slug string) *manual {
	for _, m := range manuals() {
		if m.slug() == slug {
			return m
		}
	}
	return nil
}

// pages are the pages to read the documents. Their patterns are those of package door.
func pages() []ServedFile {
	css, err := pageFiles.ReadFile("docs/docs.css")
	if err != nil {
		panic(err) // it is embedded
	}
	index := page(func(*http.Request) (string, any) { return "index.html", manuals() })
	return []ServedFile{
		{docsPath, index},
		{docsPath + "/", index},
		{docsPath + "/docs.css", static("text/css; charset=utf-8", css)},
		{docsPath + "/{document}", page(func(r *http.Request) (string, any) {
			if m := manualOf(r.PathValue("document")); m != nil {
				return "document.html", m
			}
			return "", nil
		})},
		{docsPath + "/{document}/{operation}", page(func(r *http.Request) (string, any) {
			if m := manualOf(r.PathValue("document")); m != nil && m.operations[r.PathValue("operation")] != nil {
				return "operation.html", m.operations[r.PathValue("operation")]
			}
			return "", nil
		})},
		{docsPath + "/{document}/schemas/{schema}", page(func(r *http.Request) (string, any) {
			if m := manualOf(r.PathValue("document")); m != nil && m.schemas[r.PathValue("schema")] != nil {
				return "schema.html", m.schemas[r.PathValue("schema")]
			}
			return "", nil
		})},
	}
}

const htmlType = "text/html; charset=utf-8"

// page serves what find has of a request: the template and its data. "" stands for a page that there is not.
func page(find func(r *http.Request) (name string, data any)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, data := find(r)
		var body bytes.Buffer
		missing := name == ""
		if missing {
			name = "missing.html"
		}
		if err := pageTemplates().ExecuteTemplate(&body, name, data); err != nil {
			panic(err) // the tests render every page
		}
		if missing {
			w.Header().Set("Content-Type", htmlType)
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(body.Bytes()) // a client that is gone
			return
		}
		static(htmlType, body.Bytes()).ServeHTTP(w, r)
	})
}
