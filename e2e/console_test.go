package e2e

import (
	"encoding/json"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// hostile are names and remarks that would be elements, attributes or scripts on a page that does not escape them.
var hostile = names{
	clusters: [3]string{`Quartz <xss-a>"'`, `Basalt {{.}} </title><xss-a>`, `Feldspar & co.`},
	worker:   `"><xss-a onfocus=alert(1) autofocus>`,
	remark:   `</textarea></script><script>alert(1)</script><xss-a>'"` + "`${alert(1)}" + ` javascript:alert(1)`,
}

// TestConsole reads every page of the console, as five accounts and as programs do.
func TestConsole(t *testing.T) {
	t.Parallel()
	c := newCompany(t, hostile)
	t.Run("principals", c.principals)
	t.Run("unreachable", c.unreachable)
	t.Run("forms", c.forms)
	t.Run("accessible", c.accessible)
}

// readers are the accounts whose views are compared.
var readers = []string{"admin", "auditor", "alice", "bob", "nobody"}

// ofEachKind is how many pages with one form of address are read.
const ofEachKind = 3

// principals: five accounts follow all links. No page fails, each page is well made, and what they see is what the APIs let
// them see. None of them sees more of the pages of an admin.
func (c *company) principals(t *testing.T) {
	all := c.people["admin"].visits(t).crawl(ofEachKind)
	if len(all) < 8 {
		t.Errorf("an admin sees %d pages", len(all))
	}
	for _, name := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := c.people[name]
			v := e.visits(t)
			pages := v.crawl(ofEachKind)
			for path, page := range pages {
				// 422: a filter, or a change that this account cannot make, which the page explains.
				if page.status != 200 && page.status != 303 && page.status != 422 {
					t.Errorf("a link of %s leads to %s, which is a %d", page.from, path, page.status)
				}
			}
			for path := range all {
				if pages[path] == nil {
					pages[path] = v.get(path)
				}
			}
			seen, largest := map[string]string{}, 0
			for _, page := range pages {
				largest = max(largest, len(page.body))
				page.isWellMade(t, name)
				for _, thing := range c.known() {
					if where := page.shows(thing); where != "" {
						seen[thing] = where
					}
				}
			}
			t.Logf("%d pages, the largest has %d bytes", len(pages), largest)
			c.sameAsAPI(t, e, seen)
		})
	}
}

// maxPage is the size of a page without the files that a browser keeps, in bytes.
const maxPage = 50_000

// isWellMade fails the test unless a page is small and has the headers of all pages, and no name became an element or a
// script.
func (p *webPage) isWellMade(t *testing.T, who string) {
	t.Helper()
	if p.status >= 500 {
		t.Errorf("%s: %s: %d %s", who, p.path, p.status, p.body)
	}
	if len(p.body) > maxPage && p.isHTML() {
		t.Errorf("%s: %s has %d bytes", who, p.path, len(p.body))
	}
	h := p.header
	if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") ||
		!strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("%s: %s has the policy %q", who, p.path, csp)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" {
		t.Errorf("%s: %s has the headers %v", who, p.path, h)
	}
	if strings.HasPrefix(p.path, "/console") && !strings.Contains(h.Get("Cache-Control"), "no-store") {
		t.Errorf("%s: a browser may keep %s: %v", who, p.path, h)
	}
	if !p.isHTML() {
		return
	}
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if strings.HasPrefix(n.Data, "xss-") || n.Data == "style" {
			t.Errorf("%s: %s has the element %s: %s", who, p.path, n.Data, p.body)
		}
		if _, external := attribute(n, "src"); n.Data == "script" && !external {
			t.Errorf("%s: %s has a script within", who, p.path)
		}
		for _, a := range n.Attr {
			isURL := slices.Contains([]string{"href", "src", "action", "formaction", "hx-get", "hx-post"}, a.Key)
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || strings.HasPrefix(a.Key, "hx-on") ||
				strings.HasPrefix(a.Val, "js:") || isURL && strings.HasPrefix(strings.ToLower(a.Val), "javascript:") {
				t.Errorf("%s: %s has the attribute %s=%q", who, p.path, a.Key, a.Val)
			}
		}
	}
}

func (p *webPage) isHTML() bool {
	media, _, _ := mime.ParseMediaType(p.header.Get("Content-Type"))
	return media == "text/html"
}

