package apps

import (
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var controllerRevision = &api.Kind{
	Group: "apps", Version: "v1", Kind: "ControllerRevision",
	Plural: "controllerrevisions", Singular: "controllerrevision", Namespaced: true,
	StoragePath: "controllerrevisions",
	New:         api.New[appsv1.ControllerRevision], NewList: api.NewList[appsv1.ControllerRevisionList],
	Validate:       api.Check(validateControllerRevision),
	ValidateUpdate: api.CheckUpdate(validateControllerRevisionUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Controller", "string", func(x *appsv1.ControllerRevision) any { return controllerText(x) }),
		api.Col("Revision", "string", func(x *appsv1.ControllerRevision) any { return x.Revision }),
		api.AgeColumn(),
	},
	UnconditionalUpdate: true,
}

func controllerText(x *appsv1.ControllerRevision) string {
	ref := metav1.GetControllerOf(x)
	if ref == nil {
		return "<none>"
	}
	kind := strings.ToLower(ref.Kind)
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err == nil && gv.Group != "" {
		kind += "." + gv.Group
	}
	return kind + "/" + ref.Name
}

func validateControllerRevision(x *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	if x.Data.Raw == nil && x.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	errs = append(errs, core.NotNegative(field.NewPath("revision"), &x.Revision)...)
	return errs
}

func validateControllerRevisionUpdate(x, old *appsv1.ControllerRevision) field.ErrorList {
	errs := core.NotNegative(field.NewPath("revision"), &x.Revision)
	if !equality.Semantic.DeepEqual(x.Data, old.Data) {
		errs = append(errs, core.Immutable(field.NewPath("data"), x.Data, old.Data)...)
	}
	return errs
}
