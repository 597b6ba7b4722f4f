package control_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// masterKey is the one of all tests, and otherKey is another.
var masterKey, otherKey = control.NewMasterKey(), control.NewMasterKey()

func open(t testing.TB, url string) (*control.DB, error) { return openWith(t, url, masterKey) }

func openWith(t testing.TB, url, key string) (*control.DB, error) {
	t.Helper()
	db, err := control.Open(t.Context(), url, keyring(t, key), control.Waits{})
	if err == nil {
		t.Cleanup(db.Close)
	}
	return db, err
}

func mustOpen(t testing.TB, url string) *control.DB {
	t.Helper()
	db, err := open(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// Replicas that start at once on an empty database take turns.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	pg.Exec(t, `CREATE DATABASE at_once`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			db, err := open(t, pg.URL("at_once"))
			if err != nil {
				t.Error(err)
				return
			}
			if db.Identity.Database != "at_once" || db.Identity.Role != pg.User || db.Identity.System == "" {
				t.Errorf("the database is at %+v", db.Identity)
			}
		})
	}
	wg.Wait()
	db := mustOpen(t, pg.URL("at_once"))
	var versions []int
	if err := db.Pool.QueryRow(t.Context(), `SELECT array_agg(version ORDER BY version) FROM migrations`).
		Scan(&versions); err != nil {
		t.Fatal(err)
	}
	for i, v := range versions {
		if v != i+1 {
			t.Errorf("the migrations are %v", versions)
		}
	}
	// The previous release works on what the next one has made of the database.
	if _, err := db.Pool.Exec(t.Context(),
		`INSERT INTO migrations (version, name) VALUES (999, 'of the next release')`); err != nil {
		t.Fatal(err)
	}
	if db = mustOpen(t, pg.URL("at_once")); db.Ahead != 999-len(versions) {
		t.Errorf("the schema is ahead by %d", db.Ahead)
	}
	// Unless that one has said that it cannot.
	if _, err := db.Pool.Exec(t.Context(), `INSERT INTO migrations (version, name) VALUES (1000, `+
		`'1000_all_else.breaking.sql')`); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, pg.URL("at_once")); err == nil || !strings.Contains(err.Error(),
		"(1000_all_else.breaking.sql); start that release") || control.Away(err) {
		t.Errorf("a schema that this release would harm: %v", err)
	}
}

