package plugins

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/api/imagepolicy/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadSettings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "beside.yaml"), []byte("beside"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"} {
		main := filepath.Join(dir, "main.yaml")
		if err := os.WriteFile(main, []byte("apiVersion: "+version+"\nkind: AdmissionConfiguration\nplugins:\n- {name: A, configuration: {x: q}}\n"+
			"- {name: B, path: beside.yaml}\n- {name: A, configuration: {x: z}}\n- {name: C}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSettings(main)
		if want := (Settings{"A": []byte(`{"x":"q"}`), "B": []byte("beside")}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s, %v", version, got, err)
		}
	}
	old := "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b}\n"
	if got, err := ReadSettings(file(t, "old.yaml", old)); err != nil || string(got["PodNodeSelector"]) != old {
		t.Errorf("%s, %v", got, err)
	}
	for want, text := range map[string]string{
		"Object 'Kind' is missing":      "plugins: []\n",
		`unknown field "plug"`:          "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplug: []\n",
		"no such file":                  "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: A, path: gone.yaml}]\n",
		"no kind \"Admission\" is regi": "apiVersion: apiserver.config.k8s.io/v1\nkind: Admission\n",
		"unexpected type":               "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n",
	} {
		if _, err := ReadSettings(file(t, "wrong.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	if _, err := ReadSettings("/nowhere"); err == nil || !strings.Contains(err.Error(), `unable to read admission control configuration from "/nowhere"`) {
		t.Error(err)
	}
}

// What is wrong with a plugin's configuration is told at the start.
func TestSettingsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ plugin, text, want string }{
		{"PodSecurity", "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {enforce: strict}", "defaults.enforce"},
		{"PodSecurity", "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefault: {}", "unknown field"},
		{"ResourceQuota", "apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration\nlimited: []", "unknown field"},
		{"EventRateLimit", "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits: []", "limits: Invalid value"},
		{"EventRateLimit", "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits: [{type: Pod, qps: 0, burst: -1, cacheSize: -1}]",
			`limits[0].type: Unsupported value: "Pod": supported values: "Namespace", "Server", "SourceAndObject", "User", limits[0].burst: Invalid value: -1: must be positive, limits[0].qps: Invalid value: 0: must be positive, limits[0].cacheSize: Invalid value: -1: must not be negative`},
		{"EventRateLimit", "kind: Configuration", "is no Configuration"},
		{"PodTolerationRestriction", "apiVersion: v1\nkind: Pod", "is no Configuration"},
		{"PodNodeSelector", "podNodeSelectorPluginConfig: {a: '==='}", "podNodeSelectorPluginConfig: a:"},
		{"ImagePolicyWebhook", "imagePolicy: {kubeConfigFile: /nowhere}", "no such file"},
		{"ImagePolicyWebhook", "imagePolicy: {kubeConfigFile: /nowhere, allowTTL: 100000}", "valid value is between 1s and 30m0s"},
		{"MutatingAdmissionWebhook", "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: relative", "must be an absolute file path"},
		{"ValidatingAdmissionWebhook", "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: /nowhere", "no such file"},
	} {
		_, err := Chain(Deps{Store: memstore.New(), Enable: []string{c.plugin}, Settings: Settings{c.plugin: []byte(c.text)}})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.plugin) {
			t.Errorf("%s: want %s, got %v", c.plugin, c.want, err)
		}
	}
}

