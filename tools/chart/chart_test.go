// Package chart tests the Helm chart with Helm's own packages, and without a cluster: it is linted and rendered with several
// sets of values, and what comes out is decoded strictly into the types of Kubernetes. It imports neither pkg/action nor
// what that needs: they would double the time to build.
package chart

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

const folder = "../../deploy/helm/rolecall"

// sets are the sets of values in testdata.
func sets(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	all := map[string]map[string]any{}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".values.yaml")] = readValues(t, file)
	}
	return all
}

func readValues(t *testing.T, file string) (values map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return values
}

var loadOnce = sync.OnceValues(func() (*chart.Chart, error) { return loader.Load(folder) })

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render returns the rendered files that are not empty, by name.
func render(c *chart.Chart, values map[string]any) (map[string]string, error) {
	release := common.ReleaseOptions{Name: "rolecall", Namespace: "databases", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, values, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Engine{Strict: true}.Render(c, all)
	maps.DeleteFunc(rendered, func(_, text string) bool { return strings.TrimSpace(text) == "" })
	return rendered, err
}

// manifest is everything that Kubernetes gets, in one text.
func manifest(t *testing.T, values map[string]any) string {
	t.Helper()
	rendered, err := render(load(t), values)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if strings.HasSuffix(name, ".yaml") {
			b.WriteString("---\n# " + name + "\n" + strings.TrimSpace(rendered[name]) + "\n")
		}
	}
	return b.String()
}

// The chart has the version of the program.
func TestVersion(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	c := load(t).Metadata
	if want := strings.TrimSpace(string(text)); c.Version != want || c.AppVersion != want {
		t.Errorf("Chart.yaml has the version %s and the appVersion %s, but VERSION is %s", c.Version, c.AppVersion, want)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	for name, values := range sets(t) {
		for _, m := range lint.RunAll(folder, values, "databases").Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// withoutFiles finds the content of the rules and of the dashboard.
var withoutFiles = regexp.MustCompile(`(?ms)^(  (?:groups|rolecall\.json):).*?(^---|\z)`)

// What is rendered is in golden files, so that a change of the chart shows what it changes. The rules and the dashboard have
// tests of their own.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, values := range sets(t) {
		got := withoutFiles.ReplaceAllString(manifest(t, values), "$1 …\n$2")
		file := "testdata/" + name + ".golden.yaml"
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != got {
			t.Errorf("%s is not what is rendered; update it with go test ./chart -run TestGolden -update, and see git diff", file)
		}
	}
}

// objects are what Kubernetes gets, each decoded strictly into its type: an unknown field is an error.
type objects struct {
	deployment appsv1.Deployment
	job        *batchv1.Job
	services   []corev1.Service
	budget     *policyv1.PodDisruptionBudget
	policy     *networkingv1.NetworkPolicy
	ingress    *networkingv1.Ingress
	account    *corev1.ServiceAccount
	config     corev1.ConfigMap
	dashboard  *corev1.ConfigMap
	monitor    *serviceMonitor
	rule       *prometheusRule
}

// The custom resources of the Prometheus operator, as far as the chart uses them.
type (
	resource struct {
		APIVersion, Kind string
		Metadata         struct {
			Name   string
			Labels map[string]string
		}
	}
	serviceMonitor struct {
		resource `json:",inline"`
		Spec     struct {
			JobLabel  string
			Selector  struct{ MatchLabels map[string]string }
			Endpoints []struct{ Port, Path, Interval string }
		}
	}
	prometheusRule struct {
		resource `json:",inline"`
		Spec     struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Expr, For    string
					Labels, Annotations map[string]string
				}
			}
		}
	}
)

func decode(t *testing.T, text string) (o objects) {
	t.Helper()
	for document := range strings.SplitSeq(text, "\n---") {
		var head resource
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		var into any
		switch head.APIVersion + " " + head.Kind {
		case " ": // comments only
			continue
		case "apps/v1 Deployment":
			into = &o.deployment
		case "batch/v1 Job":
			o.job = &batchv1.Job{}
			into = o.job
		case "v1 Service":
			o.services = append(o.services, corev1.Service{})
			into = &o.services[len(o.services)-1]
		case "policy/v1 PodDisruptionBudget":
			o.budget = &policyv1.PodDisruptionBudget{}
			into = o.budget
		case "networking.k8s.io/v1 NetworkPolicy":
			o.policy = &networkingv1.NetworkPolicy{}
			into = o.policy
		case "networking.k8s.io/v1 Ingress":
			o.ingress = &networkingv1.Ingress{}
			into = o.ingress
		case "v1 ServiceAccount":
			o.account = &corev1.ServiceAccount{}
			into = o.account
		case "v1 ConfigMap":
			if strings.HasSuffix(head.Metadata.Name, "-dashboard") {
				o.dashboard = &corev1.ConfigMap{}
				into = o.dashboard
			} else {
				into = &o.config
			}
		case "monitoring.coreos.com/v1 ServiceMonitor":
			o.monitor = &serviceMonitor{}
			into = o.monitor
		case "monitoring.coreos.com/v1 PrometheusRule":
			o.rule = &prometheusRule{}
			into = o.rule
		default:
			t.Fatalf("the chart renders a %s %s, which the tests do not know", head.APIVersion, head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			t.Fatalf("%s %s: %v", head.Kind, head.Metadata.Name, err)
		}
	}
	return o
}

// pods are the pods that run, by the component.
func (o *objects) pods() map[string]corev1.PodTemplateSpec {
	pods := map[string]corev1.PodTemplateSpec{"server": o.deployment.Spec.Template}
	if o.job != nil {
		pods["bootstrap"] = o.job.Spec.Template
	}
	return pods
}

// The values of the quick start render as well.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/quickstart-kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	values, blocks := map[string]any{}, regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	for _, block := range blocks {
		if err := yaml.UnmarshalStrict(block[1], &values); err != nil {
			t.Fatal(err)
		}
	}
	o := decode(t, manifest(t, values))
	if len(blocks) != 2 || o.ingress == nil || o.ingress.Spec.Rules[0].Host != "rolecall.example.org" || o.rule == nil {
		t.Errorf("docs/quickstart-kubernetes.md has %d blocks of values, or they lack an ingress or the rules", len(blocks))
	}
}

// The packaged chart renders the same: it has the rules and the dashboard, which the folder only links to.
func TestPackage(t *testing.T) {
	t.Parallel()
	archive, err := chartutil.Save(load(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	packed, err := loader.Load(archive)
	if err != nil {
		t.Fatal(err)
	}
	values := sets(t)["monitored"]
	want, err := render(load(t), values)
	if err != nil {
		t.Fatal(err)
	}
	got, err := render(packed, values)
	if err != nil || !maps.Equal(want, got) {
		t.Errorf("%s renders something else: %v", filepath.Base(archive), err)
	}
	o := decode(t, manifest(t, values))
	if o.monitor == nil || o.rule == nil || o.dashboard == nil {
		t.Fatal("the set monitored lacks a resource for monitoring")
	}
	alerts := 0
	for _, group := range o.rule.Spec.Groups {
		for _, r := range group.Rules {
			alerts++
			if url := r.Annotations["runbook_url"]; !strings.HasPrefix(url, "https://docs.example.org/runbooks.md#rolecall") {
				t.Errorf("%s has the runbook_url %s", r.Alert, url)
			}
		}
	}
	if alerts < 12 {
		t.Errorf("there are %d alerts", alerts)
	}
}
