// Package workflows checks the workflows of GitHub.
package workflows

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"go.yaml.in/yaml/v3"
)

const root = "../../"

// TestWorkflows: actionlint finds no mistake; a step runs one target of the Makefile; an action has a full digest and the
// version of it.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(root + ".github/workflows/*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("the workflows are %q, %v", files, err)
	}
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mistakes, err := linter.LintFiles(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, mistake := range mistakes {
		t.Error(mistake)
	}
	makefile := read(t, root+"Makefile")
	pinned := regexp.MustCompile(`^\s*(- )?uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	target := regexp.MustCompile(`^make ([a-z-]+|\$\{\{ matrix\.target \}\})( [A-Z]+="[^"]+")*$`)
	hasTarget := func(file, name string) {
		if !strings.Contains(makefile, "\n"+name+":") {
			t.Errorf("%s: the Makefile has no target %s", file, name)
		}
	}
	for _, file := range files {
		text := read(t, file)
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\n"); strings.Contains(line, "uses:") && !pinned.MatchString(line) {
				t.Errorf("%s: without a digest and a version: %s", file, line)
			}
		}
		var workflow struct {
			Permissions map[string]string
			Jobs        map[string]struct {
				Timeout  int `yaml:"timeout-minutes"`
				Strategy struct{ Matrix struct{ Target []string } }
				Steps    []struct{ Run string }
			}
		}
		if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
			t.Fatal(err)
		}
		if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] != "read" {
			t.Errorf("%s: the permissions of all jobs are %v", file, workflow.Permissions)
		}
		for name, job := range workflow.Jobs {
			if job.Timeout == 0 {
				t.Errorf("%s: the job %s has no limit of time", file, name)
			}
			for _, name := range job.Strategy.Matrix.Target {
				hasTarget(file, name)
			}
			for _, step := range job.Steps {
				if step.Run == "" {
					continue
				}
				if found := target.FindStringSubmatch(step.Run); found == nil {
					t.Errorf("%s: not one target of make: %s", file, step.Run)
				} else if !strings.HasPrefix(found[1], "$") {
					hasTarget(file, found[1])
				}
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