// plugin makes a plugin as the chain does.
func plugin(t *testing.T, name, text string, d Deps) admission.Plugin {
	t.Helper()
	all := catalog()
	e := all[slices.IndexFunc(all, func(e entry) bool { return e.name == name })]
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Settings = Settings{name: []byte(text)}
	p, err := e.plugin(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPodSecurityConfiguration(t *testing.T) {
	st := memstore.New(&corev1.Namespace{ObjectMeta: named("a")}, &corev1.Namespace{ObjectMeta: named("free")})
	p := plugin(t, "PodSecurity", `apiVersion: pod-security.admission.config.k8s.io/v1
kind: PodSecurityConfiguration
defaults: {enforce: baseline}
exemptions: {namespaces: [free], usernames: [bob]}
`, Deps{Store: st})
	risky := func(ns string) *corev1.Pod {
		return newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.HostPID = ns, true })
	}
	expect(t, "default", run(t, p, create(risky("a"))), `violates PodSecurity "baseline:latest"`)
	expect(t, "exempt namespace", run(t, p, create(risky("free"))), "")
	r := create(risky("a"))
	r.User = &user.DefaultInfo{Name: "bob"}
	expect(t, "exempt user", run(t, p, r), "")
}

func TestLimitedResources(t *testing.T) {
	const conf = `apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- {resource: pods, matchContains: [requests.cpu]}
- resource: pods
  matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]
`
	plain := newPod(with(resources("memory", "1Gi"), nil))
	greedy := newPod(with(resources("cpu", "1"), nil))
	high := newPod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	p := plugin(t, "ResourceQuota", conf, Deps{Store: memstore.New()})
	expect(t, "not limited", run(t, p, create(plain.DeepCopy())), "")
	expect(t, "limited, no quota", run(t, p, create(greedy.DeepCopy())), `pods "p" is forbidden: insufficient quota to consume: requests.cpu`)
	expect(t, "scope, no quota", run(t, p, create(high.DeepCopy())), "insufficient quota to match these scopes: [{PriorityClass In [high]}]")
	counted := quotaOf(resources("requests.cpu", "4"), resources("requests.cpu", "0"))
	scoped := quotaOf(resources("pods", "4"), resources("pods", "0"))
	scoped.Name = "scoped"
	scoped.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}}}}
	p = plugin(t, "ResourceQuota", conf, Deps{Store: memstore.New(counted)})
	expect(t, "counted", run(t, p, create(greedy.DeepCopy())), "")
	p = plugin(t, "ResourceQuota", conf, Deps{Store: memstore.New(scoped)})
	expect(t, "scope covered", run(t, p, create(high.DeepCopy())), "")
	expect(t, "by another quota", run(t, p, create(greedy.DeepCopy())), "insufficient quota to consume: requests.cpu")
}

func TestEventRateLimit(t *testing.T) {
	now := time.Unix(0, 0)
	p := plugin(t, "EventRateLimit", `apiVersion: eventratelimit.admission.k8s.io/v1alpha1
kind: Configuration
limits:
- {type: Namespace, qps: 1, burst: 2}
- {type: User, qps: 100, burst: 4}
- {type: SourceAndObject, qps: 100, burst: 100, cacheSize: 1}
`, Deps{Now: func() time.Time { return now }})
	send := func(ns, who string, dry bool) error {
		r := create(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "e"}})
		r.User, r.DryRun = &user.DefaultInfo{Name: who}, dry
		return run(t, p, r)
	}
	expect(t, "1", send("a", "ann", false), "")
	expect(t, "2", send("a", "ann", false), "")
	expect(t, "dry run", send("a", "ann", true), "")
	err := send("a", "ann", false)
	expect(t, "3", err, "limit reached on type Namespace for key a")
	if !apierrors.IsTooManyRequests(err) {
		t.Errorf("%v", err)
	}
	expect(t, "other namespace", send("b", "ann", false), "")
	err = send("a", "ann", false)
	expect(t, "both", err, "[limit reached on type Namespace for key a, limit reached on type User for key ann]")
	expect(t, "other user", send("b", "bob", false), "")
	now = now.Add(time.Second)
	expect(t, "later", send("a", "ann", false), "")
	if p.Handles(admission.Create, read.Kind[*corev1.Pod](), "") {
		t.Error("it judges pods")
	}
}

