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
	"strconv"
	"strings"
	"sync"
	"time"

	swagger "github.com/swaggest/swgui/v5/static"
)

// documents are offered in this order on the page. A new one is its file and a line here.
var documents = []document{
	{"dbaas.yaml", "Database users (DBaaS)"},
	{"platform.yaml", "Platform users (Cloud Foundry v3)"},
	{"uaa.yaml", "Tokens and identities (UAA)"},
	{"rolecall.yaml", "Clusters and the rest (Rolecall)"},
	{"vault.yaml", "Credentials for clients of Vault"},
}

type document struct{ name, title string }

//go:embed *.yaml
var files embed.FS

//go:embed docs.html
var page []byte

//go:embed docs.js
var script []byte

// FleetSchema is the JSON Schema of the file that declares a fleet. A test of internal/manifest writes it.
//
//go:embed fleet.schema.json
var FleetSchema []byte

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

// A ServedFile is a file and the path that it is served at.
type ServedFile struct {
	Path    string
	Handler http.Handler
}

// Files returns each document, at /openapi/NAME, and the files of a page to read them, at /docs.
func Files() []ServedFile {
	index := static("text/html; charset=utf-8", page)
	served := []ServedFile{
		{"/docs", index},
		{"/docs/", index},
		{"/docs/docs.js", static("text/javascript; charset=utf-8", script)},
		{"/docs/documents.json", static("application/json", list())},
	}
	for _, f := range swaggerUI {
		b, err := swagger.FS.ReadFile(f.name + ".gz")
		if err != nil {
			panic(err) // another version of swgui, with other files
		}
		served = append(served, ServedFile{"/docs/" + f.name, gzipped(f.contentType, b)})
	}
	for _, d := range documents {
		b, err := File(d.name)
		if err != nil {
			panic(err) // a line in documents without its file: the package's test meets it first
		}
		served = append(served, ServedFile{"/openapi/" + d.name, static("application/yaml", b)})
	}
	return served
}

// swaggerUI are the files of Swagger UI that the page loads. They are taken from swgui, but not its page and its handler:
// the page needs inline scripts, which the policy below forbids, and together they make the binary 4 MB larger.
var swaggerUI = []struct{ name, contentType string }{
	{"swagger-ui.css", "text/css; charset=utf-8"},
	{"swagger-ui-bundle.js", "text/javascript; charset=utf-8"},
	{"swagger-ui-standalone-preset.js", "text/javascript; charset=utf-8"},
}

// gzipped serves b, which is compressed, to a client that takes gzip, and to others what it expands to.
func gzipped(contentType string, b []byte) http.Handler {
	packed := static(contentType, b)
	plain := sync.OnceValue(func() http.Handler { return static(contentType, unpack(b)) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		if takesGzip(r.Header.Get("Accept-Encoding")) {
			w.Header().Set("Content-Encoding", "gzip")
			packed.ServeHTTP(w, r)
			return
		}
		plain().ServeHTTP(w, r)
	})
}

func unpack(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		panic(err) // the file is embedded, and tested
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return plain
}

// takesGzip reads an Accept-Encoding header. A weight of 0 refuses the coding (RFC 9110, 12.5.3).
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, given := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			value, err := strconv.ParseFloat(q, 64)
			return !given || err == nil && value > 0
		}
	}
	return false
}

// SetHeaders lets the page load and call this server only, and be framed by nobody. It is for headers that allow less.
// Swagger UI writes style attributes and draws its icons from data: URLs.
func SetHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "+
		"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
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