// A migration waits for a table that is in use, and meanwhile lets those pass that come after it.
func TestMigrationLetsOthersPass(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	pg.Exec(t, `CREATE DATABASE busy_tables`)
	conn := pg.Connect(t, pg.User, pg.Password, "busy_tables")
	// Whatever a migration does, it ends by recording itself.
	for _, sql := range []string{
		`CREATE SCHEMA rolecall`,
		`CREATE TABLE rolecall.migrations (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL ` +
			`DEFAULT now())`,
		`BEGIN`,
		`LOCK TABLE rolecall.migrations IN SHARE MODE`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := open(t, pg.URL("busy_tables"))
		done <- err
	}()
	waiting := func(want bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			got := pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'busy_tables' AND `+
				`wait_event_type = 'Lock')`)
			if got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("a migration waits: %t", got)
			}
		}
	}
	for range 2 {
		waiting(true)
		waiting(false)
	}
	select {
	case err := <-done:
		t.Fatalf("it has not waited: %v", err)
	default:
	}
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A COMMIT that waits for a standby which is gone waits for ever, but the request does not.
func TestCommitHangs(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE DATABASE hangs`)
	db := mustOpen(t, pg.URL("hangs"))
	db.HangsAfter(time.Second)
	pg.Set(t, "synchronous_standby_names", "gone")
	err := db.Tx(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO watermarks VALUES ('hangs', now())`)
		return err
	})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "Read to see whether it was done") ||
		fault.Of(err).RetryAfter == 0 {
		t.Errorf("a COMMIT that waits for a standby: %v", err)
	}
}

// Every role of the cluster may be in the hands of somebody else, so the control database is shut to them.
func TestRightsAreClosed(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	const password = "a-good-password"
	for _, role := range []string{"stranger", "keeper"} {
		pg.Exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, role, password))
	}
	as := func(role, database string) (*pgx.Conn, error) {
		u, err := url.Parse(pg.URL(database))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, password)
		conn, err := pgx.Connect(t.Context(), u.String())
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
		}
		return conn, err
	}
	pg.Exec(t, `CREATE DATABASE closed`)
	mustOpen(t, pg.URL("closed"))
	if _, err := as("stranger", "closed"); err == nil || !strings.Contains(err.Error(), "permission denied for database") {
		t.Errorf("a stranger connects: %v", err)
	}

	// In a database that belongs to somebody else, a schema of its own is what can be shut.
	pg.Exec(t, `CREATE DATABASE lent`)
	pg.Exec(t, `GRANT CREATE ON DATABASE lent TO keeper`)
	u, err := url.Parse(pg.URL("lent"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("keeper", password)
	mustOpen(t, u.String())
	conn, err := as("stranger", "lent")
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`SELECT * FROM rolecall.accounts`, `SELECT * FROM rolecall.clusters`,
		`INSERT INTO rolecall.watermarks VALUES ('x', now())`,
		`SELECT rolecall.refuse_change()`, `CREATE TABLE rolecall.mine()`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil ||
			!strings.Contains(err.Error(), "permission denied for schema rolecall") {
			t.Errorf("%s by a stranger: %v", sql, err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	const secret = "hunter2secret"
	for _, bad := range []string{"postgres://role:" + secret + "@h:port/db",
		"postgres://role:" + secret + "@h/db?sslmode=nonsense", secret, "host=" + secret + " port=x"} {
		if _, err := open(t, bad); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	pg := pgtest.Shared(t)
	_, err := open(t, pg.URL("not_there"))
	if err == nil || control.Away(err) {
		t.Errorf("a database that does not exist: %v, away %t", err, control.Away(err))
	}
	if _, err = open(t, "postgres://role:"+secret+"@127.0.0.1:1/db"); !control.Away(err) ||
		strings.Contains(err.Error(), secret) {
		t.Errorf("a server that does not run: %v, away %t", err, control.Away(err))
	}
}

// What is committed is on disk, and what a session holds it holds, however the server is set.
func TestSettingsOfTheServer(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"synchronous_commit": "off", "default_transaction_isolation": "serializable",
		"idle_session_timeout": "1min"})
	db := mustOpen(t, c.URL("postgres"))
	for name, want := range map[string]string{"synchronous_commit": "on", "transaction_isolation": "read committed",
		"idle_session_timeout": "0"} {
		var got string
		if err := db.Pool.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s; %v", name, got, want, err)
		}
	}
}

// Whoever comes with other master keys, and so not to this database, leaves its schema alone.
func TestOpenWithOtherKeys(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	c.Exec(t, `CREATE DATABASE other_keys`)
	db := mustOpen(t, c.URL("other_keys"))
	var version, now int
	err := db.Pool.QueryRow(t.Context(), `DELETE FROM migrations WHERE version = (SELECT max(version) FROM migrations) `+
		`RETURNING version - 1`).Scan(&version)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openWith(t, c.URL("other_keys"), otherKey); err == nil ||
		!strings.Contains(err.Error(), "audit_keys/1/key is encrypted with the master key ") {
		t.Errorf("got %v, want the key that is missing", err)
	}
	if err := db.Pool.QueryRow(t.Context(), `SELECT max(version) FROM migrations`).Scan(&now); err != nil || now != version {
		t.Errorf("the schema is at version %d, and was at %d; %v", now, version, err)
	}
}

// A command that only reads the control database does not change its schema, and names the schema that it cannot read.
func TestOpenUnchanged(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	c.Exec(t, `CREATE DATABASE unchanged`)
	schema := func() (tables, version int) {
		t.Helper()
		conn := c.Connect(t, c.User, c.Password, "unchanged")
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384`).Scan(&tables)
		if err == nil && tables > 0 {
			err = conn.QueryRow(t.Context(), `SELECT max(version) FROM rolecall.migrations`).Scan(&version)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tables, version
	}
	unchanged := func(key, want string) {
		t.Helper()
		tables, version := schema()
		db, err := control.OpenUnchanged(t.Context(), c.URL("unchanged"), keyring(t, key))
		if err == nil {
			db.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
		if nowTables, nowVersion := schema(); nowTables != tables || nowVersion != version {
			t.Errorf("the schema had %d tables and the version %d, and now has %d and %d", tables, version, nowTables, nowVersion)
		}
	}
	unchanged(masterKey, "an older release (version 0;")
	db := mustOpen(t, c.URL("unchanged"))
	unchanged(masterKey, "")
	unchanged(otherKey, "is encrypted with the master key ")
	if _, err := db.Pool.Exec(t.Context(), `INSERT INTO migrations (version, name) SELECT max(version) + 1, 'newer' `+
		`FROM migrations`); err != nil {
		t.Fatal(err)
	}
	unchanged(masterKey, "a newer release (version ")
	if _, err := db.Pool.Exec(t.Context(), `DELETE FROM migrations WHERE version >= (SELECT max(version) - 1 `+
		`FROM migrations)`); err != nil {
		t.Fatal(err)
	}
	unchanged(masterKey, "an older release (version ")
}

