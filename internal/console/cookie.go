package console

import (
	"encoding/base64"
	"net/http"
	"strings"
	"unicode/utf8"

	"rolecall/internal/secret"
)

// cookieName is the name of a cookie of ours. With the prefix a browser takes it over https only and from this very host. On
// plain http, which is for this machine, there is no such thing.
func (c *Console) cookieName(name string) string {
	if c.overTLS() {
		return "__Host-" + name
	}
	return name
}

func (c *Console) overTLS() bool { return strings.HasPrefix(c.PublicURL, "https:") }

// sessionCookie is the name of the cookie with the session's secret.
func (c *Console) sessionCookie() string { return c.cookieName("rolecall") }

// setCookie sets a cookie that ends with the browser; an empty value removes it.
func (c *Console) setCookie(w http.ResponseWriter, name string, value string) {
	cookie := &http.Cookie{Name: c.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: c.overTLS(),
		SameSite: http.SameSiteLaxMode}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// ownSession is the secret of the request's session.
func (c *Console) ownSession(r *http.Request) secret.Text {
	cookie, err := r.Cookie(c.sessionCookie())
	if err != nil {
		return ""
	}
	return secret.Text(cookie.Value)
}

// noticeCookie has a sentence for the next page, such as what was just done.
const noticeCookie = "rolecall-notice"

// maxNotice bounds a notice, in bytes.
const maxNotice = 1000

// redirect answers a change that was made: the browser gets the page at path, which shows the notice.
func (c *Console) redirect(w http.ResponseWriter, path, notice string) error {
	if len(notice) > maxNotice {
		notice = strings.ToValidUTF8(notice[:maxNotice], "") + "…"
	}
	if notice != "" {
		c.setCookie(w, noticeCookie, base64.RawURLEncoding.EncodeToString([]byte(notice)))
	}
	w.Header().Set("Location", path) // http.Redirect would clean the path, and with it names in it
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// takeNotice returns the notice of the request, and removes it.
func (c *Console) takeNotice(w http.ResponseWriter, r *http.Request) string {
	cookie, err := r.Cookie(c.cookieName(noticeCookie))
	if err != nil {
		return ""
	}
	c.setCookie(w, noticeCookie, "")
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || !utf8.Valid(text) || len(text) > maxNotice+len("…") {
		return ""
	}
	return string(text)
}
