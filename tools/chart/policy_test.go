package chart

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// No pod can do more than it needs, and all of them find each other.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := manifest(t, values)
			o := decode(t, text)
			for component, pod := range o.pods() {
				checkPod(t, component, pod)
			}
			checkDeployment(t, &o)
			checkSelectors(t, &o)
			checkNetwork(t, &o)
			if o.account != nil && (o.account.AutomountServiceAccountToken == nil || *o.account.AutomountServiceAccountToken) {
				t.Error("the token of the service account is mounted")
			}
			if regexp.MustCompile(`(?m)^kind: (Secret|(Cluster)?Role(Binding)?)$`).MatchString(text) {
				t.Error("the chart renders a Secret, or a right in Kubernetes")
			}
		})
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func checkPod(t *testing.T, component string, pod corev1.PodTemplateSpec) {
	t.Helper()
	s := pod.Spec
	context := s.SecurityContext
	if context == nil || !isTrue(context.RunAsNonRoot) || context.RunAsUser == nil || *context.RunAsUser == 0 ||
		context.SeccompProfile == nil || context.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: the pod may run as root, or without seccomp", component)
	}
	if s.HostNetwork || s.HostPID || s.HostIPC || s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken {
		t.Errorf("%s: the pod has something of the host, or a token of Kubernetes", component)
	}
	if s.EnableServiceLinks == nil || *s.EnableServiceLinks {
		t.Errorf("%s: the pod gets the variables of all Services", component)
	}
	for _, v := range s.Volumes {
		if v.HostPath != nil || v.Secret == nil && v.ConfigMap == nil && v.Projected == nil && v.EmptyDir == nil {
			t.Errorf("%s: the volume %s is neither a Secret nor a ConfigMap", component, v.Name)
		}
		if v.Secret != nil && (v.Secret.DefaultMode == nil || *v.Secret.DefaultMode&0o007 != 0) && v.Name != "extra" {
			t.Errorf("%s: every user can read the files of %s", component, v.Name)
		}
	}
	for _, c := range s.Containers {
		sc := c.SecurityContext
		if sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || isTrue(sc.Privileged) ||
			!isTrue(sc.ReadOnlyRootFilesystem) || sc.Capabilities == nil ||
			!slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(sc.Capabilities.Add) > 0 {
			t.Errorf("%s: the container %s is not restricted: %v", component, c.Name, sc)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s: the container %s has no limit of memory, or requests no processor", component, c.Name)
		}
		if len(c.Env)+len(c.EnvFrom) > 0 || len(c.Command) > 0 {
			t.Errorf("%s: the container %s has variables, or a command of its own", component, c.Name)
		}
		for _, m := range c.VolumeMounts {
			if !m.ReadOnly || !slices.ContainsFunc(s.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("%s: the mount %s is writable, or without a volume", component, m.Name)
			}
		}
		if strings.HasSuffix(c.Image, ":latest") || !strings.ContainsAny(c.Image, ":@") {
			t.Errorf("%s: the image %s has no version", component, c.Image)
		}
	}
}

// An upgrade and the end of a node lose no request, and every file that the configuration names is mounted.
func checkDeployment(t *testing.T, o *objects) {
	t.Helper()
	d := o.deployment.Spec
	if d.Replicas == nil || *d.Replicas < 2 || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 || o.budget == nil ||
		len(d.Template.Spec.TopologySpreadConstraints) == 0 {
		t.Error("there are fewer than two replicas, they are not spread, or they may end at once")
	}
	c := d.Template.Spec.Containers[0]
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.String() != "metrics" {
			t.Error("a probe does not use the port of the metrics")
		}
	}
	if c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Error("the probes ask for the wrong paths")
	}
	config := settings(t, o)
	drain, _ := config["drain-delay"].(string)
	wait, err := seconds(drain)
	if err != nil || d.Template.Spec.TerminationGracePeriodSeconds == nil {
		t.Fatal(drain, err)
	}
	if grace := *d.Template.Spec.TerminationGracePeriodSeconds; grace < wait+20+5 {
		t.Errorf("the server drains for %s, and Kubernetes kills it after %d seconds", drain, grace)
	}
	// A replica that ends is out of the Service before it stops accepting: the probe has failed twice by then.
	if p := c.ReadinessProbe; wait > 0 && int64(p.PeriodSeconds*p.FailureThreshold) > wait {
		t.Errorf("the server drains for %s, and is not ready after %d seconds only", drain, p.PeriodSeconds*p.FailureThreshold)
	}
	for key, value := range config {
		file, _ := value.(string)
		if strings.HasPrefix(file, "/etc/rolecall/") && !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return strings.HasPrefix(file, m.MountPath+"/")
		}) {
			t.Errorf("%s is %s, which is not mounted", key, file)
		}
	}
	if o.deployment.Spec.Template.Annotations["checksum/config"] == "" {
		t.Error("another configuration starts no new replicas")
	}
}

// seconds reads a duration such as 10s.
func seconds(text string) (n int64, err error) {
	return strconv.ParseInt(strings.TrimSuffix(text, "s"), 10, 64)
}

