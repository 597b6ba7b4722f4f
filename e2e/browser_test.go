package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rolecall/internal/pgtest"
)

// chromium is the browser of all tests. The first test that needs it starts it.
var chromium struct {
	sync.Mutex
	ctx  context.Context
	stop func()
	err  error
	axe  string // the script of axe-core
}

// startChromium returns the context of the running browser.
func startChromium() (context.Context, error) {
	chromium.Lock()
	defer chromium.Unlock()
	if chromium.ctx != nil || chromium.err != nil {
		return chromium.ctx, chromium.err
	}
	chromium.ctx, chromium.err = func() (context.Context, error) {
		program, err := installed("install-chromium")
		if err != nil {
			return nil, err
		}
		script, err := installed("install-axe")
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(script)
		if err != nil {
			return nil, err
		}
		chromium.axe = string(text)
		fonts, err := filepath.Abs("testdata/fonts.conf")
		if err != nil {
			return nil, err
		}
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.DisableGPU,
			chromedp.WindowSize(1440, 900), chromedp.Env("LANG=en_US.UTF-8", "TZ=UTC", "FONTCONFIG_FILE="+fonts))
		if os.Geteuid() == 0 {
			options = append(options, chromedp.NoSandbox) // Chromium does not start as root with its sandbox
		}
		for range 3 { // on a busy machine a Chromium that starts may never answer
			allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
			ctx, _ := chromedp.NewContext(allocator)
			if err = answers(ctx); err == nil {
				chromium.stop = func() {
					limited, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					_ = chromedp.Cancel(limited)
					stop()
				}
				return ctx, nil
			}
			stop()
		}
		return nil, fmt.Errorf("start %s: %w", program, err)
	}()
	return chromium.ctx, chromium.err
}

// answers opens the tab of a context, for as long as the context lasts, and waits until it answers. A limit of the
// context would be one of the tab.
func answers(ctx context.Context) error {
	opened := make(chan error, 1)
	go func() { opened <- chromedp.Do(ctx) }()
	select {
	case err := <-opened:
		return err
	case <-time.After(patience):
		return fmt.Errorf("the browser has not answered for %v", patience)
	}
}

// stopChromium stops the browser if a test has started it.
func stopChromium() {
	chromium.Lock()
	defer chromium.Unlock()
	if chromium.stop != nil {
		chromium.stop()
	}
}

// installed is the path that a script prints once it has made sure that a program is there.
func installed(script string) (string, error) {
	cmd := exec.Command("../scripts/" + script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/%s: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// hands are how a person uses a page.
type hands struct {
	name     string
	script   bool // whether the page's JavaScript runs
	keyboard bool // no mouse: Tab, Enter, Space, arrows
}

// anyHands are the ways in which every flow has to work.
var anyHands = []hands{
	{"with JavaScript", true, false},
	{"without JavaScript", false, false},
	{"by keyboard", true, true},
}

// someHands are all ways if every case is tried, else one that the seed chooses.
func someHands(t *testing.T) []hands {
	t.Helper()
	if pgtest.Full() {
		return anyHands
	}
	i := pgtest.Seed(t) % len(anyHands)
	return anyHands[i : i+1]
}

// tab is a tab of the browser with cookies of its own. Its methods end the test at once if what they wait for does not come.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string // the URL of the server
	hands

	mu       sync.Mutex
	problems []string          // what no page may have: violations of the CSP, exceptions, missing files
	document *network.Response // the last one
}

// openTab opens a tab in a new profile, and closes it when t ends.
func openTab(t *testing.T, base string, h hands) *tab {
	t.Helper()
	browser, err := startChromium()
	if err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, base: base, hands: h}
	b.ctx, _ = chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		_ = chromedp.Cancel(b.ctx)
		b.noProblems()
	})
	b.prepare()
	return b
}

// another opens a second tab with the cookies of b.
func (b *tab) another() *tab {
	b.t.Helper()
	second := &tab{t: b.t, base: b.base, hands: b.hands}
	second.ctx, _ = chromedp.NewContext(b.ctx, chromedp.WithListener(second.listen))
	b.t.Cleanup(func() { second.noProblems() })
	second.prepare()
	return second
}

// violations tells of each violation of the content security policy.
const violations = `addEventListener("securitypolicyviolation", e => violated(e.violatedDirective + " " + e.blockedURI))`

