package client_test

import (
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/client"
)

// FuzzParseURL: a base URL that is taken is where a path can be put behind, and holds no credentials.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"", "http://h", "https://h:1/x//", "https://u:p@h", "https://u@h", "ftp://h", "http://",
		"http://h?x", "http://h?", "http://h#x", "HTTP://H", "http://[::1", "http://h/%zz", "http://h/ä", "//h", "http:h"} {
		f.Add(s, "a/b %é")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		base, err := client.ParseURL(text)
		if err != nil {
			if u, parseErr := url.Parse(text); parseErr == nil && u.User != nil {
				if password, _ := u.User.Password(); len(password) > 8 && strings.Contains(err.Error(), password) {
					t.Errorf("the error quotes the password: %v", err)
				}
			}
			return
		}
		u, err := url.Parse(client.Path(base+"/x", name))
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" ||
			u.Host == "" || !strings.HasSuffix(u.Path, "/x/"+name) {
			t.Errorf("%q became %q, and with %q %q: %v", text, base, name, u, err)
		}
		if again, err := client.ParseURL(base); err != nil || again != base {
			t.Errorf("%q became %q, and that %q: %v", text, base, again, err)
		}
	})
}
