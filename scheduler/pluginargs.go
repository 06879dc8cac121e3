package scheduler

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/scheduler/core"
)

// argsOf reads a plug-in's arguments, which are decoded or raw; unknown fields are errors.
func argsOf[T any](one *configv1.PluginConfig) (*T, error) {
	if one.Args.Object != nil {
		if args, ok := any(one.Args.Object).(*T); ok {
			return args, nil
		}
		return nil, fmt.Errorf("is a %T", one.Args.Object)
	}
	args := new(T)
	if len(one.Args.Raw) == 0 {
		return args, nil
	}
	raw, err := yaml.YAMLToJSON(one.Args.Raw)
	if err != nil {
		return nil, err
	}
	var head struct{ Kind string }
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	if head.Kind != "" && head.Kind != one.Name+"Args" {
		return nil, fmt.Errorf("kind %s is not %sArgs", head.Kind, one.Name)
	}
	return args, yaml.UnmarshalStrict(raw, args)
}

func configurePlugin(p *core.Profile, one *configv1.PluginConfig) error {
	switch one.Name {
	case core.NodeResourcesFit:
		args, err := argsOf[configv1.NodeResourcesFitArgs](one)
		if err != nil {
			return err
		}
		for _, name := range args.IgnoredResources {
			p.Ignored[name] = true
		}
		for i, group := range args.IgnoredResourceGroups {
			if strings.Contains(group, "/") {
				return fmt.Errorf("ignoredResourceGroups[%d]: resource group name can't contain '/'", i)
			}
			p.Groups[group] = true
		}
		if args.ScoringStrategy == nil {
			return nil
		}
		p.Fit, err = strategyOf(args.ScoringStrategy)
		return err
	case core.BalancedAllocation:
		args, err := argsOf[configv1.NodeResourcesBalancedAllocationArgs](one)
		if err != nil {
			return err
		}
		if len(args.Resources) > 0 {
			p.Balanced, err = weighted(args.Resources, 1)
		}
		return err
	case core.InterPodAffinity:
		args, err := argsOf[configv1.InterPodAffinityArgs](one)
		if err != nil {
			return err
		}
		if w := args.HardPodAffinityWeight; w != nil {
			if *w < 0 || *w > 100 {
				return fmt.Errorf("hardPodAffinityWeight: %d is not in the range 0-100", *w)
			}
			p.HardPodAffinityWeight = int64(*w)
		}
		p.IgnorePreferredTermsOfExistingPods = args.IgnorePreferredTermsOfExistingPods
	case core.PodTopologySpread:
		args, err := argsOf[configv1.PodTopologySpreadArgs](one)
		if err != nil {
			return err
		}
		return defaultSpread(p, args)
	case core.NodeAffinity:
		args, err := argsOf[configv1.NodeAffinityArgs](one)
		if err != nil {
			return err
		}
		p.Affinity = args.AddedAffinity
	case core.VolumeBinding:
		args, err := argsOf[configv1.VolumeBindingArgs](one)
		if err != nil {
			return err
		}
		if s := args.BindTimeoutSeconds; s != nil {
			if *s < 0 {
				return errors.New("bindTimeoutSeconds: invalid BindTimeoutSeconds, should not be a negative value")
			}
			p.BindTimeout = time.Duration(*s) * time.Second
		}
	case core.DynamicResources:
		args, err := argsOf[configv1.DynamicResourcesArgs](one)
		if err != nil {
			return err
		}
		if args.BindingTimeout != nil {
			p.DeviceTimeout = args.BindingTimeout.Duration
		}
	case core.DefaultPreemption:
		_, err := argsOf[configv1.DefaultPreemptionArgs](one) // all nodes are candidates
		return err
	default:
		if !known.Has(one.Name) {
			return fmt.Errorf("plugin %q does not exist", one.Name)
		}
	}
	return nil
}

func defaultSpread(p *core.Profile, args *configv1.PodTopologySpreadArgs) error {
	switch args.DefaultingType {
	case configv1.ListDefaulting:
		p.DefaultConstraints, p.SystemDefaulted = args.DefaultConstraints, false
		for i, c := range args.DefaultConstraints {
			switch {
			case c.LabelSelector != nil:
				return fmt.Errorf("defaultConstraints[%d].labelSelector: constraint must not define a selector, as they deduced for each pod", i)
			case c.MaxSkew <= 0:
				return fmt.Errorf("defaultConstraints[%d].maxSkew: not in the range (0, inf)", i)
			case c.TopologyKey == "":
				return fmt.Errorf("defaultConstraints[%d].topologyKey: can not be empty", i)
			case c.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable != corev1.ScheduleAnyway:
				return fmt.Errorf("defaultConstraints[%d].whenUnsatisfiable: unsupported value %q", i, c.WhenUnsatisfiable)
			}
		}
	case "", configv1.SystemDefaulting:
		if len(args.DefaultConstraints) > 0 {
			return errors.New("defaultConstraints: when .defaultingType is System, must be empty")
		}
	default:
		return fmt.Errorf("defaultingType: unsupported value %q", args.DefaultingType)
	}
	return nil
}

func strategyOf(in *configv1.ScoringStrategy) (core.Strategy, error) {
	out := core.Strategy{Type: core.StrategyType(in.Type)}
	var err error
	specs := in.Resources
	if len(specs) == 0 {
		specs = []configv1.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}}
	}
	if out.Resources, err = weighted(specs, 100); err != nil {
		return out, err
	}
	switch out.Type {
	case "":
		out.Type = core.LeastAllocated
	case core.LeastAllocated, core.MostAllocated:
	case core.RequestedToCapacityRatio:
		if in.RequestedToCapacityRatio == nil || len(in.RequestedToCapacityRatio.Shape) == 0 {
			return out, errors.New("scoringStrategy.requestedToCapacityRatio.shape: at least one point must be specified")
		}
		for i, point := range in.RequestedToCapacityRatio.Shape {
			if point.Utilization < 0 || point.Utilization > 100 || point.Score < 0 || point.Score > 10 ||
				i > 0 && point.Utilization <= in.RequestedToCapacityRatio.Shape[i-1].Utilization {
				return out, fmt.Errorf("scoringStrategy.requestedToCapacityRatio.shape[%d]: utilization must ascend within 0-100, score must be within 0-10", i)
			}
			out.Shape = append(out.Shape, core.ShapePoint{Utilization: int64(point.Utilization), Score: int64(point.Score) * core.MaxScore / 10})
		}
	default:
		return out, fmt.Errorf("scoringStrategy.type: unsupported value %q", in.Type)
	}
	return out, nil
}

func weighted(in []configv1.ResourceSpec, most int64) ([]core.WeightedResource, error) {
	var out []core.WeightedResource
	for i, r := range in {
		if r.Weight == 0 {
			r.Weight = 1
		}
		if r.Weight < 0 || r.Weight > most {
			return nil, fmt.Errorf("resources[%d].weight: resource weight of %s not in valid range [1, %d]", i, r.Name, most)
		}
		if slices.ContainsFunc(out, func(o core.WeightedResource) bool { return string(o.Name) == r.Name }) {
			return nil, fmt.Errorf("resources[%d].name: duplicate value %q", i, r.Name)
		}
		out = append(out, core.WeightedResource{Name: corev1.ResourceName(r.Name), Weight: r.Weight})
	}
	return out, nil
}
