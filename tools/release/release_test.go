package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSameBytes makes a release twice: it has what it should have, and the same bytes each time.
func TestSameBytes(t *testing.T) {
	want := []string{
		"SHA256SUMS", "rolecall-0.2.0-dev-0123456789ab-image.tar",
		"rolecall-0.2.0-dev+0123456789ab-darwin-arm64.cdx.json", "rolecall-0.2.0-dev+0123456789ab-darwin-arm64.tar.gz",
		"rolecall-0.2.0-dev+0123456789ab-linux-riscv64.cdx.json", "rolecall-0.2.0-dev+0123456789ab-linux-riscv64.tar.gz",
		"rolecall-chart-0.2.0-dev+0123456789ab.tgz",
	}
	var sums []string
	for range 2 {
		b := build{version, commit, at, []string{"linux-riscv64", "darwin-arm64"}, filepath.Join(t.TempDir(), "dist")}
		if err := b.run("all"); err != nil {
			t.Fatal(err)
		}
		sum, err := os.ReadFile(filepath.Join(b.out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(sum))
		run(t, "sh", "-c", `cd "$0" && sha256sum --check --strict SHA256SUMS`, b.out)
		entries, err := os.ReadDir(b.out)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			if !strings.HasSuffix(entry.Name(), ".deb") && !strings.HasSuffix(entry.Name(), ".rpm") {
				names = append(names, entry.Name())
			}
		}
		slices.Sort(want)
		if slices.Sort(names); !slices.Equal(names, want) || len(entries) != len(want)+2 {
			t.Errorf("the release has, beside the packages,\n%q\nwant\n%q", names, want)
		}
		const name = "rolecall-" + version + "-linux-riscv64"
		inside := strings.Fields(run(t, "tar", "-tzf", filepath.Join(b.out, name+".tar.gz")))
		for _, file := range []string{
			"rolecall", "LICENSE", "CHANGELOG.md", "man/rolecall-serve.1.gz", "completions/rolecall.zsh",
		} {
			if !slices.Contains(inside, name+"/"+file) {
				t.Errorf("the archive has no %s: %q", file, inside)
			}
		}
		chart := run(t, "tar", "-xzOf", filepath.Join(b.out, "rolecall-chart-0.2.0-dev+0123456789ab.tgz"), "rolecall/Chart.yaml")
		for _, line := range []string{"name: rolecall\n", "version: " + version + "\n", "appVersion: " + version + "\n"} {
			if !strings.Contains("\n"+chart, "\n"+line) {
				t.Errorf("Chart.yaml has no %q:\n%s", line, chart)
			}
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("the first release has\n%s\nand the second\n%s", sums[0], sums[1])
	}
}

// TestIncomplete: a release without one of its parts fails.
func TestIncomplete(t *testing.T) {
	for platforms, says := range map[string]string{"": "-platforms", "linux-none": "bin/linux-none/rolecall"} {
		b := build{version, commit, at, strings.Fields(platforms), filepath.Join(t.TempDir(), "dist")}
		if err := b.run("all"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("a release for %q: %v, want an error with %s", platforms, err, says)
		}
	}
}

// TestVersion runs scripts/version on a commit without a tag, with one, and with a change.
func TestVersion(t *testing.T) {
	dir := t.TempDir()
	script := `cd "$0" && mkdir scripts && cp "$1/scripts/version" scripts && echo 1.2.3 >VERSION
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
scripts/version
git init -q . && git add . && git -c user.name=a -c user.email=a@example.org commit -qm a && scripts/version
git tag v1.2.2 && scripts/version && git tag v1.2.3 && scripts/version
echo 1.2.4 >VERSION && scripts/version
echo "$(git rev-parse --short=12 HEAD)"`
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(run(t, "sh", "-euc", script, dir, root))
	if len(got) != 6 {
		t.Fatalf("it prints %q", got)
	}
	head := got[5]
	want := []string{"1.2.3-dev", "1.2.3-dev+" + head, "1.2.3-dev+" + head, "1.2.3", "1.2.4-dev+" + head + ".dirty"}
	if !slices.Equal(got[:5], want) {
		t.Errorf("it prints %q, want %q", got[:5], want)
	}
}

// TestRPM reads the package with rpm.
func TestRPM(t *testing.T) {
	path := packageOf(t, "rpm", version)
	lines := func(args ...string) map[string]bool {
		found := map[string]bool{}
		for line := range strings.Lines(run(t, "rpm", append(args, path)...)) {
			found[strings.TrimSpace(line)] = true
		}
		return found
	}
	files := lines("-qlp")
	for _, file := range []string{
		"/usr/bin/rolecall", "/usr/sbin/rolecall-setup", "/usr/lib/systemd/system/rolecall.service",
		"/usr/share/man/man1/rolecall-serve.1.gz", "/usr/share/zsh/site-functions/_rolecall",
		"/usr/share/bash-completion/completions/rolecall", "/usr/share/fish/vendor_completions.d/rolecall.fish",
		"/usr/share/doc/rolecall/copyright", "/usr/share/doc/rolecall/CHANGELOG.md",
	} {
		if !files[file] {
			t.Errorf("the package has no %s", file)
		}
	}
	if got := lines("-qp", "--configfiles"); !maps.Equal(got, map[string]bool{"/etc/rolecall/rolecall.env": true}) {
		t.Errorf("the configuration is %v", got)
	}
	if got := run(t, "rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{LICENSE}", path); got !=
		"rolecall 0.2.0~dev+0123456789ab Apache-2.0" {
		t.Errorf("the package is %s", got)
	}
	scripts := run(t, "rpm", "-qp", "--scripts", path)
	for _, call := range []string{"try-restart rolecall.service", "disable --now rolecall.service"} {
		if !strings.Contains(scripts, call) {
			t.Errorf("the scripts of the package have no %q", call)
		}
	}
}
