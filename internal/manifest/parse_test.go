package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"rolecall/internal/manifest"
)

// cluster is the beginning of a file with a cluster, whose next line is line 4.
const cluster = "version: 1\nclusters:\n- name: c\n"

// TestMistakes: each mistake has its line and column, what stands there, and what to do.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "1:1: the file is empty; begin with the line version: 1",
		"# nothing\n":                 "1:1: the file is empty; begin with the line version: 1",
		"---\n":                       "2:1: the file is empty; begin with the line version: 1",
		"~":                           "1:1: the file is empty; begin with the line version: 1",
		"- a":                         "1:1: the file is a list; write its keys: version, mode,",
		"mode: adopt":                 "1:1: version is missing",
		"version: 2":                  `1:10: version is "2"; write 1`,
		"version: 1\n---\nversion: 1": "2:1: the file has several documents; keep the first one",
		"version: 1\nversion: 1":      `2:1: the key "version" is in line 1 already; remove one of the two`,
		"version: 1\nusers: []":       `2:1: there is no key "users" here; the keys are version, mode, accounts`,
		"version: 1\nno: []":          `2:1: there is no key "no" here`,
		"version: 1\n1: []":           `2:1: there is no key "1" here`,
		"version: 1\n? [a]\n: b":      "2:3: there is no key a list here",
		"version: 1\nclusters:":       "2:10: clusters has no value; write one, or remove the key",
		"version: 1\nclusters: &a []": "2:11: clusters has an anchor; remove it",
		"version: 1\n<<: {mode: x}":   "2:1: merge keys are not supported; write the keys themselves",
		"version: 1\nmode: !x adopt":  "2:7: mode has a tag; remove it",
		"version: 1\nmode: *x":        "2:7: aliases are not supported",
		"version: 1\n\tmode: adopt":   "2:1: a tab indents the line; indent with spaces",
		"version: 1\nmode: a: b":      "2:1: this is not YAML: mapping values are not allowed in this context",
		"version: 1\nmode: \"a":       "1: this is not YAML: found unexpected end of stream",
		"version: 1\nmode: \x00":      "2:7: the character U+0000 is not allowed in YAML",
		"version: 1\nmode: ad\xffopt": "2:9: the byte 0xff is not UTF-8; store the file in UTF-8",
		"\xff\xfev\x00e\x00":          "1:1: the byte 0xff is not UTF-8; store the file in UTF-8",
		cluster + "  users: [{name: 1e3}]": `4:18: clusters[0].users[0].name is 1e3, which is a number in YAML; put it ` +
			`in quotes: ` +
			`"1e3"`,
		cluster + "  users: [{name: 0x1f}]": `4:18: clusters[0].users[0].name is 0x1f, which is a number in YAML`,
		cluster + "  users: [{name: no}]": `is no, which is a boolean for some programs in YAML; put it in ` +
			`quotes: "no"`,
		cluster + "  users: [{name: True}]":       `is True, which is a boolean in YAML; put it in quotes: "True"`,
		cluster + "  users: [{name: 2027-01-31}]": `is 2027-01-31, which is a date in YAML; put it in quotes`,
		cluster + "  users: [{name: ~}]":          "4:18: clusters[0].users[0].name has no value",
		cluster + `  users: [{name: "a\0b"}]`:     "4:18: clusters[0].users[0].name contains the character U+0000; remove it",
		cluster + "  users: [{name: u, roles: x}]": "4:28: clusters[0].users[0].roles is a single value; " +
			"write a list, such as [a, b]",
		cluster + "  users:\n  - name: u\n    validUntil: 7d": `6:17: clusters[0].users[0].validUntil is "7d"; ` +
			"write a time like 2027-01-31T18:00:00Z or a date like 2027-01-31, or never",
		cluster + "  users: [{name: u, access: {shop: all}}]": `.access.shop is "all"; write one of own, write, read`,
		cluster + "  users: [{name: u}, {name: u}]":           `4:22: the user "u" of the cluster "c" is in line 4 already`,
		cluster + "- name: c": `4:3: the cluster "c" is in line 3 already; remove one ` +
			`of the two`,
		cluster + "  access: {manage: [a==]}": `3:3: the cluster "c" has the rule "a=="`,
		"version: 1\naccounts: [{username: Al}, {username: al}]": `2:28: the account "al" (upper and lower case do not ` +
			`differ) ` +
			"is in line 2 already",
		"version: 1\naccounts: [{username: a, origin: corp, password: keep}]": `the account "a" of the origin "corp" ` +
			`has no ` +
			"password here; remove password",
		"version: 1\nclusters: [{name: c}]\nretired:\n- {cluster: c, user: u}": "4:3: retired deletes only in the mode " +
			"authoritative, and the mode is additive; write mode: authoritative, or remove retired",
	} {
		_, err := manifest.Parse("fleet.yaml", []byte(text), "")
		if err == nil || !strings.HasPrefix(err.Error(), "fleet.yaml:") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// TestPasswordInFile: a password in the file is refused where it stands, and never printed.
func TestPasswordInFile(t *testing.T) {
	for value, at := range map[string]string{
		"hunter2": "5:15", `"hunter2"`: "5:15", "[hunter2]": "5:15", "{value: hunter2}": "5:16", "{hunter2: x}": "5:16",
		"{env: [hunter2]}": "5:21", "!hunter2 x": "5:15", "&hunter2 x": "5:15", "*hunter2": "5:15", "{env: X, hunter2: y}": "5:15",
		"|\n      hunter2": "5:15", "'hunter2": "5:", "{hunter2": ":", "hunter2: x": "5:", "12345678901hunter2": "5:15",
		"%hunter2": ":", "@hunter2": ":", "`hunter2": ":",
	} {
		text := "version: 1\naccounts:\n- username: a\n  active: true\n  password:   " + value + "\n"
		_, err := manifest.Parse("fleet.yaml", []byte(text), "")
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), at) {
			t.Errorf("%s: %v, want it at %s", value, err, at)
		}
	}
	for _, url := range []string{"postgres://r:hunter2@h/d", "postgres://r@h/d?password=hunter2",
		"postgres://r@h/d?%70assword=hunter2",
		"postgres://r:hunter2@h:x/d", "hunter2", "postgres://r:hunter2@h /d", "postgres://r@h/d?sslpassword=hunter2"} {
		_, err := manifest.Parse("fleet.yaml", []byte(cluster+"  connection: {url: \""+url+"\"}\n"), "")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestManyMistakes: up to twenty mistakes are listed at once, in the order of the file.
func TestManyMistakes(t *testing.T) {
	text := cluster + "  users:\n" + strings.Repeat("  - {name: u, disabled: 1, roles: x}\n", 30)
	_, err := manifest.Parse("fleet.yaml", []byte(text), "")
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || lines[20] != "fleet.yaml: and 40 more" ||
		lines[0] != `fleet.yaml:5:25: clusters[0].users[0].disabled is "1"; write true or false` ||
		lines[1] != "fleet.yaml:5:35: clusters[0].users[0].roles is a single value; write a list, such as [a, b]" {
		t.Errorf("the mistakes are\n%s", err)
	}
}

// TestLargeFiles: a file of more than 5 MB, one whose aliases would expand to gigabytes, and one that is nested a hundred
// thousand times are refused, and a large one of 20,000 users is read.
func TestLargeFiles(t *testing.T) {
	laughs := "version: 1\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'm'; c++ {
		before := "*" + string(c-1)
		laughs += string(c) + ": &" + string(c) + " [" + strings.Repeat(before+",", 9) + "]\n"
	}
	for text, want := range map[string]string{
		"# " + strings.Repeat("x", manifest.MaxSize): "the file has more than 5242880 bytes",
		laughs: `no key "a" here`,
		"version: 1\nclusters: " + strings.Repeat("[", 100_000): "fleet.yaml:",
		"version: 1\nmode: " + strings.Repeat("x", 1_000_000):   "x…",
	} {
		_, err := manifest.Parse("fleet.yaml", []byte(text), "")
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 10_000 {
			t.Errorf("%.40q: %.200v, want %s", text, err, want)
		}
	}
	var b strings.Builder
	b.WriteString(cluster + "  users:\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "  - {name: u%d, roles: [r]}\n", i)
	}
	if m, err := manifest.Parse("fleet.yaml", []byte(b.String()), ""); err != nil || len(m.Clusters[0].Users) != 20_000 {
		t.Errorf("20,000 users: %v", err)
	}
}

