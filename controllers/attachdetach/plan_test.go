package attachdetach

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func volume(mode corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{mode},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}}
}

func attachment(node string, attached bool) *storagev1.VolumeAttachment {
	name := "pv"
	return &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: AttachmentName("h", "d", node)},
		Spec:   storagev1.VolumeAttachmentSpec{Attacher: "d", NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &name}},
		Status: storagev1.VolumeAttachmentStatus{Attached: attached}}
}

func nodeOf(ready corev1.ConditionStatus, inUse ...corev1.UniqueVolumeName) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{VolumesInUse: inUse,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
}

// kinds names the actions: +attachment, -attachment, node status, event.
func kinds(actions []plan.Action) (out []string) {
	for _, a := range actions {
		switch a := a.(type) {
		case plan.Create:
			out = append(out, "attach "+a.Obj.(*storagev1.VolumeAttachment).Spec.NodeName)
		case plan.Delete:
			out = append(out, "detach")
		case plan.Update:
			out = append(out, "report")
		case plan.Event:
			out = append(out, a.Reason)
		}
	}
	return out
}

func TestPlan(t *testing.T) {
	pv := volume(corev1.ReadWriteOnce)
	used := uniqueName(pv)
	user := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	wanted := []Volume{{PV: pv, Pods: []*corev1.Pod{user}}}
	here, there := attachment("n1", true), attachment("n2", true)
	going := attachment("n1", true)
	going.DeletionTimestamp = &metav1.Time{Time: now}
	out := nodeOf(corev1.ConditionFalse, used)
	out.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	reported := nodeOf(corev1.ConditionTrue)
	reported.Status.VolumesAttached = []corev1.AttachedVolume{{Name: used}}
	for name, c := range map[string]struct {
		node      *corev1.Node
		wanted    []Volume
		have      []*storagev1.VolumeAttachment
		elsewhere []*storagev1.VolumeAttachment
		idle      time.Duration // for how long the attachment has not been wanted
		want      []string
		again     time.Duration
	}{
		"a pod needs it":                    {node: nodeOf("True"), wanted: wanted, want: []string{"attach n1"}},
		"it is there":                       {node: reported, wanted: wanted, have: []*storagev1.VolumeAttachment{here}},
		"the node is told":                  {node: nodeOf("True"), wanted: wanted, have: []*storagev1.VolumeAttachment{here}, want: []string{"report"}},
		"another node has it":               {node: nodeOf("True"), wanted: wanted, elsewhere: []*storagev1.VolumeAttachment{there}, want: []string{"FailedAttachVolume"}},
		"several may have it":               {node: nodeOf("True"), wanted: []Volume{{PV: volume(corev1.ReadWriteMany)}}, elsewhere: []*storagev1.VolumeAttachment{there}, want: []string{"attach n1"}},
		"nobody needs it: told, then freed": {node: reported, have: []*storagev1.VolumeAttachment{here}, want: []string{"report", "detach"}},
		"still mounted":                     {node: nodeOf("True", used), have: []*storagev1.VolumeAttachment{here}, want: []string{"report"}, again: unmountTimeout},
		"mounted for long, but alive":       {node: nodeOf("True", used), have: []*storagev1.VolumeAttachment{here}, idle: time.Hour, want: []string{"report"}, again: unmountTimeout},
		"mounted for long on a dead node":   {node: nodeOf("Unknown", used), have: []*storagev1.VolumeAttachment{here}, idle: time.Hour, want: []string{"detach"}},
		"mounted on a node out of service":  {node: out, have: []*storagev1.VolumeAttachment{here}, want: []string{"detach"}},
		"the node is gone":                  {have: []*storagev1.VolumeAttachment{here}, want: []string{"detach"}},
		"on its way out":                    {node: nodeOf("True"), have: []*storagev1.VolumeAttachment{going}},
	} {
		t.Run(name, func(t *testing.T) {
			actions, again := Plan(Input{Name: "n1", Node: c.node, Wanted: c.wanted, Attachments: c.have, Now: now,
				Elsewhere: func(string) []*storagev1.VolumeAttachment { return c.elsewhere },
				Users:     func(*corev1.PersistentVolume) []*corev1.Pod { return nil },
				Volume:    func(string) (*corev1.PersistentVolume, bool) { return pv, true },
				Unwanted:  func(string) time.Time { return now.Add(-c.idle) }})
			got := kinds(actions)
			if len(got) != len(c.want) || again != c.again {
				t.Fatalf("%v again in %v, want %v in %v", got, again, c.want, c.again)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%v, want %v", got, c.want)
				}
			}
		})
	}
}