// sameAsAPI compares which clusters, users and accounts an account sees on the pages, and by the APIs.
func (c *company) sameAsAPI(t *testing.T, e *employee, seen map[string]string) {
	t.Helper()
	visible := map[string]bool{}
	for _, list := range []struct{ path, field string }{
		{"/rolecall/v1/clusters", "displayName"}, {"/rolecall/v1/users", "username"}, {"/rolecall/v1/accounts", "username"},
	} {
		next := ""
		for {
			path := list.path + "?limit=100"
			if next != "" {
				path += "&cursor=" + url.QueryEscape(next)
			}
			r := send(t, "GET", c.env["ROLECALL_URL"]+path, map[string]string{"Authorization": "Bearer " + e.token}, "")
			var got struct {
				Items []map[string]any
				Next  *string
			}
			if r.status == 403 {
				break // it sees no list of them, but perhaps itself
			}
			if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 {
				t.Fatalf("GET %s: %d %s", list.path, r.status, r.body)
			}
			for _, item := range got.Items {
				if name, _ := item[list.field].(string); name != "" {
					visible[name] = true
				}
			}
			if got.Next == nil {
				break
			}
			next = *got.Next
		}
	}
	// What the APIs say of anything else: the audit log names users and accounts to whom may read it.
	var told strings.Builder
	for _, path := range []string{"/rolecall/v1/whoami", "/rolecall/v1/audit?limit=1000", "/rolecall/v1/leases?limit=100",
		"/rolecall/v1/operations"} {
		r := send(t, "GET", c.env["ROLECALL_URL"]+path, map[string]string{"Authorization": "Bearer " + e.token}, "")
		told.WriteString(r.body)
	}
	for _, id := range c.clusters {
		for _, of := range []string{"", "/users?system=true&limit=100", "/credentials", "/databases", "/leases?limit=100"} {
			r := send(t, "GET", c.env["ROLECALL_URL"]+"/rolecall/v1/clusters/"+id+of,
				map[string]string{"Authorization": "Bearer " + e.token}, "")
			told.WriteString(r.body)
		}
	}
	for _, name := range c.known() {
		if visible[name] && seen[name] == "" {
			t.Errorf("%s sees %q by the API, and on no page", e.username, name)
		}
		if seen[name] != "" && !visible[name] && !strings.Contains(told.String(), strings.Trim(literal(name), `"`)) {
			t.Errorf("%s sees %q on a page, and not by the API: %s", e.username, name, seen[name])
		}
	}
}

// shows is where a page shows the name of a thing, with what stands around it. What the address of the page says is no sign
// of what the account may see.
func (p *webPage) shows(name string) string {
	path, err := url.QueryUnescape(p.path)
	text := p.text()
	i := strings.Index(text, name)
	if i < 0 || p.status == 404 || err == nil && strings.Contains(path, name) {
		return ""
	}
	return p.path + ": " + text[max(0, i-200):min(len(text), i+200)]
}

// known are the names of clusters, users and accounts that are part of no other text on a page.
func (c *company) known() []string {
	return append(slices.Collect(maps.Keys(c.clusters)), "orders-app", hostile.worker, "orders-migrations", "payments-app",
		"support-desk", "former-app", "backup-check", "warehouse-loader", "dashboards", "experiments", "quarterly-report",
		"etl-nightly", "invoices-app", "invoices-export", "tax-export", "legacy-batch", "notebook", "alice", "dave")
}

// unreachable: the pages of a cluster that does not answer say so, and show no empty table.
func (c *company) unreachable(t *testing.T) {
	v := c.people["admin"].visits(t)
	away := "/console/clusters/" + c.clusters[hostile.clusters[2]]
	for _, path := range []string{"", "/databases", "/access", "/settings", "/leases", "/credentials", "/activity",
		"/users/new", "/users/invoices-app"} {
		page := v.get(away + path)
		if text := page.text(); page.status >= 500 || !strings.Contains(text, "does not answer") ||
			!strings.Contains(text, "first seen") {
			t.Errorf("%s: %d %s", path, page.status, text)
		}
		for n := range page.root.Descendants() {
			if n.Data == "tbody" && !slices.ContainsFunc(slices.Collect(n.Descendants()),
				func(n *html.Node) bool { return n.Data == "tr" }) {
				t.Errorf("%s has an empty table", path)
			}
		}
	}
}

