package localpg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeServer makes what find looks for.
func fakeServer(t *testing.T, bin, version string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s (Debian %[1]s-1)'\n", version)
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	root, own := t.TempDir(), t.TempDir()
	for version, major := range map[string]string{"9.6.24": "9.6", "14.2": "14", "17.1": "17"} {
		fakeServer(t, filepath.Join(root, major, "bin"), version)
	}
	fakeServer(t, filepath.Join(own, "bin"), "18beta2")
	// As /usr/local/bin may have it: the server is linked, but what is next to it is not.
	links := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "14/bin/postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	// A client only, as on many machines.
	client := t.TempDir()
	if err := os.WriteFile(filepath.Join(client, "psql"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	nowhere := t.TempDir()

	for _, tc := range []struct {
		name, path, root, binDir string
		major                    int
		want                     string // "dir version", or part of the error
	}{
		{"newest installed", client, root, "", 0, root + "/17/bin 17.1"},
		{"PATH first, links resolved", client + ":" + links, root, "", 0, root + "/14/bin 14.2"},
		{"one major", links, root, "", 17, root + "/17/bin 17.1"},
		{"one major, further back on PATH", links + ":" + own + "/bin", root, "", 18, own + "/bin 18beta2"},
		{"--pg-bin", links, root, own + "/bin", 0, own + "/bin 18beta2"},
		{"--pg-bin of another major than the data", links, root, own + "/bin", 17, root + "/17/bin 17.1"},
		{"--pg-bin without a server", links, root, client, 0, client + " does not contain PostgreSQL's server"},
		{"major not installed", links, root, "", 12, "apt-get install postgresql-12"},
		{"nothing installed", client, nowhere, "", 0, "install one (apt-get install postgresql) or name the folder of postgres " +
			"and initdb with --pg-bin"},
		{"empty PATH", "", nowhere, "", 0, "no PostgreSQL server is on PATH or in " + nowhere},
	} {
		b, err := find(tc.path, tc.root, tc.binDir, tc.major)
		got := fmt.Sprintf("%s %s", b.dir, b.version)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want && (err == nil || !strings.Contains(got, tc.want)) {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
