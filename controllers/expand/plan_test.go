package expand

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

func TestWhoIsToExpand(t *testing.T) {
	amount := func(s string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(s)}
	}
	csi := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d"}}
	ebs := corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{}}
	nfs := corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}
	for name, c := range map[string]struct {
		asks   string
		source corev1.PersistentVolumeSource
		want   []string
	}{
		"enough":           {"1Gi", csi, nil},
		"csi":              {"2Gi", csi, []string{"Normal"}},
		"migrated":         {"2Gi", ebs, []string{"Normal", "resizer"}},
		"nobody can do it": {"2Gi", nfs, []string{"Warning"}},
	} {
		t.Run(name, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: amount(c.asks)}},
				Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: amount("1Gi")}}
			v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: c.source, ClaimRef: &corev1.ObjectReference{UID: "u"}}}
			var got []string
			for _, a := range Plan(claim, v) {
				switch a := a.(type) {
				case plan.Event:
					got = append(got, a.Type)
				case plan.Patch:
					got = append(got, "resizer")
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("%v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%v, want %v", got, c.want)
				}
			}
		})
	}
}