func (b *tab) prepare() {
	b.t.Helper()
	if err := answers(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	call(b, audits.Enable, cdp.Empty{})
	call(b, runtime.AddBinding, runtime.AddBindingParams{Name: "violated"})
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: violations})
	if !b.script {
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	}
}

// act presses keys or clicks. Chromium does not always confirm the event for which it leaves a page, so an event without
// an answer is no failure: the caller waits for what it leads to.
func (b *tab) act(action chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience/6)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		b.t.Fatal(err)
	}
}

// call runs a command of the DevTools protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// listen runs for each event of the tab.
func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := func(format string, args ...any) { b.problems = append(b.problems, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *runtime.EventBindingCalled:
		if e.Name == "violated" {
			found("content security policy: %s", e.Payload)
		}
	case *audits.EventIssueAdded:
		if csp := e.Issue.Details.ContentSecurityPolicyIssueDetails; csp != nil {
			found("content security policy: %s %s", csp.ViolatedDirective, csp.BlockedURL)
		}
	case *cdplog.EventEntryAdded:
		// Of the network are the answers, which the next case has with their kind.
		if e.Entry.Level == cdplog.EntryLevelError && e.Entry.Source != cdplog.EntrySourceNetwork {
			found("log: %s", e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		found("exception: %s", e.ExceptionDetails.Text)
	case *network.EventResponseReceived:
		switch {
		case e.Type == network.ResourceTypeDocument:
			b.document = e.Response
		case e.Response.Status >= 400 && e.Type != network.ResourceTypeXHR && e.Type != network.ResourceTypeFetch:
			found("%s: %d", e.Response.URL, e.Response.Status)
		}
	}
}

// noProblems fails the test for each problem that a page had.
func (b *tab) noProblems() {
	for _, problem := range b.found() {
		b.t.Errorf("the browser reports: %s", problem)
	}
}

// found are the problems since the last call.
func (b *tab) found() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.problems)
	all := slices.Compact(b.problems)
	b.problems = nil
	return all
}

// status is that of the last document.
func (b *tab) status() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.document == nil {
		return 0
	}
	return int(b.document.Status)
}

// eval evaluates an expression in the page, also where the page's own scripts are off.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

// open opens a path of the server, or a whole URL, and expects a status, 200 if none is given.
func (b *tab) open(path string, status ...int) {
	b.t.Helper()
	target := path
	if strings.HasPrefix(path, "/") {
		target = b.base + path
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	answer, err := chromedp.Run(ctx, chromedp.NavigateResponse(target))
	if err != nil {
		b.t.Fatalf("open %s: %v", target, err)
	}
	got := b.status() // chromedp returns no answer if it has missed the event
	if answer != nil {
		got = int(answer.Status)
	}
	if want := append(status, 200)[0]; got != want {
		b.t.Fatalf("open %s: %d, want %d: %s", target, got, want, b.text())
	}
}

// text is what the page shows.
func (b *tab) text() string {
	b.t.Helper()
	return eval[string](b, `document.body.innerText`)
}

// path is that of the page, with its query.
func (b *tab) path() string {
	b.t.Helper()
	return strings.TrimPrefix(eval[string](b, `location.href`), b.base)
}

// until waits until an expression is true in the page, through the loading of other pages.
func (b *tab) until(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		// The context of an expression ends with its page: that is no failure, the next page has it.
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if err == nil && is {
			return
		}
		if ctx.Err() != nil {
			b.t.Fatalf("%s does not come; %s (%d) shows:\n%s", what, b.path(), b.status(), b.text())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// literal is a text as JavaScript.
func literal(text string) string {
	quoted, _ := json.Marshal(text)
	return string(quoted)
}

// sees waits until the page shows a text.
func (b *tab) sees(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("the text %q", text),
		`document.readyState === "complete" && document.body.innerText.includes(`+literal(text)+`)`)
}

// refuses waits until the page says a problem, which contains a text, and has the focus there.
func (b *tab) refuses(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("the problem %q", text), `document.readyState === "complete" &&
		document.activeElement.matches("[role=alert]") && document.activeElement.innerText.includes(`+literal(text)+`)`)
	if b.status() != 422 {
		b.t.Errorf("%s refuses with %d", b.path(), b.status())
	}
}

// arrives waits until the page of a path, without its query, is loaded.
func (b *tab) arrives(path string) {
	b.t.Helper()
	b.until("the page "+path, `document.readyState === "complete" && location.pathname === `+literal(path))
}

// editable and pressable are roles of what a person fills in and presses.
var (
	editable  = []string{"textbox", "searchbox", "spinbutton", "Date", "DateTime", "InputTime"}
	pressable = []string{"button", "DisclosureTriangle", "menuitem"}
	choices   = []string{"combobox", "listbox"}
	checks    = []string{"checkbox", "radio", "switch"}
)

// find waits for the one control with an accessible name and one of these roles, or for as many as given.
func (b *tab) find(name string, roles []string, many ...int) cdp.BackendNodeID {
	b.t.Helper()
	want := append(many, 1)[0]
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found, all, err := b.controls(name, roles)
		if err == nil && len(found) == want {
			return found[0]
		}
		if time.Now().After(end) || b.ctx.Err() != nil {
			b.t.Fatalf("%s has %d times %s %q, not %d; it has %q, %v, and shows:\n%s", b.path(), len(found), roles[0], name, want,
				all, err, b.text())
		}
	}
}

