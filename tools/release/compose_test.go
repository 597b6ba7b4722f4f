package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestCompose reads the file as Compose does, and runs the program with the settings of the service and the secrets that
// make-secrets writes.
func TestCompose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "compose")
	run(t, "cp", "-RL", "deploy/compose", dir)
	secrets := filepath.Join(dir, "secrets")
	if err := os.RemoveAll(secrets); err != nil { // of whoever tests
		t.Fatal(err)
	}
	run(t, filepath.Join(dir, "make-secrets"))
	const sums = `cd "$0" && sha256sum *`
	before := run(t, "sh", "-c", sums, secrets)
	run(t, filepath.Join(dir, "make-secrets"))
	if after := run(t, "sh", "-c", sums, secrets); after != before {
		t.Errorf("a second run changes the secrets:\n%s%s", before, after)
	}
	if info, err := os.Stat(secrets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the folder with the secrets: %v, %v", info.Mode(), err)
	}

	if ignored := strings.Fields(run(t, "cat", ".dockerignore")); !slices.Contains(ignored, "/deploy/compose/secrets") {
		t.Errorf("the secrets get into the layers of the build: .dockerignore has %q", ignored)
	}

	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services {
		for _, secret := range s.Secrets {
			if _, err := os.Stat(project.Secrets[secret.Source].File); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: other machines reach port %s", name, port.Published)
			}
		}
		if name != "postgres" && (!s.ReadOnly || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" || len(s.SecurityOpt) == 0) {
			t.Errorf("%s may write or has rights", name)
		}
	}
	service := project.Services["rolecall"]
	cmd := exec.CommandContext(t.Context(), "bin/rolecall", append(service.Command, "--check-config")...)
	for name, value := range service.Environment {
		cmd.Env = append(cmd.Env, name+"="+strings.Replace(*value, "/run/secrets", secrets, 1))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
	bootstrap := project.Services["bootstrap"].Command
	if help := run(t, "bin/rolecall", "bootstrap", "--help"); bootstrap[0] != "bootstrap" {
		t.Errorf("the first account is made by %q", bootstrap)
	} else {
		for _, flag := range bootstrap[1:] {
			if strings.HasPrefix(flag, "--") && !strings.Contains(help, flag) {
				t.Errorf("bootstrap has no flag %s", flag)
			}
		}
	}
}
