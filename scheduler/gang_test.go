package scheduler

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha2 "k8s.io/api/scheduling/v1alpha2"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api/scheduling"
	"github.com/skiff-sh/skiff/client"
)

func inGroup(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: &name} }
}

// group creates a pod group that needs so many pods; 0: it is no gang.
func (b *bench) group(name string, needs int32) {
	b.t.Helper()
	g := &schedulingv1alpha2.PodGroup{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
	if needs > 0 {
		g.Spec.SchedulingPolicy.Gang = &schedulingv1alpha2.GangSchedulingPolicy{MinCount: needs}
	} else {
		g.Spec.SchedulingPolicy.Basic = &schedulingv1alpha2.BasicSchedulingPolicy{}
	}
	if _, err := b.Create(b.ctx, scheduling.PodGroup, g, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// join creates pods as a server does that has the gate on.
func (b *bench) join(pods ...*corev1.Pod) {
	b.t.Helper()
	row := *client.KindOf[*corev1.Pod]()
	row.PrepareCreate, row.PrepareUpdate = nil, nil
	for _, p := range pods {
		if _, err := b.Create(b.ctx, &row, p, metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// groupSays is the status and reason of a group's condition.
func (b *bench) groupSays(name string) string {
	b.t.Helper()
	time.Sleep(time.Millisecond)
	o, err := b.Get(b.ctx, scheduling.PodGroup, "ns", name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	c := apimeta.FindStatusCondition(o.(*schedulingv1alpha2.PodGroup).Status.Conditions, schedulingv1alpha2.PodGroupScheduled)
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason + " " + c.Message
}

func TestGangIsPlacedTogether(t *testing.T) {
	run(t, Config{Gangs: true}, func(b *bench) {
		b.join(pod("one", "1", inGroup("g")), pod("two", "1", inGroup("g")))
		b.on("one", "") // there is no group
		b.group("g", 3)
		b.on("two", "") // there are too few
		if got := b.message("one"); got != "" {
			t.Error("a pod that is held back is told", got)
		}
		b.join(pod("three", "1", inGroup("g")))
		for _, name := range []string{"one", "two", "three"} {
			b.on(name, "a")
		}
		if got := b.groupSays("g"); got != "True Scheduled " {
			t.Error(got)
		}
		b.join(pod("more", "1", inGroup("g")), pod("too-many", "1", inGroup("g")))
		b.on("more", "a")
		b.on("too-many", "")
		if got := b.groupSays("g"); got != "True Scheduled " {
			t.Error("a pod that came later took the group's condition away:", got)
		}
	}, node("a", "4"))
}

func TestGangWaitsForRoom(t *testing.T) {
	run(t, Config{Gangs: true}, func(b *bench) {
		b.group("g", 3)
		b.join(pod("one", "1", inGroup("g")), pod("two", "1", inGroup("g")), pod("three", "1", inGroup("g")))
		said := map[string]int{}
		for _, name := range []string{"one", "two", "three"} {
			b.on(name, "")
			said[b.message(name)]++
		}
		full := "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
		if said["Unschedulable: "+tooFew] != 2 || said[full] != 1 {
			t.Errorf("the pods say %v", said)
		}
		if got := b.groupSays("g"); got != "False Unschedulable pod group is unschedulable" {
			t.Error(got)
		}
		b.create(pod("other", "2")) // what the group took for a moment is free
		b.on("other", "a")
		b.create(node("b", "4"))
		time.Sleep(15 * time.Second)
		for _, name := range []string{"one", "two", "three"} {
			b.on(name, "b")
		}
	}, node("a", "2"))
}

func TestGangMakesRoom(t *testing.T) {
	run(t, Config{Gangs: true}, func(b *bench) {
		b.create(pod("low", "2", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "a"} }))
		b.on("low", "a")
		b.group("g", 2)
		important := func(p *corev1.Pod) { n := int32(10); p.Spec.Priority = &n }
		b.join(pod("one", "2", inGroup("g"), important), pod("two", "2", inGroup("g"), important))
		b.on("one", "")
		b.on("two", "")
		if got := b.groupSays("g"); got != "False Unschedulable pod group is unschedulable, pod group is waiting for preemption to complete" {
			t.Error(got)
		}
		low := b.pod("low")
		if low.DeletionTimestamp == nil {
			t.Fatal("nobody leaves; ", b.message("two"))
		}
		b.remove(low)
		time.Sleep(15 * time.Second)
		b.on("one", "b")
		b.on("two", "a")
	}, node("a", "2"), node("b", "2"))
}

func TestGroupThatIsNoGang(t *testing.T) {
	run(t, Config{Gangs: true}, func(b *bench) {
		b.group("g", 0)
		b.join(pod("one", "1", inGroup("g")), pod("two", "2", inGroup("g")))
		b.on("one", "a")
		b.on("two", "")
	}, node("a", "2"))
	run(t, Config{}, func(b *bench) { // without the gate, groups mean nothing
		b.join(pod("one", "1", inGroup("g")))
		b.on("one", "a")
	}, node("a", "2"))
}
