// Package api holds the OpenAPI documents of Rolecall's HTTP surface and serves them, raw and as pages to read.
//
// The documents are written by hand and come first: tests hold the handlers to them (internal/apitest), nothing is
// generated from them. This package must not know a handler.
package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	swagger "github.com/swaggest/swgui/v5/static"
)

// documents are offered in this order on the page. A new one is its file and a line here.
var documents = []document{
	{"dbaas.yaml", "Database users (DBaaS)"},
	{"platform.yaml", "Platform users (Cloud Foundry v3)"},
	{"uaa.yaml", "Tokens and identities (UAA)"},
	{"rolecall.yaml", "Clusters and the rest (Rolecall)"},
}

type document struct{ name, title string }

//go:embed *.yaml
var files embed.FS

//go:embed docs.html
var page []byte

//go:embed docs.js
var script []byte

// Names returns the file names of the documents.
func Names() []string {
	names := make([]string, len(documents))
	for i, d := range documents {
		names[i] = d.name
	}
	return names
}

// File returns the document of that file name.
func File(name string) ([]byte, error) { return files.ReadFile(name) }

// Handler serves each document at /openapi/NAME, and at /docs a page to read them. It needs no credentials: the
// documents are public, and the page sends to the API only what its reader types in.
func Handler() http.Handler {
	files := map[string]http.Handler{}
	for _, d := range documents {
		b, err := File(d.name)
		if err != nil {
			panic(err) // a line in documents without its file: the package's test meets it first
		}
		files["/openapi/"+d.name] = static("application/yaml", b)
	}
	index := static("text/html; charset=utf-8", page)
	files["/docs"], files["/docs/"] = index, index
	files["/docs/docs.js"] = static("text/javascript; charset=utf-8", script)
	files["/docs/documents.json"] = static("application/json", list())

	for name, contentType := range swaggerUI {
		b, err := swagger.FS.ReadFile(name + ".gz")
		if err != nil {
			panic(err) // another version of swgui, with other files
		}
		files["/docs/"+name] = gzipped(contentType, b)
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		h, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// swaggerUI are the files of Swagger UI that the page loads. They are taken from swgui, but not its page and its handler:
// the page needs inline scripts, which the policy below forbids, and together they make the binary 4 MB larger.
var swaggerUI = map[string]string{
	"swagger-ui.css":                  "text/css; charset=utf-8",
	"swagger-ui-bundle.js":            "text/javascript; charset=utf-8",
	"swagger-ui-standalone-preset.js": "text/javascript; charset=utf-8",
}

// gzipped serves b, which is compressed, to a client that takes it so, and else what it expands to.
func gzipped(contentType string, b []byte) http.Handler {
	packed := static(contentType, b)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			packed.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType)
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			panic(err) // the file is embedded, and tested
		}
		_, _ = io.Copy(w, z) // fails when the client leaves
	})
}

// secure lets the page load and call this server only, and be framed by nobody. Swagger UI writes style attributes and
// draws its icons from data: URLs.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "+
		"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// Kept, but asked for again each time: an upgrade must not show the old document.
	h.Set("Cache-Control", "no-cache")
}

// static serves b, with a tag so that a reader who has it already is not sent it again.
func static(contentType string, b []byte) http.Handler {
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
}

// list is what Swagger UI takes as "urls": the documents to choose from.
func list() []byte {
	type entry struct {
		URL  string `json:"url"`
		Name string `json:"name"`
	}
	entries := make([]entry, len(documents))
	for i, d := range documents {
		entries[i] = entry{"/openapi/" + d.name, d.title}
	}
	b, err := json.Marshal(entries)
	if err != nil {
		panic(err) // strings only
	}
	return b
}