func TestPodTolerations(t *testing.T) {
	ns := func(name string, annotations ...string) *corev1.Namespace {
		o := &corev1.Namespace{ObjectMeta: named(name)}
		for i := 0; i < len(annotations); i += 2 {
			metav1.SetMetaDataAnnotation(&o.ObjectMeta, annotations[i], annotations[i+1])
		}
		return o
	}
	st := memstore.New(ns("a"), ns("own", tolerationsAnnotation, `[{"key":"o","operator":"Exists"}]`, listedAnnotation, `[{"key":"o","operator":"Exists"}]`),
		ns("empty", tolerationsAnnotation, "", listedAnnotation, ""), ns("broken", tolerationsAnnotation, "{"))
	p := plugin(t, "PodTolerationRestriction", `apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
kind: Configuration
default: [{key: d, operator: Equal, value: v, effect: NoSchedule}]
whitelist: [{key: d, operator: Exists}, {key: node.kubernetes.io/memory-pressure, operator: Exists}]
`, Deps{Store: st})
	try := func(ns string, ts ...corev1.Toleration) (string, error) {
		o := newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.Tolerations = ns, ts })
		err := run(t, p, create(o))
		var keys []string
		for _, t := range o.Spec.Tolerations {
			keys = append(keys, t.Key+"/"+string(t.Operator))
		}
		return strings.Join(keys, " "), err
	}
	exists := func(key string) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists}
	}
	for _, c := range []struct {
		ns        string
		has       []corev1.Toleration
		want, err string
	}{
		{"a", nil, "d/Equal", ""},
		{"a", []corev1.Toleration{exists("d")}, "d/Exists", ""},
		{"a", []corev1.Toleration{exists("x")}, "", "conflict with its cluster whitelist"},
		{"own", nil, "o/Exists", ""},
		{"own", []corev1.Toleration{exists("d")}, "", "conflict with its namespace whitelist"},
		{"empty", []corev1.Toleration{exists("x")}, "x/Exists", ""},
		{"broken", nil, "", "unexpected end of JSON input"},
		{"gone", nil, "", `namespaces "gone" not found`},
	} {
		got, err := try(c.ns, c.has...)
		expect(t, c.ns, err, c.err)
		if c.err == "" && got != c.want {
			t.Errorf("%s %v: got %s, want %s", c.ns, c.has, got, c.want)
		}
	}
	burst := newPod(with(resources("cpu", "1"), nil))
	expect(t, "burstable", run(t, p, create(burst)), "")
	if ts := burst.Spec.Tolerations; len(ts) != 2 || ts[1].Key != corev1.TaintNodeMemoryPressure {
		t.Errorf("%v", ts)
	}
}

func TestPodNodeSelectorConfiguration(t *testing.T) {
	st := memstore.New(&corev1.Namespace{ObjectMeta: named("a")}, &corev1.Namespace{ObjectMeta: named("b")},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "own", Annotations: map[string]string{nodeSelectorAnnotation: ""}}})
	p := plugin(t, "PodNodeSelector", "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: env=test, b: 'env=test,disk=ssd'}", Deps{Store: st})
	for _, c := range []struct {
		ns   string
		has  map[string]string
		want string
		err  string
	}{
		{"a", nil, "map[env:test]", ""},
		{"a", map[string]string{"env": "prod"}, "", "conflicts with its namespace node label selector"},
		{"own", map[string]string{"env": "prod"}, "map[env:prod]", ""},
		{"b", map[string]string{"disk": "ssd"}, "map[disk:ssd env:test]", ""},
		{"b", map[string]string{"disk": "hdd"}, "", "conflict with its namespace whitelist"},
		{"b", map[string]string{"other": "x"}, "", "conflict with its namespace whitelist"},
	} {
		o := newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.NodeSelector = c.ns, c.has })
		expect(t, c.ns, run(t, p, create(o)), c.err)
		if got := fmt.Sprint(o.Spec.NodeSelector); c.err == "" && got != c.want {
			t.Errorf("%s: got %s, want %s", c.ns, got, c.want)
		}
	}
}

