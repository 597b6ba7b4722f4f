package cli

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

// browserVariable is the program that opens a page. It may be several, as for xdg-open: "firefox:w3m %s".
const browserVariable = "BROWSER"

// browserTimeout is how long a person may take to sign in.
const browserTimeout = 10 * time.Minute

// errNobody is the error of a sign-in for which the browser brought no answer.
var errNobody = errors.New("no answer came from the browser")

const (
	usernameFlag  = "username"
	ssoFlag       = "sso"
	noBrowserFlag = "no-browser"
	issuerFlag    = "issuer"
)

// browserSignIn is a sign-in on a page of the server, as the flags describe it.
type browserSignIn struct {
	sso       bool
	noBrowser bool
	issuer    string // "": the page asks
}

func (b *browserSignIn) bind(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&b.sso, ssoFlag, false, "sign in on a page of the server, in a browser on this machine")
	cmd.Flags().BoolVar(&b.noBrowser, noBrowserFlag, false,
		"sign in on a page of the server, in a browser on any machine; implies --"+ssoFlag)
	cmd.Flags().StringVar(&b.issuer, issuerFlag, "",
		"`name` of the OpenID Connect issuer to sign in with; default: the page asks; implies --"+ssoFlag)
}

// check completes the flags, and rejects those that exclude each other.
func (b *browserSignIn) check(cmd *cobra.Command) error {
	b.sso = b.sso || b.noBrowser || b.issuer != ""
	switch {
	case b.noBrowser && b.issuer != "":
		return term.Usage("--%s and --%s exclude each other; choose the issuer on the page", issuerFlag, noBrowserFlag)
	case b.sso:
		return reject(cmd, "you sign in on a page of the server", usernameFlag, "password-stdin")
	}
	return nil
}

// signInByBrowser signs in on a page of the server.
func (s *logins) signInByBrowser(cmd *cobra.Command, l *login, b *browserSignIn) error {
	c, err := newClient(l.URL, l.CAFile)
	if err != nil {
		return err
	}
	var done *signedIn
	if b.noBrowser {
		done, err = signInByDevice(cmd, c)
	} else {
		done, err = signInByCode(cmd, c, b.issuer, browserTimeout)
	}
	switch ctx := cmd.Context(); {
	case err != nil && ctx.Err() != nil:
		return term.Exit(signalCode(ctx), "interrupted; you are not signed in")
	case errors.Is(err, client.ErrDenied), errors.Is(err, client.ErrExpired), errors.Is(err, errNobody):
		return term.Denied("%w; to sign in, run the command again", err)
	case err != nil:
		return err
	}
	l.SSO, l.Issuer = true, b.issuer
	l.Username, l.Origin = done.username, done.origin
	return s.keep(cmd, l, done.tokens)
}

// signedIn is what a sign-in on a page brings: the page decides who signs in.
type signedIn struct {
	tokens           *client.Tokens
	username, origin string
}

// signedInWith finds out whose the tokens are.
func signedInWith(ctx context.Context, c *client.Client, t *client.Tokens) (*signedIn, error) {
	c.Token = func(context.Context, string) (string, error) { return string(t.Access), nil }
	me, err := whoami(ctx, c)
	if err != nil {
		return nil, errors.Join(err, c.Revoke(ctx, client.BrowserClient, string(t.Refresh)))
	}
	return &signedIn{t, cmp.Or(me.Account.Username, me.Account.GUID), me.Account.Origin}, nil
}

// signInByDevice lets a person confirm the sign-in in any browser.
func signInByDevice(cmd *cobra.Command, c *client.Client) (*signedIn, error) {
	d, err := c.StartDevice(cmd.Context())
	if err != nil {
		return nil, err
	}
	term.Warn(cmd, "To sign in, open %s in any browser and enter the code %s.", d.Page, d.UserCode)
	if d.PageWithCode != "" {
		term.Warn(cmd, "Or open %s and compare the code.", d.PageWithCode)
	}
	term.Warn(cmd, "The code is valid for %s.", moment.DurationText(d.Lifetime))
	t, err := c.AwaitDevice(cmd.Context(), d)
	if err != nil {
		return nil, err
	}
	return signedInWith(cmd.Context(), c, t)
}

// signInByCode opens the page in a browser on this machine, which brings a code to a port of this process.
func signInByCode(cmd *cobra.Command, c *client.Client, issuer string, timeout time.Duration) (*signedIn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("there is no port at which the browser can answer; use --%s instead: %w", noBrowserFlag, err)
	}
	defer listener.Close()
	a, err := c.Authorize(cmd.Context(), "http://"+listener.Addr().String()+callbackPath, issuer)
	if err != nil {
		return nil, err
	}
	back := &callback{cmd: cmd, client: c, authorization: a, result: make(chan signInResult, 1)}
	server := &http.Server{Handler: back, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	term.Warn(cmd, "To sign in, open this page in a browser on this machine:")
	term.Warn(cmd, "%s", a.URL)
	ended, err := openBrowser(a.URL)
	if err != nil {
		warnOfNoBrowser(cmd, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				warnOfNoBrowser(cmd, err)
			}
			ended = nil
		case r := <-back.result:
			// The page is on its way to the browser.
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
			defer cancel()
			_ = server.Shutdown(ctx)
			return r.signedIn, r.err
		case <-timer.C:
			return nil, fmt.Errorf("%w within %s", errNobody, moment.DurationText(timeout))
		case <-cmd.Context().Done():
			return nil, cmd.Context().Err()
		}
	}
}

