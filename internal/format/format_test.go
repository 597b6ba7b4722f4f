package format

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"rolecall/internal/secret"
)

func parse(t *testing.T, url, database string, password secret.Text) *Login {
	t.Helper()
	l, err := Parse(url, database, password)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const (
	plainURL = "postgresql://shop_write_k4m2x7qa@db.example:5432/shop?sslmode=verify-full"
	wildURL  = "postgresql://o%27%20%3A@[2001:db8::1]:5433,db2:5434/a%2Fb%20c?sslmode=require&target_session_attrs=read-write"
	wildPass = `p'a:s\s/w+ö@`
)

func TestFormats(t *testing.T) {
	t.Parallel()
	plain, wild := parse(t, plainURL, "", "Y4NKUVBL"), parse(t, wildURL, "", wildPass)
	for _, test := range []struct {
		l            *Login
		format, want string
	}{
		{plain, "env", `export PGHOST='db.example'
export PGPORT='5432'
export PGUSER='shop_write_k4m2x7qa'
export PGPASSWORD='Y4NKUVBL'
export PGDATABASE='shop'
export PGSSLMODE='verify-full'
export DATABASE_URL='postgres://shop_write_k4m2x7qa:Y4NKUVBL@db.example:5432/shop?sslmode=verify-full'
`},
		{plain, "pgpass", "db.example:5432:shop:shop_write_k4m2x7qa:Y4NKUVBL\n"},
		{plain, "uri", "postgresql://shop_write_k4m2x7qa:Y4NKUVBL@db.example:5432/shop?sslmode=verify-full\n"},
		{plain, "jdbc", "jdbc:postgresql://db.example:5432/shop?user=shop_write_k4m2x7qa&password=Y4NKUVBL&sslmode=verify-full\n"},
		{plain, "secret", `apiVersion: v1
kind: Secret
metadata:
  name: shop-write-k4m2x7qa
type: servicebinding.io/postgresql
stringData:
  type: "postgresql"
  provider: "rolecall"
  host: "db.example"
  port: "5432"
  database: "shop"
  username: "shop_write_k4m2x7qa"
  password: "Y4NKUVBL"
  uri: "postgresql://shop_write_k4m2x7qa:Y4NKUVBL@db.example:5432/shop?sslmode=verify-full"
  dbname: "shop"
  jdbc-uri: "jdbc:postgresql://db.example:5432/shop?user=shop_write_k4m2x7qa&password=Y4NKUVBL&sslmode=verify-full"
  pgpass: "db.example:5432:shop:shop_write_k4m2x7qa:Y4NKUVBL\n"
`},
		{wild, "env", `export PGHOST='2001:db8::1,db2'
export PGPORT='5433,5434'
export PGUSER='o'\'' :'
export PGPASSWORD='p'\''a:s\s/w+ö@'
export PGDATABASE='a/b c'
export PGSSLMODE='require'
export PGTARGETSESSIONATTRS='read-write'
export DATABASE_URL='postgres://o%27%20%3A:p%27a%3As%5Cs%2Fw%2B%C3%B6%40@[2001:db8::1]:5433,db2:5434/` +
			`a%2Fb%20c?sslmode=require&target_session_attrs=read-write'
`},
		{wild, "pgpass", `2001\:db8\:\:1:5433:a/b c:o' \::p'a\:s\\s/w+ö@` + "\n" + `db2:5434:a/b c:o' \::p'a\:s\\s/w+ö@` + "\n"},
		{wild, "uri", `postgresql://o%27%20%3A:p%27a%3As%5Cs%2Fw%2B%C3%B6%40@[2001:db8::1]:5433,db2:5434/` +
			"a%2Fb%20c?sslmode=require&target_session_attrs=read-write\n"},
		{wild, "jdbc", `jdbc:postgresql://[2001:db8::1]:5433,db2:5434/a%2Fb%20c?user=o%27%20%3A&password=` +
			"p%27a%3As%5Cs%2Fw%2B%C3%B6%40&sslmode=require&targetServerType=primary\n"},
	} {
		if got, err := test.l.Text(test.format, ""); err != nil || got != test.want {
			t.Errorf("%s is\n%s\nwant\n%s%v", test.format, got, test.want, err)
		}
	}
	if l := parse(t, "postgresql://u@h:1/a", "b", ""); l.Database != "b" || l.SSLMode != "disable" || l.Primary {
		t.Errorf("without TLS, in another database: %+v", l)
	}
	for _, name := range []string{"pgpass", "secret"} {
		if text, err := parse(t, plainURL, "a\n*:*:*:*:forged", "").Text(name, ""); err == nil {
			t.Errorf("a line end in a name makes a line of %s: %s", name, text)
		}
	}
	for _, text := range []string{"", "postgres://u@h:1/a", "postgresql://h:1/a", "postgresql://u@h/a", "postgresql://u@h:1",
		"postgresql://%zz@h:1/a", "postgresql://u@h:1/%", "postgresql://u@h:1/a?%"} {
		if l, err := Parse(text, "", ""); err == nil {
			t.Errorf("%q is read as %+v", text, l)
		}
	}
}

// What is written is read as the same by those that it is for.
func TestFormatsAreRead(t *testing.T) {
	t.Parallel()
	l := parse(t, strings.Replace(wildURL, "require", "disable", 1), "", wildPass)
	config, err := pgx.ParseConfig(l.URI())
	if err != nil || config.User != "o' :" || config.Password != wildPass || config.Database != "a/b c" ||
		config.Host != "2001:db8::1" || config.Port != 5433 {
		t.Errorf("pgx reads the URI as %+v, %v", config, err)
	}
	exports, _ := l.Text("env", "")
	cmd := exec.Command("/bin/sh", "-euc", `eval "$1"; exec env -0`, "sh", exports)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	for _, want := range l.Environment() {
		if !strings.Contains("\x00"+string(out), "\x00"+want+"\x00") {
			t.Errorf("sh has no %s: %q, %v", want, out, err)
		}
	}
	passfile, passErr := l.Text("pgpass", "")
	text, err := l.Text("secret", "given")
	var manifest struct {
		Metadata   struct{ Name string }
		StringData map[string]string `yaml:"stringData"`
	}
	if err := yaml.Unmarshal([]byte(text), &manifest); err != nil {
		t.Fatal(err)
	}
	d := manifest.StringData
	if err != nil || passErr != nil || manifest.Metadata.Name != "given" || d["password"] != wildPass ||
		d["username"] != "o' :" || d["dbname"] != "a/b c" || d["port"] != "5433" || d["host"] != "2001:db8::1" ||
		d["pgpass"] != passfile || d["uri"] != l.URI() || d["jdbc-uri"] != l.JDBC() || len(d) != 11 {
		t.Errorf("the Secret is %+v, %v", manifest, err)
	}
}

func TestSecretName(t *testing.T) {
	t.Parallel()
	for username, want := range map[string]string{
		"shop_write_k4m2x7qa": "shop-write-k4m2x7qa", "_A b__ü_": "a-b", "ü": "rolecall", "": "rolecall", "9.x": "9-x",
	} {
		if got := SecretName(username); got != want || !IsSecretName(got) {
			t.Errorf("%q becomes %q, want %q", username, got, want)
		}
	}
	for name, want := range map[string]bool{"a": true, "a.b-c": true, "": false, "A": false, "a_b": false, "-a": false,
		"a.":                     false,
		strings.Repeat("a", 253): true, strings.Repeat("a", 254): false} {
		if IsSecretName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "shop")
	files := func() map[string]string {
		t.Helper()
		found := map[string]string{}
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range all {
			text, err := os.ReadFile(filepath.Join(dir, file.Name()))
			info, infoErr := file.Info()
			if err != nil || infoErr != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %v, %v, %v", file.Name(), info, err, infoErr)
			}
			found[file.Name()] = string(text)
		}
		return found
	}
	want := map[string]string{
		"type": "postgresql", "provider": "rolecall", "host": "db.example", "port": "5432", "database": "shop",
		"username": "shop_write_k4m2x7qa", "password": "first",
		"uri": "postgresql://shop_write_k4m2x7qa:first@db.example:5432/shop?sslmode=verify-full",
	}
	for _, password := range []string{"first", "second"} { // it replaces what it has written
		if err := WriteBinding(dir+"/", parse(t, plainURL, "", secret.Text(password))); err != nil {
			t.Fatal(err)
		}
		want["password"], want["uri"] = password, strings.Replace(want["uri"], "first", password, 1)
		if got := files(); !reflect.DeepEqual(got, want) {
			t.Errorf("the files are %q, want %q", got, want)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("the folder has the mode %v, %v", info.Mode(), err)
	}

	link := filepath.Join(parent, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := filepath.Join(parent, "more")
	if err := os.CopyFS(more, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(more, "notes"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{link, file, more, filepath.Join(parent, "absent", "dir")} {
		if err := WriteBinding(other, parse(t, plainURL, "", "third")); err == nil || CheckBinding(other) == nil {
			t.Errorf("%s was replaced: %v", other, err)
		}
	}
	empty := t.TempDir()
	for _, dir = range []string{filepath.Join(parent, "new"), empty} {
		if err := CheckBinding(dir); err != nil {
			t.Error(err)
		}
	}
	if err := WriteBinding(empty, parse(t, plainURL, "", "second")); err != nil || !reflect.DeepEqual(files(), want) {
		t.Errorf("an empty folder: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(parent, ".rolecall*")); err != nil || left != nil {
		t.Errorf("left over: %q, %v", left, err)
	}
}
