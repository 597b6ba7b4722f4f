package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/web"
)

//go:embed templates static
var files embed.FS

// page is what a handler says of a page. Template is the file below templates that defines "content".
type page struct {
	Template string
	Title    string
	Area     string  // the item of the navigation that it belongs to
	Crumbs   []crumb // the pages above it
	Form     *form   // nil: the page has none
	Data     any
	// Status is that of the answer; 0: that of the form, else 200.
	Status int
	// FormTarget is where the answer to the page's form may redirect to, beside this server; "": nowhere.
	FormTarget string
}

// crumb is a page above another one.
type crumb struct{ Title, Path string }

// frame is what the layout needs beside the page.
type frame struct {
	page
	Principal *account.Principal // nil: nobody is signed in
	Tab       string
	Tabs      []tab // of the navigation
	Notice    string
	Version   string
	RequestID string
}

// tab is one of a row of links, for the template "links".
type tab struct{ Name, Title, Path string }

// areas are the items of the navigation, in order. Those that their page would refuse are left out by areasOf.
var areas = []tab{
	{"start", "Start", "/console/"},
	{"clusters", "Clusters", "/console/clusters"},
	{"users", "Database users", "/console/users"},
	{"leases", "Leases", "/console/leases"},
	{"operations", "Operations", "/console/operations"},
	{"accounts", "Accounts", "/console/accounts"},
	{"audit", "Audit log", "/console/audit"},
	{"system", "System", "/console/system"},
}

// areasOf are the items of the navigation for one account.
func areasOf(p *account.Principal) []tab {
	if p == nil || access.MayAudit(p) {
		return areas
	}
	return slices.DeleteFunc(slices.Clone(areas), func(a tab) bool { return a.Name == "system" })
}

// show answers with a page.
func (c *Console) show(w http.ResponseWriter, r *http.Request, p *account.Principal, page page) error {
	if page.Form == nil {
		page.Form = &form{Values: url.Values{}}
	}
	if page.Status == 0 {
		page.Status = page.Form.Status
	}
	if page.Status == 0 {
		page.Status = http.StatusOK
	}
	t, err := pageTemplate(page.Template)
	if err != nil {
		return err
	}
	f := frame{page: page, Principal: p, Tab: page.Area, Tabs: areasOf(p), Version: c.Version,
		RequestID: web.InfoOf(r.Context()).ID}
	if r.Method == http.MethodGet && r.Header.Get("HX-Request") == "" { // a part of a page that is shown is no next page
		f.Notice = c.takeNotice(w, r)
	}
	var body bytes.Buffer
	if err := t.ExecuteTemplate(&body, "layout", f); err != nil {
		return err
	}
	if page.FormTarget != "" {
		w.Header().Set("Content-Security-Policy", policy(page.FormTarget))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(page.Status)
	_, _ = w.Write(body.Bytes()) // a client that is gone
	return nil
}

// showPart answers a script with a part of a page: a template that its file defines.
func (c *Console) showPart(w http.ResponseWriter, file, part string, data any) error {
	t, err := pageTemplate(file)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	if err := t.ExecuteTemplate(&body, part, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(body.Bytes()) // a client that is gone
	return nil
}

// frameTemplates are those that all pages share. They are parsed with the first page, and each page when it is first shown:
// parsed at the start, they would delay every command of the program by a fifth of a second.
var frameTemplates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(functions).ParseFS(files, "templates/frame/*.html"))
})

// parsedPages are the *template.Template of the pages that were shown, by their file below templates.
var parsedPages sync.Map

// pageTemplate is the template of a page, with the frame. name is its file below templates.
func pageTemplate(name string) (*template.Template, error) {
	if t, parsed := parsedPages.Load(name); parsed {
		return t.(*template.Template), nil
	}
	t, err := frameTemplates().Clone()
	if err != nil {
		return nil, err
	}
	if t, err = t.ParseFS(files, "templates/"+name); err != nil {
		return nil, err
	}
	first, _ := parsedPages.LoadOrStore(name, t)
	return first.(*template.Template), nil
}

// functions are for all templates.
var functions = template.FuncMap{
	"static": staticPath,
	"at":     at,
	"exact":  exact,
	"url":    pagePath,
	"user":   userPath,
	"shown":  shownText,
	"join":   strings.Join,
	"word":   shellWord,
	"add":    func(a, b int) int { return a + b },
}

// pagePath is the path of a page of the console: each segment is escaped.
func pagePath(segments ...string) string {
	escaped := make([]string, len(segments))
	for i, s := range segments {
		escaped[i] = url.PathEscape(s)
		if strings.HasPrefix(s, ".") {
			escaped[i] = "%2E" + escaped[i][1:] // what begins with a dot could be taken for a step of the path
		}
	}
	return Prefix + "/" + strings.Join(escaped, "/")
}

// addressOf is the address that a request came from.
func addressOf(r *http.Request) string { return web.InfoOf(r.Context()).Address }

// stamp is a time as pages show it.
type stamp struct{ ISO, Text string }

// at presents a time, or a pointer to one; nil: there is none.
func at(t any) *stamp {
	var when time.Time
	switch t := t.(type) {
	case time.Time:
		when = t
	case *time.Time:
		if t != nil {
			when = *t
		}
	}
	if when.IsZero() {
		return nil
	}
	when = when.UTC()
	return &stamp{when.Format(time.RFC3339), when.Format("2006-01-02 15:04 UTC")}
}

// exact presents a time to the second, for the audit log.
func exact(t time.Time) stamp {
	return stamp{t.UTC().Format(time.RFC3339Nano), t.UTC().Format("2006-01-02 15:04:05 UTC")}
}

// staticFile is a file that every page may load. Its path changes with its contents, so that a browser keeps it.
type staticFile struct {
	mediaType string
	data      []byte
	hash      string
}

var staticFiles = readStatic(map[string]string{
	"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8",
	"htmx.min.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
})

func readStatic(mediaTypes map[string]string) map[string]staticFile {
	read := map[string]staticFile{}
	for name, mediaType := range mediaTypes {
		data, err := files.ReadFile("static/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(data)
		read[name] = staticFile{mediaType, data, hex.EncodeToString(sum[:8])}
	}
	return read
}

func staticPath(name string) string {
	return Prefix + "/static/" + staticFiles[name].hash + "/" + name
}

func (c *Console) staticRoutes() []door.Route {
	var routes []door.Route
	for name, f := range staticFiles {
		routes = append(routes, door.Route{Method: http.MethodGet, Pattern: staticPath(name), Public: true,
			Handle: func(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
				w.Header().Set("Content-Type", f.mediaType)
				w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
				_, _ = w.Write(f.data) // a client that is gone
				return nil
			}})
	}
	return routes
}
