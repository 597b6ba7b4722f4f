package scram

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"rolecall/internal/pgtest"
)

// The example of RFC 7677, section 3, as PostgreSQL would store it.
func TestVerifierOfRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifierWithSalt("pencil", salt, 4096)
	want := "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==" +
		"$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestNewVerifier(t *testing.T) {
	form := regexp.MustCompile(`^SCRAM-SHA-256\$15000:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`)
	first, err := NewVerifier("secret", 15000)
	if err != nil || !form.MatchString(first) {
		t.Errorf("got %s, %v, want the form %s", first, err, form)
	}
	second, err := NewVerifier("secret", 15000)
	if err != nil || second == first {
		t.Errorf("got %s, %v, again: the salt must differ", second, err)
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	for _, tt := range []struct {
		password   string
		iterations int
	}{
		{"", 4096},
		{"secret", 0},
		{"secret", -1},
		{"secret", 10_000_001},
	} {
		got, err := NewVerifier(tt.password, tt.iterations)
		if got != "" || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("NewVerifier(%q, %d) = %q, %v, want an error without the password", tt.password, tt.iterations, got, err)
		}
	}
}

// The server makes verifiers of clear passwords; with its salt we must come to the same.
func TestVerifierLikePostgres(t *testing.T) {
	all := randomPasswords(250)
	for _, p := range passwords {
		// An md5 hash a server stores as it is, and invalid UTF-8 it does not get to see in a statement.
		if !strings.HasPrefix(p.password, "md5") && utf8.ValidString(p.password) {
			all = append(all, p.password)
		}
	}

	c := pgtest.Shared(t)
	c.Exec(t, `CREATE ROLE verifier_like_postgres`)
	t.Cleanup(func() { c.Exec(t, `DROP ROLE verifier_like_postgres`) })
	ctx, conn := context.Background(), superuser(t)
	if _, err := conn.Exec(ctx, `SET password_encryption = 'scram-sha-256'`); err != nil {
		t.Fatal(err)
	}
	for _, password := range all {
		if Check(password) != nil {
			continue
		}
		var alter, want string
		err := conn.QueryRow(ctx, `SELECT format('ALTER ROLE verifier_like_postgres PASSWORD %L', $1::text)`,
			password).Scan(&alter)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, alter); err != nil {
			t.Fatal(err)
		}
		err = conn.QueryRow(ctx, `SELECT rolpassword FROM pg_authid WHERE rolname = 'verifier_like_postgres'`).Scan(&want)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameSalt(t, password, want); got != want {
			t.Errorf("%+q: got %s, want %s", password, got, want)
		}
	}
}

// sameSalt makes password's verifier with the salt and the iterations of another.
func sameSalt(t *testing.T, password, other string) string {
	head, _, _ := strings.Cut(strings.TrimPrefix(other, "SCRAM-SHA-256$"), "$")
	var iterations int
	var encoded string
	if _, err := fmt.Sscanf(strings.Replace(head, ":", " ", 1), "%d %s", &iterations, &encoded); err != nil {
		t.Fatalf("verifier %s: %v", other, err)
	}
	salt, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatalf("verifier %s: %v", other, err)
	}
	got, err := verifierWithSalt(password, salt, iterations)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestLoginWithVerifier(t *testing.T) {
	c := pgtest.Shared(t)
	for i, p := range passwords {
		role := fmt.Sprintf("login_with_verifier_%d", i)
		// Few iterations: the logins cost less, and differ from the server's own.
		v, err := NewVerifier(p.password, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, role, v))
		t.Cleanup(func() { c.Exec(t, "DROP ROLE "+role) })

		if got, err := c.Psql(role, p.password, "SELECT current_user"); got != role || err != nil {
			t.Errorf("%s: psql with %+q: %q, %v", p.name, p.password, got, err)
		}
		if p.want != p.password { // the prepared form is the same password
			if _, err := c.Psql(role, p.want, "SELECT 1"); err != nil {
				t.Errorf("%s: psql with %+q: %v", p.name, p.want, err)
			}
		}
		if _, err := c.Psql(role, p.password+"x", "SELECT 1"); err == nil {
			t.Errorf("%s: psql gets in with %+q", p.name, p.password+"x")
		}
		if IsASCII(p.password) { // beyond ASCII pgx prepares otherwise, see pgtest.Cluster.Login
			if err := c.Login(role, p.password); err != nil {
				t.Errorf("%s: pgx with %+q: %v", p.name, p.password, err)
			}
			if err := c.Login(role, p.password+"x"); err == nil {
				t.Errorf("%s: pgx gets in with %+q", p.name, p.password+"x")
			}
		}
	}
}