func warnOfNoBrowser(cmd *cobra.Command, err error) {
	term.Warn(cmd, "The browser could not be opened: %v. Open the page yourself. If this machine has no browser, press Ctrl-C "+
		"and use --%s.", err, noBrowserFlag)
}

// openBrowser starts the first browser that can be started. ended gets its end, nil if it was regular: many programs hand
// the page to a browser that runs already.
func openBrowser(page string) (ended <-chan error, err error) {
	browsers := strings.FieldsFunc(os.Getenv(browserVariable), func(r rune) bool { return r == ':' })
	if len(browsers) == 0 {
		browsers = []string{"xdg-open"}
		if runtime.GOOS == "darwin" {
			browsers = []string{"open"}
		}
	}
	for _, browser := range browsers {
		var ended <-chan error
		if ended, err = start(strings.Fields(browser), page); err == nil {
			return ended, nil
		}
	}
	return nil, err
}

// start starts one browser. The page takes the place of %s, else it is the last argument.
func start(argv []string, page string) (<-chan error, error) {
	placed := false
	for i := range argv {
		placed = placed || strings.Contains(argv[i], "%s")
		argv[i] = strings.ReplaceAll(argv[i], "%s", page)
	}
	if !placed {
		argv = append(argv, page)
	}
	browser := exec.Command(argv[0], argv[1:]...)
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C ends this command, not the browser
	if err := browser.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		err := browser.Wait()
		if err != nil {
			err = fmt.Errorf("%s ended with %w", argv[0], err)
		}
		ended <- err
	}()
	return ended, nil
}

// callback is the address at which the browser brings the code, RFC 8252, 7.3.
type callback struct {
	cmd           *cobra.Command
	client        *client.Client
	authorization *client.Authorization
	answered      atomic.Bool
	warned        atomic.Bool
	result        chan signInResult // has room for the one
}

const callbackPath = "/callback"

type signInResult struct {
	signedIn *signedIn
	err      error
}

// ServeHTTP answers the browser after the code was exchanged, so that the page says what has happened.
func (b *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := r.URL.Query()
	switch state := answer.Get("state"); {
	case r.URL.Path != callbackPath:
		answerBrowser(w, http.StatusNotFound, "There is nothing here.")
		return
	case r.Method != http.MethodGet:
		answerBrowser(w, http.StatusMethodNotAllowed, "The sign-in is brought by GET only.")
		return
	case subtle.ConstantTimeCompare([]byte(state), []byte(b.authorization.State)) == 0:
		answerBrowser(w, http.StatusBadRequest, "This answer belongs to another sign-in. Use the page that the terminal shows.")
		if b.warned.CompareAndSwap(false, true) {
			term.Warn(b.cmd, "An answer of the browser was ignored, because it belongs to another sign-in (its state is wrong). "+
				"Use the page above.")
		}
		return
	case !b.answered.CompareAndSwap(false, true):
		answerBrowser(w, http.StatusConflict, "This sign-in has ended. Close this window.")
		return
	}
	done, err := b.exchange(answer)
	if err != nil {
		answerBrowser(w, http.StatusBadRequest, "You are not signed in. The terminal shows why; close this window.")
	} else {
		answerBrowser(w, http.StatusOK, "You are signed in; close this window.")
	}
	b.result <- signInResult{done, err}
}

// exchange gets the tokens for the browser's answer, RFC 6749, 4.1.2.
func (b *callback) exchange(answer url.Values) (*signedIn, error) {
	ctx := b.cmd.Context()
	switch refused, why := answer.Get("error"), answer.Get("error_description"); {
	case refused == "access_denied":
		return nil, client.ErrDenied
	case refused != "":
		return nil, term.Denied("the sign-in failed in the browser: %s; to sign in, run the command again",
			strings.TrimRight(cmp.Or(why, refused), "."))
	case answer.Get("code") == "":
		return nil, errors.New("the browser has brought no code; sign in again")
	}
	t, err := b.client.Exchange(ctx, b.authorization, answer.Get("code"))
	if err != nil {
		return nil, err
	}
	return signedInWith(ctx, b.client, t)
}

// answerBrowser writes a page of one sentence.
func answerBrowser(w http.ResponseWriter, status int, sentence string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address has the code
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<!doctype html><html lang="en"><meta name="color-scheme" content="light dark">`+
		`<title>Rolecall</title><p>`+sentence+"</p></html>\n")
}
