package scheduler

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler/core"
)

func configure(t *testing.T, text string) (Config, error) {
	t.Helper()
	var file configv1.KubeSchedulerConfiguration
	if err := yaml.UnmarshalStrict([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	var cfg Config
	return cfg, cfg.Configure(&file)
}

func TestConfigure(t *testing.T) {
	var file configv1.KubeSchedulerConfiguration
	if err := yaml.UnmarshalStrict([]byte(`
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: "*"}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    multiPoint:
      disabled: [{name: DefaultPreemption}, {name: VolumeZone}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 3}]
        requestedToCapacityRatio:
          shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 5}
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints: [{maxSkew: 1, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway}]
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [batch]}]}]
  - name: VolumeBinding
    args: {bindTimeoutSeconds: 60}
extenders:
- urlPrefix: http://localhost:1/x
  filterVerb: filter
  managedResources: [{name: example.com/gpu, ignoredByScheduler: true}]
`), &file); err != nil {
		t.Fatal(err)
	}
	cfg := Config{}
	if err := cfg.Configure(&file); err != nil {
		t.Fatal(err)
	}
	p := cfg.Profiles[1]
	if cfg.FirstBackoff != 2*time.Second || cfg.LastBackoff != 20*time.Second || len(cfg.Profiles) != 2 || len(cfg.Extenders) != 1 {
		t.Errorf("%+v", cfg)
	}
	for plugin, w := range p.Weights {
		if want := map[bool]int64{true: 7}[plugin == core.NodeResourcesFit]; w != want {
			t.Errorf("%s weighs %d, want %d", plugin, w, want)
		}
	}
	if p.Preempt || p.Filters[core.VolumeZone] || !p.Filters[core.VolumeBinding] || p.HardPodAffinityWeight != 5 || p.BindTimeout != time.Minute ||
		!p.Groups["example.com"] || !p.Ignored["example.com/gpu"] || p.Affinity == nil || p.SystemDefaulted || p.DefaultConstraints[0].TopologyKey != "rack" {
		t.Errorf("%+v", p)
	}
	if p.Fit.Type != core.RequestedToCapacityRatio || len(p.Fit.Resources) != 1 || p.Fit.Resources[0].Weight != 3 || p.Fit.Shape[1].Score != 100 {
		t.Errorf("%+v", p.Fit)
	}
	if d := core.DefaultProfile(); len(cfg.Profiles[0].Weights) != len(d.Weights) || cfg.Profiles[0].Weights[core.TaintToleration] != 3 || !cfg.Profiles[0].Preempt {
		t.Error("the first profile is not the default:", cfg.Profiles[0])
	}
}

func TestConfigureRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"podInitialBackoffSeconds: 0":                                                                                         "podInitialBackoffSeconds: must be greater than 0",
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                                                  `profiles[1].schedulerName: duplicate value "a"`,
		"profiles: [{schedulerName: a}, {}]":                                                                                  "profiles[1].schedulerName: is required",
		"profiles: [{plugins: {score: {enabled: [{name: Nonsense}]}}}]":                                                       `profiles[0].plugins.score.enabled[0]: plugin "Nonsense" does not exist`,
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":                          "profiles[0].pluginConfig[0].args: hardPodAffinityWeight: 101 is not in the range 0-100",
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAfinityWeight: 1}}]}]":                             `unknown field "hardPodAfinityWeight"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]":                       `unsupported value "Best"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]":   "at least one point must be specified",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: a}]}}]}]": "when .defaultingType is System, must be empty",
		"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]":                                                             "extenders[0].weight: must have a positive weight",
		"extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]":                             "only one can",
	} {
		if _, err := configure(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestExtender: a program outside filters, prefers and binds.
func TestExtender(t *testing.T) {
	answer := func(w http.ResponseWriter, a any) { _ = json.NewEncoder(w).Encode(a) }
	bound := make(chan string, 4)
	mux := http.NewServeMux()
	mux.HandleFunc("/x/filter", func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderArgs
		_ = json.NewDecoder(r.Body).Decode(&args)
		kept, failed := []string{}, extenderv1.FailedNodesMap{}
		for _, name := range *args.NodeNames {
			if name == "c" || args.Pod.Name == "hopeless" {
				failed[name] = "not this one"
			} else {
				kept = append(kept, name)
			}
		}
		answer(w, &extenderv1.ExtenderFilterResult{NodeNames: &kept, FailedNodes: failed})
	})
	mux.HandleFunc("/x/prefer", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, extenderv1.HostPriorityList{{Host: "b", Score: 10}})
	})
	mux.HandleFunc("/x/bind", func(w http.ResponseWriter, r *http.Request) {
		var args extenderv1.ExtenderBindingArgs
		_ = json.NewDecoder(r.Body).Decode(&args)
		bound <- args.PodName + "=" + args.Node
		answer(w, &extenderv1.ExtenderBindingResult{})
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	a := clienttest.New(nil, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, node("a", "4"), node("b", "4"), node("c", "8"))
	cfg := Config{Deps: reconcile.NewDeps("default-scheduler", a, client.NewCaches(a, nil), nil, nil), Extenders: []configv1.Extender{
		{URLPrefix: "http://127.0.0.1:1/broken", FilterVerb: "filter", Ignorable: true},
		{URLPrefix: server.URL + "/x", FilterVerb: "filter", PrioritizeVerb: "prefer", Weight: 1, BindVerb: "bind", NodeCacheCapable: true,
			ManagedResources: []configv1.ExtenderManagedResource{{Name: "example.com/gpu", IgnoredByScheduler: true}}}}}
	profile := core.DefaultProfile()
	profile.Ignored = map[string]bool{"example.com/gpu": true}
	cfg.Profiles = []*core.Profile{profile}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	ctx, cancel := contextOf(t)
	go func() { done <- s.Run(ctx) }()
	gpu := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1")
	}
	b := &bench{a, t, ctx}
	for _, p := range []*corev1.Pod{pod("p", "1", gpu), pod("hopeless", "1", gpu)} {
		if _, err := a.Create(ctx, kindOf(p), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-bound; got != "p=b" {
		t.Errorf("bound %s, want p=b", got)
	}
	want := "Unschedulable: 0/3 nodes are available: 3 not this one."
	for !strings.HasPrefix(b.message("hopeless"), want) {
		select {
		case <-ctx.Done():
			t.Fatal("got", b.message("hopeless"), "want", want)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	<-done
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 30*time.Second)
}