// libpq logs in with any password. pgx does with those that are portable, and with some that are not.
func TestLoginOfPortable(t *testing.T) {
	c := pgtest.Shared(t)
	for i, tt := range []struct {
		name, password string
		portable, pgx  bool
	}{
		{"printable ASCII", " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", true, true},
		{"composed", "pass-\u00e9", true, true},
		{"decomposed", "pass-e\u0301", false, true},
		{"ideographs", "\u79d8\u5bc6\u306e\u8a00\u8449", true, true},
		{"refused by RFC 8265 out of context", "\u30d1\u30b9\u30fb\u30ef\u30fc\u30c9", true, true},
		{"Hebrew", "\u05e1\u05d9\u05e1\u05de\u05d4", true, true},
		{"Hebrew and Latin", "\u05e1\u05d9\u05e1\u05de\u05d4-pass", false, true},
		{"feminine ordinal", "pass-\u00aa", false, false},
		{"roman numeral", "pass-\u2168", false, false},
		{"full width", "pass-\uff21", false, false},
		{"one quarter", "pass-\u00bc", false, false},
		{"diaeresis", "pass-\u00a8", false, false},
		{"ellipsis", "pass-\u2026", false, false},
		{"micro sign", "pass-\u00b5", false, false},
		{"soft hyphen", "pass-\u00ad", false, false},
		{"no-break space", "pass-\u00a0", false, true},
		{"ideographic space", "pass-\u3000", false, true},
		{"space of no width", "pass-\u200b", false, false},
		{"a heart that is an emoji", "pass-\u2764\ufe0f", false, false},
		{"newer emoji", "pass-\U0001f600", false, true},
		{"deprecated", "pass-\u0340", false, false},
		{"ASCII control character", "pass-\x7f", true, true}, // CheckPassword refuses it, RFC 4013 would
	} {
		role := fmt.Sprintf("login_of_portable_%d", i)
		v, err := NewVerifier(tt.password, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, role, v))
		t.Cleanup(func() { c.Exec(t, "DROP ROLE "+role) })
		if got := Portable(tt.password); got != tt.portable {
			t.Errorf("%s: Portable(%+q) = %t", tt.name, tt.password, got)
		}
		if _, err := c.Psql(role, tt.password, "SELECT 1"); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := c.Login(role, tt.password); (err == nil) != tt.pgx {
			t.Errorf("%s: pgx with %+q: %v", tt.name, tt.password, err)
		}
	}
}

// Somebody who sends a verifier as a password has that text as the password, which a server would not hash.
func TestLoginWithVerifierOfVerifier(t *testing.T) {
	c := pgtest.Shared(t)
	inner, err := NewVerifier("secret", 4096)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := NewVerifier(inner, 4096)
	if err != nil {
		t.Fatal(err)
	}
	const role = "login_with_verifier_of_verifier"
	c.Exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, role, outer))
	t.Cleanup(func() { c.Exec(t, "DROP ROLE "+role) })
	if _, err := c.Psql(role, inner, "SELECT 1"); err != nil {
		t.Errorf("with the inner verifier: %v", err)
	}
	for _, password := range []string{"secret", outer} {
		if _, err := c.Psql(role, password, "SELECT 1"); err == nil {
			t.Errorf("psql gets in with %s", password)
		}
	}
}

func BenchmarkVerifier4096(b *testing.B) {
	for _, password := range []string{"correct horse battery staple", "Bjo\u0308rk\u2168Bjo\u0308rk\u2168"} {
		b.Run(fmt.Sprintf("ascii=%t", IsASCII(password)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewVerifier(password, 4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestFits(t *testing.T) {
	const password = "p\u00e9rfect \uff21"
	verifier, err := NewVerifier(password, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !Fits(verifier, password, 100) {
		t.Error("its own verifier does not fit")
	}
	for _, no := range []struct {
		verifier, password string
		iterations         int
	}{
		{verifier, password + ".", 100}, {verifier, password, 101}, {verifier, "", 100}, {"", password, 100}, {"", "", 0},
		{verifier + "=", password, 100}, {verifier[:len(verifier)-1], password, 100}, {"md5" + verifier, password, 100},
		{"SCRAM-SHA-256$100:", password, 100}, {"SCRAM-SHA-256$100:c2E=$x:y", password, 100},
		{"SCRAM-SHA-256$100:****$x:y", password, 100},
	} {
		if Fits(no.verifier, no.password, no.iterations) {
			t.Errorf("%q fits %q with %d", no.verifier, no.password, no.iterations)
		}
	}
}
