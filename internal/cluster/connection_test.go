package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const host = "postgres://role@db.example.test:6543/app"

func TestConfig(t *testing.T) {
	t.Parallel()
	good := func(c Connection) *pgx.ConnConfig {
		t.Helper()
		if c.Password == "" {
			c.Password = "s3cret:/?#@ ü"
		}
		config, err := c.config()
		if err != nil {
			t.Fatal(err)
		}
		return config.ConnConfig
	}
	c := good(Connection{URL: host})
	if c.Host != "db.example.test" || c.Port != 6543 || c.User != "role" || c.Database != "app" ||
		c.Password != "s3cret:/?#@ ü" ||
		c.TLSConfig == nil || c.TLSConfig.InsecureSkipVerify || c.TLSConfig.ServerName != "db.example.test" ||
		c.TLSConfig.RootCAs != nil ||
		c.RequireAuth != "scram-sha-256" || c.ConnectTimeout != connectTimeout || len(c.Fallbacks) != 0 ||
		c.RuntimeParams["search_path"] != "pg_catalog" {
		t.Errorf("got %+v", c)
	}
	// An empty value is no way round what is required.
	if c = good(Connection{URL: host + "?require_auth=&channel_binding="}); c.RequireAuth != "scram-sha-256" ||
		c.ChannelBinding != "prefer" {
		t.Errorf("got %+v", c)
	}
	c = good(Connection{URL: "postgresql://role@a,b:6543/app?connect_timeout=2&require_auth=none&target_session_attrs=any"})
	if c.Host != "a" || c.Port != 5432 || len(c.Fallbacks) != 1 || c.Fallbacks[0].Port != 6543 ||
		c.Fallbacks[0].TLSConfig.ServerName != "b" ||
		c.ConnectTimeout != 2*time.Second || c.RequireAuth != "none" {
		t.Errorf("got %+v, fallbacks %+v", c, c.Fallbacks)
	}
	if c = good(Connection{URL: host + "?connect_timeout=600"}); c.ConnectTimeout != connectTimeout {
		t.Errorf("a connection may take %s", c.ConnectTimeout)
	}
	for _, loopback := range []string{"localhost", "127.0.0.1", "127.1.2.3:5433", "[::1]", "[::1]:5433",
		"localhost,127.0.0.1"} {
		c := good(Connection{URL: "postgres://role@" + loopback + "/app", TLS: TLS{Mode: "disable"}})
		if c.TLSConfig != nil || len(c.Fallbacks) > 0 && c.Fallbacks[0].TLSConfig != nil {
			t.Errorf("%s: TLS although disabled", loopback)
		}
	}
	private := Connection{URL: "postgres://role@127.0.0.1,db.internal/app", TLS: TLS{Mode: "disable", AllowPlaintext: true}}
	if c := good(private); c.TLSConfig != nil || c.Fallbacks[0].TLSConfig != nil || c.RequireAuth != "scram-sha-256" {
		t.Errorf("in a private network: %+v", c)
	}
	for _, mode := range []string{"verify-ca", "require"} {
		if c := good(Connection{URL: host, TLS: TLS{Mode: mode}}); !c.TLSConfig.InsecureSkipVerify ||
			(c.TLSConfig.VerifyConnection != nil) != (mode == "verify-ca") {
			t.Errorf("%s: %+v", mode, c.TLSConfig)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	const secret = "hunter2secret"
	for name, c := range map[string]Connection{
		"plaintext":               {URL: host, TLS: TLS{Mode: "disable"}},
		"plaintext at a host":     {URL: "postgres://role@127.0.0.1,h/app", TLS: TLS{Mode: "disable"}},
		"plaintext, and method":   {URL: host + "?require_auth=none", TLS: TLS{Mode: "disable", AllowPlaintext: true}},
		"plaintext, not used":     {URL: host, TLS: TLS{AllowPlaintext: true}},
		"password in the URL":     {URL: "postgres://role:" + secret + "@h/app"},
		"password as a parameter": {URL: "postgres://role@h/app?password=" + secret},
		"malformed, with one":     {URL: "postgres://role:" + secret + "@h:port/app"},
		"keywords":                {URL: "host=h user=role password=" + secret},
		"scheme":                  {URL: "mysql://role@h/app"},
		"empty":                   {URL: ""},
		"no role":                 {URL: "postgres://h/app"},
		"no host":                 {URL: "postgres://role@/app"},
		"no database":             {URL: "postgres://role@h/"},
		"new line in the role":    {URL: "postgres://x%0d%0aFLUSHALL%0d%0a@127.0.0.1:6379/app", TLS: TLS{Mode: "disable"}},
		"new line in the name":    {URL: "postgres://role@127.0.0.1:6379/x%0aFLUSHALL%0a", TLS: TLS{Mode: "disable"}},
		"NUL in the role":         {URL: "postgres://role%00user%00postgres@h/app"},
		"control character of C1": {URL: "postgres://role@h/%c2%85"},
		"socket":                  {URL: "postgres://role@%2Ftmp/app"},
		"socket as a parameter":   {URL: "postgres://role@h/app?host=/tmp"},
		"no host in a list":       {URL: "postgres://role@h,/app"},
		"port":                    {URL: "postgres://role@h:99999/app"},
		"passfile":                {URL: host + "?passfile=/etc/passwd"},
		"service":                 {URL: host + "?service=x"},
		"servicefile":             {URL: host + "?servicefile=/etc/passwd"},
		"sslcert":                 {URL: host + "?sslcert=/etc/passwd"},
		"sslkey":                  {URL: host + "?sslkey=/etc/passwd"},
		"sslrootcert":             {URL: host + "?sslrootcert=/etc/passwd"},
		"sslmode":                 {URL: host + "?sslmode=disable"},
		"options":                 {URL: host + "?options=-csearch_path%3Dpublic"},
		"search_path":             {URL: host + "?search_path=public"},
		"pool_max_conns":          {URL: host + "?pool_max_conns=1000"},
		"value of a parameter":    {URL: host + "?target_session_attrs=whatever"},
		"no password":             {URL: host, Password: "-"},
		"mode":                    {URL: host, TLS: TLS{Mode: "prefer"}},
		"disable elsewhere":       {URL: host, TLS: TLS{Mode: "disable"}},
		"disable in a list":       {URL: "postgres://role@127.0.0.1,db.example.test/app", TLS: TLS{Mode: "disable"}},
		"disable, as a number":    {URL: "postgres://role@192.0.2.1/app", TLS: TLS{Mode: "disable"}},
		"CA":                      {URL: host, TLS: TLS{CA: "no PEM"}},
		"certificate":             {URL: host, TLS: TLS{Cert: "no PEM"}, Key: secret},
	} {
		switch c.Password {
		case "":
			c.Password = secret
		case "-":
			c.Password = ""
		}
		_, err := c.config()
		if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the environment and the home folder say to libpq is not meant for managed clusters.
func TestConfigWithoutEnvironment(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".postgresql"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"root.crt", "postgresql.crt", "postgresql.key"} {
		if err := os.WriteFile(filepath.Join(home, ".postgresql", file), []byte("no PEM"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Connection{URL: "postgres://role@h/app", Password: "x"}
	show := func() string {
		config, err := c.config()
		if err != nil {
			t.Fatal(err)
		}
		p := config.ConnConfig
		return fmt.Sprint(p.Host, p.Port, p.Database, p.User, p.Password, p.ConnectTimeout, p.SSLNegotiation, p.SSLCertMode,
			p.MinProtocolVersion, p.MaxProtocolVersion,
			p.ChannelBinding, p.RequireAuth, p.RuntimeParams, p.KerberosSrvName, len(p.Fallbacks), p.TLSConfig.InsecureSkipVerify,
			len(p.TLSConfig.Certificates), p.TLSConfig.RootCAs, config.MaxConns)
	}
	want := show()
	for name, value := range map[string]string{
		"HOME": home, "PGHOST": "elsewhere", "PGPORT": "1", "PGDATABASE": "elsewhere", "PGUSER": "elsewhere",
		"PGPASSWORD": "elsewhere", "PGPASSFILE": "/etc/passwd",
		"PGAPPNAME": "elsewhere", "PGCONNECT_TIMEOUT": "1", "PGSSLMODE": "nonsense", "PGSSLKEY": "/none", "PGSSLCERT": "/none",
		"PGSSLCERTMODE": "require", "PGSSLSNI": "0",
		"PGSSLROOTCERT": "/none", "PGSSLPASSWORD": "x", "PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "nonsense",
		"PGTZ": "Europe/Berlin", "PGOPTIONS": "-csearch_path=public",
		"PGMINPROTOCOLVERSION": "3.2", "PGMAXPROTOCOLVERSION": "3.2", "PGCHANNELBINDING": "require", "PGREQUIREAUTH": "none",
	} {
		t.Setenv(name, value)
	}
	if got := show(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// authority is a certificate authority made for the test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key, a.pem, _ = issue(t, nil,
		&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			Subject: pkix.Name{CommonName: "CA"}})
	return a
}

// issue makes a certificate, self-signed without an authority.
func issue(t testing.TB, by *authority, template *x509.Certificate) (
	cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM string) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	fail(err)
	cert, err = x509.ParseCertificate(der)
	fail(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	fail(err)
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// A real server with a certificate for localhost, reached by that name and by its address.
func TestTLS(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	ca, stranger := newAuthority(t), newAuthority(t)
	_, _, cert, key := issue(t, ca, &x509.Certificate{DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	data, err := os.Stat(pg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	owner := data.Sys().(*syscall.Stat_t)
	for file, text := range map[string]string{"server.crt": cert, "server.key": key} {
		path := filepath.Join(pg.DataDir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	pg.Exec(t, `ALTER SYSTEM SET ssl = on`)
	pg.Stop(t)
	pg.Start(t)

	connect := func(host string, tls TLS) (encrypted bool, err error) {
		c := Connection{URL: fmt.Sprintf("postgres://%s@%s:%d/postgres", pg.User, host, pg.Port),
			Password: secret.Text(pg.Password), TLS: tls}
		config, err := c.config()
		if err != nil {
			return false, err
		}
		conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
		if err != nil {
			return false, err
		}
		defer conn.Close(context.Background())
		return encrypted, conn.QueryRow(t.Context(), `SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&encrypted)
	}
	for _, test := range []struct {
		host string
		tls  TLS
		want string // a part of the error; "": connects
	}{
		{"localhost", TLS{CA: ca.pem}, ""},
		{"localhost", TLS{Mode: "verify-full", CA: ca.pem}, ""},
		{"localhost", TLS{Mode: "verify-full", CA: stranger.pem + ca.pem}, ""},
		{"localhost", TLS{Mode: "verify-full", CA: stranger.pem}, "unknown authority"},
		{"localhost", TLS{}, "unknown authority"},
		{"127.0.0.1", TLS{Mode: "verify-full", CA: ca.pem}, "cannot validate certificate for 127.0.0.1"},
		{"127.0.0.1", TLS{Mode: "verify-ca", CA: ca.pem}, ""},
		{"127.0.0.1", TLS{Mode: "verify-ca", CA: stranger.pem}, "unknown authority"},
		{"127.0.0.1", TLS{Mode: "verify-ca"}, "unknown authority"},
		{"127.0.0.1", TLS{Mode: "require"}, ""},
		{"127.0.0.1", TLS{Mode: "require", Cert: cert}, "tls.cert and tls.key"},
	} {
		encrypted, err := connect(test.host, test.tls)
		if test.want == "" && (err != nil || !encrypted) ||
			test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s, mode %q: encrypted %t, %v; want %q", test.host, test.tls.Mode, encrypted, err, test.want)
		}
	}
	if encrypted, err := connect("127.0.0.1", TLS{Mode: "disable"}); err != nil || encrypted {
		t.Errorf("disabled: encrypted %t, %v", encrypted, err)
	}
	pg.Exec(t, `ALTER SYSTEM SET ssl = off`)
	pg.Stop(t)
	pg.Start(t)
	for _, mode := range []string{"", "verify-ca", "require"} {
		if _, err := connect("localhost", TLS{Mode: mode, CA: ca.pem}); err == nil {
			t.Errorf("mode %q goes on without TLS", mode)
		}
	}
}

// The server must prove that it knows the verifier of the password: one that asks for the password itself, or for an md5
// hash of it, gets nothing. Where pg_hba.conf says md5, it asks a role that has a verifier for SCRAM.
// What is committed is on disk, however the server, the database or the role is set.
func TestCommitsAreDurable(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"synchronous_commit": "off"})
	for setting, want := range map[string]string{"": "on", "local": "local"} {
		c := Connection{URL: fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", pg.User, pg.Port),
			Password: secret.Text(pg.Password), TLS: TLS{Mode: "disable"}, SynchronousCommit: setting}
		conn, _, err := c.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := conn.QueryRow(t.Context(), `SHOW synchronous_commit`).Scan(&got); err != nil || got != want {
			t.Errorf("set to %q: %s, want %s; %v", setting, got, want, err)
		}
		conn.Close(t.Context())
	}
}

func TestRequireAuth(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, map[string]string{"password_encryption": "md5"})
	pg.Exec(t, `CREATE ROLE hashed LOGIN SUPERUSER PASSWORD 'a-hash-of-this'`)
	hba := filepath.Join(pg.DataDir, "pg_hba.conf")
	for _, method := range []string{"password", "trust", "scram-sha-256", "md5"} {
		if err := os.WriteFile(hba, []byte("host all all all "+method+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pg.Stop(t)
		pg.Start(t)
		open := func(role, password string) error {
			c := Connection{URL: fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, pg.Port), Password: secret.Text(password),
				TLS: TLS{Mode: "disable"}}
			conn, _, err := c.Open(t.Context())
			if err == nil {
				conn.Close(t.Context())
			}
			return err
		}
		if err := open(pg.User, pg.Password); (err == nil) != (method == "scram-sha-256" || method == "md5") {
			t.Errorf("with %s: %v", method, err)
		}
		err := open("hashed", "a-hash-of-this")
		if err == nil || strings.Contains(err.Error(), "a-hash") ||
			method == "md5" && !strings.HasPrefix(err.Error(),
				`The cluster does not ask the role "hashed" for a SCRAM password: server requested md5 authentication.`) {
			t.Errorf("with %s and an md5 hash: %v", method, err)
		}
	}
}