func settings(t *testing.T, o *objects) (config map[string]any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(o.config.Data["rolecall.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	return config
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

// Whatever selects servers selects no bootstrap Job.
func checkSelectors(t *testing.T, o *objects) {
	t.Helper()
	server, job := o.deployment.Spec.Template.Labels, map[string]string{}
	if o.job != nil {
		job = o.job.Spec.Template.Labels
	}
	selectors := map[string]map[string]string{
		"the Deployment": o.deployment.Spec.Selector.MatchLabels, "the PodDisruptionBudget": o.budget.Spec.Selector.MatchLabels,
	}
	ports := map[string]bool{}
	for _, p := range o.deployment.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = true
	}
	for _, s := range o.services {
		selectors["the Service "+s.Name] = s.Spec.Selector
		for _, p := range s.Spec.Ports {
			if !ports[p.TargetPort.String()] {
				t.Errorf("the Service %s leads to the port %s, which the container lacks", s.Name, p.TargetPort.String())
			}
			if p.TargetPort.String() == "metrics" && s.Spec.ClusterIP != "None" {
				t.Errorf("the Service %s leads to the metrics", s.Name)
			}
		}
		if o.monitor != nil && selects(o.monitor.Spec.Selector.MatchLabels, s.Labels) != (s.Spec.ClusterIP == "None") {
			t.Errorf("the ServiceMonitor selects the wrong Service, or not %s", s.Name)
		}
	}
	for who, selector := range selectors {
		if !selects(selector, server) || o.job != nil && selects(selector, job) {
			t.Errorf("%s selects %v", who, selector)
		}
	}
}

// Servers and the Job have the same policy: metrics for the peers that are named only, and no way out but those that are
// needed.
func checkNetwork(t *testing.T, o *objects) {
	t.Helper()
	p := o.policy
	if p == nil {
		t.Fatal("there is no NetworkPolicy")
	}
	for component, pod := range o.pods() {
		if !selects(p.Spec.PodSelector.MatchLabels, pod.Labels) {
			t.Errorf("the NetworkPolicy does not select the pod of %s", component)
		}
	}
	if len(p.Spec.PolicyTypes) != 2 {
		t.Errorf("the NetworkPolicy is of the types %v", p.Spec.PolicyTypes)
	}
	for _, rule := range p.Spec.Ingress {
		for _, port := range rule.Ports {
			if port.Port.String() == "metrics" && len(rule.From) == 0 {
				t.Error("everybody may read the metrics")
			}
		}
	}
	if slices.ContainsFunc(p.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return len(r.Ports) == 0 }) {
		t.Error("a rule of the NetworkPolicy lets everything out")
	}
}

// The settings are those that serve has: the reference, which is compared with the program, lists them.
func TestSettingsExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]map[string]bool{}
	for _, command := range []string{"serve", "bootstrap"} {
		section := regexp.MustCompile(`(?ms)^## rolecall ` + command + `\b.*?(^## |\z)`).FindString(string(text))
		flags[command] = map[string]bool{}
		for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z0-9-]+)").FindAllStringSubmatch(section, -1) {
			flags[command][m[1]] = true
		}
	}
	for name, values := range sets(t) {
		o := decode(t, manifest(t, values))
		for key := range settings(t, &o) {
			if !flags["serve"][key] {
				t.Errorf("%s: serve has no setting %s", name, key)
			}
		}
		for _, pod := range o.pods() {
			args := pod.Spec.Containers[0].Args
			for _, arg := range args[1:] {
				flag, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
				if strings.HasPrefix(arg, "--") && !flags[args[0]][flag] {
					t.Errorf("%s: %s has no flag %s", name, args[0], arg)
				}
			}
		}
	}
}

// The schema refuses what would not work, and secrets in values.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	c := load(t)
	for change, want := range map[string]string{
		`{image: {repository: ""}}`:                                      "image",
		`{publicURL: "http://rolecall.example.org"}`:                     "publicURL",
		`{publicURL: "https://admin:secret@rolecall.example.org"}`:       "publicURL",
		`{publicURL: ""}`:                                                "publicURL",
		`{controlDatabase: {existingSecret: ""}}`:                        "existingSecret",
		`{controlDatabase: {url: "postgres://rolecall:secret@pg/x"}}`:    "url",
		`{masterKey: {existingSecret: ""}}`:                              "existingSecret",
		`{masterKey: {value: "c2VjcmV0"}}`:                               "value",
		`{bootstrap: {password: secret}}`:                                "password",
		`{bootstrap: {existingSecret: ""}}`:                              "existingSecret",
		`{replicaCount: 0}`:                                              "replicaCount",
		`{replicas: 3}`:                                                  "replicas",
		`{config: {public-url: "https://other.example.org"}}`:            "invalid propertyName",
		`{config: {database-url: "postgres://rolecall:secret@pg/x"}}`:    "invalid propertyName",
		`{config: {logLevel: debug}}`:                                    "invalid propertyName",
		`{tls: {existingSecret: "", clientCASecret: clients}}`:           "existingSecret",
		`{resources: {limits: {memory: null}}}`:                          "memory",
		`{resources: {limits: null}}`:                                    "limits",
		`{networkPolicy: {databasePorts: []}}`:                           "databasePorts",
		`{networkPolicy: {databasePorts: ["5432"]}}`:                     "databasePorts",
		`{trustedProxies: [ingress]}`:                                    "trustedProxies",
		`{service: {type: ExternalName}}`:                                "type",
		`{image: {repository: "registry.example.org/r", digest: "abc"}}`: "digest",
		`{monitoring: {serviceMonitor: {enabled: "yes"}}}`:               "enabled",
	} {
		var values map[string]any
		if err := yaml.Unmarshal([]byte(change), &values); err != nil {
			t.Fatal(err)
		}
		merged := merge(readValues(t, "testdata/least.values.yaml"), values)
		if _, err := render(c, merged); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// merge changes a by b.
func merge(a, b map[string]any) map[string]any {
	for k, v := range b {
		into, isMap := a[k].(map[string]any)
		from, alsoMap := v.(map[string]any)
		if isMap && alsoMap {
			a[k] = merge(into, from)
		} else {
			a[k] = v
		}
	}
	return a
}
