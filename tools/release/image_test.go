package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"rolecall/tools/image"
)

// TestImage reads the image with skopeo, and runs the program in its unpacked layer: as a user without rights, in a root
// folder that nobody can write to, without anything from this machine.
func TestImage(t *testing.T) {
	b := build{version, commit, at, []string{here(), "linux-riscv64"}, filepath.Join(t.TempDir(), "dist")}
	if err := b.run("image"); err != nil {
		t.Fatal(err)
	}
	layout := "oci:" + b.imageFolder() + ":" + image.Tag(version)
	var index struct {
		Manifests []struct{ Platform map[string]string }
	}
	decode(t, run(t, "skopeo", "inspect", "--raw", layout), &index)
	if len(index.Manifests) != 2 || index.Manifests[1].Platform["architecture"] != "riscv64" {
		t.Errorf("the platforms are %v", index.Manifests)
	}
	var config struct {
		OS, Architecture string
		Config           struct {
			User            string
			Entrypoint, Cmd []string
			Labels          map[string]string
		}
	}
	decode(t, run(t, "skopeo", "inspect", "--config", layout), &config)
	if config.OS != "linux" || config.Architecture != runtime.GOARCH || config.Config.User != "65532:65532" ||
		!slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/rolecall"}) ||
		!slices.Equal(config.Config.Cmd, []string{"serve"}) ||
		config.Config.Labels["org.opencontainers.image.version"] != version ||
		config.Config.Labels["org.opencontainers.image.revision"] != commit {
		t.Errorf("the configuration is %+v", config)
	}
	if err := b.imageArchive(); err != nil {
		t.Fatal(err)
	}
	root := unpacked(t, "oci-archive:"+filepath.Join(b.out, "rolecall-"+image.Tag(version)+"-image.tar"))
	if got, want := strings.Fields(run(t, "sh", "-c", `cd "$0" && find . -type f | sort`, root)), []string{
		"./etc/group", "./etc/passwd", "./etc/ssl/certs/ca-certificates.crt", "./usr/bin/rolecall",
		"./usr/share/doc/rolecall/LICENSE",
	}; !slices.Equal(got, want) {
		t.Errorf("the image has the files %q, want %q", got, want)
	}
	certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if n := strings.Count(string(certificates), "BEGIN CERTIFICATE"); err != nil || n < 100 {
		t.Errorf("the image has %d certificates of authorities: %v", n, err)
	}
	const readOnly = `mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" &&
exec chroot --userspec=65532:65532 . /usr/bin/rolecall version -o json`
	var says map[string]string
	decode(t, asRoot(t, readOnly, root), &says)
	if want := map[string]string{
		"version": version, "commit": commit, "goVersion": runtime.Version(), "platform": "linux/" + runtime.GOARCH,
	}; !reflect.DeepEqual(says, want) {
		t.Errorf("the program in the image says %v, want %v", says, want)
	}
}

// unpacked is a folder with the only layer of the image for this machine.
func unpacked(t *testing.T, from string) string {
	t.Helper()
	dir, root := t.TempDir(), t.TempDir()
	run(t, "skopeo", "copy", "--quiet", from, "dir:"+dir)
	var manifest struct{ Layers []struct{ Digest string } }
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	decode(t, string(text), &manifest)
	if len(manifest.Layers) != 1 {
		t.Fatalf("the image has %d layers", len(manifest.Layers))
	}
	run(t, "tar", "-xzf", filepath.Join(dir, strings.TrimPrefix(manifest.Layers[0].Digest, "sha256:")), "-C", root)
	return root
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
