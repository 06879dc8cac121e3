package plugins

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// podTolerations adds a namespace's tolerations to its pods, and refuses tolerations that are not on its list. What a
// namespace does not say in its annotations, the configuration says for all. It is off by default.
type podTolerations struct {
	st            store.Store
	usual, listed []corev1.Toleration
}

const (
	tolerationsAnnotation = "scheduler.alpha.kubernetes.io/defaultTolerations"
	listedAnnotation      = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

func newPodTolerations(d Deps, b []byte) (admission.Plugin, error) {
	p := &podTolerations{st: d.Store}
	if b == nil {
		return p, nil
	}
	var c struct {
		metav1.TypeMeta `json:",inline"`
		Default         []corev1.Toleration `json:"default"`
		Whitelist       []corev1.Toleration `json:"whitelist"`
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return nil, err
	}
	if want := (metav1.TypeMeta{APIVersion: "podtolerationrestriction.admission.k8s.io/v1alpha1", Kind: "Configuration"}); c.TypeMeta != want {
		return nil, fmt.Errorf("%s %s is no %s of %s", c.APIVersion, c.Kind, want.Kind, want.APIVersion)
	}
	p.usual, p.listed = c.Default, c.Whitelist
	return p, nil
}

func (*podTolerations) Name() string { return "PodTolerationRestriction" }
func (*podTolerations) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && isPod(k) && sub == ""
}

func (a *podTolerations) Admit(ctx context.Context, r *admission.Request) error {
	p := pod(r)
	if p == nil {
		return nil
	}
	var more []corev1.Toleration
	if r.Operation == admission.Create {
		own, said, err := a.annotated(ctx, r.Namespace, tolerationsAnnotation)
		if err != nil {
			return err
		}
		if more = slices.Clone(a.usual); said {
			more = own
		}
	}
	if core.QOSClass(p) != corev1.PodQOSBestEffort {
		more = append(more, corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	if len(more) > 0 {
		p.Spec.Tolerations = widest(append(slices.Clone(p.Spec.Tolerations), more...))
	}
	return a.Validate(ctx, r)
}

func (a *podTolerations) Validate(ctx context.Context, r *admission.Request) error {
	p := pod(r)
	if p == nil || len(p.Spec.Tolerations) == 0 {
		return nil
	}
	list, said, err := a.annotated(ctx, r.Namespace, listedAnnotation)
	if err != nil {
		return err
	}
	whose := "namespace"
	if !said {
		list, whose = a.listed, "cluster"
	}
	for _, t := range p.Spec.Tolerations {
		if len(list) > 0 && !slices.ContainsFunc(list, func(l corev1.Toleration) bool { return covers(l, t) }) {
			return fmt.Errorf("pod tolerations (possibly merged with namespace default tolerations) conflict with its %s whitelist", whose)
		}
	}
	return nil
}

// annotated are the tolerations that a namespace lists in an annotation, if it has that.
func (a *podTolerations) annotated(ctx context.Context, namespace, key string) (list []corev1.Toleration, said bool, err error) {
	ns, ok, err := read.Fresh[*corev1.Namespace](ctx, a.st, "", namespace)
	switch {
	case err != nil:
		return nil, false, apierrors.NewInternalError(err)
	case !ok:
		return nil, false, notFound("namespaces", namespace)
	}
	text, said := ns.Annotations[key]
	if text != "" {
		err = json.Unmarshal([]byte(text), &list)
	}
	return list, said, err
}

// widest drops tolerations that others of the list make superfluous; of equal ones the first stays.
func widest(all []corev1.Toleration) (out []corev1.Toleration) {
	for i, t := range all {
		kept := slices.ContainsFunc(out, func(o corev1.Toleration) bool { return covers(o, t) })
		later := slices.ContainsFunc(all[i+1:], func(o corev1.Toleration) bool { return !equality.Semantic.DeepEqual(o, t) && covers(o, t) })
		if !kept && !later {
			out = append(out, t)
		}
	}
	return out
}

// covers reports whether a tolerates all that b does.
func covers(a, b corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(a, b) {
		return true
	}
	anyKey := a.Key == "" && a.Operator == corev1.TolerationOpExists
	if a.Key != b.Key && !anyKey || a.Effect != "" && a.Effect != b.Effect {
		return false
	}
	if s := a.TolerationSeconds; s != nil && a.Effect == corev1.TaintEffectNoExecute && (b.TolerationSeconds == nil || *b.TolerationSeconds > *s) {
		return false
	}
	switch a.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return b.Operator == corev1.TolerationOpEqual && a.Value == b.Value
	}
	return false
}
