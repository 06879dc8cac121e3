package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var node = &api.Kind{
	Version: "v1", Kind: "Node",
	Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
	StoragePath: "minions",
	New:         api.New[corev1.Node], NewList: api.NewList[corev1.NodeList],
	Validate:       api.Check(validateNode),
	ValidateUpdate: api.CheckUpdate(validateNodeUpdate),
	ValidateStatus: api.CheckUpdate(validateNodeStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Status", "string", func(x *corev1.Node) any { return nodeStatus(x) }),
		api.Col("Roles", "string", func(x *corev1.Node) any { return nodeRoles(x) }),
		api.AgeColumn(),
		api.Col("Version", "string", func(x *corev1.Node) any { return x.Status.NodeInfo.KubeletVersion }),
		api.Col("Internal-IP", "string", func(x *corev1.Node) any { return nodeAddress(x, corev1.NodeInternalIP) }).Wide(),
		api.Col("External-IP", "string", func(x *corev1.Node) any { return nodeAddress(x, corev1.NodeExternalIP) }).Wide(),
		api.Col("OS-Image", "string", func(x *corev1.Node) any { return orUnknown(x.Status.NodeInfo.OSImage) }).Wide(),
		api.Col("Kernel-Version", "string", func(x *corev1.Node) any { return orUnknown(x.Status.NodeInfo.KernelVersion) }).Wide(),
		api.Col("Container-Runtime", "string", func(x *corev1.Node) any { return orUnknown(x.Status.NodeInfo.ContainerRuntimeVersion) }).Wide(),
	},
	FieldKeys: []string{"spec.unschedulable"},
	Fields: api.Selectable(func(x *corev1.Node) map[string]string {
		return map[string]string{"spec.unschedulable": strconv.FormatBool(x.Spec.Unschedulable)}
	}),
	Default:             api.Defaults(defaultNode),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Connect("proxy", "NodeProxyOptions", "create", "delete", "get", "patch", "update"),
		api.Status(),
	},
}

// defaultNode keeps podCIDR and podCIDRs in step: the first of the list is the single one, which wins.
func defaultNode(x *corev1.Node) {
	switch one, list := x.Spec.PodCIDR, x.Spec.PodCIDRs; {
	case one == "" && len(list) > 0:
		x.Spec.PodCIDR = list[0]
	case one != "" && (len(list) == 0 || list[0] != one):
		x.Spec.PodCIDRs = []string{one}
	}
	if x.Status.Allocatable == nil && x.Status.Capacity != nil {
		x.Status.Allocatable = x.Status.Capacity.DeepCopy()
	}
}

func nodeStatus(x *corev1.Node) string {
	status := "Unknown"
	for _, c := range x.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if x.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

const roleLabel = "node-role.kubernetes.io/"

func nodeRoles(x *corev1.Node) string {
	var roles []string
	for k, v := range x.Labels {
		if role, ok := strings.CutPrefix(k, roleLabel); ok && role != "" {
			roles = append(roles, role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles = append(roles, v)
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	slices.Sort(roles)
	return strings.Join(slices.Compact(roles), ",")
}

func nodeAddress(x *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range x.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

func validateNode(x *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validateTaints(field.NewPath("metadata", "taints"), x.Spec.Taints)...)
	at := field.NewPath("spec", "podCIDRs")
	families := map[bool]bool{}
	for i, c := range x.Spec.PodCIDRs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), c, false, nil)...)
		p, err := netip.ParsePrefix(c)
		if err != nil {
			continue
		}
		if families[p.Addr().Is4()] {
			errs = append(errs, field.Invalid(at, x.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
			break
		}
		families[p.Addr().Is4()] = true
	}
	return errs
}

func validateNodeStatus(x, _ *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	seen := map[corev1.NodeAddress]bool{}
	for i, a := range x.Status.Addresses {
		if seen[a] {
			errs = append(errs, field.Duplicate(path.Child("addresses").Index(i), struct{ Type, Address string }{string(a.Type), a.Address}))
		}
		seen[a] = true
	}
	for _, f := range []struct {
		name string
		list corev1.ResourceList
	}{{"capacity", x.Status.Capacity}, {"allocatable", x.Status.Allocatable}} {
		for _, name := range slices.Sorted(maps.Keys(f.list)) {
			if q := f.list[name]; q.Sign() < 0 {
				errs = append(errs, field.Invalid(path.Child(f.name, string(name)), q.String(), "must be greater than or equal to 0"))
			}
		}
	}
	return errs
}

func validateNodeUpdate(x, old *corev1.Node) field.ErrorList {
	errs := validateNode(x)
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(x.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if old.Spec.ProviderID != "" && x.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	return errs
}

func validateTaints(path *field.Path, taints []corev1.Taint) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, t := range taints {
		at := path.Index(i)
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		errs = append(errs, Problems(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		errs = append(errs, OneOf(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		if id := t.Key + ":" + string(t.Effect); seen[id] {
			twice := field.Duplicate(at, struct {
				Key, Value, Effect string
				TimeAdded          *metav1.Time
			}{t.Key, t.Value, string(t.Effect), t.TimeAdded})
			twice.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, twice)
		} else {
			seen[id] = true
		}
	}
	return errs
}
