// Package monitoring tests the alert rules, the runbooks and the dashboard. Every metric that they use is in
// docs/metrics.md, which a test of the program compares with the metrics that there are.
package monitoring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	rulesFile     = "../../deploy/prometheus/rolecall.rules.yaml"
	dashboardFile = "../../deploy/grafana/rolecall.json"
)

type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For string
			Labels           map[string]string
			Annotations      map[string]string
		}
	}
}

func readRules(t *testing.T) (r rules) {
	t.Helper()
	if err := yaml.UnmarshalStrict(read(t, rulesFile), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// promtool checks the rules and runs their unit tests.
func TestRules(t *testing.T) {
	t.Parallel()
	install := exec.CommandContext(t.Context(), "../../scripts/install-promtool")
	install.Stderr = os.Stderr
	path, err := install.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "rolecall.rules.yaml"}, {"test", "rules", "rolecall.rules.test.yaml"}} {
		promtool := exec.CommandContext(t.Context(), strings.TrimSpace(string(path)), args...)
		promtool.Dir = filepath.Dir(rulesFile)
		if out, err := promtool.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests := string(read(t, strings.Replace(rulesFile, ".yaml", ".test.yaml", 1)))
	for _, group := range readRules(t).Groups {
		for _, r := range group.Rules {
			if !strings.Contains(tests, `alertname="`+r.Alert+`", alertstate="firing"`) {
				t.Errorf("no unit test has the alert %s fire", r.Alert)
			}
		}
	}
}

// Each alert has a severity, says what is the matter, and has its runbook; each runbook has its alert.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	runbooks := string(read(t, "../../docs/runbooks.md"))
	var found []string
	for _, heading := range regexp.MustCompile(`(?m)^## (.+)\n\n(.+)`).FindAllStringSubmatch(runbooks, -1) {
		found = append(found, heading[1]+" "+heading[2][:strings.Index(heading[2], ".")])
	}
	for _, group := range readRules(t).Groups {
		for _, r := range group.Rules {
			entry := r.Alert + " `" + r.Labels["severity"] + "`"
			if !slices.Contains(found, entry) {
				t.Errorf("docs/runbooks.md has no section for %s", entry)
			}
			found = slices.DeleteFunc(found, func(f string) bool { return f == entry })
			if want := "docs/runbooks.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("%s has the runbook_url %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks a summary or a description", r.Alert)
			}
		}
	}
	if len(found) > 0 {
		t.Errorf("docs/runbooks.md has sections of alerts that there are not: %q", found)
	}
}

// documented are the metrics of docs/metrics.md, with their labels.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	metrics := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `(rolecall_[a-z_]+)(?:{([a-z,]+)})?` \\| ([a-z]+) \\|")
	for _, m := range row.FindAllStringSubmatch(string(read(t, "../../docs/metrics.md")), -1) {
		labels := strings.Split(m[2], ",")
		metrics[m[1]] = labels
		if m[3] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				metrics[m[1]+suffix] = append(labels, "le")
			}
		}
	}
	return metrics
}

var (
	metricName = regexp.MustCompile(`\brolecall_[a-z_]+`)
	grouping   = regexp.MustCompile(`\b(?:by|on) \(([a-z_, ]*)\)`)
	selector   = regexp.MustCompile(`\b(rolecall_[a-z_]+){([^}]*)}`)
	matcher    = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)`)
)

// checkExpression finds metrics and labels of an expression that do not exist.
func checkExpression(t *testing.T, where, expr string, metrics map[string][]string) {
	t.Helper()
	known := []string{"namespace", "job", "instance"} // from Prometheus
	for _, name := range metricName.FindAllString(expr, -1) {
		if metrics[name] == nil {
			t.Errorf("%s uses %s, which docs/metrics.md lacks", where, name)
		}
		known = append(known, metrics[name]...)
	}
	for _, group := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(group[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(known, label) {
				t.Errorf("%s groups by %q, which none of its metrics has", where, label)
			}
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, label := range matcher.FindAllStringSubmatch(s[2], -1) {
			if l := label[1]; l != "job" && !slices.Contains(metrics[s[1]], l) {
				t.Errorf("%s selects %s by %q, which it does not have", where, s[1], l)
			}
		}
	}
}

func TestExpressionsUseMetricsThatExist(t *testing.T) {
	t.Parallel()
	metrics := documented(t)
	for _, group := range readRules(t).Groups {
		for _, r := range group.Rules {
			checkExpression(t, r.Alert, r.Expr, metrics)
		}
	}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			checkExpression(t, "the panel "+p.Title, target.Expr, metrics)
		}
	}
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr, RefID string
		Datasource  struct{ UID string }
	}
}

type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct{ List []struct{ Name, Type string } }
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal(read(t, dashboardFile), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The dashboard has the rows that an operator reads from top to bottom, every panel says what it shows, none covers another,
// and all read the data source that is chosen.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	var rows []string
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("the panel %q covers %q, or is too wide", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("the panel %d %q lacks a title, a description or an expression", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("the panel %q reads the data source %q", p.Title, target.Datasource.UID)
			}
		}
	}
	want := []string{"Is it healthy", "Requests", "Clusters", "Audit log", "Leases and stored credentials",
		"Background work and process"}
	if !slices.Equal(rows, want) || d.UID != "rolecall" || d.SchemaVersion == 0 {
		t.Errorf("the rows of the dashboard %q are %q", d.UID, rows)
	}
}
