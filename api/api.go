// Package api holds the OpenAPI documents of Rolecall's HTTP surface and serves them, raw and as pages to read.
//
// The documents are written by hand and come first: tests hold the handlers to them (internal/apitest), nothing is
// generated from them. This package must not know a handler.
package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"time"
)

// documents are offered in this order on the page. A new one is its file and a line here.
var documents = []document{
	{"dbaas.yaml", "Database users (DBaaS)"},
	{"platform.yaml", "Platform users (Cloud Foundry v3)"},
	{"uaa.yaml", "Tokens and identities (UAA)"},
	{"rolecall.yaml", "Clusters and the rest (Rolecall)"},
	{"vault.yaml", "Credentials for clients of Vault"},
}

// document is a file, and what it is about.
type document struct{ name, Title string }

//go:embed *.yaml
var files embed.FS

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

// A ServedFile is a file, and the path that it is served at: a pattern as package door has them.
type ServedFile struct {
	Path    string
	Handler http.Handler
}

// Files returns each document, at /openapi/NAME, and the pages to read them, at /docs.
func Files() []ServedFile {
	served := pages()
	for _, d := range documents {
		b, err := File(d.name)
		if err != nil {
			panic(err) // a line in documents without its file: the package's test meets it first
		}
		served = append(served, ServedFile{"/openapi/" + d.name, static("application/yaml", b)})
	}
	return served
}

// SetHeaders has the pages load nothing but their style sheet, and be framed by nobody. It is for headers that allow less.
func SetHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "+
		"form-action 'none'; frame-ancestors 'none'")
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