// controls are those with a name and one of these roles, and the names of all with one of these roles.
func (b *tab) controls(name string, roles []string) (found []cdp.BackendNodeID, names []string, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	root, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: "document"})
	if err != nil {
		return nil, nil, err
	}
	tree, err := chromedp.Call(ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{ObjectID: root.Result.ObjectID})
	if err != nil {
		return nil, nil, err
	}
	for _, node := range tree.Nodes {
		if node.Ignored || !slices.Contains(roles, text(node.Role)) {
			continue
		}
		names = append(names, text(node.Name))
		if text(node.Name) == name {
			found = append(found, node.BackendDOMNodeID)
		}
	}
	return found, names, nil
}

// text is a value of the accessibility tree.
func text(v *accessibility.Value) string {
	var s string
	if v != nil {
		_ = json.Unmarshal([]byte(v.Value), &s)
	}
	return s
}

// follow uses the link with a name.
func (b *tab) follow(name string) {
	b.t.Helper()
	b.use(b.find(name, []string{"link"}), kb.Enter)
}

// press uses the button with a name.
func (b *tab) press(name string) {
	b.t.Helper()
	b.use(b.find(name, pressable), kb.Enter)
}

// check changes the checkbox, or selects the radio button, with a name.
func (b *tab) check(name string) {
	b.t.Helper()
	b.use(b.find(name, checks), " ")
}

// use clicks a control, or goes to it with Tab and presses a key.
func (b *tab) use(node cdp.BackendNodeID, key string) {
	b.t.Helper()
	if b.keyboard {
		b.tabTo(node)
		b.act(chromedp.KeyEvent(key))
		return
	}
	b.click(node)
}

func (b *tab) click(node cdp.BackendNodeID) {
	b.t.Helper()
	call(b, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: node})
	quads := call(b, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: node}).Quads
	if len(quads) == 0 {
		b.t.Fatal("a control that is to be clicked has no place on the page")
	}
	q := quads[0]
	b.act(chromedp.MouseClickXY((q[0]+q[4])/2, (q[1]+q[5])/2))
}

// tabTo presses Tab until a control has the focus. It is a problem if one on the way does not show that it has it.
func (b *tab) tabTo(node cdp.BackendNodeID) {
	b.t.Helper()
	for range 300 {
		if b.focused() == node {
			return
		}
		b.act(chromedp.KeyEvent(kb.Tab))
		if hidden := eval[string](b, focusIsHidden); hidden != "" {
			b.mu.Lock()
			b.problems = append(b.problems, "the focus is not visible on "+hidden)
			b.mu.Unlock()
		}
	}
	b.t.Fatalf("%s: Tab does not lead to a control", b.path())
}

// focusIsHidden is the element that has the focus and shows no outline.
const focusIsHidden = `(() => {
	const e = document.activeElement
	if (!e || e === document.body || !e.matches(":focus-visible")) return ""
	const s = getComputedStyle(e), outlined = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0
	return outlined || s.boxShadow !== "none" ? "" : e.outerHTML.slice(0, 200)
})()`

