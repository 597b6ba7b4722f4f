package cluster

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"rolecall/internal/fault"
)

// FuzzConnection: whatever URL is taken, the connection is what it says: to named hosts over TLS, or to this machine, with
// the given password and the settings of ours, and nothing of it out of the environment.
func FuzzConnection(f *testing.F) {
	for _, name := range []string{"PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGAPPNAME", "PGOPTIONS", "PGTZ",
		"PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLPASSWORD", "PGTARGETSESSIONATTRS", "PGSERVICEFILE"} {
		f.Setenv(name, "/poison")
	}
	f.Setenv("PGPORT", "6666")
	f.Setenv("PGSSLMODE", "disable")
	f.Setenv("PGREQUIREAUTH", "none")
	f.Setenv("PGCONNECT_TIMEOUT", "6666")
	for _, s := range []string{
		"", host, "postgresql://role@a,b:6543/app?connect_timeout=2&require_auth=none&target_session_attrs=any",
		"postgres://role:x@h/app", "postgres://role@%2Ftmp/app", "postgres://role@h/app?host=/tmp", "postgres://role@/app?host=h",
		"postgres://@h/app",
		"postgres://role@h", "postgres://role@h/", "postgres://role@h:99999/app", "postgres://role@h:0/app",
		"postgres://role@[::1]:5433/app", "postgres://role@[fe80::1%25eth0]/app", "postgres://role@localhost,127.0.0.1/app",
		"postgres://role@127.0.0.1,h/app",
		"host=h user=role dbname=app", "postgres://role@h/app?sslmode=disable", "postgres://role@h/app?service=x",
		"postgres://role@h/app?connect_timeout=", "postgres://role@h/app?connect_timeout=-1",
		"postgres://role@h/app?require_auth=!password&channel_binding=require",
		"postgres://role@h/app#x", "postgres://role@h/a%2Fb%00", "postgres://ro%20le'@h,/app", "postgres://role@h,,h/app",
		"postgres://role@h /app", "postgres://role@H.EXAMPLE/app", "postgres://role@0/app", "postgres://role@127.1/app",
		"postgres://role@[::ffff:127.0.0.1]/app",
		"postgres://role@h/app?target_session_attrs=standby", "postgres://role@h/app?a=%zz",
		"postgres://role@h/app?require_auth=scram-sha-256&require_auth=none", "postgres://role@h/app;x", "postgres://role@@h/app",
	} {
		f.Add(s, "")
		f.Add(s, "disable")
	}
	for _, mode := range []string{"require", "verify-ca", "verify-full", "prefer", "DISABLE", "\x00"} {
		f.Add(host, mode)
	}
	const password = "s3cret:/?#@ ü"
	plain, err := (&Connection{URL: host, Password: password}).config()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, mode string) {
		pool, err := (&Connection{URL: text, Password: password, TLS: TLS{Mode: mode}}).config()
		if err != nil {
			if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "poison") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		c := pool.ConnConfig
		if c.Password != password || c.User == "" || c.Database == "" || c.ConnectTimeout <= 0 ||
			c.ConnectTimeout > connectTimeout || c.ValidateConnect == nil || c.RequireAuth == "" {
			t.Errorf("%q: %+v", text, c)
		}
		for _, own := range []string{c.User, c.Database, c.Host, c.RequireAuth} {
			if strings.Contains(own, "poison") && !strings.Contains(text, "poison") {
				t.Errorf("%q reads the environment: %q", text, own)
			}
		}
		if !maps.Equal(c.RuntimeParams, plain.ConnConfig.RuntimeParams) ||
			strings.Contains(fmt.Sprint(c.RuntimeParams), "poison") {
			t.Errorf("%q has the settings %v", text, c.RuntimeParams)
		}
		check := func(host string, port uint16, config *tls.Config) {
			t.Helper()
			address, err := netip.ParseAddr(host)
			local := host == "localhost" || err == nil && address.IsLoopback()
			if host == "" || strings.HasPrefix(host, "/") || port == 0 || port == 6666 && !strings.Contains(text, "6666") {
				t.Errorf("%q leads to %q, %d", text, host, port)
			}
			switch {
			case config == nil:
				if mode != "disable" || !local {
					t.Errorf("%q in mode %q has no TLS to %s", text, mode, host)
				}
			case config.InsecureSkipVerify && config.VerifyConnection == nil && mode != "require", config.ServerName != host,
				config.MinVersion < tls.VersionTLS12, len(config.Certificates) > 0, config.RootCAs != nil:
				t.Errorf("%q in mode %q to %s: %+v", text, mode, host, config)
			}
		}
		check(c.Host, c.Port, c.TLSConfig)
		for _, other := range c.Fallbacks {
			check(other.Host, other.Port, other.TLSConfig)
		}
	})
}