// imageServer is an image policy server: it allows images that start with "good" and breaks at those that start with
// "broken". It returns its kubeconfig.
func imageServer(t *testing.T, asked *[]string) string {
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review v1alpha1.ImageReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		review.Status.Allowed = true
		for _, c := range review.Spec.Containers {
			*asked = append(*asked, c.Image)
			if strings.HasPrefix(c.Image, "broken") {
				http.Error(w, "broken", http.StatusTeapot)
				return
			}
			if !strings.HasPrefix(c.Image, "good") {
				review.Status.Allowed, review.Status.Reason = false, review.Spec.Annotations["why.image-policy.k8s.io/x"]
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(ts.Close)
	return file(t, "images", fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]\n"+
		"users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", ts.URL))
}

func TestImagePolicy(t *testing.T) {
	var asked []string
	conf := "imagePolicy: {retryBackoff: 1, kubeConfigFile: " + imageServer(t, &asked)
	strict, lenient := plugin(t, "ImagePolicyWebhook", conf+"}", Deps{}), plugin(t, "ImagePolicyWebhook", conf+", defaultAllow: true}", Deps{})
	images := func(names ...string) *corev1.Pod {
		return newPod(func(p *corev1.Pod) {
			p.Annotations = map[string]string{"why.image-policy.k8s.io/x": "bad taste", "other": "y"}
			p.Spec.Containers = nil
			for _, n := range names {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: n})
			}
		})
	}
	expect(t, "good", run(t, strict, create(images("good1", "good2"))), "")
	expect(t, "good again", run(t, strict, create(images("good1", "good2"))), "")
	if !slices.Equal(asked, []string{"good1", "good2"}) {
		t.Errorf("asked about %v", asked)
	}
	expect(t, "bad", run(t, strict, create(images("good1", "bad"))), `pods "p" is forbidden: image policy webhook backend denied one or more images: bad taste`)
	plain := images("bad")
	plain.Annotations = nil
	expect(t, "no reason", run(t, strict, create(plain)), "one or more images rejected by webhook backend")
	expect(t, "broken", run(t, strict, create(images("broken"))), `pods "p" is forbidden: `)
	o := images("broken")
	expect(t, "broken, but lenient", run(t, lenient, create(o)), "")
	if o.Annotations[imagePolicyFailedOpen] != "true" {
		t.Errorf("%v", o.Annotations)
	}
	late := images("bad")
	late.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "good3"}}}
	expect(t, "only the ephemeral ones", run(t, strict, update(late, images("bad"), "ephemeralcontainers")), "")
}

func TestNamespaceAutoProvision(t *testing.T) {
	var made []string
	p := plugin(t, "NamespaceAutoProvision", "", Deps{Store: memstore.New(&corev1.Namespace{ObjectMeta: named("a")}),
		CreateNamespace: func(_ context.Context, name string) error {
			made = append(made, name)
			switch name {
			case "raced":
				return apierrors.NewAlreadyExists(corev1.Resource("namespaces"), name)
			case "bad":
				return apierrors.NewForbidden(corev1.Resource("namespaces"), name, nil)
			}
			return nil
		}})
	in := func(ns string) *admission.Request { return create(newPod(func(p *corev1.Pod) { p.Namespace = ns })) }
	expect(t, "there", run(t, p, in("a")), "")
	expect(t, "new", run(t, p, in("new")), "")
	expect(t, "raced", run(t, p, in("raced")), "")
	expect(t, "bad", run(t, p, in("bad")), `pods "p" is forbidden`)
	dry := in("dry")
	dry.DryRun = true
	expect(t, "dry run", run(t, p, dry), "")
	if !slices.Equal(made, []string{"new", "raced", "bad"}) {
		t.Errorf("made %v", made)
	}
}
