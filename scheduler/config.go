package scheduler

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// Config is what a Scheduler needs.
type Config struct {
	Deps reconcile.Deps
	// Profiles are the rules for the pods that ask for each scheduler name. Default: upstream's default profile.
	Profiles []*core.Profile
	// Extenders are asked over HTTP beside the rules.
	Extenders []configv1.Extender
	// FirstBackoff and LastBackoff bound the pause after a pod could not be placed. Default: 1 s and 10 s.
	FirstBackoff, LastBackoff time.Duration
	// Binders is how many bindings are written side by side. Default 64.
	Binders int
	// Gangs says that the pods of a group are placed together (the gates GenericWorkload and GangScheduling).
	Gangs bool
	// Metrics count what it does; nil: nobody looks.
	Metrics *Metrics
}

func (cfg *Config) complete() error {
	if cfg.Deps.Client == nil || cfg.Deps.Caches == nil || cfg.Deps.Clock == nil {
		return errors.New("scheduler: Deps needs a Client, Caches and a Clock")
	}
	if len(cfg.Profiles) == 0 {
		cfg.Profiles = []*core.Profile{core.DefaultProfile()}
	}
	names := map[string]bool{}
	for _, p := range cfg.Profiles {
		if p.SchedulerName == "" || names[p.SchedulerName] {
			return fmt.Errorf("scheduler: each profile needs a schedulerName of its own (%q)", p.SchedulerName)
		}
		names[p.SchedulerName] = true
	}
	if cfg.FirstBackoff == 0 {
		cfg.FirstBackoff = time.Second
	}
	if cfg.LastBackoff == 0 {
		cfg.LastBackoff = 10 * time.Second
	}
	if cfg.LastBackoff < cfg.FirstBackoff {
		return fmt.Errorf("scheduler: the last back-off (%v) is shorter than the first (%v)", cfg.LastBackoff, cfg.FirstBackoff)
	}
	if cfg.Binders == 0 {
		cfg.Binders = 64
	}
	if cfg.Deps.Log == nil {
		cfg.Deps.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	return nil
}

// Configure takes profiles, extenders and back-offs from a configuration file, kubescheduler.config.k8s.io/v1. An error
// names the field that is wrong. How many nodes to score (percentageOfNodesToScore) and side by side (parallelism) has no
// meaning here: all nodes are scored.
func (cfg *Config) Configure(file *configv1.KubeSchedulerConfiguration) error {
	seconds := func(name string, in *int64, out *time.Duration) error {
		if in == nil {
			return nil
		}
		if *in <= 0 {
			return fmt.Errorf("%s: must be greater than 0", name)
		}
		*out = time.Duration(*in) * time.Second
		return nil
	}
	if err := errors.Join(seconds("podInitialBackoffSeconds", file.PodInitialBackoffSeconds, &cfg.FirstBackoff),
		seconds("podMaxBackoffSeconds", file.PodMaxBackoffSeconds, &cfg.LastBackoff)); err != nil {
		return err
	}
	cfg.Profiles = nil
	names := sets.New[string]()
	for i := range file.Profiles {
		in := &file.Profiles[i]
		p, err := profileOf(in)
		if err != nil {
			return fmt.Errorf("profiles[%d].%w", i, err)
		}
		if in.SchedulerName == nil && len(file.Profiles) > 1 || p.SchedulerName == "" {
			return fmt.Errorf("profiles[%d].schedulerName: is required", i)
		}
		if names.Has(p.SchedulerName) {
			return fmt.Errorf("profiles[%d].schedulerName: duplicate value %q", i, p.SchedulerName)
		}
		names.Insert(p.SchedulerName)
		cfg.Profiles = append(cfg.Profiles, p)
	}
	if len(cfg.Profiles) == 0 {
		cfg.Profiles = []*core.Profile{core.DefaultProfile()}
	}
	binders := 0
	for i := range file.Extenders {
		e := &file.Extenders[i]
		if e.PrioritizeVerb != "" && e.Weight <= 0 {
			return fmt.Errorf("extenders[%d].weight: must have a positive weight applied to it", i)
		}
		if e.BindVerb != "" {
			binders++
		}
		for _, r := range e.ManagedResources {
			if !r.IgnoredByScheduler {
				continue
			}
			for _, p := range cfg.Profiles {
				p.Ignored[r.Name] = true
			}
		}
	}
	if binders > 1 {
		return fmt.Errorf("extenders: found %d extenders implementing bind: only one can", binders)
	}
	cfg.Extenders = file.Extenders
	return nil
}

// known are all plug-ins that can be named in a configuration.
var known = sets.New(append(slices.Clone(core.FilterOrder), core.BalancedAllocation, core.DefaultPreemption, core.ImageLocality,
	core.SchedulingGates, core.PrioritySort, core.DefaultBinder, core.GangScheduling)...)

// scoring are the plug-ins that have a score.
var scoring = sets.New(core.TaintToleration, core.NodeAffinity, core.NodeResourcesFit, core.PodTopologySpread, core.InterPodAffinity,
	core.DynamicResources, core.BalancedAllocation, core.ImageLocality)

func profileOf(in *configv1.KubeSchedulerProfile) (*core.Profile, error) {
	p := core.DefaultProfile()
	p.Ignored, p.Groups = map[string]bool{}, map[string]bool{}
	if in.SchedulerName != nil {
		p.SchedulerName = *in.SchedulerName
	}
	if in.Plugins != nil {
		if err := choosePlugins(p, in.Plugins); err != nil {
			return nil, fmt.Errorf("plugins.%w", err)
		}
	}
	seen := sets.New[string]()
	for i := range in.PluginConfig {
		one := &in.PluginConfig[i]
		if seen.Has(one.Name) {
			return nil, fmt.Errorf("pluginConfig[%d]: repeated config for plugin %s", i, one.Name)
		}
		seen.Insert(one.Name)
		if err := configurePlugin(p, one); err != nil {
			return nil, fmt.Errorf("pluginConfig[%d].args: %w", i, err)
		}
	}
	return p, nil
}

// choosePlugins turns plug-ins on and off. What is said for an extension point counts more than what is said for all.
func choosePlugins(p *core.Profile, in *configv1.Plugins) error {
	filters, weights := p.Filters, p.Weights
	each := func(field string, set configv1.PluginSet, off func(name string), on func(one configv1.Plugin)) error {
		for _, one := range set.Disabled {
			if one.Name != "*" && !known.Has(one.Name) {
				continue // turning off what is not there is no mistake
			}
			off(one.Name)
		}
		for i, one := range set.Enabled {
			if !known.Has(one.Name) {
				return fmt.Errorf("%s.enabled[%d]: plugin %q does not exist", field, i, one.Name)
			}
			on(one)
		}
		return nil
	}
	filterOff := func(name string) {
		for f := range filters {
			if name == "*" || name == f {
				filters[f] = false
			}
		}
	}
	scoreOff := func(name string) {
		for s := range weights {
			if name == "*" || name == s {
				weights[s] = 0
			}
		}
	}
	preemptOff := func(name string) { p.Preempt = p.Preempt && name != "*" && name != core.DefaultPreemption }
	filterOn := func(one configv1.Plugin) {
		if slices.Contains(core.FilterOrder, one.Name) {
			filters[one.Name] = true
		}
	}
	scoreOn := func(one configv1.Plugin) {
		if !scoring.Has(one.Name) {
			return
		}
		weight := int64(1)
		if one.Weight != nil && *one.Weight != 0 {
			weight = int64(*one.Weight)
		} else if w := core.DefaultProfile().Weights[one.Name]; w != 0 && one.Weight == nil {
			weight = w
		}
		weights[one.Name] = weight
	}
	preemptOn := func(one configv1.Plugin) { p.Preempt = p.Preempt || one.Name == core.DefaultPreemption }
	nothing, nothingOn := func(string) {}, func(configv1.Plugin) {}
	return errors.Join(
		each("multiPoint", in.MultiPoint, func(n string) { filterOff(n); scoreOff(n); preemptOff(n) },
			func(one configv1.Plugin) { filterOn(one); scoreOn(one); preemptOn(one) }),
		each("preFilter", in.PreFilter, filterOff, nothingOn),
		each("filter", in.Filter, filterOff, filterOn),
		each("postFilter", in.PostFilter, preemptOff, preemptOn),
		each("preScore", in.PreScore, nothing, nothingOn),
		each("score", in.Score, scoreOff, scoreOn),
		each("preEnqueue", in.PreEnqueue, nothing, nothingOn), each("queueSort", in.QueueSort, nothing, nothingOn),
		each("reserve", in.Reserve, nothing, nothingOn), each("permit", in.Permit, nothing, nothingOn),
		each("preBind", in.PreBind, nothing, nothingOn), each("bind", in.Bind, nothing, nothingOn), each("postBind", in.PostBind, nothing, nothingOn))
}
