package crd

import (
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/cert"
)

type (
	condition     = apiextensionsv1.CustomResourceDefinitionCondition
	conditionType = apiextensionsv1.CustomResourceDefinitionConditionType
	definitionCRD = apiextensionsv1.CustomResourceDefinition
)

func find(crd *definitionCRD, t conditionType) *condition {
	for i := range crd.Status.Conditions {
		if crd.Status.Conditions[i].Type == t {
			return &crd.Status.Conditions[i]
		}
	}
	return nil
}

func is(crd *definitionCRD, t conditionType) bool {
	c := find(crd, t)
	return c != nil && c.Status == apiextensionsv1.ConditionTrue
}

// set puts a condition into the status; its time changes with its state.
func set(crd *definitionCRD, c condition, now metav1.Time) {
	old := find(crd, c.Type)
	if old == nil {
		c.LastTransitionTime = now
		crd.Status.Conditions = append(crd.Status.Conditions, c)
		return
	}
	c.LastTransitionTime = old.LastTransitionTime
	if old.Status != c.Status {
		c.LastTransitionTime = now
	}
	*old = c
}

// settle brings a definition's status up to date with its spec, but for Established, which follows the installation. others
// are the definitions of the same group. crd is the caller's own.
func settle(crd *definitionCRD, others []*definitionCRD, now metav1.Time) {
	crd.Status.Conditions = slices.Clone(crd.Status.Conditions)
	names, accepted := acceptNames(crd, others)
	if !apiequality.Semantic.DeepEqual(crd.Status.AcceptedNames, names) {
		crd.Status.AcceptedNames = names
	}
	set(crd, accepted, now)
	if !is(crd, apiextensionsv1.Established) {
		c := condition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted"}
		if accepted.Status == apiextensionsv1.ConditionTrue {
			c.Reason, c.Message = "Installing", "the initial names have been accepted"
		}
		set(crd, c, now)
	}
	if c := approval(crd); c != nil {
		set(crd, *c, now)
	}
	if c := nonStructural(crd); c != nil {
		set(crd, *c, now)
	} else {
		crd.Status.Conditions = slices.DeleteFunc(crd.Status.Conditions, func(c condition) bool { return c.Type == apiextensionsv1.NonStructuralSchema })
	}
}

// acceptNames takes those of the wanted names that nobody else in the group has, and keeps the former ones instead of the
// others.
func acceptNames(crd *definitionCRD, others []*definitionCRD) (apiextensionsv1.CustomResourceDefinitionNames, condition) {
	resources, kinds := sets.New[string](), sets.New[string]()
	for _, o := range others {
		n := o.Status.AcceptedNames
		resources.Insert(n.Plural, n.Singular).Insert(n.ShortNames...)
		kinds.Insert(n.Kind, n.ListKind)
	}
	want, names := crd.Spec.Names, crd.Status.AcceptedNames
	c := condition{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found"}
	refuse := func(reason string, err error) {
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	free := func(want, have string, used sets.Set[string]) error {
		if want != have && used.Has(want) {
			return fmt.Errorf("%q is already in use", want)
		}
		return nil
	}
	take := func(reason, want string, have *string, used sets.Set[string]) {
		if err := free(want, *have, used); err != nil {
			refuse(reason, err)
			return
		}
		*have = want
	}
	take("PluralConflict", want.Plural, &names.Plural, resources)
	take("SingularConflict", want.Singular, &names.Singular, resources)
	var errs []error
	for _, short := range want.ShortNames {
		if !slices.Contains(names.ShortNames, short) {
			if err := free(short, "", resources); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		refuse("ShortNamesConflict", err)
	} else {
		names.ShortNames = want.ShortNames
	}
	take("KindConflict", want.Kind, &names.Kind, kinds)
	take("ListKindConflict", want.ListKind, &names.ListKind, kinds)
	names.Categories = want.Categories
	return names, c
}

// approval judges the annotation that definitions in Kubernetes' own groups need.
func approval(crd *definitionCRD) *condition {
	if !apihelpers.IsProtectedCommunityGroup(crd.Spec.Group) {
		return nil
	}
	state, message := apihelpers.GetAPIApprovalState(crd.Annotations)
	c := &condition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: message}
	switch state {
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return c
}

// nonStructural is the complaint about old definitions; new ones are not accepted without a structural schema.
func nonStructural(crd *definitionCRD) *condition {
	var errs field.ErrorList
	if crd.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i := range crd.Spec.Versions {
		props := internalSchema(&crd.Spec.Versions[i])
		if props == nil {
			continue
		}
		s, err := structural.NewStructural(props)
		if err != nil {
			return &condition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionUnknown, Reason: "StructuralError",
				Message: fmt.Sprintf("failed to check validation schema for version %s: %v", crd.Spec.Versions[i].Name, err)}
		}
		errs = append(errs, structural.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	return &condition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations",
		Message: errs.ToAggregate().Error()}
}

// establish says that the definition is served, unless its conversion webhook could not be trusted.
func establish(crd *definitionCRD, now metav1.Time) {
	c := condition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
		Reason: "InitialNamesAccepted", Message: "the initial names have been accepted"}
	if !is(crd, apiextensionsv1.Established) && invalidCA(crd) {
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "InvalidCABundle", "The conversion webhook CABundle is invalid"
	}
	set(crd, c, now)
}

func invalidCA(crd *definitionCRD) bool {
	c := crd.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil || len(c.Webhook.ClientConfig.CABundle) == 0 {
		return false
	}
	certs, err := cert.ParseCertsPEM(c.Webhook.ClientConfig.CABundle)
	return err != nil || len(certs) == 0
}

// sameService reports whether two states of a definition are served by the same rows.
func sameService(a, b *definitionCRD) bool {
	return a.UID == b.UID && terminating(a) == terminating(b) && reflect.DeepEqual(a.Status.AcceptedNames, b.Status.AcceptedNames) &&
		apiequality.Semantic.DeepEqual(a.Spec, b.Spec)
}
