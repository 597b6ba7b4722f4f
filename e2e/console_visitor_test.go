package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// visitor is a person at the console without a browser: an HTTP client with the cookies of one session.
type visitor struct {
	t    *testing.T
	base string
	http *http.Client
}

// visit is a visitor who is not signed in.
func visit(t *testing.T, base string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, base, &http.Client{Jar: jar, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// visits signs an account in at the console.
func (e *employee) visits(t *testing.T) *visitor {
	t.Helper()
	v := visit(t, e.s.env["ROLECALL_URL"])
	if a := v.post("/console/sign-in", url.Values{"username": {e.username}, "password": {e.password}}); a.status != 303 {
		t.Fatalf("%s signs in: %d %s", e.username, a.status, a.body)
	}
	return v
}

// session is the cookie of the visitor's session.
func (v *visitor) session() string {
	v.t.Helper()
	u, err := url.Parse(v.base)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, cookie := range v.http.Jar.Cookies(u) {
		if cookie.Name == "rolecall" {
			return cookie.Value
		}
	}
	return ""
}

// webPage is an answer to a visitor.
type webPage struct {
	path   string
	from   string // a page that leads to it
	status int
	header http.Header
	body   string
	root   *html.Node
}

func (v *visitor) get(path string) *webPage {
	v.t.Helper()
	return v.do(http.MethodGet, path, "", nil)
}

// post sends a form from a page of the server's own.
func (v *visitor) post(path string, form url.Values) *webPage {
	v.t.Helper()
	return v.do(http.MethodPost, path, form.Encode(), http.Header{"Origin": {v.base}})
}

func (v *visitor) do(method, path, body string, header http.Header) *webPage {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.base+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	root, err := html.Parse(strings.NewReader(string(text)))
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &webPage{path: path, status: resp.StatusCode, header: resp.Header, body: string(text), root: root}
}

// attribute is that of a node.
func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// text is what the page shows a person: text, and what fields contain.
func (p *webPage) text() string {
	var b strings.Builder
	for n := range p.root.Descendants() {
		switch {
		case n.Type == html.TextNode:
			b.WriteString(n.Data)
		case n.Type == html.ElementNode:
			for _, name := range []string{"value", "title", "aria-label", "alt", "placeholder"} {
				if value, is := attribute(n, name); is {
					b.WriteString(" " + value + " ")
				}
			}
		}
	}
	return b.String()
}

// links are the paths of the console to which the page leads.
func (p *webPage) links() []string {
	var all []string
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "a" {
			continue
		}
		target, is := attribute(n, "href")
		if !is {
			continue
		}
		if u, err := url.Parse(target); err == nil && u.Host == "" && u.Scheme == "" && (u.Path != "" || u.RawQuery != "") {
			base, _ := url.Parse(p.path)
			u = base.ResolveReference(u)
			u.Fragment = ""
			all = append(all, u.String())
		}
	}
	return all
}

// webForm is a form of a page, as it is sent when a person only presses its first button.
type webForm struct {
	path   string
	method string
	values url.Values
}

func (p *webPage) forms() []webForm {
	var all []webForm
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		own, _, _ := strings.Cut(p.path, "?")
		f := webForm{path: own, method: "get", values: url.Values{}}
		if action, is := attribute(n, "action"); is {
			f.path = action
		}
		if method, is := attribute(n, "method"); is {
			f.method = method
		}
		for field := range n.Descendants() {
			if name, is := attribute(field, "name"); is && field.Type == html.ElementNode {
				kind, _ := attribute(field, "type")
				_, checked := attribute(field, "checked")
				value, _ := attribute(field, "value")
				if field.Data == "select" {
					value = selected(field)
				}
				if kind != "checkbox" && kind != "radio" || checked {
					f.values.Add(name, value)
				}
			}
		}
		all = append(all, f)
	}
	return all
}

// selected is the value of a list: that of the option that is selected, else that of the first one.
func selected(list *html.Node) string {
	first, found := "", false
	for option := range list.Descendants() {
		if option.Type != html.ElementNode || option.Data != "option" {
			continue
		}
		value, _ := attribute(option, "value")
		if _, is := attribute(option, "selected"); is {
			return value
		}
		if !found {
			first, found = value, true
		}
	}
	return first
}

var (
	uuidText   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	namedThing = regexp.MustCompile(
		`(/(?:users|databases|credentials|leases|operations|accounts|audit|roles|tokens|sessions|offboardings)/)([^/]+)`)
)

// kind is a path with the names of things left out: pages of one kind come from one template.
func kind(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path
	}
	shape := uuidText.ReplaceAllString(u.EscapedPath(), "{id}")
	shape = namedThing.ReplaceAllStringFunc(shape, func(match string) string {
		parts := namedThing.FindStringSubmatch(match)
		if slices.Contains([]string{"new", "verify", "plan", "export", "failed-sign-ins"}, parts[2]) {
			return match
		}
		return parts[1] + "{name}"
	})
	var parameters []string
	for name := range u.Query() {
		parameters = append(parameters, name)
	}
	slices.Sort(parameters)
	return shape + "?" + strings.Join(parameters, "&")
}

// isPage reports whether a path is that of a page of the console.
func isPage(path string) bool {
	return (strings.HasPrefix(path, "/console/") && !strings.HasPrefix(path, "/console/static/")) || path == "/docs" ||
		strings.HasPrefix(path, "/uaa/passcode")
}

// crawl follows all links from the start page, and returns the pages by their path. Of each kind it reads as many as given.
func (v *visitor) crawl(ofEachKind int) map[string]*webPage {
	v.t.Helper()
	found, queue, kinds, from := map[string]*webPage{}, []string{"/console/"}, map[string]int{}, map[string]string{}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if found[path] != nil || kinds[kind(path)] == ofEachKind || !isPage(path) {
			continue
		}
		kinds[kind(path)]++
		page := v.get(path)
		page.from = from[path]
		found[path] = page
		leads := page.links()
		for _, form := range page.forms() {
			if strings.EqualFold(form.method, "get") {
				leads = append(leads, form.path+"?"+form.values.Encode())
			}
		}
		for _, next := range leads {
			if from[next] == "" {
				from[next] = path
			}
		}
		queue = append(queue, leads...)
	}
	return found
}
