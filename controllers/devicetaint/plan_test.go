package devicetaint

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestEvictionByDeviceTaints(t *testing.T) {
	taint := resourcev1.DeviceTaint{Key: "broken", Value: "yes", Effect: resourcev1.DeviceTaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now.Add(-10 * time.Second)}}
	schedule := taint
	schedule.Effect = resourcev1.DeviceTaintEffectNoSchedule
	tolerate := func(key string, seconds *int64) []resourcev1.DeviceToleration {
		return []resourcev1.DeviceToleration{{Key: key, Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoExecute, TolerationSeconds: seconds}}
	}
	for name, c := range map[string]struct {
		taints      []resourcev1.DeviceTaint
		tolerations []resourcev1.DeviceToleration
		evicts      bool
		again       time.Duration
	}{
		"no taint":                {},
		"only for new pods":       {taints: []resourcev1.DeviceTaint{schedule}},
		"not tolerated":           {taints: []resourcev1.DeviceTaint{taint}, evicts: true},
		"tolerated":               {taints: []resourcev1.DeviceTaint{taint}, tolerations: tolerate("broken", nil)},
		"another is tolerated":    {taints: []resourcev1.DeviceTaint{taint}, tolerations: tolerate("hot", nil), evicts: true},
		"tolerated for a while":   {taints: []resourcev1.DeviceTaint{taint}, tolerations: tolerate("broken", ptr.To[int64](30)), again: 20 * time.Second},
		"tolerated for too short": {taints: []resourcev1.DeviceTaint{taint}, tolerations: tolerate("broken", ptr.To[int64](5)), evicts: true},
	} {
		t.Run(name, func(t *testing.T) {
			claim := &resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
				Results: []resourcev1.DeviceRequestAllocationResult{{Device: "d", Tolerations: c.tolerations}}}}}}
			actions, again := Plan(&corev1.Pod{}, []*resourcev1.ResourceClaim{claim},
				func(resourcev1.DeviceRequestAllocationResult) []resourcev1.DeviceTaint { return c.taints }, now)
			if len(actions) > 0 != c.evicts || again != c.again {
				t.Errorf("%d actions, again in %v, want evicted %v, again in %v", len(actions), again, c.evicts, c.again)
			}
		})
	}
}
