package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what the pod failure policy says of one failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // Count where no rule matches
	message string
}

// judge applies the first rule that matches.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	if policy == nil || p.Status.Phase != corev1.PodFailed {
		return verdict{action: batchv1.PodFailurePolicyActionCount}
	}
	for i, rule := range policy.Rules {
		if rule.OnExitCodes != nil {
			if c := matchExit(rule.OnExitCodes, p); c != nil {
				return verdict{rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
					c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode, rule.Action, i)}
			}
		}
		for _, want := range rule.OnPodConditions {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == want.Type && c.Status == want.Status }) {
				return verdict{rule.Action, fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, want.Type, rule.Action, i)}
			}
		}
	}
	return verdict{action: batchv1.PodFailurePolicyActionCount}
}

func matchExit(r *batchv1.PodFailurePolicyOnExitCodesRequirement, p *corev1.Pod) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			code := c.State.Terminated.ExitCode
			in := slices.Contains(r.Values, code)
			if code != 0 && in == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c
			}
		}
	}
	return nil
}

// successRule is the first rule of the success policy that the succeeded indexes satisfy; false if none does.
func successRule(policy *batchv1.SuccessPolicy, done indexes, limit int) (int, bool) {
	if policy == nil {
		return 0, false
	}
	for i, rule := range policy.Rules {
		of := done
		need := -1
		if rule.SucceededIndexes != nil {
			wanted := parseIndexes(*rule.SucceededIndexes, limit)
			need = len(wanted)
			of = indexes{}
			for k := range wanted {
				if done[k] {
					of[k] = true
				}
			}
		}
		if rule.SucceededCount != nil {
			need = int(*rule.SucceededCount)
		}
		if need >= 0 && len(of) >= need {
			return i, true
		}
	}
	return 0, false
}
