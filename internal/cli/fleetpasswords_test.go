package cli

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rolecall/internal/manifest"
)

// TestPasswordFiles: runs that write to the same folder, at the same time or later, hand out one password for a user. No
// name leaves the folder.
func TestPasswordFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "secrets")
	app := manifest.Thing{Cluster: "c", Kind: manifest.KindUser, Name: "app"}
	const runs = 8
	var wait sync.WaitGroup
	made, errs := make([]string, runs), make([]error, runs)
	for i := range runs {
		wait.Go(func() {
			password, err := (&passwords{dir: dir}).generate(app)
			made[i], errs[i] = string(password), err
		})
	}
	wait.Wait()
	for i := range runs {
		if errs[i] != nil || len(made[i]) < 20 || made[i] != made[0] {
			t.Errorf("run %d has the password %q, %v; run 0 has %q", i, made[i], errs[i], made[0])
		}
	}
	p := &passwords{dir: dir}
	path := filepath.Join(dir, "clusters", "c", "app")
	if err := p.refused(app, true); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != made[0] {
		t.Errorf("the file of a user that exists is %q, %v", text, err)
	}
	if err := p.refused(app, false); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.generate(app); err == nil || !strings.Contains(err.Error(), path+" is empty; remove it") {
		t.Errorf("with an empty file: %v", err)
	}
	for name, want := range map[string]string{
		"..": "clusters/%2E./%2E.", ".new-1": "clusters/%2Enew-1/%2Enew-1", "a/../b": "clusters/a%2F..%2Fb/a%2F..%2Fb",
		"ü": "clusters/%C3%BC/%C3%BC",
	} {
		if got := p.path(manifest.Thing{Cluster: name, Kind: manifest.KindUser, Name: name}); got != filepath.Join(dir, want) {
			t.Errorf("the password of %q is in %s", name, got)
		}
	}
}

// TestSecretsOfFile: the secrets that a file names, and what is wrong with them.
func TestSecretsOfFile(t *testing.T) {
	dir := t.TempDir()
	path, empty := filepath.Join(dir, "secret"), filepath.Join(dir, "empty")
	for name, text := range map[string]string{path: " a secret \r\n", empty: "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("FLEET_SECRET", "of the variable")
	t.Setenv("FLEET_EMPTY", "")
	for _, test := range []struct {
		from       manifest.Secret
		want, fail string
	}{
		{manifest.Secret{File: path}, " a secret ", ""}, {manifest.Secret{Env: "FLEET_SECRET"}, "of the variable", ""},
		{manifest.Secret{File: empty}, "", "is empty"}, {manifest.Secret{Env: "FLEET_EMPTY"}, "", "FLEET_EMPTY is not set"},
		{manifest.Secret{File: dir + "/none"}, "", "cannot be read"},
		{manifest.Secret{Env: "FLEET_NONE"}, "", "FLEET_NONE is not set"},
	} {
		got, err := readSecret(test.from)
		if string(got) != test.want || (err == nil) != (test.fail == "") ||
			err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%+v is %q, %v", test.from, string(got), err)
		}
	}
}
