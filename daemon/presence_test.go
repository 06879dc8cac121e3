package daemon

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLapsed(t *testing.T) {
	now := time.Now()
	hour := int32(3600)
	at := func(ago time.Duration) *metav1.MicroTime { return &metav1.MicroTime{Time: now.Add(-ago)} }
	for _, c := range []struct {
		name string
		spec coordinationv1.LeaseSpec
		want bool
	}{
		{"renewed", coordinationv1.LeaseSpec{RenewTime: at(0), LeaseDurationSeconds: &hour}, false},
		{"nearly over", coordinationv1.LeaseSpec{RenewTime: at(59 * time.Minute), LeaseDurationSeconds: &hour}, false},
		{"over", coordinationv1.LeaseSpec{RenewTime: at(61 * time.Minute), LeaseDurationSeconds: &hour}, true},
		{"never renewed", coordinationv1.LeaseSpec{LeaseDurationSeconds: &hour}, true},
		{"without an end", coordinationv1.LeaseSpec{RenewTime: at(0)}, true},
	} {
		if got := lapsed(&coordinationv1.Lease{Spec: c.spec}, now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