// focused is the element that has the focus.
func (b *tab) focused() cdp.BackendNodeID {
	b.t.Helper()
	active := call(b, runtime.Evaluate,
		runtime.EvaluateParams{Expression: "document.activeElement || document.documentElement"})
	return call(b, dom.DescribeNode, dom.DescribeNodeParams{ObjectID: active.Result.ObjectID}).Node.BackendNodeID
}

// fill replaces the text of the field with a label.
func (b *tab) fill(label, value string) {
	b.t.Helper()
	node := b.find(label, editable)
	if b.keyboard {
		b.tabTo(node)
	} else {
		call(b, dom.Focus, dom.FocusParams{BackendNodeID: node})
	}
	for _, command := range []string{"selectAll", "delete"} {
		call(b, input.DispatchKeyEvent,
			input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeRawKeyDown, Commands: []string{command}})
	}
	call(b, input.InsertText, input.InsertTextParams{Text: value})
}

// value is what the field with a label contains.
func (b *tab) value(label string) string {
	b.t.Helper()
	return b.callOn(b.find(label, append(editable, choices...)), `function() { return this.value }`)
}

// choose selects an option of the list with a label.
func (b *tab) choose(label, option string) {
	b.t.Helper()
	node := b.find(label, choices)
	if b.keyboard {
		b.tabTo(node)
		b.act(chromedp.KeyEvent(option)) // a list goes to the option that begins with what is typed
	} else {
		b.callOn(node, `function(option) {
			const found = [...this.options].find(o => o.label === option)
			if (!found) return
			this.value = found.value
			this.dispatchEvent(new Event("input", {bubbles: true}))
			this.dispatchEvent(new Event("change", {bubbles: true}))
		}`, option)
	}
	if is := b.callOn(node, `function() { return this.selectedOptions[0].label }`); is != option {
		b.t.Fatalf("%s: %q has the option %q, not %q", b.path(), label, is, option)
	}
}

// callOn calls a function on an element, and returns the text that it returns.
func (b *tab) callOn(node cdp.BackendNodeID, function string, args ...string) string {
	b.t.Helper()
	object := call(b, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: node}).Object
	params := runtime.CallFunctionOnParams{FunctionDeclaration: function, ObjectID: object.ObjectID}
	for _, arg := range args {
		params.Arguments = append(params.Arguments, &runtime.CallArgument{Value: []byte(literal(arg))})
	}
	result := call(b, runtime.CallFunctionOn, params)
	if result.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", function, result.ExceptionDetails.Text)
	}
	var s string
	_ = json.Unmarshal([]byte(result.Result.Value), &s)
	return s
}

// resize gives the window a size, in pixels.
func (b *tab) resize(width, height int64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride,
		emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}

// scheme shows pages light or dark.
func (b *tab) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}

// accessible fails the test for each violation that axe-core finds in the page, and with it the rules of WCAG 2.2 AA. Of a
// page that was already tested in the other color scheme only the contrast is.
func (b *tab) accessible(colors ...string) {
	b.t.Helper()
	options := `{resultTypes: ["violations"]}`
	for i, scheme := range colors {
		b.scheme(scheme)
		if i > 0 {
			options = `{resultTypes: ["violations"], runOnly: {type: "rule", values: ["color-contrast"]}}`
		}
		for _, violation := range b.axe(options) {
			b.t.Errorf("%s, %s: %s", b.path(), scheme, violation)
		}
	}
}

// axe is what axe-core finds in the page.
func (b *tab) axe(options string) []string {
	b.t.Helper()
	if !eval[bool](b, `typeof axe === "object"`) {
		eval[bool](b, chromium.axe+";true")
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`axe.run(`+options+`).then(r => r.violations.map(v =>
		v.id + ": " + v.help + ": " + v.nodes.map(n => n.html.slice(0, 300) + " " + n.failureSummary).join(" | ")))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("axe: %v", err)
	}
	return found
}

// visited are the addresses and titles that the browser keeps of the tab.
func (b *tab) visited() []string {
	b.t.Helper()
	var all []string
	for _, entry := range call(b, page.GetNavigationHistory, cdp.Empty{}).Entries {
		unescaped, _ := url.PathUnescape(entry.URL)
		all = append(all, entry.URL, unescaped, entry.Title)
	}
	return all
}
