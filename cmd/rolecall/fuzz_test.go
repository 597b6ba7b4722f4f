package main

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// FuzzConfig: a setting that is taken is one that the server can work with, and a password on the command line is refused.
func FuzzConfig(f *testing.F) {
	f.Setenv("PGPASSFILE", "/nowhere") // else pgx looks for a password at home
	for _, s := range [][4]string{
		{"https://rolecall.example.org/", "10.0.0.0/8", "90d", "postgres://u@h:5432/db"}, {"http://u:p@h", "fd00::1", "0",
			"postgres://u:p@h/db"}, {"https://h?x", "10.0.0.1/33", "-1d", "postgres://u@h/db?password=x"}, {"ftp://h", "1.2.3.4/8",
			"65535d", "postgres://u@h/db?pass%77ord=x"},
		{"https://h/a b//", "::ffff:10.0.0.1/128", "2160h", "postgres://u@h/db?password=x;y"}, {"https:///", "10.0.0.0/08",
			"23h59m", "postgresql://u@a,b:1/db"}, {"HTTPS://H#", "", "1e3d", "host=h password=x"}, {"", "x", "", ""},
		{"https://[::1]:1/%zz", "fe80::1%eth0", "-2160h", "postgres://u:@h/db"},
		{"https://h?", "0.0.0.0/0", "18446744073709551615d", "postgres://u@h/db?sslpassword=x"}, {"https://h", "::/0",
			"2562047h47m16.854775807s", "postgres://u@h/db?a=%zz&password=x"}, {"", "", "", "postgres://u@h/db#?password=x"}, {"",
			"", "", "postgres://u@h/db?x#&password=x"}, {"", "", "", "postgres://u@h/d b?pass word=x&password =x"},
		{"", "", "", "postgresql://u%3Ap@h/db"}, {"", "", "", "postgres://u@h,u:p@i/db"},
	} {
		f.Add(s[0], s[1], s[2], s[3], 1.5)
	}
	f.Fuzz(func(t *testing.T, publicURL, proxy, retention, databaseURL string, rate float64) {
		c := &settings{
			publicURL: publicURL, trustedProxies: []string{proxy}, auditRetention: retention, databaseURL: databaseURL,
			rateLimit: rate,
		}
		if base, err := c.checkedPublicURL(); err == nil {
			u, err := url.Parse(base + "/x?y#z")
			if err != nil || u.User != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "y" ||
				u.Fragment != "z" || !strings.HasSuffix(u.Path, "/x") || strings.HasSuffix(base, "/") {
				t.Errorf("--public-url %q is %q, and %q below it: %v", publicURL, base, u, err)
			}
		}
		if networks, err := c.checkedTrustedProxies(); err == nil {
			if len(networks) != 1 || !networks[0].IsValid() || networks[0] != networks[0].Masked() {
				t.Errorf("--trusted-proxies %q are %v", proxy, networks)
			}
			address, _, _ := strings.Cut(proxy, "/")
			if a, err := netip.ParseAddr(address); err != nil || !networks[0].Contains(a.WithZone("")) {
				t.Errorf("--trusted-proxies %q are %v, which does not have %s: %v", proxy, networks, a, err)
			}
		}
		if age, err := c.checkedAuditRetention(); err == nil && age != 0 && age < 24*time.Hour {
			t.Errorf("--audit-retention %q is %s", retention, age)
		}
		if n, err := c.checkedRateLimit(); err == nil && !(n >= 0 && n <= 1e6) {
			t.Errorf("--rate-limit is %g", n)
		}
		if databaseURL == "" {
			return
		}
		if taken, err := c.checkedDatabaseURL(); err == nil {
			if config, err := pgx.ParseConfig(string(taken)); err == nil && config.Password != "" {
				t.Errorf("--database-url %q holds a password", databaseURL)
			}
		} else if u, parseErr := url.Parse(databaseURL); parseErr == nil && u.User != nil {
			if password, _ := u.User.Password(); len(password) > 8 && strings.Contains(err.Error(), password) {
				t.Errorf("the error quotes the password: %v", err)
			}
		}
	})
}