// TestForms: a BOM, CRLF, comments, quoted keys and an explicit tag of a text are no mistakes.
func TestForms(t *testing.T) {
	const text = "\ufeff# a comment\r\n---\r\nversion: 1\r\n\"mode\": 'adopt' # another\r\nclusters:\r\n" +
		"  - name: !!str 123\r\n" +
		"    users:\r\n      - {name: \"no\", validUntil: 2027-01-31, connectionLimit: none}\r\n...\r\n"
	m, err := manifest.Parse("fleet.yaml", []byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	u := m.Clusters[0].Users[0]
	if m.Mode != "adopt" || m.Clusters[0].Name != "123" || u.Name != "no" || *u.ValidUntil != "2027-01-31T00:00:00Z" ||
		*u.ConnectionLimit != -1 {
		t.Errorf("read as %+v", m)
	}
}

// TestModeOfFlag: a mode of the command line takes the place of the file's. What is retired matters in one mode only.
func TestModeOfFlag(t *testing.T) {
	const text = "version: 1\nmode: authoritative\nretired: [{account: eve}]\n"
	for mode, want := range map[string]int{"": 1, "authoritative": 1, "additive": 0, "adopt": 0} {
		m, err := manifest.Parse("fleet.yaml", []byte(text), mode)
		if err != nil || len(m.Retired) != want {
			t.Errorf("mode %q: %+v, %v", mode, m, err)
		}
	}
}

// FuzzParse: no file makes the parser panic, and every mistake has a place and fits on one line.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", cluster, "version: 1\naccounts: [{username: a, password: {env: X}}]", "a: *b",
		"? ? ?", "<<: *a",
		"version: 1\n\tx", "!!binary x", "version: 1\nmode: &a !x", "- - - -", "{", "[[[[", "\"\\", "%TAG", "--- >\n x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := manifest.Parse("f", []byte(text), "")
		if (m == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", text, m, err)
		}
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "f:") {
				t.Errorf("%q: the line %q names no place", text, line)
			}
		}
	})
}