// forms: the forms of an admin's pages change nothing when accounts send them that may only view, or see nothing at all.
func (c *company) forms(t *testing.T) {
	forms := map[string]webForm{}
	for _, page := range c.people["admin"].visits(t).crawl(2) {
		for _, form := range page.forms() {
			own := strings.HasPrefix(form.path, "/console/me") || strings.HasPrefix(form.path, "/console/sign") ||
				strings.HasPrefix(form.path, "/console/prove") || strings.HasPrefix(form.path, "/uaa/") ||
				strings.HasPrefix(form.path, "/console/device")
			if strings.EqualFold(form.method, "post") && !own {
				forms[form.path+"?"+form.values.Encode()] = form
			}
		}
	}
	if len(forms) < 30 {
		t.Errorf("the pages of an admin have %d forms", len(forms))
	}
	before := c.state()
	for _, name := range []string{"auditor", "bob", "nobody"} {
		v := c.people[name].visits(t)
		for _, form := range forms {
			// A plan changes nothing, and an auditor verifies the audit log.
			reads := form.path == "/console/users/plan" || form.path == "/console/audit/verify" && name == "auditor"
			if a := v.post(form.path, form.values); a.status < 400 && !reads {
				t.Errorf("%s sends %s %v: %d %s", name, form.path, form.values, a.status, a.header.Get("Location"))
			}
		}
	}
	if after := c.state(); after != before {
		t.Errorf("the forms have changed something: before\n%s\nand after\n%s", before, after)
	}
}

// state is what an admin reads by the APIs, without what changes on its own.
func (c *company) state() string {
	c.people["admin"].t.Helper()
	var all strings.Builder
	for _, path := range []string{"/rolecall/v1/clusters?limit=100", "/rolecall/v1/accounts?limit=100",
		"/rolecall/v1/users?limit=100&system=true", "/rolecall/v1/leases?limit=100", "/rolecall/v1/operations"} {
		var got struct{ Items []map[string]any }
		c.people["admin"].does(200, "GET", path, nil, &got)
		for _, item := range got.Items {
			delete(item, "lastSignInAt")
			delete(item, "lastSeen")
			delete(item, "lastError")
			all.WriteString(object(item) + "\n")
		}
	}
	return all.String()
}

// accessible: axe-core finds nothing on any page, light or dark, and no page breaks its content security policy.
func (c *company) accessible(t *testing.T) {
	pages := c.people["admin"].visits(t).crawl(1)
	b := openTab(t, c.env["ROLECALL_URL"], anyHands[0])
	b.open("/console/sign-in")
	b.accessible("light", "dark")
	b.signIn(c.people["admin"])
	tested := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(pages)) {
		shape, _, _ := strings.Cut(kind(path), "?")
		if !pages[path].isHTML() || tested[shape] {
			continue // a file to save, or the same page with another filter
		}
		tested[shape] = true
		b.open(path, pages[path].status)
		b.accessible("light", "dark")
		for _, width := range []int64{320, 768, 1440} {
			b.resize(width, 900)
			if wide := eval[int](b, pageWidth); wide > int(width) {
				t.Errorf("%s is %d pixels wide in a window of %d: %s", path, wide, width, eval[string](b, widest))
			}
		}
		for _, problem := range b.found() {
			t.Errorf("%s: %s", path, problem)
		}
	}
}

// pageWidth is the width of the page, laid out again: after a change of the window's size the old one can be left over.
const pageWidth = `(() => {
	document.body.hidden = true
	document.documentElement.scrollWidth
	document.body.hidden = false
	return document.documentElement.scrollWidth
})()`

// widest are the elements that do not fit into the window.
const widest = `[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth)
	.map(e => e.outerHTML.slice(0, 120)).slice(0, 5).join("\n")`

// signIn signs an account in with its password.
func (b *tab) signIn(e *employee) {
	b.t.Helper()
	if !strings.HasPrefix(b.path(), "/console/sign-in") {
		b.open("/console/")
	}
	b.fill("User name", e.username)
	b.fill("Password", e.password)
	b.press("Sign in")
	b.find(e.username, []string{"link"})
}
