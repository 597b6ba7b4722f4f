package scram

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/xdg-go/stringprep"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"rolecall/internal/pgtest"
)

// passwords are the cases worth naming. TestVerifierLikePostgres gives each of them to a server too.
var passwords = []struct {
	name, password, want string
}{
	{"ASCII", "correct horse", "correct horse"},
	{"quotes and backslashes", `'"\'' $$ \\ %s`, `'"\'' $$ \\ %s`},
	{"ASCII control characters", "a\x01\t\n\x7fb", "a\x01\t\n\x7fb"},
	{"long ASCII", strings.Repeat("0123456789", 200), strings.Repeat("0123456789", 200)},

	{"precomposed", "Björk", "Björk"},
	{"decomposed", "Bjo\u0308rk", "Bj\u00f6rk"},
	{"marks out of order", "a\u0301\u0323", "\u1ea1\u0301"},
	{"a mark without a letter", "\u0301é", "\u0301é"},
	{"a mark that blocks another", "a\u0305\u0301", "a\u0305\u0301"},
	{"composition exclusion", "\u0958", "\u0915\u093c"},
	{"singleton", "\u212b", "\u00c5"},
	{"Hangul syllables", "한글", "한글"},
	{"Hangul letters", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"},
	{"30 marks in a row", "a" + strings.Repeat("\u0301", 30), "\u00e1" + strings.Repeat("\u0301", 29)},

	{"feminine ordinal", "\u00aa", "a"},
	{"roman numeral", "\u2168", "IX"},
	{"ligature", "\ufb03", "ffi"},
	{"full width", "\uff30\uff41\uff53\uff53", "Pass"},
	{"CJK compatibility ideographs", "\uf951\U0002f868\uf900", "\u964b\u36fc\u8c48"},
	{"long non-ASCII", strings.Repeat("\u2168é", 1000), strings.Repeat("IXé", 1000)},

	{"soft hyphen", "I\u00adX", "IX"},
	{"mapped to nothing", "a\u034f\u1806\u180b\u200c\u200d\u2060\ufe0f\ufeffb", "ab"},
	{"nothing is left", "\u00ad\u00ad\ufe0f", "\u00ad\u00ad\ufe0f"},
	{"space of no width", "a\u200bb", "a b"},
	{"spaces", "\u00a0a\u1680\u2000\u200a\u202f\u205f\u3000", " a      "},
	{"spaces are not trimmed", "\u3000\u3000", "  "},

	{"control character", "\u0080\u00aa", "\u0080\u00aa"},
	{"ASCII control character beside others", "\x07\u00aa", "\x07\u00aa"},
	{"private use", "\ue000\u00aa", "\ue000\u00aa"},
	{"not a character", "\ufffe\u00aa", "\ufffe\u00aa"},
	{"replacement character", "\ufffd\u00aa", "\ufffd\u00aa"},
	{"language tag", "\U000e0001\u00aa", "\U000e0001\u00aa"},
	{"direction mark", "\u200e\u00aa", "\u200e\u00aa"},
	{"deprecated, though it normalises to U+0300", "a\u0340", "a\u0340"},
	{"unassigned in Unicode 3.2, assigned later", "\u0221\u00aa", "\u0221\u00aa"},
	{"unassigned to this day", "\u0378\u00aa", "\u0378\u00aa"},
	{"emoji of Unicode 3.2", "\u263a\u00aa", "\u263aa"},
	{"newer emoji", "😀\u00aa", "😀\u00aa"},

	{"Hebrew", "\u05e9\u05dc\u05d5\u05dd\u00ad", "\u05e9\u05dc\u05d5\u05dd"},
	{"Arabic, presentation form", "\ufefb", "\u0644\u0627"},
	{"digits between Arabic", "\u0627\u00ad1\u0628", "\u06271\u0628"},
	{"digit after Arabic", "\u0627\u00ad1", "\u0627\u00ad1"},
	{"digit before Arabic", "1\u0627\u00ad", "1\u0627\u00ad"},
	{"Latin between Hebrew", "\u05d0\u00adb\u05d2", "\u05d0\u00adb\u05d2"},
	{"mark after Hebrew", "\u05d0\u05b8\u00ad", "\u05d0\u05b8\u00ad"},
	{"a letterlike symbol that normalises to Hebrew", "a\u2135", "a\u05d0"},
	{"circled digit between Hebrew", "\u05d0\u2460\u05d0", "\u05d01\u05d0"},

	{"md5 hash", "md5" + strings.Repeat("0a", 16), "md5" + strings.Repeat("0a", 16)},
	{"invalid UTF-8", "\u00aa\xff", "\u00aa\xff"},
	{"surrogate", "\u00aa\xed\xa0\x80", "\u00aa\xed\xa0\x80"},
}

func TestSaslprep(t *testing.T) {
	for _, tt := range passwords {
		if got := saslprep(tt.password); got != tt.want {
			t.Errorf("%s: saslprep(%+q) = %+q, want %+q", tt.name, tt.password, got, tt.want)
		}
	}
}

// A row of marks that x/text would cut is refused, wherever it stands and whatever it decomposes to.
func TestCheck(t *testing.T) {
	marks := strings.Repeat("\u0301", 30)
	for password, refused := range map[string]bool{
		"":                           false,
		"a" + marks:                  false,
		marks:                        false,
		"a" + marks + "b" + marks:    false,
		"a" + marks + "\u0301":       true,
		"\u00e1" + marks:             true,  // it decomposes to one mark more
		marks + "\u00ad\u0323" + "b": true,  // what is mapped to nothing separates nothing
		"\ue000" + marks + marks:     false, // taken as it is
		"a\u034f":                    false,
	} {
		err := Check(password)
		if (err != nil) != refused {
			t.Errorf("Check(%+q) = %v", password, err)
		}
		if _, err := NewVerifier(password+"a", 1); (err != nil) != refused {
			t.Errorf("NewVerifier(%+q) = %v", password+"a", err)
		}
	}
}

// drivers are what clients are known to make of a password, "" where they do not take it.
var drivers = map[string]func(password string) string{
	"libpq":  saslprep,
	"as is":  func(password string) string { return password },
	"Npgsql": norm.NFKC.String,
	"NFC":    norm.NFC.String,
	"node-postgres": func(password string) string {
		return norm.NFKC.String(strings.Map(func(r rune) rune {
			if stringprep.TableC1_2.Contains(r) {
				return ' '
			}
			if _, ok := stringprep.TableB1.Map(r); ok || r == 0x1806 {
				return -1
			}
			return r
		}, password))
	},
	"pgjdbc 42.7.3": func(password string) string {
		prepared, _ := prepare(password)
		return prepared
	},
	"pgx": func(password string) string {
		if strings.ContainsFunc(password, stringprep.TableA1.Contains) {
			return password
		}
		return opaqueString(password)
	},
	"RFC 8265": opaqueString,
}

func opaqueString(password string) string {
	if prepared, err := precis.OpaqueString.String(password); err == nil {
		return prepared
	}
	return password
}

// A password is portable exactly if all drivers make the same of it.
func TestPortable(t *testing.T) {
	all := randomPasswords(1000)
	for _, p := range passwords {
		all = append(all, p.password)
	}
	for r := rune(0x20); r <= 0x2ffff; r++ {
		if 0x3400 <= r && r < 0xf900 || r > 0xffff {
			r += 100 // there, all that are near each other are alike
		}
		if r != 0x7f && utf8.ValidRune(r) { // no password holds ASCII control characters
			all = append(all, "pass"+string(r)+"word")
		}
	}
	portable := 0
	for _, password := range all {
		made := map[string]bool{}
		for _, prepare := range drivers {
			made[prepare(password)] = true
		}
		if got, want := Portable(password), len(made) == 1; got != want {
			t.Errorf("Portable(%+q) = %t; the drivers make %+q of it", password, got, slices.Collect(maps.Keys(made)))
		}
		if Portable(password) {
			portable++
		}
	}
	if portable < 5000 || portable > len(all)-5000 {
		t.Errorf("%d of %d are portable", portable, len(all))
	}
}

// PostgreSQL's normalize() is the function that prepares passwords there. This holds x/text to it for each character
// that gets so far, and so x/text's version of Unicode to the server's. Beyond plane 2 all are prohibited.
func TestNFKCLikePostgres(t *testing.T) {
	const last = 0x2ffff
	rows, err := superuser(t).Query(context.Background(), `
		SELECT ascii(c), normalize(c, NFKC)
		FROM (SELECT chr(n) c FROM generate_series(1, $1::int) n WHERE n NOT BETWEEN 55296 AND 57343) characters
		WHERE c IS NOT NFKC NORMALIZED`, last)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	changed := make(map[rune]string)
	for rows.Next() {
		var r rune
		var normal string
		if err := rows.Scan(&r, &normal); err != nil {
			t.Fatal(err)
		}
		changed[r] = normal
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}

	tried := 0
	for r := rune(1); r <= last; r++ {
		if saslProhibited(r) {
			continue
		}
		want, ok := changed[r]
		if !ok {
			want = string(r)
		}
		if got := norm.NFKC.String(string(r)); got != want {
			t.Errorf("NFKC of %U = %+q, want %+q", r, got, want)
		}
		tried++
	}
	if tried != 94_990 {
		t.Errorf("tried %d characters, want the 94990 of Unicode 3.2 that are not prohibited", tried)
	}
}

func TestNFKCOfSequencesLikePostgres(t *testing.T) {
	texts := slices.DeleteFunc(randomPasswords(20_000), func(s string) bool {
		return strings.ContainsFunc(s, saslProhibited)
	})
	var normal []string
	err := superuser(t).QueryRow(context.Background(), `
		SELECT array_agg(normalize(s, NFKC) ORDER BY n) FROM unnest($1::text[]) WITH ORDINALITY u(s, n)`,
		texts).Scan(&normal)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range normal {
		if got := norm.NFKC.String(texts[i]); got != want && !strings.ContainsRune(got, '\u034f') {
			t.Errorf("NFKC of %+q = %+q, want %+q", texts[i], got, want)
		}
	}
}

// randomPasswords returns n texts, the same each time, of characters that act on each other.
func randomPasswords(n int) []string {
	var marks, acting, below3400 []rune
	for r := rune(1); r < 0x3400; r++ {
		below3400 = append(below3400, r)
		if norm.NFKD.PropertiesString(string(r)).CCC() != 0 {
			marks = append(marks, r)
		} else if 0x1100 <= r && r < 0x1200 || norm.NFKD.String(string(r)) != string(r) {
			acting = append(acting, r)
		}
	}
	alphabets := [][]rune{
		append(marks, []rune("aeiouAEIOUcnsz\u03b1\u03c9\u0915\u05e9\u0627\uac00")...),
		append(acting, marks...),
		[]rune("\u1100\u1112\u1161\u1175\u11a8\u11c2\uac00\uac01\ud788\u0301\u00ad\uffc2\u3131"),
		[]rune("\u05d0\u05e9\u0627\u0644\ufefb\u05b8\u2135\u00ad1-a"),
		below3400,
	}
	rng := rand.New(rand.NewPCG(7677, 4013))
	texts := make([]string, n)
	for i := range texts {
		alphabet := alphabets[i%len(alphabets)]
		text := make([]rune, 1+rng.IntN(10))
		if i%100 < len(alphabets) {
			text = make([]rune, 100)
		}
		for j := range text {
			text[j] = alphabet[rng.IntN(len(alphabet))]
		}
		texts[i] = string(text)
	}
	return texts
}

func superuser(t *testing.T) *pgx.Conn {
	c := pgtest.Shared(t)
	return c.Connect(t, c.User, c.Password, "postgres")
}

func FuzzSaslprep(f *testing.F) {
	for _, p := range passwords {
		f.Add(p.password)
	}
	f.Fuzz(func(t *testing.T, password string) {
		got := saslprep(password)
		if again := saslprep(got); again != got {
			t.Errorf("saslprep(%+q) = %+q, and of that %+q", password, got, again)
		}
		if got == password {
			return
		}
		if IsASCII(password) || !utf8.ValidString(password) {
			t.Errorf("saslprep(%+q) = %+q, want it as it is", password, got)
		}
		if got == "" || !utf8.ValidString(got) {
			t.Errorf("saslprep(%+q) = %+q, want a text", password, got)
		}
		if !norm.NFKC.IsNormalString(got) {
			t.Errorf("saslprep(%+q) = %+q, which is not normal", password, got)
		}
	})
}
