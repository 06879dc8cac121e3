package core

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func classFor(name, resource string, age time.Duration) *resourcev1.DeviceClass {
	return &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age))},
		Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: &resource}}
}

func (c *Cluster) hintFor(p *Pod) string {
	d := Decision{cluster: c}
	return d.Hint(p, "none")
}

func TestStandInRequests(t *testing.T) {
	c := makeCluster(classFor("gpu", "example.com/gpu", 0), classFor("nic", "example.com/nic", 0))
	container := func(name string, pairs ...string) corev1.Container {
		return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: list(pairs...)}}
	}
	sidecar := func(c corev1.Container) corev1.Container {
		c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		return c
	}
	for name, test := range map[string]struct {
		init, main []corev1.Container
		want, uses []string
	}{
		"one": {main: []corev1.Container{container("a", "cpu", "1", "example.com/gpu", "2")},
			want: []string{"container-0-request-1 2 gpu"}, uses: []string{"a container-0-request-1"}},
		"two resources": {main: []corev1.Container{container("a", "example.com/gpu", "1"), container("b", "example.com/gpu", "1", "example.com/nic", "1")},
			want: []string{"container-0-request-0 1 gpu", "container-1-request-0 1 gpu", "container-1-request-1 1 nic"},
			uses: []string{"a container-0-request-0", "b container-1-request-0", "b container-1-request-1"}},
		"an init container uses what comes after it": {
			init: []corev1.Container{container("i", "example.com/gpu", "1")}, main: []corev1.Container{container("a", "example.com/gpu", "2")},
			want: []string{"container-1-request-0 2 gpu"}, uses: []string{"a container-1-request-0", "i container-1-request-0"}},
		"and asks for the rest": {
			init: []corev1.Container{container("i", "example.com/gpu", "3"), container("j", "example.com/gpu", "4")}, main: []corev1.Container{container("a", "example.com/gpu", "2")},
			want: []string{"container-1-request-0 2 gpu", "container-2-request-0 2 gpu"},
			uses: []string{"a container-2-request-0", "i container-1-request-0", "i container-2-request-0", "j container-1-request-0", "j container-2-request-0"}},
		"but not what runs already": {
			init: []corev1.Container{sidecar(container("s", "example.com/gpu", "1")), container("i", "example.com/gpu", "1")},
			want: []string{"container-0-request-0 1 gpu", "container-1-request-0 1 gpu"},
			uses: []string{"i container-1-request-0", "s container-0-request-0"}},
	} {
		p := makePod("p")
		p.Spec.InitContainers, p.Spec.Containers = test.init, test.main
		claim, uses := c.standIn(p, []corev1.ResourceName{"example.com/gpu", "example.com/nic"})
		var got, used []string
		for _, r := range claim.Spec.Devices.Requests {
			got = append(got, fmt.Sprint(r.Name, " ", r.Exactly.Count, " ", r.Exactly.DeviceClassName))
		}
		for _, u := range uses {
			used = append(used, u.ContainerName+" "+u.RequestName)
		}
		slices.Sort(used)
		if !slices.Equal(got, test.want) || !slices.Equal(used, test.uses) {
			t.Errorf("%s: requests %q, used %q", name, got, used)
		}
	}
}

func TestExtendedResourcesFromDevices(t *testing.T) {
	plugin := func(n *corev1.Node) { n.Status.Allocatable["example.com/gpu"] = list("n", "1")["n"] }
	c := makeCluster(makeNode("devices"), makeNode("plugin", plugin), makeNode("none"), deviceSlice("devices", 2))
	wants := asks("cpu", "1", "example.com/gpu", "1")
	place := func(name string) Decision {
		t.Helper()
		p := c.Pod(makePod(name, wants), DefaultProfile())
		d := c.Decide(p)
		if d.Node != "" {
			c.Promise(&d)
			c.Assume(p, d.Node)
		}
		return d
	}
	if d := place("first"); d.Node != "plugin" || len(d.Devices()) != 0 {
		t.Fatal("without a class only a plug-in's count:", d.Node, d.Message(""))
	}
	p := c.Pod(makePod("waits", wants), DefaultProfile())
	if d := c.Decide(p); d.Message("") != "0/3 nodes are available: 3 Insufficient example.com/gpu." {
		t.Fatal(d.Message(""))
	}
	if got := c.hintFor(p); got != "no new claims to deallocate, preemption: none" {
		t.Error(got)
	}
	c.Set(classFor("old", "example.com/gpu", time.Hour))
	if got := c.hintFor(p); got != "still not schedulable, preemption: none" {
		t.Error(got)
	}
	c.Set(classFor("new", "example.com/gpu", 0))
	if !c.Accepts(p, "devices") || c.Accepts(p, "none") {
		t.Error("a pod that waits is not told of the class")
	}
	d := place("second")
	if d.Node != "devices" || len(d.Devices()) != 1 || d.Devices()[0].Claim.Spec.Devices.Requests[0].Exactly.DeviceClassName != "new" || len(d.Devices()[0].Uses) != 1 {
		t.Fatal("on", d.Node, d.Message(""), d.Devices())
	}
	place("third")
	if d := place("fourth"); d.Message("") != "0/3 nodes are available: 1 Insufficient example.com/gpu, 2 cannot allocate all claims." {
		t.Error(d.Message(""))
	}

	// The claim is written, and its devices are counted once; they are free when it is gone.
	written := d.Devices()[0].Claim.DeepCopy()
	written.Name, written.UID = "second-extended-resources-x", "written"
	written.Status.Allocation = d.Devices()[0].Allocation
	c.Set(written)
	c.Release(&d)
	if d := place("fifth"); d.Node != "" {
		t.Error("a device is given twice")
	}
	if d := c.decide(makePod("second", wants)); d.Node != "" || !d.RefusedBy()[DynamicResources] {
		t.Error("a pod with a claim left over is not held back:", d.Node, d.Message(""))
	}
	c.Delete(written)
	if d := place("sixth"); d.Node != "devices" {
		t.Error("a device that was given back is not free:", d.Message(""))
	}
	c.Delete(makePod("third", wants))
	if d := place("seventh"); d.Node != "devices" {
		t.Error("a pod that is gone keeps its device:", d.Message(""))
	}
}
