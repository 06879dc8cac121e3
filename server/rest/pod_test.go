package rest

import (
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSpend(t *testing.T) {
	always := policyv1.AlwaysAllow
	for _, c := range []struct {
		name    string
		budget  policyv1.PodDisruptionBudget
		ready   bool
		allowed int32 // afterwards
		refused string
	}{
		{"one left", policyv1.PodDisruptionBudget{Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1}}, true, 0, ""},
		{"none left", policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Status: policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2, CurrentHealthy: 2}}, true, 0,
			"The disruption budget b needs 2 healthy pods and has 2 currently"},
		{"not ready, healthy budget", policyv1.PodDisruptionBudget{Status: policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2, CurrentHealthy: 2}}, false, 0, ""},
		{"not ready, unhealthy budget", policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Status: policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2, CurrentHealthy: 1}}, false, 0,
			"The disruption budget b needs 2 healthy pods and has 1 currently"},
		{"not ready, always", policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{UnhealthyPodEvictionPolicy: &always}, Status: policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2}}, false, 0, ""},
		{"not seen yet", policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Generation: 2}, Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1}}, true, 1,
			"The disruption budget b is still being processed by the server."},
	} {
		err := spend(&c.budget, "p", c.ready, metav1.Now())
		cause, _ := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause)
		if cause.Message != c.refused || (err == nil) != (c.refused == "") || c.budget.Status.DisruptionsAllowed != c.allowed {
			t.Errorf("%s: %v %q, %d allowed", c.name, err, cause.Message, c.budget.Status.DisruptionsAllowed)
		}
		if err != nil && !apierrors.IsTooManyRequests(err) {
			t.Errorf("%s: not a 429", c.name)
		}
	}
}