func TestTx(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	pg.Exec(t, `CREATE DATABASE tx`)
	db := mustOpen(t, pg.URL("tx"))
	insert := func(name string, then error) error {
		return db.Tx(t.Context(), func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO watermarks VALUES ($1, now())`, name); err != nil {
				return err
			}
			return then
		})
	}
	refusal := fault.New(fault.Stale, "no")
	if err := insert("kept", nil); err != nil {
		t.Error(err)
	}
	if err := insert("dropped", refusal); !fault.Is(err, fault.Stale) {
		t.Errorf("got %v", err)
	}
	if err := insert("kept", nil); !fault.Is(err, fault.Internal) {
		t.Errorf("a name that is taken: %v", err)
	}
	var names []string
	if err := db.Pool.QueryRow(t.Context(), `SELECT array_agg(name) FROM watermarks WHERE name IN ('kept', 'dropped')`).
		Scan(&names); err != nil || len(names) != 1 {
		t.Errorf("there is %q; %v", names, err)
	}
	pg.Stop(t)
	if err := insert("away", nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a stopped server: %v", err)
	}
	pg.Start(t)
	if err := insert("back", nil); err != nil {
		t.Errorf("after its start: %v", err)
	}
}

func keyring(t testing.TB, keys ...string) *control.Keyring {
	t.Helper()
	k, err := control.ParseKeyring(strings.Join(keys, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSeal(t *testing.T) {
	t.Parallel()
	old, next := control.NewMasterKey(), control.NewMasterKey()
	k := keyring(t, old)
	secret := []byte("a secret")
	sealed := k.Seal("clusters/1/credential", secret)
	if bytes.Contains(sealed, secret) || bytes.Equal(sealed, k.Seal("clusters/1/credential", secret)) {
		t.Error("a seal shows what is in it")
	}
	opens := func(k *control.Keyring, place string, sealed []byte, want string) {
		t.Helper()
		got, err := k.Open(place, sealed)
		if want == "" && (err != nil || !bytes.Equal(got, secret)) || want != "" &&
			(err == nil || got != nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	opens(k, "clusters/1/credential", sealed, "")
	opens(keyring(t, "# the new one", next, "", old), "clusters/1/credential", sealed, "")
	opens(k, "clusters/2/credential", sealed, "clusters/2/credential was altered, or moved")
	opens(keyring(t, next), "clusters/1/credential", sealed, "is encrypted with the master key ")
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 1
		want := "altered"
		switch {
		case i == 0:
			want = "not a sealed value"
		case i <= 8:
			want = "is encrypted with the master key"
		}
		opens(k, "clusters/1/credential", altered, want)
	}
	for i := range sealed {
		if got, err := k.Open("clusters/1/credential", sealed[:i]); err == nil {
			t.Errorf("%d of %d bytes open as %q", i, len(sealed), got)
		}
	}
	if got, err := k.Open("x", k.Seal("x", nil)); err != nil || len(got) != 0 {
		t.Errorf("an empty secret: %q, %v", got, err)
	}
}

func TestParseKeyring(t *testing.T) {
	t.Parallel()
	good := control.NewMasterKey()
	for _, bad := range []string{"", "\n# nothing\n", "x", good[:20], good + "\n" + good[:43],
		base64.StdEncoding.EncodeToString(make([]byte, 33)), base64.RawURLEncoding.EncodeToString(make([]byte, 32))} {
		if _, err := control.ParseKeyring(bad); err == nil || strings.Contains(err.Error(), good[:20]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	keyring(t, "", "# comment", "  "+good+"\r")
}
