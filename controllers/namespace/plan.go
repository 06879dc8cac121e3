// Package namespace empties namespaces that are being deleted, and then lets them go.
//
// Invariant: a namespace's finalizer is removed only after a live list of every kind showed that nothing is left in
// it. Pods go first (KEP-5080): nothing that could protect them is removed while one still runs. Only controllers/ may
// import namespace.
package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/controllers/served"
)

// Content is what a look through a namespace found.
type Content struct {
	Remaining  map[string]int // objects by resource ("pods.", "deployments.apps")
	Finalizers map[string]int // objects that each finalizer holds
	Failures   []string       // what could not be deleted or listed
	Wait       time.Duration  // the longest time that a remaining pod may take
	// Undiscovered is the group-versions of which nobody knows what they have.
	Undiscovered served.Failed
}

func (c *Content) empty() bool { return len(c.Remaining)+len(c.Failures)+len(c.Undiscovered) == 0 }

// add counts the objects that remain of one kind after they were deleted.
func (c *Content) add(k *api.Kind, namespace string, objects []api.Object) {
	if len(objects) == 0 {
		return
	}
	expected := false // somebody has yet to do something about them
	c.Remaining[k.Plural+"."+k.Group] += len(objects)
	for _, o := range objects {
		for _, f := range o.GetFinalizers() {
			c.Finalizers[f]++
			expected = true
		}
		if s := o.GetDeletionGracePeriodSeconds(); s != nil {
			c.Wait = max(c.Wait, time.Duration(*s)*time.Second)
			expected = true
		}
	}
	if !expected {
		c.Failures = append(c.Failures, fmt.Sprintf("unexpected items still remain in namespace: %s for gvr: %v", namespace, k.GroupVersionResource()))
	}
}

// Kinds returns the rows whose objects live in namespaces and can be deleted, pods apart.
func Kinds(all []*api.Kind) (pods *api.Kind, others []*api.Kind) {
	for _, k := range all {
		switch {
		case !k.Namespaced || !k.Serves("delete") || !k.Serves("list"):
		case k.Group == "" && k.Plural == "pods":
			pods = k
		default:
			others = append(others, k)
		}
	}
	return pods, others
}

// Conditions updates the namespace's deletion conditions to what was found.
func Conditions(old []corev1.NamespaceCondition, c *Content, now time.Time) []corev1.NamespaceCondition {
	conditions := slices.Clone(old)
	set := func(t corev1.NamespaceConditionType, bad bool, reason, message string) {
		status := corev1.ConditionFalse
		if bad {
			status = corev1.ConditionTrue
		}
		next := corev1.NamespaceCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
		i := slices.IndexFunc(conditions, func(c corev1.NamespaceCondition) bool { return c.Type == t })
		if i < 0 {
			conditions = append(conditions, next)
			return
		}
		if conditions[i].Status == status {
			next.LastTransitionTime = conditions[i].LastTransitionTime
		}
		conditions[i] = next
	}
	if len(c.Undiscovered) > 0 {
		set(corev1.NamespaceDeletionDiscoveryFailure, true, "DiscoveryFailed",
			fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(c.Undiscovered), c.Undiscovered))
	} else {
		set(corev1.NamespaceDeletionDiscoveryFailure, false, "ResourcesDiscovered", "All resources successfully discovered")
	}
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "All legacy kube types successfully parsed")
	if len(c.Failures) > 0 {
		set(corev1.NamespaceDeletionContentFailure, true, "ContentDeletionFailed",
			fmt.Sprintf("Failed to delete all resource types, %d remaining: %s", len(c.Failures), strings.Join(slices.Sorted(slices.Values(c.Failures)), ", ")))
	} else {
		set(corev1.NamespaceDeletionContentFailure, false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	}
	if len(c.Remaining) > 0 {
		set(corev1.NamespaceContentRemaining, true, "SomeResourcesRemain", "Some resources are remaining: "+counts(c.Remaining, "%s has %d resource instances"))
	} else {
		set(corev1.NamespaceContentRemaining, false, "ContentRemoved", "All content successfully removed")
	}
	if len(c.Finalizers) > 0 {
		set(corev1.NamespaceFinalizersRemaining, true, "SomeFinalizersRemain",
			"Some content in the namespace has finalizers remaining: "+counts(c.Finalizers, "%s in %d resource instances"))
	} else {
		set(corev1.NamespaceFinalizersRemaining, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	}
	return conditions
}

func counts(m map[string]int, format string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf(format, k, m[k]))
	}
	return strings.Join(parts, ", ")
}
