package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// A page with every mistake that the tests of the console look for: without it they could not fail.
const mistakes = `<!doctype html><html lang="en"><head><title>Mistakes</title><link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark } button:focus { outline: none } p { color: #222; background: #fff }
@media (prefers-color-scheme: dark) { p { color: #222; background: #333 } }</style></head>
<body><main><h1>Mistakes</h1><p>dark on dark</p><form action="/done"><label>Name <input name="name"></label>
<label>Level <select name="level"><option>read<option>write</select></label>
<label><input type="checkbox" name="sure" value="yes">Sure</label><button>Go on</button></form>
<script>document.querySelector("h1").textContent = "With a script"</script></main></body></html>`

// TestBrowser checks the tests' own browser: each way to use a page, and that it finds each kind of mistake.
func TestBrowser(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			_, _ = w.Write([]byte(mistakes))
		case "/policy":
			w.Header().Set("Content-Security-Policy",
				"default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'")
			_, _ = w.Write([]byte(mistakes))
		case "/done":
			fmt.Fprintf(w, "<!doctype html><title>Done</title><p>%s %s %s",
				r.FormValue("name"), r.FormValue("level"), r.FormValue("sure"))
		case "/favicon.ico":
			w.WriteHeader(http.StatusNoContent)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(site.Close)
	for _, h := range anyHands {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			b := openTab(t, site.URL, h)
			b.open("/")
			if got := b.text(); strings.Contains(got, "With a script") != h.script {
				t.Errorf("the page shows %q", got)
			}
			b.fill("Name", "first")
			b.fill("Name", "ada")
			b.choose("Level", "write")
			b.check("Sure")
			b.press("Go on")
			b.sees("ada write yes")
			if problems := b.found(); (len(problems) == 1) != h.keyboard {
				t.Errorf("the browser reports %q", problems)
			}
		})
	}
	t.Run("policy", func(t *testing.T) {
		t.Parallel()
		b := openTab(t, site.URL, anyHands[0])
		b.open("/policy")
		b.open("/policy")
		if found := b.found(); !slices.Contains(found, "content security policy: script-src-elem inline") {
			t.Errorf("the browser reports %q", found)
		}
	})
	t.Run("accessibility", func(t *testing.T) {
		t.Parallel()
		b := openTab(t, site.URL, anyHands[0])
		b.open("/")
		b.scheme("light")
		if found := b.axe(`{}`); len(found) != 0 {
			t.Errorf("light: %q", found)
		}
		b.scheme("dark")
		if found := b.axe(`{}`); len(found) != 1 || !strings.HasPrefix(found[0], "color-contrast: ") {
			t.Errorf("dark: %q", found)
		}
	})
}
