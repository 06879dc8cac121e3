package node

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var runtimeClass = &api.Kind{
	Group: "node.k8s.io", Version: "v1", Kind: "RuntimeClass",
	Plural: "runtimeclasses", Singular: "runtimeclass",
	StoragePath: "runtimeclasses",
	New:         api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
	Validate:       api.Check(validateRuntimeClass),
	ValidateUpdate: api.CheckUpdate(validateRuntimeClassUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Handler", "string", func(x *nodev1.RuntimeClass) any { return x.Handler }),
		api.AgeColumn(),
	},
}

func validateRuntimeClass(x *nodev1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if x.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, core.Label(field.NewPath("handler"), x.Handler)...)
	}
	if o := x.Overhead; o != nil {
		for _, name := range slices.Sorted(maps.Keys(o.PodFixed)) {
			errs = append(errs, core.NotNegativeQuantity(field.NewPath("overhead", "limits").Key(string(name)), o.PodFixed[name])...)
		}
	}
	if s := x.Scheduling; s != nil {
		path := field.NewPath("scheduling")
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
		errs = append(errs, core.ValidateTolerations(path.Child("tolerations"), s.Tolerations)...)
		for i, t := range s.Tolerations {
			if slices.ContainsFunc(s.Tolerations[:i], func(o corev1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
				errs = append(errs, field.Duplicate(path.Child("tolerations").Index(i), shownToleration(t)))
			}
		}
	}
	return errs
}

// shownToleration is how upstream's message shows a toleration: by the names of the fields of Go.
type shownToleration struct {
	Key               string
	Operator          corev1.TolerationOperator
	Value             string
	Effect            corev1.TaintEffect
	TolerationSeconds *int64
}

func validateRuntimeClassUpdate(x, old *nodev1.RuntimeClass) field.ErrorList {
	errs := validateRuntimeClass(x)
	errs = append(errs, core.Immutable(field.NewPath("handler"), x.Handler, old.Handler)...)
	return errs
}
